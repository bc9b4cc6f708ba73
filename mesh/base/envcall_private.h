/* What the single question (envcall.c) and the watch (envwatch.c) share. */
#pragma once
#include <amp/amp.h>

struct bus_inbox;

/* Publishes on amp.env.<verb>.<from>, which is written to ret_subject. AMP_INVALID without a verb or with a bad sender, and the errors of the bus. */
AMP_MUST_USE enum amp_code env_request_publish(struct bus_inbox *inbox, const char *from, const Amp__EnvRequest *request,
                                               char ret_subject[AMP_SUBJECT_SIZE]);
void env_error_none(struct amp_error *err);
void env_error_denied(struct amp_error *err, const char *subject, const char *text);

/* Blobs (amp.md 15) in what an environment is given. */
#pragma once
#include <amp/amp.h>

/* AMP_UNSUPPORTED if the message (NULL has none) has one: nothing that is durable may depend on a holder that goes (amp.md 15.6). */
AMP_MUST_USE enum amp_code blob_check_none(const Amp__Message *message, const char *field, struct amp_error *reterr);

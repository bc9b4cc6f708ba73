/* One envelope onto the bus: encode and ask. */
#pragma once
#include <amp/amp.h>

struct bus;
struct bus_inbox;

/* Encodes as protobuf and publishes with `inbox` as reply. Errors of amp_encode and of bus_inbox_request. */
AMP_MUST_USE enum amp_code bus_envelope_request(struct bus_inbox *inbox, const char *subject, const Amp__Envelope *envelope);
/* The envelope of a control message; `from` may be NULL. */
AMP_MUST_USE enum amp_code bus_control_request(struct bus_inbox *inbox, const char *subject, const char *from, const Amp__Control *control);
/* The same without a reply: nobody answers. */
AMP_MUST_USE enum amp_code bus_control_publish(struct bus *bus, const char *subject, const char *from, const Amp__Control *control);

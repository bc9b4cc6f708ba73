#include "base/bus_envelope.h"

#include "base/bus.h"

enum amp_code bus_envelope_request(struct bus_inbox *inbox, const char *subject, const Amp__Envelope *envelope)
{
    struct amp_buf wire;
    amp_buf_init(&wire, AMP_WIRE_BYTES_MAX);
    enum amp_code code = amp_encode(&envelope->base, AMP_PROTOBUF, &wire, NULL);
    if (code == AMP_OK) {
        code = bus_inbox_request(inbox, subject, amp_buf_bytes(&wire));
    }
    amp_buf_done(&wire);
    return code;
}

static Amp__Envelope control_envelope(const char *from, const Amp__Control *control)
{
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.from = (char *)from;
    envelope.body_case = AMP__ENVELOPE__BODY_CONTROL;
    envelope.control = (Amp__Control *)control;
    return envelope;
}

enum amp_code bus_control_request(struct bus_inbox *inbox, const char *subject, const char *from, const Amp__Control *control)
{
    const Amp__Envelope envelope = control_envelope(from, control);
    return bus_envelope_request(inbox, subject, &envelope);
}

enum amp_code bus_control_publish(struct bus *bus, const char *subject, const char *from, const Amp__Control *control)
{
    const Amp__Envelope envelope = control_envelope(from, control);
    struct amp_buf wire;
    amp_buf_init(&wire, AMP_WIRE_BYTES_MAX);
    enum amp_code code = amp_encode(&envelope.base, AMP_PROTOBUF, &wire, NULL);
    if (code == AMP_OK) {
        code = bus_publish(bus, subject, NULL, amp_buf_bytes(&wire));
    }
    amp_buf_done(&wire);
    return code;
}

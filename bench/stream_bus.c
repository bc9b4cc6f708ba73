/* A reader of a stream by hand on the bus, with credit as the protocol asks (window and confirmations), or as its control without any.
 *   stream_bus URL AGENT COUNT WINDOW_BYTES     0: no credit */
#include "stream.h"

#include <amp/amp.h>
#include "base/bus.h"
#include "base/bus_envelope.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"

static struct loop *loop;
static struct bus *bus;
static struct records records;
static char control_subject[AMP_SUBJECT_SIZE], task_id[AMP_ID_SIZE];
static uint64_t received_bytes, confirmed_bytes, window_bytes;
static size_t wanted;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "stream_bus: %s: %s\n", what, why);
    exit(1);
}

static void confirm(void)
{
    Amp__Ping ping = AMP__PING__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    ping.has_received_bytes = true;
    ping.received_bytes = confirmed_bytes = received_bytes;
    control.kind_case = AMP__CONTROL__KIND_PING;
    control.ping = &ping;
    if (bus_control_publish(bus, control_subject, "bench", &control) != AMP_OK)
        die("confirm", "the bus is away");
}

static void take_frame(const Amp__Frame *frame, size_t size)
{
    if (!*control_subject)
        snprintf(control_subject, sizeof control_subject, "amp.ctl.%s.%s", frame->instance, task_id);
    for (size_t i = 0; i < frame->n_events; i++)
        records_take(&records, (const char *)frame->events[i]->body->text.data, frame->events[i]->body->text.len);
    received_bytes += frame->n_events > 0 ? size : 0;
    if (window_bytes && received_bytes - confirmed_bytes >= window_bytes / 4)
        confirm();
    if (frame->end)
        loop_stop(loop, 0);
}

static void on_reply(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    if (kind != BUS_INBOX_MSG)
        die("request", "nobody is there");
    struct amp_arena arena;
    Amp__Envelope *envelope;
    enum amp_encoding encoding;
    struct amp_error err = {.code = AMP_OK};
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    if (amp_envelope_decode(msg->data, 1u << AMP__ENVELOPE__BODY_FRAME | 1u << AMP__ENVELOPE__BODY_REPLY, &arena, &envelope, &encoding, &err) != AMP_OK)
        die("frame", err.message);
    if (envelope->body_case != AMP__ENVELOPE__BODY_FRAME)
        die("request", envelope->reply->error ? envelope->reply->error->message : "no frame");
    take_frame(envelope->frame, msg->data.len);
    amp_arena_done(&arena);
}

static void ask(struct bus_inbox *inbox, const char *agent)
{
    char text[40], context[AMP_ID_SIZE], message_id[AMP_ID_SIZE], subject[AMP_SUBJECT_SIZE];
    snprintf(text, sizeof text, "%zu 0", wanted);
    snprintf(subject, sizeof subject, "amp.req.%s.bench", agent);
    amp_id_new('t', clock_unix_ms(), task_id);
    amp_id_new('c', clock_unix_ms(), context);
    amp_id_new('m', clock_unix_ms(), message_id);
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    part.text = text;
    Amp__Message message = AMP__MESSAGE__INIT;
    message.message_id = message_id;
    message.has_role = 1;
    message.role = AMP__ROLE__ROLE_USER;
    message.n_parts = 1;
    message.parts = parts;
    Amp__Request request = AMP__REQUEST__INIT;
    request.task_id = task_id;
    request.context_id = context;
    request.message = &message;
    request.has_window_bytes = window_bytes > 0;
    request.window_bytes = (uint32_t)window_bytes;
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.from = (char *)"bench";
    envelope.body_case = AMP__ENVELOPE__BODY_REQUEST;
    envelope.request = &request;
    if (bus_envelope_request(inbox, subject, &envelope) != AMP_OK)
        die("request", "not sent");
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    log_init(LOG_WARN, "stream_bus");
    wanted = strtoul(argv[3], NULL, 10);
    window_bytes = strtoul(argv[4], NULL, 10);
    loop = loop_new();
    struct amp_error err;
    struct bus_options options = {.url = argv[1], .name = "bench"};
    if (bus_new(loop, &options, &bus, &err) != AMP_OK)
        die("connect", err.message);
    struct bus_inbox *inbox = bus_inbox_new(bus, on_reply, NULL);
    ask(inbox, argv[2]);
    int status = loop_run(loop);
    double seconds = (double)(records.last_ns - records.first_ns) / 1e9;
    printf("{\"received\":%zu,\"lost\":%zu,\"out_of_order\":%zu,\"rate\":%.0f}\n", records.received, wanted - records.received, records.out_of_order, (double)records.received / seconds);
    bus_inbox_free(inbox);
    bus_free(bus);
    loop_free(loop);
    return status;
}

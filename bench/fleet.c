/* Many instances in one process: each is subscribed as a sidecar is (amp.md 2.3, 13), beats as one does (9.1), and answers what it is asked, though it has no agent.
 *   fleet URL AGENTS INSTANCES INTERVAL_MS      INSTANCES of each of AGENTS agents, beating every INTERVAL_MS, evenly spread over it
 * Prints "ready" when all are known to the server and have beaten once with their card. A line "change" on stdin makes one of them say that it is full, or free again. */
#include "measure.h"

#include <amp/amp.h>
#include <nats/nats.h>
#include <poll.h>
#include <stdbool.h>
#include <stdatomic.h>

enum { CARD_GAP_US = 100, SLOTS = 64 };

struct instance {
    char agent[AMP_NAME_MAX + 1], name[AMP_ID_SIZE];
    bool is_full;
};

static natsConnection *nc;
static struct instance *all;
static size_t count;
static uint32_t interval_ms;
static int64_t since_unix_ms;
static atomic_ulong answered;

static void must(natsStatus status, const char *what)
{
    if (status != NATS_OK) {
        fprintf(stderr, "fleet: %s: %s\n", what, natsStatus_GetText(status));
        exit(1);
    }
}

static int64_t unix_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static void fill(const struct instance *it, Amp__Beat *beat, Amp__Timestamp *since)
{
    amp__beat__init(beat);
    amp__timestamp__init(since);
    since->unix_ms = since_unix_ms;
    beat->agent = (char *)it->agent;
    beat->instance = (char *)it->name;
    beat->has_state = beat->has_slots = beat->has_free = beat->has_inflight = beat->has_sidecar_pid = beat->has_interval_ms = true;
    beat->state = AMP__INSTANCE_STATE__INSTANCE_STATE_UP;
    beat->slots = SLOTS;
    beat->free = it->is_full ? 0 : SLOTS;
    beat->inflight = it->is_full ? SLOTS : 0;
    beat->since = beat->last_progress = since;
    beat->host = (char *)"fleet";
    beat->sidecar_pid = getpid();
    beat->interval_ms = interval_ms;
    beat->version = (char *)amp_version();
    beat->retry = (char *)"safe";
}

static void say(const char *subject, enum amp_encoding encoding, Amp__Envelope *envelope)
{
    struct amp_buf buf;
    struct amp_error err;
    amp_buf_init(&buf, 1 << 20);
    envelope->version = 1;
    if (amp_encode(&envelope->base, encoding, &buf, &err) != AMP_OK) {
        fprintf(stderr, "fleet: %s\n", err.message);
        exit(1);
    }
    must(natsConnection_Publish(nc, subject, amp_buf_bytes(&buf).data, (int)amp_buf_bytes(&buf).len), "publish");
    amp_buf_done(&buf);
}

static void beat(const struct instance *it, bool with_card)
{
    char subject[AMP_SUBJECT_SIZE];
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    Amp__Timestamp since;
    Amp__Beat body;
    Amp__AgentSkill skill = AMP__AGENT_SKILL__INIT, *skills[] = {&skill};
    Amp__AgentCard card = AMP__AGENT_CARD__INIT;
    char *modes[] = {(char *)"text/plain"};
    fill(it, &body, &since);
    skill.id = skill.name = (char *)"fleet-work";
    skill.description = (char *)"what all of them can";
    card.name = (char *)it->agent;
    card.description = (char *)"one of many";
    card.version = (char *)"1";
    card.n_skills = 1;
    card.skills = skills;
    card.n_default_input_modes = card.n_default_output_modes = 1;
    card.default_input_modes = card.default_output_modes = modes;
    body.card = with_card ? &card : NULL;
    envelope.body_case = AMP__ENVELOPE__BODY_BEAT;
    envelope.beat = &body;
    if (amp_subject_build(AMP_SUBJECT_HB, it->agent, it->name, NULL, subject, NULL) != AMP_OK)
        exit(1);
    say(subject, AMP_JSON, &envelope);
}

/* An answer without an agent: the task is done as soon as it is here. */
static void work(const struct instance *it, const char *inbox, enum amp_encoding encoding, const Amp__Request *request)
{
    char text[512], subject[AMP_SUBJECT_SIZE], time[AMP_TIME_SIZE];
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    Amp__Frame frame = AMP__FRAME__INIT;
    Amp__Event event = AMP__EVENT__INIT, *events[] = {&event};
    Amp__Json body = AMP__JSON__INIT;
    Amp__End end = AMP__END__INIT;
    amp_time_format(unix_ms(), time);
    int len = snprintf(text, sizeof text, "{\"statusUpdate\":{\"taskId\":\"%s\",\"contextId\":\"%s\",\"status\":{\"state\":\"TASK_STATE_COMPLETED\",\"timestamp\":\"%s\"}}}", request->task_id, request->context_id,
                       time);
    body.text = (ProtobufCBinaryData){.data = (uint8_t *)text, .len = (size_t)len};
    event.body = &body;
    frame.task_id = request->task_id;
    frame.context_id = request->context_id;
    frame.agent = (char *)it->agent;
    frame.instance = (char *)it->name;
    frame.has_attempt = true;
    frame.attempt = request->has_attempt ? request->attempt : 1;
    frame.seq = 1;
    frame.n_events = 1;
    frame.events = events;
    end.count = 1;
    frame.end = &end;
    envelope.body_case = AMP__ENVELOPE__BODY_FRAME;
    envelope.frame = &frame;
    say(inbox, encoding, &envelope);
    if (amp_subject_build(AMP_SUBJECT_EVT, request->context_id, request->task_id, NULL, subject, NULL) == AMP_OK)
        say(subject, AMP_JSON, &envelope);
    atomic_fetch_add(&answered, 1);
}

static void reply(const struct instance *it, const char *inbox, enum amp_encoding encoding)
{
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    Amp__Reply body = AMP__REPLY__INIT;
    Amp__Timestamp since;
    Amp__Beat own;
    fill(it, &own, &since);
    body.beat = &own;
    envelope.body_case = AMP__ENVELOPE__BODY_REPLY;
    envelope.reply = &body;
    say(inbox, encoding, &envelope);
}

static void on_msg(natsConnection *conn, natsSubscription *sub, natsMsg *msg, void *ctx)
{
    struct amp_arena arena;
    Amp__Envelope *envelope;
    enum amp_encoding encoding;
    struct amp_bytes wire = {.data = (const uint8_t *)natsMsg_GetData(msg), .len = (size_t)natsMsg_GetDataLength(msg)};
    const char *inbox = natsMsg_GetReply(msg);
    (void)conn, (void)sub;
    amp_arena_init(&arena, 4u << 20);
    if (amp_envelope_decode(wire, 0, &arena, &envelope, &encoding, NULL) == AMP_OK) {
        if (envelope->body_case == AMP__ENVELOPE__BODY_REQUEST && inbox)
            work(ctx, inbox, encoding, envelope->request);
        else if (inbox)
            reply(ctx, inbox, encoding);
        else
            beat(ctx, true);
    }
    amp_arena_done(&arena);
    natsMsg_Destroy(msg);
}

static void listen_on(struct instance *it, const char *subject, const char *queue)
{
    natsSubscription *sub;
    if (queue)
        must(natsConnection_QueueSubscribe(&sub, nc, subject, queue, on_msg, it), subject);
    else
        must(natsConnection_Subscribe(&sub, nc, subject, on_msg, it), subject);
}

static void hear(struct instance *it, enum amp_subject_kind kind, const char *a, const char *b, const char *queue)
{
    char subject[AMP_SUBJECT_SIZE];
    if (amp_subject_build(kind, a, b, kind == AMP_SUBJECT_REQ_INST ? "*" : NULL, subject, NULL) != AMP_OK)
        exit(1);
    listen_on(it, subject, queue);
}

static void join(struct instance *it, size_t agent)
{
    static const char *const verbs[] = {"PING", "INFO", "STATS"};
    char subject[AMP_SUBJECT_SIZE];
    snprintf(it->agent, sizeof it->agent, "fleet-%zu", agent);
    amp_id_new('i', unix_ms(), it->name);
    hear(it, AMP_SUBJECT_REQ, it->agent, "*", AMP_QUEUE_GROUP);
    hear(it, AMP_SUBJECT_SKILL, "fleet-work", "*", AMP_QUEUE_GROUP);
    hear(it, AMP_SUBJECT_WHO, it->agent, NULL, AMP_QUEUE_GROUP);
    hear(it, AMP_SUBJECT_WHO_SKILL, "fleet-work", NULL, AMP_QUEUE_GROUP);
    hear(it, AMP_SUBJECT_REQ_INST, it->agent, it->name, NULL);
    hear(it, AMP_SUBJECT_CTL, it->name, "*", NULL);
    hear(it, AMP_SUBJECT_WHO_ALL, NULL, NULL, NULL);
    for (size_t i = 0; i < 3; i++) {
        snprintf(subject, sizeof subject, "$SRV.%s", verbs[i]);
        listen_on(it, subject, NULL);
        snprintf(subject, sizeof subject, "$SRV.%s.%s", verbs[i], it->agent);
        listen_on(it, subject, NULL);
        snprintf(subject, sizeof subject, "$SRV.%s.%s.%s", verbs[i], it->agent, it->name);
        listen_on(it, subject, NULL);
    }
}

static void change(void)
{
    static size_t next;
    if (count == 0)
        return;
    struct instance *it = &all[next++ % count];
    it->is_full = !it->is_full;
    beat(it, false);
    printf("changed %s\n", it->agent);
    fflush(stdout);
}

/* Until `due_ns`, or the end of stdin. */
static void rest(int64_t due_ns)
{
    for (int64_t left; (left = due_ns - measure_now_ns()) > 0;) {
        struct pollfd in = {.fd = 0, .events = POLLIN};
        char line[64];
        if (poll(&in, 1, (int)(left / 1000000)) <= 0) {
            if (left < 1000000)
                return;
            continue;
        }
        ssize_t len = read(0, line, sizeof line);
        if (len <= 0)
            exit(0);
        if (strncmp(line, "change", 6) == 0)
            change();
    }
}

static void beat_for_ever(void)
{
    for (int64_t began_ns = measure_now_ns();; began_ns += (int64_t)interval_ms * 1000000) {
        for (size_t i = 0; i < count; i++) {
            rest(began_ns + (int64_t)interval_ms * 1000000 * (int64_t)i / (int64_t)count);
            beat(&all[i], false);
        }
        rest(began_ns + (int64_t)interval_ms * 1000000);
    }
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    size_t agents = strtoul(argv[2], NULL, 10), each = strtoul(argv[3], NULL, 10);
    natsOptions *options;
    since_unix_ms = unix_ms();
    interval_ms = (uint32_t)strtoul(argv[4], NULL, 10);
    must(natsOptions_Create(&options), "options");
    must(natsOptions_SetURL(options, argv[1]), "url");
    must(natsOptions_UseGlobalMessageDelivery(options, true), "delivery");
    must(natsConnection_Connect(&nc, options), "connect");
    count = agents * each;
    all = calloc(count ? count : 1, sizeof *all);
    for (size_t i = 0; i < count; i++)
        join(&all[i], i % agents);
    must(natsConnection_FlushTimeout(nc, 120000), "flush");
    for (size_t i = 0; i < count; i++) {
        beat(&all[i], true);
        rest(measure_now_ns() + CARD_GAP_US * INT64_C(1000));
    }
    must(natsConnection_FlushTimeout(nc, 120000), "flush");
    puts("ready");
    fflush(stdout);
    if (count > 0)
        beat_for_ever();
    rest(INT64_MAX);
    return 0;
}

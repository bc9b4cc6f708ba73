/* amp.env.<verb>.<from>: decodes a request, finds its verb, answers in kind. */
#include "schedules.h"
#include "turns_verb.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/seeded.h"

#include <stdlib.h>
#include <string.h>

#define FULL_MS 100u /* until somebody whose answer had no room should come back, with as much jitter */

static const struct {
    Amp__EnvRequest__VerbCase verb;
    const char *name;
    void (*run)(const struct ask *ask);
    bool reads_tasks;
    bool is_large; /* its answer may be: in turn with other senders' */
} verbs[] = {
    {AMP__ENV_REQUEST__VERB_SUBMIT, "submit", submit_verb, false, false},
    {AMP__ENV_REQUEST__VERB_GET, "get", query_get, true, true},
    {AMP__ENV_REQUEST__VERB_LIST, "list", query_list, true, true},
    {AMP__ENV_REQUEST__VERB_WATCH, "watch", watch_verb, true, true},
    {AMP__ENV_REQUEST__VERB_COMMAND, "command", control_verb, false, false},
    {AMP__ENV_REQUEST__VERB_HISTORY, "history", query_history, true, true},
    {AMP__ENV_REQUEST__VERB_KV, "kv", kv_verb, false, false},
    {AMP__ENV_REQUEST__VERB_AGENTS, "agents", agents_verb, false, true},
    {AMP__ENV_REQUEST__VERB_PING, "ping", query_ping, false, false},
    {AMP__ENV_REQUEST__VERB_INBOX, "inbox", inbox_verb, false, true},
    {AMP__ENV_REQUEST__VERB_FORK, "fork", fork_verb, true, false},
    {AMP__ENV_REQUEST__VERB_RETRY, "retry", submit_retry_verb, true, false},
    {AMP__ENV_REQUEST__VERB_REPORT, "report", lease_report_verb, false, false},
    {AMP__ENV_REQUEST__VERB_WAIT, "wait", turns_wait_verb, false, false},
    {AMP__ENV_REQUEST__VERB_NEXT, "next", turns_next_verb, false, false},
    {AMP__ENV_REQUEST__VERB_SCHEDULE, "schedule", schedules_verb, true, false},
};

size_t env_payload_max(const struct env *env)
{
    size_t max = bus_info(env->bus)->payload_max;
    return max == 0 || max > AMP_WIRE_BYTES_MAX ? AMP_WIRE_BYTES_MAX : max;
}

/* ---- what readers are told is on the disk ----------------------------------------------------------------------------- */

/* What was read cannot leave: that is said in few words, for which room is kept. */
static void refuse_full(struct env *env, const char *reply, enum amp_encoding encoding)
{
    struct amp_error err = {0};
    amp_error_set(&err, AMP_OVERLOADED, "", "more waits to leave than the bus takes");
    err.retry_after_ms = FULL_MS + env_random(env) % FULL_MS;
    counter_add(COUNTER_env_full_refused, 1);
    env_refuse(env, reply, encoding, &err);
}

/* Of env->out, to who is answered. */
static struct told *told_new(struct env *env, const char *reply, enum amp_encoding encoding)
{
    const struct reads_hand *hand = &env->reads.hand;
    struct told *told = xcalloc(1, sizeof *told + env->out.len);
    *told = (struct told){.env = env, .encoding = encoding, .is_large = hand->is_large, .reader = hand->reader, .reply = xstrdup(reply), .len = env->out.len};
    memcpy(told->data, env->out.data, env->out.len);
    return told;
}

void verbs_told_free(struct told *told)
{
    free(told->reply);
    free(told);
}

static enum amp_code hand_over(struct env *env, const char *reply, const struct reads_hand *to, struct amp_bytes bytes)
{
    enum amp_code code = bus_publish(env->bus, reply, NULL, bytes);
    if (code == AMP_OK && to->reader)
        (to->is_large ? reads_sent : reads_told)(env, to->reader, bytes.len);
    return code;
}

void verbs_tell(struct told *told)
{
    struct env *env = told->env;
    struct reads_hand to = {told->reader, told->is_large}, before = reads_answer_reader(env, told->reader);
    if (hand_over(env, told->reply, &to, (struct amp_bytes){told->data, told->len}) == AMP_OVERLOADED) /* a bus that is away: the asker sees that itself */
        refuse_full(env, told->reply, told->encoding);
    verbs_told_free(told);
    reads_answered(env, before);
}

static void tell_or_keep(struct told *told)
{
    struct env *env = told->env;
    if (!told->reader || reads_may_tell(env, told->reader)) {
        verbs_tell(told);
    } else if (!reads_keep(told)) {
        load_dropped(env);
        verbs_told_free(told);
    }
}

/* What memory has, and the disk has it too now. */
static void on_told(void *ctx, enum amp_code code)
{
    struct told *told = ctx;
    struct env *env = told->env;
    struct reads_hand before = reads_answer_reader(env, told->reader);
    env->n_held--;
    if (told->reader)
        reads_unmade(env, told->reader, told->len);
    if (code != AMP_OK && !env->is_stopping)
        env_refuse_journal(env, told->reply, told->encoding);
    if (code == AMP_OK && !env->is_stopping)
        tell_or_keep(told);
    else
        verbs_told_free(told);
    reads_answered(env, before);
}

/* Of env->out. False: it is to be sent now. */
static bool tell_later(struct env *env, const char *reply, enum amp_encoding encoding)
{
    if (!env->is_reading || SEEDED_BUG("read-ahead"))
        return false;
    if (journal_failure(env->journal) && !env->is_given_up) { /* memory goes at the end of this turn; from then on the disk alone counts */
        env->is_reading = false;
        env_refuse_journal(env, reply, encoding);
        return true;
    }
    if (!env->dirty && !env->later && journal_waiting(env->journal) == 0)
        return false;
    if (env->n_held >= ENV_HELD_MAX) {
        env->is_reading = false;
        refuse_full(env, reply, encoding);
        return true;
    }
    struct told *told = told_new(env, reply, encoding);
    etask_flush_later(env);
    struct journal_batch *marker = journal_batch_new(env->journal);
    if (journal_write(env->journal, marker, on_told, told) == AMP_OK) {
        env->n_held++;
        if (told->reader)
            reads_made(env, told->reader, told->len);
        return true;
    }
    journal_batch_free(marker);
    verbs_told_free(told);
    return false;
}

static enum amp_code encode(struct env *env, enum amp_encoding encoding, Amp__Envelope *envelope)
{
    envelope->version = AMP_PROTOCOL_VERSION;
    amp_buf_reset(&env->out);
    enum amp_code code = amp_encode(&envelope->base, encoding, &env->out, NULL);
    return code == AMP_OK && env->out.len > env_payload_max(env) ? AMP_TOO_LARGE : code;
}

enum amp_code env_publish(struct env *env, const char *subject, enum amp_encoding encoding, Amp__Envelope *envelope)
{
    enum amp_code code = encode(env, encoding, envelope);
    return code == AMP_OK ? bus_publish(env->bus, subject, NULL, amp_buf_bytes(&env->out)) : code;
}

enum amp_code env_encode_reply(struct env *env, enum amp_encoding encoding, const Amp__EnvReply *answer)
{
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.from = env->name;
    envelope.body_case = AMP__ENVELOPE__BODY_ENV_REPLY;
    envelope.env_reply = (Amp__EnvReply *)answer;
    return encode(env, encoding, &envelope);
}

static enum amp_code send(struct env *env, const char *reply, enum amp_encoding encoding, const Amp__EnvReply *answer)
{
    const struct reads_hand *hand = &env->reads.hand;
    enum amp_code code = env_encode_reply(env, encoding, answer);
    if (code != AMP_OK || tell_later(env, reply, encoding))
        return code;
    if (!hand->reader || hand->is_large || reads_may_tell(env, hand->reader))
        return hand_over(env, reply, hand, amp_buf_bytes(&env->out)); /* of what is large: there was room when it was begun */
    tell_or_keep(told_new(env, reply, encoding));
    return AMP_OK;
}

/* Who reads is told; what else is as short as that was. */
static void not_sent(struct env *env, const char *reply, enum amp_encoding encoding, const Amp__EnvReply *answer)
{
    if (env->reads.hand.reader && !answer->error)
        refuse_full(env, reply, encoding);
    else
        load_dropped(env);
}

enum amp_code env_answer(struct env *env, const char *reply, enum amp_encoding encoding, const Amp__EnvReply *answer)
{
    enum amp_code code = send(env, reply, encoding, answer);
    if (code == AMP_OVERLOADED)
        not_sent(env, reply, encoding, answer);
    return code;
}

struct amp_arena *env_answer_arena(struct env *env)
{
    amp_arena_reset(&env->answer);
    return &env->answer;
}

void env_answer_record(struct env *env, const char *reply, enum amp_encoding encoding, Amp__EnvReply *answer)
{
    static const int less[] = {VIEW_ARTIFACTS, VIEW_ALL}; /* what is left out, first try first */
    Amp__TaskRecord *record = answer->n_tasks ? answer->tasks[0] : NULL;
    enum amp_code code = send(env, reply, encoding, answer);
    for (size_t i = 0; i < sizeof less / sizeof less[0] && record && (code == AMP_TOO_LARGE || code == AMP_OVERLOADED); i++) {
        view_omit(record, less[i], &env->answer);
        code = send(env, reply, encoding, answer);
    }
    if (code == AMP_OVERLOADED)
        not_sent(env, reply, encoding, answer);
    if (code != AMP_TOO_LARGE)
        return;
    struct amp_error err = {0};
    amp_error_set(&err, code, "", "the answer is larger than the %zu bytes that a message on this bus may have", env_payload_max(env));
    amp_error_hint(&err, "watch the task instead, or raise max_payload of the server");
    env_refuse(env, reply, encoding, &err);
}

void env_refuse(struct env *env, const char *reply, enum amp_encoding encoding, const struct amp_error *err)
{
    Amp__Error wire;
    amp_error_to_wire(err, &wire);
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    answer.error = &wire;
    (void)env_answer(env, reply, encoding, &answer); /* a bus that is away: the asker sees that itself */
}

void env_error_journal(const struct env *env, struct amp_error *err)
{
    const char *failure = journal_failure(env->journal);
    if (journal_is_damaged(env->journal)) {
        amp_error_set(err, AMP_CORRUPT, "", "the journal is damaged, and takes nothing more: %s", failure);
        amp_error_hint(err, JOURNAL_CORRUPT_HINT);
        return;
    }
    amp_error_set(err, AMP_JOURNAL, "", "the journal refuses to write: %s", failure ? failure : "it cannot be read");
    amp_error_hint(err, "make room on its disk, or repair it, and restart the environment");
}

void env_refuse_journal(struct env *env, const char *reply, enum amp_encoding encoding)
{
    struct amp_error err = {0};
    env_error_journal(env, &err);
    env_refuse(env, reply, encoding, &err);
}

void env_refuse_unread(struct env *env, const char *reply, enum amp_encoding encoding)
{
    struct amp_error err = *journal_read_error(env->journal);
    if (err.code == AMP_OK)
        amp_error_set(&err, AMP_JOURNAL, "", "the journal cannot be read");
    env_refuse(env, reply, encoding, &err);
}

void env_refuse_code(const struct ask *ask, enum amp_code code, const char *field, const char *text)
{
    struct amp_error err = {0};
    amp_error_set(&err, code, field, "%s", text ? text : amp_code_info(code)->text);
    env_refuse(ask->env, ask->reply, ask->encoding, &err);
}

void env_refuse_missing(const struct ask *ask, const struct env_missing *missing, const char *name)
{
    struct amp_error err = {0};
    amp_error_set(&err, missing->code, missing->field, "there is no such %s: %s", missing->what, name);
    if (missing->hint)
        amp_error_hint(&err, "%s", missing->hint);
    env_refuse(ask->env, ask->reply, ask->encoding, &err);
}

void env_refuse_no_task(const struct ask *ask, const char *id)
{
    env_refuse_missing(ask, &(struct env_missing){AMP_NO_SUCH_TASK, "id", "task", NULL}, id);
}

void env_refuse_ended(const struct ask *ask, const char *id)
{
    struct amp_error err = {0};
    amp_error_set(&err, AMP_TASK_ENDED, "id", "the task %s has ended already", id);
    amp_error_hint(&err, "amesh task show %s", id);
    env_refuse(ask->env, ask->reply, ask->encoding, &err);
}

/* The sender stands in the subject, where the server's permissions guard it; what the envelope says must agree. */
static enum amp_code check_ask(const struct amp_subject *subject, const Amp__Envelope *envelope, struct amp_error *err)
{
    if (!envelope->from || strcmp(envelope->from, subject->b) != 0)
        return amp_error_set(err, AMP_DENIED, "from", "the envelope is from \"%s\", but its subject says \"%s\"", envelope->from ? envelope->from : "", subject->b);
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (verbs[i].verb == envelope->env_request->verb_case && strcmp(verbs[i].name, subject->a) != 0)
            return amp_error_set(err, AMP_INVALID, "envRequest", "this is a %s, but it was sent to %s", verbs[i].name, subject->a);
    }
    return AMP_OK;
}

/* ---- readers see what was written before them ------------------------------------------------------------------------- */

enum stage { STAGE_NEW, STAGE_WRITTEN, STAGE_TURN }; /* it sees what was written before it; it is its turn */

static void take_request(struct env *env, const struct bus_msg *msg, enum stage stage);

static struct bus_msg parked_msg(const struct parked *held)
{
    return (struct bus_msg){.subject = held->subject, .reply = held->reply, .data = {.data = held->data, .len = held->len}};
}


static void on_written(void *ctx, enum amp_code code)
{
    struct parked *held = ctx;
    (void)code; /* a journal that failed is still read from */
    struct bus_msg msg = parked_msg(held);
    if (!held->env->is_stopping)
        take_request(held->env, &msg, STAGE_WRITTEN);
    parked_free(held);
}

enum hold { HOLD_NEEDLESS, HOLD_TAKEN, HOLD_FULL };

/* Until everything that is on its way to the disk now is there: batches are committed in order, so an empty one tells. */
static enum hold hold(struct env *env, const struct bus_msg *msg)
{
    if ((!env->later && journal_waiting(env->journal) == 0) || journal_failure(env->journal) || SEEDED_BUG("read-ahead"))
        return HOLD_NEEDLESS;
    if (env->n_held >= ENV_HELD_MAX || env->held_bytes + msg->data.len > ENV_HELD_BYTES_MAX)
        return HOLD_FULL;
    etask_flush_later(env);
    struct parked *held = parked_new(env, msg);
    struct journal_batch *marker = journal_batch_new(env->journal);
    if (journal_write(env->journal, marker, on_written, held) == AMP_OK)
        return HOLD_TAKEN;
    journal_batch_free(marker);
    parked_free(held);
    return journal_failure(env->journal) ? HOLD_NEEDLESS : HOLD_FULL;
}

/* Direct tasks are not all there until the stream has been read; of a durable one nothing is missing. */
static bool waits_for_stream(const struct env *env, const Amp__EnvRequest *request)
{
    const char *id = request->verb_case == AMP__ENV_REQUEST__VERB_GET ? request->get->id : request->verb_case == AMP__ENV_REQUEST__VERB_WATCH ? request->watch->id : NULL;
    const struct etask *task = id ? etask_find((struct env *)env, id) : NULL;
    return evtstream_is_awaited(env) && !(task && task->is_durable);
}

static void hold_late(struct env *env, const struct bus_msg *msg)
{
    struct parked *held = parked_new(env, msg);
    *(env->late_last ? &env->late_last->next : &env->late) = held;
    env->late_last = held;
}

void verbs_release_late(struct env *env)
{
    struct parked *held = env->late;
    env->late = env->late_last = NULL;
    while (held) {
        struct parked *next = held->next;
        struct bus_msg msg = parked_msg(held);
        if (!env->is_stopping)
            take_request(env, &msg, STAGE_NEW);
        parked_free(held);
        held = next;
    }
}

void verbs_done(struct env *env)
{
    while (env->late) {
        struct parked *held = env->late;
        env->late = held->next;
        parked_free(held);
    }
    env->late_last = NULL;
}

static bool reads_tasks(const Amp__EnvRequest *request)
{
    if (SEEDED_BUG("early-schedule") && request->verb_case == AMP__ENV_REQUEST__VERB_SCHEDULE)
        return false; /* which alone would hold its answer back */
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (verbs[i].verb == request->verb_case)
            return verbs[i].reads_tasks;
    return false;
}

static bool is_large(const Amp__EnvRequest *request)
{
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (verbs[i].verb == request->verb_case)
            return verbs[i].is_large;
    return false;
}

static void run_verb(const struct ask *ask)
{
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (verbs[i].verb == ask->request->verb_case) {
            verbs[i].run(ask);
            return;
        }
    }
    env_refuse_code(ask, AMP_UNSUPPORTED, "envRequest", NULL);
}

/* True: it waits, or was refused. */
static bool is_held(const struct ask *ask)
{
    struct env *env = ask->env;
    if (waits_for_stream(env, ask->request)) {
        if (env->n_held < ENV_HELD_MAX && env->held_bytes + ask->msg->data.len <= ENV_HELD_BYTES_MAX)
            hold_late(env, ask->msg);
        else
            load_refuse(ask, "too many wait to read");
        return true;
    }
    enum hold held = hold(env, ask->msg);
    if (held == HOLD_FULL)
        load_refuse(ask, "too many wait to read");
    return held != HOLD_NEEDLESS;
}

static void take_ask(struct ask *ask, const struct amp_subject *subject, enum stage stage)
{
    struct env *env = ask->env;
    struct amp_error err = {0};
    Amp__Envelope *envelope = NULL;
    amp_arena_reset(&env->arena);
    enum amp_code code = amp_envelope_decode(ask->msg->data, 1u << AMP__ENVELOPE__BODY_ENV_REQUEST, &env->arena, &envelope, &ask->encoding, &err);
    if (code == AMP_OK)
        code = check_ask(subject, envelope, &err);
    if (code != AMP_OK) {
        counter_add(COUNTER_malformed_refused, 1);
        env_refuse(env, ask->reply, ask->encoding, &err);
        return;
    }
    ask->request = envelope->env_request;
    bool is_reading = reads_tasks(ask->request), may_be_large = is_large(ask->request);
    if (stage == STAGE_NEW && is_reading && is_held(ask))
        return;
    if (stage != STAGE_TURN && reads_put_off(ask, may_be_large))
        return;
    int64_t begun_us = may_be_large ? reads_begin(env) : 0;
    env->is_reading = is_reading;
    run_verb(ask);
    env->is_reading = false;
    if (may_be_large)
        reads_end(env, begun_us);
}

static void take_request(struct env *env, const struct bus_msg *msg, enum stage stage)
{
    struct amp_subject subject;
    if (!msg->reply || !amp_subject_is_inbox(msg->reply) || amp_subject_parse(msg->subject, &subject, NULL) != AMP_OK ||
        subject.kind != AMP_SUBJECT_ENV) {
        counter_add(COUNTER_malformed_refused, 1);
        return; /* nobody to answer, or somebody who wants us to speak to a third party */
    }
    struct ask ask = {.env = env, .reply = msg->reply, .msg = msg, .encoding = AMP_PROTOBUF};
    etask_strcpy(ask.from, subject.b);
    struct reads_hand before = reads_answer(env, ask.from);
    take_ask(&ask, &subject, stage);
    reads_answered(env, before);
}

void verbs_turn(struct env *env, const struct parked *held)
{
    struct bus_msg msg = parked_msg(held);
    if (!env->is_stopping)
        take_request(env, &msg, STAGE_TURN);
}

void verbs_again(struct env *env, const struct bus_msg *msg)
{
    take_request(env, msg, STAGE_TURN);
}

void verbs_on_msg(void *ctx, const struct bus_msg *msg)
{
    counter_add(COUNTER_env_requests, 1);
    evtstream_catch_up(ctx);
    take_request(ctx, msg, STAGE_NEW);
}

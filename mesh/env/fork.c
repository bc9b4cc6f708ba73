/* fork: a new task that begins where another one was at one of its events (amp.md 10.12.5). Its first event is the task so far; what was answered by then is answered again when it
 * is asked again; the agent is called with the same request, or with another text. */
#include "env_private.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/form.h"
#include "base/seeded.h"
#include "env/inbox.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODY_BYTES_MAX (2 * (size_t)AMP_WIRE_BYTES_MAX)
#define SHORT_US 10000 /* a fork that takes longer */
#define REST 3         /* is followed by so many times that long without one */

struct asked { /* a question of the task that is forked, and what was answered */
    struct asked *next;
    char id[AMP_NAME_MAX + 1];
    uint8_t digest[FORM_DIGEST_SIZE];
    cJSON *form, *said; /* said: `amp/answer`; NULL: not answered by then */
};

struct fork { /* being made: from the verb until its task has begun */
    struct env *env;
    const Amp__Fork *wanted;
    struct amp_fold *fold; /* of the events up to wanted->seq */
    struct asked *asked, **asked_last;
    Amp__Submit *submit;   /* what was asked, in env->arena */
    uint32_t count, next;  /* events that there are; the next one to be read */
    char context[AMP_NAME_MAX + 1];
    bool is_known, is_broken;
};

static const char *text_of(const cJSON *object, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text ? text : "";
}

/* ---- what was ----------------------------------------------------------------------------------------------------------- */

static bool on_task(void *ctx, const struct journal_row *row)
{
    struct fork *fork = ctx;
    fork->is_known = true;
    fork->count = row->count;
    etask_strcpy(fork->context, row->context);
    fork->submit = row->request.len ? amp__submit__unpack(&fork->env->arena.allocator, row->request.len, row->request.data) : NULL;
    return false;
}

static struct asked *find_asked(struct fork *fork, const char *id)
{
    struct asked *asked = fork->asked;
    while (asked && strcmp(asked->id, id) != 0)
        asked = asked->next;
    return asked;
}

static void note_question(struct fork *fork, const cJSON *question)
{
    cJSON *form = find_asked(fork, text_of(question, "id")) ? NULL : form_copy(question, NULL);
    if (!form)
        return; /* asked again, or not as we know it */
    struct asked *asked = xcalloc(1, sizeof *asked);
    etask_strcpy(asked->id, text_of(question, "id"));
    asked->form = form;
    form_digest(form, asked->digest);
    *fork->asked_last = asked;
    fork->asked_last = &asked->next;
}

static void note_answer(struct fork *fork, const cJSON *said)
{
    struct asked *asked = find_asked(fork, text_of(said, "id"));
    bool is_whole = (cJSON_HasObjectItem(said, "value") || cJSON_HasObjectItem(said, "text")) && !cJSON_HasObjectItem(said, "bytes");
    if (!asked || asked->said || !is_whole)
        return;
    asked->said = cJSON_Duplicate(said, true);
}

static void note_questions(struct fork *fork, struct amp_bytes body)
{
    cJSON *event = memmem(body.data, body.len, "\"amp/", 5) ? cJSON_ParseWithLength((const char *)body.data, body.len) : NULL;
    const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(event, "statusUpdate"), "metadata");
    const cJSON *question = cJSON_GetObjectItemCaseSensitive(metadata, "amp/question"), *said = cJSON_GetObjectItemCaseSensitive(metadata, "amp/answer");
    if (cJSON_IsObject(question))
        note_question(fork, question);
    if (cJSON_IsObject(said))
        note_answer(fork, said);
    cJSON_Delete(event);
}

static bool on_events(void *ctx, const struct journal_row *row)
{
    struct fork *fork = ctx;
    struct amp_arena *arena = &fork->env->scratch;
    amp_arena_reset(arena);
    Amp__Frame *frame = amp__frame__unpack(&arena->allocator, row->body.len, row->body.data);
    fork->is_broken |= !frame;
    for (size_t i = 0; frame && i < frame->n_events; i++) {
        const ProtobufCBinaryData *text = &frame->events[i]->body->text;
        struct amp_bytes body = {.data = text->data, .len = text->len};
        if (row->seq + i < fork->next || row->seq + i > fork->wanted->seq)
            continue;
        if (row->seq + i < fork->wanted->seq || !SEEDED_BUG("short-past"))
            (void)amp_fold_apply(fork->fold, body, NULL); /* as etask.c reads them */
        note_questions(fork, body);
        fork->next = row->seq + (uint32_t)i + 1;
    }
    return frame && fork->next <= fork->wanted->seq;
}

static enum amp_code read_past(struct fork *fork, struct amp_error *err)
{
    struct env *env = fork->env;
    fork->fold = amp_fold_new(fork->wanted->id, fork->context, AMP_FOLD_BYTES_MAX);
    if (!fork->fold)
        return amp_error_set(err, AMP_NO_MEMORY, "", "out of memory");
    (void)amp_fold_message(fork->fold, fork->submit->request->message);
    fork->next = 1;
    for (uint32_t before = 0; before != fork->next && fork->next <= fork->wanted->seq;) {
        before = fork->next;
        enum amp_code code = journal_events(env->journal, fork->wanted->id, fork->next, on_events, fork, err);
        if (code != AMP_OK)
            return code;
    }
    if (fork->is_broken || fork->next <= fork->wanted->seq)
        return amp_error_set(err, AMP_JOURNAL, "", "the events of task %s cannot be read", fork->wanted->id);
    return AMP_OK;
}

static enum amp_code look(struct fork *fork, struct amp_error *err)
{
    const Amp__Fork *wanted = fork->wanted;
    struct journal_query query = {.task = wanted->id, .limit = 1};
    if (!amp_id_is_valid(wanted->id))
        return amp_error_set(err, AMP_INVALID, "fork.id", "which task?");
    if (wanted->agent && !amp_id_is_valid(wanted->agent))
        return amp_error_set(err, AMP_INVALID, "fork.agent", "\"%.100s\" is not a valid name", wanted->agent);
    enum amp_code code = journal_tasks(fork->env->journal, &query, on_task, fork, NULL, err);
    if (code != AMP_OK)
        return code;
    if (!fork->is_known)
        return amp_error_set(err, AMP_NO_SUCH_TASK, "fork.id", "there is no task %s", wanted->id);
    if (!fork->submit) {
        amp_error_set(err, AMP_UNSUPPORTED, "fork.id", "what was asked of task %s is not kept: it cannot be forked", wanted->id);
        amp_error_hint(err, "ask again; --durable keeps it");
        return AMP_UNSUPPORTED;
    }
    if (wanted->seq == 0 || wanted->seq > fork->count)
        return amp_error_set(err, AMP_INVALID, "fork.seq", "task %s has the events 1 to %u, and no %u", wanted->id, fork->count, wanted->seq);
    return read_past(fork, err);
}

/* ---- what it begins with -------------------------------------------------------------------------------------------------- */

static enum amp_code encode_task(const Amp__Task *task, struct amp_buf *out)
{
    Amp__StreamResponse response = AMP__STREAM_RESPONSE__INIT;
    response.payload_case = AMP__STREAM_RESPONSE__PAYLOAD_TASK;
    response.task = (Amp__Task *)task;
    amp_buf_reset(out);
    return amp_encode(&response.base, AMP_JSON, out, NULL);
}

/* The task so far, as one event that a message on this bus carries: what is too much for that is left out, which it says. */
static enum amp_code encode_past(struct etask *task, const struct fork *fork, const Amp__Message *added, struct amp_buf *out)
{
    Amp__Task past = *amp_fold_task(fork->fold);
    Amp__TaskStatus status = AMP__TASK_STATUS__INIT;
    Amp__Timestamp now = AMP__TIMESTAMP__INIT;
    size_t room = env_payload_max(task->env) / 2;
    Amp__Json omitted = AMP__JSON__INIT;
    static const char artifacts[] = "{\"amp/omitted\":[\"artifacts\"]}", all[] = "{\"amp/omitted\":[\"artifacts\",\"history\"]}";
    Amp__Message **history = xcalloc(past.n_history + 1, sizeof *history);
    if (past.n_history)
        memcpy(history, past.history, past.n_history * sizeof *history);
    if (added)
        history[past.n_history++] = (Amp__Message *)added;
    now.unix_ms = task->submitted_unix_ms;
    status.has_state = true;
    status.state = AMP__TASK_STATE__TASK_STATE_SUBMITTED;
    status.timestamp = &now;
    past.id = task->id;
    past.context_id = task->context;
    past.status = &status;
    past.history = history;
    past.metadata = NULL;
    enum amp_code code = encode_task(&past, out);
    for (int i = 0; i < 2 && (code != AMP_OK || out->len > room); i++) {
        omitted.text = (ProtobufCBinaryData){.data = (uint8_t *)(i ? all : artifacts), .len = i ? sizeof all - 1 : sizeof artifacts - 1};
        past.n_artifacts = 0;
        past.n_history = i ? 0 : past.n_history;
        past.metadata = &omitted;
        code = encode_task(&past, out);
    }
    free(history);
    return code;
}

enum amp_code fork_first_event(struct etask *task, struct fork *fork, const struct amp_event_sink *sink)
{
    struct amp_buf body;
    amp_buf_init(&body, BODY_BYTES_MAX);
    enum amp_code code = encode_past(task, fork, fork->wanted->message ? fork->submit->request->message : NULL, &body);
    if (code == AMP_OK)
        code = sink->emit(sink->ctx, amp_buf_bytes(&body));
    /* It is not in the journal yet, where a fold would find it. */
    struct amp_fold *fold = code == AMP_OK ? etask_fold(task) : NULL;
    if (fold)
        code = amp_fold_apply(fold, amp_buf_bytes(&body), NULL);
    amp_buf_done(&body);
    for (struct asked *each = fork->asked; each; each = each->next) {
        uint32_t nth = 1;
        char id[AMP_ID_SIZE];
        for (const struct asked *former = fork->asked; former != each; former = former->next)
            nth += memcmp(former->digest, each->digest, sizeof each->digest) == 0;
        form_id(task->id, nth, each->digest, id);
        if (each->said)
            inbox_answered_before(task, id, each->form, each->said);
    }
    return code;
}

/* ---- the verb ------------------------------------------------------------------------------------------------------------- */

/* The message says where it comes from, to the agent too. */
static enum amp_code mark_message(struct fork *fork, struct amp_error *err)
{
    assert(fork->submit);
    Amp__Message *message = fork->wanted->message ? fork->wanted->message : fork->submit->request->message;
    Amp__Json *metadata = amp_arena_alloc(&fork->env->arena, sizeof *metadata);
    cJSON *json = message->metadata ? cJSON_ParseWithLength((const char *)message->metadata->text.data, message->metadata->text.len) : NULL;
    if (!cJSON_IsObject(json)) {
        cJSON_Delete(json);
        json = cJSON_CreateObject();
    }
    cJSON_DeleteItemFromObjectCaseSensitive(json, "amp/forkedFrom");
    cJSON *from = cJSON_AddObjectToObject(json, "amp/forkedFrom");
    cJSON_AddStringToObject(from, "task", fork->wanted->id);
    cJSON_AddNumberToObject(from, "seq", fork->wanted->seq);
    char *text = cJSON_PrintUnformatted(json), *kept = text ? amp_arena_strdup(&fork->env->arena, amp_bytes_of(text)) : NULL;
    cJSON_Delete(json);
    cJSON_free(text);
    if (!metadata || !kept)
        return amp_error_set(err, AMP_NO_MEMORY, "", "out of memory");
    amp__json__init(metadata);
    metadata->text = (ProtobufCBinaryData){.data = (uint8_t *)kept, .len = strlen(kept)};
    message->metadata = metadata;
    message->task_id = message->context_id = NULL;
    fork->submit->request->message = message;
    return AMP_OK;
}

static void fill_submit(struct fork *fork)
{
    Amp__Submit *submit = fork->submit;
    const Amp__Fork *wanted = fork->wanted;
    assert(submit);
    submit->key = submit->retry_of = submit->schedule = NULL;
    submit->not_before = submit->planned = NULL;
    submit->has_delay_ms = submit->has_missed = false;
    submit->fork_of = (char *)wanted->id;
    submit->has_fork_seq = true;
    submit->fork_seq = wanted->seq;
    submit->request->task_id = (char *)"";
    submit->request->context_id = wanted->has_same_context && wanted->same_context ? fork->context : (char *)"";
    submit->request->parent = submit->request->root = NULL; /* whoever made the first one does not wait for this one */
    submit->request->n_path = 0;
    submit->request->has_hops = false;
    if (!wanted->agent)
        return;
    submit->agent = wanted->agent;
    submit->skill = NULL;
}

static void fork_done(struct fork *fork)
{
    while (fork->asked) {
        struct asked *asked = fork->asked;
        fork->asked = asked->next;
        cJSON_Delete(asked->form);
        cJSON_Delete(asked->said);
        free(asked);
    }
    amp_fold_free(fork->fold);
}

/* A large past is read in one go, while which nobody else is served, not even who must know that its lease goes on: large forks have a part of the time only. */
static bool is_too_soon(const struct ask *ask, int64_t now_us)
{
    struct amp_error err = {0};
    if (now_us >= ask->env->fork_from_us)
        return false;
    uint32_t wait_ms = (uint32_t)((ask->env->fork_from_us - now_us) / 1000) + 1;
    amp_error_set(&err, AMP_OVERLOADED, "", "forks of large tasks take turns with everything else");
    err.retry_after_ms = wait_ms + env_random(ask->env) % (wait_ms + 1);
    counter_add(COUNTER_env_full_refused, 1);
    env_refuse(ask->env, ask->reply, ask->encoding, &err);
    return true;
}

void fork_verb(const struct ask *ask)
{
    int64_t begun_us = clock_mono_us();
    if (is_too_soon(ask, begun_us))
        return;
    struct fork fork = {.env = ask->env, .wanted = ask->request->fork};
    struct amp_error err = {0};
    fork.asked_last = &fork.asked;
    enum amp_code code = look(&fork, &err);
    if (code == AMP_OK)
        code = mark_message(&fork, &err);
    if (code == AMP_OK) {
        struct ask forking = *ask;
        forking.fork = &fork;
        fill_submit(&fork);
        submit_accept(&forking, fork.submit, fork.wanted->message);
    } else {
        env_refuse(ask->env, ask->reply, ask->encoding, &err);
    }
    fork_done(&fork);
    int64_t now_us = clock_mono_us();
    if (now_us - begun_us > SHORT_US)
        ask->env->fork_from_us = now_us + REST * (now_us - begun_us);
}

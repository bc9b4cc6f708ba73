/* What instances answer with files: an event that names one is not taken in before its bytes are on the disk, and what comes behind it waits. The callee is held back meanwhile, so that no more
 * waits than its window; its lease goes on. */
#include "env/files.h"

#include "base/alloc.h"
#include "base/call.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define ROOM_AGAIN_MS 1000u

struct said { /* an event, or the end of the call */
    STAILQ_ENTRY(said) entry;
    uint32_t seq;
    int64_t time_unix_ms;
    bool is_end, has_files;
    struct amp_error err;
    uint8_t *wire; /* packed Error, or NULL */
    size_t wire_len;
    size_t len;
    uint8_t body[];
};
STAILQ_HEAD(said_list, said);

struct files_answer {
    struct etask *task;
    struct said_list said;
    struct files_fetch *fetch;
    struct blob_held held;
    struct loop_timer *again;
    int64_t full_ms; /* since when there is no room for it; 0: there is */
    bool has_end;
};

static void go_on(struct files_answer *answer);

static void said_pop(struct files_answer *answer)
{
    struct said *said = STAILQ_FIRST(&answer->said);
    STAILQ_REMOVE_HEAD(&answer->said, entry);
    free(said->wire);
    free(said);
}

bool files_answer_drop(struct etask *task)
{
    struct files_answer *answer = task->answer;
    if (!answer)
        return false;
    bool has_end = answer->has_end;
    task->answer = NULL;
    files_fetch_cancel(answer->fetch);
    loop_timer_free(answer->again);
    blob_held_release(&answer->held, files_blobs(task->env));
    while (!STAILQ_EMPTY(&answer->said))
        said_pop(answer);
    free(answer);
    return has_end;
}

/* ---- one event --------------------------------------------------------------------------------------------------------------- */

struct refs {
    struct amp_blob_ref *refs;
    size_t n;
};

static void collect(void *ctx, Amp__Part *const *parts, size_t n_parts)
{
    struct refs *refs = ctx;
    blob_refs_add(parts, n_parts, &refs->refs, &refs->n);
}

struct handing {
    const struct env *env;
    struct amp_arena *arena;
    enum amp_code code;
};

static void hand_on(void *ctx, Amp__Part *const *parts, size_t n_parts)
{
    struct handing *handing = ctx;
    if (handing->code == AMP_OK)
        handing->code = files_hand_on(handing->env, parts, n_parts, handing->arena);
}

/* With us as the holder. The caller frees it with amp_buf_done. */
static enum amp_code rewrite(struct etask *task, struct amp_bytes body, struct amp_buf *ret)
{
    struct env *env = task->env;
    Amp__StreamResponse *event = files_event(body, &env->scratch);
    struct handing handing = {.env = env, .arena = &env->scratch};
    amp_buf_init(ret, 2 * (size_t)AMP_WIRE_BYTES_MAX);
    if (!event)
        return amp_buf_append(ret, body.data, body.len);
    files_each_parts(event, hand_on, &handing);
    return handing.code == AMP_OK ? amp_encode(&event->base, AMP_JSON, ret, NULL) : handing.code;
}

/* The instance gives its own files: what it has from others it hands on as theirs no more (amp.md 15.4). */
static enum amp_code check_refs(const struct etask *task, const struct refs *refs, struct amp_error *err)
{
    if (refs->n > FILES_MESSAGE_MAX)
        return amp_error_set(err, AMP_BAD_ANSWER, "", "%zu files in one event of the agent; at most %u are allowed", refs->n, FILES_MESSAGE_MAX);
    for (size_t i = 0; i < refs->n; i++)
        if (strcmp(refs->refs[i].holder, task->instance) != 0)
            return amp_error_set(err, AMP_BAD_ANSWER, "", "file %s of the agent's answer is said to be held by %s; the instance that answers is %s", refs->refs[i].digest, refs->refs[i].holder, task->instance);
    return AMP_OK;
}

/* What it says of its attempt: gone with its holder, or wrong. */
static void lose(struct files_answer *answer, const struct amp_error *err)
{
    struct etask *task = answer->task;
    struct amp_error why;
    enum amp_code code = err->code == AMP_NOT_FOUND ? AMP_INSTANCE_LOST : err->code;
    (void)amp_error_set(&why, code, "", "a file of the agent's answer: %s", err->message);
    amp_error_hint(&why, "%s", err->hint);
    counter_add(COUNTER_events_refused, 1);
    bool has_end = files_answer_drop(task);
    dispatch_lose(task, &why, has_end);
}

static void on_again(void *ctx)
{
    go_on(ctx);
}

/* The agent has done its work: it waits for room here, for a while. */
static bool waits_for_room(struct files_answer *answer, const struct amp_error *err)
{
    int64_t now_ms = loop_now_ms(answer->task->env->loop);
    if (err->code != AMP_OVERLOADED)
        return false;
    if (!answer->full_ms) {
        answer->full_ms = now_ms;
        log_event(LOG_WARN, "env.files_full", "task", answer->task->id, "reason", err->message, "hint", err->hint, NULL);
    }
    if (now_ms - answer->full_ms >= FILES_ROOM_MS)
        return false;
    loop_timer_set(answer->again, ROOM_AGAIN_MS);
    return true;
}

static void on_fetched(void *ctx, const struct amp_error *err)
{
    struct files_answer *answer = ctx;
    answer->fetch = NULL;
    if (err->code == AMP_OK) {
        answer->full_ms = 0;
        STAILQ_FIRST(&answer->said)->has_files = true;
        go_on(answer);
    } else if (!waits_for_room(answer, err)) {
        lose(answer, err);
    }
}

/* True: its files are waited for, or the attempt is lost. */
static bool fetch(struct files_answer *answer, const struct said *said)
{
    struct etask *task = answer->task;
    struct refs refs = {0};
    struct amp_error err = {.code = AMP_OK};
    const Amp__StreamResponse *event = said->is_end || said->has_files ? NULL : files_event((struct amp_bytes){said->body, said->len}, &task->env->scratch);
    if (event)
        files_each_parts(event, collect, &refs);
    bool is_waiting = refs.n > 0;
    if (is_waiting && check_refs(task, &refs, &err) == AMP_OK) {
        const struct files_wanted wanted = {.sender = task->from, .refs = refs.refs, .n = refs.n, .is_answer = true};
        blob_held_release(&answer->held, files_blobs(task->env)); /* of a try before */
        answer->fetch = files_fetch(task->env, &wanted, &answer->held, on_fetched, answer);
    }
    free(refs.refs);
    if (err.code != AMP_OK)
        lose(answer, &err);
    return is_waiting;
}

/* The task has them. False: it cannot be said. */
static bool take(struct files_answer *answer, struct said *said)
{
    struct etask *task = answer->task;
    struct amp_buf body;
    bool is_taken = rewrite(task, (struct amp_bytes){said->body, said->len}, &body) == AMP_OK;
    if (is_taken && said->has_files)
        files_of_event(task, amp_buf_bytes(&body));
    blob_held_release(&answer->held, files_blobs(task->env));
    if (is_taken)
        dispatch_take_event(task, said->seq, said->time_unix_ms, amp_buf_bytes(&body));
    amp_buf_done(&body);
    return is_taken;
}

static void take_end(struct files_answer *answer)
{
    struct etask *task = answer->task;
    const struct said *said = STAILQ_FIRST(&answer->said);
    struct amp_error err = said->err;
    Amp__Error *wire = said->wire ? amp__error__unpack(NULL, said->wire_len, said->wire) : NULL;
    (void)files_answer_drop(task);
    dispatch_take_end(task, &err, wire); /* the task may be gone */
    amp__error__free_unpacked(wire, NULL);
}

static void go_on(struct files_answer *answer)
{
    struct etask *task = answer->task;
    while (!STAILQ_EMPTY(&answer->said)) {
        struct said *said = STAILQ_FIRST(&answer->said);
        struct amp_error err;
        if (fetch(answer, said))
            return;
        if (said->is_end) {
            take_end(answer);
            return;
        }
        if (!take(answer, said)) {
            (void)amp_error_set(&err, AMP_TOO_LARGE, "", "the event is too large with its files");
            lose(answer, &err);
            return;
        }
        said_pop(answer);
    }
    (void)files_answer_drop(task);
    if (task->call)
        call_hold(task->call, false);
}

/* ---- what comes ------------------------------------------------------------------------------------------------------------- */

static struct files_answer *answer_of(struct etask *task)
{
    if (task->answer)
        return task->answer;
    struct files_answer *answer = xcalloc(1, sizeof *answer);
    answer->task = task;
    answer->again = loop_timer_new(task->env->loop, on_again, answer);
    STAILQ_INIT(&answer->said);
    (void)files_blobs(task->env);
    task->answer = answer;
    if (task->call)
        call_hold(task->call, true);
    return answer;
}

static void add(struct files_answer *answer, struct said *said)
{
    bool is_first = STAILQ_EMPTY(&answer->said);
    STAILQ_INSERT_TAIL(&answer->said, said, entry);
    if (is_first)
        loop_timer_set(answer->again, 0); /* not from inside of the call that brings it */
}

bool files_answer_event(struct etask *task, uint32_t seq, int64_t time_unix_ms, struct amp_bytes body)
{
    if (!task->answer && !files_event(body, &task->env->scratch))
        return false;
    struct files_answer *answer = answer_of(task);
    struct said *said = xcalloc(1, sizeof *said + body.len);
    said->seq = seq;
    said->time_unix_ms = time_unix_ms;
    said->len = body.len;
    memcpy(said->body, body.data, body.len);
    add(answer, said);
    return true;
}

bool files_answer_end(struct etask *task, const struct amp_error *err, const Amp__Error *wire)
{
    struct files_answer *answer = task->answer;
    if (!answer)
        return false;
    struct said *said = xcalloc(1, sizeof *said);
    said->is_end = answer->has_end = true;
    said->err = *err;
    said->wire_len = wire ? amp__error__get_packed_size(wire) : 0;
    said->wire = wire ? xcalloc(1, said->wire_len + 1) : NULL;
    if (wire)
        (void)amp__error__pack(wire, said->wire);
    add(answer, said);
    return true;
}

/* submit: a durable task. Accepted means: its request, its key and its first event are on the disk (amp.md 10.2).
 *
 * The request is packed once; that packing is what the journal keeps and what dispatch unpacks. Keys that are on their way to
 * the disk are held in memory, so that two submits of one turn with one key are one task. */
#include "schedules.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/call.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/hook.h"
#include "base/loop.h"
#include "base/seeded.h"
#include "env/files.h"
#include "env/tree.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIGEST_SIZE SUBMIT_DIGEST_SIZE

struct pending_key {
    UT_hash_handle hh;
    struct etask *task;
    uint8_t digest[DIGEST_SIZE];
    size_t key_len;
    char key[AMP_NAME_MAX + 1 + AMP_KEY_MAX + 1]; /* "<sender>\n<key>" */
};

/* Who has its files is no part of what is asked: whoever asks again may be another process. */
static void leave_holders_out(Amp__Message *message, struct amp_arena *arena)
{
    Amp__Part **parts = amp_arena_alloc(arena, message->n_parts * sizeof *parts);
    for (size_t i = 0; parts && i < message->n_parts; i++) {
        struct amp_blob_ref ref;
        parts[i] = message->parts[i];
        if (!amp_part_is_blob(parts[i]) || amp_part_blob(parts[i], &ref, NULL) != AMP_OK || !(parts[i] = amp_arena_alloc(arena, sizeof **parts)))
            continue;
        *parts[i] = *message->parts[i];
        ref.holder[0] = '\0';
        (void)!amp_part_set_blob(parts[i], &ref, arena);
    }
    message->parts = parts ? parts : message->parts;
}

/* What is asked of whom. Ids of task, context and message are not part of it: a sender that lost our answer may have made new
 * ones for the same request. Nor is the time that it is willing to wait, or when it is to start: "in a minute" is another moment when it is said again. */
void submit_digest(const Amp__Submit *submit, struct amp_arena *arena, uint8_t ret[DIGEST_SIZE])
{
    Amp__Message message = *submit->request->message;
    message.message_id = message.context_id = message.task_id = NULL;
    if (amp_message_has_blob(&message))
        leave_holders_out(&message, arena);
    Amp__Request request = AMP__REQUEST__INIT;
    request.task_id = request.context_id = (char *)"";
    request.message = &message;
    request.metadata = submit->request->metadata;
    Amp__Submit asked = AMP__SUBMIT__INIT;
    asked.agent = submit->agent;
    asked.skill = submit->skill;
    asked.retry = submit->retry;
    asked.request = &request;
    size_t size = amp__submit__get_packed_size(&asked);
    uint8_t *packed = amp_arena_alloc(arena, size);
    if (packed)
        amp__submit__pack(&asked, packed);
    (void)crypto_generichash(ret, DIGEST_SIZE, packed, packed ? size : 0, NULL, 0);
}

/* ---- keys -------------------------------------------------------------------------------------------------------------- */

static size_t join_key(const char *from, const char *key, char *ret, size_t size)
{
    return (size_t)snprintf(ret, size, "%s\n%s", from, key);
}

static struct pending_key *find_pending(struct env *env, const char *from, const char *key)
{
    char joined[sizeof((struct pending_key *)0)->key];
    size_t len = join_key(from, key, joined, sizeof joined);
    struct pending_key *pending;
    HASH_FIND(hh, env->keys, joined, len, pending);
    return pending;
}

const char *submit_key_scope(const struct etask *task)
{
    return task->retry_of ? SUBMIT_RETRY_SCOPE : task->from;
}

static void add_pending(struct etask *task, const char *key, const uint8_t digest[DIGEST_SIZE])
{
    struct pending_key *pending = xcalloc(1, sizeof *pending);
    pending->task = task;
    memcpy(pending->digest, digest, DIGEST_SIZE);
    pending->key_len = join_key(submit_key_scope(task), key, pending->key, sizeof pending->key);
    HASH_ADD(hh, task->env->keys, key, pending->key_len, pending);
    task->key = pending;
}

static void drop_pending(struct etask *task)
{
    if (!task->key)
        return;
    HASH_DEL(task->env->keys, task->key);
    free(task->key);
    task->key = NULL;
}

struct known_key {
    char task[AMP_NAME_MAX + 1];
    uint8_t digest[DIGEST_SIZE];
};

static bool on_key(void *ctx, const struct journal_row *row)
{
    struct known_key *known = ctx;
    etask_strcpy(known->task, row->task);
    if (row->body.len == DIGEST_SIZE)
        memcpy(known->digest, row->body.data, DIGEST_SIZE);
    return false;
}

static bool on_first_task(void *ctx, const struct journal_row *row)
{
    const struct ask *ask = ctx;
    struct env *env = ask->env;
    Amp__TaskRecord *record = view_row(env, row, env_answer_arena(env), VIEW_ALL);
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    answer.n_tasks = record ? 1 : 0;
    answer.tasks = &record;
    answer.has_duplicate = answer.duplicate = true;
    env_answer_record(env, ask->reply, ask->encoding, &answer);
    return false;
}

static void refuse_conflict(const struct ask *ask, const char *task)
{
    struct amp_error err = {0};
    amp_error_set(&err, AMP_CONFLICT, "key", "this key was used before for another request, which became task %s", task);
    amp_error_hint(&err, "use a new key for a new request");
    env_refuse(ask->env, ask->reply, ask->encoding, &err);
}

/* True if the key is known: then it was answered. */
static bool answer_known(const struct ask *ask, const char *key, const uint8_t digest[DIGEST_SIZE])
{
    struct env *env = ask->env;
    struct pending_key *pending = find_pending(env, ask->from, key);
    struct known_key known = {{0}, {0}};
    if (pending) {
        if (memcmp(pending->digest, digest, DIGEST_SIZE) != 0) {
            refuse_conflict(ask, pending->task->id);
        } else {
            counter_add(COUNTER_env_duplicates, 1);
            etask_reply_later(pending->task, ask, true);
        }
        return true;
    }
    enum amp_code code = journal_key(env->journal, ask->from, key, on_key, &known);
    if (code == AMP_NOT_FOUND)
        return false;
    if (code != AMP_OK) {
        env_refuse_unread(env, ask->reply, ask->encoding);
    } else if (memcmp(known.digest, digest, DIGEST_SIZE) != 0) {
        refuse_conflict(ask, known.task);
    } else {
        counter_add(COUNTER_env_duplicates, 1);
        struct journal_query query = {.task = known.task, .limit = 1};
        if (journal_tasks(env->journal, &query, on_first_task, (void *)ask, NULL, NULL) != AMP_OK)
            env_refuse_unread(env, ask->reply, ask->encoding);
    }
    return true;
}

/* ---- the task ------------------------------------------------------------------------------------------------------------ */

static bool on_any(void *ctx, const struct journal_row *row)
{
    *(bool *)ctx = true;
    return false;
}

static enum amp_code check_id(struct env *env, const char *id, struct amp_error *err)
{
    bool is_taken = etask_find(env, id) != NULL;
    struct journal_query query = {.task = id, .limit = 1};
    enum amp_code code = is_taken ? AMP_OK : journal_tasks(env->journal, &query, on_any, &is_taken, NULL, err);
    return is_taken ? amp_error_set(err, AMP_CONFLICT, "submit.request.task_id", "there is a task %s already", id) : code;
}

static enum amp_code check_room(const struct ask *ask, size_t bytes, struct amp_error *err)
{
    struct env *env = ask->env;
    if (env->is_stopping)
        return amp_error_set(err, AMP_STOPPING, "", "the environment is stopping");
    if (journal_failure(env->journal)) {
        env_error_journal(env, err);
        return err->code;
    }
    return load_check_submit(env, ask->from, bytes, err);
}

/* It would wait for an agent that waits for it. What starts later has nobody waiting. */
static enum amp_code check_path(const Amp__Submit *submit, struct amp_error *err)
{
    const Amp__Request *request = submit->request;
    bool is_awaited = !submit->not_before && !submit->has_delay_ms;
    return call_check_path(is_awaited ? submit->agent : NULL, request->hops, request->path, request->n_path, err);
}

static enum amp_code check_submit(const struct ask *ask, const Amp__Submit *submit, struct amp_error *err)
{
    if (submit->agent && submit->skill)
        return amp_error_set(err, AMP_INVALID, "submit.skill", "an agent or a skill, not both");
    enum amp_code code = submit->request->task_id[0] ? check_id(ask->env, submit->request->task_id, err) : AMP_OK;
    if (code != AMP_OK)
        return code;
    code = check_path(submit, err);
    if (code != AMP_OK)
        return code;
    code = plan_check(submit, clock_unix_ms(), err);
    return code == AMP_OK ? check_room(ask, amp__submit__get_packed_size(submit), err) : code;
}

static void pack_submit(struct etask *task, const Amp__Submit *submit)
{
    Amp__Request request = *submit->request;
    request.task_id = task->id;
    request.context_id = task->context;
    Amp__Submit kept = *submit;
    struct plan_times times;
    kept.request = &request;
    plan_fill(task, &kept, &times);
    task->submit_len = amp__submit__get_packed_size(&kept);
    task->submit = xcalloc(1, task->submit_len);
    task->env->fat_bytes += task->submit_len;
    amp__submit__pack(&kept, task->submit);
}

static struct etask *make_task(const struct ask *ask, const Amp__Submit *submit)
{
    struct env *env = ask->env;
    int64_t now_unix_ms = clock_unix_ms();
    char id[AMP_ID_SIZE], context[AMP_ID_SIZE];
    amp_id_new('t', now_unix_ms, id);
    amp_id_new('c', now_unix_ms, context);
    const Amp__Request *request = submit->request;
    struct etask *task = etask_new(env, request->task_id[0] ? request->task_id : id,
                                   request->context_id[0] ? request->context_id : context);
    task->is_durable = true;
    env->n_durable++;
    etask_strcpy(task->agent, submit->agent);
    etask_strcpy(task->skill, submit->skill);
    etask_strcpy(task->from, ask->from);
    etask_strcpy(task->parent, request->parent);
    task->root = request->parent && request->root ? xstrdup(request->root) : NULL;
    task->is_detached = submit->detached;
    task->submitted_unix_ms = now_unix_ms;
    task->retry_of = submit->retry_of ? xstrdup(submit->retry_of) : NULL;
    task->fork_of = submit->fork_of ? xstrdup(submit->fork_of) : NULL;
    task->fork_seq = submit->fork_seq;
    plan_begin(task, submit);
    pack_submit(task, submit);
    files_of_message(task, request->message);
    quota_add(&env->quota, task->from, task->submit_len, loop_now_ms(env->loop));
    return task;
}

/* The first event, without a fold: a fold begins as SUBMITTED anyway, and most tasks are waited for by nobody yet. */
static enum amp_code first_event(void *ctx, struct amp_bytes body)
{
    struct etask *task = ctx;
    enum amp_code code = amp_buf_append(&task->bodies, body.data, body.len);
    if (code != AMP_OK)
        return code;
    task->refs = xcalloc(1, sizeof *task->refs);
    task->refs[0] = (struct event_ref){.len = body.len, .time_unix_ms = task->submitted_unix_ms};
    task->n_refs = task->cap_refs = 1;
    task->env->unwritten_bytes += body.len;
    task->count = 1;
    files_of_event(task, body);
    return AMP_OK;
}

static enum amp_code start_task(struct etask *task, struct fork *fork, const char *key, const uint8_t digest[DIGEST_SIZE])
{
    if (key && !*key)
        key = NULL;
    if (task->retry_of)
        key = task->retry_of; /* whoever asks for it: one task is tried again once */
    struct amp_event_source source = {
        .task_id = task->id, .context_id = task->context, .now_unix_ms = task->submitted_unix_ms};
    struct amp_event_sink sink = {.emit = first_event, .ctx = task};
    enum amp_code code = fork ? fork_first_event(task, fork, &sink) : amp_event_status(&source, AMP__TASK_STATE__TASK_STATE_SUBMITTED, NULL, NULL, &sink);
    if (code == AMP_OK)
        code = commit_submit(task, key, (struct amp_bytes){.data = digest, .len = DIGEST_SIZE});
    if (code == AMP_OK && key)
        add_pending(task, key, digest);
    return code;
}

struct given {
    Amp__Message *message;
    const char *id, *field; /* id: as in files_gate */
};

#ifdef AMESH_SEEDED_BUGS
static void answer_early(const struct ask *ask, struct etask *task)
{
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    Amp__TaskRecord *record = view_task(task, env_answer_arena(ask->env), VIEW_ALL);
    answer.n_tasks = 1;
    answer.tasks = &record;
    env_answer_record(ask->env, ask->reply, ask->encoding, &answer);
}
#endif

/* `given`: what the sender has sent of it, whose files are his; NULL: it was here before. */
static void accept(const struct ask *ask, const Amp__Submit *submit, const struct given *given, const uint8_t digest[DIGEST_SIZE])
{
    struct env *env = ask->env;
    struct amp_error err = {0};
    enum amp_code checked = check_submit(ask, submit, &err);
    if (checked == AMP_OK && given && files_gate(ask, given->message, given->id, given->field) == FILES_TAKEN)
        return;
    if (checked == AMP_OK)
        checked = files_check_here(env, submit->request->message, given ? given->field : "id", &err);
    if (checked != AMP_OK) {
        env_refuse(env, ask->reply, ask->encoding, &err);
        return;
    }
    struct etask *task = make_task(ask, submit);
    enum amp_code code = start_task(task, ask->fork, submit->key, digest);
    if (code != AMP_OK) {
        etask_free(task);
        amp_error_set(&err, code, "", "the task could not be written down: %s", amp_code_info(code)->text);
        env_refuse(env, ask->reply, ask->encoding, &err);
        return;
    }
#ifdef AMESH_SEEDED_BUGS
    if (SEEDED_BUG("early-answer")) {
        answer_early(ask, task);
        return;
    }
#endif
    etask_reply_later(task, ask, false);
}

void submit_accept(const struct ask *ask, const Amp__Submit *submit, Amp__Message *given)
{
    uint8_t digest[DIGEST_SIZE] = {0};
    const struct given sent = {.message = given, .id = "", .field = "fork.message"};
    accept(ask, submit, given ? &sent : NULL, digest);
}

void submit_verb(const struct ask *ask)
{
    const Amp__Submit *submit = ask->request->submit;
    uint8_t digest[DIGEST_SIZE] = {0};
    hook_at(HOOK_env_received);
    bool has_key = submit->key && submit->key[0];
    const char *own = submit->retry_of ? "submit.retry_of" : submit->schedule ? "submit.schedule" : submit->planned ? "submit.planned" : submit->has_missed ? "submit.missed" : submit->fork_of || submit->has_fork_seq ? "submit.forkOf" : NULL;
    if (own) {
        env_refuse_code(ask, AMP_INVALID, own, "only the environment says this");
        return;
    }
    if (has_key)
        submit_digest(submit, &ask->env->arena, digest);
    if (!has_key || !answer_known(ask, submit->key, digest))
        accept(ask, submit, &(struct given){.message = submit->request->message, .id = submit->request->task_id[0] ? submit->request->task_id : has_key ? submit->key : "", .field = "submit.request.message"}, digest);
}

/* ---- once more ------------------------------------------------------------------------------------------------------------- */

struct ended { /* the task that is to be tried again */
    const char *id;
    struct amp_arena *arena;
    bool is_known, is_open, is_durable;
    Amp__TaskState state;
    Amp__Submit *submit;
};

static bool on_ended(void *ctx, const struct journal_row *row)
{
    struct ended *ended = ctx;
    ended->is_known = true;
    ended->is_open = row->is_open;
    ended->is_durable = row->is_durable;
    ended->state = (Amp__TaskState)row->state;
    ended->submit = row->request.len ? amp__submit__unpack(&ended->arena->allocator, row->request.len, row->request.data) : NULL;
    return false;
}

static enum amp_code check_ended(const struct ended *ended, struct amp_error *err)
{
    if (!ended->is_known)
        return amp_error_set(err, AMP_NO_SUCH_TASK, "id", "there is no such task: %s", ended->id);
    if (!ended->is_durable || !ended->submit) {
        amp_error_set(err, AMP_UNSUPPORTED, "id", "what was asked of a direct task is not kept: it cannot be tried again");
        amp_error_hint(err, "ask again; --durable keeps it");
        return AMP_UNSUPPORTED;
    }
    if (ended->is_open) {
        amp_error_set(err, AMP_CONFLICT, "id", "the task has not ended");
        amp_error_hint(err, "amesh task cancel ends it");
        return AMP_CONFLICT;
    }
    if (ended->state == AMP__TASK_STATE__TASK_STATE_COMPLETED) {
        amp_error_set(err, AMP_TASK_ENDED, "id", "the task is completed");
        amp_error_hint(err, "ask again, as a task of its own");
        return AMP_TASK_ENDED;
    }
    return AMP_OK;
}

/* Twice would be the same work twice. What became of the first try may be tried again in its turn. */
static enum amp_code check_first_retry(struct env *env, const char *id, struct amp_error *err)
{
    struct known_key known = {{0}, {0}};
    const struct pending_key *pending = find_pending(env, SUBMIT_RETRY_SCOPE, id);
    enum amp_code code = pending ? AMP_OK : journal_key(env->journal, SUBMIT_RETRY_SCOPE, id, on_key, &known);
    const char *first = pending ? pending->task->id : known.task;
    if (code == AMP_NOT_FOUND)
        return AMP_OK;
    if (code != AMP_OK)
        *err = *journal_read_error(env->journal);
    if (code != AMP_OK)
        return code;
    amp_error_set(err, AMP_CONFLICT, "id", "the task was tried again before, as task %s", first);
    amp_error_hint(err, "amesh task show %s; if that one failed too, amesh task retry %s", first, first);
    return AMP_CONFLICT;
}

void submit_retry_verb(const struct ask *ask)
{
    struct env *env = ask->env;
    const char *id = ask->request->retry->id;
    struct ended ended = {.id = id, .arena = &env->arena};
    struct journal_query query = {.task = id, .limit = 1};
    struct amp_error err = {0};
    uint8_t digest[DIGEST_SIZE] = {0};
    if (!id || !amp_id_is_valid(id)) {
        env_refuse_code(ask, AMP_INVALID, "id", "which task?");
        return;
    }
    enum amp_code code = journal_tasks(env->journal, &query, on_ended, &ended, NULL, &err);
    if (code == AMP_OK)
        code = check_ended(&ended, &err);
    if (code == AMP_OK)
        code = check_first_retry(env, id, &err);
    if (code != AMP_OK) {
        env_refuse(env, ask->reply, ask->encoding, &err);
        return;
    }
    ended.submit->key = NULL;
    ended.submit->retry_of = (char *)id;
    ended.submit->request->task_id = (char *)"";
    ended.submit->not_before = ended.submit->planned = NULL;
    ended.submit->has_delay_ms = ended.submit->has_missed = false;
    ended.submit->schedule = NULL;
    accept(ask, ended.submit, NULL, digest);
}

/* ---- made by a schedule ---------------------------------------------------------------------------------------------------- */

static bool is_key_known(struct env *env, const char *from, const char *key)
{
    struct known_key known = {{0}, {0}};
    return find_pending(env, from, key) || journal_key(env->journal, from, key, on_key, &known) != AMP_NOT_FOUND;
}

enum amp_code submit_scheduled(struct env *env, const struct submit_run *run, struct etask **ret, struct amp_error *err)
{
    struct ask ask = {.env = env};
    uint8_t digest[DIGEST_SIZE];
    etask_strcpy(ask.from, run->from);
    enum amp_code code = check_room(&ask, amp__submit__get_packed_size(run->submit), err);
    if (code != AMP_OK)
        return code;
    if (run->key && is_key_known(env, run->from, run->key))
        return amp_error_set(err, AMP_CONFLICT, "", "this run was made before");
    submit_digest(run->submit, env_answer_arena(env), digest);
    struct etask *task = make_task(&ask, run->submit);
    bool is_forgetful = SEEDED_BUG("fired-twice") && run->entry->schedule.runs == 1;
    task->plan->writes = is_forgetful ? NULL : run->entry;
    etask_strcpy(run->entry->last_task, task->id);
    code = start_task(task, NULL, is_forgetful ? NULL : run->key, digest);
    task->plan->writes = NULL;
    if (code != AMP_OK) {
        etask_free(task);
        return amp_error_set(err, code, "", "the task could not be written down: %s", amp_code_info(code)->text);
    }
    *ret = task;
    return AMP_OK;
}

void submit_done(struct etask *task, enum amp_code code)
{
    drop_pending(task);
    if (code != AMP_OK) {
        etask_free(task); /* it was never there */
        return;
    }
    counter_add(COUNTER_env_submits, 1);
    struct engine_event event = {.kind = ENGINE_EV_COMMITTED};
    struct env *env = task->env;
    dispatch_event(task, &event);
    tree_check(task);
    if (task->lane && etask_is_crowded(env))
        etask_slim(task);
}

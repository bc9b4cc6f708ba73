/* Leases: which instance has a durable task, under an epoch that is never used twice, and what a holder that comes back too late is told. amp.md 10.7
 *
 * An epoch is the number of the environment (counted up on the disk when it opens its journal, before it leases anything) and, below it, the number of the lease: no
 * commit per lease, and none repeats after a crash or a power cut. */
#include "env_private.h"

#include "base/alloc.h"
#include "base/call.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/seeded.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- epochs ------------------------------------------------------------------------------------------------------------ */

static bool on_boot_row(void *ctx, const struct journal_row *row)
{
    *(uint32_t *)ctx = row->version;
    return false;
}

struct boot {
    struct env *env;
    uint32_t number;
};

static void on_boot(void *ctx, enum amp_code code)
{
    struct boot *boot = ctx;
    struct env *env = boot->env;
    struct target *target, *next;
    if (code == AMP_OK && !env->is_stopping) {
        env->boot = boot->number;
        HASH_ITER(hh, env->targets, target, next)
            target_mark(target);
    }
    if (!env->is_stopping)
        env_request_tick(env);
    free(boot);
}

void lease_init(struct env *env)
{
    struct boot *boot = xcalloc(1, sizeof *boot);
    struct journal_kv_query query = {.scope = JOURNAL_SCOPE_BOOT, .owner = "", .key = JOURNAL_KEY_BOOT};
    boot->env = env;
    (void)journal_kv(env->journal, &query, on_boot_row, &boot->number); /* none: the first */
    boot->number += !SEEDED_BUG("epoch-again") || boot->number == 0;
    struct journal_batch *batch = journal_batch_new(env->journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_KV);
    row->scope = JOURNAL_SCOPE_BOOT;
    row->owner = "";
    row->key = JOURNAL_KEY_BOOT;
    row->version = boot->number;
    row->at_unix_ms = clock_unix_ms();
    row->body = amp_bytes_of("{}");
    if (journal_write(env->journal, batch, on_boot, boot) != AMP_OK) {
        journal_batch_free(batch);
        free(boot);
    }
}

bool lease_may_begin(const struct env *env)
{
    return env->boot > 0;
}

uint64_t lease_next(struct env *env)
{
    env->n_leases += 2; /* those between are of cancels that give an attempt up (amp.md 10.7.8) */
    return (uint64_t)env->boot << 32 | env->n_leases;
}

/* ---- what the last environment left ------------------------------------------------------------------------------------ */

struct written {
    struct env *env;
    uint64_t epoch;
    uint32_t taken;
};

static bool on_last_row(void *ctx, const struct journal_row *row)
{
    struct written *written = ctx;
    ProtobufCMessage *message = NULL;
    struct amp_arena *arena = env_answer_arena(written->env);
    if (amp_decode(&amp__frame__descriptor, row->body, arena, &message, NULL) == AMP_OK) {
        const Amp__Frame *frame = (const Amp__Frame *)message;
        written->epoch = frame->has_epoch ? frame->epoch : 0;
        written->taken = frame->taken;
    }
    return true;
}

bool lease_is_held(struct etask *task, uint32_t *ret_seq)
{
    struct written written = {.env = task->env};
    const struct attempt *last = task->n_attempts ? &task->attempts[task->n_attempts - 1] : NULL;
    if (!last || !last->epoch || !last->started_unix_ms || last->ended_unix_ms || !last->instance[0])
        return false;
    if (journal_events(task->env->journal, task->id, task->count, on_last_row, &written, NULL) != AMP_OK)
        return false;
    task->epoch = last->epoch;
    etask_strcpy(task->agent, last->agent);
    etask_strcpy(task->instance, last->instance);
    *ret_seq = written.epoch == last->epoch ? written.taken : 0;
    return true;
}

void lease_committed(struct etask *task, uint64_t epoch, uint32_t taken)
{
    struct env *env = task->env;
    if (!epoch || epoch != task->epoch)
        return;
    if (task->call)
        call_committed(task->call, taken);
    if (task->wants_done && etask_is_over(task)) {
        task->wants_done = false;
        call_forget(env->bus, env->name, task->instance, task->id, epoch);
    }
}

/* ---- reports ----------------------------------------------------------------------------------------------------------- */

static void answer_ok(const struct ask *ask)
{
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    (void)env_answer(ask->env, ask->reply, ask->encoding, &answer); /* not sent: it is asked again */
}

static void refuse_stale(const struct ask *ask)
{
    struct amp_error err = {0};
    if (SEEDED_BUG("stale-report")) {
        answer_ok(ask);
        return;
    }
    amp_error_set(&err, AMP_STALE_LEASE, "report.epoch", "the lease of task %s under which you work is over; what you did does not count", ask->request->report->task_id);
    env_refuse(ask->env, ask->reply, ask->encoding, &err);
}

/* That its sender had, as far as the environment knows: nobody else adds to what is told of a task. */
static struct attempt *find_attempt(const struct etask *task, const struct ask *ask)
{
    const Amp__Report *report = ask->request->report;
    for (size_t i = 0; report->epoch && i < task->n_attempts; i++) {
        struct attempt *attempt = &task->attempts[i];
        if (attempt->epoch == report->epoch)
            return strcmp(attempt->agent, ask->from) == 0 && strcmp(attempt->instance, report->instance ? report->instance : "") == 0 ? attempt : NULL;
    }
    return NULL;
}

/* It ended by what its holder said, and not because we gave it up: what the holder claims is known. (Of an attempt that a former environment ended only the outcome is left.) */
static bool is_told(const struct attempt *attempt)
{
    static const enum amp_code given_up[] = {AMP_INSTANCE_LOST, AMP_STALE_LEASE, AMP_FRAMES_LOST, AMP_INTERRUPTED, AMP_NO_BUS};
    bool is_given_up = false;
    for (size_t i = 0; i < sizeof given_up / sizeof given_up[0]; i++)
        is_given_up |= attempt->outcome == given_up[i];
    return attempt->ended_unix_ms && (attempt->is_told || !is_given_up);
}

/* What is kept of an attempt is its end, once; until then that it goes on. NULL: nothing is to be kept. */
static struct attempt *find_untold(const struct etask *task, const struct ask *ask)
{
    struct attempt *attempt = find_attempt(task, ask);
    Amp__TaskState state = ask->request->report->state;
    if (!attempt)
        counter_add(COUNTER_reports_refused, 1);
    return attempt && !is_told(attempt) && (!attempt->late || (amp_task_is_terminal(state) && !amp_task_is_terminal(attempt->late->state))) ? attempt : NULL;
}

static void note_late(struct attempt *attempt, const struct ask *ask)
{
    const Amp__Report *report = ask->request->report;
    if (SEEDED_BUG("late-unsaid"))
        return;
    if (!attempt->late)
        attempt->late = xcalloc(1, sizeof *attempt->late);
    const char *answer = report->answer ? report->answer : "";
    attempt->late->at_unix_ms = clock_unix_ms();
    attempt->late->state = report->state;
    snprintf(attempt->late->answer, sizeof attempt->late->answer, "%.*s", (int)amp_utf8_cut(amp_bytes_of(answer), ENV_LATE_ANSWER), answer);
    counter_add(COUNTER_results_refused, amp_task_is_terminal(report->state));
    log_event(LOG_WARN, "env.late_result", "task", report->task_id, "agent", ask->from, "instance", attempt->instance, "state", amp_task_state_short(report->state), NULL);
}

/* The task is in memory, and has not ended. */
static void report_open(const struct ask *ask, struct etask *task)
{
    const Amp__Report *report = ask->request->report;
    if (task->epoch == report->epoch && task->call && call_instance(task->call)[0] && strcmp(task->agent, ask->from) == 0 &&
        strcmp(call_instance(task->call), report->instance ? report->instance : "") == 0) {
        call_heard(task->call, amp_task_is_terminal(report->state));
        answer_ok(ask);
        return;
    }
    struct attempt *attempt = find_untold(task, ask);
    if (attempt) {
        note_late(attempt, ask);
        etask_changed(task);
    }
    refuse_stale(ask);
}

struct closed { /* a task that ended long ago */
    const struct ask *ask;
    bool is_found;
};

/* In the record, too: its metadata holds the same text. */
static struct amp_bytes new_body(struct journal_batch *batch, const struct journal_row *row, const char *attempts)
{
    struct amp_arena *arena = journal_batch_arena(batch);
    struct amp_bytes same = journal_batch_bytes(batch, row->body);
    Amp__TaskRecord *record = row->body.len ? amp__task_record__unpack(&arena->allocator, row->body.len, row->body.data) : NULL;
    Amp__Json *metadata = record ? record->task->metadata : NULL;
    size_t old_len = strlen(row->attempts), new_len = strlen(attempts);
    const uint8_t *at = metadata && old_len ? memmem(metadata->text.data, metadata->text.len, row->attempts, old_len) : NULL;
    if (!at)
        return same;
    size_t before = (size_t)(at - metadata->text.data), len = metadata->text.len - old_len + new_len;
    uint8_t *text = amp_arena_alloc(arena, len);
    if (!text)
        return same;
    memcpy(text, metadata->text.data, before);
    memcpy(text + before, attempts, new_len);
    memcpy(text + before + new_len, at + old_len, metadata->text.len - before - old_len);
    metadata->text = (ProtobufCBinaryData){.len = len, .data = text};
    size_t size = amp__task_record__get_packed_size(record);
    uint8_t *packed = amp_arena_alloc(arena, size);
    return packed ? (struct amp_bytes){.data = packed, .len = amp__task_record__pack(record, packed)} : same;
}

/* Its row, which can be megabytes, is written once for each attempt: not again while that is under way. */
struct late_write {
    struct env *env;
    struct late_write *next;
    char task[AMP_NAME_MAX + 1];
};

static void on_rewritten(void *ctx, enum amp_code code)
{
    struct late_write *write = ctx;
    (void)code; /* of a journal that failed, everybody hears */
    for (struct late_write **link = &write->env->late_writes; *link; link = &(*link)->next) {
        if (*link == write) {
            *link = write->next;
            break;
        }
    }
    write->env->n_late_writes--;
    free(write);
}

static bool may_rewrite(const struct env *env, const char *task)
{
    for (const struct late_write *write = env->late_writes; write; write = write->next)
        if (strcmp(write->task, task) == 0)
            return false;
    return env->n_late_writes < ENV_LATE_WRITES_MAX;
}

static void write_late(struct env *env, const char *task, struct journal_batch *batch)
{
    struct late_write *write = xcalloc(1, sizeof *write);
    write->env = env;
    etask_strcpy(write->task, task);
    if (journal_write(env->journal, batch, on_rewritten, write) != AMP_OK) {
        journal_batch_free(batch); /* it is told all the same that it does not count */
        free(write);
        return;
    }
    write->next = env->late_writes;
    env->late_writes = write;
    env->n_late_writes++;
}

static void rewrite(struct env *env, const struct journal_row *row, const struct etask *with)
{
    struct journal_batch *batch = journal_batch_new(env->journal);
    char *attempts = view_attempts(with, journal_batch_arena(batch));
    struct journal_row *copy = journal_batch_add(batch, JOURNAL_TASK);
    struct journal_row *next = copy->next;
    *copy = *row;
    copy->kind = JOURNAL_TASK;
    copy->next = next;
    const char **texts[] = {&copy->task, &copy->context, &copy->agent, &copy->skill, &copy->from, &copy->parent, &copy->instance};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        *texts[i] = journal_batch_text(batch, *texts[i]);
    copy->attempts = attempts;
    copy->scope = copy->owner = copy->key = NULL;
    copy->request = (struct amp_bytes){0};
    copy->body = attempts ? new_body(batch, row, attempts) : (struct amp_bytes){0};
    if (attempts)
        write_late(env, row->task, batch);
    else
        journal_batch_free(batch);
}

static void report_closed(const struct ask *ask, const struct journal_row *row, struct etask *with)
{
    struct attempt *attempt = find_untold(with, ask);
    bool is_kept = attempt && amp_task_is_terminal(ask->request->report->state);
    if (is_kept && !may_rewrite(ask->env, row->task)) {
        env_refuse_code(ask, AMP_BUSY, "report.task_id", "what another one said of it is being written down");
        return;
    }
    if (is_kept) {
        note_late(attempt, ask);
        rewrite(ask->env, row, with);
    }
    refuse_stale(ask);
}

static bool on_closed(void *ctx, const struct journal_row *row)
{
    struct closed *closed = ctx;
    const struct ask *ask = closed->ask;
    struct etask with = {.env = ask->env}; /* its attempts only */
    closed->is_found = true;
    if (!row->is_durable || row->is_open) {
        env_refuse_code(ask, row->is_durable ? AMP_JOURNAL : AMP_NO_SUCH_TASK, "report.task_id", NULL);
        return false;
    }
    etask_strcpy(with.agent, row->agent);
    etask_strcpy(with.skill, row->skill);
    view_load_attempts(&with, row->attempts);
    const struct attempt *last = with.n_attempts ? &with.attempts[with.n_attempts - 1] : NULL;
    if (last && last->epoch == ask->request->report->epoch && is_told(last)) {
        env_refuse_code(ask, AMP_TASK_ENDED, "report.task_id", NULL); /* by what this one said, or by a cancel that it was told of */
    } else {
        report_closed(ask, row, &with);
    }
    for (size_t i = 0; i < with.n_attempts; i++)
        etask_drop_attempt(&with.attempts[i]);
    free(with.attempts);
    return false;
}

void lease_report_verb(const struct ask *ask)
{
    struct env *env = ask->env;
    const Amp__Report *report = ask->request->report;
    struct etask *task = etask_find(env, report->task_id);
    struct closed closed = {.ask = ask};
    struct journal_query query = {.task = report->task_id, .limit = 1};
    if (task && !task->is_ended && task->is_durable) {
        report_open(ask, task);
    } else if (task && !etask_is_over(task)) {
        env_refuse_code(ask, AMP_BUSY, "report.task_id", "its end is being written down");
    } else {
        enum amp_code code = journal_tasks(env->journal, &query, on_closed, &closed, NULL, NULL);
        if (code != AMP_OK)
            env_refuse_journal(env, ask->reply, ask->encoding);
        else if (!closed.is_found)
            env_refuse_code(ask, AMP_NO_SUCH_TASK, "report.task_id", NULL);
    }
}

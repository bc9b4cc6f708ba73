/* All tasks of one sidecar: found by id, sent at the end of each turn, given back for reuse. Memory is given back only here, so that no task dies under a callback. */
#include "task_private.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"

#define RETRY_MS 20u

/* ---- finding ------------------------------------------------------------------------------------------------- */

struct task *task_lookup(struct sidecar *sidecar, const char *id)
{
    struct task *task;
    HASH_FIND_STR(sidecar->tasks.by_id, id, task);
    return task;
}

struct task *task_find(struct sidecar *sidecar, const char *id)
{
    struct task *task = task_lookup(sidecar, id);
    return task && task->is_running ? task : NULL;
}

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

static void task_free(struct task *task)
{
    task_room_call(task);
    task_files_done(task);
    task_timers_free(task);
    task_questions_forget(task);
    amp_arena_done(&task->arena);
    amp_buf_done(&task->stream.bodies);
    amp_buf_done(&task->stream.waiting);
    free(task->stream.refs);
    free(task);
}

static struct task *task_new(struct sidecar *sidecar)
{
    struct task *task = xcalloc(1, sizeof *task);
    task->sidecar = sidecar;
    task_timers_new(task);
    amp_arena_init(&task->arena, AMP_ARENA_BYTES_MAX);
    task_stream_init(task);
    return task;
}

struct task *task_blank(struct sidecar *sidecar)
{
    struct task_table *table = &sidecar->tasks;
    struct task *task = table->pool;
    if (!task)
        return task_new(sidecar);
    table->pool = task->next_pool;
    table->n_pool--;
    return task;
}

/* One that is kept after its end may be heard of in the very turn in which it gives way. */
static void forget_dirty(struct task *task)
{
    struct task **at = &task->sidecar->tasks.dirty;
    if (!task->is_dirty)
        return;
    while (*at != task)
        at = &(*at)->next_dirty;
    *at = task->next_dirty;
    task->is_dirty = false;
}

/* Not in the table (any more): for reuse. */
void task_discard(struct task *task)
{
    struct task_table *table = &task->sidecar->tasks;
    forget_dirty(task);
    task_timers_stop(task);
    task_room_call(task);
    task_files_done(task);
    task_questions_forget(task);
    if (table->n_pool >= SIDECAR_POOL_MAX) {
        task_free(task);
        return;
    }
    if (task->arena.used <= SIDECAR_POOL_BYTES) {
        amp_arena_reset(&task->arena);
    } else {
        amp_arena_done(&task->arena);
        amp_arena_init(&task->arena, AMP_ARENA_BYTES_MAX);
    }
    task_stream_reset(task);
    task->is_running = task->is_canceled = task->is_blocked = task->is_waiting = task->wants_turn = task->is_lingering = task->is_retired = task->has_asked = task->has_unsaid = task->is_parent = false;
    task->resume = task->given = NULL;
    task->cancel_reason = NULL;
    task->request = NULL;
    task->next_pool = table->pool;
    table->pool = task;
    table->n_pool++;
}

void task_retire(struct task *task)
{
    struct task_table *table = &task->sidecar->tasks;
    HASH_DEL(table->by_id, task);
    task->is_retired = true;
    LIST_INSERT_HEAD(&table->retired, task, retired);
}

void task_release(struct task *task)
{
    struct task_table *table = &task->sidecar->tasks;
    if (task->is_lingering)
        *(task_is_leased(task) ? &table->n_kept : &table->n_lingering) -= 1;
    if (task->is_retired)
        LIST_REMOVE(task, retired);
    else
        HASH_DEL(table->by_id, task);
    task_discard(task);
}

static void task_flush(struct task *task)
{
    struct task_table *table = &task->sidecar->tasks;
    enum amp_code code = task_flush_now(task);
    if (code == AMP_OVERLOADED && !loop_timer_is_set(table->retry))
        loop_timer_set(table->retry, RETRY_MS);
    if (!task_is_full(task))
        task_room_call(task);
    if (!task->stream.is_ended || task->is_running || task->is_kept)
        return;
    bool is_leased = task_is_leased(task);
    uint32_t *count = is_leased ? &table->n_kept : &table->n_lingering;
    if (is_leased ? task->lease.is_over : code == AMP_OK) {
        if (!task_resume_keep(task))
            task_release(task);
    } else if (!task->is_lingering) {
        task->is_lingering = true;
        if (++*count > (is_leased ? SIDECAR_KEPT_MAX : SIDECAR_LINGERING_MAX)) {
            counter_add(COUNTER_events_refused, task->stream.n_refs);
            log_event(LOG_ERROR, "task.end_lost", "task", task_id(task), "reason", "too many ended tasks wait for the bus", NULL);
            task_release(task);
        }
    }
}

void task_flush_dirty(struct sidecar *sidecar)
{
    struct task *task;
    while ((task = sidecar->tasks.dirty)) {
        sidecar->tasks.dirty = task->next_dirty;
        task->is_dirty = false;
        task_flush(task);
    }
}

void task_flush_all(struct sidecar *sidecar)
{
    struct task *task, *next;
    HASH_ITER(hh, sidecar->tasks.by_id, task, next)
        task_mark_dirty(task);
}

uint32_t task_queued(struct sidecar *sidecar)
{
    struct task *task, *next;
    uint32_t count = 0;
    if (sidecar->tasks.n_waiting == 0)
        return 0;
    HASH_ITER(hh, sidecar->tasks.by_id, task, next)
        count += task->is_waiting && task->wants_turn;
    return count;
}

size_t task_ids(struct sidecar *sidecar, char **ret, size_t max)
{
    struct task *task, *next;
    size_t n = 0;
    HASH_ITER(hh, sidecar->tasks.by_id, task, next) {
        if (n == max)
            break;
        if (!task->stream.is_ended)
            ret[n++] = task->request->task_id;
    }
    return n;
}

static void on_retry(void *ctx)
{
    task_flush_all(ctx);
}

void task_table_init(struct sidecar *sidecar)
{
    sidecar->tasks.retry = loop_timer_new(sidecar->loop, on_retry, sidecar);
    task_hung_init(sidecar);
    task_resume_init(sidecar);
}

void task_table_done(struct sidecar *sidecar)
{
    struct task_table *table = &sidecar->tasks;
    struct task *task, *next;
    HASH_ITER(hh, table->by_id, task, next) {
        task_questions_drop(task);
        HASH_DEL(table->by_id, task); /* NOLINT(clang-analyzer-core.NullDereference): it does not follow uthash */
        task_free(task);
    }
    while ((task = LIST_FIRST(&table->retired))) {
        LIST_REMOVE(task, retired);
        task_free(task);
    }
    while ((task = table->pool)) {
        table->pool = task->next_pool;
        task_free(task);
    }
    loop_timer_free(table->retry);
    task_hung_done(sidecar);
    task_resume_done(sidecar);
}

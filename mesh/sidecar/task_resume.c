/* Frames of direct tasks that did not arrive. What the caller has not confirmed is kept, for as long as the window is large, and for a while after the end; the caller asks for it again with an
 * Attach, to the inbox that it has always had. Nobody else gets it: a control may come from anybody who is permitted to publish it, the inbox is read by the caller's connection alone. amp.md 6.8 */
#include "task_private.h"

#include <string.h>

#include "base/bus.h"
#include "base/counters.h"
#include "base/loop.h"
#include "base/seeded.h"

#define TICK_MS 500u /* of the clock of ended tasks */

static bool may_resume(const struct task *task)
{
    const struct task_lane *lane = &task->stream.lanes[LANE_CALLER];
    return !task_is_leased(task) && lane->is_open && lane->window > 0 && !lane->is_deaf;
}

/* ---- while it goes on ------------------------------------------------------------------------------------------ */

bool task_resume_keeps(const struct task *task, size_t sent_bytes)
{
    return may_resume(task) && sent_bytes <= SIDECAR_RESUME_BYTES && !SEEDED_BUG("unkept-frames");
}

void task_resume_heard(struct task *task, const Amp__Ping *ping)
{
    struct task_lane *lane = &task->stream.lanes[LANE_CALLER];
    if (!ping || task_is_leased(task))
        return;
    if (ping->has_committed && ping->committed <= lane->sent && ping->committed > lane->confirmed) {
        lane->confirmed = ping->committed;
        task_mark_dirty(task);
    } else if (ping->has_received_bytes && !ping->has_committed) {
        lane->is_deaf = true; /* it counts bytes, and will not ask for anything again */
        task_mark_dirty(task);
    }
}

bool task_resume_is_behind(const struct task *task, const Amp__Ping *ping)
{
    const struct task_lane *lane = &task->stream.lanes[LANE_CALLER];
    return may_resume(task) && ping->has_committed && ping->committed < lane->sent;
}

enum amp_code task_resume_attach(struct task *task, const Amp__Attach *attach, const struct task_reader *reader, struct amp_error *reterr)
{
    const struct task_lane *lane = &task->stream.lanes[LANE_CALLER];
    if (attach->epoch != 0)
        return amp_error_set(reterr, AMP_STALE_LEASE, "control.attach.epoch", "instance %s does not have task %s on lease", task->sidecar->instance, task_id(task));
    if (!lane->is_open || strcmp(reader->inbox, lane->subject) != 0 || !reader->from || strcmp(reader->from, task->from) != 0)
        return amp_error_set(reterr, AMP_DENIED, "reply", "the events of a direct task go to the inbox from which it was asked for, and to no other");
    task->heard_ms = loop_now_ms(task->sidecar->loop);
    enum amp_code code = task_stream_reopen(task, attach, reader, reterr);
    if (code == AMP_OK)
        counter_add(COUNTER_streams_resent, 1);
    task_mark_dirty(task);
    return code;
}

/* ---- after the end ----------------------------------------------------------------------------------------------- */

static size_t size_of(const struct task *task)
{
    return sizeof *task + task->stream.bodies.cap + task->stream.cap_refs * sizeof *task->stream.refs + task->arena.used;
}

/* Time in which we stand still, or are cut off, is none in which a caller could ask. */
static void on_old(void *ctx)
{
    struct sidecar *sidecar = ctx;
    struct task_table *table = &sidecar->tasks;
    struct task *task;
    table->kept_ms += bus_is_up(sidecar->bus) ? TICK_MS : 0;
    while ((task = TAILQ_FIRST(&table->ended)) && table->kept_ms - task->ended_ms > SIDECAR_ENDED_MS)
        task_resume_drop(task);
    if (task)
        loop_timer_set(table->old, TICK_MS);
}

void task_resume_init(struct sidecar *sidecar)
{
    TAILQ_INIT(&sidecar->tasks.ended);
    sidecar->tasks.old = loop_timer_new(sidecar->loop, on_old, sidecar);
}

void task_resume_done(struct sidecar *sidecar)
{
    loop_timer_free(sidecar->tasks.old);
}

bool task_is_read_at(const struct task *task, const char *inbox)
{
    return strcmp(task->stream.lanes[LANE_CALLER].subject, inbox) == 0;
}

bool task_resume_is_kept(const struct task *task)
{
    return task->is_kept;
}

void task_resume_drop(struct task *task)
{
    struct task_table *table = &task->sidecar->tasks;
    TAILQ_REMOVE(&table->ended, task, ended);
    table->n_ended--;
    table->ended_bytes -= task->ended_bytes;
    task->is_kept = false;
    task_release(task);
}

bool task_resume_keep(struct task *task)
{
    struct task_table *table = &task->sidecar->tasks;
    if (task->is_kept)
        return true;
    if (!may_resume(task) || size_of(task) > SIDECAR_ENDED_BYTES)
        return false;
    task_timers_stop(task);
    if (task->is_lingering)
        table->n_lingering--;
    task->is_lingering = false;
    task->is_kept = true;
    task->ended_bytes = size_of(task);
    task->ended_ms = table->kept_ms;
    TAILQ_INSERT_TAIL(&table->ended, task, ended);
    table->n_ended++;
    table->ended_bytes += task->ended_bytes;
    while (table->n_ended > SIDECAR_ENDED_MAX || table->ended_bytes > SIDECAR_ENDED_BYTES)
        task_resume_drop(TAILQ_FIRST(&table->ended));
    if (!loop_timer_is_set(table->old))
        loop_timer_set(table->old, TICK_MS);
    return true;
}

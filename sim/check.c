/* The promises, held against the journal when all is quiet again (reliability: P1 … P5). */
#include "hold.h"

#include "env/journal.h"

#include <string.h>

struct row { /* what the journal says of one task */
    const struct job *job;
    bool is_there, is_open, is_incomplete;
    Amp__TaskState state;
    uint32_t count, attempt;
    char task[AMP_ID_SIZE];
};

struct events {
    const struct row *row;
    struct amp_fold *fold;
    uint32_t next, n_ends;
    uint64_t epoch; /* of the attempt that said the last of them */
};

static bool on_task(void *ctx, const struct journal_row *row)
{
    struct row *found = ctx;
    found->is_there = true;
    found->is_open = row->is_open;
    found->is_incomplete = row->is_incomplete;
    found->state = (Amp__TaskState)row->state;
    found->count = row->count;
    found->attempt = row->attempt;
    hold_check(row->task, row->attempts);
    return false;
}

static void check_seen(const struct job *job, uint32_t seq, uint64_t digest)
{
    for (size_t i = 0; i < job->n_seen; i++)
        if (job->seen[i].seq == seq && job->seen[i].digest != digest)
            world_fail("P4: event %u of %s is not the one that a watcher was shown", seq, job->task);
}

static bool on_events(void *ctx, const struct journal_row *row)
{
    struct events *events = ctx;
    struct amp_arena arena;
    amp_arena_init(&arena, 8 << 20);
    Amp__Frame *frame = amp__frame__unpack(&arena.allocator, row->body.len, row->body.data);
    if (!frame || row->seq != events->next)
        world_fail("P4: the journal's events of %s go on with %u, expected %u", events->row->task, row->seq, events->next);
    if (frame && frame->has_epoch && frame->epoch < events->epoch)
        world_fail("P9: event %u of %s was said under an epoch that was over", row->seq, events->row->task);
    if (frame && frame->has_epoch)
        events->epoch = frame->epoch;
    for (size_t i = 0; frame && i < frame->n_events; i++) {
        struct amp_bytes body = {frame->events[i]->body->text.data, frame->events[i]->body->text.len};
        world_trace("event %u of %s: %.*s", events->next, events->row->task, (int)body.len, (const char *)body.data);
        if (amp_task_is_terminal(amp_fold_state(events->fold)))
            world_fail("P3: event %u of %s stands after its end", events->next, events->row->task);
        else if (amp_fold_apply(events->fold, body, NULL) != AMP_OK)
            world_fail("P4: event %u of %s is not allowed in its state", events->next, events->row->task);
        else
            events->n_ends += amp_task_is_terminal(amp_fold_state(events->fold));
        if (events->row->job)
            check_seen(events->row->job, events->next, digest_of(body));
        events->next++;
    }
    amp_arena_done(&arena);
    return true;
}

static void text_of(const Amp__Task *task, char *ret, size_t size)
{
    size_t at = 0;
    ret[0] = '\0';
    for (size_t i = 0; i < task->n_artifacts; i++)
        for (size_t j = 0; j < task->artifacts[i]->n_parts && at < size; j++)
            if (task->artifacts[i]->parts[j]->text)
                at += (size_t)snprintf(ret + at, size - at, "%s", task->artifacts[i]->parts[j]->text);
}

static void check_answer(const struct job *job, const Amp__Task *task)
{
    char expected[256], text[2048];
    agent_answer(job->wish->text, expected, sizeof expected);
    text_of(task, text, sizeof text);
    if (strcmp(text, expected) != 0)
        world_fail("P3: task %s is completed with \"%s\", expected \"%s\"", job->task, text, expected);
}

static void check_events(struct journal *journal, const struct row *row)
{
    struct events events = {.row = row, .fold = amp_fold_new(row->task, row->job->context, 8 << 20), .next = 1};
    if (journal_events(journal, row->task, 1, on_events, &events, NULL) != AMP_OK)
        world_fail("P1: the events of %s cannot be read", row->task);
    if (events.next != row->count + 1)
        world_fail("P4: task %s has %u events, its summary says %u", row->task, events.next - 1, row->count);
    if (events.n_ends != 1)
        world_fail("P3: task %s has %u ends", row->task, events.n_ends);
    if (row->job->n_seen > 0 && row->job->seen[row->job->n_seen - 1].seq >= events.next)
        world_fail("P1: a watcher of %s was shown event %u; the journal ends with %u", row->task, row->job->seen[row->job->n_seen - 1].seq, events.next - 1);
    if (row->job->watch_ended && row->job->code == AMP_OK && row->job->n_seen != row->count && row->count <= SEEN_MAX)
        world_fail("P4: a watcher of %s was shown %zu of %u events", row->task, row->job->n_seen, row->count);
    if (row->state == AMP__TASK_STATE__TASK_STATE_COMPLETED)
        check_answer(row->job, amp_fold_task(events.fold));
    amp_fold_free(events.fold);
}

static void count(const struct row *row)
{
    static const enum stat_name ends[] = {[AMP__TASK_STATE__TASK_STATE_COMPLETED] = STAT_completed, [AMP__TASK_STATE__TASK_STATE_FAILED] = STAT_failed,
                                          [AMP__TASK_STATE__TASK_STATE_CANCELED] = STAT_canceled, [AMP__TASK_STATE__TASK_STATE_REJECTED] = STAT_rejected};
    if (amp_task_is_terminal(row->state))
        stat_add(ends[row->state], 1);
    stat_add(STAT_attempts, row->attempt);
    stat_add(STAT_retried, row->attempt > 1);
    stat_add(STAT_never_retried, row->job->wish->is_never_retried);
}

static void check_end(const struct row *row)
{
    const struct job *job = row->job;
    count(row);
    if (job->known_end && job->known_end != row->state)
        world_fail("P3: task %s ended as %s, and had been told to be %s", job->task, amp_task_state_short(row->state), amp_task_state_short(job->known_end));
    bool is_bad = strncmp(job->wish->text, "fail", 4) == 0 || strncmp(job->wish->text, "poison", 6) == 0;
    if (row->is_open || !amp_task_is_terminal(row->state))
        world_fail("P2: task %s (%s) has no end: %s", job->task, job->wish->text, amp_task_state_short(row->state));
    if (is_bad && row->state == AMP__TASK_STATE__TASK_STATE_COMPLETED)
        world_fail("P3: task %s (%s) is completed", job->task, job->wish->text);
    if (row->state == AMP__TASK_STATE__TASK_STATE_CANCELED && !job->wish->wants_cancel)
        world_fail("P2: task %s is cancelled, and nobody asked for that", job->task);
    if (job->wish->is_never_retried && row->attempt > 1)
        world_fail("P5: task %s was tried %u times with retry never", job->task, row->attempt);
}

static void check_durable(struct journal *journal, const struct job *job)
{
    struct row row = {.job = job};
    snprintf(row.task, sizeof row.task, "%s", job->task);
    const struct journal_query query = {.task = job->task, .limit = 1};
    if (journal_tasks(journal, &query, on_task, &row, NULL, NULL) != AMP_OK || !row.is_there) {
        world_fail("P1: task %s was accepted and is not in the journal", job->task);
        return;
    }
    if (!row.is_open)
        check_events(journal, &row);
    human_check(journal, job);
    if (branch_is_fork(job))
        branch_check(journal, job);
    check_end(&row);
}

/* Whoever was away, in history is what its caller was told. */
static void check_history(struct journal *journal, const struct job *job)
{
    struct row row = {.job = job};
    const struct journal_query query = {.task = job->task, .limit = 1};
    /* What was said before the stream was there is in the memory of the environment alone until it is written. */
    if (scenario.may_lack_frames || job->code != AMP_OK || (job->is_unkept && nodes_env_starts() > 1))
        return;
    if (journal_tasks(journal, &query, on_task, &row, NULL, NULL) != AMP_OK || !row.is_there)
        world_fail("P7: the direct call %s is not in history", job->task);
    else if (row.is_open || row.is_incomplete || row.state != amp_fold_state(job->fold))
        world_fail("P7: the direct call %s is %s%s in history, and ended as %s", job->task, row.is_open ? "open, " : row.is_incomplete ? "incomplete, " : "", amp_task_state_short(row.state),
                   amp_task_state_short(amp_fold_state(job->fold)));
}

static void check_direct(const struct job *job)
{
    if (job->n_ends != 1)
        world_fail("P2: the direct call %s has %u ends", job->task, job->n_ends);
    if (job->code == AMP_FRAMES_LOST && !scenario.may_lose_instance && !scenario.has_doubled)
        world_fail("PE: the direct call %s has lost events that its instance kept", job->task);
    if (job->code == AMP_OK && !amp_task_is_terminal(amp_fold_state(job->fold)))
        world_fail("P2: the direct call %s ended in good order, but its task did not", job->task);
    /* A request that came twice may be worked on twice, and nothing tells the frames of the one from those of the other. */
    if (job->code == AMP_OK && amp_fold_state(job->fold) == AMP__TASK_STATE__TASK_STATE_COMPLETED && (job->n_begun == 1 || !scenario.has_doubled))
        check_answer(job, amp_fold_task(job->fold));
}

/* ---- how fast they came ---------------------------------------------------------------------------------------------------- */

struct came { /* the tasks of one sender, in the order of their acceptance */
    size_t n;
    int64_t at_ms[JOBS_MAX];
};

static bool on_came(void *ctx, const struct journal_row *row)
{
    struct came *all = ctx;
    for (const struct job *job = scenario.jobs; job < scenario.jobs + scenario.n_jobs; job++) {
        struct came *came = &all[job->wish->client];
        if (!job->wish->is_durable || !job->is_accepted || strcmp(job->task, row->task) != 0)
            continue;
        size_t at = came->n++;
        for (; at > 0 && came->at_ms[at - 1] > row->at_unix_ms; at--)
            came->at_ms[at] = came->at_ms[at - 1];
        came->at_ms[at] = row->at_unix_ms;
    }
    return true;
}

/* In any span no more than go through a bucket that was full at its start, and full again with each environment. */
static void check_span(const struct client *client, const struct came *came, size_t first, size_t last)
{
    uint32_t rate = scenario.script.rate_max, n_full = 1, n_starts = nodes.n_starts < STARTS_MAX ? nodes.n_starts : STARTS_MAX;
    int64_t span_ms = came->at_ms[last] - came->at_ms[first];
    for (uint32_t i = 0; i < n_starts; i++)
        n_full += scenario.starts_ms[i] > came->at_ms[first] && scenario.starts_ms[i] <= came->at_ms[last];
    if ((int64_t)(last - first + 1) * 1000 > (int64_t)rate * (n_full * INT64_C(1000) + span_ms + 5))
        world_fail("PO: %zu tasks of %s were accepted in %lld ms, under %u environments, and %u a second may be", last - first + 1, client->name, (long long)span_ms, n_full, rate);
}

static void check_rate(struct journal *journal)
{
    struct came all[CLIENTS_MAX] = {0};
    const struct journal_query query = {.limit = JOURNAL_READ_MAX};
    if (!scenario.script.rate_max || scenario.has_jumped || journal_tasks(journal, &query, on_came, all, NULL, NULL) != AMP_OK)
        return;
    for (size_t i = 0; i < scenario.script.n_clients; i++)
        for (size_t last = 1; last < all[i].n; last++)
            for (size_t first = 0; first < last; first++)
                check_span(&scenario.clients[i], &all[i], first, last);
}

void check_all(struct journal *journal)
{
    check_rate(journal);
    for (const struct routine *routine = scenario.routines; routine < scenario.routines + scenario.n_routines; routine++)
        routine_check(journal, routine);
    for (const struct job *job = scenario.jobs; job < scenario.jobs + scenario.n_jobs; job++) {
        if (job->wish->is_durable && !job->is_accepted)
            world_fail("P6: %s was never accepted, although all is well", job->key);
        else if (job->wish->is_durable)
            check_durable(journal, job);
        else
            check_direct(job);
        if (!job->wish->is_durable)
            check_history(journal, job);
    }
}

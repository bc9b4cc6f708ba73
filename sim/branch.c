/* Forks: a task that goes on from an event of another one begins with what that had said by then, and each one that was confirmed is there once, whatever died meanwhile. */
#include "scenario.h"

#include "env/journal.h"

#include <string.h>

static const struct job *origin_of(const struct job *job)
{
    for (const struct job *each = scenario.jobs; job->wish->fork_of && each < scenario.jobs + scenario.n_jobs; each++)
        if (each->wish->is_durable && each->wish->n + 1 == job->wish->fork_of)
            return each;
    return NULL;
}

bool branch_is_fork(const struct job *job) { return origin_of(job) != NULL; }

bool branch_fill(struct job *job, Amp__Message *message, Amp__Fork *ret)
{
    const struct job *origin = origin_of(job);
    if (!origin || !origin->is_accepted)
        return false;
    uint32_t shown = origin->n_seen ? origin->seen[origin->n_seen - 1].seq : 0, known = origin->known_events > shown ? origin->known_events : shown;
    if (!job->fork_seq)
        job->fork_seq = 1 + (known ? world_below(known) : 0);
    amp__fork__init(ret);
    ret->id = (char *)origin->task;
    ret->seq = job->fork_seq;
    ret->agent = job->wish->is_skill ? NULL : (char *)job->wish->agent;
    ret->message = message;
    return true;
}

/* ---- what it begins with --------------------------------------------------------------------------------------------------- */

struct past { /* events 1 … last of a task */
    struct amp_fold *fold;
    uint32_t last, next;
};

static bool on_events(void *ctx, const struct journal_row *row)
{
    struct past *past = ctx;
    struct amp_arena arena;
    amp_arena_init(&arena, 8 << 20);
    Amp__Frame *frame = amp__frame__unpack(&arena.allocator, row->body.len, row->body.data);
    for (size_t i = 0; frame && i < frame->n_events && past->next <= past->last; i++, past->next++)
        (void)!amp_fold_apply(past->fold, (struct amp_bytes){frame->events[i]->body->text.data, frame->events[i]->body->text.len}, NULL);
    amp_arena_done(&arena);
    return past->next <= past->last;
}

static struct past past_of(struct journal *journal, const struct job *job, uint32_t last, const Amp__Message *asked)
{
    struct past past = {.fold = amp_fold_new(job->task, job->context, 8 << 20), .last = last, .next = 1};
    if (asked)
        (void)!amp_fold_message(past.fold, asked);
    if (journal_events(journal, job->task, 1, on_events, &past, NULL) != AMP_OK || past.next <= last)
        world_fail("P1: the events of %s cannot be read", job->task);
    return past;
}

/* All texts of artifacts, and what was said by whom, one behind the other. */
static uint64_t digest_of_task(const Amp__Task *task, size_t n_history)
{
    uint64_t hash = n_history;
    for (size_t i = 0; i < task->n_artifacts; i++)
        for (size_t j = 0; j < task->artifacts[i]->n_parts; j++)
            hash = hash * 31 + digest_of(amp_bytes_of(task->artifacts[i]->parts[j]->text ? task->artifacts[i]->parts[j]->text : ""));
    for (size_t i = 0; i < n_history && i < task->n_history; i++)
        hash = hash * 31 + digest_of(amp_bytes_of(task->history[i]->message_id ? task->history[i]->message_id : ""));
    return hash;
}

static void check_past(struct journal *journal, const struct job *job, const struct job *origin)
{
    Amp__Message asked;
    Amp__Part part, *parts[1];
    client_message(origin->wish->text, origin->key, &asked, &part, parts);
    struct past then = past_of(journal, origin, job->fork_seq, branch_is_fork(origin) ? NULL : &asked), now = past_of(journal, job, 1, NULL);
    const Amp__Task *was = amp_fold_task(then.fold), *is = amp_fold_task(now.fold);
    bool is_more = is->n_history == was->n_history + 1 && strcmp(is->history[was->n_history]->message_id, job->key) == 0;
    if (!is_more || digest_of_task(was, was->n_history) != digest_of_task(is, was->n_history))
        world_fail("PF: task %s is a fork of %s at event %u, and does not begin with what that was", job->task, origin->task, job->fork_seq);
    amp_fold_free(then.fold);
    amp_fold_free(now.fold);
}

/* ---- how many there are ------------------------------------------------------------------------------------------------------ */

struct copies {
    const struct job *job, *origin;
    uint32_t n;
    bool is_there;
};

static bool on_task(void *ctx, const struct journal_row *row)
{
    struct copies *copies = ctx;
    struct amp_arena arena;
    amp_arena_init(&arena, 8 << 20);
    const Amp__Submit *submit = amp__submit__unpack(&arena.allocator, row->request.len, row->request.data);
    if (submit && submit->fork_of && strcmp(submit->request->message->message_id, copies->job->key) == 0) {
        copies->n++;
        copies->is_there |= strcmp(row->task, copies->job->task) == 0 && strcmp(submit->fork_of, copies->origin->task) == 0 && submit->fork_seq == copies->job->fork_seq;
    }
    amp_arena_done(&arena);
    return true;
}

void branch_check(struct journal *journal, const struct job *job)
{
    const struct job *origin = origin_of(job);
    struct copies copies = {.job = job, .origin = origin};
    const struct journal_query query = {.limit = JOURNAL_READ_MAX};
    if (journal_tasks(journal, &query, on_task, &copies, NULL, NULL) != AMP_OK || !copies.is_there)
        world_fail("PF: task %s does not say that it is a fork of %s at event %u", job->task, origin->task, job->fork_seq);
    if (copies.n > 1 + job->n_unheard && !scenario.has_doubled)
        world_fail("PF: task %s was forked once, asked for %u times more without an answer, and there are %u forks", origin->task, job->n_unheard, copies.n);
    stat_add(STAT_forks, 1);
    check_past(journal, job, origin);
}

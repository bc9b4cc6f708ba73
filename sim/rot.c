/* Bit rot: at the end of a run the environment is ended, one bit of what the journal has on the disk is another one, and everything is read again. Each task is what it was, or is
 * refused as damaged, or the whole journal is: nothing is made up and nothing is left out without a word. */
#include "scenario.h"

#include "base/loop.h"
#include "env/env_private.h"
#include "env/journal_files.h"

#include <string.h>

static struct {
    uint64_t before[JOBS_MAX];
    uint32_t n_refused, n_gone;
} rot;

struct reading {
    uint64_t digest;
    uint32_t n, count, last; /* rows of the task; its events as that says; those that came, without a gap */
};

static void mix(struct reading *reading, struct amp_bytes bytes) { reading->digest = (reading->digest ^ digest_of(bytes)) * 1099511628211ull; }

static bool on_task(void *ctx, const struct journal_row *row)
{
    struct reading *reading = ctx;
    const uint32_t numbers[] = {(uint32_t)row->state, row->count, row->attempt, row->is_open, row->is_dead};
    mix(reading, amp_bytes_of(row->task));
    mix(reading, amp_bytes_of(row->attempts ? row->attempts : ""));
    mix(reading, (struct amp_bytes){(const uint8_t *)numbers, sizeof numbers});
    mix(reading, row->body);
    mix(reading, row->request);
    reading->n++;
    reading->count = row->count;
    return true;
}

static bool on_event(void *ctx, const struct journal_row *row)
{
    struct reading *reading = ctx;
    mix(reading, row->body);
    if (row->seq <= reading->last + 1)
        reading->last = row->seq + row->count - 1;
    return true;
}

/* All that is kept of a task, in one number. */
static enum amp_code read_job(struct journal *journal, const struct job *job, uint64_t *ret)
{
    struct reading reading = {.digest = 1};
    const struct journal_query query = {.task = job->task, .limit = 1};
    enum amp_code code = journal_tasks(journal, &query, on_task, &reading, NULL, NULL);
    if (code == AMP_OK && reading.n > 0)
        code = journal_events(journal, job->task, 1, on_event, &reading, NULL);
    *ret = reading.n > 0 ? reading.digest : 0;
    bool is_cut = code == AMP_OK && reading.n > 0 && reading.last != reading.count; /* whoever reads events sees that (journal_missing) */
    return is_cut ? AMP_CORRUPT : code;
}

static bool is_kept(const struct job *job) { return job->task[0] && (job->is_accepted || !job->wish->is_durable); }

static void compare(struct journal *journal)
{
    for (size_t i = 0; i < scenario.n_jobs; i++) {
        const struct job *job = &scenario.jobs[i];
        uint64_t after;
        enum amp_code code = is_kept(job) ? read_job(journal, job, &after) : AMP_OK;
        if (!is_kept(job))
            continue;
        rot.n_refused += code != AMP_OK;
        rot.n_gone += code == AMP_OK && rot.before[i] && !after;
        if (code == AMP_OK && after && after != rot.before[i])
            world_fail("PJ: a bit of the journal is another one, and task %s is read as something else", job->task);
    }
}

void rot_check(const struct rot *plan)
{
    struct amp_error err = {0};
    struct journal *journal;
    for (size_t i = 0; i < scenario.n_jobs; i++)
        if (is_kept(&scenario.jobs[i]) && read_job(nodes.env->journal, &scenario.jobs[i], &rot.before[i]) != AMP_OK)
            return;
    rot.n_refused = rot.n_gone = 0;
    nodes_stop_env(false);
    struct loop *loop = loop_new();
    if (!plan->is_log && journal_open(loop, nodes.journal_path, &journal, NULL) == AMP_OK)
        journal_close(journal); /* what is in the log comes into the file */
    if (!disk_flip(plan->is_log, plan->where, plan->bit)) {
        loop_free(loop);
        return;
    }
    stat_add(STAT_bits_flipped, 1);
    enum amp_code code = journal_open(loop, nodes.journal_path, &journal, &err);
    world_trace("a bit of the journal's %s is another one: %s", plan->is_log ? "log" : "file", code == AMP_OK ? "it is opened" : err.message);
    if (code == AMP_OK) {
        compare(journal);
        journal_close(journal);
    }
    /* What an index does not find any more no read can miss; the look at everything does. */
    if (rot.n_gone > 0 && journal_verify(nodes.journal_path, &(struct journal_verify_handlers){0}, NULL, &(struct journal_report){0}, NULL) != AMP_CORRUPT)
        world_fail("PJ: a bit of the journal is another one, %u tasks are not there any more, and amesh env verify finds nothing", rot.n_gone);
    stat_add(code != AMP_OK || rot.n_refused + rot.n_gone > 0 ? STAT_bits_named : STAT_bits_harmless, 1);
    loop_free(loop);
}

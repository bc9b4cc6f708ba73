/* Every row of tasks and events that the environment commits, held against the promises in the step in which the verdict comes: that journal_write is ours is seen to by the linker. What
 * callers and watchers are told is held against the same. */
#include "scenario.h"

#include "base/alloc.h"
#include "env/journal_private.h"

#include <string.h>
#include <uthash.h>

struct entry { /* a task, as it stands in the journal */
    char task[AMP_ID_SIZE];
    uint32_t count;
    int32_t state;
    bool is_ended, is_found;
    UT_hash_handle hh;
};
static struct entry *ledger;
static unsigned n_starts; /* rows handed over before the last start were read then, if they are there */

struct row { /* of a batch that waits for its verdict */
    enum journal_row_kind kind;
    char task[AMP_ID_SIZE];
    uint32_t seq, count;
    int32_t state;
    bool is_open;
};
struct pending {
    void (*on_commit)(void *ctx, enum amp_code code);
    void *ctx;
    unsigned n_starts;
    size_t n;
    struct row rows[];
};

static struct entry *find(const char *task)
{
    struct entry *entry;
    HASH_FIND_STR(ledger, task, entry);
    return entry;
}

static struct entry *entry_of(const char *task)
{
    struct entry *entry = find(task);
    if (entry)
        return entry;
    entry = xcalloc(1, sizeof *entry);
    snprintf(entry->task, sizeof entry->task, "%s", task);
    HASH_ADD_STR(ledger, task, entry);
    return entry;
}

void ledger_end(void)
{
    struct entry *entry, *next;
    HASH_ITER(hh, ledger, entry, next) {
        HASH_DEL(ledger, entry);
        free(entry);
    }
}

/* ---- commits ------------------------------------------------------------------------------------------------------- */

static void hold_events(struct entry *entry, const struct row *row)
{
    if (entry->is_ended)
        world_fail("P3: event %u of %s is committed after its end", row->seq, row->task);
    else if (row->seq != entry->count + 1)
        world_fail("P4: event %u of %s is committed after event %u", row->seq, row->task, entry->count);
    entry->count = row->seq + row->count - 1;
}

static void hold_task(struct entry *entry, const struct row *row)
{
    if (entry->is_ended && (row->is_open || row->state != entry->state))
        world_fail("P3: task %s had ended as %s, and is committed as %s", row->task, amp_task_state_short((Amp__TaskState)entry->state), amp_task_state_short((Amp__TaskState)row->state));
    if (row->count != entry->count)
        world_fail("P4: task %s has %u events, and is committed with %u", row->task, entry->count, row->count);
    entry->is_ended = !row->is_open;
    entry->state = row->state;
}

static void on_verdict(void *ctx, enum amp_code code)
{
    struct pending *pending = ctx;
    bool counts = code == AMP_OK && pending->n_starts == n_starts && !disk_is_frozen(); /* frozen: whoever would be told is dead */
    for (size_t i = 0; counts && i < pending->n; i++)
        if (pending->rows[i].kind == JOURNAL_EVENT)
            hold_events(entry_of(pending->rows[i].task), &pending->rows[i]);
    for (size_t i = 0; counts && i < pending->n; i++)
        if (pending->rows[i].kind == JOURNAL_TASK)
            hold_task(entry_of(pending->rows[i].task), &pending->rows[i]);
    stat_add(STAT_rows_held, counts ? pending->n : 0);
    if (pending->on_commit)
        pending->on_commit(pending->ctx, code);
    free(pending);
}

enum amp_code real_write(struct journal *journal, struct journal_batch *batch, void (*on_commit)(void *ctx, enum amp_code code), void *ctx) __asm__("__real_journal_write");
enum amp_code ledger_write(struct journal *journal, struct journal_batch *batch, void (*on_commit)(void *ctx, enum amp_code code), void *ctx) __asm__("__wrap_journal_write");
enum amp_code ledger_write(struct journal *journal, struct journal_batch *batch, void (*on_commit)(void *ctx, enum amp_code code), void *ctx)
{
    size_t n = 0;
    for (const struct journal_row *row = batch->first; row; row = row->next)
        n += row->kind == JOURNAL_EVENT || row->kind == JOURNAL_TASK;
    if (n == 0)
        return real_write(journal, batch, on_commit, ctx);
    struct pending *pending = xcalloc(1, sizeof *pending + n * sizeof *pending->rows);
    *pending = (struct pending){.on_commit = on_commit, .ctx = ctx, .n_starts = n_starts};
    for (const struct journal_row *row = batch->first; row; row = row->next) {
        if (row->kind != JOURNAL_EVENT && row->kind != JOURNAL_TASK)
            continue;
        struct row *copy = &pending->rows[pending->n++];
        *copy = (struct row){.kind = row->kind, .seq = row->seq, .count = row->count, .state = row->state, .is_open = row->is_open};
        snprintf(copy->task, sizeof copy->task, "%s", row->task);
    }
    enum amp_code code = real_write(journal, batch, on_verdict, pending);
    if (code != AMP_OK)
        free(pending);
    return code;
}

/* ---- what is told ---------------------------------------------------------------------------------------------------- */

void ledger_told(const char *task, uint32_t seq)
{
    const struct entry *entry = find(task);
    if (!entry)
        world_fail("P1: somebody is told of task %s, which is not in the journal", task);
    else if (seq > entry->count)
        world_fail("P1: somebody is told of event %u of %s, and the journal ends with %u", seq, task, entry->count);
}

/* ---- over a restart ---------------------------------------------------------------------------------------------------- */

/* What was not confirmed may be there, or not. */
static bool on_row(void *ctx, const struct journal_row *row)
{
    struct entry *entry = entry_of(row->task);
    entry->is_found = true;
    if (row->count < entry->count)
        world_fail("P1: task %s had %u events, and has %u after a restart", row->task, entry->count, row->count);
    if (entry->is_ended && (row->is_open || row->state != entry->state))
        world_fail("P3: task %s had ended as %s, and is %s after a restart", row->task, amp_task_state_short((Amp__TaskState)entry->state), amp_task_state_short((Amp__TaskState)row->state));
    entry->count = row->count;
    entry->is_ended = !row->is_open;
    entry->state = row->state;
    return true;
}

void ledger_start(struct journal *journal)
{
    const struct journal_query query = {.limit = JOURNAL_READ_MAX};
    struct entry *entry, *next;
    uint32_t total = 0;
    n_starts++;
    HASH_ITER(hh, ledger, entry, next)
        entry->is_found = false;
    if (journal_tasks(journal, &query, on_row, NULL, &total, NULL) != AMP_OK)
        return; /* the disk does not even read */
    HASH_ITER(hh, ledger, entry, next)
        if (!entry->is_found && total <= JOURNAL_READ_MAX)
            world_fail("P1: task %s was in the journal, and is not after a restart", entry->task);
}

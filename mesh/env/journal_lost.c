/* What a rescued export lacks (amesh env export --skip-corrupt): numbers of events whose rows were damaged. An import puts an event into each such place that says so, so that the numbers of
 * all others stay and whoever reads the task is told; its row says incomplete. A task that lacks too many is left out by name. */
#include "journal_private.h"
#include "journal_files.h"

#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

#define ROW_EVENTS 64u /* of one row that is put there */
#define LOST_TEXT "this event is lost: the journal was damaged, and it was not among what could be saved"
#define LOST_METADATA "{\"amp/lost\":{\"why\":\"journal damaged\"},\"amp/log\":{\"level\":\"error\",\"text\":\"" LOST_TEXT "\"}}"

/* Of the tasks that rows behind entry ?1 are about, be it only an event more: whose numbers have a gap, or whose row knows of more. */
static const char broken_sql[] = "SELECT t.id, t.context, t.state, t.open, t.events, max(t.submitted, t.ended) FROM tasks t WHERE (t.entry > ?1 OR t.id IN"
                                 " (SELECT task FROM events WHERE entry > ?1)) AND t.id IN (" JOURNAL_BROKEN_TASKS ") ORDER BY t.id";
static const char rows_sql[] = "SELECT seq, count, at FROM events WHERE task = ?1 ORDER BY seq";
static const char mark_sql[] = "UPDATE tasks SET incomplete = 1, entry = chain_entry(), seal = row_seal(2, id, context, agent, skill, sender, parent, instance, state, durable, open, 1,"
                               " submitted, started, ended, attempt, events, attempts, request, record, dead) WHERE id = ?1";

struct gap {
    uint32_t first, count;
    int64_t at_unix_ms;
};

struct broken { /* one task */
    struct broken *next;
    char id[AMP_NAME_MAX + 1], context[AMP_NAME_MAX + 1];
    Amp__TaskState state;
    uint32_t events;
    int64_t at_unix_ms; /* of its last word */
    struct gap *gaps;
    size_t n_gaps;
    uint64_t n_lost;
    bool is_open, is_wrong; /* is_wrong: its numbers cannot be those of any journal */
};

struct mend {
    struct store *store;
    const struct journal_lost_handler *handler;
    uint64_t *n_events;
    struct amp_error *err;
};

/* ---- what is missing ---------------------------------------------------------------------------------------------------- */

static void add_gap(struct broken *task, uint32_t first, uint32_t count, int64_t at_unix_ms)
{
    task->n_lost += count;
    if (task->n_lost > JOURNAL_LOST_MAX) /* it is left out: where it has gaps is of no interest */
        return;
    task->gaps = xrealloc(task->gaps, (task->n_gaps + 1) * sizeof *task->gaps);
    task->gaps[task->n_gaps++] = (struct gap){.first = first, .count = count, .at_unix_ms = at_unix_ms};
}

static bool find_gaps(struct mend *mend, struct broken *task)
{
    sqlite3_stmt *statement = NULL;
    int64_t next = 1, at_unix_ms = 0;
    int status = sqlite3_prepare_v2(mend->store->db, rows_sql, -1, &statement, NULL);
    if (status == SQLITE_OK)
        sqlite3_bind_text(statement, 1, task->id, -1, SQLITE_STATIC);
    while (status == SQLITE_OK && (status = sqlite3_step(statement)) == SQLITE_ROW) {
        int64_t seq = sqlite3_column_int64(statement, 0), count = sqlite3_column_int64(statement, 1);
        at_unix_ms = sqlite3_column_int64(statement, 2);
        task->is_wrong |= seq < next || count < 1 || count > INT32_MAX - seq;
        if (seq > next && !task->is_wrong)
            add_gap(task, (uint32_t)next, (uint32_t)(seq - next), at_unix_ms);
        next = seq + count;
        status = SQLITE_OK;
    }
    sqlite3_finalize(statement);
    task->is_wrong |= next > (int64_t)task->events + 1;
    if (!task->is_wrong && next <= task->events)
        add_gap(task, (uint32_t)next, task->events + 1 - (uint32_t)next, task->at_unix_ms > at_unix_ms ? task->at_unix_ms : at_unix_ms);
    return status == SQLITE_DONE;
}

static bool find_broken(struct mend *mend, uint64_t entry, struct broken **ret)
{
    sqlite3_stmt *statement = NULL;
    struct broken **last = ret;
    int status = sqlite3_prepare_v2(mend->store->db, broken_sql, -1, &statement, NULL);
    if (status == SQLITE_OK)
        sqlite3_bind_int64(statement, 1, (sqlite3_int64)entry);
    while (status == SQLITE_OK && (status = sqlite3_step(statement)) == SQLITE_ROW) {
        struct broken *task = *last = xcalloc(1, sizeof *task);
        last = &task->next;
        snprintf(task->id, sizeof task->id, "%s", (const char *)sqlite3_column_text(statement, 0));
        snprintf(task->context, sizeof task->context, "%s", (const char *)sqlite3_column_text(statement, 1));
        task->state = (Amp__TaskState)sqlite3_column_int(statement, 2);
        task->is_open = sqlite3_column_int(statement, 3);
        task->events = (uint32_t)sqlite3_column_int64(statement, 4);
        task->at_unix_ms = sqlite3_column_int64(statement, 5);
        status = SQLITE_OK;
    }
    sqlite3_finalize(statement);
    return status == SQLITE_DONE;
}

/* ---- what is put in its place -------------------------------------------------------------------------------------------- */

static enum amp_code keep(void *ctx, struct amp_bytes body)
{
    struct amp_buf *buf = ctx;
    amp_buf_reset(buf);
    return amp_buf_append(buf, body.data, body.len);
}

/* The last event of a task that has ended is its end. */
static bool make_event(const struct broken *task, const struct gap *gap, bool is_end, struct amp_buf *ret)
{
    struct amp_event_source source = {.task_id = task->id, .context_id = task->context, .now_unix_ms = gap->at_unix_ms};
    struct amp_event_sink sink = {.emit = keep, .ctx = ret};
    return amp_event_status(&source, is_end ? task->state : AMP__TASK_STATE__TASK_STATE_WORKING, is_end ? LOST_TEXT : NULL, LOST_METADATA, &sink) == AMP_OK;
}

static bool write_events(struct store *store, const struct broken *task, const struct gap *part, const struct amp_bytes bodies[2], bool has_end)
{
    Amp__Event events[ROW_EVENTS], *pointers[ROW_EVENTS];
    Amp__Json texts[ROW_EVENTS];
    Amp__Timestamp time = AMP__TIMESTAMP__INIT;
    Amp__Frame frame = AMP__FRAME__INIT;
    time.unix_ms = part->at_unix_ms;
    for (uint32_t i = 0; i < part->count; i++) {
        const struct amp_bytes *body = &bodies[has_end && i + 1 == part->count];
        amp__event__init(&events[i]);
        amp__json__init(&texts[i]);
        texts[i].text = (ProtobufCBinaryData){.data = (uint8_t *)body->data, .len = body->len};
        events[i].time = &time;
        events[i].body = &texts[i];
        pointers[i] = &events[i];
    }
    frame.task_id = (char *)task->id;
    frame.seq = part->first;
    frame.events = pointers;
    frame.n_events = part->count;
    size_t size = amp__frame__get_packed_size(&frame);
    uint8_t *packed = xcalloc(1, size);
    amp__frame__pack(&frame, packed);
    struct journal_row row = {.kind = JOURNAL_EVENT, .task = task->id, .seq = part->first, .count = part->count, .at_unix_ms = part->at_unix_ms, .body = {.data = packed, .len = size}};
    bool is_written = store_write_row(store, &row);
    free(packed);
    return is_written;
}

static bool fill_gap(struct store *store, const struct broken *task, const struct gap *gap)
{
    struct amp_buf said, end;
    bool is_last = !task->is_open && amp_task_is_terminal(task->state) && gap->first + gap->count - 1 == task->events;
    amp_buf_init(&said, 65536);
    amp_buf_init(&end, 65536);
    bool is_done = make_event(task, gap, false, &said) && make_event(task, gap, is_last, &end);
    const struct amp_bytes bodies[2] = {amp_buf_bytes(&said), amp_buf_bytes(&end)};
    for (uint32_t at = 0, n; is_done && at < gap->count; at += n) {
        n = gap->count - at < ROW_EVENTS ? gap->count - at : ROW_EVENTS;
        struct gap part = {.first = gap->first + at, .count = n, .at_unix_ms = gap->at_unix_ms};
        is_done = write_events(store, task, &part, bodies, at + n == gap->count);
    }
    amp_buf_done(&said);
    amp_buf_done(&end);
    return is_done;
}

static bool mark(struct store *store, const char *id)
{
    sqlite3_stmt *statement = NULL;
    bool is_done = sqlite3_prepare_v2(store->db, mark_sql, -1, &statement, NULL) == SQLITE_OK && sqlite3_bind_text(statement, 1, id, -1, SQLITE_STATIC) == SQLITE_OK &&
                   store_step(statement) && chain_take(&store->chain);
    sqlite3_finalize(statement);
    return is_done;
}

static enum amp_code mend_task(struct mend *mend, struct broken *task)
{
    bool is_done = find_gaps(mend, task);
    if (is_done && task->is_wrong) {
        amp_error_set(mend->err, AMP_MALFORMED, "", "the numbers of the events of task %s overlap, or are more than it has", task->id);
        amp_error_hint(mend->err, task->is_open ? "nothing was imported; --ended leaves such tasks out" : "nothing was imported; export its journal once more, without what was changed since");
        return AMP_MALFORMED;
    }
    if (is_done && task->n_lost > JOURNAL_LOST_MAX) {
        mend->handler->on_lost(mend->handler->ctx, &(struct journal_lost){.task = task->id});
        is_done = store_remove_task(mend->store, task->id);
    } else if (is_done) {
        *mend->n_events += task->n_lost;
        if (*mend->n_events > JOURNAL_LOST_ALL_MAX) {
            amp_error_set(mend->err, AMP_TOO_LARGE, "", "more than %u events are lost", JOURNAL_LOST_ALL_MAX);
            amp_error_hint(mend->err, "take what is worth it: amesh env export --skip-corrupt --context ID, or --since TIME");
            return AMP_TOO_LARGE;
        }
        for (size_t i = 0; is_done && i < task->n_gaps; i++) {
            mend->handler->on_lost(mend->handler->ctx, &(struct journal_lost){.task = task->id, .first = task->gaps[i].first, .count = task->gaps[i].count});
            is_done = fill_gap(mend->store, task, &task->gaps[i]);
        }
        is_done = is_done && mark(mend->store, task->id);
    }
    return is_done ? AMP_OK : amp_error_set(mend->err, AMP_JOURNAL, "", "the journal cannot be written: %s", sqlite3_errmsg(mend->store->db));
}

enum amp_code store_mend(struct store *store, uint64_t entry, const struct journal_lost_handler *handler, uint64_t *ret_events, struct amp_error *reterr)
{
    struct mend mend = {.store = store, .handler = handler, .n_events = ret_events, .err = reterr};
    struct broken *tasks = NULL;
    enum amp_code code = AMP_OK;
    *ret_events = 0;
    if (!find_broken(&mend, entry, &tasks))
        code = amp_error_set(reterr, AMP_JOURNAL, "", "the journal cannot be read: %s", sqlite3_errmsg(store->db));
    for (struct broken *task = tasks; task && code == AMP_OK; task = task->next)
        code = mend_task(&mend, task);
    while (tasks) {
        struct broken *next = tasks->next;
        free(tasks->gaps);
        free(tasks);
        tasks = next;
    }
    return code;
}

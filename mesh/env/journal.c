/* The journal's queue and its worker thread.
 *
 * The loop posts batches; the worker takes everything that waits (group commit), makes one transaction of it and posts one
 * verdict for the group. The first failed transaction is the last one that was tried: after a failed fsync the kernel may
 * forget what it could not write, and a second fsync would lie (amp.md 10.2). */
#include "journal_private.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mailbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define POOL_MAX JOURNAL_GROUP_MAX
#define POOL_BYTES_MAX ((size_t)32 << 10) /* a batch that was larger is given back */

struct outcome { /* of the last transaction */
    enum amp_code code;
    char failure[JOURNAL_FAILURE_SIZE];
};

struct journal {
    struct loop *loop;
    int lock_fd;
    int64_t lived_unix_ms; /* of the one before */
    struct mailbox *batches;  /* loop → worker */
    struct mailbox *verdicts; /* worker → loop */
    struct journal_worker *worker;
    struct store store;       /* the worker's */
    struct outcome last;      /* the worker's */
    struct reader reader;     /* the loop's */
    size_t n_waiting, waiting_bytes;
    struct journal_batch *pool;
    size_t n_pool;
    bool is_failed, is_damaged;
    char failure[256];
};

struct verdict {
    enum amp_code code;
    char failure[JOURNAL_FAILURE_SIZE];
    size_t count;
    struct journal_batch *batches[];
};

struct journal_batch *journal_batch_new(struct journal *journal)
{
    struct journal_batch *batch = journal->pool;
    if (batch) {
        journal->pool = batch->next;
        journal->n_pool--;
        batch->next = NULL;
    } else {
        batch = xcalloc(1, sizeof *batch);
        amp_arena_init(&batch->arena, JOURNAL_BATCH_BYTES_MAX);
        batch->journal = journal;
    }
    return batch;
}

struct amp_arena *journal_batch_arena(struct journal_batch *batch)
{
    return &batch->arena;
}

static void *batch_alloc(struct journal_batch *batch, size_t size)
{
    void *data = amp_arena_alloc(&batch->arena, size);
    if (!data) { /* what goes into a batch is bounded well below its maximum */
        fputs("out of memory\n", stderr);
        abort();
    }
    return data;
}

struct journal_row *journal_batch_add(struct journal_batch *batch, enum journal_row_kind kind)
{
    struct journal_row *row = batch_alloc(batch, sizeof *row);
    row->kind = kind;
    if (batch->last)
        batch->last->next = row;
    else
        batch->first = row;
    batch->last = row;
    return row;
}

const char *journal_batch_text(struct journal_batch *batch, const char *text)
{
    if (!text || !*text)
        return NULL;
    size_t size = strlen(text) + 1;
    return memcpy(batch_alloc(batch, size), text, size);
}

struct amp_bytes journal_batch_bytes(struct journal_batch *batch, struct amp_bytes bytes)
{
    uint8_t *copy = batch_alloc(batch, bytes.len ? bytes.len : 1);
    if (bytes.len)
        memcpy(copy, bytes.data, bytes.len);
    return (struct amp_bytes){.data = copy, .len = bytes.len};
}

struct amp_bytes journal_batch_borrow(struct journal_batch *batch, struct amp_bytes bytes)
{
    batch->borrowed += bytes.len;
    return bytes;
}

void journal_batch_free(struct journal_batch *batch)
{
    if (!batch)
        return;
    struct journal *journal = batch->journal;
    if (journal->n_pool >= POOL_MAX || batch->arena.used > POOL_BYTES_MAX) {
        amp_arena_done(&batch->arena);
        free(batch);
        return;
    }
    amp_arena_reset(&batch->arena);
    batch->first = batch->last = NULL;
    batch->on_commit = NULL;
    batch->borrowed = 0;
    batch->next = journal->pool;
    journal->pool = batch;
    journal->n_pool++;
}

/* ---- the worker's thread: touches the store and the mailboxes only ----------------------------------------- */

/* How many of the batches are one transaction: what many small ones share is not worth holding everybody's large ones, and then all their answers, at once. */
static size_t group_of(void *const *items, size_t count)
{
    size_t bytes = 0, n = 0;
    while (n < count) {
        bytes += ((const struct journal_batch *)items[n])->bytes;
        if (n > 0 && bytes > JOURNAL_GROUP_BYTES_MAX)
            break;
        n++;
    }
    return n;
}

static void commit_group(struct journal *journal, void **items, size_t count, struct outcome *last)
{
    struct verdict *verdict = xcalloc(1, sizeof *verdict + count * sizeof verdict->batches[0]);
    verdict->count = count;
    memcpy(verdict->batches, items, count * sizeof verdict->batches[0]);
    if (last->code == AMP_OK)
        last->code = store_commit(&journal->store, verdict->batches, count, clock_unix_ms(), last->failure);
    verdict->code = last->code;
    memcpy(verdict->failure, last->failure, sizeof verdict->failure);
    /* There are never more verdicts than batches, and the box has room for as many. */
    while (!mailbox_post(journal->verdicts, verdict))
        (void)poll(NULL, 0, 1);
}

size_t journal_work(struct journal *journal, bool is_waiting)
{
    void *items[JOURNAL_GROUP_MAX];
    size_t count = mailbox_drain(journal->batches, items, JOURNAL_GROUP_MAX);
    if (count == 0 && is_waiting) {
        if (journal->last.code == AMP_OK)
            store_checkpoint(&journal->store, true);
        count = mailbox_wait(journal->batches, items, JOURNAL_GROUP_MAX);
    }
    if (count == 0)
        return 0;
    for (size_t done = 0, n; done < count; done += n) {
        n = group_of(items + done, count - done);
        commit_group(journal, items + done, n, &journal->last);
        if (journal->last.code == AMP_OK)
            store_checkpoint(&journal->store, false);
    }
    return count;
}

/* ---- the loop's thread --------------------------------------------------------------------------------------- */

static void take_verdict(struct journal *journal, struct verdict *verdict)
{
    if (verdict->code == AMP_OK) {
        counter_add(COUNTER_journal_commits, 1);
    } else if (!journal->is_failed) {
        journal->is_failed = true;
        journal->is_damaged = verdict->code == AMP_CORRUPT;
        snprintf(journal->failure, sizeof journal->failure, "a write failed: %s", verdict->failure);
        if (journal->is_damaged)
            reader_found(&journal->reader, journal->failure);
        log_event(LOG_ERROR, "journal.failed", "reason", verdict->failure, NULL);
    }
    for (size_t i = 0; i < verdict->count; i++) {
        struct journal_batch *batch = verdict->batches[i];
        journal->n_waiting--;
        journal->waiting_bytes -= batch->bytes;
        if (verdict->code == AMP_OK) {
            for (const struct journal_row *row = batch->first; row; row = row->next)
                counter_add(COUNTER_journal_rows, 1);
        }
        if (batch->on_commit)
            batch->on_commit(batch->ctx, verdict->code == AMP_OK ? AMP_OK : AMP_JOURNAL);
        journal_batch_free(batch);
    }
    free(verdict);
}

/* Whoever hears of them knows that it is there now. */
static void on_verdicts(void *ctx, void **items, size_t count)
{
    journal_live(ctx);
    for (size_t i = 0; i < count; i++)
        take_verdict(ctx, items[i]);
}

enum amp_code journal_write(struct journal *journal, struct journal_batch *batch, void (*on_commit)(void *ctx, enum amp_code code),
                            void *ctx)
{
    if (journal->is_failed) {
        counter_add(COUNTER_journal_refused, 1);
        return AMP_JOURNAL;
    }
    batch->on_commit = on_commit;
    batch->ctx = ctx;
    batch->bytes = batch->arena.used + batch->borrowed;
    bool is_full = journal->n_waiting >= JOURNAL_QUEUE_MAX || (journal->n_waiting > 0 && journal->waiting_bytes + batch->bytes > JOURNAL_QUEUE_BYTES_MAX);
    if (is_full || !mailbox_post(journal->batches, batch)) {
        counter_add(COUNTER_journal_refused, 1);
        return AMP_OVERLOADED;
    }
    journal->n_waiting++;
    journal->waiting_bytes += batch->bytes;
    return AMP_OK;
}

const char *journal_failure(const struct journal *journal)
{
    return journal->is_failed ? journal->failure : NULL;
}

bool journal_is_damaged(const struct journal *journal)
{
    return journal->is_damaged;
}

const char *journal_damage(const struct journal *journal)
{
    return journal->reader.damage[0] ? journal->reader.damage : NULL;
}

size_t journal_waiting(const struct journal *journal)
{
    return journal->n_waiting;
}

const struct amp_error *journal_read_error(const struct journal *journal)
{
    return &journal->reader.error;
}

size_t journal_waiting_bytes(const struct journal *journal)
{
    return journal->waiting_bytes;
}

struct reader *journal_reader(struct journal *journal)
{
    return &journal->reader;
}

/* A file of its own beside the journal: SQLite's locks come and go, and closing any descriptor of the journal's file would drop them. */
enum amp_code journal_lock(const char *path, int *ret_fd, struct amp_error *reterr)
{
    char *name = xasprintf("%s.lock", path);
    *ret_fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    enum amp_code code = AMP_OK;
    if (*ret_fd < 0) {
        code = amp_error_set(reterr, AMP_JOURNAL, "", "%s cannot be opened: %s", name, strerror(errno));
        amp_error_hint(reterr, "check that the directory exists and can be written");
    } else if (flock(*ret_fd, LOCK_EX | LOCK_NB) != 0) {
        code = amp_error_set(reterr, AMP_RUNNING, "", "another environment has the journal %s", path);
        amp_error_hint(reterr, "stop it first, or use another home");
    } else {
        code = restore_finish(path, reterr);
    }
    free(name);
    return code;
}

/* What was not as an orderly end leaves it, and is harmless. */
static void say_found(const struct store *store)
{
    if (store->wal.frames_cut > 0)
        log_event(LOG_WARN, "journal.repaired", "cut", "the tail of a transaction that was not committed", "frames", log_int(store->wal.frames_cut), NULL);
    if (store->old_head.state == HEAD_GARBLED)
        log_event(LOG_WARN, "journal.head", "found", "it cannot be read; written anew", NULL);
    else if (store->old_head.state == HEAD_NONE && store->chain.n > 1)
        log_event(LOG_WARN, "journal.head", "found", "there is none; written anew", NULL);
    else if (store->old_head.state == HEAD_READ && strcmp(store->old_head.id, store->chain.id) != 0)
        log_event(LOG_WARN, "journal.head", "found", "it is another journal's; written anew", "of", store->old_head.id, NULL);
}

static void journal_destroy(struct journal *journal)
{
    mailbox_free(journal->batches);
    mailbox_free(journal->verdicts);
    while (journal->pool) {
        struct journal_batch *batch = journal->pool;
        journal->pool = batch->next;
        amp_arena_done(&batch->arena);
        free(batch);
    }
    reader_close(&journal->reader);
    store_close(&journal->store);
    if (journal->lock_fd >= 0)
        close(journal->lock_fd);
    free(journal);
}

enum amp_code journal_open(struct loop *loop, const char *path, struct journal **ret, struct amp_error *reterr)
{
    struct journal *journal = xcalloc(1, sizeof *journal);
    journal->loop = loop;
    journal->lock_fd = -1;
    journal->batches = mailbox_new_thread(JOURNAL_QUEUE_MAX);
    journal->verdicts = mailbox_new_loop(loop, JOURNAL_QUEUE_MAX, on_verdicts, journal);
    enum amp_code code = journal_lock(path, &journal->lock_fd, reterr);
    struct stat lock;
    if (code == AMP_OK && fstat(journal->lock_fd, &lock) == 0)
        journal->lived_unix_ms = (int64_t)lock.st_mtim.tv_sec * 1000 + lock.st_mtim.tv_nsec / 1000000;
    if (code == AMP_OK)
        code = store_open(&journal->store, path, clock_unix_ms(), reterr);
    if (code == AMP_OK)
        code = reader_open(&journal->reader, path, reterr);
    journal->worker = code == AMP_OK ? journal_worker_new(journal, journal->batches) : NULL;
    if (code == AMP_OK && !journal->worker)
        code = amp_error_set(reterr, AMP_JOURNAL, "", "the journal's thread cannot be started");
    if (code != AMP_OK) {
        journal_destroy(journal);
        return code;
    }
    say_found(&journal->store);
    *ret = journal;
    return AMP_OK;
}

int64_t journal_lived_unix_ms(const struct journal *journal)
{
    return journal->lived_unix_ms;
}

/* The lock's time: nothing is written for it, and it outlives a kill. By our clock: that of the file system is some milliseconds behind. */
void journal_live(struct journal *journal)
{
    int64_t now_unix_ms = clock_unix_ms();
    const struct timespec now = {.tv_sec = (time_t)(now_unix_ms / 1000), .tv_nsec = (long)(now_unix_ms % 1000) * 1000000};
    (void)futimens(journal->lock_fd, (const struct timespec[]){now, now});
}

void journal_close(struct journal *journal)
{
    if (!journal)
        return;
    journal_live(journal);
    mailbox_close(journal->batches);
    journal_worker_free(journal->worker);
    void *items[64];
    size_t count;
    while ((count = mailbox_drain(journal->verdicts, items, 64)) > 0)
        on_verdicts(journal, items, count);
    journal_destroy(journal);
}

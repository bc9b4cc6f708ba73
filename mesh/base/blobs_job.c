/* What comes in: blobs of others over the bus, files of this host. */
#include "base/blobs_private.h"

#include "base/alloc.h"
#include "base/blob_syncer.h"
#include "base/bus.h"
#include "base/bus_envelope.h"
#include "base/counters.h"
#include "base/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define LOOK_MS 250u

/* ---- all jobs -------------------------------------------------------------------------------------------------- */

void blob_job_cancel(struct blob_job *job)
{
    if (!job)
        return;
    LIST_REMOVE(job, entry);
    job->blobs->n_jobs--;
    blob_syncing_cancel(job->syncing);
    blob_intake_abort(job->intake);
    bus_inbox_free(job->inbox);
    loop_timer_free(job->timer);
    if (job->fd >= 0)
        (void)close(job->fd);
    free(job->path);
    free(job);
}

/* The last thing that happens to it. */
static void end(struct blob_job *job, const struct blob *blob, const struct amp_error *err)
{
    blob_on_done *on_done = job->on_done;
    void *ctx = job->ctx;
    struct blob kept = blob ? *blob : (struct blob){.size = 0};
    struct amp_error why = err ? *err : (struct amp_error){.code = AMP_OK};
    blob_job_cancel(job);
    on_done(ctx, blob ? &kept : NULL, err ? &why : NULL);
}

static void fail(struct blob_job *job, const struct amp_error *err)
{
    end(job, NULL, err);
}

static void fail_holder(struct blob_job *job, const char *wanted, struct amp_error *err)
{
    if (wanted) {
        struct amp_error own = *err;
        (void)amp_error_set(err, own.code, "", "the holder %s: %s", job->pull.ref.holder, own.message);
    }
    fail(job, err);
}

static void on_synced(void *ctx, const struct blob *blob, const struct amp_error *err)
{
    struct blob_job *job = ctx;
    job->syncing = NULL;
    end(job, blob, err);
}

/* What is kept is there when the disk has it. */
static void complete_kept(struct blob_job *job, struct blob_intake *intake, const char *wanted)
{
    struct blob blob;
    struct blob_sync sync;
    struct amp_error err = {.code = AMP_OK};
    bool is_there = false;
    if (blob_intake_check(intake, wanted, &sync, &is_there, &blob, &err) != AMP_OK) {
        fail_holder(job, wanted, &err);
        return;
    }
    if (is_there) {
        end(job, &blob, NULL);
        return;
    }
    loop_timer_stop(job->timer);
    bus_inbox_free(job->inbox);
    job->inbox = NULL;
    job->syncing = blob_syncer_start(job->blobs->syncer, intake, &sync, on_synced, job, &err);
    if (!job->syncing)
        fail(job, &err);
}

/* All bytes are there. */
static void complete(struct blob_job *job, const char *wanted)
{
    struct blob blob;
    struct amp_error err = {.code = AMP_OK};
    struct blob_intake *intake = job->intake;
    job->intake = NULL;
    if (job->blobs->syncer)
        complete_kept(job, intake, wanted);
    else if (blob_intake_end(intake, wanted, &blob, &err) != AMP_OK)
        fail_holder(job, wanted, &err);
    else
        end(job, &blob, NULL);
}

static struct blob_job *job_new(struct blobs *blobs, void (*on_due)(void *ctx), blob_on_done *on_done, void *ctx)
{
    struct blob_job *job = xcalloc(1, sizeof *job);
    *job = (struct blob_job){.blobs = blobs, .fd = -1, .on_done = on_done, .ctx = ctx};
    job->timer = loop_timer_new(blobs->loop, on_due, job);
    LIST_INSERT_HEAD(&blobs->jobs, job, entry);
    if (blobs->n_jobs++ >= BLOB_JOBS_MAX) {
        (void)amp_error_set(&job->error, AMP_OVERLOADED, "", "%u files are on their way already", BLOB_JOBS_MAX);
        counter_add(COUNTER_blobs_refused, 1);
    }
    blobs_watch_expiry(blobs);
    loop_timer_set(job->timer, 0);
    return job;
}

/* ---- from the bus ------------------------------------------------------------------------------------------------ */

static void ask(struct blob_job *job)
{
    char subject[AMP_SUBJECT_SIZE];
    struct blob_pull_read next;
    if (amp_subject_build(AMP_SUBJECT_BLOB, job->pull.ref.holder, job->blobs->from, NULL, subject, NULL) != AMP_OK)
        return;
    while (bus_is_up(job->blobs->bus) && blob_pull_next(&job->pull, loop_now_ms(job->blobs->loop), &next)) {
        Amp__BlobRead read = AMP__BLOB_READ__INIT;
        Amp__Envelope envelope = AMP__ENVELOPE__INIT;
        read.digest = job->pull.ref.digest;
        read.has_offset = read.has_length = 1;
        read.offset = next.offset;
        read.length = next.length;
        envelope.version = AMP_PROTOCOL_VERSION;
        envelope.from = job->blobs->from;
        envelope.body_case = AMP__ENVELOPE__BODY_BLOB_READ;
        envelope.blob_read = &read;
        if (bus_envelope_request(job->inbox, subject, &envelope) != AMP_OK)
            return; /* it is asked for again */
    }
}

static void take(struct blob_job *job, const struct bus_msg *msg)
{
    struct blobs *blobs = job->blobs;
    struct amp_error err = {.code = AMP_OK}, malformed;
    struct amp_bytes piece = {0};
    Amp__Envelope *envelope;
    amp_arena_reset(&blobs->arena);
    enum amp_code code = amp_envelope_decode(msg->data, 1u << AMP__ENVELOPE__BODY_BLOB, &blobs->arena, &envelope, NULL, &malformed);
    if (code != AMP_OK) {
        counter_add(COUNTER_malformed_refused, 1);
        (void)amp_error_set(&err, AMP_BAD_ANSWER, "", "%s, asked for blob %s: %s", job->pull.ref.holder, job->pull.ref.digest, malformed.message);
        code = err.code;
    } else {
        code = blob_pull_take(&job->pull, envelope->blob, loop_now_ms(blobs->loop), &piece, &err);
    }
    if (code == AMP_OK && piece.len > 0) {
        counter_add(COUNTER_blob_bytes_in, piece.len);
        code = blob_intake_write(job->intake, piece, &err);
    }
    if (code != AMP_OK) {
        fail(job, &err);
    } else if (blob_pull_is_complete(&job->pull)) {
        counter_add(COUNTER_blobs_pulled, 1);
        complete(job, job->pull.ref.digest);
    } else {
        ask(job);
    }
}

static void on_reply(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct blob_job *job = ctx;
    const struct amp_blob_ref *ref = &job->pull.ref;
    struct amp_error err = {.code = AMP_OK};
    switch (kind) {
    case BUS_INBOX_MSG:
        take(job, msg);
        return;
    case BUS_INBOX_NO_RESPONDERS:
        (void)amp_error_set(&err, AMP_INSTANCE_LOST, "", "blob %s cannot be had: its holder %s is gone", ref->digest, ref->holder);
        break;
    case BUS_INBOX_DENIED:
        (void)amp_error_set(&err, AMP_DENIED, "", "the bus does not allow %s to read blob %s at %s: %s", job->blobs->from, ref->digest, ref->holder, text ? text : "");
        break;
    case BUS_INBOX_DOWN:
        blob_pull_restart(&job->pull, loop_now_ms(job->blobs->loop));
        return;
    }
    fail(job, &err);
}

static void on_look(void *ctx)
{
    struct blob_job *job = ctx;
    struct amp_error err = {.code = AMP_OK};
    if (job->error.code != AMP_OK) {
        fail(job, &job->error);
    } else if (job->found.digest[0]) {
        end(job, &job->found, NULL);
    } else if (blob_pull_is_complete(&job->pull)) { /* of no bytes */
        complete(job, job->pull.ref.digest);
    } else if (blob_pull_look(&job->pull, loop_now_ms(job->blobs->loop), &err) != AMP_OK) {
        fail(job, &err);
    } else {
        ask(job);
        loop_timer_set(job->timer, LOOK_MS);
    }
}

struct blob_job *blobs_pull(struct blobs *blobs, const struct amp_blob_ref *ref, blob_on_done *on_done, void *ctx)
{
    struct blob_job *job = job_new(blobs, on_look, on_done, ctx);
    blob_pull_init(&job->pull, ref, loop_now_ms(blobs->loop));
    if (job->error.code != AMP_OK)
        return job;
    if (!blobs->syncer && blob_store_find(blobs->store, ref->digest, &job->found)) {
        (void)blobs_hold(blobs, ref->digest);
    } else if (strcmp(ref->holder, blob_store_holder(blobs->store)) == 0) {
        (void)amp_error_set(&job->error, AMP_NOT_FOUND, "", "blob %s is not here any more, or its file in the spool was changed", ref->digest);
    } else if (blob_intake_begin(blobs->store, ref->size, &job->intake, &job->error) == AMP_OK) {
        job->inbox = bus_inbox_new(blobs->bus, on_reply, job);
    }
    return job;
}

/* ---- from a file -------------------------------------------------------------------------------------------------- */

static void on_piece(void *ctx)
{
    struct blob_job *job = ctx;
    struct amp_error err = {.code = AMP_OK};
    if (job->error.code != AMP_OK) {
        fail(job, &job->error);
        return;
    }
    uint8_t *piece = blobs_piece(job->blobs);
    ssize_t n = read(job->fd, piece, BLOB_PIECE);
    job->n_read += n > 0 ? (uint64_t)n : 0;
    if (n < 0 && errno != EINTR)
        (void)amp_error_set(&err, AMP_INVALID, "", "cannot read %.300s: %s", job->path, strerror(errno));
    else if (n > 0 && blob_intake_write(job->intake, (struct amp_bytes){piece, (size_t)n}, &err) == AMP_TOO_LARGE)
        (void)amp_error_set(&err, AMP_INVALID, "", "%.300s grew while it was read", job->path);
    else if (n == 0 && !file_is_unchanged(job->fd, &job->mark, job->n_read))
        (void)amp_error_set(&err, AMP_INVALID, "", "%.300s was changed while it was read", job->path);
    if (err.code != AMP_OK)
        fail(job, &err);
    else if (n == 0)
        complete(job, NULL);
    else
        loop_timer_set(job->timer, 0);
}

/* /proc/self is ours, not that of who names it. */
static bool is_of_the_kernel(int fd)
{
    struct statfs info;
    return fstatfs(fd, &info) != 0 || info.f_type == PROC_SUPER_MAGIC || info.f_type == SYSFS_MAGIC;
}

static enum amp_code open_file(struct blob_job *job)
{
    struct stat info;
    job->fd = open(job->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (job->fd < 0 || fstat(job->fd, &info) != 0) {
        (void)amp_error_set(&job->error, errno == ENOENT ? AMP_NOT_FOUND : errno == EACCES ? AMP_DENIED : AMP_INVALID, "", "cannot read %.300s: %s", job->path, strerror(errno));
        amp_error_hint(&job->error, "the absolute path of a file that this user can read");
        return job->error.code;
    }
    if (!S_ISREG(info.st_mode) || is_of_the_kernel(job->fd))
        return amp_error_set(&job->error, AMP_INVALID, "", "%.300s is not a regular file", job->path);
    job->mark = file_mark_of(&info);
    if (blob_intake_begin(job->blobs->store, (uint64_t)info.st_size, &job->intake, &job->error) == AMP_OK)
        return AMP_OK;
    char hint[sizeof job->error.hint];
    memcpy(hint, job->error.hint, sizeof hint);
    (void)amp_error_set(&job->error, job->error.code, "", "%.200s: %s", job->path, job->error.message);
    amp_error_hint(&job->error, "%s", hint);
    return job->error.code;
}

struct blob_job *blobs_add_file(struct blobs *blobs, const char *path, blob_on_done *on_done, void *ctx)
{
    struct blob_job *job = job_new(blobs, on_piece, on_done, ctx);
    job->path = xstrdup(path);
    if (job->error.code == AMP_OK)
        (void)!open_file(job);
    return job;
}

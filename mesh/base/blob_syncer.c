#include "base/blob_syncer.h"

#include "base/alloc.h"
#include "base/loop.h"
#include "base/mailbox.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define WAITING_MAX 1024u

struct blob_syncing {
    struct blob_intake *intake;
    struct blob_store *store;
    struct blob_sync sync;
    void (*on_done)(void *ctx, const struct blob *blob, const struct amp_error *err); /* NULL: nobody waits any more */
    void *ctx;
};

struct blob_syncer {
    struct loop *loop;
    struct mailbox *files, *done; /* loop → thread, thread → loop */
    pthread_t thread;
    bool is_started, is_ending;
};

static void *work(void *ctx)
{
    struct blob_syncer *syncer = ctx;
    void *item;
    while (mailbox_wait(syncer->files, &item, 1) > 0) {
        struct blob_syncing *syncing = item;
        blob_sync_run(&syncing->sync);
        while (!mailbox_post(syncer->done, syncing)) /* never more than have been posted */
            (void)poll(NULL, 0, 1);
    }
    return NULL;
}

static void finish(struct blob_syncer *syncer, struct blob_syncing *syncing)
{
    struct blob blob = {.size = 0};
    struct amp_error err = {.code = AMP_OK};
    struct blob_store *store = syncing->store;
    bool is_there = blob_intake_synced(syncing->intake, &syncing->sync, &blob, &err) == AMP_OK;
    bool is_wanted = syncing->on_done && !syncer->is_ending;
    if (is_there && !is_wanted)
        blob_store_release(store, blob.digest, loop_now_ms(syncer->loop));
    if (is_wanted)
        syncing->on_done(syncing->ctx, is_there ? &blob : NULL, is_there ? NULL : &err);
    free(syncing);
}

static void on_done(void *ctx, void **items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        finish(ctx, items[i]);
}

struct blob_syncer *blob_syncer_new(struct loop *loop)
{
    struct blob_syncer *syncer = xcalloc(1, sizeof *syncer);
    syncer->loop = loop;
    syncer->files = mailbox_new_thread(WAITING_MAX);
    syncer->done = mailbox_new_loop(loop, WAITING_MAX, on_done, syncer);
    return syncer;
}

static bool start(struct blob_syncer *syncer)
{
    sigset_t all, old; /* signals are the loop's */
    if (syncer->is_started)
        return true;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    syncer->is_started = pthread_create(&syncer->thread, NULL, work, syncer) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return syncer->is_started;
}

struct blob_syncing *blob_syncer_start(struct blob_syncer *syncer, struct blob_intake *intake, const struct blob_sync *sync,
                                       void (*on_done_file)(void *ctx, const struct blob *blob, const struct amp_error *err), void *ctx, struct amp_error *reterr)
{
    struct blob_syncing *syncing = xcalloc(1, sizeof *syncing);
    *syncing = (struct blob_syncing){.intake = intake, .store = blob_intake_store(intake), .sync = *sync, .on_done = on_done_file, .ctx = ctx};
    if (start(syncer) && mailbox_post(syncer->files, syncing))
        return syncing;
    (void)amp_error_set(reterr, AMP_OVERLOADED, "", "too many files wait for the disk");
    (void)close(syncing->sync.fd);
    blob_intake_abort(intake);
    free(syncing);
    return NULL;
}

void blob_syncing_cancel(struct blob_syncing *syncing)
{
    if (syncing)
        syncing->on_done = NULL;
}

void blob_syncer_free(struct blob_syncer *syncer)
{
    void *item;
    if (!syncer)
        return;
    syncer->is_ending = true;
    mailbox_close(syncer->files);
    if (syncer->is_started)
        pthread_join(syncer->thread, NULL);
    while (mailbox_drain(syncer->done, &item, 1) > 0)
        finish(syncer, item);
    mailbox_free(syncer->files);
    mailbox_free(syncer->done);
    free(syncer);
}

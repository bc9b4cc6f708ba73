/* One thread: it touches the store and the mailboxes, nothing else. */
#include "journal_private.h"

#include "base/alloc.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

struct journal_worker {
    pthread_t thread;
};

static void *work(void *ctx)
{
    while (journal_work(ctx, true) > 0)
        ;
    return NULL;
}

struct journal_worker *journal_worker_new(struct journal *journal, struct mailbox *batches)
{
    struct journal_worker *worker = xcalloc(1, sizeof *worker);
    /* Signals are the loop's. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int status = pthread_create(&worker->thread, NULL, work, journal);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (status == 0)
        return worker;
    free(worker);
    return NULL;
}

void journal_worker_free(struct journal_worker *worker)
{
    if (!worker)
        return;
    pthread_join(worker->thread, NULL);
    free(worker);
}

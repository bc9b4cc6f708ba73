/* The thread that waits for the disk, for a store that is kept (blob_store.h): one file after the other. It is started with the first one. Loop thread only. */
#pragma once
#include "base/blob_store.h"

struct loop;
struct blob_syncer;
struct blob_syncing;

struct blob_syncer *blob_syncer_new(struct loop *loop);
/* Waits for what is under way, without on_done; what it had taken over stays on the disk, under its name. NULL is fine. Every intake has ended then. */
void blob_syncer_free(struct blob_syncer *syncer);
/* Takes the intake over. on_done once, never from inside: the blob, held once, or why not. NULL: the thread cannot be started, or too many wait: *reterr, the intake is gone. */
struct blob_syncing *blob_syncer_start(struct blob_syncer *syncer, struct blob_intake *intake, const struct blob_sync *sync,
                                       void (*on_done)(void *ctx, const struct blob *blob, const struct amp_error *err), void *ctx, struct amp_error *reterr);
/* No on_done; the file is entered all the same, held by nobody. NULL is fine. */
void blob_syncing_cancel(struct blob_syncing *syncing);

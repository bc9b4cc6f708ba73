/* What blobs.c (life, serving) and blobs_job.c (what comes in) share. */
#pragma once
#include "base/blob_pull.h"
#include "base/blobs.h"
#include "base/file.h"

#include <sys/queue.h>

struct bus_inbox;
struct bus_sub;
struct loop_timer;

struct blob_syncer;
struct blob_syncing;

struct blob_job {
    LIST_ENTRY(blob_job) entry;
    struct blobs *blobs;
    struct loop_timer *timer;   /* of a pull: looks at the time; of a file: the next piece */
    struct blob_intake *intake; /* NULL: not begun, or nothing to write */
    struct blob_syncing *syncing; /* all bytes are there, and wait for the disk; NULL: they do not */
    struct bus_inbox *inbox;    /* of a pull */
    struct blob_pull pull;
    int fd;                     /* of a file, or -1 */
    char *path;
    struct file_mark mark;      /* of a file, before it is read */
    uint64_t n_read;
    struct amp_error error;     /* known at the start: said with the first turn */
    struct blob found;          /* likewise: it is here already */
    blob_on_done *on_done;
    void *ctx;
};

struct blobs {
    struct loop *loop;
    struct bus *bus;
    struct blob_store *store;
    struct blob_syncer *syncer;  /* of a store that is kept; else NULL */
    char from[AMP_NAME_MAX + 1];
    struct bus_sub *sub;         /* from the first offer on */
    struct loop_timer *expiry;
    int64_t wanted_ms;           /* when something was last offered or read; 0: never */
    LIST_HEAD(, blob_job) jobs;
    unsigned n_jobs;
    uint8_t *piece;              /* BLOB_PIECE bytes, from the first use on */
    struct amp_buf out;
    struct amp_arena arena;      /* of the message in hand */
};

uint8_t *blobs_piece(struct blobs *blobs);
void blobs_watch_expiry(struct blobs *blobs);

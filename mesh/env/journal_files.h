/* Journals as files: checked, copied, written out and read in, without an environment or beside one that runs. Blocking: for the
 * command line, never on a loop. */
#pragma once
#include <amp/amp.h>

#include <stdio.h>

/* Is there an environment that has it? */
bool journal_is_running(const char *path);

struct journal_finding {
    const char *table; /* "" : the file as a whole */
    const char *row;   /* for people, e.g. "task t-1"; "": not known */
    uint64_t entry;    /* of the chain; 0: none */
    const char *text;
};
struct journal_report {
    char id[AMP_ID_SIZE];   /* of the journal */
    uint64_t bytes, rows, entries;
    uint64_t n;             /* the newest chain entry, and its hash */
    char hash[65];
    bool has_head;          /* <journal>-head is there and is this journal's */
    bool is_running;
    bool is_empty;          /* a journal that nothing was written to yet: a start that was killed at once leaves it so */
    uint64_t files, file_bytes, file_findings; /* of journal_verify_files */
    uint32_t frames_cut;    /* of a transaction that was not committed: the next environment cuts them off */
    uint64_t incomplete;    /* tasks that are known to lack events, which is no finding */
    uint64_t findings;
};
struct journal_verify_handlers { /* each may be NULL */
    void (*on_finding)(void *ctx, const struct journal_finding *finding); /* the first 1000 */
    void (*on_progress)(void *ctx, uint64_t done, uint64_t total);
};
/* Changes nothing. AMP_CORRUPT: there are findings; AMP_NOT_FOUND, AMP_JOURNAL: it could not be looked at. */
AMP_MUST_USE enum amp_code journal_verify(const char *path, const struct journal_verify_handlers *handlers, void *ctx, struct journal_report *ret,
                                          struct amp_error *reterr);

/* And the files of its tasks: are they there, each with its bytes? Adds to *report. AMP_CORRUPT: not all of them. */
#define JOURNAL_FILE_FINDINGS_MAX 1000u
AMP_MUST_USE enum amp_code journal_verify_files(const char *path, const struct journal_verify_handlers *handlers, void *ctx, struct journal_report *report, struct amp_error *reterr);

/* Copies one state of the journal to `to`, which must not be there yet, and checks the copy; it is a journal of its own (another id).
 * The files of its tasks come along, beside it, as links where that is possible; they are not looked at. AMP_CORRUPT: what was copied is damaged (ret says how); the copy stays. */
AMP_MUST_USE enum amp_code journal_backup(const char *path, const char *to, int64_t now_unix_ms, const struct journal_verify_handlers *handlers, void *ctx,
                                          struct journal_report *ret, struct amp_error *reterr);

struct journal_export_options {
    const char *context;   /* NULL: all */
    int64_t since_unix_ms; /* tasks submitted from then on, and what belongs to them */
    bool skips_corrupt;    /* else a damaged row is the end: AMP_CORRUPT */
    void (*on_missing)(void *ctx, const char *digest, const char *owner, const char *why); /* a file of a task that is left out, since it is missing or damaged */
    void *ctx;
};
struct journal_export_counts {
    uint64_t rows, skipped; /* skipped: damaged */
    uint64_t files, file_bytes, files_missing;
    uint64_t unread;        /* tables that could not be read to their end */
};
AMP_MUST_USE enum amp_code journal_export(const char *path, FILE *out, int64_t now_unix_ms, const struct journal_export_options *options,
                                          struct journal_export_counts *ret, struct amp_error *reterr);

enum journal_open_tasks { JOURNAL_OPEN_REFUSED, JOURNAL_OPEN_CONTINUED, JOURNAL_OPEN_LEFT_OUT }; /* what an import does with tasks that have not ended */
struct journal_import_counts {
    uint64_t added, there; /* rows; there: the same already */
    uint64_t tasks, open;  /* of those added */
    uint64_t left_out;     /* open tasks */
    uint64_t files, file_bytes;
    uint64_t events_lost, tasks_lost;
};
#define JOURNAL_LOST_MAX 10000u       /* events that one task may lack; with more it is left out */
#define JOURNAL_LOST_ALL_MAX 1000000u /* and all of one import */
struct journal_lost {
    const char *task;
    uint32_t first, count; /* of its events; 0: all of the task, which is left out */
};
struct journal_lost_handler {
    void (*on_lost)(void *ctx, const struct journal_lost *lost);
    void *ctx;
};
struct journal_import_options {
    enum journal_open_tasks open;
    struct journal_lost_handler lost; /* told what a rescued export lacks (before it is written: an error may follow) */
};
/* All of it or nothing. Makes the journal if there is none. Events that are missing leave an event that says so, and their task incomplete; of a task whose own row is missing nothing is taken. AMP_RUNNING: an environment has it; AMP_CONFLICT: a row is there and differs, or tasks are open
 * and it is not said what becomes of them; AMP_MALFORMED: not an export, or cut. */
AMP_MUST_USE enum amp_code journal_import(const char *path, FILE *in, int64_t now_unix_ms, const struct journal_import_options *options, struct journal_import_counts *ret,
                                          struct amp_error *reterr);

struct journal_prune_options {
    int64_t now_unix_ms, before_unix_ms; /* tasks that ended before it go; 0: none for their age */
    uint64_t bytes_max;                  /* and ended ones from the oldest on while more is used; 0: no bound */
};
struct journal_prune_counts {
    uint64_t tasks, bytes_before, bytes_after;
    uint64_t file_bytes; /* of files that nothing referred to any more */
    uint64_t chain_before, chain_after; /* rows of which the chain tells: it is made shorter when most of them are gone */
};
/* Removes, and gives the room back to the disk. AMP_RUNNING: an environment has it and does that itself. */
AMP_MUST_USE enum amp_code journal_prune(const char *path, const struct journal_prune_options *options, struct journal_prune_counts *ret,
                                         struct amp_error *reterr);

/* `from` becomes the journal `path`; what was there is kept as <path>.<time>, with its log and head. *ret: the new one. Whenever it is cut short, `path` is the old journal or
 * the new one, to all that is in this header and to an environment. */
AMP_MUST_USE enum amp_code journal_restore(const char *path, const char *from, int64_t now_unix_ms, struct journal_report *ret, struct amp_error *reterr);

/* Journals as files: checked, copied, written out and read in, without an environment or beside one that runs. Blocking: for the
 * command line, never on a loop. */
#pragma once
#include <amp/amp.h>

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
    uint32_t frames_cut;    /* of a transaction that was not committed: the next environment cuts them off */
    uint64_t findings;
};
struct journal_verify_handlers { /* each may be NULL */
    void (*on_finding)(void *ctx, const struct journal_finding *finding); /* the first 1000 */
    void (*on_progress)(void *ctx, uint64_t done, uint64_t total);
};
/* Changes nothing. AMP_CORRUPT: there are findings; AMP_NOT_FOUND, AMP_JOURNAL: it could not be looked at. */
AMP_MUST_USE enum amp_code journal_verify(const char *path, const struct journal_verify_handlers *handlers, void *ctx, struct journal_report *ret,
                                          struct amp_error *reterr);

/* How one blob is read from its holder (amp.md 15.2, 15.3), as a pure machine: what to ask for next, what of the answers to keep. No bus, no file, no clock.
 *
 * Reads go out in order, at most BLOB_WINDOW of them unanswered; what does not come in order is asked for again from the first gap on. */
#pragma once
#include <amp/amp.h>

#define BLOB_WINDOW 8u           /* reads that may be unanswered: 1 MiB under way */
#define BLOB_AGAIN_MS 1000       /* without an answer, until it is asked for again */
#define BLOB_IDLE_MS 10000       /* without progress, until the holder is given up */
#define BLOB_SLOW_MS 30000       /* for so long it may be as slow as it likes; then it must have brought */
#define BLOB_SLOW_BYTES_PER_MS 16u /* for every further millisecond, so that nobody waits for ever for who sends a byte now and then */

struct blob_pull {
    struct amp_blob_ref ref;
    uint32_t chunk;              /* bytes that one read asks for; the first answer may make it smaller */
    uint64_t received, asked;    /* bytes */
    int64_t begun_ms, progress_ms, asked_ms;
    int64_t held_until_ms;       /* the holder said that it is overloaded */
    bool is_size_known;          /* a first answer has come: with its size it is known how much one read brings */
};

struct blob_pull_read { uint64_t offset; uint32_t length; };

void blob_pull_init(struct blob_pull *pull, const struct amp_blob_ref *ref, int64_t now_ms);
/* The next read to send, if one may go out now. */
bool blob_pull_next(struct blob_pull *pull, int64_t now_ms, struct blob_pull_read *ret);
/* An answer. *ret: the bytes to append, borrowed from it; empty if it was late, early or told nothing. AMP_BAD_ANSWER: not what was said of the blob; what else the holder answered; the pull
 * is over then. */
AMP_MUST_USE enum amp_code blob_pull_take(struct blob_pull *pull, const Amp__Blob *answer, int64_t now_ms, struct amp_bytes *ret, struct amp_error *reterr);
/* Looks at the time: asks again, or AMP_INSTANCE_LOST. */
AMP_MUST_USE enum amp_code blob_pull_look(struct blob_pull *pull, int64_t now_ms, struct amp_error *reterr);
/* What is under way is lost: it is asked for again. */
void blob_pull_restart(struct blob_pull *pull, int64_t now_ms);
bool blob_pull_is_complete(const struct blob_pull *pull);

/* Files of durable tasks (amp.md 15.6): the environment has the bytes before it accepts what names them, and serves them afterwards.
 *
 * files.c: the store beside the journal, what is being pulled, which task has which file. files_submit.c: what callers send. files_answer.c: what instances answer. files_sweep.c: what
 * nobody needs any more. A file is there as long as the journal has a row KV {JOURNAL_SCOPE_BLOB, digest, task or schedule}, which is committed with what names the file, and goes with it. */
#pragma once
#include "env_private.h"

#include "base/blob_fetch.h"

#define FILES_FETCHES_MAX 32u         /* messages and events whose files are being pulled */
#define FILES_SUBMITS_MAX 24u         /* of them for submits: who sends slowly does not keep answers out */
#define FILES_SENDER_FETCHES_MAX 8u   /* and for one sender */
#define FILES_WAITING_MAX 4096u       /* that wait for that, or for their sender to come back */
#define FILES_MESSAGE_MAX 256u        /* files of one message */
#define FILES_SHARE 2u                /* a sender may have one of so many parts of the store */
#define FILES_HOLD_MS 2500u           /* so long a submit waits for its files before its sender is told to come back */
#define FILES_LATER_MS 250u           /* when */
#define FILES_READY_MS 60000u         /* so long files wait for a sender who was told so */
#define FILES_ROOM_MS INT64_C(60000)  /* so long an answer waits for room in the store */
#define FILES_GRACE_MS 600000u        /* a file that nobody refers to stays so long; AMESH_ENV_SPOOL_GRACE says less or more */

struct files_fetch;

/* ---- files.c ---- */
void files_begin(struct env *env, const char *journal_path);
void files_done(struct env *env);
struct blobs *files_blobs(struct env *env); /* made with the first call */
/* Pulls them, when it is their turn. `sender` pays for them; is_answer: of an attempt, which comes first. on_done once, never from inside, as in blob_fetch.h. */
struct files_wanted {
    const char *sender;
    const struct amp_blob_ref *refs;
    size_t n;
    bool is_answer;
};
struct files_fetch *files_fetch(struct env *env, const struct files_wanted *wanted, struct blob_held *held, void (*on_done)(void *ctx, const struct amp_error *err), void *ctx);
void files_fetch_cancel(struct files_fetch *fetch); /* NULL is fine */
uint64_t files_bytes(const struct env *env);
uint64_t files_bytes_max(const struct env *env);
uint64_t files_waiting(const struct env *env);
/* The parts name us as the holder from now on. AMP_TOO_LARGE: `arena` is full. */
AMP_MUST_USE enum amp_code files_hand_on(const struct env *env, Amp__Part *const *parts, size_t n_parts, struct amp_arena *arena);
/* Those of `message` (NULL has none) that are said to be here: are they? AMP_NOT_FOUND names one that is not. */
AMP_MUST_USE enum amp_code files_check_here(struct env *env, const Amp__Message *message, const char *field, struct amp_error *reterr);
/* The task has them, from the next commit on: of its message, of an event. */
void files_of_message(struct etask *task, const Amp__Message *message);
void files_of_event(struct etask *task, struct amp_bytes body);
void files_add_rows(const struct etask *task, struct journal_batch *batch);
void files_rows_written(struct etask *task);
void files_forget(struct etask *task);
/* Those of `message` (NULL has none) that are here are held, until they are released. */
void files_hold(struct env *env, const Amp__Message *message, struct blob_held *held);
void files_release(struct env *env, struct blob_held *held);
/* Rows of `owner` (a schedule) for each file of `message`; or without them. */
void files_add_owner(struct env *env, const char *owner, const char *sender, const Amp__Message *message, bool is_removal, struct journal_batch *batch);
/* An event as a message in `arena`, NULL if it has no blob or cannot be read; and all of its arrays of parts, one after the other. */
Amp__StreamResponse *files_event(struct amp_bytes body, struct amp_arena *arena);
void files_each_parts(const Amp__StreamResponse *event, void (*visit)(void *ctx, Amp__Part *const *parts, size_t n_parts), void *ctx);

/* ---- files_submit.c ---- */
enum files_gate { FILES_HERE, FILES_TAKEN };
/* May what is asked for begin? FILES_HERE: `message` (NULL, or without files: at once) names us as the holder of files that are here. FILES_TAKEN: it was answered, or is asked again by itself
 * when they are here. `id`: under which its sender asks again for the same; "": it cannot. */
enum files_gate files_gate(const struct ask *ask, Amp__Message *message, const char *id, const char *field);
void files_submit_done(struct env *env); /* who waits is refused (AMP_STOPPING) */

/* ---- files_answer.c ---- */
/* True: the event waits for files, its own or those of one before it, and comes back through dispatch_take_event. */
bool files_answer_event(struct etask *task, uint32_t seq, int64_t time_unix_ms, struct amp_bytes body);
/* True: so does the end of the call, through dispatch_take_end. */
bool files_answer_end(struct etask *task, const struct amp_error *err, const Amp__Error *wire);
/* Nothing of it comes back. True: its call had ended. */
bool files_answer_drop(struct etask *task);

/* ---- files_sweep.c ---- */
struct files_sweep;
struct files_sweep *files_sweep_new(struct env *env);
void files_sweep_free(struct files_sweep *sweep); /* NULL is fine */
/* Whose bytes they count as: of who brought them first. */
void files_sweep_charge(struct files_sweep *sweep, const char *digest, const char *sender, uint64_t size);
uint64_t files_sweep_charged(const struct files_sweep *sweep, const char *sender);

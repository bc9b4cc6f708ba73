/* The schedules of an environment: what the journal has of them, when they are looked at, what requests do to them. When they run and whether is schedule.h's decision.
 *
 * A schedule is one row of the journal's memory, in a scope of its own. A run's task and the row that says that it was made are one batch, so that no crash makes it twice or
 * forgets it. (amp.md 10.9.5) */
#pragma once
#include "env_private.h"
#include "env/schedule.h"

#define SCHEDULES_MAX 10000u
#define SCHEDULES_SENDER_MAX 1000u
#define SCHEDULES_BYTES_MAX ((size_t)64 << 20) /* of what they submit */
#define SCHEDULE_AGAIN_MS 1000u                /* until a run for which there was no room is tried again */

struct schedule_entry {
    struct alarm alarm;
    UT_hash_handle hh;
    struct env *env;
    char id[AMP_NAME_MAX + 1], from[AMP_NAME_MAX + 1];
    uint8_t *given; /* packed Amp__Schedule: what was asked for, with id, from and created */
    size_t given_len;
    uint8_t digest[SUBMIT_DIGEST_SIZE];
    char *key; /* or NULL */
    struct blob_held files; /* of a new one, until its row is there */
    struct zone *zone;
    struct schedule schedule;
    struct loop_timer *timer; /* of an interval */
    char last_task[AMP_NAME_MAX + 1];
    char note[160];
    bool is_skipping; /* said in the log */
    uint32_t version; /* of its row */
};

/* From the journal, before its tasks are; and what follows from both. */
AMP_MUST_USE enum amp_code schedules_load(struct env *env, struct amp_error *reterr);
void schedules_start(struct env *env);
void schedules_done(struct env *env);
void schedules_verb(const struct ask *ask); /* schedules_verb.c */
void schedules_task_found(struct env *env, const char *id);
void schedules_task_ended(struct env *env, const char *id);
void schedules_add_row(struct schedule_entry *entry, struct journal_batch *batch);

/* ---- for schedules_verb.c ---- */

/* Reads what was asked for. `given` must have id and from. */
AMP_MUST_USE enum amp_code schedules_entry_new(struct env *env, const Amp__Schedule *given, struct schedule_entry **ret, struct amp_error *reterr);
void schedules_entry_free(struct schedule_entry *entry); /* also out of the environment's list */
struct schedule_entry *schedules_find(struct env *env, const char *id);
/* The whole, in `arena`; is_short: of what it submits only how the text begins. NULL: no memory. */
Amp__Schedule *schedules_view(const struct schedule_entry *entry, struct amp_arena *arena, bool is_short);
struct schedule_now schedules_now(const struct env *env);
void schedules_arm(struct schedule_entry *entry);
/* Makes the task of a run that the schedule has decided on. */
AMP_MUST_USE enum amp_code schedules_run(struct schedule_entry *entry, const struct schedule_action *action, struct etask **ret, struct amp_error *err);
/* Its row, or that there is none any more. As journal_write. */
AMP_MUST_USE enum amp_code schedules_write(struct schedule_entry *entry, bool is_removal, void (*on_commit)(void *ctx, enum amp_code code), void *ctx);

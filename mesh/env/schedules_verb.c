/* amp.env.schedule: a schedule is made, looked at, held, removed, run. (amp.md 10.9.10) */
#include "schedules.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/seeded.h"
#include "env/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELD "schedule.submit.request.message"

/* ---- answers ---------------------------------------------------------------------------------------------------------- */

static void answer(struct env *env, const char *reply, enum amp_encoding encoding, const struct schedule_entry *entry)
{
    Amp__EnvReply reply_with = AMP__ENV_REPLY__INIT;
    Amp__Schedule *record = entry ? schedules_view(entry, env_answer_arena(env), false) : NULL;
    reply_with.n_schedules = record ? 1 : 0;
    reply_with.schedules = &record;
    if (env_answer(env, reply, encoding, &reply_with) == AMP_OK || !record)
        return;
    record = schedules_view(entry, env_answer_arena(env), true); /* what it submits is more than this bus carries */
    (void)env_answer(env, reply, encoding, &reply_with);
}

struct change { /* until it is on the disk */
    struct env *env;
    enum amp_encoding encoding;
    char id[AMP_NAME_MAX + 1], from[AMP_NAME_MAX + 1];
    char reply[];
};

static void on_written(void *ctx, enum amp_code code)
{
    struct change *change = ctx;
    struct env *env = change->env;
    struct reads_hand before = reads_answer(env, change->from);
    if (code == AMP_OK)
        answer(env, change->reply, change->encoding, schedules_find(env, change->id));
    else
        env_refuse_journal(env, change->reply, change->encoding);
    reads_answered(env, before);
    free(change);
}

static enum amp_code write_and_answer(const struct ask *ask, struct schedule_entry *entry, bool is_removal)
{
    size_t size = strlen(ask->reply) + 1;
    struct change *change = xcalloc(1, sizeof *change + size);
    change->env = ask->env;
    change->encoding = ask->encoding;
    etask_strcpy(change->id, entry->id);
    etask_strcpy(change->from, ask->from);
    memcpy(change->reply, ask->reply, size);
    enum amp_code code = schedules_write(entry, is_removal, on_written, change);
    if (code != AMP_OK)
        free(change);
    return code;
}

static void refuse_write(const struct ask *ask, enum amp_code code)
{
    if (code == AMP_JOURNAL)
        env_refuse_journal(ask->env, ask->reply, ask->encoding);
    else
        env_refuse_code(ask, code, "", NULL);
}

/* It is so already; that may be on its way to the disk still, or never get there. */
static void answer_kept(const struct ask *ask, struct schedule_entry *entry)
{
    enum amp_code code = AMP_OK;
    bool is_kept = !journal_failure(ask->env->journal) && journal_waiting(ask->env->journal) == 0;
    if (is_kept || SEEDED_BUG("early-schedule"))
        answer(ask->env, ask->reply, ask->encoding, entry);
    else
        code = write_and_answer(ask, entry, false);
    if (code != AMP_OK)
        refuse_write(ask, code);
}

/* ---- made -------------------------------------------------------------------------------------------------------------- */

static enum amp_code check_times(const Amp__Schedule *given, int64_t now_unix_ms, struct amp_error *err)
{
    if (given->zone && !given->zone[0])
        return amp_error_set(err, AMP_INVALID, "schedule.zone", "a time zone needs a name; without one the environment's clocks count");
    if (given->has_count && given->count == 0)
        return amp_error_set(err, AMP_INVALID, "schedule.count", "a schedule makes at least one run");
    if (given->until && given->until->unix_ms <= now_unix_ms)
        return amp_error_set(err, AMP_INVALID, "schedule.until", "this time is over");
    if (given->not_before && given->not_before->unix_ms > now_unix_ms + ENV_AHEAD_MAX_MS)
        return amp_error_set(err, AMP_INVALID, "schedule.not_before", "a schedule cannot begin later than in ten years");
    return AMP_OK;
}

static enum amp_code check_given(const Amp__Schedule *given, int64_t now_unix_ms, struct amp_error *err)
{
    const Amp__Submit *submit = given->submit;
    if (given->from || given->state || given->created || given->next || given->last || given->last_task || given->has_runs || given->has_skipped || given->has_missed || given->n_queued ||
        given->has_open || given->note)
        return amp_error_set(err, AMP_INVALID, "schedule", "only the environment says what has become of a schedule");
    if (submit->retry_of || submit->fork_of || submit->schedule || submit->planned || submit->has_missed || submit->not_before || submit->has_delay_ms)
        return amp_error_set(err, AMP_INVALID, "schedule.submit", "when it is submitted is the schedule's to say");
    if (submit->agent && submit->skill)
        return amp_error_set(err, AMP_INVALID, "schedule.submit.skill", "an agent or a skill, not both");
    if (submit->request->task_id[0])
        return amp_error_set(err, AMP_INVALID, "schedule.submit.request.task_id", "each run is a task of its own");
    return check_times(given, now_unix_ms, err);
}

static enum amp_code check_room(const struct ask *ask, size_t size, struct amp_error *err)
{
    struct env *env = ask->env;
    struct schedule_entry *entry, *next;
    unsigned own = 0;
    if (journal_failure(env->journal)) {
        env_error_journal(env, err);
        return err->code;
    }
    HASH_ITER(hh, env->schedules, entry, next)
        own += strcmp(entry->from, ask->from) == 0;
    if (HASH_COUNT(env->schedules) < SCHEDULES_MAX && own < SCHEDULES_SENDER_MAX && env->schedules_bytes + size <= SCHEDULES_BYTES_MAX)
        return AMP_OK;
    counter_add(COUNTER_schedule_refused, 1);
    amp_error_set(err, AMP_OVERLOADED, "", "there are %u schedules, %u of them from %s, with %zu bytes in what they submit; at most %u, %u and %zu are kept", HASH_COUNT(env->schedules), own,
                  ask->from, env->schedules_bytes, SCHEDULES_MAX, SCHEDULES_SENDER_MAX, SCHEDULES_BYTES_MAX);
    amp_error_hint(err, "amesh schedule rm removes one, also one that is done");
    return AMP_OVERLOADED;
}

/* One that was made before by the same sender under this id or key. */
static struct schedule_entry *find_known(const struct ask *ask, const Amp__Schedule *given)
{
    struct schedule_entry *entry, *next;
    const char *key = given->submit->key;
    if (given->id && (entry = schedules_find(ask->env, given->id)) != NULL)
        return entry;
    HASH_ITER(hh, ask->env->schedules, entry, next)
        if (key && entry->key && strcmp(entry->key, key) == 0 && strcmp(entry->from, ask->from) == 0)
            return entry;
    return NULL;
}

static void answer_known(const struct ask *ask, struct schedule_entry *known, const Amp__Schedule *given)
{
    struct amp_error err = {0};
    struct schedule_entry *asked = NULL;
    Amp__Schedule copy = *given;
    char id[AMP_ID_SIZE];
    amp_id_new('s', clock_unix_ms(), id);
    copy.id = id;
    copy.from = (char *)ask->from;
    bool is_same = schedules_entry_new(ask->env, &copy, &asked, &err) == AMP_OK && strcmp(known->from, ask->from) == 0 && memcmp(known->digest, asked->digest, sizeof known->digest) == 0;
    if (asked)
        schedules_entry_free(asked);
    if (is_same) {
        answer_kept(ask, known);
        return;
    }
    if (err.code == AMP_OK) {
        amp_error_set(&err, AMP_CONFLICT, "schedule", "schedule %s was made under this id or key, and is another one", known->id);
        amp_error_hint(&err, "amesh schedule rm %s, or a new key for a new schedule", known->id);
    }
    env_refuse(ask->env, ask->reply, ask->encoding, &err);
}

static void add(const struct ask *ask, const Amp__ScheduleCommand *command)
{
    struct env *env = ask->env;
    struct amp_error err = {0};
    char id[AMP_ID_SIZE];
    Amp__Timestamp created = AMP__TIMESTAMP__INIT;
    Amp__Schedule given = *command->schedule;
    struct schedule_entry *entry = NULL;
    struct schedule_now now = schedules_now(env);
    enum amp_code code = check_given(&given, now.unix_ms, &err);
    struct schedule_entry *known = code == AMP_OK ? find_known(ask, &given) : NULL;
    if (known) {
        answer_known(ask, known, &given);
        return;
    }
    const char *key = given.submit->key, *again = given.id ? given.id : key ? key : ""; /* under which it is asked again */
    amp_id_new('s', now.unix_ms, id);
    created.unix_ms = now.unix_ms;
    given.id = given.id ? given.id : id;
    given.from = (char *)ask->from;
    given.created = &created;
    /* Its runs are nobody's children: what was above its making has ended long before. */
    given.submit->request->parent = given.submit->request->root = NULL;
    given.submit->request->n_path = 0;
    given.submit->request->has_hops = false;
    if (code == AMP_OK)
        code = check_room(ask, amp__schedule__get_packed_size(&given), &err);
    if (code == AMP_OK && files_gate(ask, given.submit->request->message, again, FIELD) == FILES_TAKEN)
        return;
    if (code == AMP_OK)
        code = files_check_here(env, given.submit->request->message, FIELD, &err);
    if (code == AMP_OK)
        code = schedules_entry_new(env, &given, &entry, &err);
    if (code == AMP_OK)
        files_hold(env, given.submit->request->message, &entry->files);
    if (code != AMP_OK) {
        env_refuse(env, ask->reply, ask->encoding, &err);
        return;
    }
    (void)schedule_step(&entry->schedule, SCHEDULE_EV_BEGIN, now);
    if (entry->schedule.state == SCHEDULE_DONE) {
        env_refuse_code(ask, AMP_INVALID, "schedule.until", "it would never run");
        schedules_entry_free(entry);
        return;
    }
    code = write_and_answer(ask, entry, false);
    if (code == AMP_OK) {
        schedules_arm(entry);
        return;
    }
    schedules_entry_free(entry);
    refuse_write(ask, code);
}

/* ---- looked at ------------------------------------------------------------------------------------------------------------ */

static int by_id(const struct schedule_entry *a, const struct schedule_entry *b)
{
    return strcmp(a->id, b->id);
}

static void list(const struct ask *ask, const char *after)
{
    struct env *env = ask->env;
    struct amp_arena *arena = env_answer_arena(env);
    struct schedule_entry *entry, *next;
    Amp__Schedule *records[ENV_PAGE_MAX];
    Amp__EnvReply reply = AMP__ENV_REPLY__INIT;
    bool is_cut = false;
    HASH_SORT(env->schedules, by_id);
    reply.schedules = records;
    HASH_ITER(hh, env->schedules, entry, next) {
        if (after && strcmp(entry->id, after) <= 0)
            continue;
        is_cut = reply.n_schedules == ENV_PAGE_MAX || (records[reply.n_schedules] = schedules_view(entry, arena, true)) == NULL;
        if (is_cut)
            break;
        reply.n_schedules++;
    }
    reply.has_total = true;
    reply.total = HASH_COUNT(env->schedules);
    do {
        reply.next_page_token = is_cut && reply.n_schedules ? records[reply.n_schedules - 1]->id : NULL;
        if (env_answer(env, ask->reply, ask->encoding, &reply) != AMP_TOO_LARGE)
            return;
        reply.n_schedules /= 2;
        is_cut = true;
    } while (reply.n_schedules > 0);
    env_refuse_code(ask, AMP_TOO_LARGE, "", "a schedule is larger than one message on this bus");
}

/* ---- changed ---------------------------------------------------------------------------------------------------------------- */

static void refuse_done(const struct ask *ask, const struct schedule_entry *entry)
{
    struct amp_error err = {0};
    amp_error_set(&err, AMP_CONFLICT, "id", "the schedule %s is done: it makes no more runs", entry->id);
    amp_error_hint(&err, "amesh schedule show %s; amesh schedule run makes one more of its task", entry->id);
    env_refuse(ask->env, ask->reply, ask->encoding, &err);
}

static void change(const struct ask *ask, struct schedule_entry *entry, enum schedule_event event)
{
    struct schedule before = entry->schedule;
    struct schedule_action action = schedule_step(&entry->schedule, event, schedules_now(ask->env));
    enum amp_code code = AMP_OK;
    if (action.is_changed)
        code = write_and_answer(ask, entry, false);
    else if (entry->schedule.state == SCHEDULE_DONE)
        refuse_done(ask, entry);
    else
        answer_kept(ask, entry);
    if (code != AMP_OK) {
        entry->schedule = before;
        refuse_write(ask, code);
    }
    schedules_arm(entry);
}

static void run(const struct ask *ask, struct schedule_entry *entry)
{
    struct schedule before = entry->schedule;
    struct amp_error err = {0};
    struct etask *task = NULL;
    struct schedule_action action = schedule_step(&entry->schedule, SCHEDULE_EV_RUN, schedules_now(ask->env));
    if (schedules_run(entry, &action, &task, &err) == AMP_OK) {
        etask_reply_later(task, ask, false);
    } else {
        entry->schedule = before;
        env_refuse(ask->env, ask->reply, ask->encoding, &err);
    }
    schedules_arm(entry);
}

/* Its tasks go on. */
static void remove_it(const struct ask *ask, struct schedule_entry *entry)
{
    enum amp_code code = write_and_answer(ask, entry, true);
    if (code == AMP_OK)
        schedules_entry_free(entry);
    else
        refuse_write(ask, code);
}

void schedules_verb(const struct ask *ask)
{
    const Amp__ScheduleCommand *command = ask->request->schedule;
    struct schedule_entry *entry = command->id ? schedules_find(ask->env, command->id) : NULL;
    bool needs_entry = command->op != AMP__SCHEDULE_OP__SCHEDULE_ADD && command->op != AMP__SCHEDULE_OP__SCHEDULE_LIST;
    if (needs_entry && !entry) {
        env_refuse_missing(ask, &(struct env_missing){AMP_NOT_FOUND, "id", "schedule", "amesh schedule ls"}, command->id ? command->id : "");
        return;
    }
    switch (command->op) {
    case AMP__SCHEDULE_OP__SCHEDULE_ADD:
        add(ask, command);
        break;
    case AMP__SCHEDULE_OP__SCHEDULE_LIST:
        list(ask, command->page_token);
        break;
    case AMP__SCHEDULE_OP__SCHEDULE_GET:
        answer(ask->env, ask->reply, ask->encoding, entry);
        break;
    case AMP__SCHEDULE_OP__SCHEDULE_PAUSE:
        change(ask, entry, SCHEDULE_EV_PAUSE);
        break;
    case AMP__SCHEDULE_OP__SCHEDULE_RESUME:
        change(ask, entry, SCHEDULE_EV_RESUME);
        break;
    case AMP__SCHEDULE_OP__SCHEDULE_REMOVE:
        remove_it(ask, entry);
        break;
    case AMP__SCHEDULE_OP__SCHEDULE_RUN:
        run(ask, entry);
        break;
    default:
        env_refuse_code(ask, AMP_UNSUPPORTED, "op", NULL);
        break;
    }
}

#include "schedules.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/zone.h"
#include "env/files.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCOPE "schedule" /* of the journal's memory; requests reach only their own three */

static const char *const overlaps[] = {[SCHEDULE_SKIP] = "skip", [SCHEDULE_QUEUE] = "queue", [SCHEDULE_ALLOW] = "allow"};
static const char *const states[] = {[SCHEDULE_ACTIVE] = "active", [SCHEDULE_PAUSED] = "paused", [SCHEDULE_DONE] = "done"};

static size_t word_of(const char *text, const char *const *words, size_t count)
{
    size_t i = 0;
    while (text && i < count && strcmp(text, words[i]) != 0)
        i++;
    return text ? i : 0; /* not given: the first */
}

/* ---- what was asked for ------------------------------------------------------------------------------------------------ */

static enum amp_code read_rule(const Amp__Schedule *given, struct schedule_entry *entry, struct amp_error *reterr)
{
    struct schedule_rule *rule = &entry->schedule.rule;
    size_t overlap = word_of(given->overlap, overlaps, sizeof overlaps / sizeof *overlaps);
    rule->is_cron = given->cron != NULL;
    rule->every_ms = given->every_ms;
    rule->overlap = (enum schedule_overlap)overlap;
    rule->runs_max = given->count;
    rule->start_unix_ms = given->not_before ? given->not_before->unix_ms : 0;
    rule->until_unix_ms = given->until ? given->until->unix_ms : SCHEDULE_NEVER;
    if (overlap == sizeof overlaps / sizeof *overlaps)
        return amp_error_set(reterr, AMP_INVALID, "schedule.overlap", "\"%.60s\" is neither \"skip\" nor \"queue\" nor \"allow\"", given->overlap);
    if (rule->is_cron == given->has_every_ms)
        return amp_error_set(reterr, AMP_INVALID, "schedule.cron", "a cron expression or an interval, and not both");
    if (given->zone && !rule->is_cron)
        return amp_error_set(reterr, AMP_INVALID, "schedule.zone", "a time zone is for cron expressions");
    if (!rule->is_cron && rule->every_ms < SCHEDULE_EVERY_MIN_MS)
        return amp_error_set(reterr, AMP_INVALID, "schedule.every_ms", "the shortest interval is %u ms", SCHEDULE_EVERY_MIN_MS);
    if (!rule->is_cron)
        return AMP_OK;
    enum amp_code code = zone_open(given->zone, &entry->zone, reterr);
    rule->zone = entry->zone;
    if (code != AMP_OK && reterr)
        snprintf(reterr->field, sizeof reterr->field, "schedule.zone");
    return code == AMP_OK ? cron_parse(given->cron, &rule->cron, reterr) : code;
}

/* Of what it is, but for ids, and for when it begins and ends. */
static void digest(const Amp__Schedule *given, struct amp_arena *arena, uint8_t ret[SUBMIT_DIGEST_SIZE])
{
    Amp__Schedule copy = AMP__SCHEDULE__INIT;
    uint8_t both[2][SUBMIT_DIGEST_SIZE] = {{0}};
    copy.cron = given->cron;
    copy.zone = given->zone;
    copy.has_every_ms = given->has_every_ms;
    copy.every_ms = given->every_ms;
    copy.overlap = (char *)(given->overlap ? given->overlap : overlaps[0]); /* its row says it, whether it was given or not */
    copy.has_count = given->has_count;
    copy.count = given->count;
    size_t size = amp__schedule__get_packed_size(&copy);
    uint8_t *packed = amp_arena_alloc(arena, size + 1);
    if (packed)
        amp__schedule__pack(&copy, packed);
    (void)crypto_generichash(both[0], sizeof both[0], packed, packed ? size : 0, NULL, 0);
    submit_digest(given->submit, arena, both[1]);
    (void)crypto_generichash(ret, SUBMIT_DIGEST_SIZE, both[0], sizeof both, NULL, 0);
}

static void look(struct schedule_entry *entry);

static void on_alarm(struct alarm *alarm)
{
    look((struct schedule_entry *)alarm);
}
_Static_assert(offsetof(struct schedule_entry, alarm) == 0, "the alarm is the entry");

static void on_timer(void *ctx)
{
    look(ctx);
}

enum amp_code schedules_entry_new(struct env *env, const Amp__Schedule *given, struct schedule_entry **ret, struct amp_error *reterr)
{
    struct schedule_entry *entry = xcalloc(1, sizeof *entry);
    enum amp_code code = read_rule(given, entry, reterr);
    if (code != AMP_OK) {
        zone_free(entry->zone);
        free(entry);
        return code;
    }
    entry->env = env;
    entry->alarm.on_due = on_alarm;
    etask_strcpy(entry->id, given->id);
    etask_strcpy(entry->from, given->from);
    entry->key = given->submit->key && given->submit->key[0] ? xstrdup(given->submit->key) : NULL;
    amp_arena_reset(&env->scratch);
    digest(given, &env->scratch, entry->digest);
    Amp__Schedule kept = *given; /* what it becomes is not part of what it was */
    kept.state = kept.last_task = kept.note = NULL;
    kept.next = kept.last = NULL;
    kept.has_runs = kept.has_skipped = kept.has_missed = kept.has_open = false;
    kept.n_queued = 0;
    entry->given_len = amp__schedule__get_packed_size(&kept);
    entry->given = xcalloc(1, entry->given_len);
    amp__schedule__pack(&kept, entry->given);
    env->schedules_bytes += entry->given_len;
    HASH_ADD_STR(env->schedules, id, entry);
    *ret = entry;
    return AMP_OK;
}

void schedules_entry_free(struct schedule_entry *entry)
{
    struct env *env = entry->env;
    HASH_DEL(env->schedules, entry);
    env->schedules_bytes -= entry->given_len;
    alarm_stop(&env->alarms, &entry->alarm);
    files_release(env, &entry->files);
    loop_timer_free(entry->timer);
    zone_free(entry->zone);
    free(entry->given);
    free(entry->key);
    free(entry);
}

struct schedule_entry *schedules_find(struct env *env, const char *id)
{
    struct schedule_entry *entry;
    HASH_FIND_STR(env->schedules, id, entry);
    return entry;
}

/* ---- as a record ---------------------------------------------------------------------------------------------------------- */

static Amp__Timestamp *make_time(int64_t unix_ms, struct amp_arena *arena)
{
    Amp__Timestamp *time = unix_ms != 0 && unix_ms != SCHEDULE_NEVER ? amp_arena_alloc(arena, sizeof *time) : NULL;
    if (time) {
        amp__timestamp__init(time);
        time->unix_ms = unix_ms;
    }
    return time;
}

#define SHORT_BYTES_MAX 200u

/* One text part with how it begins stands for the whole message. */
static void shorten(Amp__Message *message, struct amp_arena *arena)
{
    const char *text = "";
    for (size_t i = 0; i < message->n_parts && !*text; i++)
        text = message->parts[i]->text ? message->parts[i]->text : "";
    size_t len = amp_utf8_cut(amp_bytes_of(text), SHORT_BYTES_MAX);
    message->n_parts = message->n_parts && len ? 1 : 0;
    message->metadata = NULL;
    if (message->n_parts) {
        Amp__Part *part = message->parts[0];
        amp__part__init(part);
        part->text = amp_arena_strdup(arena, (struct amp_bytes){(const uint8_t *)text, len});
    }
}

Amp__Schedule *schedules_view(const struct schedule_entry *entry, struct amp_arena *arena, bool is_short)
{
    const struct schedule *schedule = &entry->schedule;
    Amp__Schedule *record = amp__schedule__unpack(&arena->allocator, entry->given_len, entry->given);
    Amp__Timestamp **queued = amp_arena_alloc(arena, SCHEDULE_QUEUE_MAX * sizeof *queued);
    if (!record || !queued)
        return NULL;
    if (is_short) {
        shorten(record->submit->request->message, arena);
        record->submit->request->metadata = NULL;
    }
    record->overlap = (char *)overlaps[schedule->rule.overlap];
    record->state = (char *)states[schedule->state];
    record->next = schedule->state == SCHEDULE_ACTIVE ? make_time(schedule->next_unix_ms, arena) : NULL;
    record->last = make_time(schedule->last_unix_ms, arena);
    record->last_task = entry->last_task[0] ? (char *)entry->last_task : NULL;
    record->has_runs = record->has_skipped = record->has_missed = record->has_open = true;
    record->runs = schedule->runs;
    record->skipped = schedule->skipped;
    record->missed = schedule->missed;
    record->open = schedule->n_open;
    record->note = entry->note[0] ? (char *)entry->note : NULL;
    record->queued = queued;
    for (size_t i = 0; i < schedule->n_queued; i++)
        if ((queued[record->n_queued] = make_time(schedule->queued[i], arena)) != NULL)
            record->n_queued++;
    return record;
}

/* ---- the journal --------------------------------------------------------------------------------------------------------------- */

void schedules_add_row(struct schedule_entry *entry, struct journal_batch *batch)
{
    struct journal_row *row = journal_batch_add(batch, JOURNAL_KV);
    Amp__Schedule *record = schedules_view(entry, journal_batch_arena(batch), false);
    uint8_t *packed = record ? amp_arena_alloc(journal_batch_arena(batch), amp__schedule__get_packed_size(record)) : NULL;
    if (!packed) {
        fputs("out of memory\n", stderr);
        abort();
    }
    row->scope = SCOPE;
    row->owner = "";
    row->key = journal_batch_text(batch, entry->id);
    row->version = ++entry->version;
    row->at_unix_ms = clock_unix_ms();
    row->body = (struct amp_bytes){.data = packed, .len = amp__schedule__pack(record, packed)};
}

/* Those of its message are its own, besides those of its runs. */
static void add_files(struct schedule_entry *entry, bool is_removal, struct journal_batch *batch)
{
    struct amp_arena *arena = journal_batch_arena(batch);
    const Amp__Schedule *given = amp__schedule__unpack(&arena->allocator, entry->given_len, entry->given);
    if (given && amp_message_has_blob(given->submit->request->message))
        files_add_owner(entry->env, entry->id, entry->from, given->submit->request->message, is_removal, batch);
}

enum amp_code schedules_write(struct schedule_entry *entry, bool is_removal, void (*on_commit)(void *ctx, enum amp_code code), void *ctx)
{
    struct journal_batch *batch = journal_batch_new(entry->env->journal);
    bool is_first = entry->version == 0;
    if (!is_removal) {
        schedules_add_row(entry, batch);
    } else {
        struct journal_row *row = journal_batch_add(batch, JOURNAL_KV); /* version 0: it goes */
        row->scope = SCOPE;
        row->owner = "";
        row->key = journal_batch_text(batch, entry->id);
    }
    if (is_first || is_removal)
        add_files(entry, is_removal, batch);
    enum amp_code code = journal_write(entry->env->journal, batch, on_commit, ctx);
    if (code != AMP_OK)
        journal_batch_free(batch);
    return code;
}

static int64_t time_of(const Amp__Timestamp *time, int64_t otherwise)
{
    return time ? time->unix_ms : otherwise;
}

static void load_state(struct schedule_entry *entry, const Amp__Schedule *record)
{
    struct schedule *schedule = &entry->schedule;
    size_t state = word_of(record->state, states, sizeof states / sizeof *states);
    schedule->state = state < sizeof states / sizeof *states ? (enum schedule_state)state : SCHEDULE_PAUSED;
    schedule->next_unix_ms = time_of(record->next, SCHEDULE_NEVER);
    schedule->last_unix_ms = time_of(record->last, 0);
    schedule->runs = record->runs;
    schedule->skipped = record->skipped;
    schedule->missed = record->missed;
    for (size_t i = 0; i < record->n_queued && i < SCHEDULE_QUEUE_MAX; i++)
        schedule->queued[schedule->n_queued++] = record->queued[i]->unix_ms;
    etask_strcpy(entry->last_task, record->last_task);
    snprintf(entry->note, sizeof entry->note, "%s", record->note ? record->note : "");
}

struct load {
    struct env *env;
    size_t rows;
    char last[AMP_NAME_MAX + 1];
};

static bool load_row(void *ctx, const struct journal_row *row)
{
    struct load *load = ctx;
    struct schedule_entry *entry;
    struct amp_error err = {0};
    struct amp_arena *arena = env_answer_arena(load->env);
    Amp__Schedule *record = amp__schedule__unpack(&arena->allocator, row->body.len, row->body.data);
    load->rows++;
    etask_strcpy(load->last, row->key);
    if (record && record->id && record->submit && schedules_entry_new(load->env, record, &entry, &err) == AMP_OK) {
        entry->version = row->version;
        load_state(entry, record);
        return true;
    }
    /* A zone that is gone, mostly. Its row stays: the next environment may know better. */
    log_event(LOG_ERROR, "schedule.unusable", "schedule", row->key, "reason", err.message[0] ? err.message : "its row cannot be read", "hint", err.hint[0] ? err.hint : NULL, NULL);
    return true;
}

enum amp_code schedules_load(struct env *env, struct amp_error *reterr)
{
    struct load load = {.env = env};
    enum amp_code code = AMP_OK;
    do {
        struct journal_kv_query query = {.scope = SCOPE, .owner = "", .key = "", .is_prefix = true, .after = load.last};
        load.rows = 0;
        code = journal_kv(env->journal, &query, load_row, &load);
    } while (code == AMP_OK && load.rows == JOURNAL_READ_MAX);
    if (code == AMP_CORRUPT && reterr)
        *reterr = *journal_read_error(env->journal);
    if (code == AMP_CORRUPT)
        return code;
    if (code != AMP_OK && code != AMP_NOT_FOUND)
        return amp_error_set(reterr, AMP_JOURNAL, "", "the schedules cannot be read from the journal");
    return AMP_OK;
}

void schedules_start(struct env *env)
{
    struct schedule_entry *entry, *next;
    HASH_ITER(hh, env->schedules, entry, next) {
        (void)schedule_step(&entry->schedule, SCHEDULE_EV_FOUND, schedules_now(env));
        schedules_arm(entry);
    }
}

void schedules_done(struct env *env)
{
    struct schedule_entry *entry, *next;
    HASH_ITER(hh, env->schedules, entry, next)
        schedules_entry_free(entry);
}

/* ---- when ------------------------------------------------------------------------------------------------------------------------ */

struct schedule_now schedules_now(const struct env *env)
{
    return (struct schedule_now){.unix_ms = clock_unix_ms(), .mono_ms = loop_now_ms(env->loop)};
}

void schedules_arm(struct schedule_entry *entry)
{
    struct env *env = entry->env;
    bool is_mono;
    int64_t due = schedule_due(&entry->schedule, &is_mono);
    if (!is_mono && due != SCHEDULE_NEVER)
        plan_set_alarm(env, &entry->alarm, due == INT64_MIN ? 0 : due);
    else
        alarm_stop(&env->alarms, &entry->alarm);
    if (!is_mono) {
        if (entry->timer)
            loop_timer_stop(entry->timer);
        return;
    }
    if (!entry->timer)
        entry->timer = loop_timer_new(env->loop, on_timer, entry);
    int64_t left_ms = due - loop_now_ms(env->loop);
    loop_timer_set(entry->timer, left_ms <= 0 ? 0 : left_ms > INT32_MAX ? INT32_MAX : (uint32_t)left_ms + 1);
}

enum amp_code schedules_run(struct schedule_entry *entry, const struct schedule_action *action, struct etask **ret, struct amp_error *err)
{
    char key[AMP_KEY_MAX + 1], last_task[AMP_NAME_MAX + 1], message[AMP_ID_SIZE];
    struct amp_arena arena;
    etask_strcpy(last_task, entry->last_task);
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    Amp__Schedule *given = amp__schedule__unpack(&arena.allocator, entry->given_len, entry->given);
    enum amp_code code = AMP_NO_MEMORY;
    if (!given) {
        amp_error_set(err, code, "", "what schedule %s submits cannot be read", entry->id);
    } else {
        Amp__Timestamp planned = AMP__TIMESTAMP__INIT;
        Amp__Submit *submit = given->submit;
        planned.unix_ms = action->planned_unix_ms;
        submit->key = NULL;
        submit->schedule = entry->id;
        submit->planned = &planned;
        submit->has_missed = action->missed > 0;
        submit->missed = action->missed;
        submit->request->parent = entry->id;
        amp_id_new('m', clock_unix_ms(), message);
        submit->request->message->message_id = message;
        submit->request->task_id = (char *)"";
        snprintf(key, sizeof key, "%s/%u@%lld", entry->id, entry->schedule.runs, (long long)action->planned_unix_ms);
        struct submit_run run = {.from = entry->from, .key = key, .submit = submit, .entry = entry};
        code = submit_scheduled(entry->env, &run, ret, err);
    }
    amp_arena_done(&arena);
    if (code == AMP_OK) {
        counter_add(COUNTER_schedule_runs, 1);
        counter_add(COUNTER_schedule_misses, action->missed);
    } else {
        etask_strcpy(entry->last_task, last_task);
    }
    return code;
}

/* Said where people look, and in the log. */
static void note(struct schedule_entry *entry, const struct schedule_action *action)
{
    char planned[AMP_TIME_SIZE];
    amp_time_format(action->planned_unix_ms, planned);
    entry->note[0] = '\0';
    if (action->kind == SCHEDULE_DO_SKIP) {
        snprintf(entry->note, sizeof entry->note, "%.19sZ was skipped: task %s had not ended", planned, entry->last_task);
        if (!entry->is_skipping)
            log_event(LOG_WARN, "schedule.skipped", "schedule", entry->id, "planned", planned, "open", entry->last_task, NULL);
        counter_add(COUNTER_schedule_skips, 1);
        counter_add(COUNTER_schedule_misses, action->missed);
    } else if (action->missed > 0) {
        snprintf(entry->note, sizeof entry->note, "%.19sZ stands for %u more that were missed", planned, action->missed);
        log_event(LOG_WARN, "schedule.missed", "schedule", entry->id, "planned", planned, "missed", log_int(action->missed), NULL);
    }
    entry->is_skipping = action->kind == SCHEDULE_DO_SKIP; /* the log has the first one until a run is made */
}

static enum amp_code act(struct schedule_entry *entry, const struct schedule_action *action, struct amp_error *err)
{
    struct etask *task;
    if (action->kind == SCHEDULE_DO_NOTHING)
        return AMP_OK;
    note(entry, action);
    enum amp_code code = action->kind == SCHEDULE_DO_RUN ? schedules_run(entry, action, &task, err) : AMP_OK;
    if (code == AMP_CONFLICT) { /* its key was taken: somebody used it, as the journal does not forget */
        entry->schedule.n_open--;
        snprintf(entry->note, sizeof entry->note, "%.140s", err->message);
    }
    if (code == AMP_CONFLICT || action->kind != SCHEDULE_DO_RUN)
        code = schedules_write(entry, false, NULL, NULL);
    return code;
}

static void look(struct schedule_entry *entry)
{
    struct env *env = entry->env;
    struct schedule before = entry->schedule;
    struct amp_error err = {0};
    if (env->is_stopping || journal_failure(env->journal))
        return; /* the next environment will */
    struct schedule_action action = schedule_step(&entry->schedule, SCHEDULE_EV_LOOK, schedules_now(env));
    if (act(entry, &action, &err) == AMP_OK) {
        schedules_arm(entry);
        return;
    }
    entry->schedule = before;
    snprintf(entry->note, sizeof entry->note, "a run waits: %.140s", err.message[0] ? err.message : "the journal has no room");
    plan_set_alarm(env, &entry->alarm, clock_unix_ms() + SCHEDULE_AGAIN_MS);
}

void schedules_task_found(struct env *env, const char *id)
{
    struct schedule_entry *entry = schedules_find(env, id);
    if (entry)
        entry->schedule.n_open++;
}

void schedules_task_ended(struct env *env, const char *id)
{
    struct schedule_entry *entry = schedules_find(env, id);
    if (!entry)
        return;
    (void)schedule_step(&entry->schedule, SCHEDULE_EV_ENDED, schedules_now(env));
    schedules_arm(entry);
}

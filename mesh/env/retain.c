/* Retention: asks the journal to remove what is older, or more, than is to be kept; a batch at a time, the next one when that has
 * been committed. */
#include "env_private.h"

#include "base/clock.h"
#include "base/command.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"

#include <stdlib.h>
#include <string.h>

#define RETAIN_EVERY_MS 10000u
#define RETAIN_NEXT_MS 5u
#define RETAIN_BATCH 32u
#define RETAIN_LEAST_MS INT64_C(3600000) /* what ended within the last hour stays, however much it is: a submit that is sent again finds its task */
#define RETAIN_AWAY_MS INT64_C(86400000) /* a clock that is so far ahead of the journal's last sign of life may be wrong: nothing is removed for that hour */

static void on_pruned(void *ctx, enum amp_code code)
{
    struct env *env = ctx;
    struct retain *retain = &env->retain;
    retain->is_under_way = false;
    if (code != AMP_OK || !retain->timer)
        return;
    counter_add(COUNTER_journal_pruned, retain->n_gone);
    if (retain->n_gone)
        log_event(LOG_DEBUG, "journal.pruned", "tasks", log_int(retain->n_gone), NULL);
    loop_timer_set(retain->timer, retain->n_gone == RETAIN_BATCH ? RETAIN_NEXT_MS : RETAIN_EVERY_MS);
}

/* A clock that is set makes nothing older: time is what has passed since the start. If it is set back, it is believed: what is written from then on has its times. */
int64_t retain_now(const struct retain *retain, int64_t mono_ms, int64_t unix_ms)
{
    int64_t passed_unix_ms = retain->begun_unix_ms + (mono_ms - retain->begun_ms);
    return unix_ms < passed_unix_ms ? unix_ms : passed_unix_ms;
}

static void on_timer(void *ctx)
{
    struct env *env = ctx;
    struct retain *retain = &env->retain;
    if (retain->is_under_way || journal_failure(env->journal) || env->is_stopping)
        return;
    loop_timer_set(retain->timer, RETAIN_EVERY_MS); /* if this is refused, or does not come back */
    struct journal_batch *batch = journal_batch_new(env->journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_PRUNE);
    int64_t now = retain_now(retain, clock_mono_ms(), clock_unix_ms());
    row->at_unix_ms = retain->age_ms > 0 ? now - retain->age_ms : 0;
    row->ended_unix_ms = now - RETAIN_LEAST_MS;
    row->bytes_max = retain->bytes;
    row->count = RETAIN_BATCH;
    row->ret_count = &retain->n_gone;
    retain->is_under_way = journal_write(env->journal, batch, on_pruned, env) == AMP_OK;
    if (!retain->is_under_way)
        journal_batch_free(batch);
}

void retain_begin(struct env *env, const struct env_options *options)
{
    env->retain.age_ms = options->retain_age_ms;
    env->retain.bytes = options->retain_bytes;
    if (options->retain_age_ms <= 0 && options->retain_bytes == 0)
        return;
    int64_t now = clock_unix_ms(), lived = journal_lived_unix_ms(env->journal);
    bool is_far_ahead = lived && now - lived > RETAIN_AWAY_MS;
    env->retain.begun_unix_ms = now;
    env->retain.begun_ms = clock_mono_ms();
    env->retain.timer = loop_timer_new(env->loop, on_timer, env);
    loop_timer_set(env->retain.timer, is_far_ahead ? (uint32_t)RETAIN_LEAST_MS : RETAIN_NEXT_MS);
    if (is_far_ahead)
        log_event(LOG_WARN, "journal.retain_waits", "hours_since_last_life", log_int((now - lived) / RETAIN_LEAST_MS), "reason", "nothing is removed within the first hour, as the clock may be wrong", NULL);
}

void retain_done(struct env *env)
{
    loop_timer_free(env->retain.timer);
    env->retain.timer = NULL;
}

/* ---- as people write it ----------------------------------------------------------------------------------------------- */

#define DAY_MS INT64_C(86400000)
#define AGE_DAYS_MAX 36500.0

/* Digits and a point. strtod also takes "0x10", "1e3", " 1" and "+1": by mistake too much would be removed. */
static bool parse_number(const char *text, double *ret, const char **ret_end)
{
    char *end;
    *ret = strtod(text, &end);
    *ret_end = end;
    return text[0] >= '0' && text[0] <= '9' && (size_t)(end - text) == strspn(text, "0123456789.");
}

static bool parse_age(const char *text, int64_t *ret_ms)
{
    const char *end;
    double days = 0;
    unsigned ms = 0;
    if (parse_number(text, &days, &end) && strcmp(end, "d") == 0 && days > 0 && days <= AGE_DAYS_MAX) {
        *ret_ms = (int64_t)(days * (double)DAY_MS);
        return true;
    }
    bool is_one = command_duration_ms(text, &ms) && ms > 0;
    *ret_ms = ms;
    return is_one;
}

static bool parse_bytes(const char *text, uint64_t *ret)
{
    static const char units[] = "KMGT";
    const char *end;
    double value = 0;
    if (!parse_number(text, &value, &end))
        return false;
    const char *unit = *end ? strchr(units, *end) : NULL;
    for (const char *at = units; unit && at <= unit; at++)
        value *= 1024;
    *ret = value >= 1 && value < 1e18 ? (uint64_t)value : 0;
    return *ret && (!*end || (unit && (!end[1] || strcmp(end + 1, "B") == 0 || strcmp(end + 1, "iB") == 0)));
}

enum amp_code env_retain_parse(struct env_options *options, const char *age, const char *bytes, struct amp_error *reterr)
{
    if (age && !parse_age(age, &options->retain_age_ms)) {
        amp_error_set(reterr, AMP_INVALID, "retain-age", "--retain-age: \"%s\" is no age", age);
        amp_error_hint(reterr, "such as 30d, 12h");
        return AMP_INVALID;
    }
    if (bytes && !parse_bytes(bytes, &options->retain_bytes)) {
        amp_error_set(reterr, AMP_INVALID, "retain-bytes", "--retain-bytes: \"%s\" is no size", bytes);
        amp_error_hint(reterr, "such as 500M, 10G");
        return AMP_INVALID;
    }
    return AMP_OK;
}

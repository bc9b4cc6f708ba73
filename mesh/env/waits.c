/* What tasks waited for, and how long (amp.md 10.12.2). While it waits a task keeps no list of its own: its target notes each reason once, for all who wait there, and
 * what concerns one task is cut out of that when its wait is over, or when somebody asks. A reason that lasts is kept in the journal, for the next environment: rows of the
 * scope "waits", one for each target. */
#include "env_private.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCOPE JOURNAL_SCOPE_WAITS /* inside the journal only: no request names it */
#define LASTS_MS 500    /* a reason is written down from here on: those that come and go cost nothing */
#define REASONS_KEPT 32u /* of one target */
#define WRITES_MAX 32u  /* of one sweep */
#define UNSAID_MS 20 /* a wait without a known reason is told from here on, and a reason if it lasts */

#define CALLED_MS 200 /* so long the only one that waits may be called, and come back: nothing is said meanwhile */

static struct reason *last_reason(const struct target *target) { return target->n_reasons ? &target->reasons[target->n_reasons - 1] : NULL; }

static void add_reason(struct target *target, int64_t since_unix_ms, const char *text)
{
    const struct reason *last = last_reason(target);
    int64_t lasted_ms = last ? since_unix_ms - last->since_unix_ms : -1;
    if (lasted_ms >= 0 && lasted_ms < (last->text[0] ? UNSAID_MS : CALLED_MS)) { /* what was true for a moment only gives way, and the one before may go on */
        since_unix_ms = last->since_unix_ms;
        target->n_reasons--;
        last = last_reason(target);
    }
    if (last && strcmp(last->text, text) == 0)
        return;
    if (target->n_reasons == REASONS_KEPT) {
        assert(target->reasons);
        memmove(target->reasons, target->reasons + 1, --target->n_reasons * sizeof *target->reasons);
        target->known_unix_ms = target->reasons[0].since_unix_ms;
    } else {
        target->reasons = xrealloc(target->reasons, (target->n_reasons + 1) * sizeof *target->reasons);
    }
    struct reason *reason = &target->reasons[target->n_reasons++];
    reason->since_unix_ms = since_unix_ms;
    snprintf(reason->text, sizeof reason->text, "%s", text);
}

void waits_note(struct target *target)
{
    const struct reason *last = last_reason(target);
    if (last ? strcmp(last->text, target->waiting) != 0 : target->waiting[0] != '\0')
        add_reason(target, clock_unix_ms(), target->waiting);
}

/* ---- over a restart ------------------------------------------------------------------------------------------------------ */

/* NULL: its row goes. One that does not come through is lost, and the record says no more than it knows. */
static void write_row(struct env *env, const char *key, cJSON *reasons)
{
    struct journal_batch *batch = journal_batch_new(env->journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_KV);
    char *json = reasons ? cJSON_PrintUnformatted(reasons) : NULL;
    row->scope = SCOPE;
    row->owner = "";
    row->key = journal_batch_text(batch, key);
    row->at_unix_ms = clock_unix_ms();
    row->version = json != NULL;
    if (json)
        row->body = journal_batch_bytes(batch, amp_bytes_of(json));
    cJSON_free(json);
    cJSON_Delete(reasons);
    if (journal_write(env->journal, batch, NULL, NULL) != AMP_OK)
        journal_batch_free(batch);
}

static void keep_reasons(struct target *target)
{
    cJSON *array = cJSON_CreateArray();
    for (uint32_t i = 0; i < target->n_reasons; i++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddNumberToObject(item, "since", (double)target->reasons[i].since_unix_ms);
        cJSON_AddStringToObject(item, "text", target->reasons[i].text);
        cJSON_AddItemToArray(array, item);
    }
    target->kept_unix_ms = target->reasons[target->n_reasons - 1].since_unix_ms;
    write_row(target->env, target->key, array);
}

void waits_sweep(struct env *env)
{
    struct target *target, *next;
    uint32_t count = 0;
    int64_t now = clock_unix_ms();
    journal_live(env->journal);
    HASH_ITER(hh, env->targets, target, next) {
        const struct reason *last = last_reason(target);
        if (count == WRITES_MAX || !last || last->since_unix_ms == target->kept_unix_ms || now - last->since_unix_ms < LASTS_MS)
            continue;
        keep_reasons(target);
        count++;
    }
}

void waits_stop(struct env *env)
{
    struct target *target, *next;
    HASH_ITER(hh, env->targets, target, next)
        if (target->first && target->n_reasons && last_reason(target)->since_unix_ms != target->kept_unix_ms)
            keep_reasons(target);
}

void waits_forget(struct target *target)
{
    if (target->kept_unix_ms)
        write_row(target->env, target->key, NULL);
}

struct rows {
    struct env *env;
    uint32_t count;
    char last[sizeof((struct target *)0)->key];
};

static bool on_row(void *ctx, const struct journal_row *row)
{
    struct rows *rows = ctx;
    struct target *target;
    rows->count++;
    snprintf(rows->last, sizeof rows->last, "%s", row->key);
    HASH_FIND_STR(rows->env->targets, row->key, target);
    if (!target) {
        write_row(rows->env, row->key, NULL);
        return true;
    }
    cJSON *array = cJSON_ParseWithLength((const char *)row->body.data, row->body.len);
    const cJSON *item;
    target->n_reasons = 0;
    cJSON_ArrayForEach(item, array) {
        const cJSON *since = cJSON_GetObjectItemCaseSensitive(item, "since");
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "text"));
        if (cJSON_IsNumber(since) && text)
            add_reason(target, (int64_t)since->valuedouble, text);
    }
    target->kept_unix_ms = 1; /* there is a row, and it is not as it will be */
    cJSON_Delete(array);
    return true;
}

void waits_load(struct env *env)
{
    struct rows rows = {.env = env};
    struct target *target, *next;
    int64_t lived = journal_lived_unix_ms(env->journal), now = clock_unix_ms();
    uint32_t count = 0;
    do {
        struct journal_kv_query query = {.scope = SCOPE, .owner = "", .key = "", .after = rows.last[0] ? rows.last : NULL, .is_prefix = true};
        rows.count = 0;
        if (journal_kv(env->journal, &query, on_row, &rows) != AMP_OK)
            break;
    } while (rows.count == JOURNAL_READ_MAX);
    HASH_ITER(hh, env->targets, target, next) {
        const struct reason *last = last_reason(target);
        target->known_unix_ms = lived; /* what came and went before is in no row */
        add_reason(target, last && last->since_unix_ms > lived ? last->since_unix_ms : lived, "until the environment was started again");
        add_reason(target, now, target->waiting);
        if (count++ < WRITES_MAX) /* it may be killed before the first sweep, too */
            keep_reasons(target);
        target->kept_unix_ms = 1;
    }
}

/* ---- one task ------------------------------------------------------------------------------------------------------------ */

static void add_wait(struct waits *waits, int64_t from, int64_t to, const char *text)
{
    struct wait *last = waits->count ? &waits->items[waits->count - 1] : NULL;
    if (to - from < 1)
        return;
    if (last && last->to_unix_ms == from && strcmp(last->reason, text) == 0) {
        last->to_unix_ms = to;
        return;
    }
    if (waits->count == ENV_WAITS_KEPT)
        waits->count--; /* the first ones and the newest are kept */
    struct wait *wait = &waits->items[waits->count++];
    *wait = (struct wait){.from_unix_ms = from, .to_unix_ms = to};
    snprintf(wait->reason, sizeof wait->reason, "%s", text);
}

/* Nobody said why: its turn had not come. Or somebody did, and it was not written down. */
static void add_unsaid(struct waits *waits, const struct target *target, int64_t from, int64_t to)
{
    int64_t known = target && target->known_unix_ms > from ? target->known_unix_ms < to ? target->known_unix_ms : to : from;
    if (known - from >= UNSAID_MS)
        add_wait(waits, from, known, "for a reason that was not written down");
    if (to - known >= UNSAID_MS)
        add_wait(waits, known, to, "its turn had not come yet");
}

/* What its target noted while it stood in the queue there. */
static void add_queued(struct waits *waits, const struct target *target, int64_t from, int64_t to)
{
    int64_t told = from;
    for (uint32_t i = 0; target && i < target->n_reasons; i++) {
        const struct reason *reason = &target->reasons[i];
        int64_t end = i + 1 < target->n_reasons ? target->reasons[i + 1].since_unix_ms : to;
        int64_t begin = reason->since_unix_ms > from ? reason->since_unix_ms : from;
        end = end < to ? end : to;
        if (!reason->text[0] || end <= begin)
            continue;
        add_unsaid(waits, target, told, begin);
        add_wait(waits, begin, end, reason->text);
        told = end;
    }
    add_unsaid(waits, target, told, to);
}

static const struct attempt *last_begun(const struct etask *task)
{
    for (size_t i = task->n_attempts; i > 0; i--)
        if (task->attempts[i - 1].started_unix_ms)
            return &task->attempts[i - 1];
    return NULL;
}

static int64_t waits_from(const struct etask *task)
{
    const struct attempt *last = last_begun(task);
    return last ? last->ended_unix_ms : task->submitted_unix_ms;
}

bool waits_now(const struct etask *task)
{
    const struct attempt *last = last_begun(task);
    return task->is_durable && !task->is_ended && (!last || last->ended_unix_ms);
}

/* What comes first for one that was not to start at once. Returns where the rest begins. */
static int64_t add_delay(struct waits *waits, const struct etask *task, int64_t from, int64_t to)
{
    if (!task->plan || task->plan->not_before_unix_ms <= task->submitted_unix_ms || last_begun(task))
        return from;
    int64_t until = task->plan->begun_unix_ms && task->plan->begun_unix_ms < to ? task->plan->begun_unix_ms : to;
    add_wait(waits, from, until, "for the time at which it was to start");
    return until;
}

void waits_of(const struct etask *task, struct waits *ret)
{
    int64_t from = waits_from(task), to = task->call ? task->called_unix_ms : clock_unix_ms(); /* somebody who is called has it, mostly */
    int64_t queued = task->queued_unix_ms ? task->queued_unix_ms : to;
    ret->count = 0;
    if (from == 0 || to <= from)
        return; /* the clock was set back: nothing is known */
    from = add_delay(ret, task, from, to);
    queued = queued < from ? from : queued > to ? to : queued;
    const struct attempt *last = last_begun(task);
    int64_t ready = last ? from : plan_ready_unix_ms(task);
    ready = ready > to ? to : ready;
    if (ready > from) {
        add_wait(ret, from, ready, "until the time that it was planned for");
        from = ready;
        queued = queued < from ? from : queued;
    }
    if (task->is_reloaded)
        queued = from; /* its target knows what there was, and when nobody was there */
    if (last && queued - from >= 1)
        add_wait(ret, from, queued, "before the next attempt, so that a trouble may pass");
    else if (queued - from >= UNSAID_MS)
        add_wait(ret, from, queued, "until it was written down");
    add_queued(ret, task->target, queued, to);
}

static struct waits *keep(const struct etask *task)
{
    struct waits waits;
    waits_of(task, &waits);
    if (waits.count == 0)
        return NULL;
    size_t size = offsetof(struct waits, items) + waits.count * sizeof waits.items[0];
    struct waits *kept = xcalloc(1, size);
    memcpy(kept, &waits, size);
    return kept;
}

void waits_taken(struct etask *task, struct attempt *attempt)
{
    if (!attempt->waits && waits_now(task))
        attempt->waits = keep(task);
    task->is_reloaded = false;
}

void waits_direct(struct etask *task, int64_t waited_ms)
{
    struct attempt *attempt = &task->attempts[0];
    int64_t since = clock_unix_ms() - waited_ms; /* until now, which is later than its first event */
    if (waited_ms == 0 || attempt->started_unix_ms - since < UNSAID_MS)
        return;
    task->submitted_unix_ms = attempt->ready_unix_ms = since;
    attempt->waits = xcalloc(1, sizeof *attempt->waits);
    add_wait(attempt->waits, attempt->ready_unix_ms, attempt->started_unix_ms, "every instance is busy");
}

void waits_ended(struct etask *task)
{
    if (!task->waits && waits_now(task))
        task->waits = keep(task);
}

/* As far as is known: the journal knows to a second when its environment was there last. */
void waits_away(struct etask *task)
{
    struct attempt *attempt = &task->attempts[task->n_attempts - 1];
    int64_t from = journal_lived_unix_ms(task->env->journal), now = clock_unix_ms();
    from = from > attempt->started_unix_ms ? from : attempt->started_unix_ms;
    if (now - from < 1)
        return;
    size_t count = attempt->aways ? attempt->aways->count : 0;
    attempt->aways = xrealloc(attempt->aways, sizeof *attempt->aways); /* one that was loaded is cut behind its last */
    attempt->aways->count = count;
    add_wait(attempt->aways, from, now, "the environment was away");
    etask_changed(task);
}

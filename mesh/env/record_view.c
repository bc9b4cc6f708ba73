/* A task as people and programs get it: A2A's Task with what the mesh knows in its metadata (amp.md 4.1). */
#include "env_private.h"

#include "base/alloc.h"
#include "env/inbox.h"

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define METADATA_BYTES_MAX (256u << 10)
#define ASKED_BYTES_MAX 200u

static const struct amp_code_info *outcome_of(const struct attempt *attempt)
{
    return amp_code_info(attempt->outcome);
}

static void put(struct amp_buf *out, const char *text)
{
    (void)amp_buf_append(out, text, strlen(text));
}

static void put_name(struct amp_buf *out, const char *name)
{
    put(out, ",\"");
    put(out, name);
    put(out, "\":");
}

/* Attempts are written once per task and more: printf was a tenth of what a direct task costs here. */
static void put_number(struct amp_buf *out, int64_t number)
{
    char text[24];
    size_t at = sizeof text;
    uint64_t left = number < 0 ? -(uint64_t)number : (uint64_t)number;
    do
        text[--at] = (char)('0' + left % 10);
    while ((left /= 10) > 0);
    if (number < 0)
        text[--at] = '-';
    (void)amp_buf_append(out, text + at, sizeof text - at);
}

static void append_number(struct amp_buf *out, const char *name, int64_t number)
{
    put_name(out, name);
    put_number(out, number);
}

static void append_id(struct amp_buf *out, const char *name, const char *id)
{
    if (!*id)
        return;
    put_name(out, name);
    put(out, "\"");
    put(out, id);
    put(out, "\"");
}

static void append_time(struct amp_buf *out, const char *name, int64_t unix_ms)
{
    char text[AMP_TIME_SIZE];
    if (unix_ms) {
        amp_time_format(unix_ms, text);
        append_id(out, name, text);
    }
}

static void append_text(struct amp_buf *out, const char *name, const char *text)
{
    if (!*text)
        return;
    put_name(out, name);
    (void)amp_json_append_string(out, amp_bytes_of(text));
}

static void append_waits(struct amp_buf *out, const char *name, const struct waits *waits)
{
    char from[AMP_TIME_SIZE], to[AMP_TIME_SIZE];
    if (!waits || !waits->count)
        return;
    put_name(out, name);
    for (size_t i = 0; i < waits->count; i++) {
        const struct wait *wait = &waits->items[i];
        amp_time_format(wait->from_unix_ms, from);
        amp_time_format(wait->to_unix_ms, to);
        put(out, i ? ",{\"from\":\"" : "[{\"from\":\"");
        put(out, from);
        put(out, "\"");
        append_id(out, "to", to);
        append_text(out, "reason", wait->reason);
        (void)amp_buf_append(out, "}", 1);
    }
    (void)amp_buf_append(out, "]", 1);
}

/* Of one that waits now, or ended while it waited. */
static void append_waits_now(struct amp_buf *out, const struct etask *task)
{
    struct waits now = {0};
    if (waits_now(task))
        waits_of(task, &now);
    append_waits(out, "amp/waits", waits_now(task) ? &now : task->waits);
}

/* It changed nothing: for people, and for who looks into what went wrong. */
static void append_late(struct amp_buf *out, const struct attempt *attempt)
{
    const struct late *late = attempt->late;
    (void)amp_buf_printf(out, ",\"ignored\":[{\"state\":\"%s\"", amp_task_state_short(late->state));
    append_id(out, "instance", attempt->instance);
    append_time(out, "at", late->at_unix_ms);
    append_text(out, "answer", late->answer);
    (void)amp_buf_append(out, "}]", 2);
}

/* Ids and code names hold nothing that JSON would escape. */
static void append_attempt(struct amp_buf *out, const struct attempt *attempt)
{
    put(out, "{\"attempt\":");
    put_number(out, attempt->number);
    append_id(out, "agent", attempt->agent);
    append_id(out, "instance", attempt->instance);
    append_text(out, "host", attempt->host);
    append_time(out, "readyAt", attempt->ready_unix_ms);
    append_time(out, "startedAt", attempt->started_unix_ms);
    append_time(out, "endedAt", attempt->ended_unix_ms);
    if (attempt->started_unix_ms)
        append_number(out, "waitMs", attempt->started_unix_ms - attempt->ready_unix_ms);
    if (attempt->ended_unix_ms) {
        int64_t from = attempt->started_unix_ms ? attempt->started_unix_ms : attempt->ended_unix_ms;
        append_number(out, "runMs", attempt->ended_unix_ms - from);
        bool is_ended_by_agent = attempt->state != AMP__TASK_STATE__TASK_STATE_UNSPECIFIED;
        append_id(out, "outcome", is_ended_by_agent ? amp_task_state_short(attempt->state) : outcome_of(attempt)->name);
        if (attempt->outcome != AMP_OK)
            (void)amp_buf_printf(out, ",\"error\":\"AMESH-%u\"", (unsigned)attempt->outcome);
        append_text(out, "reason", attempt->reason);
    }
    if (attempt->base)
        (void)amp_buf_printf(out, ",\"after\":%u", attempt->base);
    if (attempt->epoch)
        (void)amp_buf_printf(out, ",\"epoch\":\"%u.%u\"", (unsigned)(attempt->epoch >> 32), (unsigned)attempt->epoch);
    if (attempt->is_only_once)
        (void)amp_buf_printf(out, ",\"retry\":\"never\"");
    if (attempt->is_canceled)
        (void)amp_buf_printf(out, ",\"canceled\":true");
    append_time(out, "canceledAt", attempt->canceled_unix_ms);
    append_waits(out, "waits", attempt->waits);
    append_waits(out, "away", attempt->aways);
    if (attempt->late)
        append_late(out, attempt);
    (void)amp_buf_append(out, "}", 1);
}

static void append_attempts(struct amp_buf *out, const struct etask *task)
{
    (void)amp_buf_append(out, "[", 1);
    for (size_t i = 0; i < task->n_attempts; i++) {
        if (i)
            (void)amp_buf_append(out, ",", 1);
        append_attempt(out, &task->attempts[i]);
    }
    (void)amp_buf_append(out, "]", 1);
}

char *view_attempts(const struct etask *task, struct amp_arena *arena)
{
    struct amp_buf out;
    amp_buf_init(&out, METADATA_BYTES_MAX);
    append_attempts(&out, task);
    char *text = amp_arena_strdup(arena, amp_buf_bytes(&out));
    amp_buf_done(&out);
    return text;
}

static const char *text_of(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsString(item) ? item->valuestring : "";
}

static int64_t time_of(const cJSON *object, const char *name)
{
    int64_t unix_ms = 0;
    return amp_time_parse(text_of(object, name), &unix_ms) == AMP_OK ? unix_ms : 0;
}

static enum amp_code code_of(const char *text)
{
    if (strncmp(text, "AMESH-", 6) != 0)
        return AMP_OK;
    return amp_code_info((enum amp_code)strtoul(text + 6, NULL, 10))->code;
}

static struct waits *load_waits(const cJSON *array)
{
    int count = cJSON_GetArraySize(array);
    if (count <= 0 || (unsigned)count > ENV_WAITS_KEPT)
        return NULL;
    struct waits *waits = xcalloc(1, offsetof(struct waits, items) + (size_t)count * sizeof waits->items[0]);
    const cJSON *item;
    cJSON_ArrayForEach(item, array) {
        struct wait *wait = &waits->items[waits->count++];
        wait->from_unix_ms = time_of(item, "from");
        wait->to_unix_ms = time_of(item, "to");
        snprintf(wait->reason, sizeof wait->reason, "%s", text_of(item, "reason"));
    }
    return waits;
}

static struct late *load_late(const cJSON *array)
{
    const cJSON *item = cJSON_GetArrayItem(array, 0);
    if (!cJSON_IsObject(item))
        return NULL;
    struct late *late = xcalloc(1, sizeof *late);
    late->at_unix_ms = time_of(item, "at");
    late->state = amp_task_state_parse(text_of(item, "state"));
    snprintf(late->answer, sizeof late->answer, "%s", text_of(item, "answer"));
    return late;
}

static uint64_t epoch_of(const char *text)
{
    unsigned boot = 0, number = 0;
    return sscanf(text, "%u.%u", &boot, &number) == 2 ? (uint64_t)boot << 32 | number : 0;
}

static void load_attempt(const cJSON *item, struct attempt *attempt)
{
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(item, "attempt");
    attempt->number = cJSON_IsNumber(number) && number->valuedouble >= 0 && number->valuedouble <= UINT32_MAX ? (uint32_t)number->valuedouble : 0;
    const cJSON *base = cJSON_GetObjectItemCaseSensitive(item, "after");
    attempt->base = cJSON_IsNumber(base) && base->valuedouble >= 0 && base->valuedouble <= UINT32_MAX ? (uint32_t)base->valuedouble : 0;
    etask_strcpy(attempt->agent, text_of(item, "agent"));
    etask_strcpy(attempt->instance, text_of(item, "instance"));
    etask_strcpy(attempt->host, text_of(item, "host"));
    attempt->waits = load_waits(cJSON_GetObjectItemCaseSensitive(item, "waits"));
    attempt->aways = load_waits(cJSON_GetObjectItemCaseSensitive(item, "away"));
    attempt->ready_unix_ms = time_of(item, "readyAt");
    attempt->started_unix_ms = time_of(item, "startedAt");
    attempt->ended_unix_ms = time_of(item, "endedAt");
    attempt->outcome = code_of(text_of(item, "error"));
    attempt->state = amp_task_state_parse(text_of(item, "outcome"));
    attempt->canceled_unix_ms = time_of(item, "canceledAt");
    attempt->is_canceled = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "canceled"));
    attempt->epoch = epoch_of(text_of(item, "epoch"));
    attempt->is_only_once = strcmp(text_of(item, "retry"), "never") == 0;
    attempt->late = load_late(cJSON_GetObjectItemCaseSensitive(item, "ignored"));
    snprintf(attempt->reason, sizeof attempt->reason, "%s", text_of(item, "reason"));
}

void view_load_attempts(struct etask *task, const char *json)
{
    cJSON *array = json && *json ? cJSON_Parse(json) : NULL;
    int count = cJSON_GetArraySize(array);
    if (count > 0 && (unsigned)count <= ENV_ATTEMPTS_KEPT) {
        task->attempts = xcalloc((size_t)count, sizeof *task->attempts);
        const cJSON *item;
        cJSON_ArrayForEach(item, array)
            load_attempt(item, &task->attempts[task->n_attempts++]);
    }
    cJSON_Delete(array);
}

static void append_plan(struct amp_buf *out, const struct plan *plan)
{
    append_time(out, "amp/notBefore", plan->not_before_unix_ms);
    append_id(out, "amp/schedule", plan->schedule);
    append_time(out, "amp/planned", plan->planned_unix_ms);
    if (plan->missed)
        (void)amp_buf_printf(out, ",\"amp/missed\":%u", plan->missed);
}

/* Ours first; what the agent put there follows, unless it claims our names. */
static Amp__Json *make_metadata(const struct etask *task, const Amp__Json *own, struct amp_arena *arena)
{
    struct amp_buf out;
    amp_buf_init(&out, METADATA_BYTES_MAX + (own ? own->text.len : 0));
    put(&out, task->is_durable ? "{\"amp/durable\":true" : "{\"amp/durable\":false");
    append_id(&out, "amp/from", task->from);
    append_id(&out, "amp/parent", task->parent);
    append_id(&out, "amp/root", task->root ? task->root : "");
    if (task->is_detached && task->parent[0])
        put(&out, ",\"amp/detached\":true");
    append_id(&out, "amp/retryOf", task->retry_of ? task->retry_of : "");
    if (task->fork_of)
        (void)amp_buf_printf(&out, ",\"amp/forkedFrom\":{\"task\":\"%s\",\"seq\":%u}", task->fork_of, task->fork_seq);
    append_time(&out, "amp/deadline", task->timeout_ms ? plan_ready_unix_ms(task) + task->timeout_ms : 0);
    if (task->plan)
        append_plan(&out, task->plan);
    if (task->n_attempts) {
        put(&out, ",\"amp/attempts\":");
        append_attempts(&out, task);
    }
    append_waits_now(&out, task);
    if (own && own->text.len > 2 && own->text.data[0] == '{' && !memmem(own->text.data, own->text.len, "\"amp/", 5)) {
        (void)amp_buf_append(&out, ",", 1);
        (void)amp_buf_append(&out, own->text.data + 1, own->text.len - 1);
    } else {
        (void)amp_buf_append(&out, "}", 1);
    }
    Amp__Json *json = amp_arena_alloc(arena, sizeof *json);
    char *text = amp_arena_strdup(arena, amp_buf_bytes(&out));
    if (json && text) {
        amp__json__init(json);
        json->text = (ProtobufCBinaryData){.len = out.len, .data = (uint8_t *)text};
    }
    amp_buf_done(&out);
    return text ? json : NULL;
}

static Amp__Timestamp *make_time(int64_t unix_ms, struct amp_arena *arena)
{
    Amp__Timestamp *time = unix_ms ? amp_arena_alloc(arena, sizeof *time) : NULL;
    if (time) {
        amp__timestamp__init(time);
        time->unix_ms = unix_ms;
    }
    return time;
}

static char *given(char *id)
{
    return id[0] ? id : NULL;
}

/* The first message; or the one with which it was forked, behind what was there before. */
static const Amp__Message *asking_message(const struct etask *task, const Amp__Task *state)
{
    static const char mark[] = "\"amp/forkedFrom\"";
    for (size_t i = task->fork_of ? state->n_history : 0; i > 1; i--) {
        const Amp__Json *metadata = state->history[i - 1]->metadata;
        if (metadata && memmem(metadata->text.data, metadata->text.len, mark, sizeof mark - 1))
            return state->history[i - 1];
    }
    return state->n_history ? state->history[0] : NULL;
}

/* The beginning of its text: a list without histories can say what was asked. */
static char *asked_of(const struct etask *task, const Amp__Task *state, struct amp_arena *arena)
{
    const Amp__Message *asking = asking_message(task, state);
    for (size_t i = 0; asking && i < asking->n_parts; i++) {
        const char *text = asking->parts[i]->text;
        size_t len = text ? strnlen(text, ASKED_BYTES_MAX) : 0;
        while (len && ((unsigned char)text[len] & 0xC0) == 0x80)
            len--; /* whole characters only */
        if (len)
            return amp_arena_strdup(arena, (struct amp_bytes){(const uint8_t *)text, len});
    }
    return NULL;
}

char *view_asked(struct etask *task, struct amp_arena *arena)
{
    struct amp_fold *fold = etask_fold(task);
    return fold ? asked_of(task, amp_fold_task(fold), arena) : NULL;
}

static void trim(Amp__Task *task, int flags)
{
    if (!(flags & VIEW_ARTIFACTS))
        task->n_artifacts = 0;
    if (!(flags & VIEW_HISTORY))
        task->n_history = 0;
}

void view_omit(Amp__TaskRecord *record, int flags, struct amp_arena *arena)
{
    static const struct {
        int flag;
        const char *name;
    } parts[] = {{VIEW_ARTIFACTS, "artifacts"}, {VIEW_HISTORY, "history"}};
    Amp__Task *task = record->task;
    Amp__Json *old = task->metadata, *json = amp_arena_alloc(arena, sizeof *json);
    struct amp_buf out;
    bool is_new = true;
    /* What an earlier call left out stands at the end. */
    const char *said = old ? memmem(old->text.data, old->text.len, ",\"amp/omitted\"", 14) : NULL;
    size_t said_len = said ? old->text.len - (size_t)(said - (const char *)old->text.data) : 0;
    size_t kept = said ? (size_t)(said - (const char *)old->text.data) : old && old->text.len > 1 ? old->text.len - 1 : 0;
    amp_buf_init(&out, 2 * (size_t)AMP_FOLD_BYTES_MAX);
    if (kept > 0)
        (void)amp_buf_append(&out, old->text.data, kept);
    (void)amp_buf_printf(&out, "%s\"amp/omitted\":[", kept > 1 ? "," : kept ? "" : "{");
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t count = parts[i].flag == VIEW_ARTIFACTS ? task->n_artifacts : task->n_history;
        if (!(flags & parts[i].flag) || (count == 0 && !(said && memmem(said, said_len, parts[i].name, strlen(parts[i].name)))))
            continue;
        (void)amp_buf_printf(&out, "%s\"%s\"", is_new ? "" : ",", parts[i].name);
        is_new = false;
    }
    (void)amp_buf_printf(&out, "]}");
    char *text = amp_arena_strdup(arena, amp_buf_bytes(&out));
    if (json && text) {
        amp__json__init(json);
        json->text = (ProtobufCBinaryData){.len = out.len, .data = (uint8_t *)text};
        task->metadata = json;
    }
    amp_buf_done(&out);
    trim(task, VIEW_ALL & ~flags);
}

/* As its fold would be, which most tasks that wait never need. In `arena`. */
static Amp__Task *view_new(const struct etask *task, struct amp_arena *arena)
{
    const Amp__Submit *submit = etask_submit(task, arena);
    Amp__Task *copy = amp_arena_alloc(arena, sizeof *copy);
    Amp__TaskStatus *status = amp_arena_alloc(arena, sizeof *status);
    Amp__Message **history = amp_arena_alloc(arena, sizeof *history);
    if (!submit || !submit->request || !copy || !status || !history)
        return NULL;
    amp__task__init(copy);
    amp__task_status__init(status);
    status->has_state = true;
    status->state = AMP__TASK_STATE__TASK_STATE_SUBMITTED;
    copy->id = (char *)task->id;
    copy->context_id = (char *)task->context;
    copy->status = status;
    copy->n_history = 1;
    copy->history = history;
    history[0] = submit->request->message;
    return copy;
}

/* What its events have made of it, the metadata still the agent's. */
static Amp__Task *view_state(struct etask *task, struct amp_arena *arena)
{
    if (!task->fold && etask_is_new(task))
        return view_new(task, arena);
    struct amp_fold *fold = etask_fold(task);
    Amp__Task *copy = fold ? amp_arena_alloc(arena, sizeof *copy) : NULL;
    if (copy)
        *copy = *amp_fold_task(fold);
    return copy;
}

Amp__TaskRecord *view_task(struct etask *task, struct amp_arena *arena, int flags)
{
    Amp__Task *copy = view_state(task, arena);
    Amp__TaskRecord *record = amp_arena_alloc(arena, sizeof *record);
    if (!record || !copy)
        return NULL;
    copy->metadata = make_metadata(task, copy->metadata, arena);
    amp__task_record__init(record);
    record->asked = asked_of(task, copy, arena);
    trim(copy, flags);
    record->task = copy;
    record->agent = given(task->agent);
    record->skill = given(task->skill);
    record->from = given(task->from);
    record->parent = given(task->parent);
    record->root = task->root;
    record->has_durable = true;
    record->durable = task->is_durable;
    record->has_events_count = true;
    record->events_count = task->count;
    record->submitted = make_time(task->submitted_unix_ms, arena);
    record->started = make_time(task->started_unix_ms, arena);
    record->ended = make_time(task->ended_unix_ms, arena);
    record->has_incomplete = record->incomplete = task->is_incomplete;
    record->questions = inbox_count(task);
    record->has_questions = record->questions > 0;
    if (task->plan) {
        record->schedule = given(task->plan->schedule);
        record->not_before = make_time(task->plan->not_before_unix_ms, arena);
    }
    const char *waiting = task->plan ? plan_waiting(task, arena) : NULL;
    if (!waiting)
        waiting = target_waiting(task);
    if (waiting)
        record->waiting = amp_arena_strdup(arena, amp_bytes_of(waiting));
    if (task->error)
        record->error = amp__error__unpack(&arena->allocator, task->error_len, task->error);
    return record;
}

/* A closed task is kept as its record; an open one that memory does not have (a direct one that gave way) as its columns. */
static Amp__TaskRecord *view_closed(const struct journal_row *row, struct amp_arena *arena)
{
    if (row->body.len)
        return amp__task_record__unpack(&arena->allocator, row->body.len, row->body.data);
    Amp__TaskRecord *record = amp_arena_alloc(arena, sizeof *record);
    Amp__Task *task = amp_arena_alloc(arena, sizeof *task);
    Amp__TaskStatus *status = amp_arena_alloc(arena, sizeof *status);
    if (!record || !task || !status)
        return NULL;
    amp__task_record__init(record);
    amp__task__init(task);
    amp__task_status__init(status);
    record->task = task;
    task->status = status;
    task->id = amp_arena_strdup(arena, amp_bytes_of(row->task));
    task->context_id = amp_arena_strdup(arena, amp_bytes_of(row->context));
    status->has_state = true;
    status->state = (Amp__TaskState)row->state;
    record->agent = *row->agent ? amp_arena_strdup(arena, amp_bytes_of(row->agent)) : NULL;
    record->skill = *row->skill ? amp_arena_strdup(arena, amp_bytes_of(row->skill)) : NULL;
    record->from = *row->from ? amp_arena_strdup(arena, amp_bytes_of(row->from)) : NULL;
    record->parent = *row->parent ? amp_arena_strdup(arena, amp_bytes_of(row->parent)) : NULL;
    record->has_durable = true;
    record->durable = row->is_durable;
    record->has_events_count = true;
    record->events_count = row->count;
    record->has_incomplete = record->incomplete = !row->is_durable;
    record->submitted = make_time(row->at_unix_ms, arena);
    return record;
}

/* What people were told must not be undone by a crash: an end counts when it is written down. */
static Amp__TaskRecord *view_unended(Amp__TaskRecord *record, const struct journal_row *row, struct amp_arena *arena)
{
    Amp__TaskStatus *status = amp_arena_alloc(arena, sizeof *status);
    if (!status)
        return NULL;
    amp__task_status__init(status);
    status->has_state = true;
    status->state = (Amp__TaskState)row->state;
    record->task->status = status;
    record->ended = NULL;
    record->error = NULL;
    return record;
}

Amp__TaskRecord *view_damaged(const struct journal_row *row, const struct amp_error *err, struct amp_arena *arena)
{
    Amp__TaskRecord *record = amp_arena_alloc(arena, sizeof *record);
    Amp__Task *task = amp_arena_alloc(arena, sizeof *task);
    Amp__Error *error = amp_arena_alloc(arena, sizeof *error);
    if (!record || !task || !error)
        return NULL;
    amp__task_record__init(record);
    amp__task__init(task);
    task->id = amp_arena_strdup(arena, amp_bytes_of(row->task));
    amp_error_to_wire(err, error);
    error->message = amp_arena_strdup(arena, amp_bytes_of(err->message)); /* the next read has an error of its own */
    error->hint = amp_arena_strdup(arena, amp_bytes_of(err->hint));
    error->field = NULL;
    record->task = task;
    record->error = error;
    return record;
}

/* An open task that memory has given up, as the journal failed: made of its row and its events once more, and put back. What is made refers to it, so it is copied. */
static Amp__TaskRecord *view_given_up(struct env *env, const struct journal_row *row, struct amp_arena *arena, int flags)
{
    struct etask *task = etask_load(env, row);
    const Amp__TaskRecord *made = view_task(task, arena, flags);
    size_t size = made ? amp__task_record__get_packed_size(made) : 0;
    uint8_t *packed = made ? amp_arena_alloc(arena, size ? size : 1) : NULL;
    Amp__TaskRecord *record = NULL;
    if (packed) {
        amp__task_record__pack(made, packed);
        record = amp__task_record__unpack(&arena->allocator, size, packed);
    }
    etask_free(task);
    return record;
}

Amp__TaskRecord *view_row(struct env *env, const struct journal_row *row, struct amp_arena *arena, int flags)
{
    struct etask *task = etask_find(env, row->task);
    if (task) {
        Amp__TaskRecord *open = view_task(task, arena, flags);
        return open && task->is_ended && row->is_open && !etask_is_over(task) ? view_unended(open, row, arena) : open;
    }
    if (row->is_open && row->is_durable && env->is_given_up)
        return view_given_up(env, row, arena, flags);
    Amp__TaskRecord *record = view_closed(row, arena);
    if (record && row->is_incomplete) /* known since it was closed: journal_lost.c */
        record->has_incomplete = record->incomplete = true;
    if (record)
        trim(record->task, flags);
    return record;
}

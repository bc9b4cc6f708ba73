/* What one event of a task adds to its timeline. (amp.md 6.3) */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/event.h"
#include "cli/print.h"
#include "cli/timeline_private.h"

#define SHORT_MAX 200u  /* bytes kept of what an agent said, of arguments and outputs */

struct event { /* in hand */
    struct timeline *timeline;
    uint32_t seq;
    int64_t unix_ms;
    const Amp__StreamResponse *body;
    const Amp__Message *message; /* of its status; NULL: none */
    Amp__TaskState state;
};

static const char *text_of(const cJSON *object, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text != NULL ? text : "";
}

static char *shortened(const char *text)
{
    return xstrndup(text, amp_utf8_cut(amp_bytes_of(text), SHORT_MAX));
}

/* A JSON value in few words: a text as it is. */
static char *value_of(const cJSON *object, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
    if (value == NULL)
        return xstrdup("");
    char *whole = cJSON_IsString(value) ? NULL : cJSON_PrintUnformatted(value);
    char *text = shortened(whole != NULL ? whole : text_of(object, name));
    cJSON_free(whole);
    return text;
}

static struct item *add(const struct event *event, enum timeline_kind kind, char *text)
{
    struct item *item = timeline_add_or_fold(event->timeline, kind, event->unix_ms, text);
    if (item != NULL)
        item->seq = event->seq;
    return item;
}

/* ---- what agents tell beside their answer --------------------------------------------------------------------- */

static void on_tool_call(const struct event *event, const cJSON *said)
{
    char *args = value_of(said, "args");
    struct item *item = add(event, TIMELINE_TOOL, xasprintf("%s(%s)", text_of(said, "name"), args));
    free(args);
    if (item == NULL)
        return;
    item->key = xstrdup(text_of(said, "callId"));
    item->is_open = true;
}

static void on_tool_result(const struct event *event, const cJSON *said)
{
    char *output = value_of(said, "output");
    bool is_bad = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(said, "isError"));
    const char *id = text_of(said, "callId"), *name = text_of(said, "name");
    struct item *item = timeline_find(event->timeline, TIMELINE_TOOL, id);
    if (item != NULL) {
        char *call = item->text;
        item->text = xasprintf("%s = %s%s", call, is_bad ? "error: " : "", output);
        free(call);
        item->until_unix_ms = event->unix_ms;
        item->is_open = false;
    } else if (event->timeline->kinds[TIMELINE_TOOL] <= TIMELINE_RUN_MAX) { /* else its call was folded, and it with it */
        item = add(event, TIMELINE_TOOL, xasprintf("%s = %s%s", *name != '\0' ? name : id, is_bad ? "error: " : "", output));
    }
    if (item != NULL)
        item->is_bad = is_bad;
    free(output);
}

static void on_step(const struct event *event, const cJSON *said)
{
    const char *name = text_of(said, "name");
    char *path = value_of(said, "path"), *key = xasprintf("%s\n%s", path, name);
    struct item *item = strcmp(text_of(said, "phase"), "end") == 0 ? timeline_find(event->timeline, TIMELINE_STEP, key) : NULL;
    if (item != NULL) {
        item->until_unix_ms = event->unix_ms;
        item->is_open = false;
    } else if (strcmp(text_of(said, "phase"), "end") != 0) {
        item = add(event, TIMELINE_STEP, xasprintf("%s%s%s", name, *path != '\0' ? "  " : "", path));
        if (item != NULL) {
            item->key = xstrdup(key);
            item->is_open = true;
        }
    }
    free(path);
    free(key);
}

static void on_log(const struct event *event, const cJSON *said)
{
    char *text = value_of(said, "text");
    const char *level = text_of(said, "level");
    struct item *item = add(event, TIMELINE_LOG, xasprintf("%s: %s", level, text));
    if (item != NULL)
        item->is_bad = strcmp(level, "error") == 0;
    free(text);
}

static void on_usage(const struct event *event, const cJSON *said)
{
    const cJSON *in = cJSON_GetObjectItemCaseSensitive(said, "inputTokens"), *out = cJSON_GetObjectItemCaseSensitive(said, "outputTokens");
    const cJSON *cost = cJSON_GetObjectItemCaseSensitive(said, "costUsd");
    const char *model = text_of(said, "model");
    char text[SHORT_MAX + 120], money[40] = "";
    if (cJSON_IsNumber(cost))
        snprintf(money, sizeof money, ", $%.4g", cost->valuedouble);
    snprintf(text, sizeof text, "%.*s%s%.0f tokens in, %.0f out%s", (int)amp_utf8_cut(amp_bytes_of(model), SHORT_MAX), model, *model != '\0' ? ": " : "",
             cJSON_IsNumber(in) ? in->valuedouble : 0, cJSON_IsNumber(out) ? out->valuedouble : 0, money);
    add(event, TIMELINE_USAGE, xstrdup(text));
}

/* Pieces of one text are one line. */
static void add_piece(const struct event *event, enum timeline_kind kind, const char *key, struct amp_bytes piece)
{
    struct timeline *timeline = event->timeline;
    struct item *item = NULL;
    if (timeline->last_kind == kind && timeline->count > 0)
        item = &timeline->items[timeline->count - 1];
    if (item != NULL && item->kind == kind && strcmp(item->key, key) == 0) {
        item->count++;
    } else {
        item = add(event, kind, xstrdup(""));
        if (item == NULL)
            return;
        item->key = xstrdup(key);
        item->count = 1;
    }
    item->until_unix_ms = event->unix_ms;
    item->bytes += piece.len;
    size_t len = strlen(item->text);
    if (len < SHORT_MAX && piece.len > 0) {
        size_t room = SHORT_MAX - len, cut = piece.len < room ? piece.len : room;
        char *longer = xasprintf("%s%.*s", item->text, (int)cut, (const char *)piece.data);
        free(item->text);
        item->text = xstrndup(longer, amp_utf8_cut(amp_bytes_of(longer), SHORT_MAX));
        free(longer);
    }
}

static void on_reasoning(const struct event *event, const cJSON *said)
{
    add_piece(event, TIMELINE_REASONING, "", amp_bytes_of(text_of(said, "text")));
}

static void on_custom(const struct event *event, const cJSON *said)
{
    char *value = value_of(said, "value");
    add(event, TIMELINE_CUSTOM, xasprintf("%s %s", text_of(said, "name"), value));
    free(value);
}

/* One that is open and asked once more is the same one: a further attempt came to the place. */
static void on_question(const struct event *event, const cJSON *said)
{
    const char *id = text_of(said, "id");
    bool is_again = timeline_find(event->timeline, TIMELINE_QUESTION, id) != NULL;
    char *prompt = value_of(said, "prompt"), *options = value_of(said, "options");
    struct item *item = add(event, TIMELINE_QUESTION, xasprintf("%s%s%s%s  %s", is_again ? "asked again: " : "", prompt, *options != '\0' ? "  " : "", options, id));
    if (item != NULL && is_again) {
        item->is_again = true;
    } else if (item != NULL) {
        item->key = xstrdup(id);
        item->is_open = true;
    }
    free(prompt);
    free(options);
}

static void close_question(const struct event *event, const char *id)
{
    struct item *question = timeline_find(event->timeline, TIMELINE_QUESTION, id);
    if (question == NULL)
        return;
    question->until_unix_ms = event->unix_ms;
    question->is_open = false;
}

static void on_answer(const struct event *event, const cJSON *said)
{
    const char *id = text_of(said, "id"), *by = text_of(said, "by");
    bool is_again = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(said, "again"));
    char *text = value_of(said, cJSON_HasObjectItem(said, "text") ? "text" : "value");
    close_question(event, id);
    struct item *item = add(event, TIMELINE_ANSWER, xasprintf("%s%s%s%s%s%s%s", text, *text != '\0' ? "  " : "", is_again ? "answered before " : "", *by != '\0' ? "by " : "", by, *by != '\0' ? ", " : "", id));
    if (item != NULL)
        item->is_again = is_again;
    free(text);
}

/* The time was over, or nobody wants to know any more. The agent got the default, if there is one. */
static void on_closed(const struct event *event, const cJSON *said)
{
    const char *id = text_of(said, "id"), *why = text_of(said, "why");
    bool is_again = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(said, "again")), is_expired = strcmp(why, "expired") == 0;
    char *fallback = value_of(said, "default");
    close_question(event, id);
    const char *what = *fallback != '\0' ? "nobody answered in time, its default counts: " : is_expired ? "nobody answered in time" : "not wanted any more";
    struct item *item = add(event, TIMELINE_CLOSED, xasprintf("%s%s%s  %s", is_again ? "as before: " : "", what, fallback, id));
    if (item != NULL) {
        item->key = xstrdup(why);
        item->is_again = is_again;
    }
    free(fallback);
}

static void on_retry(const struct event *event, const cJSON *said)
{
    char *text = event_message_text(event->message);
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(said, "attempt");
    struct item *item = add(event, TIMELINE_RETRY, text);
    if (item != NULL)
        item->number = cJSON_IsNumber(number) ? number->valueint : 0;
}

static bool on_metadata(const struct event *event, const cJSON *metadata)
{
    static const struct {
        const char *name;
        void (*take)(const struct event *event, const cJSON *said);
    } takers[] = {
        {"amp/tool_call", on_tool_call}, {"amp/tool_result", on_tool_result}, {"amp/step", on_step},       {"amp/log", on_log},
        {"amp/reasoning", on_reasoning}, {"amp/usage", on_usage},             {"amp/custom", on_custom},   {"amp/question", on_question},
        {"amp/answer", on_answer},       {"amp/retry", on_retry},             {"amp/question_closed", on_closed},
    };
    bool is_taken = false;
    for (size_t i = 0; i < sizeof takers / sizeof *takers; i++) {
        const cJSON *said = cJSON_GetObjectItemCaseSensitive(metadata, takers[i].name);
        if (!cJSON_IsObject(said))
            continue;
        takers[i].take(event, said);
        is_taken = true;
    }
    return is_taken;
}

/* ---- status and artifacts ---------------------------------------------------------------------------------------- */

static void on_end(const struct event *event)
{
    char *text = event_message_text(event->message);
    struct item *item = timeline_add(event->timeline, TIMELINE_END, event->unix_ms, text);
    item->seq = event->seq;
    item->state = event->state;
    item->is_bad = event->state != AMP__TASK_STATE__TASK_STATE_COMPLETED;
    /* What was open is over now, whether it said so or not. */
    for (size_t i = 0; i < event->timeline->count; i++) {
        struct item *open = &event->timeline->items[i];
        open->is_open = open->is_open && open->kind == TIMELINE_CHILD;
    }
}

static void on_status(const struct event *event)
{
    cJSON *metadata = event_metadata(event->body);
    bool is_taken = metadata != NULL && !amp_task_is_terminal(event->state) && on_metadata(event, metadata);
    cJSON_Delete(metadata);
    if (amp_task_is_terminal(event->state)) {
        on_end(event);
        return;
    }
    char *text = event_message_text(event->message);
    if (!is_taken && event->state == AMP__TASK_STATE__TASK_STATE_INPUT_REQUIRED)
        add(event, TIMELINE_QUESTION, shortened(text));
    else if (!is_taken && *text != '\0')
        add(event, TIMELINE_SAYS, shortened(text));
    free(text);
}

static void on_artifact(const struct event *event)
{
    const Amp__TaskArtifactUpdateEvent *update = event->body->artifact_update;
    const Amp__Artifact *artifact = update->artifact;
    if (artifact == NULL)
        return;
    const char *id = artifact->artifact_id != NULL ? artifact->artifact_id : "?";
    const char *name = artifact->name != NULL && artifact->name[0] != '\0' ? artifact->name : id;
    bool is_response = event_response(event->body) != NULL;
    if (artifact->n_parts == 0 && is_response)
        return; /* its end */
    if (!is_response)
        add_piece(event, TIMELINE_ARTIFACT, id, (struct amp_bytes){0});
    for (size_t i = 0; i < artifact->n_parts; i++) {
        const Amp__Part *part = artifact->parts[i];
        struct amp_bytes bytes = part->text != NULL ? amp_bytes_of(part->text) : part->has_raw ? (struct amp_bytes){part->raw.data, part->raw.len} : part->data != NULL ? (struct amp_bytes){part->data->text.data, part->data->text.len} : (struct amp_bytes){0};
        struct amp_blob_ref ref;
        if (amp_part_is_blob(part) && amp_part_blob(part, &ref, NULL) == AMP_OK)
            bytes.len = (size_t)ref.size;
        if (is_response && part->text != NULL)
            add_piece(event, TIMELINE_TEXT, "", bytes);
        else if (event->timeline->count > 0)
            event->timeline->items[event->timeline->count - 1].bytes += bytes.len;
    }
    struct item *last = event->timeline->count > 0 ? &event->timeline->items[event->timeline->count - 1] : NULL;
    if (!is_response && last != NULL && last->kind == TIMELINE_ARTIFACT && last->text[0] == '\0') {
        free(last->text);
        last->text = shortened(name);
    }
}

void timeline_event(struct timeline *timeline, uint32_t seq, int64_t unix_ms, const Amp__StreamResponse *body)
{
    struct event event = {.timeline = timeline, .seq = seq, .unix_ms = unix_ms != 0 ? unix_ms : timeline->start_unix_ms, .body = body};
    event.state = event_state(body, &event.message);
    if (body->payload_case == AMP__STREAM_RESPONSE__PAYLOAD_ARTIFACT_UPDATE)
        on_artifact(&event);
    else if (event.state != AMP__TASK_STATE__TASK_STATE_UNSPECIFIED)
        on_status(&event);
    else if (body->payload_case == AMP__STREAM_RESPONSE__PAYLOAD_MESSAGE) {
        char *text = event_message_text(body->message);
        add(&event, TIMELINE_SAYS, shortened(text));
        free(text);
    }
}

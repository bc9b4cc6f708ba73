/* From an agent's local form of an event (spec/local-api.md 4) to A2A's (amp.md 6.3).
 *
 * Most kinds become a statusUpdate WORKING whose metadata carries the local object under "amp/<kind>", members as they
 * came, in their order: so members of a later version pass through. The table says which members must be what. Text,
 * status and artifact have a form of their own in A2A. */
#include <amp/amp.h>

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "event.h"
#include "model.h"

#define MEMBERS_MAX 4
#define WORKING AMP__TASK_STATE__TASK_STATE_WORKING

enum value { VALUE_ANY, VALUE_TEXT, VALUE_LABEL, VALUE_BOOL, VALUE_AMOUNT, VALUE_LABELS, VALUE_PHASE, VALUE_LEVEL };

struct member {
    const char *name;
    enum value value;
    bool is_required;
};

static const struct kind {
    const char *type;
    struct member members[MEMBERS_MAX];
} kinds[] = {
    {"tool_call", {{"callId", VALUE_LABEL, true}, {"name", VALUE_LABEL, true}, {"args", VALUE_ANY, false}}},
    {"tool_result",
     {{"callId", VALUE_LABEL, true},
      {"name", VALUE_LABEL, false},
      {"output", VALUE_ANY, false},
      {"isError", VALUE_BOOL, false}}},
    {"step", {{"name", VALUE_LABEL, true}, {"phase", VALUE_PHASE, true}, {"path", VALUE_LABELS, false}}},
    {"usage",
     {{"model", VALUE_LABEL, false},
      {"inputTokens", VALUE_AMOUNT, false},
      {"outputTokens", VALUE_AMOUNT, false},
      {"costUsd", VALUE_AMOUNT, false}}},
    {"log", {{"level", VALUE_LEVEL, true}, {"text", VALUE_TEXT, true}}},
    {"custom", {{"name", VALUE_LABEL, true}, {"value", VALUE_ANY, false}}},
    {"reasoning", {{"text", VALUE_TEXT, true}}},
};

/* Tools, steps and the like are named by models and programs: long names are refused, odd characters are data. */
static bool is_label(const cJSON *value)
{
    return cJSON_IsString(value) && value->valuestring[0] && strlen(value->valuestring) <= AMP_LABEL_MAX;
}

static bool is_one_of(const cJSON *value, const char *const *words)
{
    if (!cJSON_IsString(value))
        return false;
    for (; *words; words++) {
        if (strcmp(value->valuestring, *words) == 0)
            return true;
    }
    return false;
}

static bool are_labels(const cJSON *value)
{
    if (!cJSON_IsArray(value))
        return false;
    int n = 0;
    for (const cJSON *item = value->child; item; item = item->next) {
        if (!is_label(item) || ++n > (int)AMP_TAGS_MAX)
            return false;
    }
    return true;
}

/* NULL if the value is what it should be, else what that is. */
static const char *value_fault(const cJSON *value, enum value expected)
{
    static const char *const phases[] = {"start", "end", NULL};
    static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
    switch (expected) {
    case VALUE_ANY:
        return NULL;
    case VALUE_TEXT:
        return cJSON_IsString(value) ? NULL : "must be a string";
    case VALUE_LABEL:
        return is_label(value) ? NULL : "must be a string of 1 to 256 bytes";
    case VALUE_BOOL:
        return cJSON_IsBool(value) ? NULL : "must be true or false";
    case VALUE_AMOUNT:
        return cJSON_IsNumber(value) && isfinite(value->valuedouble) && value->valuedouble >= 0
                   ? NULL
                   : "must be a number that is not negative";
    case VALUE_LABELS:
        return are_labels(value) ? NULL : "must be a list of at most 64 strings of 1 to 256 bytes";
    case VALUE_PHASE:
        return is_one_of(value, phases) ? NULL : "must be start or end";
    case VALUE_LEVEL:
        return is_one_of(value, levels) ? NULL : "must be debug, info, warn or error";
    }
    return "cannot be checked";
}

static enum amp_code member_check(const cJSON *local, const struct member *member, struct amp_error *reterr)
{
    char field[64];
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(local, member->name);
    if (!value && !member->is_required)
        return AMP_OK;
    (void)snprintf(field, sizeof(field), "event.%s", member->name);
    if (!value)
        return amp_error_set(reterr, AMP_INVALID, field, "is missing");
    const char *fault = value_fault(value, member->value);
    return fault ? amp_error_set(reterr, AMP_INVALID, field, "%s", fault) : AMP_OK;
}

/* The text of an optional string member; *ret is NULL if it is absent. */
static enum amp_code text_member(const cJSON *local, const char *name, const char **ret, struct amp_error *reterr)
{
    struct member member = {name, VALUE_TEXT, false};
    enum amp_code code = member_check(local, &member, reterr);
    const cJSON *value = code == AMP_OK ? cJSON_GetObjectItemCaseSensitive(local, name) : NULL;
    *ret = value ? value->valuestring : NULL;
    return code;
}

static enum amp_code bool_member(const cJSON *local, const char *name, bool *ret, struct amp_error *reterr)
{
    struct member member = {name, VALUE_BOOL, false};
    enum amp_code code = member_check(local, &member, reterr);
    *ret = code == AMP_OK && cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(local, name));
    return code;
}

/* Depth is bounded by the parser that made the tree (AMP_DEPTH_MAX), so is this recursion. */
static unsigned depth_of(const cJSON *value)
{
    unsigned deepest = 0;
    for (const cJSON *item = value->child; item; item = item->next) {
        unsigned depth = depth_of(item);
        if (depth > deepest)
            deepest = depth;
    }
    return deepest + (cJSON_IsArray(value) || cJSON_IsObject(value));
}

static enum amp_code depth_check(const cJSON *local, struct amp_error *reterr)
{
    for (const cJSON *member = local->child; member; member = member->next) {
        char field[64];
        unsigned depth = depth_of(member);
        if (depth <= AMP_DATA_DEPTH_MAX)
            continue;
        (void)snprintf(field, sizeof(field), "event.%.50s", member->string);
        return amp_error_set(reterr, AMP_TOO_DEEP, field, "nested %u deep; at most %u are allowed in an event", depth,
                             AMP_DATA_DEPTH_MAX);
    }
    return AMP_OK;
}

static enum amp_code append_json(struct amp_buf *out, const cJSON *value)
{
    char *text = cJSON_PrintUnformatted(value);
    if (!text)
        return AMP_NO_MEMORY;
    enum amp_code code = amp_buf_append(out, text, strlen(text));
    cJSON_free(text);
    return code;
}

/* {"amp/<type>":{all members but the type}} */
static enum amp_code metadata_write(const char *type, const cJSON *local, struct amp_buf *out)
{
    enum amp_code code = amp_buf_printf(out, "{\"amp/%s\":{", type);
    bool is_first = true;
    for (const cJSON *member = local->child; member && code == AMP_OK; member = member->next) {
        if (strcmp(member->string, "type") == 0)
            continue;
        if (!is_first)
            code = amp_buf_append(out, ",", 1);
        if (code == AMP_OK)
            code = amp_json_append_string(out, amp_bytes_of(member->string));
        if (code == AMP_OK)
            code = amp_buf_append(out, ":", 1);
        if (code == AMP_OK)
            code = append_json(out, member);
        is_first = false;
    }
    return code == AMP_OK ? amp_buf_append(out, "}}", 2) : code;
}

static enum amp_code project_metadata(const struct amp_event_source *source, const struct kind *kind,
                                      const cJSON *local, const struct amp_event_sink *sink, struct amp_error *reterr)
{
    for (size_t i = 0; i < MEMBERS_MAX && kind->members[i].name; i++) {
        enum amp_code code = member_check(local, &kind->members[i], reterr);
        if (code != AMP_OK)
            return code;
    }
    struct amp_buf buf;
    amp_buf_init(&buf, AMP_JSON_BYTES_MAX);
    enum amp_code code = metadata_write(kind->type, local, &buf);
    if (code == AMP_OK) {
        Amp__Json metadata = AMP__JSON__INIT;
        metadata.text = (ProtobufCBinaryData){buf.len, buf.data};
        struct event_status status = {WORKING, NULL, &metadata};
        code = event_emit_status(source, &status, sink, reterr);
    } else {
        (void)amp_error_set(reterr, code, "event", "%s", amp_code_info(code)->text);
    }
    amp_buf_done(&buf);
    return code;
}

static enum amp_code project_text(struct amp_event_source *source, const cJSON *local,
                                  const struct amp_event_sink *sink, struct amp_error *reterr)
{
    static const struct member text = {"text", VALUE_TEXT, true};
    enum amp_code code = member_check(local, &text, reterr);
    if (code != AMP_OK)
        return code;
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(local, "text");
    return event_taken(amp_event_text(source, amp_bytes_of(value->valuestring), false, sink), reterr);
}

static enum amp_code project_status(const struct amp_event_source *source, const cJSON *local,
                                    const struct amp_event_sink *sink, struct amp_error *reterr)
{
    static const struct member text = {"text", VALUE_TEXT, true};
    enum amp_code code = member_check(local, &text, reterr);
    if (code != AMP_OK)
        return code;
    struct event_status status = {WORKING, cJSON_GetObjectItemCaseSensitive(local, "text")->valuestring, NULL};
    if (strlen(status.text) > AMP_TEXT_EVENT_MAX)
        return amp_error_set(reterr, AMP_TOO_LARGE, "event.text", "%zu bytes; a note has at most %u",
                             strlen(status.text), AMP_TEXT_EVENT_MAX);
    return event_emit_status(source, &status, sink, reterr);
}

/* An artifact on its way out. */
struct draft {
    char id[AMP_NAME_MAX + 1]; /* the default, made from the name */
    Amp__Artifact artifact;
    Amp__Part part, *parts[1];
    Amp__Json data;
    struct amp_bytes text; /* with `text`: the whole of it */
    bool is_text, append, last;
};

/* The decoder's path begins at the artifact; the agent's at its event. */
static enum amp_code blame_event(struct amp_error *err, enum amp_code code)
{
    char field[sizeof(err->field)];
    if (!err)
        return code;
    (void)snprintf(field, sizeof(field), "event.%.88s", err->field);
    memcpy(err->field, field, sizeof(field));
    return code;
}

static enum amp_code draft_parts(struct draft *draft, const cJSON *parts, struct amp_arena *arena,
                                 struct amp_error *reterr)
{
    char *printed = cJSON_PrintUnformatted(parts);
    struct amp_buf buf;
    amp_buf_init(&buf, AMP_JSON_BYTES_MAX);
    ProtobufCMessage *made = NULL;
    enum amp_code code = printed ? amp_buf_printf(&buf, "{\"parts\":%s}", printed) : AMP_NO_MEMORY;
    if (code == AMP_OK)
        code = amp_decode_json(&amp__artifact__descriptor, amp_buf_bytes(&buf), arena, &made, reterr);
    else
        (void)amp_error_set(reterr, code, "parts", "%s", amp_code_info(code)->text);
    amp_buf_done(&buf);
    cJSON_free(printed);
    if (code != AMP_OK)
        return blame_event(reterr, code);
    draft->artifact.n_parts = ((Amp__Artifact *)made)->n_parts;
    draft->artifact.parts = ((Amp__Artifact *)made)->parts;
    return AMP_OK;
}

/* One of parts, text and data. *ret_data, if set, is to be freed by the caller with cJSON_free. */
static enum amp_code draft_content(struct draft *draft, const cJSON *local, struct amp_arena *arena, char **ret_data,
                                   struct amp_error *reterr)
{
    const cJSON *parts = cJSON_GetObjectItemCaseSensitive(local, "parts");
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(local, "text");
    const cJSON *data = cJSON_GetObjectItemCaseSensitive(local, "data");
    if ((parts != NULL) + (text != NULL) + (data != NULL) != 1)
        return amp_error_set(reterr, AMP_INVALID, "event.parts", "exactly one of parts, text and data is needed");
    if (parts)
        return draft_parts(draft, parts, arena, reterr);
    const char *filename = NULL, *media_type = NULL;
    enum amp_code code = text_member(local, "filename", &filename, reterr);
    if (code == AMP_OK)
        code = text_member(local, "mediaType", &media_type, reterr);
    if (code != AMP_OK)
        return code;
    draft->part.filename = (char *)filename;
    draft->part.media_type = (char *)media_type;
    if (text) {
        if (!cJSON_IsString(text))
            return amp_error_set(reterr, AMP_INVALID, "event.text", "must be a string");
        draft->is_text = true;
        draft->part.text = text->valuestring;
        draft->text = amp_bytes_of(text->valuestring);
    } else {
        *ret_data = cJSON_PrintUnformatted(data);
        if (!*ret_data)
            return amp_error_set(reterr, AMP_NO_MEMORY, "event.data", "out of memory");
        draft->data.text = (ProtobufCBinaryData){strlen(*ret_data), (uint8_t *)*ret_data};
        draft->part.data = &draft->data;
    }
    draft->parts[0] = &draft->part;
    draft->artifact.parts = draft->parts;
    draft->artifact.n_parts = 1;
    return AMP_OK;
}

/* The streamed answer is an artifact too. An agent may write it by itself, but cannot wipe what it has said. */
static enum amp_code response_check(const struct amp_event_source *source, const struct draft *draft,
                                    struct amp_error *reterr)
{
    if (strcmp(draft->artifact.artifact_id, RESPONSE_ID) != 0 || draft->append == source->is_text_started)
        return AMP_OK;
    if (draft->append)
        return amp_error_set(reterr, AMP_INVALID, "event.append", "there is no artifact '%s' to append to",
                             RESPONSE_ID);
    return amp_error_set(reterr, AMP_INVALID, "event.artifactId",
                         "'%s' holds the text said so far: use append, or another id", RESPONSE_ID);
}

static enum amp_code draft_names(struct draft *draft, const cJSON *local, struct amp_error *reterr)
{
    const char *id = NULL, *name = NULL, *description = NULL;
    enum amp_code code = text_member(local, "artifactId", &id, reterr);
    if (code == AMP_OK && id)
        code = foreign_id_check(id, "event.artifactId", reterr);
    if (code == AMP_OK)
        code = text_member(local, "name", &name, reterr);
    if (code == AMP_OK)
        code = text_check(name, (struct text_rule){.max = AMP_LABEL_MAX}, "event.name", reterr);
    if (code == AMP_OK)
        code = text_member(local, "description", &description, reterr);
    if (code == AMP_OK)
        code = text_check(description, (struct text_rule){.max = AMP_DESCRIPTION_MAX, .is_multiline = true},
                          "event.description", reterr);
    if (code == AMP_OK)
        code = bool_member(local, "append", &draft->append, reterr);
    if (code == AMP_OK)
        code = bool_member(local, "last", &draft->last, reterr);
    if (code != AMP_OK)
        return code;
    amp_id_from_text(name && name[0] ? name : "artifact", draft->id);
    draft->artifact.artifact_id = id ? (char *)id : draft->id;
    draft->artifact.name = (char *)name;
    draft->artifact.description = (char *)description;
    return AMP_OK;
}

static enum amp_code draft_emit(const struct amp_event_source *source, struct draft *draft, bool append, bool last,
                                const struct amp_event_sink *sink, struct amp_error *reterr)
{
    Amp__TaskArtifactUpdateEvent update = AMP__TASK_ARTIFACT_UPDATE_EVENT__INIT;
    Amp__StreamResponse event = AMP__STREAM_RESPONSE__INIT;
    update.task_id = (char *)source->task_id;
    update.context_id = (char *)source->context_id;
    update.artifact = &draft->artifact;
    update.has_append = update.append = append;
    update.has_last_chunk = update.last_chunk = last;
    event.payload_case = AMP__STREAM_RESPONSE__PAYLOAD_ARTIFACT_UPDATE;
    event.artifact_update = &update;
    return event_emit(&event, sink, reterr);
}

/* A long text goes out in pieces that the reader's fold joins again. */
static enum amp_code draft_emit_text(const struct amp_event_source *source, struct draft *draft,
                                     const struct amp_event_sink *sink, struct amp_error *reterr)
{
    char piece[AMP_TEXT_EVENT_MAX + 1];
    struct amp_bytes rest = draft->text;
    bool append = draft->append;
    enum amp_code code = AMP_OK;
    while (rest.len > AMP_TEXT_EVENT_MAX && code == AMP_OK) {
        size_t len = amp_utf8_cut(rest, AMP_TEXT_EVENT_MAX);
        memcpy(piece, rest.data, len);
        piece[len] = '\0';
        draft->part.text = piece;
        code = draft_emit(source, draft, append, false, sink, reterr);
        append = true;
        rest.data += len;
        rest.len -= len;
    }
    draft->part.text = (char *)rest.data; /* the end of the text that began in the local event, with its NUL */
    return code == AMP_OK ? draft_emit(source, draft, append, draft->last, sink, reterr) : code;
}

static enum amp_code project_artifact(struct amp_event_source *source, const cJSON *local,
                                      const struct amp_event_sink *sink, struct amp_error *reterr)
{
    struct draft draft = {.artifact = AMP__ARTIFACT__INIT, .part = AMP__PART__INIT, .data = AMP__JSON__INIT};
    struct amp_arena arena;
    char *data = NULL;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    enum amp_code code = draft_names(&draft, local, reterr);
    if (code == AMP_OK)
        code = draft_content(&draft, local, &arena, &data, reterr);
    if (code == AMP_OK)
        code = parts_check(draft.artifact.parts, draft.artifact.n_parts, "event.parts", reterr);
    if (code == AMP_OK)
        code = response_check(source, &draft, reterr);
    if (code == AMP_OK)
        code = draft.is_text ? draft_emit_text(source, &draft, sink, reterr)
                             : draft_emit(source, &draft, draft.append, draft.last, sink, reterr);
    if (code == AMP_OK && strcmp(draft.artifact.artifact_id, RESPONSE_ID) == 0)
        source->is_text_started = true;
    cJSON_free(data);
    amp_arena_done(&arena);
    return code;
}

enum amp_code amp_event_project(struct amp_event_source *source, const struct cJSON *local,
                                const struct amp_event_sink *sink, struct amp_error *reterr)
{
    if (!cJSON_IsObject(local))
        return amp_error_set(reterr, AMP_INVALID, "event", "must be an object");
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(local, "type");
    if (!cJSON_IsString(type))
        return amp_error_set(reterr, AMP_INVALID, "event.type", type ? "must be a string" : "is missing");
    enum amp_code code = depth_check(local, reterr);
    if (code != AMP_OK)
        return code;
    if (strcmp(type->valuestring, "text") == 0)
        return project_text(source, local, sink, reterr);
    if (strcmp(type->valuestring, "status") == 0)
        return project_status(source, local, sink, reterr);
    if (strcmp(type->valuestring, "artifact") == 0)
        return project_artifact(source, local, sink, reterr);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(type->valuestring, kinds[i].type) == 0)
            return project_metadata(source, &kinds[i], local, sink, reterr);
    }
    return amp_error_set(reterr, AMP_INVALID, "event.type", "'%.64s' is not a type of event", type->valuestring);
}

#include "fold_talk.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#define QUESTION "amp/question"
#define ANSWER "amp/answer"
#define CLOSED "amp/question_closed"
/* How the metadata of history's messages begin. */
#define MARK_FORMAT "{\"%s\":{\"id\":\"%s\""
#define MARK_SIZE (sizeof MARK_FORMAT + sizeof QUESTION + AMP_NAME_MAX)

static const char *id_of(const cJSON *about)
{
    const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(about, "id"));
    return id && amp_id_is_valid(id) ? id : NULL;
}

static const cJSON *about_of(const cJSON *json, const char *name)
{
    const cJSON *about = cJSON_GetObjectItemCaseSensitive(json, name);
    return id_of(about) ? about : NULL;
}

void fold_talk_read(struct fold_talk *talk, const Amp__Json *metadata)
{
    static const char question[] = "\"" QUESTION, answer[] = "\"" ANSWER "\"";
    *talk = (struct fold_talk){0};
    if (!metadata || !metadata->text.len)
        return;
    if (!memmem(metadata->text.data, metadata->text.len, question, sizeof question - 1) &&
        !memmem(metadata->text.data, metadata->text.len, answer, sizeof answer - 1))
        return; /* most are neither */
    talk->json = cJSON_ParseWithLength((const char *)metadata->text.data, metadata->text.len);
    talk->asked = about_of(talk->json, QUESTION);
    talk->said = about_of(talk->json, ANSWER);
    talk->restates = !talk->asked && (talk->said || about_of(talk->json, CLOSED));
}

void fold_talk_done(struct fold_talk *talk)
{
    cJSON_Delete(talk->json);
    *talk = (struct fold_talk){0};
}

static bool is_there(const Amp__Task *task, const char *kind, const char *id)
{
    char mark[MARK_SIZE];
    size_t len = (size_t)snprintf(mark, sizeof mark, MARK_FORMAT, kind, id);
    for (size_t i = task->n_history; i-- > 0;) {
        const Amp__Json *metadata = task->history[i]->metadata;
        if (metadata && metadata->text.len > len && memcmp(metadata->text.data, mark, len) == 0)
            return true;
    }
    return false;
}

/* A copy of the text, as JSON, in the arena. */
static Amp__Json *json_in(struct amp_arena *arena, const char *text)
{
    Amp__Json *json = amp_arena_alloc(arena, sizeof *json);
    char *copy = json && text ? amp_arena_strdup(arena, amp_bytes_of(text)) : NULL;
    if (!copy)
        return NULL;
    amp__json__init(json);
    json->text = (ProtobufCBinaryData){.len = strlen(copy), .data = (uint8_t *)copy};
    return json;
}

static Amp__Json *value_in(struct amp_arena *arena, const cJSON *value)
{
    char *text = cJSON_PrintUnformatted(value);
    Amp__Json *json = json_in(arena, text);
    cJSON_free(text);
    return json;
}

Amp__Message *fold_talk_question(const struct fold_talk *talk, const Amp__Task *task, Amp__Message *message, struct amp_arena *arena)
{
    char mark[MARK_SIZE + 2];
    if (talk->restates)
        return NULL;
    if (!talk->asked || message->metadata)
        return message;
    if (is_there(task, QUESTION, id_of(talk->asked)))
        return NULL;
    (void)snprintf(mark, sizeof mark, MARK_FORMAT "}}", QUESTION, id_of(talk->asked));
    Amp__Message *copy = amp_arena_alloc(arena, sizeof *copy);
    if (!copy)
        return message;
    *copy = *message;
    copy->metadata = json_in(arena, mark);
    return copy;
}

/* {"amp/answer":{"id", "by"?, "bytes"?}}: all but what the message itself says. */
static Amp__Json *answer_mark(const cJSON *said, struct amp_arena *arena)
{
    static const char *const kept[] = {"id", "by", "bytes"};
    cJSON *json = cJSON_CreateObject(), *about = cJSON_AddObjectToObject(json, ANSWER);
    for (size_t i = 0; about && i < sizeof kept / sizeof kept[0]; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(said, kept[i]);
        if (item)
            cJSON_AddItemToObject(about, kept[i], cJSON_Duplicate(item, true));
    }
    Amp__Json *ret = value_in(arena, json);
    cJSON_Delete(json);
    return ret;
}

/* One part, with its parent's list; a text that was too long for an event is empty. */
static Amp__Part *answer_part(const cJSON *said, struct amp_arena *arena)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(said, "value");
    const char *text = cJSON_GetStringValue(cJSON_IsString(value) ? value : cJSON_GetObjectItemCaseSensitive(said, "text"));
    Amp__Part *part = amp_arena_alloc(arena, sizeof *part);
    if (!part)
        return NULL;
    amp__part__init(part);
    if (value && !cJSON_IsString(value))
        part->data = value_in(arena, value);
    else
        part->text = amp_arena_strdup(arena, amp_bytes_of(text ? text : ""));
    return part->data || part->text ? part : NULL;
}

/* As the question's: the same from every fold. */
static char *answer_id(const char *question, struct amp_arena *arena)
{
    char id[AMP_NAME_MAX + 1];
    (void)snprintf(id, sizeof id, "%s%s", strncmp(question, "q-", 2) == 0 ? "m-" : "", strncmp(question, "q-", 2) == 0 ? question + 2 : question);
    return amp_arena_strdup(arena, amp_bytes_of(id));
}

Amp__Message *fold_talk_answer(const struct fold_talk *talk, const Amp__Task *task, struct amp_arena *arena)
{
    if (!talk->said || cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(talk->said, "again")) || is_there(task, ANSWER, id_of(talk->said)))
        return NULL;
    Amp__Message *message = amp_arena_alloc(arena, sizeof *message);
    Amp__Part **parts = amp_arena_alloc(arena, sizeof(*parts));
    Amp__Part *part = answer_part(talk->said, arena);
    if (!message || !parts || !part)
        return NULL;
    amp__message__init(message);
    parts[0] = part;
    message->message_id = answer_id(id_of(talk->said), arena);
    message->context_id = task->context_id;
    message->task_id = task->id;
    message->has_role = true;
    message->role = AMP__ROLE__ROLE_USER;
    message->n_parts = 1;
    message->parts = parts;
    message->metadata = answer_mark(talk->said, arena);
    return message->message_id && message->metadata ? message : NULL;
}

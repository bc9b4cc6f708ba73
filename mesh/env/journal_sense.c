/* What rows hold, against how it is read: a row whose seal is right may still be one that no environment wrote, as who makes an export can seal what he likes. Readers unpack what the journal
 * gives them without another look, so one that comes from elsewhere is looked at before it is taken, by the rules that it meets on its way to people. */
#include "journal_private.h"

#include <stdio.h>
#include <string.h>

struct sense {
    sqlite3_stmt *statement;
    struct amp_arena *arena;
    struct amp_error *err;
    struct amp_bytes value;
};

/* Places in chain_tables */
enum { TASK_ID = 0, TASK_CONTEXT = 1, TASK_ATTEMPTS = 16, TASK_REQUEST = 17, TASK_RECORD = 18, EVENT_TASK = 0, EVENT_SEQ = 1, EVENT_COUNT = 2, EVENT_BODY = 4, KV_SCOPE = 0, KV_VALUE = 5, DEATH_BODY = 4 };

static struct amp_bytes bytes_at(sqlite3_stmt *statement, int at)
{
    const void *data = sqlite3_column_blob(statement, at);
    return (struct amp_bytes){.data = data, .len = data ? (size_t)sqlite3_column_bytes(statement, at) : 0};
}

static bool is_text(struct amp_bytes value, const char *text)
{
    return text && strlen(text) == value.len && (value.len == 0 || memcmp(text, value.data, value.len) == 0);
}

static enum amp_code wrong(struct sense *sense, const char *text)
{
    return amp_error_set(sense->err, AMP_MALFORMED, "", "%s", text);
}

static enum amp_code check_id(struct sense *sense)
{
    char id[AMP_NAME_MAX + 1];
    bool is_short = sense->value.len < sizeof id;
    snprintf(id, sizeof id, "%.*s", is_short ? (int)sense->value.len : 0, sense->value.len ? (const char *)sense->value.data : "");
    return amp_id_is_valid(id) ? AMP_OK : wrong(sense, "it is no id");
}

static enum amp_code check_json(struct sense *sense)
{
    return amp_json_check(sense->value, &amp_json_limits_default, sense->err);
}

/* Rows are packed: amp_decode takes JSON too, their readers do not. */
static enum amp_code unpack(struct sense *sense, const ProtobufCMessageDescriptor *type, ProtobufCMessage **ret)
{
    if (!protobuf_c_message_unpack(type, &sense->arena->allocator, sense->value.len, sense->value.data))
        return wrong(sense, "it is no packed message");
    return amp_decode(type, sense->value, sense->arena, ret, sense->err);
}

static enum amp_code check_submit(struct sense *sense)
{
    ProtobufCMessage *message = NULL;
    return unpack(sense, &amp__submit__descriptor, &message);
}

static enum amp_code check_schedule(struct sense *sense)
{
    ProtobufCMessage *message = NULL;
    return unpack(sense, &amp__schedule__descriptor, &message);
}

static enum amp_code check_death(struct sense *sense)
{
    ProtobufCMessage *message = NULL;
    return unpack(sense, &amp__death__descriptor, &message);
}

/* As an answer of the environment has it: a list that held one which its reader refuses would be refused as a whole. */
static enum amp_code check_answer(struct sense *sense, Amp__TaskRecord *record)
{
    Amp__EnvReply reply = AMP__ENV_REPLY__INIT;
    Amp__Envelope envelope = AMP__ENVELOPE__INIT, *taken = NULL;
    reply.n_tasks = 1;
    reply.tasks = &record;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.body_case = AMP__ENVELOPE__BODY_ENV_REPLY;
    envelope.env_reply = &reply;
    size_t size = amp__envelope__get_packed_size(&envelope);
    uint8_t *packed = amp_arena_alloc(sense->arena, size);
    if (!packed)
        return amp_error_set(sense->err, AMP_TOO_LARGE, "", "it is too large to be read");
    amp__envelope__pack(&envelope, packed);
    return amp_envelope_decode((struct amp_bytes){.data = packed, .len = size}, 1u << AMP__ENVELOPE__BODY_ENV_REPLY, sense->arena, &taken, NULL, sense->err);
}

static enum amp_code check_record(struct sense *sense)
{
    Amp__TaskRecord *record = amp__task_record__unpack(&sense->arena->allocator, sense->value.len, sense->value.data);
    if (!record)
        return wrong(sense, "it is no packed message");
    if (!is_text(bytes_at(sense->statement, TASK_ID), record->task->id))
        return wrong(sense, "it is of another task");
    if (sense->value.len > AMP_WIRE_BYTES_MAX / 2) { /* no answer has all of it: env_answer_record */
        record->task->n_artifacts = 0;
        record->task->n_history = 0;
    }
    return check_answer(sense, record);
}

static enum amp_code check_frame(struct sense *sense)
{
    ProtobufCMessage *message = NULL;
    enum amp_code code = unpack(sense, &amp__frame__descriptor, &message);
    if (code != AMP_OK || !message)
        return code;
    const Amp__Frame *frame = (const Amp__Frame *)message;
    if (!is_text(bytes_at(sense->statement, EVENT_TASK), frame->task_id))
        return wrong(sense, "it is of another task");
    if (frame->seq != sqlite3_column_int64(sense->statement, EVENT_SEQ) || frame->n_events == 0 || (sqlite3_int64)frame->n_events != sqlite3_column_int64(sense->statement, EVENT_COUNT))
        return wrong(sense, "its events are not those that the row numbers");
    for (size_t i = 0; i < frame->n_events; i++)
        if (!frame->events[i]->body)
            return wrong(sense, "an event of it is empty");
    return AMP_OK;
}

static enum amp_code check_value(struct sense *sense)
{
    static const char *const json[] = {"context", "agent", "shared", JOURNAL_SCOPE_QUESTION, JOURNAL_SCOPE_BLOB, JOURNAL_SCOPE_BLOBS_OF};
    struct amp_bytes scope = bytes_at(sense->statement, KV_SCOPE);
    if (is_text(scope, "schedule"))
        return check_schedule(sense);
    for (size_t i = 0; i < sizeof json / sizeof json[0]; i++)
        if (is_text(scope, json[i]))
            return check_json(sense);
    return AMP_OK;
}

static const struct {
    enum chain_kind kind;
    int at;
    bool is_needed;
    enum amp_code (*check)(struct sense *sense);
} checks[] = {
    {CHAIN_TASK, TASK_ID, true, check_id},          {CHAIN_TASK, TASK_CONTEXT, true, check_id},     {CHAIN_TASK, TASK_ATTEMPTS, false, check_json}, {CHAIN_TASK, TASK_REQUEST, false, check_submit},
    {CHAIN_TASK, TASK_RECORD, false, check_record}, {CHAIN_EVENT, EVENT_BODY, true, check_frame}, {CHAIN_KV, KV_VALUE, true, check_value},         {CHAIN_DEATH, DEATH_BODY, true, check_death},
};

static enum amp_code check_column(struct sense *sense, enum chain_kind kind, int at)
{
    sense->value = bytes_at(sense->statement, at);
    if (sqlite3_column_type(sense->statement, at) == SQLITE_TEXT && (!amp_utf8_is_valid(sense->value) || (sense->value.len && memchr(sense->value.data, 0, sense->value.len))))
        return wrong(sense, "invalid UTF-8, or a NUL");
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        if (checks[i].kind != kind || checks[i].at != at)
            continue;
        if (sense->value.len == 0)
            return checks[i].is_needed ? wrong(sense, "it is empty") : AMP_OK;
        amp_arena_reset(sense->arena);
        return checks[i].check(sense);
    }
    return AMP_OK;
}

enum amp_code row_sense(sqlite3_stmt *statement, enum chain_kind kind, struct amp_arena *arena, struct amp_error *reterr)
{
    struct amp_error err = {0};
    struct sense sense = {.statement = statement, .arena = arena, .err = &err};
    for (int at = 0; at < (int)chain_tables[kind].n_columns; at++) {
        enum amp_code code = check_column(&sense, kind, at);
        if (code != AMP_OK && code != AMP_TOO_LARGE && code != AMP_NO_MEMORY) /* limits of one message: who reads it is given a part, or told so */
            return amp_error_set(reterr, AMP_MALFORMED, "", "%s: %s%s%.250s", sqlite3_column_name(statement, at), err.field, err.field[0] ? ": " : "", err.message);
    }
    return AMP_OK;
}

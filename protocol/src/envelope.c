/* The meaning of an envelope's fields, as one table of rules per message type. (amp.md 3.6) What the bytes look like
 * was settled by the decoder; what a message or a card says is checked by their own files. */
#include "json.h"
#include "model.h"
#include "path.h"

#include <assert.h>
#include <string.h>

#define TRACEPARENT_LEN 55u /* of version 00; later versions may be longer */
#define TRACEPARENT_MAX 128u
#define LABEL_MAX 255u
#define TOKEN_MAX AMP_KV_KEY_MAX /* a page of keys ends with a key */
#define REASON_MAX (64u << 10)
#define TEXT_MAX (64u << 10)
#define DEATHS_MAX 64u

enum rule_kind {
    RULE_ID,       /* an id, absent or not; where it must be there the type's `check` or the .proto says so */
    RULE_ID_GIVEN, /* an id */
    RULE_LABEL,    /* one line of at most `max` bytes */
    RULE_TEXT,     /* anything of at most `max` bytes */
    RULE_IDS,      /* at most `n_max` ids */
    RULE_LABELS,   /* at most `n_max` labels */
    RULE_TEXTS,    /* at most `n_max` texts */
    RULE_OBJECT,   /* Json: an object */
    RULE_JSON,     /* Json: of at most `max` bytes */
    RULE_RETRY,    /* "safe" or "never" */
    RULE_CHILD,    /* a message with rules of its own */
    RULE_CHILDREN, /* at most `n_max` of them */
    RULE_CHOICE,   /* the member of a oneof that is set, if one is, like RULE_CHILD; at the case */
};

struct rule {
    const char *name;
    uint32_t offset, n_offset;
    enum rule_kind kind;
    uint32_t max, n_max;
};

struct type_rules {
    const ProtobufCMessageDescriptor *type;
    const struct rule *rules;
    size_t n_rules;
    /* After the rules; may be NULL. */
    enum amp_code (*check)(const ProtobufCMessage *message, const struct path *path, struct amp_error *err);
};

/* ---- what a table cannot say ---- */

static enum amp_code check_part_id(const char *id, const char *name, const struct path *up, struct amp_error *err)
{
    if (amp_id_is_valid(id ? id : ""))
        return AMP_OK;
    return path_error(err, AMP_INVALID, &(struct path){up, name, PATH_NO_INDEX}, "this is not a valid id");
}

static enum amp_code check_a2a_message(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    char field[sizeof(err->field)];
    enum amp_code code = amp_message_check((const Amp__Message *)message, "", NULL);
    if (code == AMP_OK || !err)
        return code;
    path_format(path, field, sizeof(field));
    return amp_message_check((const Amp__Message *)message, field, err);
}

static enum amp_code check_card(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    return amp_card_check((const Amp__AgentCard *)message, err);
}

static enum amp_code check_request(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    const Amp__Request *request = (const Amp__Request *)message;
    if (request->has_hops && request->hops > AMP_HOPS_MAX)
        return path_error(err, AMP_HOPS, &(struct path){path, "hops", PATH_NO_INDEX},
                          "%u calls above this one; at most %u are allowed", request->hops, AMP_HOPS_MAX);
    return AMP_OK;
}

static enum amp_code check_request_ids(const Amp__Request *request, const struct path *path, bool may_be_empty,
                                       struct amp_error *err)
{
    enum amp_code code = AMP_OK;
    if (!may_be_empty || request->task_id[0])
        code = check_part_id(request->task_id, "task_id", path, err);
    if (code == AMP_OK && (!may_be_empty || request->context_id[0]))
        code = check_part_id(request->context_id, "context_id", path, err);
    return code;
}

static enum amp_code check_frame(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    const Amp__Frame *frame = (const Amp__Frame *)message;
    if (frame->seq >= 1 && frame->n_events <= UINT32_MAX - frame->seq)
        return AMP_OK;
    return path_error(err, AMP_INVALID, &(struct path){path, "seq", PATH_NO_INDEX},
                      "numbers of events begin at 1 and end below 2^32");
}

static enum amp_code check_control(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    if (((const Amp__Control *)message)->kind_case == AMP__CONTROL__KIND__NOT_SET)
        return path_error(err, AMP_INVALID, path, "neither cancel nor answer nor ping nor attach");
    return AMP_OK;
}

static enum amp_code check_submit(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    const Amp__Submit *submit = (const Amp__Submit *)message;
    if (!submit->agent && !submit->skill)
        return path_error(err, AMP_INVALID, path, "neither an agent nor a skill is named");
    return check_request_ids(submit->request, &(struct path){path, "request", PATH_NO_INDEX}, true, err);
}

static enum amp_code check_watch(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    const Amp__Watch *watch = (const Amp__Watch *)message;
    if (watch->has_from_seq && watch->from_seq == 0)
        return path_error(err, AMP_INVALID, &(struct path){path, "from_seq", PATH_NO_INDEX}, "events begin at 1");
    return AMP_OK;
}

static enum amp_code check_wait(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    const Amp__Wait *wait = (const Amp__Wait *)message;
    if (!wait->agent == !wait->skill)
        return path_error(err, AMP_INVALID, path, "a call waits for an agent or for a skill");
    return AMP_OK;
}

static enum amp_code check_digest(const char *digest, const struct path *path, struct amp_error *err)
{
    if (amp_blob_digest_is_valid(digest))
        return AMP_OK;
    return path_error(err, AMP_INVALID, &(struct path){path, "digest", PATH_NO_INDEX}, "not \"sha256-\" and 64 hexadecimal digits");
}

static enum amp_code check_blob_read(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    return check_digest(((const Amp__BlobRead *)message)->digest, path, err);
}

static enum amp_code check_blob(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    const Amp__Blob *blob = (const Amp__Blob *)message;
    if (blob->error)
        return AMP_OK;
    if (blob->has_data && blob->data.len > AMP_BLOB_CHUNK_MAX)
        return path_error(err, AMP_TOO_LARGE, &(struct path){path, "data", PATH_NO_INDEX}, "%zu bytes; at most %u are allowed", blob->data.len, AMP_BLOB_CHUNK_MAX);
    return check_digest(blob->digest, path, err);
}

static enum amp_code check_attach(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    if (((const Amp__Attach *)message)->from_seq == 0)
        return path_error(err, AMP_INVALID, &(struct path){path, "from_seq", PATH_NO_INDEX}, "events begin at 1");
    return AMP_OK;
}

static enum amp_code check_command(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    const Amp__TaskCommand *command = (const Amp__TaskCommand *)message;
    if (!command->control)
        return path_error(err, AMP_INVALID, &(struct path){path, "control", PATH_NO_INDEX}, "this field is required");
    return AMP_OK;
}

static enum amp_code check_kv(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    const Amp__Kv *kv = (const Amp__Kv *)message;
    bool has_owner = kv->owner && kv->owner[0], has_key = kv->key && kv->key[0];
    struct path owner = {path, "owner", PATH_NO_INDEX};
    if (kv->scope == AMP__KV_SCOPE__KV_SHARED && has_owner)
        return path_error(err, AMP_INVALID, &owner, "what is shared has no owner");
    if (kv->scope != AMP__KV_SCOPE__KV_SHARED && !amp_id_is_valid(has_owner ? kv->owner : ""))
        return path_error(err, AMP_INVALID, &owner, "this is not a valid id");
    if (kv->op != AMP__KV_OP__KV_LIST && !has_key)
        return path_error(err, AMP_INVALID, &(struct path){path, "key", PATH_NO_INDEX}, "this field is required");
    if (kv->op == AMP__KV_OP__KV_PUT && !kv->value)
        return path_error(err, AMP_INVALID, &(struct path){path, "value", PATH_NO_INDEX}, "this field is required");
    return AMP_OK;
}

static enum amp_code check_schedule_command(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    const Amp__ScheduleCommand *command = (const Amp__ScheduleCommand *)message;
    bool is_add = command->op == AMP__SCHEDULE_OP__SCHEDULE_ADD;
    if (is_add && (!command->schedule || !command->schedule->submit))
        return path_error(err, AMP_INVALID, &(struct path){path, command->schedule ? "schedule.submit" : "schedule", PATH_NO_INDEX}, "this field is required");
    if (!is_add && command->op != AMP__SCHEDULE_OP__SCHEDULE_LIST)
        return check_part_id(command->id, "id", path, err);
    return AMP_OK;
}

static enum amp_code check_env_request(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    const Amp__EnvRequest *request = (const Amp__EnvRequest *)message;
    switch (request->verb_case) {
    case AMP__ENV_REQUEST__VERB__NOT_SET:
        return path_error(err, AMP_INVALID, path, "no verb that is known here");
    case AMP__ENV_REQUEST__VERB_GET:
        return check_part_id(request->get->id, "id", &(struct path){path, "get", PATH_NO_INDEX}, err);
    case AMP__ENV_REQUEST__VERB_HISTORY:
        return check_part_id(request->history->context_id, "context_id", &(struct path){path, "history", PATH_NO_INDEX},
                             err);
    default:
        return AMP_OK;
    }
}

static enum amp_code check_traceparent(const char *text, const struct path *path, struct amp_error *err)
{
    size_t len = text ? strlen(text) : TRACEPARENT_LEN;
    if (len >= TRACEPARENT_LEN && len <= TRACEPARENT_MAX && (!text || strspn(text, "0123456789abcdef-") == len))
        return AMP_OK;
    return path_error(err, AMP_INVALID, path, "this is not a W3C traceparent");
}

static enum amp_code check_envelope(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    const Amp__Envelope *envelope = (const Amp__Envelope *)message;
    enum amp_code code =
        check_traceparent(envelope->traceparent, &(struct path){path, "traceparent", PATH_NO_INDEX}, err);
    if (code != AMP_OK || envelope->body_case != AMP__ENVELOPE__BODY_REQUEST)
        return code;
    return check_request_ids(envelope->request, &(struct path){path, "request", PATH_NO_INDEX}, false, err);
}

/* ---- the tables ---- */

#define ONE(type, field, kind, max)                                                                                    \
    {                                                                                                                  \
#field, offsetof(Amp__##type, field), 0, kind, max, 0                                                          \
    }
#define MANY(type, field, kind, n_max, max)                                                                            \
    {                                                                                                                  \
#field, offsetof(Amp__##type, field), offsetof(Amp__##type, n_##field), kind, max, n_max                       \
    }
#define ID(type, field) ONE(type, field, RULE_ID, 0)
#define ID_GIVEN(type, field) ONE(type, field, RULE_ID_GIVEN, 0)
#define LABEL(type, field, max) ONE(type, field, RULE_LABEL, max)
#define TEXT(type, field, max) ONE(type, field, RULE_TEXT, max)
#define OBJECT(type, field) ONE(type, field, RULE_OBJECT, 0)
#define CHILD(type, field) ONE(type, field, RULE_CHILD, 0)
#define CHILDREN(type, field, n_max) MANY(type, field, RULE_CHILDREN, n_max, 0)

static const struct rule envelope_rules[] = {ID(Envelope, from), ONE(Envelope, body_case, RULE_CHOICE, 0)};
static const struct rule request_rules[] = {
    CHILD(Request, message), ID(Request, parent),       MANY(Request, path, RULE_IDS, AMP_HOPS_MAX, 0),
    ID(Request, skill),      OBJECT(Request, metadata), ID(Request, root),
};
static const struct rule event_rules[] = {OBJECT(Event, body)};
static const struct rule end_rules[] = {CHILD(End, error)};
static const struct rule frame_rules[] = {
    ID_GIVEN(Frame, task_id),
    ID(Frame, context_id),
    ID(Frame, agent),
    ID(Frame, instance),
    ID(Frame, from),
    ID(Frame, parent),
    ID(Frame, root),
    CHILDREN(Frame, events, AMP_MEMBERS_MAX),
    CHILD(Frame, end),
    CHILD(Frame, request),
};
static const struct rule error_rules[] = {
    LABEL(Error, name, AMP_NAME_MAX),
    TEXT(Error, message, TEXT_MAX),
    TEXT(Error, hint, TEXT_MAX),
    TEXT(Error, field, TEXT_MAX),
    CHILD(Error, death),
};
static const struct rule death_rules[] = {
    ID(Death, agent),
    ID(Death, instance),
    MANY(Death, stderr, RULE_TEXTS, AMP_STDERR_LINES_MAX, AMP_STDERR_LINE_MAX),
    MANY(Death, tasks, RULE_IDS, AMP_INFLIGHT_TASKS_REPORTED, 0),
};
static const struct rule cancel_rules[] = {TEXT(Cancel, reason, REASON_MAX)};
static const struct rule answer_rules[] = {LABEL(Answer, input_id, AMP_KEY_MAX), CHILD(Answer, message), ID(Answer, by)};
static const struct rule reply_rules[] = {CHILD(Reply, error), CHILD(Reply, beat)};
static const struct rule beat_rules[] = {
    ID_GIVEN(Beat, agent),
    ID_GIVEN(Beat, instance),
    LABEL(Beat, host, LABEL_MAX),
    CHILD(Beat, card),
    CHILD(Beat, death),
    LABEL(Beat, version, LABEL_MAX),
    ONE(Beat, retry, RULE_RETRY, 0),
    MANY(Beat, tags, RULE_LABELS, AMP_TAGS_MAX, LABEL_MAX),
    MANY(Beat, tasks, RULE_IDS, AMP_INFLIGHT_TASKS_REPORTED, 0),
};
static const struct rule submit_rules[] = {
    ID(Submit, agent),
    ID(Submit, skill),
    CHILD(Submit, request),
    LABEL(Submit, key, AMP_KEY_MAX),
    ONE(Submit, retry, RULE_RETRY, 0),
    ID(Submit, schedule),
    ID(Submit, fork_of),
};
static const struct rule query_rules[] = {
    ID(TaskQuery, id),     ID(TaskQuery, context_id), ID(TaskQuery, agent), LABEL(TaskQuery, page_token, TOKEN_MAX),
    ID(TaskQuery, parent),
};
static const struct rule inbox_rules[] = {ID(InboxQuery, id), ID(InboxQuery, context_id), ID(InboxQuery, agent), LABEL(InboxQuery, page_token, TOKEN_MAX)};
static const struct rule question_rules[] = {ID_GIVEN(Question, id), ID_GIVEN(Question, task_id), ID(Question, context_id), ID(Question, agent), ID(Question, from),
                                             OBJECT(Question, form)};
static const struct rule fork_rules[] = {ID_GIVEN(Fork, id), ID(Fork, agent), CHILD(Fork, message)};
static const struct rule wait_rules[] = {ID_GIVEN(Wait, task_id), ID(Wait, agent), ID(Wait, skill)};
static const struct rule next_rules[] = {ID_GIVEN(Next, instance)};
static const struct rule turn_rules[] = {ID(Turn, agent), ID(Turn, instance)};
static const struct rule blob_rules[] = {CHILD(Blob, error)};
static const struct rule watch_rules[] = {ID_GIVEN(Watch, id)};
static const struct rule report_rules[] = {ID_GIVEN(Report, task_id), ID(Report, instance), TEXT(Report, answer, TEXT_MAX)};
static const struct rule command_rules[] = {ID_GIVEN(TaskCommand, id), CHILD(TaskCommand, control)};
static const struct rule control_rules[] = {ONE(Control, kind_case, RULE_CHOICE, 0)};
static const struct rule env_request_rules[] = {ONE(EnvRequest, verb_case, RULE_CHOICE, 0)};
static const struct rule kv_rules[] = {LABEL(Kv, key, AMP_KV_KEY_MAX), ONE(Kv, value, RULE_JSON, AMP_KV_VALUE_MAX),
                                       LABEL(Kv, page_token, TOKEN_MAX)};
static const struct rule entry_rules[] = {LABEL(KvEntry, key, AMP_KV_KEY_MAX),
                                          ONE(KvEntry, value, RULE_JSON, AMP_KV_VALUE_MAX)};
static const struct rule agents_rules[] = {ID(AgentQuery, name), ID(AgentQuery, skill),
                                           MANY(AgentQuery, tags, RULE_LABELS, AMP_TAGS_MAX, LABEL_MAX),
                                           LABEL(AgentQuery, page_token, TOKEN_MAX)};
static const struct rule schedule_rules[] = {
    ID(Schedule, id),
    LABEL(Schedule, cron, LABEL_MAX),
    LABEL(Schedule, zone, LABEL_MAX),
    LABEL(Schedule, overlap, AMP_NAME_MAX),
    CHILD(Schedule, submit),
    ID(Schedule, from),
    LABEL(Schedule, state, AMP_NAME_MAX),
    ID(Schedule, last_task),
    TEXT(Schedule, note, TEXT_MAX),
};
static const struct rule schedule_command_rules[] = {ID(ScheduleCommand, id), CHILD(ScheduleCommand, schedule), LABEL(ScheduleCommand, page_token, TOKEN_MAX)};
static const struct rule task_rules[] = {ID_GIVEN(Task, id), ID(Task, context_id), OBJECT(Task, metadata)};
static const struct rule record_rules[] = {
    CHILD(TaskRecord, task),
    ID(TaskRecord, agent),
    ID(TaskRecord, skill),
    ID(TaskRecord, from),
    ID(TaskRecord, parent),
    ID(TaskRecord, root),
    TEXT(TaskRecord, waiting, TEXT_MAX),
    CHILDREN(TaskRecord, events, AMP_MEMBERS_MAX),
    CHILD(TaskRecord, error),
    ID(TaskRecord, schedule),
};
static const struct rule instance_rules[] = {CHILD(Instance, beat)};
static const struct rule agent_rules[] = {
    ID_GIVEN(AgentRecord, name),
    CHILD(AgentRecord, card),
    CHILDREN(AgentRecord, instances, AMP_MEMBERS_MAX),
    CHILDREN(AgentRecord, deaths, DEATHS_MAX),
};
static const struct rule info_rules[] = {LABEL(EnvInfo, version, LABEL_MAX), TEXT(EnvInfo, journal, TEXT_MAX),
                                         ID(EnvInfo, instance)};
static const struct rule env_reply_rules[] = {
    CHILD(EnvReply, error),
    CHILDREN(EnvReply, tasks, AMP_MEMBERS_MAX),
    CHILDREN(EnvReply, agents, AMP_MEMBERS_MAX),
    CHILDREN(EnvReply, entries, AMP_MEMBERS_MAX),
    CHILDREN(EnvReply, schedules, AMP_MEMBERS_MAX),
    CHILDREN(EnvReply, questions, AMP_MEMBERS_MAX),
    LABEL(EnvReply, next_page_token, TOKEN_MAX),
    CHILD(EnvReply, info),
    CHILD(EnvReply, turn),
};

#define RULES(type, rules, check)                                                                                      \
    {                                                                                                                  \
        &amp__##type##__descriptor, rules, sizeof(rules) / sizeof(rules[0]), check                                     \
    }
#define ONLY(type, check)                                                                                              \
    {                                                                                                                  \
        &amp__##type##__descriptor, NULL, 0, check                                                                     \
    }

/* The hot ones first. */
static const struct type_rules types[] = {
    RULES(request, request_rules, check_request),
    RULES(frame, frame_rules, check_frame),
    RULES(event, event_rules, NULL),
    ONLY(message, check_a2a_message),
    RULES(end, end_rules, NULL),
    RULES(envelope, envelope_rules, check_envelope),
    RULES(beat, beat_rules, NULL),
    RULES(error, error_rules, NULL),
    RULES(death, death_rules, NULL),
    ONLY(agent_card, check_card),
    RULES(control, control_rules, check_control),
    RULES(cancel, cancel_rules, NULL),
    RULES(answer, answer_rules, NULL),
    ONLY(ping, NULL),
    ONLY(attach, check_attach),
    RULES(reply, reply_rules, NULL),
    ONLY(blob_read, check_blob_read),
    RULES(blob, blob_rules, check_blob),
    RULES(env_request, env_request_rules, check_env_request),
    RULES(submit, submit_rules, check_submit),
    RULES(task_query, query_rules, NULL),
    RULES(inbox_query, inbox_rules, NULL),
    RULES(fork, fork_rules, NULL),
    RULES(question, question_rules, NULL),
    RULES(wait, wait_rules, check_wait),
    RULES(next, next_rules, NULL),
    RULES(turn, turn_rules, NULL),
    RULES(watch, watch_rules, check_watch),
    RULES(report, report_rules, NULL),
    RULES(task_command, command_rules, check_command),
    RULES(kv, kv_rules, check_kv),
    RULES(kv_entry, entry_rules, NULL),
    RULES(agent_query, agents_rules, NULL),
    RULES(schedule, schedule_rules, NULL),
    RULES(schedule_command, schedule_command_rules, check_schedule_command),
    RULES(task, task_rules, NULL),
    RULES(task_record, record_rules, NULL),
    RULES(instance, instance_rules, NULL),
    RULES(agent_record, agent_rules, NULL),
    RULES(env_info, info_rules, NULL),
    RULES(env_reply, env_reply_rules, NULL),
};

/* ---- the walk ---- */

static enum amp_code check_message(const ProtobufCMessage *message, const struct path *path, struct amp_error *err);

/* One string of a rule that speaks of strings. */
static enum amp_code check_string(const struct rule *rule, const char *text, const struct path *path,
                                  struct amp_error *err)
{
    char field[sizeof(err->field)];
    switch (rule->kind) {
    case RULE_ID:
    case RULE_ID_GIVEN:
    case RULE_IDS:
        if ((!text && rule->kind == RULE_ID) || amp_id_is_valid(text ? text : ""))
            return AMP_OK;
        return path_error(err, AMP_INVALID, path, "this is not a valid id");
    case RULE_RETRY:
        if (!text || strcmp(text, "safe") == 0 || strcmp(text, "never") == 0)
            return AMP_OK;
        return path_error(err, AMP_INVALID, path, "neither \"safe\" nor \"never\"");
    case RULE_TEXT:
    case RULE_TEXTS:
        if (!text || strlen(text) <= rule->max)
            return AMP_OK;
        return path_error(err, AMP_INVALID, path, "%zu bytes; at most %u are allowed", strlen(text), rule->max);
    default:
        if (!text || text_check(text, (struct text_rule){.max = rule->max}, "", NULL) == AMP_OK)
            return AMP_OK;
        path_format(path, field, sizeof(field));
        return text_check(text, (struct text_rule){.max = rule->max}, field, err);
    }
}

static enum amp_code check_json(const struct rule *rule, const Amp__Json *json, const struct path *path,
                                struct amp_error *err)
{
    if (!json)
        return AMP_OK;
    if (rule->kind == RULE_JSON && json->text.len > rule->max)
        return path_error(err, AMP_TOO_LARGE, path, "%zu bytes; at most %u are allowed", json->text.len, rule->max);
    const uint8_t *p = json->text.data, *end = p + json->text.len;
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    if (rule->kind == RULE_OBJECT && (p == end || *p != '{'))
        return path_error(err, AMP_INVALID, path, "an object is needed");
    return AMP_OK;
}

static enum amp_code check_many(const struct rule *rule, const ProtobufCMessage *message, struct path *path,
                                struct amp_error *err)
{
    const char *base = (const char *)message;
    size_t n = *(const size_t *)(base + rule->n_offset);
    void *const *elements = *(void *const *const *)(base + rule->offset);
    if (n > rule->n_max)
        return path_error(err, AMP_INVALID, path, "%zu of them; at most %u are allowed", n, rule->n_max);
    enum amp_code code = AMP_OK;
    for (size_t i = 0; i < n && code == AMP_OK; i++) {
        path->index = i;
        code = rule->kind == RULE_CHILDREN ? check_message(elements[i], path, err)
                                           : check_string(rule, elements[i], path, err);
    }
    return code;
}

static enum amp_code check_choice(const struct rule *rule, const ProtobufCMessage *message, struct path *path,
                                  struct amp_error *err)
{
    uint32_t chosen = *(const uint32_t *)((const char *)message + rule->offset);
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(message->descriptor, chosen);
    if (!field)
        return AMP_OK;
    path->name = field->name;
    return check_message(*(ProtobufCMessage *const *)((const char *)message + field->offset), path, err);
}

static enum amp_code check_rule(const struct rule *rule, const ProtobufCMessage *message, const struct path *up,
                                struct amp_error *err)
{
    struct path path = {.up = up, .name = rule->name, .index = PATH_NO_INDEX};
    const void *at = (const char *)message + rule->offset;
    switch (rule->kind) {
    case RULE_CHOICE:
        return check_choice(rule, message, &path, err);
    case RULE_CHILD: {
        const ProtobufCMessage *child = *(ProtobufCMessage *const *)at;
        return child ? check_message(child, &path, err) : AMP_OK;
    }
    case RULE_CHILDREN:
    case RULE_IDS:
    case RULE_LABELS:
    case RULE_TEXTS:
        return check_many(rule, message, &path, err);
    case RULE_OBJECT:
    case RULE_JSON:
        return check_json(rule, *(Amp__Json *const *)at, &path, err);
    default:
        return check_string(rule, *(const char *const *)at, &path, err);
    }
}

static enum amp_code check_message(const ProtobufCMessage *message, const struct path *path, struct amp_error *err)
{
    const struct type_rules *type = types;
    while (type->type != message->descriptor) {
        type++;
        assert(type < types + sizeof(types) / sizeof(types[0]));
    }
    enum amp_code code = AMP_OK;
    for (size_t i = 0; i < type->n_rules && code == AMP_OK; i++)
        code = check_rule(&type->rules[i], message, path, err);
    return code == AMP_OK && type->check ? type->check(message, path, err) : code;
}

enum amp_code amp_envelope_decode(struct amp_bytes wire, uint32_t allowed, struct amp_arena *arena, Amp__Envelope **ret,
                                  enum amp_encoding *ret_encoding, struct amp_error *reterr)
{
    ProtobufCMessage *message;
    if (ret_encoding)
        *ret_encoding = wire.len > 0 && codec_is_json(&amp__envelope__descriptor, wire.data[0]) ? AMP_JSON : AMP_PROTOBUF;
    enum amp_code code = amp_decode(&amp__envelope__descriptor, wire, arena, &message, reterr);
    if (code != AMP_OK)
        return code;
    Amp__Envelope *envelope = (Amp__Envelope *)message;
    if (envelope->version != AMP_PROTOCOL_VERSION)
        return amp_error_set(reterr, AMP_VERSION, "version", "version %u; version %u is spoken here", envelope->version,
                             AMP_PROTOCOL_VERSION);
    if (envelope->body_case == AMP__ENVELOPE__BODY__NOT_SET)
        return amp_error_set(reterr, AMP_INVALID, "", "the envelope has no body that is known here");
    if (allowed != 0 && !(allowed >> (unsigned)envelope->body_case & 1))
        return amp_error_set(reterr, AMP_INVALID, "", "a body of this kind is not taken here");
    code = check_message(message, NULL, reterr);
    if (code != AMP_OK)
        return code;
    *ret = envelope;
    return AMP_OK;
}

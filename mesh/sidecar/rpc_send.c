/* `send`: a call made by the agent, direct or through the environment. What came is folded, so that the answer is one Task whatever was streamed. */
#include "sidecar/rpc_send_private.h"

#include "base/alloc.h"
#include "base/call.h"
#include "base/counters.h"
#include "base/envcall.h"
#include "base/name.h"
#include "base/scratch.h"
#include "sidecar/sidecar.h"
#include "sidecar/task.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

/* Windows of streams whose readers may stand still: together about 8 MiB as long as they are few, at least 64 KiB each. */
enum { STREAMS_BYTES = 8 << 20, STREAM_BYTES_MIN = 64 << 10 };
enum { SUBMIT_TIMEOUT_MS = 10000, METADATA_ROOM = 512 /* three ids and their names */ };

/* All open sends of this process; a sidecar looks only at its own. Loop thread only. */
static LIST_HEAD(, sent) all_sent = LIST_HEAD_INITIALIZER(all_sent);

static struct spares spare_sent, folds;

static struct amp_fold *fold_take(const char *task_id, const char *context_id)
{
    struct amp_fold *fold = spares_take(&folds);
    bool is_kept = fold != NULL;
    if (!is_kept)
        fold = amp_fold_new(task_id, context_id, AMP_FOLD_BYTES_MAX);
    if (!fold || (is_kept && amp_fold_reset(fold, task_id, context_id) != AMP_OK))
        abort();
    return fold;
}

/* It is emptied at once: a large task's memory is not kept. */
static void fold_give(struct amp_fold *fold)
{
    if (amp_fold_reset(fold, "", "") != AMP_OK || !spares_give(&folds, fold))
        amp_fold_free(fold);
}

static void sent_free(struct sent *sent)
{
    LIST_REMOVE(sent, entry);
    call_free(sent->call);
    env_submit_cancel(sent->submit);
    env_watch_free(sent->watch);
    blob_fetch_cancel(sent->fetch);
    blob_held_release(&sent->held, sidecar_blobs(sent->rpc->sidecar));
    fold_give(sent->fold);
    scratch_give(sent->arena);
    spares_free(&spare_sent, sent);
}

/* ---- who else may look -------------------------------------------------------------------------------------- */

struct sent *rpc_sent_find(struct sidecar *sidecar, const char *task_id)
{
    struct sent *sent;
    LIST_FOREACH(sent, &all_sent, entry)
        if (sent->rpc->sidecar == sidecar && !strcmp(sent->task_id, task_id))
            return sent;
    return NULL;
}

static void send_cancel_to_env(struct sent *sent, const char *reason);

void rpc_sent_cancel(struct sent *sent, const char *reason)
{
    if (sent->call)
        call_cancel(sent->call, reason);
    else if (sent->is_durable)
        send_cancel_to_env(sent, reason);
}

static struct sent *find_child(struct sidecar *sidecar, const char *parent)
{
    struct sent *sent;
    LIST_FOREACH(sent, &all_sent, entry)
        if (sent->call && !sent->is_orphan && sent->rpc->sidecar == sidecar && !strcmp(sent->parent, parent))
            return sent;
    return NULL;
}

/* From the beginning each time: a cancel may end a call at once, and its answer others. */
void rpc_parent_ended(struct sidecar *sidecar, const char *parent, const char *how)
{
    char reason[AMP_NAME_MAX + 64];
    struct sent *sent;
    snprintf(reason, sizeof reason, "its parent %s %s", parent, how);
    while ((sent = find_child(sidecar, parent))) {
        sent->is_orphan = true;
        call_cancel(sent->call, reason);
    }
}

/* What stands in the task already, which is rare, goes through a tree. */
static enum amp_code metadata_open(struct amp_buf *out, const Amp__Json *own)
{
    cJSON *tree = own ? cJSON_ParseWithLength((const char *)own->text.data, own->text.len) : NULL;
    char *text = tree && cJSON_IsObject(tree) && tree->child ? cJSON_PrintUnformatted(tree) : NULL;
    enum amp_code code = text ? amp_buf_append(out, text, strlen(text) - 1) : amp_buf_append(out, "{", 1); /* without its end */
    free(text);
    cJSON_Delete(tree);
    return code;
}

static void metadata_name(struct amp_buf *out, const char *name)
{
    (void)amp_buf_append(out, ",", out->len > 1);
    (void)amp_json_append_string(out, amp_bytes_of(name));
    (void)amp_buf_append(out, ":", 1);
}

static void metadata_id(struct amp_buf *out, const char *name, const char *id)
{
    if (!id[0])
        return;
    metadata_name(out, name);
    (void)amp_json_append_string(out, amp_bytes_of(id));
}

/* The buffer remembers a failure, so its end is the only check. */
static enum amp_code metadata_write(struct amp_buf *out, const struct sent *sent, const Amp__Error *wire)
{
    (void)metadata_open(out, amp_fold_task(sent->fold)->metadata);
    metadata_id(out, "amp/agent", sent->agent);
    metadata_id(out, "amp/instance", sent->instance);
    metadata_id(out, "amp/parent", sent->parent);
    if (sent->is_durable) {
        metadata_name(out, "amp/durable");
        (void)amp_buf_append(out, "true", 4);
    }
    if (wire) {
        metadata_name(out, "amp/error");
        if (amp_encode(&wire->base, AMP_JSON, out, NULL) != AMP_OK)
            (void)amp_buf_append(out, "null", 4);
    }
    return amp_buf_append(out, "}", 1);
}

const cJSON *rpc_sent_text(struct sent *sent, const Amp__Error *wire, struct amp_error *reterr)
{
    uint8_t room[METADATA_ROOM];
    struct amp_buf text;
    Amp__Json metadata = AMP__JSON__INIT;
    Amp__Task task = *amp_fold_task(sent->fold);
    bool is_small = !task.metadata && !wire;
    if (is_small) /* cap == max: the buffer is never grown and may live on the stack */
        text = (struct amp_buf){.data = room, .cap = sizeof room, .max = sizeof room};
    else
        amp_buf_init(&text, AMP_FOLD_BYTES_MAX);
    enum amp_code code = metadata_write(&text, sent, wire);
    metadata.text = (ProtobufCBinaryData){.data = text.data, .len = text.len};
    task.metadata = &metadata;
    const cJSON *made = NULL;
    if (code == AMP_OK)
        made = rpc_text_of(&task.base, is_small ? amp_buf_bytes(&text) : (struct amp_bytes){0}, reterr);
    else
        amp_error_set(reterr, code, "", "the metadata of the task is too large");
    if (!is_small)
        amp_buf_done(&text);
    return made;
}

const cJSON *rpc_sent_task(struct sent *sent, struct amp_error *reterr)
{
    return rpc_sent_text(sent, NULL, reterr);
}

/* ---- the end -------------------------------------------------------------------------------------------------- */

void rpc_sent_answer(struct sent *sent, const cJSON *task, const struct amp_error *err)
{
    struct rpc *rpc = sent->rpc;
    rpc->state = NULL;
    rpc->cancel = NULL;
    sent_free(sent);
    if (task)
        rpc_done(rpc, task);
    else
        rpc_fail(rpc, err);
}

/* The send is over. When the task has reached an end, however bad, the task is the answer; else the error is. */
static void end_send(struct sent *sent, const struct amp_error *err, const Amp__Error *wire)
{
    struct amp_error own = *err;
    const cJSON *task = NULL;
    if (!wire && amp_fold_state(sent->fold) == AMP__TASK_STATE__TASK_STATE_COMPLETED && rpc_sent_fetch(sent))
        return;
    if (amp_task_is_terminal(amp_fold_state(sent->fold)))
        task = rpc_sent_text(sent, wire, &own);
    else if (own.code == AMP_OK)
        amp_error_set(&own, AMP_BAD_ANSWER, "", "the stream of task %s ended before the task did", sent->task_id);
    rpc_sent_answer(sent, task, &own);
}

/* ---- direct --------------------------------------------------------------------------------------------------- */

/* Line ends between its tokens, which a peer may have put there, would end the lines in which the agent gets it. */
static void pass_on(struct rpc *rpc, uint32_t seq, const Amp__Json *body)
{
    struct amp_bytes text = {body->text.data, body->text.len};
    struct amp_buf compact;
    if (!memchr(text.data, '\n', text.len) && !memchr(text.data, '\r', text.len)) {
        rpc->handlers->on_event(rpc->ctx, seq, text);
        return;
    }
    amp_buf_init(&compact, AMP_WIRE_BYTES_MAX);
    if (amp_encode(&body->base, AMP_JSON, &compact, NULL) == AMP_OK)
        rpc->handlers->on_event(rpc->ctx, seq, amp_buf_bytes(&compact));
    amp_buf_done(&compact);
}

static void on_event(void *ctx, uint32_t seq, const Amp__Event *event)
{
    struct sent *sent = ctx;
    struct amp_bytes body = {event->body->text.data, event->body->text.len};
    struct amp_error err = {0};
    enum amp_code code = amp_fold_apply(sent->fold, body, &err);
    if (code != AMP_OK) {
        counter_add(COUNTER_events_refused, 1);
        if (code == AMP_TOO_LARGE || code == AMP_NO_MEMORY)
            rpc_sent_cancel(sent, "the answer is larger than its caller can hold");
        return;
    }
    if (sent->is_stream && seq >= sent->from_seq && sent->rpc->handlers->on_event)
        pass_on(sent->rpc, seq, event->body);
}

static void on_taken(void *ctx, const char *agent, const char *instance)
{
    struct sent *sent = ctx;
    name_copy(sent->agent, agent);
    name_copy(sent->instance, instance);
}

static void on_end(void *ctx, const struct amp_error *err, const Amp__Error *wire)
{
    struct sent *sent = ctx;
    if (!sent->is_dropped) /* else call_cancel below ended it before it returned */
        end_send(sent, err, wire);
}

static void cancel_send(struct rpc *rpc)
{
    struct sent *sent = rpc->state;
    /* A direct call dies with its caller: nobody would see the answer. A durable one goes on. */
    sent->is_dropped = true;
    if (sent->call)
        call_cancel(sent->call, "the caller went away");
    sent_free(sent);
}

static void hold_send(struct rpc *rpc)
{
    struct sent *sent = rpc->state;
    if (!sent->is_stream)
        return;
    if (sent->call)
        call_hold(sent->call, rpc->is_held);
    if (sent->watch)
        env_watch_hold(sent->watch, rpc->is_held);
}

/* Of a stream that begins now. */
static uint32_t window_bytes(const struct sent *sent)
{
    uint32_t n = 0;
    const struct sent *other;
    if (!sent->is_stream)
        return CALL_WINDOW_BYTES;
    LIST_FOREACH(other, &all_sent, entry) n += other->is_stream && other->rpc->sidecar == sent->rpc->sidecar;
    uint32_t share = n ? STREAMS_BYTES / n : CALL_WINDOW_BYTES;
    return share > CALL_WINDOW_BYTES ? CALL_WINDOW_BYTES : share < STREAM_BYTES_MIN ? STREAM_BYTES_MIN : share;
}

struct send_params {
    const char *to, *skill, *text, *context, *key;
    const cJSON *message;
    struct task *parent;
    uint32_t timeout_ms;
    Amp__Priority priority;
    bool is_durable, is_detached, is_stream;
    uint32_t from_seq; /* of a stream that is gone on with */
    const char *retry; /* "safe", "never" or NULL */
};

static void start_call(struct sent *sent, const struct send_params *params)
{
    static const struct call_handlers handlers = {.on_event = on_event, .on_taken = on_taken, .on_end = on_end};
    struct rpc *rpc = sent->rpc;
    const Amp__Request *above = params->parent ? task_request(params->parent) : NULL;
    if (params->parent)
        task_has_child(params->parent);
    size_t n_path = above ? above->n_path + 1 : 0;
    char *path[AMP_HOPS_MAX + 1]; /* a task that has more above it was refused */
    assert(n_path <= sizeof path / sizeof *path);
    for (size_t i = 0; above && i < above->n_path; i++)
        path[i] = above->path[i];
    if (above)
        path[n_path - 1] = (char *)sidecar_agent(rpc->sidecar);
    struct call_options options = {
        .agent = params->to, .skill = params->skill, .from = sidecar_agent(rpc->sidecar), .task_id = sent->task_id, .context_id = sent->context_id,
        .parent = params->parent ? sent->parent : NULL, .root = params->parent ? task_root(params->parent) : NULL, .message = sent->message, .timeout_ms = params->timeout_ms, .attempt = 1,
        .hops = above ? above->hops + 1 : 0, .path = path, .n_path = n_path, .may_queue = true, .priority = params->priority,
        .may_retry = !params->retry || strcmp(params->retry, "never") != 0, .is_retry_safe = params->retry && strcmp(params->retry, "safe") == 0,
        .window_bytes = window_bytes(sent),
    };
    struct amp_error err = {0};
    enum amp_code code = call_start(sidecar_loop(rpc->sidecar), sidecar_bus(rpc->sidecar), &options, &handlers, sent, &sent->call, &err);
    if (code == AMP_OK) {
        hold_send(rpc);
        return;
    }
    rpc->state = NULL;
    rpc->cancel = NULL;
    sent_free(sent);
    rpc_fail(rpc, &err);
}

/* ---- durable --------------------------------------------------------------------------------------------------- */

static void on_cancel_told(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    /* The task's own end, seen by the watch, is the answer; a refusal means that it ended already. */
}

static void send_cancel_to_env(struct sent *sent, const char *reason)
{
    struct sidecar *sidecar = sent->rpc->sidecar;
    Amp__Cancel cancel = AMP__CANCEL__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    Amp__TaskCommand command = AMP__TASK_COMMAND__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    struct env_call *call;
    cancel.reason = (char *)reason;
    control.kind_case = AMP__CONTROL__KIND_CANCEL;
    control.cancel = &cancel;
    command.id = sent->task_id;
    command.control = &control;
    request.verb_case = AMP__ENV_REQUEST__VERB_COMMAND;
    request.command = &command;
    (void)!env_call(sidecar_loop(sidecar), sidecar_bus(sidecar), sidecar_agent(sidecar), &request, SUBMIT_TIMEOUT_MS, on_cancel_told, NULL, &call);
}

static void on_submitted(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    static const struct env_watch_handlers handlers = {.on_event = on_event, .on_end = on_end};
    struct sent *sent = ctx;
    struct rpc *rpc = sent->rpc;
    struct amp_error own = {0};
    sent->submit = NULL;
    if (err && err->code != AMP_OK) {
        end_send(sent, err, NULL);
        return;
    }
    if (reply->n_tasks > 0 && reply->tasks[0]->task->id && strcmp(reply->tasks[0]->task->id, sent->task_id) != 0) {
        const Amp__Task *task = reply->tasks[0]->task; /* the key was seen before: that task is the answer */
        snprintf(sent->task_id, sizeof sent->task_id, "%s", task->id);
        snprintf(sent->context_id, sizeof sent->context_id, "%s", task->context_id ? task->context_id : "");
        fold_give(sent->fold);
        sent->fold = fold_take(sent->task_id, sent->context_id);
    }
    if (sent->is_detached) { /* that it is accepted is all that its sender wants to know */
        const cJSON *task = rpc_sent_task(sent, &own);
        rpc_sent_answer(sent, task, &own);
        return;
    }
    enum amp_code code = env_watch_start(sidecar_loop(rpc->sidecar), sidecar_bus(rpc->sidecar), sidecar_agent(rpc->sidecar), sent->task_id, 1, 0, &handlers, sent, &sent->watch);
    if (code != AMP_OK) {
        amp_error_set(&own, code, "", "task %s was accepted but cannot be watched: %s", sent->task_id, amp_code_info(code)->text);
        end_send(sent, &own, NULL);
        return;
    }
    hold_send(rpc);
}

static void start_submit(struct sent *sent, const struct send_params *params)
{
    struct rpc *rpc = sent->rpc;
    Amp__Request request = AMP__REQUEST__INIT;
    Amp__Submit submit = AMP__SUBMIT__INIT;
    const Amp__Request *above = params->parent ? task_request(params->parent) : NULL;
    request.task_id = sent->task_id;
    request.context_id = sent->context_id;
    request.message = sent->message;
    request.parent = params->parent ? sent->parent : NULL;
    request.root = params->parent ? (char *)task_root(params->parent) : NULL;
    request.has_timeout_ms = params->timeout_ms > 0;
    request.timeout_ms = params->timeout_ms;
    request.has_hops = above != NULL;
    request.hops = above ? above->hops + 1 : 0;
    request.n_path = above ? above->n_path + 1 : 0;
    request.path = xcalloc(request.n_path + 1, sizeof *request.path);
    for (size_t i = 0; above && i < above->n_path; i++)
        request.path[i] = above->path[i];
    if (above)
        request.path[above->n_path] = (char *)sidecar_agent(rpc->sidecar);
    submit.agent = (char *)params->to;
    submit.skill = (char *)params->skill;
    submit.key = (char *)params->key;
    submit.retry = (char *)params->retry;
    submit.has_detached = submit.detached = params->is_detached;
    submit.request = &request;
    const struct env_submit_options options = {.answer_ms = SUBMIT_TIMEOUT_MS, .patience_ms = params->timeout_ms > 0 ? params->timeout_ms : ENV_PATIENCE_MS};
    struct amp_error err = {0};
    enum amp_code code = call_check_path(params->to, request.hops, request.path, request.n_path, &err);
    if (code == AMP_OK)
        code = env_submit(sidecar_loop(rpc->sidecar), sidecar_bus(rpc->sidecar), sidecar_agent(rpc->sidecar), &submit, &options, on_submitted, sent, &sent->submit);
    free(request.path);
    if (code == AMP_OK)
        return;
    if (err.code == AMP_OK)
        amp_error_set(&err, code, "", "the environment cannot be asked: %s", amp_code_info(code)->text);
    end_send(sent, &err, NULL);
}

/* ---- params ------------------------------------------------------------------------------------------------------ */

static enum amp_code read_parent(struct rpc *rpc, const cJSON *params, struct send_params *ret, struct amp_error *reterr)
{
    const char *own = cJSON_GetObjectItemCaseSensitive(params, "taskId") ? "taskId" : "from";
    const char *id;
    enum amp_code code = rpc_id(params, own, &id, reterr);
    if (code != AMP_OK || !id)
        return code;
    ret->parent = task_find(rpc->sidecar, id);
    if (!ret->parent)
        return amp_error_set(reterr, AMP_NO_SUCH_TASK, own, "this instance does not work on task %s", id);
    if (!ret->context)
        ret->context = task_context(ret->parent);
    /* Time travels down: a call inside a task cannot want more than is left of its task's. */
    uint32_t left_ms;
    if (ret->is_detached || !task_left_ms(ret->parent, &left_ms) || (ret->timeout_ms && ret->timeout_ms <= left_ms))
        return AMP_OK;
    ret->timeout_ms = left_ms;
    return left_ms ? AMP_OK : amp_error_set(reterr, AMP_DEADLINE, own, "nothing is left of the time of task %s", id);
}

static enum amp_code read_params(struct rpc *rpc, const cJSON *params, struct send_params *ret, struct amp_error *reterr)
{
    enum amp_code code = rpc_id(params, "to", &ret->to, reterr);
    if (code == AMP_OK)
        code = rpc_id(params, "skill", &ret->skill, reterr);
    if (code == AMP_OK)
        code = rpc_id(params, "contextId", &ret->context, reterr);
    if (code == AMP_OK)
        code = rpc_string(params, "text", &ret->text, reterr);
    if (code == AMP_OK)
        code = rpc_string(params, "key", &ret->key, reterr);
    if (code == AMP_OK)
        code = rpc_number(params, "timeoutMs", 0, &ret->timeout_ms, reterr);
    ret->is_detached = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(params, "detach"));
    ret->is_durable = ret->is_detached || cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(params, "durable"));
    if (code == AMP_OK)
        code = read_parent(rpc, params, ret, reterr);
    if (code != AMP_OK)
        return code;
    ret->message = cJSON_GetObjectItemCaseSensitive(params, "message");
    ret->is_stream = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(params, "stream"));
    if (!ret->to == !ret->skill)
        return amp_error_set(reterr, AMP_INVALID, "to", "exactly one of to and skill is needed");
    if (!ret->text == !ret->message)
        return amp_error_set(reterr, AMP_INVALID, "text", "exactly one of text and message is needed");
    const char *priority = NULL;
    code = rpc_string(params, "priority", &priority, reterr);
    if (code == AMP_OK)
        code = rpc_string(params, "retry", &ret->retry, reterr);
    if (code == AMP_OK)
        code = rpc_number(params, "fromSeq", 0, &ret->from_seq, reterr);
    if (code != AMP_OK)
        return code;
    if (ret->from_seq && !(ret->key && ret->is_stream))
        return amp_error_set(reterr, AMP_INVALID, "fromSeq", "fromSeq goes on with the stream of a durable send, under its key: a direct one ends with its reader");
    if (ret->retry && strcmp(ret->retry, "safe") != 0 && strcmp(ret->retry, "never") != 0)
        return amp_error_set(reterr, AMP_INVALID, "retry", "retry is safe or never, not \"%.20s\"", ret->retry);
    if (priority && (ret->is_durable || !call_priority(priority, &ret->priority)))
        return amp_error_set(reterr, AMP_INVALID, "priority", "a direct send may have high, normal or low");
    if (ret->key && (!ret->is_durable || strlen(ret->key) > AMP_KEY_MAX || !*ret->key))
        return amp_error_set(reterr, AMP_INVALID, "key", "a key belongs to a durable send and has 1 to %u bytes", AMP_KEY_MAX);
    return AMP_OK;
}

static enum amp_code make_message(struct sent *sent, const struct send_params *params, struct amp_error *reterr)
{
    ProtobufCMessage *decoded = NULL;
    if (params->message) {
        enum amp_code code = rpc_message_of(params->message, &amp__message__descriptor, sent->arena, &decoded, reterr);
        if (code != AMP_OK)
            return code;
        sent->message = (Amp__Message *)decoded;
    } else {
        Amp__Part *part = amp_arena_alloc(sent->arena, sizeof *part);
        sent->message = amp_arena_alloc(sent->arena, sizeof *sent->message);
        if (!part || !sent->message)
            return amp_error_set(reterr, AMP_NO_MEMORY, "", "out of memory");
        amp__part__init(part);
        amp__message__init(sent->message);
        part->text = amp_arena_strdup(sent->arena, amp_bytes_of(params->text));
        sent->message->parts = amp_arena_alloc(sent->arena, sizeof *sent->message->parts);
        if (!part->text || !sent->message->parts)
            return amp_error_set(reterr, AMP_TOO_LARGE, "text", "the text is too large");
        sent->message->parts[0] = part;
        sent->message->n_parts = 1;
    }
    char id[AMP_ID_SIZE];
    sidecar_id_new(sent->rpc->sidecar, 'm', id);
    Amp__Message *message = sent->message;
    if (!message->message_id)
        message->message_id = amp_arena_strdup(sent->arena, amp_bytes_of(id));
    message->has_role = true;
    message->role = AMP__ROLE__ROLE_USER;
    return amp_message_check(message, "message", reterr);
}

static struct sent *sent_new(struct rpc *rpc, const struct send_params *params)
{
    struct sent *sent = spares_calloc(&spare_sent, sizeof *sent);
    sent->rpc = rpc;
    sent->is_durable = params->is_durable;
    sent->is_detached = params->is_detached;
    sent->is_stream = params->is_stream;
    sent->from_seq = params->from_seq;
    LIST_INSERT_HEAD(&all_sent, sent, entry);
    sent->arena = scratch_take();
    sidecar_id_new(rpc->sidecar, 't', sent->task_id);
    if (params->context)
        name_copy(sent->context_id, params->context);
    else
        sidecar_id_new(rpc->sidecar, 'c', sent->context_id);
    if (params->parent)
        name_copy(sent->parent, task_id(params->parent));
    sent->fold = fold_take(sent->task_id, sent->context_id);
    return sent;
}

void rpc_send_now(struct rpc *rpc, const cJSON *json, struct blob_held *held)
{
    struct amp_error err = {0};
    struct send_params params = {0};
    if (read_params(rpc, json, &params, &err) != AMP_OK) {
        rpc_fail(rpc, &err);
        return;
    }
    struct sent *sent = sent_new(rpc, &params);
    if (held)
        sent->held = *held;
    if (held)
        *held = (struct blob_held){.n = 0};
    if (make_message(sent, &params, &err) != AMP_OK || amp_fold_message(sent->fold, sent->message) != AMP_OK) {
        if (err.code == AMP_OK)
            amp_error_set(&err, AMP_TOO_LARGE, "message", "the message is too large");
        sent_free(sent);
        rpc_fail(rpc, &err);
        return;
    }
    rpc->state = sent;
    rpc->cancel = cancel_send;
    rpc->hold = hold_send;
    if (params.is_durable)
        start_submit(sent, &params);
    else
        start_call(sent, &params);
}

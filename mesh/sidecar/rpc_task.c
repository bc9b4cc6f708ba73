/* What an agent says about a task that it works on, and asks about one that it has sent. */
#include "sidecar/rpc_private.h"

#include "base/alloc.h"
#include "base/form.h"
#include "sidecar/sidecar.h"
#include "sidecar/task.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

/* ---- task.event ----------------------------------------------------------------------------------------- */

static enum amp_code take_event(struct task *task, const cJSON *event, struct amp_error *reterr)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(event, "type");
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(event, "text");
    if (cJSON_IsString(type) && cJSON_IsString(text) && !strcmp(type->valuestring, "text"))
        return task_text(task, amp_bytes_of(text->valuestring), reterr);
    return task_event(task, event, reterr);
}

/* Who gives a file may do with it what he likes when he is answered. */
#define EVENT_WAITS_MAX 128u /* answers that wait for files; further ones come at once */
static unsigned n_event_waits;

struct event_wait {
    struct rpc *rpc;
    struct task_room room;
};

static void cancel_event_wait(struct rpc *rpc)
{
    struct event_wait *wait = rpc->state;
    task_room_cancel(&wait->room);
    n_event_waits--;
    free(wait);
}

static void on_files_in(void *ctx)
{
    struct event_wait *wait = ctx;
    struct rpc *rpc = wait->rpc;
    cancel_event_wait(rpc);
    rpc->state = NULL;
    rpc->cancel = NULL;
    rpc_done_empty(rpc);
}

static bool wait_for_files(struct rpc *rpc, struct task *task)
{
    if (!task_files_is_busy(task) || n_event_waits >= EVENT_WAITS_MAX)
        return false;
    struct event_wait *wait = xcalloc(1, sizeof *wait);
    *wait = (struct event_wait){.rpc = rpc, .room = {.on_room = on_files_in, .ctx = wait}};
    n_event_waits++;
    rpc->state = wait;
    rpc->cancel = cancel_event_wait;
    task_room_wait(task, &wait->room);
    return true;
}

void rpc_task_event(struct rpc *rpc, const cJSON *params)
{
    struct task *task;
    struct amp_error err = {0};
    const cJSON *event = cJSON_GetObjectItemCaseSensitive(params, "event");
    const cJSON *events = cJSON_GetObjectItemCaseSensitive(params, "events");
    enum amp_code code = rpc_task(rpc, params, &task, &err);
    if (code == AMP_OK && !event && !cJSON_IsArray(events))
        code = amp_error_set(&err, AMP_INVALID, "event", "event (an object) or events (an array) is missing");
    if (code == AMP_OK && event)
        code = take_event(task, event, &err);
    const cJSON *each;
    if (code == AMP_OK)
        cJSON_ArrayForEach(each, events) if (code == AMP_OK)
            code = take_event(task, each, &err);
    if (code != AMP_OK) {
        rpc_fail(rpc, &err);
        return;
    }
    if (wait_for_files(rpc, task))
        return;
    rpc_done_empty(rpc);
}

/* ---- task.ask ------------------------------------------------------------------------------------------- */

struct question {
    struct rpc *rpc;
    struct task *task; /* lives as long as the question is open */
};

static void finish_question(struct rpc *rpc, const struct task_answer *answer)
{
    struct amp_error err = {0};
    if (answer->code != AMP_OK) {
        const char *why = amp_code_info(answer->code)->text;
        rpc_fail_with(rpc, answer->code, "", "%s%s", answer->code == AMP_EXPIRED ? "" : "the question was not answered: ", why); /* "… in time" says it all */
        return;
    }
    cJSON *message = answer->message ? rpc_json_of(&answer->message->base, &err) : NULL;
    if (answer->message && !message) {
        rpc_fail_with(rpc, AMP_TOO_LARGE, "", "the answer is too large");
        return;
    }
    char *text = form_answer_text(answer->message, answer->value);
    cJSON *result = cJSON_CreateObject();
    cJSON_AddStringToObject(result, "text", text);
    if (answer->value)
        cJSON_AddItemToObject(result, "value", cJSON_Duplicate(answer->value, true));
    if (message)
        cJSON_AddItemToObject(result, "message", message);
    else
        cJSON_AddTrueToObject(result, "expired");
    free(text);
    rpc_done(rpc, result);
    cJSON_Delete(result);
}

static void on_answer(void *ctx, const struct task_answer *answer)
{
    struct question *question = ctx;
    struct rpc *rpc = question->rpc;
    free(question);
    rpc->state = NULL;
    rpc->cancel = NULL;
    finish_question(rpc, answer);
}

static void withdraw_question(struct rpc *rpc)
{
    struct question *question = rpc->state;
    task_ask_withdraw(question->task, question);
    free(question);
}

/* null is as good as not there. */
static const cJSON *given(const cJSON *params, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(params, name);
    return cJSON_IsNull(value) ? NULL : value;
}

void rpc_task_ask(struct rpc *rpc, const cJSON *params)
{
    struct task *task;
    struct amp_error err = {0};
    struct task_question asked = {
        .schema = given(params, "schema"),
        .options = given(params, "options"),
        .fallback = given(params, "default"),
        .is_multiple = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(params, "multiple")),
        .has_other = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(params, "other")),
    };
    enum amp_code code = rpc_task(rpc, params, &task, &err);
    if (code == AMP_OK)
        code = rpc_string(params, "prompt", &asked.prompt, &err);
    if (code == AMP_OK)
        code = rpc_number(params, "expiresMs", 0, &asked.expires_ms, &err);
    if (code == AMP_OK && !asked.prompt)
        code = amp_error_set(&err, AMP_INVALID, "prompt", "prompt is missing");
    if (code != AMP_OK) {
        rpc_fail(rpc, &err);
        return;
    }
    struct question *question = xcalloc(1, sizeof *question);
    question->rpc = rpc;
    question->task = task;
    rpc->state = question;
    rpc->cancel = withdraw_question;
    code = task_ask(task, &asked, on_answer, question, &err);
    if (code == AMP_OK)
        return;
    rpc->state = NULL;
    rpc->cancel = NULL;
    free(question);
    rpc_fail(rpc, &err);
}

/* ---- task.get, task.stop ---------------------------------------------------------------------------------- */

static cJSON *own_task(const struct task *task)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "id", task_id(task));
    cJSON_AddStringToObject(json, "contextId", task_context(task));
    cJSON *status = cJSON_AddObjectToObject(json, "status");
    cJSON_AddStringToObject(status, "state", amp_task_state_name(task_state(task)));
    cJSON *metadata = cJSON_AddObjectToObject(json, "metadata");
    cJSON_AddBoolToObject(metadata, "amp/canceled", task_is_canceled(task));
    cJSON_AddNumberToObject(metadata, "amp/attempt", task_attempt(task));
    return json;
}

static void on_env_task(struct rpc *rpc, const Amp__EnvReply *reply)
{
    struct amp_error err = {0};
    if (reply->n_tasks == 0) {
        rpc_fail_with(rpc, AMP_NO_SUCH_TASK, "taskId", "the environment does not know this task");
        return;
    }
    const cJSON *result = rpc_text_of(&reply->tasks[0]->task->base, (struct amp_bytes){0}, &err);
    if (result)
        rpc_done(rpc, result);
    else
        rpc_fail(rpc, &err);
}

static const char *wanted_task(struct rpc *rpc, const cJSON *params)
{
    const char *id;
    struct amp_error err = {0};
    enum amp_code code = rpc_id(params, "taskId", &id, &err);
    if (code == AMP_OK && !id)
        code = amp_error_set(&err, AMP_INVALID, "taskId", "taskId is missing");
    if (code == AMP_OK)
        return id;
    rpc_fail(rpc, &err);
    return NULL;
}

void rpc_task_get(struct rpc *rpc, const cJSON *params)
{
    const char *id = wanted_task(rpc, params);
    if (!id)
        return;
    struct amp_error err = {0};
    struct task *task = task_find(rpc->sidecar, id);
    struct sent *sent = rpc_sent_find(rpc->sidecar, id);
    if (!task && !sent) {
        Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
        Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
        query.id = (char *)id;
        request.verb_case = AMP__ENV_REQUEST__VERB_GET;
        request.get = &query;
        rpc_env_call(rpc, &request, on_env_task);
        return;
    }
    cJSON *own = task ? own_task(task) : NULL;
    const cJSON *result = task ? own : rpc_sent_task(sent, &err);
    if (result)
        rpc_done(rpc, result);
    else
        rpc_fail(rpc, &err);
    cJSON_Delete(own);
}

static void on_env_stopped(struct rpc *rpc, const Amp__EnvReply *reply)
{
    rpc_done_empty(rpc);
}

void rpc_task_stop(struct rpc *rpc, const cJSON *params)
{
    const char *reason;
    struct amp_error err = {0};
    if (rpc_string(params, "reason", &reason, &err) != AMP_OK) {
        rpc_fail(rpc, &err);
        return;
    }
    const char *id = wanted_task(rpc, params);
    if (!id)
        return;
    struct sent *sent = rpc_sent_find(rpc->sidecar, id);
    if (sent) {
        rpc_sent_cancel(sent, reason);
        on_env_stopped(rpc, NULL);
        return;
    }
    Amp__Cancel cancel = AMP__CANCEL__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    Amp__TaskCommand command = AMP__TASK_COMMAND__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    cancel.reason = (char *)reason;
    control.kind_case = AMP__CONTROL__KIND_CANCEL;
    control.cancel = &cancel;
    command.id = (char *)id;
    command.control = &control;
    request.verb_case = AMP__ENV_REQUEST__VERB_COMMAND;
    request.command = &command;
    rpc_env_call(rpc, &request, on_env_stopped);
}

/* The tasks in hand: taken, cancelled, run, ended. The sidecar opens at most `concurrency` at once, so the list is bounded. */
#include "client_private.h"

#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- taken ------------------------------------------------------------------------------------------------------------ */

static void refuse(struct amesh *mesh, const struct amesh_frame *frame, int number, const char *text)
{
    char *id = amesh_json_print(frame->id);
    struct amp_buf *out = amesh_link_begin(&mesh->link);
    amp_buf_printf(out, "{\"id\":%s,\"error\":{\"code\":%d,\"message\":\"%s\"}}", id ? id : "null", number, text);
    (void)amesh_link_send(&mesh->link); /* if it breaks, the next read says so */
    free(id);
}

static void fill(struct amesh_job *job, struct amesh *mesh)
{
    const cJSON *params = job->params, *resume = cJSON_GetObjectItemCaseSensitive(params, "resume");
    const char *text = amesh_json_string(params, "text"), *from = amesh_json_string(params, "from"), *context = amesh_json_string(params, "contextId");
    uint32_t attempt = amesh_json_number(params, "attempt");
    job->task = (struct amesh_task){
        .id = amesh_json_string(params, "taskId"),
        .context_id = context ? context : "",
        .text = text ? text : "",
        .from = from ? from : "",
        .parent = amesh_json_string(params, "parent"),
        .skill = amesh_json_string(params, "skill"),
        .resume = amesh_json_string(resume, "text"),
        .attempt = attempt ? attempt : 1,
        .timeout_ms = amesh_json_number(params, "timeoutMs"),
        .mesh = mesh,
    };
}

void amesh_job_take(struct amesh *mesh, struct amesh_frame *frame)
{
    const char *id = amesh_json_string(frame->params, "taskId");
    if (!id || !amp_id_is_valid(id)) {
        refuse(mesh, frame, -32602, "task.run without a taskId");
        return;
    }
    if (mesh->n_open >= mesh->concurrency) {
        refuse(mesh, frame, -32000, "this agent has as many tasks in hand as it said");
        return;
    }
    struct amesh_job *job = calloc(1, sizeof *job);
    char *id_json = amesh_json_print(frame->id);
    if (!job || !id_json) {
        free(job);
        free(id_json);
        refuse(mesh, frame, -32000, "the agent is out of memory");
        return;
    }
    job->id_json = id_json;
    job->params = cJSON_DetachItemFromObjectCaseSensitive(frame->json, "params");
    fill(job, mesh);
    TAILQ_INSERT_TAIL(&mesh->jobs, job, entry);
    mesh->n_open++;
}

void amesh_job_free(struct amesh_job *job)
{
    struct amesh *mesh = job->task.mesh;
    TAILQ_REMOVE(&mesh->jobs, job, entry);
    mesh->n_open -= job->is_finished ? 0 : 1;
    cJSON_Delete(job->params);
    free(job->id_json);
    free(job->message_json);
    free(job->meta_json);
    free(job);
}

/* ---- cancelled --------------------------------------------------------------------------------------------------------- */

void amesh_job_cancel(struct amesh *mesh, const cJSON *params)
{
    const char *id = amesh_json_string(params, "taskId");
    struct amesh_job *job = NULL;
    if (id)
        TAILQ_FOREACH(job, &mesh->jobs, entry)
            if (!job->is_finished && !strcmp(job->task.id, id))
                break;
    if (!job)
        return; /* it has just ended */
    job->is_canceled = true;
    if (job->is_begun)
        return;
    /* No handler has seen it: nothing is to be put away. */
    (void)amesh_task_cancel(&job->task, NULL);
}

bool amesh_task_is_canceled(struct amesh_task *task)
{
    struct amesh_job *job = amesh_job_of(task);
    if (!job->is_canceled && !task->mesh->is_in_event)
        (void)amesh_pump(task->mesh, 0); /* a broken connection is said by whatever needs it */
    return job->is_canceled;
}

enum amp_code amesh_task_wait(struct amesh_task *task, int timeout_ms)
{
    struct amesh *mesh = task->mesh;
    int64_t until_ms = timeout_ms < 0 ? INT64_MAX : amesh_now_ms() + timeout_ms;
    enum amp_code code = amesh_may_wait(mesh, task, NULL);
    while (code == AMP_OK && !amesh_job_of(task)->is_canceled) {
        int64_t left = timeout_ms < 0 ? -1 : until_ms - amesh_now_ms();
        if (timeout_ms >= 0 && left <= 0)
            return AMP_OK;
        code = amesh_pump(mesh, (int)left);
    }
    return code == AMP_OK ? AMP_CANCELED : code;
}

/* ---- run ------------------------------------------------------------------------------------------------------------------ */

void amesh_job_run(struct amesh_job *job)
{
    struct amesh *mesh = job->task.mesh;
    job->is_begun = job->is_running = true;
    mesh->handlers.on_task(&job->task, mesh->ctx);
    if (!job->is_finished && !job->is_kept)
        (void)(job->is_canceled ? amesh_task_cancel(&job->task, NULL) : amesh_task_complete(&job->task, NULL));
    job->is_running = false;
    if (!job->is_kept || job->is_finished)
        amesh_job_free(job); /* when the connection broke, unfinished */
}

void amesh_task_keep(struct amesh_task *task)
{
    amesh_job_of(task)->is_kept = true;
}

const char *amesh_task_message_json(struct amesh_task *task)
{
    struct amesh_job *job = amesh_job_of(task);
    const cJSON *message = cJSON_GetObjectItemCaseSensitive(job->params, "message");
    if (!job->message_json)
        job->message_json = message ? amesh_json_print(message) : strdup("{}");
    return job->message_json;
}

const char *amesh_task_meta_json(struct amesh_task *task)
{
    struct amesh_job *job = amesh_job_of(task);
    const cJSON *meta = cJSON_GetObjectItemCaseSensitive(job->params, "meta");
    if (!job->meta_json)
        job->meta_json = meta ? amesh_json_print(meta) : strdup("{}");
    return job->meta_json;
}

/* ---- ended ----------------------------------------------------------------------------------------------------------------- */

static struct amp_buf *begin_reply(struct amesh_job *job)
{
    struct amp_buf *out = amesh_link_begin(&job->task.mesh->link);
    amp_buf_printf(out, "{\"id\":%s", job->id_json);
    return out;
}

enum amp_code amesh_job_end(struct amesh_job *job)
{
    struct amesh *mesh = job->task.mesh;
    amesh_put_close(&mesh->link.out, 1);
    enum amp_code code = amesh_link_send(&mesh->link);
    if (code != AMP_OK && !mesh->link.is_broken)
        return code;
    job->is_finished = true;
    mesh->n_open--;
    if (!job->is_running)
        amesh_job_free(job);
    return code;
}

static AMP_PRINTF(3, 0) enum amp_code end_with(struct amesh_task *task, const char *state, const char *fmt, va_list args)
{
    char text[8 << 10] = "";
    if (amesh_job_of(task)->is_finished)
        return AMP_TASK_ENDED;
    struct amp_buf *out = begin_reply(amesh_job_of(task));
    int len = fmt ? vsnprintf(text, sizeof text, fmt, args) : 0;
    size_t kept = len < 0 ? 0 : (size_t)len < sizeof text ? (size_t)len : sizeof text - 1;
    amesh_put_open(out, "result");
    amesh_put_string(out, "state", state);
    if (kept)
        amesh_put_bytes(out, "message", (struct amp_bytes){(const uint8_t *)text, kept});
    amesh_put_close(out, 1);
    return amesh_job_end(amesh_job_of(task));
}

enum amp_code amesh_task_complete(struct amesh_task *task, const char *text)
{
    struct amesh_job *job = amesh_job_of(task);
    size_t len = text ? strlen(text) : 0;
    enum amp_code code = job->is_finished ? AMP_TASK_ENDED : AMP_OK;
    if (job->is_text_written)
        text = NULL;
    if (code == AMP_OK && text && len > AMESH_TEXT_PIECE) {
        code = amesh_job_text(job, "text", text, len);
        text = NULL;
    }
    if (code != AMP_OK)
        return code;
    struct amp_buf *out = begin_reply(job);
    if (text)
        amesh_put_bytes(out, "result", (struct amp_bytes){(const uint8_t *)text, len});
    else
        amp_buf_printf(out, ",\"result\":null");
    return amesh_job_end(job);
}

#define END_WITH(state) \
    va_list args; \
    va_start(args, fmt); \
    enum amp_code code = end_with(task, state, fmt, args); \
    va_end(args); \
    return code

enum amp_code amesh_task_fail(struct amesh_task *task, const char *fmt, ...)
{
    END_WITH("failed");
}

enum amp_code amesh_task_reject(struct amesh_task *task, const char *fmt, ...)
{
    END_WITH("rejected");
}

enum amp_code amesh_task_busy(struct amesh_task *task, const char *fmt, ...)
{
    END_WITH("busy");
}

enum amp_code amesh_task_cancel(struct amesh_task *task, const char *fmt, ...)
{
    END_WITH("canceled");
}

enum amp_code amesh_task_require_input(struct amesh_task *task, const char *fmt, ...)
{
    END_WITH("input-required");
}

enum amp_code amesh_task_finish_json(struct amesh_task *task, const char *outcome_json, struct amp_error *reterr)
{
    if (amesh_job_of(task)->is_finished)
        return amp_error_set(reterr, AMP_TASK_ENDED, "", "the task is finished already");
    struct amp_buf *out = begin_reply(amesh_job_of(task));
    enum amp_code code = amesh_put_json(out, "result", outcome_json, reterr);
    if (code != AMP_OK)
        return code;
    code = amesh_job_end(amesh_job_of(task));
    return code == AMP_OK ? code : amp_error_set(reterr, code, "", "%s", amp_code_info(code)->text);
}

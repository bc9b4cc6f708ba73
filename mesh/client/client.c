/* One connection: how it begins, what arrives on it, and who waits for what. Handlers of tasks run from amesh_step only, never from inside a wait, so that a handler's
 * stack is never under another handler's. */
#include "client_private.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { HELLO_MS = 10000 };

/* ---- what arrives -------------------------------------------------------------------------------------------------- */

static struct amesh_wait *find_wait(struct amesh *mesh, uint64_t number)
{
    struct amesh_wait *wait;
    LIST_FOREACH(wait, &mesh->waits, entry)
        if (wait->number == number)
            return wait;
    return NULL;
}

static void take_reply(struct amesh *mesh, struct amesh_frame *frame)
{
    struct amesh_wait *wait = find_wait(mesh, frame->number);
    if (wait && !wait->is_done) {
        wait->reply = *frame;
        wait->is_done = true;
        *frame = (struct amesh_frame){0};
    } else if (frame->number == 0) {
        (void)amesh_frame_error(frame->error, &mesh->link.error); /* why it closes now, most likely */
    } /* else nobody waits any more */
}

static void tell_text(const struct amesh_call *call, const cJSON *event)
{
    const cJSON *update = cJSON_GetObjectItemCaseSensitive(event, "artifactUpdate");
    const cJSON *artifact = cJSON_GetObjectItemCaseSensitive(update, "artifact"), *part;
    const char *id = amesh_json_string(artifact, "artifactId");
    if (!id || strcmp(id, "response") != 0)
        return;
    cJSON_ArrayForEach(part, cJSON_GetObjectItemCaseSensitive(artifact, "parts")) {
        const char *text = amesh_json_string(part, "text");
        if (text && *text)
            call->on_text(call->ctx, text);
    }
}

static void take_event(struct amesh *mesh, const cJSON *params)
{
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(params, "id"), *event = cJSON_GetObjectItemCaseSensitive(params, "event");
    bool is_number = cJSON_IsNumber(id) && id->valuedouble >= 1 && id->valuedouble <= (double)mesh->next_number;
    struct amesh_wait *wait = is_number ? find_wait(mesh, (uint64_t)id->valuedouble) : NULL;
    if (!wait || wait->is_done || !wait->call || !event)
        return;
    const struct amesh_call *call = wait->call;
    mesh->is_in_event = true;
    if (call->on_event) {
        char *json = amesh_json_print(event);
        if (json)
            call->on_event(call->ctx, amesh_json_number(params, "seq"), json);
        free(json);
    }
    if (call->on_text)
        tell_text(call, event);
    mesh->is_in_event = false;
}

static void answer(struct amesh *mesh, const struct amesh_frame *frame)
{
    char *id = amesh_json_print(frame->id);
    struct amp_buf *out = amesh_link_begin(&mesh->link);
    if (!strcmp(frame->method, "ping"))
        amp_buf_printf(out, "{\"id\":%s,\"result\":{}}", id ? id : "null");
    else
        amp_buf_printf(out, "{\"id\":%s,\"error\":{\"code\":-32601,\"message\":\"this agent has no such method\"}}", id ? id : "null");
    (void)amesh_link_send(&mesh->link); /* if it breaks, the next read says so */
    free(id);
}

static void take_frame(struct amesh *mesh, struct amesh_frame *frame)
{
    if (!frame->method)
        take_reply(mesh, frame);
    else if (!strcmp(frame->method, "task.run") && frame->id)
        amesh_job_take(mesh, frame);
    else if (!strcmp(frame->method, "task.cancel"))
        amesh_job_cancel(mesh, frame->params);
    else if (!strcmp(frame->method, "send.event"))
        take_event(mesh, frame->params);
    else if (!strcmp(frame->method, "drain"))
        mesh->is_draining = true;
    else if (frame->id)
        answer(mesh, frame);
}

static enum amp_code take_lines(struct amesh *mesh)
{
    struct amp_bytes line;
    enum amp_code code = AMP_OK;
    while (code == AMP_OK && amesh_link_line(&mesh->link, &line)) {
        struct amesh_frame frame;
        struct amp_error err = {0};
        if (line.len && line.data[line.len - 1] == '\r')
            line.len--;
        if (line.len == 0)
            continue;
        code = amesh_frame_decode(line, &frame, &err);
        if (code == AMP_OK)
            take_frame(mesh, &frame);
        else
            code = amesh_link_break(&mesh->link, code, err.message);
        amesh_frame_done(&frame);
    }
    return code;
}

enum amp_code amesh_pump(struct amesh *mesh, int timeout_ms)
{
    enum amp_code code = amesh_link_read(&mesh->link, timeout_ms);
    return code == AMP_OK ? take_lines(mesh) : code;
}

enum amp_code amesh_broken(const struct amesh *mesh, struct amp_error *reterr)
{
    if (reterr)
        *reterr = mesh->link.error;
    return mesh->link.error.code;
}

/* ---- requests -------------------------------------------------------------------------------------------------------- */

struct amp_buf *amesh_request_begin(struct amesh *mesh, struct amesh_wait *wait, const char *method, const struct amesh_task *task)
{
    struct amp_buf *out = amesh_link_begin(&mesh->link);
    *wait = (struct amesh_wait){.number = ++mesh->next_number};
    amp_buf_printf(out, "{\"id\":%llu", (unsigned long long)wait->number);
    amesh_put_string(out, "method", method);
    amesh_put_open(out, "params");
    if (task)
        amesh_put_string(out, "taskId", task->id);
    return out;
}

enum amp_code amesh_may_wait(struct amesh *mesh, struct amesh_task *task, struct amp_error *reterr)
{
    if (mesh->is_in_event)
        return amp_error_set(reterr, AMP_CONFLICT, "", "nothing can be waited for from inside on_event or on_text");
    if (mesh->link.is_broken)
        return amesh_broken(mesh, reterr);
    if (task && amesh_job_of(task)->is_finished)
        return amp_error_set(reterr, AMP_TASK_ENDED, "", "the task is finished already");
    if (task && amesh_job_of(task)->is_canceled)
        return amp_error_set(reterr, AMP_CANCELED, "", "the task was cancelled");
    return AMP_OK;
}

enum amp_code amesh_request_send(struct amesh *mesh, struct amesh_wait *wait, struct amp_error *reterr)
{
    amesh_put_close(&mesh->link.out, 2);
    enum amp_code code = amesh_link_send(&mesh->link);
    if (code == AMP_TOO_LARGE && !mesh->link.is_broken)
        return amp_error_set(reterr, code, "", "the request is longer than a line of the local API may be, %u bytes", AMP_LINE_MAX);
    if (code != AMP_OK)
        return amesh_broken(mesh, reterr);
    LIST_INSERT_HEAD(&mesh->waits, wait, entry);
    return AMP_OK;
}

enum amp_code amesh_request_reply(struct amesh *mesh, const struct amesh_wait *wait, const struct amesh_task *task, struct amp_error *reterr)
{
    while (!wait->is_done) {
        if (task && ((const struct amesh_job *)task)->is_canceled)
            return amp_error_set(reterr, AMP_CANCELED, "", "the task was cancelled");
        int64_t left = wait->until_ms ? wait->until_ms - amesh_now_ms() : -1;
        if (wait->until_ms && left <= 0)
            return amp_error_set(reterr, AMP_DEADLINE, "", "the sidecar does not answer");
        if (amesh_pump(mesh, (int)left) != AMP_OK)
            return amesh_broken(mesh, reterr);
    }
    return wait->reply.error ? amesh_frame_error(wait->reply.error, reterr) : AMP_OK;
}

void amesh_request_drop(struct amesh_wait *wait)
{
    LIST_REMOVE(wait, entry);
}

enum amp_code amesh_request_wait(struct amesh *mesh, struct amesh_wait *wait, struct amesh_task *task, struct amp_error *reterr)
{
    enum amp_code code = amesh_request_send(mesh, wait, reterr);
    if (code != AMP_OK)
        return code;
    code = amesh_request_reply(mesh, wait, task, reterr);
    amesh_request_drop(wait);
    return code;
}

enum amp_code amesh_request(struct amesh *mesh, const char *method, const char *params_json, char **ret_result_json, struct amp_error *reterr)
{
    struct amesh_wait wait = {.number = ++mesh->next_number};
    struct amp_buf *out = amesh_link_begin(&mesh->link);
    *ret_result_json = NULL;
    enum amp_code code = amesh_may_wait(mesh, NULL, reterr);
    if (code != AMP_OK)
        return code;
    /* The end of the line is that of every request, so the params' own brace is taken off and put back there. */
    amp_buf_printf(out, "{\"id\":%llu", (unsigned long long)wait.number);
    amesh_put_string(out, "method", method);
    code = amesh_put_json(out, "params", params_json ? params_json : "{}", reterr);
    if (code != AMP_OK)
        return code;
    while (out->len && out->data[out->len - 1] != '}' && (out->data[out->len - 1] == ' ' || out->data[out->len - 1] == '\t'))
        out->len--;
    if (out->len && out->data[out->len - 1] != '}')
        return amp_error_set(reterr, AMP_INVALID, "params", "params must be an object");
    out->len--;
    code = amesh_request_wait(mesh, &wait, NULL, reterr);
    if (code == AMP_OK && !(*ret_result_json = amesh_json_print(wait.reply.result)))
        code = amp_error_set(reterr, AMP_NO_MEMORY, "", "out of memory");
    amesh_frame_done(&wait.reply);
    return code;
}

enum amp_code amesh_log(struct amesh *mesh, const char *level, const char *text)
{
    struct amp_buf *out = amesh_link_begin(&mesh->link);
    amp_buf_printf(out, "{\"method\":\"log\"");
    amesh_put_open(out, "params");
    amesh_put_string(out, "level", level);
    amesh_put_bytes(out, "text", (struct amp_bytes){(const uint8_t *)text, amp_bytes_of(text).len < AMESH_TEXT_PIECE ? amp_bytes_of(text).len : AMESH_TEXT_PIECE});
    amesh_put_close(out, 2);
    return amesh_link_send(&mesh->link);
}

/* ---- serving ---------------------------------------------------------------------------------------------------------- */

static struct amesh_job *first_waiting(const struct amesh *mesh)
{
    struct amesh_job *job;
    TAILQ_FOREACH(job, &mesh->jobs, entry)
        if (!job->is_begun)
            return mesh->handlers.on_task ? job : NULL;
    return NULL;
}

void amesh_set_handlers(struct amesh *mesh, const struct amesh_handlers *handlers, void *ctx)
{
    mesh->handlers = *handlers;
    mesh->ctx = ctx;
}

int amesh_fd(const struct amesh *mesh)
{
    return mesh->link.fd;
}

bool amesh_is_pending(const struct amesh *mesh)
{
    const struct amesh_job *job;
    TAILQ_FOREACH(job, &mesh->jobs, entry)
        if (job->is_begun && job->is_canceled && !job->is_cancel_told && !job->is_running)
            return true;
    return first_waiting(mesh) != NULL;
}

static void tell_cancels(struct amesh *mesh)
{
    struct amesh_job *job = TAILQ_FIRST(&mesh->jobs);
    while (job) {
        struct amesh_job *next = TAILQ_NEXT(job, entry);
        if (job->is_begun && job->is_canceled && !job->is_cancel_told) {
            job->is_cancel_told = true;
            if (mesh->handlers.on_cancel) {
                mesh->handlers.on_cancel(&job->task, mesh->ctx); /* may finish any task: begin again */
                next = TAILQ_FIRST(&mesh->jobs);
            }
        }
        job = next;
    }
}

static enum amp_code step(struct amesh *mesh, int timeout_ms, struct amp_error *reterr)
{
    bool has_work = amesh_is_pending(mesh) || (mesh->is_draining && mesh->n_open == 0);
    if (amesh_pump(mesh, has_work ? 0 : timeout_ms) != AMP_OK && !(mesh->is_draining && mesh->n_open == 0))
        return amesh_broken(mesh, reterr);
    /* As many as could be open at once, so that a host's loop gets its turn. */
    for (uint32_t i = 0; i < mesh->concurrency && first_waiting(mesh); i++)
        amesh_job_run(first_waiting(mesh));
    tell_cancels(mesh);
    if (mesh->is_draining && mesh->n_open == 0)
        return amp_error_set(reterr, AMP_STOPPING, "", "the sidecar has drained this agent");
    return mesh->link.is_broken ? amesh_broken(mesh, reterr) : AMP_OK;
}

enum amp_code amesh_step(struct amesh *mesh, int timeout_ms, struct amp_error *reterr)
{
    if (mesh->is_stepping || mesh->is_in_event)
        return amp_error_set(reterr, AMP_CONFLICT, "", "amesh_step was called from inside a handler");
    mesh->is_stepping = true;
    enum amp_code code = step(mesh, timeout_ms, reterr);
    mesh->is_stepping = false;
    return code;
}

enum amp_code amesh_serve(struct amesh *mesh, amesh_task_handler *on_task, void *ctx, struct amp_error *reterr)
{
    amesh_set_handlers(mesh, &(struct amesh_handlers){.on_task = on_task}, ctx);
    enum amp_code code;
    do
        code = amesh_step(mesh, -1, reterr);
    while (code == AMP_OK);
    return code == AMP_STOPPING ? AMP_OK : code;
}

/* ---- beginning and end ------------------------------------------------------------------------------------------------- */

static void put_skills(struct amp_buf *out, const char *const *skills)
{
    amesh_put_open(out, "card");
    amp_buf_printf(out, "\"skills\":[");
    for (size_t i = 0; skills[i]; i++) {
        const char *colon = strchr(skills[i], ':');
        size_t len = colon ? (size_t)(colon - skills[i]) : strlen(skills[i]);
        amp_buf_printf(out, "%s{", i ? "," : "");
        amesh_put_bytes(out, "id", (struct amp_bytes){(const uint8_t *)skills[i], len});
        amesh_put_string(out, "description", colon ? colon + 1 : NULL);
        amp_buf_printf(out, "}");
    }
    amp_buf_printf(out, "]}");
}

static enum amp_code hello(struct amesh *mesh, const struct amesh_options *options, struct amp_error *reterr)
{
    struct amesh_wait wait;
    struct amp_buf *out = amesh_request_begin(mesh, &wait, "hello", NULL);
    wait.until_ms = amesh_now_ms() + HELLO_MS;
    amesh_put_number(out, "proto", 1);
    amesh_put_string(out, "role", options->is_caller ? "caller" : "worker");
    if (!options->is_caller)
        amesh_put_number(out, "concurrency", mesh->concurrency);
    amesh_put_string(out, "framework", options->framework ? options->framework : "c");
    if (options->skills && !options->card_json)
        put_skills(out, options->skills);
    enum amp_code code = amesh_put_json(out, "card", options->card_json, reterr);
    if (code == AMP_OK)
        code = amesh_request_wait(mesh, &wait, NULL, reterr);
    const char *agent = amesh_json_string(wait.reply.result, "agent"), *instance = amesh_json_string(wait.reply.result, "instance");
    snprintf(mesh->agent, sizeof mesh->agent, "%s", agent ? agent : "");
    snprintf(mesh->instance, sizeof mesh->instance, "%s", instance ? instance : "");
    amesh_frame_done(&wait.reply);
    return code;
}

enum amp_code amesh_adopt(int fd, const struct amesh_options *options, struct amesh **ret, struct amp_error *reterr)
{
    static const struct amesh_options none;
    struct amesh *mesh = calloc(1, sizeof *mesh);
    *ret = NULL;
    if (!mesh) {
        close(fd);
        return amp_error_set(reterr, AMP_NO_MEMORY, "", "out of memory");
    }
    if (!options)
        options = &none;
    amesh_link_init(&mesh->link, fd);
    TAILQ_INIT(&mesh->jobs);
    LIST_INIT(&mesh->waits);
    mesh->concurrency = options->concurrency ? options->concurrency : 1;
    enum amp_code code = hello(mesh, options, reterr);
    if (code == AMP_OK)
        *ret = mesh;
    else
        amesh_free(mesh);
    return code;
}

static enum amp_code dial(const char *path, int *ret, struct amp_error *reterr)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return amp_error_set(reterr, AMP_INVALID, "socket", "the path of the sidecar's socket is too long: %s", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int result = fd < 0 ? -1 : connect(fd, (const struct sockaddr *)&address, sizeof address);
    if (result == 0) {
        *ret = fd;
        return AMP_OK;
    }
    amp_error_set(reterr, AMP_NO_SIDECAR, "socket", "no sidecar answers on %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    amp_error_hint(reterr, "amesh run --mode dial -- THIS-PROGRAM");
    return AMP_NO_SIDECAR;
}

static enum amp_code inherit(const char *text, int *ret, struct amp_error *reterr)
{
    char *end;
    errno = 0;
    long fd = strtol(text, &end, 10);
    int type;
    socklen_t size = sizeof type;
    if (errno || *end || fd < 0 || fd > INT32_MAX || getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM)
        return amp_error_set(reterr, AMP_INVALID, "AMESH_FD", "AMESH_FD is \"%s\", which is no connected socket of this process", text);
    (void)fcntl((int)fd, F_SETFD, FD_CLOEXEC);
    unsetenv("AMESH_FD"); /* what we start must not believe that it has one */
    *ret = (int)fd;
    return AMP_OK;
}

enum amp_code amesh_connect(const struct amesh_options *options, struct amesh **ret, struct amp_error *reterr)
{
    const char *fd_text = getenv("AMESH_FD"), *path = options ? options->socket : NULL;
    int fd = -1;
    *ret = NULL;
    if (path)
        fd_text = NULL;
    else
        path = getenv("AMESH_SOCK");
    if (!(fd_text && *fd_text) && !(path && *path)) {
        amp_error_set(reterr, AMP_NO_SIDECAR, "", "neither AMESH_FD nor AMESH_SOCK is set: there is no sidecar beside this program");
        amp_error_hint(reterr, "amesh run --mode dial -- THIS-PROGRAM");
        return AMP_NO_SIDECAR;
    }
    enum amp_code code = fd_text && *fd_text ? inherit(fd_text, &fd, reterr) : dial(path, &fd, reterr);
    return code == AMP_OK ? amesh_adopt(fd, options, ret, reterr) : code;
}

void amesh_free(struct amesh *mesh)
{
    if (!mesh)
        return;
    while (!TAILQ_EMPTY(&mesh->jobs))
        amesh_job_free(TAILQ_FIRST(&mesh->jobs));
    amesh_link_done(&mesh->link);
    free(mesh);
}

const char *amesh_agent(const struct amesh *mesh)
{
    return mesh->agent;
}

const char *amesh_instance(const struct amesh *mesh)
{
    return mesh->instance;
}

/* Requests of the agent become rpcs; replies of the agent go to the worker. The rpc of a notification has nobody to answer, so its error is logged. */
#include "sidecar/peer.h"

#include "base/alloc.h"
#include "base/log.h"
#include "sidecar/rpc.h"
#include "sidecar/session.h"
#include "sidecar/sidecar.h"
#include "sidecar/task.h"
#include "sidecar/worker_link.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define FULL_BYTES (1u << 20) /* that wait to be read, until streams are held back */

enum { RPC_METHOD = -32601, RPC_SERVER = -32000, RPC_CANCELED = -32800 };

struct asked { /* an open request */
    struct peer *peer;
    struct rpc *rpc;
    const cJSON *id; /* &own_id, or NULL: a notification */
    cJSON own_id;
    char id_text[SESSION_ID_MAX + 1];
    char method[32];
    char *head; /* of its events, once there was one */
    size_t head_len;
    char *answer; /* its result: it waits, as what is before it has not been read */
    bool is_done;
    LIST_ENTRY(asked) entry;
};

struct peer {
    struct sidecar *sidecar;
    struct session *session;
    struct peer_handlers handlers;
    enum amp_code (*write)(void *ctx, struct amp_bytes data);
    void *ctx, *seat;
    pid_t pid;
    LIST_HEAD(, asked) open;
    unsigned n_open;
    bool is_full;
    struct task_room room; /* waits while nothing more is read */
};

static struct spares all_asked;

static void reply_error(struct peer *peer, const cJSON *id, const char *method, const struct amp_error *err)
{
    int number = err->code == AMP_CANCELED ? RPC_CANCELED : err->code == AMP_UNSUPPORTED ? RPC_METHOD : RPC_SERVER;
    if (!id)
        log_event(LOG_WARN, "agent.notification_refused", "agent", sidecar_agent(peer->sidecar), "method", method, "error", err->message, NULL);
    else if (session_error(peer->session, id, number, err) != AMP_OK)
        session_close(peer->session, "the peer does not read its answers");
}

/* ---- a reader that does not read ---------------------------------------------------------------------- */

static size_t waiting(const struct peer *peer)
{
    return session_waiting(peer->session) + (peer->handlers.waiting ? peer->handlers.waiting(peer->ctx) : 0);
}

/* Too much waits: the streams of this connection are held back, so that nothing is lost and nobody else waits. */
static void press(struct peer *peer)
{
    struct asked *asked;
    if (peer->is_full || waiting(peer) < FULL_BYTES)
        return;
    peer->is_full = true;
    LIST_FOREACH(asked, &peer->open, entry) rpc_hold(asked->rpc, true);
}

static void reply_text(struct peer *peer, const cJSON *id, const char *text)
{
    if (session_reply(peer->session, id, amp_bytes_of(text)) == AMP_OK) {
        press(peer);
        return;
    }
    struct amp_error err = {0};
    amp_error_set(&err, AMP_TOO_LARGE, "", "the answer is larger than what may wait on this connection");
    reply_error(peer, id, "", &err);
}

/* A result that is text already goes out as it is. */
static void reply_result(struct peer *peer, const cJSON *id, const cJSON *result)
{
    char *text = cJSON_IsRaw(result) ? result->valuestring : cJSON_PrintUnformatted(result);
    if (!text)
        abort();
    reply_text(peer, id, text);
    if (!cJSON_IsRaw(result))
        free(text);
}

static void asked_free(struct asked *asked)
{
    LIST_REMOVE(asked, entry);
    asked->peer->n_open--;
    rpc_free(asked->rpc);
    free(asked->head);
    free(asked->answer);
    spares_free(&all_asked, asked);
}

/* The frame is gone before the answer: its id is a number or a short string (session.h). */
static void keep_id(struct asked *asked, const cJSON *id)
{
    asked->id = &asked->own_id;
    asked->own_id = (cJSON){.type = id->type, .valueint = id->valueint, .valuedouble = id->valuedouble};
    if (!cJSON_IsString(id))
        return;
    snprintf(asked->id_text, sizeof asked->id_text, "%s", id->valuestring);
    asked->own_id.valuestring = asked->id_text;
}

/* Its rpc is done, and not at work any more. */
static void settle(struct asked *asked)
{
    if (!asked->answer) {
        asked_free(asked);
        return;
    }
    rpc_free(asked->rpc);
    asked->rpc = NULL;
}

static void on_rpc_done(void *ctx, const cJSON *result, const struct amp_error *err)
{
    struct asked *asked = ctx;
    if (err && err->code != AMP_OK)
        reply_error(asked->peer, asked->id, asked->method, err);
    else if (asked->id && asked->peer->is_full)
        asked->answer = cJSON_IsRaw(result) ? xstrdup(result->valuestring) : cJSON_PrintUnformatted(result);
    else if (asked->id)
        reply_result(asked->peer, asked->id, result);
    asked->is_done = true;
    if (asked->rpc) /* else rpc_start has not returned yet: it settles */
        settle(asked);
}

static struct asked *next_answer(struct peer *peer)
{
    struct asked *asked;
    LIST_FOREACH(asked, &peer->open, entry)
        if (asked->answer)
            break;
    return asked;
}

void peer_drained(struct peer *peer)
{
    struct asked *asked;
    if (!peer->is_full || waiting(peer) > 0)
        return;
    peer->is_full = false;
    while (!peer->is_full && (asked = next_answer(peer))) {
        reply_text(peer, asked->id, asked->answer);
        asked_free(asked);
    }
    if (!peer->is_full)
        LIST_FOREACH(asked, &peer->open, entry) rpc_hold(asked->rpc, false);
}

/* What each of its events begins with. */
static struct amp_bytes event_head(struct asked *asked)
{
    char room[SESSION_ID_ROOM];
    if (!asked->head) {
        char *id = session_id_text(asked->id, room);
        asked->head = xasprintf("{\"id\":%s,\"seq\":", id ? id : "null");
        asked->head_len = strlen(asked->head);
        if (id != room)
            free(id);
    }
    return (struct amp_bytes){(const uint8_t *)asked->head, asked->head_len};
}

static struct amp_bytes digits_of(uint32_t number, char ret[10])
{
    size_t at = 10;
    do {
        ret[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    return (struct amp_bytes){(const uint8_t *)ret + at, 10 - at};
}

static void on_rpc_event(void *ctx, uint32_t seq, struct amp_bytes stream_response)
{
    static const char middle[] = ",\"event\":", end[] = "}";
    struct asked *asked = ctx;
    char digits[10];
    if (!asked->id)
        return;
    const struct amp_bytes pieces[] = {event_head(asked), digits_of(seq, digits), {(const uint8_t *)middle, sizeof middle - 1}, stream_response, {(const uint8_t *)end, sizeof end - 1}};
    if (session_stream(asked->peer->session, "send.event", pieces, sizeof pieces / sizeof *pieces) != AMP_OK)
        session_close(asked->peer->session, "the peer does not read the events it asked for");
    else
        press(asked->peer);
}

static void start_rpc(struct peer *peer, const char *method, const cJSON *params, const cJSON *id)
{
    static const struct rpc_handlers handlers = {.on_done = on_rpc_done, .on_event = on_rpc_event};
    if (peer->n_open >= PEER_REQUESTS_MAX) {
        struct amp_error err = {0};
        amp_error_set(&err, AMP_OVERLOADED, "", "%u requests of this connection are open already", PEER_REQUESTS_MAX);
        reply_error(peer, id, method, &err);
        return;
    }
    struct asked *asked = spares_calloc(&all_asked, sizeof *asked);
    asked->peer = peer;
    if (id)
        keep_id(asked, id);
    strncpy(asked->method, method, sizeof asked->method - 1);
    LIST_INSERT_HEAD(&peer->open, asked, entry);
    peer->n_open++;
    struct rpc *rpc = rpc_start(peer->sidecar, method, params, &handlers, asked);
    asked->rpc = rpc;
    if (asked->is_done)
        settle(asked);
    else if (peer->is_full)
        rpc_hold(rpc, true);
}

/* The asker does not want the answer any more: as if its connection had closed, for this one request (local-api.md 3). */
static void take_back(struct peer *peer, const cJSON *params)
{
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(params, "id");
    struct amp_error err = {0};
    struct asked *asked;
    LIST_FOREACH(asked, &peer->open, entry)
        if (id && asked->id && cJSON_Compare(asked->id, id, true) && !strcmp(asked->method, "send"))
            break;
    if (!asked)
        return; /* it has just been answered */
    amp_error_set(&err, AMP_CANCELED, "", "the call was taken back");
    reply_error(peer, asked->id, asked->method, &err);
    asked_free(asked);
}

/* ---- hello ------------------------------------------------------------------------------------------- */

static enum amp_code greet(struct peer *peer, const cJSON *params, struct amp_error *reterr)
{
    const cJSON *proto = cJSON_GetObjectItemCaseSensitive(params, "proto");
    const cJSON *role = cJSON_GetObjectItemCaseSensitive(params, "role");
    const cJSON *concurrency = cJSON_GetObjectItemCaseSensitive(params, "concurrency");
    const cJSON *card = cJSON_GetObjectItemCaseSensitive(params, "card");
    if (proto && !(cJSON_IsNumber(proto) && proto->valuedouble == 1))
        return amp_error_set(reterr, AMP_VERSION, "proto", "this sidecar speaks version 1 of the local API");
    if (role && !(cJSON_IsString(role) && (!strcmp(role->valuestring, "worker") || !strcmp(role->valuestring, "caller"))))
        return amp_error_set(reterr, AMP_INVALID, "role", "role is \"worker\" or \"caller\"");
    if (concurrency && !(cJSON_IsNumber(concurrency) && concurrency->valuedouble >= 1 && concurrency->valuedouble <= 1000000))
        return amp_error_set(reterr, AMP_INVALID, "concurrency", "concurrency is a number from 1 up");
    if (role && !strcmp(role->valuestring, "caller"))
        return AMP_OK;
    uint32_t slots = concurrency ? (uint32_t)concurrency->valuedouble : sidecar_options(peer->sidecar)->slots;
    enum amp_code code = worker_link_hello(peer->sidecar, peer, slots, reterr);
    return code == AMP_OK && card ? sidecar_take_card(peer->sidecar, card, reterr) : code;
}

static void take_hello(struct peer *peer, const cJSON *params, const cJSON *id)
{
    struct amp_error err = {0};
    cJSON *result = cJSON_CreateObject();
    cJSON_AddNumberToObject(result, "proto", 1);
    cJSON_AddStringToObject(result, "agent", sidecar_agent(peer->sidecar));
    cJSON_AddStringToObject(result, "instance", sidecar_instance(peer->sidecar));
    cJSON_AddStringToObject(result, "version", amp_version());
    cJSON_AddNumberToObject(result, "slots", sidecar_options(peer->sidecar)->slots);
    enum amp_code code = greet(peer, params, &err);
    if (code != AMP_OK)
        reply_error(peer, id, "hello", &err);
    else if (id)
        reply_result(peer, id, result);
    cJSON_Delete(result);
    if (code == AMP_OK)
        worker_link_greeted(peer->sidecar, peer); /* the answer to hello comes before the first task */
}

/* ---- session -------------------------------------------------------------------------------------------- */

static void pause_peer(struct peer *peer, bool is_paused)
{
    if (peer->handlers.on_pause)
        peer->handlers.on_pause(peer->ctx, is_paused);
    else
        session_pause(peer->session, is_paused);
}

static void on_room(void *ctx)
{
    pause_peer(ctx, false);
}

/* An agent faster than its caller is not read for a while: its write blocks, which loses nothing. */
static void brake(struct peer *peer, const cJSON *params)
{
    const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(params, "taskId"));
    struct task *task = id ? task_find(peer->sidecar, id) : NULL;
    if (!task || peer->room.task || !task_is_full(task))
        return;
    task_room_wait(task, &peer->room);
    pause_peer(peer, true);
}

static void on_request(void *ctx, const char *method, const cJSON *params, const cJSON *id)
{
    struct peer *peer = ctx;
    if (!strcmp(method, "hello")) {
        take_hello(peer, params, id);
        return;
    }
    if (!strcmp(method, "send.cancel") && !id) {
        take_back(peer, params);
        return;
    }
    start_rpc(peer, method, params, id);
    if (!strcmp(method, "task.event"))
        brake(peer, params);
}

static void on_reply(void *ctx, uint64_t number, const cJSON *result, const cJSON *error)
{
    struct peer *peer = ctx;
    worker_link_reply(peer->sidecar, peer, number, result, error);
}

static void on_bad_line(void *ctx, struct amp_bytes line, const struct amp_error *err)
{
    struct peer *peer = ctx;
    worker_link_bad_line(peer->sidecar, peer, line, err);
}

static void on_drained(void *ctx)
{
    peer_drained(ctx);
}

static void on_text(void *ctx, struct amp_bytes line)
{
    struct peer *peer = ctx;
    if (peer->handlers.on_text)
        peer->handlers.on_text(peer->ctx, line);
}

static void on_closed(void *ctx, const char *reason)
{
    struct peer *peer = ctx;
    peer->handlers.on_closed(peer->ctx, peer, reason);
}

static enum amp_code write_fed(void *ctx, struct amp_bytes data)
{
    struct peer *peer = ctx;
    return peer->write(peer->ctx, data);
}

static const struct session_handlers session_handlers = {.on_request = on_request, .on_reply = on_reply, .on_text = on_text, .on_bad_line = on_bad_line, .on_drained = on_drained, .on_closed = on_closed};

static struct peer *make(struct sidecar *sidecar, pid_t pid, const struct peer_handlers *handlers, void *ctx)
{
    struct peer *peer = xcalloc(1, sizeof *peer);
    peer->sidecar = sidecar;
    peer->handlers = *handlers;
    peer->ctx = ctx;
    peer->pid = pid;
    peer->room = (struct task_room){.on_room = on_room, .ctx = peer};
    LIST_INIT(&peer->open);
    return peer;
}

struct peer *peer_new(struct sidecar *sidecar, int fd, pid_t pid, const struct peer_handlers *handlers, void *ctx)
{
    struct peer *peer = make(sidecar, pid, handlers, ctx);
    peer->session = session_new(sidecar_loop(sidecar), fd, fd, false, &session_handlers, peer);
    return peer;
}

struct peer *peer_new_fed(struct sidecar *sidecar, enum amp_code (*write)(void *ctx, struct amp_bytes data), pid_t pid, const struct peer_handlers *handlers, void *ctx)
{
    struct peer *peer = make(sidecar, pid, handlers, ctx);
    peer->write = write;
    peer->session = session_new_fed(sidecar_loop(sidecar), true, &session_handlers, write_fed, peer);
    return peer;
}

void peer_free(struct peer *peer)
{
    if (!peer)
        return;
    while (!LIST_EMPTY(&peer->open))
        asked_free(LIST_FIRST(&peer->open));
    task_room_cancel(&peer->room);
    session_free(peer->session);
    free(peer);
}

struct session *peer_session(struct peer *peer)
{
    return peer->session;
}

pid_t peer_pid(const struct peer *peer)
{
    return peer->pid;
}

void peer_set_seat(struct peer *peer, void *seat)
{
    peer->seat = seat;
}

void *peer_seat(const struct peer *peer)
{
    return peer->seat;
}

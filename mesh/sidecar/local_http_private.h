/* What the files local_http*.c share. */
#pragma once
#include <amp/amp.h>

#include "sidecar/rpc.h"
#include "sidecar/task.h"

struct cJSON;
struct http_request;
struct lease_poll;
struct loop_timer;
struct sidecar;

enum local_form { FORM_JSON, FORM_TEXT, FORM_SSE };

struct exchange { /* a request whose answer is being made */
    struct sidecar *sidecar;
    struct http_request *request;
    struct rpc *rpc;
    struct lease_poll *poll;
    struct loop_timer *comment; /* SSE: keeps proxies and the client's own timeout quiet */
    char task[AMP_NAME_MAX + 1];
    struct task_room room;      /* the answer waits for it */
    enum local_form form;
    bool is_started, is_done;
};

struct exchange *local_exchange_new(struct sidecar *sidecar, struct http_request *request, enum local_form form);
/* The answer is out: the exchange goes as soon as nobody holds it. */
void local_exchange_end(struct exchange *exchange);
/* Starts the method; takes `params` over. `handlers` answer the request and end the exchange. */
void local_exchange_run(struct exchange *exchange, const char *method, struct cJSON *params, const struct rpc_handlers *handlers);

void local_reply_json(struct http_request *request, int status, const struct cJSON *json);
void local_reply_error(struct http_request *request, enum amp_code code, const char *field, const char *text);
/* The body as an object of params, or as {<name>: text} when it is text. NULL: answered already. */
struct cJSON *local_read_params(struct http_request *request, const char *text_name);
/* Query parameter as a number. False: answered already. */
bool local_take_number(struct http_request *request, const char *name, unsigned long most, unsigned long *ret);
/* Replaces the member; nothing if `value` is NULL. */
void local_set_text(struct cJSON *params, const char *name, const char *value);
const char *local_text_of(const struct cJSON *object, const char *name); /* NULL if it is no string */

/* local_http_send.c */
void local_post_send(void *ctx, struct http_request *request);       /* /v1/send/{agent} */
void local_post_send_skill(void *ctx, struct http_request *request); /* /v1/send?skill=S */

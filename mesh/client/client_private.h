/* What the files of the client share. link.c: bytes ↔ lines; frame.c: a line apart; client.c: what arrives and who waits for it; task.c, event.c: tasks in hand;
 * call.c, kv.c: requests. All names begin with amesh_, because a static library hides nothing. */
#pragma once
#include <amesh/client.h>
#include <sys/queue.h>

struct cJSON;

enum {
    AMESH_FRAME_MAX = 17 << 20, /* bytes of a line that comes (local-api.md 1.4, with its frame) */
    AMESH_TEXT_PIECE = 48 << 10, /* text in one event, so that its line stays short also when every byte is escaped */
    AMESH_FRAME_DEPTH = 64,
    AMESH_FRAME_MEMBERS = 1 << 20,
};

/* ---- frame.c --------------------------------------------------------------------------------------------------- */

struct amesh_frame { /* strings and values belong to `json` */
    struct cJSON *json;
    const char *method;         /* NULL: a reply */
    const struct cJSON *id;     /* NULL: a notification */
    const struct cJSON *params; /* an object; NULL if absent */
    const struct cJSON *result, *error; /* of a reply: exactly one */
    uint64_t number;            /* of a reply: id as a number, 0 if it is null */
};
/* One line without its end. AMP_MALFORMED, AMP_TOO_LARGE, AMP_TOO_DEEP … amesh_frame_done in every case. */
AMP_MUST_USE enum amp_code amesh_frame_decode(struct amp_bytes line, struct amesh_frame *ret, struct amp_error *reterr);
void amesh_frame_done(struct amesh_frame *frame);
/* An error object of JSON-RPC as ours; returns its code, never AMP_OK. */
enum amp_code amesh_frame_error(const struct cJSON *error, struct amp_error *ret);
const char *amesh_json_string(const struct cJSON *object, const char *name); /* NULL if it is none */
uint32_t amesh_json_number(const struct cJSON *object, const char *name);    /* 0 if it is none or out of range */
char *amesh_json_print(const struct cJSON *item); /* NULL: out of memory, or no item */

/* ---- link.c ---------------------------------------------------------------------------------------------------- */

struct amesh_link {
    int fd;
    struct amp_buf in, out; /* out: the line that is being made */
    size_t in_start, in_seen; /* taken up to start, searched for a line's end up to seen */
    bool is_broken;
    struct amp_error error; /* why; or what the sidecar said before it closed */
};
void amesh_link_init(struct amesh_link *link, int fd);
void amesh_link_done(struct amesh_link *link);
/* Marks it as broken, keeps the reason, returns the code. */
enum amp_code amesh_link_break(struct amesh_link *link, enum amp_code code, const char *text);
/* Waits for bytes and reads once. AMP_OK also when nothing came in time or a signal came. */
AMP_MUST_USE enum amp_code amesh_link_read(struct amesh_link *link, int timeout_ms);
bool amesh_link_line(struct amesh_link *link, struct amp_bytes *ret); /* the next whole line, borrowed until the next read */
struct amp_buf *amesh_link_begin(struct amesh_link *link); /* a new line: append to it, check nothing */
AMP_MUST_USE enum amp_code amesh_link_send(struct amesh_link *link); /* the line that was begun. AMP_TOO_LARGE: nothing was sent */
/* A member of the object that is open, with its comma; nothing for NULL. */
void amesh_put_string(struct amp_buf *out, const char *name, const char *value);
void amesh_put_bytes(struct amp_buf *out, const char *name, struct amp_bytes text);
void amesh_put_number(struct amp_buf *out, const char *name, uint64_t value);
void amesh_put_true(struct amp_buf *out, const char *name, bool is_true); /* nothing for false */
void amesh_put_open(struct amp_buf *out, const char *name); /* "name":{ */
void amesh_put_close(struct amp_buf *out, size_t n);        /* n braces */
/* Checks that it is one JSON value. */
AMP_MUST_USE enum amp_code amesh_put_json(struct amp_buf *out, const char *name, const char *json, struct amp_error *reterr);
int64_t amesh_now_ms(void);

/* ---- client.c -------------------------------------------------------------------------------------------------- */

struct amesh_job { /* a task, with what is not the handler's */
    struct amesh_task task; /* first: a task is its job */
    struct cJSON *params;
    char *id_json, *message_json, *meta_json;
    bool is_begun, is_running, is_kept, is_finished, is_canceled, is_cancel_told, is_text_written;
    TAILQ_ENTRY(amesh_job) entry;
};

struct amesh_wait { /* an open request; lives on the stack of who waits */
    uint64_t number;
    const struct amesh_call *call; /* to be told of events; NULL: none */
    int64_t until_ms;              /* AMP_DEADLINE then; 0: no limit */
    struct amesh_frame reply;
    bool is_done;
    LIST_ENTRY(amesh_wait) entry;
};

struct amesh {
    struct amesh_link link;
    char agent[AMP_NAME_MAX + 1], instance[AMP_NAME_MAX + 1];
    uint64_t next_number;
    uint32_t concurrency, n_open; /* n_open: jobs that are not finished */
    TAILQ_HEAD(, amesh_job) jobs; /* in the order in which they came */
    LIST_HEAD(, amesh_wait) waits;
    struct amesh_handlers handlers;
    void *ctx;
    bool is_draining, is_stepping, is_in_event;
};

static inline struct amesh_job *amesh_job_of(struct amesh_task *task)
{
    return (struct amesh_job *)task;
}

/* Takes what has arrived, after waiting for it. */
AMP_MUST_USE enum amp_code amesh_pump(struct amesh *mesh, int timeout_ms);
/* Begins a request line up to `"params":{` and the task's id, if there is one. */
struct amp_buf *amesh_request_begin(struct amesh *mesh, struct amesh_wait *wait, const char *method, const struct amesh_task *task);
/* Sends it and waits for the reply. On AMP_OK wait->reply.result is there; amesh_frame_done(&wait->reply) in every case. `task` (may be NULL): AMP_CANCELED when it is. */
AMP_MUST_USE enum amp_code amesh_request_wait(struct amesh *mesh, struct amesh_wait *wait, struct amesh_task *task, struct amp_error *reterr);
/* The two halves of it, for several at once: amesh_request_send puts `wait` among those that are waited for, amesh_request_drop takes it out. */
AMP_MUST_USE enum amp_code amesh_request_send(struct amesh *mesh, struct amesh_wait *wait, struct amp_error *reterr);
AMP_MUST_USE enum amp_code amesh_request_reply(struct amesh *mesh, const struct amesh_wait *wait, const struct amesh_task *task, struct amp_error *reterr);
void amesh_request_drop(struct amesh_wait *wait);
/* May something be waited for here? AMP_CONFLICT, AMP_NO_SIDECAR, AMP_CANCELED, AMP_TASK_ENDED. */
AMP_MUST_USE enum amp_code amesh_may_wait(struct amesh *mesh, struct amesh_task *task, struct amp_error *reterr);
/* Copies the reason of a broken connection. */
enum amp_code amesh_broken(const struct amesh *mesh, struct amp_error *reterr);

/* ---- task.c ---------------------------------------------------------------------------------------------------- */

/* A task.run: kept in mesh->jobs, or answered with an error. */
void amesh_job_take(struct amesh *mesh, struct amesh_frame *frame);
void amesh_job_cancel(struct amesh *mesh, const struct cJSON *params);
void amesh_job_run(struct amesh_job *job);
void amesh_job_free(struct amesh_job *job);
AMP_MUST_USE enum amp_code amesh_job_end(struct amesh_job *job); /* after amesh_link_begin and its result were written */
/* Text of any length as events `type`. */
enum amp_code amesh_job_text(struct amesh_job *job, const char *type, const char *text, size_t len);

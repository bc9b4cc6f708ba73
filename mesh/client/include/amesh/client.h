/* The mesh client: an agent, or a caller, in C. It speaks the local API (spec/local-api.md) with the sidecar beside this program and needs nothing else: no port, no
 * NATS, no event loop, no thread.
 *
 *     static void on_task(struct amesh_task *task, void *ctx)
 *     {
 *         amesh_task_printf(task, "hello, %s", task->text);
 *     }
 *
 *     int main(void)
 *     {
 *         struct amesh *mesh;
 *         struct amp_error err;
 *         if (amesh_connect(NULL, &mesh, &err) != AMP_OK || amesh_serve(mesh, on_task, NULL, &err) != AMP_OK)
 *             return fprintf(stderr, "%s\n", err.message), 1;
 *         amesh_free(mesh);
 *     }
 *
 *     cc hello.c $(pkg-config --cflags --libs libamesh-client) -o hello  &&  amesh run --mode dial -- ./hello
 *
 * Threads: one connection and its tasks belong to one thread at a time. Nothing is shared between connections, and nothing here is global but the environment variables
 * that amesh_connect reads.
 *
 * Waiting: amesh_connect, amesh_send, amesh_ask, amesh_request, the kv functions and amesh_task_wait block until the sidecar has answered. Meanwhile all that arrives is
 * read: a cancel is noticed, a ping answered, a new task kept for later. Handlers of other tasks do not run in between. Every other function writes at most; a write
 * blocks while the sidecar holds this agent back because the reader of its answer is slow.
 *
 * Errors: functions return enum amp_code. A trailing `reterr` is written only on failure and may be NULL. A broken connection is AMP_NO_SIDECAR (or what the sidecar said
 * when it closed), from that moment on and from every function. SIGPIPE is never raised, EINTR is never seen.
 *
 * Strings that come in are UTF-8; invalid bytes in text that goes out become U+FFFD. `…_json` is one JSON value (checked: AMP_MALFORMED). A line to the sidecar may have
 * 1 MiB: text of any length is split, anything else that does not fit is AMP_TOO_LARGE. What the sidecar sends may have 17 MiB a line. */
#pragma once

#include <amp/amp.h>

#ifdef __cplusplus
extern "C" {
#endif

struct amesh; /* a connection */

/* ---- the connection ------------------------------------------------------------------------------------------ */

struct amesh_options {
    const char *socket;    /* path; NULL: the descriptor AMESH_FD, else the path AMESH_SOCK (local-api.md 1) */
    uint32_t concurrency;  /* tasks that may be in hand at once; 0: 1. The sidecar's --concurrency is the upper limit */
    const char *const *skills; /* "ID" or "ID:TEXT", NULL at the end: added to what `amesh run` was told; NULL: none. By skill this agent can be found */
    const char *card_json; /* instead of `skills`: an A2A AgentCard (local-api.md 3.4); NULL: none */
    const char *framework; /* what this program is made with; NULL: "c" */
    bool is_caller;        /* takes no tasks */
};

/* Connects and says hello. `options` may be NULL: a worker, one task at a time. An AMESH_FD is taken over: it is closed with the connection, not inherited by what this
 * program starts, and the variable is unset. AMP_NO_SIDECAR: nobody listens (the hint says how to start). AMP_DEADLINE: no answer to hello in 10 s. */
AMP_API AMP_MUST_USE enum amp_code amesh_connect(const struct amesh_options *options, struct amesh **ret, struct amp_error *reterr);
/* The same over a connected stream socket, which is taken over also on failure. */
AMP_API AMP_MUST_USE enum amp_code amesh_adopt(int fd, const struct amesh_options *options, struct amesh **ret, struct amp_error *reterr);
/* Closes. Tasks still in hand die with the connection and so do their structs. Not from inside a handler. NULL is fine. */
AMP_API void amesh_free(struct amesh *mesh);
AMP_API const char *amesh_agent(const struct amesh *mesh);    /* this agent's name on the mesh */
AMP_API const char *amesh_instance(const struct amesh *mesh);
/* One line into the sidecar's log. level: "debug", "info", "warn", "error". */
AMP_API enum amp_code amesh_log(struct amesh *mesh, const char *level, const char *text);

/* ---- taking tasks -------------------------------------------------------------------------------------------- */

/* A task in hand. Valid until its handler returns, or, after amesh_task_keep, until it is finished. All strings live as long as it does. */
struct amesh_task {
    const char *id, *context_id;
    const char *text;    /* all text parts of the message, joined */
    const char *from;    /* who asks: an agent's name */
    const char *parent;  /* the task in which it was asked; NULL: none */
    const char *skill;   /* the skill by which this agent was found; NULL: by name */
    const char *resume;  /* the answer, when the task comes back after amesh_task_require_input; else NULL */
    uint32_t attempt;    /* from 1 */
    uint32_t timeout_ms; /* 0: none */
    struct amesh *mesh;
    void *data;          /* the handler's; NULL at first */
};

typedef void amesh_task_handler(struct amesh_task *task, void *ctx);

/* Runs `on_task` for each task, one after the other, until the sidecar drains this agent and nothing is in hand (AMP_OK: leave now) or the connection is lost. A handler
 * that returns without having finished its task has completed it: what it has written is the answer; if the task was cancelled meanwhile, it is cancelled. */
AMP_API enum amp_code amesh_serve(struct amesh *mesh, amesh_task_handler *on_task, void *ctx, struct amp_error *reterr);

/* The same for a program with a loop of its own: */
struct amesh_handlers {
    amesh_task_handler *on_task;
    amesh_task_handler *on_cancel; /* a kept task was cancelled: finish it within 5 s. May be NULL */
};
AMP_API void amesh_set_handlers(struct amesh *mesh, const struct amesh_handlers *handlers, void *ctx);
/* Poll this for reading and call amesh_step when it is. */
AMP_API int amesh_fd(const struct amesh *mesh);
/* A task that came while something else was waited for has not been handled: call amesh_step without waiting for the descriptor. */
AMP_API bool amesh_is_pending(const struct amesh *mesh);
/* Waits for frames (at most timeout_ms; 0: not at all, -1: no limit; a signal ends it early), takes all that is there, and runs the handlers. AMP_STOPPING: the agent is
 * drained and nothing is in hand, leave. AMP_CONFLICT: called from inside a handler. */
AMP_API AMP_MUST_USE enum amp_code amesh_step(struct amesh *mesh, int timeout_ms, struct amp_error *reterr);

/* The task goes on after its handler has returned; finish it later. Only with a concurrency above 1 do others come meanwhile. */
AMP_API void amesh_task_keep(struct amesh_task *task);
AMP_API const char *amesh_task_message_json(struct amesh_task *task); /* the A2A Message; NULL: out of memory */
AMP_API const char *amesh_task_meta_json(struct amesh_task *task);    /* the request's metadata, "{}" if none; NULL: out of memory */
/* Has the task been taken back? Looks at what has arrived, without waiting. */
AMP_API bool amesh_task_is_canceled(struct amesh_task *task);
/* A pause. AMP_OK: it is over; AMP_CANCELED: the task was cancelled. -1: until then. */
AMP_API enum amp_code amesh_task_wait(struct amesh_task *task, int timeout_ms);

/* ---- what happens in a task (local-api.md 4) -------------------------------------------------------------------
 * All of these: AMP_TASK_ENDED once the task is finished. They work after a cancel too, so that what was begun can be put away. */

AMP_API enum amp_code amesh_task_write(struct amesh_task *task, const char *text); /* appended to the answer, seen by the caller at once */
AMP_API enum amp_code amesh_task_printf(struct amesh_task *task, const char *fmt, ...) AMP_PRINTF(2, 3);
AMP_API enum amp_code amesh_task_reasoning(struct amesh_task *task, const char *text);
AMP_API enum amp_code amesh_task_status(struct amesh_task *task, const char *text); /* a progress note */
AMP_API enum amp_code amesh_task_log(struct amesh_task *task, const char *level, const char *text);
AMP_API enum amp_code amesh_task_step_start(struct amesh_task *task, const char *name);
AMP_API enum amp_code amesh_task_step_end(struct amesh_task *task, const char *name);
AMP_API enum amp_code amesh_task_tool_call(struct amesh_task *task, const char *call_id, const char *name, const char *args_json, struct amp_error *reterr);
AMP_API enum amp_code amesh_task_tool_result(struct amesh_task *task, const char *call_id, const char *output_json, bool is_error, struct amp_error *reterr);
AMP_API enum amp_code amesh_task_custom(struct amesh_task *task, const char *name, const char *value_json, struct amp_error *reterr);

struct amesh_artifact {
    const char *name;        /* also its id, unless */
    const char *id;          /* … is given */
    const char *description, *filename, *media_type; /* may be NULL */
    /* Exactly one of: */
    const char *text;        /* any length */
    const char *data_json;
    struct amp_bytes bytes;  /* sent as base64: about 760 KiB fit */
};
AMP_API enum amp_code amesh_task_artifact(struct amesh_task *task, const struct amesh_artifact *artifact, struct amp_error *reterr);

struct amesh_usage {
    const char *model; /* may be NULL */
    uint64_t input_tokens, output_tokens;
    double cost_usd;
};
AMP_API enum amp_code amesh_task_usage(struct amesh_task *task, const struct amesh_usage *usage);

/* ---- the end of a task (local-api.md 3.2) -----------------------------------------------------------------------
 * Each ends it: AMP_TASK_ENDED the second time. A kept task's struct is gone after it, unless its handler is still running. */

/* text NULL: what was written is the answer. If something was written, `text` is ignored. */
AMP_API enum amp_code amesh_task_complete(struct amesh_task *task, const char *text);
AMP_API enum amp_code amesh_task_fail(struct amesh_task *task, const char *fmt, ...) AMP_PRINTF(2, 3);
AMP_API enum amp_code amesh_task_reject(struct amesh_task *task, const char *fmt, ...) AMP_PRINTF(2, 3);
AMP_API enum amp_code amesh_task_cancel(struct amesh_task *task, const char *fmt, ...) AMP_PRINTF(2, 3);
/* It can take nothing now: another instance gets the task, or the caller waits (local-api.md 3.2). Before anything was said of the task, and soon; later it fails with AMP_BUSY. */
AMP_API enum amp_code amesh_task_busy(struct amesh_task *task, const char *fmt, ...) AMP_PRINTF(2, 3);
/* Ends this run with a question; the answer comes as a new task of the same id with `resume`. amesh_ask is the way that waits. */
AMP_API enum amp_code amesh_task_require_input(struct amesh_task *task, const char *fmt, ...) AMP_PRINTF(2, 3);
/* Any outcome of local-api.md 3.2. When it is refused (AMP_MALFORMED, AMP_TOO_LARGE) the task goes on. */
AMP_API enum amp_code amesh_task_finish_json(struct amesh_task *task, const char *outcome_json, struct amp_error *reterr);

/* ---- asking and calling ------------------------------------------------------------------------------------------
 * Inside of a task these return AMP_CANCELED when the task is cancelled, before or while they wait. AMP_CONFLICT from inside on_event or on_text. */

struct amesh_question {
    const char *prompt;
    const char *options_json, *schema_json; /* may be NULL: what may be answered (local-api.md 3.5) */
    uint32_t expires_ms;                    /* 0: no limit */
    const char *default_json;               /* the answer when nobody answers in time; NULL: AMP_EXPIRED then */
    bool is_multiple, has_other;            /* of options: several may be chosen; another text is fine too */
};
/* Asks the human (or whoever watches over the caller) and waits for the answer, which is the caller's: free it. With options or a schema it is the value as text: a string as it is,
 * anything else as JSON. AMP_EXPIRED: nobody answered in time. */
AMP_API enum amp_code amesh_ask(struct amesh_task *task, const struct amesh_question *question, char **ret_text, struct amp_error *reterr);

#define AMESH_ASK_MAX 64u /* questions at once */
struct amesh_reply { /* owned by the caller: amesh_replies_done */
    struct amp_error error; /* error.code AMP_OK, or why there is no answer: AMP_EXPIRED, AMP_INVALID … */
    char *text, *value_json; /* value_json: with options, a schema or a default; else NULL */
    bool is_expired;         /* it is the default */
};
/* Asks all of them at once and waits until each is answered or over. AMP_OK: see each reply. Else none is asked any more, and *reterr says why (AMP_CANCELED …). `ret` has `count`
 * elements, at most AMESH_ASK_MAX, and is always set. */
AMP_API enum amp_code amesh_ask_all(struct amesh_task *task, const struct amesh_question *questions, size_t count, struct amesh_reply *ret, struct amp_error *reterr);
AMP_API void amesh_replies_done(struct amesh_reply *replies, size_t count);

struct amesh_call {
    const char *agent, *skill;       /* exactly one */
    const char *text, *message_json; /* exactly one; message_json is an A2A Message */
    const char *context_id;          /* NULL: that of the task, else a new one */
    const char *key;                 /* of a durable call: the same key is the same task. NULL: none */
    uint32_t timeout_ms;             /* 0: none */
    bool is_durable;                 /* through the environment's journal */
    /* While it runs; may be NULL. Strings are borrowed. */
    void (*on_text)(void *ctx, const char *text);                        /* a piece of the answer */
    void (*on_event)(void *ctx, uint32_t seq, const char *event_json);   /* every event: an A2A StreamResponse */
    void *ctx;
};
struct amesh_answer { /* owned by the caller: amesh_answer_done */
    char *text;       /* of the answer; the reason if it did not complete; "" if none */
    char *task_json;  /* the A2A Task; NULL if the call failed before it became one */
    char *task_id, *context_id; /* NULL like task_json */
    Amp__TaskState state;       /* UNSPECIFIED like task_json */
};
/* Gives a task to another agent and waits for its end. `task`: the own task in which the call is made, which becomes the parent; NULL: none. AMP_OK: completed. Else the
 * code says why not and *reterr has the reason: AMP_TASK_FAILED, AMP_REJECTED, AMP_NO_SUCH_AGENT, AMP_AGENT_DIED … *ret is always set. When the own task is cancelled a
 * direct call is taken back; a durable one goes on. */
AMP_API enum amp_code amesh_send(struct amesh *mesh, struct amesh_task *task, const struct amesh_call *call, struct amesh_answer *ret, struct amp_error *reterr);
AMP_API void amesh_answer_done(struct amesh_answer *answer); /* a zeroed one is fine */

/* Any other method of local-api.md 3 (agents.list, task.get, task.stop). params_json NULL: {}. The result's JSON is the caller's: free it. */
AMP_API enum amp_code amesh_request(struct amesh *mesh, const char *method, const char *params_json, char **ret_result_json, struct amp_error *reterr);

/* ---- memory (kv) -------------------------------------------------------------------------------------------------- */

enum amesh_scope { AMESH_CONTEXT, AMESH_OWN, AMESH_SHARED }; /* of a conversation; of this agent; of everybody */

struct amesh_place {
    enum amesh_scope scope;
    struct amesh_task *task;    /* AMESH_CONTEXT: of this task's context, or */
    const char *context_id;     /* … of this one */
    const char *key;            /* list: a prefix, NULL or "" for all */
};
struct amesh_value { /* owned by the caller: amesh_value_done */
    char *key, *json;
    char *text;       /* if the value is a string; else NULL */
    uint32_t version; /* from 1 */
};
/* AMP_NOT_FOUND. *ret is always set. */
AMP_API enum amp_code amesh_kv_get(struct amesh *mesh, const struct amesh_place *place, struct amesh_value *ret, struct amp_error *reterr);
/* Stores a JSON value. if_version (may be NULL): only over that version (0: only if there is none), else AMP_CONFLICT. */
AMP_API enum amp_code amesh_kv_put(struct amesh *mesh, const struct amesh_place *place, const char *value_json, const uint32_t *if_version, struct amp_error *reterr);
AMP_API enum amp_code amesh_kv_put_text(struct amesh *mesh, const struct amesh_place *place, const char *text, struct amp_error *reterr);
AMP_API enum amp_code amesh_kv_del(struct amesh *mesh, const struct amesh_place *place, struct amp_error *reterr);
/* Calls `on_value` for each; the value is borrowed. */
AMP_API enum amp_code amesh_kv_list(struct amesh *mesh, const struct amesh_place *place, void (*on_value)(void *ctx, const struct amesh_value *value), void *ctx,
                                    struct amp_error *reterr);
AMP_API void amesh_value_done(struct amesh_value *value); /* a zeroed one is fine */

#ifdef __cplusplus
}
#endif

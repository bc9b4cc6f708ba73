/* One NDJSON JSON-RPC connection of the local API (local-api.md 1–2) over a descriptor pair. Knows lines, ids and limits, no method. Loop thread only. */
#pragma once
#include <amp/amp.h>

#define SESSION_ID_MAX 128

struct cJSON;
struct loop;
struct session;

/* What is in a frame (`method`, `params`, `result`, …) is there until the handler returns. */
struct session_handlers {
    /* A request (id not NULL: answer with session_reply/session_error, now or later, with a copy of `id`: a number, or a string of at most SESSION_ID_MAX bytes) or a notification. */
    void (*on_request)(void *ctx, const char *method, const struct cJSON *params, const struct cJSON *id);
    /* The reply to our request `number`: result or error (the other NULL). */
    void (*on_reply)(void *ctx, uint64_t number, const struct cJSON *result, const struct cJSON *error);
    /* A line that is not a frame, when the session allows such lines (jsonl): for the log. */
    void (*on_text)(void *ctx, struct amp_bytes line);
    /* A line that cannot be read as a frame; the peer has been told why. It may have been a reply: `line` is its beginning (at most AMP_LINE_MAX bytes of
     * it) and may hold anything. May be NULL. */
    void (*on_bad_line)(void *ctx, struct amp_bytes line, const struct amp_error *err);
    /* All that was queued has been written. May be NULL. */
    void (*on_drained)(void *ctx);
    /* The connection is over (end of file, error, too many bad lines: `reason`). session_free may be called here. */
    void (*on_closed)(void *ctx, const char *reason);
};

/* Takes the descriptors over (they may be the same; closed at the end). NULL handlers are not allowed but on_text, on_bad_line and on_drained. */
struct session *session_new(struct loop *loop, int fd_in, int fd_out, bool allows_text, const struct session_handlers *handlers, void *ctx);
/* Without descriptors: bytes come through session_feed and leave through `write` (jsonl on a spawned child's stdio). */
struct session *session_new_fed(struct loop *loop, bool allows_text, const struct session_handlers *handlers, enum amp_code (*write)(void *ctx, struct amp_bytes data), void *ctx);
void session_feed(struct session *session, struct amp_bytes data); /* len 0: end of file */
/* Reads nothing more until it is called with false; the peer's writes will block. Only for sessions with descriptors. */
void session_pause(struct session *session, bool is_paused);
void session_pump(struct session *session); /* reads all that has arrived by now: before the end of the process behind it is judged */
void session_free(struct session *session); /* what is queued is written once more, without waiting. Allowed inside every callback; NULL is fine */
/* Ends the connection as if the peer had: on_closed with `reason`, from the end of this turn. */
void session_close(struct session *session, const char *reason);

/* `params` and `result` are JSON text without line ends that is taken as it is, and copied; empty: {} and null. AMP_OVERLOADED when more than 16 MiB would wait for a reader that does not read: the caller
 * decides, nothing is lost silently. */
AMP_MUST_USE enum amp_code session_request(struct session *session, const char *method, struct amp_bytes params, uint64_t *ret_number);
AMP_MUST_USE enum amp_code session_notify(struct session *session, const char *method, struct amp_bytes params);
/* A notification of a stream that is held back while much waits: what was on its way has 64 MiB of room. */
AMP_MUST_USE enum amp_code session_stream(struct session *session, const char *method, const struct amp_bytes *params, size_t n_params); /* params: pieces of them */
AMP_MUST_USE enum amp_code session_reply(struct session *session, const struct cJSON *id, struct amp_bytes result);
AMP_MUST_USE enum amp_code session_error(struct session *session, const struct cJSON *id, int number, const struct amp_error *err);
size_t session_waiting(const struct session *session); /* bytes that are queued */
/* The id of a request as JSON, "null" for NULL: `room`, or memory that is the caller's to free (NULL when there is none). */
#define SESSION_PIECES_MAX 8u
#define SESSION_ID_ROOM 16
char *session_id_text(const struct cJSON *id, char room[SESSION_ID_ROOM]);

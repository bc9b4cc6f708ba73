/* JetStream, as much of it as the mesh needs, by plain requests over bus.h: the JSON is made and read here (jetstream_json.c, pure), sent and waited
 * for in jetstream.c. Only what nats-server 2.9.10 has; what a server echoes is compared with what was asked for, since servers up to 2.11 drop in
 * silence what they do not know. No headers: nothing here needs any. All functions on the loop thread. */
#pragma once
#include <amp/amp.h>

struct bus;
struct cJSON;
struct loop;

#define JS_NAME_MAX 32u          /* a stream's name: `A-Z a-z 0-9 _ -` */
#define JS_REPLY_BYTES_MAX (1u << 20)
#define JS_SEQ_MAX 9007199254740991.0 /* what a double holds exactly; no stream comes that far */
#define JS_TIMEOUT_MS 2000u      /* a request, unless said otherwise */
#define JS_BATCH 256u            /* messages of one pull */
#define JS_BATCH_BYTES (16u << 20) /* of them; more than the largest message that a stream of ours takes */
#define JS_SILENCE_MS 5000u      /* a pull without a message: given up */

/* ---- jetstream_json.c: pure ----------------------------------------------------------------------------------- */

enum js_outcome {
    JS_OK,
    JS_MISSING,   /* the server has no JetStream, this account has none, or (of a publish) no stream takes the subject */
    JS_NO_STREAM, /* there is no stream of this name */
    JS_NO_MESSAGE,
    JS_NO_ROOM,   /* its storage is used up or promised to others */
    JS_REFUSED,   /* any other error of the server: `code`, `text` */
    JS_DENIED,    /* the server's permissions forbid it */
    JS_SILENT,    /* no answer in time */
    JS_DOWN,      /* the connection was lost, or is */
    JS_MALFORMED, /* what came is not an answer */
};

struct js_reply {
    enum js_outcome outcome;
    int code;                /* JS_REFUSED, JS_NO_ROOM …: the server's err_code, e.g. 10059 */
    char text[200];          /* why, for people; "" with JS_OK */
    const struct cJSON *json; /* JS_OK only, during the callback */
};
/* What an answer says. *ret_json (NULL unless JS_OK) is the caller's to delete. */
void js_reply_parse(struct amp_bytes data, struct js_reply *ret, struct cJSON **ret_json);

#define JS_SUBJECTS_MAX 4u
struct js_stream_config { /* of a stream that keeps what comes until a limit is reached: then the oldest go */
    const char *name;
    const char *subjects[JS_SUBJECTS_MAX]; /* NULL-ended if fewer */
    uint64_t bytes_max, messages_max;
    uint32_t message_max; /* bytes */
    int64_t age_max_ms;
    bool is_in_memory; /* else in files */
};
AMP_MUST_USE enum amp_code js_stream_config_append(struct amp_buf *out, const struct js_stream_config *config);

struct js_stream { /* a stream as the server tells of it */
    char created[48];              /* as it stands there: another text is another stream */
    uint64_t first_seq, last_seq;  /* without messages first_seq is last_seq + 1, or 0 */
    uint64_t messages, bytes, bytes_max;
    uint32_t has_subjects;         /* one bit for each of the config's subjects that it takes */
    bool is_limits, is_in_memory;
};
/* From the answer to STREAM.INFO, CREATE or UPDATE. JS_MALFORMED if it lacks anything. */
AMP_MUST_USE enum js_outcome js_stream_read(const struct cJSON *json, const struct js_stream_config *config, struct js_stream *ret);

struct js_delivery {
    uint64_t seq;     /* in the stream */
    uint64_t nth;     /* of what this consumer delivered, from 1 on */
    uint64_t pending; /* messages behind it that match the filter */
};
/* From the reply subject of a message that a consumer delivered: $JS.ACK.[domain.account.]<stream>.<consumer>.<n>.<seq>.<nth>.<time>.<pending>[.<token>] */
AMP_MUST_USE bool js_delivery_parse(const char *reply, struct js_delivery *ret);
/* {"stream":"…","seq":N}: where a published message went. */
AMP_MUST_USE bool js_ack_read(const struct cJSON *json, const char *stream, uint64_t *ret_seq);

/* ---- jetstream.c -------------------------------------------------------------------------------------------------- */

/* A request with one answer. `subject`: the API's, or that of a publish which a stream acknowledges. on_reply once, never from inside; may free nothing
 * but what it owns. *ret may be used to cancel until then. timeout_ms 0: JS_TIMEOUT_MS. */
struct js_request;
struct js_request *js_request_start(struct loop *loop, struct bus *bus, const char *subject, struct amp_bytes body, uint32_t timeout_ms,
                                    void (*on_reply)(void *ctx, const struct js_reply *reply), void *ctx);
void js_request_cancel(struct js_request *request); /* NULL is fine */
/* $JS.API.<verb>.<stream>; verb e.g. "STREAM.INFO". */
struct js_request *js_api(struct loop *loop, struct bus *bus, const char *verb, const char *stream, struct amp_bytes body,
                          void (*on_reply)(void *ctx, const struct js_reply *reply), void *ctx);

/* A canary: a message with a text that nobody else has is published to `subject`, must be acknowledged by `stream` and read back as it was, each within
 * JS_TIMEOUT_MS. Health that is asked for is not health: a server whose store is full says that it is well. It is larger than a block of a disk: a full one still
 * takes a few bytes into its last block. */
#define JS_CANARY_MAX 64u
#define JS_CANARY_BYTES 4200u
struct js_canary;
struct js_canary_result {
    enum js_outcome outcome; /* JS_OK, or why not, with text */
    char text[200];
    uint64_t seq;            /* where it stands, when it was acknowledged */
    uint32_t acked_us;
};
struct js_canary *js_canary_start(struct loop *loop, struct bus *bus, const char *stream, const char *subject, const char *text,
                                  void (*on_end)(void *ctx, const struct js_canary_result *result), void *ctx);
void js_canary_cancel(struct js_canary *canary); /* NULL is fine */
/* Nobody waits for the answer. */
void js_canary_remove(struct bus *bus, const char *stream, uint64_t seq);
/* Is the message `seq` of the stream this text? JS_NO_MESSAGE: there is none, or another. */
struct js_canary *js_canary_look(struct loop *loop, struct bus *bus, const char *stream, uint64_t seq, const char *text,
                                 void (*on_end)(void *ctx, const struct js_canary_result *result), void *ctx);

/* Reads what matches `filter` from `from_seq` on, in order, until `until_seq` is reached or nothing more is there: by pulls of an ephemeral consumer, each asked for
 * by js_read_more. on_message borrows. on_batch: a batch is over; js_read_more, now or later, asks for the next. on_end once, the last; the handle is gone then. */
struct js_read;
struct js_read_handlers {
    void (*on_message)(void *ctx, uint64_t seq, const char *subject, struct amp_bytes data);
    void (*on_batch)(void *ctx, uint64_t left); /* messages that are still to come, about */
    void (*on_end)(void *ctx, enum js_outcome outcome, const char *text);
};
struct js_range {
    const char *stream, *filter;
    uint64_t from_seq, until_seq;
};
struct js_read *js_read_start(struct loop *loop, struct bus *bus, const struct js_range *range, const struct js_read_handlers *handlers, void *ctx);
void js_read_more(struct js_read *read);
void js_read_free(struct js_read *read); /* no callback after this. NULL is fine */

/* libamp: the Agent Protocol without I/O.
 *
 * Everything here is a pure function of its arguments: no socket, no thread, no clock, no file, no log
 * and no global state. All functions may be called from any thread as long as one object is used by one
 * thread at a time. Time is an argument. Only amp_id_new draws random bytes (libsodium).
 *
 * Message structs (`Amp__Request`, `Amp__Frame` …) are made from spec/amp.proto by protoc-c and have its
 * names; everything else is `amp_…`. A decoded message lives in the arena it was decoded into and dies
 * with it. Strings of decoded messages are valid UTF-8 without NUL, depth and sizes are within limits.h.
 *
 * Errors: functions return enum amp_code; its numbers are the wire codes of spec/codes.def. A trailing
 * `reterr` is written only on failure and may be NULL.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <amp/amp.pb-c.h>
#include <amp/limits.h>

#ifdef __cplusplus
extern "C" {
#endif

#define AMP_API __attribute__((visibility("default")))
#define AMP_MUST_USE __attribute__((warn_unused_result))
#define AMP_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* ---- codes (amp.md 8) ------------------------------------------------------------------------------ */

enum amp_code {
#define AMP_CODE(name, number, exit, http, retry, text) AMP_##name = number,
#include <amp/codes.def>
#undef AMP_CODE
};

struct amp_code_info {
    enum amp_code code;
    const char *name; /* "no_such_agent" */
    int exit;
    int http;
    bool is_retryable;
    const char *text;
};

/* The row of `code`; that of AMP_INTERNAL for a number that is not in the table. Never NULL. */
AMP_API const struct amp_code_info *amp_code_info(enum amp_code code);
/* All rows, in order of the table. */
AMP_API const struct amp_code_info *amp_code_table(size_t *ret_count);

/* ---- errors ---------------------------------------------------------------------------------------- */

/* Says what was wrong with foreign input or why a call failed. Fixed size, no ownership. All texts are
 * sanitised (amp_text_sanitize). */
struct amp_error {
    enum amp_code code;
    char field[96];    /* path of the field, e.g. "request.message.parts[2].text"; may be "" */
    char message[512]; /* what and where */
    char hint[256];    /* what to do; may be "" */
    uint32_t retry_after_ms;
};

/* Fills *err (may be NULL) and returns `code`, so that a failing function can end with one line. */
AMP_API enum amp_code amp_error_set(struct amp_error *err, enum amp_code code, const char *field, const char *fmt, ...) AMP_PRINTF(4, 5);
/* Adds the hint. No effect if err is NULL. */
AMP_API void amp_error_hint(struct amp_error *err, const char *fmt, ...) AMP_PRINTF(2, 3);
/* Copies a wire error; an unknown number becomes AMP_INTERNAL with the text kept. */
AMP_API void amp_error_from_wire(struct amp_error *err, const Amp__Error *wire);
/* Makes *ret point into *err: valid as long as err is. `ret` is initialised here. */
AMP_API void amp_error_to_wire(const struct amp_error *err, Amp__Error *ret);

/* ---- bytes ----------------------------------------------------------------------------------------- */

/* Borrowed bytes; never owned. */
struct amp_bytes {
    const uint8_t *data;
    size_t len;
};

AMP_API struct amp_bytes amp_bytes_of(const char *text); /* without the NUL */

/* A growable buffer that never grows past `max`. After a failed append the buffer is marked `is_full` and every
 * later append fails too, so that a writer may check once at its end. */
struct amp_buf {
    uint8_t *data;
    size_t len, cap, max;
    bool is_full;
};

AMP_API void amp_buf_init(struct amp_buf *buf, size_t max);
AMP_API void amp_buf_done(struct amp_buf *buf); /* frees; the struct may be initialised again */
AMP_API void amp_buf_reset(struct amp_buf *buf); /* len = 0, keeps the memory, clears is_full */
/* AMP_TOO_LARGE past the maximum, AMP_NO_MEMORY. */
AMP_API enum amp_code amp_buf_append(struct amp_buf *buf, const void *data, size_t len);
AMP_API enum amp_code amp_buf_printf(struct amp_buf *buf, const char *fmt, ...) AMP_PRINTF(2, 3);
AMP_API struct amp_bytes amp_buf_bytes(const struct amp_buf *buf);

/* An arena: many allocations, one free. Blocks are kept by amp_arena_reset, so that a reused arena allocates
 * nothing in steady state. Refuses (returns NULL) past `max` bytes in all. */
struct amp_arena_block;
struct amp_arena {
    struct amp_arena_block *first, *current;
    size_t used, max;
    bool is_full; /* refused because of `max`, not because the system had no memory */
    ProtobufCAllocator allocator; /* hand to protobuf-c; its free does nothing. The arena may not be moved */
};

AMP_API void amp_arena_init(struct amp_arena *arena, size_t max);
/* Forgets everything. Up to 1 MiB of blocks is kept. */
AMP_API void amp_arena_reset(struct amp_arena *arena);
AMP_API void amp_arena_done(struct amp_arena *arena);
AMP_API void *amp_arena_alloc(struct amp_arena *arena, size_t size); /* 16-byte aligned, zeroed */
AMP_API char *amp_arena_strdup(struct amp_arena *arena, struct amp_bytes text);

/* ---- ids (amp.md 2.1) ------------------------------------------------------------------------------ */

#define AMP_ID_SIZE 32 /* a new id with its NUL fits */

/* Writes "<kind>-" and 26 characters (48 bits of time, 80 random bits, Crockford base32 in lower case), so
 * that ids sort by time and cannot be guessed. kind: one lower-case letter, e.g. 't' task, 'c' context,
 * 'i' instance, 'm' message, 'q' question, 'a' artifact. */
AMP_API void amp_id_new(char kind, int64_t now_unix_ms, char ret[AMP_ID_SIZE]);
/* The same from random bytes that the caller has: of a CSPRNG, and never used twice. */
#define AMP_ID_RANDOM 16
AMP_API void amp_id_make(char kind, int64_t now_unix_ms, const uint8_t random[AMP_ID_RANDOM], char ret[AMP_ID_SIZE]);
/* [a-z0-9_-]{1,63}, not starting with '-'. Names of agents, skills, instances, tasks, contexts on the bus. */
AMP_API bool amp_id_is_valid(const char *id);
/* Makes a valid id from any text ("My Agent.py" → "my-agent-py"); "agent" if nothing is left. */
AMP_API void amp_id_from_text(const char *text, char ret[AMP_NAME_MAX + 1]);

/* ---- subjects (amp.md 2): the only code that knows how they look ------------------------------------ */

enum amp_subject_kind {
    AMP_SUBJECT_REQ,      /* amp.req.<agent>.<from>          a = agent, b = from */
    AMP_SUBJECT_REQ_INST, /* amp.req.<agent>.<inst>.<from>   a, b = inst, c = from */
    AMP_SUBJECT_SKILL,    /* amp.skill.<skill>.<from>        a = skill, b = from */
    AMP_SUBJECT_CTL,      /* amp.ctl.<inst>.<task>           a = inst, b = task */
    AMP_SUBJECT_HB,       /* amp.hb.<agent>.<inst>           a, b */
    AMP_SUBJECT_EVT,      /* amp.evt.<ctx>.<task>            a = context, b = task */
    AMP_SUBJECT_ENV,      /* amp.env.<verb>.<from>           a = verb, b = from */
    AMP_SUBJECT_WHO,      /* amp.who.<agent>                 a = agent: is anyone there? queue group, always joined */
    AMP_SUBJECT_WHO_SKILL,/* amp.whoskill.<skill>            a = skill */
    AMP_SUBJECT_WHO_ALL,  /* amp.whoall                      everybody: beat now, with your card */
    AMP_SUBJECT_CANARY,   /* amp.canary.<from>               a = from: what a stream must have stored (amp.md 10.8) */
    AMP_SUBJECT_FENCE,    /* amp.fence.<environment>         a = environment: is another one there? (amp.md 10.2.5) */
    AMP_SUBJECT_BLOB,     /* amp.blob.<holder>.<from>        a = holder, b = from: bytes of a blob (amp.md 15) */
};

#define AMP_SUBJECT_SIZE 256
#define AMP_QUEUE_GROUP "amp"
#define AMP_QUEUE_GROUP_ENV "amp-env"

/* Builds a subject from tokens. Each token is a valid id, or "*" (and, as the last one, ">") for a subscription.
 * Unused tokens are NULL. AMP_INVALID names the token that is not one. */
AMP_API AMP_MUST_USE enum amp_code amp_subject_build(enum amp_subject_kind kind, const char *a, const char *b, const char *c, char ret[AMP_SUBJECT_SIZE], struct amp_error *reterr);

struct amp_subject {
    enum amp_subject_kind kind;
    char a[AMP_NAME_MAX + 1], b[AMP_NAME_MAX + 1], c[AMP_NAME_MAX + 1];
};
/* Takes a subject that arrived apart. AMP_MALFORMED if it is none of ours. */
AMP_API AMP_MUST_USE enum amp_code amp_subject_parse(const char *subject, struct amp_subject *ret, struct amp_error *reterr);
/* May this be used as a reply subject of a peer? Only inboxes: "_INBOX_<token>.<token>" or "_INBOX.…" (amp.md 2.4) */
AMP_API bool amp_subject_is_inbox(const char *subject);

/* ---- strict JSON (amp.md 3.2) ---------------------------------------------------------------------- */

struct amp_json_limits {
    size_t bytes_max;
    unsigned depth_max, members_max; /* members of one object or elements of one array */
};
/* AMP_JSON_BYTES_MAX, AMP_DEPTH_MAX, AMP_MEMBERS_MAX */
AMP_API extern const struct amp_json_limits amp_json_limits_default;

/* Is `text` exactly one JSON value by RFC 8259 and I-JSON: valid UTF-8, no duplicate keys, no lone surrogate, no
 * U+0000, no number outside of double's range, nothing after it but white space? *reterr says what and at which byte. */
AMP_API AMP_MUST_USE enum amp_code amp_json_check(struct amp_bytes text, const struct amp_json_limits *limits, struct amp_error *reterr);

/* amp_json_check, then cJSON. The result is the caller's (cJSON_Delete). Integers beyond 2^53 lose digits in
 * cJSON; where that matters use the mapper, which keeps the text. */
struct cJSON;
AMP_API AMP_MUST_USE enum amp_code amp_json_parse(struct amp_bytes text, struct cJSON **ret, struct amp_error *reterr);

/* Appends `text` as a JSON string with its quotes; invalid UTF-8 becomes U+FFFD. */
AMP_API enum amp_code amp_json_append_string(struct amp_buf *out, struct amp_bytes text);

/* ---- messages: protobuf ↔ canonical JSON (amp.md 3) ------------------------------------------------- */

enum amp_encoding { AMP_PROTOBUF, AMP_JSON };

/* Decodes a message of `type`; the encoding is seen from the first byte ('{' or white space: JSON; white space that could
 * be the first tag of this type in protobuf is taken as that: "\n" for types whose field 1 is a string or a message). Checks
 * size, depth, UTF-8, NUL and counts before anything is unpacked. *ret lives in `arena`. */
AMP_API AMP_MUST_USE enum amp_code amp_decode(const ProtobufCMessageDescriptor *type, struct amp_bytes wire, struct amp_arena *arena, ProtobufCMessage **ret, struct amp_error *reterr);
/* The same where it is known that the bytes are JSON (a file, an HTTP body, a Json field). */
AMP_API AMP_MUST_USE enum amp_code amp_decode_json(const ProtobufCMessageDescriptor *type, struct amp_bytes json, struct amp_arena *arena, ProtobufCMessage **ret, struct amp_error *reterr);
/* Appends `message` in that encoding. JSON is canonical: members in field order, no white space, nothing that is unset (but
 * A2A's required lists); AMP_INVALID or AMP_MALFORMED for a required field that is NULL or a Json that is none. On failure nothing is appended. */
AMP_API AMP_MUST_USE enum amp_code amp_encode(const ProtobufCMessage *message, enum amp_encoding encoding, struct amp_buf *out, struct amp_error *reterr);
/* The same as JSON, faster: values of type Json that lie in `own` are taken as they are. They must come from amp_encode, amp_event_* or amp_decode of JSON, which all write without white space. */
AMP_API AMP_MUST_USE enum amp_code amp_encode_own(const ProtobufCMessage *message, struct amp_bytes own, struct amp_buf *out, struct amp_error *reterr);

/* An envelope of version 1 whose body is one of those in `allowed` (bit 1 << AMP__ENVELOPE__BODY_…; 0 = any) and whose
 * fields make sense (ids valid, message has parts, each part one content …). *ret_encoding: answer in kind, also with the refusal; may be NULL. */
AMP_API AMP_MUST_USE enum amp_code amp_envelope_decode(struct amp_bytes wire, uint32_t allowed, struct amp_arena *arena, Amp__Envelope **ret, enum amp_encoding *ret_encoding, struct amp_error *reterr);

/* Checks the meaning of a message's fields (amp.md 4.2). `field` is the path to blame, e.g. "message". */
AMP_API AMP_MUST_USE enum amp_code amp_message_check(const Amp__Message *message, const char *field, struct amp_error *reterr);
AMP_API AMP_MUST_USE enum amp_code amp_card_check(const Amp__AgentCard *card, struct amp_error *reterr);
/* Fills what A2A requires and the user left out: name, description, version "0.0.0", modes "text/plain",
 * capabilities.streaming, one skill made from the name if there is none. New values live in `arena`. */
AMP_API AMP_MUST_USE enum amp_code amp_card_complete(Amp__AgentCard *card, const char *name, struct amp_arena *arena);

/* RFC 3339 ↔ milliseconds since 1970. Format writes "2026-11-23T10:00:00.000Z". */
#define AMP_TIME_SIZE 32
AMP_API void amp_time_format(int64_t unix_ms, char ret[AMP_TIME_SIZE]);
AMP_API AMP_MUST_USE enum amp_code amp_time_parse(const char *text, int64_t *ret_unix_ms);

/* ---- text ------------------------------------------------------------------------------------------- */

AMP_API bool amp_utf8_is_valid(struct amp_bytes text);
/* Largest n ≤ max such that the first n bytes of valid UTF-8 end at a character's end. */
AMP_API size_t amp_utf8_cut(struct amp_bytes text, size_t max);
/* Appends `text` fit for a terminal or a log: invalid UTF-8 becomes U+FFFD; C0 (but \n and \t), DEL, C1, bidi controls and
 * line/paragraph separators become visible "\u{XX}"; with `one_line` \n and \t too. (amp.md 12.3) */
AMP_API enum amp_code amp_text_sanitize(struct amp_buf *out, struct amp_bytes text, bool one_line);
/* Appends all text parts of the message, in order. */
AMP_API enum amp_code amp_message_text(const Amp__Message *message, struct amp_buf *out);

/* ---- blobs (amp.md 15) -------------------------------------------------------------------------------- */

#define AMP_BLOB_HASH_SIZE 32
#define AMP_BLOB_DIGEST_SIZE 72 /* "sha256-", 64 hexadecimal digits and the NUL */

struct amp_blob_ref { /* what a part says of bytes that are elsewhere */
    char digest[AMP_BLOB_DIGEST_SIZE], holder[AMP_NAME_MAX + 1];
    uint64_t size;
    bool is_text; /* it was a text part */
};
AMP_API bool amp_blob_digest_is_valid(const char *digest); /* NULL is not */
AMP_API void amp_blob_digest_format(const uint8_t hash[AMP_BLOB_HASH_SIZE], char ret[AMP_BLOB_DIGEST_SIZE]);
/* Is its url one of a blob, well-formed or not? */
AMP_API bool amp_part_is_blob(const Amp__Part *part);
/* AMP_INVALID, AMP_TOO_LARGE: *reterr says which member of the part. */
AMP_API AMP_MUST_USE enum amp_code amp_part_blob(const Amp__Part *part, struct amp_blob_ref *ret, struct amp_error *reterr);
/* The part is this blob from now on; other members of its metadata, its name and type stay. AMP_NO_MEMORY: `arena` is full. */
AMP_API AMP_MUST_USE enum amp_code amp_part_set_blob(Amp__Part *part, const struct amp_blob_ref *ref, struct amp_arena *arena);
/* The same with a part in JSON. */
AMP_API void amp_blob_ref_json(const struct amp_blob_ref *ref, struct cJSON *part);
AMP_API bool amp_message_has_blob(const Amp__Message *message); /* NULL has none */

/* ---- task state machine (amp.md 4.3) ----------------------------------------------------------------- */

AMP_API bool amp_task_may_move(Amp__TaskState from, Amp__TaskState to);
AMP_API bool amp_task_is_terminal(Amp__TaskState state);
AMP_API bool amp_task_is_waiting(Amp__TaskState state); /* input or auth required */
AMP_API const char *amp_task_state_name(Amp__TaskState state); /* "TASK_STATE_WORKING" */
AMP_API const char *amp_task_state_short(Amp__TaskState state); /* "working", "input-required" … for people */
/* Takes both forms, any case. AMP__TASK_STATE__TASK_STATE_UNSPECIFIED if it is none. */
AMP_API Amp__TaskState amp_task_state_parse(const char *name);

/* ---- events (amp.md 6) -------------------------------------------------------------------------------- */

/* Writes the event of one thing that an agent said, in its local form (spec/local-api.md 4: {"type":"text","text":"Hel"}),
 * as the canonical JSON of an A2A StreamResponse. Appends one JSON document per event to `out` through `emit`, because one
 * local event can become several (a text over AMP_TEXT_EVENT_MAX is split at character ends). `emit` gets borrowed bytes.
 * The projection checks everything; *reterr names the member that is wrong. */
struct amp_event_sink {
    enum amp_code (*emit)(void *ctx, struct amp_bytes stream_response);
    void *ctx;
};
struct amp_event_source {
    const char *task_id, *context_id;
    int64_t now_unix_ms;
    bool is_text_started; /* kept by the projection: has `response` been begun? */
};
AMP_API AMP_MUST_USE enum amp_code amp_event_project(struct amp_event_source *source, const struct cJSON *local, const struct amp_event_sink *sink, struct amp_error *reterr);
/* The same for text, which is on the hot path. With `last` the chunk closes the artifact `response` (text may be empty). */
AMP_API AMP_MUST_USE enum amp_code amp_event_text(struct amp_event_source *source, struct amp_bytes text, bool last, const struct amp_event_sink *sink);
/* A statusUpdate. `text` (may be NULL) becomes the status message; `metadata` (may be NULL) is JSON. */
AMP_API AMP_MUST_USE enum amp_code amp_event_status(struct amp_event_source *source, Amp__TaskState state, const char *text, const char *metadata_json, const struct amp_event_sink *sink);

/* Watches the numbers of one task's frames on the receiving side. */
struct amp_stream {
    uint32_t next;  /* number of the next event */
    bool is_ended;
};
AMP_API void amp_stream_init(struct amp_stream *stream);
/* Takes a frame in. *ret_skip = how many of its first events were seen before (duplicates). AMP_FRAMES_LOST on a gap or when the end
 * marker's count is not what came; the message says which numbers are missing. After the end nothing is taken (AMP_TASK_ENDED). */
AMP_API AMP_MUST_USE enum amp_code amp_stream_take(struct amp_stream *stream, const Amp__Frame *frame, uint32_t *ret_skip, struct amp_error *reterr);

/* A task as the fold of its events. */
struct amp_fold;
AMP_API struct amp_fold *amp_fold_new(const char *task_id, const char *context_id, size_t bytes_max); /* NULL: out of memory */
AMP_API void amp_fold_free(struct amp_fold *fold);
/* Begins anew with another task, in the memory of the last one: for who folds many tasks that soon end, and does not keep them. AMP_NO_MEMORY: it can only be freed. */
AMP_API AMP_MUST_USE enum amp_code amp_fold_reset(struct amp_fold *fold, const char *task_id, const char *context_id);
/* Applies one StreamResponse. Consecutive text chunks of an artifact become one part. AMP_CONFLICT for a move that the state machine
 * forbids (the event is not applied), AMP_TOO_LARGE past bytes_max. */
AMP_API AMP_MUST_USE enum amp_code amp_fold_apply(struct amp_fold *fold, struct amp_bytes stream_response, struct amp_error *reterr);
AMP_API Amp__TaskState amp_fold_state(const struct amp_fold *fold);
/* Adds a message to the task's history (what was asked, an answer given). */
AMP_API AMP_MUST_USE enum amp_code amp_fold_message(struct amp_fold *fold, const Amp__Message *message);
/* The task now. Borrowed until the next call on the fold; metadata is that of the last snapshot (a `task` event), else NULL, and may be set by the
 * caller on its shallow copy. A new fold is SUBMITTED. */
AMP_API const Amp__Task *amp_fold_task(struct amp_fold *fold);

AMP_API const char *amp_version(void); /* "0.1.0" */

#ifdef __cplusplus
}
#endif

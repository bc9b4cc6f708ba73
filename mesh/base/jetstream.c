/* Requests to JetStream, and reading a range of a stream. A pull's messages come to its inbox under their own subjects; where one stands, and how many are behind
 * it, its reply subject says. The server's status messages (no messages, expired, batch completed) are in headers, which the bus does not show, and need no look: what is missing is seen by the
 * count, or by time. */
#include "base/jetstream.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/clock.h"
#include "base/loop.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUBJECT_MAX 160u
#define IDLE_NS "60000000000" /* a consumer that nobody asks is removed after a minute */

/* ---- one request ------------------------------------------------------------------------------------------------ */

struct js_request {
    struct bus_inbox *inbox;
    struct loop_timer *deadline;
    void (*on_reply)(void *ctx, const struct js_reply *reply);
    void *ctx;
    enum js_outcome unsent; /* what to say of a request that could not be sent */
};

void js_request_cancel(struct js_request *request)
{
    if (!request)
        return;
    bus_inbox_free(request->inbox);
    loop_timer_free(request->deadline);
    free(request);
}

static void conclude(struct js_request *request, const struct js_reply *reply)
{
    void (*on_reply)(void *ctx, const struct js_reply *reply) = request->on_reply;
    void *ctx = request->ctx;
    js_request_cancel(request);
    on_reply(ctx, reply);
}

static void conclude_with(struct js_request *request, enum js_outcome outcome, const char *text)
{
    struct js_reply reply = {.outcome = outcome};
    snprintf(reply.text, sizeof reply.text, "%s", text);
    conclude(request, &reply);
}

static void on_answer(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct js_request *request = ctx;
    struct js_reply reply;
    cJSON *json = NULL;
    switch (kind) {
    case BUS_INBOX_MSG:
        js_reply_parse(msg->data, &reply, &json);
        conclude(request, &reply);
        cJSON_Delete(json);
        return;
    case BUS_INBOX_NO_RESPONDERS:
        conclude_with(request, JS_MISSING, "nobody answers: the server, or this account, has no JetStream, or the stream is not there");
        return;
    case BUS_INBOX_DENIED:
        conclude_with(request, JS_DENIED, text ? text : "the server's permissions forbid it");
        return;
    case BUS_INBOX_DOWN:
        conclude_with(request, JS_DOWN, "the connection to the bus was lost");
        return;
    }
}

static void on_deadline(void *ctx)
{
    struct js_request *request = ctx;
    if (request->unsent != JS_OK)
        conclude_with(request, request->unsent, "the bus did not take the request");
    else
        conclude_with(request, JS_SILENT, "JetStream does not answer");
}

struct js_request *js_request_start(struct loop *loop, struct bus *bus, const char *subject, struct amp_bytes body, uint32_t timeout_ms,
                                    void (*on_reply)(void *ctx, const struct js_reply *reply), void *ctx)
{
    struct js_request *request = xcalloc(1, sizeof *request);
    *request = (struct js_request){.on_reply = on_reply, .ctx = ctx};
    request->inbox = bus_inbox_new(bus, on_answer, request);
    request->deadline = loop_timer_new(loop, on_deadline, request);
    if (bus_inbox_request(request->inbox, subject, body) != AMP_OK)
        request->unsent = JS_DOWN;
    loop_timer_set(request->deadline, request->unsent != JS_OK ? 0 : timeout_ms ? timeout_ms : JS_TIMEOUT_MS);
    return request;
}

struct js_request *js_api(struct loop *loop, struct bus *bus, const char *verb, const char *stream, struct amp_bytes body,
                          void (*on_reply)(void *ctx, const struct js_reply *reply), void *ctx)
{
    char subject[SUBJECT_MAX];
    snprintf(subject, sizeof subject, "$JS.API.%.40s.%.60s", verb, stream);
    return js_request_start(loop, bus, subject, body, 0, on_reply, ctx);
}

/* ---- canary --------------------------------------------------------------------------------------------------------- */

struct js_canary {
    struct loop *loop;
    struct bus *bus;
    struct js_request *request;
    int64_t started_us;
    char stream[JS_NAME_MAX + 1], text[JS_CANARY_MAX];
    struct js_canary_result result;
    void (*on_end)(void *ctx, const struct js_canary_result *result);
    void *ctx;
};

void js_canary_cancel(struct js_canary *canary)
{
    if (!canary)
        return;
    js_request_cancel(canary->request);
    free(canary);
}

static void canary_end(struct js_canary *canary, enum js_outcome outcome, const char *text)
{
    struct js_canary_result result = canary->result;
    void (*on_end)(void *ctx, const struct js_canary_result *result) = canary->on_end;
    void *ctx = canary->ctx;
    result.outcome = outcome;
    snprintf(result.text, sizeof result.text, "%s", text);
    js_canary_cancel(canary);
    on_end(ctx, &result);
}

#define CANARY_HEAD 66u
_Static_assert(CANARY_HEAD >= JS_CANARY_MAX && CANARY_HEAD % 3 == 0 && JS_CANARY_BYTES % 3 == 0, "its text ends within its head, and both are whole groups of base64");

static void make_body(const struct js_canary *canary, unsigned char ret[JS_CANARY_BYTES])
{
    size_t len = strlen(canary->text);
    memset(ret, ' ', JS_CANARY_BYTES);
    memcpy(ret, canary->text, len);
}

/* {"message":{"seq":N,"data":"<base64>"}}: its text, and blanks behind, which three by three are "ICAg" */
static bool is_same(const struct js_canary *canary, const cJSON *json)
{
    unsigned char body[JS_CANARY_BYTES];
    char wanted[sodium_base64_ENCODED_LEN(CANARY_HEAD, sodium_base64_VARIANT_ORIGINAL)];
    const size_t head = sizeof wanted - 1, len = sodium_base64_ENCODED_LEN((size_t)JS_CANARY_BYTES, sodium_base64_VARIANT_ORIGINAL) - 1;
    const cJSON *message = cJSON_GetObjectItemCaseSensitive(json, "message");
    const char *data = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(message, "data"));
    make_body(canary, body);
    sodium_bin2base64(wanted, sizeof wanted, body, CANARY_HEAD, sodium_base64_VARIANT_ORIGINAL);
    return data && strlen(data) == len && memcmp(data, wanted, head) == 0 && memcmp(data + head, "ICAg", 4) == 0 && memcmp(data + head + 4, data + head, len - head - 4) == 0;
}

static void on_read_back(void *ctx, const struct js_reply *reply)
{
    struct js_canary *canary = ctx;
    canary->request = NULL;
    if (reply->outcome != JS_OK)
        canary_end(canary, reply->outcome, reply->text);
    else if (!is_same(canary, reply->json))
        canary_end(canary, JS_NO_MESSAGE, "what was read back is not what was stored");
    else
        canary_end(canary, JS_OK, "");
}

static void read_back(struct js_canary *canary)
{
    char body[48];
    snprintf(body, sizeof body, "{\"seq\":%" PRIu64 "}", canary->result.seq);
    canary->request = js_api(canary->loop, canary->bus, "STREAM.MSG.GET", canary->stream, amp_bytes_of(body), on_read_back, canary);
}

static void on_ack(void *ctx, const struct js_reply *reply)
{
    struct js_canary *canary = ctx;
    canary->request = NULL;
    if (reply->outcome != JS_OK) {
        canary_end(canary, reply->outcome, reply->outcome == JS_SILENT ? "a message that was published is not acknowledged" : reply->text);
    } else if (!js_ack_read(reply->json, canary->stream, &canary->result.seq)) {
        canary_end(canary, JS_MALFORMED, "another stream, or nobody's, takes the subject");
    } else {
        canary->result.acked_us = (uint32_t)(clock_mono_us() - canary->started_us);
        read_back(canary);
    }
}

static struct js_canary *canary_new(struct loop *loop, struct bus *bus, const char *stream, const char *text)
{
    struct js_canary *canary = xcalloc(1, sizeof *canary);
    *canary = (struct js_canary){.loop = loop, .bus = bus, .started_us = clock_mono_us()};
    snprintf(canary->stream, sizeof canary->stream, "%s", stream);
    snprintf(canary->text, sizeof canary->text, "%s", text);
    return canary;
}

struct js_canary *js_canary_start(struct loop *loop, struct bus *bus, const char *stream, const char *subject, const char *text,
                                  void (*on_end)(void *ctx, const struct js_canary_result *result), void *ctx)
{
    struct js_canary *canary = canary_new(loop, bus, stream, text);
    canary->on_end = on_end;
    canary->ctx = ctx;
    unsigned char body[JS_CANARY_BYTES];
    make_body(canary, body);
    canary->request = js_request_start(loop, bus, subject, (struct amp_bytes){.data = body, .len = sizeof body}, 0, on_ack, canary);
    return canary;
}

struct js_canary *js_canary_look(struct loop *loop, struct bus *bus, const char *stream, uint64_t seq, const char *text,
                                 void (*on_end)(void *ctx, const struct js_canary_result *result), void *ctx)
{
    struct js_canary *canary = canary_new(loop, bus, stream, text);
    canary->on_end = on_end;
    canary->ctx = ctx;
    canary->result.seq = seq;
    read_back(canary);
    return canary;
}

void js_canary_remove(struct bus *bus, const char *stream, uint64_t seq)
{
    char subject[SUBJECT_MAX], body[64];
    snprintf(subject, sizeof subject, "$JS.API.STREAM.MSG.DELETE.%.60s", stream);
    snprintf(body, sizeof body, "{\"seq\":%" PRIu64 ",\"no_erase\":true}", seq);
    (void)bus_publish(bus, subject, NULL, amp_bytes_of(body)); /* one that stays is kept as long as the others */
}

/* ---- a range --------------------------------------------------------------------------------------------------------- */

struct js_read {
    struct loop *loop;
    struct bus *bus;
    struct js_read_handlers handlers;
    void *ctx;
    char stream[JS_NAME_MAX + 1], consumer[JS_NAME_MAX + 1];
    uint64_t until_seq, taken, left;
    uint32_t wanted, got; /* messages of the pull under way; 0 wanted: none is */
    struct js_request *request;
    struct bus_inbox *inbox; /* of the pulls */
    struct loop_timer *silence;
};

/* Nobody waits for the answer; a consumer that stays is removed by the server a minute later. */
static void drop_consumer(struct js_read *read)
{
    char subject[SUBJECT_MAX];
    snprintf(subject, sizeof subject, "$JS.API.CONSUMER.DELETE.%s.%s", read->stream, read->consumer);
    if (read->consumer[0])
        (void)bus_publish(read->bus, subject, NULL, amp_bytes_of(""));
}

void js_read_free(struct js_read *read)
{
    if (!read)
        return;
    drop_consumer(read);
    js_request_cancel(read->request);
    bus_inbox_free(read->inbox);
    loop_timer_free(read->silence);
    free(read);
}

static void read_end(struct js_read *read, enum js_outcome outcome, const char *text)
{
    void (*on_end)(void *ctx, enum js_outcome outcome, const char *text) = read->handlers.on_end;
    void *ctx = read->ctx;
    js_read_free(read);
    on_end(ctx, outcome, text);
}

static void on_silence(void *ctx)
{
    read_end(ctx, JS_SILENT, "JetStream does not deliver what the stream has");
}

static void batch_over(struct js_read *read)
{
    read->wanted = 0;
    loop_timer_stop(read->silence);
    read->handlers.on_batch(read->ctx, read->left);
}

/* A status cuts a pull short whose messages are many bytes. One that comes before the pull's first message is of the pull before. */
static void on_status(struct js_read *read)
{
    if (read->wanted > 0 && read->got > 0)
        batch_over(read);
}

static void on_message(struct js_read *read, const struct bus_msg *msg)
{
    struct js_delivery at;
    if (!js_delivery_parse(msg->reply, &at)) {
        on_status(read);
        return;
    }
    if (at.nth != read->taken + 1)
        return; /* twice, or before its turn; who sends nothing else is silent */
    read->taken = at.nth;
    read->left = at.pending;
    read->got++;
    loop_timer_set(read->silence, JS_SILENCE_MS);
    read->handlers.on_message(read->ctx, at.seq, msg->subject, msg->data);
    if (at.pending == 0 || at.seq >= read->until_seq)
        read_end(read, JS_OK, "");
    else if (read->got == read->wanted)
        batch_over(read);
}

static void on_pulled(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct js_read *read = ctx;
    if (kind == BUS_INBOX_MSG)
        on_message(read, msg);
    else if (kind == BUS_INBOX_DOWN)
        read_end(read, JS_DOWN, "the connection to the bus was lost");
    else if (kind == BUS_INBOX_DENIED)
        read_end(read, JS_DENIED, text ? text : "the server's permissions forbid it");
    else
        read_end(read, JS_MISSING, "the stream is not there any more");
}

void js_read_more(struct js_read *read)
{
    char subject[SUBJECT_MAX], body[96];
    read->got = 0;
    read->wanted = read->left < JS_BATCH ? (uint32_t)read->left : JS_BATCH;
    snprintf(subject, sizeof subject, "$JS.API.CONSUMER.MSG.NEXT.%s.%s", read->stream, read->consumer);
    snprintf(body, sizeof body, "{\"batch\":%u,\"max_bytes\":%u,\"expires\":%u000000}", read->wanted, JS_BATCH_BYTES, JS_SILENCE_MS);
    loop_timer_set(read->silence, JS_SILENCE_MS);
    (void)bus_inbox_request(read->inbox, subject, amp_bytes_of(body)); /* a bus that is away says so to the inbox */
}

static bool is_name(const char *name)
{
    size_t len = name ? strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") : 0;
    return len > 0 && len <= JS_NAME_MAX && name[len] == '\0';
}

static void on_consumer(void *ctx, const struct js_reply *reply)
{
    struct js_read *read = ctx;
    read->request = NULL;
    if (reply->outcome != JS_OK) {
        read_end(read, reply->outcome, reply->text);
        return;
    }
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(reply->json, "name"));
    const cJSON *pending = cJSON_GetObjectItemCaseSensitive(reply->json, "num_pending");
    if (!is_name(name) || !cJSON_IsNumber(pending) || !(pending->valuedouble >= 0 && pending->valuedouble <= JS_SEQ_MAX)) {
        read_end(read, JS_MALFORMED, "the answer is not one of JetStream");
        return;
    }
    snprintf(read->consumer, sizeof read->consumer, "%s", name);
    read->left = (uint64_t)pending->valuedouble;
    if (read->left == 0) {
        read_end(read, JS_OK, "");
        return;
    }
    read->inbox = bus_inbox_new(read->bus, on_pulled, read);
    js_read_more(read);
}

struct js_read *js_read_start(struct loop *loop, struct bus *bus, const struct js_range *range, const struct js_read_handlers *handlers, void *ctx)
{
    struct js_read *read = xcalloc(1, sizeof *read);
    char body[512];
    *read = (struct js_read){.loop = loop, .bus = bus, .handlers = *handlers, .ctx = ctx, .until_seq = range->until_seq};
    snprintf(read->stream, sizeof read->stream, "%s", range->stream);
    read->silence = loop_timer_new(loop, on_silence, read);
    snprintf(body, sizeof body,
             "{\"stream_name\":\"%s\",\"config\":{\"deliver_policy\":\"by_start_sequence\",\"opt_start_seq\":%" PRIu64
             ",\"ack_policy\":\"none\",\"filter_subject\":\"%.100s\",\"replay_policy\":\"instant\",\"inactive_threshold\":" IDLE_NS ",\"mem_storage\":true}}",
             read->stream, range->from_seq, range->filter);
    read->request = js_api(loop, bus, "CONSUMER.CREATE", read->stream, amp_bytes_of(body), on_consumer, read);
    return read;
}

/* The stream AMP_EVT of the simulated server: in its memory, gone with it, as on the server of 2.9 that it stands for. As much of JetStream's API as base/jetstream.c
 * uses. */
#include "sim.h"

#include "base/alloc.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define API "$JS.API."
#define CONSUMERS_MAX 8u

struct stored {
    uint64_t seq;
    char *subject;
    size_t len;
    TAILQ_ENTRY(stored) entry;
    uint8_t data[];
};

static struct {
    bool is_there, is_begun;
    uint64_t last, number, next[CONSUMERS_MAX], given[CONSUMERS_MAX]; /* of each consumer: what it is given next, and how many it was */
    int64_t made_us;
    TAILQ_HEAD(, stored) all;
} stream;

static void drop(struct stored *stored)
{
    TAILQ_REMOVE(&stream.all, stored, entry);
    free(stored->subject);
    free(stored);
}

void stream_forget(void)
{
    while (stream.is_begun && !TAILQ_EMPTY(&stream.all))
        drop(TAILQ_FIRST(&stream.all));
    memset(&stream, 0, sizeof stream);
    TAILQ_INIT(&stream.all);
    stream.is_begun = true;
}

bool subject_matches(const char *pattern, const char *subject)
{
    for (;; pattern++, subject++) {
        if (*pattern == '>' && !pattern[1])
            return *subject != '\0';
        if (*pattern == '*' && (!pattern[1] || pattern[1] == '.')) {
            const char *end = strchrnul(subject, '.');
            if (end == subject)
                return false;
            pattern++;
            subject = end;
        }
        if (*pattern != *subject)
            return false;
        if (!*pattern)
            return true;
    }
}

static bool is_event(const char *subject) { return subject_matches("amp.evt.>", subject); }

static struct stored *find(uint64_t seq, bool is_exact)
{
    struct stored *stored;
    TAILQ_FOREACH(stored, &stream.all, entry)
        if (is_exact ? stored->seq == seq : stored->seq >= seq && is_event(stored->subject))
            return stored;
    return NULL;
}

static uint64_t count_from(uint64_t seq)
{
    uint64_t n = 0;
    struct stored *stored;
    TAILQ_FOREACH(stored, &stream.all, entry)
        n += stored->seq >= seq && is_event(stored->subject);
    return n;
}

static uint64_t number_in(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static void say(const char *reply, const char *text)
{
    if (reply)
        server_say(reply, NULL, reply, amp_bytes_of(text));
}

static void say_info(const char *reply)
{
    char text[512];
    const struct stored *first = TAILQ_FIRST(&stream.all);
    uint64_t n = 0;
    struct stored *stored;
    TAILQ_FOREACH(stored, &stream.all, entry)
        n++;
    if (!stream.is_there) {
        say(reply, "{\"error\":{\"code\":404,\"err_code\":10059,\"description\":\"stream not found\"}}");
        return;
    }
    snprintf(text, sizeof text,
             "{\"config\":{\"name\":\"AMP_EVT\",\"subjects\":[\"amp.evt.>\",\"amp.canary.*\"],\"retention\":\"limits\",\"storage\":\"memory\"},\"created\":\"%" PRId64
             "\",\"state\":{\"messages\":%" PRIu64 ",\"bytes\":1,\"first_seq\":%" PRIu64 ",\"last_seq\":%" PRIu64 "}}",
             stream.made_us, n, first ? first->seq : stream.last + 1, stream.last);
    say(reply, text);
}

bool stream_has_been(void)
{
    return stream.made_us > 0;
}

static void make(void)
{
    if (!stream.is_there)
        stream.made_us = world_now_us();
    stream.is_there = true;
}

/* libsodium's takes the same time for every text, which is a long one. */
static char *base64(const struct stored *stored)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";
    char *text = xcalloc(1, (stored->len + 2) / 3 * 4 + 1), *at = text;
    for (size_t i = 0; i < stored->len; i += 3, at += 4) {
        size_t n = stored->len - i;
        uint32_t group = (uint32_t)stored->data[i] << 16 | (n > 1 ? (uint32_t)stored->data[i + 1] << 8 : 0) | (n > 2 ? stored->data[i + 2] : 0);
        at[0] = digits[group >> 18];
        at[1] = digits[group >> 12 & 63];
        at[2] = digits[n > 1 ? group >> 6 & 63 : 64];
        at[3] = digits[n > 2 ? group & 63 : 64];
    }
    return text;
}

static void give_message(const char *reply, uint64_t seq)
{
    const struct stored *stored = find(seq, true);
    if (!stored) {
        say(reply, "{\"error\":{\"code\":404,\"err_code\":10037,\"description\":\"no message found\"}}");
        return;
    }
    char *data = base64(stored);
    char *text = xasprintf("{\"message\":{\"seq\":%" PRIu64 ",\"data\":\"%s\"}}", seq, data);
    say(reply, text);
    free(text);
    free(data);
}

static void make_consumer(const char *reply, const char *body)
{
    char text[128];
    uint64_t number = stream.number++ % CONSUMERS_MAX, from = number_in(body, "\"opt_start_seq\":");
    stream.next[number] = from;
    stream.given[number] = 0;
    snprintf(text, sizeof text, "{\"name\":\"c%" PRIu64 "\",\"num_pending\":%" PRIu64 "}", number, count_from(from));
    say(reply, text);
}

/* A message comes to the inbox under its own subject; its reply subject says where it stands. */
static void pull(const char *reply, uint64_t number, uint64_t batch)
{
    struct stored *stored;
    while (reply && number < CONSUMERS_MAX && batch-- > 0 && (stored = find(stream.next[number], false))) {
        char ack[128];
        stream.next[number] = stored->seq + 1;
        snprintf(ack, sizeof ack, "$JS.ACK.AMP_EVT.c.1.%" PRIu64 ".%" PRIu64 ".1.%" PRIu64, stored->seq, ++stream.given[number], count_from(stored->seq + 1));
        server_say(stored->subject, ack, reply, (struct amp_bytes){stored->data, stored->len});
    }
}

static void answer(const char *verb, const char *reply, const char *body)
{
    if (strcmp(verb, "STREAM.INFO.AMP_EVT") == 0) {
        say_info(reply);
    } else if (strcmp(verb, "STREAM.CREATE.AMP_EVT") == 0) {
        make();
        say_info(reply);
    } else if (strcmp(verb, "STREAM.MSG.GET.AMP_EVT") == 0) {
        give_message(reply, number_in(body, "\"seq\":"));
    } else if (strcmp(verb, "STREAM.MSG.DELETE.AMP_EVT") == 0) {
        struct stored *stored = find(number_in(body, "\"seq\":"), true);
        if (stored)
            drop(stored);
    } else if (strcmp(verb, "CONSUMER.CREATE.AMP_EVT") == 0) {
        make_consumer(reply, body);
    } else if (strncmp(verb, "CONSUMER.MSG.NEXT.AMP_EVT.c", 27) == 0) {
        pull(reply, strtoull(verb + 27, NULL, 10), number_in(body, "\"batch\":"));
    }
}

static void store(const char *subject, const char *reply, struct amp_bytes data)
{
    char text[64];
    struct stored *stored = xcalloc(1, sizeof *stored + data.len);
    stored->seq = ++stream.last;
    stored->subject = xstrdup(subject);
    stored->len = data.len;
    if (data.len)
        memcpy(stored->data, data.data, data.len);
    TAILQ_INSERT_TAIL(&stream.all, stored, entry);
    snprintf(text, sizeof text, "{\"stream\":\"AMP_EVT\",\"seq\":%" PRIu64 "}", stored->seq);
    say(reply, text);
}

bool stream_take(const char *subject, const char *reply, struct amp_bytes data)
{
    if (strncmp(subject, API, strlen(API)) == 0) {
        char *body = xstrndup(data.len ? (const char *)data.data : "", data.len);
        answer(subject + strlen(API), reply, body);
        free(body);
        return true;
    }
    if (!stream.is_there || !(is_event(subject) || subject_matches("amp.canary.*", subject)))
        return false;
    store(subject, reply, data);
    return true;
}

/* The agent as a NATS service (ADR-32), so that the stock tools see it: nine plain subscriptions, answered at once. The endpoints named here are the queue groups of
 * member.c; their numbers are the true ones. */
#include "sidecar_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bus.h"
#include "base/log.h"

#define ANSWER_BYTES_MAX (256u << 10)

/* ---- pure ------------------------------------------------------------------------------------------------- */

static bool number_ok(const char **at)
{
    size_t n = strspn(*at, "0123456789");
    bool ok = n > 0 && n <= 9 && !(n > 1 && **at == '0');
    *at += n;
    return ok;
}

/* Dot-separated identifiers after '-' or '+'; numeric ones of a pre-release have no leading zero. */
static bool labels_ok(const char **at, bool is_prerelease)
{
    do {
        ++*at;
        size_t n = strspn(*at, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-");
        size_t digits = strspn(*at, "0123456789");
        if (n == 0 || (is_prerelease && digits == n && n > 1 && **at == '0'))
            return false;
        *at += n;
    } while (**at == '.');
    return true;
}

const char *micro_version(const char *version)
{
    const char *at = version ? version : "";
    bool ok = true;
    for (int i = 0; i < 3 && ok; i++) {
        ok = number_ok(&at);
        if (ok && i < 2)
            ok = *at++ == '.';
    }
    if (ok && *at == '-')
        ok = labels_ok(&at, true);
    if (ok && *at == '+')
        ok = labels_ok(&at, false);
    return ok && *at == '\0' ? version : "0.0.0";
}

static void put(struct amp_buf *out, const char *lead, const char *text)
{
    (void)amp_buf_append(out, lead, strlen(lead));
    (void)amp_json_append_string(out, amp_bytes_of(text ? text : ""));
}

static void write_endpoint(struct amp_buf *out, enum micro_verb verb, const struct endpoint *endpoint)
{
    put(out, "{\"name\":", endpoint->name);
    put(out, ",\"subject\":", endpoint->subject);
    put(out, ",\"queue_group\":", AMP_QUEUE_GROUP);
    if (verb == MICRO_INFO) {
        (void)amp_buf_printf(out, ",\"metadata\":{}}");
        return;
    }
    uint64_t average = endpoint->n_requests ? endpoint->busy_ns / endpoint->n_requests : 0;
    (void)amp_buf_printf(out, ",\"num_requests\":%" PRIu64 ",\"num_errors\":%" PRIu64, endpoint->n_requests, endpoint->n_errors);
    put(out, ",\"last_error\":", endpoint->last_error);
    (void)amp_buf_printf(out, ",\"processing_time\":%" PRIu64 ",\"average_processing_time\":%" PRIu64 "}", endpoint->busy_ns, average);
}

enum amp_code micro_write(enum micro_verb verb, const struct micro_service *service, struct amp_buf *out)
{
    static const char *const types[] = {"ping", "info", "stats"};
    (void)amp_buf_printf(out, "{\"type\":\"io.nats.micro.v1.%s_response\"", types[verb]);
    put(out, ",\"name\":", service->name);
    put(out, ",\"id\":", service->id);
    put(out, ",\"version\":", micro_version(service->version));
    put(out, ",\"metadata\":{\"amp\":\"1\",\"skills\":", service->skills);
    (void)amp_buf_printf(out, "}");
    if (verb == MICRO_INFO)
        put(out, ",\"description\":", service->description);
    if (verb == MICRO_STATS) {
        char started[AMP_TIME_SIZE];
        amp_time_format(service->started_unix_ms, started);
        put(out, ",\"started\":", started);
    }
    if (verb != MICRO_PING) {
        (void)amp_buf_printf(out, ",\"endpoints\":[");
        for (size_t i = 0; i < service->n_endpoints; i++) {
            if (i > 0)
                (void)amp_buf_append(out, ",", 1);
            write_endpoint(out, verb, &service->endpoints[i]);
        }
        (void)amp_buf_append(out, "]", 1);
    }
    return amp_buf_append(out, "}", 1);
}

/* ---- on the bus ---------------------------------------------------------------------------------------------- */

static void answer(struct sidecar *sidecar, enum micro_verb verb, const struct bus_msg *msg)
{
    const Amp__AgentCard *card = sidecar->options.card;
    struct amp_buf skills, out;
    if (!msg->reply || !amp_subject_is_inbox(msg->reply))
        return;
    amp_buf_init(&skills, ANSWER_BYTES_MAX);
    amp_buf_init(&out, ANSWER_BYTES_MAX);
    for (size_t i = 0; i < card->n_skills; i++)
        (void)amp_buf_printf(&skills, "%s%s", i > 0 ? "," : "", card->skills[i]->id);
    (void)amp_buf_append(&skills, "", 1);
    const struct micro_service service = {
        .name = sidecar->agent, .id = sidecar->instance, .version = card->version, .description = card->description, .skills = (const char *)skills.data,
        .started_unix_ms = sidecar->beat.since_unix_ms, .endpoints = sidecar->member.endpoints, .n_endpoints = sidecar->member.n_endpoints};
    enum amp_code code = micro_write(verb, &service, &out);
    if (code == AMP_OK)
        code = bus_publish(sidecar->bus, msg->reply, NULL, amp_buf_bytes(&out));
    if (code != AMP_OK)
        log_event(LOG_WARN, "micro.answer_lost", "reason", amp_code_info(code)->text, NULL);
    amp_buf_done(&skills);
    amp_buf_done(&out);
}

static void on_ping(void *ctx, const struct bus_msg *msg)
{
    answer(ctx, MICRO_PING, msg);
}

static void on_info(void *ctx, const struct bus_msg *msg)
{
    answer(ctx, MICRO_INFO, msg);
}

static void on_stats(void *ctx, const struct bus_msg *msg)
{
    answer(ctx, MICRO_STATS, msg);
}

void micro_open(struct sidecar *sidecar)
{
    static const struct {
        const char *verb;
        void (*on_msg)(void *ctx, const struct bus_msg *msg);
    } verbs[] = {{"PING", on_ping}, {"INFO", on_info}, {"STATS", on_stats}};
    struct micro *micro = &sidecar->micro;
    if (micro->is_open)
        return;
    micro->is_open = true;
    for (size_t i = 0; i < MICRO_SUBS; i++) {
        char subject[AMP_SUBJECT_SIZE];
        const char *verb = verbs[i / 3].verb;
        switch (i % 3) {
        case 0: (void)snprintf(subject, sizeof(subject), "$SRV.%s", verb); break;
        case 1: (void)snprintf(subject, sizeof(subject), "$SRV.%s.%s", verb, sidecar->agent); break;
        default: (void)snprintf(subject, sizeof(subject), "$SRV.%s.%s.%s", verb, sidecar->agent, sidecar->instance); break;
        }
        micro->subs[i] = bus_subscribe(sidecar->bus, subject, NULL, verbs[i / 3].on_msg, sidecar);
    }
}

void micro_close(struct sidecar *sidecar)
{
    struct micro *micro = &sidecar->micro;
    for (size_t i = 0; i < MICRO_SUBS; i++) {
        bus_unsubscribe(micro->subs[i], false);
        micro->subs[i] = NULL;
    }
    micro->is_open = false;
}

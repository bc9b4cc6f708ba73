/* The stream of the bus: made when it is not there, looked at by canaries, taken up again when it has lost what it held. evtstream.h tells the whole. */
#include "evtstream.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK_KEY "stream"
#define NO_JETSTREAM_HINT "direct calls are not kept while the environment is away: add \"jetstream { store_dir: /var/lib/nats }\" to nats-server's configuration"
#define NO_PERMISSION_HINT "permit the environment to publish what docs/operations.md names under \"Permissions on the bus\""
#define FAILED_HINT "make room on the disk of nats-server's store, and start nats-server again: none that was seen recovers by itself"

static void ask(struct evtstream *evt);

/* ---- the mark -------------------------------------------------------------------------------------------------- */

static uint64_t seq_of(const cJSON *json, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);
    return cJSON_IsNumber(item) && item->valuedouble > 0 && item->valuedouble <= 9007199254740992.0 ? (uint64_t)item->valuedouble : 0;
}

static bool load_mark(void *ctx, const struct journal_row *row)
{
    struct evt_mark *mark = ctx;
    cJSON *json = NULL;
    if (amp_json_parse(row->body, &json, NULL) != AMP_OK)
        return false;
    const char *created = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "created"));
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "text"));
    snprintf(mark->created, sizeof mark->created, "%s", created ? created : "");
    snprintf(mark->anchor_text, sizeof mark->anchor_text, "%s", text ? text : "");
    mark->seq = seq_of(json, "seq");
    mark->anchor = seq_of(json, "anchor");
    cJSON_Delete(json);
    return false;
}

static void remove_canary(struct evtstream *evt, uint64_t seq)
{
    if (seq > 0)
        js_canary_remove(evt->env->bus, EVT_STREAM, seq);
}

/* Until now an environment that is started would have looked for the canary before. */
static void on_marked(void *ctx, enum amp_code code)
{
    struct evtstream *evt = ctx;
    if (code == AMP_OK && !evt->env->is_stopping && evt->saved_anchor != evt->saving_anchor) {
        remove_canary(evt, evt->saved_anchor);
        evt->saved_anchor = evt->saving_anchor;
    }
    evt->is_saving = false;
}

void evt_write_mark(struct evtstream *evt)
{
    struct env *env = evt->env;
    const struct evt_mark *mark = &evt->mark;
    struct amp_buf body;
    if (evt->is_saving || journal_failure(env->journal) || env->is_given_up)
        return;
    etask_flush_later(env);
    if (env->dirty)
        return; /* the journal has no room for all that was heard: later */
    amp_buf_init(&body, 512);
    (void)amp_buf_printf(&body, "{\"created\":");
    (void)amp_json_append_string(&body, amp_bytes_of(mark->created));
    (void)amp_buf_printf(&body, ",\"seq\":%" PRIu64 ",\"anchor\":%" PRIu64 ",\"text\":\"%s\"}", mark->seq, mark->anchor, mark->anchor_text);
    struct journal_batch *batch = journal_batch_new(env->journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_KV);
    row->scope = JOURNAL_SCOPE_STREAM;
    row->owner = "";
    row->key = MARK_KEY;
    row->version = 1;
    row->at_unix_ms = clock_unix_ms();
    row->body = journal_batch_bytes(batch, amp_buf_bytes(&body));
    amp_buf_done(&body);
    if (journal_write(env->journal, batch, on_marked, evt) != AMP_OK) {
        journal_batch_free(batch);
        return;
    }
    evt->is_saving = true;
    evt->saving_anchor = mark->anchor;
    evt->written_ms = loop_now_ms(env->loop);
    evt->has_heard = false;
}

/* ---- there and not there ------------------------------------------------------------------------------------------ */

static void drop_requests(struct evtstream *evt)
{
    js_request_cancel(evt->request);
    js_canary_cancel(evt->canary);
    js_read_free(evt->read);
    evt->request = NULL;
    evt->canary = NULL;
    evt->read = NULL;
    loop_timer_stop(evt->timer);
}

/* What was held is heard, and who waited for the end of it is served. */
static void let_go(struct evtstream *evt, enum evt_phase phase)
{
    evt->phase = phase;
    evt->is_asked_again = false;
    loop_timer_stop(evt->late);
    evt_release(evt);
    record_bus_up(evt->env); /* what was said while we did not listen may just have come: nobody is silent yet */
    verbs_release_late(evt->env);
}

void evt_off(struct evtstream *evt, bool is_failed, const char *reason)
{
    const char *hint = is_failed ? FAILED_HINT : strstr(reason, "ermission") ? NO_PERMISSION_HINT : NO_JETSTREAM_HINT;
    if (is_failed)
        counter_add(COUNTER_stream_failures, 1);
    if (strcmp(evt->reason, reason) != 0)
        log_event(is_failed ? LOG_ERROR : LOG_WARN, is_failed ? "stream.failed" : "stream.off", "reason", reason, "hint", hint, NULL);
    evt->is_failed = is_failed;
    snprintf(evt->reason, sizeof evt->reason, "%s", reason);
    drop_requests(evt);
    let_go(evt, EVT_OFF);
    loop_timer_set(evt->timer, is_failed ? EVT_LOOK_MS : EVT_ABSENT_MS);
}

/* What is held without what came before it would be taken for all there is: who is silent is asked once more before that. It may be we who stood still. */
void evt_off_by(struct evtstream *evt, enum js_outcome outcome, const char *reason)
{
    bool is_held = evt->phase == EVT_CHECKING || evt->phase == EVT_READING;
    if (outcome == JS_DOWN)
        return; /* the next connection begins anew */
    if (outcome == JS_SILENT && is_held && !evt->is_asked_again) {
        evt->is_asked_again = true;
        evt_check(evt);
    } else {
        evt_off(evt, outcome != JS_MISSING && outcome != JS_DENIED, reason);
    }
}

static void off_by(struct evtstream *evt, const struct js_reply *reply) { evt_off_by(evt, reply->outcome, reply->text); }

void evt_lost(struct evtstream *evt, const char *why)
{
    evt->n_lost++;
    counter_add(COUNTER_stream_lost, 1);
    log_event(LOG_WARN, "stream.lost", "stream", EVT_STREAM, "reason", why, "hint",
              "the bus lost what it had stored: open tasks are published again; durable tasks are in the journal", NULL);
    evt->mark = (struct evt_mark){0};
    evt->saved_anchor = 0; /* of the stream that was */
    snprintf(evt->mark.created, sizeof evt->mark.created, "%s", evt->now.created);
    evt_again_start(evt);
}

/* ---- is it the one? -------------------------------------------------------------------------------------------------- */

static void on_anchor(void *ctx, const struct js_canary_result *result)
{
    struct evtstream *evt = ctx;
    evt->canary = NULL;
    if (result->outcome != JS_OK && result->outcome != JS_NO_MESSAGE) {
        evt_off_by(evt, result->outcome, result->text);
        return;
    }
    if (result->outcome == JS_NO_MESSAGE)
        evt_lost(evt, "it was rolled back");
    evt_read(evt);
}

static void compare(struct evtstream *evt)
{
    const struct js_stream *now = &evt->now;
    struct evt_mark *mark = &evt->mark;
    if (!mark->created[0]) {
        snprintf(mark->created, sizeof mark->created, "%s", now->created); /* the first time: all that it has is new */
    } else if (strcmp(mark->created, now->created) != 0) {
        evt_lost(evt, "it was made again by somebody");
    } else if (now->last_seq < mark->anchor || now->last_seq < mark->seq) {
        evt_lost(evt, "it was rolled back");
    } else if (mark->anchor >= now->first_seq && mark->anchor > 0 && now->messages > 0) {
        evt->canary = js_canary_look(evt->env->loop, evt->env->bus, EVT_STREAM, mark->anchor, mark->anchor_text, on_anchor, evt);
        return;
    }
    evt_read(evt);
}

/* ---- made ------------------------------------------------------------------------------------------------------------- */

static void make(struct evtstream *evt);

static void on_made(void *ctx, const struct js_reply *reply)
{
    struct evtstream *evt = ctx;
    evt->request = NULL;
    if (reply->outcome == JS_NO_ROOM && evt->config.bytes_max / 4 >= EVT_BYTES_MIN) {
        evt->config.bytes_max /= 4;
        make(evt);
        return;
    }
    if (reply->outcome != JS_OK) {
        off_by(evt, reply);
        return;
    }
    if (js_stream_read(reply->json, &evt->config, &evt->now) != JS_OK) {
        evt_off(evt, true, "the server's answer about the stream lacks what it must have");
        return;
    }
    log_event(LOG_INFO, "stream.made", "stream", EVT_STREAM, "bytes_max", log_int((long long)evt->now.bytes_max), "storage",
              evt->now.is_in_memory ? "memory" : "file", NULL);
    if (evt->mark.created[0])
        evt_lost(evt, "it was not there any more");
    compare(evt);
}

static void send_config(struct evtstream *evt, const char *verb, void (*on_reply)(void *ctx, const struct js_reply *reply))
{
    struct amp_buf body;
    amp_buf_init(&body, 2048);
    (void)js_stream_config_append(&body, &evt->config);
    evt->request = js_api(evt->env->loop, evt->env->bus, verb, EVT_STREAM, amp_buf_bytes(&body), on_reply, evt);
    amp_buf_done(&body);
}

static void make(struct evtstream *evt)
{
    send_config(evt, "STREAM.CREATE", on_made);
}

static void on_updated(void *ctx, const struct js_reply *reply)
{
    struct evtstream *evt = ctx;
    evt->request = NULL;
    if (reply->outcome != JS_OK)
        off_by(evt, reply);
    else if (js_stream_read(reply->json, &evt->config, &evt->now) != JS_OK || evt->now.has_subjects != 3)
        evt_off(evt, true, "the server did not take the stream's subjects");
    else
        compare(evt);
}

/* Its limits are whoever's who set them; its subjects and kind must be ours. */
static void take_stream(struct evtstream *evt, const cJSON *json)
{
    if (js_stream_read(json, &evt->config, &evt->now) != JS_OK) {
        evt_off(evt, true, "the server's answer about the stream lacks what it must have");
    } else if (!evt->now.is_limits) {
        evt_off(evt, true, "there is a stream " EVT_STREAM " of another kind: it must have retention \"limits\"");
    } else if (evt->now.has_subjects == 3) {
        compare(evt);
    } else {
        evt->config.is_in_memory = evt->now.is_in_memory;
        if (evt->now.bytes_max > 0)
            evt->config.bytes_max = evt->now.bytes_max;
        send_config(evt, "STREAM.UPDATE", on_updated);
    }
}

static bool is_disk_dangerous(const struct evtstream *evt)
{
    const struct bus_info *info = bus_info(evt->env->bus); /* version 0: it did not tell */
    return info->major < 2 || (info->major == 2 && info->minor < 10);
}

static void on_info(void *ctx, const struct js_reply *reply)
{
    struct evtstream *evt = ctx;
    bool is_there = reply->outcome == JS_OK || reply->outcome == JS_NO_STREAM;
    evt->request = NULL;
    if (is_there && !evt->is_settled) {
        evt->is_settled = true;
        loop_timer_set(evt->timer, EVT_SETTLE_MS);
    } else if (reply->outcome == JS_OK) {
        take_stream(evt, reply->json);
    } else if (reply->outcome == JS_NO_STREAM) {
        evt->config.is_in_memory = is_disk_dangerous(evt);
        evt->config.bytes_max = evt->config.is_in_memory ? EVT_MEMORY_BYTES_MAX : EVT_BYTES_MAX;
        make(evt);
    } else {
        off_by(evt, reply);
    }
}

static void ask(struct evtstream *evt)
{
    evt->request = js_api(evt->env->loop, evt->env->bus, "STREAM.INFO", EVT_STREAM, amp_bytes_of(""), on_info, evt);
}

void evt_check(struct evtstream *evt)
{
    evtstream_catch_up(evt->env); /* was heard before */
    drop_requests(evt);
    if (evt->phase != EVT_READING && evt->phase != EVT_CHECKING) { /* else it is still the same wait */
        evt->is_patient = true;
        loop_timer_set(evt->late, EVT_LATE_MS);
    }
    evt->phase = EVT_CHECKING;
    evt->checked_ms = loop_now_ms(evt->env->loop);
    ask(evt);
}

/* What a canary found is looked into at once, but not again and again: a server that says one thing of the stream and does another would be asked without end. */
static void check_anew(struct evtstream *evt, const char *contradiction)
{
    if (loop_now_ms(evt->env->loop) - evt->checked_ms < EVT_LOOK_MS)
        evt_off(evt, true, contradiction);
    else
        evt_check(evt);
}

/* ---- canaries ------------------------------------------------------------------------------------------------------------ */

static void move_mark(struct evtstream *evt, const struct js_canary_result *result)
{
    int64_t since_ms = loop_now_ms(evt->env->loop) - evt->written_ms;
    if (evt->mark.anchor != evt->saved_anchor && !(evt->is_saving && evt->mark.anchor == evt->saving_anchor))
        remove_canary(evt, evt->mark.anchor);
    if (evt->canary_seq > 0)
        evt->mark.seq = evt->canary_seq; /* all before it was heard before this one's acknowledgement came */
    evt->mark.anchor = evt->canary_seq = result->seq;
    snprintf(evt->mark.anchor_text, sizeof evt->mark.anchor_text, "%s", evt->canary_text);
    if (since_ms > EVT_MARK_MS || (evt->has_heard && since_ms > EVT_MARK_BUSY_MS) || evt->written_ms == 0)
        evt_write_mark(evt);
}

/* All that was heard before the canary was sent stands before it: else the stream does not take all that is said. */
static bool is_counted(struct evtstream *evt, const struct js_canary_result *result)
{
    if (evt->canary_seq == 0) {
        evt->base_seq = result->seq;
        evt->n_heard = 0;
        return true;
    }
    return result->seq - evt->base_seq + EVT_UNCOUNTED >= evt->n_heard_before;
}

static void on_there(void *ctx, const struct js_reply *reply)
{
    struct evtstream *evt = ctx;
    evt->request = NULL;
    if (reply->outcome == JS_OK || reply->outcome == JS_NO_STREAM)
        check_anew(evt, "the server knows the stream, but none takes what is published for it");
    else
        off_by(evt, reply);
}

static void on_canary(void *ctx, const struct js_canary_result *result)
{
    struct evtstream *evt = ctx;
    evt->canary = NULL;
    if (result->outcome == JS_DOWN)
        return;
    evtstream_catch_up(evt->env); /* what was heard before it is about to count as written down */
    if (evt->phase == EVT_CHECKING)
        return; /* a number was missing in that */
    if (result->outcome == JS_MISSING) { /* the stream, or all of JetStream? */
        evt->request = js_api(evt->env->loop, evt->env->bus, "STREAM.INFO", EVT_STREAM, amp_bytes_of(""), on_there, evt);
    } else if (result->outcome != JS_OK) {
        evt_off(evt, result->outcome != JS_DENIED, result->text);
    } else if (evt->phase == EVT_OFF || result->seq <= evt->mark.anchor) {
        check_anew(evt, "the stream counts backwards"); /* it is back, or went back */
    } else if (!is_counted(evt, result)) {
        evt_off(evt, true, "the stream does not store all that is published");
    } else {
        if (evt->reason[0])
            log_event(LOG_INFO, "stream.well", "stream", EVT_STREAM, NULL);
        evt->reason[0] = '\0';
        evt->is_failed = false;
        move_mark(evt, result);
        loop_timer_set(evt->timer, EVT_LOOK_MS);
    }
}

static void look(struct evtstream *evt)
{
    amp_id_new('k', clock_unix_ms(), evt->canary_text);
    evt->n_heard_before = evt->n_heard;
    evt->canary = js_canary_start(evt->env->loop, evt->env->bus, EVT_STREAM, evt->canary_subject, evt->canary_text, on_canary, evt);
}

void evt_live(struct evtstream *evt)
{
    let_go(evt, EVT_LIVE);
    evt->canary_seq = 0;
    evt_write_mark(evt);
    look(evt);
}

static void on_timer(void *ctx)
{
    struct evtstream *evt = ctx;
    if (evt->phase == EVT_CHECKING)
        ask(evt);
    else if (evt->phase == EVT_READING)
        evt_read_step(evt);
    else if (evt->phase != EVT_DOWN)
        look(evt);
}

static void on_late(void *ctx)
{
    struct evtstream *evt = ctx;
    evt->is_patient = false;
    verbs_release_late(evt->env);
}

/* ---- seen by the others ------------------------------------------------------------------------------------------------------ */

void evtstream_new(struct env *env)
{
    struct evtstream *evt = env->evt = xcalloc(1, sizeof *evt);
    struct journal_kv_query query = {.scope = JOURNAL_SCOPE_STREAM, .owner = "", .key = MARK_KEY};
    evt->env = env;
    (void)amp_subject_build(AMP_SUBJECT_EVT, ">", NULL, NULL, evt->subject, NULL);
    (void)amp_subject_build(AMP_SUBJECT_CANARY, "*", NULL, NULL, evt->canaries, NULL);
    (void)amp_subject_build(AMP_SUBJECT_CANARY, env->name, NULL, NULL, evt->canary_subject, NULL);
    evt->config = (struct js_stream_config){.name = EVT_STREAM, .subjects = {evt->subject, evt->canaries}, .bytes_max = EVT_BYTES_MAX, .messages_max = EVT_MESSAGES_MAX,
                                            .message_max = AMP_WIRE_BYTES_MAX, .age_max_ms = EVT_AGE_MAX_MS};
    evt->timer = loop_timer_new(env->loop, on_timer, evt);
    evt->late = loop_timer_new(env->loop, on_late, evt);
    evt_fresh_init(evt);
    (void)journal_kv(env->journal, &query, load_mark, &evt->mark);
    evt->saved_anchor = evt->mark.anchor;
}

void evtstream_free(struct env *env)
{
    struct evtstream *evt = env->evt;
    if (!evt)
        return;
    drop_requests(evt);
    evt_drop_held(evt);
    evt_again_done(evt);
    evt_fresh_done(evt);
    loop_timer_free(evt->timer);
    loop_timer_free(evt->late);
    free(evt);
    env->evt = NULL;
}

void evtstream_bus_up(struct env *env)
{
    struct evtstream *evt = env->evt;
    if (env->is_stopping)
        return;
    evt->is_settled = false;
    evt_check(evt);
    evt_again_bus_up(evt);
}

void evtstream_bus_down(struct env *env)
{
    evtstream_catch_up(env);
    drop_requests(env->evt);
    env->evt->phase = EVT_DOWN;
    env->evt->is_asked_again = false;
}

void evtstream_stop(struct env *env)
{
    if (env->evt->phase != EVT_DOWN)
        evt_release(env->evt);
    evtstream_bus_down(env);
    evt_again_done(env->evt);
    env->evt->again = (struct evt_again){0};
}

/* It does not come back to us, but the stream has to take it like what is heard. */
void evtstream_said(struct env *env)
{
    env->evt->has_heard = true;
    env->evt->n_heard++;
}

bool evtstream_is_holding(const struct env *env)
{
    return env->evt->phase == EVT_CHECKING || env->evt->phase == EVT_READING;
}

bool evtstream_is_awaited(const struct env *env)
{
    return evtstream_is_holding(env) && env->evt->is_patient;
}

bool evtstream_is_whole(const struct env *env)
{
    return env->evt->phase == EVT_LIVE && !env->evt->is_failed;
}

bool evtstream_fill(struct env *env, const struct bus_msg *msg)
{
    struct evtstream *evt = env->evt;
    int64_t now = loop_now_ms(env->loop);
    if (evt->phase != EVT_LIVE || evt->is_failed || evt->canary_seq == 0 || now - evt->filled_ms < EVT_FILL_MS)
        return false;
    evt->filled_ms = now;
    evt_check(evt);
    evt_hold(evt, msg);
    return true;
}

void evtstream_info(const struct env *env, Amp__EnvInfo *info)
{
    struct evtstream *evt = env->evt;
    bool is_behind = evtstream_is_holding(env), is_unknown = !evt->now.created[0]; /* this environment has not seen it yet */
    info->stream = evt->reason[0] ? evt->reason : (char *)(is_unknown ? "being made" : is_behind ? "catching up" : evt->now.is_in_memory ? "ok, in the server's memory" : "ok");
    info->has_stream_behind = info->has_stream_lost = info->has_stream_missed = info->has_stream_failed = true;
    info->stream_behind = evt->left > UINT32_MAX ? UINT32_MAX : (uint32_t)evt->left;
    info->stream_lost = evt->n_lost;
    info->stream_missed = evt->n_missed;
    info->stream_failed = evt->is_failed;
}

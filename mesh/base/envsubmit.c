/* A submit, sent again when the environment says that it has no room now and when to come back. */
#include "base/envcall.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/loop.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#define SILENCE_MAX 2u /* tries more when no answer came */
#define SILENCE_MS 500u
#define FILES_BYTES_PER_MS 256u
#define FILES_MS_MAX 86400000u
#define JITTER 4u /* up to a fourth of the time on top, so that those who were told the same do not come at once */

struct env_submit {
    struct loop *loop;
    struct bus *bus;
    char from[AMP_NAME_MAX + 1];
    uint8_t *packed; /* the submit, for the next time; NULL: there is none */
    size_t len;
    int64_t begun_ms, until_ms;
    uint32_t answer_ms, n_silent;
    char task[AMP_NAME_MAX + 1];
    bool has_key; /* then a conflict is about that */
    int64_t sent_ms;
    struct env_call *call;
    struct loop_timer *timer;
    void (*on_reply)(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err);
    void *ctx;
};

void env_submit_cancel(struct env_submit *submit)
{
    if (!submit)
        return;
    env_call_cancel(submit->call);
    loop_timer_free(submit->timer);
    free(submit->packed);
    free(submit);
}

/* So long its files may take, which the environment fetches before it accepts; 0: there are none. */
static uint32_t files_ms(const Amp__Message *message)
{
    uint64_t bytes = 0;
    if (!amp_message_has_blob(message))
        return 0;
    for (size_t i = 0; i < message->n_parts; i++) {
        struct amp_blob_ref ref;
        if (amp_part_is_blob(message->parts[i]) && amp_part_blob(message->parts[i], &ref, NULL) == AMP_OK)
            bytes += ref.size;
    }
    uint64_t ms = ENV_PATIENCE_MS + bytes / FILES_BYTES_PER_MS;
    return ms < FILES_MS_MAX ? (uint32_t)ms : FILES_MS_MAX;
}

static void on_answer(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err);

static enum amp_code send_once(struct env_submit *submit, const Amp__Submit *what)
{
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    request.verb_case = AMP__ENV_REQUEST__VERB_SUBMIT;
    request.submit = (Amp__Submit *)what;
    submit->sent_ms = loop_now_ms(submit->loop);
    return env_call(submit->loop, submit->bus, submit->from, &request, submit->answer_ms, on_answer, submit, &submit->call);
}

static void finish(struct env_submit *submit, const Amp__EnvReply *reply, const struct amp_error *err)
{
    void (*on_reply)(void *, const Amp__EnvReply *, const struct amp_error *) = submit->on_reply;
    void *ctx = submit->ctx;
    env_submit_cancel(submit);
    on_reply(ctx, reply, err);
}

static uint32_t left_of(const struct env_submit *submit, uint32_t timeout_ms)
{
    int64_t gone_ms = loop_now_ms(submit->loop) - submit->begun_ms;
    return gone_ms < timeout_ms ? timeout_ms - (uint32_t)gone_ms : 1;
}

static void on_due(void *ctx)
{
    struct env_submit *submit = ctx;
    Amp__Submit *what = amp__submit__unpack(NULL, submit->len, submit->packed);
    struct amp_error err = {0};
    if (what && what->request->timeout_ms > 0 && !what->not_before && !what->has_delay_ms) /* what is left of the caller's time shrinks meanwhile */
        what->request->timeout_ms = left_of(submit, what->request->timeout_ms);
    enum amp_code code = what ? send_once(submit, what) : AMP_NO_MEMORY;
    amp__submit__free_unpacked(what, NULL);
    if (code == AMP_OK)
        return;
    submit->call = NULL;
    amp_error_set(&err, code, "", "the environment cannot be asked again: %s", amp_code_info(code)->text);
    finish(submit, NULL, &err);
}

static void on_found(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct env_submit *submit = ctx;
    submit->call = NULL;
    finish(submit, reply, err);
}

/* It is there already, from a try whose answer was lost. */
static bool look_up(struct env_submit *submit)
{
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    query.id = submit->task;
    request.verb_case = AMP__ENV_REQUEST__VERB_GET;
    request.get = &query;
    bool is_asked = env_call(submit->loop, submit->bus, submit->from, &request, submit->answer_ms, on_found, submit, &submit->call) == AMP_OK;
    if (!is_asked)
        submit->call = NULL;
    return is_asked;
}

/* How long until it is sent again; 0: not at all. */
static uint32_t wait_of(struct env_submit *submit, const struct amp_error *err)
{
    bool is_full = err->retry_after_ms > 0 && (err->code == AMP_OVERLOADED || err->code == AMP_QUOTA);
    /* Nobody there at the first try is an answer, and a quick one. */
    bool is_silent = err->code == AMP_NO_BUS || (err->code == AMP_NO_ENV && (submit->n_silent > 0 || loop_now_ms(submit->loop) - submit->sent_ms >= SILENCE_MS));
    uint32_t wait_ms = is_full ? err->retry_after_ms : SILENCE_MS;
    if (!submit->packed || (!is_full && (!is_silent || submit->n_silent == SILENCE_MAX)))
        return 0;
    submit->n_silent += !is_full;
    wait_ms += randombytes_uniform(wait_ms / JITTER + 1);
    return loop_now_ms(submit->loop) + wait_ms > submit->until_ms ? 0 : wait_ms;
}

static void on_answer(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct env_submit *submit = ctx;
    submit->call = NULL;
    uint32_t wait_ms = wait_of(submit, err);
    if (err->code == AMP_CONFLICT && submit->n_silent > 0 && !submit->has_key && look_up(submit))
        return;
    if (!wait_ms) {
        finish(submit, reply, err);
        return;
    }
    counter_add(COUNTER_submits_repeated, 1);
    if (!submit->timer)
        submit->timer = loop_timer_new(submit->loop, on_due, submit);
    loop_timer_set(submit->timer, wait_ms);
}

enum amp_code env_submit(struct loop *loop, struct bus *bus, const char *from, const Amp__Submit *what, const struct env_submit_options *options,
                         void (*on_reply)(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err), void *ctx, struct env_submit **ret)
{
    if (!amp_id_is_valid(from))
        return AMP_INVALID;
    struct env_submit *submit = xcalloc(1, sizeof *submit);
    submit->loop = loop;
    submit->bus = bus;
    for (size_t i = 0; from[i]; i++)
        submit->from[i] = from[i];
    submit->begun_ms = loop_now_ms(loop);
    uint32_t fetch_ms = what->request->timeout_ms && options->patience_ms ? 0 : files_ms(what->request->message);
    uint32_t patience_ms = options->patience_ms > fetch_ms ? options->patience_ms : fetch_ms;
    submit->until_ms = submit->begun_ms + patience_ms;
    submit->answer_ms = options->answer_ms;
    submit->on_reply = on_reply;
    submit->ctx = ctx;
    submit->has_key = what->key && what->key[0];
    Amp__Request request = *what->request;
    Amp__Submit named = *what;
    named.request = &request;
    if (patience_ms) {
        if (request.task_id[0])
            snprintf(submit->task, sizeof submit->task, "%s", request.task_id);
        else
            amp_id_new('t', clock_unix_ms(), submit->task);
        request.task_id = submit->task;
        submit->len = amp__submit__get_packed_size(&named);
        submit->packed = xcalloc(1, submit->len + 1);
        amp__submit__pack(&named, submit->packed);
    }
    enum amp_code code = send_once(submit, &named);
    if (code != AMP_OK) {
        submit->call = NULL;
        env_submit_cancel(submit);
        return code;
    }
    *ret = submit;
    return AMP_OK;
}

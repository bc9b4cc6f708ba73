/* What callers send with files: it is asked again, as it came, when the environment has their bytes on its disk. Until then its sender is told to come back, so that no answer waits
 * longer than anybody listens; who comes back, or asks twice, under the same id waits for the same files. */
#include "env/files.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/counters.h"
#include "base/loop.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct asker {
    struct asker *next;
    char *subject, *reply;
    enum amp_encoding encoding;
    int64_t since_ms;
    size_t len;
    uint8_t data[];
};

struct incoming { /* files of one message */
    UT_hash_handle hh;
    struct env *env;
    char key[2 * AMP_NAME_MAX + AMP_KEY_MAX + 8]; /* "<sender>\n<id>" */
    char sender[AMP_NAME_MAX + 1];
    bool has_id, is_here;
    uint64_t digest; /* of which files they are */
    struct amp_blob_ref *refs;
    size_t n;
    struct blob_held held;
    struct files_fetch *fetch;
    struct asker *askers, **askers_last;
    struct loop_timer *timer;
};

static void asker_free(struct env *env, struct asker *asker)
{
    env->n_held--;
    env->held_bytes -= asker->len;
    free(asker->subject);
    free(asker->reply);
    free(asker);
}

static struct asker *asker_pop(struct incoming *incoming)
{
    struct asker *asker = incoming->askers;
    incoming->askers = asker->next;
    if (!incoming->askers)
        incoming->askers_last = &incoming->askers;
    return asker;
}

static void incoming_free(struct incoming *incoming)
{
    struct env *env = incoming->env;
    HASH_DEL(env->incoming, incoming);
    files_fetch_cancel(incoming->fetch);
    blob_held_release(&incoming->held, files_blobs(env));
    while (incoming->askers)
        asker_free(env, asker_pop(incoming));
    loop_timer_free(incoming->timer);
    free(incoming->refs);
    free(incoming);
}

void files_submit_done(struct env *env)
{
    struct incoming *incoming, *next;
    struct amp_error err = {0};
    (void)amp_error_set(&err, AMP_STOPPING, "", "the environment is stopping");
    HASH_ITER(hh, env->incoming, incoming, next)
    {
        struct reads_hand before = reads_answer(env, incoming->sender);
        for (const struct asker *asker = incoming->askers; asker; asker = asker->next)
            env_refuse(env, asker->reply, asker->encoding, &err);
        reads_answered(env, before);
        incoming_free(incoming);
    }
}

/* ---- while they come ----------------------------------------------------------------------------------------------------- */

static void tell_later(const struct incoming *incoming, const struct asker *asker)
{
    struct amp_error err = {0};
    uint64_t bytes = 0;
    for (size_t i = 0; i < incoming->n; i++)
        bytes += incoming->refs[i].size;
    (void)amp_error_set(&err, AMP_OVERLOADED, "", "%zu of its %zu files are here, of %" PRIu64 " bytes in all; the others are being fetched", incoming->held.n, incoming->n, bytes);
    amp_error_hint(&err, "ask again, under the same id or key");
    err.retry_after_ms = FILES_LATER_MS;
    struct reads_hand before = reads_answer(incoming->env, incoming->sender);
    env_refuse(incoming->env, asker->reply, asker->encoding, &err);
    reads_answered(incoming->env, before);
}

static void set_timer(struct incoming *incoming)
{
    int64_t left_ms = incoming->askers ? incoming->askers->since_ms + FILES_HOLD_MS - loop_now_ms(incoming->env->loop) : 0;
    if (incoming->is_here)
        loop_timer_set(incoming->timer, FILES_READY_MS);
    else if (incoming->askers && incoming->has_id)
        loop_timer_set(incoming->timer, left_ms > 0 ? (uint32_t)left_ms : 0);
}

/* Somebody has waited long enough; or nobody has come back for what is here. */
static void on_timer(void *ctx)
{
    struct incoming *incoming = ctx;
    struct env *env = incoming->env;
    int64_t now_ms = loop_now_ms(env->loop);
    if (incoming->is_here) {
        incoming_free(incoming);
        return;
    }
    while (incoming->askers && incoming->askers->since_ms + FILES_HOLD_MS <= now_ms) {
        struct asker *asker = asker_pop(incoming);
        tell_later(incoming, asker);
        asker_free(env, asker);
    }
    set_timer(incoming);
}

/* As if it came now. */
static void ask_again(struct incoming *incoming)
{
    struct env *env = incoming->env;
    struct asker *asker = asker_pop(incoming);
    env->here = incoming;
    if (!env->is_stopping)
        verbs_again(env, &(struct bus_msg){.subject = asker->subject, .reply = asker->reply, .data = {.data = asker->data, .len = asker->len}});
    env->here = NULL;
    asker_free(env, asker);
}

static void on_fetched(void *ctx, const struct amp_error *err)
{
    struct incoming *incoming = ctx;
    struct env *env = incoming->env;
    incoming->fetch = NULL;
    incoming->is_here = err->code == AMP_OK;
    bool has_askers = incoming->askers != NULL;
    while (incoming->askers && incoming->is_here)
        ask_again(incoming);
    struct reads_hand before = reads_answer(env, incoming->sender);
    while (incoming->askers) {
        struct asker *asker = asker_pop(incoming);
        env_refuse(env, asker->reply, asker->encoding, err);
        asker_free(env, asker);
    }
    reads_answered(env, before);
    if (has_askers || !incoming->is_here || env->is_stopping)
        incoming_free(incoming);
    else
        set_timer(incoming);
}

/* ---- at the gate ----------------------------------------------------------------------------------------------------------- */

/* From us nobody gets what he could not get himself: whoever names us as the holder gives nothing. */
static enum amp_code check_refs(const struct env *env, const struct amp_blob_ref *refs, size_t n, const char *field, struct amp_error *err)
{
    if (n > FILES_MESSAGE_MAX)
        return amp_error_set(err, AMP_TOO_LARGE, field, "%zu files in one message; at most %u are allowed", n, FILES_MESSAGE_MAX);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(refs[i].holder, env->name) != 0)
            continue;
        (void)amp_error_set(err, AMP_INVALID, field, "file %s is said to be held by the environment itself", refs[i].digest);
        amp_error_hint(err, "fetch it, and name as its holder who serves its bytes to the environment");
        return AMP_INVALID;
    }
    return AMP_OK;
}

static uint64_t digest_of(const struct amp_blob_ref *refs, size_t n)
{
    uint64_t digest = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < n; i++)
        for (const char *at = refs[i].digest; *at; at++)
            digest = (digest ^ (uint8_t)*at) * UINT64_C(1099511628211);
    return digest;
}

static struct incoming *incoming_find(const struct ask *ask, const char *id)
{
    struct incoming *incoming;
    char key[sizeof incoming->key];
    (void)snprintf(key, sizeof key, "%s\n%s", ask->from, id);
    HASH_FIND_STR(ask->env->incoming, key, incoming);
    return incoming;
}

static struct incoming *incoming_new(const struct ask *ask, const char *id, const struct amp_blob_ref *refs, size_t n)
{
    static uint64_t n_made;
    struct env *env = ask->env;
    struct incoming *incoming = xcalloc(1, sizeof *incoming);
    incoming->env = env;
    incoming->has_id = *id != '\0';
    if (*id)
        (void)snprintf(incoming->key, sizeof incoming->key, "%s\n%s", ask->from, id);
    else
        (void)snprintf(incoming->key, sizeof incoming->key, "\n%" PRIu64, n_made++);
    etask_strcpy(incoming->sender, ask->from);
    incoming->digest = digest_of(refs, n);
    incoming->n = n;
    incoming->refs = xcalloc(n, sizeof *refs);
    memcpy(incoming->refs, refs, n * sizeof *refs);
    incoming->askers_last = &incoming->askers;
    incoming->timer = loop_timer_new(env->loop, on_timer, incoming);
    HASH_ADD_STR(env->incoming, key, incoming);
    const struct files_wanted wanted = {.sender = ask->from, .refs = refs, .n = n};
    incoming->fetch = files_fetch(env, &wanted, &incoming->held, on_fetched, incoming);
    return incoming;
}

static void add_asker(struct incoming *incoming, const struct ask *ask)
{
    struct env *env = incoming->env;
    const struct bus_msg *msg = ask->msg;
    struct asker *asker = xcalloc(1, sizeof *asker + msg->data.len);
    *asker = (struct asker){.subject = xstrdup(msg->subject), .reply = xstrdup(msg->reply), .encoding = ask->encoding, .since_ms = loop_now_ms(env->loop), .len = msg->data.len};
    memcpy(asker->data, msg->data.data, msg->data.len);
    env->n_held++;
    env->held_bytes += asker->len;
    *incoming->askers_last = asker;
    incoming->askers_last = &asker->next;
    set_timer(incoming);
}

/* Files that are here, or are waited for. */
static enum files_gate pass(const struct ask *ask, const struct amp_blob_ref *refs, size_t n, const char *id, const char *field)
{
    struct env *env = ask->env;
    struct amp_error err = {0};
    struct incoming *incoming = env->here ? env->here : *id ? incoming_find(ask, id) : NULL;
    bool is_same = incoming && incoming->n == n && incoming->digest == digest_of(refs, n);
    if (check_refs(env, refs, n, field, &err) != AMP_OK) {
        env_refuse(env, ask->reply, ask->encoding, &err);
        return FILES_TAKEN;
    }
    if (incoming && !is_same) {
        env_refuse_code(ask, AMP_CONFLICT, field, "other files are being fetched for this id or key");
        return FILES_TAKEN;
    }
    if (incoming && incoming->is_here)
        return FILES_HERE;
    bool is_full = env->n_held >= ENV_HELD_MAX || env->held_bytes + ask->msg->data.len > ENV_HELD_BYTES_MAX || (!incoming && HASH_COUNT(env->incoming) >= FILES_WAITING_MAX);
    if (is_full) {
        load_refuse(ask, "too many wait for their files");
        return FILES_TAKEN;
    }
    add_asker(incoming ? incoming : incoming_new(ask, id, refs, n), ask);
    return FILES_TAKEN;
}

enum files_gate files_gate(const struct ask *ask, Amp__Message *message, const char *id, const char *field)
{
    struct amp_blob_ref *refs = NULL;
    size_t n = 0;
    if (!amp_message_has_blob(message))
        return FILES_HERE;
    blob_refs_add(message->parts, message->n_parts, &refs, &n);
    enum files_gate gate = n > 0 ? pass(ask, refs, n, id, field) : FILES_HERE;
    free(refs);
    if (gate == FILES_TAKEN || files_hand_on(ask->env, message->parts, message->n_parts, &ask->env->arena) == AMP_OK)
        return gate;
    env_refuse_code(ask, AMP_TOO_LARGE, field, "the message with its files is too large");
    return FILES_TAKEN;
}

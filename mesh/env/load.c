/* How full the environment is: everything that grows with what others send has a maximum, is refused beyond it, and is told here (amp.md 10.13; the same table stands in
 * docs/operations.md). */
#include "env/files.h"

#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"

#include <stdlib.h>
#include <string.h>

#define SENDERS_TOLD 5u
#define REFUSED_MS 50u
#define EWMA 0.5

static uint64_t open_tasks(const struct env *env)
{
    return env->n_durable;
}

static uint64_t direct_tasks(const struct env *env)
{
    return env->n_direct;
}

static uint64_t direct_bytes(const struct env *env)
{
    return env->direct_bytes;
}

static uint64_t journal_batches(const struct env *env)
{
    return journal_waiting(env->journal);
}

static uint64_t journal_bytes(const struct env *env)
{
    return journal_waiting_bytes(env->journal);
}

static uint64_t event_bytes(const struct env *env)
{
    return env->unwritten_bytes;
}

static uint64_t readers(const struct env *env)
{
    return env->n_held;
}

static uint64_t reader_bytes(const struct env *env)
{
    return env->held_bytes;
}

static uint64_t read_bytes(const struct env *env)
{
    return env->reads.out_bytes;
}

static uint64_t untold_bytes(const struct env *env)
{
    return env->reads.untold_bytes;
}

static uint64_t watchers(const struct env *env)
{
    return env->n_watchers;
}

static uint64_t controls(const struct env *env)
{
    return env->n_passed;
}

static uint64_t memory_writes(const struct env *env)
{
    return kv_waiting(env);
}

static uint64_t waiting_calls(const struct env *env)
{
    return turns_count(env->turns);
}

static uint64_t senders(const struct env *env)
{
    return HASH_COUNT(env->quota.senders);
}

static uint64_t file_bytes(const struct env *env)
{
    return files_bytes(env);
}

static uint64_t files_coming(const struct env *env)
{
    return files_waiting(env);
}

static const struct {
    const char *name;
    uint64_t (*used)(const struct env *env);
    uint64_t max;
} queues[] = {
    {"open_tasks", open_tasks, ENV_OPEN_MAX},
    {"direct_tasks", direct_tasks, ENV_DIRECT_MAX},
    {"direct_bytes", direct_bytes, ENV_DIRECT_BYTES_MAX},
    {"journal_batches", journal_batches, JOURNAL_QUEUE_MAX},
    {"journal_bytes", journal_bytes, JOURNAL_QUEUE_BYTES_MAX},
    {"event_bytes", event_bytes, ENV_FLOOD_BYTES_MAX},
    {"readers", readers, ENV_HELD_MAX},
    {"reader_bytes", reader_bytes, ENV_HELD_BYTES_MAX},
    {"read_bytes", read_bytes, ENV_READ_BYTES_MAX},
    {"untold_bytes", untold_bytes, ENV_UNTOLD_BYTES_MAX},
    {"watchers", watchers, ENV_WATCHERS_MAX},
    {"controls", controls, ENV_PASSED_MAX},
    {"memory_writes", memory_writes, ENV_KV_PENDING_MAX},
    {"waiting_calls", waiting_calls, TURNS_MAX},
    {"senders", senders, QUOTA_SENDERS_MAX},
    {"file_bytes", file_bytes, 0}, /* 0: as large as the store may be */
    {"files_coming", files_coming, FILES_WAITING_MAX},
};
#define QUEUES (sizeof queues / sizeof queues[0])

/* ---- submits --------------------------------------------------------------------------------------------------------- */

/* Half of the journal's queue is for what is accepted already: its events and its end. */
static bool is_journal_full(const struct env *env)
{
    return journal_waiting(env->journal) >= JOURNAL_QUEUE_MAX / 2 || journal_waiting_bytes(env->journal) >= JOURNAL_QUEUE_BYTES_MAX / 2;
}

enum amp_code load_check_submit(struct env *env, const char *from, size_t bytes, struct amp_error *err)
{
    int64_t now_ms = loop_now_ms(env->loop);
    enum amp_code code = AMP_OK;
    if (is_journal_full(env)) {
        code = amp_error_set(err, AMP_OVERLOADED, "", "%zu writes of %zu bytes wait for the disk", journal_waiting(env->journal), journal_waiting_bytes(env->journal));
        env->room.n_refused++;
        err->retry_after_ms = quota_promise(&env->room, env->commits_per_s, now_ms);
    } else {
        code = quota_check(&env->quota, from, bytes, now_ms, err);
    }
    if (code == AMP_QUOTA)
        counter_add(COUNTER_env_quota_refused, 1);
    else if (code != AMP_OK)
        counter_add(COUNTER_env_full_refused, 1);
    return code;
}

void load_refuse(const struct ask *ask, const char *what)
{
    struct amp_error err = {0};
    amp_error_set(&err, AMP_OVERLOADED, "", "%s", what);
    err.retry_after_ms = REFUSED_MS + env_random(ask->env) % REFUSED_MS;
    counter_add(COUNTER_env_full_refused, 1);
    env_refuse(ask->env, ask->reply, ask->encoding, &err);
}

void load_dropped(struct env *env)
{
    counter_add(COUNTER_env_answers_dropped, 1);
    env->n_dropped++;
}

void load_sweep(struct env *env)
{
    if (env->n_dropped > 0)
        log_event(LOG_WARN, "env.answers_dropped", "count", log_int(env->n_dropped), "reason", "the bus takes less than the environment has to say", NULL);
    env->n_dropped = 0;
    if (env->commits_now > 0)
        env->commits_per_s = env->commits_per_s * EWMA + (double)env->commits_now * (1 - EWMA) * 1000 / ENV_SWEEP_MS;
    env->commits_now = 0;
    quota_tick(&env->quota, loop_now_ms(env->loop));
}

/* ---- told ------------------------------------------------------------------------------------------------------------ */

static int by_fill(const void *a, const void *b)
{
    const Amp__Queue *left = *(Amp__Queue *const *)a, *right = *(Amp__Queue *const *)b;
    double l = (double)left->used / (double)left->max, r = (double)right->used / (double)right->max;
    return l < r ? 1 : l > r ? -1 : strcmp(left->name, right->name);
}

static Amp__Queue *tell(struct amp_arena *arena, const char *name, uint64_t used, uint64_t max)
{
    Amp__Queue *queue = amp_arena_alloc(arena, sizeof *queue);
    if (!queue)
        return NULL;
    amp__queue__init(queue);
    queue->name = (char *)name;
    queue->has_used = queue->has_max = true;
    queue->used = used;
    queue->max = max;
    return queue;
}

void load_fill_info(struct env *env, struct amp_arena *arena, Amp__EnvInfo *info)
{
    const struct quota_sender *fullest[SENDERS_TOLD];
    size_t count = quota_fullest(&env->quota, fullest, SENDERS_TOLD);
    info->queues = amp_arena_alloc(arena, QUEUES * sizeof *info->queues);
    info->senders = amp_arena_alloc(arena, SENDERS_TOLD * sizeof *info->senders);
    for (size_t i = 0; i < QUEUES && info->queues; i++)
        if ((info->queues[info->n_queues] = tell(arena, queues[i].name, queues[i].used(env), queues[i].max ? queues[i].max : files_bytes_max(env))))
            info->n_queues++;
    if (info->queues)
        qsort(info->queues, info->n_queues, sizeof *info->queues, by_fill);
    for (size_t i = 0; i < count && info->senders; i++) {
        const struct quota_sender *sender = fullest[i];
        bool is_by_bytes = quota_fill(sender) > (double)sender->open / sender->limits.open;
        Amp__Queue *told = tell(arena, sender->name, is_by_bytes ? sender->bytes : sender->open, is_by_bytes ? sender->limits.bytes : sender->limits.open);
        if (!told)
            return;
        told->has_refused = true;
        told->refused = sender->n_refused;
        info->senders[info->n_senders++] = told;
    }
}

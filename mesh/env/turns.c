#include "env/turns.h"

#include "base/alloc.h"
#include "base/seeded.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#define IDLE_MS 100     /* an instance that joined its groups so long ago has been found by who looked for it */
#define GAP_STALE_MS 30000
#define ASKS_MS 60000   /* of a task; one that takes longer ends with a beat at the latest */
#define ASKERS_MAX 100000u
#define LOOKED_AT_MAX 256u
#define PRIORITIES 3

struct turn_sender { /* with calls that wait in a queue */
    UT_hash_handle hh;
    char name[AMP_NAME_MAX + 1];
    uint32_t count;
    int64_t last_ms[PRIORITIES]; /* when its last call of that priority counts as having come */
};

struct turn_queue {
    UT_hash_handle hh;
    char key[AMP_NAME_MAX + 3]; /* "a:agent" or "s:skill" */
    struct turn **heap;         /* by at_ms */
    size_t count, cap;
    size_t n_turns;             /* that point here, also those that wait no more */
    struct turn_sender *senders;
    int64_t turn_ms;            /* the last turn */
    uint32_t n_gaps, gap_us;    /* between turns while calls waited; mean */
    bool was_waiting;           /* somebody was left when that turn was given */
    uint32_t idle, sent;        /* slots that became free a moment ago and were not taken since; calls sent to look for them that have not found one yet */
    int64_t idle_ms;
};

struct turn {
    UT_hash_handle hh;
    char key[2 * AMP_NAME_MAX + 2]; /* "from task" */
    const char *task;               /* in key */
    struct turn_queue *queue;
    struct turn_sender *sender;     /* NULL: it had its turn, and does not wait */
    size_t at;                      /* in the heap */
    int64_t at_ms, heard_ms, since_ms;
    uint64_t serial;                /* of those that came in the same moment */
    enum amp_encoding encoding;
    Amp__Priority priority;
    char reply[];
};

struct turn_asker {
    UT_hash_handle hh;
    char instance[AMP_NAME_MAX + 1];
    int64_t asked_ms;
};

struct turns {
    struct turn_asker *askers;
    struct turn *all;
    struct turn_queue *queues;
    size_t n_waiting;
    uint64_t n_serials;
};

struct turns *turns_new(void)
{
    return xcalloc(1, sizeof(struct turns));
}

/* ---- the heap ------------------------------------------------------------------------------------------------------------ */

static void put(struct turn_queue *queue, size_t at, struct turn *turn)
{
    queue->heap[at] = turn;
    turn->at = at;
}

static bool is_before(const struct turn *a, const struct turn *b)
{
    return a->at_ms < b->at_ms || (a->at_ms == b->at_ms && a->serial < b->serial);
}

static void sift(struct turn_queue *queue, struct turn *turn)
{
    size_t at = turn->at;
    while (at > 0 && is_before(turn, queue->heap[(at - 1) / 2])) {
        put(queue, at, queue->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (size_t child; (child = 2 * at + 1) < queue->count; at = child) {
        if (child + 1 < queue->count && is_before(queue->heap[child + 1], queue->heap[child]))
            child++;
        if (!is_before(queue->heap[child], turn))
            break;
        put(queue, at, queue->heap[child]);
    }
    put(queue, at, turn);
}

static void heap_add(struct turn_queue *queue, struct turn *turn)
{
    if (queue->count == queue->cap) {
        queue->cap = queue->cap ? queue->cap * 2 : 16;
        queue->heap = xrealloc(queue->heap, queue->cap * sizeof *queue->heap);
    }
    put(queue, queue->count++, turn);
    sift(queue, turn);
}

static void heap_remove(struct turn_queue *queue, const struct turn *turn)
{
    struct turn *last = queue->heap[--queue->count];
    if (last == turn)
        return;
    put(queue, turn->at, last);
    sift(queue, last);
}

/* ---- queues ---------------------------------------------------------------------------------------------------------------- */

static struct turn_queue *find_queue(const struct turns *turns, char kind, const char *name)
{
    char key[sizeof((struct turn_queue *)0)->key];
    struct turn_queue *queue;
    snprintf(key, sizeof key, "%c:%s", kind, name);
    HASH_FIND_STR(turns->queues, key, queue);
    return queue;
}

/* Of the seeker's i-th skill; NULL: it has none, or nobody asked for it. */
static struct turn_queue *skill_queue(const struct turns *turns, const struct turn_seeker *seeker, size_t i)
{
    const char *skill = seeker->card->skills[i]->id;
    return skill && amp_id_is_valid(skill) ? find_queue(turns, 's', skill) : NULL;
}

static struct turn_queue *queue_of(const struct turns *turns, const char *agent, const char *skill)
{
    return find_queue(turns, skill ? 's' : 'a', skill ? skill : agent);
}

static struct turn_queue *make_queue(struct turns *turns, char kind, const char *name)
{
    struct turn_queue *queue = find_queue(turns, kind, name);
    if (queue)
        return queue;
    queue = xcalloc(1, sizeof *queue);
    snprintf(queue->key, sizeof queue->key, "%c:%s", kind, name);
    HASH_ADD_STR(turns->queues, key, queue);
    return queue;
}

static void queue_free(struct turns *turns, struct turn_queue *queue)
{
    HASH_DEL(turns->queues, queue);
    free(queue->heap);
    free(queue);
}

static struct turn_sender *sender_of(struct turn_queue *queue, const char *name)
{
    struct turn_sender *sender;
    HASH_FIND_STR(queue->senders, name, sender);
    if (sender)
        return sender;
    sender = xcalloc(1, sizeof *sender);
    snprintf(sender->name, sizeof sender->name, "%s", name);
    HASH_ADD_STR(queue->senders, name, sender);
    return sender;
}

static void sender_release(struct turn_queue *queue, struct turn_sender *sender)
{
    if (sender->count)
        return;
    HASH_DEL(queue->senders, sender);
    free(sender);
}

static void queue_in(struct turns *turns, struct turn *turn, struct turn_sender *sender)
{
    turn->sender = sender;
    sender->count++;
    turns->n_waiting++;
    heap_add(turn->queue, turn);
}

static void queue_out(struct turns *turns, struct turn *turn)
{
    if (!turn->sender)
        return;
    heap_remove(turn->queue, turn);
    turn->sender->count--;
    sender_release(turn->queue, turn->sender);
    turn->sender = NULL;
    turns->n_waiting--;
}

static void turn_free(struct turns *turns, struct turn *turn)
{
    queue_out(turns, turn);
    turn->queue->n_turns--;
    HASH_DEL(turns->all, turn);
    free(turn);
}

static void asker_free(struct turns *turns, struct turn_asker *asker)
{
    HASH_DEL(turns->askers, asker);
    free(asker);
}

void turns_free(struct turns *turns)
{
    struct turn *turn, *next;
    struct turn_queue *queue, *next_queue;
    struct turn_asker *asker, *next_asker;
    if (!turns)
        return;
    HASH_ITER(hh, turns->askers, asker, next_asker)
        asker_free(turns, asker);
    HASH_ITER(hh, turns->all, turn, next)
        turn_free(turns, turn);
    HASH_ITER(hh, turns->queues, queue, next_queue)
        queue_free(turns, queue);
    free(turns);
}

/* ---- waiting ------------------------------------------------------------------------------------------------------------------ */

static bool is_measured(const struct turn_queue *queue, int64_t now_ms)
{
    return queue->n_gaps >= TURNS_GAPS_MIN && now_ms - queue->turn_ms < GAP_STALE_MS;
}

static uint32_t about_ms(const struct turn_queue *queue, uint32_t position, int64_t now_ms)
{
    uint64_t ms = is_measured(queue, now_ms) ? (uint64_t)position * queue->gap_us / 1000 + 1 : 0;
    return ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

/* Of a long queue about: by so many of those that wait as can be looked at each time that somebody says that it still waits. */
static uint32_t position_of(const struct turn_queue *queue, const struct turn *turn)
{
    size_t stride = queue->count / LOOKED_AT_MAX + 1, position = 1;
    for (size_t i = 0; i < queue->count; i += stride)
        position += is_before(queue->heap[i], turn) ? stride : 0;
    return (uint32_t)(position <= queue->count ? position : queue->count + 1);
}

static int64_t counts_from(const struct turn_queue *queue, const struct turn_sender *sender, const struct turn_call *call, int64_t now_ms)
{
    static const int64_t later_ms[PRIORITIES] = {[AMP__PRIORITY__PRIORITY_HIGH] = -TURNS_PRIORITY_MS, [AMP__PRIORITY__PRIORITY_LOW] = TURNS_PRIORITY_MS};
    int64_t at_ms = now_ms + later_ms[call->priority];
    unsigned n_senders = HASH_COUNT(queue->senders) > 1 ? HASH_COUNT(queue->senders) : 2;
    /* Among those that ask for about as much nobody is held back: any other order than that of coming makes the longest waits longer. */
    if (sender->count < TURNS_BURST || (uint64_t)sender->count * n_senders * 2 <= (uint64_t)queue->count * 3)
        return at_ms;
    int64_t share_ms = (int64_t)queue->gap_us * n_senders / 1000;
    int64_t fair_ms = sender->last_ms[call->priority] + share_ms;
    return sender->last_ms[call->priority] && fair_ms > at_ms ? fair_ms : at_ms;
}

static enum amp_code refuse(struct amp_error *reterr, enum amp_code code, const struct turn_queue *queue, uint32_t about)
{
    const char *kind = queue->key[0] == 's' ? "skill" : "agent", *name = queue->key + 2;
    if (code == AMP_DEADLINE)
        amp_error_set(reterr, code, "wait.timeout_ms", "its turn would not come in its time: %zu calls wait for %s %s, which takes about %u ms", queue->count, kind, name, about);
    else if (code == AMP_QUOTA)
        amp_error_set(reterr, code, "", "%u calls of this sender wait for %s %s; at most %u may", TURNS_SENDER_MAX, kind, name, TURNS_SENDER_MAX);
    else
        amp_error_set(reterr, code, "", "%zu calls wait for %s %s; there is no room for more", queue->count, kind, name);
    amp_error_hint(reterr, "start another instance, or come back later");
    if (reterr)
        reterr->retry_after_ms = about ? about : 1000;
    return code;
}

static enum amp_code admit(const struct turns *turns, const struct turn_queue *queue, const struct turn_sender *sender, struct amp_error *reterr)
{
    if (queue->count >= TURNS_QUEUE_MAX || HASH_COUNT(turns->all) >= TURNS_MAX)
        return refuse(reterr, AMP_OVERLOADED, queue, 0);
    return sender->count >= TURNS_SENDER_MAX ? refuse(reterr, AMP_QUOTA, queue, 0) : AMP_OK;
}

static enum amp_code add(struct turns *turns, const char *key, const struct turn_call *call, int64_t now_ms, struct turn_place *ret, struct amp_error *reterr)
{
    struct turn_queue *queue = make_queue(turns, call->skill ? 's' : 'a', call->skill ? call->skill : call->agent);
    struct turn_sender *sender = sender_of(queue, call->from);
    enum amp_code code = admit(turns, queue, sender, reterr);
    const struct turn as = {.at_ms = counts_from(queue, sender, call, now_ms), .serial = ++turns->n_serials};
    ret->position = position_of(queue, &as);
    ret->about_ms = about_ms(queue, ret->position, now_ms);
    if (code == AMP_OK && call->timeout_ms && ret->about_ms > call->timeout_ms)
        code = refuse(reterr, AMP_DEADLINE, queue, ret->about_ms);
    if (code != AMP_OK) {
        sender_release(queue, sender);
        return code;
    }
    size_t reply_size = strlen(call->reply) + 1;
    struct turn *turn = xcalloc(1, sizeof *turn + reply_size);
    snprintf(turn->key, sizeof turn->key, "%s", key);
    turn->task = strchr(turn->key, ' ') + 1;
    turn->queue = queue;
    turn->at_ms = sender->last_ms[call->priority] = as.at_ms;
    turn->serial = as.serial;
    turn->heard_ms = turn->since_ms = now_ms;
    turn->encoding = call->encoding;
    turn->priority = call->priority;
    memcpy(turn->reply, call->reply, reply_size);
    HASH_ADD_STR(turns->all, key, turn);
    queue->n_turns++;
    queue_in(turns, turn, sender);
    return AMP_OK;
}

static void make_key(char ret[sizeof((struct turn *)0)->key], const char *from, const char *task)
{
    snprintf(ret, sizeof((struct turn *)0)->key, "%s %s", from, task);
}

enum amp_code turns_wait(struct turns *turns, const struct turn_call *call, int64_t now_ms, struct turn_place *ret, struct amp_error *reterr)
{
    char key[sizeof((struct turn *)0)->key];
    struct turn *turn;
    make_key(key, call->from, call->task);
    HASH_FIND_STR(turns->all, key, turn);
    if (turn && strcmp(turn->reply, call->reply) != 0) { /* another call of that name: its sender's own affair */
        turn_free(turns, turn);
        turn = NULL;
    }
    if (!turn)
        return add(turns, key, call, now_ms, ret, reterr);
    turn->heard_ms = now_ms;
    if (!turn->sender) /* it had its turn, but was not taken there */
        queue_in(turns, turn, sender_of(turn->queue, call->from));
    ret->position = position_of(turn->queue, turn);
    ret->about_ms = about_ms(turn->queue, ret->position, now_ms);
    return AMP_OK;
}

int64_t turns_waited_ms(const struct turns *turns, const char *from, const char *task, int64_t now_ms)
{
    char key[sizeof((struct turn *)0)->key];
    struct turn *turn;
    make_key(key, from, task);
    HASH_FIND_STR(turns->all, key, turn);
    return turn ? now_ms - turn->since_ms : 0;
}

bool turns_has(const struct turns *turns, const char *from, const char *task)
{
    char key[sizeof((struct turn *)0)->key];
    struct turn *turn;
    make_key(key, from, task);
    HASH_FIND_STR(turns->all, key, turn);
    return turn != NULL;
}

bool turns_withdraw(struct turns *turns, const char *from, const char *task)
{
    char key[sizeof((struct turn *)0)->key];
    struct turn *turn;
    make_key(key, from, task);
    HASH_FIND_STR(turns->all, key, turn);
    if (!turn)
        return false;
    turn_free(turns, turn);
    return true;
}

/* ---- turns ----------------------------------------------------------------------------------------------------------------------- */

/* Of those, the queue whose first one is first; NULL: nobody waits. */
static struct turn_queue *first_queue(const struct turns *turns, const struct turn_seeker *seeker)
{
    if (!turns->n_waiting)
        return NULL;
    struct turn_queue *first = find_queue(turns, 'a', seeker->agent);
    if (first && !first->count)
        first = NULL;
    for (size_t i = 0; seeker->card && i < seeker->card->n_skills; i++) {
        struct turn_queue *queue = skill_queue(turns, seeker, i);
        if (queue && queue->count && (!first || is_before(queue->heap[0], first->heap[0])))
            first = queue;
    }
    return first;
}

int64_t turns_first_ms(const struct turns *turns, const struct turn_seeker *seeker)
{
    const struct turn_queue *queue = first_queue(turns, seeker);
    return queue ? queue->heap[0]->at_ms : INT64_MAX;
}

uint32_t turns_waiting(const struct turns *turns, const struct turn_seeker *seeker)
{
    if (!turns->n_waiting)
        return 0;
    const struct turn_queue *queue = find_queue(turns, 'a', seeker->agent);
    size_t count = queue ? queue->count : 0;
    for (size_t i = 0; seeker->card && i < seeker->card->n_skills; i++) {
        queue = skill_queue(turns, seeker, i);
        count += queue ? queue->count : 0;
    }
    return (uint32_t)count;
}

static void measure(struct turn_queue *queue, int64_t now_ms)
{
    int64_t gap_us = (now_ms - queue->turn_ms) * 1000;
    if (queue->was_waiting && gap_us < UINT32_MAX) {
        queue->gap_us = queue->n_gaps ? queue->gap_us - queue->gap_us / 16 + (uint32_t)gap_us / 16 : (uint32_t)gap_us;
        queue->n_gaps += queue->n_gaps < TURNS_GAPS_MIN;
    }
    queue->turn_ms = now_ms;
    queue->was_waiting = queue->count > 0;
}

bool turns_next(struct turns *turns, const struct turn_seeker *seeker, int64_t now_ms, struct turn_call *ret)
{
    struct turn_queue *queue = first_queue(turns, seeker);
    if (!queue)
        return false;
    struct turn *turn = queue->heap[0];
    bool is_skill = queue->key[0] == 's';
    if (!SEEDED_BUG("turn-again"))
        queue_out(turns, turn);
    measure(queue, now_ms);
    turn->heard_ms = now_ms;
    *ret = (struct turn_call){
        .task = turn->task,
        .from = turn->key,
        .agent = is_skill ? NULL : queue->key + 2,
        .skill = is_skill ? queue->key + 2 : NULL,
        .reply = turn->reply,
        .encoding = turn->encoding,
        .priority = turn->priority,
    };
    return true;
}

static void note_idle(struct turn_queue *queue, uint32_t slots, int64_t now_ms)
{
    if (now_ms - queue->idle_ms >= IDLE_MS)
        queue->idle = queue->sent = 0;
    queue->idle += slots;
    queue->idle_ms = now_ms;
}

void turns_idle(struct turns *turns, const struct turn_seeker *seeker, uint32_t slots, int64_t now_ms)
{
    note_idle(make_queue(turns, 'a', seeker->agent), slots, now_ms);
    for (size_t i = 0; seeker->card && i < seeker->card->n_skills; i++) {
        const char *skill = seeker->card->skills[i]->id;
        if (skill && amp_id_is_valid(skill))
            note_idle(make_queue(turns, 's', skill), slots, now_ms);
    }
}

static void note_taken(struct turn_queue *queue)
{
    if (queue && queue->idle)
        queue->idle--;
    if (queue && queue->sent)
        queue->sent--;
}

void turns_taken(struct turns *turns, const struct turn_seeker *seeker)
{
    note_taken(find_queue(turns, 'a', seeker->agent));
    for (size_t i = 0; seeker->card && i < seeker->card->n_skills; i++)
        note_taken(skill_queue(turns, seeker, i));
}

bool turns_take_idle(struct turns *turns, const char *agent, const char *skill, int64_t now_ms)
{
    struct turn_queue *queue = queue_of(turns, agent, skill);
    if (!queue || queue->idle <= queue->sent || queue->count || now_ms - queue->idle_ms >= IDLE_MS)
        return false;
    queue->sent++;
    return true;
}

void turns_asked(struct turns *turns, const char *instance, bool is_joined, int64_t now_ms)
{
    struct turn_asker *asker;
    HASH_FIND_STR(turns->askers, instance, asker);
    if (asker && is_joined) {
        asker_free(turns, asker);
    } else if (asker) {
        asker->asked_ms = now_ms;
    } else if (!is_joined && HASH_COUNT(turns->askers) < ASKERS_MAX) {
        asker = xcalloc(1, sizeof *asker);
        snprintf(asker->instance, sizeof asker->instance, "%s", instance);
        asker->asked_ms = now_ms;
        HASH_ADD_STR(turns->askers, instance, asker);
    }
}

bool turns_asks(const struct turns *turns, const char *instance, int64_t now_ms)
{
    struct turn_asker *asker;
    HASH_FIND_STR(turns->askers, instance, asker);
    return asker && now_ms - asker->asked_ms < ASKS_MS;
}

void turns_sweep(struct turns *turns, int64_t now_ms)
{
    struct turn *turn, *next;
    struct turn_queue *queue, *next_queue;
    struct turn_asker *asker, *next_asker;
    HASH_ITER(hh, turns->askers, asker, next_asker)
        if (now_ms - asker->asked_ms >= ASKS_MS)
            asker_free(turns, asker);
    HASH_ITER(hh, turns->all, turn, next) {
        if (now_ms - turn->heard_ms >= (turn->sender ? TURNS_RENEW_MAX_MS : TURNS_GIVEN_MS))
            turn_free(turns, turn);
    }
    HASH_ITER(hh, turns->queues, queue, next_queue)
        if (!queue->n_turns && now_ms - queue->turn_ms >= GAP_STALE_MS && now_ms - queue->idle_ms >= IDLE_MS)
            queue_free(turns, queue);
}

size_t turns_count(const struct turns *turns)
{
    return turns->n_waiting;
}

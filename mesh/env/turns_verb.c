/* Direct calls that found every instance busy, and instances that have a free slot, brought together (amp.md 10.14). What is kept here may be lost: a call that does not hear
 * of its turn tries by itself. */
#include "turns_verb.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TURNS_AT_ONCE_MAX 256u /* of one question of an instance */
#define OFFERS_MAX 4096u /* turns told a moment ago, of which is heard whether somebody was there */

struct offer { /* that it is its turn; lives until the next sweep but one */
    struct offer *next;
    struct env *env;
    struct bus_inbox *inbox;
    char agent[AMP_NAME_MAX + 1], instance[AMP_NAME_MAX + 1];
};

static struct turn_seeker seeker_of(const struct env *env, const char *agent)
{
    const struct registry_agent *known = registry_agent(&env->registry, agent);
    return (struct turn_seeker){.agent = agent, .card = known ? known->card : NULL};
}

/* ---- whose turn it is ------------------------------------------------------------------------------------------------- */

static bool give(struct env *env, const char *agent, const char *instance);

/* The caller's connection is gone: the slot is for the next one. */
static void on_offered(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct offer *offer = ctx;
    (void)msg, (void)text;
    if (kind == BUS_INBOX_NO_RESPONDERS && !offer->env->is_stopping)
        (void)give(offer->env, offer->agent, offer->instance);
}

static void offers_free(struct offer *offer)
{
    while (offer) {
        struct offer *next = offer->next;
        bus_inbox_free(offer->inbox);
        free(offer);
        offer = next;
    }
}

static enum amp_code publish_offer(struct env *env, const struct turn_call *call, const char *agent, const char *instance)
{
    if (env->offers.count >= OFFERS_MAX)
        return bus_publish(env->bus, call->reply, NULL, amp_buf_bytes(&env->out));
    struct offer *offer = xcalloc(1, sizeof *offer);
    offer->env = env;
    etask_strcpy(offer->agent, agent);
    etask_strcpy(offer->instance, instance);
    offer->inbox = bus_inbox_new(env->bus, on_offered, offer);
    offer->next = env->offers.now;
    env->offers.now = offer;
    env->offers.count++;
    return bus_inbox_request(offer->inbox, call->reply, amp_buf_bytes(&env->out));
}

/* Who does not take what he is told would not hear of his turn either, and hold up who tells him. */
static bool next_call(struct env *env, const struct turn_seeker *seeker, struct turn_call *ret, char ret_from[AMP_NAME_MAX + 1])
{
    do {
        if (!turns_next(env->turns, seeker, loop_now_ms(env->loop), ret))
            return false;
        (void)snprintf(ret_from, AMP_NAME_MAX + 1, "%.*s", (int)strcspn(ret->from, " "), ret->from);
    } while (reads_is_resting(env, ret_from));
    return true;
}

/* False: nobody waits. */
static bool give(struct env *env, const char *agent, const char *instance)
{
    struct turn_seeker seeker = seeker_of(env, agent);
    struct turn_call call;
    char from[AMP_NAME_MAX + 1];
    if (!next_call(env, &seeker, &call, from))
        return false;
    Amp__Turn turn = AMP__TURN__INIT;
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    turn.agent = (char *)agent;
    turn.instance = (char *)instance;
    answer.turn = &turn;
    if (env_encode_reply(env, call.encoding, &answer) == AMP_OK && publish_offer(env, &call, agent, instance) == AMP_OK) /* a bus that is away: whoever waits finds that out by itself */
        reads_told(env, reads_reader(env, from), env->out.len);
    turns_asked(env->turns, instance, false, loop_now_ms(env->loop)); /* who is sent somebody asks from then on */
    counter_add(COUNTER_turns_given, 1);
    return true;
}

/* ---- verbs --------------------------------------------------------------------------------------------------------------- */

static void answer_turn(const struct ask *ask, const Amp__Turn *turn)
{
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    answer.turn = (Amp__Turn *)turn;
    (void)env_answer(ask->env, ask->reply, ask->encoding, &answer);
}

void turns_wait_verb(const struct ask *ask)
{
    struct env *env = ask->env;
    const Amp__Wait *wait = ask->request->wait;
    Amp__Turn turn = AMP__TURN__INIT;
    struct amp_error err = {0};
    struct turn_place place = {0};
    int64_t now = loop_now_ms(env->loop);
    bool has_priority = wait->priority == AMP__PRIORITY__PRIORITY_HIGH || wait->priority == AMP__PRIORITY__PRIORITY_LOW;
    struct turn_call call = {.task = wait->task_id, .from = ask->from, .agent = wait->agent, .skill = wait->skill, .reply = ask->reply, .encoding = ask->encoding,
                             .priority = has_priority ? wait->priority : AMP__PRIORITY__PRIORITY_NORMAL, .timeout_ms = wait->timeout_ms};
    if (wait->has_withdraw && wait->withdraw) {
        (void)turns_withdraw(env->turns, ask->from, wait->task_id);
        answer_turn(ask, &turn);
    } else if (registry_slots(&env->registry, wait->agent, wait->skill).instances == 0) {
        env_refuse_code(ask, wait->skill ? AMP_NO_SUCH_SKILL : AMP_NO_SUCH_AGENT, "", NULL);
    } else if (turns_take_idle(env->turns, wait->agent, wait->skill, now)) {
        answer_turn(ask, &turn); /* somebody has become free since: it is asked again, as at first */
    } else if (turns_wait(env->turns, &call, now, &place, &err) != AMP_OK) {
        counter_add(COUNTER_turns_refused, 1);
        env_refuse(env, ask->reply, ask->encoding, &err);
    } else {
        turn.has_position = true;
        turn.position = place.position;
        turn.has_about_ms = place.about_ms > 0;
        turn.about_ms = place.about_ms;
        answer_turn(ask, &turn);
    }
}

/* Durable tasks wait in queues of their own. Is one of those before the calls? */
static bool is_durable_first(const struct env *env, const struct turn_seeker *seeker)
{
    int64_t first = turns_first_ms(env->turns, seeker), unix_ms = targets_first_unix_ms(env, seeker->agent, seeker->card);
    if (unix_ms == INT64_MAX)
        return false;
    return first == INT64_MAX || clock_unix_ms() - unix_ms > loop_now_ms(env->loop) - first;
}

void turns_next_verb(const struct ask *ask)
{
    struct env *env = ask->env;
    const Amp__Next *next = ask->request->next;
    uint32_t free_slots = next->has_free ? next->free : 1;
    struct turn_seeker seeker = seeker_of(env, ask->from);
    const struct registry_agent *agent = registry_agent(&env->registry, ask->from);
    bool is_joined = next->has_joined && next->joined, is_durable_next = is_durable_first(env, &seeker);
    turns_asked(env->turns, next->instance, is_joined, loop_now_ms(env->loop));
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    if (is_joined && agent)
        targets_wake(env, agent, true);
    if (is_joined && is_durable_next && free_slots)
        free_slots--; /* it is called through the groups */
    while (answer.turns < free_slots && answer.turns < TURNS_AT_ONCE_MAX && !(is_durable_next && !is_joined) && give(env, ask->from, next->instance))
        answer.turns++;
    if (is_joined && answer.turns < free_slots && !is_durable_next)
        turns_idle(env->turns, &seeker, free_slots - answer.turns, loop_now_ms(env->loop));
    answer.has_turns = answer.has_waiting = true;
    answer.waiting = turns_waiting(env->turns, &seeker);
    (void)env_answer(env, ask->reply, ask->encoding, &answer); /* not sent: it is asked again */
}

void turns_begun(struct env *env, const char *agent)
{
    struct turn_seeker seeker = seeker_of(env, agent);
    turns_taken(env->turns, &seeker);
}

void turns_heard(struct env *env, const char *agent, const char *instance)
{
    if (turns_count(env->turns) > 0)
        (void)give(env, agent, instance);
}

void turns_freed(struct env *env, const char *agent, const char *instance)
{
    int64_t now = loop_now_ms(env->loop);
    struct turn_seeker seeker = seeker_of(env, agent);
    if (turns_asks(env->turns, instance, now) || is_durable_first(env, &seeker) || give(env, agent, instance))
        return;
    turns_idle(env->turns, &seeker, 1, now);
}

/* ---- life ------------------------------------------------------------------------------------------------------------------- */

void turns_sweep_all(struct env *env)
{
    offers_free(env->offers.before);
    env->offers.before = env->offers.now;
    env->offers.now = NULL;
    env->offers.count = 0;
    turns_sweep(env->turns, loop_now_ms(env->loop));
}

void turns_done(struct env *env)
{
    offers_free(env->offers.before);
    offers_free(env->offers.now);
    env->offers.now = env->offers.before = NULL;
    turns_free(env->turns);
    env->turns = NULL;
}

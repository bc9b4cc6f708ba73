/* Durable tasks meet agents: calls and attempts. What becomes of a task is the engine's decision; this file does what it says and tells it what happened.
 * Whose turn it is: target.c. */
#include "env_private.h"
#include "turns_verb.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/call.h"
#include "base/call_retry.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/hook.h"
#include "base/log.h"
#include "base/loop.h"
#include "env/files.h"
#include "env/inbox.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- attempts ----------------------------------------------------------------------------------------------------------------- */

static struct attempt *last_attempt(struct etask *task)
{
    return task->n_attempts ? &task->attempts[task->n_attempts - 1] : NULL;
}

/* A new one, the last; the oldest may give way. */
static struct attempt *add_attempt(struct etask *task)
{
    if (task->n_attempts == ENV_ATTEMPTS_KEPT) {
        assert(task->attempts);
        etask_drop_attempt(&task->attempts[0]);
        memmove(task->attempts, task->attempts + 1, --task->n_attempts * sizeof *task->attempts);
    }
    task->attempts = xrealloc(task->attempts, (task->n_attempts + 1) * sizeof *task->attempts);
    struct attempt *attempt = &task->attempts[task->n_attempts++];
    *attempt = (struct attempt){0};
    return attempt;
}

static void begin_attempt(struct etask *task)
{
    struct attempt *last = last_attempt(task);
    bool is_same = last && !last->ended_unix_ms; /* nobody took it the last time: the same one goes on waiting */
    int64_t ready_unix_ms = is_same ? last->ready_unix_ms : last ? last->ended_unix_ms : plan_ready_unix_ms(task);
    struct attempt *next = is_same ? last : add_attempt(task);
    next->ready_unix_ms = ready_unix_ms;
    next->number = task->engine.attempt;
}

/* The task ends while it waits for somebody: what nobody had is no attempt. */
static void drop_unbegun(struct etask *task)
{
    struct attempt *last = last_attempt(task);
    if (!last || last->started_unix_ms || last->ended_unix_ms)
        return;
    etask_drop_attempt(last);
    task->n_attempts--;
}

static void end_attempt(struct etask *task, enum amp_code code, Amp__TaskState state)
{
    struct attempt *attempt = last_attempt(task);
    if (!attempt || attempt->ended_unix_ms)
        return;
    attempt->ended_unix_ms = clock_unix_ms();
    attempt->outcome = code;
    attempt->state = code == AMP_OK ? state : AMP__TASK_STATE__TASK_STATE_UNSPECIFIED;
    etask_changed(task);
}

/* ---- the callee's side of a call ------------------------------------------------------------------------------------------------- */

static void forget_held(struct etask *task)
{
    free(task->held);
    task->held = NULL;
    task->held_state = AMP__TASK_STATE__TASK_STATE_UNSPECIFIED;
}

static Amp__TaskState terminal_state_of(struct amp_bytes body, struct amp_arena *arena)
{
    static const char hint[] = "\"status";
    ProtobufCMessage *message = NULL;
    Amp__TaskState state = AMP__TASK_STATE__TASK_STATE_UNSPECIFIED;
    if (!memmem(body.data, body.len, hint, sizeof hint - 1))
        return state;
    amp_arena_reset(arena);
    if (amp_decode_json(&amp__stream_response__descriptor, body, arena, &message, NULL) != AMP_OK)
        return state;
    const Amp__StreamResponse *response = (const Amp__StreamResponse *)message;
    const Amp__TaskStatus *status = NULL;
    if (response->payload_case == AMP__STREAM_RESPONSE__PAYLOAD_STATUS_UPDATE)
        status = response->status_update->status;
    else if (response->payload_case == AMP__STREAM_RESPONSE__PAYLOAD_TASK)
        status = response->task->status;
    return status && amp_task_is_terminal(status->state) ? status->state : state;
}

/* A first frame may come late, with the end of an agent that had nothing to say: its first event says when the attempt began, if the clocks agree. */
static void begin_with_event(struct etask *task, int64_t time_unix_ms)
{
    struct attempt *attempt = last_attempt(task);
    if (!attempt || time_unix_ms < task->called_unix_ms || time_unix_ms >= attempt->started_unix_ms)
        return;
    attempt->started_unix_ms = time_unix_ms;
    if (task->n_attempts == 1)
        task->started_unix_ms = time_unix_ms;
}

/* The event that ends the task waits until the call has ended in good order: after a death another instance may take over. */
void dispatch_take_event(struct etask *task, uint32_t seq, int64_t time_unix_ms, struct amp_bytes body)
{
    if (task->is_ended)
        return;
    Amp__TaskState state = terminal_state_of(body, &task->env->scratch);
    if (task->taken_seq == 0)
        begin_with_event(task, time_unix_ms);
    if (state != AMP__TASK_STATE__TASK_STATE_UNSPECIFIED) {
        forget_held(task);
        task->held = xcalloc(1, body.len + 1);
        memcpy(task->held, body.data, body.len);
        task->held_len = body.len;
        task->held_unix_ms = time_unix_ms;
        task->held_state = state;
        task->held_seq = seq;
        return;
    }
    task->taken_seq = seq;
    if (inbox_take(task, time_unix_ms, body))
        return;
    /* A move that the state machine forbids, more than a task may hold, or than the disk keeps up with: history says that it is not all. */
    if (task->env->unwritten_bytes > ENV_FLOOD_BYTES_MAX || etask_emit(task, time_unix_ms, body) != AMP_OK) {
        counter_add(COUNTER_events_refused, 1);
        task->is_incomplete = true;
    }
}

static void on_event(void *ctx, uint32_t seq, const Amp__Event *event)
{
    struct etask *task = ctx;
    struct amp_bytes body = {.data = event->body->text.data, .len = event->body->text.len};
    int64_t time_unix_ms = event->time ? event->time->unix_ms : clock_unix_ms();
    if (!task->is_ended && !files_answer_event(task, seq, time_unix_ms, body))
        dispatch_take_event(task, seq, time_unix_ms, body);
}

static bool is_only_once(const struct etask *task)
{
    const struct registry_instance *instance = registry_instance(&task->env->registry, task->agent, task->instance);
    return instance && instance->beat->retry && strcmp(instance->beat->retry, "never") == 0;
}

/* The error of the last call, for a task that ends by it: kept until the engine has decided. */
static void keep_error(struct etask *task, const struct amp_error *err, const Amp__Error *wire)
{
    free(task->error);
    task->error = NULL;
    task->error_len = 0;
    if (err->code == AMP_OK)
        return;
    Amp__Error made;
    if (!wire) {
        amp_error_to_wire(err, &made);
        wire = &made;
    }
    task->error_len = amp__error__get_packed_size(wire);
    task->error = xcalloc(1, task->error_len);
    amp__error__pack(wire, task->error);
}

static void on_taken(void *ctx, const char *agent, const char *instance)
{
    struct etask *task = ctx;
    struct attempt *attempt = last_attempt(task);
    task->target->n_untaken--;
    task->target->probe_gap_ms = 0;
    registry_taken(&task->env->registry, agent, instance);
    turns_begun(task->env, agent);
    etask_strcpy(task->instance, instance);
    etask_strcpy(task->agent, agent);
    if (attempt) {
        const struct registry_instance *taker = registry_instance(&task->env->registry, agent, instance);
        waits_taken(task, attempt);
        etask_strcpy(attempt->host, taker ? taker->beat->host : NULL);
        attempt->number = task->engine.attempt;
        etask_strcpy(attempt->agent, agent);
        etask_strcpy(attempt->instance, instance);
        attempt->epoch = task->epoch;
        attempt->is_only_once = is_only_once(task);
        task->engine.is_retry_safe &= !attempt->is_only_once;
        attempt->started_unix_ms = clock_unix_ms();
    }
    if (!task->started_unix_ms)
        task->started_unix_ms = clock_unix_ms();
    keep_error(task, &(struct amp_error){.code = AMP_OK}, NULL); /* of those who did not take it */
    etask_changed(task);
    inbox_attempt(task);
    struct engine_event event = {.kind = ENGINE_EV_TAKEN};
    dispatch_event(task, &event);
    hook_at(HOOK_env_taken);
}

/* Nobody said who has it: it may be one that was started with --retry never. */
static bool may_be_only_once(const struct etask *task)
{
    const struct registry_agent *agent = task->skill[0] ? NULL : registry_agent(&task->env->registry, task->agent);
    for (const struct registry_instance *instance = agent ? agent->instances : NULL; instance; instance = instance->hh.next)
        if (registry_is_live(instance) && instance->beat->retry && strcmp(instance->beat->retry, "never") == 0)
            return true;
    return false;
}

static void call_over(struct etask *task, const struct amp_error *err, const Amp__Error *wire)
{
    struct engine_event event = {.kind = ENGINE_EV_CALL_ENDED, .code = err->code, .state = task->held_state};
    call_free(task->call);
    task->call = NULL;
    target_mark(task->target);
    if (task->is_ended)
        return;
    keep_error(task, err, wire);
    if (!task->engine.is_taken && err->code == AMP_INSTANCE_LOST && may_be_only_once(task))
        task->engine.is_retry_safe = false;
    if (task->engine.is_taken) {
        struct attempt *attempt = last_attempt(task);
        if (attempt && err->code != AMP_OK)
            snprintf(attempt->reason, sizeof attempt->reason, "%.*s", (int)amp_utf8_cut(amp_bytes_of(err->message), sizeof attempt->reason - 1), err->message);
        end_attempt(task, err->code, task->held_state);
        if (attempt)
            attempt->is_told = err->code == AMP_OK || wire;
    }
    dispatch_event(task, &event);
}

/* A holder that told its end may forget it: at once if nothing of it is kept, else when that is written down. */
void dispatch_take_end(struct etask *task, const struct amp_error *err, const Amp__Error *wire)
{
    struct env *env = task->env;
    uint64_t epoch = task->epoch;
    char holder[AMP_NAME_MAX + 1];
    etask_strcpy(holder, call_instance(task->call));
    call_over(task, err, wire);
    if (holder[0] && (err->code == AMP_OK || wire) && !task->wants_done)
        call_forget(env->bus, env->name, holder, task->id, epoch);
    if (task->is_ended)
        etask_release(task);
}

static void free_slot(struct etask *task)
{
    const char *holder = call_instance(task->call);
    registry_freed(&task->env->registry, task->agent, holder);
    turns_freed(task->env, task->agent, holder);
}

static void on_end(void *ctx, const struct amp_error *err, const Amp__Error *wire)
{
    struct etask *task = ctx;
    if (call_instance(task->call)[0])
        free_slot(task);
    else
        task->target->n_untaken--;
    if (!files_answer_end(task, err, wire))
        dispatch_take_end(task, err, wire);
}

void dispatch_lose(struct etask *task, const struct amp_error *err, bool has_ended)
{
    struct env *env = task->env;
    if (has_ended) {
        call_forget(env->bus, env->name, call_instance(task->call), task->id, task->epoch);
    } else {
        free_slot(task);
        control_stop_old(task, call_instance(task->call), "a file of the answer cannot be had; this attempt does not count any more");
    }
    call_over(task, err, NULL);
    if (task->is_ended)
        etask_release(task);
}

/* The task ends otherwise: what its call has said and waits for files counts no more. */
static void drop_answer(struct etask *task)
{
    struct env *env = task->env;
    if (!files_answer_drop(task))
        return;
    call_forget(env->bus, env->name, call_instance(task->call), task->id, task->epoch);
    call_free(task->call);
    task->call = NULL;
    target_mark(task->target);
}

static void fill_call(struct etask *task, const Amp__Request *request, struct call_options *options)
{
    int64_t left_ms = task->engine.deadline_at - loop_now_ms(task->env->loop);
    *options = (struct call_options){
        .agent = task->skill[0] ? NULL : task->agent,
        .skill = task->skill[0] ? task->skill : NULL,
        .from = task->env->name,
        .task_id = task->id,
        .context_id = task->context,
        .parent = task->parent[0] ? task->parent : NULL,
        .root = task->root,
        .message = request->message,
        .timeout_ms = task->engine.deadline_at == ENGINE_NEVER ? 0 : left_ms > 0 ? (uint32_t)left_ms : 1,
        .given_ms = request->has_timeout_ms ? request->timeout_ms : 0,
        .attempt = task->engine.attempt,
        .hops = request->hops,
        .path = request->path,
        .n_path = request->n_path,
        .is_journalled = true,
        .is_impatient = true,
        .lease_ms = task->env->lease_ms,
        .epoch = task->epoch,
    };
}

/* The call of a former environment: at the instance that had it. */
static void fill_attach(struct etask *task, struct call_options *options)
{
    options->agent = task->agent;
    options->skill = NULL;
    options->instance = task->instance;
    options->attach_seq = task->taken_seq + 1;
}

static void start_call(struct etask *task, bool is_attach)
{
    static const struct call_handlers handlers = {.on_event = on_event, .on_taken = on_taken, .on_end = on_end};
    struct env *env = task->env;
    struct amp_error err = {0};
    forget_held(task);
    if (!is_attach) {
        begin_attempt(task);
        task->epoch = lease_next(env);
        task->taken_seq = 0;
    }
    task->called_unix_ms = clock_unix_ms();
    amp_arena_reset(&env->scratch);
    const Amp__Submit *submit = etask_submit(task, &env->scratch);
    enum amp_code code = AMP_INTERNAL;
    if (submit) {
        struct call_options options;
        fill_call(task, submit->request, &options);
        if (is_attach)
            fill_attach(task, &options);
        code = call_start(env->loop, env->bus, &options, &handlers, task, &task->call, &err);
    } else {
        amp_error_set(&err, code, "", "the request of task %s cannot be read from the journal", task->id);
    }
    if (code == AMP_OK) {
        hook_at(HOOK_env_dispatched);
        task->target->n_untaken += !is_attach;
        return;
    }
    if (err.code == AMP_OK)
        amp_error_set(&err, code, "", "%s", amp_code_info(code)->text);
    task->call = NULL;
    keep_error(task, &err, NULL);
    struct engine_event event = {.kind = ENGINE_EV_CALL_ENDED, .code = code};
    dispatch_event(task, &event);
}

/* ---- what the engine says ---------------------------------------------------------------------------------------------------------- */

static void do_queue(struct etask *task, enum amp_code why)
{
    target_join(task);
    /* One that nobody took keeps its place; what waits behind it came later. */
    target_queue(task, why != AMP_OK);
    task->instance[0] = '\0';
    if (why == AMP_OK || !task->queued_unix_ms)
        task->queued_unix_ms = clock_unix_ms();
    if (why == AMP_OK) {
        target_mark(task->target);
        return;
    }
    if (why == AMP_CONFLICT) { /* a former environment gave it away, and did not live to write that down */
        const struct registry_instance *holder = registry_holder(&task->env->registry, task->agent, task->skill, task->id);
        if (holder)
            control_stop_old(task, holder->name, "the environment was restarted; this attempt does not count any more");
    }
    struct registry_slots slots = target_slots(task->target);
    if (why == AMP_NO_SUCH_AGENT || why == AMP_NO_SUCH_SKILL)
        slots.instances = 0;
    target_say_waiting(task->target, &slots);
    /* What the registry thinks is not so: a beat will tell, or the sweep tries again. */
    task->target->tried_ms = task->target->refused_ms = loop_now_ms(task->env->loop);
}

static void do_retry(struct etask *task, enum amp_code cause)
{
    char metadata[RETRY_METADATA_SIZE], text[RETRY_TEXT_SIZE];
    struct amp_arena *arena = &task->env->scratch;
    struct attempt *last = last_attempt(task);
    if (last && !last->ended_unix_ms)
        end_attempt(task, cause, AMP__TASK_STATE__TASK_STATE_UNSPECIFIED);
    forget_held(task);
    inbox_lost(task);
    amp_arena_reset(arena);
    const Amp__Error *error = task->error ? amp__error__unpack(&arena->allocator, task->error_len, task->error) : NULL;
    retry_tell(cause, error ? error->death : NULL, task->engine.attempt + 1, text, metadata);
    if (etask_emit_status(task, AMP__TASK_STATE__TASK_STATE_WORKING, text, metadata) != AMP_OK)
        counter_add(COUNTER_events_refused, 1);
}

static void deadline_error(struct etask *task, struct amp_arena *arena, struct amp_error *err)
{
    const Amp__Submit *submit = etask_submit(task, arena);
    const struct attempt *last = last_attempt(task);
    unsigned ms = submit ? submit->request->timeout_ms : 0;
    if (last && last->started_unix_ms && !last->ended_unix_ms)
        amp_error_set(err, AMP_DEADLINE, "", "the %u ms for task %s are over; agent %s (%s) was still working on it and was told to stop", ms, task->id, last->agent, last->instance);
    else if (task->target && task->target->waiting[0])
        amp_error_set(err, AMP_DEADLINE, "", "the %u ms for task %s are over while it waited: %s", ms, task->id, task->target->waiting);
    else
        amp_error_set(err, AMP_DEADLINE, "", "the %u ms for task %s are over", ms, task->id);
    amp_error_hint(err, "give it more time with --timeout");
}

/* It would have been tried again, but somebody forbade that: who started its instance, or who submitted it. */
static void hint_once(struct etask *task, enum amp_code code, struct amp_error *err)
{
    const struct attempt *last = last_attempt(task);
    if (engine_is_failure(code) && !task->engine.is_retry_safe)
        amp_error_hint(err, "%s --retry never, so it was not tried again; amesh task retry %s does that", last && last->is_only_once ? "its instance was started with" : "it was submitted with", task->id);
}

static void end_with(struct etask *task, Amp__TaskState state, enum amp_code code)
{
    inbox_closing(task);
    struct amp_arena *arena = &task->env->scratch;
    amp_arena_reset(arena);
    Amp__Error *cause = task->error ? amp__error__unpack(&arena->allocator, task->error_len, task->error) : NULL;
    struct amp_error err = {0};
    Amp__Error wire;
    if (cause && cause->code == (uint32_t)code) {
        wire = *cause;
        hint_once(task, code, &err);
        if (err.hint[0])
            wire.hint = err.hint;
    } else if (code == AMP_DEADLINE) {
        deadline_error(task, arena, &err);
        amp_error_to_wire(&err, &wire);
    } else {
        char tries[48] = "";
        if (code == AMP_ATTEMPTS)
            snprintf(tries, sizeof tries, "given up after %u attempts", task->engine.failures);
        amp_error_set(&err, code, "", "%s%s%s", *tries ? tries : amp_code_info(code)->text, cause ? "; the last one: " : "",
                      cause ? (cause->message ? cause->message : amp_code_info((enum amp_code)cause->code)->text) : "");
        amp_error_to_wire(&err, &wire);
        wire.death = cause ? cause->death : NULL;
    }
    char text[sizeof err.message];
    snprintf(text, sizeof text, "%s", wire.message && wire.message[0] ? wire.message : amp_code_info(code)->text);
    if (code == AMP_CANCELED && task->cancel_reason)
        snprintf(text, sizeof text, "%s", task->cancel_reason);
    waits_ended(task);
    drop_unbegun(task);
    end_attempt(task, code, state);
    task->is_dead = code == AMP_ATTEMPTS;
    uint8_t *packed = xcalloc(1, amp__error__get_packed_size(&wire));
    size_t size = amp__error__pack(&wire, packed);
    if (etask_emit_status(task, state, text, NULL) != AMP_OK)
        (void)etask_emit_status(task, state, NULL, NULL);
    free(task->error);
    task->error = packed;
    task->error_len = size;
    etask_end(task, NULL);
}

/* The end is its agent's, and so are the words; why it was the last attempt only we know. */
static void hint_kept(struct etask *task)
{
    struct amp_arena *arena = &task->env->scratch;
    struct amp_error err = {0};
    amp_arena_reset(arena);
    Amp__Error *cause = task->error ? amp__error__unpack(&arena->allocator, task->error_len, task->error) : NULL;
    if (cause)
        hint_once(task, (enum amp_code)cause->code, &err);
    if (!err.hint[0])
        return;
    cause->hint = err.hint;
    free(task->error);
    task->error_len = amp__error__get_packed_size(cause);
    task->error = xcalloc(1, task->error_len);
    amp__error__pack(cause, task->error);
}

static void keep_end(struct etask *task)
{
    inbox_closing(task);
    hint_kept(task);
    struct amp_bytes body = {.data = (const uint8_t *)task->held, .len = task->held_len};
    if (etask_emit(task, task->held_unix_ms, body) != AMP_OK) {
        counter_add(COUNTER_events_refused, 1);
        /* A fold that takes nothing more, or a move it forbids: it still has to end. */
        if (etask_emit_status(task, AMP__TASK_STATE__TASK_STATE_WORKING, NULL, NULL) != AMP_OK ||
            etask_emit(task, task->held_unix_ms, body) != AMP_OK) {
            end_with(task, AMP__TASK_STATE__TASK_STATE_FAILED, AMP_BAD_ANSWER);
            return;
        }
    }
    forget_held(task);
    task->taken_seq = task->held_seq;
    task->wants_done = true;
    etask_end(task, NULL);
}

static void do_action(struct etask *task, const struct engine_action *action)
{
    switch (action->kind) {
    case ENGINE_DO_BEGIN:
        plan_begun(task);
        break;
    case ENGINE_DO_QUEUE:
        do_queue(task, action->code);
        break;
    case ENGINE_DO_UNQUEUE:
        target_unqueue(task);
        break;
    case ENGINE_DO_CALL:
        start_call(task, false);
        break;
    case ENGINE_DO_ATTACH:
        counter_add(COUNTER_tasks_taken_over, 1);
        target_join(task);
        start_call(task, true);
        break;
    case ENGINE_DO_CANCEL_CALL:
        if (task->call && task->engine.is_canceling)
            call_cancel(task->call, task->cancel_reason ? task->cancel_reason : amp_code_info(AMP_CANCELED)->text);
        else if (task->call)
            call_give_up(task->call, "deadline");
        break;
    case ENGINE_DO_RETRY:
        do_retry(task, action->code);
        break;
    case ENGINE_DO_KEEP_END:
        keep_end(task);
        break;
    case ENGINE_DO_END:
        drop_answer(task);
        end_with(task, action->state, action->code);
        break;
    }
}

static void on_timer(void *ctx)
{
    struct engine_event event = {.kind = ENGINE_EV_TIMER};
    dispatch_event(ctx, &event);
}

static void set_timer(struct etask *task)
{
    int64_t due = engine_due(&task->engine), left = due - loop_now_ms(task->env->loop);
    if (due == ENGINE_NEVER) {
        if (task->timer)
            loop_timer_stop(task->timer);
        return;
    }
    if (!task->timer)
        task->timer = loop_timer_new(task->env->loop, on_timer, task);
    /* Rounded up, so that it is due when it rings. */
    loop_timer_set(task->timer, left <= 0 ? 0 : left > INT32_MAX ? INT32_MAX : (uint32_t)left + 1);
}

void dispatch_event(struct etask *task, const struct engine_event *event)
{
    struct engine_action actions[ENGINE_ACTIONS_MAX];
    size_t count = engine_step(&task->engine, event, loop_now_ms(task->env->loop), env_random(task->env), actions);
    set_timer(task);
    plan_follow(task);
    for (size_t i = 0; i < count; i++)
        do_action(task, &actions[i]);
}

void dispatch_drop(struct etask *task)
{
    if (task->call && task->target && !call_instance(task->call)[0])
        task->target->n_untaken--;
    call_free(task->call);
    task->call = NULL;
    loop_timer_free(task->timer);
    task->timer = NULL;
    target_part(task);
}

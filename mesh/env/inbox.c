/* Questions between agents and people. Of a durable task the environment decides: it hears what the attempt asks, keeps it in the journal, tells people through the inbox, and
 * takes their answers; an answer is taken when it is written down, and told to the attempt then. Of a direct task it only knows what its sidecar says. What becomes of a
 * question is decided by question.c. (amp.md 10.10) */
#include "env_private.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/call.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/form.h"
#include "base/loop.h"
#include "base/seeded.h"
#include "env/files.h"
#include "env/inbox.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DELIVER_AGAIN_MS 1000u
#define CATCH_UP_MS 10000 /* what was asked while no environment was there is heard within that, after its start */
#define DEAF_MS 2000 /* what it was about to hear when it was killed counts as well */

struct delivery { /* what became of a question, on its way to the attempt */
    struct delivery *prev, *next;
    struct env *env;
    struct control *control;
    char task[AMP_NAME_MAX + 1], question[AMP_NAME_MAX + 1];
    uint32_t attempt;
};

static void run(struct etask *task, const struct question_event *event);
static void deliver(struct etask *task);

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

struct inbox *inbox_of(struct etask *task)
{
    if (!task->inbox) {
        task->inbox = xcalloc(1, sizeof *task->inbox);
        task->inbox->questions.is_observed = !task->is_durable;
        task->inbox->questions.attempt = task->engine.attempt;
    }
    return task->inbox;
}

void inbox_forget(struct etask *task)
{
    if (!task->inbox)
        return;
    for (struct question *each = task->inbox->questions.first; each; each = each->next)
        inbox_unindex(task->env, each);
    questions_done(&task->inbox->questions);
    loop_timer_free(task->inbox->timer);
    free(task->inbox);
    task->inbox = NULL;
}

uint32_t inbox_count(const struct etask *task)
{
    return task->inbox ? task->inbox->questions.n_open : 0;
}

/* ---- to the attempt --------------------------------------------------------------------------------------------------------- */

static void delivery_free(struct delivery *delivery)
{
    *(delivery->prev ? &delivery->prev->next : &delivery->env->deliveries) = delivery->next;
    if (delivery->next)
        delivery->next->prev = delivery->prev;
    free(delivery);
}

void inbox_done(struct env *env)
{
    while (env->deliveries) {
        control_cancel(env->deliveries->control);
        delivery_free(env->deliveries);
    }
    free(env->inbox_over);
    env->inbox_over = NULL;
    inbox_left_done(env);
}

static void set_timer(struct etask *task);

/* Told, or nobody wants to know any more: the attempt says by its events what it has. One that did not come through goes again, as long as there is an attempt. */
static void on_delivered(void *ctx, const struct amp_error *err)
{
    struct delivery *delivery = ctx;
    struct etask *task = etask_find(delivery->env, delivery->task);
    struct question *question = task && task->inbox ? question_find(&task->inbox->questions, delivery->question) : NULL;
    bool is_lost = err->code == AMP_DEADLINE || err->code == AMP_INSTANCE_LOST || err->code == AMP_NO_BUS;
    if (question && is_lost && question->is_asked && task->inbox->questions.attempt == delivery->attempt) {
        question->is_due = true;
        task->inbox->again_at = loop_now_ms(task->env->loop) + DELIVER_AGAIN_MS;
        set_timer(task);
    }
    delivery_free(delivery);
}

static enum amp_code send_answer(struct etask *task, const char *id, Amp__Answer *answer)
{
    struct env *env = task->env;
    Amp__Control control = AMP__CONTROL__INIT;
    struct delivery *delivery = xcalloc(1, sizeof *delivery);
    delivery->env = env;
    delivery->attempt = task->engine.attempt;
    etask_strcpy(delivery->task, task->id);
    etask_strcpy(delivery->question, id);
    answer->input_id = delivery->question;
    control.kind_case = AMP__CONTROL__KIND_ANSWER;
    control.answer = answer;
    enum amp_code code = control_send(env->loop, env->bus, task->instance, task->id, &control, ENV_CONTROL_MS, on_delivered, delivery, &delivery->control);
    if (code != AMP_OK) {
        free(delivery);
        return code;
    }
    delivery->next = env->deliveries;
    if (env->deliveries)
        env->deliveries->prev = delivery;
    env->deliveries = delivery;
    return AMP_OK;
}

static enum amp_code send_code(struct etask *task, const char *id, enum amp_code why)
{
    Amp__Answer answer = AMP__ANSWER__INIT;
    Amp__Message nothing = AMP__MESSAGE__INIT;
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    char message_id[AMP_ID_SIZE];
    amp_id_new('m', clock_unix_ms(), message_id);
    part.text = (char *)"";
    nothing.message_id = message_id;
    nothing.has_role = true;
    nothing.role = AMP__ROLE__ROLE_USER;
    nothing.n_parts = 1;
    nothing.parts = parts;
    answer.message = &nothing;
    answer.has_code = true;
    answer.code = why;
    return send_answer(task, id, &answer);
}

static void deliver_one(struct etask *task, struct question *question)
{
    struct amp_arena *arena = &task->env->scratch;
    amp_arena_reset(arena);
    Amp__Answer *answer = question->state == QUESTION_ANSWERED ? amp__answer__unpack(&arena->allocator, question->answer_len, question->answer) : NULL;
    question->is_due = false;
    if (question->by[0] && answer)
        answer->by = question->by;
    enum amp_code code = answer ? send_answer(task, question->id, answer) : send_code(task, question->id, AMP_EXPIRED);
    if (code == AMP_OK)
        return;
    question->is_due = true; /* a bus that is away: again soon */
    task->inbox->again_at = loop_now_ms(task->env->loop) + DELIVER_AGAIN_MS;
}

/* What is on the disk, and no sooner: a person's answer that a crash took back must not have been acted on. */
static void deliver(struct etask *task)
{
    struct inbox *inbox = task->inbox;
    if (!task->call || !task->instance[0] || task->is_ended)
        return;
    for (struct question *each = inbox->questions.first; each; each = each->next)
        if (each->is_due && !each->is_gone && (each->seq <= task->n_committed || SEEDED_BUG("told-early")))
            deliver_one(task, each);
    set_timer(task);
}

/* ---- actions --------------------------------------------------------------------------------------------------------------------- */

/* Takes `metadata` over. With another question that the attempt waits for, the task still waits. */
static void say(struct etask *task, struct question *question, const char *text, char *metadata)
{
    const struct question *other = questions_asked(&task->inbox->questions, question);
    enum amp_code code = other ? etask_emit_status(task, AMP__TASK_STATE__TASK_STATE_INPUT_REQUIRED, question_prompt(other), metadata)
                               : etask_emit_status(task, AMP__TASK_STATE__TASK_STATE_WORKING, text, metadata);
    if (code != AMP_OK) { /* history has no room for it; the row has it */
        counter_add(COUNTER_events_refused, 1);
        task->is_incomplete = true;
    }
    question->seq = task->count;
    free(metadata);
}

static void say_asked(struct etask *task, struct question *question)
{
    char *metadata = form_say_question(question->id, question->form, question->expires_unix_ms, question->is_turn);
    if (etask_emit_status(task, AMP__TASK_STATE__TASK_STATE_INPUT_REQUIRED, question_prompt(question), metadata) != AMP_OK) {
        counter_add(COUNTER_events_refused, 1);
        task->is_incomplete = true;
    }
    free(metadata);
}

static void say_answered(struct etask *task, struct question *question, bool is_again)
{
    struct amp_arena *arena = &task->env->scratch;
    cJSON *value = NULL;
    amp_arena_reset(arena);
    Amp__Answer *answer = amp__answer__unpack(&arena->allocator, question->answer_len, question->answer);
    if (answer && form_read(question->form, answer->message, &value, NULL) != AMP_OK)
        value = NULL;
    char *text = form_answer_text(answer ? answer->message : NULL, value);
    const struct form_answer said = {.id = question->id, .by = question->by[0] ? question->by : NULL, .text = text, .value = value,
                                     .file_bytes = form_answer_file_bytes(answer ? answer->message : NULL), .is_again = is_again};
    say(task, question, NULL, form_say_answer(&said));
    free(text);
    cJSON_Delete(value);
}

static void say_expired(struct etask *task, struct question *question, bool is_again)
{
    const cJSON *fallback = cJSON_GetObjectItemCaseSensitive(question->form, "default");
    say(task, question, "the question was not answered in time", form_say_closed(question->id, "expired", fallback, is_again));
}

static void do_action(struct etask *task, const struct question_action *action, const char *id)
{
    struct question *question = action->question;
    bool is_observed = task->inbox->questions.is_observed;
    if (action->kind == QUESTION_DO_INDEX)
        inbox_index(task, question);
    else if (action->kind == QUESTION_DO_REFUSE)
        counter_add(COUNTER_questions_refused, 1);
    if (action->kind == QUESTION_DO_REFUSE && !is_observed && task->call)
        (void)send_code(task, id, AMP_OVERLOADED);
    if (is_observed) /* its events say it already */
        return;
    if (action->kind == QUESTION_DO_SAY_ASKED)
        say_asked(task, question);
    else if (action->kind == QUESTION_DO_SAY_ANSWERED)
        say_answered(task, question, false);
    else if (action->kind == QUESTION_DO_SAY_AGAIN && question->state == QUESTION_ANSWERED)
        say_answered(task, question, true);
    else if (action->kind == QUESTION_DO_SAY_EXPIRED || action->kind == QUESTION_DO_SAY_AGAIN)
        say_expired(task, question, action->kind == QUESTION_DO_SAY_AGAIN);
    else if (action->kind == QUESTION_DO_SAY_WITHDRAWN)
        say(task, question, "the question was withdrawn", form_say_closed(question->id, "withdrawn", NULL, false));
}

static void on_timer(void *ctx)
{
    struct etask *task = ctx;
    struct question_event event = {.kind = QUESTION_EV_TIMER};
    task->inbox->again_at = QUESTION_NEVER;
    if (!task->is_ended)
        run(task, &event);
}

static void set_timer(struct etask *task)
{
    struct inbox *inbox = task->inbox;
    int64_t due = inbox->questions.is_observed ? QUESTION_NEVER : questions_due(&inbox->questions);
    if (inbox->again_at && inbox->again_at < due)
        due = inbox->again_at;
    if (due == QUESTION_NEVER || task->is_ended) {
        if (inbox->timer)
            loop_timer_stop(inbox->timer);
        return;
    }
    int64_t left = due - loop_now_ms(task->env->loop);
    if (!inbox->timer)
        inbox->timer = loop_timer_new(task->env->loop, on_timer, task);
    loop_timer_set(inbox->timer, left <= 0 ? 0 : left > INT32_MAX ? INT32_MAX : (uint32_t)left + 1);
}

static void run(struct etask *task, const struct question_event *event)
{
    struct inbox *inbox = inbox_of(task);
    struct question_action actions[QUESTION_ACTIONS_MAX];
    size_t count = questions_step(&inbox->questions, event, loop_now_ms(task->env->loop), actions);
    bool is_changed = false;
    for (size_t i = 0; i < count; i++)
        do_action(task, &actions[i], event->id);
    for (const struct question *each = inbox->questions.first; each && !is_changed; each = each->next)
        is_changed = each->is_changed;
    if (is_changed)
        etask_changed(task);
    deliver(task);
    set_timer(task);
}

/* ---- what attempts say ------------------------------------------------------------------------------------------------------------- */

static const char *text_of(const cJSON *object, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text ? text : "";
}

/* {"amp/…":…} of a statusUpdate, the caller's; NULL: it has none that is for us. */
static cJSON *metadata_of(struct env *env, struct amp_bytes body)
{
    static const char question[] = "\"amp/question", answer[] = "\"amp/answer\"";
    ProtobufCMessage *message = NULL;
    if (!memmem(body.data, body.len, question, sizeof question - 1) && !memmem(body.data, body.len, answer, sizeof answer - 1))
        return NULL;
    amp_arena_reset(&env->scratch);
    if (amp_decode_json(&amp__stream_response__descriptor, body, &env->scratch, &message, NULL) != AMP_OK)
        return NULL;
    const Amp__StreamResponse *response = (const Amp__StreamResponse *)message;
    const Amp__Json *metadata = response->payload_case == AMP__STREAM_RESPONSE__PAYLOAD_STATUS_UPDATE ? response->status_update->metadata : NULL;
    return metadata ? cJSON_ParseWithLength((const char *)metadata->text.data, metadata->text.len) : NULL;
}

/* By our clock when we hear it; of what was asked while nobody listened, by the clock of whoever asked, as far as that can be. */
static int64_t asked_at(const struct env *env, int64_t time_unix_ms, int64_t now_unix_ms)
{
    bool is_late = loop_now_ms(env->loop) - env->began_ms < CATCH_UP_MS;
    return is_late && time_unix_ms >= env->deaf_from_unix_ms - DEAF_MS && time_unix_ms < now_unix_ms ? time_unix_ms : now_unix_ms;
}

static bool take_asked(struct etask *task, const cJSON *asked, int64_t time_unix_ms)
{
    int64_t expires_unix_ms = 0;
    cJSON *form = amp_id_is_valid(text_of(asked, "id")) ? form_copy(asked, NULL) : NULL;
    if (!form)
        return false; /* not as this version has it: history has it as it is, and an answer is passed on */
    struct question_event event = {.kind = QUESTION_EV_ASKED, .id = text_of(asked, "id"), .form = form, .now_unix_ms = clock_unix_ms()};
    event.is_turn = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(asked, "turn"));
    event.asked_unix_ms = asked_at(task->env, time_unix_ms, event.now_unix_ms);
    event.order = ++task->env->n_asked;
    /* How long it has counts, not when it ends by another host's clock. */
    if (amp_time_parse(text_of(asked, "expiresAt"), &expires_unix_ms) == AMP_OK && expires_unix_ms > 0)
        event.expires_unix_ms = event.asked_unix_ms + (expires_unix_ms > time_unix_ms ? expires_unix_ms - time_unix_ms : 0);
    run(task, &event);
    cJSON_Delete(form);
    return true;
}

/* What history has of an answer, as one: packed, the caller's. */
static struct amp_bytes pack_said(struct question *question, const cJSON *said)
{
    Amp__Answer answer = AMP__ANSWER__INIT;
    Amp__Message message = AMP__MESSAGE__INIT;
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Json data = AMP__JSON__INIT;
    char id[AMP_ID_SIZE], *value = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(said, "value"));
    amp_id_new('m', clock_unix_ms(), id);
    message.message_id = id;
    message.has_role = true;
    message.role = AMP__ROLE__ROLE_USER;
    message.n_parts = 1;
    message.parts = parts;
    if (value) {
        data.text = (ProtobufCBinaryData){.data = (uint8_t *)value, .len = strlen(value)};
        part.data = &data;
    } else {
        part.text = (char *)text_of(said, "text");
    }
    answer.input_id = question->id;
    answer.message = &message;
    size_t size = amp__answer__get_packed_size(&answer);
    uint8_t *packed = xcalloc(1, size + 1);
    (void)amp__answer__pack(&answer, packed);
    cJSON_free(value);
    return (struct amp_bytes){.data = packed, .len = size};
}

/* Answered past us, straight to its sidecar: what was said counts as if it had come here. */
static void take_foreign(struct etask *task, struct question *question, const cJSON *said)
{
    struct amp_bytes packed = pack_said(question, said);
    struct question_event event = {.kind = QUESTION_EV_ANSWER, .question = question, .answer = packed, .by = text_of(said, "by")};
    run(task, &event);
    free((void *)packed.data);
}

void inbox_answered_before(struct etask *task, const char *id, const cJSON *form, const cJSON *said)
{
    struct questions *questions = &inbox_of(task)->questions;
    struct question_action ignored[QUESTION_ACTIONS_MAX]; /* nothing is said or listed: it is the past */
    struct question_event asked = {.kind = QUESTION_EV_ASKED, .id = id, .form = form, .now_unix_ms = clock_unix_ms()};
    (void)!questions_step(questions, &asked, loop_now_ms(task->env->loop), ignored);
    struct question *question = question_find(questions, id);
    if (!question)
        return; /* more than a task may have */
    struct amp_bytes packed = pack_said(question, said);
    struct question_event answer = {.kind = QUESTION_EV_ANSWER, .question = question, .answer = packed, .by = text_of(said, "by")};
    (void)!questions_step(questions, &answer, loop_now_ms(task->env->loop), ignored);
    question->is_asked = question->is_due = false;
    free((void *)packed.data);
}

static bool take_told(struct etask *task, const cJSON *said)
{
    struct question *question = task->inbox ? question_find(&task->inbox->questions, text_of(said, "id")) : NULL;
    if (!question)
        return false;
    struct question_event event = {.kind = QUESTION_EV_TOLD, .id = question->id};
    if (question->state == QUESTION_OPEN && task->is_durable) {
        question->is_asked = false; /* it has it already */
        take_foreign(task, question, said);
    }
    run(task, &event);
    return true;
}

static bool take_closed(struct etask *task, const cJSON *closed)
{
    struct question_event event = {.kind = QUESTION_EV_CLOSED, .id = text_of(closed, "id"), .is_expired = strcmp(text_of(closed, "why"), "expired") == 0};
    if (!task->inbox || !question_find(&task->inbox->questions, event.id))
        return false;
    run(task, &event);
    return true;
}

bool inbox_take(struct etask *task, int64_t time_unix_ms, struct amp_bytes body)
{
    cJSON *metadata = metadata_of(task->env, body);
    const cJSON *asked = cJSON_GetObjectItemCaseSensitive(metadata, "amp/question"), *said = cJSON_GetObjectItemCaseSensitive(metadata, "amp/answer");
    const cJSON *closed = cJSON_GetObjectItemCaseSensitive(metadata, "amp/question_closed");
    bool is_taken = false;
    if (asked)
        is_taken = take_asked(task, asked, time_unix_ms);
    else if (said)
        is_taken = take_told(task, said);
    else if (closed)
        is_taken = take_closed(task, closed);
    cJSON_Delete(metadata);
    return is_taken;
}

/* ---- the task's life ---------------------------------------------------------------------------------------------------------------- */

void inbox_attempt(struct etask *task)
{
    struct question_event event = {.kind = QUESTION_EV_ATTEMPT, .attempt = task->engine.attempt};
    if (task->inbox)
        run(task, &event);
}

void inbox_lost(struct etask *task)
{
    struct question_event event = {.kind = QUESTION_EV_LOST};
    if (task->inbox)
        run(task, &event);
}

void inbox_closing(struct etask *task)
{
    if (!task->inbox || task->inbox->questions.is_observed)
        return;
    for (struct question *each = task->inbox->questions.first; each; each = each->next)
        each->is_asked = false; /* nothing waits any more */
    for (struct question *each = task->inbox->questions.first; each; each = each->next)
        if (each->state == QUESTION_OPEN && !each->is_gone)
            say(task, each, "the question was withdrawn: the task has ended", form_say_closed(each->id, "withdrawn", NULL, false));
}

void inbox_ended(struct etask *task)
{
    struct question_event event = {.kind = QUESTION_EV_ENDED};
    if (task->inbox)
        run(task, &event);
}

void inbox_committed(struct etask *task)
{
    if (task->inbox)
        deliver(task);
}

/* ---- people -------------------------------------------------------------------------------------------------------------------------- */

static void take_answer(const struct ask *ask, struct etask *task, struct question *question)
{
    Amp__Answer answer = *ask->request->command->control->answer;
    answer.input_id = question->id;
    answer.by = NULL;
    answer.has_code = false;
    size_t size = amp__answer__get_packed_size(&answer);
    uint8_t *packed = xcalloc(1, size + 1);
    (void)amp__answer__pack(&answer, packed);
    struct question_event event = {.kind = QUESTION_EV_ANSWER, .question = question, .answer = {.data = packed, .len = size}, .by = ask->from};
    etask_reply_later(task, ask, false);
    files_of_message(task, answer.message);
    run(task, &event);
    free(packed);
}

bool inbox_files_here(const struct ask *ask)
{
    const Amp__TaskCommand *command = ask->request->command;
    const Amp__Answer *answer = command->control->answer;
    char id[sizeof "answer:" + AMP_NAME_MAX];
    (void)snprintf(id, sizeof id, "answer:%.*s", (int)AMP_NAME_MAX, answer->input_id && answer->input_id[0] ? answer->input_id : command->id);
    return files_gate(ask, answer->message, id, "command.control.answer.message") == FILES_HERE;
}

bool inbox_answer(const struct ask *ask, struct etask *task)
{
    const Amp__Answer *answer = ask->request->command->control->answer;
    struct env *env = task->env;
    struct amp_error err = {0};
    struct question *question = NULL;
    cJSON *value = NULL;
    enum amp_code code = task->inbox ? question_pick(&task->inbox->questions, answer->input_id, &question, &err) : AMP_NO_QUESTION;
    if (code == AMP_NO_QUESTION && inbox_count(task) == 0 && amp_task_is_waiting(etask_state(task)))
        return false;
    if (code == AMP_NO_QUESTION && err.code == AMP_OK)
        (void)amp_error_set(&err, code, "id", "task %s has no open question", task->id);
    if (code == AMP_OK && (journal_failure(env->journal) || env->is_given_up)) {
        env_refuse_journal(env, ask->reply, ask->encoding);
        return true;
    }
    if (code == AMP_OK && env->unwritten_bytes > ENV_FLOOD_BYTES_MAX)
        code = amp_error_set(&err, AMP_OVERLOADED, "", "too much waits for the disk; answer again in a moment");
    if (code == AMP_OK)
        code = form_read(question->form, answer->message, &value, &err);
    cJSON_Delete(value);
    if (code != AMP_OK)
        env_refuse(env, ask->reply, ask->encoding, &err);
    else if (inbox_files_here(ask))
        take_answer(ask, task, question);
    return true;
}

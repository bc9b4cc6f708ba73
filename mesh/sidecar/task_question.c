/* Questions of a task: asked of whoever called, answered by a control, gone with the task or when their time is over. An answer between two turns begins the next one.
 * amp.md 7.3; local-api.md 3 */
#include "task_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/loop.h"

static void question_done(struct question *question, enum amp_code code, const Amp__Message *answer)
{
    struct task *task = question->task;
    struct question **at = &task->questions;
    while (*at != question)
        at = &(*at)->next;
    *at = question->next;
    task->n_questions--;
    loop_timer_free(question->expiry);
    question->on_answer(question->ctx, code, answer);
    free(question->prompt);
    free(question);
}

void task_questions_drop(struct task *task)
{
    while (task->questions)
        question_done(task->questions, AMP_CANCELED, NULL);
}

/* ---- asking and answering -------------------------------------------------------------------------------------------------- */

/* The task waits for the other questions, or goes on. */
static void say_without(struct task *task, const struct question *question, const char *text, const char *metadata)
{
    const struct question *other = task->questions == question ? question->next : task->questions;
    if (other)
        (void)task_status(task, AMP__TASK_STATE__TASK_STATE_INPUT_REQUIRED, other->prompt, metadata);
    else
        (void)task_status(task, AMP__TASK_STATE__TASK_STATE_WORKING, text, metadata);
}

static void on_expired(void *ctx)
{
    struct question *question = ctx;
    struct task *task = question->task;
    if (!task->stream.is_ended)
        say_without(task, question, "the question was not answered in time", NULL);
    question_done(question, AMP_DEADLINE, NULL);
}

enum amp_code task_ask(struct task *task, const struct task_question *ask, void (*on_answer)(void *ctx, enum amp_code code, const Amp__Message *answer), void *ctx,
                       struct amp_error *reterr)
{
    enum amp_code code = task_say_check(task, reterr);
    if (code != AMP_OK)
        return code;
    if (!ask->prompt || !ask->prompt[0])
        return amp_error_set(reterr, AMP_INVALID, "prompt", "a question needs a text");
    if (task->n_questions >= SIDECAR_QUESTIONS_MAX)
        return amp_error_set(reterr, AMP_OVERLOADED, "", "%u questions of this task are open already", task->n_questions);
    struct question *question = xcalloc(1, sizeof *question);
    amp_id_new('q', clock_unix_ms(), question->id);
    char *metadata = task_question_metadata(question->id, ask, clock_unix_ms());
    code = metadata ? task_status(task, AMP__TASK_STATE__TASK_STATE_INPUT_REQUIRED, ask->prompt, metadata) : AMP_TOO_LARGE;
    free(metadata);
    if (code != AMP_OK) {
        free(question);
        return amp_error_set(reterr, code, "prompt", "the question cannot be sent: %s", amp_code_info(code)->text);
    }
    question->task = task;
    question->prompt = xstrdup(ask->prompt);
    question->on_answer = on_answer;
    question->ctx = ctx;
    question->next = task->questions;
    task->questions = question;
    task->n_questions++;
    task->has_asked = true;
    if (ask->expires_ms > 0) {
        question->expiry = loop_timer_new(task->sidecar->loop, on_expired, question);
        loop_timer_set(question->expiry, ask->expires_ms);
    }
    return AMP_OK;
}

static void ignore_answer(void *ctx, enum amp_code code, const Amp__Message *answer)
{
}

void task_ask_withdraw(struct task *task, const void *ctx)
{
    for (struct question *question = task->questions; question; question = question->next) {
        if (question->ctx != ctx)
            continue;
        if (!task->stream.is_ended && !task->is_canceled)
            say_without(task, question, "the question was withdrawn", NULL);
        question->on_answer = ignore_answer;
        question_done(question, AMP_CANCELED, NULL);
        return;
    }
}

static struct question *question_pick(struct task *task, const char *id, struct amp_error *reterr)
{
    if (id && id[0]) {
        for (struct question *question = task->questions; question; question = question->next)
            if (strcmp(question->id, id) == 0)
                return question;
        (void)amp_error_set(reterr, AMP_NO_QUESTION, "answer.inputId", "task %s has no open question %s", task_id(task), id);
        return NULL;
    }
    if (task->n_questions == 1)
        return task->questions;
    (void)amp_error_set(reterr, AMP_NO_QUESTION, "answer.inputId", "task %s has %u open questions", task_id(task), task->n_questions);
    if (task->n_questions > 1)
        amp_error_hint(reterr, "say which one, e.g. %s", task->questions->id);
    return NULL;
}

/* Between two turns the answer begins the next one, as soon as a slot is free. */
static enum amp_code answer_turn(struct task *task, const Amp__Message *message, struct amp_error *reterr)
{
    if (task->wants_turn)
        return amp_error_set(reterr, AMP_NO_QUESTION, "", "task %s has been answered already", task_id(task));
    task->resume = task_message_copy(task, message);
    if (!task->resume)
        return amp_error_set(reterr, AMP_TOO_LARGE, "answer.message", "the answers to this task are too large");
    (void)task_status(task, AMP__TASK_STATE__TASK_STATE_WORKING, NULL, NULL);
    task->wants_turn = true;
    sidecar_touch(task->sidecar);
    return AMP_OK;
}

enum amp_code task_answer(struct task *task, const Amp__Answer *answer, struct amp_error *reterr)
{
    if (task->is_waiting && !(answer->input_id && answer->input_id[0]))
        return answer_turn(task, answer->message, reterr);
    struct question *question = question_pick(task, answer->input_id, reterr);
    if (!question)
        return AMP_NO_QUESTION;
    char metadata[AMP_ID_SIZE + 32];
    (void)snprintf(metadata, sizeof(metadata), "{\"amp/answer\":{\"id\":\"%s\"}}", question->id);
    say_without(task, question, NULL, metadata);
    question_done(question, AMP_OK, answer->message);
    return AMP_OK;
}

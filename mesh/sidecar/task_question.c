/* Questions of a task: asked of whoever called, answered by a control, gone with the task or when their time is over. An answer between two turns begins the next one.
 * The clock is the caller's where the caller journals the task, as only what it has written down counts. amp.md 7.3, 10.10; local-api.md 3.5 */
#include "task_private.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/form.h"
#include "base/loop.h"
#include "base/seeded.h"

/* ---- what was asked before ---------------------------------------------------------------------------------------------------- */

static struct questions_past *past_of(struct task *task)
{
    if (!task->past)
        task->past = xcalloc(1, sizeof *task->past);
    return task->past;
}

void task_questions_forget(struct task *task)
{
    if (task->past)
        free(task->past->asked);
    free(task->past);
    task->past = NULL;
}

static void remember_closed(struct task *task, const char *id, const char *how)
{
    struct questions_past *past = past_of(task);
    size_t at = past->n_closed++ % QUESTIONS_CLOSED;
    (void)snprintf(past->closed[at].id, sizeof past->closed[at].id, "%s", id);
    past->closed[at].how = how;
}

/* How often this has been asked, this time included; 0: too many different ones. */
static uint32_t count_asked(struct task *task, const uint8_t digest[FORM_DIGEST_SIZE])
{
    struct questions_past *past = past_of(task);
    for (size_t i = 0; i < past->n_asked; i++)
        if (memcmp(past->asked[i].digest, digest, FORM_DIGEST_SIZE) == 0)
            return ++past->asked[i].count;
    if (past->n_asked == QUESTIONS_ASKED_MAX)
        return 0;
    if (past->n_asked == past->cap_asked) {
        past->cap_asked = past->cap_asked ? past->cap_asked * 2 : 4;
        past->asked = xrealloc(past->asked, past->cap_asked * sizeof *past->asked);
    }
    memcpy(past->asked[past->n_asked].digest, digest, FORM_DIGEST_SIZE);
    past->asked[past->n_asked++].count = 1;
    return 1;
}

/* ---- the end of a question ------------------------------------------------------------------------------------------------------ */

static const cJSON *fallback_of(const struct question *question)
{
    return cJSON_GetObjectItemCaseSensitive(question->form, "default");
}

static const char *prompt_of(const struct question *question)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(question->form, "prompt"));
}

static void question_done(struct question *question, const struct task_answer *answer)
{
    struct task *task = question->task;
    struct question **at = &task->questions;
    while (*at != question)
        at = &(*at)->next;
    *at = question->next;
    task->n_questions--;
    loop_timer_free(question->expiry);
    if (question->on_answer)
        question->on_answer(question->ctx, answer); /* which may be in `files` */
    question_files_drop(question);
    cJSON_Delete(question->form);
    free(question);
}

void task_questions_drop(struct task *task)
{
    while (task->questions)
        question_done(task->questions, &(struct task_answer){.code = AMP_CANCELED});
}

/* The task waits for the other questions, or goes on. Takes `metadata` over. */
static void say_without(struct task *task, const struct question *question, const char *text, char *metadata)
{
    const struct question *other = task->questions == question ? question->next : task->questions;
    if (other)
        (void)task_status(task, AMP__TASK_STATE__TASK_STATE_INPUT_REQUIRED, prompt_of(other), metadata);
    else
        (void)task_status(task, AMP__TASK_STATE__TASK_STATE_WORKING, text, metadata);
    free(metadata);
}

static void expire(struct question *question)
{
    struct task *task = question->task;
    const cJSON *fallback = fallback_of(question);
    remember_closed(task, question->id, "its time is over");
    if (!task->stream.is_ended)
        say_without(task, question, "the question was not answered in time", form_say_closed(question->id, "expired", fallback, false));
    question_done(question, &(struct task_answer){.code = fallback ? AMP_OK : AMP_EXPIRED, .value = fallback});
}

static void on_expired(void *ctx)
{
    expire(ctx);
}

void task_ask_withdraw(struct task *task, const void *ctx)
{
    for (struct question *question = task->questions; question; question = question->next) {
        if (question->ctx != ctx || question->is_turn)
            continue;
        remember_closed(task, question->id, "it was withdrawn");
        if (!task->stream.is_ended && !task->is_canceled)
            say_without(task, question, "the question was withdrawn", form_say_closed(question->id, "withdrawn", NULL, false));
        question->on_answer = NULL;
        question_done(question, NULL);
        return;
    }
}

/* ---- asking ------------------------------------------------------------------------------------------------------------------------ */

static struct question *question_new(struct task *task, cJSON *form, struct amp_error *reterr)
{
    uint8_t digest[FORM_DIGEST_SIZE];
    form_digest(form, digest);
    uint32_t nth = count_asked(task, digest);
    if (nth == 0) {
        (void)amp_error_set(reterr, AMP_OVERLOADED, "", "this task has asked %u different questions already", QUESTIONS_ASKED_MAX);
        cJSON_Delete(form);
        return NULL;
    }
    struct question *question = xcalloc(1, sizeof *question), **last = &task->questions;
    question->task = task;
    question->form = form;
    form_id(task_id(task), nth, digest, question->id);
    while (*last)
        last = &(*last)->next;
    *last = question;
    task->n_questions++;
    return question;
}

/* Says it, or takes it back. */
static enum amp_code question_say(struct question *question, const char *text, int64_t expires_unix_ms)
{
    char *metadata = form_say_question(question->id, question->form, expires_unix_ms, question->is_turn);
    enum amp_code code = metadata ? task_status(question->task, AMP__TASK_STATE__TASK_STATE_INPUT_REQUIRED, text, metadata) : AMP_NO_MEMORY;
    free(metadata);
    if (code != AMP_OK)
        question_done(question, NULL);
    return code;
}

enum amp_code task_ask(struct task *task, const struct task_question *ask, void (*on_answer)(void *ctx, const struct task_answer *answer), void *ctx, struct amp_error *reterr)
{
    enum amp_code code = task_say_check(task, reterr);
    struct amp_error err = {0};
    if (code != AMP_OK)
        return code;
    if (task->n_questions >= SIDECAR_QUESTIONS_MAX)
        return amp_error_set(reterr, AMP_OVERLOADED, "", "%u questions of this task are open already", task->n_questions);
    const struct form_spec spec = {.prompt = ask->prompt, .schema = ask->schema, .options = ask->options, .fallback = ask->fallback, .is_multiple = ask->is_multiple,
                                   .has_other = ask->has_other};
    cJSON *form = form_new(&spec, &err);
    struct question *question = form ? question_new(task, form, &err) : NULL;
    if (!question) {
        if (reterr)
            *reterr = err;
        return err.code;
    }
    code = question_say(question, ask->prompt, ask->expires_ms > 0 ? clock_unix_ms() + ask->expires_ms : 0);
    if (code != AMP_OK)
        return amp_error_set(reterr, code, "prompt", "the question cannot be sent: %s", amp_code_info(code)->text);
    question->on_answer = on_answer;
    question->ctx = ctx;
    task->has_asked = true;
    if (ask->expires_ms > 0 && !task->request->journalled) {
        question->expiry = loop_timer_new(task->sidecar->loop, on_expired, question);
        loop_timer_set(question->expiry, SEEDED_BUG("hasty-expiry") ? ask->expires_ms / 2 : ask->expires_ms);
    }
    return AMP_OK;
}

enum amp_code task_ask_turn(struct task *task, const char *prompt)
{
    const struct form_spec spec = {.prompt = prompt && prompt[0] ? prompt : "the agent waits for input"};
    cJSON *form = form_new(&spec, NULL);
    struct question *question = form ? question_new(task, form, NULL) : NULL;
    if (!question)
        return AMP_TOO_LARGE;
    question->is_turn = true;
    return question_say(question, prompt, 0);
}

/* ---- answering ---------------------------------------------------------------------------------------------------------------------- */

static struct question *question_pick(struct task *task, const char *id, struct amp_error *reterr)
{
    for (struct question *question = task->questions; id && question; question = question->next)
        if (strcmp(question->id, id) == 0)
            return question;
    for (size_t i = 0; id && task->past && i < QUESTIONS_CLOSED; i++) {
        if (strcmp(task->past->closed[i].id, id) == 0) {
            (void)amp_error_set(reterr, AMP_CONFLICT, "answer.inputId", "nobody waits for an answer to question %s any more: %s", id, task->past->closed[i].how);
            return NULL;
        }
    }
    if (id) {
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
static enum amp_code answer_turn(struct question *question, const Amp__Message *message, struct amp_error *reterr)
{
    struct task *task = question->task;
    task->resume = task_message_copy(task, message);
    if (!task->resume)
        return amp_error_set(reterr, AMP_TOO_LARGE, "answer.message", "the answers to this task are too large");
    task->wants_turn = true;
    sidecar_touch(task->sidecar);
    return AMP_OK;
}

void question_take(struct question *question, const Amp__Message *message, const char *by, const cJSON *value)
{
    char *text = form_answer_text(message, value);
    const struct form_answer said = {.id = question->id, .by = by, .text = text, .value = value, .file_bytes = form_answer_file_bytes(question->files ? question->files->message : message)};
    remember_closed(question->task, question->id, "it was answered");
    say_without(question->task, question, NULL, form_say_answer(&said));
    free(text);
    question_done(question, &(struct task_answer){.message = message, .value = value});
}

static enum amp_code question_answer(struct question *question, const Amp__Answer *answer, struct amp_error *reterr)
{
    cJSON *value = NULL;
    enum amp_code code = form_read(question->form, answer->message, &value, reterr);
    if (code == AMP_OK && question->is_turn)
        code = answer_turn(question, answer->message, reterr);
    else if (code == AMP_OK && (question->files || amp_message_has_blob(answer->message)))
        code = question_files_fetch(question, answer, reterr);
    else if (code == AMP_OK)
        question_take(question, answer->message, answer->by, value);
    cJSON_Delete(value);
    return code;
}

enum amp_code task_answer(struct task *task, const Amp__Answer *answer, struct amp_error *reterr)
{
    struct amp_error err = {0};
    struct question *question = question_pick(task, answer->input_id && answer->input_id[0] ? answer->input_id : NULL, &err);
    if (!question && reterr)
        *reterr = err;
    if (!question)
        return err.code;
    if (!answer->has_code || answer->code == AMP_OK)
        return question_answer(question, answer, reterr);
    if (answer->code == AMP_EXPIRED)
        expire(question);
    else
        question_done(question, &(struct task_answer){.code = amp_code_info((enum amp_code)answer->code)->code});
    return AMP_OK;
}

#include "env/question.h"

#include "base/alloc.h"
#include "base/form.h"
#include "base/seeded.h"

#include <cjson/cJSON.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct step {
    struct questions *questions;
    const struct question_event *event;
    int64_t now;
    struct question_action *actions;
    size_t count;
};

static void push(struct step *step, enum question_action_kind kind, struct question *question)
{
    assert(step->count < QUESTION_ACTIONS_MAX);
    step->actions[step->count++] = (struct question_action){.kind = kind, .question = question};
}

/* ---- the list ---------------------------------------------------------------------------------------------------------- */

struct question *question_find(const struct questions *questions, const char *id)
{
    struct question *question = questions->first;
    while (question && (question->is_gone || strcmp(question->id, id) != 0))
        question = question->next;
    return question;
}

bool question_is_older(const struct question *a, const struct question *b)
{
    return a->asked_unix_ms != b->asked_unix_ms ? a->asked_unix_ms < b->asked_unix_ms : a->order < b->order;
}

const char *question_prompt(const struct question *question)
{
    const char *prompt = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(question->form, "prompt"));
    return prompt ? prompt : "";
}

static size_t form_bytes(const cJSON *form)
{
    char *text = cJSON_PrintUnformatted(form);
    size_t bytes = text ? strlen(text) : 0;
    cJSON_free(text);
    return bytes;
}

static struct question *append(struct questions *questions, const char *id, cJSON *form)
{
    struct question *question = xcalloc(1, sizeof *question);
    (void)snprintf(question->id, sizeof question->id, "%s", id);
    question->form = form;
    question->bytes = form_bytes(form);
    question->due_at = question->withdraw_at = QUESTION_NEVER;
    question->prev = questions->last;
    *(questions->last ? &questions->last->next : &questions->first) = question;
    questions->last = question;
    questions->n_kept++;
    questions->bytes += question->bytes;
    return question;
}

static void drop(struct questions *questions, struct question *question)
{
    *(question->prev ? &question->prev->next : &questions->first) = question->next;
    *(question->next ? &question->next->prev : &questions->last) = question->prev;
    questions->n_kept -= !question->is_gone;
    questions->n_open -= question->state == QUESTION_OPEN;
    questions->bytes -= question->bytes;
    cJSON_Delete(question->form);
    free(question->answer);
    free(question);
}

void questions_done(struct questions *questions)
{
    while (questions->first)
        drop(questions, questions->first);
}

void questions_sweep(struct questions *questions)
{
    for (struct question *each = questions->first, *next; each; each = next) {
        next = each->next;
        if (each->is_gone && !each->has_row)
            drop(questions, each);
    }
}

/* ---- asked ---------------------------------------------------------------------------------------------------------------- */

static void open_again(struct step *step, struct question *question)
{
    question->state = QUESTION_OPEN;
    step->questions->n_open++;
    push(step, QUESTION_DO_INDEX, question);
}

static void schedule(struct step *step, struct question *question)
{
    const struct question_event *event = step->event;
    question->expires_unix_ms = event->expires_unix_ms;
    bool has_clock = event->expires_unix_ms && !step->questions->is_observed && !SEEDED_BUG("endless-question");
    question->due_at = has_clock ? step->now + (event->expires_unix_ms - event->now_unix_ms) : QUESTION_NEVER;
}

static void close_question(struct step *step, struct question *question, enum question_state state, enum question_action_kind say)
{
    question->state = state;
    question->is_changed = true;
    question->due_at = question->withdraw_at = QUESTION_NEVER;
    step->questions->n_open--;
    if (state == QUESTION_WITHDRAWN)
        question->is_asked = false;
    else
        question->is_due = question->is_asked;
    push(step, QUESTION_DO_INDEX, question);
    push(step, say, question);
}

/* A new question tells that this attempt goes another way: what it has not asked of the former ones may come in a moment, or not at all. */
static void doubt_others(struct step *step)
{
    struct questions *questions = step->questions;
    for (struct question *each = questions->first; each; each = each->next) {
        if (each->state != QUESTION_OPEN || each->is_asked || each->attempt == questions->attempt)
            continue;
        if (questions->n_open >= AMP_QUESTIONS_MAX)
            close_question(step, each, QUESTION_WITHDRAWN, QUESTION_DO_SAY_WITHDRAWN);
        else if (each->withdraw_at == QUESTION_NEVER)
            each->withdraw_at = step->now + QUESTION_GRACE_MS;
    }
}

/* Ended ones that nobody waits for give way, the oldest first. */
static bool make_room(struct step *step, size_t bytes)
{
    struct questions *questions = step->questions;
    for (struct question *each = questions->first; each && (questions->n_kept >= QUESTIONS_KEPT_MAX || questions->bytes + bytes > QUESTIONS_BYTES_MAX); each = each->next) {
        if (each->is_gone || each->state == QUESTION_OPEN || each->is_asked || each->is_due)
            continue;
        each->is_gone = each->is_changed = true;
        questions->n_kept--;
        questions->bytes -= each->bytes;
        each->bytes = 0;
        if (step->count < QUESTION_ACTIONS_MAX - 4)
            push(step, QUESTION_DO_INDEX, each);
    }
    return questions->n_open < AMP_QUESTIONS_MAX && questions->n_kept < QUESTIONS_KEPT_MAX && questions->bytes + bytes <= QUESTIONS_BYTES_MAX;
}

static void ask_new(struct step *step)
{
    const struct question_event *event = step->event;
    struct questions *questions = step->questions;
    doubt_others(step);
    if (!make_room(step, form_bytes(event->form))) {
        push(step, QUESTION_DO_REFUSE, NULL);
        return;
    }
    struct question *question = append(questions, event->id, cJSON_Duplicate(event->form, true));
    question->asked_unix_ms = event->asked_unix_ms ? event->asked_unix_ms : event->now_unix_ms;
    question->order = event->order;
    question->attempt = questions->attempt;
    question->is_turn = event->is_turn;
    question->is_asked = question->is_changed = true;
    schedule(step, question);
    open_again(step, question);
    push(step, QUESTION_DO_SAY_ASKED, question);
}

static void ask_known(struct step *step, struct question *question)
{
    question->attempt = step->questions->attempt;
    question->is_asked = question->is_changed = true;
    question->withdraw_at = QUESTION_NEVER;
    question->is_turn = step->event->is_turn;
    if (question->state == QUESTION_ANSWERED || question->state == QUESTION_EXPIRED) {
        question->is_due = true;
        push(step, QUESTION_DO_SAY_AGAIN, question);
        return;
    }
    if (question->state == QUESTION_WITHDRAWN) {
        schedule(step, question);
        open_again(step, question);
    }
    push(step, QUESTION_DO_SAY_ASKED, question);
}

static void on_asked(struct step *step)
{
    struct question *question = question_find(step->questions, step->event->id);
    if (!question)
        ask_new(step);
    else if (question->state != QUESTION_OPEN && step->questions->n_open >= AMP_QUESTIONS_MAX && question->state == QUESTION_WITHDRAWN)
        push(step, QUESTION_DO_REFUSE, NULL);
    else
        ask_known(step, question);
}

/* ---- ended ---------------------------------------------------------------------------------------------------------------- */

static void on_answer(struct step *step)
{
    const struct question_event *event = step->event;
    struct question *question = event->question;
    if (question->state != QUESTION_OPEN)
        return;
    question->answer = xcalloc(1, event->answer.len + 1);
    question->answer_len = event->answer.len;
    memcpy(question->answer, event->answer.data, event->answer.len);
    question->bytes += event->answer.len;
    step->questions->bytes += event->answer.len;
    (void)snprintf(question->by, sizeof question->by, "%s", event->by ? event->by : "");
    close_question(step, question, QUESTION_ANSWERED, QUESTION_DO_SAY_ANSWERED);
}

/* The attempt's own word. Of a direct task it is the truth; of a durable one it may be about to be lost, and ask again. */
static void on_closed(struct step *step)
{
    struct question *question = question_find(step->questions, step->event->id);
    if (!question || !question->is_asked)
        return;
    question->is_asked = question->is_due = false;
    if (question->state != QUESTION_OPEN)
        return;
    if (step->event->is_expired)
        close_question(step, question, QUESTION_EXPIRED, QUESTION_DO_SAY_EXPIRED);
    else if (step->questions->is_observed)
        close_question(step, question, QUESTION_WITHDRAWN, QUESTION_DO_SAY_WITHDRAWN);
    else
        question->withdraw_at = step->now + QUESTION_GRACE_MS;
}

static void on_told(struct step *step)
{
    struct question *question = question_find(step->questions, step->event->id);
    if (!question)
        return;
    question->is_asked = question->is_due = false;
    if (question->state == QUESTION_OPEN && step->questions->is_observed)
        close_question(step, question, QUESTION_ANSWERED, QUESTION_DO_SAY_ANSWERED);
}

/* The same number again is an attempt that has outlived its environment: it may not have heard what became of its questions. */
static void on_attempt(struct step *step)
{
    step->questions->attempt = step->event->attempt;
    for (struct question *each = step->questions->first; each; each = each->next) {
        each->is_asked = each->attempt == step->event->attempt && each->state != QUESTION_WITHDRAWN;
        each->is_due = each->is_asked && each->state != QUESTION_OPEN;
    }
}

/* Whatever it still wanted, the next attempt will say. */
static void on_lost(struct step *step)
{
    for (struct question *each = step->questions->first; each; each = each->next) {
        each->is_asked = each->is_due = false;
        each->withdraw_at = QUESTION_NEVER;
    }
}

static void on_timer(struct step *step)
{
    for (struct question *each = step->questions->first; each && step->count + 2 <= QUESTION_ACTIONS_MAX; each = each->next) {
        if (each->state != QUESTION_OPEN)
            continue;
        if (step->now >= each->due_at)
            close_question(step, each, QUESTION_EXPIRED, QUESTION_DO_SAY_EXPIRED);
        else if (step->now >= each->withdraw_at)
            close_question(step, each, QUESTION_WITHDRAWN, QUESTION_DO_SAY_WITHDRAWN);
    }
}

static void on_ended(struct step *step)
{
    for (struct question *each = step->questions->first; each; each = each->next) {
        each->is_asked = each->is_due = false;
        step->questions->n_kept -= !each->is_gone;
        each->is_gone = each->is_changed = true;
        if (each->state != QUESTION_OPEN)
            continue;
        each->state = QUESTION_WITHDRAWN;
        step->questions->n_open--;
        push(step, QUESTION_DO_INDEX, each);
    }
}

size_t questions_step(struct questions *questions, const struct question_event *event, int64_t now_ms, struct question_action ret[QUESTION_ACTIONS_MAX])
{
    static void (*const steps[])(struct step *step) = {
        [QUESTION_EV_ASKED] = on_asked,     [QUESTION_EV_TOLD] = on_told, [QUESTION_EV_CLOSED] = on_closed, [QUESTION_EV_ANSWER] = on_answer,
        [QUESTION_EV_ATTEMPT] = on_attempt, [QUESTION_EV_LOST] = on_lost, [QUESTION_EV_TIMER] = on_timer,   [QUESTION_EV_ENDED] = on_ended,
    };
    struct step step = {.questions = questions, .event = event, .now = now_ms, .actions = ret};
    steps[event->kind](&step);
    return step.count;
}

int64_t questions_due(const struct questions *questions)
{
    int64_t due = QUESTION_NEVER;
    for (const struct question *each = questions->first; each; each = each->next) {
        if (each->state != QUESTION_OPEN)
            continue;
        due = each->due_at < due ? each->due_at : due;
        due = each->withdraw_at < due ? each->withdraw_at : due;
    }
    return due;
}

/* ---- questions about questions ------------------------------------------------------------------------------------------------ */

const struct question *questions_asked(const struct questions *questions, const struct question *but)
{
    for (const struct question *each = questions->first; each; each = each->next)
        if (each != but && each->is_asked && each->state == QUESTION_OPEN)
            return each;
    return NULL;
}

struct question_over question_over(const struct question *question)
{
    struct question_over over = {.state = question->state};
    snprintf(over.id, sizeof over.id, "%s", question->id);
    snprintf(over.by, sizeof over.by, "%s", question->by);
    return over;
}

enum amp_code question_refuse(const struct question_over *over, struct amp_error *reterr)
{
    if (over->state == QUESTION_ANSWERED)
        return amp_error_set(reterr, AMP_CONFLICT, "answer.inputId", "question %s has been answered already%s%s", over->id, over->by[0] ? ", by " : "", over->by);
    return amp_error_set(reterr, AMP_CONFLICT, "answer.inputId", "nobody waits for an answer to question %s any more: %s", over->id,
                         over->state == QUESTION_EXPIRED ? "its time is over" : "it was withdrawn");
}

static enum amp_code refuse_closed(const struct question *question, struct amp_error *err)
{
    struct question_over over = question_over(question);
    return question_refuse(&over, err);
}

enum amp_code question_pick(const struct questions *questions, const char *id, struct question **ret, struct amp_error *reterr)
{
    struct question *only = NULL;
    if (id && id[0]) {
        *ret = question_find(questions, id);
        if (!*ret)
            return amp_error_set(reterr, AMP_NO_QUESTION, "answer.inputId", "the task has no question %s", id);
        return (*ret)->state == QUESTION_OPEN || ((*ret)->state == QUESTION_ANSWERED && SEEDED_BUG("two-answers")) ? AMP_OK : refuse_closed(*ret, reterr);
    }
    for (struct question *each = questions->first; each; each = each->next)
        only = each->state == QUESTION_OPEN ? each : only;
    *ret = only;
    if (questions->n_open == 1)
        return AMP_OK;
    (void)amp_error_set(reterr, AMP_NO_QUESTION, "answer.inputId", "the task has %u open questions", questions->n_open);
    if (only)
        amp_error_hint(reterr, "say which one: amesh inbox lists them; amesh answer %s TEXT", only->id);
    return AMP_NO_QUESTION;
}

/* ---- rows ------------------------------------------------------------------------------------------------------------------------ */

static const char *const states[] = {[QUESTION_OPEN] = "open", [QUESTION_ANSWERED] = "answered", [QUESTION_EXPIRED] = "expired", [QUESTION_WITHDRAWN] = "withdrawn"};
#define STATES (sizeof states / sizeof states[0])

static void add_hex(cJSON *json, const char *name, const uint8_t *data, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    char *text = xcalloc(1, 2 * len + 1);
    for (size_t i = 0; i < len; i++) {
        text[2 * i] = digits[data[i] >> 4];
        text[2 * i + 1] = digits[data[i] & 15];
    }
    cJSON_AddStringToObject(json, name, text);
    free(text);
}

static unsigned digit_of(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10) & 15;
}

static void take_hex(struct question *question, const char *text)
{
    question->answer_len = strlen(text) / 2;
    question->answer = xcalloc(1, question->answer_len + 1);
    for (size_t i = 0; i < question->answer_len; i++)
        question->answer[i] = (uint8_t)(digit_of(text[2 * i]) << 4 | digit_of(text[2 * i + 1]));
    question->bytes += question->answer_len;
}

char *question_save(const struct question *question)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "id", question->id);
    cJSON_AddStringToObject(json, "state", states[question->state]);
    cJSON_AddItemToObject(json, "form", cJSON_Duplicate(question->form, true));
    cJSON_AddNumberToObject(json, "attempt", question->attempt);
    cJSON_AddNumberToObject(json, "askedMs", (double)question->asked_unix_ms);
    if (question->order)
        cJSON_AddNumberToObject(json, "order", (double)question->order);
    if (question->expires_unix_ms)
        cJSON_AddNumberToObject(json, "expiresMs", (double)question->expires_unix_ms);
    if (question->is_turn)
        cJSON_AddTrueToObject(json, "turn");
    if (question->by[0])
        cJSON_AddStringToObject(json, "by", question->by);
    if (question->answer)
        add_hex(json, "answer", question->answer, question->answer_len);
    char *text = cJSON_PrintUnformatted(json), *ret = xstrdup(text ? text : "");
    cJSON_free(text);
    cJSON_Delete(json);
    return ret;
}

#define NUMBER_MAX 253402300799999.0 /* the end of the year 9999, in ms */

static int64_t number_of(const cJSON *json, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);
    bool is_right = cJSON_IsNumber(item) && item->valuedouble >= 0 && item->valuedouble <= NUMBER_MAX; /* the row may come out of an import */
    return is_right ? (int64_t)item->valuedouble : 0;
}

static const char *text_of(const cJSON *json, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, name));
    return text ? text : "";
}

static enum question_state state_of(const char *name)
{
    for (size_t i = 0; i < STATES; i++)
        if (strcmp(states[i], name) == 0)
            return (enum question_state)i;
    return QUESTION_WITHDRAWN;
}

/* The last one goes before those that are younger: rows come in the order of their keys. */
static void place(struct questions *questions, struct question *question)
{
    struct question *at = question->prev;
    while (at && question_is_older(question, at))
        at = at->prev;
    if (at == question->prev)
        return;
    questions->last = question->prev;
    questions->last->next = NULL;
    question->prev = at;
    question->next = at ? at->next : questions->first;
    question->next->prev = question;
    *(at ? &at->next : &questions->first) = question;
}

struct question *question_load(struct questions *questions, struct amp_bytes json, int64_t now_ms, int64_t now_unix_ms)
{
    cJSON *row = cJSON_ParseWithLength((const char *)json.data, json.len);
    cJSON *form = row ? form_copy(cJSON_GetObjectItemCaseSensitive(row, "form"), NULL) : NULL;
    if (!form || !amp_id_is_valid(text_of(row, "id"))) {
        cJSON_Delete(form);
        cJSON_Delete(row);
        return NULL;
    }
    struct question *question = append(questions, text_of(row, "id"), form);
    size_t before = question->bytes;
    question->state = state_of(text_of(row, "state"));
    questions->n_open += question->state == QUESTION_OPEN;
    question->attempt = (uint32_t)number_of(row, "attempt");
    question->asked_unix_ms = number_of(row, "askedMs");
    question->order = (uint64_t)number_of(row, "order");
    place(questions, question);
    question->expires_unix_ms = number_of(row, "expiresMs");
    question->is_turn = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(row, "turn"));
    question->has_row = true;
    (void)snprintf(question->by, sizeof question->by, "%s", text_of(row, "by"));
    if (*text_of(row, "answer"))
        take_hex(question, text_of(row, "answer"));
    questions->bytes += question->bytes - before;
    if (question->expires_unix_ms && question->state == QUESTION_OPEN)
        question->due_at = now_ms + (question->expires_unix_ms - now_unix_ms);
    cJSON_Delete(row);
    return question;
}

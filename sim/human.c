/* Agents that ask, and people who answer. What was confirmed to a person is what every attempt is told; what one attempt was told the next one is told, too. */
#include "scenario.h"

#include "base/alloc.h"
#include "base/call.h"
#include "base/envcall.h"
#include "base/loop.h"
#include "env/journal.h"
#include "sidecar/task.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#define EXPIRED_TEXT "!"
#define DEFAULT_TEXT "as always"
#define LATE_MAX_US 3000000 /* an answer that was on its way */

static const char *text_of(const cJSON *object, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text ? text : "";
}

/* By what is asked for: its caller may not know yet under which id it was accepted. */
static struct job *job_of(const char *text)
{
    for (size_t i = 0; i < scenario.n_jobs; i++)
        if (strcmp(scenario.jobs[i].wish->text, text) == 0)
            return &scenario.jobs[i];
    return NULL;
}

/* ---- the agent -------------------------------------------------------------------------------------------------------- */

struct one { /* a question that an agent has asked */
    struct query *query; /* NULL: the agent is gone */
    struct job *job;
    char task[AMP_ID_SIZE];
    uint32_t n, expires_ms;
    int64_t asked_us;
};

struct query {
    struct task *task;
    struct job *job;
    struct one *all[ASKED_MAX];
    uint32_t n_open;
    void (*on_all)(void *ctx);
    void *ctx;
};

void human_text(const struct question_plan *plan, unsigned n, char *ret, size_t size)
{
    snprintf(ret, size, "ask %u questions %u expire %u default %u", n, plan->n, plan->expires_ms, plan->has_default);
}

/* A direct call is answered by its caller, whom nobody tells whether the answer came: what the agent is told is one that was given. (A request that came twice has two agents.) */
static void hold_told_direct(const struct one *one, const char *text)
{
    const struct asked *asked = &one->job->human.asked[one->n];
    unsigned n = 0;
    char id[ANSWER_SIZE] = "";
    if (sscanf(text, "answer %u to %47s", &n, id) != 2 || n == 0 || n > asked->n_sent || strcmp(id, asked->id) != 0)
        world_fail("PQ: the agent of the direct call %s was told \"%s\", which nobody has answered", one->task, text);
    stat_add(STAT_direct_told, 1);
}

/* The same to every attempt, and what was confirmed. */
static void hold_told(const struct one *one, const char *text)
{
    struct asked *asked = &one->job->human.asked[one->n];
    bool is_answer = strcmp(text, EXPIRED_TEXT) != 0 && strcmp(text, DEFAULT_TEXT) != 0;
    stat_add(is_answer ? STAT_answers_told : STAT_expiries_told, 1);
    if (!one->job->wish->is_durable && is_answer)
        hold_told_direct(one, text);
    if (asked->told[0])
        stat_add(STAT_told_again, 1);
    if (asked->told[0] && strcmp(asked->told, text) != 0 && one->job->wish->is_durable)
        world_fail("PQ: question %u of task %s is answered with \"%s\", and was with \"%s\"", one->n, one->task, text, asked->told);
    if (asked->acked[0] && strcmp(asked->acked, text) != 0)
        world_fail("PQ: \"%s\" was confirmed as the answer to question %u of task %s, and the agent was told \"%s\"", asked->acked, one->n, one->task, text);
    if (!is_answer && !scenario.has_jumped && asked->asked_us && world_now_us() - asked->asked_us < (int64_t)one->expires_ms * 1000 - 1000)
        world_fail("PQ: question %u of task %s has expired too early", one->n, one->task);
    snprintf(asked->told, sizeof asked->told, "%s", text);
}

static void on_told(void *ctx, const struct task_answer *answer)
{
    struct one *one = ctx;
    struct query *query = one->query;
    const char *value = cJSON_GetStringValue(answer ? answer->value : NULL);
    struct amp_buf text;
    char said[ANSWER_SIZE] = "";
    amp_buf_init(&text, 4096);
    if (answer && answer->message)
        (void)amp_message_text(answer->message, &text);
    snprintf(said, sizeof said, "%.*s", (int)text.len, text.len ? (const char *)text.data : "");
    amp_buf_done(&text);
    if (answer && answer->code == AMP_OK)
        hold_told(one, answer->message ? said : value ? value : "");
    else if (answer && answer->code == AMP_EXPIRED)
        hold_told(one, EXPIRED_TEXT);
    if (query)
        query->all[one->n] = NULL;
    free(one);
    if (query && --query->n_open == 0)
        query->on_all(query->ctx);
}

static void ask(struct query *query, uint32_t n, const struct question_plan *plan)
{
    char prompt[64];
    cJSON *fallback = plan->has_default && plan->expires_ms ? cJSON_CreateString(DEFAULT_TEXT) : NULL;
    struct one *one = xcalloc(1, sizeof *one);
    snprintf(prompt, sizeof prompt, "question %u?", n);
    const struct task_question question = {.prompt = prompt, .fallback = fallback, .expires_ms = plan->expires_ms};
    *one = (struct one){.query = query, .job = query->job, .n = n, .expires_ms = plan->expires_ms, .asked_us = world_now_us()};
    snprintf(one->task, sizeof one->task, "%s", task_id(query->task));
    if (task_ask(query->task, &question, on_told, one, NULL) == AMP_OK) {
        query->all[n] = one;
        query->n_open++;
        stat_add(STAT_questions, 1);
        if (!one->job->human.asked[n].asked_us)
            one->job->human.asked[n].asked_us = world_now_us();
    } else {
        free(one);
    }
    cJSON_Delete(fallback);
}

struct query *query_new(struct task *task, const char *text, void (*on_all)(void *ctx), void *ctx)
{
    struct question_plan plan = {0};
    unsigned has_default, n;
    if (sscanf(text, "ask %u questions %u expire %u default %u", &n, &plan.n, &plan.expires_ms, &has_default) != 4)
        return NULL;
    struct job *job = job_of(text);
    if (!job)
        return NULL;
    plan.has_default = has_default;
    struct query *query = xcalloc(1, sizeof *query);
    *query = (struct query){.task = task, .job = job, .on_all = on_all, .ctx = ctx};
    for (uint32_t i = 0; i < plan.n && i < ASKED_MAX; i++)
        ask(query, i, &plan);
    if (query->n_open == 0) {
        free(query);
        return NULL;
    }
    return query;
}

void query_free(struct query *query)
{
    for (size_t i = 0; query && i < ASKED_MAX; i++)
        if (query->all[i])
            query->all[i]->query = NULL;
    free(query);
}

/* ---- the person ----------------------------------------------------------------------------------------------------------- */

static void look(void *ctx);
static void look_in(struct job *job, uint32_t least_ms, uint32_t most_ms) { world_at(world_now_us() + (int64_t)world_between(least_ms, most_ms) * 1000, job->client->loop, look, job); }

static bool should_have_expired(const struct job *job, const struct asked *asked)
{
    uint32_t expires_ms = job->wish->question.expires_ms;
    bool is_known = expires_ms && !scenario.has_jumped && asked->seen_us && asked->seen_starts == nodes.n_starts && loop_frozen_until_us(nodes.loop ? nodes.loop : job->client->loop) == 0;
    return is_known && world_now_us() - asked->seen_us > (int64_t)expires_ms * 1000 + LATE_MAX_US;
}

static void hold_answered(struct job *job, size_t i, const struct amp_error *err)
{
    struct asked *asked = &job->human.asked[job->human.at[i]];
    char text[ANSWER_SIZE];
    snprintf(text, sizeof text, "answer %u to %s", job->human.sent[i], asked->id);
    world_trace("%s: %s: %s", job->client->name, text, err->code == AMP_OK ? "ok" : err->message);
    if (err->code == AMP_NO_SUCH_TASK)
        world_fail("P1: task %s was accepted, and cannot be answered: no such task", job->task);
    stat_add(STAT_answers_refused, err->code == AMP_CONFLICT);
    if (err->code != AMP_OK)
        return;
    stat_add(STAT_answers_confirmed, 1);
    if (should_have_expired(job, asked))
        world_fail("PQ: question %s is answered, and should have expired", asked->id);
    if (asked->acked[0])
        world_fail("PQ: question %s has two answers that were confirmed: \"%s\" and \"%s\"", asked->id, asked->acked, text);
    if (asked->told[0] && strcmp(asked->told, text) != 0)
        world_fail("PQ: \"%s\" is confirmed, and the agent was told \"%s\"", text, asked->told);
    snprintf(asked->acked, sizeof asked->acked, "%s", text);
}

static void on_first(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct job *job = ctx;
    job->human.answering[0] = NULL;
    hold_answered(job, 0, err);
    look_in(job, 100, 1500);
}

static void on_second(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct job *job = ctx;
    job->human.answering[1] = NULL;
    hold_answered(job, 1, err);
}

static void answer(struct job *job, size_t i, size_t n)
{
    struct human *human = &job->human;
    char text[ANSWER_SIZE];
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    Amp__TaskCommand command = AMP__TASK_COMMAND__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    Amp__Answer said = AMP__ANSWER__INIT;
    Amp__Message message;
    Amp__Part part, *parts[1];
    if (human->answering[i])
        return;
    human->sent[i] = ++human->asked[n].n_sent;
    human->at[i] = n;
    snprintf(text, sizeof text, "answer %u to %s", human->sent[i], human->asked[n].id);
    client_message(text, human->asked[n].id, &message, &part, parts);
    said.input_id = human->asked[n].id;
    said.message = &message;
    control.kind_case = AMP__CONTROL__KIND_ANSWER;
    control.answer = &said;
    command.id = job->task;
    command.control = &control;
    request.verb_case = AMP__ENV_REQUEST__VERB_COMMAND;
    request.command = &command;
    if (env_call(job->client->loop, job->client->bus, job->client->name, &request, 2000, i ? on_second : on_first, job, &human->answering[i]) != AMP_OK && i == 0)
        look_in(job, 100, 1500);
}

/* → which of the task's questions it is; ASKED_MAX: none of those that the agents ask. */
static size_t number_of(const Amp__Question *question)
{
    cJSON *form = question->form ? cJSON_ParseWithLength((const char *)question->form->text.data, question->form->text.len) : NULL;
    const char *prompt = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(form, "prompt"));
    unsigned n = ASKED_MAX;
    if (!prompt || sscanf(prompt, "question %u?", &n) != 1 || n > ASKED_MAX)
        n = ASKED_MAX;
    cJSON_Delete(form);
    return n;
}

static void note_open(struct job *job, const Amp__Question *question, size_t n)
{
    struct asked *asked = &job->human.asked[n];
    if (asked->id[0] && strcmp(asked->id, question->id) != 0)
        world_fail("PQ: question %zu of task %s is %s, and was %s", n, job->task, question->id, asked->id);
    if (asked->acked[0])
        world_fail("PQ: question %s is open, and \"%s\" was confirmed", question->id, asked->acked);
    if (should_have_expired(job, asked))
        world_fail("PQ: question %s is open, and should have expired", question->id);
    snprintf(asked->id, sizeof asked->id, "%s", question->id);
    if (asked->seen_us && asked->seen_starts == nodes.n_starts)
        return;
    asked->seen_us = world_now_us();
    asked->seen_starts = nodes.n_starts;
}

static void on_inbox(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct job *job = ctx;
    size_t open[ASKED_MAX], n_open = 0;
    job->human.asking = NULL;
    for (size_t i = 0; err->code == AMP_OK && i < reply->n_questions; i++) {
        size_t n = number_of(reply->questions[i]);
        if (n == ASKED_MAX || n_open == ASKED_MAX)
            continue;
        note_open(job, reply->questions[i], n);
        open[n_open++] = n;
    }
    stat_add(STAT_questions_together, n_open > 1);
    if (n_open == 0 || job->human.answering[0] || world_now_us() < job->human.lazy_until_us) {
        bool is_over = err->code == AMP_NOT_FOUND; /* unless its end was not written down, and is taken back by a crash */
        look_in(job, is_over ? 4000 : 300, is_over ? 8000 : 2500);
        return;
    }
    size_t chosen = open[world_below((uint32_t)n_open)];
    answer(job, 0, chosen);
    if (world_chance(25)) /* somebody else is as quick */
        answer(job, 1, chosen);
}

static void look(void *ctx)
{
    struct job *job = ctx;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    Amp__InboxQuery query = AMP__INBOX_QUERY__INIT;
    query.id = job->task;
    request.verb_case = AMP__ENV_REQUEST__VERB_INBOX;
    request.inbox = &query;
    if (job->human.asking || env_call(job->client->loop, job->client->bus, job->client->name, &request, 2000, on_inbox, job, &job->human.asking) != AMP_OK)
        look_in(job, 300, 2500);
}

/* ---- the caller of a direct call ----------------------------------------------------------------------------------------------- */

static void answer_call(void *ctx)
{
    struct job *job = ctx;
    for (size_t n = 0; n < ASKED_MAX && job->call; n++) {
        struct asked *asked = &job->human.asked[n];
        char text[ANSWER_SIZE];
        Amp__Message message;
        Amp__Part part, *parts[1];
        if (!asked->id[0] || asked->n_sent > 2 || (asked->n_sent && world_chance(70)))
            continue;
        snprintf(text, sizeof text, "answer %u to %s", ++asked->n_sent, asked->id);
        client_message(text, asked->id, &message, &part, parts);
        (void)!call_answer(job->call, asked->id, &message, NULL);
    }
}

void human_heard(struct job *job, struct amp_bytes body)
{
    cJSON *event = job->wish->question.n && memmem(body.data, body.len, "\"amp/question\"", 14) ? cJSON_ParseWithLength((const char *)body.data, body.len) : NULL;
    const cJSON *asked = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(event, "statusUpdate"), "metadata"), "amp/question");
    unsigned n = ASKED_MAX;
    if (asked && sscanf(text_of(asked, "prompt"), "question %u?", &n) == 1 && n < ASKED_MAX) {
        snprintf(job->human.asked[n].id, sizeof job->human.asked[n].id, "%s", text_of(asked, "id"));
        world_at(world_now_us() + (int64_t)world_between(10, 3000) * 1000 + (int64_t)job->wish->question.lazy_ms * 1000, job->client->loop, answer_call, job);
    }
    cJSON_Delete(event);
}

/* ---- in a hurry ------------------------------------------------------------------------------------------------------------------ */

void human_hurry(void)
{
    for (struct job *job = scenario.jobs; job < scenario.jobs + scenario.n_jobs; job++)
        for (size_t n = 0; n < job->wish->question.n && job->is_accepted; n++)
            if (job->human.asked[n].id[0] && !job->human.asked[n].acked[0] && !job->human.asked[n].told[0])
                answer(job, 1, n);
}

void human_begin(struct job *job)
{
    job->human.lazy_until_us = world_now_us() + (int64_t)job->wish->question.lazy_ms * 1000;
    if (job->wish->question.n)
        look_in(job, 0, 1000);
}

void human_end(struct job *job)
{
    env_call_cancel(job->human.asking);
    for (size_t i = 0; i < 2; i++)
        env_call_cancel(job->human.answering[i]);
}

/* ---- history ----------------------------------------------------------------------------------------------------------------- */

struct ends { /* of one question, as history has them */
    uint32_t asked, answered, closed;
    char text[ANSWER_SIZE];
    bool is_open;
};

struct reading {
    const struct job *job;
    struct ends ends[ASKED_MAX];
};

static struct ends *ends_of(struct reading *reading, const cJSON *what)
{
    for (size_t i = 0; i < ASKED_MAX; i++)
        if (reading->job->human.asked[i].id[0] && strcmp(reading->job->human.asked[i].id, text_of(what, "id")) == 0)
            return &reading->ends[i];
    return NULL; /* nobody has seen it */
}

static void read_event(struct reading *reading, const cJSON *metadata)
{
    const cJSON *asked = cJSON_GetObjectItemCaseSensitive(metadata, "amp/question"), *said = cJSON_GetObjectItemCaseSensitive(metadata, "amp/answer");
    const cJSON *closed = cJSON_GetObjectItemCaseSensitive(metadata, "amp/question_closed"), *what = asked ? asked : said ? said : closed;
    struct ends *ends = what ? ends_of(reading, what) : NULL;
    if (!ends)
        return;
    bool is_again = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(what, "again"));
    ends->is_open = asked != NULL;
    ends->asked += asked != NULL;
    ends->answered += said && !is_again;
    ends->closed += closed && !is_again && strcmp(text_of(closed, "why"), "withdrawn") != 0;
    if (said)
        snprintf(ends->text, sizeof ends->text, "%s", text_of(said, "text"));
}

static bool on_row(void *ctx, const struct journal_row *row)
{
    struct amp_arena arena;
    amp_arena_init(&arena, 8 << 20);
    Amp__Frame *frame = amp__frame__unpack(&arena.allocator, row->body.len, row->body.data);
    for (size_t i = 0; frame && i < frame->n_events; i++) {
        cJSON *event = cJSON_ParseWithLength((const char *)frame->events[i]->body->text.data, frame->events[i]->body->text.len);
        read_event(ctx, cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(event, "statusUpdate"), "metadata"));
        cJSON_Delete(event);
    }
    amp_arena_done(&arena);
    return true;
}

static void check_ends(const struct job *job, size_t n, const struct ends *ends)
{
    const struct asked *asked = &job->human.asked[n];
    if (ends->is_open)
        world_fail("PQ: the task %s has ended, and question %zu has not", job->task, n);
    if (ends->answered + ends->closed > 1)
        world_fail("PQ: question %zu of task %s was answered %u times and expired %u times", n, job->task, ends->answered, ends->closed);
    if (asked->acked[0] && (ends->answered != 1 || strcmp(ends->text, asked->acked) != 0))
        world_fail("PQ: \"%s\" was confirmed as the answer to question %zu of task %s; history has \"%s\"", asked->acked, n, job->task, ends->answered ? ends->text : "none");
}

void human_check(struct journal *journal, const struct job *job)
{
    struct reading reading = {.job = job};
    if (!job->wish->question.n || journal_events(journal, job->task, 1, on_row, &reading, NULL) != AMP_OK)
        return;
    for (size_t i = 0; i < job->wish->question.n; i++)
        check_ends(job, i, &reading.ends[i]);
}

#include "env/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bus.h"
#include "base/log.h"
#include "env_world.h"

#define MANY 30

static int begin(void **state)
{
    struct env_world *world = *state = calloc(1, sizeof *world);
    env_world_begin(world, NULL);
    return 0;
}

static int end(void **state)
{
    env_world_end(*state);
    free(*state);
    return 0;
}

static void submit_many(struct env_world *world, unsigned first, unsigned count, size_t text_len)
{
    char id[32];
    for (unsigned i = first; i < first + count; i++) {
        snprintf(id, sizeof id, "t-%03u", i);
        struct env_world_submit submit = {.task = id, .context = "c-1", .agent = i % 2 ? "odd" : "even", .text_len = text_len};
        assert_int_equal(env_world_submit(world, &submit), AMP_OK);
    }
}

/* Pages through; every task once. Returns how many pages it took. */
static unsigned page_through(struct env_world *world, Amp__EnvRequest__VerbCase verb, Amp__TaskQuery *query, bool *seen, unsigned size)
{
    char token[256];
    unsigned pages = 0;
    do {
        assert_int_equal(env_world_ask(world, verb, query), AMP_OK);
        for (size_t i = 0; i < world->reply->n_tasks; i++) {
            unsigned number = (unsigned)strtoul(world->reply->tasks[i]->task->id + 2, NULL, 10);
            assert_true(number < size);
            if (seen[number])
                fail_msg("%s came twice", world->reply->tasks[i]->task->id);
            seen[number] = true;
        }
        snprintf(token, sizeof token, "%s", world->reply->next_page_token ? world->reply->next_page_token : "");
        query->page_token = token;
        pages++;
        assert_true(pages < 100);
    } while (token[0]);
    return pages;
}

static unsigned count(const bool *seen, unsigned size)
{
    unsigned n = 0;
    for (unsigned i = 0; i < size; i++)
        n += seen[i];
    return n;
}

static void test_a_list_after_a_restart_has_every_open_task_once(void **state)
{
    struct env_world *world = *state;
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    bool seen[MANY] = {false};
    submit_many(world, 0, MANY, 0);
    env_world_restart(world);
    (void)page_through(world, AMP__ENV_REQUEST__VERB_LIST, &query, seen, MANY);
    assert_int_equal(count(seen, MANY), MANY);
}

/* The first page is newest first; what is submitted between two pages is not on the second, and pushes nothing out of it. */
static void test_pages_are_not_disturbed_by_what_comes_between(void **state)
{
    struct env_world *world = *state;
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    char token[256];
    submit_many(world, 0, 10, 0);
    query.has_page_size = true;
    query.page_size = 4;
    assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_LIST, &query), AMP_OK);
    assert_int_equal(world->reply->n_tasks, 4);
    assert_int_equal(world->reply->total, 10);
    assert_string_equal(world->reply->tasks[3]->task->id, "t-006");
    snprintf(token, sizeof token, "%s", world->reply->next_page_token);
    submit_many(world, 10, 5, 0);
    query.page_token = token;
    assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_LIST, &query), AMP_OK);
    assert_string_equal(world->reply->tasks[0]->task->id, "t-005");
    query.page_token = (char *)"nonsense";
    assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_LIST, &query), AMP_INVALID);
}

/* Texts of 300 KiB, of which not four fit into one message. */
static void test_what_is_too_large_for_one_message_comes_in_more_of_them(void **state)
{
    struct env_world *world = *state;
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    bool seen[7] = {false};
    submit_many(world, 0, 7, 300 * 1024);
    query.context_id = (char *)"c-1";
    assert_true(page_through(world, AMP__ENV_REQUEST__VERB_HISTORY, &query, seen, 7) >= 3);
    assert_int_equal(count(seen, 7), 7);
    Amp__TaskQuery list = AMP__TASK_QUERY__INIT;
    memset(seen, 0, sizeof seen);
    (void)page_through(world, AMP__ENV_REQUEST__VERB_LIST, &list, seen, 7);
    assert_int_equal(count(seen, 7), 7);
}

/* A list names what was asked, as `amesh task ls` prints it. */
static void test_a_list_says_what_was_asked(void **state)
{
    struct env_world *world = *state;
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.text = "paint the fence"}), AMP_OK);
    assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_LIST, &query), AMP_OK);
    assert_string_equal(world->reply->tasks[0]->asked, "paint the fence");
}

static void test_lists_are_filtered(void **state)
{
    struct env_world *world = *state;
    Amp__TaskQuery by_agent = AMP__TASK_QUERY__INIT, by_context = AMP__TASK_QUERY__INIT, by_state = AMP__TASK_QUERY__INIT, open = AMP__TASK_QUERY__INIT;
    submit_many(world, 0, 6, 0);
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.task = "other", .context = "c-2", .agent = "even"}), AMP_OK);
    assert_int_equal(env_world_cancel(world, "other"), AMP_OK);
    by_agent.agent = (char *)"even";
    assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_LIST, &by_agent), AMP_OK);
    assert_int_equal(world->reply->n_tasks, 4);
    by_context.context_id = (char *)"c-2";
    assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_LIST, &by_context), AMP_OK);
    assert_int_equal(world->reply->n_tasks, 1);
    by_state.has_state = true;
    by_state.state = AMP__TASK_STATE__TASK_STATE_CANCELED;
    assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_LIST, &by_state), AMP_OK);
    assert_int_equal(world->reply->n_tasks, 1);
    assert_string_equal(world->reply->tasks[0]->task->id, "other");
    open.has_open = open.open = true;
    assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_LIST, &open), AMP_OK);
    assert_int_equal(world->reply->total, 6);
}

static void beat_with_card(struct env_world *world, unsigned number, const char *description)
{
    char name[32], subject[AMP_SUBJECT_SIZE];
    Amp__AgentCard card = AMP__AGENT_CARD__INIT;
    Amp__Beat beat = AMP__BEAT__INIT;
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    snprintf(name, sizeof name, "agent-%04u", number);
    card.name = name;
    card.description = (char *)description;
    card.version = (char *)"1.0.0";
    beat.agent = name;
    beat.instance = (char *)"i-1";
    beat.card = &card;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.body_case = AMP__ENVELOPE__BODY_BEAT;
    envelope.beat = &beat;
    assert_int_equal(amp_subject_build(AMP_SUBJECT_HB, name, "i-1", NULL, subject, NULL), AMP_OK);
    world_send(world->world.near, subject, &envelope);
}

/* 4 MiB of cards over a bus that carries 1 MiB at once. */
static void test_more_agents_than_one_message_holds_come_in_pages_by_name(void **state)
{
    struct env_world *world = *state;
    static char description[4001];
    char last[64] = "", token[256] = "";
    Amp__AgentQuery query = AMP__AGENT_QUERY__INIT;
    unsigned seen = 0, pages = 0;
    memset(description, 'd', sizeof description - 1);
    for (unsigned i = 0; i < 1000; i++)
        beat_with_card(world, (i * 7) % 1000, description);
    world_settle(&world->world, world->world.near);
    assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_AGENTS, &query), AMP_TOO_LARGE); /* without a token: not a part in silence */
    query.page_token = token;
    do {
        assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_AGENTS, &query), AMP_OK);
        assert_int_equal(world->reply->total, 1000);
        for (size_t i = 0; i < world->reply->n_agents; i++, seen++) {
            assert_true(strcmp(world->reply->agents[i]->name, last) > 0);
            snprintf(last, sizeof last, "%s", world->reply->agents[i]->name);
        }
        snprintf(token, sizeof token, "%s", world->reply->next_page_token ? world->reply->next_page_token : "");
        pages++;
    } while (token[0]);
    assert_int_equal(seen, 1000);
    assert_true(pages > 3);
}

static void test_an_agent_with_more_instances_than_a_message_holds_says_how_many(void **state)
{
    struct env_world *world = *state;
    Amp__AgentQuery query = AMP__AGENT_QUERY__INIT;
    char instance[64];
    for (unsigned i = 0; i < 5000; i++) {
        char subject[AMP_SUBJECT_SIZE];
        Amp__Beat beat = AMP__BEAT__INIT;
        Amp__Envelope envelope = AMP__ENVELOPE__INIT;
        static char host[201];
        memset(host, 'h', sizeof host - 1);
        snprintf(instance, sizeof instance, "i-%u", i);
        beat.agent = (char *)"crowd";
        beat.instance = instance;
        beat.host = host;
        envelope.version = AMP_PROTOCOL_VERSION;
        envelope.body_case = AMP__ENVELOPE__BODY_BEAT;
        envelope.beat = &beat;
        assert_int_equal(amp_subject_build(AMP_SUBJECT_HB, "crowd", instance, NULL, subject, NULL), AMP_OK);
        world_send(world->world.near, subject, &envelope);
    }
    world_settle(&world->world, world->world.near);
    query.name = (char *)"crowd";
    assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_AGENTS, &query), AMP_OK);
    assert_int_equal(world->reply->n_agents, 1);
    assert_true(world->reply->agents[0]->n_instances > 100);
    assert_int_equal(world->reply->agents[0]->instances_count, 5000);
}

static void test_who_is_not_there_is_said(void **state)
{
    struct env_world *world = *state;
    Amp__AgentQuery query = AMP__AGENT_QUERY__INIT;
    query.name = (char *)"nobody";
    assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_AGENTS, &query), AMP_NO_SUCH_AGENT);
    assert_int_equal(env_world_get(world, "t-none"), AMP_NO_SUCH_TASK);
    Amp__TaskQuery history = AMP__TASK_QUERY__INIT;
    history.context_id = (char *)"c-none";
    assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_HISTORY, &history), AMP_NOT_FOUND);
}

int main(void)
{
    log_init(LOG_ERROR, "test");
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_a_list_after_a_restart_has_every_open_task_once),
        TEST(test_pages_are_not_disturbed_by_what_comes_between),
        TEST(test_what_is_too_large_for_one_message_comes_in_more_of_them),
        TEST(test_a_list_says_what_was_asked),
        TEST(test_lists_are_filtered),
        TEST(test_more_agents_than_one_message_holds_come_in_pages_by_name),
        TEST(test_an_agent_with_more_instances_than_a_message_holds_says_how_many),
        TEST(test_who_is_not_there_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

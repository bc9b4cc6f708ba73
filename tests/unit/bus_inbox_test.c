/* Inboxes of the bus against a real nats-server: replies, silence, denials, and nothing that was meant for another. */
#include "bus_world.h"

#include "base/bus_private.h"

static void test_a_request_gets_its_replies_through_its_inbox(void **state)
{
    struct bus_world w;
    bus_world_begin(&w);
    struct ear ear = {.w = &w, .answers = w.bus};
    struct bus_sub *sub = bus_subscribe(w.bus, "a.b", "amp", ear_on_msg, &ear);
    struct mouth mouth;
    mouth_open(&mouth, &w);
    for (unsigned i = 1; i <= 100; i++) {
        assert_int_equal(bus_inbox_request(mouth.inbox, "a.b", amp_bytes_of("ping")), AMP_OK);
        bus_world_until(&w, &mouth.kinds[BUS_INBOX_MSG], i);
    }
    assert_int_equal(ear.count, 100);
    assert_string_equal(ear.last, "ping");
    bus_inbox_free(mouth.inbox);
    bus_unsubscribe(sub, false);
    bus_world_end(&w);
}

static void test_an_inbox_subject_is_unguessable_and_under_its_connections_prefix(void **state)
{
    struct bus_world w;
    bus_world_begin(&w);
    struct mouth one, two;
    mouth_open(&one, &w);
    mouth_open(&two, &w);
    const char *a = bus_inbox_subject(one.inbox), *b = bus_inbox_subject(two.inbox);
    static const char owner[] = "_INBOX.bus_test."; /* what a permission can name */
    size_t prefix = (size_t)(strchr(a + sizeof owner, '.') - a);
    assert_int_equal(prefix, sizeof owner - 1 + 22);
    assert_int_equal(strncmp(a, owner, sizeof owner - 1), 0);
    assert_int_equal(strncmp(a, b, prefix + 1), 0);
    assert_int_not_equal(strcmp(a + prefix, b + prefix), 0);
    assert_int_equal(strlen(strrchr(a, '.') + 1), 22);
    assert_int_not_equal(strcmp(strrchr(a, '.'), strrchr(b, '.')), 0);
    assert_true(amp_subject_is_inbox(a));
    bus_inbox_free(one.inbox);
    bus_inbox_free(two.inbox);
    bus_world_end(&w);
}

static void test_inboxes_are_below_the_owners_name_or_the_operators_prefix(void **state)
{
    char longest[102] = "_INBOX.";
    memset(longest + 7, 'x', 93);
    const struct {
        const char *name, *owner, *inbox, *begin;
    } kinds[] = {
        {"amesh-env", "env", NULL, "_INBOX.env."}, {"planner", NULL, "", "_INBOX.planner."},       {"no id", NULL, NULL, "_INBOX."},
        {NULL, NULL, NULL, "_INBOX."},             {"planner", NULL, "_INBOX.a.b", "_INBOX.a.b."}, {"planner", NULL, "_INBOX_a", "_INBOX_a."},
        {"x", NULL, longest, longest},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct bus_world w;
        bus_world_begin(&w);
        const struct bus_options options = {.url = nats_server_url(w.server), .name = kinds[i].name, .owner = kinds[i].owner, .inbox = kinds[i].inbox};
        struct bus *first = w.bus, *bus = NULL;
        assert_int_equal(bus_new(w.loop, &options, &bus, NULL), AMP_OK);
        struct mouth mouth;
        w.bus = bus;
        mouth_open(&mouth, &w);
        w.bus = first;
        const char *subject = bus_inbox_subject(mouth.inbox);
        assert_int_equal(strncmp(subject, kinds[i].begin, strlen(kinds[i].begin)), 0);
        assert_true(amp_subject_is_inbox(subject));
        assert_int_equal(bus_inbox_request(mouth.inbox, "nobody", amp_bytes_of("x")), AMP_OK);
        bus_world_until(&w, &mouth.kinds[BUS_INBOX_NO_RESPONDERS], 1);
        bus_inbox_free(mouth.inbox);
        bus_free(bus);
        bus_world_end(&w);
    }
    static const char *const bad[] = {"", "_INBOX.", "_INBOX_", "_INBOX.a.", "_INBOX.*", "_INBOX.>", "inbox.a", "_INBOX.a b", "amp.env.x", NULL};
    for (size_t i = 0; bad[i]; i++)
        assert_false(bus_inbox_prefix_is_valid(bad[i]));
    longest[100] = 'x';
    assert_false(bus_inbox_prefix_is_valid(longest));
}

/* Nothing that was meant for an inbox that is gone reaches the next one. */
static void test_what_comes_late_for_an_inbox_does_not_reach_the_next_one(void **state)
{
    struct bus_world w;
    bus_world_begin(&w);
    struct ear ear = {.w = &w, .answers = w.bus};
    struct bus_sub *sub = bus_subscribe(w.bus, "a.b", NULL, ear_on_msg, &ear);
    char before[128];
    struct mouth mouth;
    for (int i = 0; i < 10; i++) {
        mouth_open(&mouth, &w);
        assert_int_equal(bus_inbox_request(mouth.inbox, "a.b", amp_bytes_of("ping")), AMP_OK);
        bus_world_until(&w, &mouth.kinds[BUS_INBOX_MSG], 1);
        snprintf(before, sizeof before, "%s", bus_inbox_subject(mouth.inbox));
        bus_inbox_free(mouth.inbox);
        mouth_open(&mouth, &w);
        assert_string_not_equal(before, bus_inbox_subject(mouth.inbox));
        assert_int_equal(bus_publish(w.bus, before, NULL, amp_bytes_of("late")), AMP_OK);
        bus_world_settle(&w);
        assert_int_equal(mouth.kinds[BUS_INBOX_MSG], 0);
        bus_inbox_free(mouth.inbox);
    }
    bus_unsubscribe(sub, false);
    bus_world_end(&w);
}

static void test_no_responders_reach_the_inbox_that_asked_and_not_the_next_one(void **state)
{
    struct bus_world w;
    bus_world_begin(&w);
    struct ear ear = {.w = &w, .answers = w.bus};
    struct bus_sub *sub = bus_subscribe(w.bus, "a.b", NULL, ear_on_msg, &ear);
    for (int i = 0; i < 10; i++) {
        struct mouth gone, next;
        mouth_open(&gone, &w);
        assert_int_equal(bus_inbox_request(gone.inbox, "nobody", amp_bytes_of("x")), AMP_OK);
        bus_inbox_free(gone.inbox); /* before it was told */
        mouth_open(&next, &w);
        assert_int_equal(bus_inbox_request(next.inbox, "a.b", amp_bytes_of("x")), AMP_OK);
        bus_world_until(&w, &next.kinds[BUS_INBOX_MSG], 1);
        bus_world_settle(&w);
        assert_int_equal(next.kinds[BUS_INBOX_NO_RESPONDERS], 0);
        bus_inbox_free(next.inbox);
    }
    bus_unsubscribe(sub, false);
    bus_world_end(&w);
}

static void test_a_request_that_nobody_listens_to_is_told_so(void **state)
{
    struct bus_world w;
    bus_world_begin(&w);
    struct mouth mouth;
    mouth_open(&mouth, &w);
    mouth.frees_itself = true;
    assert_int_equal(bus_inbox_request(mouth.inbox, "nobody", amp_bytes_of("x")), AMP_OK);
    bus_world_until(&w, &mouth.kinds[BUS_INBOX_NO_RESPONDERS], 1);
    assert_null(mouth.inbox);
    bus_world_end(&w);
}

static void test_a_denied_publish_reaches_the_inboxes_that_asked_there_and_no_other(void **state)
{
    struct bus_world w;
    bus_world_begin_with(&w, bus_world_permissions, "u:p@");
    assert_null(strstr(bus_info(w.bus)->url, "p@"));
    struct mouth denied, other;
    mouth_open(&denied, &w);
    mouth_open(&other, &w);
    uint64_t before = counter_get(COUNTER_bus_denied);
    assert_int_equal(bus_inbox_request(other.inbox, "open.nobody", amp_bytes_of("x")), AMP_OK);
    assert_int_equal(bus_inbox_request(denied.inbox, "closed.door", amp_bytes_of("x")), AMP_OK);
    bus_world_until(&w, &denied.kinds[BUS_INBOX_DENIED], 1);
    bus_world_until(&w, &other.kinds[BUS_INBOX_NO_RESPONDERS], 1);
    assert_non_null(strstr(denied.text, "closed.door"));
    assert_int_equal(other.kinds[BUS_INBOX_DENIED], 0);
    assert_int_equal(counter_get(COUNTER_bus_denied), before + 1);
    bus_inbox_free(denied.inbox);
    bus_inbox_free(other.inbox);
    bus_world_end(&w);
}

static void test_leaving_works_where_publishing_to_the_own_inbox_is_denied(void **state)
{
    struct bus_world w;
    bus_world_begin_with(&w, bus_world_permissions, "u:p@");
    struct ear ear = {.w = &w};
    for (int i = 0; i < 20; i++) {
        struct bus_sub *sub = bus_subscribe(w.bus, "open.x", "amp", ear_on_msg, &ear);
        assert_int_equal(bus_publish(w.bus, "open.x", NULL, amp_bytes_of("x")), AMP_OK);
        bus_unsubscribe(sub, true);
    }
    bus_world_until(&w, &ear.count, 20);
    bus_world_settle(&w);
    bus_world_end(&w);
}

struct look {
    struct bus_world *w;
    struct loop_timer *timer;
    unsigned n_turns, is_written;
};

static void on_look(void *ctx)
{
    struct look *look = ctx;
    look->is_written = natsConnection_Buffered(look->w->bus->link->nats) == 0;
    look->n_turns++;
    if (!look->is_written && look->w->watched == &look->is_written)
        loop_timer_set(look->timer, 1);
    bus_world_touch(look->w);
}

/* To tell the server that an inbox is gone is worth no write, and no wake-up of the server, of its own: each call has one. */
static void test_what_ends_an_inbox_goes_with_what_is_written_next(void **state)
{
    struct bus_world w;
    bus_world_begin(&w);
    struct ear ear = {.w = &w, .answers = w.bus};
    struct bus_sub *sub = bus_subscribe(w.bus, "a.b", NULL, ear_on_msg, &ear);
    struct mouth mouth, next;
    struct look look = {.w = &w};
    look.timer = loop_timer_new(w.loop, on_look, &look);
    mouth_open(&mouth, &w);
    bus_world_settle(&w);
    bus_inbox_free(mouth.inbox);
    loop_timer_stop(w.bus->leftovers); /* however long this takes */
    loop_timer_set(look.timer, 0);
    bus_world_until(&w, &look.n_turns, 1);
    assert_false(look.is_written);
    mouth_open(&next, &w);
    assert_int_equal(bus_inbox_request(next.inbox, "a.b", amp_bytes_of("x")), AMP_OK);
    bus_world_until(&w, &next.kinds[BUS_INBOX_MSG], 1);
    assert_int_equal(natsConnection_Buffered(w.bus->link->nats), 0);
    bus_inbox_free(next.inbox);
    loop_timer_set(look.timer, 0);
    bus_world_until(&w, &look.is_written, 1); /* and with nothing next, after a moment */
    loop_timer_free(look.timer);
    bus_unsubscribe(sub, false);
    bus_world_end(&w);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request_gets_its_replies_through_its_inbox),
        cmocka_unit_test(test_an_inbox_subject_is_unguessable_and_under_its_connections_prefix),
        cmocka_unit_test(test_inboxes_are_below_the_owners_name_or_the_operators_prefix),
        cmocka_unit_test(test_what_comes_late_for_an_inbox_does_not_reach_the_next_one),
        cmocka_unit_test(test_no_responders_reach_the_inbox_that_asked_and_not_the_next_one),
        cmocka_unit_test(test_a_request_that_nobody_listens_to_is_told_so),
        cmocka_unit_test(test_a_denied_publish_reaches_the_inboxes_that_asked_there_and_no_other),
        cmocka_unit_test(test_leaving_works_where_publishing_to_the_own_inbox_is_denied),
        cmocka_unit_test(test_what_ends_an_inbox_goes_with_what_is_written_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return bus_world_on_both(run);
}

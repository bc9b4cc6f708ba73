/* The bus against a real nats-server: the one of the system and, when AMESH_TEST_NATS_NEW names its binary, the newest. */
#include "bus_world.h"

static void test_a_denied_subscription_is_counted(void **state)
{
    struct bus_world w;
    bus_world_begin_with(&w, bus_world_permissions, "u:p@");
    uint64_t before = counter_get(COUNTER_bus_denied);
    struct ear ear = {.w = &w};
    struct bus_sub *sub = bus_subscribe(w.bus, "closed.door", NULL, ear_on_msg, &ear);
    struct mouth mouth;
    mouth_open(&mouth, &w);
    /* Denials come one after the other: when this one has come, the other has. */
    assert_int_equal(bus_inbox_request(mouth.inbox, "closed.too", amp_bytes_of("x")), AMP_OK);
    bus_world_until(&w, &mouth.kinds[BUS_INBOX_DENIED], 1);
    assert_int_equal(counter_get(COUNTER_bus_denied), before + 2);
    bus_inbox_free(mouth.inbox);
    bus_unsubscribe(sub, false);
    bus_world_end(&w);
}

static void test_after_a_servers_death_the_bus_comes_back_with_its_subscriptions(void **state)
{
    struct bus_world w;
    bus_world_begin(&w);
    struct ear ear = {.w = &w, .answers = w.bus};
    struct bus_sub *sub = bus_subscribe(w.bus, "a.b", "amp", ear_on_msg, &ear);
    struct mouth mouth;
    mouth_open(&mouth, &w);
    for (unsigned round = 1; round <= 3; round++) {
        nats_server_kill(w.server);
        bus_world_until(&w, &w.downs, round);
        assert_false(bus_is_up(w.bus));
        bus_world_until(&w, &mouth.kinds[BUS_INBOX_DOWN], round);
        uint64_t refused = counter_get(COUNTER_bus_refused);
        assert_int_equal(bus_publish(w.bus, "a.b", NULL, amp_bytes_of("lost")), AMP_NO_BUS);
        assert_int_equal(bus_inbox_request(mouth.inbox, "a.b", amp_bytes_of("lost")), AMP_NO_BUS);
        assert_int_equal(counter_get(COUNTER_bus_refused), refused + 2);
        /* Subscribing while it is away counts too. */
        struct ear late = {.w = &w};
        struct bus_sub *late_sub = bus_subscribe(w.bus, "late", NULL, ear_on_msg, &late);
        nats_server_restart(w.server);
        bus_world_until(&w, &w.ups, round + 1);
        assert_int_equal(bus_inbox_request(mouth.inbox, "a.b", amp_bytes_of("again")), AMP_OK);
        bus_world_until(&w, &mouth.kinds[BUS_INBOX_MSG], round);
        assert_int_equal(bus_publish(w.bus, "late", NULL, amp_bytes_of("x")), AMP_OK);
        bus_world_until(&w, &late.count, 1);
        bus_unsubscribe(late_sub, false);
    }
    assert_int_equal(ear.count, 3);
    bus_inbox_free(mouth.inbox);
    bus_unsubscribe(sub, false);
    bus_world_end(&w);
}

static void test_a_server_that_is_stopped_is_noticed_and_does_not_block_the_loop(void **state)
{
    struct bus_world w;
    bus_world_begin(&w);
    nats_server_signal(w.server, SIGSTOP);
    bus_world_until(&w, &w.downs, 1);
    /* Attempts to connect hang now; the loop goes on. */
    struct ear ear = {.w = &w};
    struct bus_sub *sub = bus_subscribe(w.bus, "a", NULL, ear_on_msg, &ear);
    assert_int_equal(bus_publish(w.bus, "a", NULL, amp_bytes_of("x")), AMP_NO_BUS);
    nats_server_signal(w.server, SIGCONT);
    bus_world_until(&w, &w.ups, 2);
    assert_int_equal(bus_publish(w.bus, "a", NULL, amp_bytes_of("x")), AMP_OK);
    bus_world_until(&w, &ear.count, 1);
    bus_unsubscribe(sub, false);
    bus_world_end(&w);
}

static void test_freeing_while_the_server_hangs_does_not_hang(void **state)
{
    struct bus_world w;
    bus_world_begin(&w);
    nats_server_signal(w.server, SIGSTOP);
    assert_int_equal(bus_publish(w.bus, "a", NULL, amp_bytes_of("x")), AMP_OK);
    bus_free(w.bus);
    w.bus = bus_world_connect(&w, "nats://127.0.0.1:1", true);
    assert_false(bus_is_up(w.bus));
    bus_world_end(&w);
}

static void test_a_missing_bus_is_an_error_or_is_waited_for(void **state)
{
    struct bus_world w;
    bus_world_begin(&w);
    nats_server_kill(w.server);
    struct bus_options options = {.url = nats_server_url(w.server)};
    struct bus *none = NULL;
    struct amp_error error = {0};
    assert_int_equal(bus_new(w.loop, &options, &none, &error), AMP_NO_BUS);
    assert_null(none);
    assert_true(error.message[0] && error.hint[0]);

    bus_free(w.bus);
    w.ups = 0;
    w.bus = bus_world_connect(&w, nats_server_url(w.server), true);
    assert_false(bus_is_up(w.bus));
    nats_server_restart(w.server);
    bus_world_until(&w, &w.ups, 1);
    assert_true(bus_is_up(w.bus));
    bus_world_end(&w);
}

static void test_the_error_of_a_missing_bus_names_it_without_its_secrets(void **state)
{
    struct bus_world w;
    bus_world_begin(&w);
    struct bus_options options = {.url = "nats://me:secret@127.0.0.1:1,secret@127.0.0.1:2,nats://127.0.0.1:3"};
    struct bus *none = NULL;
    struct amp_error error = {0};
    assert_int_equal(bus_new(w.loop, &options, &none, &error), AMP_NO_BUS);
    assert_null(strstr(error.message, "secret"));
    assert_non_null(strstr(error.message, "nats://127.0.0.1:1,127.0.0.1:2,nats://127.0.0.1:3: "));
    assert_null(strstr(error.message, ".c:"));
    bus_world_end(&w);
}

static void test_a_payload_over_the_servers_limit_is_refused_here(void **state)
{
    struct bus_world w;
    bus_world_begin_with(&w, "max_payload: 4096\n", "");
    assert_int_equal(bus_info(w.bus)->payload_max, 4096);
    static const uint8_t bytes[4097];
    assert_int_equal(bus_publish(w.bus, "a", NULL, (struct amp_bytes){bytes, 4097}), AMP_TOO_LARGE);
    assert_int_equal(bus_publish(w.bus, "a", NULL, (struct amp_bytes){bytes, 4096}), AMP_OK);
    assert_int_equal(bus_publish(w.bus, "a b\r\nPUB x", NULL, amp_bytes_of("")), AMP_INVALID);
    bus_world_settle(&w);
    assert_int_equal(w.downs, 0);
    bus_world_end(&w);
}

static void test_the_servers_version_becomes_known(void **state)
{
    struct bus_world w;
    bus_world_begin_with(&w, "jetstream: { store_dir: \"/tmp/amesh-bus-test-js\" }\n", "");
    unsigned known = 0;
    /* Each answer of the server is a turn in which its greeting may have come. */
    for (int i = 0; i < 1000 && !known; i++) {
        bus_world_settle(&w);
        known = bus_info(w.bus)->version[0] != '\0';
    }
    assert_int_equal(known, 1);
    print_message("nats-server %s\n", bus_info(w.bus)->version);
    assert_true(bus_info(w.bus)->major >= 2);
    assert_true(bus_info(w.bus)->has_jetstream);
    bus_world_end(&w);
    (void)!system("rm -rf /tmp/amesh-bus-test-js");
}

static void test_a_flood_arrives_whole_or_is_counted(void **state)
{
    struct bus_world w;
    bus_world_begin(&w);
    struct bus *sender = bus_world_connect(&w, nats_server_url(w.server), false);
    struct ear ear = {.w = &w};
    struct bus_sub *sub = bus_subscribe(w.bus, "flood", NULL, ear_on_msg, &ear);
    bus_world_settle(&w); /* the server knows the subscription */
    uint64_t dropped = counter_get(COUNTER_bus_dropped);
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(bus_publish(sender, "flood", NULL, amp_bytes_of("0123456789abcdef")), AMP_OK);
    bus_world_until(&w, &ear.count, 50000);
    bus_unsubscribe(sub, false); /* the slow consumer gives up */
    unsigned heard = ear.count;
    assert_true(heard < 100000);
    bus_free(sender); /* all of it is with the server */
    bus_world_settle(&w);
    assert_int_equal(ear.count, heard);
    uint64_t counted = counter_get(COUNTER_bus_dropped) - dropped;
    assert_true(counted > 0 && heard + counted <= 100000);
    bus_world_end(&w);
}

struct member {
    struct ear ear;
    struct bus *bus;
    struct bus_sub *sub;
    uint8_t *seen;
    unsigned *total;
};

static void on_numbered(void *ctx, const struct bus_msg *msg)
{
    struct member *member = ctx;
    unsigned number;
    assert_int_equal(msg->data.len, sizeof number);
    memcpy(&number, msg->data.data, sizeof number);
    member->seen[number]++;
    member->ear.count++;
    ++*member->total;
    bus_world_touch(member->ear.w);
}

/* One of two members leaves and comes back again and again under a flood; the other one stays, so that the group is never empty. */
static void test_no_message_is_lost_when_members_leave_and_rejoin(void **state)
{
    enum { ROUNDS = 1000, PER_ROUND = 20, ALL = ROUNDS * PER_ROUND };
    struct bus_world w;
    bus_world_begin(&w);
    struct bus *sender = bus_world_connect(&w, nats_server_url(w.server), false);
    uint8_t *seen = xcalloc(ALL, 1);
    unsigned total = 0;
    struct member members[2];
    for (int i = 0; i < 2; i++) {
        members[i] = (struct member){.ear = {.w = &w}, .bus = bus_world_connect(&w, nats_server_url(w.server), false), .seen = seen, .total = &total};
        members[i].sub = bus_subscribe(members[i].bus, "work", "amp", on_numbered, &members[i]);
    }
    bus_world_until(&w, &w.ups, 4);
    struct mouth ready; /* both SUBs have left in earlier turns; each connection is served on its own, so ask each */
    for (int i = 0; i < 2; i++) {
        struct bus *own = w.bus;
        w.bus = members[i].bus;
        mouth_open(&ready, &w);
        assert_int_equal(bus_inbox_request(ready.inbox, "nobody", amp_bytes_of("")), AMP_OK);
        bus_world_until(&w, &ready.kinds[BUS_INBOX_NO_RESPONDERS], 1);
        bus_inbox_free(ready.inbox);
        w.bus = own;
    }
    unsigned next = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct member *leaver = &members[0];
        for (unsigned i = 0; i < PER_ROUND; i++, next++)
            assert_int_equal(bus_publish(sender, "work", NULL, (struct amp_bytes){(const uint8_t *)&next, sizeof next}), AMP_OK);
        /* Leaves while they are on their way: before the first, or after some. */
        bus_world_until(&w, &total, total + round % 4);
        bus_unsubscribe(leaver->sub, true);
        leaver->sub = bus_subscribe(leaver->bus, "work", "amp", on_numbered, leaver);
    }
    bus_world_until(&w, &total, ALL);
    for (unsigned i = 0; i < ALL; i++)
        assert_int_equal(seen[i], 1);
    assert_true(members[0].ear.count > 0 && members[1].ear.count > 0);
    for (int i = 0; i < 2; i++) {
        bus_unsubscribe(members[i].sub, false);
        bus_free(members[i].bus);
    }
    bus_free(sender);
    free(seen);
    bus_world_end(&w);
}

static void test_freeing_the_bus_calls_nobody_who_has_left(void **state)
{
    struct bus_world w;
    bus_world_begin(&w);
    struct ear *gone = xcalloc(1, sizeof *gone); /* the sanitizer sees who uses it later */
    gone->w = &w;
    struct bus_sub *sub = bus_subscribe(w.bus, "a", "amp", ear_on_msg, gone);
    assert_int_equal(bus_publish(w.bus, "a", NULL, amp_bytes_of("x")), AMP_OK);
    assert_false(bus_is_leaving(w.bus, NULL));
    bus_unsubscribe(sub, true);
    assert_true(bus_is_leaving(w.bus, NULL) && bus_is_leaving(w.bus, gone));
    assert_false(bus_is_leaving(w.bus, &w));
    uint64_t dropped = counter_get(COUNTER_bus_dropped);
    free(gone);
    bus_world_end(&w);
    assert_int_equal(counter_get(COUNTER_bus_dropped), dropped + 1);
}

struct quitter {
    struct ear ear;
    struct bus_sub *sub;
};

static void on_msg_quit(void *ctx, const struct bus_msg *msg)
{
    struct quitter *quitter = ctx;
    quitter->ear.count++;
    bus_unsubscribe(quitter->sub, false);
    quitter->sub = NULL;
    bus_world_touch(quitter->ear.w);
}

static void test_a_callback_may_unsubscribe_itself(void **state)
{
    struct bus_world w;
    bus_world_begin(&w);
    struct quitter quitter = {.ear = {.w = &w}};
    quitter.sub = bus_subscribe(w.bus, "once", NULL, on_msg_quit, &quitter);
    for (int i = 0; i < 10; i++)
        assert_int_equal(bus_publish(w.bus, "once", NULL, amp_bytes_of("x")), AMP_OK);
    uint64_t dropped = counter_get(COUNTER_bus_dropped);
    bus_world_until(&w, &quitter.ear.count, 1);
    bus_world_settle(&w);
    assert_int_equal(quitter.ear.count, 1);
    assert_int_equal(counter_get(COUNTER_bus_dropped), dropped + 9);
    bus_world_end(&w);
}

static long heap_bytes(void);

static void test_a_thousand_subscriptions_leave_no_memory_behind(void **state)
{
    struct bus_world w;
    bus_world_begin(&w);
    struct ear ear = {.w = &w};
    long before = 0;
    for (int i = 0; i < 2000; i++) {
        bus_unsubscribe(bus_subscribe(w.bus, "a.b.c", "amp", ear_on_msg, &ear), i % 2);
        if (i % 100 == 99)
            bus_world_settle(&w);
        if (i == 999)
            before = heap_bytes();
    }
    long after = heap_bytes();
    assert_true(after - before < 64 << 10);
    bus_world_end(&w);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static long heap_bytes(void)
{
    return 0; /* the sanitizer's heap; it looks for leaks itself */
}
#else
#include <malloc.h>
static long heap_bytes(void)
{
    return (long)mallinfo2().uordblks;
}
#endif

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_denied_subscription_is_counted),
        cmocka_unit_test(test_after_a_servers_death_the_bus_comes_back_with_its_subscriptions),
        cmocka_unit_test(test_a_server_that_is_stopped_is_noticed_and_does_not_block_the_loop),
        cmocka_unit_test(test_freeing_while_the_server_hangs_does_not_hang),
        cmocka_unit_test(test_a_missing_bus_is_an_error_or_is_waited_for),
        cmocka_unit_test(test_the_error_of_a_missing_bus_names_it_without_its_secrets),
        cmocka_unit_test(test_a_payload_over_the_servers_limit_is_refused_here),
        cmocka_unit_test(test_the_servers_version_becomes_known),
        cmocka_unit_test(test_a_flood_arrives_whole_or_is_counted),
        cmocka_unit_test(test_no_message_is_lost_when_members_leave_and_rejoin),
        cmocka_unit_test(test_freeing_the_bus_calls_nobody_who_has_left),
        cmocka_unit_test(test_a_callback_may_unsubscribe_itself),
        cmocka_unit_test(test_a_thousand_subscriptions_leave_no_memory_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return bus_world_on_both(run);
}

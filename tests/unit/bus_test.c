/* The bus against a real nats-server: the one of the system and, when AMESH_TEST_NATS_NEW names its binary, the newest. */
#include "nats_server.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/counters.h"
#include "base/loop.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_MS 10000

struct world {
    struct nats_server *server;
    struct loop *loop;
    struct loop_timer *deadline;
    struct bus *bus;
    const unsigned *watched; /* run_until stops when it has reached `wanted` */
    unsigned wanted;
    unsigned ups, downs;
};

static const char *server_binary; /* NULL: the system's */

static void touched(struct world *w)
{
    if (w->watched && *w->watched >= w->wanted)
        loop_stop(w->loop, 0);
}

static void on_deadline(void *ctx)
{
    struct world *w = ctx;
    loop_stop(w->loop, 1);
}

static void run_until(struct world *w, const unsigned *watched, unsigned wanted)
{
    if (*watched >= wanted)
        return;
    w->watched = watched;
    w->wanted = wanted;
    loop_timer_set(w->deadline, DEADLINE_MS);
    if (loop_run(w->loop) != 0)
        print_message("waited for %u, got %u\n", wanted, *watched);
    loop_timer_stop(w->deadline);
    w->watched = NULL;
    assert_true(*watched >= wanted);
}

static void on_up(void *ctx)
{
    struct world *w = ctx;
    w->ups++;
    touched(w);
}

static void on_down(void *ctx)
{
    struct world *w = ctx;
    w->downs++;
    touched(w);
}

static struct bus *connect_bus(struct world *w, const char *url, bool wait_first)
{
    struct bus_options options = {
        .url = url, .name = "bus_test", .wait_first = wait_first, .on_up = on_up, .on_down = on_down, .ctx = w};
    struct bus *bus = NULL;
    struct amp_error error = {0};
    enum amp_code code = bus_new(w->loop, &options, &bus, &error);
    if (code != AMP_OK)
        print_message("%s\n", error.message);
    assert_int_equal(code, AMP_OK);
    return bus;
}

static void begin_with(struct world *w, const char *config, const char *user)
{
    memset(w, 0, sizeof *w);
    w->server = nats_server_start(server_binary, config);
    w->loop = loop_new();
    w->deadline = loop_timer_new(w->loop, on_deadline, w);
    char url[128];
    snprintf(url, sizeof url, "nats://%s127.0.0.1:%d", user, nats_server_port(w->server));
    w->bus = connect_bus(w, url, false);
    run_until(w, &w->ups, 1);
}

static void begin(struct world *w)
{
    begin_with(w, NULL, "");
}

static void end(struct world *w)
{
    bus_free(w->bus);
    loop_timer_free(w->deadline);
    loop_free(w->loop);
    nats_server_stop(w->server);
}

/* A subscriber that counts. */
struct ear {
    struct world *w;
    unsigned count;
    char last[64];
    struct bus *answers; /* answers requests there with "pong" */
};

static void on_msg(void *ctx, const struct bus_msg *msg)
{
    struct ear *ear = ctx;
    ear->count++;
    snprintf(ear->last, sizeof ear->last, "%.*s", (int)msg->data.len, (const char *)msg->data.data);
    if (ear->answers && msg->reply)
        assert_int_equal(bus_publish(ear->answers, msg->reply, NULL, amp_bytes_of("pong")), AMP_OK);
    touched(ear->w);
}

/* An inbox that counts by kind. */
struct mouth {
    struct world *w;
    struct bus_inbox *inbox;
    unsigned kinds[4];
    char text[256];
    bool frees_itself;
};

static void on_reply(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct mouth *mouth = ctx;
    mouth->kinds[kind]++;
    assert_int_equal(msg != NULL, kind == BUS_INBOX_MSG);
    snprintf(mouth->text, sizeof mouth->text, "%s", text ? text : "");
    if (mouth->frees_itself) {
        bus_inbox_free(mouth->inbox);
        mouth->inbox = NULL;
    }
    touched(mouth->w);
}

static void open_mouth(struct mouth *mouth, struct world *w)
{
    *mouth = (struct mouth){.w = w};
    mouth->inbox = bus_inbox_new(w->bus, on_reply, mouth);
}

/* What left must be gone before bus_free: a round trip to the server is enough. */
static void settle(struct world *w)
{
    struct mouth mouth;
    for (int i = 0; i < 3; i++) {
        open_mouth(&mouth, w);
        assert_int_equal(bus_inbox_request(mouth.inbox, "nobody.listens.here", amp_bytes_of("")), AMP_OK);
        run_until(w, &mouth.kinds[BUS_INBOX_NO_RESPONDERS], 1);
        bus_inbox_free(mouth.inbox);
    }
}

/* ---- tests -------------------------------------------------------------------------------------------- */

static void test_a_request_gets_its_replies_through_its_inbox(void **state)
{
    struct world w;
    begin(&w);
    struct ear ear = {.w = &w, .answers = w.bus};
    struct bus_sub *sub = bus_subscribe(w.bus, "a.b", "amp", on_msg, &ear);
    struct mouth mouth;
    open_mouth(&mouth, &w);
    for (unsigned i = 1; i <= 100; i++) {
        assert_int_equal(bus_inbox_request(mouth.inbox, "a.b", amp_bytes_of("ping")), AMP_OK);
        run_until(&w, &mouth.kinds[BUS_INBOX_MSG], i);
    }
    assert_int_equal(ear.count, 100);
    assert_string_equal(ear.last, "ping");
    bus_inbox_free(mouth.inbox);
    bus_unsubscribe(sub, false);
    end(&w);
}

static void test_an_inbox_subject_is_unguessable_and_under_its_connections_prefix(void **state)
{
    struct world w;
    begin(&w);
    struct mouth one, two;
    open_mouth(&one, &w);
    open_mouth(&two, &w);
    const char *a = bus_inbox_subject(one.inbox), *b = bus_inbox_subject(two.inbox);
    size_t prefix = (size_t)(strchr(a, '.') - a);
    assert_int_equal(strncmp(a, "_INBOX_", 7), 0);
    assert_int_equal(strncmp(a, b, prefix + 1), 0);
    assert_int_not_equal(strcmp(a + prefix, b + prefix), 0);
    assert_int_equal(strlen(strrchr(a, '.') + 1), 22);
    assert_int_not_equal(strcmp(strrchr(a, '.'), strrchr(b, '.')), 0);
    assert_true(amp_subject_is_inbox(a));
    bus_inbox_free(one.inbox);
    bus_inbox_free(two.inbox);
    end(&w);
}

/* An inbox may sit where another sat before: nothing that was meant for that one reaches it. */
static void test_what_comes_late_for_an_inbox_does_not_reach_the_next_one(void **state)
{
    struct world w;
    begin(&w);
    struct ear ear = {.w = &w, .answers = w.bus};
    struct bus_sub *sub = bus_subscribe(w.bus, "a.b", NULL, on_msg, &ear);
    char before[128];
    struct mouth mouth;
    for (int i = 0; i < 10; i++) {
        open_mouth(&mouth, &w);
        assert_int_equal(bus_inbox_request(mouth.inbox, "a.b", amp_bytes_of("ping")), AMP_OK);
        run_until(&w, &mouth.kinds[BUS_INBOX_MSG], 1);
        snprintf(before, sizeof before, "%s", bus_inbox_subject(mouth.inbox));
        bus_inbox_free(mouth.inbox);
        open_mouth(&mouth, &w);
        assert_string_not_equal(before, bus_inbox_subject(mouth.inbox));
        assert_int_equal(bus_publish(w.bus, before, NULL, amp_bytes_of("late")), AMP_OK);
        settle(&w);
        assert_int_equal(mouth.kinds[BUS_INBOX_MSG], 0);
        bus_inbox_free(mouth.inbox);
    }
    bus_unsubscribe(sub, false);
    end(&w);
}

static void test_no_responders_reach_the_inbox_that_asked_and_not_the_next_one(void **state)
{
    struct world w;
    begin(&w);
    struct ear ear = {.w = &w, .answers = w.bus};
    struct bus_sub *sub = bus_subscribe(w.bus, "a.b", NULL, on_msg, &ear);
    for (int i = 0; i < 10; i++) {
        struct mouth gone, next;
        open_mouth(&gone, &w);
        assert_int_equal(bus_inbox_request(gone.inbox, "nobody", amp_bytes_of("x")), AMP_OK);
        bus_inbox_free(gone.inbox); /* before it was told */
        open_mouth(&next, &w);
        assert_int_equal(bus_inbox_request(next.inbox, "a.b", amp_bytes_of("x")), AMP_OK);
        run_until(&w, &next.kinds[BUS_INBOX_MSG], 1);
        settle(&w);
        assert_int_equal(next.kinds[BUS_INBOX_NO_RESPONDERS], 0);
        bus_inbox_free(next.inbox);
    }
    bus_unsubscribe(sub, false);
    end(&w);
}

static void test_a_request_that_nobody_listens_to_is_told_so(void **state)
{
    struct world w;
    begin(&w);
    struct mouth mouth;
    open_mouth(&mouth, &w);
    mouth.frees_itself = true;
    assert_int_equal(bus_inbox_request(mouth.inbox, "nobody", amp_bytes_of("x")), AMP_OK);
    run_until(&w, &mouth.kinds[BUS_INBOX_NO_RESPONDERS], 1);
    assert_null(mouth.inbox);
    end(&w);
}

static const char permissions[] = "authorization { users = [ { user: u, password: p, permissions: {"
                                  " publish: { allow: [\"open.>\", \"nobody.>\"] },"
                                  " subscribe: { deny: [\"closed.>\"] } } } ] }\n";

static void test_a_denied_publish_reaches_the_inboxes_that_asked_there_and_no_other(void **state)
{
    struct world w;
    begin_with(&w, permissions, "u:p@");
    assert_null(strstr(bus_info(w.bus)->url, "p@"));
    struct mouth denied, other;
    open_mouth(&denied, &w);
    open_mouth(&other, &w);
    uint64_t before = counter_get(COUNTER_bus_denied);
    assert_int_equal(bus_inbox_request(other.inbox, "open.nobody", amp_bytes_of("x")), AMP_OK);
    assert_int_equal(bus_inbox_request(denied.inbox, "closed.door", amp_bytes_of("x")), AMP_OK);
    run_until(&w, &denied.kinds[BUS_INBOX_DENIED], 1);
    run_until(&w, &other.kinds[BUS_INBOX_NO_RESPONDERS], 1);
    assert_non_null(strstr(denied.text, "closed.door"));
    assert_int_equal(other.kinds[BUS_INBOX_DENIED], 0);
    assert_int_equal(counter_get(COUNTER_bus_denied), before + 1);
    bus_inbox_free(denied.inbox);
    bus_inbox_free(other.inbox);
    end(&w);
}

static void test_leaving_works_where_publishing_to_the_own_inbox_is_denied(void **state)
{
    struct world w;
    begin_with(&w, permissions, "u:p@");
    struct ear ear = {.w = &w};
    for (int i = 0; i < 20; i++) {
        struct bus_sub *sub = bus_subscribe(w.bus, "open.x", "amp", on_msg, &ear);
        assert_int_equal(bus_publish(w.bus, "open.x", NULL, amp_bytes_of("x")), AMP_OK);
        bus_unsubscribe(sub, true);
    }
    run_until(&w, &ear.count, 20);
    settle(&w);
    end(&w);
}

static void test_a_denied_subscription_is_counted(void **state)
{
    struct world w;
    begin_with(&w, permissions, "u:p@");
    uint64_t before = counter_get(COUNTER_bus_denied);
    struct ear ear = {.w = &w};
    struct bus_sub *sub = bus_subscribe(w.bus, "closed.door", NULL, on_msg, &ear);
    struct mouth mouth;
    open_mouth(&mouth, &w);
    /* Denials come one after the other: when this one has come, the other has. */
    assert_int_equal(bus_inbox_request(mouth.inbox, "closed.too", amp_bytes_of("x")), AMP_OK);
    run_until(&w, &mouth.kinds[BUS_INBOX_DENIED], 1);
    assert_int_equal(counter_get(COUNTER_bus_denied), before + 2);
    bus_inbox_free(mouth.inbox);
    bus_unsubscribe(sub, false);
    end(&w);
}

static void test_after_a_servers_death_the_bus_comes_back_with_its_subscriptions(void **state)
{
    struct world w;
    begin(&w);
    struct ear ear = {.w = &w, .answers = w.bus};
    struct bus_sub *sub = bus_subscribe(w.bus, "a.b", "amp", on_msg, &ear);
    struct mouth mouth;
    open_mouth(&mouth, &w);
    for (unsigned round = 1; round <= 3; round++) {
        nats_server_kill(w.server);
        run_until(&w, &w.downs, round);
        assert_false(bus_is_up(w.bus));
        run_until(&w, &mouth.kinds[BUS_INBOX_DOWN], round);
        uint64_t refused = counter_get(COUNTER_bus_refused);
        assert_int_equal(bus_publish(w.bus, "a.b", NULL, amp_bytes_of("lost")), AMP_NO_BUS);
        assert_int_equal(bus_inbox_request(mouth.inbox, "a.b", amp_bytes_of("lost")), AMP_NO_BUS);
        assert_int_equal(counter_get(COUNTER_bus_refused), refused + 2);
        /* Subscribing while it is away counts too. */
        struct ear late = {.w = &w};
        struct bus_sub *late_sub = bus_subscribe(w.bus, "late", NULL, on_msg, &late);
        nats_server_restart(w.server);
        run_until(&w, &w.ups, round + 1);
        assert_int_equal(bus_inbox_request(mouth.inbox, "a.b", amp_bytes_of("again")), AMP_OK);
        run_until(&w, &mouth.kinds[BUS_INBOX_MSG], round);
        assert_int_equal(bus_publish(w.bus, "late", NULL, amp_bytes_of("x")), AMP_OK);
        run_until(&w, &late.count, 1);
        bus_unsubscribe(late_sub, false);
    }
    assert_int_equal(ear.count, 3);
    bus_inbox_free(mouth.inbox);
    bus_unsubscribe(sub, false);
    end(&w);
}

static void test_a_server_that_is_stopped_is_noticed_and_does_not_block_the_loop(void **state)
{
    struct world w;
    begin(&w);
    nats_server_signal(w.server, SIGSTOP);
    run_until(&w, &w.downs, 1);
    /* Attempts to connect hang now; the loop goes on. */
    struct ear ear = {.w = &w};
    struct bus_sub *sub = bus_subscribe(w.bus, "a", NULL, on_msg, &ear);
    assert_int_equal(bus_publish(w.bus, "a", NULL, amp_bytes_of("x")), AMP_NO_BUS);
    nats_server_signal(w.server, SIGCONT);
    run_until(&w, &w.ups, 2);
    assert_int_equal(bus_publish(w.bus, "a", NULL, amp_bytes_of("x")), AMP_OK);
    run_until(&w, &ear.count, 1);
    bus_unsubscribe(sub, false);
    end(&w);
}

static void test_freeing_while_the_server_hangs_does_not_hang(void **state)
{
    struct world w;
    begin(&w);
    nats_server_signal(w.server, SIGSTOP);
    assert_int_equal(bus_publish(w.bus, "a", NULL, amp_bytes_of("x")), AMP_OK);
    bus_free(w.bus);
    w.bus = connect_bus(&w, "nats://127.0.0.1:1", true);
    assert_false(bus_is_up(w.bus));
    end(&w);
}

static void test_a_missing_bus_is_an_error_or_is_waited_for(void **state)
{
    struct world w;
    begin(&w);
    nats_server_kill(w.server);
    struct bus_options options = {.url = nats_server_url(w.server)};
    struct bus *none = NULL;
    struct amp_error error = {0};
    assert_int_equal(bus_new(w.loop, &options, &none, &error), AMP_NO_BUS);
    assert_null(none);
    assert_true(error.message[0] && error.hint[0]);

    bus_free(w.bus);
    w.ups = 0;
    w.bus = connect_bus(&w, nats_server_url(w.server), true);
    assert_false(bus_is_up(w.bus));
    nats_server_restart(w.server);
    run_until(&w, &w.ups, 1);
    assert_true(bus_is_up(w.bus));
    end(&w);
}

static void test_the_error_of_a_missing_bus_names_it_without_its_secrets(void **state)
{
    struct world w;
    begin(&w);
    struct bus_options options = {.url = "nats://me:secret@127.0.0.1:1,secret@127.0.0.1:2,nats://127.0.0.1:3"};
    struct bus *none = NULL;
    struct amp_error error = {0};
    assert_int_equal(bus_new(w.loop, &options, &none, &error), AMP_NO_BUS);
    assert_null(strstr(error.message, "secret"));
    assert_non_null(strstr(error.message, "nats://127.0.0.1:1,127.0.0.1:2,nats://127.0.0.1:3: "));
    assert_null(strstr(error.message, ".c:"));
    end(&w);
}

static void test_a_payload_over_the_servers_limit_is_refused_here(void **state)
{
    struct world w;
    begin_with(&w, "max_payload: 4096\n", "");
    assert_int_equal(bus_info(w.bus)->payload_max, 4096);
    static const uint8_t bytes[4097];
    assert_int_equal(bus_publish(w.bus, "a", NULL, (struct amp_bytes){bytes, 4097}), AMP_TOO_LARGE);
    assert_int_equal(bus_publish(w.bus, "a", NULL, (struct amp_bytes){bytes, 4096}), AMP_OK);
    assert_int_equal(bus_publish(w.bus, "a b\r\nPUB x", NULL, amp_bytes_of("")), AMP_INVALID);
    settle(&w);
    assert_int_equal(w.downs, 0);
    end(&w);
}

static void test_the_servers_version_becomes_known(void **state)
{
    struct world w;
    begin_with(&w, "jetstream: { store_dir: \"/tmp/amesh-bus-test-js\" }\n", "");
    unsigned known = 0;
    /* Each answer of the server is a turn in which its greeting may have come. */
    for (int i = 0; i < 1000 && !known; i++) {
        settle(&w);
        known = bus_info(w.bus)->version[0] != '\0';
    }
    assert_int_equal(known, 1);
    print_message("nats-server %s\n", bus_info(w.bus)->version);
    assert_true(bus_info(w.bus)->major >= 2);
    assert_true(bus_info(w.bus)->has_jetstream);
    end(&w);
    (void)!system("rm -rf /tmp/amesh-bus-test-js");
}

static void test_a_flood_arrives_whole_or_is_counted(void **state)
{
    struct world w;
    begin(&w);
    struct bus *sender = connect_bus(&w, nats_server_url(w.server), false);
    struct ear ear = {.w = &w};
    struct bus_sub *sub = bus_subscribe(w.bus, "flood", NULL, on_msg, &ear);
    settle(&w); /* the server knows the subscription */
    uint64_t dropped = counter_get(COUNTER_bus_dropped);
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(bus_publish(sender, "flood", NULL, amp_bytes_of("0123456789abcdef")), AMP_OK);
    run_until(&w, &ear.count, 50000);
    bus_unsubscribe(sub, false); /* the slow consumer gives up */
    unsigned heard = ear.count;
    assert_true(heard < 100000);
    bus_free(sender); /* all of it is with the server */
    settle(&w);
    assert_int_equal(ear.count, heard);
    uint64_t counted = counter_get(COUNTER_bus_dropped) - dropped;
    assert_true(counted > 0 && heard + counted <= 100000);
    end(&w);
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
    touched(member->ear.w);
}

/* One of two members leaves and comes back again and again under a flood; the other one stays, so that the group is never empty. */
static void test_no_message_is_lost_when_members_leave_and_rejoin(void **state)
{
    enum { ROUNDS = 1000, PER_ROUND = 20, ALL = ROUNDS * PER_ROUND };
    struct world w;
    begin(&w);
    struct bus *sender = connect_bus(&w, nats_server_url(w.server), false);
    uint8_t *seen = xcalloc(ALL, 1);
    unsigned total = 0;
    struct member members[2];
    for (int i = 0; i < 2; i++) {
        members[i] = (struct member){.ear = {.w = &w}, .bus = connect_bus(&w, nats_server_url(w.server), false), .seen = seen, .total = &total};
        members[i].sub = bus_subscribe(members[i].bus, "work", "amp", on_numbered, &members[i]);
    }
    run_until(&w, &w.ups, 4);
    struct mouth ready; /* both SUBs have left in earlier turns; each connection is served on its own, so ask each */
    for (int i = 0; i < 2; i++) {
        struct bus *own = w.bus;
        w.bus = members[i].bus;
        open_mouth(&ready, &w);
        assert_int_equal(bus_inbox_request(ready.inbox, "nobody", amp_bytes_of("")), AMP_OK);
        run_until(&w, &ready.kinds[BUS_INBOX_NO_RESPONDERS], 1);
        bus_inbox_free(ready.inbox);
        w.bus = own;
    }
    unsigned next = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct member *leaver = &members[0];
        for (unsigned i = 0; i < PER_ROUND; i++, next++)
            assert_int_equal(bus_publish(sender, "work", NULL, (struct amp_bytes){(const uint8_t *)&next, sizeof next}), AMP_OK);
        /* Leaves while they are on their way: before the first, or after some. */
        run_until(&w, &total, total + round % 4);
        bus_unsubscribe(leaver->sub, true);
        leaver->sub = bus_subscribe(leaver->bus, "work", "amp", on_numbered, leaver);
    }
    run_until(&w, &total, ALL);
    for (unsigned i = 0; i < ALL; i++)
        assert_int_equal(seen[i], 1);
    assert_true(members[0].ear.count > 0 && members[1].ear.count > 0);
    for (int i = 0; i < 2; i++) {
        bus_unsubscribe(members[i].sub, false);
        bus_free(members[i].bus);
    }
    bus_free(sender);
    free(seen);
    end(&w);
}

static void test_freeing_the_bus_calls_nobody_who_has_left(void **state)
{
    struct world w;
    begin(&w);
    struct ear *gone = xcalloc(1, sizeof *gone); /* the sanitizer sees who uses it later */
    gone->w = &w;
    struct bus_sub *sub = bus_subscribe(w.bus, "a", "amp", on_msg, gone);
    assert_int_equal(bus_publish(w.bus, "a", NULL, amp_bytes_of("x")), AMP_OK);
    assert_false(bus_is_leaving(w.bus, NULL));
    bus_unsubscribe(sub, true);
    assert_true(bus_is_leaving(w.bus, NULL) && bus_is_leaving(w.bus, gone));
    assert_false(bus_is_leaving(w.bus, &w));
    uint64_t dropped = counter_get(COUNTER_bus_dropped);
    free(gone);
    end(&w);
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
    touched(quitter->ear.w);
}

static void test_a_callback_may_unsubscribe_itself(void **state)
{
    struct world w;
    begin(&w);
    struct quitter quitter = {.ear = {.w = &w}};
    quitter.sub = bus_subscribe(w.bus, "once", NULL, on_msg_quit, &quitter);
    for (int i = 0; i < 10; i++)
        assert_int_equal(bus_publish(w.bus, "once", NULL, amp_bytes_of("x")), AMP_OK);
    uint64_t dropped = counter_get(COUNTER_bus_dropped);
    run_until(&w, &quitter.ear.count, 1);
    settle(&w);
    assert_int_equal(quitter.ear.count, 1);
    assert_int_equal(counter_get(COUNTER_bus_dropped), dropped + 9);
    end(&w);
}

static long heap_bytes(void);

static void test_a_thousand_subscriptions_leave_no_memory_behind(void **state)
{
    struct world w;
    begin(&w);
    struct ear ear = {.w = &w};
    long before = 0;
    for (int i = 0; i < 2000; i++) {
        bus_unsubscribe(bus_subscribe(w.bus, "a.b.c", "amp", on_msg, &ear), i % 2);
        if (i % 100 == 99)
            settle(&w);
        if (i == 999)
            before = heap_bytes();
    }
    long after = heap_bytes();
    assert_true(after - before < 64 << 10);
    end(&w);
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
        cmocka_unit_test(test_a_request_gets_its_replies_through_its_inbox),
        cmocka_unit_test(test_an_inbox_subject_is_unguessable_and_under_its_connections_prefix),
        cmocka_unit_test(test_what_comes_late_for_an_inbox_does_not_reach_the_next_one),
        cmocka_unit_test(test_no_responders_reach_the_inbox_that_asked_and_not_the_next_one),
        cmocka_unit_test(test_a_request_that_nobody_listens_to_is_told_so),
        cmocka_unit_test(test_a_denied_publish_reaches_the_inboxes_that_asked_there_and_no_other),
        cmocka_unit_test(test_leaving_works_where_publishing_to_the_own_inbox_is_denied),
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
    int failed = run();
    server_binary = getenv("AMESH_TEST_NATS_NEW");
    if (server_binary && *server_binary)
        failed += run();
    else
        print_message("skipped: the newest nats-server (AMESH_TEST_NATS_NEW does not name its binary)\n");
    return failed ? 1 : 0;
}

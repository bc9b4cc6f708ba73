/* Thousands of open inboxes: what comes for one of them is found without looking at all the others. */
#include "bus_world.h"

#include <nats/nats.h>

#define IDLE 3000u
#define ROUNDS 200u

static unsigned n_looks;

natsStatus __real_natsSubscription_GetPending(natsSubscription *sub, int *msgs, int *bytes);
natsStatus __wrap_natsSubscription_GetPending(natsSubscription *sub, int *msgs, int *bytes);

natsStatus __wrap_natsSubscription_GetPending(natsSubscription *sub, int *msgs, int *bytes)
{
    n_looks++;
    return __real_natsSubscription_GetPending(sub, msgs, bytes);
}

struct crowd {
    struct bus_world w;
    struct mouth idle[IDLE], first; /* first: older than the idle ones */
    struct ear ear;
    struct bus_sub *sub;
};

static void crowd_begin(struct crowd *crowd)
{
    bus_world_begin(&crowd->w);
    crowd->ear = (struct ear){.w = &crowd->w, .answers = crowd->w.bus};
    crowd->sub = bus_subscribe(crowd->w.bus, "echo", NULL, ear_on_msg, &crowd->ear);
    mouth_open(&crowd->first, &crowd->w);
    for (size_t i = 0; i < IDLE; i++)
        mouth_open(&crowd->idle[i], &crowd->w);
}

static void crowd_end(struct crowd *crowd)
{
    for (size_t i = 0; i < IDLE; i++)
        bus_inbox_free(crowd->idle[i].inbox);
    bus_inbox_free(crowd->first.inbox);
    bus_unsubscribe(crowd->sub, false);
    bus_world_end(&crowd->w);
}

static void ask(struct mouth *mouth)
{
    unsigned had = mouth->kinds[BUS_INBOX_MSG];
    assert_int_equal(bus_inbox_request(mouth->inbox, "echo", amp_bytes_of("x")), AMP_OK);
    bus_world_until(mouth->w, &mouth->kinds[BUS_INBOX_MSG], had + 1);
}

static void test_what_comes_for_one_of_thousands_is_found(void **state)
{
    static struct crowd crowd;
    crowd_begin(&crowd);
    ask(&crowd.first);
    n_looks = 0;
    for (unsigned i = 0; i < ROUNDS; i++)
        ask(&crowd.first);
    print_message("%u looks at inboxes and subscriptions for %u answers\n", n_looks, ROUNDS);
    assert_true(n_looks < ROUNDS * 50);
    for (size_t i = 0; i < IDLE; i += 97)
        ask(&crowd.idle[i]);
    for (size_t i = 0; i < IDLE; i++)
        assert_int_equal(crowd.idle[i].kinds[BUS_INBOX_MSG], i % 97 == 0);
    crowd_end(&crowd);
}

/* Also what comes together for many, for some that were given up, and for nobody. */
static void test_what_comes_at_once_is_delivered_whole(void **state)
{
    static struct crowd crowd;
    crowd_begin(&crowd);
    for (unsigned round = 1; round <= 3; round++) {
        for (size_t i = 0; i < IDLE; i += round * round * round)
            assert_int_equal(bus_inbox_request(crowd.idle[i].inbox, "echo", amp_bytes_of("x")), AMP_OK);
        struct mouth gone;
        mouth_open(&gone, &crowd.w);
        assert_int_equal(bus_inbox_request(gone.inbox, "echo", amp_bytes_of("x")), AMP_OK);
        bus_inbox_free(gone.inbox);
        assert_int_equal(bus_inbox_request(crowd.first.inbox, "nobody.here", amp_bytes_of("x")), AMP_OK);
        bus_world_until(&crowd.w, &crowd.first.kinds[BUS_INBOX_NO_RESPONDERS], round);
        bus_world_until(&crowd.w, &crowd.idle[0].kinds[BUS_INBOX_MSG], round);
        ask(&crowd.first); /* behind all of them */
    }
    for (size_t i = 0; i < IDLE; i++)
        assert_int_equal(crowd.idle[i].kinds[BUS_INBOX_MSG], 1u + (i % 8 == 0) + (i % 27 == 0));
    crowd_end(&crowd);
}

static void test_one_may_be_freed_by_another_ones_answer(void **state)
{
    static struct crowd crowd;
    crowd_begin(&crowd);
    for (size_t i = 0; i < IDLE; i += 50) {
        crowd.idle[i].frees_itself = true;
        assert_int_equal(bus_inbox_request(crowd.idle[i].inbox, "echo", amp_bytes_of("x")), AMP_OK);
    }
    ask(&crowd.first);
    bus_world_until(&crowd.w, &crowd.idle[IDLE - 50].kinds[BUS_INBOX_MSG], 1);
    for (size_t i = 0; i < IDLE; i++)
        assert_int_equal(crowd.idle[i].kinds[BUS_INBOX_MSG], i % 50 == 0);
    crowd_end(&crowd);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_comes_for_one_of_thousands_is_found),
        cmocka_unit_test(test_what_comes_at_once_is_delivered_whole),
        cmocka_unit_test(test_one_may_be_freed_by_another_ones_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return bus_world_on_both(run);
}

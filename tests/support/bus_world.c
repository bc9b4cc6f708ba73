#include "bus_world.h"

#define DEADLINE_MS 10000

const char *bus_world_server;
const char bus_world_permissions[] = "authorization { users = [ { user: u, password: p, permissions: {"
                                  " publish: { allow: [\"open.>\", \"nobody.>\"] },"
                                  " subscribe: { deny: [\"closed.>\"] } } } ] }\n";

void bus_world_touch(struct bus_world *w)
{
    if (w->watched && *w->watched >= w->wanted)
        loop_stop(w->loop, 0);
}

static void on_deadline(void *ctx)
{
    struct bus_world *w = ctx;
    loop_stop(w->loop, 1);
}

void bus_world_until(struct bus_world *w, const unsigned *watched, unsigned wanted)
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
    struct bus_world *w = ctx;
    w->ups++;
    bus_world_touch(w);
}

static void on_down(void *ctx)
{
    struct bus_world *w = ctx;
    w->downs++;
    bus_world_touch(w);
}

struct bus *bus_world_connect(struct bus_world *w, const char *url, bool wait_first)
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

void bus_world_begin_with(struct bus_world *w, const char *config, const char *user)
{
    memset(w, 0, sizeof *w);
    w->server = nats_server_start(bus_world_server, config);
    w->loop = loop_new();
    w->deadline = loop_timer_new(w->loop, on_deadline, w);
    char url[128];
    snprintf(url, sizeof url, "nats://%s127.0.0.1:%d", user, nats_server_port(w->server));
    w->bus = bus_world_connect(w, url, false);
    bus_world_until(w, &w->ups, 1);
}

void bus_world_begin(struct bus_world *w)
{
    bus_world_begin_with(w, NULL, "");
}

void bus_world_end(struct bus_world *w)
{
    bus_free(w->bus);
    loop_timer_free(w->deadline);
    loop_free(w->loop);
    nats_server_stop(w->server);
}

void ear_on_msg(void *ctx, const struct bus_msg *msg)
{
    struct ear *ear = ctx;
    ear->count++;
    snprintf(ear->last, sizeof ear->last, "%.*s", (int)msg->data.len, (const char *)msg->data.data);
    if (ear->answers && msg->reply)
        assert_int_equal(bus_publish(ear->answers, msg->reply, NULL, amp_bytes_of("pong")), AMP_OK);
    bus_world_touch(ear->w);
}

static void mouth_on_reply(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct mouth *mouth = ctx;
    mouth->kinds[kind]++;
    assert_int_equal(msg != NULL, kind == BUS_INBOX_MSG);
    snprintf(mouth->text, sizeof mouth->text, "%s", text ? text : "");
    if (mouth->frees_itself) {
        bus_inbox_free(mouth->inbox);
        mouth->inbox = NULL;
    }
    bus_world_touch(mouth->w);
}

void mouth_open(struct mouth *mouth, struct bus_world *w)
{
    *mouth = (struct mouth){.w = w};
    mouth->inbox = bus_inbox_new(w->bus, mouth_on_reply, mouth);
}

/* What left must be gone before bus_free: a round trip to the server is enough. */
void bus_world_settle(struct bus_world *w)
{
    struct mouth mouth;
    for (int i = 0; i < 3; i++) {
        mouth_open(&mouth, w);
        assert_int_equal(bus_inbox_request(mouth.inbox, "nobody.listens.here", amp_bytes_of("")), AMP_OK);
        bus_world_until(w, &mouth.kinds[BUS_INBOX_NO_RESPONDERS], 1);
        bus_inbox_free(mouth.inbox);
    }
}

int bus_world_on_both(int (*run)(void))
{
    int failed = run();
    bus_world_server = getenv("AMESH_TEST_NATS_NEW");
    if (bus_world_server && *bus_world_server)
        failed += run();
    else
        print_message("skipped: the newest nats-server (AMESH_TEST_NATS_NEW does not name its binary)\n");
    return failed ? 1 : 0;
}

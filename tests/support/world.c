#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bus.h"
#include "base/loop.h"
#include "nats_server.h"

#define GUARD_MS 20000u

static const unsigned *watched;
static unsigned watched_min;

static void on_guard(void *ctx)
{
    struct world *world = ctx;
    loop_stop(world->loop, 1);
}

void world_touch(struct world *world)
{
    if (watched && *watched >= watched_min) {
        loop_stop(world->loop, 0);
    }
}

void world_wait(struct world *world, const unsigned *flag, unsigned at_least)
{
    if (*flag >= at_least) {
        return;
    }
    watched = flag;
    watched_min = at_least;
    loop_timer_set(world->guard, GUARD_MS);
    int status = loop_run(world->loop);
    loop_timer_stop(world->guard);
    watched = NULL;
    if (status != 0) {
        fail_msg("waited for %u, saw %u", at_least, *flag);
    }
}

void world_wait_down(struct world *world)
{
    world_wait(world, &world->downs, 1);
    assert_false(bus_is_up(world->near));
}

struct settle {
    struct world *world;
    unsigned done;
};

static void on_settled(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct settle *settle = ctx;
    settle->done++;
    world_touch(settle->world);
}

void world_settle(struct world *world, struct bus *bus)
{
    struct settle settle = {.world = world};
    struct bus_inbox *inbox = bus_inbox_new(bus, on_settled, &settle);
    assert_int_equal(bus_publish(bus, bus_inbox_subject(inbox), NULL, amp_bytes_of("settled")), AMP_OK);
    world_wait(world, &settle.done, 1);
    bus_inbox_free(inbox);
}

static void on_down(void *ctx)
{
    struct world *world = ctx;
    world->downs++;
    world_touch(world);
}

static void connect_bus(struct world *world, const char *user, struct bus **ret)
{
    char url[128];
    snprintf(url, sizeof url, "nats://%s%s127.0.0.1:%d", user, *user ? ":x@" : "", nats_server_port(world->server));
    struct bus_options options = {.url = url, .name = "test", .on_down = ret == &world->near ? on_down : NULL, .ctx = world};
    struct amp_error err = {.code = AMP_OK};
    if (bus_new(world->loop, &options, ret, &err) != AMP_OK) {
        fail_msg("%s", err.message);
    }
}

void world_begin(struct world *world, const char *config)
{
    bool has_users = config && strstr(config, "near");
    memset(world, 0, sizeof *world);
    world->server = nats_server_start(NULL, config);
    world->loop = loop_new();
    world->guard = loop_timer_new(world->loop, on_guard, world);
    connect_bus(world, has_users ? "near" : "", &world->near);
    connect_bus(world, has_users ? "far" : "", &world->far);
    world_settle(world, world->near);
    world_settle(world, world->far);
}

void world_end(struct world *world)
{
    bus_free(world->near);
    bus_free(world->far);
    loop_timer_free(world->guard);
    loop_free(world->loop);
    nats_server_stop(world->server);
}

void world_send(struct bus *bus, const char *subject, const Amp__Envelope *envelope)
{
    struct amp_buf wire;
    struct amp_error err = {.code = AMP_OK};
    amp_buf_init(&wire, AMP_WIRE_BYTES_MAX);
    if (amp_encode(&envelope->base, AMP_PROTOBUF, &wire, &err) != AMP_OK || bus_publish(bus, subject, NULL, amp_buf_bytes(&wire)) != AMP_OK) {
        fail_msg("cannot send: %s", err.message);
    }
    amp_buf_done(&wire);
}

static void send_reply(struct bus *bus, const char *subject, Amp__Error *error, Amp__Beat *beat)
{
    Amp__Reply reply = AMP__REPLY__INIT;
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    reply.error = error;
    reply.beat = beat;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.body_case = AMP__ENVELOPE__BODY_REPLY;
    envelope.reply = &reply;
    world_send(bus, subject, &envelope);
}

void world_send_reply(struct bus *bus, const char *subject, enum amp_code code, const char *message)
{
    struct amp_error err = {.code = AMP_OK};
    Amp__Error wire;
    amp_error_set(&err, code, "", "%s", message ? message : "");
    amp_error_to_wire(&err, &wire);
    send_reply(bus, subject, code == AMP_OK ? NULL : &wire, NULL);
}

void world_send_beat(struct bus *bus, const char *subject, const char *agent, const char *instance, uint32_t slots, uint32_t free_slots)
{
    Amp__Beat beat = AMP__BEAT__INIT;
    beat.agent = (char *)agent;
    beat.instance = (char *)instance;
    beat.has_slots = beat.has_free = true;
    beat.slots = slots;
    beat.free = free_slots;
    send_reply(bus, subject, NULL, &beat);
}

void world_send_frame(struct bus *bus, const char *subject, const struct world_frame *from)
{
    static const char body[] = "{\"statusUpdate\":{\"taskId\":\"t-1\",\"contextId\":\"c-1\",\"status\":{\"state\":\"TASK_STATE_WORKING\"}}}";
    Amp__Json json = AMP__JSON__INIT;
    Amp__Event event = AMP__EVENT__INIT, *events[64];
    Amp__Frame frame = AMP__FRAME__INIT;
    Amp__End end = AMP__END__INIT;
    Amp__Error error;
    struct amp_error err = {.code = AMP_OK};
    json.text = (ProtobufCBinaryData){.data = (uint8_t *)body, .len = sizeof body - 1};
    event.body = &json;
    assert_true(from->n <= 64);
    for (uint32_t i = 0; i < from->n; i++) {
        events[i] = &event;
    }
    frame.task_id = (char *)from->task;
    frame.agent = (char *)from->agent;
    frame.instance = (char *)from->instance;
    frame.seq = from->seq;
    frame.n_events = from->n;
    frame.events = events;
    frame.end = from->end_count >= 0 ? &end : NULL;
    end.count = from->end_count >= 0 ? (uint32_t)from->end_count : 0;
    if (from->end_error != AMP_OK) {
        amp_error_set(&err, from->end_error, "", "it went wrong");
        amp_error_to_wire(&err, &error);
        end.error = &error;
    }
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.body_case = AMP__ENVELOPE__BODY_FRAME;
    envelope.frame = &frame;
    world_send(bus, subject, &envelope);
}

Amp__Envelope *world_decode(struct amp_bytes data, struct amp_arena *arena)
{
    Amp__Envelope *envelope = NULL;
    enum amp_encoding encoding;
    struct amp_error err = {.code = AMP_OK};
    if (amp_envelope_decode(data, 0, arena, &envelope, &encoding, &err) != AMP_OK) {
        fail_msg("not an envelope: %s (%s)", err.message, err.field);
    }
    return envelope;
}

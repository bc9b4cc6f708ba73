/* control_send of call.h. */
#include "base/call.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/bus_envelope.h"
#include "base/counters.h"
#include "base/loop.h"

#include <stdlib.h>
#include <string.h>

#define CONTROL_TIMEOUT_MS 5000u /* when the caller gives none */

struct control {
    struct bus_inbox *inbox;
    struct loop_timer *timer;
    char subject[AMP_SUBJECT_SIZE];
    char instance[AMP_NAME_MAX + 1];
    char task_id[AMP_NAME_MAX + 1];
    uint32_t timeout_ms;
    void (*on_done)(void *ctx, const struct amp_error *err);
    void *ctx;
};

void control_cancel(struct control *control)
{
    if (!control)
        return;
    bus_inbox_free(control->inbox);
    loop_timer_free(control->timer);
    free(control);
}

/* The last thing that happens to it. */
static void finish(struct control *control, const struct amp_error *err)
{
    void (*on_done)(void *, const struct amp_error *) = control->on_done;
    void *ctx = control->ctx;
    struct amp_error kept = *err;
    control_cancel(control);
    on_done(ctx, &kept);
}

static void take_reply(struct control *control, const struct bus_msg *msg)
{
    struct amp_arena arena;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    Amp__Envelope *envelope;
    enum amp_encoding encoding;
    struct amp_error err = {.code = AMP_OK}, malformed;
    if (amp_envelope_decode(msg->data, 1u << AMP__ENVELOPE__BODY_REPLY, &arena, &envelope, &encoding, &malformed) != AMP_OK) {
        counter_add(COUNTER_malformed_refused, 1);
        amp_error_set(&err, AMP_BAD_ANSWER, "", "instance %s: %s", control->instance, malformed.message);
    } else if (envelope->reply->error) {
        amp_error_from_wire(&err, envelope->reply->error);
    }
    amp_arena_done(&arena);
    finish(control, &err);
}

static void on_reply(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct control *control = ctx;
    struct amp_error err = {.code = AMP_OK};
    switch (kind) {
    case BUS_INBOX_MSG:
        take_reply(control, msg);
        return;
    case BUS_INBOX_NO_RESPONDERS:
        amp_error_set(&err, AMP_INSTANCE_LOST, "", "sidecar %s is gone; task %s was there", control->instance, control->task_id);
        break;
    case BUS_INBOX_DENIED:
        amp_error_set(&err, AMP_DENIED, "", "the bus does not allow a publish on %s: %s", control->subject, text ? text : "");
        break;
    case BUS_INBOX_DOWN:
        amp_error_set(&err, AMP_NO_BUS, "", "the bus was lost before instance %s answered about task %s", control->instance, control->task_id);
        break;
    }
    finish(control, &err);
}

static void on_timeout(void *ctx)
{
    struct control *control = ctx;
    struct amp_error err = {.code = AMP_OK};
    amp_error_set(&err, AMP_DEADLINE, "", "sidecar %s did not answer about task %s within %u ms", control->instance, control->task_id,
                  (unsigned)control->timeout_ms);
    finish(control, &err);
}

enum amp_code control_send(struct loop *loop, struct bus *bus, const char *instance, const char *task_id, const Amp__Control *message, uint32_t timeout_ms,
                           void (*on_done)(void *ctx, const struct amp_error *err), void *ctx, struct control **ret)
{
    char subject[AMP_SUBJECT_SIZE];
    enum amp_code code = amp_subject_build(AMP_SUBJECT_CTL, instance, task_id, NULL, subject, NULL);
    if (code != AMP_OK || !amp_id_is_valid(instance) || !amp_id_is_valid(task_id)) {
        return AMP_INVALID;
    }
    struct control *control = xcalloc(1, sizeof *control);
    control->timeout_ms = timeout_ms ? timeout_ms : CONTROL_TIMEOUT_MS;
    control->on_done = on_done;
    control->ctx = ctx;
    memcpy(control->subject, subject, sizeof subject);
    memcpy(control->instance, instance, strlen(instance));
    memcpy(control->task_id, task_id, strlen(task_id));
    control->inbox = bus_inbox_new(bus, on_reply, control);
    code = bus_control_request(control->inbox, subject, NULL, message);
    if (code != AMP_OK) {
        bus_inbox_free(control->inbox);
        free(control);
        return code;
    }
    control->timer = loop_timer_new(loop, on_timeout, control);
    loop_timer_set(control->timer, control->timeout_ms);
    if (ret) {
        *ret = control;
    }
    return AMP_OK;
}

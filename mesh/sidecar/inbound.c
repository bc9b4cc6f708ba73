/* What comes from the bus for this instance: requests, controls, "is anyone there?". Everything here is hostile until checked; what is refused is counted and, when the
 * reply subject is an inbox, answered with the reason in the encoding of the question. amp.md 5, 7 */
#include "sidecar_private.h"

#include <string.h>

#include "base/bus.h"
#include "base/call.h"
#include "base/counters.h"
#include "base/hook.h"
#include "base/log.h"
#include "base/seeded.h"

#define BODY(kind) (1u << AMP__ENVELOPE__BODY_##kind)

static void say(struct sidecar *sidecar, const char *inbox, enum amp_encoding encoding, Amp__Reply *reply)
{
    if (!inbox)
        return;
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.body_case = AMP__ENVELOPE__BODY_REPLY;
    envelope.reply = reply;
    enum amp_code code = sidecar_publish(sidecar, inbox, encoding, &envelope);
    if (code != AMP_OK)
        log_event(LOG_WARN, "sidecar.reply_lost", "reason", amp_code_info(code)->text, NULL);
}

void inbound_reply(struct sidecar *sidecar, const char *inbox, enum amp_encoding encoding, const struct amp_error *err)
{
    Amp__Error wire;
    Amp__Reply reply = AMP__REPLY__INIT;
    if (err && err->code != AMP_OK) {
        amp_error_to_wire(err, &wire);
        reply.error = &wire;
    }
    say(sidecar, inbox, encoding, &reply);
}

/* The inbox to answer to, or NULL when there is none; false: the reply subject is one that nobody may make us publish on. */
static bool inbox_of(const struct bus_msg *msg, const char **ret)
{
    *ret = msg->reply;
    if (!msg->reply || amp_subject_is_inbox(msg->reply))
        return true;
    *ret = NULL;
    return false;
}

static void refuse_malformed(struct sidecar *sidecar, const struct bus_msg *msg, const char *inbox, enum amp_encoding encoding, const struct amp_error *err)
{
    counter_add(COUNTER_malformed_refused, 1);
    log_event(LOG_WARN, "sidecar.malformed", "subject", msg->subject, "field", err->field, "reason", err->message, NULL);
    inbound_reply(sidecar, inbox, encoding, err);
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

static enum amp_code request_check(struct sidecar *sidecar, const struct bus_msg *msg, const Amp__Envelope *envelope, struct amp_error *reterr)
{
    struct amp_subject subject;
    enum amp_code code = amp_subject_parse(msg->subject, &subject, reterr);
    if (code != AMP_OK)
        return code;
    const char *sender = subject.kind == AMP_SUBJECT_REQ_INST ? subject.c : subject.b;
    if (!envelope->from || strcmp(sender, envelope->from) != 0)
        return amp_error_set(reterr, AMP_DENIED, "from", "the envelope is from \"%s\", but its subject says \"%s\"", envelope->from ? envelope->from : "", sender);
    const Amp__Request *request = envelope->request;
    return call_check_path(sidecar->agent, request->hops, request->path, request->n_path, reterr);
}

/* Room, and not twice; `same`: the task of that id, NULL if there is none. Of two leases of one task the newer one counts: of the same environment, as who may call an agent may not end another's
 * task by that. */
static enum amp_code request_admit(struct sidecar *sidecar, struct task *same, const Amp__Envelope *envelope, struct amp_error *reterr)
{
    const Amp__Request *request = envelope->request;
    if (same && request->has_epoch && task_is_leased(same) && request->epoch > task_epoch(same) && strcmp(envelope->from, task_from(same)) == 0) {
        task_lease_supersede(same);
        same = task_lookup(sidecar, request->task_id);
    }
    if (same && task_resume_is_kept(same)) { /* over and told */
        task_resume_drop(same);
        same = NULL;
    }
    if (same && !request->has_epoch && request->attempt > task_attempt(same) && strcmp(envelope->from, task_from(same)) == 0)
        task_caller_went_on(same);
    if (same)
        return amp_error_set(reterr, AMP_CONFLICT, "request.taskId", "task %s is already here, in attempt %u", request->task_id, task_attempt(same));
    enum amp_code code = sidecar_state_check(sidecar, reterr);
    if (code != AMP_OK)
        counter_add(COUNTER_tasks_bounced, 1);
    return code;
}

/* A message that came twice. What it asked for was answered, or will be. */
static bool is_copy(const struct task *same, const Amp__Request *request, const char *inbox)
{
    return same && !request->has_epoch && !task_is_leased(same) && task_is_read_at(same, inbox);
}

void inbound_request(struct sidecar *sidecar, struct endpoint *endpoint, const struct bus_msg *msg)
{
    struct amp_error err = {.code = AMP_OK};
    const char *inbox;
    hook_at(HOOK_sidecar_received);
    if (!inbox_of(msg, &inbox) || !inbox) {
        (void)amp_error_set(&err, AMP_MALFORMED, "reply", "the reply subject is not an inbox");
        refuse_malformed(sidecar, msg, NULL, AMP_JSON, &err);
        return;
    }
    struct task *task = task_blank(sidecar);
    Amp__Envelope *envelope;
    enum amp_encoding encoding;
    enum amp_code code = amp_envelope_decode(msg->data, BODY(REQUEST), task_arena(task), &envelope, &encoding, &err);
    if (code == AMP_OK)
        code = request_check(sidecar, msg, envelope, &err);
    if (code != AMP_OK) {
        endpoint->n_errors++;
        refuse_malformed(sidecar, msg, inbox, encoding, &err);
        task_discard(task);
        return;
    }
    struct task *same = task_lookup(sidecar, envelope->request->task_id);
    if (is_copy(same, envelope->request, inbox)) {
        task_discard(task);
        return;
    }
    if (request_admit(sidecar, same, envelope, &err) != AMP_OK) {
        inbound_reply(sidecar, inbox, encoding, &err);
        task_discard(task);
        return;
    }
    task_start(task, &(struct task_origin){.envelope = envelope, .encoding = encoding, .reply = inbox, .endpoint = endpoint});
    hook_at(HOOK_sidecar_given);
}

/* ---- controls --------------------------------------------------------------------------------------------------- */

/* Of the task, or (with an epoch behind that of its lease) of this attempt only. */
static enum amp_code cancel_apply(struct task *task, const Amp__Cancel *cancel, struct amp_error *reterr)
{
    uint64_t held = task_epoch(task), given = cancel->has_epoch && task_is_leased(task) ? cancel->epoch : held;
    if (given < held && !SEEDED_BUG("cancel-of-all"))
        return amp_error_set(reterr, AMP_STALE_LEASE, "control.cancel.epoch", "task %s is here under a newer lease", task_id(task));
    if (task_is_over(task))
        return amp_error_set(reterr, AMP_TASK_ENDED, "", "task %s has already ended", task_id(task));
    if (given > held)
        task_lease_revoke(task, cancel->reason);
    else
        task_cancel(task, cancel->reason);
    return AMP_OK;
}

static enum amp_code attach(struct task *task, const Amp__Attach *attach, const struct task_reader *reader, struct amp_error *reterr)
{
    if (!reader->inbox)
        return amp_error_set(reterr, AMP_MALFORMED, "reply", "an attach needs an inbox");
    return task_is_leased(task) ? task_lease_attach(task, attach, reader, reterr) : task_resume_attach(task, attach, reader, reterr);
}

static enum amp_code control_apply(struct sidecar *sidecar, const char *id, const Amp__Control *control, const struct task_reader *reader, struct amp_error *reterr)
{
    struct task *task = task_lookup(sidecar, id);
    if (!task)
        return amp_error_set(reterr, AMP_NO_SUCH_TASK, "", "instance %s does not work on task %s", sidecar->instance, id);
    if (control->kind_case == AMP__CONTROL__KIND_ATTACH)
        return attach(task, control->attach, reader, reterr);
    const Amp__Ping *ping = control->kind_case == AMP__CONTROL__KIND_PING ? control->ping : NULL;
    if (ping && ping->has_epoch && task_is_leased(task) && task_epoch(task) != ping->epoch)
        return amp_error_set(reterr, AMP_STALE_LEASE, "control.ping.epoch", "task %s is here under another lease", id);
    task_heard(task, ping);
    switch (control->kind_case) {
    case AMP__CONTROL__KIND_PING:
        if (task_is_over(task) && (task_is_leased(task) || task_resume_is_kept(task)))
            return amp_error_set(reterr, AMP_TASK_ENDED, "", "task %s has already ended", id);
        if (reader->inbox && task_resume_is_behind(task, ping))
            task_stream_remind(task);
        return AMP_OK;
    case AMP__CONTROL__KIND_CANCEL:
        return cancel_apply(task, control->cancel, reterr);
    case AMP__CONTROL__KIND_ANSWER:
        if (task_is_over(task))
            return amp_error_set(reterr, AMP_TASK_ENDED, "", "task %s has already ended", id);
        return task_answer(task, control->answer, reterr);
    default: return amp_error_set(reterr, AMP_UNSUPPORTED, "control", "this kind of control is not known here");
    }
}

/* With how far its reader should be. */
static void pong(struct sidecar *sidecar, const char *id, const char *inbox, enum amp_encoding encoding)
{
    const struct task *task = task_lookup(sidecar, id);
    Amp__Reply reply = AMP__REPLY__INIT;
    reply.has_sent = task != NULL;
    reply.sent = task ? task_sent(task) : 0;
    say(sidecar, inbox, encoding, &reply);
}

void inbound_control(struct sidecar *sidecar, const struct bus_msg *msg)
{
    struct amp_error err = {.code = AMP_OK};
    const char *inbox;
    struct amp_subject subject;
    struct amp_arena arena;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    Amp__Envelope *envelope;
    enum amp_encoding encoding = AMP_JSON;
    enum amp_code code = AMP_OK;
    if (!inbox_of(msg, &inbox))
        code = amp_error_set(&err, AMP_MALFORMED, "reply", "the reply subject is not an inbox");
    if (code == AMP_OK)
        code = amp_subject_parse(msg->subject, &subject, &err);
    if (code == AMP_OK)
        code = amp_envelope_decode(msg->data, BODY(CONTROL), &arena, &envelope, &encoding, &err);
    if (code != AMP_OK) {
        refuse_malformed(sidecar, msg, inbox, encoding, &err);
    } else {
        struct task_reader reader = {.inbox = inbox, .from = envelope->from, .encoding = encoding};
        code = control_apply(sidecar, subject.b, envelope->control, &reader, &err);
        if (code == AMP_OK && envelope->control->kind_case == AMP__CONTROL__KIND_PING)
            pong(sidecar, subject.b, inbox, encoding);
        else if (code != AMP_OK || envelope->control->kind_case != AMP__CONTROL__KIND_ATTACH) /* whose answer are frames */
            inbound_reply(sidecar, inbox, encoding, &err);
    }
    amp_arena_done(&arena);
}

/* ---- is anyone there? ---------------------------------------------------------------------------------------------- */

void inbound_who(struct sidecar *sidecar, const struct bus_msg *msg)
{
    struct amp_error err = {.code = AMP_OK};
    const char *inbox;
    struct amp_arena arena;
    Amp__Envelope *asked;
    enum amp_encoding encoding;
    if (!inbox_of(msg, &inbox) || !inbox) {
        counter_add(COUNTER_malformed_refused, 1);
        return;
    }
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    enum amp_code code = amp_envelope_decode(msg->data, BODY(PING), &arena, &asked, &encoding, &err);
    amp_arena_done(&arena);
    if (code != AMP_OK) {
        refuse_malformed(sidecar, msg, inbox, encoding, &err);
        return;
    }
    Amp__Beat beat;
    beat_fill(sidecar, false, NULL, &beat);
    Amp__Reply reply = AMP__REPLY__INIT;
    reply.beat = &beat;
    say(sidecar, inbox, encoding, &reply);
}

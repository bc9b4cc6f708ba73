/* Which subjects this instance listens to (architecture.md 3.2). The subject is the router: a member of the queue group is somebody with a free slot, so a call
 * finds a free instance without a lookup. Membership is settled once per turn, so that a task that starts and ends within a turn costs no subscription. */
#include "sidecar_private.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bus.h"

bool member_wants(Amp__InstanceState state, uint32_t free_slots)
{
    return state == AMP__INSTANCE_STATE__INSTANCE_STATE_UP && free_slots > 0;
}

static void subject(enum amp_subject_kind kind, const char *a, const char *b, const char *c, char ret[AMP_SUBJECT_SIZE])
{
    if (amp_subject_build(kind, a, b, c, ret, NULL) != AMP_OK)
        abort(); /* names were checked when the sidecar was made */
}

static void on_request(void *ctx, const struct bus_msg *msg)
{
    struct endpoint *endpoint = ctx;
    inbound_request(endpoint->sidecar, endpoint, msg);
}

static void on_direct(void *ctx, const struct bus_msg *msg)
{
    struct sidecar *sidecar = ctx;
    seek_found(sidecar);
    inbound_request(sidecar, &sidecar->member.endpoints[0], msg);
}

static void on_control(void *ctx, const struct bus_msg *msg)
{
    inbound_control(ctx, msg);
}

static void on_who(void *ctx, const struct bus_msg *msg)
{
    inbound_who(ctx, msg);
}

static void on_who_all(void *ctx, const struct bus_msg *msg)
{
    beat_who(ctx);
}

void member_init(struct sidecar *sidecar)
{
    struct member *member = &sidecar->member;
    member->n_endpoints = 1;
    member->endpoints = xcalloc(1, sizeof *member->endpoints);
    struct endpoint *first = &member->endpoints[0];
    first->sidecar = sidecar;
    (void)snprintf(first->name, sizeof(first->name), "call");
    subject(AMP_SUBJECT_REQ, sidecar->agent, "*", NULL, first->subject);
    subject(AMP_SUBJECT_WHO, sidecar->agent, NULL, NULL, first->who);
    member_add_skills(sidecar);
}

void member_add_skills(struct sidecar *sidecar)
{
    struct member *member = &sidecar->member;
    const Amp__AgentCard *card = sidecar->options.card;
    size_t n_before = member->n_endpoints;
    member->n_endpoints = 1 + card->n_skills;
    member->endpoints = xrealloc(member->endpoints, member->n_endpoints * sizeof *member->endpoints);
    for (size_t i = n_before; i < member->n_endpoints; i++) {
        struct endpoint *endpoint = &member->endpoints[i];
        const char *skill = card->skills[i - 1]->id;
        *endpoint = (struct endpoint){.sidecar = sidecar};
        (void)snprintf(endpoint->name, sizeof(endpoint->name), "%s%s", strcmp(skill, "call") == 0 ? "skill-" : "", skill);
        subject(AMP_SUBJECT_SKILL, skill, "*", NULL, endpoint->subject);
        subject(AMP_SUBJECT_WHO_SKILL, skill, NULL, NULL, endpoint->who);
        if (member->is_open)
            endpoint->who_sub = bus_subscribe(sidecar->bus, endpoint->who, AMP_QUEUE_GROUP, on_who, sidecar);
    }
}

void member_open(struct sidecar *sidecar)
{
    struct member *member = &sidecar->member;
    if (member->is_open)
        return;
    member->is_open = true;
    char text[AMP_SUBJECT_SIZE];
    subject(AMP_SUBJECT_REQ_INST, sidecar->agent, sidecar->instance, "*", text);
    member->direct = bus_subscribe(sidecar->bus, text, NULL, on_direct, sidecar);
    subject(AMP_SUBJECT_CTL, sidecar->instance, "*", NULL, text);
    member->control = bus_subscribe(sidecar->bus, text, NULL, on_control, sidecar);
    subject(AMP_SUBJECT_WHO_ALL, NULL, NULL, NULL, text);
    member->who_all = bus_subscribe(sidecar->bus, text, NULL, on_who_all, sidecar);
    for (size_t i = 0; i < member->n_endpoints; i++)
        member->endpoints[i].who_sub = bus_subscribe(sidecar->bus, member->endpoints[i].who, AMP_QUEUE_GROUP, on_who, sidecar);
}

static void join(struct member *member, struct bus *bus)
{
    member->is_member = true;
    for (size_t i = 0; i < member->n_endpoints; i++)
        member->endpoints[i].sub = bus_subscribe(bus, member->endpoints[i].subject, AMP_QUEUE_GROUP, on_request, &member->endpoints[i]);
}

/* What was on its way is delivered from here; it meets a full or leaving instance and is answered so (inbound.c). */
static void leave(struct member *member)
{
    member->is_member = false;
    for (size_t i = 0; i < member->n_endpoints; i++) {
        struct bus_sub *sub = member->endpoints[i].sub;
        member->endpoints[i].sub = NULL;
        bus_unsubscribe(sub, true);
    }
}

void member_update(struct sidecar *sidecar)
{
    struct member *member = &sidecar->member;
    uint32_t free_slots = sidecar_free_slots(sidecar);
    bool wants = member_wants(sidecar->state, free_slots);
    if (!member->is_open || wants == member->is_member || (wants && !seek_may_join(sidecar, free_slots)))
        return;
    if (wants) {
        join(member, sidecar->bus);
        seek_joined(sidecar, free_slots); /* behind the subscriptions */
    } else {
        leave(member);
    }
}

void member_leave(struct sidecar *sidecar)
{
    struct member *member = &sidecar->member;
    seek_stop(sidecar);
    if (member->is_member)
        leave(member);
    for (size_t i = 0; i < member->n_endpoints; i++) {
        bus_unsubscribe(member->endpoints[i].who_sub, true);
        member->endpoints[i].who_sub = NULL;
    }
    bus_unsubscribe(member->direct, true);
    bus_unsubscribe(member->who_all, false);
    member->direct = member->who_all = NULL;
}

void member_done(struct sidecar *sidecar)
{
    struct member *member = &sidecar->member;
    for (size_t i = 0; i < member->n_endpoints; i++) {
        bus_unsubscribe(member->endpoints[i].sub, false);
        bus_unsubscribe(member->endpoints[i].who_sub, false);
    }
    bus_unsubscribe(member->direct, false);
    bus_unsubscribe(member->control, false);
    bus_unsubscribe(member->who_all, false);
    free(member->endpoints);
}

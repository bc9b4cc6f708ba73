/* Who is on the mesh: agents, their instances and their deaths, from beats (amp.md 9). Pure: time is an argument, nothing is
 * sent. Everything is bounded; what does not fit is refused and counted. Structs may be read by their users, not written. */
#pragma once
#include <amp/amp.h>
#include <uthash.h>

#define REGISTRY_AGENTS_MAX 131072u
#define REGISTRY_INSTANCES_MAX 131072u
#define REGISTRY_DEATHS_MAX 32u          /* kept of one agent */
#define REGISTRY_BYTES_MAX (256u << 20)  /* of all cards, beats and deaths, packed; with more, a new card is not taken, a beat loses its tags and tasks, and
                                            an agent keeps one death */
#define REGISTRY_INTERVAL_MS 1000u       /* when a beat does not say */
#define REGISTRY_INTERVAL_MIN_MS 100u
#define REGISTRY_INTERVAL_MAX_MS 60000u
#define REGISTRY_MISSED_MAX 3u           /* intervals without a beat, then an instance is lost */
#define REGISTRY_GONE_KEPT_MS 60000u     /* how long one that left or was lost is still shown */
#define REGISTRY_SILENT_KEPT_MS 86400000u /* how long an agent without instances is */

struct registry_instance {
    UT_hash_handle hh;
    char name[AMP_NAME_MAX + 1];
    struct registry_agent *agent;
    Amp__Beat *beat;           /* the last one as it came, without card and death; `state` and `free` are newer */
    Amp__InstanceState state;
    uint32_t free;             /* as far as we know: the last beat, less what was taken since */
    int64_t seen_ms, seen_unix_ms;
    int64_t over_ms;           /* since when it is gone or lost */
    bool is_named;             /* as silent, since the last beat */
};

struct registry_agent {
    UT_hash_handle hh;
    char name[AMP_NAME_MAX + 1];
    Amp__AgentCard *card;      /* NULL: not seen yet */
    struct registry_instance *instances;
    Amp__Death *deaths[REGISTRY_DEATHS_MAX]; /* newest first */
    size_t n_deaths;
    int64_t seen_ms;
};

struct registry_skill;
struct registry {
    struct registry_agent *agents;
    struct registry_skill *skills;
    size_t n_instances, bytes;
    bool is_full;  /* no agent can give way; until the next tick */
    uint64_t n_refused;
};

struct registry_change {
    struct registry_agent *agent;
    struct registry_instance *instance;
    bool is_new;        /* the instance was not there */
    bool has_left;      /* it said goodbye with this beat */
    bool has_new_death;
};

void registry_init(struct registry *registry);
void registry_done(struct registry *registry);

/* Takes a beat in. AMP_OVERLOADED when there is no room, AMP_INVALID for a beat without valid names. */
AMP_MUST_USE enum amp_code registry_beat(struct registry *registry, const Amp__Beat *beat, int64_t now_ms, int64_t now_unix_ms,
                                         struct registry_change *ret);
/* A death known from elsewhere (the journal, at start), older than those that are there. */
void registry_add_old_death(struct registry *registry, const Amp__Death *death, int64_t now_ms);
/* Finds who was silent too long and forgets who left long ago. `on_lost` may be NULL; it must not change the registry. Returns when the next one
 * of those that are known will have been silent too long, if nobody beats; INT64_MAX: nobody lives. */
int64_t registry_tick(struct registry *registry, int64_t now_ms, void (*on_lost)(void *ctx, const struct registry_instance *instance),
                      void *ctx);
int64_t registry_due_ms(const struct registry_instance *instance); /* when it is lost, unless it beats before */

/* Who lives and missed a beat, each once per silence, at most `max`. `on_silent` must not change the registry. */
void registry_silent(struct registry *registry, int64_t now_ms, uint32_t max, void (*on_silent)(void *ctx, const struct registry_instance *instance), void *ctx);
/* It was found out that nobody is there any more. False: it was known, or there is no such instance. A beat brings it back. */
bool registry_lost(struct registry *registry, const char *agent, const char *instance, int64_t now_ms);

/* The listener was deaf until now: silence of those that live counts from here. */
void registry_touch(struct registry *registry, int64_t now_ms);

struct registry_agent *registry_agent(const struct registry *registry, const char *name); /* or NULL */
const struct registry_instance *registry_instance(const struct registry *registry, const char *agent, const char *instance);
/* Whose last beat names this task, of an agent (skill NULL or "") or of everybody with that skill; NULL: nobody's. */
const struct registry_instance *registry_holder(const struct registry *registry, const char *agent, const char *skill, const char *task);
bool registry_is_live(const struct registry_instance *instance); /* NULL: no */

struct registry_slots {
    uint32_t instances; /* live ones */
    uint32_t restarting; /* of them: their agent has died, or was killed, and comes again */
    uint32_t starting;   /* of them: their agent has not come yet */
    uint32_t free;
};
/* Of an agent (skill NULL or "") or of everybody with that skill. */
struct registry_slots registry_slots(const struct registry *registry, const char *agent, const char *skill);
/* The instance took a task of ours, or ended one: what its next beat will say. */
void registry_taken(struct registry *registry, const char *agent, const char *name);
void registry_freed(struct registry *registry, const char *agent, const char *name);
bool registry_has_skill(const struct registry_agent *agent, const char *skill);

/* The environment: tracks every task, keeps history, contexts' memory and the registry of agents (amp.md 10). env.c owns and
 * wires; the decisions are pure (engine.h, registry.h). Loop thread only. */
#pragma once
#include <amp/amp.h>

struct loop;
struct bus;
struct env;

struct env_options {
    const char *journal_path;
    const char *name; /* sender id of the environment on the bus, e.g. "env" */
    uint32_t lease_ms; /* how long an instance may work on a task without hearing of us; 0: 3 s */
    int64_t retain_age_ms; /* tasks that ended longer ago are removed; 0: kept for ever */
    uint64_t retain_bytes; /* and the oldest ones while the journal uses more; 0: no bound */
    const char *const *quotas; /* NULL-ended, or NULL: as quota.h reads them, "ci=200/s,5000,64M" */
};

#define ENV_QUOTA_HELP "how much a sender may have: RATE/s,OPEN,BYTES, such as ci=200/s,5000,64M; the sender * is everybody else"

/* "30d", "12h" and "10G", "500M" (each may be NULL: kept for ever, no bound) into the options. AMP_INVALID. */
AMP_MUST_USE enum amp_code env_retain_parse(struct env_options *options, const char *age, const char *bytes, struct amp_error *reterr);

/* Can all of these be read? As env_new does, before anything is begun. */
AMP_MUST_USE enum amp_code env_quotas_check(const char *const *quotas, struct amp_error *reterr);
/* AMP_INVALID: AMESH_ENV_SPOOL_BYTES or AMESH_ENV_SPOOL_GRACE says something that it may not. */
AMP_MUST_USE enum amp_code env_files_check(struct amp_error *reterr);
/* Opens the journal and takes up its open tasks. The bus may be away still. Errors: those of journal_open, AMP_INVALID. */
AMP_MUST_USE enum amp_code env_new(struct loop *loop, struct bus *bus, const struct env_options *options, struct env **ret,
                                   struct amp_error *reterr);
/* Is a task submitted now accepted? (bus up, subscriptions made, journal sound, not stopping) */
bool env_is_ready(const struct env *env);
void env_bus_up(struct env *env);   /* from bus_options.on_up; also once after env_new if the bus is up already: harmless */
void env_bus_down(struct env *env);
/* Stops taking requests, lets the journal commit, then on_stopped (never from inside). Open tasks stay in the journal and go on
 * when the next environment starts. */
void env_stop(struct env *env, void (*on_stopped)(void *ctx), void *ctx);
void env_free(struct env *env); /* allowed without env_stop. NULL is fine */

/* Direct calls that wait for a free slot, and instances that have one (amp.md 10.14). Of the environment; loop thread only. */
#pragma once
#include "env/env_private.h"

void turns_wait_verb(const struct ask *ask);
void turns_next_verb(const struct ask *ask);
void turns_begun(struct env *env, const char *agent); /* an instance of it has taken a call */
/* A task of this instance has ended, so that it has a free slot and is in its groups again. */
void turns_freed(struct env *env, const char *agent, const char *instance);
/* Its beat says that it has a free slot, whatever was missed. */
void turns_heard(struct env *env, const char *agent, const char *instance);
void turns_sweep_all(struct env *env);
void turns_done(struct env *env);

/* target.c: since when the durable task waits that is next for this agent or one of its skills; INT64_MAX: none does. `card` may be NULL. */
int64_t targets_first_unix_ms(const struct env *env, const char *agent, const Amp__AgentCard *card);

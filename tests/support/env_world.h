/* An environment on a nats-server of its own, and somebody who asks it: for tests of mesh/env. The asker ("me") has the connection `near`, the environment
 * `far`; the journal is a real file in a directory of its own. Failures end the test with a message. */
#pragma once
#include <amp/amp.h>

#include "env/env.h"
#include "world.h"

struct env_world {
    struct world world;
    struct env *env;
    char dir[64], journal[96];
    unsigned replies, events, ends;
    struct amp_arena arena;       /* of `reply` */
    const Amp__EnvReply *reply;   /* the last one; NULL if it was an error */
    struct amp_error err;
    enum amp_code end_code;       /* of the last watch */
    uint32_t next_seq;            /* the number behind the last event watched */
};

/* config: as nats_server_start; NULL is fine. */
void env_world_begin(struct env_world *world, const char *config);
void env_world_end(struct env_world *world);
/* An environment on the journal of the one before, which is gone. */
void env_world_open(struct env_world *world);
/* A new environment on the same journal. */
void env_world_restart(struct env_world *world);
/* Asks and waits for the answer: world->err, world->reply. */
enum amp_code env_world_ask(struct env_world *world, Amp__EnvRequest__VerbCase verb, void *body);
/* Without waiting; env_world_wait waits for as many replies as were asked for since the last time. */
void env_world_send(struct env_world *world, Amp__EnvRequest__VerbCase verb, void *body);
void env_world_wait(struct env_world *world, unsigned replies);

struct env_world_submit {
    const char *agent, *skill, *task, *context, *key, *text, *retry;
    int64_t at_unix_ms; /* 0: at once */
    uint32_t in_ms, timeout_ms;
    size_t text_len; /* 0: strlen; else that many 'x' */
};
enum amp_code env_world_submit(struct env_world *world, const struct env_world_submit *submit);
void env_world_send_submit(struct env_world *world, const struct env_world_submit *submit);
enum amp_code env_world_get(struct env_world *world, const char *task);
enum amp_code env_world_ping(struct env_world *world);
enum amp_code env_world_cancel(struct env_world *world, const char *task);
/* Watches from `from` to the end marker or the error, which is returned. */
enum amp_code env_world_watch(struct env_world *world, const char *task, uint32_t from);
const char *env_world_state(const struct env_world *world, size_t task); /* of reply->tasks[task] */

/* A beat as an instance with these slots would send it; `tasks` (NULL-ended, may be NULL) are in flight there. */
void env_world_beat(struct env_world *world, const char *agent, const char *instance, uint32_t free_slots, const char *const *tasks);
/* Nothing can be written any more, by anybody in this process (a real EFBIG); and again. */
void env_world_break_disk(bool is_broken);

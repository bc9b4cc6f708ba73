/* A mesh in one process for tests of a sidecar: a nats-server of its own, one loop, one sidecar with a real agent behind it, a caller on a connection of its own, and
 * programs (curl, python3) that speak to the local socket. Failures end the test with a message. */
#pragma once
#include <amp/amp.h>

#include "base/home.h"
#include "sidecar/sidecar.h"

struct agent_world {
    struct nats_server *server;
    struct loop *loop;
    struct bus *bus, *caller_bus;
    struct sidecar *sidecar;
    struct loop_timer *late;
    struct home home;
    struct amp_arena arena;
    Amp__AgentCard card;
    char dir[64], socket[96];
    bool is_ready, is_stopped, is_late;
};

/* `options`: mode, argv, slots, target … ; card and socket are filled in. The agent is called "worker". Returns at once; agent_world_ready waits until it can be called. */
struct agent_world *agent_world_new(const struct sidecar_options *options);
void agent_world_ready(struct agent_world *world);
void agent_world_free(struct agent_world *world);
/* Run the loop until the flag is set or the number is reached (at most 30 s). */
void agent_world_wait(struct agent_world *world, const bool *flag);
void agent_world_wait_count(struct agent_world *world, const uint32_t *count, uint32_t least);

struct agent_call {
    struct agent_world *world;
    struct call *call;
    struct amp_fold *fold;
    struct amp_error err;
    uint32_t n_events;
    char task[AMP_ID_SIZE], context[AMP_ID_SIZE];
    bool is_ended, has_death, is_canceling;
    int death_signal, death_exit_code;
    size_t death_stderr;
    Amp__TaskState state;
    char text[8192], reason[4096], events[65536];
};
struct agent_call *agent_call_new(struct agent_world *world, const char *text);
struct agent_call *agent_call_new_skill(struct agent_world *world, const char *skill, const char *text); /* whoever has the skill */
/* Waits for the end. */
void agent_call_end(struct agent_call *call);
void agent_call_free(struct agent_call *call);

struct agent_program { /* a process beside the agent: stdout is collected, stderr is passed on */
    struct agent_world *world;
    struct spawn *spawn;
    struct amp_buf out; /* NUL-terminated by agent_program_out */
    uint32_t n_out;     /* bytes so far */
    bool is_over;
    int status;         /* exit code; 128 + n for signals */
};
/* AMESH_SOCK is set for it. argv ends with NULL. */
struct agent_program *agent_program_new(struct agent_world *world, char *const *argv);
void agent_program_end(struct agent_program *program); /* waits for its exit */
const char *agent_program_out(struct agent_program *program);
void agent_program_free(struct agent_program *program); /* kills it */

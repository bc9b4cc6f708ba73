/* One agent instance on the mesh: owns and wires its parts, nothing else. */
#pragma once
#include <amp/amp.h>
#include <sys/types.h>

struct loop;
struct bus;
struct home;
struct sidecar;
struct blobs;
struct worker;
struct spawn_exit;
struct task;

struct adapter_kind;
struct adapter_options;

enum sidecar_mode { SIDECAR_EXEC, SIDECAR_JSONL, SIDECAR_DIAL, SIDECAR_SHIM, SIDECAR_ADAPTER };

enum sidecar_retry { /* may what has begun here be done again elsewhere? */
    SIDECAR_RETRY_UNSAID, /* what is durable may, a direct call may if its caller says so */
    SIDECAR_RETRY_SAFE,
    SIDECAR_RETRY_NEVER,
};

struct sidecar_options {
    enum sidecar_mode mode;
    const Amp__AgentCard *card; /* complete and checked; borrowed for the sidecar's life */
    const char **tags;          /* "K=V", NULL-ended, or NULL */
    uint32_t slots;             /* --concurrency, at least 1 */
    enum sidecar_retry retry;   /* --retry */
    uint32_t progress_timeout_ms; /* --progress-timeout: an agent that says nothing for so long hangs; 0: it may be silent */
    char *const *argv;          /* what to spawn; NULL with SIDECAR_DIAL: nothing */
    const char *target;         /* FILE:OBJECT for SIDECAR_SHIM */
    struct worker *(*worker_new)(struct sidecar *sidecar, struct amp_error *reterr); /* SIDECAR_ADAPTER: worker_adapter_new */
    const struct adapter_kind *adapter; /* which, and with what; borrowed for the sidecar's life */
    const struct adapter_options *adapter_options;
    const char *python;         /* interpreter for .py shims, or NULL */
    const char *socket;         /* path of the local socket, or NULL: chosen */
    /* The agent was never ready and will not be: starting it again is no use. May be NULL; called with the ctx of sidecar_new, at most once. */
    void (*on_hopeless)(void *ctx, const struct amp_error *err);
};

AMP_MUST_USE enum amp_code sidecar_new(struct loop *loop, struct bus *bus, const struct home *home, const struct sidecar_options *options,
                                       /* once, when the agent can be called */ void (*on_ready)(void *ctx), /* once, after drain and goodbye: exit status */ void (*on_stopped)(void *ctx, int status),
                                       void *ctx, struct sidecar **ret, struct amp_error *reterr);
/* Leave: no new tasks, those in hand may finish (at most grace_ms), goodbye, stop. A second call stops at once. */
void sidecar_drain(struct sidecar *sidecar, uint32_t grace_ms);
void sidecar_free(struct sidecar *sidecar);
void sidecar_bus_up(struct sidecar *sidecar);   /* from bus_options.on_up */
void sidecar_bus_down(struct sidecar *sidecar);

/* ---- for the parts -------------------------------------------------------------------------------------- */
struct loop *sidecar_loop(struct sidecar *sidecar);
struct bus *sidecar_bus(struct sidecar *sidecar);
const struct home *sidecar_home(struct sidecar *sidecar);
const struct sidecar_options *sidecar_options(struct sidecar *sidecar);
const char *sidecar_agent(struct sidecar *sidecar);
void sidecar_id_new(struct sidecar *sidecar, char kind, char ret[AMP_ID_SIZE]); /* amp_id_new without a system call for each */
const char *sidecar_instance(struct sidecar *sidecar);
const char *sidecar_socket(struct sidecar *sidecar); /* path of the local API */
const char *sidecar_state(struct sidecar *sidecar);  /* "up", "draining" … */
struct blobs *sidecar_blobs(struct sidecar *sidecar);   /* or NULL */
struct worker *sidecar_worker(struct sidecar *sidecar); /* how the agent is attached; NULL while it is being made or freed */

struct cJSON;
/* A worker's hello had a card (local-api.md 3): its skills are added. AMP_INVALID and others name the member that is wrong. */
AMP_MUST_USE enum amp_code sidecar_take_card(struct sidecar *sidecar, const struct cJSON *card, struct amp_error *reterr);

/* The worker says how many tasks the agent takes at once from now on; 0: not attached, dead, restarting. The sidecar uses min(slots, options.slots). The first
 * value > 0 makes the instance ready. */
void sidecar_set_slots(struct sidecar *sidecar, uint32_t slots);
void sidecar_hopeless(struct sidecar *sidecar, const struct amp_error *err); /* the worker says so */
void sidecar_set_agent_pid(struct sidecar *sidecar, pid_t pid); /* 0: none */
/* The worker lost its process: counts it, beats with the death, keeps it for the log. Makes the wire form (lives until the next call) with the ids of the tasks given. Call it before
 * task_finish of those tasks, and hand the result to them. */
const Amp__Death *sidecar_agent_died(struct sidecar *sidecar, const struct spawn_exit *exit, struct task *const *tasks, size_t n_tasks);
/* "K=V" list for a spawned process: AMESH_SOCK, AMESH_AGENT, and for a task (may be NULL) AMESH_TASK, AMESH_CONTEXT, AMESH_ATTEMPT; AMESH_IN and AMESH_OUT, at these places, are empty. NULL-ended, free each and the list (sidecar_env_free). */
enum { SIDECAR_ENV_IN = 8, SIDECAR_ENV_OUT = 9 };
char **sidecar_env_new(struct sidecar *sidecar, const struct task *task);
void sidecar_env_free(char **env);
/* Restart policy for the worker's process (pure): milliseconds to wait before start number n in a row that failed (100 ms … 30 s, full jitter from `random`), reset after 10 s of life. */
uint32_t sidecar_restart_delay_ms(uint32_t failures, uint32_t random);

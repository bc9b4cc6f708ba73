/* One run: what is planned (plan.c), the nodes (nodes.c), what goes wrong (fault.c), what is asked for (client.c) and promised (witness.c while it runs, check.c at the end). */
#pragma once
#include "human.h"
#include "sim.h"
#include "timetable.h"

struct env;
struct env_call;
struct env_watch;
struct call;
struct journal;
struct sidecar;

#define JOBS_MAX 40
#define INSTANCES_MAX 6
#define CLIENTS_MAX 4
#define SEEN_MAX 256
#define ITEMS_MAX 256
#define STARTS_MAX 128
#define QUIET_MAX_S 900 /* after which everything must have ended */
#define FAULTS_S 20     /* how long things go wrong */

/* ---- plan.c: everything that a seed asks for, as a list: each item can be left out ------------------------------------- */

enum fault {
#define FAULT(name, text) FAULT_##name,
#include "fault.def"
#undef FAULT
    FAULTS
};

struct wish { /* what a caller wants */
    uint32_t client;
    bool is_durable, is_skill, wants_watch, wants_cancel, is_never_retried;
    char agent[16], text[64];
    uint32_t n, fork_of; /* its number; 1 + that of the one which it is a fork of, 0: none */
    uint32_t timeout_ms;
    uint32_t window_bytes; /* of a direct call, that may be on their way to it; 0: as many as there are */
    uint32_t delay_ms; /* it starts so much later; 0: at once */
    bool is_by_clock;  /* by the time that people see, that is */
    struct question_plan question; /* of those who work on it */
};

struct mishap {
    enum fault fault;
    uint32_t victim, for_ms, amount;
    enum point point;
};

struct habits { /* of an instance */
    char agent[16];
    uint32_t slots, work_most_ms, die_percent, silence_ms; /* silence_ms: who says nothing for so long hangs; 0: it may */
    bool is_once; /* nothing that was begun there may be begun again */
};

struct rot { /* which bit of the journal is another one when all is over */
    bool is_log;
    uint32_t where, bit;
};

enum item_kind { ITEM_INSTANCE, ITEM_JOB, ITEM_FAULT, ITEM_SCHEDULE, ITEM_ROT };
struct item {
    enum item_kind kind;
    bool is_off;
    uint32_t at_ms; /* after the beginning */
    union {
        struct habits habits;
        struct wish wish;
        struct mishap mishap;
        struct timetable timetable;
        struct rot rot;
    };
};

struct script {
    uint64_t seed, salt;
    uint32_t n_names, n_clients, slow_percent, asking_percent, later_percent, fork_percent; /* of the tasks take long; ask people; start later; are forks */
    bool is_fresh; /* there is no journal yet */
    bool is_clock_set; /* by as much as two hours: then nobody waits for a time that it shows */
    uint32_t open_max, rate_max, bytes_max; /* of one sender: open tasks, submits a second, bytes of open requests; 0: nobody has said */
    struct item items[ITEMS_MAX];
    size_t n_items;
};
void plan_make(struct script *plan); /* by chance */
void plan_describe(const struct item *item, char *ret, size_t size);

/* ---- client.c ------------------------------------------------------------------------------------------------------------ */

struct client {
    char name[16];
    struct loop *loop;
    struct bus *bus;
};

struct seen { /* an event that somebody was shown */
    uint32_t seq;
    uint64_t digest;
};

struct job { /* a task as its caller knows it; nothing here is ever forgotten, whatever dies */
    const struct wish *wish;
    struct client *client;
    char key[32], task[AMP_ID_SIZE], context[AMP_ID_SIZE]; /* task: "" until accepted */
    uint32_t n_submits, n_begun; /* by agents */
    uint32_t n_shown;            /* events of a direct call */
    bool was_once;               /* begun where nothing may be begun twice */
    uint32_t fork_seq, n_unheard; /* from which event on it is a fork; how often nobody said whether it was made */
    bool is_accepted, is_cancel_confirmed;
    struct env_call *asking;
    struct env_watch *watch;
    struct call *call;
    struct amp_fold *fold; /* of a direct call */
    enum amp_code code;    /* how the direct call, or the watch, ended */
    bool has_ended, watch_ended;
    bool is_unkept; /* a direct call that ended before the bus had its stream */
    uint32_t n_ends;
    uint32_t known_events;        /* that there are at least so many, and the state it had at its end, if that was told */
    Amp__TaskState known_end;
    struct human human;
    int64_t waits_us; /* a direct call: since when it is seen to wait; 0: it does not */
    int64_t still_us; /* and since when its instance has something to say that is not shown; 0: it has not */
    uint32_t still_shown; /* with so many events shown */
    int64_t due_us; /* it may not start before; 0: at once, or not submitted yet */
    int64_t due_unix_ms;
    int64_t silent_since_us;      /* since when it was seen to wait without a reason; 0: it was not */
    uint32_t silent_starts;       /* and under which environment */
    size_t n_seen;
    struct seen seen[SEEN_MAX];
};

struct scenario {
    struct script script;
    struct job jobs[JOBS_MAX];
    size_t n_jobs;
    struct routine routines[ROUTINES_MAX];
    size_t n_routines;
    struct client clients[CLIENTS_MAX + 1]; /* the last one is the witness */
    bool is_healing;
    bool has_jumped; /* the clock that people see */
    int64_t starts_ms[STARTS_MAX]; /* of the environment, by the clock that people see */
    bool has_doubled; /* messages have come twice */
    bool may_lose_instance; /* a sidecar ended, and what it kept with it */
    bool may_lack_frames; /* something went wrong that loses what is published once */
};
extern struct scenario scenario;

uint64_t digest_of(struct amp_bytes data);
void client_begin(struct client *client, size_t n);
void client_end(struct client *client);
/* A text as a message; its parts are the caller's memory, all borrowed. */
void client_message(const char *text, const char *id, Amp__Message *message, Amp__Part *part, Amp__Part **parts);
void job_make(struct job *job, const struct wish *wish, unsigned n);
void job_start(void *ctx); /* the job */
void job_begun(const char *text, struct sidecar *sidecar); /* an agent has begun one of this text */
bool job_is_settled(const struct job *job);

/* ---- branch.c: forks ---------------------------------------------------------------------------------------------------------- */

/* What is asked for, from an event that is known of its origin. False: the origin is not accepted yet. */
bool branch_fill(struct job *job, Amp__Message *message, Amp__Fork *ret);
bool branch_is_fork(const struct job *job); /* one whose origin was left out is a task like others */
void branch_check(struct journal *journal, const struct job *job);

/* ---- nodes.c --------------------------------------------------------------------------------------------------------------- */

struct instance {
    const struct habits *plan; /* NULL: left out */
    struct loop *loop;
    struct bus *bus;
    struct sidecar *sidecar;
    struct amp_arena arena;
    Amp__AgentCard card;
    struct agent_habits habits;
    bool is_up, is_leaving;
    int64_t free_us; /* since when it is seen to have a free slot; 0: it has none, or cannot be reached */
};

struct nodes {
    const char *journal_path;
    struct loop *loop;
    struct bus *bus;
    struct env *env; /* NULL: it does not run */
    uint32_t n_starts;
    int64_t started_us; /* when it was started last */
    struct instance instances[INSTANCES_MAX];
    size_t n_instances;
};
extern struct nodes nodes;

void nodes_prepare(const char *journal_path); /* once in a process */
void nodes_begin(void);
void nodes_end(void);
void nodes_start_env(void *nothing);
uint32_t nodes_env_starts(void); /* so far */
void nodes_stop_env(bool is_power_cut); /* kill -9, or a power cut; it is started again after a while */
void instance_make(struct instance *instance, const struct habits *habits);
void instance_start(void *ctx); /* the instance */
void instance_stop(struct instance *instance, bool is_noticed);

/* ---- fault.c, crash.c ---------------------------------------------------------------------------------------------------------- */

void fault_happen(void *ctx); /* the item */
void fault_heal(void); /* everything is mended */
struct bus *fault_bus(uint32_t victim); /* whose connection; NULL: it has none now */
void crash_begin(void);
void crash_at(enum point point, uint32_t count, struct instance *instance, bool is_power_cut); /* instance NULL: the environment */
void crash_forget(const struct loop *loop); /* an instance that has died otherwise */
bool crash_is_power_cut(void); /* that of the environment that crashed last */

/* ---- witness.c: looks at everything while it runs ------------------------------------------------------------------------------- */

void witness_begin(struct client *client);
void witness_end(void);
void ledger_start(struct journal *journal); /* an environment has started: what was committed is there */
void ledger_end(void);
void ledger_told(const char *task, uint32_t seq); /* somebody is told that the task is there, with so many events */
void witness_ask(void *nothing); /* for tasks that have not ended, now */
void witness_count(struct journal *journal); /* has a sender more open than it may? */
bool witness_has_quota(void);
void witness_start(struct journal *journal); /* an environment has started: what was accepted is there */

/* ---- wait.c: direct calls and free slots ------------------------------------------------------------------------------------------ */

void wait_begin(void);
/* A direct call has ended by the failure of its instance. Was another one free? */
void wait_failed(const struct job *job, enum amp_code code);
void wait_begun(const struct sidecar *sidecar); /* an agent there has begun a task */

/* ---- check.c: reads the journal when all is quiet, and holds it against what the clients were told ----------------------------- */

void check_all(struct journal *journal);

/* ---- rot.c ------------------------------------------------------------------------------------------------------------------------- */

void rot_check(const struct rot *plan); /* behind all other checks: there is no environment any more */

/* ---- scenario.c, shrink.c ----------------------------------------------------------------------------------------------------------- */

/* The plan of scenario.script.seed with the items of `only` (NULL: all). */
void scenario_run(uint64_t seed, uint64_t salt, const bool *only, bool is_traced);
/* The seed fails: finds fewer items that fail the same way, and says them. → how many are left */
size_t shrink(uint64_t seed, bool is_told);

/* amesh explain: why a task went where it went and took as long as it did. explain.c reads what there is to know, explain_why.c draws the conclusions (pure: time is a member),
 * explain_print.c tells them. */
#pragma once
#include "cli/context.h"

struct cJSON;

#define EXPLAIN_INSTANCES_MAX 200u /* of those who can do it */
#define EXPLAIN_ATTEMPTS_MAX 32u   /* as many as the environment keeps */
#define EXPLAIN_SPANS_MAX 1000u    /* waits, attempts, questions, child tasks */
#define EXPLAIN_CHILDREN_MAX 200u
#define EXPLAIN_BUSY_MAX 8u        /* tasks that are named, of one instance */

/* Where time goes. What comes first counts where two are at once. */
enum explain_kind {
    EXPLAIN_PLANNED,  /* it was not to start yet */
    EXPLAIN_QUEUE,    /* nobody could take it */
    EXPLAIN_PAUSE,    /* an attempt had failed, and the next one was not to begin yet */
    EXPLAIN_LOST,     /* an attempt that was for nothing */
    EXPLAIN_QUESTION, /* somebody is asked */
    EXPLAIN_CHILD,    /* tasks inside of it */
    EXPLAIN_WORK,     /* none of these, while an agent had it */
    EXPLAIN_REST,     /* on the way */
    EXPLAIN_KINDS,
};

struct explain_span {
    enum explain_kind kind;
    int64_t from_unix_ms, to_unix_ms;
    bool is_open;
    char text[160]; /* why; of a child who it is */
    char id[AMP_NAME_MAX + 1]; /* of a question or a child; else "" */
    Amp__TaskState state;      /* of a child */
};

struct explain_instance {
    char name[AMP_NAME_MAX + 1], agent[AMP_NAME_MAX + 1], host[AMP_NAME_MAX + 1];
    Amp__InstanceState state;
    uint32_t slots, free;
    int64_t since_unix_ms, progress_unix_ms; /* 0: not known */
    char tasks[EXPLAIN_BUSY_MAX][AMP_NAME_MAX + 1];
    size_t n_tasks;
    bool is_known; /* it is in the registry; else only an attempt names it */
};

struct explain_attempt {
    int number;
    char instance[AMP_NAME_MAX + 1], agent[AMP_NAME_MAX + 1], host[AMP_NAME_MAX + 1];
    int64_t ready_unix_ms, started_unix_ms, ended_unix_ms;
    char outcome[64], reason[256];
    char waited_for[160]; /* the last wait before it; "": none */
    char why[320];        /* why there: explain_conclude */
};

struct explain {
    char id[AMP_NAME_MAX + 1], agent[AMP_NAME_MAX + 1], skill[AMP_NAME_MAX + 1], from[AMP_NAME_MAX + 1];
    Amp__TaskState state;
    bool is_durable, is_over;
    bool is_cut;     /* there was more than is looked at */
    char *text;      /* what was asked */
    char waiting[256], error[256];
    int64_t now_unix_ms, submitted_unix_ms, ended_unix_ms; /* ended: 0: not yet */
    struct explain_instance *instances;
    size_t n_instances;
    struct explain_attempt attempts[EXPLAIN_ATTEMPTS_MAX];
    size_t n_attempts;
    struct explain_span *spans;
    size_t n_spans;
    /* conclusions */
    int64_t total_ms, spent_ms[EXPLAIN_KINDS];
    char verdict[320], now[320]; /* now: of one that is not over */
    char help[3][200];
    size_t n_help;
};

/* Of a wait, by its reason. */
enum explain_kind explain_wait_kind(const char *reason);
/* What follows from the facts. */
void explain_conclude(struct explain *explain);
const char *explain_kind_name(enum explain_kind kind); /* in JSON */
const char *explain_kind_text(enum explain_kind kind); /* "waiting for an instance" */
/* May an instance that is in this state take tasks? */
bool explain_is_there(const struct explain_instance *instance);
struct explain_instance *explain_instance(const struct explain *explain, const char *name); /* NULL: not known */

void explain_print(const struct cli *cli, const struct explain *explain);
struct cJSON *explain_json(const struct explain *explain); /* the caller's */

int explain_run(const struct command *command, struct command_args *args);

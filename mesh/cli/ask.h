/* Parts of `amesh ask`: ask.c reads the options, ask_run.c runs the call. */
#pragma once
#include "cli/answer.h"
#include "cli/context.h"

struct call;
struct env_watch;
struct env_call;
struct loop_signal;
struct loop_io;

struct ask {
    struct cli cli;
    struct amp_arena arena; /* of the message */
    /* what is asked */
    const char *agent, *skill, *text, *answered_task, *parent, *key;
    const char **files;
    char **path;
    size_t n_path;
    uint32_t hops, timeout_ms;
    bool is_durable, is_detached, is_impatient;
    enum answer_form form;
    bool is_verbose;
    char task_id[AMP_NAME_MAX + 1], context_id[AMP_NAME_MAX + 1];
    Amp__Message *message;
    /* while it runs */
    struct answer answer;
    uint32_t mute_until; /* events up to this one were seen before */
    struct call *call;
    struct env_watch *watch;
    struct env_call *answer_call;
    struct loop_signal *on_sigint;
    struct loop_io *input;
    bool is_interrupted, is_left; /* left: ended from this side, the task goes on */
    bool is_ended;
    int status;
};

/* Calls the agent directly and prints what comes. Exit code. */
int ask_direct(struct ask *ask);
/* Through the environment. */
int ask_durable(struct ask *ask);
/* Answers `answered_task`, then prints what it says from there on. */
int ask_answer(struct ask *ask);

/* Parts of `amesh ask`: ask.c reads the options, ask_run.c runs the call, ask_durable.c does it through the environment. */
#pragma once
#include "base/moment.h"
#include "cli/answer.h"
#include "cli/away.h"
#include "cli/context.h"
#include "cli/message.h"

#define ASK_INLINE_MAX (64u << 10)       /* a file above it is a blob (amp.md 15) */
#define ASK_TEXT_INLINE_MAX (256u << 10) /* a text likewise */

struct call;
struct ask_files;
struct env_watch;
struct env_call;
struct loop_signal;
struct loop_timer;
struct loop_io;

/* When it is to be done, if not at once. */
struct ask_when {
    struct moment at; /* unix_ms 0: none */
    uint32_t every_ms, count;
    const char *cron, *zone, *overlap;
    int64_t until_unix_ms; /* 0: for ever */
};

struct ask {
    struct cli cli;
    struct amp_arena arena; /* of the message */
    /* what is asked */
    const char *agent, *skill, *text, *answered_task, *parent, *root, *key, *retry;
    const char **files, *output;
    struct message_source source;
    char **path;
    size_t n_path;
    uint32_t hops, timeout_ms;
    bool is_durable, is_detached, is_impatient;
    Amp__Priority priority;
    bool is_apart; /* nobody waits for it here: inside of a task it does not end with that */
    struct ask_when when;
    enum answer_form form;
    bool is_verbose;
    char task_id[AMP_NAME_MAX + 1], context_id[AMP_NAME_MAX + 1];
    Amp__Message *message;
    struct ask_files *blobs; /* ask_files.c; NULL: none */
    /* while it runs */
    struct answer answer;
    uint32_t mute_until; /* events up to this one were seen before */
    struct call *call;
    struct env_watch *watch;
    struct away away; /* while watching */
    struct env_call *answer_call;
    struct loop_signal *on_sigint, *on_sigterm;
    struct loop_io *input;
    struct amp_arena typed; /* of the answer in hand */
    struct loop_timer *look; /* at what a durable task waits for */
    struct env_call *look_call;
    uint32_t look_ms, look_seq;
    char waiting[256]; /* what was said about it */
    bool is_interrupted, is_left; /* left: ended from this side, the task goes on */
    bool is_ended;
    struct amp_error missing; /* nobody of that name is there: said after the loop, which a guess needs */
    int status;
};

/* Calls the agent directly and prints what comes. Exit code. */
int ask_direct(struct ask *ask);
/* Through the environment. */
int ask_durable(struct ask *ask);
/* Reads the options about time. Exit code. */
int ask_read_when(struct ask *ask);
/* Is it to be done again and again? Then a schedule is made of it. */
bool ask_is_schedule(const struct ask *ask);
/* Makes the schedule. */
int ask_schedule(struct ask *ask);
/* Answers `answered_task`, then prints what it says from there on. */
int ask_answer(struct ask *ask);

/* ---- ask_files.c ---- */

/* Makes the directory of --output, with its parents, before anybody works for what goes there. Exit code. */
int ask_files_prepare(struct ask *ask);
/* Takes in what is too large for the message, so that the callee can pull it. Exit code. */
int ask_files_begin(struct ask *ask);
/* Who asks is here: if the error says that it is gone with its files, it says why that is. */
void ask_files_explain(const struct ask *ask, struct amp_error *err);
/* The answer is there: fetches and writes its files one by one, if --output says where, and tells of each that cannot be had or written; then on_done with the exit code of the
 * first of those or 0, possibly at once. False: there is nothing to do. */
bool ask_files_receive(struct ask *ask, void (*on_done)(struct ask *ask, int status));
/* In the document files that were written are named by where they are, as long as it is being printed (is_on). */
void ask_files_name(struct ask *ask, bool is_on);
/* Tells of files that were not fetched. */
void ask_files_tell(struct ask *ask);
void ask_files_end(struct ask *ask);

/* ---- shared by the ways to run it ---- */

void ask_stop(struct ask *ask, int status);
/* Output, signals and the empty answer. `task_id` and `context_id` must be known. */
void ask_begin(struct ask *ask);
void ask_end(struct ask *ask);
/* The run ended at a question that nobody could be asked here. */
void ask_explain_question(struct ask *ask);
/* Handlers of call.h and envcall.h, with the ask as ctx. */
void ask_on_event(void *ctx, uint32_t seq, const Amp__Event *event);
void ask_on_end(void *ctx, const struct amp_error *err, const Amp__Error *wire);
void ask_on_taken(void *ctx, const char *agent, const char *instance);
/* Prints an error of the environment, with the option that is meant by its field. Exit code. */
int ask_fail(const struct ask *ask, const struct amp_error *err);
/* An answer that is on its way through the environment. */
void ask_on_answered(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err);
/* ask_durable.c: hands the answer to the environment. */
AMP_MUST_USE enum amp_code ask_send_answer(struct ask *ask, const char *question, Amp__Message *message, struct amp_error *reterr);

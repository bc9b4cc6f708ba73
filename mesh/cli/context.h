/* What every command begins with: where the mesh is, the loop, the bus, how to print. One command per process, so a command may keep it on its stack. */
#pragma once
#include <amp/amp.h>

#include "base/command.h"
#include "base/home.h"
#include "cli/print.h"

struct loop;
struct bus;
struct cJSON;

#define CLI_TIMEOUT_MS 5000u /* of a request to the environment, unless --timeout says otherwise */

struct cli {
    const struct command *command;
    struct command_args *args;
    struct home home;
    struct loop *loop;
    struct bus *bus; /* NULL until cli_connect */
    bool is_json;
    struct print_style out, err; /* of stdout and stderr */
    char from[AMP_NAME_MAX + 1]; /* who asks */
    uint32_t timeout_ms;
    /* Set between cli_init and cli_connect by who wants to know that the connection to the bus is there (again), or is lost. */
    void (*on_link)(void *ctx, bool is_up);
    void *link_ctx;
    bool needs_subscription; /* set likewise by who waits for what a subscription brings: one that the bus denies ends the loop with the exit code of "denied" */
};

/* Reads the common options. Returns an exit code: 0, or what went wrong (already printed). cli_done is needed in both cases. */
int cli_init(struct cli *cli, const struct command *command, struct command_args *args);
/* Loop and bus. Same contract. */
int cli_connect(struct cli *cli);
/* Both, which is what most commands need. */
int cli_open(struct cli *cli, const struct command *command, struct command_args *args);
void cli_done(struct cli *cli);

/* Prints the error (text or, with --json, the error document) on stderr and returns its exit code. `wire` (may be NULL) adds the death report. */
int cli_fail(const struct cli *cli, const struct amp_error *err, const Amp__Error *wire);
int cli_fail_with(const struct cli *cli, enum amp_code code, const char *fmt, ...) AMP_PRINTF(3, 4);
/* Wrong use of the command: exit code 2. */
int cli_usage(const struct cli *cli, const char *fmt, ...) AMP_PRINTF(2, 3);
/* Are there between min and max operands? 0, or the exit code of the usage error. */
int cli_operands(const struct cli *cli, size_t min, size_t max);
/* An option whose value must be a duration. *ret_ms stays as it is when the option is not given. */
int cli_duration(const struct cli *cli, const char *option, uint32_t *ret_ms);
/* An option whose value must be a number in [min, max]. */
int cli_number(const struct cli *cli, const char *option, uint32_t min, uint32_t max, uint32_t *ret);
/* 0 if `id` is a valid id; else the usage error says what it should be. */
int cli_id(const struct cli *cli, const char *what, const char *id);

/* One request to the environment. Runs the loop until its answer, hands it to on_reply (whose result is the exit code) or prints the error. on_reply borrows the reply. */
int cli_request(struct cli *cli, const Amp__EnvRequest *request, int (*on_reply)(void *ctx, const Amp__EnvReply *reply), void *ctx);
/* The same, but an error goes to *reterr and is not printed. on_reply may be NULL. */
int cli_ask_env(struct cli *cli, const Amp__EnvRequest *request, int (*on_reply)(void *ctx, const Amp__EnvReply *reply), void *ctx,
                struct amp_error *reterr);
/* The loop runs on for so long. */
void cli_pause(struct cli *cli, uint32_t ms);

/* The same two for a list: `take` gets every page (amp.md 10.1.2), or as many as it takes until its result is not 0; CLI_ENOUGH ends it well. */
#define CLI_ENOUGH (-1)
int cli_request_pages(struct cli *cli, Amp__EnvRequest *request, int (*take)(void *ctx, const Amp__EnvReply *reply), void *ctx);
/* A task with all its events: its record comes with each page. */
int cli_request_task(struct cli *cli, const char *id, int (*take)(void *ctx, const Amp__EnvReply *reply), void *ctx);
int cli_ask_pages(struct cli *cli, Amp__EnvRequest *request, int (*take)(void *ctx, const Amp__EnvReply *reply), void *ctx, struct amp_error *reterr);

/* The sender's id: $AMESH_AGENT, else "cli-<user>". */
void cli_from(char ret[AMP_NAME_MAX + 1]);

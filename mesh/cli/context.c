#include "cli/context.h"

#include <ctype.h>
#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bus.h"
#include "base/envcall.h"
#include "base/log.h"
#include "base/loop.h"
#include "cli/error.h"
#include "cli/output.h"

void cli_from(char ret[AMP_NAME_MAX + 1])
{
    const char *agent = getenv("AMESH_AGENT");
    if (agent != NULL && amp_id_is_valid(agent)) {
        snprintf(ret, AMP_NAME_MAX + 1, "%s", agent);
        return;
    }
    const char *user = getenv("USER");
    const struct passwd *entry = user == NULL ? getpwuid(getuid()) : NULL;
    if (entry != NULL)
        user = entry->pw_name;
    char name[64];
    snprintf(name, sizeof name, "cli-%.50s", user != NULL && *user != '\0' ? user : "user");
    amp_id_from_text(name, ret);
}

int cli_init(struct cli *cli, const struct command *command, struct command_args *args)
{
    struct print_env env = print_env_get();
    log_init(log_level_from_env(LOG_ERROR), "amesh"); /* people read the errors of a command, not its log */
    bool no_color = command_flag(command, args, "no-color");
    *cli = (struct cli){.command = command, .args = args, .timeout_ms = CLI_TIMEOUT_MS};
    cli->is_json = command_flag(command, args, "json");
    cli->out = print_style_of(isatty(STDOUT_FILENO) == 1, no_color, &env);
    cli->err = print_style_of(isatty(STDERR_FILENO) == 1, no_color, &env);
    cli->out.width = command_columns(STDOUT_FILENO);
    cli->err.width = command_columns(STDERR_FILENO);
    cli_from(cli->from);
    struct amp_error err = {0};
    if (home_open(&cli->home, command_value(command, args, "home"), command_value(command, args, "bus"), false, &err) != AMP_OK)
        return cli_fail(cli, &err, NULL);
    return 0;
}

static void on_bus_up(void *ctx)
{
    struct cli *cli = ctx;
    if (cli->on_link != NULL)
        cli->on_link(cli->link_ctx, true);
}

static void on_bus_down(void *ctx)
{
    struct cli *cli = ctx;
    if (cli->on_link != NULL)
        cli->on_link(cli->link_ctx, false);
}

/* Nothing would ever come. Where an inbox is denied, who asked is told. */
static void on_bus_denied(void *ctx, const char *subject)
{
    struct cli *cli = ctx;
    struct amp_error err = {0};
    if (!cli->needs_subscription)
        return;
    amp_error_set(&err, AMP_DENIED, "", "the bus does not allow %s to subscribe to %s", cli->from, subject);
    amp_error_hint(&err, "the permissions of these credentials lack this subject");
    loop_stop(cli->loop, cli_fail(cli, &err, NULL));
}

int cli_connect(struct cli *cli)
{
    struct amp_error err = {0};
    if (cli->home.bus[0] == '\0') {
        amp_error_set(&err, AMP_NO_BUS, "", "no mesh runs in %s, and neither --bus nor AMESH_BUS names one", cli->home.path);
        return cli_fail(cli, &err, NULL);
    }
    cli->loop = loop_new();
    struct bus_options options = {.url = cli->home.bus, .creds = cli->home.creds[0] == '\0' ? NULL : cli->home.creds, .name = cli->from, .inbox = cli->home.inbox,
                                  .on_up = on_bus_up, .on_down = on_bus_down, .on_denied = on_bus_denied, .ctx = cli};
    if (bus_new(cli->loop, &options, &cli->bus, &err) != AMP_OK) {
        cli->bus = NULL;
        return cli_fail(cli, &err, NULL);
    }
    return 0;
}

int cli_open(struct cli *cli, const struct command *command, struct command_args *args)
{
    int status = cli_init(cli, command, args);
    return status != 0 ? status : cli_connect(cli);
}

void cli_done(struct cli *cli)
{
    bus_free(cli->bus);
    cli->bus = NULL;
    if (cli->loop != NULL)
        loop_free(cli->loop);
    cli->loop = NULL;
    (void)output_is_lost(); /* remembered for the end of the program */
}

int cli_fail(const struct cli *cli, const struct amp_error *err, const Amp__Error *wire)
{
    struct amp_error said = *err;
    (void)output_is_lost();
    if ((err->code == AMP_INVALID || err->code == AMP_MALFORMED) && err->hint[0] == '\0')
        amp_error_hint(&said, "amesh help %s", cli->command->name);
    if (cli->is_json)
        error_print_json(stderr, &said, wire);
    else
        error_print(stderr, &cli->err, &said, wire);
    return amp_code_info(err->code)->exit;
}

int cli_fail_with(const struct cli *cli, enum amp_code code, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    struct amp_error err = {0};
    amp_error_set(&err, code, "", "%s", text);
    return cli_fail(cli, &err, NULL);
}

int cli_usage(const struct cli *cli, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    struct amp_error err = {0};
    amp_error_set(&err, AMP_INVALID, "", "%s", text);
    amp_error_hint(&err, "amesh help %s", cli->command->name);
    cli_fail(cli, &err, NULL);
    return 2;
}

int cli_operands(const struct cli *cli, size_t min, size_t max)
{
    size_t count = cli->args->n_rest;
    const char *operands = cli->command->operands != NULL ? cli->command->operands : "";
    if (count < min)
        return cli_usage(cli, "amesh %s needs %s", cli->command->name, operands);
    if (count > max && max == 0)
        return cli_usage(cli, "amesh %s takes no operand, but \"%s\" was given", cli->command->name, cli->args->rest[0]);
    if (count > max)
        return cli_usage(cli, "amesh %s takes %s; \"%s\" is one too many (quote a text with spaces)", cli->command->name, operands,
                         cli->args->rest[max]);
    return 0;
}

int cli_duration(const struct cli *cli, const char *option, uint32_t *ret_ms)
{
    const char *text = command_value(cli->command, cli->args, option);
    unsigned ms = 0;
    if (text == NULL)
        return 0;
    if (!command_duration_ms(text, &ms) || ms == 0)
        return cli_usage(cli, "--%s must be a time of at most %u days, such as 500ms, 30s or 2m, not \"%s\"", option, COMMAND_DURATION_DAYS_MAX, text);
    *ret_ms = ms;
    return 0;
}

int cli_number(const struct cli *cli, const char *option, uint32_t min, uint32_t max, uint32_t *ret)
{
    const char *text = command_value(cli->command, cli->args, option);
    if (text == NULL)
        return 0;
    char *end = NULL;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end != '\0' || errno != 0 || value < min || value > max)
        return cli_usage(cli, "--%s must be a number from %u to %u, not \"%s\"", option, min, max, text);
    *ret = (uint32_t)value;
    return 0;
}

int cli_id(const struct cli *cli, const char *what, const char *id)
{
    if (amp_id_is_valid(id))
        return 0;
    return cli_usage(cli, "%s \"%s\" is not a valid name: a-z, 0-9, _ and -, at most %u characters", what, id, AMP_NAME_MAX);
}

struct request_state {
    struct cli *cli;
    int (*on_reply)(void *ctx, const Amp__EnvReply *reply);
    void *ctx;
    struct amp_error err;
    int status;
};

static void on_env_reply(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct request_state *state = ctx;
    state->err = *err;
    if (err->code != AMP_OK)
        state->status = amp_code_info(err->code)->exit;
    else if (state->on_reply != NULL)
        state->status = state->on_reply(state->ctx, reply);
    loop_stop(state->cli->loop, 0);
}

int cli_ask_env(struct cli *cli, const Amp__EnvRequest *request, int (*on_reply)(void *ctx, const Amp__EnvReply *reply), void *ctx,
                struct amp_error *reterr)
{
    struct request_state state = {.cli = cli, .on_reply = on_reply, .ctx = ctx};
    struct env_call *call = NULL;
    *reterr = (struct amp_error){0};
    enum amp_code code = env_call(cli->loop, cli->bus, cli->from, request, cli->timeout_ms, on_env_reply, &state, &call);
    if (code != AMP_OK) {
        amp_error_set(reterr, code, "", "the request to the environment could not be sent: %s", amp_code_info(code)->text);
        return amp_code_info(code)->exit;
    }
    loop_run(cli->loop);
    *reterr = state.err;
    return state.status;
}

int cli_request(struct cli *cli, const Amp__EnvRequest *request, int (*on_reply)(void *ctx, const Amp__EnvReply *reply), void *ctx)
{
    struct amp_error err;
    int status = cli_ask_env(cli, request, on_reply, ctx, &err);
    return err.code == AMP_OK ? status : cli_fail(cli, &err, NULL);
}

static void on_pause_over(void *ctx)
{
    loop_stop(ctx, 0);
}

void cli_pause(struct cli *cli, uint32_t ms)
{
    struct loop_timer *timer = loop_timer_new(cli->loop, on_pause_over, cli->loop);
    loop_timer_set(timer, ms);
    loop_run(cli->loop);
    loop_timer_free(timer);
}

/* ---- lists in pages ------------------------------------------------------------------------------------ */

struct pages {
    int (*on_page)(void *ctx, const Amp__EnvReply *reply);
    void *ctx;
    char *token; /* of the next page, NULL: that was all */
};

static char **page_token_of(Amp__EnvRequest *request)
{
    switch (request->verb_case) {
    case AMP__ENV_REQUEST__VERB_AGENTS:
        return &request->agents->page_token;
    case AMP__ENV_REQUEST__VERB_KV:
        return &request->kv->page_token;
    case AMP__ENV_REQUEST__VERB_SCHEDULE:
        return &request->schedule->page_token;
    case AMP__ENV_REQUEST__VERB_LIST:
        return &request->list->page_token;
    case AMP__ENV_REQUEST__VERB_INBOX:
        return &request->inbox->page_token;
    case AMP__ENV_REQUEST__VERB_HISTORY:
        return &request->history->page_token;
    case AMP__ENV_REQUEST__VERB_GET: /* of its events */
        return &request->get->page_token;
    default:
        abort(); /* no list */
    }
}

static int on_page(void *ctx, const Amp__EnvReply *reply)
{
    struct pages *pages = ctx;
    const char *token = reply->next_page_token != NULL ? reply->next_page_token : "";
    bool is_same = pages->token != NULL && strcmp(pages->token, token) == 0;
    free(pages->token);
    pages->token = *token != '\0' && !is_same ? xstrdup(token) : NULL; /* the same again would never end */
    return pages->on_page(pages->ctx, reply);
}

int cli_ask_pages(struct cli *cli, Amp__EnvRequest *request, int (*take)(void *ctx, const Amp__EnvReply *reply), void *ctx, struct amp_error *reterr)
{
    struct pages pages = {.on_page = take, .ctx = ctx};
    char **token = page_token_of(request), first[] = "";
    int status = 0;
    bool is_first_asked = request->verb_case == AMP__ENV_REQUEST__VERB_AGENTS || request->verb_case == AMP__ENV_REQUEST__VERB_KV; /* amp.md 10.1.2 */
    *token = is_first_asked ? first : NULL;
    do {
        status = cli_ask_env(cli, request, on_page, &pages, reterr);
        *token = pages.token;
    } while (status == 0 && reterr->code == AMP_OK && pages.token != NULL);
    *token = NULL;
    free(pages.token);
    return status == CLI_ENOUGH ? 0 : status;
}

int cli_request_pages(struct cli *cli, Amp__EnvRequest *request, int (*take)(void *ctx, const Amp__EnvReply *reply), void *ctx)
{
    struct amp_error err;
    int status = cli_ask_pages(cli, request, take, ctx, &err);
    return err.code == AMP_OK ? status : cli_fail(cli, &err, NULL);
}

int cli_request_task(struct cli *cli, const char *id, int (*take)(void *ctx, const Amp__EnvReply *reply), void *ctx)
{
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    query.id = (char *)id;
    query.has_events = query.events = true;
    request.verb_case = AMP__ENV_REQUEST__VERB_GET;
    request.get = &query;
    return cli_request_pages(cli, &request, take, ctx);
}

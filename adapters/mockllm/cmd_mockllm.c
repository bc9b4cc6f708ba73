/* amesh mockllm RULES [-- COMMAND…]: serves until it is ended, or as long as the command runs. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/loop.h"
#include "mockllm/mockllm.h"
#include "mockllm/rules.h"
#include "mockllm/server.h"

#define KEY_ANY "mock" /* clients want one, and the server takes any */

struct run {
    bool is_json;
    struct loop *loop;
    struct mock_rules rules;
    struct mock_server_options options;
    struct mock_server *server;
    char *key;
    pid_t child; /* 0: there is no command */
};

static void on_end(void *ctx, int signo)
{
    struct run *run = ctx;
    if (run->child)
        kill(run->child, signo); /* its end is ours */
    else
        loop_stop(run->loop, signo == SIGINT ? 130 : 0);
}

static void on_child(void *ctx, int signo)
{
    struct run *run = ctx;
    int status;
    (void)signo;
    if (run->child && waitpid(run->child, &status, WNOHANG) == run->child)
        loop_stop(run->loop, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static enum amp_code start_command(struct run *run, const char **command, struct amp_error *reterr)
{
    posix_spawnattr_t attributes;
    sigset_t none, ordinary;
    const char *const names[] = {"OPENAI_BASE_URL", "OPENAI_API_BASE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        setenv(names[i], mock_server_url(run->server), 1);
    setenv("OPENAI_API_KEY", run->key ? run->key : KEY_ANY, 1);
    sigemptyset(&none);
    sigemptyset(&ordinary);
    sigaddset(&ordinary, SIGPIPE);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &ordinary);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int status = posix_spawnp(&run->child, command[0], NULL, &attributes, (char *const *)command, environ);
    posix_spawnattr_destroy(&attributes);
    if (status == 0)
        return AMP_OK;
    run->child = 0;
    return amp_error_set(reterr, status == ENOENT ? AMP_NOT_FOUND : AMP_INVALID, "command", "cannot run %.200s: %s", command[0], strerror(status));
}

static void say_url(const struct run *run)
{
    printf(run->is_json ? "{\"url\":\"%s\"}\n" : "%s\n", mock_server_url(run->server));
    fflush(stdout);
}

static int serve(struct run *run, const char **command)
{
    struct amp_error err = {0};
    struct loop_signal *signals[] = {loop_signal_new(run->loop, SIGTERM, on_end, run), loop_signal_new(run->loop, SIGINT, on_end, run), loop_signal_new(run->loop, SIGCHLD, on_child, run)};
    enum amp_code code = mock_server_new(run->loop, &run->options, &run->rules, &run->server, &err);
    if (code == AMP_OK && command[0])
        code = start_command(run, command, &err);
    else if (code == AMP_OK)
        say_url(run);
    int status = code == AMP_OK ? loop_run(run->loop) : command_fail(run->is_json, &err);
    mock_server_free(run->server);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        loop_signal_free(signals[i]);
    return status;
}

static enum amp_code read_options(struct run *run, const struct command *command, struct command_args *args, struct amp_error *reterr)
{
    const char *port = command_value(command, args, "port"), *host = command_value(command, args, "host"), *record = command_value(command, args, "record");
    const char *key_file = command_value(command, args, "key-file");
    unsigned long number = port ? strtoul(port, NULL, 10) : 0;
    if (port && (!*port || strlen(port) > 5 || strspn(port, "0123456789") != strlen(port) || number > UINT16_MAX))
        return amp_error_set(reterr, AMP_INVALID, "port", "--port: \"%.40s\" is no port: 0 (any) to %u", port, UINT16_MAX);
    run->options.port = (uint16_t)number;
    run->options.host = host ? host : "127.0.0.1";
    enum amp_code code = key_file ? file_read_secret(key_file, &run->key, reterr) : AMP_OK;
    run->options.key = run->key;
    if (code != AMP_OK || !record)
        return code;
    int fd = open(record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    run->options.record = fd < 0 ? NULL : fdopen(fd, "a");
    return run->options.record ? AMP_OK : amp_error_set(reterr, AMP_INVALID, "record", "--record: cannot write %.200s: %s", record, strerror(errno));
}

static int run_mockllm(const struct command *command, struct command_args *args)
{
    struct amp_error err = {0};
    struct run run = {.is_json = command_flag(command, args, "json")};
    if (args->n_rest == 0) {
        amp_error_set(&err, AMP_INVALID, "", "which rules?");
        amp_error_hint(&err, "amesh mockllm RULES; `amesh help mockllm` shows an example");
        return command_fail(run.is_json, &err);
    }
    enum amp_code code = read_options(&run, command, args, &err);
    if (code == AMP_OK)
        code = mock_rules_read(args->rest[0], &run.rules, &err);
    if (code == AMP_OK)
        run.loop = loop_new();
    int status = code == AMP_OK ? serve(&run, args->rest + 1) : command_fail(run.is_json, &err);
    if (run.loop)
        loop_free(run.loop);
    if (run.options.record)
        fclose(run.options.record);
    mock_rules_done(&run.rules);
    free(run.key);
    return status;
}

static const struct command_option options[] = {
    {.name = "port", .arg = "N", .help = "port to listen on; default: any that is free"},
    {.name = "host", .arg = "ADDRESS", .help = "address to listen on; default: 127.0.0.1"},
    {.name = "record", .arg = "FILE", .help = "append a line of JSON per request: what was asked, and which rule answered", .complete = "files"},
    {.name = "key-file", .arg = "FILE", .help = "refuse requests that do not have the key in this file; default: any key will do", .complete = "files"},
    {0},
};

const struct command mockllm_commands[] = {
    {.name = "mockllm",
     .operands = "RULES [--] [COMMAND…]",
     .summary = "serve a scripted model with OpenAI's API",
     .details = "Chat completions, responses and embeddings, whole or as a stream, answered by the first rule of the file (YAML or JSON) that fits. It prints its base URL and serves until it is "
                "ended; with a command it runs that one with OPENAI_BASE_URL and OPENAI_API_KEY set, and ends with its exit status.\n\nRules:\n"
                "  rules:\n"
                "    - when: {user: 'weather in (\\w+)'}\n"
                "      call: {name: get_weather, arguments: {city: '{{1}}'}}\n"
                "    - when: {tool: get_weather}\n"
                "      say: It is {{result}} there.\n"
                "    - when: {user: overloaded}\n"
                "      fail: {status: 429, message: slow down, retryAfter: 1}\n"
                "    - say: You said {{user}}.\n"
                "      pace: 20ms\n\nExamples:\n  amesh mockllm rules.yaml\n  amesh mockllm --record asked.jsonl rules.yaml -- pytest -q",
     .options = options,
     .run = run_mockllm,
     .complete = "files"},
    {0},
};

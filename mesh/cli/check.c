/* amesh check: each check has a name, a result, a reason and a next step. A check that rests on a failed one is not tried. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bus.h"
#include "base/clock.h"
#include "base/jetstream.h"
#include "base/loop.h"
#include "cli/observe.h"
#include "cli/output.h"

#define CHECKS_MAX 16
#define RETRY_MS 250u
#define INFO_MAX_MS 2000 /* what the server is comes shortly after the connection */
#define INFO_PROBE_MS 5u
#define STREAM_MAX_MS 5000 /* an environment that has just begun looks for its stream, and makes it */
#define STREAM_PROBE_MS 50u
#define LOAD_WARN 80 /* per cent */
#define CANARY_KEY "amesh-check"

enum result { RESULT_OK, RESULT_WARNING, RESULT_FAILED };

struct item {
    const char *name;
    enum result result;
    char text[256], hint[256];
};

struct check {
    struct cli cli;
    struct item items[CHECKS_MAX];
    size_t count;
    char canary[AMP_ID_SIZE];
    struct js_canary_result stored; /* the stream's answer to our canary */
    char stream[256];               /* what the environment says of its stream; "": nothing */
    bool has_stream_failed;
    char damage[256]; /* of the journal, as the environment has found it; "": none */
};

static struct item *add(struct check *check, const char *name, enum result result, const char *fmt, ...) AMP_PRINTF(4, 5);
static struct item *add(struct check *check, const char *name, enum result result, const char *fmt, ...)
{
    struct item *item = &check->items[check->count < CHECKS_MAX ? check->count++ : CHECKS_MAX - 1];
    va_list args;
    *item = (struct item){.name = name, .result = result};
    va_start(args, fmt);
    vsnprintf(item->text, sizeof item->text, fmt, args);
    va_end(args);
    return item;
}

static void hint(struct item *item, const char *text)
{
    snprintf(item->hint, sizeof item->hint, "%s", text);
}

static bool failed_env(struct check *check, const char *name, const struct amp_error *err)
{
    if (err->code == AMP_OK)
        return false;
    struct item *item = add(check, name, RESULT_FAILED, "%.200s (AMESH-%04d)", err->message[0] != '\0' ? err->message : amp_code_info(err->code)->text,
                            (int)err->code);
    hint(item, err->hint[0] != '\0' ? err->hint : "amesh up, or amesh env beside a bus of your own");
    return true;
}

static void check_home(struct check *check)
{
    const char *path = check->cli.home.path;
    struct stat info;
    if (stat(path, &info) != 0) {
        bool is_named = check->cli.home.bus[0] != '\0';
        struct item *item = add(check, "home", is_named && errno == ENOENT ? RESULT_WARNING : RESULT_FAILED, "%.200s: %s", path, strerror(errno));
        hint(item, "amesh up makes it; AMESH_HOME names another");
        return;
    }
    if (access(path, R_OK | W_OK | X_OK) != 0)
        hint(add(check, "home", RESULT_FAILED, "%.200s is not yours to write", path), "another AMESH_HOME, or give the directory to your user");
    else if ((info.st_mode & 077) != 0)
        hint(add(check, "home", RESULT_WARNING, "%.200s can be read by others", path), "chmod 700 that directory");
    else
        add(check, "home", RESULT_OK, "%.200s", path);
}

static void check_server(struct check *check)
{
    struct cli *cli = &check->cli;
    const struct bus_info *info = bus_info(cli->bus);
    int64_t end = clock_mono_ms() + INFO_MAX_MS;
    while (info->version[0] == '\0' && clock_mono_ms() < end && bus_is_up(cli->bus))
        cli_pause(cli, INFO_PROBE_MS);
    if (info->version[0] == '\0') {
        hint(add(check, "server", RESULT_WARNING, "does not tell its version"), "amesh check again");
        return;
    }
    char size[PRINT_SHORT_SIZE];
    print_bytes(info->payload_max, size);
    bool is_old = info->major < 2 || (info->major == 2 && info->minor < 9);
    struct item *item = add(check, "server", is_old ? RESULT_FAILED : RESULT_OK, "nats-server %s, messages up to %s", info->version, size);
    if (is_old)
        hint(item, "a nats-server from 2.9 on");
    item = add(check, "jetstream", info->has_jetstream ? RESULT_OK : RESULT_WARNING,
               info->has_jetstream ? "on" : "off: direct calls are not kept while the environment is away");
    if (!info->has_jetstream)
        hint(item, "add \"jetstream { store_dir: /var/lib/nats }\" to nats-server's configuration, or start it with -js");
}

static bool check_bus(struct check *check)
{
    struct cli *cli = &check->cli;
    struct amp_error err = {0};
    if (cli->home.bus[0] == '\0') {
        hint(add(check, "bus", RESULT_FAILED, "no mesh runs in %.200s, and no bus is named", cli->home.path), "amesh up, or --bus URL, or AMESH_BUS");
        return false;
    }
    struct bus_options options = {.url = cli->home.bus, .creds = cli->home.creds[0] == '\0' ? NULL : cli->home.creds, .name = cli->from, .inbox = cli->home.inbox};
    if (cli->bus == NULL && bus_new(cli->loop, &options, &cli->bus, &err) != AMP_OK) {
        cli->bus = NULL;
        hint(add(check, "bus", RESULT_FAILED, "%.200s", err.message), err.hint[0] != '\0' ? err.hint : "amesh up, or start the nats-server that is named");
        return false;
    }
    if (!bus_is_up(cli->bus)) {
        hint(add(check, "bus", RESULT_FAILED, "%.200s does not answer", cli->home.bus), "amesh up, or start the nats-server that is named");
        return false;
    }
    add(check, "bus", RESULT_OK, "connected to %.200s", bus_info(cli->bus)->url);
    check_server(check);
    return true;
}

/* What is fullest; from LOAD_WARN on it is worth a look, as refusals are near. */
static void check_load(struct check *check, const Amp__EnvInfo *info)
{
    const Amp__Queue *queue = info->n_queues > 0 ? info->queues[0] : NULL, *sender = info->n_senders > 0 ? info->senders[0] : NULL;
    if (queue == NULL || queue->name == NULL || queue->max == 0)
        return;
    bool is_full = queue->used >= queue->max / 100 * LOAD_WARN, is_sender_full = sender != NULL && sender->max > 0 && sender->used >= sender->max / 100 * LOAD_WARN;
    struct item *item = add(check, "load", is_full || is_sender_full ? RESULT_WARNING : RESULT_OK, "fullest: %.40s %llu of %llu%s%.64s", queue->name, (unsigned long long)queue->used,
                            (unsigned long long)queue->max, is_sender_full ? "; at its quota: " : "", is_sender_full ? sender->name : "");
    if (is_full || is_sender_full)
        hint(item, "amesh task ls --open shows what waits; amesh env --quota says who may have how much");
}

static int on_stream(void *ctx, const Amp__EnvReply *reply)
{
    struct check *check = ctx;
    const Amp__EnvInfo *info = reply->info;
    snprintf(check->stream, sizeof check->stream, "%s", info != NULL && info->stream != NULL ? info->stream : "");
    check->has_stream_failed = info != NULL && info->stream_failed;
    return 0;
}

static int on_info(void *ctx, const Amp__EnvReply *reply)
{
    struct check *check = ctx;
    const Amp__EnvInfo *info = reply->info;
    if (info == NULL) {
        add(check, "environment", RESULT_OK, "answers");
        return 0;
    }
    add(check, "environment", RESULT_OK, "version %.32s, %u tasks, %u open", info->version != NULL ? info->version : "?", info->tasks, info->tasks_open);
    (void)on_stream(check, reply);
    check_load(check, info);
    snprintf(check->damage, sizeof check->damage, "%s", info->damage != NULL ? info->damage : "");
    if (info->damage == NULL && info->journal != NULL && strcmp(info->journal, "ok") != 0)
        hint(add(check, "journal", RESULT_FAILED, "refuses: %.200s", info->journal), "free the disk or repair it, then restart the environment");
    return 0;
}

static void ping(struct check *check, int (*on_reply)(void *ctx, const Amp__EnvReply *reply), struct amp_error *err)
{
    Amp__Ping ping = AMP__PING__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    request.verb_case = AMP__ENV_REQUEST__VERB_PING;
    request.ping = &ping;
    (void)cli_ask_env(&check->cli, &request, on_reply, check, err);
}

static bool check_environment(struct check *check)
{
    struct amp_error err = {0};
    ping(check, on_info, &err);
    if (failed_env(check, "environment", &err))
        return false;
    return check->items[check->count - 1].result != RESULT_FAILED;
}

static int on_read_back(void *ctx, const Amp__EnvReply *reply)
{
    struct check *check = ctx;
    const Amp__Json *value = reply->n_entries > 0 ? reply->entries[0]->value : NULL;
    return value != NULL && memmem(value->text.data, value->text.len, check->canary, strlen(check->canary)) != NULL ? 0 : 1;
}

/* Reading may go on, and writing too: but something that was written is not there any more. */
static void check_damage(struct check *check)
{
    if (check->damage[0] != '\0')
        hint(add(check, "damage", RESULT_FAILED, "%.230s (AMESH-%04d)", check->damage, AMP_CORRUPT),
             "amesh env verify says all that is damaged; restore a backup, or save what is sound: amesh env export --skip-corrupt");
}

/* A real write that is committed, read back and removed again. */
static void check_journal(struct check *check)
{
    char key[64], text[64];
    int64_t start = clock_mono_us();
    amp_id_new('k', clock_unix_ms(), check->canary);
    snprintf(key, sizeof key, CANARY_KEY "/%s", check->canary);
    snprintf(text, sizeof text, "\"%s\"", check->canary);
    Amp__Json value = AMP__JSON__INIT;
    Amp__Kv kv = AMP__KV__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    struct amp_error err = {0};
    value.text = (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
    kv.op = AMP__KV_OP__KV_PUT;
    kv.scope = AMP__KV_SCOPE__KV_SHARED;
    kv.key = key;
    kv.value = &value;
    request.verb_case = AMP__ENV_REQUEST__VERB_KV;
    request.kv = &kv;
    (void)cli_ask_env(&check->cli, &request, NULL, NULL, &err);
    if (failed_env(check, "journal", &err))
        return;
    int64_t committed = clock_mono_us();
    kv.op = AMP__KV_OP__KV_GET;
    kv.value = NULL;
    int differs = cli_ask_env(&check->cli, &request, on_read_back, check, &err);
    if (failed_env(check, "journal", &err))
        return;
    kv.op = AMP__KV_OP__KV_DELETE;
    (void)cli_ask_env(&check->cli, &request, NULL, NULL, &err);
    if (failed_env(check, "journal", &err))
        return;
    if (differs != 0)
        hint(add(check, "journal", RESULT_FAILED, "a value that was written is not what was read back"), "amesh task ls; restart the environment; report it");
    else
        add(check, "journal", RESULT_OK, "a write was committed in %.1f ms and read back", (double)(committed - start) / 1000);
}

static void on_canary(void *ctx, const struct js_canary_result *result)
{
    struct check *check = ctx;
    check->stored = *result;
    loop_stop(check->cli.loop, 0);
}

/* A message of ours must be stored and read back. Not everybody is permitted to do that; then it is the environment's word, which is at most 4 s old. */
static void try_stream(struct check *check)
{
    char subject[AMP_SUBJECT_SIZE], text[AMP_ID_SIZE];
    struct cli *cli = &check->cli;
    check->stored = (struct js_canary_result){.outcome = JS_DENIED};
    if (amp_subject_build(AMP_SUBJECT_CANARY, cli->from, NULL, NULL, subject, NULL) != AMP_OK)
        return;
    amp_id_new('k', clock_unix_ms(), text);
    (void)js_canary_start(cli->loop, cli->bus, "AMP_EVT", subject, text, on_canary, check);
    loop_run(cli->loop);
}

static bool is_stream(const struct check *check, const char *state)
{
    return strcmp(check->stream, state) == 0;
}

/* False: it is still being made. Nothing is wrong with a stream that an environment which has just begun has not asked for yet. */
static bool settle_stream(struct check *check)
{
    int64_t end = clock_mono_ms() + STREAM_MAX_MS;
    for (;;) {
        struct amp_error err = {0};
        bool is_behind = is_stream(check, "catching up"), is_made = !is_stream(check, "being made");
        if (is_behind || strncmp(check->stream, "ok", 2) == 0)
            try_stream(check);
        if (is_made && !(is_behind && check->stored.outcome == JS_MISSING))
            return true;
        if (clock_mono_ms() >= end || !bus_is_up(check->cli.bus))
            return is_made;
        cli_pause(&check->cli, STREAM_PROBE_MS);
        ping(check, on_stream, &err);
    }
}

static void check_stream(struct check *check)
{
    static const char why[] = "direct calls are not kept while the environment is away";
    if (check->stream[0] == '\0' || !bus_info(check->cli.bus)->has_jetstream)
        return; /* an older environment, or said already */
    if (!settle_stream(check)) {
        hint(add(check, "stream", RESULT_WARNING, "being made; until it is there, %s", why), "amesh check again in a moment");
        return;
    }
    bool is_caught_up = strncmp(check->stream, "ok", 2) == 0, is_on = is_caught_up || is_stream(check, "catching up");
    if (!is_on && !check->has_stream_failed)
        hint(add(check, "stream", RESULT_WARNING, "%s: %.150s", why, check->stream),
             "permit the environment what docs/operations.md names under \"Permissions on the bus\", and give its account JetStream");
    else if (!is_on || (check->stored.outcome != JS_OK && check->stored.outcome != JS_DENIED))
        hint(add(check, "stream", RESULT_FAILED, "%s: %.150s", why, is_on ? check->stored.text : check->stream),
             "make room on the disk of nats-server's store, and start nats-server again: none that was seen recovers by itself");
    else if (check->stored.outcome == JS_OK)
        add(check, "stream", RESULT_OK, "a message was stored in %.1f ms and read back%s", (double)check->stored.acked_us / 1000,
            is_caught_up ? check->stream + 2 : "; the environment is catching up");
    else
        add(check, "stream", RESULT_OK, "%.150s, says the environment", check->stream);
}

struct seen {
    size_t agents, instances, lost;
    char who[AMP_NAME_MAX + 1]; /* one that is lost */
};

static int on_agents(void *ctx, const Amp__EnvReply *reply)
{
    struct seen *seen = ctx;
    seen->agents += reply->n_agents;
    for (size_t i = 0; i < reply->n_agents; i++) {
        const Amp__AgentRecord *record = reply->agents[i];
        for (size_t j = 0; j < record->n_instances; j++) {
            seen->instances++;
            if (record->instances[j]->beat->state != AMP__INSTANCE_STATE__INSTANCE_STATE_LOST)
                continue;
            seen->lost++;
            snprintf(seen->who, sizeof seen->who, "%s", record->name);
        }
    }
    return 0;
}

static void check_agents(struct check *check)
{
    Amp__AgentQuery query = AMP__AGENT_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    struct amp_error err = {0};
    struct seen seen = {0};
    request.verb_case = AMP__ENV_REQUEST__VERB_AGENTS;
    request.agents = &query;
    (void)cli_ask_pages(&check->cli, &request, on_agents, &seen, &err);
    if (failed_env(check, "agents", &err))
        return;
    if (seen.lost > 0)
        hint(add(check, "agents", RESULT_WARNING, "%zu of %zu instances are silent, one of \"%s\"", seen.lost, seen.instances, seen.who),
             "amesh show AGENT; start it again");
    else if (seen.agents == 0)
        hint(add(check, "agents", RESULT_OK, "none yet"), "amesh run --name up -- tr a-z A-Z");
    else
        add(check, "agents", RESULT_OK, "%zu agent%s, %zu instance%s", seen.agents, seen.agents == 1 ? "" : "s", seen.instances,
            seen.instances == 1 ? "" : "s");
}

static void check_clock(struct check *check)
{
    struct timex state = {.modes = 0};
    int64_t now = clock_unix_ms();
    if (now < 1700000000000LL)
        hint(add(check, "clock", RESULT_FAILED, "this host's clock is years behind"), "set the clock; run an NTP service");
    else if (adjtimex(&state) < 0)
        add(check, "clock", RESULT_OK, "plausible; the kernel does not tell more here");
    else if ((state.status & STA_UNSYNC) != 0)
        hint(add(check, "clock", RESULT_OK, "plausible, but not synchronised by NTP"), "run an NTP service where several hosts share a mesh");
    else
        add(check, "clock", RESULT_OK, "synchronised, off by at most %.1f ms", (double)state.maxerror / 1000);
}

static bool run_all(struct check *check)
{
    check->count = 0;
    check_home(check);
    if (check_bus(check) && check_environment(check)) {
        check_damage(check);
        check_journal(check);
        check_stream(check);
        check_agents(check);
    }
    check_clock(check);
    for (size_t i = 0; i < check->count; i++) {
        if (check->items[i].result == RESULT_FAILED)
            return false;
    }
    return true;
}

static void print_text_form(const struct check *check, bool is_ok)
{
    static const char *const utf8[] = {"✓", "!", "✗"}, *const ascii[] = {"ok  ", "warn", "FAIL"};
    static const enum print_color colors[] = {PRINT_GREEN, PRINT_YELLOW, PRINT_RED};
    const struct print_style *style = &check->cli.out;
    for (size_t i = 0; i < check->count; i++) {
        const struct item *item = &check->items[i];
        char *text = print_line(item->text, 0);
        printf("%s%s%s %-12s %s\n", print_on(style, colors[item->result]), style->has_utf8 ? utf8[item->result] : ascii[item->result], print_off(style),
               item->name, text);
        if (item->hint[0] != '\0')
            printf("%s Try: %s\n", style->has_utf8 ? " " : "    ", item->hint);
        free(text);
    }
    fflush(stdout);
    if (!is_ok)
        fprintf(stderr, "the mesh has problems: see above\n");
}

static void print_json_form(const struct check *check, bool is_ok)
{
    static const char *const results[] = {"ok", "warning", "failed"};
    cJSON *json = cJSON_CreateObject();
    cJSON_AddBoolToObject(json, "ok", is_ok);
    cJSON *checks = cJSON_AddArrayToObject(json, "checks");
    for (size_t i = 0; i < check->count; i++) {
        const struct item *item = &check->items[i];
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "name", item->name);
        cJSON_AddBoolToObject(object, "ok", item->result != RESULT_FAILED);
        cJSON_AddStringToObject(object, "result", results[item->result]);
        cJSON_AddStringToObject(object, "message", item->text);
        if (item->hint[0] != '\0')
            cJSON_AddStringToObject(object, "hint", item->hint);
        cJSON_AddItemToArray(checks, object);
    }
    output_json(stdout, json);
}

/* Between two rounds the home is read again: `up` may have written it. */
static void pause_and_reopen(struct check *check)
{
    struct cli *cli = &check->cli;
    cli_pause(cli, RETRY_MS);
    if (cli->bus != NULL && !bus_is_up(cli->bus)) {
        bus_free(cli->bus);
        cli->bus = NULL;
    }
    struct home home;
    if (cli->bus == NULL && home_open(&home, command_value(cli->command, cli->args, "home"), command_value(cli->command, cli->args, "bus"), false, NULL) == AMP_OK)
        cli->home = home;
}

int observe_run_check(const struct command *command, struct command_args *args)
{
    struct check check = {.count = 0};
    uint32_t wait_ms = 0;
    int status = cli_init(&check.cli, command, args);
    if (status == 0)
        status = cli_operands(&check.cli, 0, 0);
    if (status == 0)
        status = cli_duration(&check.cli, "wait", &wait_ms);
    if (status == 0) {
        int64_t end = clock_mono_ms() + wait_ms;
        check.cli.loop = loop_new();
        bool is_ok = run_all(&check);
        while (!is_ok && clock_mono_ms() < end) {
            pause_and_reopen(&check);
            is_ok = run_all(&check);
        }
        if (check.cli.is_json)
            print_json_form(&check, is_ok);
        else
            print_text_form(&check, is_ok);
        status = is_ok ? 0 : 3;
    }
    cli_done(&check.cli);
    return status;
}

/* amesh kv get, put, del, ls: the memory of a conversation, of an agent, of the mesh. */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/agents.h"
#include "cli/commands.h"
#include "cli/context.h"
#include "cli/output.h"

struct kv {
    struct cli cli;
    Amp__Kv request;
    Amp__Json value;
    struct amp_buf text;
    cJSON *entries; /* of a list: gathered, or */
    struct print_table table;
};

static int read_scope(struct kv *kv)
{
    const struct cli *cli = &kv->cli;
    const char *context = command_value(cli->command, cli->args, "context");
    const char *agent = command_value(cli->command, cli->args, "agent");
    bool is_shared = command_flag(cli->command, cli->args, "shared");
    if ((context != NULL) + (agent != NULL) + is_shared > 1)
        return cli_usage(cli, "only one of --context, --agent and --shared may be given");
    if (context == NULL && agent == NULL && !is_shared)
        context = getenv("AMESH_CONTEXT"); /* inside of a task: its conversation */
    if (context == NULL && agent == NULL && !is_shared)
        return cli_usage(cli, "whose memory? give --context C, --agent A or --shared");
    kv->request.scope = is_shared ? AMP__KV_SCOPE__KV_SHARED : agent != NULL ? AMP__KV_SCOPE__KV_AGENT : AMP__KV_SCOPE__KV_CONTEXT;
    kv->request.owner = is_shared ? NULL : (char *)(agent != NULL ? agent : context);
    return is_shared ? 0 : cli_id(cli, agent != NULL ? "the agent" : "the context", kv->request.owner);
}

static int read_key(struct kv *kv)
{
    kv->request.key = (char *)kv->cli.args->rest[0];
    if (kv->request.key != NULL && kv->request.key[0] == '\0')
        return cli_usage(&kv->cli, "the key is empty");
    if (kv->request.key != NULL && strlen(kv->request.key) > AMP_KV_KEY_MAX)
        return cli_usage(&kv->cli, "a key has at most %u bytes", AMP_KV_KEY_MAX);
    return 0;
}

/* What is JSON is stored as it is, everything else as a string. */
static int read_value(struct kv *kv)
{
    const char *given = kv->cli.args->rest[1];
    struct amp_error err = {0};
    struct amp_bytes bytes = amp_bytes_of(given);
    struct amp_buf input;
    amp_buf_init(&input, AMP_KV_VALUE_MAX);
    enum amp_code code = AMP_OK;
    if (strcmp(given, "-") == 0) {
        amp_buf_done(&input);
        code = file_read("-", AMP_KV_VALUE_MAX, &input, &err);
        bytes = amp_buf_bytes(&input);
    }
    if (code == AMP_OK && amp_json_check(bytes, &amp_json_limits_default, NULL) == AMP_OK)
        code = amp_buf_append(&kv->text, bytes.data, bytes.len);
    else if (code == AMP_OK)
        code = amp_json_append_string(&kv->text, bytes);
    amp_buf_done(&input);
    if (code != AMP_OK && err.code == AMP_OK)
        amp_error_set(&err, AMP_TOO_LARGE, "", "a value has at most %u bytes", AMP_KV_VALUE_MAX);
    if (code != AMP_OK)
        return cli_fail(&kv->cli, &err, NULL);
    kv->value.text = (ProtobufCBinaryData){kv->text.len, kv->text.data};
    kv->request.value = &kv->value;
    return 0;
}

static void print_value(const struct kv *kv, const Amp__KvEntry *entry)
{
    struct amp_bytes text = {entry->value->text.data, entry->value->text.len};
    cJSON *json = NULL;
    if (command_flag(kv->cli.command, kv->cli.args, "raw") && amp_json_parse(text, &json, NULL) == AMP_OK && cJSON_IsString(json))
        print_text(stdout, &kv->cli.out, amp_bytes_of(json->valuestring));
    else
        print_text(stdout, &kv->cli.out, text);
    putchar('\n');
    cJSON_Delete(json);
}

static int on_get(void *ctx, const Amp__EnvReply *reply)
{
    struct kv *kv = ctx;
    if (reply->n_entries == 0 || reply->entries[0]->value == NULL)
        return cli_fail_with(&kv->cli, AMP_NOT_FOUND, "there is no key \"%s\"", kv->request.key);
    if (kv->cli.is_json)
        output_message(stdout, &reply->entries[0]->base);
    else
        print_value(kv, reply->entries[0]);
    return 0;
}

static int on_change(void *ctx, const Amp__EnvReply *reply)
{
    struct kv *kv = ctx;
    if (!kv->cli.is_json)
        return 0;
    if (reply->n_entries > 0)
        output_message(stdout, &reply->entries[0]->base);
    else
        printf("{}\n");
    return 0;
}

static int on_entries(void *ctx, const Amp__EnvReply *reply)
{
    struct kv *kv = ctx;
    for (size_t i = 0; i < reply->n_entries; i++) {
        const Amp__KvEntry *entry = reply->entries[i];
        char version[16], value[256] = "";
        if (kv->cli.is_json) {
            cJSON_AddItemToArray(kv->entries, agents_message_json(&entry->base));
            continue;
        }
        snprintf(version, sizeof version, "%u", entry->version);
        if (entry->value != NULL)
            snprintf(value, sizeof value, "%.*s", (int)entry->value->text.len, (const char *)entry->value->text.data);
        const char *cells[] = {entry->key, version, value};
        print_table_add(&kv->table, cells);
    }
    return 0;
}

static int list_entries(struct kv *kv, Amp__EnvRequest *request)
{
    static const char *const columns[] = {"KEY", "VERSION", "VALUE"};
    print_table_init(&kv->table, columns, 3);
    kv->entries = cJSON_CreateArray();
    int status = cli_request_pages(&kv->cli, request, on_entries, kv);
    if (status == 0 && kv->cli.is_json) {
        cJSON *json = cJSON_CreateObject();
        cJSON_AddItemToObject(json, "entries", kv->entries);
        kv->entries = NULL;
        output_json(stdout, json);
    } else if (status == 0 && kv->table.n_rows > 0) {
        print_table_write(stdout, &kv->cli.out, &kv->table, -1);
    }
    cJSON_Delete(kv->entries);
    print_table_done(&kv->table);
    return status;
}

static int run_op(const struct command *command, struct command_args *args, Amp__KvOp op)
{
    static const struct {
        size_t min, max;
        int (*on_reply)(void *ctx, const Amp__EnvReply *reply);
    } ops[] = {
        [AMP__KV_OP__KV_GET] = {1, 1, on_get},
        [AMP__KV_OP__KV_PUT] = {2, 2, on_change},
        [AMP__KV_OP__KV_DELETE] = {1, 1, on_change},
        [AMP__KV_OP__KV_LIST] = {0, 1, NULL},
    };
    struct kv kv = {.request = AMP__KV__INIT, .value = AMP__JSON__INIT};
    amp_buf_init(&kv.text, AMP_KV_VALUE_MAX);
    int status = cli_init(&kv.cli, command, args);
    kv.request.op = op;
    if (status == 0)
        status = cli_operands(&kv.cli, ops[op].min, ops[op].max);
    if (status == 0)
        status = read_scope(&kv);
    if (status == 0)
        status = read_key(&kv);
    if (status == 0 && op == AMP__KV_OP__KV_PUT)
        status = read_value(&kv);
    if (status == 0 && (op == AMP__KV_OP__KV_PUT || op == AMP__KV_OP__KV_DELETE)) {
        kv.request.has_if_version = command_value(command, args, "if-version") != NULL;
        status = cli_number(&kv.cli, "if-version", 0, UINT32_MAX, &kv.request.if_version);
    }
    if (status == 0)
        status = cli_connect(&kv.cli);
    if (status == 0) {
        Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
        request.verb_case = AMP__ENV_REQUEST__VERB_KV;
        request.kv = &kv.request;
        status = op == AMP__KV_OP__KV_LIST ? list_entries(&kv, &request) : cli_request(&kv.cli, &request, ops[op].on_reply, &kv);
    }
    cli_done(&kv.cli);
    amp_buf_done(&kv.text);
    return status;
}

static int run_get(const struct command *command, struct command_args *args)
{
    return run_op(command, args, AMP__KV_OP__KV_GET);
}

static int run_put(const struct command *command, struct command_args *args)
{
    return run_op(command, args, AMP__KV_OP__KV_PUT);
}

static int run_del(const struct command *command, struct command_args *args)
{
    return run_op(command, args, AMP__KV_OP__KV_DELETE);
}

static int run_ls(const struct command *command, struct command_args *args)
{
    return run_op(command, args, AMP__KV_OP__KV_LIST);
}

#define SCOPE_OPTIONS                                                                                              \
    {.name = "context", .letter = 'c', .arg = "C", .help = "memory of this conversation", .complete = "contexts"}, \
        {.name = "agent", .letter = 'a', .arg = "A", .help = "memory of this agent", .complete = "agents"},        \
    {                                                                                                              \
        .name = "shared", .help = "memory of the whole mesh"                                                       \
    }

static const struct command_option get_options[] = {
    SCOPE_OPTIONS,
    {.name = "raw", .letter = 'r', .help = "print a string without its quotes"},
    {0},
};
static const struct command_option change_options[] = {
    SCOPE_OPTIONS,
    {.name = "if-version", .arg = "N", .help = "only if the key has this version now; 0: only if it is absent. Else exit 8"},
    {0},
};
static const struct command_option list_options[] = {SCOPE_OPTIONS, {0}};
static const struct command_option no_options[] = {{0}};

const struct command kv_commands[] = {
    {.name = "kv",
     .operands = "COMMAND",
     .summary = "memory of conversations and agents: get, put, del, ls",
     .details = "Inside of a task the conversation is the task's own, unless an option says otherwise.\n\nExamples:\n  amesh kv put --shared colour blue\n  amesh kv get --shared "
                "colour\n  amesh kv ls --context c-01hq3b",
     .options = no_options},
    {.name = "kv get",
     .operands = "KEY",
     .summary = "print a value",
     .details = "The value is printed as JSON. Exit code 4 if there is none.\n\nExamples:\n  amesh kv get --shared colour\n  amesh kv get --raw --context c-01hq3b name",
     .options = get_options,
     .run = run_get},
    {.name = "kv put",
     .operands = "KEY VALUE",
     .summary = "store a value",
     .details = "VALUE is stored as JSON if it is JSON, else as a string; \"-\" reads standard input.\n\nExamples:\n  amesh kv put --shared colour blue\n  amesh kv put --agent up "
                "limits '{\"max\":3}'\n  amesh kv put --shared leader me --if-version 0",
     .options = change_options,
     .run = run_put},
    {.name = "kv del",
     .operands = "KEY",
     .summary = "delete a key",
     .details = "Examples:\n  amesh kv del --shared colour",
     .options = change_options,
     .run = run_del},
    {.name = "kv ls",
     .operands = "[PREFIX]",
     .summary = "list keys and values",
     .details = "Examples:\n  amesh kv ls --shared\n  amesh kv ls --context c-01hq3b notes/",
     .options = list_options,
     .run = run_ls},
    {0},
};

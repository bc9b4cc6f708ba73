/* amesh task emit, amesh task ask: for programs that work on a task (spec/local-api.md 6). They speak one line of JSON-RPC on AMESH_SOCK: a plain blocking
 * socket, because nothing else happens in this process. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/media_type.h"
#include "cli/commands.h"
#include "cli/context.h"
#include "cli/message.h"
#include "cli/output.h"

struct inside {
    struct cli cli;
    int fd;
    struct amp_buf in; /* bytes read and not yet taken */
};

static const char *task_id(const struct inside *inside)
{
    const char *task = command_value(inside->cli.command, inside->cli.args, "task");
    return task != NULL ? task : getenv("AMESH_TASK");
}

static int dial(struct inside *inside)
{
    const char *path = getenv("AMESH_SOCK");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || *path == '\0')
        return cli_fail_with(&inside->cli, AMP_NO_SIDECAR, "AMESH_SOCK is not set: this command works inside of an agent");
    if (task_id(inside) == NULL)
        return cli_usage(&inside->cli, "which task? AMESH_TASK is not set and --task is not given");
    if (strlen(path) >= sizeof address.sun_path)
        return cli_fail_with(&inside->cli, AMP_INVALID, "AMESH_SOCK is longer than %zu bytes", sizeof address.sun_path - 1);
    memcpy(address.sun_path, path, strlen(path));
    inside->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (inside->fd < 0 || connect(inside->fd, (struct sockaddr *)&address, sizeof address) != 0)
        return cli_fail_with(&inside->cli, AMP_NO_SIDECAR, "%s: %s", path, strerror(errno));
    return 0;
}

/* Writes {"jsonrpc":"2.0","id":<id>,"method":…,"params":…}; takes params over. */
static int send_request(struct inside *inside, int id, const char *method, cJSON *params)
{
    cJSON *request = cJSON_CreateObject();
    cJSON_AddStringToObject(request, "jsonrpc", "2.0");
    cJSON_AddNumberToObject(request, "id", id);
    cJSON_AddStringToObject(request, "method", method);
    cJSON_AddItemToObject(request, "params", params);
    char *text = cJSON_PrintUnformatted(request);
    cJSON_Delete(request);
    struct amp_buf line;
    amp_buf_init(&line, AMP_LINE_MAX);
    int status = 0;
    if (text == NULL || amp_buf_printf(&line, "%s\n", text) != AMP_OK)
        status = cli_fail_with(&inside->cli, AMP_TOO_LARGE, "what is to be sent has more than %u bytes", AMP_LINE_MAX);
    cJSON_free(text);
    for (size_t done = 0; status == 0 && done < line.len;) {
        ssize_t n = send(inside->fd, line.data + done, line.len - done, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            status = cli_fail_with(&inside->cli, AMP_NO_SIDECAR, "the sidecar closed the connection: %s", strerror(errno));
        else if (n > 0)
            done += (size_t)n;
    }
    amp_buf_done(&line);
    return status;
}

/* The next whole line as JSON, NULL when the connection is over. */
static cJSON *read_frame(struct inside *inside)
{
    for (;;) {
        uint8_t *end = inside->in.len > 0 ? memchr(inside->in.data, '\n', inside->in.len) : NULL;
        if (end != NULL) {
            size_t len = (size_t)(end - inside->in.data);
            cJSON *json = NULL;
            enum amp_code code = amp_json_parse((struct amp_bytes){inside->in.data, len}, &json, NULL);
            inside->in.len -= len + 1;
            memmove(inside->in.data, end + 1, inside->in.len);
            if (code == AMP_OK)
                return json;
            continue;
        }
        uint8_t chunk[4096];
        ssize_t n = read(inside->fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || amp_buf_append(&inside->in, chunk, (size_t)n) != AMP_OK)
            return NULL;
    }
}

static int fail_with_reply(const struct inside *inside, const cJSON *error)
{
    const cJSON *data = cJSON_GetObjectItemCaseSensitive(error, "data");
    const cJSON *message = cJSON_GetObjectItemCaseSensitive(error, "message"), *hint = cJSON_GetObjectItemCaseSensitive(data, "hint");
    const cJSON *code = cJSON_GetObjectItemCaseSensitive(data, "code");
    struct amp_error err = {0};
    int number = AMP_INVALID;
    if (cJSON_IsString(code) && strncmp(code->valuestring, "AMESH-", 6) == 0)
        number = atoi(code->valuestring + 6);
    amp_error_set(&err, amp_code_info((enum amp_code)number)->code, "", "%s", cJSON_IsString(message) ? message->valuestring : "refused");
    if (cJSON_IsString(hint))
        amp_error_hint(&err, "%s", hint->valuestring);
    return cli_fail(&inside->cli, &err, NULL);
}

/* Waits for the reply `id`. *ret_result (may be NULL) is the caller's. */
static int wait_reply(struct inside *inside, int id, cJSON **ret_result)
{
    for (;;) {
        cJSON *frame = read_frame(inside);
        if (frame == NULL)
            return cli_fail_with(&inside->cli, AMP_NO_SIDECAR, "the sidecar closed the connection without an answer");
        const cJSON *got = cJSON_GetObjectItemCaseSensitive(frame, "id");
        const cJSON *error = cJSON_GetObjectItemCaseSensitive(frame, "error");
        bool is_ours = cJSON_IsNumber(got) && got->valueint == id;
        int status = -1;
        if (error != NULL && (is_ours || !cJSON_IsNumber(got))) {
            status = fail_with_reply(inside, error);
        } else if (is_ours) {
            status = 0;
            if (ret_result != NULL)
                *ret_result = cJSON_DetachItemFromObjectCaseSensitive(frame, "result");
        }
        cJSON_Delete(frame);
        if (status >= 0)
            return status;
    }
}

static int open_inside(struct inside *inside, const struct command *command, struct command_args *args)
{
    inside->fd = -1;
    amp_buf_init(&inside->in, AMP_LINE_MAX + 4096);
    int status = cli_init(&inside->cli, command, args);
    return status != 0 ? status : cli_operands(&inside->cli, 1, 3);
}

static void close_inside(struct inside *inside)
{
    if (inside->fd >= 0)
        close(inside->fd);
    amp_buf_done(&inside->in);
    cli_done(&inside->cli);
}

/* ---- emit -------------------------------------------------------------------------------------------- */

static cJSON *json_or_text(const char *text)
{
    cJSON *json = NULL;
    if (amp_json_parse(amp_bytes_of(text), &json, NULL) == AMP_OK)
        return json;
    return cJSON_CreateString(text);
}

/* A file that the sidecar can read by itself, whatever its size. */
static bool is_local_file(const char *path)
{
    struct stat info;
    return path != NULL && strcmp(path, "-") != 0 && stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static void add_local_file(cJSON *parts, const char *path, const char *base)
{
    char whole[PATH_MAX];
    cJSON *part = cJSON_CreateObject();
    cJSON_AddStringToObject(part, "file", realpath(path, whole) != NULL ? whole : path);
    cJSON_AddStringToObject(part, "filename", base);
    cJSON_AddStringToObject(part, "mediaType", media_type_of(base));
    cJSON_AddItemToArray(parts, part);
}

static int artifact_event(const struct inside *inside, cJSON *event)
{
    const char *path = command_value(inside->cli.command, inside->cli.args, "file");
    const char *name = command_value(inside->cli.command, inside->cli.args, "name");
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;
    const char *base = slash != NULL ? slash + 1 : path;
    struct message_source source = {.text = inside->cli.args->rest[1], .files = path != NULL && !is_local_file(path) ? (const char *[]){path, NULL} : NULL};
    struct amp_arena arena;
    struct amp_error err = {0};
    Amp__Message *message = NULL;
    if (path == NULL && source.text == NULL)
        return cli_usage(&inside->cli, "an artifact needs --file F or a text");
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    int status = 0;
    struct amp_buf json;
    amp_buf_init(&json, (size_t)2 * AMP_WIRE_BYTES_MAX);
    cJSON *whole = NULL;
    enum amp_code code = message_make(&source, &arena, &message, &err);
    if (code == AMP_OK)
        code = amp_encode(&message->base, AMP_JSON, &json, &err);
    if (code == AMP_OK)
        code = amp_json_parse(amp_buf_bytes(&json), &whole, &err);
    if (code != AMP_OK) {
        status = cli_fail(&inside->cli, &err, NULL);
    } else {
        cJSON *parts = cJSON_DetachItemFromObjectCaseSensitive(whole, "parts");
        parts = parts != NULL ? parts : cJSON_CreateArray();
        if (is_local_file(path))
            add_local_file(parts, path, base);
        cJSON_AddItemToObject(event, "parts", parts);
        cJSON_AddStringToObject(event, "name", name != NULL ? name : base != NULL ? base : "artifact");
    }
    cJSON_Delete(whole);
    amp_buf_done(&json);
    amp_arena_done(&arena);
    return status;
}

/* TYPE and its operands → the local event (local-api.md 4). */
static int fill_event(const struct inside *inside, cJSON *event)
{
    static const struct {
        const char *word, *type, *first, *second;
        bool is_second_json;
    } kinds[] = {
        {"text", "text", "text", NULL, false},           {"reasoning", "reasoning", "text", NULL, false},
        {"status", "status", "text", NULL, false},       {"log", "log", "text", "level", false},
        {"tool", "tool_call", "name", "args", true},     {"tool-result", "tool_result", "name", "output", true},
        {"step", "step", "name", "phase", false},        {"custom", "custom", "name", "value", true},
    };
    const struct command_args *args = inside->cli.args;
    const char *word = args->rest[0];
    if (strcmp(word, "artifact") == 0) {
        cJSON_AddStringToObject(event, "type", "artifact");
        return artifact_event(inside, event);
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(word, kinds[i].word) != 0)
            continue;
        cJSON_AddStringToObject(event, "type", kinds[i].type);
        if (args->n_rest < 2)
            return cli_usage(&inside->cli, "task emit %s needs a %s", word, kinds[i].first);
        cJSON_AddStringToObject(event, kinds[i].first, args->rest[1]);
        const char *call = command_value(inside->cli.command, args, "call");
        if (strncmp(word, "tool", 4) == 0)
            cJSON_AddStringToObject(event, "callId", call != NULL ? call : args->rest[1]);
        if (args->n_rest > 2 && kinds[i].second == NULL)
            return cli_usage(&inside->cli, "task emit %s takes one text; quote it", word);
        if (args->n_rest > 2)
            cJSON_AddItemToObject(event, kinds[i].second, kinds[i].is_second_json ? json_or_text(args->rest[2]) : cJSON_CreateString(args->rest[2]));
        else if (strcmp(word, "step") == 0)
            cJSON_AddStringToObject(event, "phase", "start");
        else if (strcmp(word, "log") == 0)
            cJSON_AddStringToObject(event, "level", "info");
        return 0;
    }
    return cli_usage(&inside->cli, "task emit does not know \"%s\": text, reasoning, status, log, tool, tool-result, step, custom or artifact", word);
}

static int run_emit(const struct command *command, struct command_args *args)
{
    struct inside inside;
    int status = open_inside(&inside, command, args);
    cJSON *event = cJSON_CreateObject();
    if (status == 0)
        status = fill_event(&inside, event);
    if (status == 0)
        status = dial(&inside);
    if (status == 0) {
        cJSON *params = cJSON_CreateObject();
        cJSON_AddStringToObject(params, "taskId", task_id(&inside));
        cJSON_AddItemToObject(params, "event", event);
        event = NULL;
        status = send_request(&inside, 1, "task.event", params);
        if (status == 0)
            status = wait_reply(&inside, 1, NULL);
    }
    cJSON_Delete(event);
    close_inside(&inside);
    return status;
}

/* ---- ask --------------------------------------------------------------------------------------------- */

/* VALUE or VALUE=LABEL. */
static cJSON *option_json(const char *text)
{
    const char *equals = strchr(text, '=');
    if (equals == NULL)
        return cJSON_CreateString(text);
    char *value = xstrndup(text, (size_t)(equals - text));
    cJSON *option = cJSON_CreateObject();
    cJSON_AddStringToObject(option, "value", value);
    cJSON_AddStringToObject(option, "label", equals + 1);
    free(value);
    return option;
}

/* A schema as it is, or of a file: @F. */
static int add_schema(const struct inside *inside, const char *text, cJSON *params)
{
    struct amp_buf buf;
    struct amp_error err = {0};
    cJSON *schema = NULL;
    enum amp_code code = AMP_OK;
    amp_buf_init(&buf, AMP_LINE_MAX);
    if (text[0] == '@')
        code = file_read(text + 1, AMP_LINE_MAX, &buf, &err);
    if (code == AMP_OK && (code = amp_json_parse(text[0] == '@' ? amp_buf_bytes(&buf) : amp_bytes_of(text), &schema, &err)) != AMP_OK)
        amp_error_hint(&err, "--schema takes a JSON object, or @FILE");
    amp_buf_done(&buf);
    if (code != AMP_OK)
        return cli_fail(&inside->cli, &err, NULL);
    cJSON_AddItemToObject(params, "schema", schema);
    return 0;
}

static int fill_question(const struct inside *inside, cJSON *params)
{
    const struct command *command = inside->cli.command;
    const struct command_args *args = inside->cli.args;
    const char **options = command_values(command, args, "option"), *schema = command_value(command, args, "schema"), *fallback = command_value(command, args, "default");
    uint32_t expires_ms = 0;
    int status = cli_duration(&inside->cli, "expires-in", &expires_ms);
    cJSON_AddStringToObject(params, "taskId", task_id(inside));
    cJSON_AddStringToObject(params, "prompt", args->rest[0]);
    if (options != NULL) {
        cJSON *list = cJSON_AddArrayToObject(params, "options");
        for (; *options != NULL; options++)
            cJSON_AddItemToArray(list, option_json(*options));
    }
    if (command_flag(command, args, "multiple"))
        cJSON_AddTrueToObject(params, "multiple");
    if (command_flag(command, args, "other"))
        cJSON_AddTrueToObject(params, "other");
    if (fallback != NULL) /* JSON where there is something that says so */
        cJSON_AddItemToObject(params, "default", schema != NULL || command_flag(command, args, "multiple") ? json_or_text(fallback) : cJSON_CreateString(fallback));
    if (expires_ms > 0)
        cJSON_AddNumberToObject(params, "expiresMs", expires_ms);
    return status == 0 && schema != NULL ? add_schema(inside, schema, params) : status;
}

static int run_task_ask(const struct command *command, struct command_args *args)
{
    struct inside inside;
    int status = open_inside(&inside, command, args);
    if (status == 0)
        status = cli_operands(&inside.cli, 1, 1);
    if (status == 0)
        status = dial(&inside);
    cJSON *result = NULL;
    if (status == 0) {
        cJSON *params = cJSON_CreateObject();
        status = fill_question(&inside, params);
        if (status == 0)
            status = send_request(&inside, 1, "task.ask", params);
        else
            cJSON_Delete(params);
    }
    if (status == 0)
        status = wait_reply(&inside, 1, &result);
    if (status == 0 && inside.cli.is_json) {
        output_json(stdout, result);
        result = NULL;
    } else if (status == 0) {
        const cJSON *text = cJSON_GetObjectItemCaseSensitive(result, "text");
        printf("%s\n", cJSON_IsString(text) ? text->valuestring : "");
    }
    cJSON_Delete(result);
    close_inside(&inside);
    return status;
}

static const struct command_option emit_options[] = {
    {.name = "file", .letter = 'f', .arg = "F", .help = "artifact: its content", .complete = "files"},
    {.name = "name", .letter = 'n', .arg = "N", .help = "artifact: its name"},
    {.name = "call", .arg = "ID", .help = "tool, tool-result: which call (default: the tool's name)"},
    {.name = "task", .letter = 't', .arg = "T", .help = "the task (default: AMESH_TASK)"},
    {0},
};
static const struct command_option ask_options[] = {
    {.name = "option", .letter = 'o', .arg = "V[=LABEL]", .help = "one of the answers to choose from; again for each", .is_repeatable = true},
    {.name = "multiple", .letter = 'm', .help = "several options may be chosen; the answer is a JSON list"},
    {.name = "other", .help = "an answer that is none of the options is fine too"},
    {.name = "schema", .arg = "JSON", .help = "what the answer must be: a JSON Schema, or @FILE"},
    {.name = "expires-in", .arg = "TIME", .help = "how long the question waits; exit 6 then, unless there is a default"},
    {.name = "default", .arg = "V", .help = "the answer when nobody answers in time"},
    {.name = "task", .letter = 't', .arg = "T", .help = "the task (default: AMESH_TASK)"},
    {0},
};

const struct command inside_commands[] = {
    {.name = "task emit",
     .operands = "TYPE [NAME|TEXT] [VALUE]",
     .summary = "inside of a task: report text, a tool call, a step, an artifact …",
     .details = "Types: text TEXT, reasoning TEXT, status TEXT, log TEXT [LEVEL], tool NAME [ARGS], tool-result NAME [OUTPUT], step NAME [start|end], custom NAME [VALUE], "
                "artifact [TEXT]. ARGS, OUTPUT and VALUE are JSON, or text.\n\nExamples:\n  amesh task emit status \"reading\"\n  amesh task emit tool search "
                "'{\"q\":\"nats\"}'\n  amesh task emit artifact --file report.pdf --name report",
     .options = emit_options,
     .run = run_emit},
    {.name = "task ask",
     .operands = "PROMPT",
     .summary = "inside of a task: ask whoever asked, print the answer",
     .details = "The task waits for input until the answer comes. Several may be asked at once, each by a command of its own.\n\nExamples:\n  name=$(amesh task ask \"What is your "
                "name?\")\n  go=$(amesh task ask \"Deploy?\" -o yes -o no --expires-in 10m --default no)\n  n=$(amesh task ask \"How many?\" --schema "
                "'{\"type\":\"integer\",\"minimum\":1}')",
     .options = ask_options,
     .run = run_task_ask},
    {0},
};

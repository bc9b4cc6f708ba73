#include "cli/error.h"

#include <cjson/cJSON.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cli/print.h"

const char *error_default_hint(enum amp_code code)
{
    switch (code) {
    case AMP_NO_SUCH_AGENT:
    case AMP_NO_SUCH_SKILL:
        return "amesh ls";
    case AMP_NO_SUCH_TASK:
    case AMP_TASK_ENDED:
        return "amesh task ls";
    case AMP_NO_BUS:
        return "amesh up, or name a running bus with --bus or AMESH_BUS";
    case AMP_NO_ENV:
        return "amesh up, or amesh env beside a bus of your own; amesh check says more";
    case AMP_BUSY:
        return "again later, without --no-wait, or with --durable to queue it";
    case AMP_DENIED:
        return "ask the operator for the permission, or give other credentials with AMESH_CREDS";
    case AMP_DEADLINE:
        return "a longer --timeout; amesh task ls --open shows what still runs";
    case AMP_JOURNAL:
        return "amesh check says why; free the disk and restart the environment";
    case AMP_CORRUPT:
        return "amesh env verify says all that is damaged";
    case AMP_AGENT_DIED:
        return "amesh show AGENT for its deaths";
    case AMP_INSTANCE_LOST:
        return "amesh show AGENT for its instances";
    case AMP_NO_QUESTION:
        return "amesh inbox for what waits for an answer";
    case AMP_NOT_FOUND:
        return "check the name: what is there is listed by amesh ls, task ls, schedule ls, inbox and kv ls";
    case AMP_RUNNING:
        return "amesh down, or another AMESH_HOME";
    case AMP_INPUT_REQUIRED:
        return "answer with amesh ask --task ID TEXT";
    case AMP_TASK_FAILED:
    case AMP_REJECTED:
    case AMP_CANCELED:
        return "amesh task show ID for what happened";
    case AMP_FRAMES_LOST:
        return "amesh task show ID has what the environment heard of it; with --durable nothing gets lost";
    case AMP_ATTEMPTS:
        return "amesh task show ID for what happened; amesh task retry ID once that is mended";
    case AMP_NO_SIDECAR:
        return "run it inside an agent that amesh run started";
    case AMP_INVALID:
    case AMP_MALFORMED:
        return "amesh help";
    case AMP_TOO_LARGE:
        return "send less, or pass a reference (a URL or a path) instead of the content";
    default:
        return "amesh check";
    }
}

/* What fits this one better than what is said of its code. */
static const char *hint_of(const struct amp_error *err, char *ret, size_t size)
{
    char after[PRINT_SHORT_SIZE];
    if (err->hint[0] != '\0')
        return err->hint;
    if (err->code == AMP_CONFLICT && strncmp(err->field, "answer", 6) == 0)
        return "amesh inbox for what still waits; the first answer is the one that counts";
    if ((err->code != AMP_QUOTA && err->code != AMP_OVERLOADED) || err->retry_after_ms == 0)
        return error_default_hint(err->code);
    print_duration(err->retry_after_ms, after);
    snprintf(ret, size, "again in %s", after);
    return ret;
}

void error_death_cause(const Amp__Death *death, char *ret, size_t size)
{
    const char *why = death->has_oom && death->oom ? " (out of memory)" : death->has_by_sidecar && death->by_sidecar ? " by its sidecar" : "";
    if (death->has_signal) {
        const char *name = sigabbrev_np(death->signal);
        if (name != NULL)
            snprintf(ret, size, "killed by SIG%s%s", name, why);
        else
            snprintf(ret, size, "killed by signal %d%s", (int)death->signal, why);
    } else if (death->has_exit_code) {
        snprintf(ret, size, "exited with %d%s", (int)death->exit_code, why);
    } else {
        snprintf(ret, size, "lost its connection%s", why);
    }
}

void error_print_death(FILE *to, const struct print_style *style, const Amp__Death *death, const char *indent)
{
    char cause[96], at[PRINT_SHORT_SIZE], rss[PRINT_SHORT_SIZE], cpu[PRINT_SHORT_SIZE];
    error_death_cause(death, cause, sizeof cause);
    print_clock(death->at != NULL ? death->at->unix_ms : 0, at);
    print_bytes(death->rss_max_bytes, rss);
    print_duration(death->cpu_ms, cpu);
    char *instance = print_line(death->instance != NULL ? death->instance : "?", 64);
    fprintf(to, "%s%s  %s %s%s%s", indent, at, instance, print_on(style, PRINT_RED), cause, print_off(style));
    free(instance);
    if (death->has_rss_max_bytes)
        fprintf(to, ", at most %s of memory", rss);
    if (death->has_cpu_ms)
        fprintf(to, ", %s of CPU", cpu);
    fputc('\n', to);
    for (size_t i = 0; i < death->n_tasks; i++) {
        char *task = print_line(death->tasks[i], 64);
        fprintf(to, "%s  task in flight: %s\n", indent, task);
        free(task);
    }
    for (size_t i = 0; i < death->n_stderr; i++) {
        char *line = print_line(death->stderr[i], 0);
        fprintf(to, "%s  %s|%s %s\n", indent, print_on(style, PRINT_DIM), print_off(style), line);
        free(line);
    }
}

/* "has no parts" says nothing without what it is said of. */
static const char *subject_of(const struct amp_error *err)
{
    static const char *const verbs[] = {"has ", "is ", "must "};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (strncmp(err->message, verbs[i], strlen(verbs[i])) == 0)
            return err->field;
    }
    return "";
}

static void print_error(FILE *to, const struct print_style *style, const struct amp_error *err, const Amp__Error *wire, const char *hint)
{
    const struct amp_code_info *info = amp_code_info(err->code);
    char *message = print_line(err->message[0] != '\0' ? err->message : info->text, 0);
    char *clean = print_line(hint, 0), *subject = print_line(subject_of(err), 0);
    size_t len = strlen(message);
    if (len > 0 && message[len - 1] == '.')
        message[len - 1] = '\0';
    fprintf(to, "%serror:%s %s%s%s (AMESH-%04d)%s%s\n", print_on(style, PRINT_RED), print_off(style), subject, *subject != '\0' ? " " : "", message, (int)err->code, *clean != '\0' ? ". Try: " : "", clean);
    if (wire != NULL && wire->death != NULL)
        error_print_death(to, style, wire->death, "  ");
    free(message);
    free(subject);
    free(clean);
}

void error_print(FILE *to, const struct print_style *style, const struct amp_error *err, const Amp__Error *wire)
{
    char hint[64];
    print_error(to, style, err, wire, hint_of(err, hint, sizeof hint));
}

void error_print_plain(FILE *to, const struct print_style *style, const struct amp_error *err, const Amp__Error *wire)
{
    print_error(to, style, err, wire, err->hint);
}

static void add_strings(cJSON *object, const char *name, char *const *items, size_t count)
{
    cJSON *array = cJSON_AddArrayToObject(object, name);
    for (size_t i = 0; i < count; i++)
        cJSON_AddItemToArray(array, cJSON_CreateString(items[i]));
}

cJSON *error_death_json(const Amp__Death *death)
{
    cJSON *json = cJSON_CreateObject();
    char time[AMP_TIME_SIZE];
    if (death->agent != NULL)
        cJSON_AddStringToObject(json, "agent", death->agent);
    if (death->instance != NULL)
        cJSON_AddStringToObject(json, "instance", death->instance);
    if (death->at != NULL) {
        amp_time_format(death->at->unix_ms, time);
        cJSON_AddStringToObject(json, "at", time);
    }
    cJSON_AddItemToObject(json, "exit_code", death->has_exit_code ? cJSON_CreateNumber(death->exit_code) : cJSON_CreateNull());
    cJSON_AddItemToObject(json, "signal", death->has_signal ? cJSON_CreateNumber(death->signal) : cJSON_CreateNull());
    cJSON_AddBoolToObject(json, "oom", death->has_oom && death->oom);
    cJSON_AddBoolToObject(json, "by_sidecar", death->has_by_sidecar && death->by_sidecar);
    add_strings(json, "stderr", death->stderr, death->n_stderr);
    add_strings(json, "tasks", death->tasks, death->n_tasks);
    cJSON_AddNumberToObject(json, "rss_max_bytes", (double)death->rss_max_bytes);
    cJSON_AddNumberToObject(json, "cpu_ms", (double)death->cpu_ms);
    if (death->has_pid)
        cJSON_AddNumberToObject(json, "pid", (double)death->pid);
    if (death->has_uptime_ms)
        cJSON_AddNumberToObject(json, "uptime_ms", (double)death->uptime_ms);
    return json;
}

void error_print_json(FILE *to, const struct amp_error *err, const Amp__Error *wire)
{
    const struct amp_code_info *info = amp_code_info(err->code);
    cJSON *root = cJSON_CreateObject(), *json = cJSON_AddObjectToObject(root, "error");
    char code[32], hint[64];
    snprintf(code, sizeof code, "AMESH-%04d", (int)err->code);
    cJSON_AddStringToObject(json, "code", code);
    cJSON_AddStringToObject(json, "name", info->name);
    cJSON_AddStringToObject(json, "message", err->message[0] != '\0' ? err->message : info->text);
    cJSON_AddStringToObject(json, "hint", hint_of(err, hint, sizeof hint));
    if (err->field[0] != '\0')
        cJSON_AddStringToObject(json, "field", err->field);
    if (err->retry_after_ms > 0)
        cJSON_AddNumberToObject(json, "retryAfterMs", err->retry_after_ms);
    if (wire != NULL && wire->death != NULL)
        cJSON_AddItemToObject(json, "death", error_death_json(wire->death));
    char *text = cJSON_PrintUnformatted(root);
    fprintf(to, "%s\n", text != NULL ? text : "{}");
    cJSON_free(text);
    cJSON_Delete(root);
}

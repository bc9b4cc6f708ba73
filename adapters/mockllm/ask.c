#include "mockllm/ask.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define TEXT_MAX (32u << 20)

struct reading {
    struct amp_buf system, user, tools, results;
    unsigned turn;
    size_t n_chars;
    const cJSON *calls; /* the last message with calls, or NULL */
    const cJSON *items; /* of responses: where a call is looked up */
    const cJSON *before;
};

static const char *text_of(const cJSON *object, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsString(value) ? value->valuestring : "";
}

static void add(struct amp_buf *to, const char *text)
{
    if (to->len)
        amp_buf_append(to, "\n", 1);
    amp_buf_append(to, text, strlen(text));
}

/* A text, or a list of parts: those that are text, a line each. */
static void add_content(struct amp_buf *to, const cJSON *content)
{
    const cJSON *part;
    if (cJSON_IsString(content))
        add(to, content->valuestring);
    else if (cJSON_IsArray(content))
        cJSON_ArrayForEach(part, content)
            if (cJSON_IsString(cJSON_GetObjectItemCaseSensitive(part, "text")))
                add(to, text_of(part, "text"));
}

static void forget_results(struct reading *reading)
{
    amp_buf_reset(&reading->tools);
    amp_buf_reset(&reading->results);
}

static void take_message(struct reading *reading, const cJSON *message)
{
    const char *role = text_of(message, "role");
    const cJSON *content = cJSON_GetObjectItemCaseSensitive(message, "content");
    struct amp_buf counted;
    amp_buf_init(&counted, TEXT_MAX);
    add_content(&counted, content);
    reading->n_chars += counted.len;
    amp_buf_done(&counted);
    if (strcmp(role, "system") == 0 || strcmp(role, "developer") == 0) {
        add_content(&reading->system, content);
    } else if (strcmp(role, "user") == 0) {
        amp_buf_reset(&reading->user);
        add_content(&reading->user, content);
        reading->turn++;
        forget_results(reading);
    } else {
        forget_results(reading);
    }
}

/* The name of the tool whose call this answers. */
static const char *name_of_call(const cJSON *calls, const char *id)
{
    const cJSON *call;
    cJSON_ArrayForEach(call, calls)
    {
        if (strcmp(text_of(call, "id"), id) == 0)
            return text_of(cJSON_GetObjectItemCaseSensitive(call, "function"), "name");
    }
    return "";
}

static void take_result(struct reading *reading, const char *tool, const cJSON *content)
{
    add(&reading->tools, *tool ? tool : "?");
    add_content(&reading->results, content);
    reading->n_chars += cJSON_IsString(content) ? strlen(content->valuestring) : 0;
}

static void take_chat(struct reading *reading, const cJSON *message)
{
    const cJSON *calls = cJSON_GetObjectItemCaseSensitive(message, "tool_calls"), *content = cJSON_GetObjectItemCaseSensitive(message, "content");
    const char *role = text_of(message, "role");
    if (strcmp(role, "tool") == 0) {
        take_result(reading, name_of_call(reading->calls, text_of(message, "tool_call_id")), content);
    } else if (strcmp(role, "function") == 0) {
        take_result(reading, text_of(message, "name"), content);
    } else {
        take_message(reading, message);
        reading->calls = calls ? calls : reading->calls;
    }
}

static const char *name_of_item(const cJSON *items, const char *id)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, items)
    {
        if (strcmp(text_of(item, "type"), "function_call") == 0 && strcmp(text_of(item, "call_id"), id) == 0)
            return text_of(item, "name");
    }
    return "";
}

static void take_item(struct reading *reading, const cJSON *item)
{
    const char *type = text_of(item, "type"), *id = text_of(item, "call_id");
    if (strcmp(type, "function_call_output") == 0) {
        const char *name = name_of_item(reading->items, id);
        take_result(reading, *name ? name : name_of_item(reading->before, id), cJSON_GetObjectItemCaseSensitive(item, "output"));
    } else if (strcmp(type, "message") == 0 || (!*type && *text_of(item, "role"))) {
        take_message(reading, item);
    }
}

static enum amp_code take_list(struct reading *reading, const cJSON *list, void (*take)(struct reading *reading, const cJSON *item), const char *name, struct amp_error *reterr)
{
    const cJSON *item;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) == 0)
        return amp_error_set(reterr, AMP_INVALID, name, "%s: a list of messages is wanted here", name);
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsObject(item))
            return amp_error_set(reterr, AMP_INVALID, name, "%s: each is an object", name);
        take(reading, item);
    }
    return AMP_OK;
}

static enum amp_code take_input(struct reading *reading, const cJSON *body, struct amp_error *reterr)
{
    const cJSON *input = cJSON_GetObjectItemCaseSensitive(body, "input"), *item;
    add_content(&reading->system, cJSON_GetObjectItemCaseSensitive(body, "instructions"));
    reading->n_chars += reading->system.len;
    cJSON_ArrayForEach(item, reading->before)
        take_item(reading, item);
    if (!cJSON_IsString(input)) {
        reading->items = input;
        return take_list(reading, input, take_item, "input", reterr);
    }
    forget_results(reading);
    amp_buf_reset(&reading->user);
    add(&reading->user, input->valuestring);
    reading->turn++;
    reading->n_chars += reading->user.len;
    return AMP_OK;
}

static enum amp_code take_texts(struct reading *reading, const cJSON *body, struct amp_error *reterr)
{
    const cJSON *input = cJSON_GetObjectItemCaseSensitive(body, "input");
    const cJSON *first = cJSON_IsArray(input) ? input->child : input;
    if (!first)
        return amp_error_set(reterr, AMP_INVALID, "input", "input: a text, or a list of texts, is wanted here");
    add_content(&reading->user, first);
    reading->n_chars = reading->user.len;
    return AMP_OK;
}

static char *text_done(struct amp_buf *buf)
{
    char *text = buf->len ? xstrndup((const char *)buf->data, buf->len) : xstrdup("");
    amp_buf_done(buf);
    return text;
}

enum amp_code mock_ask_read(enum mock_api api, const cJSON *body, const cJSON *before, struct mock_ask *ret, struct amp_error *reterr)
{
    struct reading reading = {.before = before};
    enum amp_code code;
    amp_buf_init(&reading.system, TEXT_MAX);
    amp_buf_init(&reading.user, TEXT_MAX);
    amp_buf_init(&reading.tools, TEXT_MAX);
    amp_buf_init(&reading.results, TEXT_MAX);
    if (!*text_of(body, "model"))
        code = amp_error_set(reterr, AMP_INVALID, "model", "you must provide a model parameter");
    else if (api == MOCK_CHAT)
        code = take_list(&reading, cJSON_GetObjectItemCaseSensitive(body, "messages"), take_chat, "messages", reterr);
    else
        code = api == MOCK_RESPONSES ? take_input(&reading, body, reterr) : take_texts(&reading, body, reterr);
    *ret = (struct mock_ask){.api = api, .model = xstrdup(text_of(body, "model")), .turn = reading.turn, .n_chars = reading.n_chars};
    ret->system = text_done(&reading.system);
    ret->user = text_done(&reading.user);
    ret->tool = text_done(&reading.tools);
    ret->result = text_done(&reading.results);
    return code;
}

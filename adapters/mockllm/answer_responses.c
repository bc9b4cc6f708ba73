/* POST /responses. Each event has the number of its place in the stream; the response itself stands in the first two and in the last. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "mockllm/answer.h"

struct writing {
    const struct mock_making *making;
    const struct mock_content *content;
    struct mock_answer *answer;
    cJSON *output; /* so far */
    unsigned sequence;
};

static void copy_member(cJSON *to, const cJSON *from, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(from, name);
    cJSON_AddItemToObject(to, name, value ? cJSON_Duplicate(value, true) : cJSON_CreateNull());
}

static void add_usage(cJSON *response, const struct mock_content *content)
{
    cJSON *usage = cJSON_AddObjectToObject(response, "usage");
    cJSON_AddNumberToObject(usage, "input_tokens", content->n_in);
    cJSON_AddNumberToObject(cJSON_AddObjectToObject(usage, "input_tokens_details"), "cached_tokens", 0);
    cJSON_AddNumberToObject(usage, "output_tokens", content->n_out);
    cJSON_AddNumberToObject(cJSON_AddObjectToObject(usage, "output_tokens_details"), "reasoning_tokens", 0);
    cJSON_AddNumberToObject(usage, "total_tokens", (double)content->n_in + content->n_out);
}

/* "completed", or "incomplete" with why. */
static const char *last_status(const struct mock_content *content, const char **ret_why)
{
    *ret_why = strcmp(content->finish, "length") == 0 ? "max_output_tokens" : strcmp(content->finish, "content_filter") == 0 ? "content_filter" : NULL;
    return *ret_why ? "incomplete" : "completed";
}

static cJSON *response_json(const struct writing *writing, bool is_over)
{
    static const char *const copied[] = {"instructions", "metadata", "previous_response_id", "temperature", "top_p", "max_output_tokens"};
    const struct mock_making *making = writing->making;
    const char *why, *status = last_status(writing->content, &why);
    cJSON *response = cJSON_CreateObject();
    const cJSON *tools = cJSON_GetObjectItemCaseSensitive(making->body, "tools"), *choice = cJSON_GetObjectItemCaseSensitive(making->body, "tool_choice");
    cJSON_AddStringToObject(response, "id", making->id);
    cJSON_AddStringToObject(response, "object", "response");
    cJSON_AddNumberToObject(response, "created_at", (double)making->unix_s);
    cJSON_AddStringToObject(response, "status", is_over ? status : "in_progress");
    cJSON_AddBoolToObject(response, "background", cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(making->body, "background")));
    cJSON_AddNullToObject(response, "error");
    if (is_over && why)
        cJSON_AddStringToObject(cJSON_AddObjectToObject(response, "incomplete_details"), "reason", why);
    else
        cJSON_AddNullToObject(response, "incomplete_details");
    cJSON_AddStringToObject(response, "model", making->ask->model);
    cJSON_AddItemToObject(response, "output", is_over ? cJSON_Duplicate(writing->output, true) : cJSON_CreateArray());
    cJSON_AddBoolToObject(response, "parallel_tool_calls", true);
    cJSON_AddItemToObject(response, "tools", tools ? cJSON_Duplicate(tools, true) : cJSON_CreateArray());
    cJSON_AddItemToObject(response, "tool_choice", choice ? cJSON_Duplicate(choice, true) : cJSON_CreateString("auto"));
    cJSON_AddStringToObject(cJSON_AddObjectToObject(cJSON_AddObjectToObject(response, "text"), "format"), "type", "text");
    for (size_t i = 0; i < sizeof copied / sizeof *copied; i++)
        copy_member(response, making->body, copied[i]);
    if (is_over)
        add_usage(response, writing->content);
    return response;
}

/* Takes `event` over. */
static void add_event(struct writing *writing, const char *type, bool is_piece, cJSON *event)
{
    cJSON_AddStringToObject(event, "type", type);
    cJSON_AddNumberToObject(event, "sequence_number", writing->sequence++);
    char *printed = cJSON_PrintUnformatted(event);
    mock_answer_add(writing->answer, is_piece, xasprintf("event: %s\ndata: %s\n\n", type, printed));
    cJSON_free(printed);
    cJSON_Delete(event);
}

static void add_state(struct writing *writing, const char *type, bool is_over)
{
    cJSON *event = cJSON_CreateObject();
    cJSON_AddItemToObject(event, "response", response_json(writing, is_over));
    add_event(writing, type, false, event);
}

/* An event of the item that is being written. `part`: which member has the number of the part in it, or NULL. */
static cJSON *item_event(const struct writing *writing, const char *id, const char *part)
{
    cJSON *event = cJSON_CreateObject();
    cJSON_AddNumberToObject(event, "output_index", cJSON_GetArraySize(writing->output));
    cJSON_AddStringToObject(event, "item_id", id);
    if (part)
        cJSON_AddNumberToObject(event, part, 0);
    return event;
}

static cJSON *item_new(const char *type, const char *id, const char *status)
{
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "type", type);
    cJSON_AddStringToObject(item, "id", id);
    cJSON_AddStringToObject(item, "status", status);
    return item;
}

static void add_item_event(struct writing *writing, const char *type, const cJSON *item)
{
    cJSON *event = cJSON_CreateObject();
    cJSON_AddNumberToObject(event, "output_index", cJSON_GetArraySize(writing->output));
    cJSON_AddItemToObject(event, "item", cJSON_Duplicate(item, true));
    add_event(writing, type, false, event);
}

struct flow { /* what an item's text goes through */
    const char *delta, *done, *member, *part; /* events; the member with the whole text; the one with the part's number */
};

static void add_text(struct writing *writing, const struct flow *flow, const char *id, const char *text)
{
    for (size_t len, at = 0; text[at]; at += len) {
        len = mock_piece(writing->making->rule, text + at);
        char *piece = xstrndup(text + at, len);
        cJSON *event = item_event(writing, id, flow->part);
        cJSON_AddStringToObject(event, "delta", piece);
        if (strcmp(flow->part ? flow->part : "", "content_index") == 0)
            cJSON_AddArrayToObject(event, "logprobs");
        add_event(writing, flow->delta, true, event);
        free(piece);
    }
    cJSON *event = item_event(writing, id, flow->part);
    cJSON_AddStringToObject(event, flow->member, text);
    if (strcmp(flow->part ? flow->part : "", "content_index") == 0)
        cJSON_AddArrayToObject(event, "logprobs");
    add_event(writing, flow->done, false, event);
}

static cJSON *part_json(const char *type, const char *text)
{
    cJSON *part = cJSON_CreateObject();
    cJSON_AddStringToObject(part, "type", type);
    cJSON_AddStringToObject(part, "text", text);
    if (strcmp(type, "output_text") == 0) {
        cJSON_AddArrayToObject(part, "annotations");
        cJSON_AddArrayToObject(part, "logprobs");
    }
    return part;
}

static void add_part_event(struct writing *writing, const char *type, const char *id, const char *index, cJSON *part)
{
    cJSON *event = item_event(writing, id, index);
    cJSON_AddItemToObject(event, "part", part);
    add_event(writing, type, false, event);
}

static void end_item(struct writing *writing, cJSON *item)
{
    cJSON_ReplaceItemInObjectCaseSensitive(item, "status", cJSON_CreateString("completed"));
    add_item_event(writing, "response.output_item.done", item);
    cJSON_AddItemToArray(writing->output, item);
}

static char *item_id(const struct writing *writing, const char *kind)
{
    return xasprintf("%s_%lu_%d", kind, writing->making->number, cJSON_GetArraySize(writing->output) + 1);
}

struct speech { /* an item that is text in parts, of which there is one */
    const char *item, *prefix, *parts, *part, *added, *done;
    struct flow flow;
};

static const struct speech message = {"message", "msg", "content", "output_text", "response.content_part.added", "response.content_part.done",
                                      {"response.output_text.delta", "response.output_text.done", "text", "content_index"}};
static const struct speech thought = {"reasoning", "rs", "summary", "summary_text", "response.reasoning_summary_part.added", "response.reasoning_summary_part.done",
                                      {"response.reasoning_summary_text.delta", "response.reasoning_summary_text.done", "text", "summary_index"}};

static void add_speech(struct writing *writing, const struct speech *speech, const char *text)
{
    char *id = item_id(writing, speech->prefix);
    cJSON *item = item_new(speech->item, id, "in_progress");
    if (speech == &message)
        cJSON_AddStringToObject(item, "role", "assistant");
    cJSON *parts = cJSON_AddArrayToObject(item, speech->parts);
    add_item_event(writing, "response.output_item.added", item);
    add_part_event(writing, speech->added, id, speech->flow.part, part_json(speech->part, ""));
    add_text(writing, &speech->flow, id, text);
    add_part_event(writing, speech->done, id, speech->flow.part, part_json(speech->part, text));
    cJSON_AddItemToArray(parts, part_json(speech->part, text));
    end_item(writing, item);
    free(id);
}

static void add_call(struct writing *writing, const cJSON *call)
{
    static const struct flow flow = {"response.function_call_arguments.delta", "response.function_call_arguments.done", "arguments", NULL};
    const char *arguments = cJSON_GetObjectItemCaseSensitive(call, "arguments")->valuestring;
    char *id = item_id(writing, "fc");
    cJSON *item = item_new("function_call", id, "in_progress");
    cJSON_AddStringToObject(item, "call_id", cJSON_GetObjectItemCaseSensitive(call, "id")->valuestring);
    cJSON_AddStringToObject(item, "name", cJSON_GetObjectItemCaseSensitive(call, "name")->valuestring);
    cJSON_AddStringToObject(item, "arguments", "");
    add_item_event(writing, "response.output_item.added", item);
    add_text(writing, &flow, id, arguments);
    cJSON_ReplaceItemInObjectCaseSensitive(item, "arguments", cJSON_CreateString(arguments));
    end_item(writing, item);
    free(id);
}

void mock_answer_responses(const struct mock_making *making, struct mock_answer *ret)
{
    struct mock_content content;
    const cJSON *call;
    const char *why;
    *ret = (struct mock_answer){.output = cJSON_CreateArray()};
    mock_content_make(making, &content);
    struct writing writing = {.making = making, .content = &content, .answer = ret, .output = ret->output};
    add_state(&writing, "response.created", false);
    add_state(&writing, "response.in_progress", false);
    if (content.think)
        add_speech(&writing, &thought, content.think);
    if (content.say)
        add_speech(&writing, &message, content.say);
    cJSON_ArrayForEach(call, content.calls)
        add_call(&writing, call);
    (void)last_status(&content, &why);
    add_state(&writing, why ? "response.incomplete" : "response.completed", true);
    cJSON *response = response_json(&writing, true);
    char *printed = cJSON_PrintUnformatted(response);
    ret->body = xstrdup(printed);
    cJSON_free(printed);
    cJSON_Delete(response);
    mock_content_done(&content);
}

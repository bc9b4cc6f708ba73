/* POST /chat/completions. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "mockllm/answer.h"

static cJSON *envelope(const struct mock_making *making, const char *object, cJSON *choice)
{
    cJSON *answer = cJSON_CreateObject(), *choices = cJSON_AddArrayToObject(answer, "choices");
    cJSON_AddStringToObject(answer, "id", making->id);
    cJSON_AddStringToObject(answer, "object", object);
    cJSON_AddNumberToObject(answer, "created", (double)making->unix_s);
    cJSON_AddStringToObject(answer, "model", making->ask->model);
    if (choice)
        cJSON_AddItemToArray(choices, choice);
    return answer;
}

static void add_usage(cJSON *answer, const struct mock_content *content)
{
    cJSON *usage = cJSON_AddObjectToObject(answer, "usage");
    cJSON_AddNumberToObject(usage, "prompt_tokens", content->n_in);
    cJSON_AddNumberToObject(usage, "completion_tokens", content->n_out);
    cJSON_AddNumberToObject(usage, "total_tokens", (double)content->n_in + content->n_out);
}

/* `index`: within a stream; -1: none. */
static cJSON *call_json(const cJSON *call, int index, const char *arguments)
{
    cJSON *made = cJSON_CreateObject(), *function = cJSON_CreateObject();
    if (index >= 0)
        cJSON_AddNumberToObject(made, "index", index);
    cJSON_AddStringToObject(made, "id", cJSON_GetObjectItemCaseSensitive(call, "id")->valuestring);
    cJSON_AddStringToObject(made, "type", "function");
    cJSON_AddStringToObject(function, "name", cJSON_GetObjectItemCaseSensitive(call, "name")->valuestring);
    cJSON_AddStringToObject(function, "arguments", arguments);
    cJSON_AddItemToObject(made, "function", function);
    return made;
}

static char *text_done(cJSON *json, const char *before, const char *after)
{
    char *printed = cJSON_PrintUnformatted(json), *text = xasprintf("%s%s%s", before, printed, after);
    cJSON_free(printed);
    cJSON_Delete(json);
    return text;
}

static char *whole(const struct mock_making *making, const struct mock_content *content)
{
    cJSON *choice = cJSON_CreateObject(), *message = cJSON_AddObjectToObject(choice, "message");
    const cJSON *call;
    cJSON_AddNumberToObject(choice, "index", 0);
    cJSON_AddNullToObject(choice, "logprobs");
    cJSON_AddStringToObject(choice, "finish_reason", content->finish);
    cJSON_AddStringToObject(message, "role", "assistant");
    cJSON_AddItemToObject(message, "content", content->say ? cJSON_CreateString(content->say) : cJSON_CreateNull());
    if (content->think)
        cJSON_AddStringToObject(message, "reasoning_content", content->think);
    cJSON *calls = content->calls ? cJSON_AddArrayToObject(message, "tool_calls") : NULL;
    cJSON_ArrayForEach(call, content->calls)
        cJSON_AddItemToArray(calls, call_json(call, -1, cJSON_GetObjectItemCaseSensitive(call, "arguments")->valuestring));
    cJSON *answer = envelope(making, "chat.completion", choice);
    add_usage(answer, content);
    return text_done(answer, "", "");
}

static cJSON *chunk(const struct mock_making *making, cJSON *delta, const char *finish)
{
    cJSON *choice = cJSON_CreateObject();
    cJSON_AddNumberToObject(choice, "index", 0);
    cJSON_AddItemToObject(choice, "delta", delta);
    cJSON_AddItemToObject(choice, "finish_reason", finish ? cJSON_CreateString(finish) : cJSON_CreateNull());
    return envelope(making, "chat.completion.chunk", choice);
}

static void add_chunk(struct mock_answer *answer, bool is_piece, cJSON *chunk)
{
    mock_answer_add(answer, is_piece, text_done(chunk, "data: ", "\n\n"));
}

static void add_text(const struct mock_making *making, const char *member, const char *text, struct mock_answer *answer)
{
    for (size_t len; text && *text; text += len) {
        cJSON *delta = cJSON_CreateObject();
        len = mock_piece(making->rule, text);
        char *piece = xstrndup(text, len);
        cJSON_AddStringToObject(delta, member, piece);
        add_chunk(answer, true, chunk(making, delta, NULL));
        free(piece);
    }
}

/* As servers send them: name and id first, the arguments in pieces. */
static void add_call(const struct mock_making *making, const cJSON *call, int index, struct mock_answer *answer)
{
    cJSON *delta = cJSON_CreateObject();
    cJSON_AddItemToArray(cJSON_AddArrayToObject(delta, "tool_calls"), call_json(call, index, ""));
    add_chunk(answer, true, chunk(making, delta, NULL));
    const char *text = cJSON_GetObjectItemCaseSensitive(call, "arguments")->valuestring;
    for (size_t len; *text; text += len) {
        cJSON *more = cJSON_CreateObject(), *part = cJSON_CreateObject();
        len = mock_piece(making->rule, text);
        char *piece = xstrndup(text, len);
        delta = cJSON_CreateObject();
        cJSON_AddNumberToObject(part, "index", index);
        cJSON_AddStringToObject(more, "arguments", piece);
        cJSON_AddItemToObject(part, "function", more);
        cJSON_AddItemToArray(cJSON_AddArrayToObject(delta, "tool_calls"), part);
        add_chunk(answer, true, chunk(making, delta, NULL));
        free(piece);
    }
}

static void stream(const struct mock_making *making, const struct mock_content *content, struct mock_answer *answer)
{
    cJSON *first = cJSON_CreateObject();
    const cJSON *call;
    int index = 0;
    cJSON_AddStringToObject(first, "role", "assistant");
    cJSON_AddStringToObject(first, "content", "");
    add_chunk(answer, false, chunk(making, first, NULL));
    add_text(making, "reasoning_content", content->think, answer);
    add_text(making, "content", content->say, answer);
    cJSON_ArrayForEach(call, content->calls)
        add_call(making, call, index++, answer);
    cJSON *last = chunk(making, cJSON_CreateObject(), content->finish);
    if (!making->wants_usage) /* once: clients add them up. Without any, some count tokens themselves, and ask the network for a table */
        add_usage(last, content);
    add_chunk(answer, false, last);
    if (making->wants_usage) {
        cJSON *only = envelope(making, "chat.completion.chunk", NULL);
        add_usage(only, content);
        add_chunk(answer, false, only);
    }
    mock_answer_add(answer, false, xstrdup("data: [DONE]\n\n"));
}

void mock_answer_chat(const struct mock_making *making, struct mock_answer *ret)
{
    struct mock_content content;
    *ret = (struct mock_answer){0};
    mock_content_make(making, &content);
    ret->body = whole(making, &content);
    stream(making, &content, ret);
    mock_content_done(&content);
}

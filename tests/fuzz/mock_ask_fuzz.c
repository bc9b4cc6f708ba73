/* Any bytes as the body of a request to the scripted model: the first byte chooses the API; what is read is answered by rules that say, call and think. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "mockllm/answer.h"
#include "mockllm/ask.h"

static struct mock_rules rules;

static void start(void)
{
    static struct mock_rule made[2];
    static const char text[] = "[{\"name\":\"{{user}}\",\"arguments\":{\"a\":\"{{result}}\",\"b\":[\"{{0}}\"]}}]";
    made[0] = (struct mock_rule){.say = (char *)"{{user}} {{system}} {{tool}} {{result}} {{9}} {{", .think = (char *)"{{turn}}", .call = cJSON_Parse(text), .turn = 1};
    made[1] = (struct mock_rule){.say = (char *)"{{result}}", .chunk = 1};
    rules = (struct mock_rules){.rules = made, .count = 2};
}

static void answer(const struct mock_ask *ask, const cJSON *body)
{
    char *groups[MOCK_GROUPS];
    struct mock_answer made = {0};
    struct mock_rule *rule = mock_rules_find(&rules, ask, groups);
    struct mock_making making = {.ask = ask, .rule = rule, .groups = groups, .body = body, .id = "x", .number = 1};
    if (rule && ask->api == MOCK_CHAT)
        mock_answer_chat(&making, &made);
    else if (rule)
        mock_answer_responses(&making, &made);
    for (size_t i = 0; i < made.n_frames; i++)
        if (!amp_utf8_is_valid(amp_bytes_of(made.frames[i].text)))
            abort(); /* a piece ends in the middle of a character */
    mock_answer_done(&made);
    mock_groups_done(groups);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct amp_error err = {0};
    struct mock_ask ask = {0};
    cJSON *body = NULL;
    if (!rules.count)
        start();
    if (size == 0)
        return 0;
    enum mock_api api = (enum mock_api)(data[0] % 3);
    if (amp_json_parse((struct amp_bytes){data + 1, size - 1}, &body, &err) != AMP_OK || !cJSON_IsObject(body)) {
        cJSON_Delete(body);
        return 0;
    }
    if (mock_ask_read(api, body, NULL, &ask, &err) == AMP_OK && api == MOCK_EMBEDDINGS)
        free(mock_answer_embeddings(&ask, body, &err));
    else if (ask.user && err.code == AMP_OK)
        answer(&ask, body);
    mock_ask_done(&ask);
    cJSON_Delete(body);
    return 0;
}

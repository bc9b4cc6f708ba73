#include "cli/json.h"

#include <amp/amp.h>
#include <cjson/cJSON.h>

const char *json_text_of(const cJSON *object, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text != NULL ? text : "";
}

int64_t json_time_of(const cJSON *object, const char *name)
{
    int64_t unix_ms = 0;
    return amp_time_parse(json_text_of(object, name), &unix_ms) == AMP_OK ? unix_ms : 0;
}

void json_add_time(cJSON *object, const char *name, int64_t unix_ms)
{
    char text[AMP_TIME_SIZE];
    if (unix_ms <= 0)
        return;
    amp_time_format(unix_ms, text);
    cJSON_AddStringToObject(object, name, text);
}

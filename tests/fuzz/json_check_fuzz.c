/* What amp_json_parse makes is what cJSON makes, and white space between tokens means nothing. */
#include <amp/amp.h>
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "strict.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct amp_error err;
    struct amp_bytes text = {.data = data, .len = size};
    struct cJSON *json;
    if (amp_json_parse(text, &json, &err) != AMP_OK)
        return 0;
    cJSON *other = cJSON_ParseWithLength((const char *)data, size); /* takes no number of 64 characters and more */
    char *own_text = cJSON_PrintUnformatted(json), *other_text = other ? cJSON_PrintUnformatted(other) : NULL;
    if (!own_text || (other_text && strcmp(own_text, other_text) != 0))
        abort();
    cJSON_free(own_text);
    cJSON_free(other_text);
    cJSON_Delete(other);
    cJSON_Delete(json);
    uint8_t *compact = malloc(size);
    size_t len = strict_compact(data, size, compact);
    if (amp_json_check((struct amp_bytes){compact, len}, &amp_json_limits_default, &err) != AMP_OK)
        abort();
    free(compact);
    return 0;
}

/* A form, a line feed, an answer: whatever they are, they are taken or refused with a reason. */
#include "base/form.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
    size_t form_len = end ? (size_t)(end - data) : size;
    struct amp_error err = {0};
    cJSON *json = NULL, *value = NULL;
    if (amp_json_parse((struct amp_bytes){.data = data, .len = form_len}, &json, NULL) != AMP_OK)
        return 0;
    cJSON *form = form_copy(json, &err);
    cJSON_Delete(json);
    if (!form) {
        if (err.code == AMP_OK)
            abort();
        return 0;
    }
    char *text = calloc(1, size + 1);
    if (end)
        memcpy(text, end + 1, size - form_len - 1);
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Message message = AMP__MESSAGE__INIT;
    part.text = text;
    message.n_parts = 1;
    message.parts = parts;
    if (form_read(form, &message, &value, &err) != AMP_OK && (value || err.code == AMP_OK))
        abort();
    cJSON_Delete(value);
    cJSON_Delete(form);
    free(text);
    return 0;
}

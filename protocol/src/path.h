/* Where in a message something is, for error texts: links on the C stack, written out only when something is wrong. */
#pragma once

#include <amp/amp.h>

#define PATH_NO_INDEX SIZE_MAX

struct path {
    const struct path *up; /* NULL at the top */
    const char *name;      /* a field's name in the .proto */
    size_t index;          /* of the element, or PATH_NO_INDEX */
};

/* Writes "request.message.parts[2].mediaType": names as they are in JSON. Cut off if it is too long. */
void path_format(const struct path *path, char *ret, size_t size);
/* amp_error_set at this place; returns `code`. */
enum amp_code path_error(struct amp_error *err, enum amp_code code, const struct path *path, const char *fmt, ...)
    AMP_PRINTF(4, 5);
/* Names the place in an error that has no field yet; returns its `code` argument. */
enum amp_code path_blame(struct amp_error *err, enum amp_code code, const struct path *path);

/* The JSON name of a field: "context_id" → "contextId". Returns its length without the NUL; cut off at `size`. */
size_t path_json_name(const char *name, char *ret, size_t size);

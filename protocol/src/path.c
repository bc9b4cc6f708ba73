/* Field paths of error texts. */
#include "path.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

size_t path_json_name(const char *name, char *ret, size_t size)
{
    size_t len = 0;
    for (; *name && len + 1 < size; name++) {
        bool is_upper = *name == '_' && name[1] >= 'a' && name[1] <= 'z';
        if (is_upper)
            name++;
        ret[len++] = (char)(is_upper ? *name - 'a' + 'A' : *name);
    }
    ret[len] = '\0';
    return len;
}

static size_t format_up(const struct path *path, char *ret, size_t size)
{
    size_t len = path->up ? format_up(path->up, ret, size) : 0;
    if (path->name && len > 0 && len + 1 < size)
        ret[len++] = '.';
    if (path->name)
        len += path_json_name(path->name, ret + len, size - len);
    if (path->index != PATH_NO_INDEX && len + 1 < size) {
        int wrote = snprintf(ret + len, size - len, "[%zu]", path->index);
        len = wrote < 0 ? len : len + (size_t)wrote >= size ? size - 1 : len + (size_t)wrote;
    }
    return len;
}

void path_format(const struct path *path, char *ret, size_t size)
{
    ret[0] = '\0';
    if (path)
        format_up(path, ret, size);
}

enum amp_code path_error(struct amp_error *err, enum amp_code code, const struct path *path, const char *fmt, ...)
{
    if (!err)
        return code;
    char field[sizeof(err->field)], text[sizeof(err->message)];
    path_format(path, field, sizeof(field));
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return amp_error_set(err, code, field, "%s", text);
}

enum amp_code path_blame(struct amp_error *err, enum amp_code code, const struct path *path)
{
    if (err && err->field[0] == '\0')
        path_format(path, err->field, sizeof(err->field));
    return code;
}

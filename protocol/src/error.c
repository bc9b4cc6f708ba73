/* struct amp_error: filled by whoever finds the fault, shown to people, sent to peers. The texts quote foreign input,
 * so they are made fit for a terminal here, once. Nothing here allocates: an error must be reportable when memory is
 * gone. */
#include <amp/amp.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model.h"

/* A byte becomes at most "\u{XX}": six bytes. */
#define SANITIZED_MAX (6 * sizeof(((struct amp_error *)0)->message) + 1)

static void text_put(char *ret, size_t size, const char *text)
{
    uint8_t room[SANITIZED_MAX];
    /* cap == max: the buffer is never grown, so it may live on the stack. */
    struct amp_buf buf = {.data = room, .cap = sizeof(room), .max = sizeof(room)};
    (void)amp_text_sanitize(&buf, (struct amp_bytes){(const uint8_t *)text, strnlen(text, size)}, true);
    size_t len = amp_utf8_cut(amp_buf_bytes(&buf), size - 1);
    memcpy(ret, room, len);
    ret[len] = '\0';
}

AMP_PRINTF(3, 0)
static void text_put_format(char *ret, size_t size, const char *fmt, va_list args)
{
    char text[sizeof(((struct amp_error *)0)->message)];
    if (vsnprintf(text, sizeof(text), fmt, args) < 0)
        text[0] = '\0';
    text_put(ret, size, text);
}

enum amp_code amp_error_set(struct amp_error *err, enum amp_code code, const char *field, const char *fmt, ...)
{
    if (!err)
        return code;
    /* Both texts may quote the struct that is being filled. */
    struct amp_error made = {.code = code};
    text_put(made.field, sizeof(made.field), field ? field : "");
    va_list args;
    va_start(args, fmt);
    text_put_format(made.message, sizeof(made.message), fmt, args);
    va_end(args);
    *err = made;
    return code;
}

void amp_error_hint(struct amp_error *err, const char *fmt, ...)
{
    if (!err)
        return;
    va_list args;
    va_start(args, fmt);
    text_put_format(err->hint, sizeof(err->hint), fmt, args);
    va_end(args);
}

void amp_error_from_wire(struct amp_error *err, const Amp__Error *wire)
{
    const struct amp_code_info *info = wire->code == AMP_OK ? NULL : code_find(wire->code);
    *err = (struct amp_error){.code = info ? info->code : AMP_INTERNAL};
    text_put(err->field, sizeof(err->field), wire->field ? wire->field : "");
    if (wire->message && wire->message[0])
        text_put(err->message, sizeof(err->message), wire->message);
    else if (info)
        text_put(err->message, sizeof(err->message), info->text);
    else
        (void)snprintf(err->message, sizeof(err->message), "unknown error %u", wire->code);
    text_put(err->hint, sizeof(err->hint), wire->hint ? wire->hint : "");
    err->retry_after_ms = wire->has_retry_after_ms ? wire->retry_after_ms : 0;
}

void amp_error_to_wire(const struct amp_error *err, Amp__Error *ret)
{
    amp__error__init(ret);
    const struct amp_code_info *info = amp_code_info(err->code);
    ret->code = (uint32_t)info->code;
    ret->name = (char *)info->name;
    ret->message = err->message[0] ? (char *)err->message : (char *)info->text;
    ret->hint = err->hint[0] ? (char *)err->hint : NULL;
    ret->field = err->field[0] ? (char *)err->field : NULL;
    ret->has_retry_after_ms = err->retry_after_ms != 0;
    ret->retry_after_ms = err->retry_after_ms;
}

/* Copies of ids, which have at most AMP_NAME_MAX characters: printf would do, at ten times the cost. */
#pragma once
#include <amp/amp.h>
#include <string.h>

static inline void name_copy(char ret[AMP_NAME_MAX + 1], const char *name)
{
    size_t len = strnlen(name, AMP_NAME_MAX);
    memcpy(ret, name, len);
    ret[len] = '\0';
}

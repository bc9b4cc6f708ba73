/* Out of memory ends the program with one line: what is half done then is repaired by the journal and by the other side, not by us. */
#include "base/alloc.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *require(void *ptr)
{
    if (!ptr) {
        fputs("out of memory\n", stderr);
        abort();
    }
    return ptr;
}

void *xcalloc(size_t count, size_t size)
{
    /* calloc(0) may return NULL, which is not "out of memory". */
    return require(calloc(count ? count : 1, size ? size : 1));
}

void *xrealloc(void *ptr, size_t size)
{
    return require(realloc(ptr, size ? size : 1));
}

char *xstrdup(const char *text)
{
    return require(strdup(text));
}

char *xstrndup(const char *text, size_t len)
{
    return require(strndup(text, len));
}

char *xasprintf(const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, fmt);
    int len = vasprintf(&text, fmt, args);
    va_end(args);
    return require(len < 0 ? NULL : text);
}

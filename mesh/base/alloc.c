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

void *spares_take(struct spares *spares)
{
    return spares->n > 0 ? spares->item[--spares->n] : NULL;
}

bool spares_give(struct spares *spares, void *item)
{
#ifdef __SANITIZE_ADDRESS__
    return false;
#endif
    if (spares->n == SPARES_MAX)
        return false;
    spares->item[spares->n++] = item;
    return true;
}

void *spares_calloc(struct spares *spares, size_t size)
{
    void *item = spares_take(spares);
    return item ? memset(item, 0, size) : xcalloc(1, size);
}

void spares_free(struct spares *spares, void *item)
{
    if (item && !spares_give(spares, item))
        free(item);
}

void spares_done(struct spares *spares)
{
    while (spares->n > 0)
        free(spares_take(spares));
}

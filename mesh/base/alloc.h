/* Programs do not survive out of memory: these abort with a message. libamp does not use them. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

void *xcalloc(size_t count, size_t size);
void *xrealloc(void *ptr, size_t size);
char *xstrdup(const char *text);
char *xstrndup(const char *text, size_t len);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Objects of one kind that come and go with every call are kept for the next one, at most SPARES_MAX of them: in the steady state nothing is asked of malloc. On one thread. In the sanitizers'
 * build none is kept, so that whoever still uses one is found out. */
#define SPARES_MAX 128u
struct spares {
    void *item[SPARES_MAX];
    unsigned n;
};
void *spares_calloc(struct spares *spares, size_t size); /* zeroed */
void spares_free(struct spares *spares, void *item);     /* NULL is fine */
/* The same for what is kept as it is. */
void *spares_take(struct spares *spares);            /* NULL: there is none */
bool spares_give(struct spares *spares, void *item); /* false: it is not kept, and the caller's to free */
void spares_done(struct spares *spares);             /* frees what spares_free kept */

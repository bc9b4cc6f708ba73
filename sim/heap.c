/* The memory of everything in this process, SQLite and the other libraries included. A run is made of small pieces that live briefly, on one thread: sizes have classes, and what is freed
 * is the next one's of its class; nothing goes back. Sanitizers have their own: then this is not built. */
#include <errno.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define GRAIN 16u
#define HEAD 8u                          /* in front of what is given out: its class */
#define SMALL_MAX 2048u                  /* up to here a class is one grain wide */
#define SMALL_CLASSES (SMALL_MAX / GRAIN + 1)
#define CLASSES (SMALL_CLASSES + 4 * 64) /* behind it there are four for each doubling */
#define REGION ((size_t)32 << 20) /* in large pages, where there are any: what is touched lies all about */
#define EXPORTED __attribute__((visibility("default")))

struct spare {
    struct spare *next;
};
static struct spare *spares[CLASSES];
static char *region, *region_end;

static uint64_t *class_at(void *ptr) { return (uint64_t *)(void *)((char *)ptr - HEAD); }

static size_t class_of(size_t room)
{
    if (room <= SMALL_MAX)
        return (room + GRAIN - 1) / GRAIN;
    unsigned top = 63u - (unsigned)__builtin_clzll(room - 1); /* 2^top < room ≤ 2^(top + 1) */
    return SMALL_CLASSES + 4 * top + ((room - 1 - ((size_t)1 << top)) >> (top - 2));
}

static size_t room_of(size_t class)
{
    if (class < SMALL_CLASSES)
        return class * GRAIN;
    size_t top = (class - SMALL_CLASSES) / 4, steps = (class - SMALL_CLASSES) % 4 + 1;
    return ((size_t)1 << top) + (steps << (top - 2));
}

/* Regions begin HEAD in front of a multiple of GRAIN, and so do the pieces: what is given out stands on one. */
static void *piece_new(size_t class)
{
    size_t room = room_of(class);
    if ((size_t)(region_end - region) < room) {
        size_t size = room + GRAIN > REGION ? room + GRAIN : REGION;
        char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) {
            errno = ENOMEM;
            return NULL;
        }
        (void)madvise(at, size, MADV_HUGEPAGE);
        region = at + GRAIN - HEAD;
        region_end = at + size;
    }
    void *ptr = region + HEAD;
    region += room;
    *class_at(ptr) = class;
    return ptr;
}

EXPORTED void *malloc(size_t size)
{
    if (size > PTRDIFF_MAX / 4) {
        errno = ENOMEM;
        return NULL;
    }
    size_t class = class_of(size < GRAIN ? GRAIN + HEAD : size + HEAD);
    struct spare *ptr = spares[class];
    if (!ptr)
        return piece_new(class);
    spares[class] = ptr->next;
    return ptr;
}

EXPORTED void free(void *ptr)
{
    struct spare *spare = ptr;
    if (!ptr)
        return;
    spare->next = spares[*class_at(ptr)];
    spares[*class_at(ptr)] = spare;
}

EXPORTED size_t malloc_usable_size(void *ptr) { return ptr ? room_of(*class_at(ptr)) - HEAD : 0; }

EXPORTED void *calloc(size_t nmemb, size_t size)
{
    size_t all;
    if (__builtin_mul_overflow(nmemb, size, &all))
        all = SIZE_MAX;
    void *ptr = malloc(all);
    return ptr ? memset(ptr, 0, all) : NULL;
}

EXPORTED void *realloc(void *ptr, size_t size)
{
    size_t there = malloc_usable_size(ptr);
    if (ptr && size <= there && size >= there / 2)
        return ptr;
    void *to = malloc(size);
    if (to && ptr) {
        memcpy(to, ptr, there < size ? there : size);
        free(ptr);
    }
    return to;
}

EXPORTED int posix_memalign(void **memptr, size_t alignment, size_t size)
{
    if (alignment > GRAIN)
        return ENOMEM; /* nobody asks for that here */
    *memptr = malloc(size);
    return *memptr ? 0 : ENOMEM;
}

EXPORTED void *aligned_alloc(size_t alignment, size_t size)
{
    void *ptr;
    return posix_memalign(&ptr, alignment, size) == 0 ? ptr : NULL;
}

EXPORTED void *memalign(size_t alignment, size_t size) { return aligned_alloc(alignment, size); }


/* cJSON's allocator is one for all threads, so that it knows by the address what is not malloc's: the room never moves. Which thread may take from it, it knows by a flag of the thread's own that
 * is set only while a tree is read into the room; so what is made from a tree (a duplicate, a printed text) is malloc's, and may be kept. */
#include "base/json_room.h"

#include <cjson/cJSON.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

enum {
    ROOM_SIZE = 16 << 10, /* a line of 50 values, which is much for one */
    ALIGN = 16,
};

static _Alignas(ALIGN) uint8_t room[ROOM_SIZE];
static size_t room_used;
static unsigned n_open;
static _Thread_local bool is_reading;

static void *room_alloc(size_t size)
{
    size_t rounded = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (!is_reading || rounded < size || rounded > ROOM_SIZE - room_used)
        return malloc(size);
    void *at = room + room_used;
    ASAN_UNPOISON_MEMORY_REGION(at, size);
    room_used += rounded;
    return at;
}

static void room_free(void *at)
{
    if ((uintptr_t)at - (uintptr_t)room >= ROOM_SIZE)
        free(at);
}

void json_room_install(void)
{
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = room_alloc, .free_fn = room_free});
    ASAN_POISON_MEMORY_REGION(room, ROOM_SIZE);
}

static void leave(void)
{
    if (--n_open > 0)
        return;
    room_used = 0;
    ASAN_POISON_MEMORY_REGION(room, ROOM_SIZE);
}

enum amp_code json_room_parse(struct amp_bytes text, struct cJSON **ret, struct amp_error *reterr)
{
    n_open++;
    is_reading = true;
    enum amp_code code = amp_json_parse(text, ret, reterr);
    is_reading = false;
    if (code != AMP_OK)
        leave();
    return code;
}

void json_room_free(struct cJSON *tree)
{
    if (!tree)
        return;
    cJSON_Delete(tree);
    leave();
}

/* A bump allocator over a chain of blocks. Reset goes back to the first block and keeps what ordinary messages need;
 * what one huge message took beyond ARENA_KEPT_MAX is given back, so that it does not stay for ever. */
#include "buf.h"

#include <stdlib.h>
#include <string.h>

#define ARENA_ALIGN 16u
#define ARENA_BLOCK_MIN 4096u
#define ARENA_BLOCK_MAX (256u << 10)
#define ARENA_KEPT_MAX (1u << 20)

struct amp_arena_block {
    struct amp_arena_block *next;
    size_t size, used;
    _Alignas(ARENA_ALIGN) uint8_t data[];
};

static void *allocator_alloc(void *data, size_t size)
{
    return arena_alloc_raw(data, size);
}

static void allocator_free(void *data, void *pointer)
{
}

void amp_arena_init(struct amp_arena *arena, size_t max)
{
    *arena = (struct amp_arena){
        .max = max,
        .allocator = {.alloc = allocator_alloc, .free = allocator_free, .allocator_data = arena},
    };
}

static void free_chain(struct amp_arena_block *block)
{
    while (block) {
        struct amp_arena_block *next = block->next;
        free(block);
        block = next;
    }
}

void amp_arena_reset(struct amp_arena *arena)
{
    arena_trim(arena, ARENA_KEPT_MAX);
}

void arena_trim(struct amp_arena *arena, size_t kept_max)
{
    arena->used = 0;
    arena->is_full = false;
    size_t kept = 0;
    struct amp_arena_block **link = &arena->first;
    while (*link && kept + (*link)->size <= kept_max) {
        kept += (*link)->size;
        (*link)->used = 0;
        link = &(*link)->next;
    }
    free_chain(*link);
    *link = NULL;
    arena->current = arena->first;
}

void amp_arena_done(struct amp_arena *arena)
{
    free_chain(arena->first);
    amp_arena_init(arena, arena->max);
}

/* Moves `current` to a block with room: a kept one behind it, or a new one that is put there. */
static bool next_block(struct amp_arena *arena, size_t size)
{
    struct amp_arena_block *current = arena->current;
    while (current && current->next) {
        current = current->next;
        current->used = 0;
        if (size <= current->size) {
            arena->current = current;
            return true;
        }
    }
    size_t block_size = current ? current->size * 2 : ARENA_BLOCK_MIN;
    if (block_size > ARENA_BLOCK_MAX)
        block_size = ARENA_BLOCK_MAX;
    if (block_size < size)
        block_size = size;
    struct amp_arena_block *block = malloc(sizeof(*block) + block_size);
    if (!block)
        return false;
    *block = (struct amp_arena_block){.size = block_size};
    if (current)
        current->next = block;
    else
        arena->first = block;
    arena->current = block;
    return true;
}

void *arena_alloc_raw(struct amp_arena *arena, size_t size)
{
    size_t left = arena->max - arena->used;
    size_t rounded = size ? (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1) : ARENA_ALIGN;
    if (arena->is_full || size > left || rounded > left) {
        arena->is_full = true;
        return NULL;
    }
    struct amp_arena_block *block = arena->current;
    if (!block || rounded > block->size - block->used) {
        if (!next_block(arena, rounded))
            return NULL;
        block = arena->current;
    }
    void *data = block->data + block->used;
    block->used += rounded;
    arena->used += rounded;
    return data;
}

enum amp_code arena_refusal(const struct amp_arena *arena, struct amp_error *reterr)
{
    if (arena->is_full)
        return amp_error_set(reterr, AMP_TOO_LARGE, "", "the message needs more than %zu bytes of memory", arena->max);
    return amp_error_set(reterr, AMP_NO_MEMORY, "", "out of memory");
}

void *amp_arena_alloc(struct amp_arena *arena, size_t size)
{
    void *data = arena_alloc_raw(arena, size);
    return data ? memset(data, 0, size) : NULL;
}

char *amp_arena_strdup(struct amp_arena *arena, struct amp_bytes text)
{
    if (text.len == SIZE_MAX)
        return NULL;
    char *copy = arena_alloc_raw(arena, text.len + 1);
    if (!copy)
        return NULL;
    if (text.len > 0)
        memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    return copy;
}

#include "base/scratch.h"

#include "base/alloc.h"

#include <stdlib.h>

#define KEPT_MAX (16u << 10) /* bytes of one */

static struct spares arenas;

struct amp_arena *scratch_take(void)
{
    struct amp_arena *arena = spares_take(&arenas);
    if (!arena) {
        arena = xcalloc(1, sizeof *arena);
        amp_arena_init(arena, AMP_ARENA_BYTES_MAX);
    }
    return arena;
}

void scratch_give(struct amp_arena *arena)
{
    if (!arena)
        return;
    bool is_small = arena->used <= KEPT_MAX;
    amp_arena_reset(arena);
    if (is_small && spares_give(&arenas, arena))
        return;
    amp_arena_done(arena);
    free(arena);
}

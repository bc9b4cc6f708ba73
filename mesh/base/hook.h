/* Points of hook.def. In builds without AMESH_HOOKS hook_at is nothing at all: no environment variable can end a shipped program. */
#pragma once

enum hook_point {
#define HOOK(name, role, what) HOOK_##name,
#include "base/hook.def"
#undef HOOK
    HOOK_POINTS
};

#ifdef AMESH_HOOKS
void hook_at(enum hook_point point); /* any thread; does not return if it was the time for it */
#else
static inline void hook_at(enum hook_point point)
{
    (void)point;
}
#endif

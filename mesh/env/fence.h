/* One environment per bus: two with different journals would each accept half of the tasks. Who starts asks on amp.fence.<name> whether somebody is there, and goes on when nobody is;
 * who serves answers there, and asks once a second itself, for two that started at the same moment or met when a partition healed: the one that began later leaves (amp.md 10.2.5).
 * Loop thread only. */
#pragma once
#include <amp/amp.h>

struct loop;
struct bus;
struct fence;

struct fence_handlers {
    void (*on_clear)(void *ctx); /* once: nobody else is there */
    /* The last callback: somebody else is, and began earlier. Before or after on_clear. `err` is AMP_RUNNING and says who. */
    void (*on_rival)(void *ctx, const struct amp_error *err);
};

/* `name`: of the environment, a valid id. Callbacks come from the loop, never from inside. A bus that is away is waited for. */
struct fence *fence_new(struct loop *loop, struct bus *bus, const char *name, const struct fence_handlers *handlers, void *ctx);
void fence_free(struct fence *fence); /* allowed in callbacks. NULL is fine */

#include "hook.h"

#ifdef AMESH_HOOKS
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static enum hook_point chosen = HOOK_POINTS;
static atomic_long left;

/* The variable goes, so that what this program starts does not end at a point of the same name. */
static void read_environment(void)
{
    static const char *const names[] = {
#define HOOK(name, role, what) #name,
#include "base/hook.def"
#undef HOOK
    };
    const char *text = getenv("AMESH_CRASH_AT");
    for (size_t i = 0; text && i < HOOK_POINTS; i++) {
        size_t len = strlen(names[i]);
        if (strncmp(text, names[i], len) == 0 && (text[len] == '\0' || text[len] == ':')) {
            chosen = (enum hook_point)i;
            left = text[len] == ':' ? strtol(text + len + 1, NULL, 10) : 1;
        }
    }
    unsetenv("AMESH_CRASH_AT");
}

void hook_at(enum hook_point point)
{
    pthread_once(&once, read_environment);
    if (point == chosen && atomic_fetch_sub(&left, 1) == 1)
        (void)kill(getpid(), SIGKILL);
}
#endif

#include "sim.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <sodium.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define START_US 1000000000ll
#define UNIX_MS 1790000000000ll
#define STEPS_MAX 100000u /* of one run, which takes two thousand or so: more is a livelock */

struct happening {
    int64_t at_us;
    uint64_t order;
    struct loop *owner;
    void (*on_due)(void *ctx);
    void (*on_drop)(void *ctx);
    void *ctx;
    bool is_canceled;
    struct happening *next; /* spare */
};

static struct {
    int64_t now_us, wall_offset_ms;
    uint64_t seed, order, steps, digest;
    int64_t postponed_us;      /* until then; 0: it is done */
    struct happening **heap, *spare;
    size_t n, cap;
    bool is_traced;
    char failure[600];
} world;

/* ---- chance: splitmix64 -------------------------------------------------------------------------------------- */

uint64_t world_random(void)
{
    uint64_t z = (world.seed += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint32_t world_below(uint32_t limit) { return limit ? (uint32_t)(world_random() % limit) : 0; }
bool world_chance(uint32_t percent) { return world_below(100) < percent; }
uint32_t world_between(uint32_t least, uint32_t most) { return least + world_below(most - least + 1); }

/* libsodium's, for ids and jitter: the same seed makes the same ids. */
static const char *chance_name(void) { return "simulated"; }
static uint32_t chance_random(void) { return (uint32_t)world_random(); }
static void chance_buf(void *buf, size_t size)
{
    for (uint8_t *at = buf; size > 0; size--)
        *at++ = (uint8_t)world_random();
}
static randombytes_implementation chance = {.implementation_name = chance_name, .random = chance_random, .buf = chance_buf};

/* ---- what happens when: a binary heap --------------------------------------------------------------------------- */

static bool is_before(const struct happening *a, const struct happening *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void sift_up(size_t at)
{
    for (struct happening *h = world.heap[at]; at > 0 && is_before(h, world.heap[(at - 1) / 2]); at = (at - 1) / 2) {
        world.heap[at] = world.heap[(at - 1) / 2];
        world.heap[(at - 1) / 2] = h;
    }
}

static struct happening *pop(void)
{
    struct happening *first = world.heap[0], *h = world.heap[--world.n];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < world.n; at = child) {
        child += child + 1 < world.n && is_before(world.heap[child + 1], world.heap[child]);
        if (!is_before(world.heap[child], h))
            break;
        world.heap[at] = world.heap[child];
    }
    world.heap[at] = h;
    return first;
}

struct happening *world_at(int64_t at_us, struct loop *owner, void (*on_due)(void *ctx), void *ctx)
{
    struct happening *h = world.spare;
    if (h)
        world.spare = h->next;
    else
        h = xcalloc(1, sizeof *h);
    *h = (struct happening){.at_us = at_us > world.now_us ? at_us : world.now_us, .order = world.order++, .owner = owner, .on_due = on_due, .ctx = ctx};
    if (world.n == world.cap) {
        world.cap = world.cap ? 2 * world.cap : 256;
        world.heap = xrealloc(world.heap, world.cap * sizeof *world.heap);
    }
    world.heap[world.n] = h;
    sift_up(world.n++);
    return h;
}

static void give_back(struct happening *h)
{
#ifdef __SANITIZE_ADDRESS__
    free(h); /* whoever still has it is found out */
    return;
#endif
    h->next = world.spare;
    world.spare = h;
}

void world_at_or_drop(int64_t at_us, void (*on_due)(void *ctx), void (*on_drop)(void *ctx), void *ctx)
{
    world_at(at_us, NULL, on_due, ctx)->on_drop = on_drop;
}

void world_cancel(struct happening *happening)
{
    if (happening)
        happening->is_canceled = true;
}

void world_postpone(int64_t until_us) { world.postponed_us = until_us; }

static void put_back(struct happening *h, int64_t at_us)
{
    h->at_us = at_us > world.now_us ? at_us : world.now_us + 1;
    world.heap[world.n] = h; /* there is room: it was just taken out */
    sift_up(world.n++);
}

/* False: it waits until its owner is not frozen any more. */
static bool happen(struct happening *h)
{
    int64_t until_us = h->owner ? loop_frozen_until_us(h->owner) : 0;
    world.now_us = h->at_us;
    world.postponed_us = until_us > h->at_us ? until_us : 0;
    if (!world.postponed_us) {
        if (h->owner)
            point_pass(POINT_TIMER, h->owner);
        h->on_due(h->ctx);
    }
    if (world.postponed_us)
        return false;
    world_mix((uint64_t)h->at_us);
    if (h->owner && !h->is_canceled)
        loop_turn(h->owner);
    return true;
}

bool world_run(int64_t until_us, bool (*is_enough)(void))
{
    while (world.n > 0 && world.heap[0]->at_us <= until_us && !world.failure[0]) {
        struct happening *h = pop();
        if (!h->is_canceled) {
            if (++world.steps > STEPS_MAX)
                return false;
            if (!happen(h)) {
                put_back(h, world.postponed_us);
                continue;
            }
        }
        give_back(h);
        if (is_enough && is_enough())
            return true;
    }
    if (world.now_us < until_us && !world.failure[0])
        world.now_us = until_us;
    return true;
}

/* ---- life ---------------------------------------------------------------------------------------------------------- */

void world_begin(uint64_t seed, bool is_traced)
{
    world.order = world.steps = world.digest = 0;
    world.wall_offset_ms = 0;
    world.failure[0] = '\0';
    world.seed = seed * 0x2545f4914f6cdd1dull + 1;
    world.now_us = START_US;
    world.is_traced = is_traced;
    randombytes_set_implementation(&chance);
}

void world_salt(uint64_t salt) { world.seed = (world.seed ^ salt * 0xd1342543de82ef95ull) + 1; }

void world_end(void)
{
    for (size_t i = 0; i < world.n; i++) {
        if (world.heap[i]->on_drop)
            world.heap[i]->on_drop(world.heap[i]->ctx);
        give_back(world.heap[i]);
    }
    world.n = 0;
}

int64_t world_now_us(void) { return world.now_us; }
uint64_t world_digest(void) { return world.digest; }
void world_mix(uint64_t what) { world.digest = (world.digest ^ what) * 0x9e3779b97f4a7c15ull + 1; }
uint64_t world_steps(void) { return world.steps; }
void world_set_wall_offset_ms(int64_t offset_ms) { world.wall_offset_ms = offset_ms; }
const char *world_failure(void) { return world.failure[0] ? world.failure : NULL; }

void world_trace(const char *format, ...)
{
    va_list args;
    if (!world.is_traced)
        return;
    printf("%10.6f  ", (double)(world.now_us - START_US) / 1e6);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

void world_fail(const char *format, ...)
{
    va_list args;
    if (world.failure[0])
        return;
    int at = snprintf(world.failure, sizeof world.failure, "at %.6f s: ", (double)(world.now_us - START_US) / 1e6);
    va_start(args, format);
    vsnprintf(world.failure + at, sizeof world.failure - (size_t)at, format, args);
    va_end(args);
    world_trace("BROKEN: %s", world.failure);
}

/* ---- unistd.h: who it is, is part of what others are told, whose length is part of a run ------------------------------- */

pid_t getpid(void) { return 12345; }

int gethostname(char *name, size_t len)
{
    snprintf(name, len, "simulated");
    return 0;
}

/* ---- base/clock.h, base/log.h ------------------------------------------------------------------------------------------ */

int64_t clock_mono_us(void) { return world.now_us; }
int64_t clock_mono_ms(void) { return world.now_us / 1000; }
int64_t clock_unix_ms(void) { return UNIX_MS + world.now_us / 1000 + world.wall_offset_ms; }

void log_init(enum log_level level, const char *program) {}
enum log_level log_level_from_env(enum log_level fallback) { return fallback; }

void log_event(enum log_level level, const char *event, ...)
{
    char line[1024];
    size_t at = (size_t)snprintf(line, sizeof line, "log %s", event);
    va_list args;
    if (!world.is_traced)
        return;
    va_start(args, event);
    for (const char *key; (key = va_arg(args, const char *)) && at < sizeof line;) {
        const char *text = va_arg(args, const char *);
        at += (size_t)snprintf(line + at, sizeof line - at, " %s=%s", key, text ? text : "-");
    }
    va_end(args);
    world_trace("%s", line);
}

const char *log_int(long long value)
{
    static char texts[8][24];
    static unsigned next;
    char *text = texts[next++ % 8];
    snprintf(text, sizeof texts[0], "%lld", value);
    return text;
}

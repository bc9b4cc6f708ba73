/* A seed that fails, made shorter: items are left out as long as the same promise is broken (delta debugging). A run with an item less takes another way, so each choice is tried
 * with some salts. Same seed, same result. */
#include "scenario.h"

#include <string.h>

#define SALTS 8
#define RUNS_MAX 6000

static struct {
    uint64_t seed, salt;
    char promise[8];
    bool kept[ITEMS_MAX];
    size_t n_items, n_kept, n_runs;
    uint64_t *stats;
} shrinking;

/* "at 1.0 s: P1: …" → "P1" */
static void promise_of(const char *failure, char ret[8])
{
    const char *at = failure ? strstr(failure, "s: ") : NULL;
    ret[0] = '\0';
    if (at)
        snprintf(ret, 8, "%.2s", at + 3);
}

/* Who is asked must be there: else it fails for another reason. */
static bool is_sound(const bool *only)
{
    const struct script *plan = &scenario.script;
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct item *item = &plan->items[i];
        bool is_skill = item->kind == ITEM_JOB && item->wish.is_skill, is_there = (item->kind != ITEM_JOB && item->kind != ITEM_SCHEDULE) || !only[i];
        const char *agent = item->kind == ITEM_SCHEDULE ? item->timetable.agent : item->wish.agent;
        for (size_t j = 0; j < plan->n_items && !is_there; j++)
            is_there = only[j] && plan->items[j].kind == ITEM_INSTANCE && (is_skill || strcmp(agent, plan->items[j].habits.agent) == 0);
        if (!is_there)
            return false;
    }
    return true;
}

static bool fails(const bool *only)
{
    if (!is_sound(only))
        return false;
    for (uint64_t i = 0; i < SALTS && shrinking.n_runs < RUNS_MAX; i++) {
        uint64_t salt = i == 0 ? shrinking.salt : i == shrinking.salt ? 0 : i;
        char promise[8];
        shrinking.n_runs++;
        scenario_run(shrinking.seed, salt, only, false);
        promise_of(world_failure(), promise);
        if (world_failure() && strcmp(promise, shrinking.promise) == 0) {
            shrinking.salt = salt;
            return true;
        }
    }
    return false;
}

/* Leaves out those of the kept ones from the first-th on, `count` of them, if it then still fails. */
static bool leave_out(size_t first, size_t count)
{
    bool only[ITEMS_MAX];
    size_t n = 0, out = 0;
    memcpy(only, shrinking.kept, sizeof only);
    for (size_t i = 0; i < shrinking.n_items; i++) {
        if (!only[i])
            continue;
        if (n >= first && n < first + count) {
            only[i] = false;
            out++;
        }
        n++;
    }
    if (out == 0 || !fails(only))
        return false;
    memcpy(shrinking.kept, only, sizeof only);
    shrinking.n_kept -= out;
    return true;
}

static void reduce(void)
{
    for (size_t count = shrinking.n_kept / 2; count > 0 && shrinking.n_runs < RUNS_MAX; count = count > 1 ? count / 2 : shrinking.n_kept + 1) {
        bool is_shorter = false;
        if (count > shrinking.n_kept)
            break;
        for (size_t first = 0; first < shrinking.n_kept;) {
            if (leave_out(first, count))
                is_shorter = true;
            else
                first += count;
        }
        if (count == 1 && is_shorter)
            count = 2; /* once more, one by one */
    }
}

static void tell(void)
{
    char text[256];
    scenario_run(shrinking.seed, shrinking.salt, shrinking.kept, false);
    printf("the shortest failing schedule found: %zu of %zu items, after %zu runs\n", shrinking.n_kept, shrinking.n_items, shrinking.n_runs);
    for (size_t i = 0; i < shrinking.n_items; i++) {
        if (!shrinking.kept[i])
            continue;
        plan_describe(&scenario.script.items[i], text, sizeof text);
        printf("%5zu  %s\n", i, text);
    }
    printf("then %s\nagain: amesh-sim --seed %llu --only ", world_failure(), (unsigned long long)shrinking.seed);
    for (size_t i = 0, n = 0; i < shrinking.n_items; i++)
        if (shrinking.kept[i])
            printf("%s%zu", n++ ? "," : "", i);
    if (shrinking.salt)
        printf(" --salt %llu", (unsigned long long)shrinking.salt);
    putchar('\n');
}

size_t shrink(uint64_t seed, bool is_told)
{
    memset(&shrinking, 0, sizeof shrinking);
    shrinking.seed = seed;
    shrinking.stats = stats;
    stats = NULL;
    scenario_run(seed, 0, NULL, false);
    promise_of(world_failure(), shrinking.promise);
    shrinking.n_items = shrinking.n_kept = scenario.script.n_items;
    memset(shrinking.kept, true, sizeof shrinking.kept);
    if (world_failure()) {
        reduce();
        if (is_told)
            tell();
    }
    stats = shrinking.stats;
    return shrinking.n_kept;
}

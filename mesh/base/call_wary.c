#include "base/call_wary.h"

#include "base/alloc.h"
#include "base/bus.h"

#include <amp/amp.h>
#include <stdio.h>
#include <string.h>

struct wary {
    struct wary_name {
        char name[AMP_NAME_MAX + 1];
        bool is_skill;
        uint32_t gap_ms;
        int64_t until_ms;
    } names[WARY_NAMES_MAX];
    size_t count;
};

static struct wary_name *find(struct wary *wary, const char *name, bool is_skill)
{
    for (size_t i = 0; wary && i < wary->count; i++)
        if (wary->names[i].is_skill == is_skill && strcmp(wary->names[i].name, name) == 0)
            return &wary->names[i];
    return NULL;
}

static struct wary_name *oldest(struct wary *wary)
{
    struct wary_name *oldest = &wary->names[0];
    if (wary->count < WARY_NAMES_MAX)
        return &wary->names[wary->count++];
    for (size_t i = 1; i < wary->count; i++)
        if (wary->names[i].until_ms < oldest->until_ms)
            oldest = &wary->names[i];
    return oldest;
}

void wary_met(struct bus *bus, const char *name, bool is_skill, int64_t now_ms)
{
    struct wary **wary = (struct wary **)bus_memory(bus);
    if (!*wary)
        *wary = xcalloc(1, sizeof **wary);
    struct wary_name *known = find(*wary, name, is_skill);
    if (known && now_ms < known->until_ms)
        return;
    bool is_again = known && now_ms < known->until_ms + known->gap_ms;
    uint32_t gap_ms = is_again && known->gap_ms * 2 <= WARY_MAX_MS ? known->gap_ms * 2 : is_again ? WARY_MAX_MS : WARY_MIN_MS;
    if (!known)
        known = oldest(*wary);
    *known = (struct wary_name){.is_skill = is_skill, .gap_ms = gap_ms, .until_ms = now_ms + gap_ms};
    snprintf(known->name, sizeof known->name, "%s", name);
}

bool wary_is(struct bus *bus, const char *name, bool is_skill, int64_t now_ms)
{
    const struct wary_name *known = find(*bus_memory(bus), name, is_skill);
    return known && now_ms < known->until_ms;
}

/* Which inboxes a read has brought something for. Thousands may be open, and nats.c tells of each subscription by itself whether something waits there; but it counts what came in, so that the search
 * can stop. It begins with those that had something last: a call that streams is found at once. */
#include "base/bus_private.h"

#define FEW 16u /* inboxes, which are looked at anyway */

static void find(struct bus_inbox *inbox)
{
    struct bus *bus = inbox->bus;
    struct bus_inbox *before;
    TAILQ_FOREACH_REVERSE(before, &bus->found, bus_inboxes, found)
        if (before->serial < inbox->serial)
            break;
    if (before)
        TAILQ_INSERT_AFTER(&bus->found, before, inbox, found);
    else
        TAILQ_INSERT_HEAD(&bus->found, inbox, found);
    inbox->is_found = true;
}

void bus_find_lose(struct bus_inbox *inbox)
{
    if (inbox->is_found)
        TAILQ_REMOVE(&inbox->bus->found, inbox, found);
    inbox->is_found = false;
}

void bus_find(struct bus *bus, uint64_t n)
{
    struct bus_inbox *inbox;
    int waiting;
    TAILQ_FOREACH(inbox, &bus->used, by_use) {
        if (n == 0)
            break;
        if (!inbox->nats || natsSubscription_GetPending(inbox->nats, &waiting, NULL) != NATS_OK || waiting == 0)
            continue;
        if (!inbox->is_found)
            find(inbox);
        n -= (uint64_t)waiting < n ? (uint64_t)waiting : n;
    }
}

uint64_t bus_find_undelivered(const struct bus *bus)
{
    uint64_t n = 0;
    if (bus->n_inboxes <= FEW || !bus->link || natsConnection_GetStats(bus->link->nats, bus->stats) != NATS_OK ||
        natsStatistics_GetCounts(bus->stats, &n, NULL, NULL, NULL, NULL) != NATS_OK)
        return UINT64_MAX;
    return n - bus->n_taken;
}

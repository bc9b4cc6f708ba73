/* How inboxes are called. Permissions see the owner; the random token after it keeps what is ours from other connections of the same owner, and from who would guess. */
#include "base/bus_private.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

bool bus_inbox_prefix_is_valid(const char *prefix)
{
    char inbox[BUS_INBOX_PREFIX_MAX + sizeof ".x"];
    if (!prefix || strlen(prefix) > BUS_INBOX_PREFIX_MAX)
        return false;
    snprintf(inbox, sizeof inbox, "%s.x", prefix);
    return amp_subject_is_inbox(inbox);
}

void bus_inbox_prefix(const struct bus_options *options, const char token[BUS_TOKEN_LEN + 1], char ret[BUS_PREFIX_SIZE])
{
    const char *owner = options->owner ? options->owner : options->name;
    if (options->inbox && options->inbox[0]) {
        assert(bus_inbox_prefix_is_valid(options->inbox));
        snprintf(ret, BUS_PREFIX_SIZE, "%.*s.%s", (int)BUS_INBOX_PREFIX_MAX, options->inbox, token);
    } else if (owner && amp_id_is_valid(owner)) {
        snprintf(ret, BUS_PREFIX_SIZE, "_INBOX.%.*s.%s", (int)AMP_NAME_MAX, owner, token);
    } else {
        snprintf(ret, BUS_PREFIX_SIZE, "_INBOX.%s", token);
    }
}

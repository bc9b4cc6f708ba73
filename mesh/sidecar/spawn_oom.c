/* Signal 9 alone does not say who sent it. The kernel counts its own kills for memory: per control group in memory.events.local (v2; before Linux 5.2 memory.events, which has those of
 * the groups below, too) or memory.oom_control (v1), and per host in /proc/vmstat. A count that rose while the child lived, and a child that died of a signal 9 that we did not send:
 * killed for memory. That of the host counts only where our group's is not known: others on it are killed without us. */
#include "spawn_private.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX (32u << 10)

static bool slurp(const char *path, char *ret, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t len = 0;
    ssize_t got;
    while (len < size - 1 && (got = read(fd, ret + len, size - 1 - len)) > 0)
        len += (size_t)got;
    (void)close(fd);
    ret[len] = '\0';
    return len > 0;
}

uint64_t spawn_oom_parse(const char *text, const char *key)
{
    size_t len = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, len) == 0 && line[len] == ' ')
            return strtoull(line + len + 1, NULL, 10);
    }
    return 0;
}

/* Our group by /proc/self/cgroup: "0::/path" (v2) or "n:memory:/path" (v1). In a container the path may be of the host's view: then the root of what is mounted counts, which may be another
 * group. → is it ours? */
static bool group_kills(char *text, uint64_t *ret)
{
    static const struct {
        const char *mark, *root, *file;
    } kinds[] = {{"0::", "/sys/fs/cgroup", "memory.events.local"}, {"0::", "/sys/fs/cgroup", "memory.events"}, {":memory:", "/sys/fs/cgroup/memory", "memory.oom_control"}};
    if (!slurp("/proc/self/cgroup", text, TEXT_MAX))
        return false;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        char path[768], counts[1024];
        const char *at = strstr(text, kinds[i].mark), *group = at ? at + strlen(kinds[i].mark) : "";
        (void)snprintf(path, sizeof(path), "%s%.*s/%s", kinds[i].root, (int)strcspn(group, "\n"), group, kinds[i].file);
        bool is_ours = at && slurp(path, counts, sizeof(counts));
        (void)snprintf(path, sizeof(path), "%s/%s", kinds[i].root, kinds[i].file);
        if (is_ours || slurp(path, counts, sizeof(counts))) {
            *ret = spawn_oom_parse(counts, "oom_kill");
            return is_ours;
        }
    }
    return false;
}

void spawn_oom_read(struct spawn_oom *ret)
{
    char text[TEXT_MAX];
    *ret = (struct spawn_oom){.group = 0};
    ret->is_of_group = group_kills(text, &ret->group);
    if (!ret->is_of_group && slurp("/proc/vmstat", text, sizeof(text)))
        ret->host = spawn_oom_parse(text, "oom_kill");
}

bool spawn_oom_rose(const struct spawn_oom *before, const struct spawn_oom *after)
{
    return before->is_of_group == after->is_of_group && (after->host > before->host || after->group > before->group);
}

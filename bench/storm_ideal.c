/* Control: the ideal queue with nothing in between, slept in one process: what the clock, the timers and the load of this machine add to it. (storm.h)
 *   storm_ideal TRACE RESULT SLOW_FACTOR ROLE...     a ROLE per server: SLOW_FROM,BUSY_FROM,BUSY_UNTIL,KILLED_AT,JOINED_AT in ms, -1 for never */
#include "storm.h"

#define SERVERS_MAX 64u
#define NOBODY SIZE_MAX

struct server {
    int64_t slow_from, busy_from, busy_until, killed_at, joined_at; /* ns on the trace's clock */
    size_t task;
    int64_t until;
};

static struct server servers[SERVERS_MAX];
static size_t n_servers, first, *queue; /* by arrival; what comes back from a killed server takes the place of one that has left */
static size_t n_queued;
static int64_t slow_factor;
static unsigned drawn = 1;

static int64_t ns(const char *text, char **end)
{
    int64_t ms = strtol(text, end, 10);
    return ms < 0 ? INT64_MAX : ms * 1000000;
}

static void server_read(const char *text)
{
    char *at = (char *)text - 1;
    struct server *server = &servers[n_servers++];
    server->slow_from = ns(at + 1, &at);
    server->busy_from = ns(at + 1, &at);
    server->busy_until = ns(at + 1, &at);
    server->killed_at = ns(at + 1, &at);
    server->joined_at = ns(at + 1, &at);
    server->task = NOBODY;
}

static void send_task(struct storm *storm, size_t id)
{
    (void)storm;
    queue[n_queued++] = id;
}

static bool is_able(const struct server *server, int64_t now)
{
    return server->task == NOBODY && now >= server->joined_at && now < server->killed_at && !(now >= server->busy_from && now < server->busy_until);
}

static struct server *choose(int64_t now)
{
    struct server *chosen = NULL;
    unsigned n = 0;
    for (size_t i = 0; i < n_servers; i++) {
        drawn = drawn * 1103515245 + 12345;
        if (is_able(&servers[i], now) && (drawn >> 16) % ++n == 0)
            chosen = &servers[i];
    }
    return chosen;
}

/* What has ended, what begins; → when something happens next. */
static int64_t work(struct storm *storm, int64_t next)
{
    int64_t now = measure_now_ns() - storm->start_ns;
    for (size_t i = 0; i < n_servers; i++) {
        struct server *server = &servers[i];
        if (server->task != NOBODY && now >= server->killed_at)
            queue[--first] = server->task;
        else if (server->task != NOBODY && now >= server->until)
            storm_end(storm, server->task, STORM_DONE);
        else
            continue;
        server->task = NOBODY;
    }
    struct server *server;
    while (first < n_queued && (server = choose(now))) {
        server->task = queue[first++];
        server->until = now + storm->tasks[server->task].service_ns * (now >= server->slow_from ? slow_factor : 1);
    }
    for (size_t i = 0; i < n_servers; i++) {
        const int64_t times[] = {servers[i].task == NOBODY ? INT64_MAX : servers[i].until, servers[i].busy_until, servers[i].killed_at, servers[i].joined_at};
        for (size_t k = 0; k < sizeof times / sizeof *times; k++)
            if (times[k] > now && times[k] != INT64_MAX && storm->start_ns + times[k] < next)
                next = storm->start_ns + times[k];
    }
    return next;
}

int main(int argc, char **argv)
{
    struct storm storm = {0};
    if (argc < 5 || argc - 4 > (int)SERVERS_MAX)
        return 2;
    storm_read(&storm, argv[1]);
    slow_factor = strtol(argv[3], NULL, 10);
    for (int i = 4; i < argc; i++)
        server_read(argv[i]);
    queue = calloc(storm.n + SERVERS_MAX, sizeof *queue);
    first = n_queued = SERVERS_MAX;
    storm_start(&storm);
    for (int64_t next; (next = storm_step(&storm, send_task)) > 0;) {
        struct timespec left = storm_left(work(&storm, next));
        ppoll(NULL, 0, &left, NULL);
    }
    storm_write(&storm, argv[2]);
    return 0;
}

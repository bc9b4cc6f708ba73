/* Controls: the storm's callers on plain NATS, a connection each. (storm.h)
 *   storm_nats queue TRACE RESULT URL SUBJECT          a queue group: the server picks a responder at random
 *   storm_nats least TRACE RESULT URL SUBJECT COUNT    each caller sends to the responder (SUBJECT.0 …) with the fewest of its own calls outstanding */
#include "storm.h"

#include <nats/nats.h>
#include <pthread.h>

#define SERVERS_MAX 64u

static struct storm storm;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static natsConnection *connections[STORM_CALLERS_MAX];
static char *inboxes[STORM_CALLERS_MAX];
static const char *subject;
static bool is_least;
static unsigned n_servers, outstanding[STORM_CALLERS_MAX][SERVERS_MAX], drawn = 1;
static bool is_there[SERVERS_MAX];

static void must(natsStatus status, const char *what)
{
    if (status != NATS_OK) {
        fprintf(stderr, "storm_nats: %s: %s\n", what, natsStatus_GetText(status));
        exit(1);
    }
}

/* Of those with the fewest one at random. */
static unsigned choose(unsigned caller)
{
    unsigned best = SERVERS_MAX, n_best = 0;
    for (unsigned i = 0; i < n_servers; i++) {
        unsigned have = outstanding[caller][i];
        if (!is_there[i] || (best < SERVERS_MAX && have > outstanding[caller][best]))
            continue;
        if (best == SERVERS_MAX || have < outstanding[caller][best])
            n_best = 0;
        drawn = drawn * 1103515245 + 12345;
        if ((drawn >> 16) % ++n_best == 0)
            best = i;
    }
    return best;
}

static void send_task(struct storm *of, size_t id)
{
    struct storm_task *task = &of->tasks[id];
    char text[80], to[128], reply[128];
    size_t len = storm_text(of, id, text, sizeof text);
    snprintf(to, sizeof to, "%s", subject);
    if (is_least) {
        task->server = choose(task->caller);
        if (task->server == SERVERS_MAX) {
            storm_end(of, id, STORM_FAILED);
            return;
        }
        outstanding[task->caller][task->server]++;
        snprintf(to, sizeof to, "%s.%u", subject, task->server);
    }
    snprintf(reply, sizeof reply, "%s.%zu", inboxes[task->caller], id);
    must(natsConnection_PublishRequest(connections[task->caller], to, reply, text, (int)len), "publish");
}

static void on_answer(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *ctx)
{
    (void)nc, (void)sub, (void)ctx;
    size_t id = strtoul(strrchr(natsMsg_GetSubject(msg), '.') + 1, NULL, 10);
    pthread_mutex_lock(&lock);
    if (id < storm.n && storm.tasks[id].state == STORM_SENT) {
        struct storm_task *task = &storm.tasks[id];
        bool is_nobody = natsMsg_IsNoResponders(msg);
        if (is_least)
            outstanding[task->caller][task->server]--;
        if (is_nobody && is_least)
            is_there[task->server] = false;
        if (is_nobody || strncmp(natsMsg_GetData(msg), STORM_BUSY, strlen(STORM_BUSY)) == 0)
            storm_again(&storm, id, is_nobody && is_least);
        else
            storm_end(&storm, id, STORM_DONE);
        if (task->state == STORM_WAITING || storm.n_ended == storm.n)
            pthread_cond_signal(&changed);
    }
    pthread_mutex_unlock(&lock);
    natsMsg_Destroy(msg);
}

static void on_hello(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *ctx)
{
    (void)nc, (void)sub, (void)ctx;
    unsigned server = (unsigned)strtoul(natsMsg_GetData(msg), NULL, 10);
    pthread_mutex_lock(&lock);
    if (server < SERVERS_MAX) {
        is_there[server] = true;
        n_servers = server >= n_servers ? server + 1 : n_servers;
    }
    pthread_mutex_unlock(&lock);
    natsMsg_Destroy(msg);
}

static void connect_callers(const char *url)
{
    natsOptions *options = NULL;
    natsSubscription *sub = NULL;
    char pattern[128], hello[128];
    must(natsOptions_Create(&options), "options");
    must(natsOptions_SetURL(options, url), "url");
    must(natsOptions_SetSendAsap(options, true), "asap");
    for (size_t i = 0; i < storm.n_callers; i++) {
        must(natsConnection_Connect(&connections[i], options), "connect");
        must(natsInbox_Create(&inboxes[i]), "inbox");
        snprintf(pattern, sizeof pattern, "%s.*", inboxes[i]);
        must(natsConnection_Subscribe(&sub, connections[i], pattern, on_answer, NULL), "subscribe");
    }
    snprintf(hello, sizeof hello, "%s.hello", subject);
    must(natsConnection_Subscribe(&sub, connections[0], hello, on_hello, NULL), "subscribe");
    for (size_t i = 0; i < storm.n_callers; i++)
        must(natsConnection_Flush(connections[i]), "flush");
}

int main(int argc, char **argv)
{
    pthread_condattr_t attr;
    if (argc < 6)
        return 2;
    is_least = strcmp(argv[1], "least") == 0;
    storm_read(&storm, argv[2]);
    subject = argv[5];
    n_servers = argc > 6 ? (unsigned)strtoul(argv[6], NULL, 10) % SERVERS_MAX : 0;
    for (unsigned i = 0; i < n_servers; i++)
        is_there[i] = true;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &attr);
    connect_callers(argv[4]);
    pthread_mutex_lock(&lock);
    storm_start(&storm);
    for (int64_t next; (next = storm_step(&storm, send_task)) > 0;) {
        struct timespec until = {.tv_sec = next / 1000000000, .tv_nsec = next % 1000000000};
        pthread_cond_timedwait(&changed, &lock, &until);
    }
    pthread_mutex_unlock(&lock);
    storm_write(&storm, argv[3]);
    return 0;
}

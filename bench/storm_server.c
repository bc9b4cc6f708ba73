/* Control: the storm's agent on plain NATS: a responder with a queue of its own (nats.c's), one task at a time. (storm.h)
 *   storm_server URL SUBJECT QUEUE|- NUMBER LOG SLOW_FROM_MS SLOW_FACTOR BUSY_FROM_MS BUSY_UNTIL_MS
 * It says its NUMBER on SUBJECT.hello when it is ready. */
#include "storm.h"

#include <nats/nats.h>

static void must(natsStatus status, const char *what)
{
    if (status != NATS_OK) {
        fprintf(stderr, "storm_server: %s: %s\n", what, natsStatus_GetText(status));
        exit(1);
    }
}

static void on_request(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *ctx)
{
    (void)sub;
    struct storm_agent *agent = ctx;
    char text[128];
    size_t id;
    snprintf(text, sizeof text, "%.*s", natsMsg_GetDataLength(msg), natsMsg_GetData(msg));
    int64_t until_ns = storm_begin(agent, text, &id);
    if (until_ns > 0) {
        struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0)
            ;
        storm_log(agent, 'd', id);
    }
    natsConnection_PublishString(nc, natsMsg_GetReply(msg), until_ns > 0 ? "done" : STORM_BUSY);
    natsMsg_Destroy(msg);
}

int main(int argc, char **argv)
{
    if (argc != STORM_AGENT_ARGS + 5)
        return 2;
    struct storm_agent agent;
    storm_agent_init(&agent, argv + 5);
    natsOptions *options = NULL;
    natsConnection *nc = NULL;
    natsSubscription *sub = NULL;
    char hello[128];
    must(natsOptions_Create(&options), "options");
    must(natsOptions_SetURL(options, argv[1]), "url");
    must(natsOptions_SetSendAsap(options, true), "asap");
    must(natsConnection_Connect(&nc, options), "connect");
    if (strcmp(argv[3], "-") == 0)
        must(natsConnection_Subscribe(&sub, nc, argv[2], on_request, &agent), "subscribe");
    else
        must(natsConnection_QueueSubscribe(&sub, nc, argv[2], argv[3], on_request, &agent), "subscribe");
    must(natsConnection_Flush(nc), "flush");
    snprintf(hello, sizeof hello, "%.*s.hello", (int)strcspn(argv[2], "."), argv[2]);
    must(natsConnection_PublishString(nc, hello, argv[4]), "hello");
    must(natsConnection_Flush(nc), "flush");
    puts("ready");
    fflush(stdout);
    for (;;)
        pause();
}

/* Control: the same request and answer with nats.c and nothing else, as its users write it (SendAsap on both sides, else each answer costs 1 ms).
 *   raw_nats respond URL
 *   raw_nats request URL COUNT WINDOW     sequential natsConnection_Request with WINDOW 1, else an own inbox with WINDOW in flight */
#include "measure.h"

#include <nats/nats.h>
#include <semaphore.h>

static const char payload[128] = "echo";
static struct measure m;
static int64_t began_ns[1024];
static sem_t slots;
static size_t done, wanted;
static sem_t finished;

static void must(natsStatus status, const char *what)
{
    if (status != NATS_OK) {
        fprintf(stderr, "raw_nats: %s: %s\n", what, natsStatus_GetText(status));
        exit(1);
    }
}

static void on_request(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *ctx)
{
    (void)sub, (void)ctx;
    natsConnection_Publish(nc, natsMsg_GetReply(msg), natsMsg_GetData(msg), natsMsg_GetDataLength(msg));
    natsMsg_Destroy(msg);
}

static void on_answer(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *ctx)
{
    (void)nc, (void)sub, (void)ctx;
    size_t slot = (size_t)atoi(strrchr(natsMsg_GetSubject(msg), '.') + 1);
    measure_add(&m, began_ns[slot % 1024]);
    natsMsg_Destroy(msg);
    sem_post(&slots);
    if (++done == wanted)
        sem_post(&finished);
}

static void request_window(natsConnection *nc, size_t count, size_t window)
{
    natsInbox *inbox = NULL;
    natsSubscription *sub = NULL;
    char pattern[128], reply[160];
    must(natsInbox_Create(&inbox), "inbox");
    snprintf(pattern, sizeof pattern, "%s.*", (char *)inbox);
    must(natsConnection_Subscribe(&sub, nc, pattern, on_answer, NULL), "subscribe");
    sem_init(&slots, 0, (unsigned)window);
    sem_init(&finished, 0, 0);
    wanted = count;
    measure_start(&m, count);
    for (size_t i = 0; i < count; i++) {
        while (sem_wait(&slots) != 0)
            ;
        snprintf(reply, sizeof reply, "%s.%zu", (char *)inbox, i % 1024);
        began_ns[i % 1024] = measure_now_ns();
        must(natsConnection_PublishRequest(nc, "bench.natsc", reply, payload, sizeof payload), "publish");
    }
    while (sem_wait(&finished) != 0)
        ;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    natsOptions *options = NULL;
    natsConnection *nc = NULL;
    must(natsOptions_Create(&options), "options");
    must(natsOptions_SetURL(options, argv[2]), "url");
    must(natsOptions_SetSendAsap(options, true), "asap");
    must(natsConnection_Connect(&nc, options), "connect");
    if (strcmp(argv[1], "respond") == 0) {
        natsSubscription *sub = NULL;
        must(natsConnection_Subscribe(&sub, nc, "bench.natsc", on_request, NULL), "subscribe");
        must(natsConnection_Flush(nc), "flush");
        puts("ready");
        fflush(stdout);
        for (;;)
            pause();
    }
    size_t count = strtoul(argv[3], NULL, 10), window = strtoul(argv[4], NULL, 10);
    if (window > 1) {
        request_window(nc, count, window);
    } else {
        for (size_t i = 0; i < count + 200; i++) {
            natsMsg *answer = NULL;
            if (i == 200)
                measure_start(&m, count);
            int64_t began = measure_now_ns();
            must(natsConnection_Request(&answer, nc, "bench.natsc", payload, sizeof payload, 5000), "request");
            if (i >= 200)
                measure_add(&m, began);
            natsMsg_Destroy(answer);
        }
    }
    measure_report(&m, "raw nats.c");
    return 0;
}

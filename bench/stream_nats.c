/* Control: the records as messages of plain NATS from one connection to another, a subscription's callback, no credit.
 *   stream_nats URL COUNT */
#include "stream.h"

#include <nats/nats.h>
#include <semaphore.h>

static struct records records;
static size_t wanted;
static sem_t finished;

static void must(natsStatus status, const char *what)
{
    if (status != NATS_OK) {
        fprintf(stderr, "stream_nats: %s: %s\n", what, natsStatus_GetText(status));
        exit(1);
    }
}

static void on_message(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *ctx)
{
    records_take(&records, natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg));
    if (records.received == wanted)
        sem_post(&finished);
    natsMsg_Destroy(msg);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    wanted = strtoul(argv[2], NULL, 10);
    sem_init(&finished, 0, 0);
    natsConnection *reader = NULL, *writer = NULL;
    natsSubscription *sub = NULL;
    must(natsConnection_ConnectTo(&reader, argv[1]), "connect");
    must(natsConnection_ConnectTo(&writer, argv[1]), "connect");
    must(natsConnection_Subscribe(&sub, reader, "bench.stream", on_message, NULL), "subscribe");
    must(natsSubscription_SetPendingLimits(sub, -1, -1), "limits");
    must(natsConnection_Flush(reader), "flush");
    for (size_t i = 0; i < wanted; i++) {
        char record[RECORD_SIZE_MAX + 1];
        record_write(record, i, RECORD_SIZE);
        must(natsConnection_Publish(writer, "bench.stream", record, RECORD_SIZE), "publish");
    }
    must(natsConnection_Flush(writer), "flush");
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    (void)sem_timedwait(&finished, &until);
    double seconds = (double)(records.last_ns - records.first_ns) / 1e9;
    printf("{\"received\":%zu,\"lost\":%zu,\"out_of_order\":%zu,\"rate\":%.0f}\n", records.received, wanted - records.received, records.out_of_order, (double)records.received / seconds);
    return 0;
}

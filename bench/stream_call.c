/* Readers of streams on the local API of a sidecar, a connection each.
 *   stream_call one SOCKET AGENT COUNT [SIZE RATE]  one stream of records of SIZE bytes (64), RATE a second (0: as fast as it may)
 *   stream_call stopped SOCKET AGENT SECONDS    four slow streams, whose latency counts: alone, then beside a fast one, then while the reader of the fast one does not read, then while that goes on */
#include "stream.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SLOW 4u
#define SLOW_RATE 500u
#define FAST_RATE 5000u
#define PHASES 4

struct reader {
    int fd;
    char *in;
    size_t len, size, wanted;
    bool is_over, is_stopped;
    struct records records;
};

static const char *const phase_names[PHASES] = {"alone", "beside", "stopped", "going_on"};
static double *latency_us[PHASES];
static size_t n_latency[PHASES], latency_max;
static int64_t phase_from_ns[PHASES + 1];

static void reader_dial(struct reader *reader, const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    *reader = (struct reader){.fd = socket(AF_UNIX, SOCK_STREAM, 0), .size = 1u << 20};
    reader->in = malloc(reader->size);
    if (connect(reader->fd, (struct sockaddr *)&to, sizeof to) != 0) {
        perror("stream_call: connect");
        exit(1);
    }
    dprintf(reader->fd, "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"hello\",\"params\":{\"proto\":1,\"role\":\"caller\"}}\n");
}

static void reader_ask(struct reader *reader, const char *agent, size_t count, unsigned rate, size_t size)
{
    reader->wanted = count;
    dprintf(reader->fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"send\",\"params\":{\"to\":\"%s\",\"text\":\"%zu %u %zu\",\"stream\":true}}\n", agent, count, rate, size);
}

static void take_line(struct reader *reader, const char *line, const char *end)
{
    if (strstr(line, "\"send.event\"")) {
        records_take(&reader->records, line, (size_t)(end - line));
    } else if (strstr(line, "\"id\":1")) {
        reader->is_over = true;
        if (!strstr(line, "TASK_STATE_COMPLETED")) {
            fprintf(stderr, "stream_call: %.400s\n", line);
            exit(1);
        }
    }
}

static void reader_read(struct reader *reader)
{
    if (reader->size - reader->len < 65536)
        reader->in = realloc(reader->in, reader->size *= 2);
    ssize_t n = read(reader->fd, reader->in + reader->len, reader->size - reader->len - 1);
    if (n <= 0) {
        fprintf(stderr, "stream_call: the sidecar closed after %zu records\n", reader->records.received);
        exit(1);
    }
    char *line = reader->in, *end, *from = reader->in + reader->len;
    reader->len += (size_t)n;
    while ((end = memchr(from, '\n', (size_t)(reader->in + reader->len - from)))) {
        *end = 0;
        take_line(reader, line, end);
        line = from = end + 1;
    }
    reader->len -= (size_t)(line - reader->in);
    memmove(reader->in, line, reader->len);
}

static size_t lost(const struct reader *reader)
{
    return reader->wanted - reader->records.received;
}

static int read_one(const char *path, const char *agent, size_t count, size_t size, unsigned rate)
{
    struct reader reader;
    reader_dial(&reader, path);
    reader_ask(&reader, agent, count, rate, size);
    while (!reader.is_over)
        reader_read(&reader);
    double seconds = (double)(reader.records.last_ns - reader.records.first_ns) / 1e9;
    printf("{\"received\":%zu,\"lost\":%zu,\"out_of_order\":%zu,\"rate\":%.0f}\n", reader.records.received, lost(&reader), reader.records.out_of_order,
           (double)reader.records.received / seconds);
    return 0;
}

static void on_slow(void *ctx, int64_t written_ns, int64_t now_ns)
{
    for (size_t phase = 0; phase < PHASES; phase++)
        if (written_ns >= phase_from_ns[phase] && written_ns < phase_from_ns[phase + 1] && n_latency[phase] < latency_max)
            latency_us[phase][n_latency[phase]++] = (double)(now_ns - written_ns) / 1e3;
}

static void report(const struct reader *readers)
{
    size_t n_lost = 0, n_disorder = 0;
    for (size_t i = 0; i <= SLOW; i++) {
        n_lost += lost(&readers[i]);
        n_disorder += readers[i].records.out_of_order;
    }
    printf("{\"lost\":%zu,\"out_of_order\":%zu,\"fast_received\":%zu", n_lost, n_disorder, readers[SLOW].records.received);
    for (size_t phase = 0; phase < PHASES; phase++) {
        qsort(latency_us[phase], n_latency[phase], sizeof(double), measure_compare);
        size_t n = n_latency[phase];
        printf(",\"%s\":{\"n\":%zu,\"p50_us\":%.1f,\"p99_us\":%.1f}", phase_names[phase], n, n ? latency_us[phase][n / 2] : 0, n ? latency_us[phase][n * 99 / 100] : 0);
    }
    puts("}");
}

static int read_stopped(const char *path, const char *agent, size_t seconds)
{
    static struct reader readers[SLOW + 1];
    struct pollfd fds[SLOW + 1];
    latency_max = SLOW * SLOW_RATE * seconds * 2;
    for (size_t i = 0; i < PHASES; i++)
        latency_us[i] = calloc(latency_max, sizeof **latency_us);
    for (size_t i = 0; i <= SLOW; i++)
        reader_dial(&readers[i], path);
    int64_t start_ns = measure_now_ns() + 300000000;
    for (size_t i = 0; i <= PHASES; i++)
        phase_from_ns[i] = start_ns + (int64_t)(i * seconds * 1000000000);
    for (size_t i = 0; i < SLOW; i++) {
        readers[i].records.on_record = on_slow;
        reader_ask(&readers[i], agent, SLOW_RATE * (seconds * PHASES + 1), SLOW_RATE, RECORD_SIZE);
    }
    for (size_t n_over = 0; n_over <= SLOW;) {
        int64_t now = measure_now_ns();
        if (!readers[SLOW].wanted && now >= phase_from_ns[1])
            reader_ask(&readers[SLOW], agent, FAST_RATE * seconds * 2, FAST_RATE, RECORD_SIZE);
        bool is_stopped = now >= phase_from_ns[2] && now < phase_from_ns[3];
        n_over = 0;
        for (size_t i = 0; i <= SLOW; i++) {
            fds[i] = (struct pollfd){.fd = readers[i].fd, .events = i == SLOW && is_stopped ? 0 : POLLIN};
            n_over += readers[i].is_over;
        }
        if (n_over <= SLOW && poll(fds, SLOW + 1, 10) > 0)
            for (size_t i = 0; i <= SLOW; i++)
                if (fds[i].revents)
                    reader_read(&readers[i]);
    }
    report(readers);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    size_t number = strtoul(argv[4], NULL, 10);
    size_t size = argc > 5 ? strtoul(argv[5], NULL, 10) : RECORD_SIZE;
    unsigned rate = argc > 6 ? (unsigned)strtoul(argv[6], NULL, 10) : 0;
    return strcmp(argv[1], "one") == 0 ? read_one(argv[2], argv[3], number, size, rate) : read_stopped(argv[2], argv[3], number);
}

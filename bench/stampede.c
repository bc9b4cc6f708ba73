/* Many clients, each with all its submits at once: every one is accepted, or told when to come back, and comes back then.
 *   stampede URL AGENT CLIENTS EACH BYTES [IDS]
 * One JSON line; with IDS the accepted tasks' ids, one a line, each written when its answer came. */
#include "measure.h"

#include <amp/amp.h>
#include "base/bus.h"
#include "base/counters.h"
#include "base/envcall.h"
#include "base/log.h"
#include "base/loop.h"

#define PATIENCE_MS 120000u

static struct loop *loop;
static size_t count, done, accepted, failed;
static FILE *ids;
static struct measure m;

struct one {
    int64_t began_ns;
    struct env_submit *submit;
};

static void on_reply(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct one *one = ctx;
    if (err->code == AMP_OK && reply->n_tasks == 1) {
        accepted++;
        measure_add(&m, one->began_ns);
        if (ids)
            fprintf(ids, "%s\n", reply->tasks[0]->task->id);
    } else if (++failed <= 3) {
        fprintf(stderr, "stampede: %s\n", err->message);
    }
    if (++done == count)
        loop_stop(loop, 0);
}

static void submit(struct bus *bus, const char *from, const char *agent, char *text)
{
    static const struct env_submit_options options = {.answer_ms = 10000, .patience_ms = PATIENCE_MS};
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Message message = AMP__MESSAGE__INIT;
    Amp__Request request = AMP__REQUEST__INIT;
    Amp__Submit what = AMP__SUBMIT__INIT;
    struct one *one = calloc(1, sizeof *one);
    part.text = text;
    message.message_id = (char *)"m";
    message.has_role = 1;
    message.role = AMP__ROLE__ROLE_USER;
    message.n_parts = 1;
    message.parts = parts;
    request.task_id = request.context_id = (char *)"";
    request.message = &message;
    what.agent = (char *)agent;
    what.request = &request;
    one->began_ns = measure_now_ns();
    enum amp_code code = env_submit(loop, bus, from, &what, &options, on_reply, one, &one->submit);
    if (code == AMP_OK)
        return;
    fprintf(stderr, "stampede: %s\n", amp_code_info(code)->text);
    exit(1);
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return 2;
    size_t clients = strtoul(argv[3], NULL, 10), each = strtoul(argv[4], NULL, 10), bytes = strtoul(argv[5], NULL, 10);
    struct bus **buses = calloc(clients, sizeof *buses);
    char *text = calloc(1, bytes + 1), from[32];
    struct amp_error err;
    memset(text, 'x', bytes);
    log_init(LOG_WARN, "stampede");
    ids = argc > 6 ? fopen(argv[6], "w") : NULL;
    count = clients * each;
    loop = loop_new();
    for (size_t i = 0; i < clients; i++) {
        snprintf(from, sizeof from, "client-%zu", i);
        struct bus_options options = {.url = argv[1], .name = from};
        if (bus_new(loop, &options, &buses[i], &err) != AMP_OK) {
            fprintf(stderr, "stampede: %s\n", err.message);
            return 1;
        }
    }
    measure_start(&m, count);
    for (size_t k = 0; k < each; k++) {
        for (size_t i = 0; i < clients; i++) {
            snprintf(from, sizeof from, "client-%zu", i);
            submit(buses[i], from, argv[2], text);
        }
    }
    loop_run(loop);
    double seconds = (double)(measure_now_ns() - m.started_ns) / 1e9;
    if (ids)
        fclose(ids);
    qsort(m.us, m.n, sizeof *m.us, measure_compare);
    printf("{\"submits\":%zu,\"accepted\":%zu,\"failed\":%zu,\"repeated\":%llu,\"seconds\":%.3f,\"p50_ms\":%.1f,\"p99_ms\":%.1f}\n", count, accepted, failed,
           (unsigned long long)counter_get(COUNTER_submits_repeated), seconds, m.n ? m.us[m.n / 2] / 1e3 : 0, m.n ? m.us[m.n * 99 / 100] / 1e3 : 0);
    for (size_t i = 0; i < clients; i++)
        bus_free(buses[i]);
    free(buses);
    free(text);
    loop_free(loop);
    return failed > 0;
}

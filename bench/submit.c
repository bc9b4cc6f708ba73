/* Durable submits: how fast "accepted" comes, WINDOW in flight, from one connection to the bus.
 *   submit URL AGENT COUNT WINDOW */
#include "measure.h"

#include <amp/amp.h>
#include "base/bus.h"
#include "base/clock.h"
#include "base/envcall.h"
#include "base/log.h"
#include "base/loop.h"

static struct measure m;
static struct loop *loop;
static struct bus *bus;
static const char *agent;
static size_t count, window, sent, received, warm = 200;

struct one {
    int64_t began_ns;
};
static void more(void);

static void on_reply(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct one *one = ctx;
    if (err->code != AMP_OK || reply->n_tasks != 1) {
        fprintf(stderr, "submit: not accepted: %s\n", err->message);
        exit(1);
    }
    if (++received == warm)
        measure_start(&m, count);
    else if (received > warm)
        measure_add(&m, one->began_ns);
    free(one);
    if (received == count + warm)
        loop_stop(loop, 0);
    else
        more();
}

static void more(void)
{
    for (; sent < count + warm && sent - received < window; sent++) {
        Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
        part.text = (char *)"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        char id[AMP_ID_SIZE];
        amp_id_new('m', clock_unix_ms(), id);
        Amp__Message message = AMP__MESSAGE__INIT;
        message.message_id = id;
        message.has_role = 1;
        message.role = AMP__ROLE__ROLE_USER;
        message.n_parts = 1;
        message.parts = parts;
        Amp__Request request = AMP__REQUEST__INIT;
        request.task_id = request.context_id = (char *)"";
        request.message = &message;
        Amp__Submit submit = AMP__SUBMIT__INIT;
        submit.agent = (char *)agent;
        submit.request = &request;
        Amp__EnvRequest env = AMP__ENV_REQUEST__INIT;
        env.verb_case = AMP__ENV_REQUEST__VERB_SUBMIT;
        env.submit = &submit;
        struct one *one = malloc(sizeof *one);
        one->began_ns = measure_now_ns();
        struct env_call *call;
        enum amp_code code = env_call(loop, bus, "bench", &env, 30000, on_reply, one, &call);
        if (code != AMP_OK) {
            fprintf(stderr, "submit: %s\n", amp_code_info(code)->text);
            exit(1);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    log_init(LOG_WARN, "submit");
    agent = argv[2];
    count = strtoul(argv[3], NULL, 10);
    window = strtoul(argv[4], NULL, 10);
    loop = loop_new();
    struct amp_error err;
    struct bus_options options = {.url = argv[1], .name = "bench"};
    if (bus_new(loop, &options, &bus, &err) != AMP_OK) {
        fprintf(stderr, "submit: %s\n", err.message);
        return 1;
    }
    more();
    int status = loop_run(loop);
    measure_report(&m, "durable submit");
    bus_free(bus);
    loop_free(loop);
    return status;
}

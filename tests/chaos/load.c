/* A client of the campaign: submits tasks of its own names and keys, and writes down what was acknowledged, synced to its disk before it goes on.
 *
 *   chaos_load URL FROM ACKS [--rate N] [--window N] [--count N] [--twice] [--work MS] [--poison N] [--first N] [--again MS] AGENT…
 *
 * A line of ACKS: {"text":…,"task":…,"key":…,"duplicate":…}. What was not acknowledged is sent again with the same key until it is, or for good refused. SIGTERM: nothing new,
 * what is open may still be acknowledged for 5 s; then one line of JSON on stdout with what was counted. --twice sends each request two times at once. */
#include "base/bus.h"
#include "base/clock.h"
#include "base/envcall.h"
#include "base/log.h"
#include "base/loop.h"

#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REPLY_MS = 3000, AGAIN_MS = 20, AGAIN_MAX_MS = 250, GRACE_MS = 5000, CODES = 6000, TURN_MS = 2 };

struct one { /* a task that is being submitted */
    uint64_t number;
    uint32_t tries;
    int n_calls; /* under way */
    bool is_acked, is_refused;
    struct loop_timer *again;
    struct one *prev, *next;
};

static struct {
    struct loop *loop;
    struct bus *bus;
    struct loop_timer *pace, *grace;
    struct loop_tick *sync;
    const char *from, **agents;
    size_t n_agents;
    unsigned rate, work_ms, again_ms;
    uint64_t window, count, poison, first;
    bool is_twice, is_stopping;
    int acks_fd;
    struct amp_buf acks; /* not on the disk yet */
    struct one *open, *done; /* done: acknowledged, to be given up when that is on the disk */
    uint64_t n_open, n_sent, n_acked, n_duplicates, n_refused, n_again;
    int64_t began_ms;
    uint32_t codes[CODES];
} load;

static void submit(struct one *one);
static void send_more(void);

static void stop(void)
{
    printf("{\"sent\":%" PRIu64 ",\"acked\":%" PRIu64 ",\"duplicates\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"again\":%" PRIu64 ",\"unanswered\":%" PRIu64 ",\"codes\":{", load.n_sent,
           load.n_acked, load.n_duplicates, load.n_refused, load.n_again, load.n_open);
    for (int i = 0, n = 0; i < CODES; i++)
        if (load.codes[i])
            printf("%s\"%d\":%u", n++ ? "," : "", i, load.codes[i]);
    printf("}}\n");
    fflush(stdout);
    loop_stop(load.loop, 0);
}

static void one_free(struct one *one)
{
    if (one->prev)
        one->prev->next = one->next;
    else
        load.open = one->next;
    if (one->next)
        one->next->prev = one->prev;
    loop_timer_free(one->again);
    free(one);
    load.n_open--;
}

/* ---- what was acknowledged ------------------------------------------------------------------------------------------ */

static void on_sync(void *ctx)
{
    (void)ctx;
    for (size_t at = 0; at < load.acks.len;) {
        ssize_t n = write(load.acks_fd, load.acks.data + at, load.acks.len - at);
        if (n < 0) {
            perror("chaos_load: write");
            exit(1);
        }
        at += (size_t)n;
    }
    if (load.acks.len && fdatasync(load.acks_fd) != 0) {
        perror("chaos_load: fdatasync");
        exit(1);
    }
    amp_buf_reset(&load.acks);
    for (struct one *one = load.open, *next; one; one = next) {
        next = one->next;
        if (one->n_calls == 0 && (one->is_acked || one->is_refused))
            one_free(one);
    }
    if ((load.is_stopping || (load.count && load.n_sent >= load.count)) && load.n_open == 0)
        stop();
    else
        send_more();
}

static void texts(const struct one *one, char text[128], char key[96])
{
    bool is_poison = load.poison && one->number % load.poison == load.poison - 1;
    snprintf(text, 128, "%s-%" PRIu64 " %s %u", load.from, one->number, is_poison ? "poison" : "work", load.work_ms);
    snprintf(key, 96, "k-%" PRIu64, one->number);
}

static void note_ack(struct one *one, const Amp__EnvReply *reply)
{
    char text[128], key[96];
    texts(one, text, key);
    one->is_acked = true;
    amp_buf_printf(&load.acks, "{\"text\":\"%s\",\"task\":\"%s\",\"key\":\"%s\",\"duplicate\":%s}\n", text, reply->tasks[0]->task->id, key, reply->duplicate ? "true" : "false");
    load.n_duplicates += reply->duplicate;
}

static void on_again(void *ctx)
{
    submit(ctx);
}

static void try_again(struct one *one)
{
    uint32_t wait_ms = AGAIN_MS << (one->tries < 4 ? one->tries : 4);
    load.n_again++;
    one->tries++;
    if (!one->again)
        one->again = loop_timer_new(load.loop, on_again, one);
    loop_timer_set(one->again, load.again_ms ? load.again_ms : (wait_ms < AGAIN_MAX_MS ? wait_ms : AGAIN_MAX_MS) + (uint32_t)(one->number % 16));
}

static void on_reply(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct one *one = ctx;
    bool was_acked = one->is_acked;
    one->n_calls--;
    if (err->code == AMP_OK && reply->n_tasks == 1) {
        note_ack(one, reply);
        load.n_acked += !was_acked;
    } else if (err->code > 0 && (int)err->code < CODES) {
        load.codes[err->code]++;
        if (err->code == AMP_CONFLICT || err->code == AMP_INVALID)
            fprintf(stderr, "chaos_load: task %" PRIu64 ": %s\n", one->number, err->message);
    }
    if (one->is_acked || one->n_calls > 0) {
        loop_tick_request(load.sync);
        return;
    }
    if (amp_code_info(err->code)->is_retryable || err->code == AMP_JOURNAL) {
        try_again(one);
        return;
    }
    one->is_refused = true;
    load.n_refused++;
    loop_tick_request(load.sync);
}

/* ---- what is asked -------------------------------------------------------------------------------------------------- */

static void call(struct one *one)
{
    char text[128], key[96], id[AMP_ID_SIZE];
    texts(one, text, key);
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    part.text = text;
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
    submit.agent = (char *)load.agents[one->number % load.n_agents];
    submit.key = key;
    submit.request = &request;
    Amp__EnvRequest env = AMP__ENV_REQUEST__INIT;
    env.verb_case = AMP__ENV_REQUEST__VERB_SUBMIT;
    env.submit = &submit;
    enum amp_code code = env_call(load.loop, load.bus, load.from, &env, REPLY_MS, on_reply, one, NULL);
    if (code == AMP_OK)
        one->n_calls++;
    else
        load.codes[code]++;
}

static void submit(struct one *one)
{
    call(one);
    if (load.is_twice)
        call(one);
    if (one->n_calls == 0) /* the bus is away */
        try_again(one);
}

static void send_more(void)
{
    uint64_t due = load.rate ? (uint64_t)(clock_mono_ms() - load.began_ms) * load.rate / 1000 + 1 : UINT64_MAX;
    while (!load.is_stopping && load.n_open < load.window && load.n_sent < due && (!load.count || load.n_sent < load.count)) {
        struct one *one = calloc(1, sizeof *one);
        one->number = load.first + load.n_sent++;
        one->next = load.open;
        if (one->next)
            one->next->prev = one;
        load.open = one;
        load.n_open++;
        submit(one);
    }
}

static void on_pace(void *ctx)
{
    (void)ctx;
    send_more();
    loop_timer_set(load.pace, TURN_MS);
}

static void on_grace(void *ctx)
{
    (void)ctx;
    stop();
}

static void on_term(void *ctx, int signo)
{
    (void)ctx, (void)signo;
    load.is_stopping = true;
    if (load.n_open == 0)
        stop();
    else
        loop_timer_set(load.grace, GRACE_MS);
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

static bool read_options(int argc, char **argv)
{
    static const struct option options[] = {{"rate", 1, NULL, 'r'}, {"window", 1, NULL, 'w'}, {"count", 1, NULL, 'c'}, {"twice", 0, NULL, 't'},
                                            {"work", 1, NULL, 'k'}, {"poison", 1, NULL, 'p'}, {"first", 1, NULL, 'f'}, {"again", 1, NULL, 'a'}, {0}};
    int option;
    load.window = 64;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        uint64_t value = optarg ? strtoull(optarg, NULL, 10) : 0;
        switch (option) {
        case 'r': load.rate = (unsigned)value; break;
        case 'w': load.window = value; break;
        case 'c': load.count = value; break;
        case 't': load.is_twice = true; break;
        case 'k': load.work_ms = (unsigned)value; break;
        case 'p': load.poison = value; break;
        case 'f': load.first = value; break;
        case 'a': load.again_ms = (unsigned)value; break;
        default: return false;
        }
    }
    return argc - optind >= 4;
}

int main(int argc, char **argv)
{
    struct amp_error err;
    if (!read_options(argc, argv)) {
        fprintf(stderr, "usage: chaos_load [OPTIONS] URL FROM ACKS AGENT...\n");
        return 2;
    }
    load.from = argv[optind + 1];
    load.agents = (const char **)argv + optind + 3;
    load.n_agents = (size_t)(argc - optind - 3);
    load.acks_fd = open(argv[optind + 2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    log_init(LOG_ERROR, "load");
    amp_buf_init(&load.acks, 64u << 20);
    load.loop = loop_new();
    load.pace = loop_timer_new(load.loop, on_pace, NULL);
    load.grace = loop_timer_new(load.loop, on_grace, NULL);
    load.sync = loop_tick_new(load.loop, on_sync, NULL);
    loop_signal_new(load.loop, SIGTERM, on_term, NULL);
    struct bus_options options = {.url = argv[optind], .name = load.from, .wait_first = true};
    if (load.acks_fd < 0 || bus_new(load.loop, &options, &load.bus, &err) != AMP_OK) {
        fprintf(stderr, "chaos_load: %s\n", load.acks_fd < 0 ? "the file of acknowledgements cannot be opened" : err.message);
        return 1;
    }
    load.began_ms = clock_mono_ms();
    loop_timer_set(load.pace, 0);
    return loop_run(load.loop); /* what is still open ends with the process */
}

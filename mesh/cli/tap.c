/* amesh tap: what happens on the mesh, while it happens. Each event of a task once, though open tasks are published anew after the bus has lost its store; what was missed is said, as far
 * as the numbers of the events tell it. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "base/alloc.h"
#include "base/bus.h"
#include "base/loop.h"
#include "cli/away.h"
#include "cli/event.h"
#include "cli/observe.h"
#include "cli/output.h"

#define TASKS_MAX 65536u /* that are remembered; of more, those that were quiet for the longest time are new again */

struct tapped { /* a task of which something was shown */
    UT_hash_handle hh;
    uint32_t next;             /* all before it was shown, or told as missed, */
    uint32_t gap_from, gap_to; /* but for these, which may come yet: told as missed. Equal: none */
    char id[];
};

struct tap {
    struct cli cli;
    struct away away;
    struct tapped *tasks; /* the quietest first */
    const char *agent;      /* only this one, or NULL */
    uint32_t count, shown;  /* count 0: no end */
    struct amp_arena frame, event;
    uint32_t unreadable;
};

/* Only the first frame says what was asked. */
static void print_request(const struct tap *tap, const struct event_head *head, const Amp__Frame *frame)
{
    char *text = event_message_text(frame->request);
    char *line = print_line(text, 120);
    char clock[PRINT_SHORT_SIZE];
    print_clock(head->unix_ms, clock);
    printf("%s%s%s  %s%s%s  %s     0  %s asks: %s\n", print_on(&tap->cli.out, PRINT_DIM), clock, print_off(&tap->cli.out),
           print_on(&tap->cli.out, PRINT_BOLD), head->agent != NULL ? head->agent : "?", print_off(&tap->cli.out), head->task_id,
           frame->from != NULL ? frame->from : "?", line);
    free(line);
    free(text);
}

/* ---- each once ------------------------------------------------------------------------------------------- */

static void forget(struct tap *tap, struct tapped *task)
{
    assert(tap->tasks != NULL);
    HASH_DEL(tap->tasks, task);
    free(task);
}

static struct tapped *task_of(struct tap *tap, const char *id)
{
    struct tapped *task;
    HASH_FIND_STR(tap->tasks, id, task);
    if (task == NULL) {
        size_t len = strlen(id);
        if (HASH_COUNT(tap->tasks) >= TASKS_MAX)
            forget(tap, tap->tasks);
        task = xcalloc(1, sizeof *task + len + 1);
        memcpy(task->id, id, len);
    } else if (task->hh.next == NULL) {
        return task;
    } else {
        HASH_DEL(tap->tasks, task);
    }
    HASH_ADD_KEYPTR(hh, tap->tasks, task->id, strlen(task->id), task); /* behind all others */
    return task;
}

static void say_missed(const struct tap *tap, const struct tapped *task)
{
    const struct print_style *style = &tap->cli.err;
    fflush(stdout);
    fprintf(stderr, "%smissed: event", print_on(style, PRINT_YELLOW));
    if (task->gap_to - task->gap_from == 1)
        fprintf(stderr, " %u", task->gap_from);
    else
        fprintf(stderr, "s %u to %u", task->gap_from, task->gap_to - 1);
    fprintf(stderr, " of %s (amesh task watch %s --from %u has what is in history)%s\n", task->id, task->id, task->gap_from, print_off(style));
}

/* False: it was shown before, or is not wanted. Those of other agents count: a task may go from one to another. */
static bool is_new(struct tap *tap, const char *task_id, uint32_t seq, bool is_wanted)
{
    struct tapped *task = task_of(tap, task_id);
    if (seq < task->next) { /* what is published anew may fill the gap */
        bool is_missed = seq >= task->gap_from && seq < task->gap_to;
        task->gap_from = is_missed ? seq + 1 : task->gap_from;
        return is_missed && is_wanted;
    }
    if (task->next > 0 && seq > task->next) { /* of one that was never heard nothing is known */
        task->gap_from = task->next;
        task->gap_to = seq;
        if (is_wanted)
            say_missed(tap, task);
    }
    task->next = seq + 1;
    return is_wanted;
}

/* ---- what comes -------------------------------------------------------------------------------------------- */

static void take_event(struct tap *tap, const Amp__Frame *frame, size_t i)
{
    const Amp__Event *event = frame->events[i];
    struct event_head head = {.seq = frame->seq + (uint32_t)i,
                              .unix_ms = event->time != NULL ? event->time->unix_ms : 0,
                              .agent = frame->agent,
                              .instance = frame->instance,
                              .task_id = frame->task_id,
                              .context_id = frame->context_id,
                              .attempt = frame->attempt};
    Amp__StreamResponse *body = NULL;
    amp_arena_reset(&tap->event);
    if (event_decode(event, &tap->event, &body, NULL) != AMP_OK) {
        tap->unreadable++;
        return;
    }
    if (tap->cli.is_json) {
        event_print_json(stdout, &head, body);
    } else {
        if (i == 0 && frame->request != NULL)
            print_request(tap, &head, frame);
        event_print_line(stdout, &tap->cli.out, &head, body);
    }
    if (++tap->shown == tap->count || output_is_lost())
        loop_stop(tap->cli.loop, 0);
}

static void on_frame(void *ctx, const struct bus_msg *msg)
{
    struct tap *tap = ctx;
    Amp__Envelope *envelope = NULL;
    amp_arena_reset(&tap->frame);
    if (tap->count > 0 && tap->shown >= tap->count)
        return;
    if (amp_envelope_decode(msg->data, 1u << AMP__ENVELOPE__BODY_FRAME, &tap->frame, &envelope, NULL, NULL) != AMP_OK) {
        tap->unreadable++;
        return;
    }
    const Amp__Frame *frame = envelope->frame;
    bool is_wanted = tap->agent == NULL || (frame->agent != NULL && strcmp(frame->agent, tap->agent) == 0);
    for (size_t i = 0; i < frame->n_events && (tap->count == 0 || tap->shown < tap->count); i++)
        if (is_new(tap, frame->task_id, frame->seq + (uint32_t)i, is_wanted))
            take_event(tap, frame, i);
}

static void on_link(void *ctx, bool is_up)
{
    struct tap *tap = ctx;
    if (is_up)
        away_back(&tap->away, "what happened meanwhile may be missing here; amesh task ls has it");
    else
        away_lost(&tap->away, "the bus is away");
}

static int run(struct tap *tap)
{
    char subject[AMP_SUBJECT_SIZE];
    struct amp_error err = {0};
    if (amp_subject_build(AMP_SUBJECT_EVT, "*", "*", NULL, subject, &err) != AMP_OK)
        return cli_fail(&tap->cli, &err, NULL);
    struct bus_sub *sub = bus_subscribe(tap->cli.bus, subject, NULL, on_frame, tap);
    struct output_until until;
    output_until_begin(tap->cli.loop, &until);
    if (!tap->cli.is_json && tap->cli.err.is_terminal)
        fprintf(stderr, "listening; ctrl-C ends\n");
    int status = loop_run(tap->cli.loop);
    output_until_end(&until);
    bus_unsubscribe(sub, false);
    while (tap->tasks != NULL)
        forget(tap, tap->tasks);
    if (tap->unreadable > 0)
        fprintf(stderr, "%u messages were not readable\n", tap->unreadable);
    return status;
}

int observe_run_tap(const struct command *command, struct command_args *args)
{
    struct tap tap = {0};
    int status = cli_init(&tap.cli, command, args);
    if (status == 0)
        status = cli_operands(&tap.cli, 0, 1);
    tap.agent = status == 0 ? args->rest[0] : NULL;
    if (status == 0 && tap.agent != NULL)
        status = cli_id(&tap.cli, "the agent", tap.agent);
    if (status == 0)
        status = cli_number(&tap.cli, "count", 1, UINT32_MAX, &tap.count);
    away_init(&tap.away, &tap.cli, "what happens meanwhile is not seen here");
    tap.away.has_heard = true;
    tap.cli.needs_subscription = true;
    tap.cli.on_link = on_link;
    tap.cli.link_ctx = &tap;
    if (status == 0)
        status = cli_connect(&tap.cli);
    if (status == 0) {
        amp_arena_init(&tap.frame, AMP_ARENA_BYTES_MAX);
        amp_arena_init(&tap.event, AMP_ARENA_BYTES_MAX);
        status = run(&tap);
        amp_arena_done(&tap.event);
        amp_arena_done(&tap.frame);
    }
    cli_done(&tap.cli);
    return status;
}

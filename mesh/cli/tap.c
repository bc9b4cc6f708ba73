/* amesh tap: what happens on the mesh, while it happens. */
#include <stdlib.h>
#include <string.h>

#include "base/bus.h"
#include "base/loop.h"
#include "cli/event.h"
#include "cli/observe.h"
#include "cli/output.h"

struct tap {
    struct cli cli;
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
    if (tap->agent != NULL && (frame->agent == NULL || strcmp(frame->agent, tap->agent) != 0))
        return;
    for (size_t i = 0; i < frame->n_events && (tap->count == 0 || tap->shown < tap->count); i++)
        take_event(tap, frame, i);
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

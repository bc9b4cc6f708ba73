/* An agent that can take nothing now, because of a limit of the model behind it ("429"), say: that is load and no failure (local-api.md 3.2). The instance leaves its groups for
 * a while, so that who calls is served by others or waits for its turn. */
#include "sidecar_private.h"

#include "base/log.h"
#include "base/loop.h"

#define FIRST_MS 50u
#define GROWN_MAX_MS 5000u  /* when the agent does not say */
#define GIVEN_MIN_MS 10u
#define GIVEN_MAX_MS 60000u /* when it does */

static void on_over(void *ctx)
{
    struct sidecar *sidecar = ctx;
    sidecar->pause.until_ms = 0;
    sidecar_touch(sidecar);
}

void pause_init(struct sidecar *sidecar)
{
    sidecar->pause = (struct pause){.timer = loop_timer_new(sidecar->loop, on_over, sidecar)};
}

static uint32_t next_gap_ms(const struct pause *pause, uint32_t given_ms)
{
    if (given_ms)
        return given_ms < GIVEN_MIN_MS ? GIVEN_MIN_MS : given_ms > GIVEN_MAX_MS ? GIVEN_MAX_MS : given_ms;
    /* A quarter: what is lost between the end of the limit and the next try is a quarter of how long it lasted, at most, and a limit of a minute is still met less than thirty times. */
    uint32_t grown_ms = pause->gap_ms ? pause->gap_ms + pause->gap_ms / 4 : FIRST_MS;
    return grown_ms > GROWN_MAX_MS ? GROWN_MAX_MS : grown_ms;
}

void pause_begin(struct sidecar *sidecar, struct amp_error *err)
{
    struct pause *pause = &sidecar->pause;
    if (!pause->gap_ms)
        log_event(LOG_INFO, "agent.busy", "agent", sidecar->agent, "instance", sidecar->instance, "reason", err->message, NULL);
    pause->gap_ms = err->retry_after_ms = next_gap_ms(pause, err->retry_after_ms);
    pause->until_ms = loop_now_ms(sidecar->loop) + pause->gap_ms;
    loop_timer_set(pause->timer, pause->gap_ms);
    sidecar_touch(sidecar);
}

uint32_t pause_left_ms(const struct sidecar *sidecar)
{
    int64_t left = sidecar->pause.until_ms ? sidecar->pause.until_ms - loop_now_ms(sidecar->loop) : 0;
    return sidecar->pause.until_ms == 0 ? 0 : left > 0 ? (uint32_t)left : 1;
}

void pause_forget(struct sidecar *sidecar)
{
    sidecar->pause.gap_ms = 0;
}

void pause_done(struct sidecar *sidecar)
{
    loop_timer_free(sidecar->pause.timer);
    sidecar->pause.timer = NULL;
}

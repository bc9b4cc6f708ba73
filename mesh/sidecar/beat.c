/* Signs of life: amp.hb.<agent>.<inst> each second, and at once when the state or the load changes, at most twenty a second. The card goes along in
 * the first one, after the bus came back, and when somebody asks amp.whoall. Always JSON: beats are for observers too. amp.md 9 */
#include "sidecar_private.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bus.h"
#include "base/clock.h"
#include "base/hook.h"
#include "base/log.h"
#include "base/loop.h"

static void on_due(void *ctx)
{
    beat_send(ctx, false, NULL);
}

static void on_who_due(void *ctx)
{
    beat_send(ctx, true, NULL);
}

void beat_init(struct sidecar *sidecar)
{
    struct beat *beat = &sidecar->beat;
    beat->timer = loop_timer_new(sidecar->loop, on_due, sidecar);
    beat->who_timer = loop_timer_new(sidecar->loop, on_who_due, sidecar);
    beat->since_unix_ms = clock_unix_ms();
    if (gethostname(beat->host, sizeof(beat->host) - 1) != 0)
        (void)snprintf(beat->host, sizeof(beat->host), "unknown");
}

void beat_done(struct sidecar *sidecar)
{
    loop_timer_free(sidecar->beat.timer);
    loop_timer_free(sidecar->beat.who_timer);
}

/* For whoever comes. */
static uint32_t open_slots(const struct sidecar *sidecar)
{
    uint32_t free_slots = sidecar_free_slots(sidecar), promised = seek_promised(sidecar);
    return free_slots > promised ? free_slots - promised : 0;
}

void beat_fill(struct sidecar *sidecar, bool with_card, const Amp__Death *death, Amp__Beat *ret)
{
    const struct sidecar_options *options = &sidecar->options;
    struct beat *beat = &sidecar->beat;
    amp__beat__init(ret);
    amp__timestamp__init(&beat->since);
    amp__timestamp__init(&beat->progress);
    beat->since.unix_ms = beat->since_unix_ms;
    beat->progress.unix_ms = sidecar->last_progress_unix_ms;
    ret->agent = sidecar->agent;
    ret->instance = sidecar->instance;
    ret->has_state = ret->has_slots = ret->has_free = ret->has_inflight = ret->has_sidecar_pid = ret->has_interval_ms = true;
    ret->state = sidecar->state;
    ret->slots = sidecar->slots;
    ret->free = sidecar->state == AMP__INSTANCE_STATE__INSTANCE_STATE_UP ? open_slots(sidecar) : 0;
    ret->inflight = sidecar->inflight;
    ret->since = &beat->since;
    ret->last_progress = &beat->progress;
    ret->host = sidecar->beat.host;
    ret->has_pid = sidecar->agent_pid > 0;
    ret->pid = sidecar->agent_pid;
    ret->sidecar_pid = getpid();
    ret->interval_ms = SIDECAR_BEAT_MS;
    ret->card = with_card ? (Amp__AgentCard *)options->card : NULL;
    ret->death = (Amp__Death *)death;
    ret->version = (char *)amp_version();
    ret->retry = options->retry == SIDECAR_RETRY_NEVER ? (char *)"never" : (char *)"safe";
    ret->has_retry_direct = ret->retry_direct = options->retry == SIDECAR_RETRY_SAFE;
    if (options->tags) {
        ret->tags = (char **)options->tags;
        while (ret->tags[ret->n_tags])
            ret->n_tags++;
    }
    ret->tasks = beat->tasks;
    ret->n_tasks = task_ids(sidecar, beat->tasks, AMP_INFLIGHT_TASKS_REPORTED);
    ret->queued = task_queued(sidecar);
    ret->has_queued = ret->queued > 0;
    ret->stuck = (char *)sidecar->stuck;
}

static bool is_changed(const struct beat *beat, const struct sidecar *sidecar)
{
    return beat->last_state != sidecar->state || beat->last_free != open_slots(sidecar) || beat->last_inflight != sidecar->inflight;
}

void beat_send(struct sidecar *sidecar, bool with_card, const Amp__Death *death)
{
    struct beat *self = &sidecar->beat;
    if (!self->is_open)
        return;
    with_card |= self->wants_card;
    Amp__Beat beat;
    beat_fill(sidecar, with_card, death, &beat);
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.body_case = AMP__ENVELOPE__BODY_BEAT;
    envelope.beat = &beat;
    char subject[AMP_SUBJECT_SIZE];
    enum amp_code code = amp_subject_build(AMP_SUBJECT_HB, sidecar->agent, sidecar->instance, NULL, subject, NULL);
    if (code == AMP_OK)
        code = sidecar_publish(sidecar, subject, AMP_JSON, &envelope);
    self->wants_card = with_card && code != AMP_OK; /* the next one carries it then */
    if (code != AMP_OK && code != AMP_NO_BUS)
        log_event(LOG_WARN, "sidecar.beat_lost", "reason", amp_code_info(code)->text, NULL);
    self->last_ms = loop_now_ms(sidecar->loop);
    self->last_state = sidecar->state;
    self->last_free = open_slots(sidecar);
    self->last_inflight = sidecar->inflight;
    loop_timer_set(self->timer, SIDECAR_BEAT_MS);
    hook_at(HOOK_sidecar_beat);
}

void beat_open(struct sidecar *sidecar)
{
    if (sidecar->beat.is_open)
        return;
    sidecar->beat.is_open = true;
    beat_send(sidecar, true, NULL);
}

void beat_update(struct sidecar *sidecar)
{
    struct beat *beat = &sidecar->beat;
    if (!beat->is_open || sidecar->is_stopped || !is_changed(beat, sidecar))
        return;
    int64_t passed_ms = loop_now_ms(sidecar->loop) - beat->last_ms;
    if (passed_ms >= SIDECAR_BEAT_GAP_MS)
        beat_send(sidecar, false, NULL);
    else
        loop_timer_set(beat->timer, (uint32_t)(SIDECAR_BEAT_GAP_MS - passed_ms));
}

void beat_who(struct sidecar *sidecar)
{
    struct beat *beat = &sidecar->beat;
    if (beat->is_open && !loop_timer_is_set(beat->who_timer))
        loop_timer_set(beat->who_timer, randombytes_uniform(SIDECAR_WHO_JITTER_MS + 1));
}

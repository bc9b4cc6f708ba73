/* What becomes of one schedule: when it runs next, and what a run does that finds the one before it still open. Pure: (state, event, both clocks) → one action. The environment
 * does it, writes the state down in the same batch, and reports back. (amp.md 10.9.5)
 *
 * A cron expression, and the first run of what has a first time, go by the wall clock; an interval goes by the monotonic one, so that no setting of the clock holds it up or brings it
 * forward. Planned times are always the wall clock's. */
#pragma once
#include "env/cron.h"

#define SCHEDULE_EVERY_MIN_MS 1000u
#define SCHEDULE_QUEUE_MAX 16u      /* runs that wait for the one before them */
#define SCHEDULE_MISSED_MAX 100000u /* times that are counted as missed at once */
#define SCHEDULE_NEVER INT64_MAX

enum schedule_overlap { SCHEDULE_SKIP, SCHEDULE_QUEUE, SCHEDULE_ALLOW };
enum schedule_state { SCHEDULE_ACTIVE, SCHEDULE_PAUSED, SCHEDULE_DONE };

struct schedule_rule {
    bool is_cron;
    struct cron cron;
    const struct zone *zone; /* borrowed; of a cron expression */
    uint32_t every_ms;
    enum schedule_overlap overlap;
    uint32_t runs_max;      /* 0: no limit */
    int64_t start_unix_ms;  /* of an interval: its first run; of cron: none before it; 0: not said */
    int64_t until_unix_ms;  /* none behind it; SCHEDULE_NEVER: no limit */
};

struct schedule {
    struct schedule_rule rule;
    enum schedule_state state;
    int64_t next_unix_ms; /* SCHEDULE_NEVER: none */
    int64_t next_ms;      /* the same by the monotonic clock, which counts if is_mono */
    bool is_mono;
    int64_t last_unix_ms; /* planned time of the last run; 0: none */
    uint32_t runs, skipped, missed;
    uint32_t n_open;      /* its tasks that have not ended */
    int64_t queued[SCHEDULE_QUEUE_MAX];
    size_t n_queued;
};

struct schedule_now {
    int64_t unix_ms, mono_ms;
};

enum schedule_event {
    SCHEDULE_EV_BEGIN, /* it is new */
    SCHEDULE_EV_FOUND, /* in the journal, its open tasks counted: next_unix_ms and what follows as they were */
    SCHEDULE_EV_LOOK,  /* its time may have come */
    SCHEDULE_EV_ENDED, /* one of its tasks has: no action, but a look may be due */
    SCHEDULE_EV_RUN,   /* somebody wants it now */
    SCHEDULE_EV_PAUSE,
    SCHEDULE_EV_RESUME,
};

struct schedule_action {
    enum { SCHEDULE_DO_NOTHING, SCHEDULE_DO_RUN, SCHEDULE_DO_SKIP, SCHEDULE_DO_QUEUE } kind;
    int64_t planned_unix_ms;
    uint32_t missed;  /* times before that one for which nothing was done */
    bool is_changed;  /* the state is to be written down */
};

struct schedule_action schedule_step(struct schedule *schedule, enum schedule_event event, struct schedule_now now);
/* When SCHEDULE_EV_LOOK is due: by the wall clock, or by the monotonic one (*ret_is_mono). SCHEDULE_NEVER: nothing is waited for. */
int64_t schedule_due(const struct schedule *schedule, bool *ret_is_mono);

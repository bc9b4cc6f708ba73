/* What a seed asks for: instances, jobs, mishaps, each at its moment and with all that is to be known of it. One item more or less changes none of the others. */
#include "scenario.h"

#include <string.h>

#define RUSH_EVERY 4u /* seeds */
#define RUSH_MAX 24u  /* calls */

static const char *const fault_texts[FAULTS] = {
#define FAULT(name, text) text,
#include "fault.def"
#undef FAULT
};
static const char *const point_texts[POINTS] = {"message sent", "message received", "write to the disk", "sync", "timer"};

static const char *const disk_texts[] = {"it is full", "EIO of all writes", "a sync fails, those after it lie"};

static struct item *add(struct script *plan, enum item_kind kind, uint32_t at_ms)
{
    if (plan->n_items == ITEMS_MAX)
        return NULL;
    struct item *item = &plan->items[plan->n_items++];
    memset(item, 0, sizeof *item);
    item->kind = kind;
    item->at_ms = at_ms;
    return item;
}

static void add_instance(struct script *plan, uint32_t n)
{
    struct item *item = add(plan, ITEM_INSTANCE, 0);
    snprintf(item->habits.agent, sizeof item->habits.agent, "agent-%u", n % plan->n_names & 7u);
    item->habits.slots = world_between(1, 3);
    item->habits.is_once = plan->seed % 4 == 0 && n % plan->n_names == 0;
    item->habits.work_most_ms = world_between(1, 1500);
    item->habits.die_percent = world_chance(50) ? world_below(25) : 0;
    item->habits.silence_ms = world_chance(40) ? world_between(3000, 6000) : 0;
}

/* 0: as many as there are. Enough for some frames of an answer, which has about ten. */
static uint32_t any_window(void) { return world_chance(60) ? world_between(1, 1200) : 0; }

static void add_job(struct script *plan, uint32_t n)
{
    static const char *const kinds[] = {"plain", "plain", "plain", "plain", "plain", "plain", "fail", "poison"};
    bool is_together = (plan->rate_max || plan->bytes_max) && world_chance(60); /* more at once than it may */
    struct wish *wish = &add(plan, ITEM_JOB, world_below(is_together ? 1500 : (FAULTS_S - 1) * 1000))->wish;
    wish->client = world_below(plan->n_clients);
    wish->is_durable = world_chance(75);
    wish->is_skill = world_chance(30);
    wish->wants_watch = wish->is_durable && world_chance(60);
    wish->wants_cancel = wish->is_durable && world_chance(15);
    wish->is_never_retried = wish->is_durable && world_chance(10);
    wish->timeout_ms = !wish->is_durable ? world_between(500, 30000) : world_chance(15) ? world_between(200, 60000) : 0;
    wish->is_never_retried |= !wish->is_durable && wish->timeout_ms % 4 == 0;
    wish->window_bytes = wish->is_durable ? 0 : any_window();
    const char *kind = kinds[world_below(8)];
    struct question_plan question = {.n = world_between(1, ASKED_MAX), .expires_ms = world_chance(50) ? 0 : world_between(500, 15000), .has_default = world_chance(50)};
    question.lazy_ms = world_chance(60) ? 0 : question.expires_ms && world_chance(50) ? FAULTS_S * 2000 : world_below(20000); /* some never answer what expires */
    snprintf(wish->text, sizeof wish->text, "%s %u", world_chance(plan->slow_percent) ? "slow" : kind, n);
    if (world_chance(plan->asking_percent)) {
        wish->question = question;
        human_text(&question, n, wish->text, sizeof wish->text);
    }
    wish->n = n;
    wish->fork_of = wish->is_durable && !wish->question.n && n > 0 && world_chance(plan->fork_percent) ? 1 + world_below(n) : 0;
    wish->is_never_retried &= !wish->fork_of;
    wish->delay_ms = wish->is_durable && !wish->fork_of && world_chance(plan->later_percent) ? world_between(100, 12000) : 0;
    wish->is_by_clock = world_chance(50) && !plan->is_clock_set;
    snprintf(wish->agent, sizeof wish->agent, "%s", "work");
    uint32_t name = world_below(plan->n_names);
    if (!wish->is_skill)
        snprintf(wish->agent, sizeof wish->agent, "agent-%u", name & 7u);
}

/* Direct calls, all at about the same time: more than there are slots, or with answers that take long and callers that take little at a time. */
static void add_rush(struct script *plan, uint32_t n_jobs, bool is_slow)
{
    uint32_t at_ms = world_below((FAULTS_S - 3) * 1000), within_ms = world_between(10, 2000), n = world_between(6, RUSH_MAX);
    bool is_skill = world_chance(30);
    uint32_t name = world_below(plan->n_names) & 7u;
    for (uint32_t i = n_jobs; i < n_jobs + n && i < JOBS_MAX; i++) {
        struct wish *wish = &add(plan, ITEM_JOB, at_ms + world_below(within_ms))->wish;
        wish->client = world_below(plan->n_clients);
        wish->is_skill = is_skill;
        wish->timeout_ms = world_between(1500, 30000);
        wish->window_bytes = is_slow ? any_window() : 0;
        wish->n = i;
        snprintf(wish->text, sizeof wish->text, "%s %u", is_slow ? "slow" : "plain", i);
        snprintf(wish->agent, sizeof wish->agent, is_skill ? "work" : "agent-%u", name);
    }
}

static void add_schedule(struct script *plan, uint32_t n)
{
    struct timetable *timetable = &add(plan, ITEM_SCHEDULE, world_below(12000))->timetable;
    bool is_cron = world_chance(10);
    timetable->client = world_below(plan->n_clients);
    timetable->every_ms = world_between(1000, 5000);
    timetable->count = world_between(1, 5);
    timetable->overlap = world_below(3);
    if (is_cron && !plan->is_clock_set) {
        timetable->every_ms = 0;
        timetable->count = 1;
    }
    snprintf(timetable->text, sizeof timetable->text, "routine %u", n);
    snprintf(timetable->agent, sizeof timetable->agent, "agent-%u", world_below(plan->n_names) & 7u);
}

static uint32_t length_ms(enum fault fault)
{
    switch (fault) {
    case FAULT_HANG_AGENT:
        return world_between(200, 20000);
    case FAULT_FREEZE_SIDECAR:
    case FAULT_FREEZE_ENV:
        return world_chance(50) ? world_between(20, 3000) : world_between(3000, 18000);
    case FAULT_STALL_LINK:
    case FAULT_CUT_UP:
    case FAULT_CUT_DOWN:
    case FAULT_STOP_SERVER:
        return world_between(10, 6000);
    default:
        return world_between(50, 3000);
    }
}

static void add_fault(struct script *plan, enum fault fault, uint32_t at_ms)
{
    static const uint32_t steps_most[POINTS] = {60, 60, 100, 16, 60};
    struct item *item = add(plan, ITEM_FAULT, at_ms);
    if (!item)
        return;
    struct mishap *mishap = &item->mishap;
    mishap->fault = fault;
    mishap->victim = world_below(1u << 20);
    mishap->for_ms = length_ms(fault);
    mishap->point = (enum point)world_below(POINTS);
    mishap->amount = world_below(1u << 20);
    if (fault == FAULT_CRASH_SIDECAR && (mishap->point == POINT_WRITE || mishap->point == POINT_SYNC))
        mishap->point = POINT_SEND;
    if (fault == FAULT_CRASH_ENV || fault == FAULT_CRASH_SIDECAR)
        mishap->for_ms = world_between(1, steps_most[mishap->point]);
}

static bool ends_env(const struct item *item) { return item->kind == ITEM_FAULT && (item->mishap.fault == FAULT_KILL_ENV || item->mishap.fault == FAULT_CUT_POWER); }

/* Half of the schedules are asked for while the environment has not long to live. */
static void hasten(struct script *plan)
{
    for (struct item *item = plan->items; item < plan->items + plan->n_items; item++) {
        uint32_t first = world_below((uint32_t)plan->n_items), before_ms = world_below(280);
        if (item->kind != ITEM_SCHEDULE || world_chance(50))
            continue;
        for (size_t i = 0; i < plan->n_items; i++) {
            const struct item *end = &plan->items[(first + i) % plan->n_items];
            if (ends_env(end))
                item->at_ms = end->at_ms - before_ms;
        }
    }
}

void plan_make(struct script *plan)
{
    bool is_possible[FAULTS];
    plan->n_items = 0;
    for (size_t i = 0; i < FAULTS; i++)
        is_possible[i] = world_chance(50);
    plan->is_clock_set = is_possible[FAULT_JUMP_CLOCK];
    plan->open_max = world_chance(80) ? 0 : world_between(1, 4);
    plan->rate_max = world_chance(85) ? 0 : world_between(1, 2);
    plan->bytes_max = world_chance(90) ? 0 : world_between(120, 500);
    plan->is_fresh = world_chance(5);
    plan->slow_percent = world_chance(60) ? 0 : world_chance(50) ? 20 : 70;
    plan->asking_percent = world_chance(60) ? 0 : world_chance(70) ? 20 : 70;
    plan->later_percent = world_chance(70) ? 0 : 40;
    plan->fork_percent = world_chance(75) ? 0 : 40;
    plan->n_names = world_between(1, 3);
    plan->n_clients = world_between(1, CLIENTS_MAX);
    uint32_t n_instances = world_between(plan->n_names, INSTANCES_MAX);
    for (uint32_t i = 0; i < n_instances; i++)
        add_instance(plan, i);
    uint32_t n_jobs = world_chance(70) ? world_between(2, 10) : world_chance(80) ? world_between(8, 20) : world_between(20, JOBS_MAX);
    for (uint32_t i = 0; i < n_jobs; i++)
        add_job(plan, i);
    uint32_t n_schedules = world_chance(75) ? 0 : world_between(1, ROUTINES_MAX);
    for (uint32_t i = 0; i < n_schedules; i++)
        add_schedule(plan, i);
    struct rot *rot = world_chance(25) ? &add(plan, ITEM_ROT, 0)->rot : NULL;
    if (rot)
        *rot = (struct rot){.is_log = world_chance(40), .where = (uint32_t)world_random(), .bit = world_below(8)};
    for (uint32_t at_ms = 300; at_ms < FAULTS_S * 1000; at_ms += world_between(20, 900)) {
        enum fault fault = world_chance(4) ? FAULT_FREEZE_SIDECAR : (enum fault)world_below(FAULTS);
        if (is_possible[fault])
            add_fault(plan, fault, at_ms);
    }
    hasten(plan);
    if (plan->seed % RUSH_EVERY < 2)
        add_rush(plan, n_jobs, plan->seed % RUSH_EVERY == 1);
}

/* ---- in words -------------------------------------------------------------------------------------------------------- */

static void describe_job(const struct wish *wish, double at_s, char *ret, size_t size)
{
    int at = snprintf(ret, size, "at %.3f s client-%u asks %s %s%s to do \"%s\"", at_s, wish->client, wish->is_skill ? "the skill" : "the agent", wish->agent,
                      wish->is_durable ? " durably" : "", wish->text);
    if (wish->timeout_ms)
        at += snprintf(ret + at, size - (size_t)at, " within %u ms", wish->timeout_ms);
    if (wish->window_bytes)
        at += snprintf(ret + at, size - (size_t)at, ", %u bytes at a time", wish->window_bytes);
    if (wish->fork_of)
        at += snprintf(ret + at, size - (size_t)at, " as a fork of \"… %u\"", wish->fork_of - 1);
    if (wish->delay_ms)
        at += snprintf(ret + at, size - (size_t)at, " in %u ms%s", wish->delay_ms, wish->is_by_clock ? " by the clock" : "");
    snprintf(ret + at, size - (size_t)at, "%s%s%s", wish->wants_watch ? ", and watches" : "", wish->wants_cancel ? ", and cancels it" : "",
             wish->is_never_retried ? ", never to be retried" : "");
}

static void describe_fault(const struct mishap *mishap, double at_s, char *ret, size_t size)
{
    const char *text = fault_texts[mishap->fault];
    if (mishap->fault == FAULT_CRASH_ENV || mishap->fault == FAULT_CRASH_SIDECAR)
        snprintf(ret, size, "at %.3f s: %s: the %u. %s from now on", at_s, text, mishap->for_ms, point_texts[mishap->point]);
    else if (mishap->fault == FAULT_BREAK_DISK)
        snprintf(ret, size, "at %.3f s: %s: %s, for %u ms", at_s, text, disk_texts[mishap->amount % 3], mishap->for_ms);
    else
        snprintf(ret, size, "at %.3f s: %s (%u ms, victim %u)", at_s, text, mishap->for_ms, mishap->victim);
}

void plan_describe(const struct item *item, char *ret, size_t size)
{
    double at_s = item->at_ms / 1000.0;
    const struct habits *habits = &item->habits;
    if (item->kind == ITEM_INSTANCE)
        snprintf(ret, size, "an instance of %s, %u at once, up to %u ms each, dies in %u of 100, may say nothing for %u ms", habits->agent, habits->slots, habits->work_most_ms, habits->die_percent,
                 habits->silence_ms);
    else if (item->kind == ITEM_SCHEDULE)
        snprintf(ret, size, "at %.3f s client-%u has the agent %s do \"%s\" every %u ms, %u times", at_s, item->timetable.client, item->timetable.agent, item->timetable.text,
                 item->timetable.every_ms ? item->timetable.every_ms : 60000, item->timetable.count);
    else if (item->kind == ITEM_ROT)
        snprintf(ret, size, "at the end a bit of the journal's %s is another one", item->rot.is_log ? "log" : "file");
    else if (item->kind == ITEM_JOB)
        describe_job(&item->wish, at_s, ret, size);
    else
        describe_fault(&item->mishap, at_s, ret, size);
}

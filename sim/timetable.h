/* Schedules (amp.md 10.9): who asked for which, and what must have become of each. */
#pragma once
#include <amp/amp.h>
#include <stdbool.h>
#include <stdint.h>

struct journal;
struct loop;
struct client;
struct env_call;

#define ROUTINES_MAX 3

struct timetable { /* an item of the plan */
    uint32_t client, every_ms; /* every_ms 0: each minute, by a cron expression */
    uint32_t count, overlap;
    char agent[16], text[32];
};

struct routine { /* as its caller knows it */
    const struct timetable *plan;
    struct client *client;
    char key[32], id[AMP_ID_SIZE]; /* id: "" until accepted */
    int64_t first_sent_us;
    struct env_call *asking, *hurrying; /* the latter: once more, though the first one is not answered yet */
};

void routine_make(struct routine *routine, const struct timetable *plan, unsigned n);
void routine_start(void *ctx); /* the routine */
void routines_hurry(void); /* who waits for the confirmation asks again */
void routine_end(struct routine *routine);
bool routines_are_settled(struct journal *journal); /* each is accepted, and done */
void routine_check(struct journal *journal, const struct routine *routine);

/* The simulated world: virtual time, one source of chance, and what stands in for the edges of the real programs (loop.c, bus.c, disk.c, agent.c). Environment, sidecars
 * and calls are the real code, linked against these instead of base/loop.c, base/bus*.c, base/clock.c, base/mailbox.c, env/journal_worker.c, sidecar/local.c and
 * sidecar/worker_*.c. Same seed, same run. One thread. */
#pragma once
#include <amp/amp.h>
#include <stdio.h>

struct loop;
struct bus;

/* ---- world.c: time, chance, what happened ----------------------------------------------------------------- */

void world_begin(uint64_t seed, bool is_traced);
/* From here on chance is another, for each salt: the plan of the seed stays the same. */
void world_salt(uint64_t salt);
void world_end(void);
int64_t world_now_us(void);
uint64_t world_random(void);
uint32_t world_below(uint32_t limit); /* 0 … limit - 1 */
bool world_chance(uint32_t percent);
uint32_t world_between(uint32_t least, uint32_t most);
/* For people; only if traced. */
void world_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A promise is broken: said once per seed, with the moment; the run ends. */
void world_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *world_failure(void); /* NULL: none */
void world_set_wall_offset_ms(int64_t offset_ms); /* of the clock that people see */
/* A run in one number: two runs with the same one took the same way. */
uint64_t world_digest(void);
void world_mix(uint64_t what);

/* Something that happens at its time. `owner` (may be NULL): its ticks run afterwards; while it is frozen, this waits. */
struct happening;
struct happening *world_at(int64_t at_us, struct loop *owner, void (*on_due)(void *ctx), void *ctx);
/* The same for a `ctx` that `on_drop` frees when the world ends before. */
void world_at_or_drop(int64_t at_us, void (*on_due)(void *ctx), void (*on_drop)(void *ctx), void *ctx);
void world_cancel(struct happening *happening); /* NULL is fine */
/* From inside on_due: not now, but then, in the order it had. */
void world_postpone(int64_t until_us);
/* Until `until_us`, or until *is_enough. False: too much happens in no time (a livelock). */
bool world_run(int64_t until_us, bool (*is_enough)(void));
uint64_t world_steps(void);

/* ---- stats.c: how often, over all seeds ------------------------------------------------------------------------ */

enum stat_name {
#define STAT(name, text) STAT_##name,
#include "stats.def"
#undef STAT
    STATS
};
struct stat_row {
    const char *name, *text;
};
extern const struct stat_row stat_rows[STATS];
extern uint64_t *stats; /* STATS of them, or NULL: nobody counts */
void stat_add(enum stat_name stat, uint64_t n);

/* ---- crash.c: death at a step ------------------------------------------------------------------------------------- */

enum point { POINT_SEND, POINT_RECEIVE, POINT_WRITE, POINT_SYNC, POINT_TIMER, POINTS };
/* The process of `loop` (NULL: whoever has the journal) comes by such a point; if it is the one where it dies, nothing that it does from now on reaches anybody. */
void point_pass(enum point point, const struct loop *loop);

/* ---- loop.c ------------------------------------------------------------------------------------------------ */

void loop_turn(struct loop *loop); /* the ticks that were asked for */
/* SIGSTOP: nothing of it happens until then. */
void loop_freeze(struct loop *loop, int64_t until_us);
int64_t loop_frozen_until_us(const struct loop *loop); /* 0: it runs */

/* ---- bus.c: one nats-server and the links to it -------------------------------------------------------------- */

void server_begin(void);
void server_end(void);
void server_stop(void); /* all connections are lost, subscriptions forgotten */
void server_start(void);
/* The client's process is gone: nothing it says or hears from now on. is_noticed: the server sees it at once, else after a while. */
void bus_kill(struct bus *bus, bool is_noticed);
int64_t bus_settled_us(const struct bus *bus); /* when the server has seen all that was said: who closes the connection in good order waits for that, for half a second at most */
enum way { WAY_BOTH, WAY_UP, WAY_DOWN }; /* up: from the client to the server */
/* Nothing passes that way for so long; after two seconds the client notices, the server some time later. */
void bus_stall(struct bus *bus, enum way way, uint32_t for_ms);
/* The client's loop is frozen for so long. The server may give it up before. */
void bus_freeze(struct bus *bus, uint32_t for_ms);
/* A reset connection: what was on its way is lost. */
void bus_reset(struct bus *bus);
/* From now on, of what the server gives out: in percent; and how late all may come. */
struct weather {
    uint32_t lost_percent, doubled_percent, jitter_us;
};
extern struct weather weather;

/* From the server to an inbox: under `subject`, which may be another than the inbox's. */
void server_say(const char *subject, const char *reply, const char *to, struct amp_bytes data);

/* ---- stream.c: the server's JetStream --------------------------------------------------------------------------- */

/* A message that has arrived at the server. True: it is of JetStream's API, or was stored. */
bool stream_take(const char *subject, const char *reply, struct amp_bytes data);
void stream_forget(void); /* it was in the server's memory */
bool stream_has_been(void); /* somebody has made it */
bool subject_matches(const char *pattern, const char *subject);

/* ---- disk.c: files in memory behind SQLite's VFS ---------------------------------------------------------------- */

/* A file of SQLite in small pages; what a file holds is kept; and is laid out as a file of that name. */
void disk_small_pages(const char *path);
void disk_keep(const char *path);
void disk_lay_out(const char *path);
/* One bit of what is there is another one: of the log, or else of the file. False: there is none. */
bool disk_flip(bool is_log, uint32_t where, unsigned bit);
enum disk_fault { DISK_SOUND, DISK_FULL, DISK_BROKEN, DISK_LIES };
void disk_begin(void);
void disk_end(void);
/* Of every write and sync from now on. DISK_LIES: the next sync fails and what it should have written is forgotten; those after it say that all is well. */
void disk_fault(enum disk_fault fault);
void disk_freeze(void); /* the process that writes is dead: whatever it still does is not done */
bool disk_is_frozen(void);
/* It starts again. is_power_cut: of what was not synced each sector is kept or not. */
void disk_thaw(bool is_power_cut);
uint32_t disk_sync_ms(void); /* how long the next one takes */
void disk_slow(uint32_t percent); /* chance of a sync that hangs for a while */

/* ---- sqlite.c: connections are kept from one process to the next, and to the next seed --------------------------------- */

bool disk_is_laid_out(void); /* the file began as a copy: another one's connections are not for it */
struct sqlite3_file;
bool disk_may_keep(const struct sqlite3_file *file, const struct sqlite3_file *log); /* nothing of them is locked, the log is a first one */
void disk_open_again(struct sqlite3_file *file, struct sqlite3_file *log);

/* ---- agent.c: the program behind a sidecar -------------------------------------------------------------------------- */

struct agent_habits { /* passed as the sidecar's argv */
    uint32_t work_most_ms;
    uint32_t die_percent; /* of tasks in which it dies */
    uint32_t slots;
    int64_t hangs_until_us;
    bool wants_death; /* at its next step */
};
/* What a sound agent answers: the agents are functions of their text. */
void agent_answer(const char *text, char *ret, size_t size);
extern bool agents_are_calm; /* nobody dies any more, but of poison */

/* One run: nodes, what goes wrong, what is promised (scenario.c, client.c, check.c). */
#pragma once
#include "sim.h"

struct env;
struct env_call;
struct env_watch;
struct call;
struct journal;

#define JOBS_MAX 40
#define SEEN_MAX 512

struct client {
    char name[16];
    struct loop *loop;
    struct bus *bus;
};

struct seen { /* an event that somebody was shown */
    uint32_t seq;
    uint64_t digest;
};

struct job { /* a task as its caller knows it; nothing here is ever forgotten, whatever dies */
    struct client *client;
    unsigned n;
    bool is_durable, is_skill, wants_watch, wants_cancel, is_never_retried;
    char agent[16], text[64], key[32];
    char task[AMP_ID_SIZE], context[AMP_ID_SIZE]; /* task: "" until accepted */
    uint32_t timeout_ms, n_submits;
    bool is_accepted, is_over; /* over: nothing more is wanted of anybody */
    bool is_cancel_confirmed;
    struct env_call *asking;
    struct env_watch *watch;
    struct call *call;
    struct amp_fold *fold; /* of a direct call */
    enum amp_code code;    /* how the direct call, or the watch, ended */
    bool has_ended, watch_ended;
    uint32_t n_ends;
    struct seen seen[SEEN_MAX];
    size_t n_seen;
};

struct scenario {
    struct job jobs[JOBS_MAX];
    size_t n_jobs;
    struct client clients[4];
    size_t n_clients;
    bool is_healing;
    bool may_lack_frames; /* something went wrong that loses what is published once */
};
extern struct scenario scenario;

uint64_t digest_of(struct amp_bytes data);

/* client.c */
void client_begin(struct client *client, size_t n);
void client_end(struct client *client);
void job_start(struct job *job);
bool job_is_settled(const struct job *job);

/* check.c: reads the journal when all is quiet, and holds it against what the clients were told. */
void check_all(struct journal *journal);

/* scenario.c */
void scenario_prepare(const char *journal_path); /* once in a process */
void scenario_run(uint64_t seed, bool is_traced, const char *journal_path);

/* Requests to the environment (amp.md 10). */
#pragma once
#include <amp/amp.h>

struct loop;
struct bus;
struct env_call;

/* Sends `request` on amp.env.<verb>.<from>; the verb follows from its oneof. on_reply exactly once, never from inside: `reply` is NULL when `err->code` is not AMP_OK (NO_ENV at
 * once when nobody listens, DEADLINE, DENIED, NO_BUS, or the error in the reply). *ret (ret may be NULL) may be used to cancel until then. timeout_ms 0: 10 s. */
AMP_MUST_USE enum amp_code env_call(struct loop *loop, struct bus *bus, const char *from, const Amp__EnvRequest *request, uint32_t timeout_ms,
                                    void (*on_reply)(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err), void *ctx, struct env_call **ret);
void env_call_cancel(struct env_call *call); /* no callback after this. NULL is fine */

/* Watches a task through the environment: events from from_seq on, each number once, then on_end as in call.h. The environment repeats what is missing; a lost environment is waited for
 * (watch is sent again from the next number) up to `timeout_ms` of silence (0: for ever), then AMP_NO_ENV. */
struct env_watch;
struct env_watch_handlers {
    void (*on_event)(void *ctx, uint32_t seq, const Amp__Event *event);
    void (*on_end)(void *ctx, const struct amp_error *err, const Amp__Error *wire);
    /* Who works on it, before the first event of each attempt that is seen. Must not free the watch. May be NULL. */
    void (*on_taken)(void *ctx, const char *agent, const char *instance);
    /* Nothing can be heard now, `why` is for people; it was heard again. In turns, never one of them twice. They must not free the watch. May be NULL. */
    void (*on_away)(void *ctx, const char *why);
    void (*on_back)(void *ctx);
};
AMP_MUST_USE enum amp_code env_watch_start(struct loop *loop, struct bus *bus, const char *from, const char *task_id, uint32_t from_seq, uint32_t timeout_ms,
                                           const struct env_watch_handlers *handlers, void *ctx, struct env_watch **ret);
/* Held, nothing more is listened to; what was missed is asked for when it is called with false. Who watches may do so inside of on_event: the rest of the frame at hand comes still. */
void env_watch_hold(struct env_watch *watch, bool is_held);
void env_watch_free(struct env_watch *watch);

/* A submit that honours "later": refused with a time to come back (overloaded, quota), it is sent again then, with jitter, as long as that is within patience_ms (0: all is told at once).
 * It gives the task its id, if it has none (one that is given must be new), so that it can be sent again, a few times, when no answer came: if it was accepted all the same, that is found out, and told as the answer.
 * With files (amp.md 15.6), which the environment fetches before it accepts, they have time in addition, whatever patience_ms says, unless the request has a timeout.
 * on_reply as in env_call. */
#define ENV_PATIENCE_MS 60000u /* when a caller has given no time of its own */
struct env_submit;
struct env_submit_options {
    uint32_t answer_ms; /* of one request, as in env_call */
    uint32_t patience_ms;
};
AMP_MUST_USE enum amp_code env_submit(struct loop *loop, struct bus *bus, const char *from, const Amp__Submit *submit, const struct env_submit_options *options,
                                      void (*on_reply)(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err), void *ctx, struct env_submit **ret);
void env_submit_cancel(struct env_submit *submit); /* no callback after this. NULL is fine */

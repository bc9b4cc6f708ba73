/* What people read when a call ends badly. One place, so that no error is a bare timeout. */
#pragma once
#include "base/call_fsm.h"

struct call_names {
    const char *agent, *skill; /* one of them */
    const char *instance;      /* asked for, or NULL */
    const char *task_id;
    const char *taken_agent, *taken_instance; /* "" until taken */
    const char *load;          /* of whoever answered that it is there; "" */
    const char *detail;        /* what the other side or the bus said; "" */
    const char *subject;       /* the one that was denied; "" */
    uint32_t given_ms, lease_ms;
    int64_t silent_ms; /* since who has it was heard; only once taken */
};

/* Fills *err for an END. Not for CALL_WHY_STREAM, CALL_WHY_REPLY and CALL_WHY_BROKEN, whose errors came from the other side. */
void call_text_end(const struct call_action *end, const struct call_names *names, struct amp_error *err);
/* "every instance of up is busy" */
void call_text_waiting(enum call_why why, const struct call_names *names, char *ret, size_t size);

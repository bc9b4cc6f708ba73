/* Of a call: its turn, kept by the environment (amp.md 10.14). */
#pragma once
#include "base/call_private.h"

/* That it waits, or still waits. */
AMP_MUST_USE enum amp_code call_turn_publish(struct call *call);
/* It waits no more: that is told, if it may not be known. Idempotent. */
void call_turn_close(struct call *call);

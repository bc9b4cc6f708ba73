/* Arenas for what lives as long as one message is handled, or one call: they are kept for the next one. Loop thread only. */
#pragma once
#include <amp/amp.h>

struct amp_arena *scratch_take(void);
void scratch_give(struct amp_arena *arena); /* what lies in it is gone; NULL is fine */

/* Agents of which an instance did not answer a call, while the bus goes on to pick it: its sidecar is stopped, or cut off without the server knowing. Calls of the same
 * connection name an instance that answers, for a while, instead of waiting for silence each. Loop thread only; lives with the bus. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct bus;

#define WARY_NAMES_MAX 32u   /* agents and skills; of more the oldest is forgotten */
#define WARY_MIN_MS 10000u
#define WARY_MAX_MS 60000u   /* grown, when one that was trusted again did not answer */

void wary_met(struct bus *bus, const char *name, bool is_skill, int64_t now_ms);
bool wary_is(struct bus *bus, const char *name, bool is_skill, int64_t now_ms);

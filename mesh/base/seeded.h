/* Faults made on purpose, one per promise, so that the simulator's checks can be seen to bite (tests/integration/sim.py). Only amesh-sim-bugs is built with them; in
 * everything else they are the constant false. */
#pragma once
#include <stdbool.h>

#ifdef AMESH_SEEDED_BUGS
bool seeded_bug(const char *name); /* sim/main.c: --bug NAME */
#define SEEDED_BUG(name) seeded_bug(name)
#else
#define SEEDED_BUG(name) false
#endif

/* What a command that goes on and on says while nothing can be heard: once on stderr that the connection is lost, and once that it is back. Silence would look like a mesh in which
 * nothing happens. */
#pragma once
#include "cli/context.h"

struct away {
    const struct cli *cli;
    const char *promise;     /* ends the line of the loss: what becomes of what is missed meanwhile; or NULL */
    bool is_away, has_heard; /* has_heard: ever. Who never was connected did not lose it */
    int64_t since_unix_ms;   /* when it was lost */
    enum amp_code told;      /* the last error that was told as one */
};

void away_init(struct away *away, const struct cli *cli, const char *promise);
/* Nothing can be heard, `why` is for people. Said the first time only. */
void away_lost(struct away *away, const char *why);
/* Something was heard. `note` (may be NULL) is added where there was a loss. */
void away_back(struct away *away, const char *note);
/* The same from what a request to the environment came to. An error that is none of the connection is printed, once until another comes. */
void away_answer(struct away *away, const struct amp_error *err);

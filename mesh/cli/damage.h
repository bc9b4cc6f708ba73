/* Tasks of a list whose rows are not what was written: the list goes on without them, names them, and ends as an error does. */
#pragma once

#include "cli/context.h"

struct cJSON;

struct damage {
    uint32_t count;
    struct amp_error err; /* the first one's */
    struct cJSON *tasks;  /* [{"id","error"}] of all, NULL: none */
};

/* True: the record is such a task, and noted. */
bool damage_note(struct damage *damage, const Amp__TaskRecord *record);
/* "damaged" of the document, if there is any. */
void damage_add_json(struct damage *damage, struct cJSON *document);
/* Says what and what to do; the exit status. Also frees. */
int damage_end(const struct cli *cli, struct damage *damage);

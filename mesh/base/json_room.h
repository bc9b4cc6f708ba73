/* JSON that is read, looked at and gone before the caller returns, such as a line from an agent. cJSON asks malloc for every value, name and string; here they lie in one room of
 * the process, and what does not fit there comes from malloc as ever. The tree is read only: nothing of it may be detached, or kept after json_room_free. */
#pragma once
#include <amp/amp.h>

struct cJSON;

/* Gives cJSON its allocator. Once, before another thread uses cJSON; without it trees come from malloc. */
void json_room_install(void);
/* As amp_json_parse, for one thread of the process (the loop's). Trees may be open at once, as a callback may read a line: the room is empty again when the last one is freed. */
AMP_MUST_USE enum amp_code json_room_parse(struct amp_bytes text, struct cJSON **ret, struct amp_error *reterr);
void json_room_free(struct cJSON *tree); /* NULL is fine */

/* The card of `amesh run`: from --card FILE (YAML or JSON) and the options, which override it. */
#pragma once
#include <amp/amp.h>

/* Reads the file into a card that lives in `arena`. AMP_NOT_FOUND, AMP_MALFORMED (with the line), AMP_INVALID (unknown or wrong member). Blocking: for the start only. */
AMP_MUST_USE enum amp_code run_card_read(const char *path, struct amp_arena *arena, Amp__AgentCard **ret, struct amp_error *reterr);
/* Adds the skills "ID" or "ID:TEXT" (NULL-ended, may be NULL) to the card. */
AMP_MUST_USE enum amp_code run_card_skills(Amp__AgentCard *card, const char **skills, struct amp_arena *arena, struct amp_error *reterr);
/* For an error of a card that was read from `path` and checked later: says the line of its field, where the file has it. */
void run_card_place(const char *path, struct amp_error *err);

/* What a statusUpdate says of a conversation: a question, asked or asked again, and who answered it with what. (amp.md 6.7.1, 10.10.3) */
#pragma once

#include <amp/amp.h>

struct fold_talk {
    struct cJSON *json;               /* the metadata; NULL: nothing of all this */
    const struct cJSON *asked, *said; /* amp/question, amp/answer, with a valid id */
    bool restates;                    /* the message is of another question, which is still open */
};

/* `metadata` may be NULL. Pair with fold_talk_done. */
void fold_talk_read(struct fold_talk *talk, const Amp__Json *metadata);
void fold_talk_done(struct fold_talk *talk);

/* The question as history has it, with its id in the metadata, in the arena; NULL: it stands there already. Without an id it is as it came. */
Amp__Message *fold_talk_question(const struct fold_talk *talk, const Amp__Task *task, Amp__Message *message, struct amp_arena *arena);
/* The answer as history has it, a user's message, in the arena; NULL: there is none, or it stands there already. */
Amp__Message *fold_talk_answer(const struct fold_talk *talk, const Amp__Task *task, struct amp_arena *arena);

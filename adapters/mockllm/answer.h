/* What a rule answers, in the forms of OpenAI's API: a body, or the frames of a stream. */
#pragma once
#include "mockllm/rules.h"

struct mock_frame {
    char *text; /* as it goes over the wire */
    bool is_piece; /* of what is said: there is a pace between them, and `cut` and `stall` count them */
};

struct mock_answer {
    char *body;    /* JSON, whole */
    struct cJSON *output; /* responses only: the items, for those that come after it */
    struct mock_frame *frames;
    size_t n_frames, cap;
    unsigned n_pieces;
};

struct mock_making {
    const struct mock_ask *ask;
    const struct mock_rule *rule;
    char *const *groups;
    const struct cJSON *body; /* of the request */
    const char *id;
    unsigned long number; /* ids within the answer are made from it */
    int64_t unix_s;
    bool wants_usage; /* chat: a chunk of its own with the usage, as stream_options asked for it */
};

/* Both forms of it. The caller's: mock_answer_done. */
void mock_answer_chat(const struct mock_making *making, struct mock_answer *ret);
void mock_answer_responses(const struct mock_making *making, struct mock_answer *ret);
/* Vectors that depend on the words alone: texts with common words are near each other. The body is the caller's; NULL: *reterr. */
char *mock_answer_embeddings(const struct mock_ask *ask, const struct cJSON *body, struct amp_error *reterr);
void mock_answer_done(struct mock_answer *answer);

/* For both: the texts with everything filled in. */
struct mock_content {
    char *say, *think; /* NULL: nothing */
    struct cJSON *calls; /* a list of {name, arguments (text), id}; NULL: none */
    const char *finish;
    uint32_t n_in, n_out; /* tokens */
};
void mock_content_make(const struct mock_making *making, struct mock_content *ret);
void mock_content_done(struct mock_content *content);
/* The length of the next piece of a stream: `chunk` bytes, or a word with what follows it; never half a character. */
size_t mock_piece(const struct mock_rule *rule, const char *text);
void mock_answer_add(struct mock_answer *answer, bool is_piece, char *text); /* takes `text` over: it is freed with the answer */

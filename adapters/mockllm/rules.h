/* The rules of a scripted model (docs/mockllm.md): what it is asked, and what it says to that. Pure: no clock, no I/O but the reading of the file. */
#pragma once
#include <amp/amp.h>
#include <regex.h>

struct cJSON;
struct document;

#define MOCK_GROUPS 10u /* {{0}} to {{9}} */

enum mock_api { MOCK_CHAT, MOCK_RESPONSES, MOCK_EMBEDDINGS };
extern const char *const mock_api_names[]; /* "chat", "responses", "embeddings", NULL */

struct mock_ask { /* a request, as the rules see it */
    enum mock_api api;
    char *model, *system, *user; /* "": none; user: the text of the last message of a user */
    char *tool, *result;         /* names, a line each, and texts of the tools' results that come last; "": another message comes last */
    unsigned turn;               /* how many messages of a user there are */
    size_t n_chars;              /* of all of it, for the usage */
};

struct mock_rule {
    char *name; /* NULL: it has none */
    /* when: */
    regex_t *system, *user, *model, *tool, *result; /* NULL: whatever it is */
    char *api;
    uint32_t turn, times; /* 0: any */
    /* then: */
    char *say, *think, *finish;
    const struct cJSON *call, *fail, *usage; /* of the document */
    uint32_t delay_ms, pace_ms, chunk;       /* chunk: bytes of each piece of a stream; 0: a word */
    uint32_t cut, stall;                     /* after so many pieces less one; 0: never */
    /* so far: */
    uint32_t used;
};

struct mock_rules {
    struct document *document;
    struct mock_rule *rules;
    size_t count;
    const struct cJSON *models; /* NULL: any */
};

/* Reads the file, YAML or JSON. Errors name line and member. The rules are the caller's (mock_rules_done), also after an error. */
AMP_MUST_USE enum amp_code mock_rules_read(const char *path, struct mock_rules *ret, struct amp_error *reterr);
void mock_rules_done(struct mock_rules *rules);
/* The first rule that fits, counted as used; NULL: none does. ret_groups: what the first expression with groups, of `user`, `result` and `system`, caught; strings of the caller's. */
struct mock_rule *mock_rules_find(struct mock_rules *rules, const struct mock_ask *ask, char *ret_groups[MOCK_GROUPS]);
void mock_groups_done(char *groups[MOCK_GROUPS]);
bool mock_rules_has_model(const struct mock_rules *rules, const char *model);
/* The text with {{user}}, {{system}}, {{tool}}, {{result}}, {{model}}, {{turn}} and {{0}} … {{9}} filled in. The caller's. */
char *mock_fill(const char *text, const struct mock_ask *ask, char *const groups[MOCK_GROUPS]);
void mock_ask_done(struct mock_ask *ask);

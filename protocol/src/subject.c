/* Subjects (amp.md 2.2). One table says how they look; building and taking apart read it. */
#include <amp/amp.h>

#include <stdio.h>
#include <string.h>

#include "model.h"

#define ROOT "amp"
#define TOKENS_MAX 3

struct subject_form {
    const char *word;
    int n_tokens;
    const char *names[TOKENS_MAX]; /* for errors */
};

static const struct subject_form forms[] = {
    [AMP_SUBJECT_REQ] = {"req", 2, {"agent", "from"}},
    [AMP_SUBJECT_REQ_INST] = {"req", 3, {"agent", "instance", "from"}},
    [AMP_SUBJECT_SKILL] = {"skill", 2, {"skill", "from"}},
    [AMP_SUBJECT_CTL] = {"ctl", 2, {"instance", "task"}},
    [AMP_SUBJECT_HB] = {"hb", 2, {"agent", "instance"}},
    [AMP_SUBJECT_EVT] = {"evt", 2, {"context", "task"}},
    [AMP_SUBJECT_ENV] = {"env", 2, {"verb", "from"}},
    [AMP_SUBJECT_WHO] = {"who", 1, {"agent"}},
    [AMP_SUBJECT_WHO_SKILL] = {"whoskill", 1, {"skill"}},
    [AMP_SUBJECT_WHO_ALL] = {"whoall", 0, {NULL}},
    [AMP_SUBJECT_CANARY] = {"canary", 1, {"from"}},
    [AMP_SUBJECT_FENCE] = {"fence", 1, {"environment"}},
    [AMP_SUBJECT_BLOB] = {"blob", 2, {"holder", "from"}},
};

#define FORMS (sizeof(forms) / sizeof(forms[0]))

static enum amp_code token_check(const struct subject_form *form, int i, const char *const tokens[TOKENS_MAX],
                                 struct amp_error *reterr)
{
    const char *token = tokens[i];
    if (token && strcmp(token, "*") == 0)
        return AMP_OK;
    if (token && strcmp(token, ">") == 0) {
        for (int k = i + 1; k < TOKENS_MAX; k++) {
            if (tokens[k])
                return amp_error_set(reterr, AMP_INVALID, form->names[i], "'>' is allowed as the last token only");
        }
        return AMP_OK;
    }
    return id_check(token, form->names[i], reterr);
}

enum amp_code amp_subject_build(enum amp_subject_kind kind, const char *a, const char *b, const char *c,
                                char ret[AMP_SUBJECT_SIZE], struct amp_error *reterr)
{
    const char *const tokens[TOKENS_MAX] = {a, b, c};
    ret[0] = '\0';
    if ((size_t)kind >= FORMS)
        return amp_error_set(reterr, AMP_INVALID, "kind", "there is no subject of kind %d", (int)kind);
    const struct subject_form *form = &forms[kind];
    char made[AMP_SUBJECT_SIZE];
    char *end = stpcpy(stpcpy(made, ROOT "."), form->word);
    for (int i = 0; i < form->n_tokens && i < TOKENS_MAX; i++) {
        enum amp_code code = token_check(form, i, tokens, reterr);
        if (code != AMP_OK)
            return code;
        /* At most 3 × 64 characters after a root of at most 12: fits by the length of an id. */
        *end++ = '.';
        end = stpcpy(end, tokens[i]);
        if (tokens[i][0] == '>')
            break;
    }
    for (int i = form->n_tokens; i < TOKENS_MAX; i++) {
        if (tokens[i])
            return amp_error_set(reterr, AMP_INVALID, form->word, "amp.%s takes %d tokens", form->word, form->n_tokens);
    }
    memcpy(ret, made, (size_t)(end - made) + 1);
    return AMP_OK;
}

/* Copies the token at *at into ret and steps over it and its dot. False if it is not an id. */
static bool token_take(const char **at, char ret[AMP_NAME_MAX + 1])
{
    size_t len = strcspn(*at, ".");
    if (len == 0 || len > AMP_NAME_MAX)
        return false;
    memcpy(ret, *at, len);
    ret[len] = '\0';
    *at += len;
    if (**at == '.') {
        (*at)++;
        if (**at == '\0') /* a dot at the end */
            return false;
    }
    return amp_id_is_valid(ret);
}

enum amp_code amp_subject_parse(const char *subject, struct amp_subject *ret, struct amp_error *reterr)
{
    struct amp_subject made = {0};
    char root[AMP_NAME_MAX + 1], word[AMP_NAME_MAX + 1];
    char *tokens[TOKENS_MAX] = {made.a, made.b, made.c};
    const char *at = subject;
    if (strnlen(subject, AMP_SUBJECT_SIZE) == AMP_SUBJECT_SIZE || !token_take(&at, root) || strcmp(root, ROOT) != 0 ||
        !token_take(&at, word))
        goto malformed;
    int n_tokens = 0;
    while (*at) {
        if (n_tokens == TOKENS_MAX || !token_take(&at, tokens[n_tokens]))
            goto malformed;
        n_tokens++;
    }
    for (size_t kind = 0; kind < FORMS; kind++) {
        if (forms[kind].n_tokens == n_tokens && strcmp(forms[kind].word, word) == 0) {
            made.kind = (enum amp_subject_kind)kind;
            *ret = made;
            return AMP_OK;
        }
    }
malformed:
    return amp_error_set(reterr, AMP_MALFORMED, "subject", "'%.200s' is not a subject of this protocol", subject);
}

/* What the clients of NATS make inboxes of: letters, digits, '_' and '-'. Stricter than NATS, which is the point: a
 * reply subject is a place that a peer makes us write to. */
static bool inbox_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

bool amp_subject_is_inbox(const char *subject)
{
    static const char prefix[] = "_INBOX";
    if (!subject || strncmp(subject, prefix, sizeof(prefix) - 1) != 0)
        return false;
    const char *at = subject + sizeof(prefix) - 1;
    if (*at == '_') {
        at++;
        if (!inbox_char(*at))
            return false;
    } else if (*at != '.') {
        return false;
    }
    bool has_token = false;
    for (; *at; at++) {
        if (at - subject >= AMP_SUBJECT_SIZE - 1)
            return false;
        if (*at == '.') {
            if (!inbox_char(at[1])) /* an empty token, or one that we do not accept */
                return false;
            has_token = true;
        } else if (!inbox_char(*at)) {
            return false;
        }
    }
    return has_token;
}

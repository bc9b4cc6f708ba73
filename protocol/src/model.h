/* What the files of the model share: small checks of fields that come from a peer. Not exported. */
#pragma once

#include <amp/amp.h>

/* The row of a wire number; NULL if the table does not have it. */
const struct amp_code_info *code_find(uint32_t number);

/* Fails with AMP_INVALID naming `field` if `text` (NULL: absent, fine) is longer than `max` bytes or has a character
 * that must not reach a terminal or a prompt: control and bidi characters, line separators. With `is_multiline` \n and
 * \t may stand in it. */
struct text_rule {
    size_t min, max;
    bool is_multiline;
};
enum amp_code text_check(const char *text, struct text_rule rule, const char *field, struct amp_error *reterr);

/* Checks parts of a message or artifact (amp.md 4.2). `field` is the path of the list. */
enum amp_code parts_check(Amp__Part *const *parts, size_t n_parts, const char *field, struct amp_error *reterr);

/* What a message or artifact calls itself from outside of the mesh: 1 to AMP_KEY_MAX printable bytes. */
enum amp_code foreign_id_check(const char *id, const char *field, struct amp_error *reterr);

/* An id of the mesh; NULL and "" are refused. */
enum amp_code id_check(const char *id, const char *field, struct amp_error *reterr);

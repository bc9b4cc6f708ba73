/* spec/codes.def as a table (amp.md 8). The wire name is the constant's name in lower case: made here by the compiler,
 * character by character, so that no second list of names exists and nothing is filled in at run time. */
#include <amp/amp.h>

#include "model.h"

#define CODE_NAME_SIZE 24

#define LOWER_OF(c) ((char)((c) == '_' ? '_' : (c) | 0x20))
#define LOWER(s, i) ((i) < sizeof(s) - 1 ? LOWER_OF((s)[(i) % sizeof(s)]) : '\0')
#define LOWER4(s, i) LOWER(s, (i)), LOWER(s, (i) + 1), LOWER(s, (i) + 2), LOWER(s, (i) + 3)
#define LOWER24(s)                                                                                                     \
    {                                                                                                                  \
        LOWER4(s, 0), LOWER4(s, 4), LOWER4(s, 8), LOWER4(s, 12), LOWER4(s, 16), LOWER4(s, 20)                          \
    }

enum {
#define AMP_CODE(name, number, exit, http, retry, text) ROW_##name,
#include <amp/codes.def>
#undef AMP_CODE
    ROWS
};

#define AMP_CODE(name, number, exit, http, retry, text)                                                                \
    _Static_assert(sizeof(#name) <= CODE_NAME_SIZE, "the name of a code fits its row");
#include <amp/codes.def>
#undef AMP_CODE

static const char code_names[ROWS][CODE_NAME_SIZE] = {
#define AMP_CODE(name, number, exit, http, retry, text) LOWER24(#name),
#include <amp/codes.def>
#undef AMP_CODE
};

static const struct amp_code_info codes[ROWS] = {
#define AMP_CODE(name, number, exit, http, retry, text) {AMP_##name, code_names[ROW_##name], exit, http, retry, text},
#include <amp/codes.def>
#undef AMP_CODE
};

const struct amp_code_info *code_find(uint32_t number)
{
    for (size_t i = 0; i < ROWS; i++) {
        if ((uint32_t)codes[i].code == number)
            return &codes[i];
    }
    return NULL;
}

const struct amp_code_info *amp_code_info(enum amp_code code)
{
    const struct amp_code_info *info = code_find((uint32_t)code);
    return info ? info : &codes[ROW_INTERNAL];
}

const struct amp_code_info *amp_code_table(size_t *ret_count)
{
    *ret_count = ROWS;
    return codes;
}

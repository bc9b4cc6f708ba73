/* JSON as a tree of cJSON's, checked and made in one reading. cJSON's own parser looks at each byte of a string by itself, which is most of what a long line costs. (amp.md 3.2) */
#include "strict.h"

#include <cjson/cJSON.h>
#include <limits.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_INLINE 64u

struct tree {
    struct strict s;
    cJSON *root, *open[STRICT_DEPTH_CAP + 1]; /* objects and arrays that have not ended */
    size_t n_open;
    char *key; /* of the value that comes next */
};

/* What stands between the quotes, as a string of cJSON's own. */
static char *text_of(const struct strict *s)
{
    char *text = cJSON_malloc(s->text_len + 1);
    if (!text)
        return NULL;
    text[strict_unescape(s->data, s->len, (uint8_t *)text)] = '\0';
    return text;
}

static bool set_number(cJSON *item, const struct strict *s)
{
    char room[NUMBER_INLINE], *text = s->len < sizeof room ? room : malloc(s->len + 1);
    if (!text)
        return false;
    memcpy(text, s->data, s->len);
    text[s->len] = '\0';
    char *point = strchr(text, '.');
    if (point)
        *point = *localeconv()->decimal_point; /* as strtod wants it where the library is used */
    double number = strtod(text, NULL);
    item->valuedouble = number;
    item->valueint = number >= INT_MAX ? INT_MAX : number <= (double)INT_MIN ? INT_MIN : (int)number;
    if (text != room)
        free(text);
    return true;
}

static bool set_value(cJSON *item, enum strict_token token, const struct strict *s)
{
    switch (token) {
    case STRICT_OBJECT:
        item->type = cJSON_Object;
        return true;
    case STRICT_ARRAY:
        item->type = cJSON_Array;
        return true;
    case STRICT_STRING:
        item->type = cJSON_String;
        item->valuestring = text_of(s);
        return item->valuestring != NULL;
    case STRICT_NUMBER:
        item->type = cJSON_Number;
        return set_number(item, s);
    case STRICT_TRUE:
        item->type = cJSON_True;
        item->valueint = 1;
        return true;
    case STRICT_FALSE:
        item->type = cJSON_False;
        return true;
    default:
        return true; /* null */
    }
}

/* False: out of memory. */
static bool add(struct tree *tree, enum strict_token token)
{
    cJSON *item = cJSON_CreateNull();
    if (!item || !set_value(item, token, &tree->s)) {
        cJSON_Delete(item);
        return false;
    }
    item->string = tree->key;
    tree->key = NULL;
    if (tree->n_open > 0)
        cJSON_AddItemToArray(tree->open[tree->n_open - 1], item); /* to an object too: its key is there */
    else
        tree->root = item;
    if (token == STRICT_OBJECT || token == STRICT_ARRAY)
        tree->open[tree->n_open++] = item;
    return true;
}

/* False: it is over, with an error in s.code, or for want of memory. */
static bool take(struct tree *tree, enum strict_token token)
{
    switch (token) {
    case STRICT_ERROR:
    case STRICT_END:
        return false;
    case STRICT_KEY:
        tree->key = text_of(&tree->s);
        return tree->key != NULL;
    case STRICT_OBJECT_END:
    case STRICT_ARRAY_END:
        tree->n_open--;
        return true;
    default:
        return add(tree, token);
    }
}

enum amp_code amp_json_parse(struct amp_bytes text, struct cJSON **ret, struct amp_error *reterr)
{
    struct tree tree;
    enum strict_token token;
    tree.root = NULL;
    tree.key = NULL;
    tree.n_open = 0;
    strict_init(&tree.s, text, &amp_json_limits_default, reterr);
    do
        token = strict_next(&tree.s);
    while (take(&tree, token));
    strict_done(&tree.s);
    if (token == STRICT_END) {
        *ret = tree.root;
        return AMP_OK;
    }
    cJSON_free(tree.key);
    cJSON_Delete(tree.root);
    return token == STRICT_ERROR ? tree.s.code : amp_error_set(reterr, AMP_NO_MEMORY, "", "out of memory");
}

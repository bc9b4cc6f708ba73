/* A small part of JSON Schema, for answers to questions (local-api.md 3.5). Understood: type, enum, const, properties, required, additionalProperties (true or false), items (one
 * schema), minItems, maxItems, minimum, maximum, minLength, maxLength (characters). Said but not checked: title, description, default, examples, format, $schema, $comment.
 * Any other keyword is refused: who believes that a `pattern` is checked must learn that it is not. No regular expressions, no references: checking takes time in
 * proportion to schema and value. Pure. */
#pragma once
#include <amp/amp.h>

struct cJSON;

#define SCHEMA_DEPTH_MAX 8u  /* schemas within schemas */
#define SCHEMA_NODES_MAX 256u /* schemas in one */
#define SCHEMA_ENUM_MAX 1024u /* values of one enum */

/* Is this a schema of that kind? AMP_INVALID, AMP_TOO_DEEP, AMP_TOO_LARGE: the error's field says where, beginning with `path` ("schema"). */
AMP_MUST_USE enum amp_code schema_check(const struct cJSON *schema, const char *path, struct amp_error *reterr);
/* A text, a number, true, false or null: what `enum`, `const` and options may hold. NULL: no. */
bool schema_is_scalar(const struct cJSON *value);
/* Does the value fit a schema that was checked? AMP_INVALID: what is wrong, where ("answer.address.zip"), what is wanted. */
AMP_MUST_USE enum amp_code schema_validate(const struct cJSON *schema, const struct cJSON *value, const char *path, struct amp_error *reterr);
/* May a value of this schema be a string, a boolean …? True too where the schema does not say. */
bool schema_allows(const struct cJSON *schema, const char *type);

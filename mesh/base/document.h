/* A document that people write, YAML or JSON: as a JSON tree, and with the line of each of its members for errors. For the start of programs: blocking. */
#pragma once
#include <amp/amp.h>

struct cJSON;
struct document;

/* Reads the file ("-": standard input), at most `max` bytes. AMP_NOT_FOUND, AMP_MALFORMED and AMP_INVALID (with the line), AMP_TOO_DEEP, AMP_TOO_LARGE. Anchors and aliases are followed as long as the
 * whole does not grow beyond 16 * AMP_MEMBERS_MAX values. The document is the caller's. */
AMP_MUST_USE enum amp_code document_read(const char *path, size_t max, struct document **ret, struct amp_error *reterr);
void document_free(struct document *document); /* NULL is fine */
const struct cJSON *document_json(const struct document *document); /* lives as long as the document */
/* "rules.yaml:7: rules[0].say: …" instead of the bare reason: where the document has the member that err->field names. */
void document_place(struct document *document, struct amp_error *err);

/* The HTTP twins of the local API (local-api.md 5). */
#pragma once
#include <amp/amp.h>

struct http_server;
struct sidecar;

/* `private_path`: see http.h. */
AMP_MUST_USE enum amp_code local_http_new(struct sidecar *sidecar, const char *private_path, struct http_server **ret, struct amp_error *reterr);

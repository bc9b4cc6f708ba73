/* The local socket: accepts, checks the peer's user, looks at the first byte, and hands NDJSON connections to the methods (rpc.h) and HTTP ones to the twins (local_http.c). */
#pragma once
#include <amp/amp.h>

struct sidecar;
struct local;

AMP_MUST_USE enum amp_code local_new(struct sidecar *sidecar, const char *path, struct local **ret, struct amp_error *reterr);
void local_free(struct local *local); /* closes everything, removes the socket */

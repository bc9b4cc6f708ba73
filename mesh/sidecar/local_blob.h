/* Blobs on the local socket (local-api.md 5): PUT /v1/blob streams into the spool, GET /v1/blob/<digest> out of it. Loop thread only. */
#pragma once
#include <stdbool.h>

struct http_request;
struct local_blobs;
struct sidecar;

struct local_blobs *local_blobs_new(struct sidecar *sidecar);
void local_blobs_free(struct local_blobs *blobs); /* open uploads end. NULL is fine */
/* Is what a connection begins with (peeked, nothing taken) an upload? It is not for the HTTP server, which would hold it in memory. */
bool local_blobs_is_upload(const char *peeked, unsigned long len);
/* Takes the connection over. */
void local_blobs_upload(struct local_blobs *blobs, int fd);

/* Routes of the HTTP server; ctx is the sidecar. */
void local_get_blob(void *ctx, struct http_request *request);
void local_put_small_blob(void *ctx, struct http_request *request); /* whose first bytes came one by one */

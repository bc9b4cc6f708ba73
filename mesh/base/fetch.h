/* HTTP requests to servers that are not ours, on the loop: libcurl behind our types (fetch.c is the only user of <curl/curl.h>). Loop thread only.
 *
 * Certificates are checked, always. Proxies are those of the environment (https_proxy, no_proxy …). Redirects are not followed: whoever has been given a key would hand it on. What a server says is hostile: heads are
 * bounded here, bodies come in pieces and are bounded by who reads them. */
#pragma once
#include <amp/amp.h>

struct loop;
struct fetcher; /* the connections of one program; they are kept open for the next request */
struct fetch;   /* one request */

struct fetch_end {
    struct amp_error error; /* AMP_OK: the answer is whole. AMP_UPSTREAM: no such host, or nobody listens there; AMP_DENIED: its certificate is not good; AMP_HUNG: it said nothing for idle_ms;
                               AMP_BAD_ANSWER: what it says is no HTTP, or broke off. Names the host, never a key */
    bool is_safe;           /* nothing can have been done yet: the connection was never made */
};

struct fetch_options {
    const char *method, *url; /* http or https */
    const char *const *headers; /* "Name: value", NULL-ended; may be NULL */
    const char *key;          /* goes as a bearer, and into no log; NULL: none */
    struct amp_bytes body;    /* copied. Empty: there is none */
    uint32_t connect_ms, idle_ms; /* 0: as long as it takes. A request that is paused is not idle */
    /* The status and headers are there: fetch_status, fetch_header. Then data, as it comes, then the end, once. All may call fetch_pause and fetch_free. on_head comes before on_data, and not at all if there is no answer. */
    void (*on_head)(void *ctx);
    void (*on_data)(void *ctx, struct amp_bytes data);
    void (*on_end)(void *ctx, const struct fetch_end *end);
    void *ctx;
};

#define FETCH_HEAD_MAX (64u << 10) /* bytes of all headers */

/* AMP_UNSUPPORTED: this host has no libcurl. */
AMP_MUST_USE enum amp_code fetcher_new(struct loop *loop, struct fetcher **ret, struct amp_error *reterr);
void fetcher_free(struct fetcher *fetcher); /* every fetch must be freed before. NULL is fine */
/* A refused URL is told in on_end, too, never from inside. */
struct fetch *fetch_start(struct fetcher *fetcher, const struct fetch_options *options);
/* At any time; no callback comes after it. A request that is under way is broken off: its connection is closed. NULL is fine. */
void fetch_free(struct fetch *fetch);
int fetch_status(const struct fetch *fetch);                           /* 0: none came yet */
const char *fetch_header(const struct fetch *fetch, const char *name); /* the last of that name, any case; NULL: none */
/* Its data waits, at the server's end at last. */
void fetch_pause(struct fetch *fetch, bool is_paused);

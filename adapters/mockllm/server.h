/* The scripted model as an HTTP server on the loop. */
#pragma once
#include <amp/amp.h>
#include <stdio.h>

struct loop;
struct mock_rules;
struct mock_server;

struct mock_server_options {
    const char *host; /* an IPv4 or IPv6 address */
    uint16_t port;    /* 0: any */
    const char *key;  /* requests without it as a bearer are refused; NULL: none is wanted */
    FILE *record;     /* a line of JSON per request; NULL: none */
};

/* Listens. `options` and `rules` are borrowed and live longer. */
AMP_MUST_USE enum amp_code mock_server_new(struct loop *loop, const struct mock_server_options *options, struct mock_rules *rules, struct mock_server **ret, struct amp_error *reterr);
void mock_server_free(struct mock_server *server); /* NULL is fine. Requests that are open are cut off */
const char *mock_server_url(const struct mock_server *server); /* with /v1 */

/* Carries bytes between two connected sockets, both ways, until both directions are over or fd_a's peer is away. Bounded; half-close is passed on. Private to http.c. Loop thread only. */
#pragma once

struct loop;
struct splice;

/* Takes both descriptors over. */
struct splice *splice_new(struct loop *loop, int fd_a, int fd_b, void (*on_closed)(void *ctx, struct splice *splice), void *ctx);
void splice_free(struct splice *splice); /* no callback. NULL is fine; allowed inside on_closed */

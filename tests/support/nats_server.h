/* A nats-server of its own for a test: loopback, a free port, files in a directory of its own; gone with the test, also when that crashes.
 * Failures end the test program with a message. */
#pragma once
#include <stdbool.h>

struct nats_server;

/* `binary`: NULL = nats-server from PATH or /usr/sbin. `config`: lines added to its configuration, or NULL. Returns when it answers. */
struct nats_server *nats_server_start(const char *binary, const char *config);
void nats_server_stop(struct nats_server *server); /* and removes its files. NULL is fine */

const char *nats_server_url(const struct nats_server *server); /* "nats://127.0.0.1:<port>" */
int nats_server_port(const struct nats_server *server);
int nats_server_pid(const struct nats_server *server);

void nats_server_kill(struct nats_server *server);    /* SIGKILL; its port stays reserved for restart */
void nats_server_restart(struct nats_server *server); /* after kill: same port, same files. Returns when it answers */
void nats_server_signal(struct nats_server *server, int signo); /* SIGSTOP, SIGCONT */

/* Where this host's mesh lives (surface.md): AMESH_HOME and mesh.json in it. Plain blocking file access: for the start of programs and the command line, never on a busy loop. */
#pragma once
#include <amp/amp.h>

struct home {
    char path[256];  /* absolute; exists after home_open with create */
    char bus[512];   /* from --bus, AMESH_BUS or mesh.json; "" if there is none */
    char creds[512]; /* AMESH_CREDS or "" */
    char inbox[128]; /* AMESH_INBOX or "" */
};

/* Refused: a path with control characters or quotes, with `create` a directory that others own (unless we are root) or that everybody may write, credentials that are no regular file, a bus that is none (bus_url_check), an AMESH_INBOX that is no prefix of inboxes.
 * Finds out: `bus` and `path` override the environment when not NULL. `create`: make the directory (0700). AMP_NO_BUS is not returned here: an empty home.bus is for the caller to say. */
AMP_MUST_USE enum amp_code home_open(struct home *home, const char *path, const char *bus, bool create, struct amp_error *reterr);

struct home_mesh { /* mesh.json: who runs */
    char bus[512];
    int pid;          /* of `amesh up` */
    int nats_pid;     /* 0: not ours */
    char version[32];
    int64_t since_unix_ms;
};
/* AMP_NOT_FOUND if there is none or its process is gone (checked by lock, not by pid alone). */
AMP_MUST_USE enum amp_code home_mesh_read(const struct home *home, struct home_mesh *ret, struct amp_error *reterr);
/* Written atomically. */
AMP_MUST_USE enum amp_code home_mesh_write(const struct home *home, const struct home_mesh *mesh, struct amp_error *reterr);
void home_mesh_remove(const struct home *home);
/* Takes the home's lock (an open-file lock of fcntl on <home>/lock, held until the process ends or the descriptor is closed). AMP_RUNNING if another `up` has it. */
AMP_MUST_USE enum amp_code home_lock(const struct home *home, int *ret_fd, struct amp_error *reterr);
/* <home>/run/<instance>.sock, the directory made 0700; falls back to a short path under $XDG_RUNTIME_DIR or /tmp when the path would be over 107 bytes. */
AMP_MUST_USE enum amp_code home_socket_path(const struct home *home, const char *instance, char ret[108], struct amp_error *reterr);

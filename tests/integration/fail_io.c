/* Preloaded (cc -shared) by tests/integration/journal.py and blobs_kept.py: the nth call of fdatasync, fsync, write or pwrite64 on a file whose name has AMESH_FAIL_FILE in
 * it fails with EIO (or AMESH_FAIL_ERRNO, a number), once. AMESH_FAIL_CALL, AMESH_FAIL_AT=n. As a kernel does it: the next sync says that all is well.
 * AMESH_FAIL_CALL=kill: the process is killed instead, before the nth of all calls that change such a file or its name. */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_int seen;

static bool is_name_turn(const char *call, const char *name)
{
    const char *wanted = getenv("AMESH_FAIL_CALL"), *file = getenv("AMESH_FAIL_FILE"), *at = getenv("AMESH_FAIL_AT");
    bool is_kill = wanted && strcmp(wanted, "kill") == 0;
    if (!wanted || !file || !at || !(is_kill || strcmp(wanted, call) == 0) || !strstr(name, file) || atomic_fetch_add(&seen, 1) + 1 != atoi(at))
        return false;
    if (is_kill)
        kill(getpid(), SIGKILL);
    return true;
}

static bool is_its_turn(const char *call, int fd)
{
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, name, sizeof name - 1);
    if (len < 0)
        return false;
    name[len] = '\0';
    return is_name_turn(call, name);
}

static int error_number(void)
{
    const char *text = getenv("AMESH_FAIL_ERRNO");
    return text ? atoi(text) : EIO;
}

#define NEXT(type, name) ((type)dlsym(RTLD_NEXT, name))

int fdatasync(int fd)
{
    if (is_its_turn("fdatasync", fd)) {
        errno = error_number();
        return -1;
    }
    return NEXT(int (*)(int), "fdatasync")(fd);
}

int fsync(int fd)
{
    if (is_its_turn("fsync", fd)) {
        errno = error_number();
        return -1;
    }
    return NEXT(int (*)(int), "fsync")(fd);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at)
{
    if (is_its_turn("pwrite64", fd)) {
        errno = error_number();
        return -1;
    }
    return NEXT(ssize_t (*)(int, const void *, size_t, off64_t), "pwrite64")(fd, data, len, at);
}

ssize_t write(int fd, const void *data, size_t len)
{
    if (is_its_turn("write", fd)) {
        errno = error_number();
        return -1;
    }
    return NEXT(ssize_t (*)(int, const void *, size_t), "write")(fd, data, len);
}

int rename(const char *from, const char *to)
{
    (void)is_name_turn("rename", from);
    return NEXT(int (*)(const char *, const char *), "rename")(from, to);
}

int unlink(const char *name)
{
    (void)is_name_turn("unlink", name);
    return NEXT(int (*)(const char *), "unlink")(name);
}

int ftruncate64(int fd, off64_t size)
{
    (void)is_its_turn("ftruncate64", fd);
    return NEXT(int (*)(int, off64_t), "ftruncate64")(fd, size);
}

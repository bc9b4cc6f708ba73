/* Whose lock can be had has no process any more. A directory is locked before anything else is in it, and one that is being made is seen as such by its age only: so a sweep takes
 * the lock itself, and whoever makes a directory looks whether the file that it locked is still the one that stands there. */
#include "base/blob_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK "lock"
#define MAKE_TRIES 8 /* a sweep may come in between */
#define DEPTH_FDS 16

static bool lock_take(int fd)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_SETLK, &whole) == 0;
}

static enum amp_code system_error(struct amp_error *reterr, const char *path)
{
    enum amp_code code = amp_error_set(reterr, errno == ENOSPC || errno == EDQUOT ? AMP_OVERLOADED : AMP_INTERNAL, "", "cannot make %.300s: %s", path, strerror(errno));
    amp_error_hint(reterr, "files over the size of a message need room below AMESH_HOME");
    return code;
}

enum amp_code blob_files_make(const char *root, const char *directory, int *ret_lock, struct amp_error *reterr)
{
    char path[1024];
    (void)snprintf(path, sizeof path, "%.900s/" LOCK, directory);
    for (int i = 0; i < MAKE_TRIES; i++) {
        struct stat ours, there;
        if ((mkdir(root, 0700) != 0 && errno != EEXIST) || (mkdir(directory, 0700) != 0 && errno != EEXIST))
            return system_error(reterr, directory);
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0 && errno == ENOENT)
            continue;
        if (fd < 0)
            return system_error(reterr, path);
        if (lock_take(fd) && fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_ino == there.st_ino && ours.st_dev == there.st_dev) {
            *ret_lock = fd;
            return AMP_OK;
        }
        (void)close(fd);
    }
    errno = EAGAIN;
    return system_error(reterr, directory);
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *ftw)
{
    (void)info;
    (void)kind;
    (void)ftw;
    (void)remove(path);
    return 0;
}

void blob_files_remove(const char *directory)
{
    if (rmdir(directory) != 0 && errno != ENOENT)
        (void)nftw(directory, remove_one, DEPTH_FDS, FTW_DEPTH | FTW_PHYS);
}

static void sweep_one(const char *directory)
{
    char path[1024];
    (void)snprintf(path, sizeof path, "%.900s/" LOCK, directory);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        (void)rmdir(directory); /* nothing in it: its maker died, or makes it again */
        return;
    }
    if (lock_take(fd))
        blob_files_remove(directory);
    (void)close(fd);
}

void blob_files_sweep(const char *root)
{
    DIR *entries = opendir(root);
    if (!entries)
        return;
    const struct dirent *entry;
    while ((entry = readdir(entries))) {
        char path[1024];
        if (!amp_id_is_valid(entry->d_name))
            continue;
        (void)snprintf(path, sizeof path, "%.700s/%.255s", root, entry->d_name);
        sweep_one(path);
    }
    (void)closedir(entries);
}

enum amp_code blob_files_make_kept(const char *directory, struct amp_error *reterr)
{
    char above[1024];
    if (mkdir(directory, 0700) != 0)
        return errno == EEXIST ? AMP_OK : system_error(reterr, directory);
    (void)snprintf(above, sizeof above, "%.1000s", directory);
    int fd = open(dirname(above), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_synced = fd >= 0 && fsync(fd) == 0;
    enum amp_code code = is_synced ? AMP_OK : system_error(reterr, directory);
    if (fd >= 0)
        (void)close(fd);
    if (!is_synced)
        (void)rmdir(directory); /* so that it is tried again */
    return code;
}

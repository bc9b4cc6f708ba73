#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/alloc.h"

#define SECRET_MAX 4096u

struct file_mark file_mark_of(const struct stat *info)
{
    return (struct file_mark){.is_regular = S_ISREG(info->st_mode), .has_blocks = info->st_blocks > 0, .size = (uint64_t)info->st_size, .mtime = info->st_mtim};
}

bool file_is_unchanged(int fd, const struct file_mark *before, uint64_t n_read)
{
    struct stat after;
    if (!before->is_regular)
        return true;
    return fstat(fd, &after) == 0 && (uint64_t)after.st_size == before->size && after.st_mtim.tv_sec == before->mtime.tv_sec && after.st_mtim.tv_nsec == before->mtime.tv_nsec &&
           (!before->has_blocks || n_read == before->size);
}

/* Opening it waits until somebody writes. What is open here already does not. */
static bool is_fifo(const char *path)
{
    struct stat info;
    bool is_open = strncmp(path, "/dev/fd/", 8) == 0 || strncmp(path, "/proc/self/fd/", 14) == 0 || strcmp(path, "/dev/stdin") == 0;
    return !is_open && stat(path, &info) == 0 && S_ISFIFO(info.st_mode);
}

static int open_to_read(const char *path, struct file_mark *mark, struct amp_error *reterr)
{
    struct stat info;
    if (is_fifo(path)) {
        (void)amp_error_set(reterr, AMP_INVALID, "", "%s is a FIFO, not a regular file", path);
        amp_error_hint(reterr, "write what comes from it to a file, or give it as standard input where - is taken");
        return -1;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        (void)amp_error_set(reterr, errno == ENOENT ? AMP_NOT_FOUND : AMP_INVALID, "", "cannot read %s: %s", path, strerror(errno));
        amp_error_hint(reterr, "the path of a file that this user can read");
        return -1;
    }
    if (fstat(fd, &info) == 0)
        *mark = file_mark_of(&info);
    return fd;
}

enum amp_code file_read(const char *path, size_t max, struct amp_buf *ret, struct amp_error *reterr)
{
    bool is_stdin = strcmp(path, "-") == 0;
    amp_buf_init(ret, max);
    struct file_mark mark = {.is_regular = false};
    struct amp_error err = {.code = AMP_OK};
    int fd = is_stdin ? STDIN_FILENO : open_to_read(path, &mark, &err);
    if (fd < 0) {
        if (reterr != NULL)
            *reterr = err;
        return err.code;
    }
    enum amp_code code = AMP_OK;
    uint8_t chunk[16384];
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            code = amp_error_set(reterr, AMP_INVALID, "", "cannot read %s: %s", is_stdin ? "standard input" : path, strerror(errno));
        else if (n > 0 && amp_buf_append(ret, chunk, (size_t)n) != AMP_OK)
            code = amp_error_set(reterr, AMP_TOO_LARGE, "", "%s has more than %zu bytes", is_stdin ? "standard input" : path, max);
        if (n <= 0 || code != AMP_OK)
            break;
    }
    if (code == AMP_OK && !file_is_unchanged(fd, &mark, ret->len))
        code = amp_error_set(reterr, AMP_INVALID, "", "%s was changed while it was read", path);
    if (!is_stdin)
        close(fd);
    return code;
}

enum amp_code file_check_limit(struct amp_error *reterr)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= FILE_OPEN_MIN)
        return AMP_OK;
    amp_error_set(reterr, AMP_INVALID, "", "only %llu files may be open at once; at least %u are needed", (unsigned long long)limit.rlim_cur, FILE_OPEN_MIN);
    amp_error_hint(reterr, "ulimit -n 1024 before it, or LimitNOFILE= of its unit");
    return AMP_INVALID;
}

/* ---- files that others name ------------------------------------------------------------------------------ */

#define NAME_MAX_BYTES 200u

static const char *last_component(const char *name)
{
    const char *slash = name ? strrchr(name, '/') : NULL;
    name = slash ? slash + 1 : name;
    return !name || *name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ? "file" : name;
}

void file_name_in(const char *directory, const char *name, unsigned again, char *ret, size_t size)
{
    char before[16] = "";
    name = last_component(name);
    if (again > 1)
        (void)snprintf(before, sizeof before, "%u-", again);
    (void)snprintf(ret, size, "%s/%s%.*s", directory, before, (int)amp_utf8_cut(amp_bytes_of(name), NAME_MAX_BYTES), name);
}

bool file_write_all(int fd, struct amp_bytes data)
{
    while (data.len > 0) {
        ssize_t n = write(fd, data.data, data.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        data.data += n;
        data.len -= (size_t)n;
    }
    return true;
}

bool file_write_new(const char *path, struct amp_bytes data)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool is_written = file_write_all(fd, data);
    int error = errno;
    is_written = close(fd) == 0 && is_written;
    if (!is_written) {
        (void)unlink(path);
        errno = error;
    }
    return is_written;
}

enum amp_code file_read_secret(const char *path, char **ret, struct amp_error *reterr)
{
    struct amp_buf text;
    enum amp_code code = file_read(path, SECRET_MAX, &text, reterr);
    size_t len = text.len, start = 0;
    while (len > 0 && strchr(" \r\n\t", text.data[len - 1]))
        len--;
    while (start < len && strchr(" \r\n\t", text.data[start]))
        start++;
    if (code == AMP_OK && (start == len || memchr(text.data, '\0', len) || memchr(text.data + start, '\n', len - start)))
        code = amp_error_set(reterr, AMP_INVALID, "", "%.200s has no key in it: one line is wanted", path);
    if (code == AMP_OK)
        *ret = xstrndup((const char *)text.data + start, len - start);
    if (text.data)
        sodium_memzero(text.data, text.len);
    amp_buf_done(&text);
    return code;
}

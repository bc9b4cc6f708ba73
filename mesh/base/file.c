#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum amp_code file_read(const char *path, size_t max, struct amp_buf *ret, struct amp_error *reterr)
{
    bool is_stdin = strcmp(path, "-") == 0;
    amp_buf_init(ret, max);
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        enum amp_code why = amp_error_set(reterr, errno == ENOENT ? AMP_NOT_FOUND : AMP_INVALID, "", "cannot read %s: %s", path, strerror(errno));
        amp_error_hint(reterr, "the path of a file that this user can read");
        return why;
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

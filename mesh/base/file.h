/* Files that people name, and how many may be open. Blocking: for the start of programs and the command line, never on a busy loop. */
#pragma once
#include <amp/amp.h>
#include <sys/stat.h>
#include <time.h>

/* The whole file, or standard input for "-", at most `max` bytes (AMP_TOO_LARGE). The buffer is initialised here and the caller's, also on failure. AMP_NOT_FOUND,
 * AMP_INVALID: it cannot be read, it was changed meanwhile, or it is a FIFO, which might never be written (one that is open already, as of <(…) in a shell, is read). */
AMP_MUST_USE enum amp_code file_read(const char *path, size_t max, struct amp_buf *ret, struct amp_error *reterr);

/* A secret: the one line of the file, without what is around it. The caller frees it. AMP_INVALID: there is none in it. */
AMP_MUST_USE enum amp_code file_read_secret(const char *path, char **ret, struct amp_error *reterr);

/* Whether a regular file is the same after reading as before, so that nothing torn is taken for it. Of anything else nothing is known: it is unchanged. */
struct file_mark {
    bool is_regular, has_blocks; /* what the kernel makes up has none, and a size that means nothing */
    uint64_t size;
    struct timespec mtime;
};
struct file_mark file_mark_of(const struct stat *info);
bool file_is_unchanged(int fd, const struct file_mark *before, uint64_t n_read);

/* <directory>/<name> for a file that somebody else has named: the last component only, "file" if that is nothing, and "2-…" for the second of that name (again: from 1). */
void file_name_in(const char *directory, const char *name, unsigned again, char *ret, size_t size);
/* Makes the file (0600), which must not be there yet, and leaves nothing of it on failure. False: errno. */
bool file_write_new(const char *path, struct amp_bytes data);
bool file_write_all(int fd, struct amp_bytes data); /* false: errno */

#define FILE_OPEN_MIN 64u /* descriptors that a program which serves needs: bus, journal, sockets, pipes of one agent */
/* AMP_INVALID: the limit of open files (ulimit -n) is below FILE_OPEN_MIN. */
AMP_MUST_USE enum amp_code file_check_limit(struct amp_error *reterr);

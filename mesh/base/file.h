/* Files that people name, and how many may be open. Blocking: for the start of programs and the command line, never on a busy loop. */
#pragma once
#include <amp/amp.h>

/* The whole file, or standard input for "-", at most `max` bytes (AMP_TOO_LARGE). The buffer is initialised here and the caller's, also on failure. AMP_NOT_FOUND,
 * AMP_INVALID: it cannot be read. */
AMP_MUST_USE enum amp_code file_read(const char *path, size_t max, struct amp_buf *ret, struct amp_error *reterr);

#define FILE_OPEN_MIN 64u /* descriptors that a program which serves needs: bus, journal, sockets, pipes of one agent */
/* AMP_INVALID: the limit of open files (ulimit -n) is below FILE_OPEN_MIN. */
AMP_MUST_USE enum amp_code file_check_limit(struct amp_error *reterr);

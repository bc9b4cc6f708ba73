/* Directories of spools: made, locked as long as their process lives, removed. For blob_store.c. */
#pragma once
#include <amp/amp.h>

/* Makes `root` and `directory` in it (0700) and locks the latter: *ret_lock is held until the process ends or the descriptor is closed. */
AMP_MUST_USE enum amp_code blob_files_make(const char *root, const char *directory, int *ret_lock, struct amp_error *reterr);
/* The directory and everything below it; symbolic links are not followed. */
void blob_files_remove(const char *directory);
/* Removes each directory of `root` whose process is gone. */
void blob_files_sweep(const char *root);
/* A directory that is kept: made if it is not there (0700), and on the disk then. */
AMP_MUST_USE enum amp_code blob_files_make_kept(const char *directory, struct amp_error *reterr);

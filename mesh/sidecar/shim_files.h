/* The in-process shims, carried in the program and written out when one is needed. Blocking file access, at the start of a process only. */
#pragma once
#include <amp/amp.h>

struct home;

/* Makes sure that <home>/shim/<digest>/ holds the shims as they are in this program: each written to a temporary name and renamed. *ret is the directory, the caller's to free. */
AMP_MUST_USE enum amp_code shim_files_write(const struct home *home, char **ret, struct amp_error *reterr);

enum shim_language { SHIM_NONE, SHIM_PYTHON, SHIM_JS };
/* From the target's file name: "dir/app.py:agent" → python; .mjs, .cjs, .js → js. */
enum shim_language shim_language_of(const char *target);
/* The command that runs `target` under its shim: NULL-ended, the list and each text the caller's. python: the interpreter, or NULL for $VIRTUAL_ENV's, then python3. */
char **shim_command(const char *dir, const char *target, const char *python);

/* The pieces of spawn.c that stand alone. */
#pragma once
#include "sidecar/spawn.h"

/* ---- spawn_child.c: from options to a running child ----------------------------------------------------- */

/* AMP_NOT_FOUND, AMP_DENIED, … as spawn_start. stdio: what the child gets as 0, 1, 2. */
AMP_MUST_USE enum amp_code spawn_child(const struct spawn_options *options, const int stdio[3], pid_t *ret_pid, struct amp_error *reterr);

/* Waits for one that is as good as dead, at most 100 ms. True: it is gone. */
bool spawn_reap(pid_t pid);

/* ---- spawn_oom.c: did the kernel kill for memory? --------------------------------------------------------- */

struct spawn_oom { /* counters at one moment; 0 where they cannot be read */
    uint64_t host, group;
    bool is_of_group; /* which is ours: `host` is not read */
};
void spawn_oom_read(struct spawn_oom *ret);
bool spawn_oom_rose(const struct spawn_oom *before, const struct spawn_oom *after);
/* Pure: the number after `key` at the start of a line of `text`; 0 if there is none. */
uint64_t spawn_oom_parse(const char *text, const char *key);

/* ---- spawn_lines.c: the last lines of stderr ------------------------------------------------------------------ */

struct spawn_lines {
    char *lines[AMP_STDERR_LINES_MAX];   /* a ring */
    size_t first, count;
    char partial[AMP_STDERR_LINE_MAX];   /* what came since the last newline, cut */
    size_t n_partial;
    bool has_partial;
};
/* on_line (may be NULL) gets each whole line, sanitised. */
void spawn_lines_feed(struct spawn_lines *lines, struct amp_bytes data, void (*on_line)(const char *line));
void spawn_lines_end(struct spawn_lines *lines, void (*on_line)(const char *line)); /* an unfinished line counts too */
size_t spawn_lines_list(const struct spawn_lines *lines, char *ret[AMP_STDERR_LINES_MAX]); /* oldest first, borrowed */
void spawn_lines_done(struct spawn_lines *lines);

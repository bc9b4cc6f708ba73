/* The files of a task's answer, written into a directory (amp.md 15): what stands in the message, and what its holder has. One by one: one that cannot be had or written is told, and the others
 * are written all the same. A name that is there already gets a number. */
#pragma once
#include <amp/amp.h>

struct blobs;
struct cli;
struct save;

/* Makes the directory of --output, with its parents. Exit code. */
int save_prepare(const struct cli *cli, const char *path);

struct save_options {
    const struct cli *cli;
    struct blobs *blobs; /* which fetch them; they outlive the save */
    const char *directory;
    void (*on_wrote)(void *ctx, const char *path, long long bytes);
    void (*on_done)(void *ctx, int status); /* once, with the exit code of the first that failed, or 0; possibly from inside save_start */
    void *ctx;
};
struct save *save_new(const struct save_options *options);
void save_add(struct save *save, const Amp__Task *task); /* its artifacts' files; `task` must live until the end */
void save_miss(struct save *save, const struct amp_error *why); /* something else of the answer is missing: told, and the exit code */
void save_start(struct save *save);
/* In the task files that were written are named by where they are, as long as it is being printed (is_on). NULL is fine. */
void save_name(struct save *save, bool is_on);
void save_free(struct save *save); /* NULL is fine */

/* How many files there are in its artifacts, and how many of them are elsewhere. */
size_t save_count(const Amp__Task *task, size_t *ret_elsewhere);

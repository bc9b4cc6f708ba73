#include "cli/save.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/blob_fetch.h"
#include "base/file.h"
#include "cli/context.h"

#define NAME_TRIES 1000u

struct written { /* a part of the answer whose bytes are a file now */
    Amp__Part *part;
    char *url, *before; /* before: the part's own, while the document is being printed */
};

struct save {
    struct save_options options;
    struct blob_held held;
    struct blob_fetch *fetch;
    Amp__Part **parts; /* to be written one after the other */
    size_t n_parts, next;
    int status; /* of the first that could not be written; 0: none */
    struct written *written;
    size_t n_written;
};

/* ---- where to -------------------------------------------------------------------------------------------- */

/* With its parents. False: errno. */
static bool make_directory(const char *path)
{
    char *copy = xstrdup(path);
    bool is_made = true;
    for (char *at = strchr(copy + 1, '/'); at != NULL && is_made; at = strchr(at + 1, '/')) {
        *at = '\0';
        is_made = mkdir(copy, 0777) == 0 || errno == EEXIST;
        *at = '/';
    }
    is_made = is_made && (mkdir(copy, 0777) == 0 || errno == EEXIST);
    int error = errno;
    free(copy);
    errno = error;
    return is_made;
}

int save_prepare(const struct cli *cli, const char *path)
{
    struct stat info;
    if (path == NULL)
        return 0;
    if (*path == '\0')
        return cli_usage(cli, "--output needs the name of a directory");
    if (!make_directory(path))
        return cli_fail_with(cli, AMP_INVALID, "--output: cannot make the directory %.300s: %s", path, strerror(errno));
    if (stat(path, &info) == 0 && !S_ISDIR(info.st_mode))
        return cli_fail_with(cli, AMP_INVALID, "--output: %.300s is no directory", path);
    if (access(path, W_OK | X_OK) != 0)
        return cli_fail_with(cli, AMP_INVALID, "--output: cannot write into the directory %.300s: %s", path, strerror(errno));
    return 0;
}

/* ---- which ------------------------------------------------------------------------------------------------ */

static bool is_file(const Amp__Part *part)
{
    return amp_part_is_blob(part) || part->has_raw || (part->text != NULL && part->filename != NULL);
}

size_t save_count(const Amp__Task *task, size_t *ret_elsewhere)
{
    size_t count = 0;
    *ret_elsewhere = 0;
    for (size_t i = 0; i < task->n_artifacts; i++) {
        for (size_t k = 0; k < task->artifacts[i]->n_parts; k++) {
            struct amp_blob_ref ref;
            const Amp__Part *part = task->artifacts[i]->parts[k];
            count += is_file(part);
            *ret_elsewhere += amp_part_is_blob(part) && amp_part_blob(part, &ref, NULL) == AMP_OK;
        }
    }
    return count;
}

void save_add(struct save *save, const Amp__Task *task)
{
    for (size_t i = 0; i < task->n_artifacts; i++) {
        for (size_t k = 0; k < task->artifacts[i]->n_parts; k++) {
            if (!is_file(task->artifacts[i]->parts[k]))
                continue;
            save->parts = xrealloc(save->parts, (save->n_parts + 1) * sizeof(*save->parts));
            save->parts[save->n_parts++] = task->artifacts[i]->parts[k];
        }
    }
}

/* ---- one of them ------------------------------------------------------------------------------------------ */

/* From the spool. False: errno. */
static bool copy_file(const char *from, const char *to)
{
    static uint8_t piece[BLOB_PIECE];
    int in = open(from, O_RDONLY | O_CLOEXEC), out = in < 0 ? -1 : open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    bool is_copied = out >= 0;
    ssize_t n = 0;
    while (is_copied && (n = read(in, piece, sizeof piece)) != 0)
        is_copied = (n < 0 && errno == EINTR) || (n > 0 && file_write_all(out, (struct amp_bytes){piece, (size_t)n}));
    int error = errno;
    if (in >= 0)
        (void)close(in);
    if (out >= 0 && (close(out) != 0 || !is_copied)) {
        is_copied = false;
        (void)unlink(to);
    }
    errno = error;
    return is_copied;
}

static bool write_part(struct save *save, const Amp__Part *part, const char *path)
{
    struct amp_blob_ref ref;
    char from[BLOB_PATH_SIZE];
    if (part->has_raw)
        return file_write_new(path, (struct amp_bytes){part->raw.data, part->raw.len});
    if (part->text != NULL)
        return file_write_new(path, amp_bytes_of(part->text));
    errno = ENOENT;
    return amp_part_blob(part, &ref, NULL) == AMP_OK && blob_store_path(blobs_store(save->options.blobs), ref.digest, from) && copy_file(from, path);
}

static void remember(struct save *save, Amp__Part *part, const char *path)
{
    char whole[PATH_MAX];
    if (!amp_part_is_blob(part))
        return;
    save->written = xrealloc(save->written, (save->n_written + 1) * sizeof *save->written);
    save->written[save->n_written++] = (struct written){.part = part, .url = xasprintf("file://%s", realpath(path, whole) != NULL ? whole : path)};
}

void save_miss(struct save *save, const struct amp_error *why)
{
    int status = cli_fail(save->options.cli, why, NULL);
    if (save->status == 0)
        save->status = status;
}

static void write_one(struct save *save, Amp__Part *part)
{
    struct amp_error err = {.code = AMP_OK};
    char path[PATH_MAX];
    struct stat info;
    bool is_written = false;
    for (unsigned again = 1; !is_written && again < NAME_TRIES; again++) {
        file_name_in(save->options.directory, part->filename, again, path, sizeof path);
        is_written = write_part(save, part, path);
        if (!is_written && errno != EEXIST)
            break;
    }
    if (!is_written) {
        (void)amp_error_set(&err, AMP_INVALID, "", "--output: cannot write %.300s: %s", path, strerror(errno));
        save_miss(save, &err);
        return;
    }
    remember(save, part, path);
    if (stat(path, &info) == 0)
        save->options.on_wrote(save->options.ctx, path, (long long)info.st_size);
}

/* Why its bytes cannot be had. */
static void miss_one(struct save *save, const Amp__Part *part, const struct amp_error *why)
{
    struct amp_error err = {.code = AMP_OK};
    (void)amp_error_set(&err, why->code, "", "--output: cannot write %.200s of the answer: %s", part->filename != NULL ? part->filename : "a file", why->message);
    if (why->hint[0] != '\0')
        amp_error_hint(&err, "%s", why->hint);
    save_miss(save, &err);
}

/* ---- all of them ------------------------------------------------------------------------------------------ */

static void on_fetched(void *ctx, const struct amp_error *err)
{
    struct save *save = ctx;
    Amp__Part *part = save->parts[save->next++];
    save->fetch = NULL;
    if (err->code == AMP_OK)
        write_one(save, part);
    else
        miss_one(save, part, err);
    save_start(save);
}

void save_start(struct save *save)
{
    for (; save->next < save->n_parts; save->next++) {
        Amp__Part *part = save->parts[save->next];
        struct amp_error err = {.code = AMP_OK};
        struct amp_blob_ref ref;
        if (part->url == NULL) {
            write_one(save, part);
        } else if (amp_part_blob(part, &ref, &err) != AMP_OK) {
            miss_one(save, part, &err);
        } else {
            save->fetch = blob_fetch_start(save->options.blobs, &ref, 1, &save->held, on_fetched, save);
            return;
        }
    }
    save->options.on_done(save->options.ctx, save->status);
}

struct save *save_new(const struct save_options *options)
{
    struct save *save = xcalloc(1, sizeof *save);
    save->options = *options;
    return save;
}

void save_name(struct save *save, bool is_on)
{
    for (size_t i = 0; save != NULL && i < save->n_written; i++) {
        struct written *written = &save->written[i];
        if (is_on)
            written->before = written->part->url;
        written->part->url = is_on ? written->url : written->before;
    }
}

void save_free(struct save *save)
{
    if (save == NULL)
        return;
    blob_fetch_cancel(save->fetch);
    blob_held_release(&save->held, save->options.blobs);
    for (size_t i = 0; i < save->n_written; i++)
        free(save->written[i].url);
    free(save->written);
    free(save->parts);
    free(save);
}

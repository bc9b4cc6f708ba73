/* Files of `amesh ask`: what is too large for the message is offered as blobs for as long as the command runs, and the answer's files are fetched at its end (amp.md 15). */
#include "cli/ask.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/blob_fetch.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/loop.h"
#include "cli/event.h"
#include "cli/output.h"

#define NAME_TRIES 1000u

struct written { /* a part of the answer whose bytes are a file now */
    Amp__Part *part;
    char *url, *before; /* before: the part's own, while the document is being printed */
};

struct ask_files {
    struct blobs *blobs;
    struct blob_held held;
    struct blob_fetch *fetch;
    void (*on_done)(struct ask *ask, int status);
    Amp__Part **parts; /* of the answer, to be written one after the other */
    size_t n_parts, next;
    int status; /* of the first that could not be written; 0: none */
    struct written *written;
    size_t n_written;
    /* of one that is taken in */
    struct amp_error error;
    struct blob blob;
};

static struct ask_files *files_of(struct ask *ask)
{
    if (ask->blobs != NULL)
        return ask->blobs;
    char holder[AMP_ID_SIZE];
    amp_id_new('i', clock_unix_ms(), holder);
    ask->blobs = xcalloc(1, sizeof *ask->blobs);
    ask->blobs->blobs = blobs_new(ask->cli.loop, ask->cli.bus, &(struct blobs_options){.home = ask->cli.home.path, .holder = holder, .from = ask->cli.from});
    return ask->blobs;
}

/* ---- out --------------------------------------------------------------------------------------------- */

static void on_taken(void *ctx, const struct blob *blob, const struct amp_error *err)
{
    struct ask *ask = ctx;
    struct ask_files *files = ask->blobs;
    if (blob != NULL)
        files->blob = *blob;
    else
        files->error = *err;
    loop_stop(ask->cli.loop, 0);
}

static enum amp_code offer(struct ask *ask, Amp__Part *part, const struct blob *blob, bool is_text)
{
    struct amp_blob_ref ref;
    blob_held_add(&ask->blobs->held, blob->digest);
    blobs_offer(ask->blobs->blobs, blob, &ref);
    ref.is_text = is_text;
    return amp_part_set_blob(part, &ref, &ask->arena);
}

static int take_file(struct ask *ask, const struct message_large *large)
{
    struct ask_files *files = files_of(ask);
    (void)blobs_add_file(files->blobs, large->path, on_taken, ask);
    loop_run(ask->cli.loop);
    if (files->error.code == AMP_OK && offer(ask, large->part, &files->blob, false) == AMP_OK)
        return 0;
    return cli_fail(&ask->cli, &files->error, NULL);
}

/* What is in the message already, and too large for it. */
static int take_bytes(struct ask *ask, Amp__Part *part)
{
    struct amp_bytes text = part->text != NULL ? amp_bytes_of(part->text) : (struct amp_bytes){0};
    struct amp_bytes bytes = part->has_raw ? (struct amp_bytes){part->raw.data, part->raw.len} : text;
    struct amp_error err = {.code = AMP_OK};
    struct blob blob;
    if (bytes.len <= (part->text != NULL ? ASK_TEXT_INLINE_MAX : ASK_INLINE_MAX))
        return 0;
    if (blobs_add(files_of(ask)->blobs, bytes, &blob, &err) == AMP_OK && offer(ask, part, &blob, part->text != NULL) == AMP_OK)
        return 0;
    return cli_fail(&ask->cli, &err, NULL);
}

int ask_files_begin(struct ask *ask)
{
    int status = 0;
    if (ask->source.inline_max == 0)
        return 0;
    for (size_t i = 0; i < ask->source.n_large && status == 0; i++)
        status = take_file(ask, &ask->source.large[i]);
    for (size_t i = 0; i < ask->message->n_parts && status == 0; i++)
        status = take_bytes(ask, ask->message->parts[i]);
    return status;
}

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

int ask_files_prepare(struct ask *ask)
{
    struct stat info;
    const char *path = ask->output;
    if (path == NULL)
        return 0;
    if (*path == '\0')
        return cli_usage(&ask->cli, "--output needs the name of a directory");
    if (!make_directory(path))
        return cli_fail_with(&ask->cli, AMP_INVALID, "--output: cannot make the directory %.300s: %s", path, strerror(errno));
    if (stat(path, &info) == 0 && !S_ISDIR(info.st_mode))
        return cli_fail_with(&ask->cli, AMP_INVALID, "--output: %.300s is no directory", path);
    if (access(path, W_OK | X_OK) != 0)
        return cli_fail_with(&ask->cli, AMP_INVALID, "--output: cannot write into the directory %.300s: %s", path, strerror(errno));
    return 0;
}

/* ---- in ---------------------------------------------------------------------------------------------- */

static bool is_file(const Amp__Part *part)
{
    return amp_part_is_blob(part) || part->has_raw || (part->text != NULL && part->filename != NULL);
}

/* Calls `visit` for each file of the answer, as long as it returns true. */
static bool walk(struct ask *ask, bool (*visit)(struct ask *ask, Amp__Part *part, void *ctx), void *ctx)
{
    const Amp__Task *task = amp_fold_task(ask->answer.fold);
    for (size_t i = 0; i < task->n_artifacts; i++) {
        for (size_t k = 0; k < task->artifacts[i]->n_parts; k++) {
            if (is_file(task->artifacts[i]->parts[k]) && !visit(ask, task->artifacts[i]->parts[k], ctx))
                return false;
        }
    }
    return true;
}

struct refs {
    struct amp_blob_ref *refs;
    size_t n, n_files;
};

static bool collect(struct ask *ask, Amp__Part *part, void *ctx)
{
    struct refs *refs = ctx;
    blob_refs_add(&part, 1, &refs->refs, &refs->n);
    refs->n_files++;
    return true;
}

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

static bool write_part(struct ask *ask, const Amp__Part *part, const char *path)
{
    struct amp_blob_ref ref;
    char from[BLOB_PATH_SIZE];
    if (part->has_raw)
        return file_write_new(path, (struct amp_bytes){part->raw.data, part->raw.len});
    if (part->text != NULL)
        return file_write_new(path, amp_bytes_of(part->text));
    errno = ENOENT;
    return amp_part_blob(part, &ref, NULL) == AMP_OK && blob_store_path(blobs_store(ask->blobs->blobs), ref.digest, from) && copy_file(from, path);
}

static void remember(struct ask_files *files, Amp__Part *part, const char *path)
{
    char whole[PATH_MAX];
    if (!amp_part_is_blob(part))
        return;
    files->written = xrealloc(files->written, (files->n_written + 1) * sizeof *files->written);
    files->written[files->n_written++] = (struct written){.part = part, .url = xasprintf("file://%s", realpath(path, whole) != NULL ? whole : path)};
}

/* The others are written all the same. */
static void fail_one(struct ask *ask, const struct amp_error *err)
{
    int status = cli_fail(&ask->cli, err, NULL);
    if (ask->blobs->status == 0)
        ask->blobs->status = status;
}

static void write_one(struct ask *ask, Amp__Part *part)
{
    struct amp_error err = {.code = AMP_OK};
    char path[PATH_MAX];
    struct stat info;
    bool is_written = false;
    for (unsigned again = 1; !is_written && again < NAME_TRIES; again++) {
        file_name_in(ask->output, part->filename, again, path, sizeof path);
        is_written = write_part(ask, part, path);
        if (!is_written && errno != EEXIST)
            break;
    }
    if (!is_written) {
        (void)amp_error_set(&err, AMP_INVALID, "", "--output: cannot write %.300s: %s", path, strerror(errno));
        fail_one(ask, &err);
        return;
    }
    remember(ask->blobs, part, path);
    if (stat(path, &info) == 0)
        answer_notice(&ask->answer, "wrote %s (%lld bytes)", path, (long long)info.st_size);
}

/* Why its bytes cannot be had. */
static void miss_one(struct ask *ask, const Amp__Part *part, const struct amp_error *why)
{
    struct amp_error err = {.code = AMP_OK};
    (void)amp_error_set(&err, why->code, "", "--output: cannot write %.200s of the answer: %s", part->filename != NULL ? part->filename : "a file", why->message);
    if (why->hint[0] != '\0')
        amp_error_hint(&err, "%s", why->hint);
    fail_one(ask, &err);
}

static void write_next(struct ask *ask);

static void on_fetched(void *ctx, const struct amp_error *err)
{
    struct ask *ask = ctx;
    struct ask_files *files = ask->blobs;
    Amp__Part *part = files->parts[files->next++];
    files->fetch = NULL;
    if (err->code == AMP_OK)
        write_one(ask, part);
    else
        miss_one(ask, part, err);
    write_next(ask);
}

static void write_next(struct ask *ask)
{
    struct ask_files *files = ask->blobs;
    for (; files->next < files->n_parts; files->next++) {
        Amp__Part *part = files->parts[files->next];
        struct amp_error err = {.code = AMP_OK};
        struct amp_blob_ref ref;
        if (part->url == NULL) {
            write_one(ask, part);
        } else if (amp_part_blob(part, &ref, &err) != AMP_OK) {
            miss_one(ask, part, &err);
        } else {
            files->fetch = blob_fetch_start(files->blobs, &ref, 1, &files->held, on_fetched, ask);
            return;
        }
    }
    files->on_done(ask, files->status);
}

static bool add_part(struct ask *ask, Amp__Part *part, void *ctx)
{
    struct ask_files *files = ctx;
    (void)ask;
    files->parts = xrealloc(files->parts, (files->n_parts + 1) * sizeof(*files->parts));
    files->parts[files->n_parts++] = part;
    return true;
}

bool ask_files_receive(struct ask *ask, void (*on_done)(struct ask *ask, int status))
{
    struct refs refs = {0};
    bool has_files = ask->output != NULL && ((walk(ask, collect, &refs) && refs.n_files > 0) || ask->answer.missed.code != AMP_OK);
    free(refs.refs);
    if (!has_files)
        return false;
    struct ask_files *files = files_of(ask);
    files->on_done = on_done;
    (void)walk(ask, add_part, files);
    if (ask->answer.missed.code != AMP_OK)
        fail_one(ask, &ask->answer.missed);
    write_next(ask);
    return true;
}

void ask_files_name(struct ask *ask, bool is_on)
{
    struct ask_files *files = ask->blobs;
    for (size_t i = 0; files != NULL && i < files->n_written; i++) {
        struct written *written = &files->written[i];
        if (is_on)
            written->before = written->part->url;
        written->part->url = is_on ? written->url : written->before;
    }
}

void ask_files_tell(struct ask *ask)
{
    struct refs refs = {0};
    if (ask->output == NULL && walk(ask, collect, &refs) && refs.n > 0)
        answer_notice(&ask->answer, "%zu %s of the answer %s not fetched: --output DIR writes %s", refs.n, refs.n == 1 ? "file" : "files", refs.n == 1 ? "was" : "were", refs.n == 1 ? "it" : "them");
    free(refs.refs);
}

void ask_files_end(struct ask *ask)
{
    struct ask_files *files = ask->blobs;
    if (files == NULL)
        return;
    blob_fetch_cancel(files->fetch);
    blob_held_release(&files->held, files->blobs);
    blobs_free(files->blobs);
    for (size_t i = 0; i < files->n_written; i++)
        free(files->written[i].url);
    free(files->written);
    free(files->parts);
    free(files);
    ask->blobs = NULL;
}

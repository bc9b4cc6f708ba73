/* Files of `amesh ask`: what is too large for the message is offered as blobs for as long as the command runs, and the answer's files are fetched at its end (amp.md 15). */
#include "cli/ask.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/blob_fetch.h"
#include "base/clock.h"
#include "base/loop.h"
#include "cli/save.h"

struct ask_files {
    struct blobs *blobs;
    struct blob_held held;
    struct save *save; /* NULL: not begun, or nothing to do */
    void (*on_done)(struct ask *ask, int status);
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

void ask_files_explain(const struct ask *ask, struct amp_error *err)
{
    const char *holder = ask->blobs != NULL ? blob_store_holder(blobs_store(ask->blobs->blobs)) : NULL;
    if (holder == NULL || err->code != AMP_INSTANCE_LOST || strstr(err->message, holder) == NULL)
        return;
    amp_error_set(err, AMP_DENIED, "", "nobody can read the files of %s: the bus does not let it subscribe to amp.blob.*.*, or its connection is gone", ask->cli.from);
    amp_error_hint(err, "the permissions of these credentials, docs/operations.md; a file up to %u KiB needs none", ASK_INLINE_MAX >> 10);
}

/* ---- in ---------------------------------------------------------------------------------------------- */

int ask_files_prepare(struct ask *ask)
{
    return save_prepare(&ask->cli, ask->output);
}

static void on_wrote(void *ctx, const char *path, long long bytes)
{
    struct ask *ask = ctx;
    answer_notice(&ask->answer, "wrote %s (%lld bytes)", path, bytes);
}

static void on_saved(void *ctx, int status)
{
    struct ask *ask = ctx;
    ask->blobs->on_done(ask, status);
}

bool ask_files_receive(struct ask *ask, void (*on_done)(struct ask *ask, int status))
{
    size_t elsewhere;
    const Amp__Task *task = amp_fold_task(ask->answer.fold);
    if (ask->output == NULL || (save_count(task, &elsewhere) == 0 && ask->answer.missed.code == AMP_OK))
        return false;
    struct ask_files *files = files_of(ask);
    files->on_done = on_done;
    files->save = save_new(&(struct save_options){.cli = &ask->cli, .blobs = files->blobs, .directory = ask->output, .on_wrote = on_wrote, .on_done = on_saved, .ctx = ask});
    save_add(files->save, task);
    if (ask->answer.missed.code != AMP_OK)
        save_miss(files->save, &ask->answer.missed);
    save_start(files->save);
    return true;
}

void ask_files_name(struct ask *ask, bool is_on)
{
    if (ask->blobs != NULL)
        save_name(ask->blobs->save, is_on);
}

void ask_files_tell(struct ask *ask)
{
    size_t elsewhere;
    if (ask->output != NULL || save_count(amp_fold_task(ask->answer.fold), &elsewhere) == 0 || elsewhere == 0)
        return;
    const char *were = elsewhere == 1 ? "file of the answer was" : "files of the answer were", *them = elsewhere == 1 ? "it" : "them";
    if (ask->is_durable)
        answer_notice(&ask->answer, "%zu %s not fetched: amesh task show %s --output DIR writes %s", elsewhere, were, ask->task_id, them);
    else
        answer_notice(&ask->answer, "%zu %s not fetched: --output DIR writes %s", elsewhere, were, them);
}

void ask_files_end(struct ask *ask)
{
    struct ask_files *files = ask->blobs;
    if (files == NULL)
        return;
    save_free(files->save);
    blob_held_release(&files->held, files->blobs);
    blobs_free(files->blobs);
    free(files);
    ask->blobs = NULL;
}

/* An answer with files (amp.md 15.6.6): the question stays open until they are here, and whoever answers is told at once that it is taken. Their holder may be gone for a while, as when an
 * environment is restarted: it is asked again. */
#include "task_private.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/blob_fetch.h"
#include "base/form.h"
#include "base/loop.h"

#define AGAIN_MS 1000u
#define AGAIN_MAX_MS 600000 /* as long as a task on lease goes on without an environment */

static void start(struct question_files *files);

static void on_again(void *ctx)
{
    start(ctx);
}

static bool may_come_back(const struct question_files *files, const struct amp_error *err)
{
    bool is_passing = err->code == AMP_INSTANCE_LOST || err->code == AMP_OVERLOADED || err->code == AMP_NO_BUS;
    return is_passing && loop_now_ms(files->question->task->sidecar->loop) - files->since_ms < AGAIN_MAX_MS;
}

static void on_fetched(void *ctx, const struct amp_error *err)
{
    struct question_files *files = ctx;
    struct task *task = files->question->task;
    const Amp__Message *message = files->message;
    struct amp_error why;
    files->fetch = NULL;
    if (err->code != AMP_OK && may_come_back(files, err)) {
        loop_timer_set(files->again, AGAIN_MS);
    } else if (err->code == AMP_OK && task_files_show(task, &message) == AMP_OK) {
        question_take(files->question, message, files->by, files->value);
    } else {
        enum amp_code code = err->code == AMP_OK ? AMP_TOO_LARGE : err->code;
        (void)amp_error_set(&why, code, "", "a file of an answer: %s", err->code == AMP_OK ? amp_code_info(code)->text : err->message);
        amp_error_hint(&why, "%s", err->hint);
        (void)task_fail(task, &why, NULL);
    }
}

static void start(struct question_files *files)
{
    struct task *task = files->question->task;
    struct amp_blob_ref *refs = NULL;
    size_t n = 0;
    blob_refs_add(files->message->parts, files->message->n_parts, &refs, &n);
    files->fetch = blob_fetch_start(task->sidecar->blobs, refs, n, task_files_held(task), on_fetched, files);
    free(refs);
}

static const char *name_of(const Amp__Message *message)
{
    return message->message_id ? message->message_id : "";
}

enum amp_code question_files_fetch(struct question *question, const Amp__Answer *answer, struct amp_error *reterr)
{
    struct task *task = question->task;
    if (question->files && strcmp(name_of(question->files->message), name_of(answer->message)) == 0)
        return AMP_OK;
    if (question->files)
        return amp_error_set(reterr, AMP_CONFLICT, "answer", "question %s is answered: the files of that answer are being fetched", question->id);
    if (!task->sidecar->blobs)
        return amp_error_set(reterr, AMP_UNSUPPORTED, "answer.message", "this instance takes no files");
    const Amp__Message *message = task_message_copy(task, answer->message);
    const char *by = answer->by ? amp_arena_strdup(&task->arena, amp_bytes_of(answer->by)) : NULL;
    if (!message || (answer->by && !by))
        return amp_error_set(reterr, AMP_TOO_LARGE, "answer.message", "the answers to this task are too large");
    struct question_files *files = xcalloc(1, sizeof *files);
    *files = (struct question_files){.question = question, .message = message, .by = by, .since_ms = loop_now_ms(task->sidecar->loop)};
    files->again = loop_timer_new(task->sidecar->loop, on_again, files);
    (void)form_read(question->form, message, &files->value, NULL); /* it was read already */
    question->files = files;
    start(files);
    return AMP_OK;
}

void question_files_drop(struct question *question)
{
    struct question_files *files = question->files;
    if (!files)
        return;
    question->files = NULL;
    blob_fetch_cancel(files->fetch);
    loop_timer_free(files->again);
    cJSON_Delete(files->value);
    free(files);
}

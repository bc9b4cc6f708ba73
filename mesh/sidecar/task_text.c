/* The text that an agent streams. Each piece is an event, at once, as long as the caller keeps up. What comes while the window is closed could not leave anyway: it is put together, and
 * has a number only when it can, or when something else is said, so that a slow reader costs fewer events instead of more memory. amp.md 6.2.5 */
#include "task_private.h"

#include "base/counters.h"

static enum amp_code emit(struct task *task, struct amp_bytes text)
{
    struct amp_event_sink sink = task_stream_sink(task);
    return amp_event_text(&task->source, text, false, &sink);
}

/* Emptied first: what fails here ends the task, which says that by an event, too. */
static enum amp_code settle(struct task *task, struct amp_error *reterr)
{
    struct amp_buf text = task->stream.waiting;
    if (text.len == 0)
        return AMP_OK;
    amp_buf_init(&task->stream.waiting, AMP_TEXT_EVENT_MAX);
    enum amp_code code = task_said(task, emit(task, amp_buf_bytes(&text)), reterr);
    amp_buf_done(&text);
    return code;
}

void task_text_settle(struct task *task)
{
    (void)settle(task, NULL);
}

/* Nothing could leave now, or what was said before could not. */
static bool is_pressed(const struct task *task)
{
    return task->is_blocked || task_stream_is_waiting(task);
}

static enum amp_code put(struct task *task, struct amp_bytes piece, size_t most, struct amp_error *reterr)
{
    struct amp_buf *waiting = &task->stream.waiting;
    if (waiting->len + piece.len > most || !is_pressed(task)) {
        enum amp_code code = settle(task, reterr);
        if (code != AMP_OK)
            return code;
    }
    if (!is_pressed(task))
        return task_said(task, emit(task, piece), reterr);
    counter_add(COUNTER_text_coalesced, waiting->len > 0);
    task_mark_dirty(task); /* it may have become free */
    return task_said(task, amp_buf_append(waiting, piece.data, piece.len), reterr);
}

enum amp_code task_text(struct task *task, struct amp_bytes text, struct amp_error *reterr)
{
    enum amp_code kept;
    if (task->files && !task->stream.is_ended && !task->is_canceled && task_files_keep_text(task, text, &kept, reterr))
        return kept;
    size_t most = task_stream_text_max(task);
    while (text.len > 0) {
        enum amp_code code = task_say_check(task, reterr);
        if (code != AMP_OK)
            return code;
        struct amp_bytes head = {.data = text.data, .len = amp_utf8_cut(text, most)};
        code = put(task, head, most, reterr);
        if (code != AMP_OK)
            return code;
        text.data += head.len;
        text.len -= head.len;
    }
    return AMP_OK;
}

/* Events of a peer, one a line, folded into a task with little room. What was refused changed nothing that shows; the
 * task can always be written, and read again; and a fold that is used again comes to the same. */
#include <amp/amp.h>

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ROOM 8192

static void write_task(struct amp_fold *fold, struct amp_buf *out)
{
    struct amp_error err;
    amp_buf_reset(out);
    enum amp_code code = amp_encode(&amp_fold_task(fold)->base, AMP_JSON, out, &err);
    assert(code == AMP_OK);
}

/* *ret: the task in the end. */
static void fold_all(struct amp_fold *fold, const uint8_t *data, size_t size, struct amp_buf *before, struct amp_buf *ret)
{
    struct amp_error err;
    const uint8_t *at = data, *end = data + size;
    while (at < end) {
        const uint8_t *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        Amp__TaskState state = amp_fold_state(fold);
        write_task(fold, before);
        enum amp_code code = amp_fold_apply(fold, (struct amp_bytes){at, (size_t)(stop - at)}, &err);
        write_task(fold, ret);
        if (code == AMP_OK)
            assert(state == amp_fold_state(fold) || amp_task_may_move(state, amp_fold_state(fold)));
        else if (code != AMP_NO_MEMORY)
            assert(before->len == ret->len && memcmp(before->data, ret->data, ret->len) == 0);
        at = stop < end ? stop + 1 : end;
    }
    write_task(fold, ret);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct amp_error err;
    struct amp_buf before, after, again;
    struct amp_arena arena;
    ProtobufCMessage *task;
    struct amp_fold *fold = amp_fold_new("t-1", "c-1", ROOM);
    if (!fold)
        return 0;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    amp_buf_init(&before, AMP_JSON_BYTES_MAX);
    amp_buf_init(&after, AMP_JSON_BYTES_MAX);
    amp_buf_init(&again, AMP_JSON_BYTES_MAX);
    fold_all(fold, data, size, &before, &after);
    enum amp_code code = amp_decode(&amp__task__descriptor, amp_buf_bytes(&after), &arena, &task, &err);
    assert(code == AMP_OK);
    for (int i = 0; i < 2; i++) { /* the first time takes its room */
        code = amp_fold_reset(fold, "t-1", "c-1");
        assert(code == AMP_OK);
        fold_all(fold, data, size, &before, &again);
        assert(after.len == again.len && memcmp(after.data, again.data, after.len) == 0);
    }
    amp_arena_done(&arena);
    amp_buf_done(&before);
    amp_buf_done(&after);
    amp_buf_done(&again);
    amp_fold_free(fold);
    return 0;
}

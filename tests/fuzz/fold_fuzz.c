/* Events of a peer, one a line, folded into a task with little room. What was refused changed nothing that shows; the
 * task can always be written, and read again. */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct amp_error err;
    struct amp_buf before, after;
    struct amp_fold *fold = amp_fold_new("t-1", "c-1", ROOM);
    if (!fold)
        return 0;
    amp_buf_init(&before, AMP_JSON_BYTES_MAX);
    amp_buf_init(&after, AMP_JSON_BYTES_MAX);
    const uint8_t *at = data, *end = data + size;
    while (at < end) {
        const uint8_t *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        Amp__TaskState state = amp_fold_state(fold);
        write_task(fold, &before);
        enum amp_code code = amp_fold_apply(fold, (struct amp_bytes){at, (size_t)(stop - at)}, &err);
        write_task(fold, &after);
        if (code == AMP_OK)
            assert(state == amp_fold_state(fold) || amp_task_may_move(state, amp_fold_state(fold)));
        else if (code != AMP_NO_MEMORY)
            assert(before.len == after.len && memcmp(before.data, after.data, after.len) == 0);
        at = stop < end ? stop + 1 : end;
    }
    struct amp_arena arena;
    ProtobufCMessage *task;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    write_task(fold, &after);
    enum amp_code code = amp_decode(&amp__task__descriptor, amp_buf_bytes(&after), &arena, &task, &err);
    assert(code == AMP_OK);
    amp_arena_done(&arena);
    amp_buf_done(&before);
    amp_buf_done(&after);
    amp_fold_free(fold);
    return 0;
}

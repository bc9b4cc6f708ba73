/* The numbers of one task's frames (amp.md 6.1, 6.4, 6.5). A transport that loses nothing needs no memory of what is
 * missing: a gap ends the call, so two numbers are all there is to keep. */
#include <amp/amp.h>

#include <inttypes.h>

void amp_stream_init(struct amp_stream *stream)
{
    *stream = (struct amp_stream){.next = 1};
}

static enum amp_code lost(uint32_t first, uint32_t last, struct amp_error *reterr)
{
    if (first == last)
        return amp_error_set(reterr, AMP_FRAMES_LOST, "frame.seq", "event %" PRIu32 " is missing", first);
    return amp_error_set(reterr, AMP_FRAMES_LOST, "frame.seq", "events %" PRIu32 " to %" PRIu32 " are missing", first,
                         last);
}

enum amp_code amp_stream_take(struct amp_stream *stream, const Amp__Frame *frame, uint32_t *ret_skip,
                              struct amp_error *reterr)
{
    *ret_skip = 0;
    if (stream->is_ended)
        return amp_error_set(reterr, AMP_TASK_ENDED, "frame", "a frame came after the end of the task's events");
    uint64_t after = (uint64_t)frame->seq + frame->n_events; /* number of the event after this frame's last */
    if (frame->seq == 0 || after > UINT32_MAX)
        return amp_error_set(reterr, AMP_MALFORMED, "frame.seq", "%" PRIu32 " cannot be the number of %zu events",
                             frame->seq, frame->n_events);
    if (frame->seq > stream->next)
        return lost(stream->next, frame->seq - 1, reterr);
    uint32_t next = after > stream->next ? (uint32_t)after : stream->next;
    if (frame->end) {
        if (frame->end->count >= next)
            return lost(next, frame->end->count, reterr);
        if (frame->end->count != next - 1)
            return amp_error_set(reterr, AMP_FRAMES_LOST, "frame.end.count",
                                 "the end says %" PRIu32 " events, but %" PRIu32 " came", frame->end->count, next - 1);
    }
    uint32_t seen = stream->next - frame->seq;
    *ret_skip = seen < frame->n_events ? seen : (uint32_t)frame->n_events;
    stream->next = next;
    stream->is_ended = frame->end != NULL;
    return AMP_OK;
}

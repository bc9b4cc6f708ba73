/* The events of one task on their way out. Projections append them to one buffer; at the end of the turn they leave as one frame per lane: to the caller's inbox in the
 * caller's encoding, and as JSON on amp.evt. A lane remembers how far it got, so that what the bus would not take goes out later, in order and once. amp.md 6 */
#include "task_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bus.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/hook.h"
#include "base/log.h"
#include "base/seeded.h"

#define FRAME_HEAD_MAX 1024u /* names and numbers of a frame in JSON */
#define REFS_REUSED_MAX 1024u
#define EVENT_HEAD_MAX 96u   /* what an event needs beside its body */
#define STREAM_HARD_MAX (SIDECAR_UNSENT_MAX + SIDECAR_RESUME_BYTES + (AMP_WIRE_BYTES_MAX))

static size_t payload_max(const struct task *task)
{
    size_t max = bus_info(task->sidecar->bus)->payload_max;
    return max == 0 || max > AMP_WIRE_BYTES_MAX ? AMP_WIRE_BYTES_MAX : max;
}

/* ---- in ------------------------------------------------------------------------------------------------- */

static enum amp_code emit(void *ctx, struct amp_bytes body)
{
    struct task *task = ctx;
    struct task_stream *stream = &task->stream;
    if (body.len + EVENT_HEAD_MAX + FRAME_HEAD_MAX > payload_max(task)) {
        stream->refused_len = body.len;
        return AMP_TOO_LARGE;
    }
    size_t at = stream->bodies.len;
    enum amp_code code = amp_buf_append(&stream->bodies, body.data, body.len);
    if (code != AMP_OK)
        return AMP_OVERLOADED;
    if (stream->n_refs == stream->cap_refs) {
        stream->cap_refs = stream->cap_refs ? stream->cap_refs * 2 : 8;
        stream->refs = xrealloc(stream->refs, stream->cap_refs * sizeof *stream->refs);
    }
    stream->refs[stream->n_refs++] = (struct task_event_ref){.at = at, .len = body.len, .time_unix_ms = task->source.now_unix_ms};
    stream->count++;
    stream->is_held = false;
    counter_add(COUNTER_events_out, 1);
    task_mark_dirty(task);
    return AMP_OK;
}

struct amp_event_sink task_stream_sink(struct task *task)
{
    task_text_settle(task);
    task->source.now_unix_ms = clock_unix_ms();
    return (struct amp_event_sink){.emit = emit, .ctx = task};
}

void task_stream_init(struct task *task)
{
    amp_buf_init(&task->stream.bodies, STREAM_HARD_MAX);
    amp_buf_init(&task->stream.waiting, AMP_TEXT_EVENT_MAX);
}

size_t task_stream_text_max(const struct task *task)
{
    size_t room = (payload_max(task) - (size_t)2 * FRAME_HEAD_MAX) / 6; /* a byte of text becomes at most \\u0000 */
    return room < AMP_TEXT_EVENT_MAX ? room : AMP_TEXT_EVENT_MAX;
}

void task_stream_start(struct task *task, const struct task_origin *origin)
{
    struct task_stream *stream = &task->stream;
    struct task_lane *caller = &stream->lanes[LANE_CALLER], *evt = &stream->lanes[LANE_EVT];
    *caller = (struct task_lane){.encoding = origin->encoding, .is_open = true, .window = task->request->window_bytes};
    (void)snprintf(caller->subject, sizeof(caller->subject), "%s", origin->reply);
    *evt = (struct task_lane){.encoding = AMP_JSON, .is_open = !task->request->journalled, .wants_request = true};
    if (evt->is_open && amp_subject_build(AMP_SUBJECT_EVT, task->request->context_id, task->request->task_id, NULL, evt->subject, NULL) != AMP_OK)
        evt->is_open = false; /* cannot be: the envelope was checked */
}

static void buf_empty(struct amp_buf *buf)
{
    size_t max = buf->max;
    amp_buf_reset(buf);
    if (buf->cap <= SIDECAR_POOL_BYTES)
        return;
    amp_buf_done(buf);
    amp_buf_init(buf, max);
}

void task_stream_reset(struct task *task)
{
    struct task_stream *stream = &task->stream;
    buf_empty(&stream->bodies);
    buf_empty(&stream->waiting);
    if (stream->cap_refs > REFS_REUSED_MAX) {
        free(stream->refs);
        stream->refs = NULL;
        stream->cap_refs = 0;
    }
    stream->n_refs = 0;
    stream->base = stream->count = 0;
    stream->is_held = stream->is_ended = false;
    stream->error = NULL;
    stream->begin = NULL;
    memset(stream->lanes, 0, sizeof(stream->lanes));
}

bool task_stream_drop(struct task *task, const struct amp_error *err)
{
    struct task_stream *stream = &task->stream;
    if (!stream->is_held || stream->is_ended || stream->count > 1) /* the one that says that it is worked on */
        return false;
    inbound_reply(task->sidecar, stream->lanes[LANE_CALLER].subject, stream->lanes[LANE_CALLER].encoding, err);
    for (size_t i = 0; i < LANES; i++)
        stream->lanes[i].is_open = false;
    amp_buf_reset(&stream->bodies);
    stream->n_refs = 0;
    stream->base = stream->count;
    stream->is_held = false;
    stream->is_ended = true;
    task_mark_dirty(task);
    return true;
}

void task_stream_end(struct task *task, const Amp__Error *wire)
{
    struct task_stream *stream = &task->stream;
    task_text_settle(task);
    stream->is_ended = true;
    stream->is_held = false;
    if (wire && wire->code != AMP_OK) {
        size_t size = amp__error__get_packed_size(wire);
        uint8_t *packed = xcalloc(1, size + 1);
        (void)amp__error__pack(wire, packed);
        stream->error = amp__error__unpack(&task->arena.allocator, size, packed);
        free(packed);
    }
    task_mark_dirty(task);
    hook_at(HOOK_sidecar_ended);
}

/* ---- out ------------------------------------------------------------------------------------------------- */

struct frame { /* one frame with the storage of its parts */
    Amp__Frame wire;
    Amp__End end;
    Amp__Event events[SIDECAR_FRAME_EVENTS_MAX], *pointers[SIDECAR_FRAME_EVENTS_MAX];
    Amp__Json bodies[SIDECAR_FRAME_EVENTS_MAX];
    Amp__Timestamp times[SIDECAR_FRAME_EVENTS_MAX];
};

/* As long as nothing was said that the caller may have shown. An agent that could not take it has not begun. */
static bool may_retry(const struct task *task, const struct task_lane *lane)
{
    const Amp__Error *error = task->stream.error;
    bool is_load = error && error->code == AMP_BUSY;
    enum sidecar_retry retry = task->sidecar->options.retry;
    bool is_safe = retry == SIDECAR_RETRY_SAFE || (retry == SIDECAR_RETRY_UNSAID && task->request->retry_safe);
    return task->is_superseded || (task->request->may_retry && lane->sent <= 1 && (is_safe || is_load));
}

static void frame_init(struct frame *frame, const struct task *task, const struct task_lane *lane)
{
    amp__frame__init(&frame->wire);
    frame->wire.task_id = task->request->task_id;
    frame->wire.context_id = task->request->context_id;
    frame->wire.agent = task->sidecar->agent;
    frame->wire.instance = task->sidecar->instance;
    frame->wire.has_attempt = true;
    frame->wire.attempt = task_attempt(task);
    frame->wire.has_epoch = task->request->has_epoch;
    frame->wire.epoch = task->request->epoch;
    frame->wire.seq = lane->sent + 1;
    frame->wire.events = frame->pointers;
    frame->wire.has_may_retry = frame->wire.may_retry = may_retry(task, lane);
    if (lane->wants_request) {
        frame->wire.cause = task->request->cause;
        frame->wire.from = (char *)task->from;
        frame->wire.parent = task->request->parent;
        frame->wire.root = task->request->root;
        frame->wire.request = task->request->message;
    }
}

static void frame_add(struct frame *frame, const struct task_stream *stream, const struct task_event_ref *ref)
{
    size_t i = frame->wire.n_events++;
    amp__json__init(&frame->bodies[i]);
    amp__timestamp__init(&frame->times[i]);
    amp__event__init(&frame->events[i]);
    frame->bodies[i].text.data = stream->bodies.data + ref->at;
    frame->bodies[i].text.len = ref->len;
    frame->times[i].unix_ms = ref->time_unix_ms;
    frame->events[i].time = &frame->times[i];
    frame->events[i].body = &frame->bodies[i];
    frame->pointers[i] = &frame->events[i];
}

static size_t error_size(const Amp__Error *error)
{
    return error ? 6 * amp__error__get_packed_size(error) : 0; /* a byte becomes at most \u0000 */
}

/* The next frame of a lane: as many events as fit in `room` bytes. */
static void frame_fill(struct frame *frame, const struct task *task, const struct task_lane *lane, size_t room)
{
    const struct task_stream *stream = &task->stream;
    frame_init(frame, task, lane);
    size_t used = FRAME_HEAD_MAX;
    for (uint32_t i = lane->sent - stream->base; i < stream->n_refs && frame->wire.n_events < SIDECAR_FRAME_EVENTS_MAX; i++) {
        used += stream->refs[i].len + EVENT_HEAD_MAX;
        if (used > room && frame->wire.n_events > 0)
            return;
        frame_add(frame, stream, &stream->refs[i]);
    }
    bool is_last = lane->sent + frame->wire.n_events == stream->count;
    bool is_alone = frame->wire.n_events == 0;
    if (stream->is_ended && is_last && (is_alone || used + error_size(stream->error) <= room)) {
        amp__end__init(&frame->end);
        frame->end.count = stream->count;
        frame->end.error = stream->error;
        frame->wire.end = &frame->end;
    }
}

static enum amp_code frame_send(struct task *task, const struct task_lane *lane, struct frame *frame)
{
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.body_case = AMP__ENVELOPE__BODY_FRAME;
    envelope.frame = &frame->wire;
    return sidecar_publish_own(task->sidecar, lane->subject, lane->encoding, &envelope, amp_buf_bytes(&task->stream.bodies));
}

/* A frame too large with only the request, or only the death's lines, to blame: those give way, and say so. */
static enum amp_code frame_send_less(struct task *task, struct task_lane *lane, struct frame *frame)
{
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Message asked = AMP__MESSAGE__INIT;
    part.text = (char *)"(what was asked is too large to be recorded here)";
    if (frame->wire.request) {
        asked.message_id = frame->wire.request->message_id;
        asked.has_role = true;
        asked.role = AMP__ROLE__ROLE_USER;
        asked.n_parts = 1;
        asked.parts = parts;
        frame->wire.request = &asked;
    }
    if (frame->wire.end && frame->wire.end->error && frame->wire.end->error->death)
        frame->wire.end->error->death->n_stderr = 0;
    return frame_send(task, lane, frame);
}

static bool lane_is_done(const struct task_stream *stream, const struct task_lane *lane)
{
    return !lane->is_open || (lane->sent == stream->count && (!stream->is_ended || lane->is_end_sent));
}

static bool lane_is_waiting(const struct task_lane *lane)
{
    return lane->is_open && lane->window > 0 && lane->sent_bytes - lane->received_bytes >= lane->window;
}

/* What a frame of the lane may hold, with the request in it. */
static size_t lane_room(const struct task *task, const struct task_lane *lane)
{
    size_t max = payload_max(task), request = 0;
    if (lane->window > 0 && lane->window < max)
        max = lane->window;
    if (lane->wants_request)
        request = 2 * amp__message__get_packed_size(task->request->message);
    return request + (size_t)2 * FRAME_HEAD_MAX < max ? max - request : FRAME_HEAD_MAX;
}

static enum amp_code lane_flush(struct task *task, struct task_lane *lane)
{
    const struct task_stream *stream = &task->stream;
    struct frame frame;
    while (!lane_is_done(stream, lane)) {
        if (lane_is_waiting(lane))
            return AMP_BUSY;
        frame_fill(&frame, task, lane, lane_room(task, lane));
        enum amp_code code = frame_send(task, lane, &frame);
        if (code == AMP_TOO_LARGE)
            code = frame_send_less(task, lane, &frame);
        if (code == AMP_NO_BUS || code == AMP_OVERLOADED)
            return code;
        if (code != AMP_OK) { /* e.g. the server came back with a smaller limit: the receiver sees the gap */
            counter_add(COUNTER_events_refused, frame.wire.n_events);
            log_event(LOG_ERROR, "task.frame_lost", "task", task_id(task), "reason", amp_code_info(code)->text, NULL);
        }
        if (code == AMP_OK && frame.wire.n_events > 0)
            lane->sent_bytes += task->sidecar->out.len; /* what has no events may be lost unnoticed, and is not waited for (amp.md 6.2.3) */
        lane->sent += (uint32_t)frame.wire.n_events;
        lane->wants_request = false;
        lane->is_end_sent = frame.wire.end != NULL;
    }
    return AMP_OK;
}

/* ---- how the answer begins --------------------------------------------------------------------------------- */

static bool is_full(const char ret[TASK_ANSWER_SIZE])
{
    return strlen(ret) + 4 >= TASK_ANSWER_SIZE; /* less than the longest character is left */
}

static void add_text(char ret[TASK_ANSWER_SIZE], Amp__Part *const *parts, size_t n_parts)
{
    for (size_t i = 0; i < n_parts; i++) {
        size_t at = strlen(ret);
        const char *text = parts[i]->text ? parts[i]->text : "";
        (void)snprintf(ret + at, TASK_ANSWER_SIZE - at, "%.*s", (int)amp_utf8_cut(amp_bytes_of(text), TASK_ANSWER_SIZE - 1 - at), text);
    }
}

/* An artifact's text, or for want of one what was last said of the state. */
static void add_event(struct task_begin *begin, const Amp__StreamResponse *response)
{
    if (response->payload_case == AMP__STREAM_RESPONSE__PAYLOAD_ARTIFACT_UPDATE && response->artifact_update->artifact) {
        add_text(begin->answer, response->artifact_update->artifact->parts, response->artifact_update->artifact->n_parts);
    } else if (response->payload_case == AMP__STREAM_RESPONSE__PAYLOAD_STATUS_UPDATE && response->status_update->status && response->status_update->status->message) {
        begin->said[0] = '\0';
        add_text(begin->said, response->status_update->status->message->parts, response->status_update->status->message->n_parts);
    }
}

/* Most events have none of it, and need not be taken apart. */
static bool may_tell(struct amp_bytes body)
{
    static const char artifact[] = "\"artifactUpdate\"", message[] = "\"message\"";
    return memmem(body.data, body.len, artifact, sizeof artifact - 1) || memmem(body.data, body.len, message, sizeof message - 1);
}

/* Of the first n events that are here. */
static void add_events(const struct task_stream *stream, size_t n, struct task_begin *begin)
{
    struct amp_arena arena;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    for (size_t i = 0; i < n && !is_full(begin->answer); i++) {
        struct amp_bytes body = {.data = stream->bodies.data + stream->refs[i].at, .len = stream->refs[i].len};
        ProtobufCMessage *message = NULL;
        amp_arena_reset(&arena);
        if (may_tell(body) && amp_decode_json(&amp__stream_response__descriptor, body, &arena, &message, NULL) == AMP_OK)
            add_event(begin, (const Amp__StreamResponse *)message);
    }
    amp_arena_done(&arena);
}

void task_stream_answer(const struct task *task, char ret[TASK_ANSWER_SIZE])
{
    struct task_begin begin = {.answer = ""};
    if (task->stream.begin)
        begin = *task->stream.begin;
    add_events(&task->stream, task->stream.n_refs, &begin);
    memcpy(ret, begin.answer[0] ? begin.answer : begin.said, TASK_ANSWER_SIZE);
}

/* The first n events are dropped. Only a lease may be lost, and have to be told of. */
static void note_begin(struct task *task, size_t n)
{
    struct task_stream *stream = &task->stream;
    if (!task_is_leased(task) || task->lease.is_over)
        return;
    if (!stream->begin && (stream->begin = amp_arena_alloc(&task->arena, sizeof *stream->begin)))
        *stream->begin = (struct task_begin){.answer = ""};
    if (stream->begin)
        add_events(stream, n, stream->begin);
}

static uint32_t sent_by_all(const struct task_stream *stream)
{
    uint32_t sent = stream->count;
    for (size_t i = 0; i < LANES; i++)
        if (stream->lanes[i].is_open && stream->lanes[i].sent < sent)
            sent = stream->lanes[i].sent;
    return sent;
}

/* Bytes of the events base+1 … seq. */
static size_t bytes_up_to(const struct task_stream *stream, uint32_t seq)
{
    size_t n = seq - stream->base;
    return n < stream->n_refs ? stream->refs[n].at : stream->bodies.len;
}

/* What every lane has sent is not needed any more, but for what the environment has yet to write down, or the caller to confirm. */
static void drop_sent(struct task *task)
{
    struct task_stream *stream = &task->stream;
    uint32_t sent = sent_by_all(stream), settled = sent;
    if (task_is_leased(task) && !task->lease.is_over && stream->bodies.len <= SIDECAR_KEPT_BYTES)
        settled = task->lease.committed;
    else if (task_resume_keeps(task, bytes_up_to(stream, sent)))
        settled = stream->lanes[LANE_CALLER].confirmed;
    if (settled < sent)
        sent = settled > stream->base ? settled : stream->base;
    size_t n = sent - stream->base;
    if (n == 0)
        return;
    size_t cut = bytes_up_to(stream, sent);
    note_begin(task, n);
    stream->base = sent;
    stream->n_refs -= n;
    stream->bodies.len -= cut;
    if (stream->n_refs == 0)
        return;
    memmove(stream->refs, stream->refs + n, stream->n_refs * sizeof *stream->refs);
    memmove(stream->bodies.data, stream->bodies.data + cut, stream->bodies.len);
    for (size_t i = 0; i < stream->n_refs; i++)
        stream->refs[i].at -= cut;
}

enum amp_code task_stream_flush(struct task *task)
{
    struct task_stream *stream = &task->stream;
    if (stream->is_held)
        return AMP_OK;
    if (!task_stream_is_waiting(task))
        task_text_settle(task);
    enum amp_code code = AMP_OK;
    for (size_t i = 0; i < LANES; i++) { /* one that must wait does not hold up the other */
        enum amp_code own = lane_flush(task, &stream->lanes[i]);
        if (own != AMP_OK && (code == AMP_OK || code == AMP_BUSY))
            code = own;
    }
    drop_sent(task);
    return code;
}

enum amp_code task_stream_ask(struct task *task, struct bus_inbox *echo)
{
    struct task_lane *lane = &task->stream.lanes[LANE_CALLER];
    struct sidecar *sidecar = task->sidecar;
    struct frame frame;
    if (!lane->is_open || lane->sent == 0) /* with a closed window, too: a frame without events takes nothing of it */
        return AMP_OK;
    frame_init(&frame, task, lane);
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.body_case = AMP__ENVELOPE__BODY_FRAME;
    envelope.frame = &frame.wire;
    enum amp_code code = sidecar_encode(sidecar, lane->encoding, &envelope);
    if (code == AMP_OK)
        code = bus_inbox_request(echo, lane->subject, amp_buf_bytes(&sidecar->out));
    return code;
}

bool task_stream_is_waiting(const struct task *task)
{
    return lane_is_waiting(&task->stream.lanes[LANE_CALLER]);
}

bool task_stream_received(struct task *task, const Amp__Ping *ping)
{
    struct task_lane *lane = &task->stream.lanes[LANE_CALLER];
    bool was_waiting = lane_is_waiting(lane);
    uint64_t bytes = ping->received_bytes;
    if (ping->attached != lane->attached && !SEEDED_BUG("counted-on")) {
        lane->attached = ping->attached; /* it has sent an Attach that was lost, and counts anew: it would never confirm what we wait for (amp.md 6.8.6) */
        lane->sent_bytes = lane->received_bytes = bytes;
    }
    if (bytes > lane->sent_bytes && !SEEDED_BUG("twice-unbelieved"))
        bytes = lane->sent_bytes; /* frames that came twice, or from before it asked for them again */
    if (bytes > lane->received_bytes && bytes <= lane->sent_bytes) /* else it is old */
        lane->received_bytes = bytes;
    return was_waiting && !lane_is_waiting(lane);
}

void task_stream_give_up(struct task *task)
{
    task->stream.lanes[LANE_CALLER].is_open = false;
}

void task_stream_remind(struct task *task)
{
    struct task_lane *lane = &task->stream.lanes[LANE_CALLER];
    struct frame frame;
    frame_init(&frame, task, lane);
    (void)frame_send(task, lane, &frame);
}

enum amp_code task_stream_reopen(struct task *task, const Amp__Attach *attach, const struct task_reader *reader, struct amp_error *reterr)
{
    struct task_stream *stream = &task->stream;
    struct task_lane *lane = &stream->lanes[LANE_CALLER];
    uint32_t from_seq = attach->from_seq;
    uint64_t unread = attach->unread_bytes < lane->window ? attach->unread_bytes : lane->window;
    if (from_seq == 0 || from_seq - 1 < stream->base)
        return amp_error_set(reterr, AMP_FRAMES_LOST, "control.attach.fromSeq", "the first %u events of task %s are not kept here any more, and event %u is asked for", stream->base, task_id(task),
                             from_seq);
    if (from_seq - 1 > stream->count)
        return amp_error_set(reterr, AMP_FRAMES_LOST, "control.attach.fromSeq", "task %s has %u events here so far, and those from %u on are asked for", task_id(task), stream->count, from_seq);
    *lane = (struct task_lane){.encoding = reader->encoding, .is_open = true, .attached = attach->number, .window = lane->window, .sent = from_seq - 1, .confirmed = from_seq - 1, .sent_bytes = unread};
    (void)snprintf(lane->subject, sizeof(lane->subject), "%s", reader->inbox);
    stream->is_held = false;
    if (lane_is_done(stream, lane) || lane_is_waiting(lane))
        task_stream_remind(task); /* a sign of life */
    return AMP_OK;
}

bool task_stream_is_sent(const struct task *task)
{
    return lane_is_done(&task->stream, &task->stream.lanes[LANE_CALLER]);
}

uint32_t task_sent(const struct task *task)
{
    return task->stream.lanes[LANE_CALLER].sent;
}

size_t task_stream_unsent(const struct task *task)
{
    const struct task_stream *stream = &task->stream;
    return stream->bodies.len - bytes_up_to(stream, sent_by_all(stream));
}

#include "base/blobs_private.h"

#include "base/alloc.h"
#include "base/blob_syncer.h"
#include "base/bus.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPIRY_LOOK_MS 60000u
#define ENVELOPE_ROOM 1024u /* of a message, for what stands around the bytes */

/* ---- serving ------------------------------------------------------------------------------------------------- */

static void answer(struct blobs *blobs, const struct bus_msg *msg, enum amp_encoding encoding, Amp__Blob *blob)
{
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.from = blobs->from;
    envelope.body_case = AMP__ENVELOPE__BODY_BLOB;
    envelope.blob = blob;
    amp_buf_reset(&blobs->out);
    enum amp_code code = amp_encode(&envelope.base, encoding, &blobs->out, NULL);
    if (code == AMP_OK)
        code = bus_publish(blobs->bus, msg->reply, NULL, amp_buf_bytes(&blobs->out));
    if (code != AMP_OK)
        counter_add(COUNTER_blob_reads_refused, 1); /* it is asked for again */
}

static void refuse(struct blobs *blobs, const struct bus_msg *msg, enum amp_encoding encoding, const struct amp_error *err)
{
    Amp__Error wire;
    Amp__Blob blob = AMP__BLOB__INIT;
    counter_add(COUNTER_blob_reads_refused, 1);
    amp_error_to_wire(err, &wire);
    blob.error = &wire;
    answer(blobs, msg, encoding, &blob);
}

/* As much as was asked for and fits into one message there: base64 makes four bytes of three. */
static size_t piece_max(const struct blobs *blobs, const Amp__BlobRead *read, enum amp_encoding encoding)
{
    size_t payload = bus_info(blobs->bus)->payload_max;
    size_t most = payload > (size_t)2 * ENVELOPE_ROOM ? payload - ENVELOPE_ROOM : ENVELOPE_ROOM;
    if (encoding == AMP_JSON)
        most = most / 4 * 3;
    if (most > AMP_BLOB_CHUNK_MAX)
        most = AMP_BLOB_CHUNK_MAX;
    return read->has_length && read->length < most ? read->length : most;
}

static enum amp_code serve(struct blobs *blobs, const struct bus_msg *msg, const Amp__Envelope *envelope, enum amp_encoding encoding, struct amp_error *reterr)
{
    struct amp_subject subject;
    struct blob known;
    const Amp__BlobRead *read = envelope->blob_read;
    enum amp_code code = amp_subject_parse(msg->subject, &subject, reterr);
    if (code != AMP_OK)
        return code;
    if (!envelope->from || strcmp(subject.b, envelope->from) != 0)
        return amp_error_set(reterr, AMP_DENIED, "from", "the envelope is from \"%s\", but its subject says \"%s\"", envelope->from ? envelope->from : "", subject.b);
    if (bus_waiting_bytes(blobs->bus) > BLOB_SERVE_BYTES_MAX) {
        reterr->retry_after_ms = BLOB_SERVE_RETRY_MS;
        return amp_error_set(reterr, AMP_OVERLOADED, "", "too much waits to be sent by %s", blob_store_holder(blobs->store));
    }
    if (!blob_store_is_offered(blobs->store, read->digest))
        return amp_error_set(reterr, AMP_NOT_FOUND, "blobRead.digest", "%s has no blob %s, or not any more", blob_store_holder(blobs->store), read->digest);
    uint64_t offset = read->has_offset ? read->offset : 0;
    ssize_t n = blob_store_read(blobs->store, read->digest, offset, blobs_piece(blobs), piece_max(blobs, read, encoding), loop_now_ms(blobs->loop), reterr);
    if (n < 0 || !blob_store_find(blobs->store, read->digest, &known))
        return n < 0 ? reterr->code : amp_error_set(reterr, AMP_NOT_FOUND, "blobRead.digest", "%s has no blob %s any more", blob_store_holder(blobs->store), read->digest);
    Amp__Blob blob = AMP__BLOB__INIT;
    blob.digest = read->digest;
    blob.has_offset = blob.has_size = blob.has_data = 1;
    blob.offset = offset;
    blob.size = known.size;
    blob.data = (ProtobufCBinaryData){(size_t)n, blobs->piece};
    counter_add(COUNTER_blob_bytes_out, (uint64_t)n);
    blobs->wanted_ms = loop_now_ms(blobs->loop);
    answer(blobs, msg, encoding, &blob);
    return AMP_OK;
}

static void on_read(void *ctx, const struct bus_msg *msg)
{
    struct blobs *blobs = ctx;
    struct amp_error err = {.code = AMP_OK};
    Amp__Envelope *envelope;
    enum amp_encoding encoding = AMP_JSON;
    if (!msg->reply || !amp_subject_is_inbox(msg->reply)) {
        counter_add(COUNTER_malformed_refused, 1);
        return;
    }
    amp_arena_reset(&blobs->arena);
    enum amp_code code = amp_envelope_decode(msg->data, 1u << AMP__ENVELOPE__BODY_BLOB_READ, &blobs->arena, &envelope, &encoding, &err);
    if (code != AMP_OK)
        counter_add(COUNTER_malformed_refused, 1);
    else
        code = serve(blobs, msg, envelope, encoding, &err);
    if (code != AMP_OK)
        refuse(blobs, msg, encoding, &err);
}

void blobs_serve(struct blobs *blobs)
{
    char subject[AMP_SUBJECT_SIZE];
    if (!blobs->sub && amp_subject_build(AMP_SUBJECT_BLOB, blob_store_holder(blobs->store), "*", NULL, subject, NULL) == AMP_OK)
        blobs->sub = bus_subscribe(blobs->bus, subject, NULL, on_read, blobs);
}

void blobs_offer(struct blobs *blobs, const struct blob *blob, struct amp_blob_ref *ret)
{
    *ret = (struct amp_blob_ref){.size = blob->size};
    memcpy(ret->digest, blob->digest, sizeof ret->digest);
    (void)snprintf(ret->holder, sizeof ret->holder, "%s", blob_store_holder(blobs->store));
    blob_store_offer(blobs->store, blob->digest);
    blobs->wanted_ms = loop_now_ms(blobs->loop);
    blobs_serve(blobs);
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static void on_expiry(void *ctx)
{
    struct blobs *blobs = ctx;
    blob_store_expire(blobs->store, loop_now_ms(blobs->loop));
    if (blob_store_bytes(blobs->store) > 0)
        loop_timer_set(blobs->expiry, EXPIRY_LOOK_MS);
}

void blobs_watch_expiry(struct blobs *blobs)
{
    if (!loop_timer_is_set(blobs->expiry))
        loop_timer_set(blobs->expiry, EXPIRY_LOOK_MS);
}

uint8_t *blobs_piece(struct blobs *blobs)
{
    if (!blobs->piece)
        blobs->piece = xcalloc(1, BLOB_PIECE);
    return blobs->piece;
}

struct blobs *blobs_new(struct loop *loop, struct bus *bus, const struct blobs_options *options)
{
    struct blobs *blobs = xcalloc(1, sizeof *blobs);
    blobs->loop = loop;
    blobs->bus = bus;
    (void)snprintf(blobs->from, sizeof blobs->from, "%s", options->from);
    blobs->store = options->kept ? blob_store_open(options->kept, options->holder, 0) : blob_store_new(options->home, options->holder, 0);
    blobs->syncer = options->kept ? blob_syncer_new(loop) : NULL;
    blobs->expiry = loop_timer_new(loop, on_expiry, blobs);
    LIST_INIT(&blobs->jobs);
    amp_buf_init(&blobs->out, AMP_WIRE_BYTES_MAX);
    amp_arena_init(&blobs->arena, AMP_ARENA_BYTES_MAX);
    return blobs;
}

void blobs_free(struct blobs *blobs)
{
    if (!blobs)
        return;
    while (!LIST_EMPTY(&blobs->jobs))
        blob_job_cancel(LIST_FIRST(&blobs->jobs));
    bus_unsubscribe(blobs->sub, false);
    loop_timer_free(blobs->expiry);
    blob_syncer_free(blobs->syncer);
    blob_store_free(blobs->store);
    amp_buf_done(&blobs->out);
    amp_arena_done(&blobs->arena);
    free(blobs->piece);
    free(blobs);
}

uint32_t blobs_wanted_ms(const struct blobs *blobs)
{
    int64_t left_ms = blobs->wanted_ms + BLOB_LINGER_MS - loop_now_ms(blobs->loop);
    return blobs->sub && left_ms > 0 ? (uint32_t)left_ms : 0;
}

struct blob_store *blobs_store(struct blobs *blobs)
{
    return blobs->store;
}

void blobs_release(struct blobs *blobs, const char *digest)
{
    blob_store_release(blobs->store, digest, loop_now_ms(blobs->loop));
}

bool blobs_hold(struct blobs *blobs, const char *digest)
{
    return blob_store_hold(blobs->store, digest, loop_now_ms(blobs->loop));
}

enum amp_code blobs_add(struct blobs *blobs, struct amp_bytes data, struct blob *ret, struct amp_error *reterr)
{
    struct blob_intake *intake;
    enum amp_code code = blob_intake_begin(blobs->store, data.len, &intake, reterr);
    if (code != AMP_OK)
        return code;
    blobs_watch_expiry(blobs);
    code = blob_intake_write(intake, data, reterr);
    if (code == AMP_OK)
        return blob_intake_end(intake, NULL, ret, reterr);
    blob_intake_abort(intake);
    return code;
}

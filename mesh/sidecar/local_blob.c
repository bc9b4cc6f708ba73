/* evhttp holds a request's body in memory until it is whole, so an upload is read here: one request per connection, with a length, in pieces. */
#include "sidecar/local_blob.h"

#include "base/alloc.h"
#include "base/blobs.h"
#include "base/counters.h"
#include "base/http.h"
#include "base/loop.h"
#include "sidecar/local_http_private.h"
#include "sidecar/sidecar.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define UPLOAD "PUT /v1/blob"
#define UPLOADS_MAX 16u
#define HEAD_MAX (16u << 10)
#define IDLE_MS 60000u
#define LINGER_MS 2000u /* for the client to read the answer */

struct upload {
    LIST_ENTRY(upload) entry;
    struct local_blobs *blobs;
    int fd;
    struct loop_io *io;
    struct loop_timer *timer;
    char head[HEAD_MAX + 1];
    size_t head_len;
    uint64_t left;              /* bytes of the body that have not come */
    struct blob_intake *intake; /* NULL: the head is not complete, or all is over */
    bool is_answered;
};

struct local_blobs {
    struct sidecar *sidecar;
    LIST_HEAD(, upload) uploads;
    unsigned n_uploads;
};

static void upload_free(struct upload *upload)
{
    LIST_REMOVE(upload, entry);
    upload->blobs->n_uploads--;
    blob_intake_abort(upload->intake);
    loop_io_free(upload->io);
    loop_timer_free(upload->timer);
    (void)close(upload->fd);
    free(upload);
}

static void on_idle(void *ctx)
{
    upload_free(ctx);
}

/* ---- answering ------------------------------------------------------------------------------------------------- */

static void answer(struct upload *upload, int status, const cJSON *json)
{
    char *body = cJSON_PrintUnformatted(json);
    char *text = xasprintf("HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n%s", status,
                           status < 400 ? "OK" : "Refused", strlen(body ? body : ""), body ? body : "");
    (void)!send(upload->fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL);
    free(text);
    free(body);
    upload->is_answered = true;
    (void)shutdown(upload->fd, SHUT_WR);
    loop_timer_set(upload->timer, LINGER_MS); /* what still comes is read and thrown away: closing over it would destroy the answer */
}

static void refuse(struct upload *upload, const struct amp_error *err)
{
    char number[16];
    cJSON *json = cJSON_CreateObject(), *error = cJSON_AddObjectToObject(json, "error");
    (void)snprintf(number, sizeof number, "AMESH-%u", (unsigned)err->code);
    cJSON_AddStringToObject(error, "code", number);
    cJSON_AddStringToObject(error, "name", amp_code_info(err->code)->name);
    cJSON_AddStringToObject(error, "message", err->message);
    if (err->hint[0])
        cJSON_AddStringToObject(error, "hint", err->hint);
    blob_intake_abort(upload->intake);
    upload->intake = NULL;
    answer(upload, amp_code_info(err->code)->http, json);
    cJSON_Delete(json);
}

/* What a part may say from now on. */
static cJSON *about(struct sidecar *sidecar, const struct blob *blob)
{
    char path[BLOB_PATH_SIZE];
    struct blobs *blobs = sidecar_blobs(sidecar);
    cJSON *json = cJSON_CreateObject();
    char *url = xasprintf("amp-blob:%s", blob->digest);
    cJSON_AddStringToObject(json, "url", url);
    cJSON_AddStringToObject(json, "digest", blob->digest);
    cJSON_AddNumberToObject(json, "size", (double)blob->size);
    if (blob_store_path(blobs_store(blobs), blob->digest, path))
        cJSON_AddStringToObject(json, "path", path);
    blobs_release(blobs, blob->digest); /* its time runs */
    free(url);
    return json;
}

static void complete(struct upload *upload)
{
    struct blob blob;
    struct amp_error err = {.code = AMP_OK};
    struct blob_intake *intake = upload->intake;
    upload->intake = NULL;
    if (blob_intake_end(intake, NULL, &blob, &err) != AMP_OK) {
        refuse(upload, &err);
        return;
    }
    cJSON *json = about(upload->blobs->sidecar, &blob);
    answer(upload, 200, json);
    cJSON_Delete(json);
}

/* ---- the head ---------------------------------------------------------------------------------------------------- */

/* Value of the header, or NULL; *n counts how often it is there. */
static const char *header(const char *head, const char *name, unsigned *n)
{
    const char *found = NULL;
    size_t len = strlen(name);
    *n = 0;
    for (const char *line = strstr(head, "\r\n"); line && line[2] != '\0'; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, len) != 0 || line[2 + len] != ':')
            continue;
        found = line + 2 + len + 1;
        found += strspn(found, " \t");
        ++*n;
    }
    return found;
}

static enum amp_code read_head(struct upload *upload, bool *ret_continue, struct amp_error *reterr)
{
    unsigned n_lengths, n_codings, n;
    char *end = NULL;
    const char *length = header(upload->head, "Content-Length", &n_lengths), *expect;
    (void)header(upload->head, "Transfer-Encoding", &n_codings);
    if (header(upload->head, "Origin", &n))
        return amp_error_set(reterr, AMP_DENIED, "", "web pages may not speak to this socket");
    if (n_lengths + n_codings > 1)
        return amp_error_set(reterr, AMP_MALFORMED, "", "the body's length is given more than once");
    if (!length || *length < '0' || *length > '9') {
        (void)amp_error_set(reterr, AMP_INVALID, "", "the upload needs a Content-Length");
        amp_error_hint(reterr, "curl -T FILE; of what comes from a pipe make a file first");
        return AMP_INVALID;
    }
    errno = 0;
    upload->left = strtoull(length, &end, 10);
    if (errno != 0 || strncmp(end, "\r\n", 2) != 0)
        return amp_error_set(reterr, AMP_INVALID, "", "the Content-Length is no number");
    expect = header(upload->head, "Expect", &n);
    *ret_continue = expect && strncasecmp(expect, "100-continue", 12) == 0;
    return AMP_OK;
}

/* ---- the body ----------------------------------------------------------------------------------------------------- */

static bool take(struct upload *upload, const void *data, size_t len)
{
    struct amp_error err = {.code = AMP_OK};
    if (len > upload->left) /* another request: there is one only */
        len = (size_t)upload->left;
    upload->left -= len;
    if (blob_intake_write(upload->intake, (struct amp_bytes){data, len}, &err) != AMP_OK)
        refuse(upload, &err);
    else if (upload->left == 0)
        complete(upload);
    else
        return true;
    return false;
}

static void head_complete(struct upload *upload, const char *body, size_t body_len)
{
    struct amp_error err = {.code = AMP_OK};
    bool wants_continue = false;
    struct blobs *blobs = sidecar_blobs(upload->blobs->sidecar);
    if (read_head(upload, &wants_continue, &err) != AMP_OK || blob_intake_begin(blobs_store(blobs), upload->left, &upload->intake, &err) != AMP_OK) {
        refuse(upload, &err);
        return;
    }
    if (wants_continue && body_len == 0)
        (void)!send(upload->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)take(upload, body, body_len);
}

static void take_head(struct upload *upload)
{
    struct amp_error err;
    ssize_t n = recv(upload->fd, upload->head + upload->head_len, HEAD_MAX - upload->head_len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        upload_free(upload);
        return;
    }
    upload->head_len += (size_t)n;
    char *end = memmem(upload->head, upload->head_len, "\r\n\r\n", 4);
    if (end) {
        size_t used = (size_t)(end - upload->head) + 4;
        end[2] = '\0';
        head_complete(upload, end + 4, upload->head_len - used);
    } else if (upload->head_len == HEAD_MAX) {
        (void)amp_error_set(&err, AMP_TOO_LARGE, "", "the headers are longer than %u bytes", HEAD_MAX);
        refuse(upload, &err);
    }
}

static void on_ready(void *ctx, int events)
{
    static char piece[BLOB_PIECE];
    struct upload *upload = ctx;
    if (!upload->is_answered && !upload->intake) {
        loop_timer_set(upload->timer, IDLE_MS);
        take_head(upload);
        return;
    }
    ssize_t n = recv(upload->fd, piece, sizeof piece, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        upload_free(upload);
        return;
    }
    if (upload->is_answered)
        return;
    loop_timer_set(upload->timer, IDLE_MS);
    (void)take(upload, piece, (size_t)n);
}

/* ---- life ---------------------------------------------------------------------------------------------------------- */

struct local_blobs *local_blobs_new(struct sidecar *sidecar)
{
    struct local_blobs *blobs = xcalloc(1, sizeof *blobs);
    blobs->sidecar = sidecar;
    LIST_INIT(&blobs->uploads);
    return blobs;
}

void local_blobs_free(struct local_blobs *blobs)
{
    while (blobs && !LIST_EMPTY(&blobs->uploads))
        upload_free(LIST_FIRST(&blobs->uploads));
    free(blobs);
}

bool local_blobs_is_upload(const char *peeked, unsigned long len)
{
    size_t n = sizeof UPLOAD - 1;
    return len > n && memcmp(peeked, UPLOAD, n) == 0 && (peeked[n] == ' ' || peeked[n] == '?');
}

void local_blobs_upload(struct local_blobs *blobs, int fd)
{
    struct amp_error err;
    struct loop *loop = sidecar_loop(blobs->sidecar);
    struct upload *upload = xcalloc(1, sizeof *upload);
    upload->blobs = blobs;
    upload->fd = fd;
    upload->timer = loop_timer_new(loop, on_idle, upload);
    upload->io = loop_io_new(loop, fd, on_ready, upload);
    LIST_INSERT_HEAD(&blobs->uploads, upload, entry);
    loop_io_want(upload->io, LOOP_READ);
    loop_timer_set(upload->timer, IDLE_MS);
    if (blobs->n_uploads++ >= UPLOADS_MAX || !sidecar_blobs(blobs->sidecar)) {
        counter_add(COUNTER_local_refused, 1);
        (void)amp_error_set(&err, AMP_OVERLOADED, "", "%u uploads are under way already", UPLOADS_MAX);
        refuse(upload, &err);
    }
}

/* ---- by the HTTP server ------------------------------------------------------------------------------------------------ */

void local_get_blob(void *ctx, struct http_request *request)
{
    char path[BLOB_PATH_SIZE];
    struct blob blob;
    const char *digest = http_segment(request, 0);
    struct blobs *blobs = sidecar_blobs(ctx);
    int fd = -1;
    if (blobs && blob_store_find(blobs_store(blobs), digest, &blob) && blobs_hold(blobs, digest)) {
        blobs_release(blobs, digest); /* used now */
        if (blob_store_path(blobs_store(blobs), digest, path))
            fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    }
    if (fd >= 0)
        http_reply_file(request, "application/octet-stream", fd, blob.size);
    else
        local_reply_error(request, AMP_NOT_FOUND, "digest", "this blob is not here, or not any more");
}

void local_put_small_blob(void *ctx, struct http_request *request)
{
    struct blob blob;
    struct amp_error err = {.code = AMP_OK};
    struct blobs *blobs = sidecar_blobs(ctx);
    if (!blobs)
        (void)amp_error_set(&err, AMP_UNSUPPORTED, "", "files are not possible here");
    if (err.code != AMP_OK || blobs_add(blobs, http_body(request), &blob, &err) != AMP_OK) {
        http_reply_error(request, &err);
        return;
    }
    cJSON *json = about(ctx, &blob);
    local_reply_json(request, 200, json);
    cJSON_Delete(json);
}

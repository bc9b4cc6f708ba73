#include "sidecar/files.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/file.h"
#include "base/loop.h"
#include "sidecar_private.h"

#include <cjson/cJSON.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_URL "file://"
#define BLOB_URL "amp-blob:"
#define MESSAGE_ROOM (64u << 10) /* of a message, for what stands beside a file in it */

struct files_job {
    struct sidecar *sidecar;
    struct cJSON **parts;       /* those to do */
    size_t n, next, inline_max; /* inline_max: bytes of a file that stands in its part */
    size_t inline_left;         /* of all of them together */
    struct blob_held *held;
    struct blob_job *job;
    struct loop_timer *turn;
    void (*on_done)(void *ctx, const struct amp_error *err);
    void *ctx;
};

/* ---- looking --------------------------------------------------------------------------------------------------- */

static const char *text_of(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static bool begins(const char *text, const char *with)
{
    return text && strncmp(text, with, strlen(with)) == 0;
}

/* Of a message, what may be bytes in a part. 0: not known yet. */
static size_t room(const struct sidecar *sidecar)
{
    size_t payload = bus_info(sidecar->bus)->payload_max;
    return payload / 2 > MESSAGE_ROOM ? payload - MESSAGE_ROOM : payload / 2;
}

static bool is_too_long(const struct sidecar *sidecar, const char *raw)
{
    size_t most = room(sidecar);
    return raw && most > 0 && sidecar->blobs && strlen(raw) > most;
}

static bool is_one(const struct sidecar *sidecar, const cJSON *part)
{
    const char *url = text_of(part, "url");
    return cJSON_GetObjectItemCaseSensitive(part, "file") || begins(url, FILE_URL) || begins(url, BLOB_URL) || is_too_long(sidecar, text_of(part, "raw"));
}

bool files_any(const struct sidecar *sidecar, const cJSON *parts)
{
    const cJSON *part;
    cJSON_ArrayForEach(part, parts) if (is_one(sidecar, part))
        return true;
    return false;
}

static int hex_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "file:///a%20b" → "/a b". NULL: it is none of this host. The caller frees it. */
static char *path_of_url(const char *url)
{
    const char *at = url + strlen(FILE_URL);
    if (begins(at, "localhost/"))
        at += strlen("localhost");
    if (*at != '/')
        return NULL;
    char *path = xstrdup(at), *to = path;
    for (const char *from = path; *from; from++) {
        int high = from[0] == '%' ? hex_of(from[1]) : -1, low = high >= 0 ? hex_of(from[2]) : -1;
        if (low >= 0 && high * 16 + low != 0) {
            *to++ = (char)(high * 16 + low);
            from += 2;
        } else {
            *to++ = *from;
        }
    }
    *to = '\0';
    return path;
}

/* ---- one part --------------------------------------------------------------------------------------------------- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void name_part(cJSON *part, const char *path)
{
    if (!text_of(part, "filename") && *base_name(path) && amp_utf8_is_valid(amp_bytes_of(base_name(path))))
        cJSON_AddStringToObject(part, "filename", base_name(path));
    if (!text_of(part, "mediaType"))
        cJSON_AddStringToObject(part, "mediaType", "application/octet-stream");
}

static void offer(struct files_job *job, cJSON *part, const struct blob *blob)
{
    struct amp_blob_ref ref;
    blobs_offer(job->sidecar->blobs, blob, &ref);
    amp_blob_ref_json(&ref, part);
}

static void end(struct files_job *job, const struct amp_error *err)
{
    void (*on_done)(void *, const struct amp_error *) = job->on_done;
    void *ctx = job->ctx;
    struct amp_error why = *err;
    files_cancel(job);
    on_done(ctx, &why);
}

static void on_blob(void *ctx, const struct blob *blob, const struct amp_error *err)
{
    struct files_job *job = ctx;
    job->job = NULL;
    if (!blob) {
        end(job, err);
        return;
    }
    blob_held_add(job->held, blob->digest);
    offer(job, job->parts[job->next++], blob);
    loop_timer_set(job->turn, 0);
}

/* It is here already: the part is handed on. */
static enum amp_code pass_on(struct files_job *job, cJSON *part, const char *digest, struct amp_error *reterr)
{
    struct blob blob;
    if (!blob_store_find(blobs_store(job->sidecar->blobs), digest, &blob))
        return amp_error_set(reterr, AMP_NOT_FOUND, "url", "blob %.80s is not here, or not any more, or its file in the spool was changed", digest);
    (void)blobs_hold(job->sidecar->blobs, digest);
    blob_held_add(job->held, digest);
    offer(job, part, &blob);
    return AMP_OK;
}

/* What is small enough stands in the part. */
static enum amp_code put_inline(cJSON *part, const char *path, size_t max, struct amp_error *reterr)
{
    struct amp_buf data;
    enum amp_code code = file_read(path, max, &data, reterr);
    if (code == AMP_OK) {
        size_t size = sodium_base64_encoded_len(data.len, sodium_base64_VARIANT_ORIGINAL);
        char *text = xcalloc(1, size);
        sodium_bin2base64(text, size, data.data ? data.data : (const uint8_t *)"", data.len, sodium_base64_VARIANT_ORIGINAL);
        cJSON_DeleteItemFromObjectCaseSensitive(part, "url");
        cJSON_AddStringToObject(part, "raw", text);
        free(text);
    }
    amp_buf_done(&data);
    return code;
}

static enum amp_code take_path(struct files_job *job, cJSON *part, const char *path, struct amp_error *reterr)
{
    struct stat info;
    const char *digest = blob_store_digest_of(blobs_store(job->sidecar->blobs), path);
    if (digest)
        return pass_on(job, part, digest, reterr);
    name_part(part, path);
    if (stat(path, &info) == 0 && S_ISREG(info.st_mode) && info.st_size <= (off_t)job->inline_max && (size_t)info.st_size <= job->inline_left) {
        job->inline_left -= (size_t)info.st_size;
        return put_inline(part, path, job->inline_max, reterr);
    }
    job->job = blobs_add_file(job->sidecar->blobs, path, on_blob, job);
    return AMP_OK;
}

static enum amp_code take_raw(struct files_job *job, cJSON *part, struct amp_error *reterr)
{
    cJSON *raw = cJSON_DetachItemFromObjectCaseSensitive(part, "raw");
    size_t len = strlen(raw->valuestring), size = 0;
    uint8_t *data = xcalloc(1, len + 1);
    struct blob blob;
    enum amp_code code = AMP_OK;
    if (sodium_base642bin(data, len, raw->valuestring, len, NULL, &size, NULL, sodium_base64_VARIANT_ORIGINAL) != 0)
        code = amp_error_set(reterr, AMP_INVALID, "raw", "it is not base64");
    if (code == AMP_OK)
        code = blobs_add(job->sidecar->blobs, (struct amp_bytes){.data = data, .len = size}, &blob, reterr);
    if (code == AMP_OK) {
        blob_held_add(job->held, blob.digest);
        offer(job, part, &blob);
    }
    free(data);
    cJSON_Delete(raw);
    return code;
}

static enum amp_code take_part(struct files_job *job, cJSON *part, struct amp_error *reterr)
{
    if (is_too_long(job->sidecar, text_of(part, "raw")))
        return take_raw(job, part, reterr);
    const cJSON *file = cJSON_DetachItemFromObjectCaseSensitive(part, "file");
    const char *url = text_of(part, "url");
    enum amp_code code;
    if (!file && begins(url, BLOB_URL)) {
        char digest[AMP_BLOB_DIGEST_SIZE];
        (void)snprintf(digest, sizeof digest, "%s", url + strlen(BLOB_URL));
        return pass_on(job, part, digest, reterr);
    }
    char *path = file ? xstrdup(cJSON_IsString(file) ? file->valuestring : "") : path_of_url(url);
    if (!path || *path != '/')
        code = amp_error_set(reterr, AMP_INVALID, file ? "file" : "url", "\"%.200s\" is not the absolute path of a file of this host", file ? (path ? path : "") : url);
    else
        code = take_path(job, part, path, reterr);
    free(path);
    cJSON_Delete((cJSON *)file);
    return code;
}

/* ---- all of them -------------------------------------------------------------------------------------------------- */

static void on_turn(void *ctx)
{
    struct files_job *job = ctx;
    struct amp_error err = {.code = AMP_OK};
    if (!job->sidecar->blobs)
        (void)amp_error_set(&err, AMP_UNSUPPORTED, "", "files are not possible here");
    while (err.code == AMP_OK && job->next < job->n) {
        if (take_part(job, job->parts[job->next], &err) != AMP_OK)
            break;
        if (job->job)
            return;
        job->next++;
    }
    end(job, &err);
}

/* Bytes of a file that stand in its part. */
static size_t inline_max(const struct sidecar *sidecar, size_t most)
{
    size_t fits = room(sidecar) ? room(sidecar) / 4 * 3 : FILES_INLINE_MAX; /* base64 */
    return fits < most ? fits : most;
}

struct files_job *files_start(struct sidecar *sidecar, cJSON *const *parts, size_t n, struct blob_held *held, void (*on_done)(void *ctx, const struct amp_error *err), void *ctx)
{
    struct files_job *job = xcalloc(1, sizeof *job);
    *job = (struct files_job){.sidecar = sidecar, .inline_max = inline_max(sidecar, FILES_INLINE_MAX), .inline_left = SIZE_MAX, .held = held, .on_done = on_done, .ctx = ctx};
    for (size_t i = 0; i < n; i++) {
        cJSON *part;
        cJSON_ArrayForEach(part, parts[i]) if (is_one(sidecar, part))
        {
            job->parts = xrealloc(job->parts, (job->n + 1) * sizeof *job->parts);
            job->parts[job->n++] = part;
        }
    }
    job->turn = loop_timer_new(sidecar->loop, on_turn, job);
    loop_timer_set(job->turn, 0);
    return job;
}

void files_make_durable(struct files_job *job)
{
    job->inline_max = job->inline_left = inline_max(job->sidecar, FILES_DURABLE_INLINE_MAX);
}

void files_cancel(struct files_job *job)
{
    if (!job)
        return;
    blob_job_cancel(job->job);
    loop_timer_free(job->turn);
    free(job->parts);
    free(job);
}

/* ---- what an agent gets ---------------------------------------------------------------------------------------------- */

/* "file://" and the path, of which only what a URL cannot have is escaped. False: not here. */
static bool url_of(struct sidecar *sidecar, const char *digest, char *ret, size_t size)
{
    char path[BLOB_PATH_SIZE];
    if (!sidecar->blobs || !blob_store_path(blobs_store(sidecar->blobs), digest, path))
        return false;
    size_t len = (size_t)snprintf(ret, size, FILE_URL);
    for (const char *at = path; *at && len + 4 < size; at++) {
        unsigned char c = (unsigned char)*at;
        bool is_plain = c > ' ' && c < 0x7f && !strchr("%?#\"<>\\^`{|}", c);
        len += (size_t)snprintf(ret + len, size - len, is_plain ? "%c" : "%%%02X", c);
    }
    return true;
}

enum amp_code files_show(struct sidecar *sidecar, Amp__Part *part, struct amp_arena *arena)
{
    char url[3 * BLOB_PATH_SIZE];
    struct amp_blob_ref ref;
    if (!amp_part_is_blob(part) || amp_part_blob(part, &ref, NULL) != AMP_OK || !url_of(sidecar, ref.digest, url, sizeof url))
        return AMP_OK;
    char *copy = amp_arena_strdup(arena, amp_bytes_of(url));
    if (!copy)
        return AMP_TOO_LARGE;
    part->url = copy;
    return AMP_OK;
}

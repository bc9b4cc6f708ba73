/* The files of a journal's tasks, <journal>-blobs/ (files.h), without an environment or beside one: looked at, copied with it, removed with what referred to them. Blocking. */
#include "journal_private.h"
#include "journal_files.h"

#include "base/alloc.h"
#include "base/file.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE ((size_t)1 << 20)

static char *path_of(const char *journal, const char *digest)
{
    return xasprintf("%s" JOURNAL_FILES "%s%s", journal, *digest ? "/" : "", digest);
}

/* ---- which ---------------------------------------------------------------------------------------------------------------- */

static uint64_t size_of(const char *value, size_t len)
{
    cJSON *json = cJSON_ParseWithLength(value, len);
    const cJSON *size = cJSON_GetObjectItemCaseSensitive(json, "size");
    uint64_t ret = cJSON_IsNumber(size) && size->valuedouble >= 0 && size->valuedouble <= (double)AMP_BLOB_BYTES_MAX ? (uint64_t)size->valuedouble : 0;
    cJSON_Delete(json);
    return ret;
}

bool journal_blobs_each(sqlite3 *db, const struct journal_blobs_query *query, bool (*visit)(void *ctx, const struct journal_blob *blob), void *ctx)
{
    static const char sql[] = "SELECT owner, min(key), value FROM kv WHERE scope = '" JOURNAL_SCOPE_BLOB "' AND (?1 IS NULL OR key IN (SELECT id FROM tasks WHERE context = ?1))"
                              " AND (?2 = 0 OR key IN (SELECT id FROM tasks WHERE submitted >= ?2)) GROUP BY owner";
    sqlite3_stmt *statement = NULL;
    int status = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
    if (status == SQLITE_OK && query->context)
        sqlite3_bind_text(statement, 1, query->context, -1, SQLITE_STATIC);
    if (status == SQLITE_OK)
        sqlite3_bind_int64(statement, 2, query->since_unix_ms);
    bool goes_on = status == SQLITE_OK;
    while (goes_on && (status = sqlite3_step(statement)) == SQLITE_ROW) {
        struct journal_blob blob = {.digest = (const char *)sqlite3_column_text(statement, 0), .owner = (const char *)sqlite3_column_text(statement, 1)};
        blob.size = size_of(sqlite3_column_blob(statement, 2), (size_t)sqlite3_column_bytes(statement, 2));
        if (amp_blob_digest_is_valid(blob.digest) && blob.owner) /* it becomes a path */
            goes_on = visit(ctx, &blob);
    }
    sqlite3_finalize(statement);
    return goes_on && status == SQLITE_DONE;
}

/* ---- is it what it was? ------------------------------------------------------------------------------------------------------ */

int journal_blob_open(const char *journal, const struct journal_blob *blob, char *ret_text, size_t size)
{
    char *path = path_of(journal, blob->digest);
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool is_there = fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    if (!is_there)
        snprintf(ret_text, size, "it is missing: %s", fd < 0 ? strerror(errno) : "what has its name is no file");
    else if ((uint64_t)info.st_size != blob->size)
        snprintf(ret_text, size, "it has %lld bytes; %" PRIu64 " were kept", (long long)info.st_size, blob->size);
    free(path);
    if (is_there && (uint64_t)info.st_size == blob->size)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

bool journal_blob_is_sound(const char *journal, const struct journal_blob *blob, char *ret_text, size_t size)
{
    crypto_hash_sha256_state state;
    uint8_t hash[AMP_BLOB_HASH_SIZE];
    char digest[AMP_BLOB_DIGEST_SIZE];
    int fd = journal_blob_open(journal, blob, ret_text, size);
    if (fd < 0)
        return false;
    uint8_t *piece = xcalloc(1, PIECE);
    ssize_t n = 0;
    (void)crypto_hash_sha256_init(&state);
    while ((n = read(fd, piece, PIECE)) > 0 || (n < 0 && errno == EINTR))
        (void)crypto_hash_sha256_update(&state, piece, n > 0 ? (size_t)n : 0);
    if (n < 0)
        snprintf(ret_text, size, "it cannot be read: %s", strerror(errno));
    close(fd);
    free(piece);
    (void)crypto_hash_sha256_final(&state, hash);
    amp_blob_digest_format(hash, digest);
    if (n == 0 && strcmp(digest, blob->digest) != 0)
        snprintf(ret_text, size, "its bytes are not those that were kept: theirs is %.20s…", digest);
    return n == 0 && strcmp(digest, blob->digest) == 0;
}

struct verifying {
    const char *path;
    const struct journal_verify_handlers *handlers;
    void *ctx;
    struct journal_report *report;
};

static bool verify_one(void *ctx, const struct journal_blob *blob)
{
    struct verifying *verifying = ctx;
    char text[200], row[256];
    verifying->report->files++;
    verifying->report->file_bytes += blob->size;
    if (journal_blob_is_sound(verifying->path, blob, text, sizeof text))
        return true;
    snprintf(row, sizeof row, "file %s of %.100s", blob->digest, blob->owner);
    verifying->report->findings++;
    verifying->report->file_findings++;
    if (verifying->handlers->on_finding && verifying->report->file_findings <= JOURNAL_FILE_FINDINGS_MAX)
        verifying->handlers->on_finding(verifying->ctx, &(struct journal_finding){.table = "files", .row = row, .text = text});
    return true;
}

enum amp_code journal_verify_files(const char *path, const struct journal_verify_handlers *handlers, void *ctx, struct journal_report *report, struct amp_error *reterr)
{
    struct verifying verifying = {.path = path, .handlers = handlers, .ctx = ctx, .report = report};
    const struct journal_blobs_query all = {.context = NULL};
    sqlite3 *db = NULL;
    enum amp_code code = journal_open_to_read(path, &db, reterr);
    if (code != AMP_OK)
        return code;
    (void)journal_blobs_each(db, &all, verify_one, &verifying); /* what cannot be read was found by journal_verify */
    journal_close_file(path, db);
    if (report->file_findings == 0)
        return AMP_OK;
    amp_error_set(reterr, AMP_CORRUPT, "", "%" PRIu64 " of the %" PRIu64 " files of the journal %s are missing or damaged", report->file_findings, report->files, path);
    amp_error_hint(reterr, "put them back into %s" JOURNAL_FILES " from a backup; a task that needs one of them fails with not_found", path);
    return AMP_CORRUPT;
}

/* ---- copied ------------------------------------------------------------------------------------------------------------------- */

static bool copy_bytes(const char *from, const char *to)
{
    char *making = xasprintf("%s.part", to);
    uint8_t *piece = xcalloc(1, PIECE);
    (void)unlink(making);
    int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), out = in < 0 ? -1 : open(making, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
    bool is_copied = out >= 0;
    ssize_t n = 0;
    while (is_copied && (n = read(in, piece, PIECE)) != 0)
        is_copied = (n < 0 && errno == EINTR) || (n > 0 && file_write_all(out, (struct amp_bytes){piece, (size_t)n}));
    is_copied = is_copied && fsync(out) == 0 && rename(making, to) == 0;
    int error = errno;
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    if (!is_copied)
        (void)unlink(making);
    free(making);
    free(piece);
    errno = error;
    return is_copied;
}

struct copying {
    const char *from, *to;
    struct amp_error *reterr;
    enum amp_code code;
};

/* One file of the disk under two names takes no room; both are never written to. */
static bool copy_one(void *ctx, const struct journal_blob *blob)
{
    struct copying *copying = ctx;
    char *from = path_of(copying->from, blob->digest), *to = path_of(copying->to, blob->digest);
    bool is_done = link(from, to) == 0 || errno == EEXIST || errno == ENOENT || copy_bytes(from, to) || errno == ENOENT; /* one that is missing is found by who looks at the copy */
    if (!is_done)
        copying->code = journal_copy_failed(to, strerror(errno), copying->reterr);
    free(from);
    free(to);
    return copying->code == AMP_OK;
}

static enum amp_code make_directory(const char *journal, struct amp_error *reterr)
{
    char *directory = path_of(journal, "");
    bool is_made = mkdir(directory, 0700) == 0 || errno == EEXIST;
    enum amp_code code = is_made ? AMP_OK : journal_copy_failed(directory, strerror(errno), reterr);
    free(directory);
    return code;
}

static enum amp_code sync_directory(const char *journal, struct amp_error *reterr)
{
    char *inside = path_of(journal, "x"), *directory = path_of(journal, "");
    enum amp_code code = journal_sync_directory(inside) && journal_sync_directory(directory) ? AMP_OK : journal_copy_failed(directory, strerror(errno), reterr);
    free(inside);
    free(directory);
    return code;
}

static bool has_directory(const char *journal)
{
    char *directory = path_of(journal, "");
    struct stat info;
    bool is_there = stat(directory, &info) == 0 && S_ISDIR(info.st_mode);
    free(directory);
    return is_there;
}

enum amp_code journal_copy_files(const char *from, const char *of, const char *to, struct amp_error *reterr)
{
    struct copying copying = {.from = from, .to = to, .reterr = reterr};
    const struct journal_blobs_query all = {.context = NULL};
    sqlite3 *db = NULL;
    if (!has_directory(from))
        return AMP_OK;
    enum amp_code code = journal_open_to_read(of, &db, reterr);
    if (code == AMP_OK)
        code = make_directory(to, reterr);
    if (code == AMP_OK && !journal_blobs_each(db, &all, copy_one, &copying) && copying.code == AMP_OK)
        code = journal_copy_failed(to, sqlite3_errmsg(db), reterr);
    journal_close_file(of, db);
    code = code == AMP_OK ? copying.code : code;
    return code == AMP_OK ? sync_directory(to, reterr) : code;
}

enum amp_code journal_link_files(const char *from, const char *to, struct amp_error *reterr)
{
    struct copying copying = {.from = from, .to = to, .reterr = reterr};
    char *directory = path_of(from, "");
    DIR *entries = opendir(directory);
    const struct dirent *entry;
    enum amp_code code = entries ? make_directory(to, reterr) : AMP_OK;
    while (entries && code == AMP_OK && copying.code == AMP_OK && (entry = readdir(entries)))
        if (amp_blob_digest_is_valid(entry->d_name))
            (void)copy_one(&copying, &(struct journal_blob){.digest = entry->d_name});
    free(directory);
    if (!entries)
        return code;
    (void)closedir(entries);
    code = code == AMP_OK ? copying.code : code;
    return code == AMP_OK ? sync_directory(to, reterr) : code;
}

/* ---- removed ------------------------------------------------------------------------------------------------------------------- */

uint64_t journal_sweep_files(sqlite3 *db, const char *journal)
{
    char *directory = path_of(journal, "");
    DIR *entries = opendir(directory);
    const struct dirent *entry;
    sqlite3_stmt *find = NULL;
    uint64_t bytes = 0;
    bool is_ready = sqlite3_prepare_v2(db, "SELECT 1 FROM kv WHERE scope = '" JOURNAL_SCOPE_BLOB "' AND owner = ?1 LIMIT 1", -1, &find, NULL) == SQLITE_OK;
    while (entries && is_ready && (entry = readdir(entries))) {
        char *path = path_of(journal, entry->d_name);
        struct stat info;
        if (amp_blob_digest_is_valid(entry->d_name) && lstat(path, &info) == 0 && S_ISREG(info.st_mode)) {
            sqlite3_bind_text(find, 1, entry->d_name, -1, SQLITE_STATIC);
            if (sqlite3_step(find) == SQLITE_DONE && unlink(path) == 0) /* not where it cannot be read */
                bytes += (uint64_t)info.st_size;
            sqlite3_reset(find);
        }
        free(path);
    }
    sqlite3_finalize(find);
    if (entries)
        (void)closedir(entries);
    free(directory);
    return bytes;
}

/* Files of tasks in an export: {"file":digest,"size":…,"at":…,"base64":…}, in pieces, one file after the other. A file has its name when all of it is there and has its digest; what an
 * import has brought that fails is removed. */
#include "journal_private.h"
#include "journal_files.h"

#include "base/alloc.h"
#include "base/file.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct file_intake {
    char *journal, *making; /* making: its name until it is whole */
    int fd;                 /* -1: none is under way */
    char digest[AMP_BLOB_DIGEST_SIZE];
    uint64_t size, at;
    crypto_hash_sha256_state hash;
    uint64_t files, bytes;
    char (*brought)[AMP_BLOB_DIGEST_SIZE]; /* those that were not there before */
    size_t n_brought;
};

static char *path_of(const struct file_intake *intake, const char *digest)
{
    return digest ? xasprintf("%s" JOURNAL_FILES "/%s", intake->journal, digest) : xasprintf("%s" JOURNAL_FILES, intake->journal);
}

struct file_intake *file_intake_new(const char *journal)
{
    struct file_intake *intake = xcalloc(1, sizeof *intake);
    intake->journal = xstrdup(journal);
    intake->making = xasprintf("%s" JOURNAL_FILES "/in-import", journal);
    intake->fd = -1;
    return intake;
}

void file_intake_free(struct file_intake *intake, bool is_kept)
{
    if (intake->fd >= 0) {
        close(intake->fd);
        (void)unlink(intake->making);
    }
    for (size_t i = 0; !is_kept && i < intake->n_brought; i++) {
        char *path = path_of(intake, intake->brought[i]);
        (void)unlink(path);
        free(path);
    }
    char *directory = path_of(intake, NULL);
    if (!is_kept)
        (void)rmdir(directory); /* if nothing else is in it */
    free(directory);
    free(intake->brought);
    free(intake->journal);
    free(intake->making);
    free(intake);
}

static bool read_number(const cJSON *line, const char *name, uint64_t *ret)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(line, name);
    bool is_one = cJSON_IsNumber(value) && value->valuedouble >= 0 && value->valuedouble <= (double)AMP_BLOB_BYTES_MAX && value->valuedouble == (double)(uint64_t)value->valuedouble;
    *ret = is_one ? (uint64_t)value->valuedouble : 0;
    return is_one;
}

static enum amp_code begin(struct file_intake *intake, const char *digest, uint64_t size, struct amp_error *reterr)
{
    char *directory = path_of(intake, NULL);
    (void)mkdir(directory, 0700);
    free(directory);
    (void)unlink(intake->making);
    intake->fd = open(intake->making, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (intake->fd < 0)
        return journal_copy_failed(intake->making, strerror(errno), reterr);
    memcpy(intake->digest, digest, sizeof intake->digest);
    intake->size = size;
    intake->at = 0;
    (void)crypto_hash_sha256_init(&intake->hash);
    return AMP_OK;
}

static enum amp_code end(struct file_intake *intake, struct amp_error *reterr)
{
    uint8_t hash[AMP_BLOB_HASH_SIZE];
    char digest[AMP_BLOB_DIGEST_SIZE];
    (void)crypto_hash_sha256_final(&intake->hash, hash);
    amp_blob_digest_format(hash, digest);
    if (strcmp(digest, intake->digest) != 0)
        return amp_error_set(reterr, AMP_MALFORMED, "", "the bytes of file %s are not its own", intake->digest);
    char *path = path_of(intake, digest);
    bool is_new = access(path, F_OK) != 0;
    bool is_kept = fchmod(intake->fd, 0400) == 0 && fsync(intake->fd) == 0 && rename(intake->making, path) == 0 && journal_sync_directory(path);
    enum amp_code code = is_kept ? AMP_OK : journal_copy_failed(path, strerror(errno), reterr);
    free(path);
    close(intake->fd);
    intake->fd = -1;
    if (is_new && is_kept) {
        intake->brought = xrealloc(intake->brought, (intake->n_brought + 1) * sizeof *intake->brought);
        memcpy(intake->brought[intake->n_brought++], digest, sizeof digest);
    }
    intake->files++;
    intake->bytes += intake->size;
    return code;
}

static enum amp_code add(struct file_intake *intake, const char *encoded, struct amp_error *reterr)
{
    size_t len = strlen(encoded), size = 0;
    uint8_t *data = xcalloc(1, len + 1);
    enum amp_code code = AMP_OK;
    if (sodium_base642bin(data, len + 1, encoded, len, NULL, &size, NULL, sodium_base64_VARIANT_ORIGINAL) != 0 || size > intake->size - intake->at)
        code = amp_error_set(reterr, AMP_MALFORMED, "", "base64: it is no piece of file %s", intake->digest);
    else if (!file_write_all(intake->fd, (struct amp_bytes){data, size}))
        code = journal_copy_failed(intake->making, strerror(errno), reterr);
    (void)crypto_hash_sha256_update(&intake->hash, data, size);
    intake->at += size;
    free(data);
    return code;
}

enum amp_code file_intake_line(struct file_intake *intake, const cJSON *line, struct amp_error *reterr)
{
    const char *digest = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "file")), *encoded = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "base64"));
    uint64_t size, at;
    if (!amp_blob_digest_is_valid(digest) || !encoded || !read_number(line, "size", &size) || !read_number(line, "at", &at)) /* a digest becomes a path */
        return amp_error_set(reterr, AMP_MALFORMED, "", "it is no piece of a file");
    enum amp_code code = intake->fd < 0 && at == 0 ? begin(intake, digest, size, reterr) : AMP_OK;
    if (code == AMP_OK && (intake->fd < 0 || strcmp(digest, intake->digest) != 0 || size != intake->size || at != intake->at))
        return amp_error_set(reterr, AMP_MALFORMED, "", "this piece of file %s does not join the one before", digest);
    if (code == AMP_OK)
        code = add(intake, encoded, reterr);
    return code == AMP_OK && intake->at == intake->size ? end(intake, reterr) : code;
}

enum amp_code file_intake_end(struct file_intake *intake, uint64_t *ret_files, uint64_t *ret_bytes, struct amp_error *reterr)
{
    *ret_files = intake->files;
    *ret_bytes = intake->bytes;
    return intake->fd < 0 ? AMP_OK : amp_error_set(reterr, AMP_MALFORMED, "", "file %s is not whole", intake->digest);
}

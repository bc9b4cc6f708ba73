/* Files of a program that is run once per task (local-api.md 6): what came with the task lies in AMESH_IN, what the program leaves in AMESH_OUT goes out as artifacts. */
#include "worker_exec_files.h"

#include "base/alloc.h"
#include "base/blobs.h"
#include "base/file.h"
#include "base/log.h"
#include "base/media_type.h"
#include "sidecar_private.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_TRIES 1000u
#define OUT_FILES_MAX 256u
#define RESPONSE_ID "response" /* of the streamed answer */
#define ID_SUFFIX_MAX 4u        /* "-256" */
#define NOWHERE "/dev/null" /* nothing can ever be below it */

/* ---- in ---------------------------------------------------------------------------------------------------------- */

static bool put(struct sidecar *sidecar, const Amp__Part *part, const char *path)
{
    struct amp_blob_ref ref;
    char from[BLOB_PATH_SIZE];
    if (part->has_raw)
        return file_write_new(path, (struct amp_bytes){part->raw.data, part->raw.len});
    if (part->text)
        return file_write_new(path, amp_bytes_of(part->text));
    return amp_part_blob(part, &ref, NULL) == AMP_OK && blob_store_path(blobs_store(sidecar->blobs), ref.digest, from) && link(from, path) == 0;
}

static bool is_file(const Amp__Part *part)
{
    return part->has_raw || amp_part_is_blob(part) || (part->text && part->filename);
}

static enum amp_code put_all(struct sidecar *sidecar, const Amp__Message *message, const char *directory, struct amp_error *reterr)
{
    for (size_t i = 0; i < message->n_parts; i++) {
        const Amp__Part *part = message->parts[i];
        char path[BLOB_PATH_SIZE];
        bool is_put = false;
        if (!is_file(part))
            continue;
        for (unsigned again = 1; !is_put && again < NAME_TRIES; again++) {
            file_name_in(directory, part->filename, again, path, sizeof path);
            is_put = put(sidecar, part, path);
            if (!is_put && errno != EEXIST)
                break;
        }
        if (!is_put)
            return amp_error_set(reterr, errno == ENOSPC || errno == EDQUOT ? AMP_OVERLOADED : AMP_INTERNAL, "message", "cannot put the task's file at %.300s: %s", path, strerror(errno));
    }
    return AMP_OK;
}

static bool has_file(const Amp__Message *message)
{
    for (size_t i = 0; i < message->n_parts; i++)
        if (is_file(message->parts[i]))
            return true;
    return false;
}

static void set(char **entry, const char *name, const char *value)
{
    free(*entry);
    *entry = xasprintf("%s=%s", name, value);
}

/* Made once, for all tasks without files: a pattern below an empty variable would be one below / of the host. */
static const char *no_files(struct sidecar *sidecar)
{
    struct amp_error err;
    if (!*sidecar->no_files && sidecar->blobs) {
        if (blob_store_directory(blobs_store(sidecar->blobs), "none", sidecar->no_files, &err) != AMP_OK)
            *sidecar->no_files = '\0';
        else
            (void)chmod(sidecar->no_files, 0500);
    }
    return *sidecar->no_files ? sidecar->no_files : NOWHERE;
}

enum amp_code exec_files_begin(struct sidecar *sidecar, struct task *task, char **env_in, char **env_out, struct amp_error *reterr)
{
    const Amp__Message *message = task_request(task)->message; /* a text that came as a blob has no name: it is on stdin */
    char directory[BLOB_PATH_SIZE], path[BLOB_PATH_SIZE + 8];
    bool is_needed = has_file(message);
    if (!is_needed)
        set(env_in, "AMESH_IN", no_files(sidecar));
    if (!task_files_directory(task, directory))
        return is_needed ? amp_error_set(reterr, AMP_OVERLOADED, "message", "there is no room for the task's files") : AMP_OK;
    (void)snprintf(path, sizeof path, "%s/out", directory);
    if (mkdir(path, 0700) == 0)
        set(env_out, "AMESH_OUT", path);
    if (!is_needed)
        return AMP_OK;
    (void)snprintf(path, sizeof path, "%s/in", directory);
    if (mkdir(path, 0700) != 0)
        return amp_error_set(reterr, AMP_OVERLOADED, "message", "there is no room for the task's files: %s", strerror(errno));
    set(env_in, "AMESH_IN", path);
    return put_all(sidecar, message, path, reterr);
}

/* ---- out ---------------------------------------------------------------------------------------------------------- */

static int is_name(const struct dirent *entry)
{
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

/* The artifacts of one task: the file of each keeps its name, but ids have fewer characters than names. */
struct outs {
    struct task *task;
    const char *directory;
    size_t n;
    char ids[OUT_FILES_MAX][AMP_NAME_MAX + 1];
};

static bool is_taken(const struct outs *outs, const char *id)
{
    if (strcmp(id, RESPONSE_ID) == 0)
        return true;
    for (size_t i = 0; i < outs->n; i++)
        if (strcmp(outs->ids[i], id) == 0)
            return true;
    return false;
}

/* "upper", of the next file with such a name "upper-2". */
static const char *id_of(struct outs *outs, const char *name)
{
    char base[AMP_NAME_MAX + 1], id[AMP_NAME_MAX + 1];
    amp_id_from_text(name, base);
    memcpy(id, base, sizeof id);
    for (unsigned again = 2; is_taken(outs, id); again++)
        (void)snprintf(id, sizeof id, "%.*s-%u", (int)(AMP_NAME_MAX - ID_SUFFIX_MAX), base, again);
    return memcpy(outs->ids[outs->n++], id, sizeof id);
}

/* A name with a character that no name of an artifact may have, or with bytes that are none. */
static enum amp_code refuse_name(const char *name, struct amp_error *reterr)
{
    char shown[NAME_MAX + 1];
    size_t len = 0;
    bool is_text = amp_utf8_is_valid(amp_bytes_of(name));
    for (const char *at = name; *at && len < NAME_MAX; at++) {
        unsigned char c = (unsigned char)*at;
        bool is_shown = c >= ' ' && c != 0x7f && (c < 0x80 || is_text);
        shown[len++] = '?';
        if (is_shown)
            shown[len - 1] = *at;
    }
    shown[len] = '\0';
    (void)amp_error_set(reterr, AMP_INVALID, "AMESH_OUT", "the file \"%s\" in AMESH_OUT cannot be sent: its name %s", shown, is_text ? "has a control character" : "is not UTF-8");
    amp_error_hint(reterr, "rename it: each ? stands for a byte that a name cannot have");
    return AMP_INVALID;
}

static bool has_control(const char *name)
{
    for (; *name; name++)
        if ((unsigned char)*name < ' ' || *name == 0x7f)
            return true;
    return false;
}

static enum amp_code give(struct outs *outs, const char *name, struct amp_error *reterr)
{
    struct stat info;
    char *path = xasprintf("%s/%s", outs->directory, name);
    enum amp_code code = AMP_OK;
    if (lstat(path, &info) != 0 || !S_ISREG(info.st_mode)) {
        log_event(LOG_WARN, "agent.out_ignored", "task", task_id(outs->task), "file", name, "reason", "it is not a regular file", NULL);
    } else if (!amp_utf8_is_valid(amp_bytes_of(name)) || has_control(name)) {
        code = refuse_name(name, reterr);
    } else {
        cJSON *local = cJSON_CreateObject();
        cJSON_AddStringToObject(local, "type", "artifact");
        cJSON_AddStringToObject(local, "artifactId", id_of(outs, name));
        cJSON_AddStringToObject(local, "name", name);
        cJSON_AddStringToObject(local, "file", path);
        cJSON_AddStringToObject(local, "filename", name);
        cJSON_AddStringToObject(local, "mediaType", media_type_of(name));
        cJSON_AddTrueToObject(local, "last");
        code = task_event(outs->task, local, reterr);
        cJSON_Delete(local);
    }
    free(path);
    return code;
}

enum amp_code exec_files_give(struct task *task, const char *directory, struct amp_error *reterr)
{
    struct dirent **entries = NULL;
    enum amp_code code = AMP_OK;
    if (!*directory || rmdir(directory) == 0 || errno == ENOENT) /* nothing is in it, as most often */
        return AMP_OK;
    int n = scandir(directory, &entries, is_name, alphasort);
    if (n < 0)
        return amp_error_set(reterr, AMP_INVALID, "AMESH_OUT", "what the program left in AMESH_OUT cannot be read: %s", strerror(errno));
    if (n > (int)OUT_FILES_MAX)
        code = amp_error_set(reterr, AMP_TOO_LARGE, "AMESH_OUT", "the program left %d files in AMESH_OUT; at most %u are allowed", n, OUT_FILES_MAX);
    struct outs *outs = xcalloc(1, sizeof *outs);
    *outs = (struct outs){.task = task, .directory = directory};
    for (int i = 0; i < n; i++) {
        if (code == AMP_OK)
            code = give(outs, entries[i]->d_name, reterr);
        free(entries[i]);
    }
    free(entries);
    free(outs);
    return code;
}

#include "cli/message.h"

#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/media_type.h"
#include "cli/context.h"

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}

static Amp__Part *part_new(struct amp_arena *arena, Amp__Message *message)
{
    Amp__Part *part = amp_arena_alloc(arena, sizeof *part);
    if (part == NULL)
        return NULL;
    amp__part__init(part);
    message->parts[message->n_parts++] = part;
    return part;
}

static enum amp_code text_part(const char *text, struct amp_arena *arena, Amp__Message *message, struct amp_error *reterr)
{
    struct amp_buf buf;
    struct amp_bytes bytes = amp_bytes_of(text);
    enum amp_code code = AMP_OK;
    bool is_stdin = strcmp(text, "-") == 0;
    amp_buf_init(&buf, MESSAGE_BYTES_MAX);
    if (is_stdin) {
        code = file_read("-", MESSAGE_BYTES_MAX, &buf, reterr);
        bytes = amp_buf_bytes(&buf);
    }
    if (code == AMP_OK && (!amp_utf8_is_valid(bytes) || (bytes.len > 0 && memchr(bytes.data, '\0', bytes.len) != NULL))) {
        code = amp_error_set(reterr, AMP_INVALID, "", "the text is not UTF-8 without NUL");
        amp_error_hint(reterr, "attach bytes with --file");
    }
    if (code == AMP_OK) {
        Amp__Part *part = part_new(arena, message);
        char *copy = part != NULL ? amp_arena_strdup(arena, bytes) : NULL;
        if (copy == NULL)
            code = amp_error_set(reterr, AMP_TOO_LARGE, "", "the text has %zu bytes", bytes.len);
        else
            part->text = copy;
    }
    amp_buf_done(&buf);
    return code;
}

/* A regular file that does not stand in the message: its bytes come later. */
static bool is_large(const struct message_source *source, const char *path)
{
    struct stat info;
    return source->inline_max > 0 && strcmp(path, "-") != 0 && stat(path, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > (off_t)source->inline_max;
}

static enum amp_code large_part(struct message_source *source, const char *path, struct amp_arena *arena, Amp__Message *message, struct amp_error *reterr)
{
    Amp__Part *part = part_new(arena, message);
    char *name = amp_arena_strdup(arena, amp_bytes_of(base_name(path)));
    if (part == NULL || name == NULL)
        return amp_error_set(reterr, AMP_NO_MEMORY, "", "out of memory");
    part->filename = name;
    part->media_type = (char *)media_type_of(path);
    source->large[source->n_large++] = (struct message_large){.part = part, .path = path};
    return AMP_OK;
}

/* What a part may not be called is told with the file, before anything is read. */
static enum amp_code name_check(const char *path, struct amp_error *reterr)
{
    struct amp_error err = {.code = AMP_OK};
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Message message = AMP__MESSAGE__INIT;
    part.text = (char *)"";
    part.filename = (char *)base_name(path);
    message.message_id = (char *)"m";
    message.has_role = true;
    message.role = AMP__ROLE__ROLE_USER;
    message.parts = parts;
    message.n_parts = 1;
    if (amp_message_check(&message, "message", &err) == AMP_OK)
        return AMP_OK;
    (void)amp_error_set(reterr, err.code, "", "the name of the file %.300s %s%s", path, err.message[0] >= '0' && err.message[0] <= '9' ? "has " : "", err.message);
    amp_error_hint(reterr, "a copy or a link of another name");
    return err.code;
}

static enum amp_code file_part(const char *path, struct amp_arena *arena, Amp__Message *message, struct amp_error *reterr)
{
    struct amp_buf buf;
    enum amp_code code = file_read(path, MESSAGE_BYTES_MAX, &buf, reterr);
    if (code == AMP_OK) {
        Amp__Part *part = part_new(arena, message);
        uint8_t *copy = part != NULL ? amp_arena_alloc(arena, buf.len + 1) : NULL;
        char *name = amp_arena_strdup(arena, amp_bytes_of(base_name(path)));
        if (copy == NULL || name == NULL) {
            code = amp_error_set(reterr, AMP_TOO_LARGE, "", "%s and what came before it have too many bytes", path);
        } else {
            if (buf.len > 0)
                memcpy(copy, buf.data, buf.len);
            part->has_raw = true;
            part->raw = (ProtobufCBinaryData){buf.len, copy};
            part->filename = name;
            part->media_type = (char *)media_type_of(path);
        }
    }
    amp_buf_done(&buf);
    return code;
}

enum amp_code message_make(struct message_source *source, struct amp_arena *arena, Amp__Message **ret, struct amp_error *reterr)
{
    size_t n_files = 0;
    while (source->files != NULL && source->files[n_files] != NULL)
        n_files++;
    if (n_files > MESSAGE_FILES_MAX)
        return amp_error_set(reterr, AMP_TOO_LARGE, "", "%zu files are attached; at most %u are allowed", n_files, MESSAGE_FILES_MAX);
    Amp__Message *message = amp_arena_alloc(arena, sizeof *message);
    char *id = amp_arena_alloc(arena, AMP_ID_SIZE);
    Amp__Part **parts = amp_arena_alloc(arena, (n_files + 1) * sizeof *parts);
    if (message == NULL || id == NULL || parts == NULL)
        return amp_error_set(reterr, AMP_NO_MEMORY, "", "out of memory");
    amp__message__init(message);
    amp_id_new('m', clock_unix_ms(), id);
    message->message_id = id;
    message->task_id = (char *)source->task_id;
    message->context_id = (char *)source->context_id;
    message->has_role = true;
    message->role = AMP__ROLE__ROLE_USER;
    message->parts = parts;
    enum amp_code code = AMP_OK;
    if (source->text != NULL)
        code = text_part(source->text, arena, message, reterr);
    for (size_t i = 0; i < n_files && code == AMP_OK; i++)
        code = name_check(source->files[i], reterr);
    for (size_t i = 0; i < n_files && code == AMP_OK; i++)
        code = is_large(source, source->files[i]) ? large_part(source, source->files[i], arena, message, reterr) : file_part(source->files[i], arena, message, reterr);
    *ret = message;
    return code;
}

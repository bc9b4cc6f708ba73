/* Replays spec/vectors. tests/contract/vectors.py holds the same files against another implementation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>

#include <cjson/cJSON.h>

#include <amp/amp.h>

#include "gen.h"

static struct amp_arena arena;
static const struct cJSON *vector; /* the one in hand, for messages */

#define expect(condition, ...)                                                                                         \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            blame(__VA_ARGS__);                                                                                        \
    } while (0)

AMP_PRINTF(1, 2) _Noreturn static void blame(const char *fmt, ...)
{
    char said[1000], *text = cJSON_PrintUnformatted(vector);
    va_list args;
    va_start(args, fmt);
    vsnprintf(said, sizeof(said), fmt, args);
    va_end(args);
    print_error("%s\nin %s\n", said, text);
    free(text);
    fail();
    abort();
}

static const char *text_of(const char *member)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(vector, member));
}

static bool truth_of(const char *member)
{
    const struct cJSON *item = cJSON_GetObjectItemCaseSensitive(vector, member);
    expect(cJSON_IsBool(item), "%s is missing", member);
    return cJSON_IsTrue(item);
}

static enum amp_code code_of(const char *name)
{
    size_t n;
    const struct amp_code_info *table = amp_code_table(&n);
    for (size_t i = 0; name && i < n; i++)
        if (strcmp(table[i].name, name) == 0)
            return table[i].code;
    blame("no code of this name: %s", name ? name : "(none)");
}

static const ProtobufCMessageDescriptor *type_of(const char *name)
{
    for (size_t i = 0; name && i < gen_types_count; i++)
        if (strcmp(gen_types[i]->short_name, name) == 0)
            return gen_types[i];
    blame("no type of this name: %s", name ? name : "(none)");
}

/* The bytes live in the arena. */
static struct amp_bytes unhex(const char *hex)
{
    size_t n = strlen(hex) / 2;
    uint8_t *bytes = amp_arena_alloc(&arena, n + 1);
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        expect(sscanf(hex + 2 * i, "%2x", &byte) == 1, "not hex");
        bytes[i] = (uint8_t)byte;
    }
    return (struct amp_bytes){bytes, n};
}

static void expect_encodes_to(const ProtobufCMessage *message, enum amp_encoding encoding, struct amp_bytes wanted)
{
    struct amp_buf out;
    amp_buf_init(&out, AMP_WIRE_BYTES_MAX);
    enum amp_code code = amp_encode(message, encoding, &out, NULL);
    bool is_same = code == AMP_OK && out.len == wanted.len && memcmp(out.data, wanted.data, wanted.len) == 0;
    expect(is_same, "it encodes to %.*s", encoding == AMP_JSON ? (int)out.len : 0, (const char *)out.data);
    amp_buf_done(&out);
}

/* What arrives as an envelope is checked as the bus does it. */
static enum amp_code decode(struct amp_bytes wire, ProtobufCMessage **ret, struct amp_error *reterr)
{
    const ProtobufCMessageDescriptor *type = type_of(text_of("type"));
    if (type != &amp__envelope__descriptor)
        return amp_decode(type, wire, &arena, ret, reterr);
    Amp__Envelope *envelope;
    enum amp_code code = amp_envelope_decode(wire, 0, &arena, &envelope, NULL, reterr);
    if (code == AMP_OK)
        *ret = &envelope->base;
    return code;
}

static void encoding_holds(void)
{
    struct amp_bytes json = amp_bytes_of(text_of("json")), protobuf = unhex(text_of("protobuf"));
    struct amp_error err = {.code = AMP_OK};
    ProtobufCMessage *message;
    expect(decode(json, &message, &err) == AMP_OK, "json: %s: %s", err.field, err.message);
    expect_encodes_to(message, AMP_PROTOBUF, protobuf);
    expect_encodes_to(message, AMP_JSON, json);
    expect(decode(protobuf, &message, &err) == AMP_OK, "protobuf: %s: %s", err.field, err.message);
    expect_encodes_to(message, AMP_PROTOBUF, protobuf);
    expect_encodes_to(message, AMP_JSON, json);
    const struct cJSON *other;
    cJSON_ArrayForEach(other, cJSON_GetObjectItemCaseSensitive(vector, "accept")) {
        expect(decode(amp_bytes_of(other->valuestring), &message, &err) == AMP_OK, "%s: %s: %s", other->valuestring,
               err.field, err.message);
        expect_encodes_to(message, AMP_JSON, json);
    }
}

static void refusal_holds(void)
{
    const char *json = text_of("json"), *field = text_of("field");
    struct amp_error err = {.code = AMP_OK};
    ProtobufCMessage *message;
    enum amp_code code = decode(json ? amp_bytes_of(json) : unhex(text_of("protobuf")), &message, &err);
    expect(code == code_of(text_of("error")), "%s: %s: %s", amp_code_info(code)->name, err.field, err.message);
    expect(err.message[0] != '\0', "the error has no text");
    expect(!field || strcmp(field, err.field) == 0, "it blames %s", err.field);
}

static void json_holds(void)
{
    const char *json = text_of("json");
    struct amp_error err = {.code = AMP_OK};
    enum amp_code code = amp_json_check(json ? amp_bytes_of(json) : unhex(text_of("bytes")), &amp_json_limits_default, &err);
    expect(code == code_of(text_of("error")), "%s: %s", amp_code_info(code)->name, err.message);
}

static const char *const subject_kinds[] = {
    [AMP_SUBJECT_REQ] = "req",       [AMP_SUBJECT_REQ_INST] = "req_inst",  [AMP_SUBJECT_SKILL] = "skill",
    [AMP_SUBJECT_CTL] = "ctl",       [AMP_SUBJECT_HB] = "hb",              [AMP_SUBJECT_EVT] = "evt",
    [AMP_SUBJECT_ENV] = "env",       [AMP_SUBJECT_WHO] = "who",            [AMP_SUBJECT_WHO_SKILL] = "whoskill",
    [AMP_SUBJECT_WHO_ALL] = "whoall",
    [AMP_SUBJECT_CANARY] = "canary", [AMP_SUBJECT_FENCE] = "fence", [AMP_SUBJECT_BLOB] = "blob"};

static void subject_holds(const char *text)
{
    struct amp_subject subject;
    const char *error = text_of("error");
    enum amp_code code = amp_subject_parse(text, &subject, NULL);
    expect(code == (error ? code_of(error) : AMP_OK), "%s", amp_code_info(code)->name);
    if (code != AMP_OK)
        return;
    const struct cJSON *tokens = cJSON_GetObjectItemCaseSensitive(vector, "tokens");
    expect(strcmp(subject_kinds[subject.kind], text_of("kind")) == 0, "it is a %s", subject_kinds[subject.kind]);
    const char *parsed[] = {subject.a, subject.b, subject.c}, *given[3] = {NULL, NULL, NULL};
    for (int i = 0; i < 3; i++) {
        given[i] = cJSON_GetStringValue(cJSON_GetArrayItem(tokens, i));
        expect(strcmp(parsed[i], given[i] ? given[i] : "") == 0, "token %d is %s", i, parsed[i]);
    }
    char built[AMP_SUBJECT_SIZE];
    code = amp_subject_build(subject.kind, given[0], given[1], given[2], built, NULL);
    expect(code == AMP_OK && strcmp(built, text) == 0, "it is built as %s", built);
}

static void name_holds(void)
{
    const char *id = text_of("id"), *inbox = text_of("inbox");
    if (id)
        expect(amp_id_is_valid(id) == truth_of("valid"), "id");
    else if (inbox)
        expect(amp_subject_is_inbox(inbox) == truth_of("valid"), "inbox");
    else
        subject_holds(text_of("subject"));
}

static void move_holds(void)
{
    Amp__TaskState from = amp_task_state_parse(text_of("from")), to = amp_task_state_parse(text_of("to"));
    expect(from && to, "no such state");
    expect(amp_task_may_move(from, to) == truth_of("allowed"), "the move");
}

static void stream_holds(void)
{
    struct amp_stream stream;
    enum amp_code code = AMP_OK;
    uint32_t skip = 0;
    amp_stream_init(&stream);
    const struct cJSON *row;
    cJSON_ArrayForEach(row, cJSON_GetObjectItemCaseSensitive(vector, "frames")) {
        expect(code == AMP_OK, "a frame before the last: %s", amp_code_info(code)->name);
        const struct cJSON *count = cJSON_GetArrayItem(row, 2);
        Amp__End end = AMP__END__INIT;
        Amp__Frame frame = AMP__FRAME__INIT;
        frame.seq = (uint32_t)cJSON_GetArrayItem(row, 0)->valueint;
        frame.n_events = (size_t)cJSON_GetArrayItem(row, 1)->valueint;
        if (cJSON_IsNumber(count)) {
            end.count = (uint32_t)count->valueint;
            frame.end = &end;
        }
        code = amp_stream_take(&stream, &frame, &skip, NULL);
    }
    expect(code == code_of(text_of("error")), "%s", amp_code_info(code)->name);
    expect(code != AMP_OK || (int)skip == cJSON_GetObjectItem(vector, "skip")->valueint, "it skips %u", skip);
}

static const struct file {
    const char *name;
    void (*holds)(void);
} files[] = {
    {"encodings.json", encoding_holds}, {"refused.json", refusal_holds}, {"json.json", json_holds},
    {"names.json", name_holds},         {"states.json", move_holds},     {"streams.json", stream_holds},
};
#define FILES (sizeof(files) / sizeof(files[0]))

static struct cJSON *load(const char *name)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/%s", VECTORS_DIR, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    struct amp_buf text;
    uint8_t chunk[4096];
    amp_buf_init(&text, AMP_JSON_BYTES_MAX);
    for (size_t n; (n = fread(chunk, 1, sizeof(chunk), f)) > 0;)
        assert_int_equal(amp_buf_append(&text, chunk, n), AMP_OK);
    fclose(f);
    struct cJSON *file;
    assert_int_equal(amp_json_parse(amp_buf_bytes(&text), &file, NULL), AMP_OK);
    amp_buf_done(&text);
    return file;
}

static void replay(void **state)
{
    const struct file *file = *state;
    struct cJSON *json = load(file->name);
    size_t n = 0;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    cJSON_ArrayForEach(vector, cJSON_GetObjectItemCaseSensitive(json, "vectors")) {
        amp_arena_reset(&arena);
        file->holds();
        n++;
    }
    assert_true(n > 0);
    amp_arena_done(&arena);
    cJSON_Delete(json);
}

static void test_every_file_of_vectors_is_replayed(void **state)
{
    DIR *dir = opendir(VECTORS_DIR);
    assert_non_null(dir);
    size_t n = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t len = strlen(entry->d_name);
        n += len > 5 && strcmp(entry->d_name + len - 5, ".json") == 0;
    }
    closedir(dir);
    assert_int_equal(n, FILES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_file_of_vectors_is_replayed),
#define REPLAY(claim, i) {claim, replay, NULL, NULL, (void *)(uintptr_t)&files[i]}
        REPLAY("each vector decodes, and encodes to its other encoding", 0),
        REPLAY("each message that must be refused is, with the code and the field", 1),
        REPLAY("strict JSON is what the vectors say", 2),
        REPLAY("ids, subjects and inboxes are what the vectors say", 3),
        REPLAY("tasks move as the vectors say", 4),
        REPLAY("streams are followed as the vectors say", 5),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

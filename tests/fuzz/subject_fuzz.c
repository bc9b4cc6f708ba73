/* Subjects and ids from anywhere: what parses is built again to the same text; any text becomes a valid id; an inbox
 * has nothing in it that means something to the bus. */
#include <amp/amp.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *token(const char *text)
{
    return text[0] ? text : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    struct amp_subject subject;
    struct amp_error err;
    if (amp_subject_parse(text, &subject, &err) == AMP_OK) {
        char again[AMP_SUBJECT_SIZE];
        enum amp_code code =
            amp_subject_build(subject.kind, token(subject.a), token(subject.b), token(subject.c), again, &err);
        assert(code == AMP_OK);
        assert(strcmp(again, text) == 0);
    }
    if (amp_subject_is_inbox(text))
        assert(strpbrk(text, " \t\r\n*>") == NULL && strstr(text, "..") == NULL && strlen(text) < AMP_SUBJECT_SIZE);
    char id[AMP_NAME_MAX + 1], built[AMP_SUBJECT_SIZE];
    amp_id_from_text(text, id);
    assert(amp_id_is_valid(id));
    if (amp_subject_build(AMP_SUBJECT_REQ, id, text, NULL, built, &err) == AMP_OK)
        assert(strcmp(text, "*") == 0 || strcmp(text, ">") == 0 || amp_id_is_valid(text));
    (void)amp_task_state_parse(text);
    free(text);
    return 0;
}

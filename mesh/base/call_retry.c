#include "base/call_retry.h"

#include <stdio.h>
#include <string.h>

static bool has(const ProtobufCBinaryData *body, const char *text)
{
    return memmem(body->data, body->len, text, strlen(text)) != NULL;
}

/* By their text, without taking them apart: each call has one. What is written otherwise counts as something that was shown. */
static bool is_status(const Amp__Event *event, const char *state)
{
    static const char head[] = "{\"statusUpdate\":";
    const ProtobufCBinaryData *body = &event->body->text;
    return body->len > sizeof head && memcmp(body->data, head, sizeof head - 1) == 0 && has(body, state);
}

bool retry_is_quiet(const Amp__Event *event)
{
    const ProtobufCBinaryData *body = &event->body->text;
    return is_status(event, "\"state\":\"TASK_STATE_WORKING\"") && !has(body, "\"message\":") && !has(body, "\"metadata\":");
}

size_t retry_n_kept(const Amp__Frame *frame)
{
    size_t n = frame->n_events;
    return n && is_status(frame->events[n - 1], "\"state\":\"TASK_STATE_FAILED\"") ? n - 1 : n;
}

static enum retry_kind kind_of_code(uint32_t code)
{
    switch (code) {
    case AMP_AGENT_DIED:
    case AMP_INSTANCE_LOST:
    case AMP_HUNG:
    case AMP_STOPPING:
        return RETRY_BROKEN;
    case AMP_BUSY:
        return RETRY_LOAD;
    default:
        return RETRY_NONE;
    }
}

enum retry_kind retry_kind_of(const Amp__Frame *frame)
{
    enum retry_kind kind = frame->end && frame->end->error ? kind_of_code(frame->end->error->code) : RETRY_NONE;
    size_t n = retry_n_kept(frame);
    for (size_t i = 0; kind != RETRY_NONE && i < n; i++)
        if (!retry_is_quiet(frame->events[i]))
            return RETRY_NONE;
    return kind;
}

/* "agent died: SIGKILL" */
static void cause_text(enum amp_code cause, const Amp__Death *death, char *ret, size_t size)
{
    const char *signal = death && death->has_signal ? sigabbrev_np(death->signal) : NULL;
    snprintf(ret, size, "%s", cause == AMP_INTERRUPTED ? "the environment was restarted" : amp_code_info(cause)->name);
    for (char *at = ret; *at; at++)
        if (*at == '_')
            *at = ' ';
    size_t len = strlen(ret);
    if (death && death->oom)
        snprintf(ret + len, size - len, ": out of memory");
    else if (signal)
        snprintf(ret + len, size - len, ": SIG%s", signal);
    else if (death && death->has_exit_code)
        snprintf(ret + len, size - len, ": exit code %d", (int)death->exit_code);
}

void retry_tell(enum amp_code cause, const Amp__Death *death, uint32_t attempt, char text[RETRY_TEXT_SIZE], char metadata[RETRY_METADATA_SIZE])
{
    char words[96];
    const struct amp_code_info *info = amp_code_info(cause);
    snprintf(metadata, RETRY_METADATA_SIZE, "{\"amp/retry\":{\"attempt\":%u,\"cause\":\"%s\",\"code\":\"AMESH-%u\"}}", (unsigned)attempt, info->name, (unsigned)info->code);
    cause_text(cause, death, words, sizeof words);
    snprintf(text, RETRY_TEXT_SIZE, "retrying (%s), attempt %u", words, (unsigned)attempt);
}

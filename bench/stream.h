/* What the programs of the stream benchmark share: records of one size, each with its number and the moment in which it was written, and their reader, which does not care how the bytes between
 * agent and reader were cut. */
#pragma once
#include <ctype.h>
#include <stdbool.h>

#include "measure.h"

#define RECORD_SIZE 64 /* if nothing else is said */
#define RECORD_SIZE_MAX 32768
#define RECORD_HEAD 30 /* "@NNNNNNNN:NNNNNNNNNNNNNNNNNNNN" */

static inline void record_write(char out[RECORD_SIZE_MAX + 1], size_t number, size_t size)
{
    int len = snprintf(out, RECORD_SIZE, "@%08zu:%020ld", number % 100000000, measure_now_ns());
    memset(out + len, 'a', size - (size_t)len);
    out[size] = 0;
}

struct records {
    char head[RECORD_HEAD + 1];
    size_t len;                    /* of the head that has come */
    size_t received, out_of_order; /* out of order: lost ones before it, or came again */
    int64_t first_ns, last_ns;
    void (*on_record)(void *ctx, int64_t written_ns, int64_t now_ns);
    void *ctx;
};

static inline void records_take(struct records *records, const char *text, size_t len)
{
    int64_t now = measure_now_ns();
    for (const char *end = text + len; text < end; text++) {
        if (records->len == 0) {
            text = memchr(text, '@', (size_t)(end - text));
            if (!text)
                return;
        } else if (!isdigit((unsigned char)*text) && records->len != 9) {
            records->len = 0;
            continue;
        }
        records->head[records->len++] = *text;
        if (records->len < RECORD_HEAD)
            continue;
        records->len = 0;
        if (strtoul(records->head + 1, NULL, 10) != records->received)
            records->out_of_order++;
        if (records->received++ == 0)
            records->first_ns = now;
        records->last_ns = now;
        if (records->on_record)
            records->on_record(records->ctx, strtol(records->head + 10, NULL, 10), now);
    }
}

/* Between timeline.c (record, children, deaths), timeline_event.c (what events make of it) and timeline_print.c. */
#pragma once
#include "cli/timeline.h"

struct cJSON;

enum timeline_kind {
    TIMELINE_ACCEPTED,
    TIMELINE_WAIT,
    TIMELINE_AWAY, /* the environment, while an attempt went on */
    TIMELINE_ATTEMPT,
    TIMELINE_ATTEMPT_END,
    TIMELINE_CANCEL, /* somebody asked for the end */
    TIMELINE_IGNORED,
    TIMELINE_RETRY,
    TIMELINE_QUESTION,
    TIMELINE_ANSWER,
    TIMELINE_CLOSED, /* a question, without an answer; key: why */
    TIMELINE_TOOL,
    TIMELINE_STEP,
    TIMELINE_TEXT,
    TIMELINE_REASONING,
    TIMELINE_ARTIFACT,
    TIMELINE_SAYS,
    TIMELINE_LOG,
    TIMELINE_USAGE,
    TIMELINE_CUSTOM,
    TIMELINE_CHILD,
    TIMELINE_END,
    TIMELINE_KINDS,
};

struct item {
    enum timeline_kind kind;
    int64_t at_unix_ms, until_unix_ms; /* until: 0: a moment, or not over yet */
    uint32_t order, seq;               /* seq: of its first event; 0: it is none */
    uint32_t count;                    /* pieces of a text */
    uint32_t n_more;                   /* further ones of its kind, that have no line; the last of them was then: */
    int64_t more_until_unix_ms;
    uint64_t bytes;
    int number;                        /* of an attempt */
    uint32_t slot;                     /* the how manyth attempt that is kept it belongs to, or stands before; 0: none that is kept */
    uint32_t rank;                     /* its place beside others, whatever the clocks say: timeline_print.c */
    bool is_open, is_bad;
    bool is_again; /* what a former attempt had been told, told to this one */
    char *text;
    char *key; /* what its end is known by, or NULL */
    char agent[AMP_NAME_MAX + 1];
    Amp__TaskState state; /* of an end */
    char *details[TIMELINE_DETAILS_MAX];
    size_t n_details;
};

struct timeline {
    char task[AMP_NAME_MAX + 1];
    int64_t start_unix_ms, end_unix_ms;
    struct item *items;
    size_t count, cap;
    enum timeline_kind last_kind; /* of events */
    uint32_t run, kinds[TIMELINE_KINDS];
    uint32_t n_attempts, n_begun; /* that are kept; the last of them that has begun */
    int first_number;             /* of the first one that is kept */
};

/* The text becomes the timeline's. */
struct item *timeline_add(struct timeline *timeline, enum timeline_kind kind, int64_t unix_ms, char *text);
struct item *timeline_add_or_fold(struct timeline *timeline, enum timeline_kind kind, int64_t unix_ms, char *text); /* NULL: folded */
/* The newest of its kind with this key that is not over; NULL: none. */
struct item *timeline_find(struct timeline *timeline, enum timeline_kind kind, const char *key);

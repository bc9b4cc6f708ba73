/* What an adapter is: one file that speaks a foreign protocol, and a row in adapters.c. It sees this header and mesh/base, and nothing of the mesh: the sidecar (sidecar/worker_adapter.c) gives it tasks and takes
 * what it tells. Everything on the loop's thread; nothing here blocks. */
#pragma once
#include <amp/amp.h>

struct adapter;
struct adapter_host;
struct cJSON;
struct fetcher;
struct loop;

struct adapter_options {
    struct loop *loop;
    struct fetcher *fetcher;
    const char *target;        /* the value of its option: a URL, a command */
    const char *model, *system; /* --model, --system; NULL: not given */
    const char *key;           /* a secret: into no log and no error; NULL: none */
    uint32_t idle_ms;          /* silence of the other side that is too long; 0: never */
};

struct adapter_job { /* a task in its hands, from run until it is finished */
    const struct adapter_host *host;
    struct adapter *adapter;
    const char *task_id, *context_id;
    const Amp__Message *message; /* what was asked: of the turn, if there was one before */
    void *data;                  /* the adapter's own */
};

struct adapter_result {
    Amp__TaskState state;      /* COMPLETED, FAILED, REJECTED or CANCELED */
    const char *reason;        /* for people; may be NULL */
    struct amp_error error;    /* AMP_OK, or why in the mesh's terms. AMP_BUSY: the other side can take nothing now (retry_after_ms): load, and no failure */
};

/* What a job may do. `text` and `event` are false when the task is over or cancelled: the adapter stops then, and finishes. */
struct adapter_host {
    bool (*text)(struct adapter_job *job, struct amp_bytes text); /* valid UTF-8 */
    bool (*event)(struct adapter_job *job, const struct cJSON *event); /* a local event (local-api.md 4); borrowed */
    /* True: too much waits for the caller. The adapter reads no further until its `resume` is called, once. */
    bool (*is_full)(struct adapter_job *job);
    /* The end. The job is gone after it. */
    void (*finish)(struct adapter_job *job, const struct adapter_result *result);
};

struct adapter_kind {
    const char *option;  /* of amesh run: --openai URL */
    const char *key_env; /* where its key is, if there is no --key-file; NULL: it has none */
    /* Checks what can be checked without the other side. *ret is the caller's. */
    enum amp_code (*open)(const struct adapter_options *options, struct adapter **ret, struct amp_error *reterr);
    void (*run)(struct adapter *adapter, struct adapter_job *job);
    void (*cancel)(struct adapter *adapter, struct adapter_job *job); /* finish follows, at once or within 5 s */
    void (*resume)(struct adapter *adapter, struct adapter_job *job);
    void (*close)(struct adapter *adapter); /* no job is left */
};

extern const struct adapter_kind *const adapter_kinds[]; /* NULL-ended */
extern const struct adapter_kind adapter_openai;

/* What history says, through the environment's own verbs: every task with its events, one line each {"from":NUMBER-OF-THE-FIRST-EVENT,"record":…} (a task with many events has
 * several), or {"missing":ID}.
 *   chaos_export URL [ID…]     no ID: all that is listed */
#include "base/bus.h"
#include "base/envcall.h"
#include "base/log.h"
#include "base/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPLY_MS = 30000, IN_FLIGHT = 32, PAGE = 200 };

struct wanted {
    char id[AMP_NAME_MAX + 1];
};

static struct {
    struct loop *loop;
    struct bus *bus;
    struct wanted *wanted;
    size_t n_wanted, cap_wanted, n_asked, n_open;
    bool is_listed;
    struct amp_buf out;
} export;

static void ask_list(const char *token);
static void ask_more(void);

static void fail(const char *what, const struct amp_error *err)
{
    fprintf(stderr, "chaos_export: %s: %s\n", what, err->message);
    exit(1);
}

static void add_wanted(const char *id)
{
    if (export.n_wanted == export.cap_wanted) {
        export.cap_wanted = export.cap_wanted ? 2 * export.cap_wanted : 1024;
        export.wanted = realloc(export.wanted, export.cap_wanted * sizeof *export.wanted);
    }
    snprintf(export.wanted[export.n_wanted++].id, sizeof export.wanted->id, "%s", id);
}

static void call(Amp__EnvRequest *request, void (*on_reply)(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err), void *ctx)
{
    enum amp_code code = env_call(export.loop, export.bus, "export", request, REPLY_MS, on_reply, ctx, NULL);
    struct amp_error err = {0};
    if (code != AMP_OK) {
        amp_error_set(&err, code, "", "%s", amp_code_info(code)->text);
        fail("asking", &err);
    }
}

/* ---- one task -------------------------------------------------------------------------------------------------------- */

struct page {
    char id[AMP_NAME_MAX + 1], from[24];
};

static void ask_task(const char *id, const char *token);

static void print_record(const Amp__TaskRecord *record, const char *from)
{
    struct amp_error err;
    amp_buf_reset(&export.out);
    if (amp_encode(&record->base, AMP_JSON, &export.out, &err) != AMP_OK)
        fail(record->task->id, &err);
    printf("{\"from\":%s,\"record\":%.*s}\n", from, (int)export.out.len, (const char *)export.out.data);
}

static void on_task(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct page *page = ctx;
    const char *id = page->id;
    export.n_open--;
    if (err->code == AMP_NO_SUCH_TASK)
        printf("{\"missing\":\"%s\"}\n", id);
    else if (err->code != AMP_OK || reply->n_tasks != 1)
        fail(id, err);
    else
        print_record(reply->tasks[0], page->from);
    if (err->code == AMP_OK && reply->next_page_token && reply->next_page_token[0])
        ask_task(id, reply->next_page_token);
    free(page);
    ask_more();
}

static void ask_task(const char *id, const char *token)
{
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    query.id = (char *)id;
    query.has_events = query.events = 1;
    query.page_token = (char *)token;
    request.verb_case = AMP__ENV_REQUEST__VERB_GET;
    request.get = &query;
    export.n_open++;
    struct page *page = calloc(1, sizeof *page);
    snprintf(page->id, sizeof page->id, "%s", id);
    snprintf(page->from, sizeof page->from, "%s", token ? token : "1");
    call(&request, on_task, page);
}

static void ask_more(void)
{
    while (export.n_open < IN_FLIGHT && export.n_asked < export.n_wanted)
        ask_task(export.wanted[export.n_asked++].id, NULL);
    if (export.n_open == 0 && export.is_listed && export.n_asked == export.n_wanted)
        loop_stop(export.loop, 0);
}

/* ---- all -------------------------------------------------------------------------------------------------------------- */

static void on_list(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    (void)ctx;
    if (err->code != AMP_OK)
        fail("list", err);
    for (size_t i = 0; i < reply->n_tasks; i++)
        add_wanted(reply->tasks[i]->task->id);
    if (reply->next_page_token && reply->next_page_token[0])
        ask_list(reply->next_page_token);
    else
        export.is_listed = true;
    ask_more();
}

static void ask_list(const char *token)
{
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    query.has_page_size = 1;
    query.page_size = PAGE;
    query.page_token = (char *)token;
    request.verb_case = AMP__ENV_REQUEST__VERB_LIST;
    request.list = &query;
    call(&request, on_list, NULL);
}

int main(int argc, char **argv)
{
    struct amp_error err;
    if (argc < 2)
        return 2;
    log_init(LOG_ERROR, "export");
    export.loop = loop_new();
    amp_buf_init(&export.out, 64u << 20);
    struct bus_options options = {.url = argv[1], .name = "export"};
    if (bus_new(export.loop, &options, &export.bus, &err) != AMP_OK)
        fail(argv[1], &err);
    for (int i = 2; i < argc; i++)
        add_wanted(argv[i]);
    export.is_listed = argc > 2;
    if (export.is_listed)
        ask_more();
    else
        ask_list(NULL);
    int status = loop_run(export.loop);
    return fflush(stdout) == 0 ? status : 1;
}

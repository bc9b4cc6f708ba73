/* libcurl's multi interface, driven by our loop. The library is loaded when the first program needs it: with the two dozen that it brings it would double the time that every `amesh ls` takes to start. It must not be entered from inside its own callbacks: a fetch that is freed or paused there is dealt with at the end of the turn. */
#include "base/fetch.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#include "base/alloc.h"
#include "base/loop.h"

/* What of it we use. */
#define CALLS(X) \
    X(easy_cleanup) X(easy_getinfo) X(easy_init) X(easy_pause) X(easy_setopt) X(easy_strerror) \
    X(global_cleanup) X(global_init) X(multi_add_handle) X(multi_assign) X(multi_cleanup) X(multi_info_read) \
    X(multi_init) X(multi_remove_handle) X(multi_setopt) X(multi_socket_action) X(slist_append) X(slist_free_all)
#undef curl_easy_setopt
#undef curl_easy_getinfo
#undef curl_multi_setopt
static struct {
#define X(name) __typeof__(curl_##name) *name;
    CALLS(X)
#undef X
} curl;

static enum amp_code load(struct amp_error *reterr)
{
    void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL); /* never closed: it is loaded once */
    bool is_whole = library != NULL;
#define X(name)                                             \
    if (is_whole)                                           \
        *(void **)&curl.name = dlsym(library, "curl_" #name); \
    is_whole = is_whole && curl.name;
    CALLS(X)
#undef X
    if (is_whole)
        return AMP_OK;
    amp_error_set(reterr, AMP_UNSUPPORTED, "", "this host has no libcurl: %s", library ? "not all of it is there" : dlerror());
    amp_error_hint(reterr, "apt-get install libcurl4");
    return AMP_UNSUPPORTED;
}

struct watched { /* a descriptor of libcurl's */
    struct fetcher *fetcher;
    struct loop_io *io;
    curl_socket_t fd;
};

struct fetcher {
    struct loop *loop;
    CURLM *multi;
    struct loop_timer *timer;
    struct loop_tick *tick;
    LIST_HEAD(, fetch) fetches; /* freed ones too, until the tick */
};

struct fetch {
    LIST_ENTRY(fetch) entry;
    struct fetcher *fetcher;
    CURL *easy;
    struct curl_slist *headers;
    char *body;
    struct loop_timer *idle;
    uint32_t idle_ms;
    struct fetch_options handlers;
    struct amp_buf head; /* the headers, each with its NUL */
    int status;
    bool is_freed, is_over, is_head_told, is_head_too_large, is_paused, wants_pause;
    struct fetch_end end;
};

/* ---- the loop ----------------------------------------------------------------------------------------------------- */

static void finish_all(struct fetcher *fetcher);

static void act(struct fetcher *fetcher, curl_socket_t fd, int what)
{
    int running;
    (void)curl.multi_socket_action(fetcher->multi, fd, what, &running);
    finish_all(fetcher);
}

static void on_ready(void *ctx, int events)
{
    const struct watched *watched = ctx;
    act(watched->fetcher, watched->fd, ((events & LOOP_READ) ? CURL_CSELECT_IN : 0) | ((events & LOOP_WRITE) ? CURL_CSELECT_OUT : 0));
}

static void on_timer(void *ctx)
{
    act(ctx, CURL_SOCKET_TIMEOUT, 0);
}

static int watch(CURL *easy, curl_socket_t fd, int what, void *ctx, void *of_fd)
{
    struct fetcher *fetcher = ctx;
    struct watched *watched = of_fd;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (watched)
            loop_io_free(watched->io);
        free(watched);
        return curl.multi_assign(fetcher->multi, fd, NULL) == CURLM_OK ? 0 : -1;
    }
    if (!watched) {
        watched = xcalloc(1, sizeof *watched);
        *watched = (struct watched){.fetcher = fetcher, .fd = fd};
        watched->io = loop_io_new(fetcher->loop, fd, on_ready, watched);
        (void)curl.multi_assign(fetcher->multi, fd, watched);
    }
    loop_io_want(watched->io, ((what & CURL_POLL_IN) ? LOOP_READ : 0) | ((what & CURL_POLL_OUT) ? LOOP_WRITE : 0));
    return 0;
}

static int set_timer(CURLM *multi, long ms, void *ctx)
{
    struct fetcher *fetcher = ctx;
    (void)multi;
    if (ms < 0)
        loop_timer_stop(fetcher->timer);
    else
        loop_timer_set(fetcher->timer, (uint32_t)ms);
    return 0;
}

/* ---- one request -------------------------------------------------------------------------------------------------- */

static void touch(struct fetch *fetch)
{
    if (fetch->idle_ms && !fetch->is_paused && !fetch->wants_pause && !fetch->is_over)
        loop_timer_set(fetch->idle, fetch->idle_ms);
    else
        loop_timer_stop(fetch->idle);
}

static void tell_head(struct fetch *fetch)
{
    if (fetch->is_head_told || fetch->is_freed)
        return;
    long status = 0;
    (void)curl.easy_getinfo(fetch->easy, CURLINFO_RESPONSE_CODE, &status);
    fetch->status = (int)status;
    fetch->is_head_told = true;
    if (status && fetch->handlers.on_head)
        fetch->handlers.on_head(fetch->handlers.ctx);
}

static size_t on_header(char *data, size_t size, size_t count, void *ctx)
{
    struct fetch *fetch = ctx;
    size_t len = size * count;
    touch(fetch);
    if (len > 5 && memcmp(data, "HTTP/", 5) == 0)
        amp_buf_reset(&fetch->head); /* the head of a 100 or of a proxy was before it */
    while (len > 0 && (data[len - 1] == '\n' || data[len - 1] == '\r'))
        len--;
    if (len > 0 && !memchr(data, '\0', len) && (amp_buf_append(&fetch->head, data, len) != AMP_OK || amp_buf_append(&fetch->head, "", 1) != AMP_OK)) {
        fetch->is_head_too_large = true;
        return 0;
    }
    return size * count;
}

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    struct fetch *fetch = ctx;
    if (fetch->wants_pause && !fetch->is_freed) {
        fetch->is_paused = true;
        return CURL_WRITEFUNC_PAUSE; /* it comes again */
    }
    tell_head(fetch);
    if (!fetch->is_freed)
        fetch->handlers.on_data(fetch->handlers.ctx, (struct amp_bytes){(const uint8_t *)data, size * count});
    if (fetch->is_freed)
        return 0;
    touch(fetch);
    return size * count;
}

/* The name of the host alone: the rest of a URL may hold a key. */
static void host_of(const char *url, char *ret, size_t size)
{
    const char *at = strstr(url, "://");
    at = at ? at + 3 : url;
    size_t len = strcspn(at, "/?#");
    const char *user = memchr(at, '@', len);
    if (user) {
        len -= (size_t)(user + 1 - at);
        at = user + 1;
    }
    (void)snprintf(ret, size, "%.*s", (int)(len < size ? len : size - 1), at);
}

/* The answer, as far as there was one. */
static void describe_answer(struct fetch *fetch, CURLcode code, const char *host)
{
    struct amp_error *err = &fetch->end.error;
    if (fetch->is_head_too_large)
        amp_error_set(err, AMP_BAD_ANSWER, "", "%s: the head of its answer is too large", host);
    else if (code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_WEIRD_SERVER_REPLY)
        amp_error_set(err, AMP_BAD_ANSWER, "", "%s answers with something that is no HTTP", host);
    else
        amp_error_set(err, AMP_BAD_ANSWER, "", "%s broke off its answer: %s", host, curl.easy_strerror(code));
}

static void describe(struct fetch *fetch, CURLcode code)
{
    char host[128], *url = NULL;
    (void)curl.easy_getinfo(fetch->easy, CURLINFO_EFFECTIVE_URL, &url);
    host_of(url ? url : "", host, sizeof host);
    struct amp_error *err = &fetch->end.error;
    const char *why = curl.easy_strerror(code);
    switch (code) {
    case CURLE_OK: return;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT: amp_error_set(err, AMP_UPSTREAM, "", "%s cannot be reached: %s", host, why); break;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CONNECT_ERROR:
        amp_error_set(err, AMP_DENIED, "", "%s: %s", host, why);
        amp_error_hint(err, "a certificate authority of your own: SSL_CERT_FILE=FILE");
        break;
    case CURLE_OPERATION_TIMEDOUT: amp_error_set(err, AMP_UPSTREAM, "", "%s did not answer the connection in time", host); break;
    case CURLE_URL_MALFORMAT: amp_error_set(err, AMP_INVALID, "url", "the URL is none that can be asked: %s", why); break;
    default: describe_answer(fetch, code, host); break;
    }
}

static void end(struct fetch *fetch, CURLcode code)
{
    curl_off_t connected_us = 0;
    (void)curl.easy_getinfo(fetch->easy, CURLINFO_PRETRANSFER_TIME_T, &connected_us);
    describe(fetch, code);
    fetch->end.is_safe = code != CURLE_OK && connected_us == 0;
    fetch->is_over = true;
    loop_timer_stop(fetch->idle);
    if (code == CURLE_OK)
        tell_head(fetch); /* an answer without a body */
    if (!fetch->is_freed)
        fetch->handlers.on_end(fetch->handlers.ctx, &fetch->end);
}

static void finish_all(struct fetcher *fetcher)
{
    CURLMsg *message;
    int left;
    while ((message = curl.multi_info_read(fetcher->multi, &left)) != NULL) {
        struct fetch *fetch = NULL;
        CURLcode code = message->data.result;
        if (message->msg != CURLMSG_DONE)
            continue;
        (void)curl.easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&fetch);
        if (!fetch->is_over)
            end(fetch, code);
    }
}

static void on_idle(void *ctx)
{
    struct fetch *fetch = ctx;
    char host[128], *url = NULL;
    (void)curl.easy_getinfo(fetch->easy, CURLINFO_EFFECTIVE_URL, &url);
    host_of(url ? url : "", host, sizeof host);
    amp_error_set(&fetch->end.error, AMP_HUNG, "", "%s said nothing for %u ms", host, fetch->idle_ms);
    fetch->is_over = true;
    fetch->handlers.on_end(fetch->handlers.ctx, &fetch->end);
}

static void release(struct fetch *fetch)
{
    LIST_REMOVE(fetch, entry);
    (void)curl.multi_remove_handle(fetch->fetcher->multi, fetch->easy);
    curl.easy_cleanup(fetch->easy);
    curl.slist_free_all(fetch->headers);
    loop_timer_free(fetch->idle);
    amp_buf_done(&fetch->head);
    free(fetch->body);
    free(fetch);
}

static void on_tick(void *ctx)
{
    struct fetcher *fetcher = ctx;
    struct fetch *next;
    for (struct fetch *fetch = LIST_FIRST(&fetcher->fetches); fetch; fetch = next) {
        next = LIST_NEXT(fetch, entry);
        if (fetch->is_freed) {
            release(fetch);
        } else if (fetch->is_paused && !fetch->wants_pause && !fetch->is_over) {
            fetch->is_paused = false;
            touch(fetch);
            (void)curl.easy_pause(fetch->easy, CURLPAUSE_CONT); /* what was held back comes from inside */
            next = LIST_FIRST(&fetcher->fetches); /* whoever was freed meanwhile is still here, marked */
        }
    }
    finish_all(fetcher);
}

/* ---- what others see ------------------------------------------------------------------------------------------------ */

enum amp_code fetcher_new(struct loop *loop, struct fetcher **ret, struct amp_error *reterr)
{
    if (load(reterr) != AMP_OK)
        return reterr->code;
    struct fetcher *fetcher = xcalloc(1, sizeof *fetcher);
    (void)curl.global_init(CURL_GLOBAL_DEFAULT);
    fetcher->loop = loop;
    fetcher->multi = curl.multi_init();
    if (!fetcher->multi)
        abort(); /* out of memory */
    fetcher->timer = loop_timer_new(loop, on_timer, fetcher);
    fetcher->tick = loop_tick_new(loop, on_tick, fetcher);
    LIST_INIT(&fetcher->fetches);
    (void)curl.multi_setopt(fetcher->multi, CURLMOPT_SOCKETFUNCTION, watch);
    (void)curl.multi_setopt(fetcher->multi, CURLMOPT_SOCKETDATA, fetcher);
    (void)curl.multi_setopt(fetcher->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    (void)curl.multi_setopt(fetcher->multi, CURLMOPT_TIMERDATA, fetcher);
    *ret = fetcher;
    return AMP_OK;
}

void fetcher_free(struct fetcher *fetcher)
{
    if (!fetcher)
        return;
    while (!LIST_EMPTY(&fetcher->fetches))
        release(LIST_FIRST(&fetcher->fetches));
    (void)curl.multi_cleanup(fetcher->multi);
    loop_timer_free(fetcher->timer);
    loop_tick_free(fetcher->tick);
    curl.global_cleanup();
    free(fetcher);
}

static void add_headers(struct fetch *fetch, const struct fetch_options *options)
{
    for (size_t i = 0; options->headers && options->headers[i]; i++)
        fetch->headers = curl.slist_append(fetch->headers, options->headers[i]);
    fetch->headers = curl.slist_append(fetch->headers, "Expect:"); /* no round trip before the body */
    if (!options->key)
        return;
    char *line = xasprintf("Authorization: Bearer %s", options->key);
    fetch->headers = curl.slist_append(fetch->headers, line);
    free(line);
}

static void set_options(struct fetch *fetch, const struct fetch_options *options)
{
    CURL *easy = fetch->easy;
    (void)curl.easy_setopt(easy, CURLOPT_URL, options->url);
    (void)curl.easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl.easy_setopt(easy, CURLOPT_CUSTOMREQUEST, options->method);
    (void)curl.easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl.easy_setopt(easy, CURLOPT_USERAGENT, "amesh");
    (void)curl.easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)options->connect_ms);
    (void)curl.easy_setopt(easy, CURLOPT_PRIVATE, (char *)fetch);
    (void)curl.easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl.easy_setopt(easy, CURLOPT_HEADERDATA, fetch);
    (void)curl.easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl.easy_setopt(easy, CURLOPT_WRITEDATA, fetch);
    (void)curl.easy_setopt(easy, CURLOPT_HTTPHEADER, fetch->headers);
    if (options->body.len == 0)
        return;
    fetch->body = xcalloc(1, options->body.len);
    memcpy(fetch->body, options->body.data, options->body.len);
    (void)curl.easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)options->body.len);
    (void)curl.easy_setopt(easy, CURLOPT_POSTFIELDS, fetch->body);
}

struct fetch *fetch_start(struct fetcher *fetcher, const struct fetch_options *options)
{
    struct fetch *fetch = xcalloc(1, sizeof *fetch);
    *fetch = (struct fetch){.fetcher = fetcher, .handlers = *options, .idle_ms = options->idle_ms};
    amp_buf_init(&fetch->head, FETCH_HEAD_MAX);
    fetch->idle = loop_timer_new(fetcher->loop, on_idle, fetch);
    fetch->easy = curl.easy_init();
    if (!fetch->easy)
        abort(); /* out of memory */
    add_headers(fetch, options);
    set_options(fetch, options);
    LIST_INSERT_HEAD(&fetcher->fetches, fetch, entry);
    (void)curl.multi_add_handle(fetcher->multi, fetch->easy); /* sets the timer: it begins on the loop */
    touch(fetch);
    return fetch;
}

void fetch_free(struct fetch *fetch)
{
    if (!fetch)
        return;
    fetch->is_freed = true;
    loop_timer_stop(fetch->idle);
    loop_tick_request(fetch->fetcher->tick);
}

int fetch_status(const struct fetch *fetch)
{
    return fetch->status;
}

const char *fetch_header(const struct fetch *fetch, const char *name)
{
    const char *found = NULL;
    size_t len = strlen(name);
    for (size_t at = 0; at < fetch->head.len; at += strlen((const char *)fetch->head.data + at) + 1) {
        const char *line = (const char *)fetch->head.data + at;
        if (strncasecmp(line, name, len) == 0 && line[len] == ':')
            found = line + len + 1 + strspn(line + len + 1, " \t");
    }
    return found;
}

void fetch_pause(struct fetch *fetch, bool is_paused)
{
    fetch->wants_pause = is_paused;
    touch(fetch);
    if (!is_paused)
        loop_tick_request(fetch->fetcher->tick);
}

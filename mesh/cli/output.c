#include "cli/output.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/loop.h"

#define QUEUE_MAX (256u << 20)  /* then it is waited for after all */
#define PIECE_PIPE 4096u        /* PIPE_BUF: what a pipe that polls writable takes without blocking */
#define PIECE_TERMINAL 256u

void output_json(FILE *to, cJSON *json)
{
    char *text = cJSON_PrintUnformatted(json);
    fprintf(to, "%s\n", text != NULL ? text : "null");
    cJSON_free(text);
    cJSON_Delete(json);
}

bool output_message(FILE *to, const ProtobufCMessage *message)
{
    struct amp_buf out;
    amp_buf_init(&out, 2 * (size_t)AMP_FOLD_BYTES_MAX);
    bool is_ok = amp_encode(message, AMP_JSON, &out, NULL) == AMP_OK;
    if (is_ok) {
        fwrite(out.data, 1, out.len, to);
        fputc('\n', to);
    }
    amp_buf_done(&out);
    return is_ok;
}

/* ---- the end of output --------------------------------------------------------------------------------- */

static int lost_errno; /* why stdout takes nothing any more; 0: it does */

static bool has_reader(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    return poll(&out, 1, 0) <= 0 || (out.revents & (POLLERR | POLLHUP | POLLNVAL)) == 0;
}

bool output_is_lost(void)
{
    errno = 0;
    if (fflush(stdout) != 0 && lost_errno == 0)
        lost_errno = errno != 0 ? errno : EIO;
    if (ferror(stdout) && lost_errno == 0)
        lost_errno = EIO;
    return lost_errno != 0;
}

int output_finish(int status)
{
    if (!output_is_lost())
        return status;
    if (lost_errno == EPIPE || (lost_errno == EIO && !has_reader())) {
        signal(SIGPIPE, SIG_DFL);
        raise(SIGPIPE);
    }
    fprintf(stderr, "error: standard output cannot be written: %s (AMESH-%d). Try: free the disk, or send the output elsewhere\n", strerror(lost_errno), AMP_INTERNAL);
    return amp_code_info(AMP_INTERNAL)->exit;
}

static void on_stop(void *ctx, int signo)
{
    loop_stop(ctx, amp_code_info(AMP_INTERRUPTED)->exit);
}

static void on_reader(void *ctx, int events)
{
    if (has_reader())
        return;
    lost_errno = EPIPE;
    loop_stop(ctx, amp_code_info(AMP_INTERRUPTED)->exit);
}

void output_until_begin(struct loop *loop, struct output_until *ret)
{
    struct stat info;
    ret->on_sigint = loop_signal_new(loop, SIGINT, on_stop, loop);
    ret->reader = fstat(STDOUT_FILENO, &info) == 0 && S_ISFIFO(info.st_mode) ? loop_io_new(loop, STDOUT_FILENO, on_reader, loop) : NULL;
    if (ret->reader != NULL)
        loop_io_want(ret->reader, LOOP_READ);
}

void output_until_end(struct output_until *until)
{
    loop_signal_free(until->on_sigint);
    loop_io_free(until->reader);
}

/* ---- a stdout that does not block ------------------------------------------------------------------- */

static struct {
    struct loop *loop;
    struct loop_io *io;  /* while something waits */
    FILE *before;
    struct amp_buf waiting;
    size_t start;        /* written already */
    size_t piece;
    bool is_full, is_broken, is_told;
    void (*on_change)(void *ctx, enum output_event event);
    void *ctx;
} queue;

static size_t queue_len(void)
{
    return queue.waiting.len - queue.start;
}

/* is_patient: until nothing waits. */
static void queue_write(bool is_patient)
{
    while (queue_len() > 0 && !queue.is_broken) {
        struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
        if (!is_patient && poll(&out, 1, 0) == 0)
            return;
        size_t len = queue_len() < queue.piece ? queue_len() : queue.piece;
        ssize_t n = write(STDOUT_FILENO, queue.waiting.data + queue.start, len);
        if (n < 0 && errno == EAGAIN)
            (void)poll(&out, 1, is_patient ? -1 : 0);
        if (n < 0 && errno == EAGAIN && !is_patient)
            return;
        if (n < 0 && errno != EINTR && errno != EAGAIN) {
            queue.is_broken = true;
            lost_errno = errno;
        }
        queue.start += n > 0 ? (size_t)n : 0;
    }
    amp_buf_reset(&queue.waiting);
    queue.start = 0;
}

static void on_writable(void *ctx, int events);

static void queue_look(void)
{
    if (queue.is_broken && !queue.is_told) {
        queue.is_told = true;
        queue.on_change(queue.ctx, OUTPUT_LOST);
    }
    if (queue_len() > 0 && queue.io == NULL)
        queue.io = loop_io_new(queue.loop, STDOUT_FILENO, on_writable, NULL);
    if (queue.io != NULL)
        loop_io_want(queue.io, queue_len() > 0 ? LOOP_WRITE : 0);
    bool is_full = queue.is_full ? queue_len() > 0 : queue_len() > OUTPUT_FULL_BYTES;
    if (is_full == queue.is_full)
        return;
    queue.is_full = is_full;
    queue.on_change(queue.ctx, is_full ? OUTPUT_FULL : OUTPUT_FREE);
}

static void on_writable(void *ctx, int events)
{
    queue_write(false);
    queue_look();
}

static ssize_t take(void *cookie, const char *data, size_t len)
{
    if (queue.is_broken)
        return 0;
    if (queue.start > 0 && queue.waiting.len + len > queue.waiting.cap && queue.start >= queue_len()) {
        memmove(queue.waiting.data, queue.waiting.data + queue.start, queue_len());
        queue.waiting.len = queue_len();
        queue.start = 0;
    }
    if (amp_buf_append(&queue.waiting, data, len) != AMP_OK) {
        queue.waiting.is_full = false;
        queue_write(true);
        if (amp_buf_append(&queue.waiting, data, len) != AMP_OK)
            return 0;
    }
    queue_write(false);
    queue_look();
    return (ssize_t)len;
}

void output_queue_begin(struct loop *loop, void (*on_change)(void *ctx, enum output_event event), void *ctx)
{
    fflush(stdout);
    FILE *file = fopencookie(NULL, "w", (cookie_io_functions_t){.write = take});
    if (file == NULL)
        abort();
    queue.loop = loop;
    queue.before = stdout;
    queue.piece = isatty(STDOUT_FILENO) == 1 ? PIECE_TERMINAL : PIECE_PIPE;
    queue.is_full = queue.is_broken = queue.is_told = false;
    queue.on_change = on_change;
    queue.ctx = ctx;
    amp_buf_init(&queue.waiting, QUEUE_MAX);
    queue.start = 0;
    stdout = file;
}

void output_queue_end(void)
{
    fclose(stdout);
    stdout = queue.before;
    loop_io_free(queue.io);
    queue.io = NULL;
    signal(SIGINT, SIG_DFL);
    queue_write(true);
    amp_buf_done(&queue.waiting);
}

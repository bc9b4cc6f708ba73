#include "cli/output.h"

#include <cjson/cJSON.h>
#include <signal.h>

#include "base/loop.h"

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

static void on_stop(void *ctx, int signo)
{
    loop_stop(ctx, 130);
}

struct loop_signal *output_stop_on_sigint(struct loop *loop)
{
    return loop_signal_new(loop, SIGINT, on_stop, loop);
}

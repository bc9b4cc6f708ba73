#include "env/blob.h"

enum amp_code blob_check_none(const Amp__Message *message, const char *field, struct amp_error *reterr)
{
    if (!amp_message_has_blob(message))
        return AMP_OK;
    (void)amp_error_set(reterr, AMP_UNSUPPORTED, field, "a large file (amp-blob) cannot go with what is durable: its holder may be gone when it is read");
    amp_error_hint(reterr, "ask directly, or put the file where the agent finds it and send its address");
    return AMP_UNSUPPORTED;
}

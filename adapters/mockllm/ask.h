/* From the bodies of OpenAI's API to what the rules see. Lenient where servers are: what is not known is ignored. */
#pragma once
#include "mockllm/rules.h"

/* `body`: of POST /chat/completions, /responses or /embeddings. `before`: the items of the responses before this one (a list), or NULL. AMP_INVALID with the member in *reterr. *ret is the caller's
 * (mock_ask_done), also after an error. */
AMP_MUST_USE enum amp_code mock_ask_read(enum mock_api api, const struct cJSON *body, const struct cJSON *before, struct mock_ask *ret, struct amp_error *reterr);

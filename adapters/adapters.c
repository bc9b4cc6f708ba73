/* All adapters. A new one: its file, and a line here. */
#include "adapter.h"

#include <stddef.h>

const struct adapter_kind *const adapter_kinds[] = {&adapter_openai, NULL};

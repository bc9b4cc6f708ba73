/* Random valid messages of any type of amp.proto, from a seed. For property tests. */
#pragma once

#include <amp/amp.h>

struct gen {
    uint64_t state;
    struct amp_arena *arena; /* the messages live here */
};

/* Every message type of amp.proto. */
extern const ProtobufCMessageDescriptor *const gen_types[];
extern const size_t gen_types_count;

uint32_t gen_below(struct gen *gen, uint32_t n); /* 0…n-1; n ≥ 1 */
/* Fields are set or not at random; what the codec demands (required fields, one of a choice, UTF-8, valid Json, times
 * and enums in range) holds. */
ProtobufCMessage *gen_message(struct gen *gen, const ProtobufCMessageDescriptor *type);

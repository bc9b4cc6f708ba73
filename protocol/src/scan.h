/* A look at protobuf bytes before protobuf-c unpacks them. */
#pragma once

#include <amp/amp.h>

/* Is `wire` a message of `type` that is within limits.h and that the JSON form could say as well? Refused: bad lengths
 * and varints, wire types that disagree with the descriptor, groups, a singular field or a choice twice, a missing
 * required field, invalid UTF-8 or NUL in a string, a number out of its type's range, an unknown value of an enum, a
 * Json that is none, too many elements or unknown fields, too many levels. Levels are counted as in JSON. (amp.md 3.2)
 */
AMP_MUST_USE enum amp_code scan_protobuf(const ProtobufCMessageDescriptor *type, struct amp_bytes wire,
                                         struct amp_error *reterr);
/* Could a message of `type` begin with this byte in protobuf? */
bool scan_may_begin(const ProtobufCMessageDescriptor *type, uint8_t byte);

/* Copies of messages that stay. */
#pragma once

#include <amp/amp.h>

/* A deep copy in malloc's memory, for protobuf_c_message_free_unpacked(message, NULL); unknown fields too. NULL when
 * memory is gone. */
void *fold_clone(const ProtobufCMessage *message);

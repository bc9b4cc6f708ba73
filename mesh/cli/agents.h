/* Records of agents as the user's documents and tables show them. */
#pragma once
#include <amp/amp.h>

struct cJSON;

const char *agents_state_name(Amp__InstanceState state); /* "up", "draining" … */
const char *agents_beat_state(const Amp__Beat *beat); /* as above, or "stuck": it is up, and its agent stands still */
/* The state of the whole: "up" if one instance is, "stuck" if all that are up are that, else the best there is; "gone" without any. */
const char *agents_state(const Amp__AgentRecord *record);

struct agents_load {
    uint32_t instances, slots, free, inflight; /* of instances that are neither gone nor lost */
};
struct agents_load agents_load(const Amp__AgentRecord *record);
/* `amesh show AGENT --json`; with is_short without card and deaths, as in `amesh ls --json`. The caller's. */
struct cJSON *agents_json(const Amp__AgentRecord *record, bool is_short);
/* Any message as cJSON. The caller's; null if it cannot be encoded. */
struct cJSON *agents_message_json(const ProtobufCMessage *message);

/* Records of agents as users' documents show them: the members of `amesh ls --json` and of agents.list are made here. */
#pragma once
#include <amp/amp.h>

struct cJSON;

const char *agent_record_state_name(Amp__InstanceState state); /* "up", "draining" … */
/* The state of the whole: "up" if one instance is, else the best there is; "gone" without any. */
const char *agent_record_state(const Amp__AgentRecord *record);
/* {name, state, description, skills[], slots, free, inflight, instances[]}; load counts instances that are neither gone nor lost. The caller's. */
struct cJSON *agent_record_json(const Amp__AgentRecord *record);

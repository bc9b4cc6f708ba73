#include "base/agent_record.h"

#include <cjson/cJSON.h>

const char *agent_record_state_name(Amp__InstanceState state)
{
    static const char *const names[] = {
        [AMP__INSTANCE_STATE__INSTANCE_STATE_STARTING] = "starting", [AMP__INSTANCE_STATE__INSTANCE_STATE_UP] = "up",
        [AMP__INSTANCE_STATE__INSTANCE_STATE_DRAINING] = "draining", [AMP__INSTANCE_STATE__INSTANCE_STATE_RESTARTING] = "restarting",
        [AMP__INSTANCE_STATE__INSTANCE_STATE_GONE] = "gone",         [AMP__INSTANCE_STATE__INSTANCE_STATE_LOST] = "lost",
    };
    size_t index = (size_t)state;
    return index < sizeof names / sizeof *names && names[index] ? names[index] : "unknown";
}

const char *agent_record_state(const Amp__AgentRecord *record)
{
    static const Amp__InstanceState best_first[] = {
        AMP__INSTANCE_STATE__INSTANCE_STATE_UP,       AMP__INSTANCE_STATE__INSTANCE_STATE_STARTING, AMP__INSTANCE_STATE__INSTANCE_STATE_RESTARTING,
        AMP__INSTANCE_STATE__INSTANCE_STATE_DRAINING, AMP__INSTANCE_STATE__INSTANCE_STATE_LOST,
    };
    for (size_t i = 0; i < sizeof best_first / sizeof *best_first; i++)
        for (size_t j = 0; j < record->n_instances; j++)
            if (record->instances[j]->beat->state == best_first[i])
                return agent_record_state_name(best_first[i]);
    return "gone";
}

static void add_time(cJSON *json, const char *name, const Amp__Timestamp *time)
{
    char text[AMP_TIME_SIZE];
    if (!time) {
        cJSON_AddNullToObject(json, name);
        return;
    }
    amp_time_format(time->unix_ms, text);
    cJSON_AddStringToObject(json, name, text);
}

static void add_pid(cJSON *json, const char *name, bool has, int32_t pid)
{
    if (has && pid > 0)
        cJSON_AddNumberToObject(json, name, pid);
    else
        cJSON_AddNullToObject(json, name);
}

static void add_texts(cJSON *json, const char *name, char *const *texts, size_t n)
{
    cJSON *array = cJSON_AddArrayToObject(json, name);
    for (size_t i = 0; i < n; i++)
        cJSON_AddItemToArray(array, cJSON_CreateString(texts[i]));
}

static cJSON *instance_json(const Amp__Instance *instance)
{
    const Amp__Beat *beat = instance->beat;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "id", beat->instance ? beat->instance : "");
    cJSON_AddStringToObject(json, "host", beat->host ? beat->host : "");
    add_pid(json, "pid", beat->has_pid, beat->pid);
    add_pid(json, "sidecar_pid", beat->has_sidecar_pid, beat->sidecar_pid);
    cJSON_AddStringToObject(json, "state", agent_record_state_name(beat->state));
    cJSON_AddNumberToObject(json, "slots", beat->slots);
    cJSON_AddNumberToObject(json, "free", beat->free);
    cJSON_AddNumberToObject(json, "inflight", beat->inflight);
    add_time(json, "since", beat->since);
    add_time(json, "last_progress", beat->last_progress);
    add_time(json, "seen", instance->seen);
    cJSON_AddStringToObject(json, "version", beat->version ? beat->version : "");
    cJSON_AddStringToObject(json, "retry", beat->retry ? beat->retry : "");
    add_texts(json, "tags", beat->tags, beat->n_tags);
    add_texts(json, "tasks", beat->tasks, beat->n_tasks);
    return json;
}

static void add_load(cJSON *json, const Amp__AgentRecord *record)
{
    double slots = 0, free_slots = 0, inflight = 0;
    for (size_t i = 0; i < record->n_instances; i++) {
        const Amp__Beat *beat = record->instances[i]->beat;
        if (beat->state == AMP__INSTANCE_STATE__INSTANCE_STATE_GONE || beat->state == AMP__INSTANCE_STATE__INSTANCE_STATE_LOST)
            continue;
        slots += beat->slots;
        free_slots += beat->free;
        inflight += beat->inflight;
    }
    cJSON_AddNumberToObject(json, "slots", slots);
    cJSON_AddNumberToObject(json, "free", free_slots);
    cJSON_AddNumberToObject(json, "inflight", inflight);
}

cJSON *agent_record_json(const Amp__AgentRecord *record)
{
    const Amp__AgentCard *card = record->card;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "name", record->name);
    cJSON_AddStringToObject(json, "state", agent_record_state(record));
    cJSON_AddStringToObject(json, "description", card && card->description ? card->description : "");
    cJSON *skills = cJSON_AddArrayToObject(json, "skills");
    for (size_t i = 0; card && i < card->n_skills; i++)
        if (card->skills[i]->id)
            cJSON_AddItemToArray(skills, cJSON_CreateString(card->skills[i]->id));
    add_load(json, record);
    cJSON *instances = cJSON_AddArrayToObject(json, "instances");
    for (size_t i = 0; i < record->n_instances; i++)
        cJSON_AddItemToArray(instances, instance_json(record->instances[i]));
    return json;
}

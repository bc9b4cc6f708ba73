#include "cli/agents.h"

#include <cjson/cJSON.h>

#include "cli/error.h"

const char *agents_state_name(Amp__InstanceState state)
{
    switch (state) {
    case AMP__INSTANCE_STATE__INSTANCE_STATE_STARTING:
        return "starting";
    case AMP__INSTANCE_STATE__INSTANCE_STATE_UP:
        return "up";
    case AMP__INSTANCE_STATE__INSTANCE_STATE_DRAINING:
        return "draining";
    case AMP__INSTANCE_STATE__INSTANCE_STATE_RESTARTING:
        return "restarting";
    case AMP__INSTANCE_STATE__INSTANCE_STATE_GONE:
        return "gone";
    case AMP__INSTANCE_STATE__INSTANCE_STATE_LOST:
        return "lost";
    default:
        return "unknown";
    }
}

const char *agents_beat_state(const Amp__Beat *beat)
{
    return beat->stuck != NULL && beat->state == AMP__INSTANCE_STATE__INSTANCE_STATE_UP ? "stuck" : agents_state_name(beat->state);
}

const char *agents_state(const Amp__AgentRecord *record)
{
    const char *stuck = NULL;
    static const Amp__InstanceState best_first[] = {
        AMP__INSTANCE_STATE__INSTANCE_STATE_UP,         AMP__INSTANCE_STATE__INSTANCE_STATE_STARTING,
        AMP__INSTANCE_STATE__INSTANCE_STATE_RESTARTING, AMP__INSTANCE_STATE__INSTANCE_STATE_DRAINING,
        AMP__INSTANCE_STATE__INSTANCE_STATE_LOST,
    };
    for (size_t i = 0; i < sizeof best_first / sizeof *best_first; i++) {
        for (size_t j = 0; j < record->n_instances; j++) {
            const Amp__Beat *beat = record->instances[j]->beat;
            if (beat->state == best_first[i] && beat->stuck == NULL)
                return agents_state_name(beat->state);
            if (beat->state == best_first[i])
                stuck = agents_beat_state(beat);
        }
        if (stuck != NULL)
            return stuck;
    }
    return "gone";
}

struct agents_load agents_load(const Amp__AgentRecord *record)
{
    struct agents_load load = {0};
    for (size_t i = 0; i < record->n_instances; i++) {
        const Amp__Beat *beat = record->instances[i]->beat;
        if (beat->state == AMP__INSTANCE_STATE__INSTANCE_STATE_GONE || beat->state == AMP__INSTANCE_STATE__INSTANCE_STATE_LOST)
            continue;
        load.instances++;
        load.slots += beat->slots;
        load.free += beat->free;
        load.inflight += beat->inflight;
    }
    return load;
}

cJSON *agents_message_json(const ProtobufCMessage *message)
{
    struct amp_buf buf;
    cJSON *json = NULL;
    amp_buf_init(&buf, 2 * (size_t)AMP_JSON_BYTES_MAX);
    if (message != NULL && amp_encode(message, AMP_JSON, &buf, NULL) == AMP_OK)
        json = cJSON_ParseWithLength((const char *)buf.data, buf.len);
    amp_buf_done(&buf);
    return json != NULL ? json : cJSON_CreateNull();
}

static void add_time(cJSON *json, const char *name, const Amp__Timestamp *time)
{
    char text[AMP_TIME_SIZE];
    if (time == NULL) {
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

static cJSON *strings(char *const *items, size_t count)
{
    cJSON *array = cJSON_CreateArray();
    for (size_t i = 0; i < count; i++)
        cJSON_AddItemToArray(array, cJSON_CreateString(items[i]));
    return array;
}

static cJSON *instance_json(const Amp__Instance *instance)
{
    const Amp__Beat *beat = instance->beat;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "id", beat->instance);
    cJSON_AddStringToObject(json, "host", beat->host != NULL ? beat->host : "");
    add_pid(json, "pid", beat->has_pid, beat->pid);
    add_pid(json, "sidecar_pid", beat->has_sidecar_pid, beat->sidecar_pid);
    cJSON_AddStringToObject(json, "state", agents_state_name(beat->state));
    cJSON_AddNumberToObject(json, "slots", beat->slots);
    cJSON_AddNumberToObject(json, "free", beat->free);
    cJSON_AddNumberToObject(json, "inflight", beat->inflight);
    add_time(json, "since", beat->since);
    add_time(json, "last_progress", beat->last_progress);
    add_time(json, "seen", instance->seen);
    cJSON_AddStringToObject(json, "version", beat->version != NULL ? beat->version : "");
    if (beat->stuck != NULL)
        cJSON_AddStringToObject(json, "stuck", beat->stuck);
    cJSON_AddNumberToObject(json, "queued", beat->queued);
    cJSON_AddStringToObject(json, "retry", beat->retry != NULL ? beat->retry : "");
    cJSON_AddItemToObject(json, "tags", strings(beat->tags, beat->n_tags));
    cJSON_AddItemToObject(json, "tasks", strings(beat->tasks, beat->n_tasks));
    return json;
}

static void add_skills(cJSON *json, const Amp__AgentCard *card)
{
    cJSON *skills = cJSON_AddArrayToObject(json, "skills");
    for (size_t i = 0; card != NULL && i < card->n_skills; i++) {
        if (card->skills[i]->id != NULL)
            cJSON_AddItemToArray(skills, cJSON_CreateString(card->skills[i]->id));
    }
}

cJSON *agents_json(const Amp__AgentRecord *record, bool is_short)
{
    struct agents_load load = agents_load(record);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "name", record->name);
    cJSON_AddStringToObject(json, "state", agents_state(record));
    cJSON_AddStringToObject(json, "description", record->card != NULL && record->card->description != NULL ? record->card->description : "");
    add_skills(json, record->card);
    cJSON_AddNumberToObject(json, "slots", load.slots);
    cJSON_AddNumberToObject(json, "free", load.free);
    cJSON_AddNumberToObject(json, "inflight", load.inflight);
    if (!is_short)
        cJSON_AddItemToObject(json, "card", agents_message_json(record->card != NULL ? &record->card->base : NULL));
    cJSON *instances = cJSON_AddArrayToObject(json, "instances");
    for (size_t i = 0; i < record->n_instances; i++)
        cJSON_AddItemToArray(instances, instance_json(record->instances[i]));
    if (is_short)
        return json;
    cJSON *deaths = cJSON_AddArrayToObject(json, "deaths");
    for (size_t i = 0; i < record->n_deaths; i++)
        cJSON_AddItemToArray(deaths, error_death_json(record->deaths[i]));
    return json;
}

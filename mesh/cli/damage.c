#include "cli/damage.h"

#include <cjson/cJSON.h>

bool damage_note(struct damage *damage, const Amp__TaskRecord *record)
{
    const Amp__Error *error = record->error;
    if (record->task->status != NULL || error == NULL || error->code != AMP_CORRUPT)
        return false;
    if (damage->count++ == 0) {
        damage->tasks = cJSON_CreateArray();
        amp_error_set(&damage->err, AMP_CORRUPT, "", "%s", error->message != NULL ? error->message : "a task is not what was written");
        amp_error_hint(&damage->err, "%s", error->hint != NULL ? error->hint : "amesh env verify says all that is damaged");
    }
    cJSON *one = cJSON_CreateObject(), *json = NULL;
    cJSON_AddStringToObject(one, "id", record->task->id != NULL ? record->task->id : "");
    cJSON_AddItemToObject(one, "error", json = cJSON_CreateObject());
    cJSON_AddNumberToObject(json, "code", error->code);
    cJSON_AddStringToObject(json, "message", error->message != NULL ? error->message : "");
    cJSON_AddItemToArray(damage->tasks, one);
    return true;
}

void damage_add_json(struct damage *damage, struct cJSON *document)
{
    if (damage->tasks != NULL)
        cJSON_AddItemToObject(document, "damaged", damage->tasks);
    damage->tasks = NULL;
}

int damage_end(const struct cli *cli, struct damage *damage)
{
    cJSON_Delete(damage->tasks);
    damage->tasks = NULL;
    if (damage->count == 0)
        return 0;
    if (damage->count > 1) {
        char first[sizeof damage->err.message];
        snprintf(first, sizeof first, "%s", damage->err.message);
        snprintf(damage->err.message, sizeof damage->err.message, "%.350s; and %u more", first, damage->count - 1);
    }
    return cli_fail(cli, &damage->err, NULL);
}

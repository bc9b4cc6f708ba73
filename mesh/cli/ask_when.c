/* amesh ask: --at and --in, --every and --cron. */
#include <string.h>

#include "base/clock.h"
#include "base/zone.h"
#include "cli/ask.h"

static const char *value(const struct ask *ask, const char *option)
{
    return command_value(ask->cli.command, ask->cli.args, option);
}

static int read_moment(struct ask *ask, const char *option, struct moment *ret)
{
    const char *text = value(ask, option);
    struct zone *zone = NULL;
    struct amp_error err = {0};
    if (text == NULL)
        return 0;
    enum amp_code code = zone_open(NULL, &zone, &err);
    if (code == AMP_OK)
        code = moment_parse(text, clock_unix_ms(), zone, ret, &err);
    zone_free(zone);
    if (code == AMP_OK)
        return 0;
    struct amp_error said = {0};
    amp_error_set(&said, AMP_INVALID, "", "--%s: %s", option, err.message);
    amp_error_hint(&said, "%s", err.hint);
    return cli_fail(&ask->cli, &said, NULL);
}

int ask_read_when(struct ask *ask)
{
    struct ask_when *when = &ask->when;
    uint32_t in_ms = 0;
    int status = read_moment(ask, "at", &when->at);
    if (status == 0)
        status = cli_duration(&ask->cli, "in", &in_ms);
    if (status != 0)
        return status;
    if (in_ms > 0 && when->at.unix_ms > 0)
        return cli_usage(&ask->cli, "--at and --in exclude each other");
    if (in_ms > 0)
        when->at = (struct moment){.unix_ms = clock_unix_ms() + in_ms, .in_ms = in_ms};
    if (when->at.unix_ms > 0 && value(ask, "task") != NULL)
        return cli_usage(&ask->cli, "an answer is given at once: --at and --in are for new tasks");
    return 0;
}

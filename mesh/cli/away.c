#include "cli/away.h"

#include "base/clock.h"

void away_init(struct away *away, const struct cli *cli, const char *promise)
{
    *away = (struct away){.cli = cli, .promise = promise};
}

void away_lost(struct away *away, const char *why)
{
    const struct print_style *style = &away->cli->err;
    if (away->is_away)
        return;
    away->is_away = true;
    away->since_unix_ms = clock_unix_ms();
    fflush(stdout); /* on a terminal both are read as one text */
    fprintf(stderr, "%s%s: %s; waiting for it%s%s%s\n", print_on(style, PRINT_YELLOW), away->has_heard ? "connection lost" : "not connected", why,
            away->promise != NULL ? ", " : "", away->promise != NULL ? away->promise : "", print_off(style));
}

void away_back(struct away *away, const char *note)
{
    const struct print_style *style = &away->cli->err;
    char after[PRINT_SHORT_SIZE];
    bool was_lost = away->is_away && away->has_heard;
    away->told = AMP_OK;
    away->has_heard = true;
    if (!away->is_away)
        return;
    away->is_away = false;
    print_duration(clock_unix_ms() - away->since_unix_ms, after);
    fprintf(stderr, "%sconnected%s", print_on(style, PRINT_DIM), was_lost ? " again" : "");
    if (was_lost && note != NULL)
        fprintf(stderr, " after %s; %s", after, note);
    fprintf(stderr, "%s\n", print_off(style));
}

void away_answer(struct away *away, const struct amp_error *err)
{
    if (err->code == AMP_OK)
        away_back(away, NULL);
    else if (err->code == AMP_NO_BUS)
        away_lost(away, "the bus is away");
    else if (err->code == AMP_NO_ENV)
        away_lost(away, "no environment is there");
    else if (err->code == AMP_DEADLINE)
        away_lost(away, "the environment does not answer");
    else if (err->code != away->told)
        cli_fail(away->cli, err, NULL);
    if (err->code != AMP_OK)
        away->told = err->code;
}

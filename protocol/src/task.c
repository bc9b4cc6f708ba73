/* The state machine of a task (amp.md 4.3). The table is the rule, the test data and the diagram in the document. */
#include <amp/amp.h>

#include <string.h>
#include <strings.h>

#define STATES 9
#define STATE(name) AMP__TASK_STATE__TASK_STATE_##name

static const bool task_moves[STATES][STATES] = {
    /* A task that nobody has heard of may be seen first in any state. */
    [STATE(UNSPECIFIED)] = {[STATE(SUBMITTED)] = true,
                            [STATE(WORKING)] = true,
                            [STATE(COMPLETED)] = true,
                            [STATE(FAILED)] = true,
                            [STATE(CANCELED)] = true,
                            [STATE(INPUT_REQUIRED)] = true,
                            [STATE(REJECTED)] = true,
                            [STATE(AUTH_REQUIRED)] = true},
    [STATE(SUBMITTED)] = {[STATE(SUBMITTED)] = true,
                          [STATE(WORKING)] = true,
                          [STATE(COMPLETED)] = true,
                          [STATE(FAILED)] = true,
                          [STATE(CANCELED)] = true,
                          [STATE(INPUT_REQUIRED)] = true,
                          [STATE(REJECTED)] = true,
                          [STATE(AUTH_REQUIRED)] = true},
    [STATE(WORKING)] = {[STATE(WORKING)] = true,
                        [STATE(COMPLETED)] = true,
                        [STATE(FAILED)] = true,
                        [STATE(CANCELED)] = true,
                        [STATE(INPUT_REQUIRED)] = true,
                        [STATE(REJECTED)] = true,
                        [STATE(AUTH_REQUIRED)] = true},
    [STATE(INPUT_REQUIRED)] = {[STATE(WORKING)] = true,
                               [STATE(COMPLETED)] = true,
                               [STATE(FAILED)] = true,
                               [STATE(CANCELED)] = true,
                               [STATE(INPUT_REQUIRED)] = true,
                               [STATE(REJECTED)] = true,
                               [STATE(AUTH_REQUIRED)] = true},
    [STATE(AUTH_REQUIRED)] = {[STATE(WORKING)] = true,
                              [STATE(COMPLETED)] = true,
                              [STATE(FAILED)] = true,
                              [STATE(CANCELED)] = true,
                              [STATE(INPUT_REQUIRED)] = true,
                              [STATE(REJECTED)] = true,
                              [STATE(AUTH_REQUIRED)] = true},
    /* COMPLETED, FAILED, CANCELED, REJECTED: nothing follows. */
};

static const char *const long_names[STATES] = {
    [STATE(UNSPECIFIED)] = "TASK_STATE_UNSPECIFIED",
    [STATE(SUBMITTED)] = "TASK_STATE_SUBMITTED",
    [STATE(WORKING)] = "TASK_STATE_WORKING",
    [STATE(COMPLETED)] = "TASK_STATE_COMPLETED",
    [STATE(FAILED)] = "TASK_STATE_FAILED",
    [STATE(CANCELED)] = "TASK_STATE_CANCELED",
    [STATE(INPUT_REQUIRED)] = "TASK_STATE_INPUT_REQUIRED",
    [STATE(REJECTED)] = "TASK_STATE_REJECTED",
    [STATE(AUTH_REQUIRED)] = "TASK_STATE_AUTH_REQUIRED",
};

static const char *const short_names[STATES] = {
    [STATE(UNSPECIFIED)] = "unspecified",
    [STATE(SUBMITTED)] = "submitted",
    [STATE(WORKING)] = "working",
    [STATE(COMPLETED)] = "completed",
    [STATE(FAILED)] = "failed",
    [STATE(CANCELED)] = "canceled",
    [STATE(INPUT_REQUIRED)] = "input-required",
    [STATE(REJECTED)] = "rejected",
    [STATE(AUTH_REQUIRED)] = "auth-required",
};

/* The wire can carry any number in an enum's place. */
static unsigned state_index(Amp__TaskState state)
{
    return (unsigned)state < STATES ? (unsigned)state : (unsigned)STATE(UNSPECIFIED);
}

bool amp_task_may_move(Amp__TaskState from, Amp__TaskState to)
{
    return (unsigned)from < STATES && (unsigned)to < STATES && task_moves[from][to];
}

bool amp_task_is_terminal(Amp__TaskState state)
{
    return state == STATE(COMPLETED) || state == STATE(FAILED) || state == STATE(CANCELED) || state == STATE(REJECTED);
}

bool amp_task_is_waiting(Amp__TaskState state)
{
    return state == STATE(INPUT_REQUIRED) || state == STATE(AUTH_REQUIRED);
}

const char *amp_task_state_name(Amp__TaskState state)
{
    return long_names[state_index(state)];
}

const char *amp_task_state_short(Amp__TaskState state)
{
    return short_names[state_index(state)];
}

/* "input-required", "Input_Required" and "TASK_STATE_INPUT_REQUIRED" are one state. */
static bool name_is(const char *name, const char *short_name)
{
    size_t i = 0;
    for (; name[i] && short_name[i]; i++) {
        char c = (char)(name[i] == '_' ? '-' : name[i]);
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if (c != short_name[i])
            return false;
    }
    return name[i] == short_name[i];
}

Amp__TaskState amp_task_state_parse(const char *name)
{
    static const char prefix[] = "TASK_STATE_";
    if (!name)
        return STATE(UNSPECIFIED);
    if (strncasecmp(name, prefix, sizeof(prefix) - 1) == 0)
        name += sizeof(prefix) - 1;
    for (unsigned i = 0; i < STATES; i++) {
        if (name_is(name, short_names[i]))
            return (Amp__TaskState)i;
    }
    return STATE(UNSPECIFIED);
}

/* The agents above a call: circles and chains that do not end are refused, and the error shows the way. */
#include "base/call.h"

#include <stdio.h>
#include <string.h>

#define HEAD 2u /* names that are always shown: the outermost, and */
#define TAIL 3u /* the last ones */

static size_t add(char ret[CALL_PATH_SIZE], size_t len, const char *name)
{
    int n = snprintf(ret + len, CALL_PATH_SIZE - len, "%s%s", len > 0 ? " -> " : "", name);
    return n > 0 && len + (size_t)n < CALL_PATH_SIZE ? len + (size_t)n : CALL_PATH_SIZE - 1;
}

void call_path_text(char *const *path, size_t n_path, const char *last, char ret[CALL_PATH_SIZE])
{
    size_t needed = last ? strlen(last) + sizeof " -> " : 1, len = 0;
    ret[0] = '\0';
    for (size_t i = 0; i < n_path; i++)
        needed += strlen(path[i]) + sizeof " -> " - 1;
    bool is_cut = needed > CALL_PATH_SIZE && n_path > HEAD + TAIL;
    for (size_t i = 0; i < n_path; i++) {
        if (!is_cut || i < HEAD || i + TAIL > n_path)
            len = add(ret, len, path[i]);
        else if (i == HEAD)
            len = add(ret, len, "...");
    }
    if (last)
        (void)add(ret, len, last);
}

enum amp_code call_check_path(const char *agent, uint32_t hops, char *const *path, size_t n_path, struct amp_error *reterr)
{
    char text[CALL_PATH_SIZE];
    for (size_t i = 0; agent && i < n_path; i++) {
        if (strcmp(path[i], agent) != 0)
            continue;
        call_path_text(path, n_path, agent, text);
        amp_error_set(reterr, AMP_LOOP, "agent", "agent %s is already at work above this call: %s", agent, text);
        amp_error_hint(reterr, "it would wait for itself; ask another agent");
        return AMP_LOOP;
    }
    if (hops <= AMP_HOPS_MAX && n_path <= AMP_HOPS_MAX)
        return AMP_OK;
    call_path_text(path, n_path, agent, text);
    amp_error_set(reterr, AMP_HOPS, "hops", "%u calls stand above this one; at most %u may: %s", (unsigned)(hops > n_path ? hops : n_path), AMP_HOPS_MAX, text);
    amp_error_hint(reterr, "agents call each other in a chain that does not end");
    return AMP_HOPS;
}

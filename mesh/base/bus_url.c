/* What a bus is called: the URLs of its servers. */
#include "base/bus_private.h"

#include "base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int bus_url_split(const char *urls, char **ret)
{
    int n = 0;
    while (n < BUS_SERVERS_MAX) {
        urls += strspn(urls, ", \t");
        size_t len = strcspn(urls, ", \t");
        if (len == 0)
            break;
        ret[n++] = xstrndup(urls, len);
        urls += len;
    }
    return n;
}

void bus_url_show(const char *urls, size_t size, char *ret)
{
    size_t len = 0;
    while (*urls && len + 1 < size) {
        size_t one = strcspn(urls, ",");
        const char *at = memrchr(urls, '@', one), *scheme = strstr(urls, "://");
        size_t keep = scheme && scheme < urls + one ? (size_t)(scheme + 3 - urls) : 0;
        if (at && keep)
            len += (size_t)snprintf(ret + len, size - len, "%.*s%.*s", (int)keep, urls, (int)(urls + one - at - 1), at + 1);
        else
            len += (size_t)snprintf(ret + len, size - len, "%.*s", at ? (int)(urls + one - at - 1) : (int)one, at ? at + 1 : urls);
        urls += one;
        if (*urls == ',' && len + 1 < size) {
            ret[len++] = *urls++;
            ret[len] = '\0';
        }
    }
}

/* Of what stands behind the scheme: [USER[:PASSWORD]@]HOST[:PORT]. */
static const char *find_fault(const char *place)
{
    const char *user = strrchr(place, '@'), *host = user ? user + 1 : place;
    size_t len = strcspn(host, "/?#");
    const char *closing = *host == '[' ? memchr(host, ']', len) : NULL, *from = closing ? closing : host, *colon = memrchr(from, ':', len - (size_t)(from - host));
    if (len == 0 || colon == host || (*host == '[' && !closing))
        return "it has no host";
    if (!colon)
        return NULL;
    size_t digits = strspn(colon + 1, "0123456789");
    unsigned long port = strtoul(colon + 1, NULL, 10);
    return colon + 1 + digits == host + len && digits <= 5 && port > 0 && port <= 65535 ? NULL : "its port is no number from 1 to 65535";
}

/* nats.c takes any scheme for nats. */
static const char *find_scheme_fault(const char *url, const char **ret_place)
{
    size_t len = strspn(url, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+.-");
    *ret_place = url;
    if (strncmp(url + len, "://", 3) != 0)
        return NULL;
    *ret_place = url + len + 3;
    bool is_known = (len == 4 && strncasecmp(url, "nats", 4) == 0) || (len == 3 && strncasecmp(url, "tls", 3) == 0);
    return is_known ? NULL : "only nats:// and tls:// lead to one";
}

enum amp_code bus_url_check(const char *urls, const char *who, struct amp_error *reterr)
{
    char *servers[BUS_SERVERS_MAX], shown[256] = "";
    int n = bus_url_split(urls, servers);
    const char *fault = n == 0 ? "it is empty" : NULL, *place = NULL;
    for (int i = 0; i < n; i++) {
        if (!fault && !(fault = find_scheme_fault(servers[i], &place)))
            fault = find_fault(place);
        if (fault && !shown[0])
            bus_url_show(servers[i], sizeof shown, shown);
        free(servers[i]);
    }
    if (!fault)
        return AMP_OK;
    amp_error_set(reterr, AMP_INVALID, "bus", "%s: '%s' is no bus: %s", who, shown, fault);
    amp_error_hint(reterr, "such as nats://127.0.0.1:4222 or tls://HOST:4222, several with commas");
    return AMP_INVALID;
}

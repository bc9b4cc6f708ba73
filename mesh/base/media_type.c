#include "base/media_type.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

const char *media_type_of(const char *path)
{
    static const char *const table[][2] = {
        {"txt", "text/plain"},       {"md", "text/markdown"},    {"csv", "text/csv"},         {"html", "text/html"},
        {"htm", "text/html"},        {"css", "text/css"},        {"log", "text/plain"},       {"json", "application/json"},
        {"jsonl", "application/jsonl"}, {"yaml", "application/yaml"}, {"yml", "application/yaml"}, {"xml", "application/xml"},
        {"pdf", "application/pdf"},  {"zip", "application/zip"}, {"gz", "application/gzip"},  {"tar", "application/x-tar"},
        {"png", "image/png"},        {"jpg", "image/jpeg"},      {"jpeg", "image/jpeg"},      {"gif", "image/gif"},
        {"webp", "image/webp"},      {"svg", "image/svg+xml"},   {"wav", "audio/wav"},        {"mp3", "audio/mpeg"},
        {"ogg", "audio/ogg"},        {"mp4", "video/mp4"},       {"webm", "video/webm"},      {"py", "text/x-python"},
        {"js", "text/javascript"},   {"mjs", "text/javascript"}, {"c", "text/x-c"},           {"h", "text/x-c"},
        {"sh", "application/x-sh"},  {"diff", "text/x-diff"},    {"patch", "text/x-diff"},
    };
    const char *base = strrchr(path, '/');
    const char *dot = strrchr(base != NULL ? base : path, '.');
    for (size_t i = 0; dot != NULL && i < sizeof table / sizeof *table; i++) {
        if (strcasecmp(dot + 1, table[i][0]) == 0)
            return table[i][1];
    }
    return "application/octet-stream";
}

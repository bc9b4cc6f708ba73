/* The files are put into the program by the assembler; embed.cmake names their directory and makes this file depend on them. */
#include "sidecar/shim_files.h"

#include "base/alloc.h"
#include "base/home.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EMBED(symbol, path)                                                                                                        \
    __asm__(".pushsection .rodata\n.balign 16\n.global " #symbol "\n.hidden " #symbol "\n.global " #symbol "_end\n.hidden " #symbol \
            "_end\n" #symbol ":\n.incbin \"" AMESH_ADAPTERS_DIR path "\"\n" #symbol "_end:\n.byte 0\n.popsection\n");                \
    extern const unsigned char symbol[], symbol##_end[]

EMBED(shim_py, "/python/amesh_shim.py");
EMBED(shim_py_helper, "/python/amesh.py");
EMBED(shim_js, "/js/amesh_shim.mjs");

static const struct {
    const char *name;
    const unsigned char *start, *end;
} files[] = {
    {"amesh_shim.py", shim_py, shim_py_end},
    {"amesh.py", shim_py_helper, shim_py_helper_end},
    {"amesh_shim.mjs", shim_js, shim_js_end},
};
enum { N_FILES = sizeof files / sizeof *files };

/* FNV-1a: names a version, protects nothing. */
static unsigned long long digest(void)
{
    unsigned long long hash = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < N_FILES; i++)
        for (const unsigned char *byte = files[i].start; byte < files[i].end; byte++)
            hash = (hash ^ *byte) * 0x100000001b3ULL;
    return hash;
}

static bool is_same(const char *path, const unsigned char *data, size_t len)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    char *have = xcalloc(1, len + 1);
    bool is_equal = fread(have, 1, len + 1, file) == len && memcmp(have, data, len) == 0;
    free(have);
    fclose(file);
    return is_equal;
}

static bool write_all(int fd, const unsigned char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

/* Several instances may start at once: each renames a whole file of its own. */
static bool put_file(const char *dir, size_t i)
{
    char *path = xasprintf("%s/%s", dir, files[i].name);
    char *temporary = xasprintf("%s/.%s.%d", dir, files[i].name, (int)getpid());
    size_t len = (size_t)(files[i].end - files[i].start);
    bool is_good = is_same(path, files[i].start, len);
    if (!is_good) {
        int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
        is_good = fd >= 0 && write_all(fd, files[i].start, len);
        if (fd >= 0)
            is_good = close(fd) == 0 && is_good;
        is_good = is_good && rename(temporary, path) == 0;
        if (!is_good)
            unlink(temporary);
    }
    free(temporary);
    free(path);
    return is_good;
}

static bool make_dir(const char *path)
{
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

enum amp_code shim_files_write(const struct home *home, char **ret, struct amp_error *reterr)
{
    char *parent = xasprintf("%s/shim", home->path);
    char *dir = xasprintf("%s/shim/%s-%016llx", home->path, amp_version(), digest());
    bool is_good = make_dir(home->path) && make_dir(parent) && make_dir(dir);
    for (size_t i = 0; is_good && i < N_FILES; i++)
        is_good = put_file(dir, i);
    free(parent);
    if (is_good) {
        *ret = dir;
        return AMP_OK;
    }
    enum amp_code code = amp_error_set(reterr, AMP_INTERNAL, "", "the shims cannot be written to %s: %s", dir, strerror(errno));
    amp_error_hint(reterr, "AMESH_HOME must be a directory that this user may write");
    free(dir);
    return code;
}

/* ---- commands ------------------------------------------------------------------------------------------------------- */

static bool ends_with(const char *text, size_t len, const char *end)
{
    size_t n = strlen(end);
    return len >= n && !strncmp(text + len - n, end, n);
}

enum shim_language shim_language_of(const char *target)
{
    const char *colon = strrchr(target, ':');
    size_t len = colon ? (size_t)(colon - target) : strlen(target);
    if (ends_with(target, len, ".py"))
        return SHIM_PYTHON;
    if (ends_with(target, len, ".mjs") || ends_with(target, len, ".cjs") || ends_with(target, len, ".js"))
        return SHIM_JS;
    return SHIM_NONE;
}

static char *interpreter(const char *python)
{
    const char *venv = getenv("VIRTUAL_ENV");
    if (python && *python)
        return xstrdup(python);
    if (venv && *venv) {
        char *path = xasprintf("%s/bin/python", venv);
        if (access(path, X_OK) == 0)
            return path;
        free(path);
    }
    return xstrdup("python3");
}

char **shim_command(const char *dir, const char *target, const char *python)
{
    bool is_js = shim_language_of(target) == SHIM_JS;
    char **argv = xcalloc(4, sizeof *argv);
    argv[0] = is_js ? xstrdup("node") : interpreter(python);
    argv[1] = xasprintf("%s/%s", dir, is_js ? "amesh_shim.mjs" : "amesh_shim.py");
    argv[2] = xstrdup(target);
    return argv;
}

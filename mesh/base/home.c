#include "base/home.h"

#include "base/bus.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MESH_JSON_MAX 4096u
#define CREDS_MAX 65536
#define HOME_HINT "name a directory of your own with AMESH_HOME or --home"

/* ---- paths ---------------------------------------------------------------------------------------------- */

static enum amp_code system_error(struct amp_error *reterr, const char *what, const char *path)
{
    int error = errno;
    enum amp_code code = error == ENOENT ? AMP_NOT_FOUND
                       : error == EACCES || error == EPERM || error == EROFS ? AMP_DENIED
                       : error == ENOTDIR || error == EISDIR || error == ELOOP || error == ENAMETOOLONG ? AMP_INVALID
                       : AMP_INTERNAL;
    return amp_error_set(reterr, code, "", "%s %s: %s", what, path, strerror(error));
}

__attribute__((format(printf, 4, 5))) static enum amp_code format(char *ret, size_t size, struct amp_error *reterr, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(ret, size, fmt, args);
    va_end(args);
    if (len < 0 || (size_t)len >= size) {
        return amp_error_set(reterr, AMP_INVALID, "", "a path or URL is longer than the %zu bytes allowed: %.60s…", size - 1, ret);
    }
    return AMP_OK;
}

static const char *from_environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static enum amp_code default_path(char *ret, size_t size, struct amp_error *reterr)
{
    const char *value = from_environment("AMESH_HOME");
    if (value) {
        return format(ret, size, reterr, "%s", value);
    }
    value = from_environment("XDG_STATE_HOME");
    if (value && *value == '/') { /* the XDG rule: a relative path there is to be ignored */
        return format(ret, size, reterr, "%s/amesh", value);
    }
    value = from_environment("HOME");
    if (value) {
        return format(ret, size, reterr, "%s/.local/state/amesh", value);
    }
    amp_error_set(reterr, AMP_INVALID, "", "there is no place for the mesh's state: none of AMESH_HOME, XDG_STATE_HOME and HOME is set");
    amp_error_hint(reterr, "set AMESH_HOME to a directory");
    return AMP_INVALID;
}

static enum amp_code make_absolute(char *path, size_t size, struct amp_error *reterr)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') {
        path[--len] = '\0';
    }
    if (*path == '/') {
        return AMP_OK;
    }
    char cwd[PATH_MAX], relative[PATH_MAX];
    if (!getcwd(cwd, sizeof cwd)) {
        return system_error(reterr, "cannot find the current directory for", path);
    }
    enum amp_code code = format(relative, sizeof relative, reterr, "%s", path);
    return code == AMP_OK ? format(path, size, reterr, "%s/%s", cwd, relative) : code;
}

/* Parents with 0700 too, as the XDG rules ask for. What is there already keeps its mode. */
static enum amp_code make_directory(const char *path, struct amp_error *reterr)
{
    char part[PATH_MAX];
    enum amp_code code = format(part, sizeof part, reterr, "%s", path);
    if (code != AMP_OK) {
        return code;
    }
    for (char *slash = strchr(part + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash) {
            *slash = '\0';
        }
        if (mkdir(part, 0700) != 0 && errno != EEXIST) {
            code = system_error(reterr, "cannot make directory", part);
            amp_error_hint(reterr, HOME_HINT);
            return code;
        }
        if (!slash) {
            break;
        }
        *slash = '/';
    }
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
        amp_error_set(reterr, AMP_INVALID, "", "%s is not a directory", path);
        amp_error_hint(reterr, HOME_HINT);
        return AMP_INVALID;
    }
    return AMP_OK;
}

/* Whoever may write there may plant a journal, a socket or a bus of their own. */
static enum amp_code check_owner(const char *path, struct amp_error *reterr)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        return system_error(reterr, "cannot look at", path);
    }
    bool is_foreign = info.st_uid != geteuid() && geteuid() != 0; /* root may use what it was given, as in a container */
    if (!is_foreign && (info.st_mode & S_IWOTH) == 0) {
        return AMP_OK;
    }
    amp_error_set(reterr, AMP_DENIED, "", is_foreign ? "%s belongs to another user" : "%s can be written by everybody", path);
    amp_error_hint(reterr, HOME_HINT);
    return AMP_DENIED;
}

static enum amp_code check_text(const char *path, struct amp_error *reterr)
{
    for (const char *c = path; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f || *c == '"') { /* it stands in nats-server's configuration */
            return amp_error_set(reterr, AMP_INVALID, "", "the path of the mesh's state may not have control characters or quotes in it");
        }
    }
    return AMP_OK;
}

/* The bus library opens it anew for each connection, so that a pipe would be empty the second time, and would block the first. */
static enum amp_code check_creds(const char *path, struct amp_error *reterr)
{
    struct stat info;
    enum amp_code code = AMP_OK;
    if (stat(path, &info) != 0 || (S_ISREG(info.st_mode) && access(path, R_OK) != 0)) {
        code = system_error(reterr, "AMESH_CREDS: cannot read", path);
    } else if (!S_ISREG(info.st_mode) || info.st_size == 0 || info.st_size > CREDS_MAX) {
        code = amp_error_set(reterr, AMP_INVALID, "", "AMESH_CREDS: %s is no credentials file: %s", path,
                             !S_ISREG(info.st_mode) ? "it must be a regular file" : info.st_size == 0 ? "it is empty" : "it is too large");
    }
    amp_error_hint(reterr, "AMESH_CREDS names a file with the JWT and seed of a NATS user, as nsc writes it");
    return code;
}

/* ---- home_open ------------------------------------------------------------------------------------------ */

static enum amp_code find_bus(struct home *home, const char *bus, struct amp_error *reterr)
{
    const char *value = bus && *bus ? bus : from_environment("AMESH_BUS");
    if (value) {
        enum amp_code code = bus_url_check(value, value == bus ? "--bus" : "AMESH_BUS", reterr);
        return code == AMP_OK ? format(home->bus, sizeof home->bus, reterr, "%s", value) : code;
    }
    struct home_mesh mesh;
    if (home_mesh_read(home, &mesh, NULL) == AMP_OK) {
        memcpy(home->bus, mesh.bus, sizeof home->bus);
    }
    return AMP_OK;
}

static enum amp_code find_inbox(struct home *home, struct amp_error *reterr)
{
    const char *prefix = from_environment("AMESH_INBOX");
    if (!prefix) {
        return AMP_OK;
    }
    if (!bus_inbox_prefix_is_valid(prefix)) {
        amp_error_set(reterr, AMP_INVALID, "", "AMESH_INBOX: '%.120s' is no prefix of inboxes", prefix);
        amp_error_hint(reterr, "such as _INBOX.planner-host2: _INBOX, then tokens of A-Z a-z 0-9 _ -, at most %u characters", BUS_INBOX_PREFIX_MAX);
        return AMP_INVALID;
    }
    return format(home->inbox, sizeof home->inbox, reterr, "%s", prefix);
}

enum amp_code home_open(struct home *home, const char *path, const char *bus, bool create, struct amp_error *reterr)
{
    struct home made = {.path = ""}; /* `path` and `bus` may point into *home */
    char full[PATH_MAX];
    enum amp_code code = path && *path ? format(full, sizeof full, reterr, "%s", path) : default_path(full, sizeof full, reterr);
    if (code == AMP_OK) {
        code = make_absolute(full, sizeof full, reterr);
    }
    if (code == AMP_OK) {
        code = format(made.path, sizeof made.path, reterr, "%s", full);
    }
    if (code == AMP_OK) {
        code = check_text(made.path, reterr);
    }
    if (code == AMP_OK && create) {
        code = make_directory(made.path, reterr);
    }
    if (code == AMP_OK && create) {
        code = check_owner(made.path, reterr);
    }
    if (code == AMP_OK) {
        code = find_bus(&made, bus, reterr);
    }
    const char *creds = from_environment("AMESH_CREDS");
    if (code == AMP_OK && creds) {
        code = format(made.creds, sizeof made.creds, reterr, "%s", creds);
    }
    if (code == AMP_OK && creds) {
        code = check_creds(made.creds, reterr);
    }
    if (code == AMP_OK) {
        code = find_inbox(&made, reterr);
    }
    *home = made;
    return code;
}

/* ---- the lock ------------------------------------------------------------------------------------------- */

static enum amp_code open_in_home(const struct home *home, const char *name, int flags, int *ret_fd, struct amp_error *reterr)
{
    char path[PATH_MAX];
    enum amp_code code = format(path, sizeof path, reterr, "%s/%s", home->path, name);
    if (code != AMP_OK) {
        return code;
    }
    struct stat info;
    *ret_fd = open(path, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (*ret_fd >= 0 && (fstat(*ret_fd, &info) != 0 || !S_ISREG(info.st_mode))) {
        close(*ret_fd);
        *ret_fd = -1;
        return amp_error_set(reterr, AMP_DENIED, "", "%s is not a file", path);
    }
    return *ret_fd < 0 ? system_error(reterr, "cannot open", path) : AMP_OK;
}

enum amp_code home_lock(const struct home *home, int *ret_fd, struct amp_error *reterr)
{
    int fd;
    enum amp_code code = open_in_home(home, "lock", O_RDWR | O_CREAT, &fd, reterr);
    if (code != AMP_OK) {
        return code;
    }
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &whole) != 0) {
        code = errno == EAGAIN || errno == EACCES ? AMP_RUNNING : AMP_INTERNAL;
        amp_error_set(reterr, code, "", code == AMP_RUNNING ? "a mesh already runs in %s" : "cannot lock %s", home->path);
        amp_error_hint(reterr, "`amesh down` stops it; AMESH_HOME or --home names another place");
        close(fd);
        return code;
    }
    *ret_fd = fd;
    return AMP_OK;
}

/* Whoever holds the lock lives; a pid alone may have been given to somebody else. Asking takes nothing, so that a reader never stands in
 * the way of an `up`; that is why the lock is one of fcntl's (of the open file, not of the process) and not flock's. */
static bool is_locked(const struct home *home)
{
    int fd;
    if (open_in_home(home, "lock", O_RDONLY, &fd, NULL) != AMP_OK) {
        return false;
    }
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    bool is_held = fcntl(fd, F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
    close(fd);
    return is_held;
}

/* ---- mesh.json ------------------------------------------------------------------------------------------ */

static enum amp_code read_all(int fd, char *ret, size_t size, struct amp_error *reterr)
{
    size_t len = 0;
    for (;;) {
        ssize_t count = read(fd, ret + len, size - 1 - len);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            return system_error(reterr, "cannot read", "mesh.json");
        }
        if (count == 0) {
            ret[len] = '\0';
            return AMP_OK;
        }
        len += (size_t)count;
        if (len == size - 1) {
            return amp_error_set(reterr, AMP_MALFORMED, "", "mesh.json is larger than it can be");
        }
    }
}

static bool take_text(const cJSON *document, const char *name, char *ret, size_t size)
{
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(document, name));
    return value && (size_t)snprintf(ret, size, "%s", value) < size;
}

static bool take_number(const cJSON *document, const char *name, double max, double *ret)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(document, name);
    *ret = cJSON_IsNumber(item) ? item->valuedouble : 0;
    return *ret >= 0 && *ret <= max;
}

static bool parse_mesh(const cJSON *document, struct home_mesh *ret)
{
    double pid, nats_pid;
    char since[AMP_TIME_SIZE];
    *ret = (struct home_mesh){.pid = 0};
    if (!take_text(document, "bus", ret->bus, sizeof ret->bus) || !take_number(document, "pid", INT_MAX, &pid) || pid < 1 ||
        !take_number(document, "natsPid", INT_MAX, &nats_pid)) {
        return false;
    }
    ret->pid = (int)pid;
    ret->nats_pid = (int)nats_pid;
    return take_text(document, "version", ret->version, sizeof ret->version) && take_text(document, "since", since, sizeof since) &&
           amp_time_parse(since, &ret->since_unix_ms) == AMP_OK;
}

enum amp_code home_mesh_read(const struct home *home, struct home_mesh *ret, struct amp_error *reterr)
{
    int fd;
    char text[MESH_JSON_MAX];
    enum amp_code code = open_in_home(home, "mesh.json", O_RDONLY, &fd, reterr);
    if (code == AMP_OK) {
        code = read_all(fd, text, sizeof text, reterr);
        close(fd);
    }
    if (code == AMP_OK && !is_locked(home)) {
        code = AMP_NOT_FOUND;
    }
    if (code == AMP_NOT_FOUND) {
        amp_error_set(reterr, code, "", "no mesh runs in %s", home->path);
        amp_error_hint(reterr, "`amesh up` starts one; --bus or AMESH_BUS names another bus");
    }
    if (code != AMP_OK) {
        return code;
    }
    cJSON *document = NULL;
    code = amp_json_parse(amp_bytes_of(text), &document, reterr);
    if (code == AMP_OK && !parse_mesh(document, ret)) {
        code = amp_error_set(reterr, AMP_MALFORMED, "", "%s/mesh.json does not say bus, pid, version and since", home->path);
    }
    cJSON_Delete(document);
    return code;
}

static enum amp_code print_mesh(const struct home_mesh *mesh, struct amp_buf *out)
{
    char since[AMP_TIME_SIZE];
    amp_time_format(mesh->since_unix_ms, since);
    amp_buf_printf(out, "{\"bus\":");
    amp_json_append_string(out, amp_bytes_of(mesh->bus));
    amp_buf_printf(out, ",\"pid\":%d,\"natsPid\":%d,\"version\":", mesh->pid, mesh->nats_pid);
    amp_json_append_string(out, amp_bytes_of(mesh->version));
    return amp_buf_printf(out, ",\"since\":\"%s\"}\n", since);
}

static bool write_all(int fd, struct amp_bytes data)
{
    while (data.len > 0) {
        ssize_t count = write(fd, data.data, data.len);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            return false;
        }
        data.data += count;
        data.len -= (size_t)count;
    }
    return fsync(fd) == 0;
}

enum amp_code home_mesh_write(const struct home *home, const struct home_mesh *mesh, struct amp_error *reterr)
{
    char path[PATH_MAX], tmp[PATH_MAX];
    enum amp_code code = format(path, sizeof path, reterr, "%s/mesh.json", home->path);
    if (code == AMP_OK) {
        code = format(tmp, sizeof tmp, reterr, "%s/mesh.json.%d", home->path, (int)getpid());
    }
    if (code != AMP_OK) {
        return code;
    }
    struct amp_buf text;
    amp_buf_init(&text, MESH_JSON_MAX - 2);
    code = print_mesh(mesh, &text);
    int fd = code == AMP_OK ? open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    bool is_written = fd >= 0 && write_all(fd, amp_buf_bytes(&text));
    if (fd >= 0 && close(fd) != 0) {
        is_written = false;
    }
    amp_buf_done(&text);
    if (code != AMP_OK) {
        return amp_error_set(reterr, code, "", "mesh.json would be too large");
    }
    if (!is_written || rename(tmp, path) != 0) {
        code = system_error(reterr, "cannot write", path);
        unlink(tmp);
    }
    return code;
}

void home_mesh_remove(const struct home *home)
{
    char path[PATH_MAX];
    if (format(path, sizeof path, NULL, "%s/mesh.json", home->path) == AMP_OK) {
        unlink(path);
    }
}

/* ---- sockets -------------------------------------------------------------------------------------------- */

/* A directory that others could have made for us in /tmp is a trap: it must be ours and closed to everybody else. */
static enum amp_code make_private(const char *path, struct amp_error *reterr)
{
    enum amp_code code = make_directory(path, reterr);
    struct stat info;
    if (code == AMP_OK && (lstat(path, &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != geteuid())) {
        return amp_error_set(reterr, AMP_DENIED, "", "%s is not a directory of this user", path);
    }
    if (code == AMP_OK && (info.st_mode & 077) != 0 && chmod(path, 0700) != 0) {
        return system_error(reterr, "cannot close to others", path);
    }
    return code;
}

enum amp_code home_socket_path(const struct home *home, const char *instance, char ret[108], struct amp_error *reterr)
{
    if (!amp_id_is_valid(instance)) {
        return amp_error_set(reterr, AMP_INVALID, "instance", "is not an id");
    }
    char directory[PATH_MAX];
    enum amp_code code = format(directory, sizeof directory, reterr, "%s/run", home->path);
    if (code != AMP_OK) {
        return code;
    }
    const char *runtime = from_environment("XDG_RUNTIME_DIR");
    for (int attempt = 0; attempt < 3; attempt++) {
        if (attempt == 1 && (!runtime || format(directory, sizeof directory, NULL, "%s/amesh", runtime) != AMP_OK)) {
            continue;
        }
        if (attempt == 2 && (code = format(directory, sizeof directory, reterr, "/tmp/amesh-%u", (unsigned)geteuid())) != AMP_OK) {
            return code;
        }
        if (format(ret, 108, NULL, "%s/%s.sock", directory, instance) == AMP_OK) {
            return make_private(directory, reterr);
        }
    }
    return amp_error_set(reterr, AMP_INVALID, "instance", "there is no directory whose socket paths are short enough");
}

/* Preloaded into what bench/cost.py measures: counts each allocation by the library or program that asked for it, in a file that another process reads while this one
 * runs (BENCH_COUNT=FOLDER, the file is named by the process id). What libc allocates for somebody (strdup, asprintf) is theirs. glibc only: it lets us stand before its own allocator. */
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MODULES_MAX = 32, NAME_SIZE = 48 };

/* cost.py reads this by its layout. */
struct module {
    char name[NAME_SIZE];
    _Atomic uint64_t allocations, frees;
};

static struct module own[MODULES_MAX], *modules = own; /* [0] is whoever else it was */
static struct range {
    uintptr_t from, to;
    int module;
} ranges[4 * MODULES_MAX];
static int n_modules = 1, n_ranges;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void __libc_free(void *old);

static int add_module(struct dl_phdr_info *info, size_t size, void *ctx)
{
    const char *slash = strrchr(info->dlpi_name, '/');
    const char *name = slash ? slash + 1 : info->dlpi_name[0] ? info->dlpi_name : "program";
    if (n_modules == MODULES_MAX)
        return 1;
    snprintf(modules[n_modules].name, NAME_SIZE, "%s", name);
    for (int i = 0; i < info->dlpi_phnum && n_ranges < 4 * MODULES_MAX; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t from = info->dlpi_addr + part->p_vaddr;
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X))
            ranges[n_ranges++] = (struct range){from, from + part->p_memsz, n_modules};
    }
    n_modules++;
    return 0;
}

__attribute__((constructor)) static void begin(void)
{
    const char *folder = getenv("BENCH_COUNT");
    char path[512];
    if (folder) {
        snprintf(path, sizeof path, "%s/%d", folder, (int)getpid());
        int fd = open(path, O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);
        if (fd >= 0 && ftruncate(fd, sizeof own) == 0) {
            void *at = mmap(NULL, sizeof own, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            modules = at == MAP_FAILED ? own : at;
        }
        if (fd >= 0)
            close(fd);
    }
    dl_iterate_phdr(add_module, NULL);
}

static struct module *module_of(const void *caller)
{
    uintptr_t at = (uintptr_t)caller;
    for (int i = 0; i < n_ranges; i++)
        if (at >= ranges[i].from && at < ranges[i].to)
            return &modules[ranges[i].module];
    return &modules[0];
}

static void count(const void *caller)
{
    atomic_fetch_add_explicit(&module_of(caller)->allocations, 1, memory_order_relaxed);
}

#define COUNTED __attribute__((visibility("default")))
#define CALLER __builtin_return_address(0)

COUNTED void *malloc(size_t size)
{
    count(CALLER);
    return __libc_malloc(size);
}

COUNTED void *calloc(size_t n, size_t size)
{
    count(CALLER);
    return __libc_calloc(n, size);
}

COUNTED void *realloc(void *old, size_t size)
{
    count(CALLER);
    return __libc_realloc(old, size);
}

COUNTED char *strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    count(CALLER);
    char *copy = __libc_malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

__attribute__((format(printf, 2, 0))) static int print(char **ret, const char *fmt, va_list args)
{
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    *ret = len < 0 ? NULL : __libc_malloc((size_t)len + 1);
    return *ret ? vsnprintf(*ret, (size_t)len + 1, fmt, args) : -1;
}

COUNTED int vasprintf(char **ret, const char *fmt, va_list args)
{
    count(CALLER);
    return print(ret, fmt, args);
}

COUNTED int asprintf(char **ret, const char *fmt, ...)
{
    va_list args;
    count(CALLER);
    va_start(args, fmt);
    int len = print(ret, fmt, args);
    va_end(args);
    return len;
}

/* What the two are where _FORTIFY_SOURCE is set; elsewhere no header has them. */
__attribute__((format(printf, 3, 0))) int __vasprintf_chk(char **ret, int flag, const char *fmt, va_list args);
__attribute__((format(printf, 3, 4))) int __asprintf_chk(char **ret, int flag, const char *fmt, ...);

COUNTED int __vasprintf_chk(char **ret, int flag, const char *fmt, va_list args)
{
    count(CALLER);
    return print(ret, fmt, args);
}

COUNTED int __asprintf_chk(char **ret, int flag, const char *fmt, ...)
{
    va_list args;
    count(CALLER);
    va_start(args, fmt);
    int len = print(ret, fmt, args);
    va_end(args);
    return len;
}

COUNTED void free(void *old)
{
    if (old)
        atomic_fetch_add_explicit(&module_of(CALLER)->frees, 1, memory_order_relaxed);
    __libc_free(old);
}

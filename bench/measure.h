/* What every benchmark program measures the same way: latencies of single calls, their rate, and the CPU that this process and others used. */
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct measure {
    double *us;
    size_t n, max;
    int64_t started_ns, ended_ns;
    double cpu_us; /* of this process, between start and end */
};

static inline int64_t measure_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static inline double measure_cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec * 1e6 + usage.ru_utime.tv_usec + usage.ru_stime.tv_sec * 1e6 + usage.ru_stime.tv_usec;
}

static inline void measure_start(struct measure *m, size_t max)
{
    free(m->us);
    *m = (struct measure){.us = calloc(max, sizeof *m->us), .max = max};
    m->cpu_us = -measure_cpu_us();
    m->started_ns = measure_now_ns();
}

static inline void measure_add(struct measure *m, int64_t began_ns)
{
    if (m->n < m->max)
        m->us[m->n++] = (double)(measure_now_ns() - began_ns) / 1e3;
}

static inline int measure_compare(const void *a, const void *b)
{
    double d = *(const double *)a - *(const double *)b;
    return d < 0 ? -1 : d > 0;
}

/* One JSON line on stdout. */
static inline void measure_report(struct measure *m, const char *name)
{
    m->ended_ns = measure_now_ns();
    m->cpu_us += measure_cpu_us();
    if (m->n == 0) {
        fprintf(stderr, "%s: nothing was measured\n", name);
        exit(1);
    }
    qsort(m->us, m->n, sizeof *m->us, measure_compare);
    double seconds = (double)(m->ended_ns - m->started_ns) / 1e9;
    printf("{\"name\":\"%s\",\"n\":%zu,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"rate\":%.0f,\"cpu_us\":%.2f}\n", name, m->n, m->us[m->n / 2], m->us[m->n * 9 / 10],
           m->us[m->n * 99 / 100], (double)m->n / seconds, m->cpu_us / (double)m->n);
    fflush(stdout);
}

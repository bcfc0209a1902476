/* SPDX-License-Identifier: MIT */
/* perf/bench.h - what programs of perf/ have in common: where a number was taken, what the machine
 * gives at best in the same run, and how repeats become one number. */
#ifndef GW_PERF_BENCH_H
#define GW_PERF_BENCH_H

#include <jansson.h>
#include <stdint.h>

/* An object that begins with bench, commit, cpu, cpus and kernel. */
json_t *gw_bench_new(const char *bench);
/* One line on stdout; @line is gone. */
void gw_bench_print(json_t *line);

/* {"median":, "min":, "max":} of @count numbers, which are sorted. */
json_t *gw_bench_spread(double *values, unsigned count);
/* The value below which @percent of them lie; sorts. */
double gw_bench_percentile(double *values, unsigned count, unsigned percent);

/* GB/s of one memcpy() of @bytes of touched memory, the best of three. */
double gw_bench_copy_rate(uint64_t bytes);
/* GB/s of @pairs of a plain send() loop and a plain recv() loop, 1 MiB a call, a thread each, over the
 * sockets of @wire ("tcp", "unix"), each through its share of @bytes of touched memory. Dies on errors. */
double gw_bench_plain_rate(const char *wire, unsigned pairs, uint64_t bytes);

#endif

/* SPDX-License-Identifier: MIT */
/* spike.h - what the three spikes share: a clock, patterns, and an out-of-band socket pair between
 * the two processes, so that what is said there is ordered with nothing on the wire under test. */
#ifndef SPIKE_H
#define SPIKE_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define AREA_BYTES (4u << 20) /* the memory that is put to */
#define PUT_BYTES (64u << 10)
#define PUT_COUNT (AREA_BYTES / PUT_BYTES)
#define ROUNDS 50

#define MUST(expression)                                                                           \
    do {                                                                                           \
        if (!(expression)) {                                                                       \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #expression, strerror(errno));  \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void *area_new(size_t bytes)
{
    void *area = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    MUST(area != MAP_FAILED);
    return area;
}

static inline void fill(void *area, size_t bytes, uint64_t seed)
{
    uint64_t *word = area;
    for (size_t i = 0; i < bytes / 8; i++)
        word[i] = seed * 0x9e3779b97f4a7c15u + i;
}

/* How many 8-byte words are not what fill() with @seed left. */
static inline size_t wrong(const void *area, size_t bytes, uint64_t seed)
{
    const uint64_t *word = area;
    size_t count = 0;
    for (size_t i = 0; i < bytes / 8; i++)
        count += word[i] != seed * 0x9e3779b97f4a7c15u + i;
    return count;
}

static inline size_t differing(const void *a, const void *b, size_t bytes)
{
    const uint8_t *x = a, *y = b;
    size_t count = 0;
    for (size_t i = 0; i < bytes; i++)
        count += x[i] != y[i];
    return count;
}

static inline void oob_say(int fd, const void *data, size_t bytes)
{
    MUST(write(fd, data, bytes) == (ssize_t)bytes);
}

static inline void oob_hear(int fd, void *data, size_t bytes)
{
    MUST(recv(fd, data, bytes, MSG_WAITALL) == (ssize_t)bytes);
}

#endif

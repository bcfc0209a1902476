/* SPDX-License-Identifier: MIT */
/* tests/support/vendor_impl.h - inside vendor*.c only: vendor.c is the device and its stream of state,
 * vendor_staging.c and vendor_feature.c are the two ways to it. */
#ifndef GW_TEST_SUPPORT_VENDOR_IMPL_H
#define GW_TEST_SUPPORT_VENDOR_IMPL_H

#include "tests/support/vendor.h"

#define VENDOR_BLOCK 4096u
#define VENDOR_REGISTERS 64u
#define VENDOR_HEAD 16u
#define VENDOR_FAULTS_MAX 4u
#define VENDOR_AREAS_MAX 3u

struct vendor_record { /* one on its way, in or out */
    uint8_t bytes[VENDOR_HEAD + VENDOR_BLOCK];
    size_t at, length;
};

struct vendor {
    struct vendor_config config;
    struct gw_staging_ops staging_ops;
    struct gw_feature_ops feature_ops;
    _Atomic(enum gw_odev_state) state; /* read by whoever makes it work, while a worker moves it */
    uint64_t random;
    struct vendor *peer;
    void (*dma)(void *ctx, uint64_t random);
    void *dma_ctx;
    struct {
        enum vendor_fault fault;
        unsigned nth, times;
    } faults[VENDOR_FAULTS_MAX];
    unsigned fault_count;
    char violation[160];
    unsigned opened, resets;
    unsigned reads; /* of data, for idle_every */

    /* the device */
    uint32_t *writes; /* per block */
    uint8_t registers[VENDOR_REGISTERS];
    uint8_t *configuration;

    /* saving */
    uint8_t *dirty;
    uint64_t dirty_count;
    uint32_t scan;
    struct vendor_record out;
    bool head_sent, registers_sent, end_sent;
    bool ends; /* ENDS_EARLY struck */
    uint64_t initial_left;
    bool reinit;

    /* loading */
    struct vendor_record in;
    bool head_loaded, end_loaded;
    char bad[120]; /* the first thing wrong with what came */

    /* the region */
    uint8_t *region;
    struct gw_staging_area
        areas[VENDOR_AREAS_MAX]; /* memory of their own: past an end is nothing */
    unsigned area_count;
    uint64_t chunk_offset, chunk_bytes, chunk_read, ring_at, load_offset, load_written;
    bool chunk_staged, size_read, load_offered, half;
    unsigned pending_reads;

    /* the data descriptor */
    int data_fd; /* the other side's end, for the checks */
    int pipe_fd; /* our end */
};

void vendor_violate(struct vendor *v, const char *format, ...) GW_PRINTF(2, 3);
/* Does it break here? Counts a call of that kind. */
bool vendor_breaks(struct vendor *v, enum vendor_fault fault);
uint64_t vendor_random(struct vendor *v);
bool vendor_is_idle(struct vendor *v);

/* States: the checks and effects that both interfaces share. 0 or -errno. */
int vendor_enter(struct vendor *v, enum gw_odev_state want);
void vendor_reset(struct vendor *v);

/* Saving: as many bytes as there are, at most so many. Loading: takes all. */
size_t vendor_produce(struct vendor *v, uint8_t *to, size_t bytes_max);
void vendor_consume(struct vendor *v, const uint8_t *from, size_t bytes);
uint64_t vendor_left(const struct vendor *v, bool stopped);

#endif

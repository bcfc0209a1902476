/* SPDX-License-Identifier: MIT */
/* tests/support/vendor.h - the simulated vendor device: a driver and its device, without hardware.
 *
 * Its memory is blocks of 4 KiB, of which it knows how often each was written: what a block holds is a
 * function of (seed, block, writes), so gigabytes cost nothing and the device that loads them can judge
 * every byte. It has both kernel interfaces: a staging region (devices/vfio/staging.h), and states with
 * a data descriptor (feature.h), whose data goes through a pipe, so that short reads and writes are real.
 * It does what drivers may do, and, told by name and number, what they must not; and it notes whoever
 * breaks the protocol towards it: vendor_violation(). No time passes but by vendor_run(). */
#ifndef GW_TEST_SUPPORT_VENDOR_H
#define GW_TEST_SUPPORT_VENDOR_H

#include "devices/vfio/feature.h"
#include "devices/vfio/staging.h"

enum vendor_section { /* how the window can be reached */
                      VENDOR_TRAPPED,
                      VENDOR_ONE_AREA,
                      VENDOR_AREAS, /* several with holes, told out of order */
                      VENDOR_MAP_REFUSED,
                      VENDOR_SECTION_COUNT_
};
enum vendor_offset { /* where it stages */
                     VENDOR_FIXED,
                     VENDOR_HALVES,
                     VENDOR_RING,
                     VENDOR_ANYWHERE, /* into mapped areas and out of them */
                     VENDOR_OFFSET_COUNT_
};
enum vendor_chunk {                    /* how much at once */
                    VENDOR_CHUNK_FULL, /* exactly what fits */
                    VENDOR_CHUNK_BYTE,
                    VENDOR_CHUNK_ODD,
                    VENDOR_CHUNK_RANDOM,
                    VENDOR_CHUNK_COUNT_
};
enum vendor_pending { /* what it says there is left */
                      VENDOR_PENDING_EXACT,
                      VENDOR_PENDING_GROWS,  /* each time it is asked, while it runs */
                      VENDOR_PENDING_PAUSES, /* none, and later some */
                      VENDOR_PENDING_OVER,
                      VENDOR_PENDING_UNDER,
                      VENDOR_PENDING_NEVER, /* above whatever threshold while it runs */
                      VENDOR_PENDING_EMPTY, /* now and then some, and the chunk has none */
                      VENDOR_PENDING_COUNT_
};
enum vendor_size { /* what it says STOP_COPY would give */
                   VENDOR_SIZE_EXACT,
                   VENDOR_SIZE_UNKNOWN,
                   VENDOR_SIZE_LOW,
                   VENDOR_SIZE_HIGH,
};

enum vendor_fault {
    VENDOR_NO_FAULT,
    VENDOR_REG_READ_FAILS,
    VENDOR_REG_WRITE_FAILS,
    VENDOR_STATE_REFUSED, /* stays in the old state */
    VENDOR_STATE_MIDDLE,  /* gets stuck on the way; where there is no way between, stays */
    VENDOR_STATE_ERROR,   /* ends in ERROR */
    VENDOR_STATE_READS_ERROR,
    VENDOR_RESET_FAILS,
    VENDOR_READ_FAILS,    /* window, or data descriptor */
    VENDOR_WRITE_FAILS,   /* the same */
    VENDOR_ENDS_EARLY,    /* no more data, though there is */
    VENDOR_FINDS_INVALID, /* on leaving RESUMING */
    VENDOR_RESETS_ITSELF, /* at the nth read or write of data */
    VENDOR_OFFSET_LOW,    /* data_offset within the registers */
    VENDOR_OFFSET_AT_END,
    VENDOR_OFFSET_BEYOND,
    VENDOR_SIZE_BEYOND, /* data_size reaches over the region's end */
    VENDOR_FAULT_COUNT_
};

struct vendor_config {
    const char *name;
    uint64_t seed;
    uint32_t blocks;
    bool precopy, quiesce, reinit; /* of the data descriptor's interface */
    uint64_t region_bytes;
    enum vendor_section section;
    enum vendor_offset offset;
    enum vendor_chunk chunk;
    enum vendor_pending pending;
    enum vendor_size size;
    unsigned idle_every;      /* every so many reads of data there is nothing for now; 0: never */
    unsigned write_bytes_max; /* of one write to the descriptor; 0: what the pipe takes */
    bool initial_never_ends;
    size_t config_bytes; /* of configuration; 0: there is none */
};

struct vendor;

struct vendor *vendor_new(const struct vendor_config *config);
void vendor_free(struct vendor *vendor);

/* For gw_staging_new() and gw_feature_new(), with the vendor as their dev. */
const struct gw_staging_ops *vendor_staging_ops(struct vendor *vendor);
const struct gw_feature_ops *vendor_feature_ops(struct vendor *vendor);

enum gw_odev_state vendor_state(const struct vendor *vendor);
/* Let it work: so many writes to its memory, if it runs. To its peer's as well, unless it is quiet. */
void vendor_run(struct vendor *vendor, unsigned writes);
void vendor_set_peer(struct vendor *vendor, struct vendor *peer);
/* Each of its writes also makes one of these, while it may: DMA into the guest's memory. */
void vendor_set_dma(struct vendor *vendor, void (*dma)(void *ctx, uint64_t random), void *ctx);
/* Break at the nth call (from 1) of that kind, so many times. */
void vendor_break(struct vendor *vendor, enum vendor_fault fault, unsigned nth, unsigned times);
/* Now: as many initial bytes again (reinit). */
void vendor_begin_again(struct vendor *vendor);

/* The configuration as a section has it. */
int vendor_save_config(void *dev, struct gw_writer *w, struct gw_error *err);
int vendor_load_config(void *dev, struct gw_reader *r, struct gw_error *err);

/* Do they hold the same? Every block, registers, configuration. */
bool vendor_is_equal(const struct vendor *a, const struct vendor *b);
/* One number for all that it holds. */
uint64_t vendor_digest(const struct vendor *vendor);
uint64_t vendor_bytes(const struct vendor *vendor); /* of a whole state on the wire */
/* What was done to it that the protocol forbids, the first; NULL: nothing. */
const char *vendor_violation(const struct vendor *vendor);
/* Descriptors and mappings that it gave and that were not given back. */
unsigned vendor_open_count(const struct vendor *vendor);
unsigned vendor_reset_count(const struct vendor *vendor);

#endif

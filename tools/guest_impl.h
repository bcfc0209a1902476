/* SPDX-License-Identifier: MIT */
/* tools/guest_impl.h - what the files of the built-in guest share.
 *
 * A page's content is a function of (fill, seed, page, generation, owning vCPU): generation 0 is the
 * fill, each multiple of 16 rewrites the page, every other generation rewrites one line of it. Only
 * where the fill is a file's bytes does the checksum stand in for generations below 16. */
#ifndef GW_TOOLS_GUEST_IMPL_H
#define GW_TOOLS_GUEST_IMPL_H

#include "tools/guest.h"

#include <pthread.h>
#include <stdatomic.h>

#define GW_GUEST_PAGE 4096u
#define GW_GUEST_LINE 64u
#define GW_GUEST_PAGE_WORDS (GW_GUEST_PAGE / 8)
#define GW_GUEST_LINE_WORDS ((size_t)GW_GUEST_LINE / 8)
#define GW_GUEST_LINES (GW_GUEST_PAGE / GW_GUEST_LINE)
#define GW_GUEST_REWRITE 16u      /* every so many generations, the whole page */
#define GW_GUEST_SLICE_PAGES 512u /* unit of parallel work: 2 MiB, one page of the table */

/* Guest memory is read by the migration while vCPUs write it: that race is the point. */
#define GW_GUEST_RACES __attribute__((no_sanitize("thread")))

/* The table's entry of a page; all zero: never written, and for a file's page also a page of zeros. */
struct gw_guest_entry {
    uint32_t generation;
    uint32_t sum; /* of the page, less that of its fill (a file's fill counts as zeros) */
};

struct gw_guest_memory {
    char *host;
    uint64_t bytes; /* 0: none */
    uint32_t page_bytes;
    enum gw_block_kind kind;
    int fd; /* or -1 */
    uint64_t fd_offset;
    bool borrowed; /* from a reserve */
};

struct gw_guest_zipf {
    double exponent, h_first, h_last, shortcut;
    uint64_t count, stride, offset; /* rank -> page: rank * stride + offset mod count */
};

struct gw_guest_vcpu {
    _Alignas(64) struct gw_guest *guest;
    unsigned index;
    uint64_t first_page, page_count; /* its own; no page has two writers */
    struct gw_guest_zipf zipf;
    uint64_t hash; /* what its writes added to the table's hash; read while it is parked */
    _Atomic uint64_t writes;
    _Atomic uint64_t user_ns, system_ns;
    /* Pacing: since `origin_ns` it was to make rate * time writes and has made `paced`. */
    uint64_t origin_ns, paced;
    uint64_t disk_ns; /* when its next turn at the disk is */
    unsigned paced_percent;
    pthread_t thread;
};

enum gw_guest_state { GW_GUEST_STOPPED, GW_GUEST_RUNNING, GW_GUEST_PAUSED, GW_GUEST_ENDING };

struct gw_guest {
    struct gw_guest_config config;
    struct gw_guest_memory ram, table;
    struct gw_guest_reserve *reserve;
    struct gw_guest_disk *disk; /* NULL: it has none */
    uint64_t pages;
    bool incoming, loaded; /* loaded: config, counts and hash are known */
    uint64_t base_hash;    /* of the table when vCPUs' hashes began; modulo 2^64 */
    struct gw_guest_vcpu *vcpus;
    uint64_t ballast_at, ballast_seed, ballast_bytes; /* of one that comes in pieces */

    pthread_mutex_t state_lock;
    enum gw_guest_state state; /* guarded, as is parked */
    unsigned parked;
    unsigned threads;
    pthread_cond_t state_changed; /* vCPUs wait here, to sleep too */
    pthread_cond_t vcpu_parked;
    atomic_bool must_stop; /* state is not RUNNING; looked at before every write */
    atomic_uint throttle_percent;
};

static inline uint64_t gw_guest_mix(uint64_t a, uint64_t b)
{
    __uint128_t product =
        (__uint128_t)(a ^ UINT64_C(0xa0761d6478bd642f)) * (b ^ UINT64_C(0xe7037ed1a0b428db));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* A generator without state: the i-th word of the stream @key. */
static inline uint64_t gw_guest_word(uint64_t key, uint64_t i)
{
    return gw_guest_mix(key + i * UINT64_C(0x9e3779b97f4a7c15), key ^ UINT64_C(0x8ebc6af09c88c6e3));
}

static inline uint64_t *gw_guest_page(const struct gw_guest *guest, uint64_t page)
{
    return (uint64_t *)(void *)(guest->ram.host + page * GW_GUEST_PAGE);
}

static inline struct gw_guest_entry *gw_guest_table(const struct gw_guest *guest)
{
    return (struct gw_guest_entry *)(void *)guest->table.host;
}

static inline uint64_t gw_guest_table_bytes(uint64_t pages)
{
    uint64_t bytes = pages * sizeof(struct gw_guest_entry);
    return (bytes + GW_GUEST_PAGE - 1) & ~(uint64_t)(GW_GUEST_PAGE - 1);
}

static inline uint64_t gw_guest_slices(const struct gw_guest *guest)
{
    return (guest->pages + GW_GUEST_SLICE_PAGES - 1) / GW_GUEST_SLICE_PAGES;
}

/* The hash of a table is the sum of its entries'. An empty one adds nothing, so holes need no visit. */
static inline uint64_t gw_guest_entry_hash(uint64_t page, struct gw_guest_entry entry)
{
    uint64_t value = (uint64_t)entry.generation << 32 | entry.sum;
    return value ? gw_guest_mix(gw_guest_mix(page + 1, value), value) : 0;
}

/* ---- guest_memory.c -------------------------------------------------------------------------- */

int gw_guest_memory_map(struct gw_guest_memory *memory, enum gw_block_kind kind, uint64_t bytes,
                        const char *name, struct gw_error *err);
void gw_guest_memory_unmap(struct gw_guest_memory *memory);
/* From the reserve; false if it has not so much of that kind. */
bool gw_guest_reserve_take(struct gw_guest_reserve *reserve, enum gw_block_kind kind,
                           uint64_t bytes, struct gw_guest_memory *memory);
/* Which pages are memory, a bit each; the others are holes, which read as zeros and must not be read,
 * or they become memory. NULL: all may be read (or memory was short, and holes are lost). For free(). */
uint64_t *gw_guest_memory_data(const struct gw_guest_memory *memory);
const char *gw_guest_kind_name(enum gw_block_kind kind);
uint32_t gw_guest_kind_page_bytes(enum gw_block_kind kind);
/* Are @bytes that are about to be touched more than the machine has left? It would kill somebody. */
int gw_guest_memory_afford(enum gw_block_kind kind, uint64_t bytes, const char *name,
                           struct gw_error *err);

/* ---- guest_parallel.c ------------------------------------------------------------------------ */

/* Call @work(ctx, slice) for each slice below @count, on all CPUs; ends early once one returned
 * non-zero, and returns the first of those. */
typedef int gw_guest_work_fn(void *ctx, uint64_t slice);
int gw_guest_parallel(gw_guest_work_fn *work, void *ctx, uint64_t count);

/* ---- guest_fill.c ---------------------------------------------------------------------------- */

int gw_guest_fill(struct gw_guest *guest, struct gw_error *err);
/* Is generation @generation (0, or a multiple of 16) of this page all zeros? */
bool gw_guest_is_zero(const struct gw_guest_config *config, uint64_t page, uint32_t generation);
/* All words of the page at that generation; 0 of a FILE fill is not known here. */
void gw_guest_compose(const struct gw_guest_config *config, uint64_t page, uint32_t generation,
                      uint64_t *words);

/* ---- guest_page.c ---------------------------------------------------------------------------- */

unsigned gw_guest_line_of(const struct gw_guest_config *config, uint64_t page, uint32_t generation);
void gw_guest_compose_line(const struct gw_guest_config *config, uint64_t page, unsigned line,
                           uint32_t generation, unsigned vcpu, uint64_t *words);
uint32_t gw_guest_line_sum(const uint64_t *words, unsigned line);
uint32_t gw_guest_page_sum(const uint64_t *words);
/* One write. False: the page had all the generations there are, and was left alone. */
bool gw_guest_write(struct gw_guest_vcpu *vcpu, uint64_t page);

/* ---- guest_pattern.c ------------------------------------------------------------------------- */

void gw_guest_pattern_init(struct gw_guest_vcpu *vcpu);
/* The page, counted from the vCPU's first, of its @nth write. */
uint64_t gw_guest_pattern_page(const struct gw_guest_vcpu *vcpu, uint64_t nth);

/* ---- guest_vcpu.c ---------------------------------------------------------------------------- */

/* Make the vCPUs of guest->config over guest->pages. -ENOMEM. */
int gw_guest_vcpus_new(struct gw_guest *guest);
unsigned gw_guest_owner(const struct gw_guest *guest, uint64_t page);
void gw_guest_vcpus_end(struct gw_guest *guest); /* the threads end */

/* ---- guest_device.c -------------------------------------------------------------------------- */

uint64_t gw_guest_hash(const struct gw_guest *guest); /* of the table, as its writers know it */

#endif

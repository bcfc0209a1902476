/* SPDX-License-Identifier: MIT */
/* tools/guest.h - the built-in guest: memory of a chosen kind, vCPU threads that write it under a
 * seeded pattern, and a proof that what arrived is one consistent cut of its history. It is built on
 * include/godwit alone.
 *
 * Life at the source: config_init, config_set..., new (maps and fills), start, [migrate], free.
 * Life at the target: new_incoming, offer for each block, its devices are loaded, verify, start, free.
 *
 * Blocks: "ram", --ram bytes of it, and "generations", the table that says how often each page was
 * written and what its checksum is. Devices: "guest" (what the guest is, each vCPU's count of
 * writes, one hash of the table) and "guest-ballast" (--device-state bytes, in one section or, above
 * 16 MiB, in as many as it takes).
 *
 * Threads: a guest belongs to one thread at a time; functions marked [any thread] may be called from
 * others. Writes by vCPUs race with nobody but the migration, by design. */
#ifndef GW_TOOLS_GUEST_H
#define GW_TOOLS_GUEST_H

#include <godwit/block.h>
#include <godwit/device.h>
#include <stdbool.h>
#include <stdint.h>

#define GW_GUEST_VCPUS_MAX 256u
#define GW_GUEST_RATE_MAX UINT64_MAX /* dirty_rate: as fast as they can ("max") */

enum gw_guest_fill {
    GW_FILL_RANDOM,
    GW_FILL_ZERO,  /* untouched: all of it is a hole */
    GW_FILL_TEXT,  /* compresses well, no page is zero */
    GW_FILL_MIXED, /* some pages zero (holes), the others random */
    GW_FILL_FILE,  /* the bytes of a file, its holes kept */
    GW_FILL_COUNT_
};

enum gw_guest_pattern {
    GW_PATTERN_UNIFORM,
    GW_PATTERN_ZIPF,
    GW_PATTERN_HOT,
    GW_PATTERN_SEQUENTIAL,
    GW_PATTERN_COUNT_
};

struct gw_guest_config {
    uint64_t ram_bytes;
    uint32_t vcpus;
    enum gw_block_kind memory;
    enum gw_guest_fill fill;
    uint32_t percent_zero; /* MIXED */
    char path[4096];       /* FILE */
    enum gw_guest_pattern pattern;
    double zipf_exponent; /* > 0 */
    uint32_t hot_writes;  /* percent of the writes ... */
    uint32_t hot_pages;   /* ... go to this percent of the pages */
    uint64_t dirty_rate;  /* bytes a second, a page's write counting 4096; 0: idle */
    uint64_t seed;
    uint64_t device_state_bytes;
};

/* The defaults of the command's help. */
void gw_guest_config_init(struct gw_guest_config *config);
/* One option, named as on the command line without dashes: ram vcpus memory fill pattern dirty-rate
 * seed device-state. Return: 0; -EINVAL: the value, -ENOENT: the name; err has a hint. */
int gw_guest_config_set(struct gw_guest_config *config, const char *name, const char *value,
                        struct gw_error *err);

/* Can there be such a guest? Return: 0; -EINVAL, err has a hint that names options. */
int gw_guest_config_check(const struct gw_guest_config *config, struct gw_error *err);

/* Memory that this machine could give now, its swap left out unless @with_swap; 0: not known. */
uint64_t gw_guest_memory_free(bool with_swap);
/* Bytes of all blocks of a guest with so much memory. */
uint64_t gw_guest_total_bytes(uint64_t ram_bytes);

struct gw_guest;

/* Map and fill, by as many threads as there are CPUs. vCPUs are not started. */
int gw_guest_new(const struct gw_guest_config *config, struct gw_guest **guest,
                 struct gw_error *err);

/* Memory touched ahead of time, for incoming guests: as many as fit, one after the other. */
struct gw_guest_reserve;
int gw_guest_reserve_new(enum gw_block_kind kind, uint64_t bytes, struct gw_guest_reserve **reserve,
                         struct gw_error *err);
/* All of it is free again, zero and touched; the guests that used it were freed. */
int gw_guest_reserve_reset(struct gw_guest_reserve *reserve, struct gw_error *err);
void gw_guest_reserve_free(struct gw_guest_reserve *reserve); /* takes NULL */

/* A guest that a source is about to describe. @reserve may be NULL; it outlives the guest. Blocks of
 * its kind are taken from it while they fit, others are mapped. */
int gw_guest_new_incoming(struct gw_guest_reserve *reserve, struct gw_guest **guest,
                          struct gw_error *err);
/* Give it a disk, before it is started, and at a target before anything is offered: virtio-blk over this
 * file (guest_disk.h), a block of memory more ("disk") and a device more. Its first vCPUs use it whatever
 * the dirty rate is. At both ends or at none. Return: as gw_guest_disk_new(), or -ENOMEM. */
int gw_guest_add_disk(struct gw_guest *guest, const char *path, struct gw_error *err);
/* Of blocks that gw_guest_total_bytes() does not count. */
uint64_t gw_guest_extra_bytes(const struct gw_guest *guest);
/* Memory for one block of the source; in @block, size_bytes and the name are @bytes and @name.
 * Return: 0, -EINVAL (a guest of ours has no such block), -EEXIST, -ENOMEM. */
int gw_guest_offer(struct gw_guest *guest, const char *name, uint64_t bytes, uint32_t page_bytes,
                   enum gw_block_kind kind, struct gw_block_desc *block, struct gw_error *err);

unsigned gw_guest_block_count(const struct gw_guest *guest);
void gw_guest_block(const struct gw_guest *guest, unsigned index, struct gw_block_desc *block);
unsigned gw_guest_device_count(const struct gw_guest *guest); /* the same at both ends */
void gw_guest_device(struct gw_guest *guest, unsigned index, struct gw_device_desc *device);

/* The vCPUs run. At a target: after the devices were loaded. Return: 0, -EINVAL (nothing loaded),
 * -EALREADY, -EAGAIN, -ENOMEM. */
int gw_guest_start(struct gw_guest *guest, struct gw_error *err);
/* The same, but no vCPU writes before gw_guest_resume(): all that can fail of a start. */
int gw_guest_start_paused(struct gw_guest *guest, struct gw_error *err);
/* On return every vCPU has stopped between two writes. Well under 1 ms, unless the machine gives a
 * vCPU no time to notice. Nothing to do if it is not running; no nesting. [any thread] */
void gw_guest_pause(struct gw_guest *guest);
void gw_guest_resume(struct gw_guest *guest); /* [any thread] */
/* The vCPUs stand still for @percent (0..99) of the time. [any thread] */
void gw_guest_throttle(struct gw_guest *guest, unsigned percent);
/* @writes more by one vCPU, on the caller's thread, as fast as it goes. The guest is paused or not
 * started, and loaded. */
void gw_guest_step(struct gw_guest *guest, unsigned vcpu, uint64_t writes);

/* Is memory one consistent cut of this guest's history? Recomputes every page from the fill and the
 * table of generations, or by its checksum where the fill was a file, the table's hash and the
 * vCPUs' counts from the table. Holes stay holes. The guest is paused, or not started.
 * Return: 0; -EBADMSG, code verify, err names the first page and what is wrong with it. */
int gw_guest_verify(struct gw_guest *guest, struct gw_error *err);

struct gw_guest_stats {
    uint64_t ram_bytes;
    uint32_t vcpus;
    uint64_t writes;  /* of pages, since the guest was made, at whatever host */
    uint64_t user_ns; /* CPU time of the vCPU threads here, at most 50 ms old; exact when paused */
    uint64_t system_ns;
};
void gw_guest_stats(const struct gw_guest *guest, struct gw_guest_stats *stats); /* [any thread] */
/* What the guest is; at a target once loaded (path is empty, memory the target's own). */
const struct gw_guest_config *gw_guest_config(const struct gw_guest *guest);

void gw_guest_free(struct gw_guest *guest); /* stops it first; takes NULL */

#endif

// SPDX-License-Identifier: MIT
/* Memory is mapped once per process and made anew for each run: pages that were never touched are
 * holes. The truth about a page is its shadow; the library sees the page, and only reads it. */
#include "tests/sim/machine.h"

#include "core/base/bitmap.h"
#include "core/base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct machine machines[GUESTS_MAX];
unsigned machine_count;
struct machine *machine_at[2];
static unsigned boots;
static bool taken; /* the target was offered a guest since it listens */

static uint8_t *map_arena(void)
{
    void *at = mmap(NULL, SPAN_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        violated("no memory for the guest");
    madvise(at, SPAN_BYTES, MADV_NOHUGEPAGE);
    return at;
}

static void mark(struct machine *m, unsigned block, uint64_t first, uint64_t pages)
{
    gw_bitmap_set_range(m->dirty[block], first, pages);
}

static uint8_t *page_of(const struct machine *m, uint8_t *const *memory, unsigned block,
                        unsigned page)
{
    return memory[block] + (size_t)m->at[block][page] * PAGE;
}

static void store(struct machine *m, unsigned block, unsigned page, unsigned word, uint64_t value)
{
    size_t at = (size_t)m->at[block][page] * PAGE + (size_t)word * 8;
    memcpy(m->source[block] + at, &value, sizeof(value));
    memcpy(m->shadow[block] + at, &value, sizeof(value));
    mark(m, block, m->at[block][page], 1);
}

/* Side by side from the block's start; or far apart, some of them neighbours. */
static void lay_out(struct machine *m, unsigned block)
{
    unsigned pages = m->pages[block];
    m->span[block] = pages;
    if (m->keyed) {
        unsigned units = choose(UNITS_MAX + 1);
        m->span[block] = units * UNIT_PAGES + (chance(3000) || units == 0 ? pages : 0);
    }
    for (unsigned i = 0; i < pages; i++) {
        unsigned low = i * m->span[block] / pages, high = (i + 1) * m->span[block] / pages;
        bool neighbour = i > 0 && m->at[block][i - 1] + 1 < high && chance(5000);
        m->at[block][i] = neighbour ? m->at[block][i - 1] + 1 : low;
        if (m->at[block][i] < low)
            m->at[block][i] = low;
    }
}

static void map_arenas(struct machine *m, struct machine *arenas)
{
    if (!arenas->source[0]) {
        for (unsigned i = 0; i < BLOCKS_MAX; i++) {
            arenas->source[i] = map_arena();
            arenas->target[i] = map_arena();
            arenas->shadow[i] = map_arena();
        }
    }
    *m = *arenas;
}

/* It boots: whatever it was before is gone. */
static void boot(struct machine *m)
{
    m->generation = ++boots;
    m->state = 1 + choose(1000);
    m->lock = SOURCE;
    m->source_runs = true;
    m->source_paused = m->source_died = m->lost_with_host = false;
    memset(m->tracking, 0, sizeof(m->tracking));
    for (unsigned i = 0; i < m->block_count; i++) {
        madvise(m->source[i], SPAN_BYTES, MADV_DONTNEED);
        madvise(m->shadow[i], SPAN_BYTES, MADV_DONTNEED);
        if (!m->span[i]) {
            m->pages[i] = 1 + choose(PAGES_MAX);
            lay_out(m, i);
        }
        unsigned full = choose(4); /* quarters that are not holes */
        for (unsigned page = 0; page < m->pages[i]; page++) {
            if (page % 4 <= full)
                store(m, i, page, (page * 7 + i) % 512, page + 1 + m->generation);
        }
    }
}

static struct machine *make(bool keyed)
{
    static struct machine arenas[GUESTS_MAX];
    gw_assert(machine_count < GUESTS_MAX);
    struct machine *m = &machines[machine_count];
    map_arenas(m, &arenas[machine_count]);
    machine_count++;
    m->keyed = keyed;
    m->block_count = 1 + choose(BLOCKS_MAX);
    m->write_chance = choose(5) * 100;
    m->state_bytes = chance(1000) ? choose(300000) : choose(64);
    return m;
}

void machine_make(void)
{
    machine_count = boots = 0;
    taken = false;
    bool keyed = chance(5000);
    struct machine *m = make(keyed);
    m->digest = chance(3000);
    m->has_disk = choose(2) == 0;
    m->has_trail = choose(2) == 1;
    m->has_map = choose(4) == 1;
    m->trail_acks = m->has_trail ? choose(2) : 0;
    for (unsigned side = 0; side < 2; side++)
        m->trail_beside[side] = chance(6000);
    boot(m);
    machine_at[SOURCE] = machine_at[TARGET] = m;
}

void machine_next(void)
{
    struct machine *m = make(machines[0].keyed);
    m->digest = machines[0].digest;
    m->has_disk = choose(2) == 0;
    memcpy(m->budget, machines[0].budget, sizeof(m->budget));
    m->has_trail = machines[0].has_trail;
    m->has_map = machines[0].has_map;
    m->trail_acks = machines[0].trail_acks;
    boot(m);
    machine_at[SOURCE] = m;
}

void machine_reboot(void)
{
    struct machine *m = machine_at[SOURCE];
    if (m->target_owns || m->ever_owned)
        violated("a guest is started again that ran at the target");
    if (m->has_disk && m->lock != NOBODY)
        violated("a guest is started again whose disk is held");
    boot(m);
}

void machine_listens(void)
{
    machine_at[TARGET] = machine_at[SOURCE];
    taken = false;
}

void machine_begin(void)
{
    struct machine *m = machine_at[SOURCE];
    m->littered = false;
    memset(m->flushed, 0, sizeof(m->flushed));
    for (unsigned i = 0; i < m->block_count; i++) {
        madvise(m->target[i], SPAN_BYTES, MADV_DONTNEED);
        if (chance(1000)) { /* content that may be overwritten, it says in target.h */
            memset(m->target[i], 0xa5, (size_t)m->span[i] * PAGE);
            m->littered = true;
        }
    }
    m->ever_owned = m->holding = m->unknown = m->stuck = false;
    m->round = 0;
    m->begun_ns = gw_clock_ns();
    m->run_failed = false;
    m->commits = 0;
}

void machine_write(void)
{
    struct machine *m = machine_at[SOURCE];
    if (!m->source_runs || world.dead[SOURCE] || !chance(m->write_chance))
        return;
    unsigned block = choose(m->block_count);
    unsigned page = choose(m->pages[block]);
    if (m->src && chance(300)) {
        uint64_t offset = (uint64_t)m->at[block][page] * PAGE;
        memset(m->source[block] + offset, 0, PAGE);
        memset(m->shadow[block] + offset, 0, PAGE);
        int rc = gw_source_block_discarded(m->src, block, offset, PAGE);
        if (rc < 0 && rc != -ENOMEM)
            violated("a discard is refused: %d", rc);
        if (rc == -ENOMEM) /* nobody was told: it is a write like any other */
            mark(m, block, m->at[block][page], 1);
        return;
    }
    if (m->keyed && chance(2000)) { /* a page that was full is empty, and soon is not */
        memset(page_of(m, m->source, block, page), 0, PAGE);
        memset(page_of(m, m->shadow, block, page), 0, PAGE);
        mark(m, block, m->at[block][page], 1);
        return;
    }
    if (m->keyed && chance(5000)) /* some pages are written more than others */
        page %= 4;
    page %= m->pages[block];
    store(m, block, page, choose(512), world.steps);
    m->state++;
}

void machine_check_source(const char *when)
{
    struct machine *m = machine_at[SOURCE];
    for (unsigned i = 0; i < m->block_count; i++) {
        for (unsigned page = 0; page < m->pages[i]; page++) {
            if (memcmp(page_of(m, m->source, i, page), page_of(m, m->shadow, i, page), PAGE) != 0)
                violated("%s: the source's memory is not what its guest wrote", when);
        }
    }
}

void machine_flushed(const void *local, size_t bytes)
{
    const uint8_t *at = local;
    for (struct machine *m = machines; m < machines + machine_count; m++) {
        for (unsigned i = 0; i < m->block_count; i++) {
            if (at >= m->source[i] && at < m->source[i] + SPAN_BYTES)
                gw_bitmap_set_range(m->flushed[i], (uint64_t)(at - m->source[i]) / PAGE,
                                    (bytes + PAGE - 1) / PAGE);
        }
    }
}

void machine_check_flushed(const struct gw_block *const *blocks)
{
    const struct machine *m = machine_at[SOURCE];
    for (unsigned i = 0; i < m->block_count; i++) {
        for (unsigned page = 0; page < m->span[i]; page++) {
            if (gw_bitmap_test(m->flushed[i], page) && !gw_bitmap_test(blocks[i]->dirty, page))
                violated("the put of block %u page %u failed, and the page is not dirty", i, page);
        }
    }
}

static void check_target(void)
{
    struct machine *m = machine_at[TARGET];
    for (unsigned i = 0; i < m->block_count; i++) {
        for (unsigned page = 0; page < m->pages[i]; page++) {
            if (memcmp(page_of(m, m->target, i, page), page_of(m, m->shadow, i, page), PAGE) != 0)
                violated("block %u page %u (the block's %u) at the target is not the source's", i,
                         page, m->at[i][page]);
        }
        size_t bytes = (size_t)m->span[i] * PAGE;
        if (m->littered && memcmp(m->target[i], m->shadow[i], bytes) != 0)
            violated("block %u at the target has something that the source's has not", i);
    }
}

void machine_dies(enum side side)
{
    for (struct machine *m = machines; m < machines + machine_count; m++) {
        if (side == SOURCE && m == machine_at[SOURCE]) {
            m->source_runs = false;
            m->source_died = true;
        } else if (side == TARGET && m->target_owns) {
            m->target_owns = false;
            m->lost_with_host = true;
        }
        if (m->lock == (int)side)
            m->lock = NOBODY; /* a lease runs out, at the latest when its host is fenced */
    }
}

static void check_runners(const struct machine *m)
{
    if (m->source_runs && m->target_owns)
        violated("two runners");
}

/* A host that is dead, or is only cleaned up after, runs nothing. */
static bool is_gone(enum side side)
{
    return world.dead[side] || world.cleaning;
}

static int refused(struct gw_error *err, int rc, const char *name)
{
    return gw_error_set(err, rc, GW_CODE_GUEST, "%s fails", name);
}

/* ---- the source's callbacks --------------------------------------------------------------------- */

static int pause_guest(void *ctx, struct gw_error *err)
{
    struct machine *m = machine_at[SOURCE];
    (void)ctx;
    int rc = world_callback(SOURCE, "pause");
    if (rc < 0)
        return refused(err, rc, "pause");
    m->source_runs = false;
    m->source_paused = true;
    return 0;
}

static int resume_guest(void *ctx, struct gw_error *err)
{
    struct machine *m = machine_at[SOURCE];
    (void)ctx;
    int rc = world_callback(SOURCE, "resume");
    if (rc < 0)
        return refused(err, rc, "resume");
    if (is_gone(SOURCE))
        return 0;
    if (m->has_disk && m->lock != SOURCE)
        violated("resumed without the disk");
    if (m->ever_owned)
        violated("resumed at the source after it ran at the target");
    machine_check_source("resume");
    m->source_runs = true;
    m->source_paused = false;
    check_runners(m);
    return 0;
}

static int release(void *ctx, struct gw_error *err)
{
    struct machine *m = machine_at[SOURCE];
    (void)ctx;
    int rc = world_callback(SOURCE, "release");
    if (rc < 0)
        return refused(err, rc, "release");
    if (!is_gone(SOURCE) && !m->source_paused)
        violated("the disk is released under a running guest");
    if (m->lock == SOURCE)
        m->lock = NOBODY;
    return 0;
}

static int retake(void *ctx, struct gw_error *err)
{
    struct machine *m = machine_at[SOURCE];
    (void)ctx;
    int rc = world_callback(SOURCE, "retake");
    if (rc < 0)
        return refused(err, rc, "retake");
    if (is_gone(SOURCE))
        return 0;
    if (m->has_disk && m->lock == TARGET)
        return refused(err, -EBUSY, "retake: the target holds the disk; it");
    m->lock = SOURCE;
    return 0;
}

static void source_event(void *ctx, const struct gw_event *event)
{
    struct machine *m = machine_at[SOURCE];
    (void)ctx;
    say("event %s: %s %s", gw_event_name(event->type), event->text,
        event->error ? event->error->message : "");
    m->unknown |= event->type == GW_EVENT_UNKNOWN;
    m->stuck |= event->type == GW_EVENT_RETAKE;
    if (is_gone(SOURCE) || !event->round || event->time_ns < m->begun_ns)
        return; /* of a process that died is told late */
    if (event->round->number <= m->round)
        violated("round %u is told behind round %u", event->round->number, m->round);
    m->round = event->round->number;
}

const struct gw_source_ops machine_source_ops = {.struct_bytes = sizeof(struct gw_source_ops),
                                                 .pause = pause_guest,
                                                 .resume = resume_guest,
                                                 .release = release,
                                                 .retake = retake,
                                                 .event = source_event};

/* ---- the dirty log --------------------------------------------------------------------------------- */

static int dirty_start(void *ctx, unsigned block, const struct gw_block_desc *desc,
                       struct gw_error *err)
{
    struct machine *m = machine_at[SOURCE];
    (void)ctx, (void)desc;
    int rc = world_callback(SOURCE, "dirty start");
    if (rc < 0)
        return refused(err, rc, "dirty start");
    m->tracking[block] = true;
    memset(m->dirty[block], 0, sizeof(m->dirty[block]));
    return 0;
}

static int dirty_sync(void *ctx, unsigned block, uint64_t first_page, uint64_t pages,
                      uint64_t *bitmap, struct gw_error *err)
{
    struct machine *m = machine_at[SOURCE];
    (void)ctx;
    if (world.cleaning) /* it may be another guest's source: that one has died */
        return refused(err, -EIO, "dirty sync");
    uint64_t end = first_page + pages;
    if (first_page % UNIT_PAGES || end > m->span[block] ||
        (end % UNIT_PAGES && end != m->span[block]))
        violated("a sync of pages %llu to %llu of %u", (unsigned long long)first_page,
                 (unsigned long long)end, m->span[block]);
    for (unsigned i = 0; i < m->sync_count; i++) {
        if (m->syncs[i].block == block && m->syncs[i].first < end && first_page < m->syncs[i].end)
            violated("two syncs of one range at the same time");
    }
    gw_assert(m->sync_count < SYNCS_MAX);
    unsigned mine = m->sync_count++;
    m->syncs[mine] = (struct machine_sync){block, first_page, end};
    int rc = world_callback(SOURCE, "dirty sync"); /* others go on meanwhile */
    for (mine = 0; m->syncs[mine].block != block || m->syncs[mine].first != first_page;)
        mine++;
    m->syncs[mine] = m->syncs[--m->sync_count];
    if (rc < 0)
        return refused(err, rc, "dirty sync");
    if (!m->tracking[block])
        violated("a sync of what is not tracked");
    for (uint64_t word = first_page / 64; word * 64 < end; word++) {
        bitmap[word - first_page / 64] |= m->dirty[block][word];
        m->dirty[block][word] = 0;
    }
    return 0;
}

static void dirty_stop(void *ctx, unsigned block)
{
    struct machine *m = machine_at[SOURCE];
    (void)ctx;
    m->tracking[block] = false;
}

const struct gw_dirty_ops machine_dirty_ops = {.struct_bytes = sizeof(struct gw_dirty_ops),
                                               .name = "sim",
                                               .flags = GW_DIRTY_SEES_VCPU,
                                               .start = dirty_start,
                                               .sync = dirty_sync,
                                               .stop = dirty_stop};

/* ---- what a NIC pins ------------------------------------------------------------------------------ */

/* The guest whose memory this is, and which of its blocks; nobody's may not be registered. */
static struct machine *owner_of(enum side side, const void *at, unsigned *block)
{
    for (struct machine *m = machines; m < machines + machine_count; m++) {
        uint8_t *const *memory = side == SOURCE ? m->source : m->target;
        for (*block = 0; *block < m->block_count; ++*block) {
            const uint8_t *host = memory[*block];
            if ((const uint8_t *)at >= host && (const uint8_t *)at < host + SPAN_BYTES)
                return m;
        }
    }
    violated("memory is registered that is no block's");
}

static int charge(int owner, const struct gw_mr_desc *desc, uint64_t registered_bytes)
{
    bool at_source = !(desc->access & GW_MR_REMOTE_WRITE);
    if (owner != BURIED && at_source != (owner == SOURCE))
        violated("the %s registers what the other side should", at_source ? "target" : "source");
    unsigned block;
    const struct machine *m = owner_of(at_source ? SOURCE : TARGET, desc->addr, &block);
    int rc = world_callback((enum side)owner, "register");
    uint64_t budget = m->budget[at_source ? SOURCE : TARGET];
    if (budget && registered_bytes > budget)
        violated("%s has %llu bytes registered, and may have %llu",
                 at_source ? "the source" : "the target", (unsigned long long)registered_bytes,
                 (unsigned long long)budget);
    return rc < 0 ? -ENOMEM : 0;
}

/* A pin counts as a write of every page (rule 6). */
static void pin(int owner, const struct gw_mr_desc *desc)
{
    (void)owner;
    if (desc->access & GW_MR_REMOTE_WRITE)
        return;
    unsigned block;
    struct machine *m = owner_of(SOURCE, desc->addr, &block);
    uint64_t first = (uint64_t)((const uint8_t *)desc->addr - m->source[block]) / PAGE;
    mark(m, block, first, desc->bytes / PAGE);
}

const struct gw_loop_pins machine_pins = {.charge = charge, .pin = pin};

int machine_add_blocks(struct gw_source *src, struct gw_error *err)
{
    struct machine *m = machine_at[SOURCE];
    for (unsigned i = 0; i < m->block_count; i++) {
        char name[24];
        snprintf(name, sizeof(name), "ram%u.%u", i, m->generation);
        struct gw_block_desc desc = {.struct_bytes = sizeof(desc),
                                     .name = name,
                                     .host = m->source[i],
                                     .size_bytes = (uint64_t)m->span[i] * PAGE,
                                     .page_bytes = PAGE,
                                     .kind = GW_BLOCK_ANON,
                                     .fd = -1};
        int rc = gw_source_add_block(src, &desc, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- the device ---------------------------------------------------------------------------------------- */

static int save(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    struct machine *m = machine_at[SOURCE];
    static const uint8_t padding[300000];
    (void)opaque;
    int rc = world_callback(SOURCE, "save");
    if (rc < 0)
        return refused(err, rc, "save");
    m->saved_state = m->state;
    gw_writer_be64(w, m->state);
    gw_writer_be32(w, m->state_bytes);
    gw_writer_bytes(w, padding, m->state_bytes);
    return 0;
}

static int load(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *err)
{
    struct machine *m = machine_at[TARGET];
    static uint8_t padding[300000];
    (void)opaque, (void)version_id;
    int rc = world_callback(TARGET, "load");
    if (rc < 0)
        return refused(err, rc, "load");
    uint64_t state = gw_reader_be64(r);
    gw_reader_bytes(r, padding, gw_reader_be32(r) % sizeof(padding));
    if (!is_gone(TARGET) && state != m->saved_state)
        violated("device state %llu instead of %llu", (unsigned long long)state,
                 (unsigned long long)m->saved_state);
    return 0;
}

const struct gw_device_desc machine_device = {.struct_bytes = sizeof(struct gw_device_desc),
                                              .name = "device",
                                              .version_id = 1,
                                              .minimum_version_id = 1,
                                              .save = save,
                                              .load = load};

/* ---- the trail: a device with handlers, an entry for each time that the device above moved on ------- */

static uint64_t entry_at(unsigned generation, uint64_t index)
{
    return index * UINT64_C(0x9e3779b97f4a7c15) ^ generation;
}

static void write_trail(struct machine *m, struct gw_writer *w, uint64_t entries_max)
{
    uint64_t entries = m->state - m->trail_sent;
    entries = entries < entries_max ? entries : entries_max;
    gw_writer_be32(w, (uint32_t)entries);
    for (uint64_t i = 0; i < entries; i++)
        gw_writer_be64(w, entry_at(m->generation, m->trail_sent + i));
    m->trail_sent += entries;
}

static int trail_setup(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    struct machine *m = machine_at[SOURCE];
    (void)opaque;
    int rc = world_callback(SOURCE, "trail setup");
    m->trail_sent = 0;
    gw_writer_be32(w, m->generation);
    return rc < 0 ? refused(err, rc, "trail setup") : 0;
}

static int trail_pending(void *opaque, struct gw_device_pending *pending, struct gw_error *err)
{
    struct machine *m = machine_at[SOURCE];
    (void)opaque;
    int rc = world_callback(SOURCE, "trail pending");
    pending->must_precopy_bytes = (m->state - m->trail_sent) * 8;
    pending->acks_wanted = m->trail_acks;
    return rc < 0 ? refused(err, rc, "trail pending") : 0;
}

static int trail_iterate(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                         struct gw_error *err)
{
    struct machine *m = machine_at[SOURCE];
    (void)opaque;
    int rc = world_callback(SOURCE, "trail iterate");
    if (!is_gone(SOURCE) && m->source_paused)
        violated("a device is to iterate while the guest is paused");
    write_trail(m, w, 1 + bytes_max / 8);
    return rc < 0                      ? refused(err, rc, "trail iterate")
           : m->trail_sent == m->state ? GW_DEVICE_DONE
                                       : 0;
}

static int trail_complete(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                          struct gw_error *err)
{
    struct machine *m = machine_at[SOURCE];
    (void)opaque, (void)bytes_max;
    int rc = world_callback(SOURCE, "trail complete");
    if (!is_gone(SOURCE) && !m->source_paused)
        violated("a device is to complete while the guest runs");
    if (!is_gone(SOURCE) && m->trail_acks && !m->trail_acked)
        violated("the guest is paused before the target acknowledged");
    write_trail(m, w, 3); /* so that it takes more than one call, now and then */
    return rc < 0                      ? refused(err, rc, "trail complete")
           : m->trail_sent == m->state ? GW_DEVICE_DONE
                                       : 0;
}

static int trail_load_setup(void *opaque, struct gw_error *err)
{
    struct machine *m = machine_at[TARGET];
    (void)opaque;
    int rc = world_callback(TARGET, "trail load setup");
    m->trail_loaded = 0;
    m->trail_acked = false;
    return rc < 0 ? refused(err, rc, "trail load setup") : 0;
}

static bool trail_ack_needed(void *opaque)
{
    (void)opaque;
    return machine_at[TARGET]->trail_acks > 0;
}

static int trail_load(void *opaque, struct gw_reader *r, enum gw_device_part part,
                      uint32_t version_id, struct gw_error *err)
{
    struct machine *m = machine_at[TARGET];
    (void)opaque, (void)version_id;
    int rc = world_callback(TARGET, "trail load");
    if (rc < 0)
        return refused(err, rc, "trail load");
    if (part == GW_DEVICE_BEGIN) {
        m->trail_of = gw_reader_be32(r);
        bool acks = m->trail_acks && !m->trail_acked;
        m->trail_acked |= acks;
        return acks ? GW_DEVICE_ACK : 0;
    }
    for (uint32_t left = gw_reader_be32(r); left > 0 && gw_reader_error(r) == 0; left--) {
        if (gw_reader_be64(r) != entry_at(m->trail_of, m->trail_loaded) && !is_gone(TARGET))
            violated("entry %llu of the trail is another", (unsigned long long)m->trail_loaded);
        m->trail_loaded++;
    }
    return 0;
}

static int trail_load_complete(void *opaque, struct gw_error *err)
{
    (void)opaque;
    int rc = world_callback(TARGET, "trail load complete");
    return rc < 0 ? refused(err, rc, "trail load complete") : 0;
}

static const struct gw_device_ops trail_ops = {.struct_bytes = sizeof(trail_ops),
                                               .setup = trail_setup,
                                               .pending_estimate = trail_pending,
                                               .iterate = trail_iterate,
                                               .complete_precopy = trail_complete,
                                               .load_setup = trail_load_setup,
                                               .switchover_ack_needed = trail_ack_needed,
                                               .load = trail_load,
                                               .load_complete = trail_load_complete};

const struct gw_device_desc machine_trail = {
    .struct_bytes = sizeof(struct gw_device_desc), .name = "trail", .ops = &trail_ops};
const struct gw_device_desc machine_trail_beside = {.struct_bytes = sizeof(struct gw_device_desc),
                                                    .name = "trail",
                                                    .flags = GW_DEVICE_WORKER,
                                                    .ops = &trail_ops};

/* ---- the map: early, before the memory ------------------------------------------------------------------- */

static int map_save(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    (void)opaque;
    int rc = world_callback(SOURCE, "map save");
    gw_writer_be32(w, machine_at[SOURCE]->generation);
    return rc < 0 ? refused(err, rc, "map save") : 0;
}

static int map_load(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *err)
{
    const struct machine *m = machine_at[TARGET];
    (void)opaque, (void)version_id;
    int rc = world_callback(TARGET, "map load");
    if (rc < 0)
        return refused(err, rc, "map load");
    gw_reader_be32(r);
    for (unsigned i = 0; !is_gone(TARGET) && i < m->block_count; i++) {
        for (unsigned page = 0; page < m->pages[i]; page++) {
            const uint8_t *at = page_of(m, m->target, i, page);
            bool untouched = at[0] == 0 || (m->littered && at[0] == 0xa5);
            if (!untouched || memcmp(at, at + 1, PAGE - 1) != 0)
                violated("memory has arrived before what comes before it");
        }
    }
    return 0;
}

const struct gw_device_desc machine_map = {.struct_bytes = sizeof(struct gw_device_desc),
                                           .name = "map",
                                           .flags = GW_DEVICE_EARLY,
                                           .save = map_save,
                                           .load = map_load};

/* ---- the target's callbacks ------------------------------------------------------------------------------ */

static struct machine *guest_of(const struct gw_block_offer *offer)
{
    const char *dot = strchr(offer->name, '.');
    for (struct machine *m = machines; dot && m < machines + machine_count; m++) {
        if (m->generation == strtoul(dot + 1, NULL, 10))
            return m;
    }
    return NULL;
}

static int block_offered(void *ctx, const struct gw_block_offer *offer, struct gw_block_desc *desc,
                         struct gw_error *err)
{
    (void)ctx;
    struct machine *m = guest_of(offer);
    if (!is_gone(TARGET) && taken && m != machine_at[TARGET])
        violated("a guest is offered to a target that has another");
    if (m) {
        machine_at[TARGET] = m;
        taken = true;
    }
    int rc = world_callback(TARGET, "block offered");
    if (rc < 0)
        return refused(err, rc, "block");
    if (!m)
        return refused(err, -EINVAL, "block: its guest has been started again; it");
    if (offer->id >= m->block_count || offer->size_bytes != (uint64_t)m->span[offer->id] * PAGE)
        violated("block %u of %llu bytes was never offered", offer->id,
                 (unsigned long long)offer->size_bytes);
    desc->host = m->target[offer->id];
    desc->kind = GW_BLOCK_ANON;
    desc->page_bytes = PAGE;
    desc->fd = -1;
    return 0;
}

static int blocks_ready(void *ctx, struct gw_error *err)
{
    (void)ctx;
    int rc = world_callback(TARGET, "blocks ready");
    return rc < 0 ? refused(err, rc, "blocks ready") : 0;
}

static int acquire(void *ctx, struct gw_error *err)
{
    struct machine *m = machine_at[TARGET];
    (void)ctx;
    int rc = world_callback(TARGET, "acquire");
    if (rc < 0)
        return refused(err, rc, "acquire");
    if (is_gone(TARGET))
        return 0;
    m->commits++;
    if (m->has_disk && m->lock == SOURCE)
        return refused(err, -EBUSY, "acquire: the source holds the disk; it");
    m->lock = TARGET;
    return 0;
}

static int run(void *ctx, struct gw_error *err)
{
    struct machine *m = machine_at[TARGET];
    (void)ctx;
    if (!is_gone(TARGET)) {
        if (m->has_disk && m->lock != TARGET)
            violated("run without the disk");
        if (!m->source_paused)
            violated("run at the target while the source's guest was not paused");
        m->target_owns = m->ever_owned = true;
        if (m->state != m->saved_state)
            violated("the device moved on after it was saved");
        if (m->has_trail && m->trail_of != m->generation)
            violated("runs with the trail of another guest");
        if (m->has_trail && m->trail_loaded != m->state)
            violated("%llu entries of the trail arrived, of %llu",
                     (unsigned long long)m->trail_loaded, (unsigned long long)m->state);
        check_runners(m);
        check_target();
    }
    int rc = world_callback(TARGET, "run");
    if (rc < 0 && !is_gone(TARGET))
        m->run_failed = true;
    return rc < 0 ? refused(err, rc, "run") : 0;
}

static void target_event(void *ctx, const struct gw_event *event)
{
    struct machine *m = machine_at[TARGET];
    (void)ctx;
    say("event %s: %s %s", gw_event_name(event->type), event->text,
        event->error ? event->error->message : "");
    m->holding |= event->type == GW_EVENT_HOLDING;
}

const struct gw_target_ops machine_target_ops = {.struct_bytes = sizeof(struct gw_target_ops),
                                                 .block_offered = block_offered,
                                                 .blocks_ready = blocks_ready,
                                                 .acquire = acquire,
                                                 .run = run,
                                                 .event = target_event};

// SPDX-License-Identifier: MIT
/* Memory is mapped once per process and made anew for each run: pages that were never touched are
 * holes. The truth about a page is its shadow; the library sees the page, and only reads it. */
#include "tests/sim/machine.h"

#include "core/base/bitmap.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

struct machine machine;

static uint8_t *map_arena(void)
{
    void *at =
        mmap(NULL, SPAN_MAX * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        violated("no memory for the guest");
    madvise(at, SPAN_MAX * PAGE, MADV_NOHUGEPAGE);
    return at;
}

static void mark(unsigned block, uint64_t first, uint64_t pages)
{
    gw_bitmap_set_range(machine.dirty[block], first, pages);
}

static uint8_t *page_of(uint8_t *const *memory, unsigned block, unsigned page)
{
    return memory[block] + (size_t)machine.at[block][page] * PAGE;
}

static void store(unsigned block, unsigned page, unsigned word, uint64_t value)
{
    size_t at = (size_t)machine.at[block][page] * PAGE + word * 8;
    memcpy(machine.source[block] + at, &value, sizeof(value));
    memcpy(machine.shadow[block] + at, &value, sizeof(value));
    mark(block, machine.at[block][page], 1);
}

/* Side by side from the block's start; or far apart, some of them neighbours. */
static void lay_out(unsigned block)
{
    unsigned pages = machine.pages[block];
    machine.span[block] = pages;
    if (machine.keyed) {
        unsigned units = choose(UNITS_MAX + 1);
        machine.span[block] = units * UNIT_PAGES + (chance(3000) || units == 0 ? pages : 0);
    }
    for (unsigned i = 0; i < pages; i++) {
        unsigned low = i * machine.span[block] / pages,
                 high = (i + 1) * machine.span[block] / pages;
        bool neighbour = i > 0 && machine.at[block][i - 1] + 1 < high && chance(5000);
        machine.at[block][i] = neighbour ? machine.at[block][i - 1] + 1 : low;
        if (machine.at[block][i] < low)
            machine.at[block][i] = low;
    }
}

void machine_make(void)
{
    static struct machine arenas;
    if (!arenas.source[0]) {
        for (unsigned i = 0; i < BLOCKS_MAX; i++) {
            arenas.source[i] = map_arena();
            arenas.target[i] = map_arena();
            arenas.shadow[i] = map_arena();
        }
    }
    machine = arenas;
    machine.keyed = chance(5000);
    machine.block_count = 1 + choose(BLOCKS_MAX);
    machine.write_chance = choose(5) * 100;
    machine.state = 1 + choose(1000);
    machine.state_bytes = chance(1000) ? choose(300000) : choose(64);
    machine.digest = chance(3000);
    machine.has_disk = choose(2) == 0;
    machine.lock = SOURCE;
    machine.source_runs = true;
    for (unsigned i = 0; i < machine.block_count; i++) {
        madvise(machine.source[i], SPAN_MAX * PAGE, MADV_DONTNEED);
        madvise(machine.shadow[i], SPAN_MAX * PAGE, MADV_DONTNEED);
        machine.pages[i] = 1 + choose(PAGES_MAX);
        lay_out(i);
        unsigned full = choose(4); /* quarters that are not holes */
        for (unsigned page = 0; page < machine.pages[i]; page++) {
            if (page % 4 <= full)
                store(i, page, (page * 7 + i) % 512, page + 1);
        }
    }
}

void machine_begin(void)
{
    machine.littered = false;
    for (unsigned i = 0; i < machine.block_count; i++) {
        madvise(machine.target[i], SPAN_MAX * PAGE, MADV_DONTNEED);
        if (chance(1000)) { /* content that may be overwritten, it says in target.h */
            memset(machine.target[i], 0xa5, (size_t)machine.span[i] * PAGE);
            machine.littered = true;
        }
    }
    machine.ever_owned = machine.holding = machine.unknown = machine.stuck = false;
    machine.run_failed = false;
    machine.commits = 0;
}

void machine_write(void)
{
    if (!machine.source_runs || world.dead[SOURCE] || !chance(machine.write_chance))
        return;
    unsigned block = choose(machine.block_count);
    unsigned page = choose(machine.pages[block]);
    if (machine.src && chance(300)) {
        uint64_t offset = (uint64_t)machine.at[block][page] * PAGE;
        memset(machine.source[block] + offset, 0, PAGE);
        memset(machine.shadow[block] + offset, 0, PAGE);
        int rc = gw_source_block_discarded(machine.src, block, offset, PAGE);
        if (rc < 0 && rc != -ENOMEM)
            violated("a discard is refused: %d", rc);
        if (rc == -ENOMEM) /* nobody was told: it is a write like any other */
            mark(block, machine.at[block][page], 1);
        return;
    }
    if (machine.keyed && chance(2000)) { /* a page that was full is empty, and soon is not */
        memset(page_of(machine.source, block, page), 0, PAGE);
        memset(page_of(machine.shadow, block, page), 0, PAGE);
        mark(block, machine.at[block][page], 1);
        return;
    }
    if (machine.keyed && chance(5000)) /* some pages are written more than others */
        page %= 4;
    page %= machine.pages[block];
    store(block, page, choose(512), world.steps);
    machine.state++;
}

void machine_check_source(const char *when)
{
    for (unsigned i = 0; i < machine.block_count; i++) {
        for (unsigned page = 0; page < machine.pages[i]; page++) {
            if (memcmp(page_of(machine.source, i, page), page_of(machine.shadow, i, page), PAGE) !=
                0)
                violated("%s: the source's memory is not what its guest wrote", when);
        }
    }
}

static void check_target(void)
{
    for (unsigned i = 0; i < machine.block_count; i++) {
        for (unsigned page = 0; page < machine.pages[i]; page++) {
            if (memcmp(page_of(machine.target, i, page), page_of(machine.shadow, i, page), PAGE) !=
                0)
                violated("block %u page %u (the block's %u) at the target is not the source's", i,
                         page, machine.at[i][page]);
        }
        size_t bytes = (size_t)machine.span[i] * PAGE;
        if (machine.littered && memcmp(machine.target[i], machine.shadow[i], bytes) != 0)
            violated("block %u at the target has something that the source's has not", i);
    }
}

void machine_dies(enum side side)
{
    if (side == SOURCE) {
        machine.source_runs = false;
    } else if (machine.target_owns) {
        machine.target_owns = false;
        machine.lost_with_host = true;
    }
    if (machine.lock == (int)side)
        machine.lock = NOBODY; /* a lease runs out, at the latest when its host is fenced */
}

static void check_runners(void)
{
    if (machine.source_runs && machine.target_owns)
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
    (void)ctx;
    int rc = world_callback(SOURCE, "pause");
    if (rc < 0)
        return refused(err, rc, "pause");
    machine.source_runs = false;
    machine.source_paused = true;
    return 0;
}

static int resume_guest(void *ctx, struct gw_error *err)
{
    (void)ctx;
    int rc = world_callback(SOURCE, "resume");
    if (rc < 0)
        return refused(err, rc, "resume");
    if (is_gone(SOURCE))
        return 0;
    if (machine.has_disk && machine.lock != SOURCE)
        violated("resumed without the disk");
    if (machine.ever_owned)
        violated("resumed at the source after it ran at the target");
    machine_check_source("resume");
    machine.source_runs = true;
    machine.source_paused = false;
    check_runners();
    return 0;
}

static int release(void *ctx, struct gw_error *err)
{
    (void)ctx;
    int rc = world_callback(SOURCE, "release");
    if (rc < 0)
        return refused(err, rc, "release");
    if (!is_gone(SOURCE) && !machine.source_paused)
        violated("the disk is released under a running guest");
    if (machine.lock == SOURCE)
        machine.lock = NOBODY;
    return 0;
}

static int retake(void *ctx, struct gw_error *err)
{
    (void)ctx;
    int rc = world_callback(SOURCE, "retake");
    if (rc < 0)
        return refused(err, rc, "retake");
    if (is_gone(SOURCE))
        return 0;
    if (machine.has_disk && machine.lock == TARGET)
        return refused(err, -EBUSY, "retake: the target holds the disk; it");
    machine.lock = SOURCE;
    return 0;
}

static void source_event(void *ctx, const struct gw_event *event)
{
    (void)ctx;
    say("event %s: %s %s", gw_event_name(event->type), event->text,
        event->error ? event->error->message : "");
    machine.unknown |= event->type == GW_EVENT_UNKNOWN;
    machine.stuck |= event->type == GW_EVENT_RETAKE;
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
    (void)ctx, (void)desc;
    int rc = world_callback(SOURCE, "dirty start");
    if (rc < 0)
        return refused(err, rc, "dirty start");
    machine.tracking[block] = true;
    memset(machine.dirty[block], 0, sizeof(machine.dirty[block]));
    return 0;
}

static int dirty_sync(void *ctx, unsigned block, uint64_t first_page, uint64_t pages,
                      uint64_t *bitmap, struct gw_error *err)
{
    (void)ctx;
    uint64_t end = first_page + pages;
    if (first_page % UNIT_PAGES || end > machine.span[block] ||
        (end % UNIT_PAGES && end != machine.span[block]))
        violated("a sync of pages %llu to %llu of %u", (unsigned long long)first_page,
                 (unsigned long long)end, machine.span[block]);
    for (unsigned i = 0; i < machine.sync_count; i++) {
        if (machine.syncs[i].block == block && machine.syncs[i].first < end &&
            first_page < machine.syncs[i].end)
            violated("two syncs of one range at the same time");
    }
    gw_assert(machine.sync_count < SYNCS_MAX);
    unsigned mine = machine.sync_count++;
    machine.syncs[mine] = (struct machine_sync){block, first_page, end};
    int rc = world_callback(SOURCE, "dirty sync"); /* others go on meanwhile */
    for (mine = 0; machine.syncs[mine].block != block || machine.syncs[mine].first != first_page;)
        mine++;
    machine.syncs[mine] = machine.syncs[--machine.sync_count];
    if (rc < 0)
        return refused(err, rc, "dirty sync");
    if (!machine.tracking[block])
        violated("a sync of what is not tracked");
    for (uint64_t word = first_page / 64; word * 64 < end; word++) {
        bitmap[word - first_page / 64] |= machine.dirty[block][word];
        machine.dirty[block][word] = 0;
    }
    return 0;
}

static void dirty_stop(void *ctx, unsigned block)
{
    (void)ctx;
    machine.tracking[block] = false;
}

const struct gw_dirty_ops machine_dirty_ops = {.struct_bytes = sizeof(struct gw_dirty_ops),
                                               .name = "sim",
                                               .flags = GW_DIRTY_SEES_VCPU,
                                               .start = dirty_start,
                                               .sync = dirty_sync,
                                               .stop = dirty_stop};

/* ---- what a NIC pins ------------------------------------------------------------------------------ */

/* The block whose memory this is, NOBODY's if it is none's. */
static unsigned block_at(uint8_t *const *memory, const void *at)
{
    for (unsigned i = 0; i < machine.block_count; i++) {
        const uint8_t *host = memory[i];
        if ((const uint8_t *)at >= host && (const uint8_t *)at < host + SPAN_MAX * PAGE)
            return i;
    }
    violated("memory is registered that is no block's");
}

static int charge(int owner, const struct gw_mr_desc *desc, uint64_t registered_bytes)
{
    bool at_source = !(desc->access & GW_MR_REMOTE_WRITE);
    if (owner != BURIED && at_source != (owner == SOURCE))
        violated("the %s registers what the other side should", at_source ? "target" : "source");
    block_at(at_source ? machine.source : machine.target, desc->addr);
    int rc = world_callback((enum side)owner, "register");
    uint64_t budget = machine.budget[at_source ? SOURCE : TARGET];
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
    unsigned block = block_at(machine.source, desc->addr);
    uint64_t first = (uint64_t)((const uint8_t *)desc->addr - machine.source[block]) / PAGE;
    mark(block, first, desc->bytes / PAGE);
}

const struct gw_loop_pins machine_pins = {.charge = charge, .pin = pin};

int machine_add_blocks(struct gw_source *src, struct gw_error *err)
{
    for (unsigned i = 0; i < machine.block_count; i++) {
        char name[16];
        snprintf(name, sizeof(name), "ram%u", i);
        struct gw_block_desc desc = {.struct_bytes = sizeof(desc),
                                     .name = name,
                                     .host = machine.source[i],
                                     .size_bytes = (uint64_t)machine.span[i] * PAGE,
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
    static const uint8_t padding[300000];
    (void)opaque;
    int rc = world_callback(SOURCE, "save");
    if (rc < 0)
        return refused(err, rc, "save");
    machine.saved_state = machine.state;
    gw_writer_be64(w, machine.state);
    gw_writer_be32(w, machine.state_bytes);
    gw_writer_bytes(w, padding, machine.state_bytes);
    return 0;
}

static int load(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *err)
{
    static uint8_t padding[300000];
    (void)opaque, (void)version_id;
    int rc = world_callback(TARGET, "load");
    if (rc < 0)
        return refused(err, rc, "load");
    uint64_t state = gw_reader_be64(r);
    gw_reader_bytes(r, padding, gw_reader_be32(r) % sizeof(padding));
    if (!is_gone(TARGET) && state != machine.saved_state)
        violated("device state %llu instead of %llu", (unsigned long long)state,
                 (unsigned long long)machine.saved_state);
    return 0;
}

const struct gw_device_desc machine_device = {.struct_bytes = sizeof(struct gw_device_desc),
                                              .name = "device",
                                              .version_id = 1,
                                              .minimum_version_id = 1,
                                              .save = save,
                                              .load = load};

/* ---- the target's callbacks ------------------------------------------------------------------------------ */

static int block_offered(void *ctx, const struct gw_block_offer *offer, struct gw_block_desc *desc,
                         struct gw_error *err)
{
    (void)ctx;
    int rc = world_callback(TARGET, "block offered");
    if (rc < 0)
        return refused(err, rc, "block");
    if (offer->id >= machine.block_count ||
        offer->size_bytes != (uint64_t)machine.span[offer->id] * PAGE)
        violated("block %u of %llu bytes was never offered", offer->id,
                 (unsigned long long)offer->size_bytes);
    desc->host = machine.target[offer->id];
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
    (void)ctx;
    int rc = world_callback(TARGET, "acquire");
    if (rc < 0)
        return refused(err, rc, "acquire");
    if (is_gone(TARGET))
        return 0;
    machine.commits++;
    if (machine.has_disk && machine.lock == SOURCE)
        return refused(err, -EBUSY, "acquire: the source holds the disk; it");
    machine.lock = TARGET;
    return 0;
}

static int run(void *ctx, struct gw_error *err)
{
    (void)ctx;
    if (!is_gone(TARGET)) {
        if (machine.has_disk && machine.lock != TARGET)
            violated("run without the disk");
        if (!machine.source_paused)
            violated("run at the target while the source's guest was not paused");
        machine.target_owns = machine.ever_owned = true;
        if (machine.state != machine.saved_state)
            violated("the device moved on after it was saved");
        check_runners();
        check_target();
    }
    int rc = world_callback(TARGET, "run");
    if (rc < 0 && !is_gone(TARGET))
        machine.run_failed = true;
    return rc < 0 ? refused(err, rc, "run") : 0;
}

static void target_event(void *ctx, const struct gw_event *event)
{
    (void)ctx;
    say("event %s: %s %s", gw_event_name(event->type), event->text,
        event->error ? event->error->message : "");
    machine.holding |= event->type == GW_EVENT_HOLDING;
}

const struct gw_target_ops machine_target_ops = {.struct_bytes = sizeof(struct gw_target_ops),
                                                 .block_offered = block_offered,
                                                 .blocks_ready = blocks_ready,
                                                 .acquire = acquire,
                                                 .run = run,
                                                 .event = target_event};

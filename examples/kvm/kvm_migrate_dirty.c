// SPDX-License-Identifier: MIT
/* Which pages were written: the union of two sources. One is KVM's: its dirty log, or its dirty rings where
 * the machine has them. The other is what the hypervisor itself wrote, which KVM does not see. The library's
 * block ids count blocks in the order of machine->blocks.
 *
 * A fetch of the log copies the bits of a whole slot and clears none, so fetches need no lock. It is cheap
 * as long as slots are small: VMM_SLOT_BYTES_MAX. What was fetched of a range is cleared, which arms it
 * again; KVM holds a lock of its own meanwhile, so that is done for a part at a time. */
#include "examples/kvm/kvm_migrate.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define CLEAR_PAGES_MAX 16384u
#define SLOT_WORDS (VMM_SLOT_BYTES_MAX / GW_DIRTY_PAGE_BYTES / 64)

static int fail(struct gw_error *err, const struct vmm_block *block, const char *what)
{
    return gw_error_set(err, -errno, GW_CODE_DIRTY, "block '%s': %s: %s", block->name, what,
                        strerror(errno));
}

static int set_log(struct vmm_machine *machine, unsigned id, bool log, struct gw_error *err)
{
    const struct vmm_block *block = &machine->blocks[id];
    if (block->read_only) /* no processor can write it */
        return 0;
    return vmm_memory_slot(machine, block, log) < 0 ? fail(err, block, "dirty tracking") : 0;
}

static void stop(void *ctx, unsigned id)
{
    set_log(ctx, id, false, NULL);
}

static int log_clear(struct vmm_machine *machine, unsigned id, uint64_t first, uint64_t pages,
                     uint64_t *bitmap, struct gw_error *err)
{
    struct kvm_clear_dirty_log clear = {.slot = machine->blocks[id].slot,
                                        .first_page = first,
                                        .num_pages = (uint32_t)pages,
                                        .dirty_bitmap = bitmap};
    int rc = ioctl(machine->vm, KVM_CLEAR_DIRTY_LOG, &clear);
    return rc < 0 ? fail(err, &machine->blocks[id], "clear of the dirty log") : 0;
}

/* KVM's log calls every page written at first and arms none. */
static int start(void *ctx, unsigned id, const struct gw_block_desc *block, struct gw_error *err)
{
    uint64_t all[CLEAR_PAGES_MAX / 64], pages = block->size_bytes / GW_DIRTY_PAGE_BYTES;
    int rc = set_log(ctx, id, true, err);
    memset(all, 0xff, sizeof(all));
    for (uint64_t first = 0, step; rc == 0 && first < pages; first += step) {
        step = pages - first < CLEAR_PAGES_MAX ? pages - first : CLEAR_PAGES_MAX;
        if (((struct vmm_machine *)ctx)->ring_bytes == 0 && !(block->flags & GW_BLOCK_READ_ONLY))
            rc = log_clear(ctx, id, first, step, all, err);
    }
    if (rc < 0)
        stop(ctx, id);
    return rc;
}

static int log_sync(void *ctx, unsigned id, uint64_t first, uint64_t pages, uint64_t *bitmap,
                    struct gw_error *err)
{
    struct vmm_machine *machine = ctx;
    uint64_t written[SLOT_WORDS] = {0};
    struct kvm_dirty_log get = {.slot = machine->blocks[id].slot, .dirty_bitmap = written};
    if (machine->blocks[id].read_only)
        return 0;
    int rc = ioctl(machine->vm, KVM_GET_DIRTY_LOG, &get);
    if (rc < 0)
        return fail(err, &machine->blocks[id], "dirty log");
    for (uint64_t step; rc == 0 && pages > 0; first += step, pages -= step) {
        step = pages < CLEAR_PAGES_MAX ? pages : CLEAR_PAGES_MAX;
        rc = log_clear(machine, id, first, step, &written[first / 64], err);
        for (uint64_t word = 0; rc == 0 && word < step / 64; word++)
            *bitmap++ |= written[first / 64 + word];
    }
    return rc;
}

static int ring_sync(void *ctx, unsigned id, uint64_t first, uint64_t pages, uint64_t *bitmap,
                     struct gw_error *err)
{
    struct vmm_machine *machine = ctx;
    int rc = vmm_ring_take(machine, &machine->blocks[id], first, pages, bitmap);
    errno = -rc;
    return rc < 0 ? fail(err, &machine->blocks[id], "dirty ring") : 0;
}

static int own_sync(void *ctx, unsigned id, uint64_t first, uint64_t pages, uint64_t *bitmap,
                    struct gw_error *err)
{
    (void)err;
    vmm_pages_take(((struct vmm_machine *)ctx)->blocks[id].own, first, pages, bitmap);
    return 0;
}

const struct gw_dirty_ops vmm_log_ops = {
    sizeof(vmm_log_ops), "kvm-log", GW_DIRTY_SEES_VCPU, start, log_sync, .stop = stop};
const struct gw_dirty_ops vmm_ring_ops = {
    sizeof(vmm_ring_ops), "kvm-ring", GW_DIRTY_SEES_VCPU | GW_DIRTY_CAN_LOSE, start, ring_sync,
    .stop = stop};
/* It is always on: nothing is to be started. */
const struct gw_dirty_ops vmm_own_ops = {sizeof(vmm_own_ops), "hypervisor", GW_DIRTY_SEES_DMA,
                                         .sync = own_sync};

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
    return vmm_memory_slot(machine, block, log) < 0 ? fail(err, block, "dirty tracking") : 0;
}

static void stop(void *ctx, unsigned id)
{
    set_log(ctx, id, false, NULL);
}

static int log_clear(struct vmm_machine *machine, unsigned id, uint64_t first, uint64_t pages,
                     uint64_t *bitmap, struct gw_error *err)
{
    int rc = 0;
    for (uint64_t step; rc == 0 && pages > 0; first += step, pages -= step, bitmap += step / 64) {
        step = pages < CLEAR_PAGES_MAX ? pages : CLEAR_PAGES_MAX;
        struct kvm_clear_dirty_log clear = {machine->blocks[id].slot, (uint32_t)step, first,
                                            .dirty_bitmap = bitmap};
        rc = ioctl(machine->vm, KVM_CLEAR_DIRTY_LOG, &clear);
    }
    return rc < 0 ? fail(err, &machine->blocks[id], "clear of the dirty log") : 0;
}

/* KVM's log calls every page written at first and arms none. */
static int start(void *ctx, unsigned id, const struct gw_block_desc *block, struct gw_error *err)
{
    struct vmm_machine *machine = ctx;
    uint64_t all[SLOT_WORDS];
    int rc = set_log(machine, id, true, err);
    memset(all, 0xff, sizeof(all));
    if (rc == 0 && machine->ring_bytes == 0 && !machine->blocks[id].read_only)
        rc = log_clear(machine, id, 0, block->size_bytes / GW_DIRTY_PAGE_BYTES, all, err);
    if (rc < 0)
        stop(ctx, id);
    return rc;
}

static int log_sync(void *ctx, unsigned id, uint64_t first, uint64_t pages, uint64_t *bitmap,
                    struct gw_error *err)
{
    struct vmm_machine *machine = ctx;
    uint64_t written[SLOT_WORDS] = {0};
    struct kvm_dirty_log get = {machine->blocks[id].slot, .dirty_bitmap = written};
    if (machine->blocks[id].read_only)
        return 0;
    if (ioctl(machine->vm, KVM_GET_DIRTY_LOG, &get) < 0)
        return fail(err, &machine->blocks[id], "dirty log");
    int rc = log_clear(machine, id, first, pages, &written[first / 64], err);
    for (uint64_t word = 0; rc == 0 && word < pages / 64; word++)
        bitmap[word] |= written[first / 64 + word];
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

// SPDX-License-Identifier: MIT
/* The machine's side of a migration: what godwit asks a hypervisor to do. All of it runs inside
 * gw_dispatch(), on the main thread. */
#include "examples/kvm/kvm_migrate.h"
#include "devices/virtio/virtio.h"

#include <errno.h>

static int told(struct vmm_migration *migration, int rc, struct gw_error *err)
{
    return rc < 0 ? gw_error_set(err, rc, GW_CODE_GUEST, "%s", migration->machine->why) : rc;
}

static int on_pause(void *ctx, struct gw_error *err)
{
    struct vmm_migration *migration = ctx;
    vmm_machine_pause(migration->machine);
    return told(migration, migration->machine->crashed ? -EFAULT : 0, err);
}

static int on_resume(void *ctx, struct gw_error *err)
{
    struct vmm_migration *migration = ctx;
    return told(migration, vmm_machine_run(migration->machine), err);
}

static int on_release(void *ctx, struct gw_error *err)
{
    struct vmm_migration *migration = ctx;
    return told(migration, vmm_lock_give(migration->machine), err);
}

static int on_acquire(void *ctx, struct gw_error *err)
{
    struct vmm_migration *migration = ctx;
    return told(migration, vmm_lock_take(migration->machine), err);
}

/* What this host spent with the guest, by the ledger, is the least that it was paused. The guest is nowhere
 * else by now, so it runs even where a clock of it is late. */
static int on_run(void *ctx, struct gw_error *err)
{
    struct vmm_migration *migration = ctx;
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    gw_target_stats(migration->target, &stats);
    uint64_t least_ns = stats.downtime.revoke_ns + stats.downtime.digest_ns +
                        stats.downtime.device_load_ns + stats.downtime.acquire_ns;
    if (vmm_board_arrived(migration->machine, least_ns) < 0)
        migration->log.fn(migration->log.ctx, GW_LOG_WARN, "clock", migration->machine->why);
    return told(migration, vmm_machine_run(migration->machine), err);
}

static void on_event(void *ctx, const struct gw_event *event)
{
    struct vmm_migration *migration = ctx;
    migration->event(migration->log.ctx, event);
    migration->unknown |= event->type == GW_EVENT_UNKNOWN;
    migration->retake |= event->type == GW_EVENT_RETAKE;
    migration->ended |= event->type == GW_EVENT_ENDED;
}

static int on_block_offered(void *ctx, const struct gw_block_offer *offer,
                            struct gw_block_desc *desc, struct gw_error *err)
{
    struct vmm_migration *migration = ctx;
    struct vmm_block *block;
    int rc = vmm_memory_add(migration->machine, offer->name, offer->size_bytes,
                            offer->flags & GW_BLOCK_READ_ONLY, &block);
    if (rc < 0)
        return told(migration, rc, err);
    desc->host = block->host;
    desc->page_bytes = block->page_bytes;
    desc->kind = (enum gw_block_kind)block->memory; /* in the same order */
    desc->fd = block->fd;
    return 0;
}

static void on_throttle(void *ctx, unsigned vcpu, unsigned percent)
{
    vmm_machine_slow(((struct vmm_migration *)ctx)->machine, vcpu, percent);
}

static const struct gw_source_ops source_ops = {
    sizeof(source_ops), on_pause, on_resume, on_release, on_acquire, on_event, on_throttle};
static const struct gw_target_ops target_ops = {
    sizeof(target_ops), on_block_offered, .acquire = on_acquire, .run = on_run, .event = on_event};

static int add_block(struct vmm_migration *migration, const struct vmm_block *block,
                     struct gw_error *err)
{
    struct gw_block_desc desc = {
        sizeof(desc),      block->name,
        block->host,       block->bytes,
        block->page_bytes, (enum gw_block_kind)block->memory,
        block->fd,         .flags = block->read_only ? GW_BLOCK_READ_ONLY : 0};
    int rc = gw_source_add_block(migration->source, &desc, err);
    return rc < 0 ? rc : 0;
}

static int add_devices(struct vmm_migration *migration, struct gw_error *err)
{
    struct gw_device_desc devices[2];
    unsigned count = migration->machine->disk.dev ? 2 : 1;
    migration->device =
        (struct gw_vmstate_device){sizeof(migration->device), &vmm_vmstate, migration};
    migration->board = &migration->machine->board;
    int rc = gw_vmstate_device_desc(&migration->device, &devices[0], err);
    if (rc == 0 && count == 2)
        rc = gw_virtio_device(migration->machine->disk.dev, &devices[1], err);
    for (unsigned i = 0; rc == 0 && i < count; i++)
        rc = migration->source ? gw_source_add_device(migration->source, &devices[i], err)
                               : gw_target_add_device(migration->target, &devices[i], err);
    return rc;
}

int vmm_send_start(struct vmm_migration *migration, const char *uri, struct gw_error *err)
{
    struct gw_source_config config = {sizeof(config),    migration->loop, &source_ops, migration,
                                      migration->params, &migration->log, VMM_MACHINE};
    int rc = gw_source_new(&config, &migration->source, err);
    for (unsigned i = 0; rc == 0 && i < migration->machine->block_count; i++)
        rc = add_block(migration, &migration->machine->blocks[i], err);
    if (rc == 0)
        rc = add_devices(migration, err);
    if (rc == 0)
        rc = gw_source_add_dirty(migration->source,
                                 migration->machine->ring_bytes > 0 ? &vmm_ring_ops : &vmm_log_ops,
                                 migration->machine, err);
    if (rc == 0)
        rc = gw_source_add_dirty(migration->source, &vmm_own_ops, migration->machine, err);
    return rc == 0 ? gw_source_start(migration->source, uri, err) : rc;
}

int vmm_receive_start(struct vmm_migration *migration, const char *uri, struct gw_error *err)
{
    struct gw_target_config config = {sizeof(config), migration->loop,         &target_ops,
                                      migration,      migration->params,       &migration->log,
                                      VMM_MACHINE,    migration->ram_bytes_max};
    int rc = gw_target_new(&config, &migration->target, err);
    if (rc == 0)
        rc = add_devices(migration, err);
    return rc == 0 ? gw_target_listen(migration->target, uri, err) : rc;
}

void vmm_migration_close(struct vmm_migration *migration)
{
    gw_source_free(migration->source);
    gw_target_free(migration->target);
    migration->source = NULL;
    migration->target = NULL;
    migration->ended = migration->unknown = migration->retake = false;
}

// SPDX-License-Identifier: MIT
/* The machine's disk: virtio-blk of devices/virtio over a file. Processors reach its registers; requests are
 * carried out by the main thread, a few at a time, so a pause finds some in the rings and some held by the
 * device. Both move: those in its state, these in memory. What it writes to memory it marks. */
#include "devices/virtio/virtio.h"
#include "examples/kvm/kvm_machine.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOTIFY 0x50u /* the register that says that a queue has something */
#define RING 64u
#define HELD_MAX 4u /* requests that are out of the ring and not carried out */
#define TURN 2u     /* carried out in a turn of the main thread's */

static void *map(void *opaque, uint64_t gpa, uint64_t bytes)
{
    return vmm_memory_at(opaque, gpa, bytes);
}

static void wrote(void *opaque, uint64_t gpa, uint64_t bytes)
{
    vmm_memory_wrote(opaque, gpa, bytes);
}

static void interrupt(void *opaque, bool level)
{
    struct vmm_machine *machine = opaque;
    if (level)
        vmm_vcpu_raise(&machine->vcpus[0], BOARD_LINE_DISK);
}

int vmm_disk_open(struct vmm_machine *machine, const char *path)
{
    struct vmm_disk *disk = &machine->disk;
    struct gw_error err = GW_ERROR_INIT;
    struct stat file = {0};
    disk->fd = open(path, O_RDWR | O_CLOEXEC);
    disk->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (disk->fd < 0 || disk->kick_fd < 0 || fstat(disk->fd, &file) < 0)
        return vmm_fail(machine, -errno, "disk '%s': %s", path, strerror(errno));
    if (file.st_size < 512)
        return vmm_fail(machine, -EINVAL, "disk '%s': no file of a sector or more", path);
    machine->board.disk_bytes = (uint64_t)file.st_size / 512 * 512;
    struct gw_virtio_config config = {
        .struct_bytes = sizeof(config),
        .name = "virtio-blk",
        .bus = GW_VIRTIO_MMIO,
        .features = GW_VIRTIO_BIT(GW_VIRTIO_F_VERSION_1) | GW_VIRTIO_BIT(GW_VIRTIO_BLK_F_FLUSH) |
                    GW_VIRTIO_BIT(GW_VIRTIO_BLK_F_SEG_MAX),
        .flags = GW_VIRTIO_OWN_ELEMENTS,
        .host = {.opaque = machine, .map = map, .wrote = wrote, .interrupt = interrupt},
    };
    const struct gw_virtio_blk_config blk = {.struct_bytes = sizeof(blk),
                                             .queues = 1,
                                             .ring = RING,
                                             .fd = disk->fd,
                                             .bytes = machine->board.disk_bytes};
    int rc = gw_virtio_blk_new(&config, &blk, &disk->dev, &err);
    return rc < 0 ? vmm_fail(machine, rc, "disk '%s': %s", path, err.message) : 0;
}

void vmm_disk_kick(struct vmm_machine *machine)
{
    if (machine->disk.dev)
        (void)eventfd_write(machine->disk.kick_fd, 1);
}

void vmm_disk_step(struct vmm_machine *machine)
{
    struct vmm_disk *disk = &machine->disk;
    eventfd_t kicks;
    if (eventfd_read(disk->kick_fd, &kicks) < 0)
        return;
    pthread_mutex_lock(&disk->lock);
    unsigned done = gw_virtio_blk_step(disk->dev, HELD_MAX, TURN);
    pthread_mutex_unlock(&disk->lock);
    if (done > 0)
        vmm_disk_kick(machine); /* there may be more */
}

bool vmm_disk_mmio(struct vmm_machine *machine, uint64_t gpa, bool out, void *data, unsigned bytes)
{
    struct vmm_disk *disk = &machine->disk;
    uint64_t value = 0, offset = gpa - BOARD_VIRTIO_AT;
    if (!disk->dev || gpa < BOARD_VIRTIO_AT || offset >= GW_VIRTIO_MMIO_BYTES)
        return false;
    pthread_mutex_lock(&disk->lock);
    if (out) {
        memcpy(&value, data, bytes);
        gw_virtio_mmio_write(disk->dev, offset, bytes, value);
    } else {
        value = gw_virtio_mmio_read(disk->dev, offset, bytes);
        memcpy(data, &value, bytes);
    }
    pthread_mutex_unlock(&disk->lock);
    if (out && offset == NOTIFY)
        vmm_disk_kick(machine);
    return true;
}

void vmm_disk_close(struct vmm_machine *machine)
{
    struct vmm_disk *disk = &machine->disk;
    gw_virtio_free(disk->dev);
    disk->dev = NULL;
    if (disk->fd >= 0)
        close(disk->fd);
    if (disk->kick_fd >= 0)
        close(disk->kick_fd);
    disk->fd = disk->kick_fd = -1;
}

/* SPDX-License-Identifier: MIT */
/* tools/guest_disk.h - a disk of the built-in guest: virtio-blk (devices/virtio) over a file, and in the
 * guest the driver, whose whole state is guest memory (block "disk"): rings, requests in flight, and how
 * often each 4 KiB of the disk was written. Each of the first vCPUs has a queue and a share of the disk of its
 * own, and keeps requests in flight, so when the guest is paused some are in the rings and some are held by
 * the device. They move, and end where the guest goes on.
 *
 * Life at the source: new, create, turn..., free. At the target: new, offer, its device is loaded, turn...
 * Threads: turn() is for the vCPU's own thread, as many at a time as there are vCPUs; the others for one
 * thread while no vCPU runs. */
#ifndef GW_TOOLS_GUEST_DISK_H
#define GW_TOOLS_GUEST_DISK_H

#include <godwit/block.h>
#include <godwit/device.h>
#include <stdbool.h>
#include <stdint.h>

#define GW_GUEST_DISK_BLOCK "disk" /* name of its block of memory */
#define GW_GUEST_DISK_QUEUES 4u
#define GW_GUEST_DISK_BYTES (UINT64_C(64) << 20) /* of a file that is made */

struct gw_guest_disk;

/* Of @path: a file of whole 4 KiB, or one that is not there yet and is made. What is in it is lost.
 * Return: 0, -EINVAL, -ENOMEM, or what open(2) said. */
int gw_guest_disk_new(const char *path, struct gw_guest_disk **disk, struct gw_error *err);
void gw_guest_disk_free(struct gw_guest_disk *disk); /* takes NULL */

/* The source's: its memory, zero, and a driver that has started. */
int gw_guest_disk_create(struct gw_guest_disk *disk, enum gw_block_kind kind, uint64_t seed,
                         struct gw_error *err);
/* The target's: memory for the block that a source describes. */
int gw_guest_disk_offer(struct gw_guest_disk *disk, uint64_t bytes, enum gw_block_kind kind,
                        struct gw_error *err);
bool gw_guest_disk_is_there(const struct gw_guest_disk *disk);         /* it has its memory */
uint64_t gw_guest_disk_memory_bytes(const struct gw_guest_disk *disk); /* of it, there or not */
void gw_guest_disk_block(const struct gw_guest_disk *disk, struct gw_block_desc *block);
int gw_guest_disk_device(struct gw_guest_disk *disk, struct gw_device_desc *device,
                         struct gw_error *err);

/* What vCPU @vcpu does about its queue at a time: takes back what is done, offers more, lets the device work.
 * Not more than some 100 us of a fast file. Return: was there anything to do? */
bool gw_guest_disk_turn(struct gw_guest_disk *disk, unsigned vcpu);

/* The guest goes on here: the file is its own again. */
void gw_guest_disk_resumed(struct gw_guest_disk *disk);
/* Is what the guest has written on the disk, and was all it has read right? After its state was saved the
 * file may be another host's, so only what was read is judged. Return: 0; -EBADMSG. */
int gw_guest_disk_verify(const struct gw_guest_disk *disk, struct gw_error *err);
/* Requests ended since the guest was made, and of those in flight how many the device holds. */
uint64_t gw_guest_disk_ended(const struct gw_guest_disk *disk);
unsigned gw_guest_disk_in_flight(const struct gw_guest_disk *disk);

#endif

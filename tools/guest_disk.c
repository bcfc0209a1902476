// SPDX-License-Identifier: MIT
/* The built-in guest's disk and its driver. The driver is version 1 of virtio on mmio, polled: a turn takes
 * used entries back, offers requests, kicks. What a block of the disk holds is a function of (seed, block,
 * generation), so whoever reads it knows what must come back. A block has one request in flight at most. */
#include "tools/guest_disk.h"

#include "devices/virtio/virtio.h"
#include "tools/guest_impl.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES 4096u
#define SECTORS (BLOCK_BYTES / 512u)
#define QUEUES GW_GUEST_DISK_QUEUES
#define SLOTS 16u /* requests in flight of a queue */
#define RING 64u  /* descriptors: three a request */
#define TURN 8u   /* requests that the device carries out in a turn: so as many stay in flight */
#define MAGIC UINT64_C(0x676f647769746469)
#define STREAM UINT64_C(0x6a09e667f3bcc909)
#define BLOCKS_MAX (UINT64_C(1) << 24)

/* The disk's memory, and nothing else, is what the device sees, from here on. */
#define GUEST_AT (UINT64_C(1) << 32)
#define RING_AVAIL 1024u
#define RING_USED 2048u
#define SLOT_BYTES (UINT64_C(2) * BLOCK_BYTES) /* header and status, then data */
#define SLOT_STATUS 64u
#define SLOT_DATA BLOCK_BYTES
#define QUEUE_BYTES (BLOCK_BYTES + SLOTS * SLOT_BYTES)
#define QUEUES_AT BLOCK_BYTES
#define TABLE_AT (QUEUES_AT + (uint64_t)QUEUES * QUEUE_BYTES)

enum kind { FREE, READ, WRITE };

struct slot {
    uint32_t kind, generation; /* of a WRITE the one that it writes */
    uint64_t block;
};

struct queue { /* in guest memory, as is all that follows */
    uint64_t nth, reads, writes;
    uint64_t bad; /* a block that read wrong, plus 1 */
    uint32_t in_flight;
    uint16_t avail, used;
    struct slot slots[SLOTS];
};

struct head {
    uint64_t magic, seed, blocks;
    struct queue queues[QUEUES];
};
_Static_assert(sizeof(struct head) <= QUEUES_AT, "the head is one page");

struct gw_guest_disk {
    int fd;
    uint64_t blocks; /* of the file */
    struct gw_guest_memory memory;
    struct gw_virtio *dev;
    pthread_mutex_t dev_lock; /* guards dev, which all vCPUs kick */
    bool saved;               /* its state was: the file may be another's now */
    struct gw_device_desc inner;
};

static struct head *head_of(const struct gw_guest_disk *disk)
{
    return (struct head *)(void *)disk->memory.host;
}

static uint32_t *table_of(const struct gw_guest_disk *disk)
{
    return (uint32_t *)(void *)(disk->memory.host + TABLE_AT);
}

static uint64_t bytes_for(uint64_t blocks)
{
    uint64_t bytes = TABLE_AT + blocks * sizeof(uint32_t);
    return (bytes + BLOCK_BYTES - 1) & ~(uint64_t)(BLOCK_BYTES - 1);
}

static uint64_t ring_at(unsigned q)
{
    return QUEUES_AT + (uint64_t)q * QUEUE_BYTES;
}

static uint64_t slot_at(unsigned q, unsigned slot)
{
    return ring_at(q) + BLOCK_BYTES + (uint64_t)slot * SLOT_BYTES;
}

/* ---- what a block holds ------------------------------------------------------------------------- */

static uint64_t word_of(uint64_t seed, uint64_t block, uint32_t generation, unsigned i)
{
    return gw_guest_word(seed ^ STREAM ^ block << 32 ^ generation, i);
}

GW_GUEST_RACES static void compose(uint64_t seed, uint64_t block, uint32_t generation, char *at)
{
    uint64_t *words = (uint64_t *)(void *)at;
    for (unsigned i = 0; i < BLOCK_BYTES / 8; i++)
        words[i] = htole64(word_of(seed, block, generation, i));
}

static bool holds(uint64_t seed, uint64_t block, uint32_t generation, const char *at)
{
    const uint64_t *words = (const uint64_t *)(const void *)at;
    for (unsigned i = 0; i < BLOCK_BYTES / 8; i++) {
        if (words[i] != htole64(word_of(seed, block, generation, i)))
            return false;
    }
    return true;
}

/* ---- the driver --------------------------------------------------------------------------------- */

static void put_register(struct gw_guest_disk *disk, uint64_t offset, uint32_t value)
{
    gw_virtio_mmio_write(disk->dev, offset, 4, value);
}

static void put_address(struct gw_guest_disk *disk, uint64_t offset, uint64_t address)
{
    put_register(disk, offset, (uint32_t)address);
    put_register(disk, offset + 4, (uint32_t)(address >> 32));
}

static void start_queue(struct gw_guest_disk *disk, unsigned q)
{
    uint64_t ring = GUEST_AT + ring_at(q);
    put_register(disk, 0x30, q);
    put_register(disk, 0x38, RING);
    put_address(disk, 0x80, ring);
    put_address(disk, 0x90, ring + RING_AVAIL);
    put_address(disk, 0xa0, ring + RING_USED);
    put_register(disk, 0x44, 1);
}

/* virtio 1.2, 3.1.1: acknowledge, driver, features, queues, and go. */
static void start_driver(struct gw_guest_disk *disk)
{
    put_register(disk, 0x70, 0);
    put_register(disk, 0x70, 3);
    put_register(disk, 0x24, 0);
    put_register(disk, 0x20, (uint32_t)GW_VIRTIO_BIT(GW_VIRTIO_BLK_F_FLUSH));
    put_register(disk, 0x24, 1);
    put_register(disk, 0x20, 1); /* version 1, and nothing else */
    put_register(disk, 0x70, 3 | GW_VIRTIO_S_FEATURES_OK);
    for (unsigned q = 0; q < QUEUES; q++)
        start_queue(disk, q);
    put_register(disk, 0x70, 3 | GW_VIRTIO_S_FEATURES_OK | GW_VIRTIO_S_DRIVER_OK);
}

struct desc {
    uint64_t address;
    uint32_t bytes;
    uint16_t flags, next;
};

GW_GUEST_RACES static void put_desc(struct gw_guest_disk *disk, unsigned q, unsigned n,
                                    uint64_t offset, uint32_t bytes, uint16_t flags)
{
    struct desc *desc = (struct desc *)(void *)(disk->memory.host + ring_at(q)) + n;
    desc->address = htole64(GUEST_AT + offset);
    desc->bytes = htole32(bytes);
    desc->flags = htole16(flags);
    desc->next = htole16((uint16_t)(n + 1));
}

static uint16_t *ring_word(struct gw_guest_disk *disk, unsigned q, uint64_t offset)
{
    return (uint16_t *)(void *)(disk->memory.host + ring_at(q) + offset);
}

/* Who sees an index sees what is behind it: these pair with the device's. */
GW_GUEST_RACES static void store_index(uint16_t *at, uint16_t value)
{
    __atomic_store_n(at, htole16(value), __ATOMIC_RELEASE);
}

static uint16_t load_index(const uint16_t *at)
{
    return le16toh(__atomic_load_n(at, __ATOMIC_ACQUIRE));
}

struct header {
    uint32_t type, priority;
    uint64_t sector;
};

/* The request of @slot: three descriptors that are its own. */
GW_GUEST_RACES static void offer(struct gw_guest_disk *disk, unsigned q, unsigned s)
{
    struct queue *queue = &head_of(disk)->queues[q];
    const struct slot *slot = &queue->slots[s];
    uint64_t at = slot_at(q, s);
    bool is_write = slot->kind == WRITE;
    struct header *header = (struct header *)(void *)(disk->memory.host + at);
    header->type = htole32(is_write ? 1 : 0);
    header->priority = 0;
    header->sector = htole64(slot->block * SECTORS);
    disk->memory.host[at + SLOT_STATUS] = (char)0xff;
    if (is_write)
        compose(head_of(disk)->seed, slot->block, slot->generation,
                disk->memory.host + at + SLOT_DATA);
    put_desc(disk, q, 3 * s, at, sizeof(*header), 1);
    put_desc(disk, q, 3 * s + 1, at + SLOT_DATA, BLOCK_BYTES, is_write ? 1 : 3);
    put_desc(disk, q, 3 * s + 2, at + SLOT_STATUS, 1, 2);
    *ring_word(disk, q, RING_AVAIL + 4 + 2 * (queue->avail % RING)) = htole16((uint16_t)(3 * s));
    queue->avail++;
    queue->in_flight++;
    store_index(ring_word(disk, q, RING_AVAIL + 2), queue->avail);
}

static bool is_in_flight(const struct queue *queue, uint64_t block)
{
    for (unsigned s = 0; s < SLOTS; s++) {
        if (queue->slots[s].kind != FREE && queue->slots[s].block == block)
            return true;
    }
    return false;
}

static struct slot *free_slot(struct queue *queue, unsigned *s)
{
    for (*s = 0; *s < SLOTS; ++*s) {
        if (queue->slots[*s].kind == FREE)
            return &queue->slots[*s];
    }
    return NULL;
}

/* The queue's next request, a function of the seed and of how many there were. */
GW_GUEST_RACES static bool offer_next(struct gw_guest_disk *disk, unsigned q)
{
    struct head *head = head_of(disk);
    struct queue *queue = &head->queues[q];
    uint64_t share = head->blocks / QUEUES;
    uint64_t word = gw_guest_word(head->seed ^ STREAM ^ q, queue->nth);
    uint64_t block = q * share + (word >> 8) % share;
    unsigned s;
    struct slot *slot = free_slot(queue, &s);
    if (!slot)
        return false;
    queue->nth++;
    if (is_in_flight(queue, block))
        return true; /* the next one, then */
    uint32_t *generation = &table_of(disk)[block];
    bool is_read = word % 4 == 0 && *generation > 0;
    slot->kind = is_read ? READ : WRITE;
    slot->block = block;
    slot->generation = is_read ? *generation : ++*generation;
    offer(disk, q, s);
    return true;
}

GW_GUEST_RACES static void take_back(struct gw_guest_disk *disk, unsigned q, unsigned s)
{
    struct head *head = head_of(disk);
    struct queue *queue = &head->queues[q];
    if (s >= SLOTS || queue->slots[s].kind == FREE) {
        queue->bad = head->blocks + 1;
        return;
    }
    struct slot *slot = &queue->slots[s];
    const char *at = disk->memory.host + slot_at(q, s);
    bool is_good = at[SLOT_STATUS] == 0;
    if (slot->kind == READ)
        is_good = is_good && holds(head->seed, slot->block, slot->generation, at + SLOT_DATA);
    if (!is_good && queue->bad == 0)
        queue->bad = slot->block + 1;
    queue->reads += slot->kind == READ;
    queue->writes += slot->kind == WRITE;
    slot->kind = FREE;
    queue->in_flight--;
}

GW_GUEST_RACES static unsigned reap(struct gw_guest_disk *disk, unsigned q)
{
    struct queue *queue = &head_of(disk)->queues[q];
    uint16_t used = load_index(ring_word(disk, q, RING_USED + 2));
    unsigned count = 0;
    for (; queue->used != used && count < RING; queue->used++, count++) {
        uint32_t id;
        memcpy(&id, ring_word(disk, q, RING_USED + 4 + 8 * (queue->used % RING)), sizeof(id));
        take_back(disk, q, le32toh(id) / 3);
    }
    return count;
}

bool gw_guest_disk_turn(struct gw_guest_disk *disk, unsigned vcpu)
{
    if (vcpu >= QUEUES || !disk->memory.bytes)
        return false;
    reap(disk, vcpu);
    while (offer_next(disk, vcpu))
        ;
    pthread_mutex_lock(&disk->dev_lock);
    unsigned done = gw_virtio_blk_step(disk->dev, TURN, TURN);
    pthread_mutex_unlock(&disk->dev_lock);
    return done > 0;
}

/* ---- life --------------------------------------------------------------------------------------- */

static void *map(void *opaque, uint64_t address, uint64_t bytes)
{
    const struct gw_guest_disk *disk = opaque;
    if (address < GUEST_AT || bytes > disk->memory.bytes ||
        address - GUEST_AT > disk->memory.bytes - bytes)
        return NULL;
    return disk->memory.host + (address - GUEST_AT);
}

static int open_file(struct gw_guest_disk *disk, const char *path, struct gw_error *err)
{
    struct stat info;
    disk->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (disk->fd < 0 || fstat(disk->fd, &info) < 0) {
        int rc = -errno;
        gw_error_set(err, rc, GW_CODE_IO, "disk '%.100s': %s", path, strerror(-rc));
        return rc;
    }
    if (S_ISREG(info.st_mode) && info.st_size == 0) {
        if (ftruncate(disk->fd, (off_t)GW_GUEST_DISK_BYTES) < 0)
            return gw_error_set(err, -errno, GW_CODE_IO, "disk '%.100s': it cannot be made larger",
                                path);
        info.st_size = (off_t)GW_GUEST_DISK_BYTES;
    }
    disk->blocks = (uint64_t)info.st_size / BLOCK_BYTES;
    if (!S_ISREG(info.st_mode) || (uint64_t)info.st_size % BLOCK_BYTES ||
        disk->blocks > BLOCKS_MAX || disk->blocks < (uint64_t)QUEUES * SLOTS * 2) {
        gw_error_set(err, -EINVAL, GW_CODE_INVALID,
                     "disk '%.100s': %" PRIu64 " bytes are no size of a disk", path,
                     (uint64_t)info.st_size);
        gw_error_hint(err,
                      "a file of whole 4096 bytes, 512 KiB to 64 GiB, or one that is not there: "
                      "it is made, of 64 MiB");
        return -EINVAL;
    }
    return 0;
}

static int open_device(struct gw_guest_disk *disk, struct gw_error *err)
{
    const struct gw_virtio_config config = {
        .struct_bytes = sizeof(config),
        .name = "guest-disk/virtio-blk",
        .bus = GW_VIRTIO_MMIO,
        .features = GW_VIRTIO_BIT(GW_VIRTIO_F_VERSION_1) | GW_VIRTIO_BIT(GW_VIRTIO_BLK_F_FLUSH),
        .host = {.opaque = disk, .map = map},
    };
    const struct gw_virtio_blk_config blk = {.struct_bytes = sizeof(blk),
                                             .queues = QUEUES,
                                             .ring = RING,
                                             .fd = disk->fd,
                                             .bytes = disk->blocks * BLOCK_BYTES};
    return gw_virtio_blk_new(&config, &blk, &disk->dev, err);
}

int gw_guest_disk_new(const char *path, struct gw_guest_disk **out, struct gw_error *err)
{
    struct gw_guest_disk *disk = calloc(1, sizeof(*disk));
    if (!disk)
        return gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY, "disk: out of memory");
    disk->fd = disk->memory.fd = -1;
    pthread_mutex_init(&disk->dev_lock, NULL);
    int rc = open_file(disk, path, err);
    if (rc == 0)
        rc = open_device(disk, err);
    if (rc < 0) {
        gw_guest_disk_free(disk);
        return rc;
    }
    *out = disk;
    return 0;
}

void gw_guest_disk_free(struct gw_guest_disk *disk)
{
    if (!disk)
        return;
    gw_virtio_free(disk->dev);
    if (disk->memory.bytes)
        gw_guest_memory_unmap(&disk->memory);
    if (disk->fd >= 0)
        close(disk->fd);
    pthread_mutex_destroy(&disk->dev_lock);
    free(disk);
}

/* Rings are written by bytes: small pages, whatever the guest's are. */
static int map_memory(struct gw_guest_disk *disk, uint64_t bytes, enum gw_block_kind kind,
                      struct gw_error *err)
{
    return gw_guest_memory_map(&disk->memory, kind == GW_BLOCK_HUGETLB ? GW_BLOCK_MEMFD : kind,
                               bytes, GW_GUEST_DISK_BLOCK, err);
}

int gw_guest_disk_create(struct gw_guest_disk *disk, enum gw_block_kind kind, uint64_t seed,
                         struct gw_error *err)
{
    int rc = map_memory(disk, bytes_for(disk->blocks), kind, err);
    if (rc < 0)
        return rc;
    *head_of(disk) = (struct head){.magic = MAGIC, .seed = seed, .blocks = disk->blocks};
    start_driver(disk);
    return 0;
}

int gw_guest_disk_offer(struct gw_guest_disk *disk, uint64_t bytes, enum gw_block_kind kind,
                        struct gw_error *err)
{
    if (disk->memory.bytes)
        return gw_error_set(err, -EEXIST, GW_CODE_BLOCK, "block '%s': it was offered before",
                            GW_GUEST_DISK_BLOCK);
    if (bytes != bytes_for(disk->blocks)) {
        gw_error_set(err, -EINVAL, GW_CODE_BLOCK,
                     "block '%s': of %" PRIu64
                     " bytes, a disk as large as the one here has %" PRIu64,
                     GW_GUEST_DISK_BLOCK, bytes, bytes_for(disk->blocks));
        gw_error_hint(err, "--disk is the same file at both ends, or a copy of it");
        return -EINVAL;
    }
    return map_memory(disk, bytes, kind, err);
}

bool gw_guest_disk_is_there(const struct gw_guest_disk *disk)
{
    return disk->memory.bytes != 0;
}

uint64_t gw_guest_disk_memory_bytes(const struct gw_guest_disk *disk)
{
    return bytes_for(disk->blocks);
}

void gw_guest_disk_block(const struct gw_guest_disk *disk, struct gw_block_desc *block)
{
    *block = (struct gw_block_desc){.struct_bytes = sizeof(*block),
                                    .name = GW_GUEST_DISK_BLOCK,
                                    .host = disk->memory.host,
                                    .size_bytes = disk->memory.bytes,
                                    .page_bytes = disk->memory.page_bytes,
                                    .kind = disk->memory.kind,
                                    .fd = disk->memory.fd,
                                    .fd_offset = disk->memory.fd_offset};
}

/* ---- as the migration sees it -------------------------------------------------------------------- */

static int save(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    struct gw_guest_disk *disk = opaque;
    int rc = disk->inner.save(disk->inner.opaque, w, err);
    disk->saved = disk->saved || rc == 0;
    return rc;
}

/* The memory is the source's word as well: it is believed only as far as it fits. */
static int check_head(const struct gw_guest_disk *disk, struct gw_error *err)
{
    const struct head *head = head_of(disk);
    if (disk->memory.bytes && head->magic == MAGIC && head->blocks == disk->blocks)
        return 0;
    return gw_error_set(err, -EINVAL, GW_CODE_DEVICE,
                        "disk: its memory is no driver's of this disk");
}

static int load(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *err)
{
    struct gw_guest_disk *disk = opaque;
    int rc = disk->memory.bytes ? check_head(disk, err) : -EINVAL;
    if (rc == -EINVAL && !disk->memory.bytes)
        return gw_error_set(err, rc, GW_CODE_DEVICE, "disk: its memory was not offered");
    return rc < 0 ? rc : disk->inner.load(disk->inner.opaque, r, version_id, err);
}

int gw_guest_disk_device(struct gw_guest_disk *disk, struct gw_device_desc *device,
                         struct gw_error *err)
{
    int rc = gw_virtio_device(disk->dev, &disk->inner, err);
    if (rc < 0)
        return rc;
    *device = disk->inner;
    device->opaque = disk;
    device->save = save;
    device->load = load;
    return 0;
}

void gw_guest_disk_resumed(struct gw_guest_disk *disk)
{
    disk->saved = false;
}

/* ---- judgement ---------------------------------------------------------------------------------- */

/* Of a block whose write is in flight, what was there before may be there still. */
static bool may_be_older(const struct head *head, uint64_t block)
{
    for (unsigned q = 0; q < QUEUES; q++) {
        const struct queue *queue = &head->queues[q];
        for (unsigned s = 0; s < SLOTS; s++) {
            if (queue->slots[s].kind == WRITE && queue->slots[s].block == block)
                return true;
        }
    }
    return false;
}

static int check_block(const struct gw_guest_disk *disk, uint64_t block, struct gw_error *err)
{
    const struct head *head = head_of(disk);
    uint32_t generation = table_of(disk)[block];
    _Alignas(8) char data[BLOCK_BYTES];
    if (generation == 0)
        return 0;
    if (pread(disk->fd, data, sizeof(data), (off_t)(block * BLOCK_BYTES)) ==
        (ssize_t)sizeof(data)) {
        if (holds(head->seed, block, generation, data))
            return 0;
        if (may_be_older(head, block) &&
            (generation == 1 || holds(head->seed, block, generation - 1, data)))
            return 0;
    }
    return gw_error_set(err, -EBADMSG, GW_CODE_VERIFY,
                        "disk: block %" PRIu64
                        " is not what was written to it, generation %" PRIu32,
                        block, generation);
}

static int check_queues(const struct gw_guest_disk *disk, struct gw_error *err)
{
    const struct head *head = head_of(disk);
    for (unsigned q = 0; q < QUEUES; q++) {
        if (head->queues[q].bad)
            return gw_error_set(err, -EBADMSG, GW_CODE_VERIFY,
                                "disk: queue %u: a request for block %" PRIu64
                                " failed, or read what was not written",
                                q, head->queues[q].bad - 1);
    }
    return 0;
}

int gw_guest_disk_verify(const struct gw_guest_disk *disk, struct gw_error *err)
{
    if (!disk->memory.bytes)
        return 0;
    int rc = check_head(disk, err);
    if (rc == 0)
        rc = check_queues(disk, err);
    if (rc == 0 && gw_virtio_is_broken(disk->dev))
        rc = gw_error_set(err, -EBADMSG, GW_CODE_VERIFY, "disk: its device is broken");
    for (uint64_t block = 0; rc == 0 && !disk->saved && block < disk->blocks; block++)
        rc = check_block(disk, block, err);
    return rc < 0 ? -EBADMSG : 0;
}

uint64_t gw_guest_disk_ended(const struct gw_guest_disk *disk)
{
    uint64_t ended = 0;
    for (unsigned q = 0; disk->memory.bytes && q < QUEUES; q++)
        ended += head_of(disk)->queues[q].reads + head_of(disk)->queues[q].writes;
    return ended;
}

unsigned gw_guest_disk_in_flight(const struct gw_guest_disk *disk)
{
    unsigned in_flight = 0;
    for (unsigned q = 0; disk->memory.bytes && q < QUEUES; q++)
        in_flight += head_of(disk)->queues[q].in_flight;
    return in_flight;
}

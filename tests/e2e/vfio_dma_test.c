// SPDX-License-Identifier: MIT
/* Guest memory that a device writes behind the CPU's back: through another mapping, which no page tracking
 * of this process sees. The device keeps a log of its own, in pages of its own size, and is the second
 * source of what was written; it stops when its state machine says so. */
#include "tests/shim/gw_test.h"
#include "tests/support/opaque_scene.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#define DMA_BYTES (UINT64_C(2) << 20) /* the buffers that it writes to */
#define PAGES (UINT64_C(32) << 20 >> 12)

struct dma {
    unsigned char *alias;
    unsigned page_shift; /* of its log */
    bool late;           /* what was written is told by the sync after the next */
    bool sticky;         /* never forgets */
    pthread_mutex_t log_lock;
    uint8_t written[PAGES], told_late[PAGES]; /* guarded by log_lock */
    bool final;
    unsigned syncs;
};

static void note(struct dma *dma, uint64_t offset)
{
    uint64_t pages = 1u << (dma->page_shift - 12), first = (offset >> 12) & ~(pages - 1);
    pthread_mutex_lock(&dma->log_lock);
    memset(dma->written + first, 1, pages);
    pthread_mutex_unlock(&dma->log_lock);
}

static void write_memory(void *ctx, uint64_t random)
{
    struct dma *dma = ctx;
    uint64_t offset = (random % DMA_BYTES) & ~UINT64_C(7);
    note(dma,
         offset); /* before it is written: a sync in between reports too much, never too little */
    *(volatile uint64_t *)(void *)(dma->alias + offset) = random;
    note(dma, offset);
}

static int start(void *ctx, unsigned block_id, const struct gw_block_desc *block,
                 struct gw_error *err)
{
    (void)ctx;
    (void)block_id;
    (void)block;
    (void)err;
    return 0;
}

static int sync_log(void *ctx, unsigned block_id, uint64_t first_page, uint64_t pages,
                    uint64_t *bitmap, struct gw_error *err)
{
    struct dma *dma = ctx;
    (void)block_id;
    (void)err;
    pthread_mutex_lock(&dma->log_lock);
    dma->syncs++;
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t page = first_page + i;
        bool now = dma->late && !dma->final ? dma->told_late[page] : dma->written[page];
        if (now || (dma->final && dma->told_late[page]))
            bitmap[i / 64] |= UINT64_C(1) << i % 64;
        dma->told_late[page] = dma->late && dma->written[page];
        if (!dma->sticky)
            dma->written[page] = 0;
    }
    pthread_mutex_unlock(&dma->log_lock);
    return 0;
}

static int final(void *ctx, struct gw_error *err)
{
    struct dma *dma = ctx;
    (void)err;
    pthread_mutex_lock(&dma->log_lock);
    dma->final = true;
    pthread_mutex_unlock(&dma->log_lock);
    return 0;
}

static void stop(void *ctx, unsigned block_id)
{
    (void)ctx;
    (void)block_id;
}

static const struct gw_dirty_ops dma_ops = {
    .struct_bytes = sizeof(dma_ops),
    .name = "vendor-dma",
    .flags = GW_DIRTY_SEES_DMA,
    .start = start,
    .sync = sync_log,
    .final = final,
    .stop = stop,
};

static const char *const logs[] = {"exact", "late", "sticky", "coarse", NULL};

GW_TEST_EACH(vfio_dma, what_a_device_writes_behind_the_cpu_arrives, logs)
{
    static struct dma dma;
    struct opaque_scene scene = {.config = opaque_config(UINT64_C(8) << 20),
                                 .kind = GW_BLOCK_MEMFD};
    memset(&dma, 0, sizeof(dma));
    pthread_mutex_init(&dma.log_lock, NULL);
    dma.page_shift = strcmp(param, "coarse") == 0 ? 16 : 12;
    dma.late = strcmp(param, "late") == 0;
    dma.sticky = strcmp(param, "sticky") == 0;
    opaque_scene_init(&scene, "tcp_feature");
    dma.alias = mmap(NULL, DMA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
                     scene.pair.blocks[0].source_fd, 0);
    GW_ASSERT(dma.alias != MAP_FAILED);
    GW_ASSERT_EQ(gw_source_add_dirty(scene.pair.src, &dma_ops, &dma, NULL), 0);
    vendor_set_dma(scene.src.vendor[0], write_memory, &dma);
    GW_EXPECT(opaque_scene_finish(&scene, 5, 60));
    opaque_scene_expect_moved(&scene);
    GW_EXPECT_GT(dma.syncs, 0);
    munmap(dma.alias, DMA_BYTES);
    opaque_scene_fini(&scene);
    pthread_mutex_destroy(&dma.log_lock);
}

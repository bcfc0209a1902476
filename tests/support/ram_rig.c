// SPDX-License-Identifier: MIT
/* The rig of ram_rig.h. Guest pages are written and read a word at a time with relaxed atomics, so that
 * a test may write while a sink copies, as a guest does under a NIC. */
#include "tests/support/ram_rig.h"

#include "core/base/alloc.h"
#include "core/base/bitmap.h"
#include "transport/ops.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WORDS (GW_PAGE_BYTES / sizeof(uint64_t))

/* ---- guest memory ---------------------------------------------------------------------------- */

void rig_memory_init(struct rig_memory *memory)
{
    memset(memory, 0, sizeof(*memory));
    memory->ram = gw_ram_new();
    gw_assert(memory->ram);
}

struct gw_block *rig_memory_add(struct rig_memory *memory, const char *name,
                                enum gw_block_kind kind, uint64_t pages)
{
    gw_assert(memory->count < RIG_BLOCKS_MAX);
    unsigned id = memory->count++;
    uint64_t bytes = pages * GW_PAGE_BYTES;
    int fd = -1;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (kind == GW_BLOCK_MEMFD) {
        fd = memfd_create(name, MFD_CLOEXEC);
        gw_assert(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
        flags = MAP_SHARED;
    }
    char *host = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    gw_assert(host != MAP_FAILED);
    madvise(host, bytes, MADV_NOHUGEPAGE);
    memory->host[id] = host;
    memory->bytes[id] = bytes;
    memory->fd[id] = fd;
    struct gw_block_desc desc = {
        .struct_bytes = sizeof(desc),
        .name = name,
        .host = host,
        .size_bytes = bytes,
        .page_bytes = GW_PAGE_BYTES,
        .kind = kind,
        .fd = fd,
    };
    int rc = gw_ram_add_block(memory->ram, &desc, NULL);
    gw_assert(rc == (int)id);
    return gw_ram_block(memory->ram, id);
}

void rig_memory_fini(struct rig_memory *memory)
{
    gw_ram_free(memory->ram);
    for (unsigned i = 0; i < memory->count; i++) {
        munmap(memory->host[i], memory->bytes[i]);
        if (memory->fd[i] >= 0)
            close(memory->fd[i]);
    }
}

static uint64_t *words_of(const struct gw_block *block, uint64_t page)
{
    return (uint64_t *)block->desc.host + page * WORDS;
}

void rig_write(struct gw_block *block, uint64_t page, uint64_t value)
{
    __atomic_store_n(words_of(block, page), value, __ATOMIC_RELEASE);
}

uint64_t rig_read(const struct gw_block *block, uint64_t page)
{
    return __atomic_load_n(words_of(block, page), __ATOMIC_ACQUIRE);
}

static void copy_page(char *to, const uint64_t *from)
{
    for (size_t i = 0; i < WORDS; i++) {
        uint64_t word = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
        memcpy(to + i * sizeof(word), &word, sizeof(word));
    }
}

/* ---- a dirty source -------------------------------------------------------------------------- */

void rig_dirty_mark(struct rig_dirty *dirty, const struct gw_block *block, uint64_t page)
{
    /* Release: pairs with the sync that takes the bit, after which the page is read. */
    atomic_fetch_or_explicit(&dirty->written[dirty->block_first[block->id] + page / 64],
                             UINT64_C(1) << (page % 64), memory_order_release);
}

static int dirty_start(void *ctx, unsigned block_id, const struct gw_block_desc *block,
                       struct gw_error *err)
{
    struct rig_dirty *dirty = ctx;
    dirty->starts++;
    if ((int)dirty->starts == dirty->fail_start_at)
        return gw_fail(err, -ENOSPC, "as told");
    if (block_id + 1 < RIG_BLOCKS_MAX)
        dirty->block_first[block_id + 1] =
            dirty->block_first[block_id] + gw_bitmap_words(block->size_bytes / GW_PAGE_BYTES);
    return 0;
}

static int dirty_sync(void *ctx, unsigned block_id, uint64_t first_page, uint64_t pages,
                      uint64_t *bitmap, struct gw_error *err)
{
    struct rig_dirty *dirty = ctx;
    dirty->syncs++;
    if (first_page % 512)
        dirty->odd_range = true;
    if (dirty->fail_syncs > 0) {
        dirty->fail_syncs--;
        return gw_fail(err, -EIO, "as told");
    }
    _Atomic uint64_t *word = &dirty->written[dirty->block_first[block_id] + first_page / 64];
    for (uint64_t i = 0; i < gw_bitmap_words(pages); i++)
        bitmap[i] |= atomic_exchange_explicit(&word[i], 0, memory_order_acquire);
    return 0;
}

static int dirty_final(void *ctx, struct gw_error *err)
{
    struct rig_dirty *dirty = ctx;
    (void)err;
    dirty->finals++;
    return 0;
}

static void dirty_stop(void *ctx, unsigned block_id)
{
    struct rig_dirty *dirty = ctx;
    (void)block_id;
    dirty->stops++;
}

const struct gw_dirty_ops rig_dirty_ops = {
    .struct_bytes = sizeof(rig_dirty_ops),
    .name = "rig",
    .start = dirty_start,
    .sync = dirty_sync,
    .final = dirty_final,
    .stop = dirty_stop,
};

/* ---- a sink ---------------------------------------------------------------------------------- */

static struct rig_sink *of(const struct gw_sink *sink)
{
    return (struct rig_sink *)((uintptr_t)sink - offsetof(struct rig_sink, sink));
}

static void record(struct rig_sink *own, struct rig_event event)
{
    gw_assert(own->event_count < RIG_EVENTS_MAX);
    event.call = own->calls;
    own->event[own->event_count++] = event;
}

static bool meets(uint32_t block, uint64_t first, uint64_t pages, const struct gw_run *run)
{
    return block == run->block->id && first < run->first_page + run->pages &&
           run->first_page < first + pages;
}

static void check_run(struct rig_sink *own, const struct gw_run *run)
{
    for (unsigned i = 0; i < own->flying_count; i++) {
        const struct gw_run *other = &own->flying[i];
        own->overlaps += meets(other->block->id, other->first_page, other->pages, run);
    }
    for (unsigned i = 0; own->sink.one_sided && i < own->event_count; i++) {
        const struct rig_event *event = &own->event[i];
        own->zeroed_in_flight += event->kind == RIG_ZERO && event->number > own->zero_acked &&
                                 meets(event->block, event->first_page, event->pages, run);
    }
}

static int sink_pages(struct gw_sink *sink, const struct gw_run *runs, unsigned count)
{
    struct rig_sink *own = of(sink);
    if (own->final)
        return own->final;
    own->calls++;
    if (own->accept_max && count > own->accept_max)
        count = own->accept_max;
    if (count > sink->window - own->flying_count)
        count = sink->window - own->flying_count;
    if (own->meter && count > own->accept_left)
        count = own->accept_left;
    own->accept_left -= own->meter ? count : 0;
    for (unsigned i = 0; i < count; i++) {
        check_run(own, &runs[i]);
        record(own, (struct rig_event){.kind = RIG_PUT,
                                       .block = runs[i].block->id,
                                       .first_page = runs[i].first_page,
                                       .pages = runs[i].pages});
        own->flying[own->flying_count++] = runs[i];
    }
    return (int)count;
}

static void apply_zero(struct rig_sink *own, const struct rig_event *event)
{
    char *image = own->image[event->block];
    if (image)
        memset(image + event->first_page * GW_PAGE_BYTES, 0, event->pages * GW_PAGE_BYTES);
}

static int sink_zero(struct gw_sink *sink, const struct gw_zero_run *runs, unsigned count)
{
    struct rig_sink *own = of(sink);
    if (own->final)
        return own->final;
    if (own->refuse_messages)
        return -EAGAIN;
    gw_assert(count <= GW_ZERO_RUNS_MAX); /* none: a mark */
    own->calls++;
    own->zero_number++;
    for (unsigned i = 0; i < count; i++) {
        record(own, (struct rig_event){.kind = RIG_ZERO,
                                       .block = runs[i].block,
                                       .first_page = runs[i].first_page,
                                       .pages = runs[i].pages,
                                       .number = own->zero_number});
        if (!sink->one_sided)
            apply_zero(own, &own->event[own->event_count - 1]);
    }
    return 0;
}

static int sink_fence(struct gw_sink *sink, uint32_t number)
{
    struct rig_sink *own = of(sink);
    if (own->final)
        return own->final;
    if (own->refuse_messages)
        return -EAGAIN;
    record(own, (struct rig_event){.kind = RIG_FENCE, .number = number});
    return 0;
}

static void land(struct rig_sink *own, const struct gw_run *run)
{
    char *image = own->image[run->block->id];
    for (uint64_t page = run->first_page; image && page < run->first_page + run->pages; page++)
        copy_page(image + page * GW_PAGE_BYTES, words_of(run->block, page));
}

static int sink_reap(struct gw_sink *sink, struct gw_run *runs, int *status, unsigned max)
{
    struct rig_sink *own = of(sink);
    if (own->hold || !own->flying_count)
        return 0;
    *status = own->fail_status;
    unsigned count = own->fail_status ? 1 : own->flying_count;
    if (count > max)
        count = max;
    own->fail_status = 0;
    for (unsigned i = 0; i < count; i++) {
        if (*status == 0)
            land(own, &own->flying[i]);
        runs[i] = own->flying[i];
    }
    own->flying_count -= count;
    memmove(own->flying, own->flying + count, own->flying_count * sizeof(own->flying[0]));
    return (int)count;
}

static unsigned sink_in_flight(const struct gw_sink *sink)
{
    return of(sink)->flying_count;
}

static void sink_free(struct gw_sink *sink)
{
    (void)sink;
}

static const struct gw_sink_ops sink_ops = {
    .pages = sink_pages,
    .zero = sink_zero,
    .fence = sink_fence,
    .reap = sink_reap,
    .in_flight = sink_in_flight,
    .free = sink_free,
};

void rig_sink_init(struct rig_sink *own, struct gw_ram *ram, bool one_sided)
{
    memset(own, 0, sizeof(*own));
    own->ram = ram;
    own->sink = (struct gw_sink){
        .ops = &sink_ops,
        .one_sided = one_sided,
        .run_bytes_max = 1u << 20,
        .run_count_max = 64,
        .window = RIG_WINDOW_MAX,
    };
}

void rig_sink_fini(struct rig_sink *own)
{
    for (unsigned i = 0; i < RIG_BLOCKS_MAX; i++)
        free(own->image[i]);
}

void rig_sink_image(struct rig_sink *own, const struct gw_block *block)
{
    own->image[block->id] = calloc(1, block->desc.size_bytes);
    gw_assert(own->image[block->id]);
}

void rig_sink_ack(struct rig_sink *own, uint32_t number)
{
    for (unsigned i = 0; i < own->event_count; i++) {
        const struct rig_event *event = &own->event[i];
        if (event->kind == RIG_ZERO && event->number > own->zero_acked && event->number <= number)
            apply_zero(own, event);
    }
    own->zero_acked = number;
}

bool rig_sink_image_is_right(const struct rig_sink *own)
{
    for (unsigned id = 0; id < RIG_BLOCKS_MAX; id++) {
        const struct gw_block *block = own->image[id] ? gw_ram_block(own->ram, id) : NULL;
        if (block && memcmp(own->image[id], block->desc.host, block->desc.size_bytes) != 0)
            return false;
    }
    return true;
}

unsigned rig_sink_count(const struct rig_sink *own, enum rig_kind kind,
                        const struct gw_block *block, uint64_t page)
{
    unsigned count = 0;
    for (unsigned i = 0; i < own->event_count; i++) {
        const struct rig_event *event = &own->event[i];
        count += event->kind == kind && event->block == block->id && page >= event->first_page &&
                 page < event->first_page + event->pages;
    }
    return count;
}

uint64_t rig_sink_pages(const struct rig_sink *own, enum rig_kind kind)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < own->event_count; i++)
        pages += own->event[i].kind == kind ? own->event[i].pages : 0;
    return pages;
}

int rig_step(struct gw_sender *sender, unsigned max)
{
    int state = GW_SEND_BUSY;
    while (state == GW_SEND_BUSY && max--)
        state = gw_sender_step(sender, 1);
    return state;
}

/* ---- a wire ---------------------------------------------------------------------------------- */

struct rig_domain {
    struct gw_domain base;
    unsigned mrs;
    unsigned rmrs;
    int fail;
};

struct rig_mr {
    struct gw_mr base;
    struct rig_domain *dom;
};

struct rig_rmr {
    struct gw_rmr base;
    struct rig_domain *dom;
};

#define RIG_PUTS_MAX 4096

struct rig_endpoint {
    struct gw_endpoint base;
    struct gw_ep_attr attr;
    int take;
    unsigned put_count;
    unsigned polled;
    unsigned completed;
    struct gw_put put[RIG_PUTS_MAX];
    int status[RIG_PUTS_MAX];
};

static int rig_mr_reg(struct gw_domain *base, const struct gw_mr_desc *desc, struct gw_mr **mr,
                      struct gw_error *err)
{
    struct rig_domain *dom = (struct rig_domain *)base;
    (void)desc;
    int rc = dom->fail;
    dom->fail = 0;
    if (rc < 0)
        return gw_fail(err, rc, "register");
    struct rig_mr *own = gw_zalloc(1, sizeof(*own));
    if (!own)
        return gw_fail(err, -ENOMEM, "register");
    own->base.ops = base->ops;
    own->dom = dom;
    dom->mrs++;
    *mr = &own->base;
    return 0;
}

static void rig_mr_dereg(struct gw_mr *mr)
{
    struct rig_mr *own = (struct rig_mr *)mr;
    own->dom->mrs--;
    gw_free(own);
}

static int rig_mr_pack(const struct gw_mr *mr, void *key)
{
    (void)mr;
    memcpy(key, "key", 3);
    return 3;
}

static int rig_rmr_open(struct gw_domain *base, uint32_t region, uint64_t bytes, const void *key,
                        size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err)
{
    struct rig_domain *dom = (struct rig_domain *)base;
    (void)region, (void)bytes, (void)key, (void)key_bytes;
    struct rig_rmr *own = gw_zalloc(1, sizeof(*own));
    if (!own)
        return gw_fail(err, -ENOMEM, "open region");
    own->base.ops = base->ops;
    own->dom = dom;
    dom->rmrs++;
    *rmr = &own->base;
    return 0;
}

static void rig_rmr_close(struct gw_rmr *rmr)
{
    struct rig_rmr *own = (struct rig_rmr *)rmr;
    own->dom->rmrs--;
    gw_free(own);
}

static void rig_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr)
{
    *attr = ((const struct rig_endpoint *)ep)->attr;
}

static int rig_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count)
{
    struct rig_endpoint *own = (struct rig_endpoint *)ep;
    if (own->take < 0)
        return own->take;
    gw_assert(count <= own->attr.put_count_max);
    unsigned taken = count < (unsigned)own->take ? count : (unsigned)own->take;
    gw_assert(own->put_count + taken <= RIG_PUTS_MAX);
    gw_assert(own->put_count + taken - own->polled <= own->attr.put_window);
    memcpy(own->put + own->put_count, puts, taken * sizeof(*puts));
    own->put_count += taken;
    return (int)taken;
}

static int rig_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max)
{
    struct rig_endpoint *own = (struct rig_endpoint *)ep;
    unsigned count = 0;
    for (; count < max && own->polled < own->completed; count++, own->polled++)
        done[count] = (struct gw_completion){
            .cookie = own->put[own->polled].cookie,
            .status = own->status[own->polled],
        };
    return (int)count;
}

static const struct gw_transport_ops rig_ops = {
    .scheme = "rig",
    .query = rig_query,
    .mr_reg = rig_mr_reg,
    .mr_dereg = rig_mr_dereg,
    .mr_pack = rig_mr_pack,
    .rmr_open = rig_rmr_open,
    .rmr_close = rig_rmr_close,
    .put = rig_put,
    .poll = rig_poll,
};

struct gw_domain *rig_domain_new(void)
{
    struct rig_domain *dom = calloc(1, sizeof(*dom));
    gw_assert(dom);
    dom->base.ops = &rig_ops;
    return &dom->base;
}

void rig_domain_free(struct gw_domain *dom)
{
    free(dom);
}

int rig_chunks_register(struct gw_chunks *chunks, struct gw_error *err)
{
    struct gw_wish range;
    while (gw_chunks_to_register(chunks, &range)) {
        struct gw_mr *mr = NULL;
        int rc = gw_chunk_register(chunks, &range, &mr, err);
        if (rc < 0)
            return rc;
        gw_chunks_registered(chunks, &range, mr);
    }
    return 0;
}

int rig_chunk_key(struct gw_chunks *chunks, const struct gw_wish *wish)
{
    int rc = rig_chunks_register(chunks, NULL);
    return rc < 0 ? rc : gw_chunks_key(chunks, wish, "k", 1, NULL);
}

void rig_chunk_out(struct gw_chunks *chunks, const struct gw_wish *victim)
{
    struct gw_mr *mr = NULL;
    struct gw_rmr *rmr = NULL;
    gw_chunks_evicted(chunks, victim, &mr, &rmr);
    gw_rmr_close(rmr);
    gw_mr_dereg(mr);
    gw_chunks_deregistered(chunks, victim);
}

unsigned rig_domain_mrs(const struct gw_domain *dom)
{
    return ((const struct rig_domain *)dom)->mrs;
}

unsigned rig_domain_rmrs(const struct gw_domain *dom)
{
    return ((const struct rig_domain *)dom)->rmrs;
}

void rig_domain_fail(struct gw_domain *dom, int rc)
{
    ((struct rig_domain *)dom)->fail = rc;
}

struct gw_endpoint *rig_endpoint_new(uint32_t flags, uint32_t put_count_max, uint32_t window)
{
    struct rig_endpoint *ep = calloc(1, sizeof(*ep));
    gw_assert(ep);
    ep->base.ops = &rig_ops;
    ep->take = INT32_MAX;
    ep->attr = (struct gw_ep_attr){
        .flags = flags,
        .put_bytes_max = 1u << 30,
        .put_count_max = put_count_max,
        .put_window = window,
    };
    return &ep->base;
}

void rig_endpoint_free(struct gw_endpoint *ep)
{
    free(ep);
}

void rig_endpoint_complete(struct gw_endpoint *ep, unsigned count, int status)
{
    struct rig_endpoint *own = (struct rig_endpoint *)ep;
    for (; count-- && own->completed < own->put_count; own->completed++)
        own->status[own->completed] = status;
}

void rig_endpoint_take(struct gw_endpoint *ep, int max)
{
    ((struct rig_endpoint *)ep)->take = max;
}

unsigned rig_endpoint_puts(const struct gw_endpoint *ep)
{
    return ((const struct rig_endpoint *)ep)->put_count;
}

const struct gw_put *rig_endpoint_put(const struct gw_endpoint *ep, unsigned nth)
{
    return &((const struct rig_endpoint *)ep)->put[nth];
}

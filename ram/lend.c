// SPDX-License-Identifier: MIT
/* What the target lends. Every block has a slot for each unit of 2 MiB: the lend that covers it, so
 * that an overlap is seen and a release found without a search. A lend is in one of three queues or at a
 * worker: to be worked on (releases, and wishes), to be told.
 *
 * A wish is checked whole before anything is kept. A worker prefaults without storing (rule 8) and
 * registers; if that fails the session ends, for a wish that gets no key would hold the source up. */
#include "ram/lend.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "ram/place.h"

#include <inttypes.h>
#include <string.h>

enum lend_state { LEND_QUEUED, LEND_REGISTERING, LEND_LENT, LEND_RELEASING };

struct gw_lend {
    struct gw_lend *next;
    const struct gw_lends *lends;
    struct gw_wish range;
    enum lend_state state;
    bool is_told; /* its key was */
    struct gw_mr *mr;
    uint8_t key[GW_KEY_BYTES_MAX];
    size_t key_bytes;
};

struct lend_queue {
    struct gw_lend *first;
    struct gw_lend **last;
};

struct gw_lends {
    struct gw_lends_config config;
    unsigned block_count;
    struct gw_lend ***slots; /* by block and unit */
    struct lend_queue wishes, releases, told;
    unsigned open_wishes;
    uint64_t used_bytes, peak_bytes;
};

static void push(struct lend_queue *queue, struct gw_lend *lend)
{
    lend->next = NULL;
    *queue->last = lend;
    queue->last = &lend->next;
}

static struct gw_lend *take(struct lend_queue *queue)
{
    struct gw_lend *lend = queue->first;
    if (lend)
        queue->first = lend->next;
    if (!queue->first)
        queue->last = &queue->first;
    return lend;
}

static uint64_t units_of(uint64_t bytes)
{
    return (bytes + GW_LEND_UNIT_BYTES - 1) / GW_LEND_UNIT_BYTES;
}

/* ---- life ------------------------------------------------------------------------------------- */

struct gw_lends *gw_lends_new(const struct gw_lends_config *config, struct gw_error *err)
{
    struct gw_lends *lends = gw_zalloc(1, sizeof(*lends));
    if (!lends) {
        gw_fail(err, -ENOMEM, "what is lent");
        return NULL;
    }
    lends->config = *config;
    lends->wishes.last = &lends->wishes.first;
    lends->releases.last = &lends->releases.first;
    lends->told.last = &lends->told.first;
    lends->slots = gw_zalloc(gw_ram_block_count(config->ram), sizeof(*lends->slots));
    for (; lends->slots && lends->block_count < gw_ram_block_count(config->ram);
         lends->block_count++) {
        const struct gw_block *block = gw_ram_block(config->ram, lends->block_count);
        struct gw_lend **slots =
            gw_zalloc(units_of(block->desc.size_bytes), sizeof(struct gw_lend *));
        if (!slots)
            break;
        lends->slots[lends->block_count] = slots;
    }
    if (lends->slots && lends->block_count == gw_ram_block_count(config->ram))
        return lends;
    gw_fail(err, -ENOMEM, "what is lent of %u blocks", gw_ram_block_count(config->ram));
    gw_lends_free(lends);
    return NULL;
}

static void lend_free(struct gw_lend *lend)
{
    gw_mr_dereg(lend->mr);
    gw_free(lend);
}

void gw_lends_free(struct gw_lends *lends)
{
    if (!lends)
        return;
    for (unsigned b = 0; lends->slots && b < lends->block_count; b++) {
        uint64_t count = units_of(gw_ram_block(lends->config.ram, b)->desc.size_bytes);
        for (uint64_t i = 0; i < count;) {
            struct gw_lend *lend = lends->slots[b][i];
            i += lend ? units_of(lend->range.bytes) : 1;
            if (lend)
                lend_free(lend);
        }
        gw_free(lends->slots[b]);
    }
    gw_free(lends->slots);
    gw_free(lends);
}

/* ---- wishes ----------------------------------------------------------------------------------- */

static int refuse(const struct gw_lends *lends, const struct gw_wish *range, const char *what,
                  const char *why, struct gw_error *err)
{
    const struct gw_block *block = gw_ram_block(lends->config.ram, range->block);
    return gw_fail(err, -EPROTO, "%s of block '%s' [%" PRIu64 ", +%" PRIu64 "): %s", what,
                   block ? block->desc.name : "?", range->offset, range->bytes, why);
}

static void set_slots(struct gw_lends *lends, const struct gw_wish *range, struct gw_lend *lend)
{
    struct gw_lend **slots = lends->slots[range->block] + range->offset / GW_LEND_UNIT_BYTES;
    for (uint64_t i = 0; i < units_of(range->bytes); i++)
        slots[i] = lend;
}

static int check_wish(struct gw_lends *lends, const struct gw_wish *wish, struct gw_error *err)
{
    int rc = gw_wish_check(lends->config.ram, wish, err);
    if (rc < 0)
        return rc;
    const struct gw_block *block = gw_ram_block(lends->config.ram, wish->block);
    bool is_whole = wish->bytes % GW_LEND_UNIT_BYTES == 0 ||
                    wish->offset + wish->bytes == block->desc.size_bytes;
    if (wish->offset % GW_LEND_UNIT_BYTES || !is_whole)
        return refuse(lends, wish, "wish", "not whole units of 2 MiB", err);
    struct gw_lend *const *slots = lends->slots[wish->block] + wish->offset / GW_LEND_UNIT_BYTES;
    for (uint64_t i = 0; i < units_of(wish->bytes); i++) {
        if (slots[i])
            return refuse(lends, wish, "wish", "a part of it is wished for already", err);
    }
    if (lends->open_wishes == GW_WISHES_OPEN_MAX)
        return refuse(lends, wish, "wish", "too many are open", err);
    if (wish->bytes > lends->config.budget_bytes - lends->used_bytes)
        return refuse(lends, wish, "wish", "it is beyond what hello said may be registered", err);
    return 0;
}

int gw_lends_wish(struct gw_lends *lends, const struct gw_wish *wish, struct gw_error *err)
{
    int rc = check_wish(lends, wish, err);
    if (rc < 0)
        return rc;
    struct gw_lend *lend = gw_zalloc(1, sizeof(*lend));
    if (!lend)
        return gw_fail(err, -ENOMEM, "wish");
    lend->lends = lends;
    lend->range = *wish;
    set_slots(lends, wish, lend);
    lends->open_wishes++;
    lends->used_bytes += wish->bytes;
    push(&lends->wishes, lend);
    return 0;
}

int gw_lends_release(struct gw_lends *lends, const struct gw_wish *range, struct gw_error *err)
{
    int rc = gw_wish_check(lends->config.ram, range, err);
    if (rc < 0)
        return rc;
    struct gw_lend *lend = lends->slots[range->block][range->offset / GW_LEND_UNIT_BYTES];
    if (!lend || lend->range.offset != range->offset || lend->range.bytes != range->bytes ||
        lend->state != LEND_LENT || !lend->is_told)
        return refuse(lends, range, "release", "no key was given for it", err);
    lend->state = LEND_RELEASING;
    push(&lends->releases, lend);
    return 0;
}

/* ---- work ------------------------------------------------------------------------------------- */

struct gw_lend *gw_lends_next(struct gw_lends *lends)
{
    struct gw_lend *lend = take(&lends->releases);
    if (lend)
        return lend;
    lend = take(&lends->wishes);
    if (lend)
        lend->state = LEND_REGISTERING;
    return lend;
}

int gw_lend_work(struct gw_lend *lend, struct gw_error *err)
{
    if (lend->state == LEND_RELEASING) {
        gw_mr_dereg(lend->mr);
        lend->mr = NULL;
        return 0;
    }
    const struct gw_lends_config *config = &lend->lends->config;
    const struct gw_wish *range = &lend->range;
    const struct gw_block *block = gw_ram_block(config->ram, range->block);
    struct gw_mr_desc desc = {.addr = (char *)block->desc.host + range->offset,
                              .bytes = range->bytes,
                              .access = GW_MR_REMOTE_WRITE,
                              .region = range->block};
    int rc = config->prefault ? gw_prefault(block, range->offset, range->bytes) : 0;
    if (rc < 0)
        gw_fail(err, rc, "prefault");
    if (rc == 0)
        rc = gw_mr_reg(config->dom, &desc, &lend->mr, err);
    if (rc < 0) {
        gw_error_prefix(err, "block '%s' [%" PRIu64 ", +%" PRIu64 ")", block->desc.name,
                        range->offset, range->bytes);
        return rc;
    }
    lend->key_bytes = (size_t)gw_mr_pack(lend->mr, lend->key);
    return 0;
}

uint64_t gw_lend_bytes(const struct gw_lend *lend)
{
    return lend->range.bytes;
}

void gw_lends_worked(struct gw_lends *lends, struct gw_lend *lend)
{
    if (lend->state == LEND_REGISTERING)
        lend->state = LEND_LENT;
    lends->peak_bytes = gw_max_u64(lends->peak_bytes, lends->used_bytes);
    push(&lends->told, lend);
}

bool gw_lends_tell(struct gw_lends *lends, struct gw_wish *range, bool *released,
                   uint8_t key[GW_KEY_BYTES_MAX], size_t *key_bytes)
{
    struct gw_lend *lend = take(&lends->told);
    if (!lend)
        return false;
    *range = lend->range;
    *released = lend->state == LEND_RELEASING;
    if (*released) {
        set_slots(lends, range, NULL);
        lends->used_bytes -= range->bytes;
        lend_free(lend);
        return true;
    }
    lend->is_told = true;
    lends->open_wishes--;
    *key_bytes = lend->key_bytes;
    memcpy(key, lend->key, lend->key_bytes);
    return true;
}

uint64_t gw_lends_registered_peak(const struct gw_lends *lends)
{
    return lends->peak_bytes;
}

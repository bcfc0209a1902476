// SPDX-License-Identifier: MIT
/* Records of a RAM section, made one at a time (docs/protocol.md section 4.5). The table is judged as a whole
 * before its first byte: who reads it can take no entry back. CONTINUE is set wherever the format allows it,
 * across sections too, as every writer of this format has done. */
#include "ram/inline_write.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "ram/block.h"

#include <inttypes.h>
#include <stdlib.h>

#define NAME_BYTES_MAX 255u

void gw_inline_writer_init(struct gw_inline_writer *w)
{
    *w = (struct gw_inline_writer){.page_bytes = 4096, .host_page_bytes = 4096};
}

/* ---- making a record -------------------------------------------------------------------------- */

static void put_be64(struct gw_inline_record *record, uint64_t value)
{
    gw_assert(record->head_bytes + 8 <= sizeof(record->head));
    gw_be64_store(record->head + record->head_bytes, value);
    record->head_bytes += 8;
}

static void put_name(struct gw_inline_record *record, const char *name)
{
    size_t bytes = strlen(name);
    gw_assert(bytes <= NAME_BYTES_MAX && record->head_bytes + 1 + bytes <= sizeof(record->head));
    record->head[record->head_bytes] = (uint8_t)bytes;
    memcpy(record->head + record->head_bytes + 1, name, bytes);
    record->head_bytes += 1 + bytes;
}

static void begin(struct gw_inline_record *record, uint64_t word)
{
    record->head_bytes = record->data_bytes = 0;
    record->data = NULL;
    put_be64(record, word);
}

void gw_inline_write_end(struct gw_inline_record *record)
{
    begin(record, GW_INLINE_FLAG_EOS);
}

void gw_inline_write_flush(struct gw_inline_record *record)
{
    begin(record, GW_INLINE_FLAG_FLUSH);
}

/* ---- the block table -------------------------------------------------------------------------- */

static bool is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

static int check_form(const struct gw_inline_writer *w, struct gw_error *err)
{
    if (!is_power_of_two(w->page_bytes) || w->page_bytes < 1024 ||
        w->page_bytes > GW_INLINE_PAGE_BYTES_MAX)
        return gw_fail(err, -EINVAL, "block table: pages of %" PRIu64 " bytes", w->page_bytes);
    if (!is_power_of_two(w->host_page_bytes) || w->host_page_bytes < w->page_bytes)
        return gw_fail(err, -EINVAL,
                       "block table: host pages of %" PRIu64 " bytes, of %" PRIu64 " at the guest",
                       w->host_page_bytes, w->page_bytes);
    if (w->sizes != 0 && w->guest_addresses)
        return gw_fail(err, -EINVAL,
                       "block table: x-ignore-shared and postcopy-ram exclude each other");
    return 0;
}

/* Pages behind the block that differ from the host's. */
static bool has_page_bytes(const struct gw_inline_writer *w, const struct gw_inline_entry *entry)
{
    return w->sizes != 0 && entry->page_bytes != 0 && entry->page_bytes != w->host_page_bytes;
}

static int check_entry(const struct gw_inline_writer *w, const struct gw_inline_entry *entry,
                       struct gw_error *err)
{
    size_t bytes = strnlen(entry->name, NAME_BYTES_MAX + 1);
    if (bytes == 0 || bytes > NAME_BYTES_MAX || gw_text_find_odd(entry->name, bytes))
        return gw_fail(err, -EINVAL,
                       "block '%.255s': its name must have 1 to 255 bytes of printable "
                       "ASCII",
                       entry->name);
    if (entry->bytes == 0 || entry->bytes % w->page_bytes != 0)
        return gw_fail(err, -EINVAL,
                       "block '%s' of %" PRIu64 " bytes, which are no pages of %" PRIu64,
                       entry->name, entry->bytes, w->page_bytes);
    if (has_page_bytes(w, entry) &&
        (!is_power_of_two(entry->page_bytes) || entry->page_bytes < w->page_bytes ||
         (entry->page_bytes & w->sizes) == 0))
        return gw_fail(err, -EINVAL,
                       "block '%s' with pages of %" PRIu64 " bytes, which were not advised",
                       entry->name, entry->page_bytes);
    if (has_page_bytes(w, entry) && entry->bytes % entry->page_bytes != 0)
        return gw_fail(err, -EINVAL, "block '%s' of %" PRIu64 " bytes, on pages of %" PRIu64,
                       entry->name, entry->bytes, entry->page_bytes);
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_names(const struct gw_inline_entry *entries, unsigned count, struct gw_error *err)
{
    int rc = 0;
    const char **names = gw_zalloc((size_t)count + 1, sizeof(*names));
    if (!names)
        return gw_fail(err, -ENOMEM, "block table");
    for (unsigned i = 0; i < count; i++)
        names[i] = entries[i].name;
    qsort(names, count, sizeof(*names), compare_names);
    for (unsigned i = 1; i < count && rc == 0; i++) {
        if (strcmp(names[i - 1], names[i]) == 0)
            rc = gw_fail(err, -EINVAL, "a second block '%s'", names[i]);
    }
    gw_free(names);
    return rc;
}

/* Return: 0 and the bytes of all blocks. */
static int check_table(const struct gw_inline_writer *w, const struct gw_inline_entry *entries,
                       unsigned count, uint64_t *total, struct gw_error *err)
{
    int rc = check_form(w, err);
    if (rc == 0 && count > GW_BLOCKS_MAX)
        rc = gw_fail(err, -E2BIG, "block table: %u blocks, at most %u", count, GW_BLOCKS_MAX);
    *total = 0;
    for (unsigned i = 0; i < count && rc == 0; i++) {
        rc = check_entry(w, &entries[i], err);
        if (rc == 0 && entries[i].bytes > UINT64_MAX - *total)
            rc = gw_fail(err, -EINVAL, "block '%s': the sum of all sizes has more than 64 bits",
                         entries[i].name);
        *total += entries[i].bytes;
    }
    return rc == 0 ? check_names(entries, count, err) : rc;
}

int gw_inline_write_table(struct gw_inline_writer *w, const struct gw_inline_entry *entries,
                          unsigned count, struct gw_inline_record *record, struct gw_error *err)
{
    uint64_t total;
    int rc = check_table(w, entries, count, &total, err);
    if (rc < 0)
        return rc;
    w->entries = entries;
    w->count = count;
    w->has_current = false;
    begin(record, total | GW_INLINE_FLAG_MEM_SIZE);
    return 0;
}

void gw_inline_write_entry(const struct gw_inline_writer *w, unsigned block,
                           struct gw_inline_record *record)
{
    gw_assert(block < w->count);
    const struct gw_inline_entry *entry = &w->entries[block];
    record->head_bytes = record->data_bytes = 0;
    record->data = NULL;
    put_name(record, entry->name);
    put_be64(record, entry->bytes);
    if (has_page_bytes(w, entry))
        put_be64(record, entry->page_bytes);
    if (w->guest_addresses) /* never both */
        put_be64(record, entry->guest_address);
}

/* ---- pages ------------------------------------------------------------------------------------ */

static bool has_right_data(const struct gw_inline_writer *w, const struct gw_inline_page *page)
{
    switch (page->kind) {
    case GW_INLINE_ZERO:
        return page->bytes == 0 || (page->bytes == 1 && page->data[0] == 0);
    case GW_INLINE_PAGE:
        return page->bytes == w->page_bytes;
    case GW_INLINE_XBZRLE:
        return page->bytes > 0 && page->bytes <= w->page_bytes && page->bytes <= UINT16_MAX;
    case GW_INLINE_COMPRESSED:
        break;
    }
    return false;
}

static bool has_place(const struct gw_inline_writer *w, const struct gw_inline_page *page)
{
    if (page->block >= w->count)
        return false;
    const struct gw_inline_entry *entry = &w->entries[page->block];
    bool is_ignored = w->guest_addresses && entry->is_shared;
    return !is_ignored && page->offset % w->page_bytes == 0 && page->offset < entry->bytes;
}

static int check_page(const struct gw_inline_writer *w, const struct gw_inline_page *page)
{
    if (page->kind == GW_INLINE_COMPRESSED)
        return -EOPNOTSUPP; /* 9.1 and newer take none */
    return has_place(w, page) && has_right_data(w, page) ? 0 : -EINVAL;
}

/* Word and, if it must be said, name. */
static void begin_page(struct gw_inline_writer *w, const struct gw_inline_page *page, unsigned flag,
                       struct gw_inline_record *record)
{
    bool again = w->has_current && w->current == page->block;
    begin(record, page->offset | flag | (again ? GW_INLINE_FLAG_CONTINUE : 0));
    if (!again)
        put_name(record, w->entries[page->block].name);
    w->current = page->block;
    w->has_current = true;
}

int gw_inline_write_page(struct gw_inline_writer *w, const struct gw_inline_page *page,
                         struct gw_inline_record *record)
{
    int rc = check_page(w, page);
    if (rc < 0)
        return rc;
    if (page->kind == GW_INLINE_ZERO) {
        begin_page(w, page, GW_INLINE_FLAG_ZERO, record);
        record->head[record->head_bytes++] = 0;
        return 0;
    }
    begin_page(w, page, page->kind == GW_INLINE_PAGE ? GW_INLINE_FLAG_PAGE : GW_INLINE_FLAG_XBZRLE,
               record);
    if (page->kind == GW_INLINE_XBZRLE) {
        record->head[record->head_bytes++] = GW_XBZRLE_VERSION;
        gw_be16_store(record->head + record->head_bytes, (uint16_t)page->bytes);
        record->head_bytes += 2;
    }
    record->data = page->data;
    record->data_bytes = page->bytes;
    return 0;
}

/* Return: bytes of code, 0: equal, -EOVERFLOW: the page itself is shorter. */
static int encode(const struct gw_inline_writer *w, const uint8_t *before, const uint8_t *after,
                  uint8_t *code)
{
    size_t bytes = (size_t)w->page_bytes;
    if (bytes <= GW_XBZRLE_PAGE_BYTES_MAX)
        return gw_xbzrle_encode(before, after, bytes, code, bytes);
    return memcmp(before, after, bytes) == 0 ? 0 : -EOVERFLOW;
}

int gw_inline_write_change(struct gw_inline_writer *w, unsigned block, uint64_t offset,
                           const uint8_t *before, const uint8_t *after, uint8_t *code,
                           struct gw_inline_record *record)
{
    struct gw_inline_page page = {.kind = GW_INLINE_PAGE,
                                  .block = block,
                                  .offset = offset,
                                  .data = after,
                                  .bytes = (size_t)w->page_bytes};
    int bytes = encode(w, before, after, code);
    if (bytes == 0)
        return 0;
    if (bytes > 0) {
        page.kind = GW_INLINE_XBZRLE;
        page.data = code;
        page.bytes = (size_t)bytes;
    }
    int rc = gw_inline_write_page(w, &page, record);
    return rc < 0 ? rc : 1;
}

void gw_inline_write_forget(struct gw_inline_writer *w)
{
    w->has_current = false;
}

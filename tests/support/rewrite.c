// SPDX-License-Identifier: MIT
/* Streams written again (rewrite.h). */
#include "tests/support/rewrite.h"

#include "control/stream_write.h"
#include "core/base/bytes.h"
#include "ram/inline_write.h"
#include "tests/shim/gw_test.h"

#include <stdlib.h>

#define ITERATIVE_MAX 16u
#define RANGES_MAX 64u

struct rewrite {
    const uint8_t *data;
    struct gw_input in;
    struct gw_writer *w; /* the stream's, or the package's */
    struct gw_writer package;
    struct rewritten *out;
    struct gw_configuration configuration;
    struct gw_section open[ITERATIVE_MAX]; /* by START */
    unsigned open_count;
    bool footers, footers_known, packaged, with_contents;
    struct gw_inline ram;
    struct gw_inline_writer ram_writer;
    struct gw_inline_entry *entries;
    uint8_t **contents; /* of each block */
    bool table_written;
};

static void must(int rc, const struct gw_error *err, const char *what)
{
    if (rc < 0)
        gw_test_note(__FILE__, __LINE__, "%s: %s", what, err->message);
    GW_ASSERT(rc >= 0);
}

/* ---- memory ----------------------------------------------------------------------------------- */

static void put(struct rewrite *r, const struct gw_inline_record *record)
{
    gw_writer_bytes(r->w, record->head, record->head_bytes);
    gw_writer_bytes(r->w, record->data, record->data_bytes);
}

static void write_table(struct rewrite *r)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_inline_record record;
    unsigned count = r->ram.block_count;
    if (r->table_written || !r->ram.has_table)
        return;
    r->table_written = true;
    r->entries = calloc(count, sizeof(*r->entries));
    r->contents = calloc(count, sizeof(*r->contents));
    GW_ASSERT(r->entries && r->contents);
    for (unsigned i = 0; i < count; i++) {
        const struct gw_inline_block *block = &r->ram.blocks[i];
        r->entries[i] = (struct gw_inline_entry){block->name, block->bytes, block->page_bytes,
                                                 block->guest_address};
        r->out->page_sizes += block->page_bytes != 0;
        if (r->with_contents)
            GW_ASSERT((r->contents[i] = calloc(1, block->bytes)) != NULL);
    }
    gw_inline_writer_init(&r->ram_writer);
    r->ram_writer.page_bytes = r->ram_writer.host_page_bytes = r->ram.page_bytes;
    r->ram_writer.sizes = r->ram.sizes;
    r->ram_writer.guest_addresses = r->ram.guest_addresses;
    must(gw_inline_write_table(&r->ram_writer, r->entries, count, &record, &err), &err, "table");
    put(r, &record);
    for (unsigned i = 0; i < count; i++) {
        gw_inline_write_entry(&r->ram_writer, i, &record);
        put(r, &record);
    }
}

/* From what the page was and what it becomes. */
static int write_change(struct rewrite *r, const struct gw_inline_page *page, uint8_t *to,
                        struct gw_inline_record *record)
{
    static uint8_t after[GW_XBZRLE_PAGE_BYTES_MAX], code[GW_XBZRLE_PAGE_BYTES_MAX];
    GW_ASSERT(r->ram.page_bytes <= sizeof(after));
    memcpy(after, to, r->ram.page_bytes);
    GW_ASSERT_EQ(gw_xbzrle_decode(page->data, page->bytes, after, r->ram.page_bytes), 0);
    int rc =
        gw_inline_write_change(&r->ram_writer, page->block, page->offset, to, after, code, record);
    memcpy(to, after, r->ram.page_bytes);
    return rc == 1 ? 0 : -EINVAL;
}

static int write_page(void *ctx, const struct gw_inline_page *page, struct gw_error *unused)
{
    struct rewrite *r = ctx;
    struct gw_inline_record record;
    (void)unused;
    write_table(r);
    uint8_t *to = r->with_contents ? r->contents[page->block] + page->offset : NULL;
    int rc = to && page->kind == GW_INLINE_XBZRLE
                 ? write_change(r, page, to, &record)
                 : gw_inline_write_page(&r->ram_writer, page, &record);
    if (to && page->kind == GW_INLINE_ZERO)
        memset(to, 0, r->ram.page_bytes);
    if (to && page->kind == GW_INLINE_PAGE)
        memcpy(to, page->data, r->ram.page_bytes);
    GW_ASSERT_EQ(rc, 0);
    put(r, &record);
    r->out->zero += page->kind == GW_INLINE_ZERO;
    r->out->pages += page->kind == GW_INLINE_PAGE;
    r->out->changes += page->kind == GW_INLINE_XBZRLE;
    return 0;
}

static void rewrite_ram(struct rewrite *r, enum gw_item_type type)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_inline_record record;
    enum gw_inline_part part = gw_item_is_named(type) ? GW_INLINE_START : GW_INLINE_PART;
    if (part == GW_INLINE_START && r->configuration.page_bits != 0)
        r->ram.page_bytes = UINT64_C(1) << r->configuration.page_bits;
    r->ram.guest_addresses = gw_configuration_has(&r->configuration, "x-ignore-shared");
    must(gw_inline_take(&r->ram, &r->in, part, &err), &err, "memory");
    GW_ASSERT_EQ(r->ram.flushes, 0); /* their place among the pages is not told */
    write_table(r);
    gw_inline_write_end(&record);
    put(r, &record);
}

/* ---- sections --------------------------------------------------------------------------------- */

static const struct gw_section *find_open(const struct rewrite *r, uint32_t id)
{
    for (unsigned i = 0; i < r->open_count; i++) {
        if (r->open[i].section_id == id)
            return &r->open[i];
    }
    return NULL;
}

static bool is_open(void *ctx, uint32_t id)
{
    return find_open(ctx, id) != NULL;
}

static struct gw_scan scan_of(struct rewrite *r)
{
    return (struct gw_scan){
        .footers = r->footers, .packaged = r->packaged, .is_open = is_open, .ctx = r};
}

static void rewrite_footer(struct rewrite *r, uint32_t id)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_scan scan = scan_of(r);
    const uint8_t *at;
    if (!r->footers_known) { /* memory comes first, and where its body ends is known */
        size_t left = gw_input_look(&r->in, 1, &at);
        r->footers = !gw_stream_is_item(&scan, at, left, true);
        r->footers_known = true;
    }
    if (!r->footers)
        return;
    must(gw_stream_take_footer(&r->in, id, &err), &err, "footer");
    gw_stream_write_footer(r->w, id);
}

static void rewrite_body(struct rewrite *r, uint32_t id)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_scan scan = scan_of(r);
    uint64_t from = gw_input_tell(&r->in), bytes = 0;
    GW_ASSERT(r->footers_known);
    must(gw_stream_skip_body(&r->in, &scan, id, &bytes, &err), &err, "body");
    gw_writer_bytes(r->w, r->data + from, (size_t)bytes);
}

static void rewrite_section(struct rewrite *r, enum gw_item_type type)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_section section = {.type = type};
    must(gw_stream_take_section(&r->in, &section, &err), &err, "head");
    gw_stream_write_section(r->w, &section);
    r->out->sections += gw_item_is_named(type);
    if (type == GW_ITEM_START) {
        GW_ASSERT(r->open_count < ITERATIVE_MAX);
        r->open[r->open_count++] = section;
    }
    const struct gw_section *named =
        gw_item_is_named(type) ? &section : find_open(r, section.section_id);
    GW_ASSERT(named != NULL);
    if (strcmp(named->idstr, "ram") == 0)
        rewrite_ram(r, type);
    else
        rewrite_body(r, section.section_id);
    rewrite_footer(r, section.section_id);
}

/* ---- commands --------------------------------------------------------------------------------- */

static void rewrite_items(struct rewrite *r);

static void rewrite_package(struct rewrite *r, uint32_t bytes)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_writer *outer = r->w;
    GW_ASSERT(!r->packaged);
    r->packaged = true;
    r->w = &r->package;
    r->in.limit = gw_input_tell(&r->in) + bytes;
    rewrite_items(r);
    GW_ASSERT(gw_input_is_empty(&r->in)); /* RUN is the last */
    r->in.limit = UINT64_MAX;
    r->packaged = false;
    r->w = outer;
    must(gw_stream_write_package(r->w, &r->package, &err), &err, "package");
    gw_inline_write_forget(&r->ram_writer); /* postcopy begins: each block is named anew */
    r->out->packages++;
}

static int write_discard(struct rewrite *r, const struct gw_command_item *c, struct gw_error *err)
{
    struct gw_discard_range ranges[RANGES_MAX];
    GW_ASSERT(c->ranges <= RANGES_MAX);
    for (unsigned i = 0; i < c->ranges; i++)
        ranges[i] = gw_command_range(c, i);
    return gw_stream_write_discard(r->w, c->block, ranges, c->ranges, err);
}

static enum gw_stream_command rewrite_command(struct rewrite *r)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_command_item c;
    must(gw_stream_take_command(&r->in, &c, &err), &err, "command");
    r->out->commands++;
    if (c.command == GW_COMMAND_PACKAGED)
        rewrite_package(r, c.value);
    else if (c.command == GW_COMMAND_POSTCOPY_RAM_DISCARD)
        must(write_discard(r, &c, &err), &err, "discard");
    else
        must(gw_stream_write_command(r->w, &c, &err), &err, "command");
    if (c.command == GW_COMMAND_POSTCOPY_ADVISE)
        r->ram.sizes = c.sizes;
    return c.command;
}

/* ---- a stream --------------------------------------------------------------------------------- */

/* To the end mark; of a package to RUN. */
static void rewrite_items(struct rewrite *r)
{
    struct gw_error err = GW_ERROR_INIT;
    for (;;) {
        const uint8_t *at = gw_input_take(&r->in, 1, "item", &err);
        must(at ? 0 : -EBADMSG, &err, "item");
        enum gw_item_type type = (enum gw_item_type) * at;
        if (type == GW_ITEM_EOF && !r->packaged) {
            gw_stream_write_eof(r->w);
            return;
        }
        if (type == GW_ITEM_COMMAND) {
            if (rewrite_command(r) == GW_COMMAND_POSTCOPY_RUN && r->packaged)
                return;
            continue;
        }
        GW_ASSERT(gw_item_is_section(type));
        rewrite_section(r, type);
    }
}

static void rewrite_description(struct rewrite *r)
{
    struct gw_error err = GW_ERROR_INIT;
    const uint8_t *at;
    if (gw_input_is_empty(&r->in))
        return;
    at = gw_input_take(&r->in, 5, "description", &err);
    GW_ASSERT(at != NULL && at[0] == GW_ITEM_DESCRIPTION);
    uint32_t bytes = gw_be32_load(at + 1);
    at = gw_input_take(&r->in, bytes, "description", &err);
    GW_ASSERT(at != NULL);
    gw_stream_write_description(r->w, at, bytes);
    GW_EXPECT(gw_input_is_empty(&r->in));
}

static void rewrite_fini(struct rewrite *r)
{
    for (unsigned i = 0; r->contents && i < r->ram.block_count; i++)
        free(r->contents[i]);
    free(r->contents);
    free(r->entries);
    gw_inline_fini(&r->ram);
    gw_writer_fini(&r->package);
}

void rewrite_stream(const uint8_t *data, size_t bytes, bool with_contents, struct rewritten *out)
{
    static struct rewrite r;
    struct gw_error err = GW_ERROR_INIT;
    *out = (struct rewritten){.sections = 0};
    r = (struct rewrite){
        .data = data, .w = &out->w, .out = out, .with_contents = with_contents, .footers = true};
    gw_input_memory(&r.in, data, bytes, 0);
    gw_writer_init(&out->w, bytes + 1); /* and not a byte more than one too many */
    gw_writer_init(&r.package, bytes);
    gw_inline_init(&r.ram);
    r.ram.on_page = write_page;
    r.ram.ctx = &r;
    must(gw_stream_take_header(&r.in, &r.configuration, &err), &err, "header");
    must(gw_stream_write_configuration(r.w, &r.configuration, &err), &err, "configuration");
    rewrite_items(&r);
    rewrite_description(&r);
    rewrite_fini(&r);
}

void rewritten_fini(struct rewritten *out)
{
    gw_writer_fini(&out->w);
}

bool rewritten_equals(const struct rewritten *out, const uint8_t *data, size_t bytes)
{
    size_t at = 0, both = out->w.bytes < bytes ? out->w.bytes : bytes;
    while (at < both && out->w.data[at] == data[at])
        at++;
    if (at == bytes && at == out->w.bytes && gw_writer_error(&out->w) == 0)
        return true;
    gw_test_note(__FILE__, __LINE__, "%zu bytes became %zu, the first that differs at %zu", bytes,
                 out->w.bytes, at);
    return false;
}

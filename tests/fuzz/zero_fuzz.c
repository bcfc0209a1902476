// SPDX-License-Identifier: MIT
/* Zero runs at the target: the body of a ZERO message, applied as a page endpoint applies it. Pages
 * outside of the runs, of another owner, or of a message that is refused at its first run, keep what
 * they hold; pages of a run that was taken read as zero. */
#include "control/codec.h"
#include "ram/place.h"
#include "tests/fuzz/fuzz.h"

#include <sys/mman.h>

#define STRIPE_PAGES 512u
#define PAGES (3 * STRIPE_PAGES) /* stripes 0 and 2 are ours */
#define MARKED_EVERY 61u         /* pages that hold something */

static uint8_t *memory;

static bool is_ours(uint64_t page)
{
    return page / STRIPE_PAGES != 1;
}

static void prepare(struct gw_ram *ram)
{
    struct gw_error err = GW_ERROR_INIT;
    if (!memory) {
        memory = mmap(NULL, PAGES * GW_PAGE_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        FUZZ_MUST(memory != MAP_FAILED);
    }
    for (unsigned page = 0; page < PAGES; page += MARKED_EVERY)
        memory[(size_t)page * GW_PAGE_BYTES] = 0xbd;
    struct gw_block_desc desc = {.struct_bytes = sizeof(desc),
                                 .name = "ram0",
                                 .host = memory,
                                 .size_bytes = (uint64_t)PAGES * GW_PAGE_BYTES,
                                 .page_bytes = GW_PAGE_BYTES,
                                 .fd = -1};
    FUZZ_MUST(gw_ram_add_block(ram, &desc, &err) == 0);
    FUZZ_MUST(gw_ram_layout(ram, STRIPE_PAGES * GW_PAGE_BYTES, 2, &err) == 0);
    FUZZ_MUST(gw_ram_target_begin(ram, &err) == 0);
}

static void apply(struct gw_ram *ram, const struct gw_message *msg)
{
    static struct gw_zero_run runs[GW_ZERO_RUNS_MAX];
    static bool named[PAGES];
    struct gw_placer placer = {.ram = ram};
    struct gw_error err = GW_ERROR_INIT;
    struct gw_list_cursor cursor;
    struct gw_range_msg range;
    unsigned count = 0;
    memset(named, 0, sizeof(named));
    gw_list_begin(&cursor, msg->u.zero.runs);
    while (gw_list_next_range(&cursor, GW_MSG_ZERO, &range) && count < GW_ZERO_RUNS_MAX) {
        runs[count++] = (struct gw_zero_run){
            .block = range.block, .first_page = range.first, .pages = range.count};
        for (uint64_t i = range.first; i < PAGES && i - range.first < range.count; i++)
            named[i] = true;
    }
    int rc = gw_place_zero(&placer, runs, count, &err);
    if (rc < 0)
        fuzz_refused(rc, &err);
    for (unsigned page = 0; page < PAGES; page += MARKED_EVERY) {
        bool marked = memory[(size_t)page * GW_PAGE_BYTES] != 0;
        if (!named[page] || !is_ours(page) || (count > 0 && placer.zero_pages == 0))
            FUZZ_MUST(marked);
        if (rc == 0 && named[page])
            FUZZ_MUST(!marked);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_message msg;
    uint8_t *buf = malloc(GW_MESSAGE_HEADER_BYTES + bytes);
    struct gw_ram *ram = gw_ram_new();
    FUZZ_MUST(buf && ram);
    memset(buf, 0, GW_MESSAGE_HEADER_BYTES);
    gw_be16_store(buf, GW_MSG_ZERO);
    if (bytes)
        memcpy(buf + GW_MESSAGE_HEADER_BYTES, data, bytes);
    int rc = gw_message_decode(buf, GW_MESSAGE_HEADER_BYTES + bytes, &msg, &err);
    if (rc < 0) {
        fuzz_refused(rc, &err);
    } else {
        prepare(ram);
        apply(ram, &msg);
    }
    gw_ram_free(ram);
    free(buf);
    return 0;
}

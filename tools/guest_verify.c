// SPDX-License-Identifier: MIT
/* The proof that memory is one consistent cut of a guest's history. The table of generations says
 * how often each page was written; what the page must hold follows from that and is compared byte by
 * byte (or, below the first rewrite of a page that came from a file, by its checksum). That the table
 * itself is the one the vCPUs left is shown by its hash, and that the counts are, by the sum of each
 * vCPU's generations. So a page that is lost, old, torn, zero or in another's place is found, and so
 * is a table or a count that ran back. */
#include "tools/guest_disk.h"
#include "tools/guest_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STALE_LOOKED_AT 64u /* generations that the diagnosis goes back */

struct check {
    struct gw_guest *guest;
    uint64_t *ram_data, *table_data; /* which pages are memory; NULL: all */
    _Atomic uint64_t hash;
    _Atomic uint64_t *generations; /* sums, by vCPU */
    pthread_mutex_t fault_lock;
    bool found; /* guarded, as are the next two */
    uint64_t page;
    char text[200];
};

static const uint64_t zero_page[GW_GUEST_PAGE_WORDS];

static bool is_known(const struct gw_guest_config *config, uint32_t generation)
{
    return config->fill != GW_FILL_FILE || generation >= GW_GUEST_REWRITE;
}

/* Add to @words, which hold the page at the last multiple of 16, the lines written since. */
static void replay_lines(const struct gw_guest *guest, uint64_t page, uint32_t generation,
                         uint64_t *words)
{
    const struct gw_guest_config *config = &guest->config;
    unsigned vcpu = gw_guest_owner(guest, page);
    for (uint32_t g = generation - generation % GW_GUEST_REWRITE + 1;
         g <= generation && g % GW_GUEST_REWRITE; g++) {
        unsigned line = gw_guest_line_of(config, page, g);
        gw_guest_compose_line(config, page, line, g, vcpu, words + line * GW_GUEST_LINE_WORDS);
    }
}

/* What the page holds at @generation. Where that is not known, @holds stands in for the fill. */
static void expect(const struct gw_guest *guest, uint64_t page, uint32_t generation,
                   const uint64_t *holds, uint64_t *words)
{
    if (is_known(&guest->config, generation))
        gw_guest_compose(&guest->config, page, generation - generation % GW_GUEST_REWRITE, words);
    else
        memcpy(words, holds, GW_GUEST_PAGE);
    replay_lines(guest, page, generation, words);
}

static bool sum_is_right(const struct gw_guest *guest, uint64_t page, struct gw_guest_entry entry,
                         const uint64_t *holds)
{
    uint64_t fill[GW_GUEST_PAGE_WORDS];
    uint32_t sum = gw_guest_page_sum(holds) - entry.sum;
    if (sum == 0 && guest->config.fill == GW_FILL_FILE)
        return true;
    if (guest->config.fill == GW_FILL_FILE)
        return false;
    gw_guest_compose(&guest->config, page, 0, fill);
    return sum == gw_guest_page_sum(fill);
}

/* ---- what is wrong with a page that is wrong ---------------------------------------------------- */

static unsigned lines_that_differ(const uint64_t *a, const uint64_t *b, unsigned *first)
{
    unsigned count = 0;
    for (unsigned line = GW_GUEST_LINES; line-- > 0;) {
        size_t at = line * GW_GUEST_LINE_WORDS;
        if (memcmp(a + at, b + at, GW_GUEST_LINE) == 0)
            continue;
        count++;
        *first = line;
    }
    return count;
}

/* The generation that the page was left at, or @generation if no earlier one fits. */
static uint32_t find_older(const struct gw_guest *guest, uint64_t page, uint32_t generation,
                           const uint64_t *holds)
{
    uint64_t words[GW_GUEST_PAGE_WORDS];
    for (uint32_t back = 1; back <= STALE_LOOKED_AT && back <= generation; back++) {
        uint32_t older = generation - back;
        if (!is_known(&guest->config, older))
            break;
        expect(guest, page, older, holds, words);
        if (memcmp(words, holds, GW_GUEST_PAGE) == 0)
            return older;
    }
    return generation;
}

static void diagnose(const struct gw_guest *guest, uint64_t page, struct gw_guest_entry entry,
                     const uint64_t *holds, char *text, size_t bytes)
{
    uint64_t words[GW_GUEST_PAGE_WORDS];
    unsigned first = 0;
    expect(guest, page, entry.generation, holds, words);
    unsigned count = lines_that_differ(words, holds, &first);
    uint32_t older = find_older(guest, page, entry.generation, holds);
    if (memcmp(holds, zero_page, GW_GUEST_PAGE) == 0)
        snprintf(text, bytes, "is all zeros");
    else if (older != entry.generation)
        snprintf(text, bytes, "is stale: it holds generation %" PRIu32, older);
    else if (count == 0)
        snprintf(text, bytes, "does not have the checksum that the table has");
    else if (count < GW_GUEST_LINES)
        snprintf(text, bytes,
                 "is torn: %u of its %u lines are not of this generation, line %u first", count,
                 GW_GUEST_LINES, first);
    else
        snprintf(text, bytes, "holds nothing that was ever written to it");
}

static int fault(struct check *check, uint64_t page, struct gw_guest_entry entry,
                 const uint64_t *holds)
{
    char text[160];
    diagnose(check->guest, page, entry, holds, text, sizeof(text));
    pthread_mutex_lock(&check->fault_lock);
    if (!check->found || page < check->page) {
        check->found = true;
        check->page = page;
        snprintf(check->text, sizeof(check->text), "%s (generation %" PRIu32 " is due)", text,
                 entry.generation);
    }
    pthread_mutex_unlock(&check->fault_lock);
    return -EBADMSG;
}

/* ---- all of memory --------------------------------------------------------------------------- */

static bool page_is_right(const struct gw_guest *guest, uint64_t page, struct gw_guest_entry entry,
                          const uint64_t *holds)
{
    uint64_t words[GW_GUEST_PAGE_WORDS];
    if (entry.generation == 0 && gw_guest_is_zero(&guest->config, page, 0))
        return entry.sum == 0 && memcmp(holds, zero_page, GW_GUEST_PAGE) == 0;
    if (is_known(&guest->config, entry.generation) || entry.generation) {
        expect(guest, page, entry.generation, holds, words);
        if (memcmp(words, holds, GW_GUEST_PAGE) != 0)
            return false;
    }
    /* A page of the fill has been compared already, and changed its checksum by nothing. */
    if (entry.generation == 0 && guest->config.fill != GW_FILL_FILE)
        return entry.sum == 0;
    return sum_is_right(guest, page, entry, holds);
}

static bool is_data(const uint64_t *data, uint64_t page)
{
    return !data || (data[page / 64] >> page % 64 & 1);
}

static int check_slice(void *ctx, uint64_t slice)
{
    struct check *check = ctx;
    struct gw_guest *guest = check->guest;
    uint64_t first = slice * GW_GUEST_SLICE_PAGES;
    uint64_t end = first + GW_GUEST_SLICE_PAGES;
    end = end < guest->pages ? end : guest->pages;
    bool has_table = is_data(check->table_data, slice); /* a slice's part of it is one page */
    uint64_t hash = 0;
    uint64_t generations = 0;
    unsigned vcpu = gw_guest_owner(guest, first);
    for (uint64_t page = first; page < end; page++) {
        struct gw_guest_entry entry = {0};
        if (has_table)
            entry = gw_guest_table(guest)[page];
        const uint64_t *holds =
            is_data(check->ram_data, page) ? gw_guest_page(guest, page) : zero_page;
        if (!page_is_right(guest, page, entry, holds))
            return fault(check, page, entry, holds);
        if (!entry.generation && !entry.sum)
            continue;
        hash += gw_guest_entry_hash(page, entry);
        unsigned owner = gw_guest_owner(guest, page);
        if (owner != vcpu) {
            atomic_fetch_add_explicit(&check->generations[vcpu], generations, memory_order_relaxed);
            generations = 0;
            vcpu = owner;
        }
        generations += entry.generation;
    }
    atomic_fetch_add_explicit(&check->generations[vcpu], generations, memory_order_relaxed);
    atomic_fetch_add_explicit(&check->hash, hash, memory_order_relaxed);
    return 0;
}

/* ---- the verdict ----------------------------------------------------------------------------- */

static int check_counts(const struct check *check, struct gw_error *err)
{
    const struct gw_guest *guest = check->guest;
    uint64_t hash = atomic_load_explicit(&check->hash, memory_order_relaxed);
    uint64_t due = gw_guest_hash(guest);
    if (hash != due)
        return gw_error_set(err, -EBADMSG, GW_CODE_VERIFY,
                            "block 'generations': its hash is %016" PRIx64
                            ", the device state says %016" PRIx64,
                            hash, due);
    for (unsigned i = 0; i < guest->config.vcpus; i++) {
        uint64_t writes = atomic_load_explicit(&guest->vcpus[i].writes, memory_order_relaxed);
        uint64_t seen = atomic_load_explicit(&check->generations[i], memory_order_relaxed);
        if (writes != seen)
            return gw_error_set(err, -EBADMSG, GW_CODE_VERIFY,
                                "vCPU %u: counts %" PRIu64 " writes, its pages have %" PRIu64, i,
                                writes, seen);
    }
    return 0;
}

int gw_guest_verify(struct gw_guest *guest, struct gw_error *err)
{
    if (!guest->loaded)
        return gw_error_set(err, -EINVAL, GW_CODE_GUEST, "guest: its device state was not loaded");
    struct check check = {.guest = guest};
    check.generations = calloc(guest->config.vcpus, sizeof(*check.generations));
    if (!check.generations)
        return gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY, "guest: verify: out of memory");
    pthread_mutex_init(&check.fault_lock, NULL);
    check.ram_data = gw_guest_memory_data(&guest->ram);
    check.table_data = gw_guest_memory_data(&guest->table);
    int rc = gw_guest_parallel(check_slice, &check, gw_guest_slices(guest));
    if (rc < 0)
        gw_error_set(err, rc, GW_CODE_VERIFY, "block 'ram': page %" PRIu64 " of vCPU %u %s",
                     check.page, gw_guest_owner(guest, check.page), check.text);
    else
        rc = check_counts(&check, err);
    if (rc == 0 && guest->disk)
        rc = gw_guest_disk_verify(guest->disk, err);
    pthread_mutex_destroy(&check.fault_lock);
    free(check.ram_data);
    free(check.table_data);
    free(check.generations);
    return rc;
}

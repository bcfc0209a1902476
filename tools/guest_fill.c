// SPDX-License-Identifier: MIT
/* What a guest's pages hold before the first write, and what a rewrite makes of them: pages of the
 * same kind, so that text stays text and a mixed guest keeps its share of zero pages. Zero pages of
 * fresh memory are not touched. A file's bytes cannot be recomputed at the target: each page of them
 * leaves its checksum in the table. */
#include "tools/guest_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILL_STREAM UINT64_C(0xcbf29ce484222325)

static uint64_t page_key(const struct gw_guest_config *config, uint64_t page, uint32_t generation)
{
    return gw_guest_mix(gw_guest_mix(config->seed ^ FILL_STREAM, page + 1),
                        generation + UINT64_C(1));
}

bool gw_guest_is_zero(const struct gw_guest_config *config, uint64_t page, uint32_t generation)
{
    if (config->fill == GW_FILL_ZERO)
        return true;
    if (config->fill != GW_FILL_MIXED)
        return false;
    uint64_t draw = gw_guest_mix(page_key(config, page, generation), FILL_STREAM);
    return (uint64_t)(((__uint128_t)draw * 100) >> 64) < config->percent_zero;
}

/* Words of eight letters: 6 bits of chance in 64, as a compressor will find. */
static void compose_text(uint64_t key, uint64_t *words)
{
    static const char vocabulary[64][9] = {
        "anchor  ", "and the ", "arctic  ", "before  ", "beneath ", "between ", "billow, ",
        "bird of ", "blue    ", "breeze, ", "coast   ", "current ", "dawn    ", "distance",
        "down to ", "drift   ", "eastward", "evening ", "feather ", "flight  ", "flock of",
        "from the", "godwit  ", "gravel  ", "harbour ", "high    ", "horizon ", "in a    ",
        "island, ", "journey ", "lagoon  ", "landing ", "light   ", "longest ", "marsh   ",
        "midnight", "moon    ", "morning ", "mudflat ", "night,  ", "north   ", "ocean   ",
        "of the  ", "over    ", "pacific ", "rest.   ", "river   ", "season  ", "seven   ",
        "shore   ", "silence ", "south   ", "star    ", "summer  ", "tail    ", "that    ",
        "the     ", "through ", "tide    ", "to sea  ", "tundra  ", "under   ", "weather ",
        "wing    ",
    };
    uint64_t chance = 0;
    for (unsigned i = 0; i < GW_GUEST_PAGE_WORDS; i++) {
        if (i % GW_GUEST_LINE_WORDS == 0)
            chance = gw_guest_word(key, i);
        memcpy(&words[i], vocabulary[chance & 63], sizeof(words[i]));
        chance >>= 6;
        if (i % GW_GUEST_LINE_WORDS == GW_GUEST_LINE_WORDS - 1)
            ((char *)&words[i])[7] = '\n';
    }
}

void gw_guest_compose(const struct gw_guest_config *config, uint64_t page, uint32_t generation,
                      uint64_t *words)
{
    uint64_t key = page_key(config, page, generation);
    if (gw_guest_is_zero(config, page, generation)) {
        memset(words, 0, GW_GUEST_PAGE);
    } else if (config->fill == GW_FILL_TEXT) {
        compose_text(key, words);
    } else {
        for (unsigned i = 0; i < GW_GUEST_PAGE_WORDS; i++)
            words[i] = gw_guest_word(key, i);
    }
}

/* ---- seeded fills ---------------------------------------------------------------------------- */

static uint64_t slice_end(const struct gw_guest *guest, uint64_t slice)
{
    uint64_t end = (slice + 1) * GW_GUEST_SLICE_PAGES;
    return end < guest->pages ? end : guest->pages;
}

static int fill_slice(void *ctx, uint64_t slice)
{
    struct gw_guest *guest = ctx;
    uint64_t end = slice_end(guest, slice);
    for (uint64_t page = slice * GW_GUEST_SLICE_PAGES; page < end; page++) {
        if (!gw_guest_is_zero(&guest->config, page, 0))
            gw_guest_compose(&guest->config, page, 0, gw_guest_page(guest, page));
    }
    return 0;
}

/* ---- a file ---------------------------------------------------------------------------------- */

struct file_fill {
    struct gw_guest *guest;
    int fd;
    _Atomic uint64_t hash;
};

static int read_extent(struct gw_guest *guest, int fd, uint64_t at, uint64_t end)
{
    while (at < end) {
        ssize_t bytes = pread(fd, guest->ram.host + at, end - at, (off_t)at);
        if (bytes < 0 && errno == EINTR)
            continue;
        if (bytes < 0)
            return -errno;
        if (bytes == 0)
            return 0; /* the file ends within its last page */
        at += (uint64_t)bytes;
    }
    return 0;
}

static void note_sums(struct file_fill *fill, uint64_t first, uint64_t end)
{
    uint64_t hash = 0;
    for (uint64_t page = first; page < end; page++) {
        struct gw_guest_entry entry = {.sum = gw_guest_page_sum(gw_guest_page(fill->guest, page))};
        if (!entry.sum)
            continue; /* a page of zeros; its place in the table may be a hole as well */
        gw_guest_table(fill->guest)[page] = entry;
        hash += gw_guest_entry_hash(page, entry);
    }
    atomic_fetch_add_explicit(&fill->hash, hash, memory_order_relaxed);
}

static int file_slice(void *ctx, uint64_t slice)
{
    struct file_fill *fill = ctx;
    uint64_t at = slice * GW_GUEST_SLICE_PAGES * GW_GUEST_PAGE;
    uint64_t end = slice_end(fill->guest, slice) * GW_GUEST_PAGE;
    while (at < end) {
        off_t data = lseek(fill->fd, (off_t)at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            return 0; /* no more data */
        at = data < 0 ? at : (uint64_t)data & ~(uint64_t)(GW_GUEST_PAGE - 1);
        if (at >= end)
            return 0;
        off_t hole = data < 0 ? -1 : lseek(fill->fd, data, SEEK_HOLE);
        uint64_t stop = hole < 0 ? end : ((uint64_t)hole + GW_GUEST_PAGE - 1);
        stop &= ~(uint64_t)(GW_GUEST_PAGE - 1);
        stop = stop < end ? stop : end;
        int rc = read_extent(fill->guest, fill->fd, at, stop);
        if (rc < 0)
            return rc;
        note_sums(fill, at / GW_GUEST_PAGE, stop / GW_GUEST_PAGE);
        at = stop;
    }
    return 0;
}

static int fail_file(const struct gw_guest *guest, int rc, const char *what, const char *hint,
                     struct gw_error *err)
{
    gw_error_set(err, rc, GW_CODE_IO, "fill: file '%s': %s: %s", guest->config.path, what,
                 strerrordesc_np(-rc));
    gw_error_hint(err, "%s", hint);
    return rc;
}

/* Without waiting: the other end of a pipe may never come. */
static int open_file(const struct gw_guest *guest, int *fd, struct gw_error *err)
{
    struct stat info;
    off_t bytes = -1;
    *fd = open(guest->config.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return fail_file(guest, -errno, "open", "--fill file:PATH takes a file that can be read",
                         err);
    if (fstat(*fd, &info) == 0 && (S_ISREG(info.st_mode) || S_ISBLK(info.st_mode)))
        bytes = lseek(*fd, 0, SEEK_END);
    if (bytes < 0) {
        gw_error_set(err, -EINVAL, GW_CODE_INVALID, "fill: '%s' is neither a file nor a disk",
                     guest->config.path);
        gw_error_hint(err, "a pipe or a folder will not do: --fill file:PATH of a RAM image");
        return -EINVAL;
    }
    if ((uint64_t)bytes <= guest->config.ram_bytes)
        return 0;
    gw_error_set(err, -EINVAL, GW_CODE_INVALID, "fill: file '%s' has %jd bytes, the guest %" PRIu64,
                 guest->config.path, (intmax_t)bytes, guest->config.ram_bytes);
    gw_error_hint(err, "give it --ram %jd or more",
                  (intmax_t)((bytes + GW_GUEST_PAGE - 1) / GW_GUEST_PAGE * GW_GUEST_PAGE));
    return -EINVAL;
}

static int fill_file(struct gw_guest *guest, struct gw_error *err)
{
    struct file_fill fill = {.guest = guest};
    int rc = open_file(guest, &fill.fd, err);
    if (rc == 0) {
        rc = gw_guest_parallel(file_slice, &fill, gw_guest_slices(guest));
        if (rc < 0)
            fail_file(guest, rc, "read", "is the disk in order?", err);
    }
    if (fill.fd >= 0)
        close(fill.fd);
    guest->base_hash = atomic_load_explicit(&fill.hash, memory_order_relaxed);
    return rc;
}

int gw_guest_fill(struct gw_guest *guest, struct gw_error *err)
{
    if (guest->config.fill == GW_FILL_FILE)
        return fill_file(guest, err);
    if (guest->config.fill != GW_FILL_ZERO)
        gw_guest_parallel(fill_slice, guest, gw_guest_slices(guest));
    return 0;
}

// SPDX-License-Identifier: MIT
/* Real memory: the RAM of a booted Linux, which scripts/linux-ram leaves in a file, as the fill of the
 * guest. Kernel and user pages, free lists and page cache are what no seeded fill is: pages that are
 * zero but for their last bytes, runs and holes of every length. GODWIT_LINUX_RAM names the file;
 * `scripts/check --rig` makes one. */
#include "tests/shim/gw_test.h"
#include "tests/support/command.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u
#define TABLE_PAGE 512u /* pages of RAM that one page of the guest's own table tells about */

static struct command target, source;

struct image {
    char fill[4200]; /* file:PATH */
    char ram[32];
    uint64_t pages;
    uint64_t zero_pages;
    uint64_t zero_table_pages; /* ... of the table of a guest that never wrote */
};

static bool is_zero(const unsigned char *bytes, size_t count)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0;
}

static void count_zeros(struct image *image, const unsigned char *bytes)
{
    for (uint64_t first = 0; first < image->pages; first += TABLE_PAGE) {
        uint64_t end = first + TABLE_PAGE < image->pages ? first + TABLE_PAGE : image->pages;
        uint64_t zeros = 0;
        for (uint64_t page = first; page < end; page++)
            zeros += is_zero(bytes + page * PAGE, PAGE);
        image->zero_pages += zeros;
        image->zero_table_pages += zeros == end - first;
    }
}

static struct image find_image(void)
{
    const char *path = getenv("GODWIT_LINUX_RAM");
    struct image image = {.pages = 0};

    if (!path || !path[0])
        GW_SKIP("GODWIT_LINUX_RAM names no image (scripts/check --rig has one made by "
                "scripts/linux-ram)");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        GW_FAIL("GODWIT_LINUX_RAM: %s: %s", path, strerror(errno));
    off_t bytes = lseek(fd, 0, SEEK_END);
    GW_ASSERT(bytes > 0);
    GW_ASSERT_EQ(bytes % PAGE, 0);
    const unsigned char *memory = mmap(NULL, (size_t)bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    GW_ASSERT(memory != MAP_FAILED);
    image.pages = (uint64_t)bytes / PAGE;
    count_zeros(&image, memory);
    munmap((void *)(uintptr_t)memory, (size_t)bytes);
    close(fd);
    snprintf(image.fill, sizeof(image.fill), "file:%s", path);
    snprintf(image.ram, sizeof(image.ram), "%lluk", (unsigned long long)bytes / 1024);
    return image;
}

/* From here to there with `send`'s options @rate and @memory; both documents, for json_decref(). */
static void migrate(const struct image *image, const char *rate, const char *memory, json_t **from,
                    json_t **to)
{
    char uri[256];

    command_start(&target,
                  (const char *const[]){"receive", "tcp:127.0.0.1:0", "--run-for", "0.5", "--quiet",
                                        "--ram-max", "4G", "--json", "-", NULL});
    GW_ASSERT(command_await_uri(&target, uri, sizeof(uri)));
    /* `switch`: under a sanitizer it may not converge, and must arrive all the same. */
    command_start(&source, (const char *const[]){"send",
                                                 uri,
                                                 "--ram",
                                                 image->ram,
                                                 "--fill",
                                                 image->fill,
                                                 "--vcpus",
                                                 "2",
                                                 "--memory",
                                                 memory,
                                                 "--dirty-rate",
                                                 rate,
                                                 "--warmup",
                                                 "0.2",
                                                 "--set",
                                                 "downtime-limit=20",
                                                 "--set",
                                                 "x-stall-action=switch",
                                                 "--digest",
                                                 "--quiet",
                                                 "--json",
                                                 "-",
                                                 NULL});
    int source_status = command_finish(&source), target_status = command_finish(&target);
    if (source_status || target_status)
        GW_FAIL("status %d and %d; source: %s\ntarget: %s", source_status, target_status,
                source.err.text, target.err.text);
    *from = command_document(&source);
    *to = command_document(&target);
    GW_ASSERT(*from && *to);
    GW_EXPECT(json_is_true(json_at(*from, "guest", "verified")));
    GW_EXPECT(json_is_true(json_at(*to, "guest", "verified")));
    GW_EXPECT_EQ(strlen(json_text_at(*from, "guest", "digest")), 32);
    GW_EXPECT_STREQ(json_text_at(*from, "guest", "digest"), json_text_at(*to, "guest", "digest"));
}

static const char *const memories[] = {"anon", "memfd", NULL};

GW_TEST_EACH(linux_ram, arrives_whole_while_the_guest_writes_over_it, memories)
{
    struct image image = find_image();
    json_t *from, *to;

    migrate(&image, "200M", param, &from, &to);
    GW_EXPECT_GT(json_count_at(from, "guest", "writes"), 0);
    GW_EXPECT_GT(json_count_at(to, "guest", "writes"), json_count_at(from, "guest", "writes"));
    GW_EXPECT_GT(json_count_at(from, "ram", "normal") + json_count_at(from, "ram", "duplicate"),
                 json_count_at(from, "ram", "total") / PAGE);
    json_decref(from);
    json_decref(to);
}

/* A guest that never writes has a table of the checksums of its pages, and a page of the table is zero
 * where all pages that it tells about are. */
GW_TEST_EACH(linux_ram, share_of_zero_pages_found_is_the_true_one, memories)
{
    struct image image = find_image();
    json_t *from, *to;

    migrate(&image, "0", param, &from, &to);
    json_int_t total = json_count_at(from, "ram", "total") / PAGE;
    json_int_t zeros = (json_int_t)(image.zero_pages + image.zero_table_pages);
    GW_EXPECT_GT(image.zero_pages, 0);
    GW_EXPECT_LT(image.zero_pages, image.pages);
    GW_EXPECT_EQ(total, image.pages + (image.pages + TABLE_PAGE - 1) / TABLE_PAGE);
    GW_EXPECT_EQ(json_count_at(from, "ram", "duplicate"), zeros);
    GW_EXPECT_EQ(json_count_at(from, "ram", "normal"), total - zeros);
    json_decref(from);
    json_decref(to);
}

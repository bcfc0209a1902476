// SPDX-License-Identifier: MIT
/* Streams recorded here and now: record.py drives a stock QEMU, `godwit analyze` must account for every byte,
 * and give back memory that equals the machine's; what was read is written again, codes of changed pages made
 * from the pages, and is the same. Skipped where there is no QEMU. */
#include "tests/shim/gw_test.h"
#include "tests/support/huge_pool.h"
#include "tests/support/rewrite.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char line[8192];

static int run_line(void)
{
    int status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

#define SHELL(...) (snprintf(line, sizeof(line), __VA_ARGS__), run_line())

static const char *godwit(void)
{
    const char *path = getenv("GODWIT");
    return path && path[0] ? path : GW_TEST_GODWIT;
}

/* Those whose memory is a file stand first. */
static const char *const with_memory[] = {"ram-16m",          "ram-64m", "ram-256m", "ram-microvm",
                                          "ram-microvm-runs", "xbzrle",  "compress", NULL};
static const char *const without[] = {"pc",
                                      "pc-defaults",
                                      "q35",
                                      "microvm",
                                      "microvm-blk",
                                      "pc-many",
                                      "q35-many",
                                      "uuid",
                                      "return-path",
                                      "no-footers",
                                      "no-footers-many",
                                      "no-description",
                                      "neither",
                                      "postcopy-advised",
                                      "ignore-shared",
                                      "running",
                                      "background-snapshot",
                                      "postcopy",
                                      NULL};

static void record(const char *scene, char folder[64])
{
    strcpy(folder, "/tmp/godwit-qemu-XXXXXX");
    GW_ASSERT(mkdtemp(folder) != NULL);
    int status =
        SHELL("python3 '%s/tests/qemu/record.py' %s %s 2>/dev/null", GW_TEST_SOURCE, scene, folder);
    if (status == 77)
        GW_SKIP("no qemu-system-x86_64");
    GW_ASSERT_EQ(status, 0);
}

static void expect_rewritten(const char *folder, struct rewritten *out)
{
    char path[128];
    struct stat st;
    snprintf(path, sizeof(path), "%s/stream", folder);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    GW_ASSERT(fd >= 0 && fstat(fd, &st) == 0);
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    GW_ASSERT(data != MAP_FAILED);
    rewrite_stream(data, (size_t)st.st_size, true, out);
    GW_EXPECT(rewritten_equals(out, data, (size_t)st.st_size));
    rewritten_fini(out);
    munmap(data, (size_t)st.st_size);
    close(fd);
}

GW_TEST_EACH(qemu, a_recorded_stream_verifies, without)
{
    char folder[64];
    record(param, folder);
    GW_EXPECT_EQ(SHELL("'%s' analyze --verify %s/stream >/dev/null", godwit(), folder), 0);
    if (strcmp(param, "postcopy") != 0 && strcmp(param, "neither") != 0 &&
        strcmp(param, "no-description") != 0) /* every device is walked to its exact end */
        GW_EXPECT_EQ(SHELL("'%s' analyze %s/stream | grep -q ' opaque '", godwit(), folder), 1);
    struct rewritten out;
    expect_rewritten(folder, &out);
    GW_EXPECT(out.sections > 0 && out.zero > 0);
    GW_EXPECT_EQ(SHELL("rm -rf '%s'", folder), 0);
}

GW_TEST_EACH(qemu, extracted_memory_equals_the_machines, with_memory)
{
    char folder[64];
    if (strcmp(param, "compress") == 0 && SHELL("'%s' --version | grep -q zlib=no", godwit()) == 0)
        GW_SKIP("this build has no zlib");
    record(param, folder);
    GW_EXPECT_EQ(SHELL("'%s' analyze --verify --extract %s/x %s/stream >/dev/null", godwit(),
                       folder, folder),
                 0);
    GW_EXPECT_EQ(SHELL("cmp %s/x/ram-0-ram0.bin %s/ram", folder, folder), 0);
    struct rewritten out;
    if (strcmp(param, "compress") != 0) { /* pages that nobody writes any more */
        expect_rewritten(folder, &out);
        GW_EXPECT(out.pages > 0);
        GW_EXPECT_EQ(out.changes > 0, strcmp(param, "xbzrle") == 0);
    }
    GW_EXPECT_EQ(SHELL("rm -rf '%s'", folder), 0);
}

GW_TEST(qemu, a_block_on_huge_pages_says_so)
{
    struct gw_huge_pool pool = {.count = 0};
    struct rewritten out;
    char folder[64];
    if (!gw_huge_pool_open(&pool, 2u << 20, 8))
        GW_SKIP("no huge pages");
    record("postcopy-huge", folder);
    gw_huge_pool_close(&pool);
    GW_EXPECT_EQ(SHELL("'%s' analyze --verify %s/stream | grep -q 'ram0 (pages of 2097152)'",
                       godwit(), folder),
                 0);
    expect_rewritten(folder, &out);
    GW_EXPECT_EQ(out.page_sizes, 1);
    GW_EXPECT_EQ(out.packages, 1);
    GW_EXPECT_EQ(SHELL("rm -rf '%s'", folder), 0);
}

GW_TEST(qemu, recorded_multifd_channels_verify)
{
    char folder[64];
    record("multifd", folder);
    for (unsigned i = 1; i <= 2; i++) {
        char number[8];
        snprintf(number, sizeof(number), "%u", i);
        GW_EXPECT_EQ(
            SHELL("'%s' analyze --verify %s/stream.%s >/dev/null", godwit(), folder, number), 0);
    }
    GW_EXPECT_EQ(SHELL("rm -rf '%s'", folder), 0);
}

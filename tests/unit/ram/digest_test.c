// SPDX-License-Identifier: MIT
/* The digest against plain XXH3 over the same bytes laid end to end. */
#include "core/base/alloc.h"
#include "ram/digest.h"
#include "tests/shim/gw_test.h"
#include "tests/support/ram_rig.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

GW_TEST(digest, equals_plain_xxh3_over_all_blocks_in_name_order)
{
    static const char *const names[] = {"pc.ram", "vga", "bios", "a"};
    static const unsigned order[] = {3, 2, 0, 1};
    static const uint64_t pages[] = {5000, 17, 64, 1};
    struct rig_memory memory;
    rig_memory_init(&memory);
    uint64_t total = 0;
    srandom(5);
    for (unsigned i = 0; i < 4; i++) {
        struct gw_block *block =
            rig_memory_add(&memory, names[i], i % 2 ? GW_BLOCK_MEMFD : GW_BLOCK_ANON, pages[i]);
        for (uint64_t page = 0; page < pages[i]; page++) {
            if (random() % 3)
                continue; /* two thirds are holes */
            for (unsigned word = 0; word < GW_PAGE_BYTES / 8; word++)
                ((uint64_t *)block->desc.host)[page * 512 + word] = (uint64_t)random();
        }
        total += block->desc.size_bytes;
    }
    uint8_t digest[GW_DIGEST_BYTES];
    GW_ASSERT_EQ(gw_ram_digest(memory.ram, digest, NULL, NULL), 0);

    char *all = malloc(total);
    uint64_t at = 0;
    for (unsigned i = 0; i < 4; i++) {
        memcpy(all + at, memory.host[order[i]], memory.bytes[order[i]]);
        at += memory.bytes[order[i]];
    }
    XXH128_canonical_t plain;
    XXH128_canonicalFromHash(&plain, XXH3_128bits(all, total));
    GW_EXPECT_MEMEQ(digest, plain.digest, GW_DIGEST_BYTES);

    rig_write(gw_ram_block(memory.ram, 1), 16, 99);
    uint8_t other[GW_DIGEST_BYTES];
    GW_ASSERT_EQ(gw_ram_digest(memory.ram, other, NULL, NULL), 0);
    GW_EXPECT(memcmp(digest, other, GW_DIGEST_BYTES) != 0);
    free(all);
    rig_memory_fini(&memory);
}

GW_TEST(digest, holes_stay_holes)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    struct gw_block *block = rig_memory_add(&memory, "a", GW_BLOCK_MEMFD, 10000);
    rig_write(block, 5000, 1);
    uint8_t digest[GW_DIGEST_BYTES];
    GW_EXPECT_EQ(gw_ram_digest(memory.ram, digest, NULL, NULL), 0);
    struct stat file;
    GW_ASSERT_EQ(fstat(memory.fd[0], &file), 0);
    GW_EXPECT_EQ(file.st_blocks, 8);
    rig_memory_fini(&memory);
}

GW_TEST(digest, a_cancel_ends_it)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    rig_memory_add(&memory, "a", GW_BLOCK_ANON, 10);
    int cancel = 1;
    uint8_t digest[GW_DIGEST_BYTES];
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_ram_digest(memory.ram, digest, &cancel, &err), -ECANCELED);
    GW_EXPECT_EQ(err.code, GW_CODE_CANCELLED);
    cancel = 0;
    GW_EXPECT_EQ(gw_ram_digest(memory.ram, digest, &cancel, &err), 0);
    rig_memory_fini(&memory);
}

GW_TEST(digest, out_of_memory_is_an_error)
{
    struct rig_memory memory;
    rig_memory_init(&memory);
    rig_memory_add(&memory, "a", GW_BLOCK_ANON, 10);
    uint8_t digest[GW_DIGEST_BYTES];
    gw_alloc_fail_after(0);
    GW_EXPECT_EQ(gw_ram_digest(memory.ram, digest, NULL, NULL), -ENOMEM);
    gw_alloc_fail_after(-1);
    rig_memory_fini(&memory);
}

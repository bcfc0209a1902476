// SPDX-License-Identifier: MIT
/* ROMs and firmware: sent like memory, and of a size that this host's must agree with. */
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"

#include <errno.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define KIB (UINT64_C(1) << 10)
#define SECONDS 30u

static int check(uint64_t offered, uint64_t here, uint64_t here_max, uint32_t flags,
                 struct gw_error *err)
{
    struct gw_block_offer offer = {.struct_bytes = sizeof(offer),
                                   .name = "bios",
                                   .size_bytes = offered,
                                   .page_bytes = 4096,
                                   .flags = flags};
    *err = (struct gw_error)GW_ERROR_INIT;
    return gw_block_offer_check(&offer, here, here_max, err);
}

GW_TEST(firmware, sizes_are_equal_unless_a_block_can_have_others)
{
    struct gw_error err;
    GW_EXPECT_EQ(check(256 * KIB, 256 * KIB, 0, GW_BLOCK_READ_ONLY, &err), 0);
    GW_EXPECT_EQ(check(256 * KIB, 128 * KIB, 0, GW_BLOCK_READ_ONLY, &err), -EINVAL);
    GW_EXPECT_STREQ(err.message, "ROM block 'bios' has 262144 bytes at the source and 131072 here");
    GW_EXPECT_EQ(err.code, GW_CODE_BLOCK);
    GW_EXPECT(strstr(err.hint, "firmware"));
    GW_EXPECT_EQ(check(128 * KIB, 256 * KIB, 0, 0, &err), -EINVAL); /* smaller is no better */
    GW_EXPECT_EQ(check(256 * KIB, 128 * KIB, 512 * KIB, 0, &err), 0);
    GW_EXPECT_EQ(check(64 * KIB, 128 * KIB, 512 * KIB, 0, &err), 0);
    GW_EXPECT_EQ(check(512 * KIB, 128 * KIB, 512 * KIB, 0, &err), 0);
    GW_EXPECT_EQ(check(516 * KIB, 128 * KIB, 512 * KIB, 0, &err), -EINVAL);
    GW_EXPECT_STREQ(err.message,
                    "block 'bios' has 528384 bytes at the source, and may have 524288 here");
}

static uint64_t rom_bytes_here;
static bool rom_was_offered;

static int offered(struct pair *pair, const struct gw_block_offer *offer)
{
    struct gw_error err = GW_ERROR_INIT;
    (void)pair;
    if (strcmp(offer->name, "bios") != 0)
        return offer->flags == 0 ? 0 : -EINVAL;
    if (!(offer->flags & GW_BLOCK_READ_ONLY))
        return -EINVAL;
    rom_was_offered = true;
    return gw_block_offer_check(offer, rom_bytes_here, 0, &err);
}

/* As docs/embedding.md wants it: what this machine has and the source has not would be as it is here,
 * under a guest that knows nothing of it. */
static int all_offered(struct pair *pair, struct gw_error *err)
{
    (void)pair;
    if (rom_was_offered)
        return 0;
    return gw_error_set(err, -ENOENT, GW_CODE_BLOCK,
                        "ROM block 'bios' is here, and the source has none");
}

static void begin(struct pair *pair, struct gw_params *params, bool has_rom)
{
    GW_EXPECT_EQ(gw_params_set(params, "x-settle-timeout", "300", NULL), 0);
    GW_EXPECT_EQ(gw_params_set(params, "x-hold-timeout", "300", NULL), 0);
    pair->params = pair->target_params = params;
    pair->block_offered = offered;
    pair->blocks_ready = all_offered;
    rom_was_offered = false;
    pair_add_block(pair, "ram0", 2 * MIB, GW_BLOCK_ANON, 50);
    if (has_rom) {
        pair_add_block(pair, "bios", 256 * KIB, GW_BLOCK_ANON, 100);
        pair->blocks[1].flags = GW_BLOCK_READ_ONLY;
    }
    pair_init(pair);
    pair_listen(pair);
    pair_start(pair);
    GW_EXPECT(pair_finish(pair, SECONDS));
}

GW_TEST(firmware, rom_goes_with_the_guest)
{
    struct pair pair = {.device_value = 1};
    struct gw_params *params = pair_params();
    rom_bytes_here = 256 * KIB;
    begin(&pair, params, true);
    GW_EXPECT_EQ(pair.source_rc, 0);
    GW_EXPECT_EQ(pair_differs(&pair), -1); /* the source's, byte for byte */
    pair_fini(&pair);
    gw_params_free(params);
}

GW_TEST(firmware, rom_of_another_size_leaves_the_guest_at_the_source)
{
    struct pair pair = {.device_value = 1};
    struct gw_params *params = pair_params();
    rom_bytes_here = 128 * KIB;
    begin(&pair, params, true);
    GW_EXPECT_EQ(pair.target_rc, -EINVAL);
    GW_EXPECT_EQ(pair.target_err.code, GW_CODE_BLOCK);
    GW_EXPECT(strstr(pair.target_err.message, "block 'bios' (262144 bytes)"));
    GW_EXPECT(pair.source_runs && pair.pauses == 0);
    pair_fini(&pair);
    gw_params_free(params);
}

GW_TEST(firmware, rom_that_the_source_lacks_leaves_the_guest_there)
{
    struct pair pair = {.device_value = 1};
    struct gw_params *params = pair_params();
    rom_bytes_here = 256 * KIB;
    begin(&pair, params, false);
    GW_EXPECT_EQ(pair.target_rc, -ENOENT);
    GW_EXPECT_EQ(pair.target_err.code, GW_CODE_BLOCK);
    GW_EXPECT_STREQ(pair.target_err.message, "ROM block 'bios' is here, and the source has none");
    GW_EXPECT_LT(pair.source_rc, 0);
    GW_EXPECT(strstr(pair.source_err.peer, "the source has none") != NULL);
    GW_EXPECT(pair.source_runs && pair.pauses == 0 && pair.runs == 0);
    pair_fini(&pair);
    gw_params_free(params);
}

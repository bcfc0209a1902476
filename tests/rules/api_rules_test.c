// SPDX-License-Identifier: MIT
/* What the headers promise of arguments and of the order of calls: a mistake is refused where it is
 * made, with a reason, and changes nothing. */
#include "core/source.h"
#include "core/target.h"
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"

#include <errno.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define SECONDS 20u

static void expect_told(const struct gw_error *err, int rc, const char *word)
{
    GW_EXPECT_EQ(err->rc, rc);
    if (!strstr(err->message, word))
        GW_NOTE_FAILURE("'%s' is not in \"%s\"", word, err->message);
}

/* ---- names ------------------------------------------------------------------------------------ */

GW_TEST(api, device_whose_name_cannot_be_sent_is_refused)
{
    struct pair pair = {.device_value = 1};
    pair_add_block(&pair, "ram0", MIB, GW_BLOCK_ANON, 0);
    pair_init(&pair);
    static const char *const odd[] = {"dev\x01", "dev\x7f", "d\xc3\xa9v", "\n"};
    for (unsigned i = 0; i < 4; i++) {
        struct gw_device_desc device = {.struct_bytes = sizeof(device),
                                        .name = odd[i],
                                        .save = pair.src->devices.list[0].save,
                                        .load = pair.tgt->devices.list[0].load};
        struct gw_error err = GW_ERROR_INIT;
        GW_EXPECT_EQ(gw_source_add_device(pair.src, &device, &err), -EINVAL);
        expect_told(&err, -EINVAL, "printable");
        GW_EXPECT_EQ(gw_target_add_device(pair.tgt, &device, NULL), -EINVAL);
    }
    pair_fini(&pair);
}

GW_TEST(api, machine_whose_name_cannot_be_sent_is_refused)
{
    struct pair pair = {.device_value = 1};
    pair_add_block(&pair, "ram0", MIB, GW_BLOCK_ANON, 0);
    pair_init(&pair);
    struct gw_source_config source = {.struct_bytes = sizeof(source),
                                      .loop = pair.source_loop,
                                      .ops = &pair.src->ops,
                                      .machine = "pc\t1"};
    struct gw_target_config target = {.struct_bytes = sizeof(target),
                                      .loop = pair.target_loop,
                                      .ops = &pair.tgt->ops,
                                      .machine = "pc\x80"};
    struct gw_source *src = NULL;
    struct gw_target *tgt = NULL;
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_source_new(&source, &src, &err), -EINVAL);
    expect_told(&err, -EINVAL, "source: byte 0x09");
    GW_EXPECT_EQ(gw_target_new(&target, &tgt, &err), -EINVAL);
    expect_told(&err, -EINVAL, "target: byte 0x80");
    GW_EXPECT(!src && !tgt);
    pair_fini(&pair);
}

/* Adding refuses such a block; whatever it is that cannot be offered, the source must not try for ever. */
GW_TEST(api, block_that_cannot_be_offered_fails_the_migration)
{
    struct pair pair = {.device_value = 1};
    pair_add_block(&pair, "ram0", MIB, GW_BLOCK_ANON, 0);
    pair_init(&pair);
    pair_listen(&pair);
    ((char *)(uintptr_t)gw_ram_block(pair.src->ram, 0)->desc.name)[0] = '\n';
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    expect_told(&pair.source_err, -EINVAL, "block 0");
    GW_EXPECT(atomic_load(&pair.source_runs));
    pair_fini(&pair);
}

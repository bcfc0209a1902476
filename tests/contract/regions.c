// SPDX-License-Identifier: MIT
/* Contract: regions: their numbers on a stream wire, their keys on a one-sided one, and who may write by
 * them. */
#include "tests/contract/wire_rig.h"

#include <string.h>

GW_TEST_EACH(wire, a_region_number_is_taken_once, gw_test_wires)
{
    struct rig rig;
    struct gw_mr *mr = NULL;
    struct gw_error err = GW_ERROR_INIT;
    rig_listen(&rig, param);
    if (gw_wire_flags(rig.uri.scheme) & GW_EP_ONE_SIDED) {
        rig_close(&rig);
        GW_SKIP("regions have keys, of which there are always more");
    }
    struct gw_mr_desc desc = {
        .addr = rig.guest, .bytes = 4096, .access = GW_MR_REMOTE_WRITE, .region = RIG_REGION};
    GW_EXPECT_EQ(gw_mr_reg(rig.target_domain, &desc, &mr, &err), -EEXIST);
    desc.region = GW_REGIONS_MAX;
    GW_EXPECT_EQ(gw_mr_reg(rig.target_domain, &desc, &mr, &err), -E2BIG);
    desc.bytes = 0;
    GW_EXPECT_EQ(gw_mr_reg(rig.target_domain, &desc, &mr, &err), -EINVAL);
    rig_close(&rig);
}

GW_TEST(one_sided, a_put_lands_while_nobody_looks)
{
    struct rig rig;
    rig_open(&rig, "loop1");
    struct gw_put put = rig_put_at(&rig, 8192, 4096, 1);
    GW_EXPECT_EQ(gw_put(rig.source, &put, 1), 1);
    struct gw_completion done;
    GW_EXPECT_EQ(gw_poll(rig.source, &done, 1), 1);
    GW_EXPECT_MEMEQ(rig.guest + 8192, rig.local + 8192, 4096);
    GW_EXPECT(rig_is_zero(rig.guest, 8192));
    rig_close(&rig);
}

GW_TEST(one_sided, a_put_with_a_dead_key_breaks_the_connection)
{
    struct rig rig;
    uint8_t heard[8];
    struct gw_error err = GW_ERROR_INIT;
    rig_open(&rig, "loop1");
    gw_mr_dereg(rig.guest_mr);
    rig.guest_mr = NULL;
    struct gw_put put = rig_put_at(&rig, 0, 4096, 1);
    GW_EXPECT_EQ(gw_put(rig.source, &put, 1), 1);
    GW_EXPECT_LT(rig_recv(rig.target, rig.source, heard, sizeof(heard)), 0);
    GW_EXPECT_EQ(gw_ep_error(rig.target, &err), -EACCES);
    GW_EXPECT(strstr(err.message, "its key is dead") != NULL);
    GW_EXPECT_EQ(rig_send(rig.source, "x", 1), -EACCES);
    GW_EXPECT(rig_is_zero(rig.guest, RIG_MEMORY_BYTES));
    rig_close(&rig);
}

GW_TEST(one_sided, unregistered_memory_is_not_sent_from)
{
    struct rig rig;
    rig_open(&rig, "loop1");
    struct gw_put put = rig_put_at(&rig, 0, 4096, 1);
    put.mr = NULL;
    GW_EXPECT_EQ(gw_put(rig.source, &put, 1), -EINVAL);
    put.mr = rig.local_mr;
    put.local = rig.guest;
    GW_EXPECT_EQ(gw_put(rig.source, &put, 1), -EINVAL);
    rig_close(&rig);
}

GW_TEST(one_sided, a_revoked_endpoint_is_mute_and_its_peer_learns_by_speaking)
{
    struct rig rig;
    uint8_t heard[8];
    rig_open(&rig, "loop1");
    gw_ep_revoke(rig.target);
    GW_EXPECT_EQ(gw_ep_error(rig.source, NULL), 0); /* it has not spoken */
    struct gw_put put = rig_put_at(&rig, 0, 4096, 1);
    GW_EXPECT_EQ(gw_put(rig.source, &put, 1), 1);
    GW_EXPECT_LT(rig_recv(rig.source, NULL, heard, sizeof(heard)), 0);
    GW_EXPECT_LT(gw_send(rig.target, &(struct iovec){heard, 1}, 1), 0);
    GW_EXPECT(rig_is_zero(rig.guest, RIG_MEMORY_BYTES));
    rig_close(&rig);
}

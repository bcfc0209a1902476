// SPDX-License-Identifier: MIT
/* States, the ways between them, and what follows when a driver refuses one. */
#include "tests/unit/devices/vfio_rig.h"

#include <stdarg.h>

static struct gw_odev_caps full_caps(void)
{
    return (struct gw_odev_caps){.precopy = true, .quiesce = true};
}

static void expect_way(const struct gw_odev_caps *caps, enum gw_odev_state from,
                       enum gw_odev_state to, int count, ...)
{
    enum gw_odev_state path[GW_ODEV_STATE_COUNT_];
    va_list args;
    int got = gw_odev_path(caps, from, to, path);
    GW_EXPECT_EQ(got, count);
    va_start(args, count);
    for (int i = 0; i < count && i < got; i++)
        GW_EXPECT_STREQ(gw_odev_state_name(path[i]),
                        gw_odev_state_name((enum gw_odev_state)va_arg(args, int)));
    va_end(args);
}

GW_TEST(vfio_state, ways_are_the_shortest_and_pass_through_no_transfer)
{
    struct gw_odev_caps caps = full_caps();
    expect_way(&caps, GW_ODEV_RUNNING, GW_ODEV_STOP_COPY, 3, GW_ODEV_RUNNING_P2P, GW_ODEV_STOP,
               GW_ODEV_STOP_COPY);
    expect_way(&caps, GW_ODEV_RESUMING, GW_ODEV_RUNNING, 3, GW_ODEV_STOP, GW_ODEV_RUNNING_P2P,
               GW_ODEV_RUNNING);
    expect_way(&caps, GW_ODEV_PRE_COPY, GW_ODEV_STOP_COPY, 2, GW_ODEV_PRE_COPY_P2P,
               GW_ODEV_STOP_COPY);
    expect_way(&caps, GW_ODEV_PRE_COPY, GW_ODEV_STOP, 3, GW_ODEV_RUNNING, GW_ODEV_RUNNING_P2P,
               GW_ODEV_STOP);
    expect_way(&caps, GW_ODEV_STOP_COPY, GW_ODEV_RUNNING, 3, GW_ODEV_STOP, GW_ODEV_RUNNING_P2P,
               GW_ODEV_RUNNING);
    expect_way(&caps, GW_ODEV_STOP, GW_ODEV_STOP, 0);
}

GW_TEST(vfio_state, a_transfer_that_was_read_to_its_end_cannot_go_live_again)
{
    struct gw_odev_caps caps = full_caps();
    expect_way(&caps, GW_ODEV_STOP_COPY, GW_ODEV_PRE_COPY, -EINVAL);
    expect_way(&caps, GW_ODEV_STOP_COPY, GW_ODEV_PRE_COPY_P2P, -EINVAL);
    expect_way(&caps, GW_ODEV_ERROR, GW_ODEV_RUNNING, -EINVAL);
    expect_way(&caps, GW_ODEV_RUNNING, GW_ODEV_ERROR, -EINVAL);
}

GW_TEST(vfio_state, states_that_a_device_lacks_are_passed_over)
{
    struct gw_odev_caps caps = {.precopy = true};
    expect_way(&caps, GW_ODEV_PRE_COPY, GW_ODEV_STOP_COPY, 1, GW_ODEV_STOP_COPY);
    expect_way(&caps, GW_ODEV_RUNNING, GW_ODEV_STOP, 1, GW_ODEV_STOP);
    expect_way(&caps, GW_ODEV_RUNNING, GW_ODEV_RUNNING_P2P, -EINVAL);
    caps = (struct gw_odev_caps){.quiesce = true};
    expect_way(&caps, GW_ODEV_RUNNING, GW_ODEV_PRE_COPY, -EINVAL);
    expect_way(&caps, GW_ODEV_RUNNING, GW_ODEV_STOP_COPY, 3, GW_ODEV_RUNNING_P2P, GW_ODEV_STOP,
               GW_ODEV_STOP_COPY);
}

/* The driver's own table, by hand, has a way exactly where ours has one. */
GW_TEST(vfio_state, a_driver_goes_wherever_there_is_a_way)
{
    struct vendor_config config = rig_config();
    for (unsigned kind = 0; kind < 4; kind++) {
        config.precopy = kind & 1;
        config.quiesce = kind & 2;
        struct gw_odev_caps caps = {.precopy = config.precopy, .quiesce = config.quiesce};
        for (unsigned from = 1; from < GW_ODEV_STATE_COUNT_; from++) {
            for (unsigned to = 1; to < GW_ODEV_STATE_COUNT_; to++) {
                struct rig rig = {.err = GW_ERROR_INIT};
                rig_side_open(&rig, &rig.src, RIG_FEATURE, &config, NULL);
                struct gw_odev odev = {
                    .ops = &gw_feature_odev_ops, .dev = rig.src.feature, .name = "x"};
                GW_EXPECT_EQ(gw_odev_init(&odev, NULL), 0);
                bool there =
                    from == GW_ODEV_RUNNING || gw_odev_path(&caps, GW_ODEV_RUNNING, from, NULL) > 0;
                /* Leaving RESUMING without a state is refused: not what this is about. */
                if (there && from != GW_ODEV_RESUMING) {
                    GW_EXPECT_EQ(gw_odev_move(&odev, from, GW_ODEV_ERROR, NULL), 0);
                    int way = gw_odev_path(&caps, from, to, NULL);
                    int rc = gw_odev_move(&odev, to, GW_ODEV_ERROR, NULL);
                    GW_EXPECT_EQ(rc, way < 0 ? -EINVAL : 0);
                    GW_EXPECT_EQ(vendor_state(rig.src.vendor), way < 0 ? from : to);
                }
                GW_EXPECT(vendor_violation(rig.src.vendor) == NULL);
                rig_side_close(&rig.src);
            }
        }
    }
}

struct broken_move {
    enum vendor_fault fault;
    unsigned times;
    bool reset_too;
    enum gw_odev_state recover;
    enum gw_odev_state ends; /* the state it is in afterwards */
    unsigned recoveries, resets;
};

static void break_a_move(const struct broken_move *b, enum rig_front front)
{
    struct vendor_config config = rig_config();
    struct rig rig = {.err = GW_ERROR_INIT};
    rig_side_open(&rig, &rig.src, front, &config, NULL);
    struct gw_odev odev = {.name = "0000:00:04.0/vfio"};
    odev.ops = front == RIG_STAGING ? &gw_staging_odev_ops : &gw_feature_odev_ops;
    odev.dev = front == RIG_STAGING ? (void *)rig.src.staging : (void *)rig.src.feature;
    GW_EXPECT_EQ(gw_odev_init(&odev, NULL), 0);
    GW_EXPECT_EQ(gw_odev_move(&odev, GW_ODEV_PRE_COPY, GW_ODEV_RUNNING, NULL), 0);
    vendor_break(rig.src.vendor, b->fault, 1, b->times);
    if (b->reset_too)
        vendor_break(rig.src.vendor, VENDOR_RESET_FAILS, 1, 1);
    GW_EXPECT_LT(gw_odev_move(&odev, GW_ODEV_STOP_COPY, b->recover, &rig.err), 0);
    GW_EXPECT_STREQ(gw_odev_state_name(odev.state), gw_odev_state_name(b->ends));
    GW_EXPECT_EQ(odev.recoveries, b->recoveries);
    GW_EXPECT_EQ(odev.resets, b->resets);
    GW_EXPECT(strstr(rig.err.message, "device '0000:00:04.0/vfio': state PRE_COPY to STOP_COPY") !=
              NULL);
    GW_EXPECT_EQ(rig.err.code, GW_CODE_DEVICE);
    GW_EXPECT_EQ(rig.err.hint[0] != '\0', b->reset_too);
    GW_EXPECT(vendor_violation(rig.src.vendor) == NULL);
    rig_side_close(&rig.src);
}

GW_TEST(vfio_state, a_refused_move_is_taken_back_or_ends_in_a_reset)
{
    static const struct broken_move moves[] = {
        {VENDOR_STATE_REFUSED, 1, false, GW_ODEV_STOP, GW_ODEV_STOP, 1, 0},
        {VENDOR_STATE_REFUSED, 2, false, GW_ODEV_STOP, GW_ODEV_RUNNING, 0, 1}, /* that too */
        {VENDOR_STATE_MIDDLE, 1, false, GW_ODEV_STOP, GW_ODEV_STOP, 1, 0},
        {VENDOR_STATE_ERROR, 1, false, GW_ODEV_STOP, GW_ODEV_RUNNING, 0, 1},
        {VENDOR_STATE_REFUSED, 1, false, GW_ODEV_ERROR, GW_ODEV_RUNNING, 0, 1},
        {VENDOR_STATE_ERROR, 1, true, GW_ODEV_STOP, GW_ODEV_ERROR, 0, 0},
    };
    for (size_t i = 0; i < sizeof(moves) / sizeof(moves[0]); i++) {
        break_a_move(&moves[i], RIG_STAGING);
        break_a_move(&moves[i], RIG_FEATURE);
    }
}

GW_TEST(vfio_state, a_move_that_there_is_no_way_for_touches_nothing)
{
    struct vendor_config config = rig_config();
    struct rig rig = {.err = GW_ERROR_INIT};
    rig_side_open(&rig, &rig.src, RIG_FEATURE, &config, NULL);
    struct gw_odev odev = {
        .ops = &gw_feature_odev_ops, .dev = rig.src.feature, .name = "0000:00:04.0/vfio"};
    GW_EXPECT_EQ(gw_odev_init(&odev, NULL), 0);
    GW_EXPECT_EQ(gw_odev_move(&odev, GW_ODEV_STOP_COPY, GW_ODEV_STOP, NULL), 0);
    GW_EXPECT_EQ(gw_odev_move(&odev, GW_ODEV_PRE_COPY, GW_ODEV_ERROR, &rig.err), -EINVAL);
    GW_EXPECT_STREQ(rig.err.message,
                    "device '0000:00:04.0/vfio': there is no way from state STOP_COPY to PRE_COPY");
    GW_EXPECT_EQ(vendor_state(rig.src.vendor), GW_ODEV_STOP_COPY);
    GW_EXPECT_EQ(odev.resets, 0);
    GW_EXPECT(vendor_violation(rig.src.vendor) == NULL);
    gw_odev_move(&odev, GW_ODEV_STOP, GW_ODEV_ERROR, NULL);
    rig_side_close(&rig.src);
}

/* ---- several devices --------------------------------------------------------------------------- */

static void open_two(struct rig *rig, bool quiesce)
{
    struct vendor_config config = rig_config();
    *rig = (struct rig){.err = GW_ERROR_INIT};
    gw_writer_init(&rig->w, 1 << 20);
    config.quiesce = quiesce;
    rig_side_open(rig, &rig->src, RIG_FEATURE, &config, NULL);
    config.name = "0000:00:05.0/vfio";
    rig_side_open(rig, &rig->dst, RIG_FEATURE, &config, NULL);
    vendor_set_peer(rig->src.vendor, rig->dst.vendor);
    vendor_set_peer(rig->dst.vendor, rig->src.vendor);
}

GW_TEST(vfio_state, all_are_quiet_before_one_stops)
{
    struct rig rig;
    open_two(&rig, true);
    struct gw_vfio *list[] = {rig.src.vfio, rig.dst.vfio};
    GW_EXPECT_EQ(gw_vfio_check_all(list, 2, &rig.err), 0);
    GW_EXPECT_EQ(gw_vfio_save_setup(rig.src.vfio, &rig.w, &rig.err), 0);
    vendor_run(rig.src.vendor, 10);
    vendor_run(rig.dst.vendor, 10);
    GW_EXPECT_EQ(gw_vfio_stop_all(list, 2, &rig.err), 0);
    GW_EXPECT_EQ(vendor_state(rig.src.vendor), GW_ODEV_STOP_COPY);
    GW_EXPECT_EQ(vendor_state(rig.dst.vendor), GW_ODEV_STOP);
    gw_vfio_save_cleanup(rig.src.vfio);
    GW_EXPECT_EQ(vendor_state(rig.src.vendor), GW_ODEV_STOP);
    GW_EXPECT_EQ(gw_vfio_start_all(list, 2, &rig.err), 0);
    vendor_run(rig.src.vendor, 10);
    vendor_run(rig.dst.vendor, 10);
    GW_EXPECT_EQ(vendor_state(rig.src.vendor), GW_ODEV_RUNNING);
    rig_expect_clean(&rig);
    rig_close(&rig);
}

/* What the device's checks are worth: without the first phase they find it. */
GW_TEST(vfio_state, the_device_notices_who_stops_one_while_the_other_may_write)
{
    struct rig rig;
    open_two(&rig, true);
    struct gw_vfio *list[] = {rig.src.vfio};
    GW_EXPECT_EQ(gw_vfio_stop_all(list, 1, &rig.err), 0);
    GW_EXPECT(vendor_violation(rig.src.vendor) != NULL);
    rig_close(&rig);
}

GW_TEST(vfio_state, several_that_cannot_be_quieted_are_refused)
{
    struct rig rig;
    open_two(&rig, false);
    struct gw_vfio *list[] = {rig.src.vfio, rig.dst.vfio};
    GW_EXPECT_EQ(gw_vfio_check_all(list, 1, &rig.err), 0);
    GW_EXPECT_EQ(gw_vfio_check_all(list, 2, &rig.err), -EOPNOTSUPP);
    GW_EXPECT_STREQ(rig.err.message, "device '0000:00:04.0/vfio': it cannot be quiesced, and 2 "
                                     "devices stop one after the other");
    GW_EXPECT(rig.err.hint[0] != '\0');
    rig_close(&rig);
}

GW_TEST(vfio_state, if_one_cannot_stop_all_run_again)
{
    struct rig rig;
    open_two(&rig, true);
    struct gw_vfio *list[] = {rig.src.vfio, rig.dst.vfio};
    vendor_break(rig.dst.vendor, VENDOR_STATE_REFUSED, 2, 1);
    GW_EXPECT_EQ(gw_vfio_stop_all(list, 2, &rig.err), -EBUSY);
    GW_EXPECT(strstr(rig.err.message, "device '0000:00:05.0/vfio'") != NULL);
    GW_EXPECT_EQ(vendor_state(rig.src.vendor), GW_ODEV_RUNNING);
    GW_EXPECT_EQ(vendor_state(rig.dst.vendor), GW_ODEV_RUNNING);
    rig_expect_clean(&rig);
    rig_close(&rig);
}

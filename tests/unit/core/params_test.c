// SPDX-License-Identifier: MIT
/* Parameters: the table's own promises, and what a value may be. */
#include "core/base/error.h"
#include "core/params.h"
#include "tests/shim/gw_test.h"

#include <string.h>

static struct gw_error err;

static int set(struct gw_params *params, const char *name, const char *value)
{
    err = (struct gw_error)GW_ERROR_INIT;
    return gw_params_set(params, name, value, &err);
}

static uint64_t get(const struct gw_params *params, const char *name)
{
    uint64_t value = 0;
    GW_EXPECT_EQ(gw_params_get(params, name, &value), 0);
    return value;
}

GW_TEST(params, every_default_text_is_the_default)
{
    struct gw_params defaults;
    struct gw_param_info info = {.struct_bytes = sizeof(info)};
    gw_params_defaults(&defaults);
    unsigned count = 0;
    for (; gw_param_list(count, &info); count++) {
        struct gw_params params;
        memset(&params, 0xee, sizeof(params));
        if (set(&params, info.name, info.default_value) < 0)
            GW_NOTE_FAILURE("%s: '%s': %s", info.name, info.default_value, err.message);
        GW_EXPECT_EQ(get(&params, info.name), get(&defaults, info.name));
        GW_EXPECT_GT(strlen(info.help), 10);
    }
    GW_EXPECT_EQ(count, sizeof(struct gw_params) / sizeof(uint64_t));
}

GW_TEST(params, no_two_have_the_same_name)
{
    struct gw_param_info a = {.struct_bytes = sizeof(a)};
    struct gw_param_info b = {.struct_bytes = sizeof(b)};
    for (unsigned i = 0; gw_param_list(i, &a); i++) {
        for (unsigned j = 0; j < i && gw_param_list(j, &b); j++)
            GW_EXPECT(strcmp(a.name, b.name) != 0);
    }
}

GW_TEST(params, list_fills_no_more_than_the_caller_has)
{
    struct gw_param_info info;
    memset(&info, 0x55, sizeof(info));
    info.struct_bytes = offsetof(struct gw_param_info, help);
    GW_EXPECT(gw_param_list(0, &info));
    GW_EXPECT_STREQ(info.name, "max-bandwidth");
    uintptr_t untouched;
    memset(&untouched, 0x55, sizeof(untouched));
    GW_EXPECT_EQ((uintptr_t)info.help, untouched);
}

GW_TEST(params, what_cannot_be_taken_leaves_the_value_as_it_was)
{
    static const struct {
        const char *name, *value;
    } bad[] = {
        {"downtime-limit", "2000001"},
        {"downtime-limit", "-1"},
        {"downtime-limit", "5 "},
        {"downtime-limit", ""},
        {"downtime-limit", "1e3"},
        {"multifd-channels", "0"},
        {"multifd-channels", "256"},
        {"digest", "maybe"},
        {"x-stall-action", "hope"},
        {"x-stripe-size", "3M"},
        {"x-stripe-size", "1M"},
        {"x-stripe-size", "2T"},
        {"max-bandwidth", "16777216T"},
        {"max-bandwidth", "0x10"},
        {"max-bandwidth", "inf"},
        {"max-bandwidth", "1.2.3M"},
        {"x-section-max", "10Gbit"},
        {"x-peer-timeout", "99"},
        {"multifd-channels", "99999999999999999999"},
    };
    struct gw_params params;
    gw_params_defaults(&params);
    struct gw_params before = params;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (set(&params, bad[i].name, bad[i].value) != -EINVAL)
            GW_NOTE_FAILURE("%s=%s was taken", bad[i].name, bad[i].value);
        GW_EXPECT(strstr(err.message, bad[i].name) != NULL);
    }
    GW_EXPECT_MEMEQ(&params, &before, sizeof(params));
}

GW_TEST(params, values_in_their_units)
{
    struct gw_params params;
    gw_params_defaults(&params);
    GW_EXPECT_EQ(set(&params, "max-bandwidth", "10Gbit"), 0);
    GW_EXPECT_EQ(get(&params, "max-bandwidth"), UINT64_C(1250000000));
    GW_EXPECT_EQ(set(&params, "max-bandwidth", "1.5GiB/s"), 0);
    GW_EXPECT_EQ(get(&params, "max-bandwidth"), UINT64_C(3) << 29);
    GW_EXPECT_EQ(set(&params, "max-bandwidth", "9007199254740993"), 0);
    GW_EXPECT_EQ(get(&params, "max-bandwidth"), (UINT64_C(1) << 53) + 1);
    GW_EXPECT_EQ(set(&params, "x-stripe-size", "4M"), 0);
    GW_EXPECT_EQ(get(&params, "x-stripe-size"), 4u << 20);
    GW_EXPECT_EQ(set(&params, "digest", "yes"), 0);
    GW_EXPECT_EQ(get(&params, "digest"), 1);
    GW_EXPECT_EQ(set(&params, "x-stall-action", "switch"), 0);
    GW_EXPECT_EQ(get(&params, "x-stall-action"), GW_STALL_SWITCH);
}

GW_TEST(params, live_ones_change_while_a_migration_runs_and_no_others)
{
    struct gw_params params;
    struct gw_param_info info = {.struct_bytes = sizeof(info)};
    gw_params_defaults(&params);
    for (unsigned i = 0; gw_param_list(i, &info); i++) {
        err = (struct gw_error)GW_ERROR_INIT;
        int rc = gw_params_change(&params, info.name, info.default_value, true, &err);
        GW_EXPECT_EQ(rc, info.live ? 0 : -EBUSY);
    }
}

GW_TEST(params, misspelt_name_gets_a_suggestion)
{
    struct gw_params params;
    gw_params_defaults(&params);
    GW_EXPECT_EQ(set(&params, "downtime-limt", "1"), -EINVAL);
    GW_EXPECT_STREQ(err.hint, "did you mean 'downtime-limit'?");
    GW_EXPECT_EQ(set(&params, "zzzzzzzz", "1"), -EINVAL);
    GW_EXPECT(strstr(err.hint, "did you mean") == NULL);
    GW_EXPECT_EQ(set(&params, "xbzrle", "on"), -EINVAL);
    GW_EXPECT(strstr(err.message, "not offered by this version") != NULL);
    uint64_t value;
    GW_EXPECT_EQ(gw_params_get(&params, "xbzrle", &value), -ENOENT);
}

GW_TEST(params, rdma_device_is_a_name_that_stays_what_it_was)
{
    struct gw_params *a = gw_params_new(), *b = gw_params_new();
    GW_EXPECT_STREQ(gw_params_device(a->rdma_device), "");
    GW_EXPECT_EQ(gw_params_set(a, "rdma-device", "rxe0", &err), 0);
    GW_EXPECT_EQ(gw_params_set(b, "rdma-device", "mlx5_0", &err), 0);
    GW_EXPECT_STREQ(gw_params_device(a->rdma_device), "rxe0");
    GW_EXPECT_STREQ(gw_params_device(b->rdma_device), "mlx5_0");
    GW_EXPECT_EQ(gw_params_set(b, "rdma-device", "rxe0", &err), 0);
    GW_EXPECT_EQ(a->rdma_device, b->rdma_device);
    GW_EXPECT_EQ(gw_params_set(b, "rdma-device", "any", &err), 0);
    GW_EXPECT_STREQ(gw_params_device(b->rdma_device), "");
    GW_EXPECT_EQ(gw_params_set(b, "rdma-device", "", &err), -EINVAL);
    GW_EXPECT_STREQ(gw_params_device(UINT64_MAX), "");
    gw_params_free(a);
    gw_params_free(b);
}

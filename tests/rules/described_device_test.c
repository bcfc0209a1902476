// SPDX-License-Identifier: MIT
/* Devices that are tables (godwit/vmstate.h), moved with a guest from one side to the other. */
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"

#include <errno.h>
#include <godwit/vmstate.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define SECONDS 60u

struct nic {
    uint64_t packets;
    uint32_t count, drops;
    uint16_t *ring;
    bool offloads, has_offload;
};

static const struct gw_vmstate vmstate_offload = {
    GW_VMSTATE_OF(struct nic),
    .name = "nic/offload",
    .version_id = 1,
    GW_VMSTATE_PROPERTY("x-offload", struct nic, has_offload),
    GW_VMSTATE_FIELDS(GW_VMSTATE_BOOL(offloads, struct nic)),
};
#define NIC_FIELDS                                                                                 \
    GW_VMSTATE_UINT64(packets, struct nic), GW_VMSTATE_UINT32(count, struct nic),                  \
        GW_VMSTATE_VARRAY_ALLOC(UINT16, ring, struct nic, count, 1024)
static const struct gw_vmstate vmstate_nic = {
    GW_VMSTATE_OF(struct nic),
    .name = "nic",
    .version_id = 1,
    GW_VMSTATE_FIELDS(NIC_FIELDS),
    GW_VMSTATE_SUBSECTIONS(&vmstate_offload),
};
static const struct gw_vmstate vmstate_nic_older = {
    GW_VMSTATE_OF(struct nic),
    .name = "nic",
    .version_id = 1,
    GW_VMSTATE_FIELDS(NIC_FIELDS),
};

/* Of a version that counts drops, and of one that counts no packets any more. */
static const struct gw_vmstate vmstate_nic_newer = {
    GW_VMSTATE_OF(struct nic),
    .name = "nic",
    .version_id = 2,
    .minimum_version_id = 1,
    GW_VMSTATE_FIELDS(NIC_FIELDS, GW_VMSTATE_UINT32_V(drops, struct nic, 2)),
};
static const struct gw_vmstate vmstate_nic_fewer = {
    GW_VMSTATE_OF(struct nic),
    .name = "nic",
    .version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UNUSED(struct nic, 8), GW_VMSTATE_UINT32(count, struct nic),
                      GW_VMSTATE_VARRAY_ALLOC(UINT16, ring, struct nic, count, 1024)),
};

struct scene {
    struct pair pair;
    struct gw_params *params;
    struct nic here, there;
    struct gw_vmstate_device source, target;
};

/* A guest with one more device, which at the source is what @here describes, at the target @there. */
static void begin(struct scene *scene, const struct gw_vmstate *here,
                  const struct gw_vmstate *there)
{
    struct pair *pair = &scene->pair;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_device_desc desc;
    scene->here =
        (struct nic){.packets = 77, .count = 3, .drops = 12, .offloads = true, .has_offload = true};
    scene->there = (struct nic){.packets = 5, .drops = 6};
    scene->here.ring = gw_vmstate_alloc(3, sizeof(uint16_t));
    scene->here.ring[2] = 0x1234;
    scene->source = (struct gw_vmstate_device){sizeof(scene->source), here, &scene->here,
                                               "0000:00:03.0/nic",    0,    "pc"};
    scene->target = scene->source;
    scene->target.vmsd = there;
    scene->target.opaque = &scene->there;
    /* A target that voided goes on answering for that long. */
    scene->params = pair_params();
    GW_EXPECT_EQ(gw_params_set(scene->params, "x-settle-timeout", "300", NULL), 0);
    GW_EXPECT_EQ(gw_params_set(scene->params, "x-hold-timeout", "300", NULL), 0);
    pair->params = pair->target_params = scene->params;
    pair_add_block(pair, "ram0", 2 * MIB, GW_BLOCK_ANON, 50);
    pair_init(pair);
    GW_ASSERT_EQ(gw_vmstate_device_desc(&scene->source, &desc, &err), 0);
    GW_ASSERT_EQ(gw_source_add_device(pair->src, &desc, &err), 0);
    GW_ASSERT_EQ(gw_vmstate_device_desc(&scene->target, &desc, &err), 0);
    GW_ASSERT_EQ(gw_target_add_device(pair->tgt, &desc, &err), 0);
}

static void move(struct scene *scene)
{
    pair_listen(&scene->pair);
    pair_start(&scene->pair);
    GW_EXPECT(pair_finish(&scene->pair, SECONDS));
}

static void end(struct scene *scene)
{
    pair_fini(&scene->pair);
    gw_params_free(scene->params);
    gw_vmstate_clear(&vmstate_nic, &scene->here);
    gw_vmstate_clear(&vmstate_nic, &scene->there);
}

GW_TEST(described_device, moves_with_the_guest)
{
    static struct scene scene = {.pair = {.device_value = 1}};
    begin(&scene, &vmstate_nic, &vmstate_nic);
    move(&scene);
    GW_EXPECT_EQ(scene.pair.source_rc, 0);
    GW_EXPECT_EQ(scene.pair.target_rc, 0);
    GW_EXPECT_EQ(scene.there.packets, 77);
    GW_ASSERT(scene.there.ring != NULL);
    GW_EXPECT_EQ(scene.there.ring[2], 0x1234);
    GW_EXPECT(scene.there.offloads);
    end(&scene);
}

GW_TEST(described_device, that_an_older_target_does_not_know_all_of_stays_until_a_property_is_off)
{
    static struct scene scene = {.pair = {.device_value = 1}};
    begin(&scene, &vmstate_nic, &vmstate_nic_older);
    move(&scene);
    GW_EXPECT_EQ(scene.pair.target_rc, -ENOENT);
    GW_EXPECT_STREQ(scene.pair.target_err.message,
                    "device '0000:00:03.0/nic' instance 0: machine 'pc': section 'nic' at offset "
                    "18: subsection 'nic/offload' is not known here");
    GW_EXPECT_EQ(scene.pair.target_err.code, GW_CODE_DEVICE);
    GW_EXPECT(scene.pair.source_rc < 0);
    GW_EXPECT_STREQ(scene.pair.source_err.peer, scene.pair.target_err.message);
    GW_EXPECT(strstr(scene.pair.target_err.hint, "switch it off there by its property"));
    GW_EXPECT(scene.pair.source_runs && !scene.pair.target_runs);
    GW_EXPECT(scene.there.packets == 5 && scene.there.ring == NULL && scene.there.count == 0);
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_vmstate_property_set(&vmstate_nic, &scene.here, "x-offload", false, &err), 0);
    move(&scene);
    GW_EXPECT_EQ(scene.pair.source_rc, 0);
    GW_EXPECT_EQ(scene.there.packets, 77);
    end(&scene);
}

/* n is `older`. What a target of the other version has afterwards, by what each knows; the way back from a
 * subsection that is not known is the test above. */
static const struct version_case {
    const char *name;
    const struct gw_vmstate *from, *to;
    const char *refusal;
    uint64_t packets;
    uint32_t drops;
    bool offloads;
} version_cases[] = {
    {"n_to_a_subsection_more", &vmstate_nic_older, &vmstate_nic, NULL, 77, 6, false},
    {"a_subsection_to_the_same", &vmstate_nic, &vmstate_nic, NULL, 77, 6, true},
    {"n_to_a_field_more", &vmstate_nic_older, &vmstate_nic_newer, NULL, 77, 6, false},
    {"a_field_more_to_n", &vmstate_nic_newer, &vmstate_nic_older,
     "version 2 arrived, versions 0 to 1 are taken", 5, 6, false},
    {"a_field_to_the_same", &vmstate_nic_newer, &vmstate_nic_newer, NULL, 77, 12, false},
    {"n_to_a_field_less", &vmstate_nic_older, &vmstate_nic_fewer, NULL, 5, 6, false},
    {"a_field_less_to_n", &vmstate_nic_fewer, &vmstate_nic_older, NULL, 0, 6, false},
};

static const char *const *version_names(void)
{
    static const char *names[sizeof(version_cases) / sizeof(version_cases[0]) + 1];
    for (size_t i = 0; i + 1 < sizeof(names) / sizeof(names[0]); i++)
        names[i] = version_cases[i].name;
    return names;
}

GW_TEST_EACH(described_device, moves_between_version_n_and_n_plus_1_or_stays, version_names)
{
    static struct scene scene;
    memset(&scene, 0, sizeof(scene));
    scene.pair.device_value = 1;
    const struct version_case *c = version_cases;
    while (strcmp(c->name, param) != 0)
        c++;
    begin(&scene, c->from, c->to);
    move(&scene);
    GW_EXPECT_EQ(scene.pair.source_rc == 0, c->refusal == NULL);
    if (c->refusal && !GW_EXPECT(strstr(scene.pair.target_err.message, c->refusal) != NULL))
        gw_test_note(__FILE__, __LINE__, "%s", scene.pair.target_err.message);
    GW_EXPECT_EQ(scene.pair.source_runs, c->refusal != NULL);
    GW_EXPECT_EQ(scene.pair.target_runs, c->refusal == NULL);
    GW_EXPECT_EQ(scene.there.packets, c->packets);
    GW_EXPECT_EQ(scene.there.drops, c->drops);
    GW_EXPECT_EQ(scene.there.offloads, c->offloads);
    GW_EXPECT_EQ(scene.there.ring != NULL, c->refusal == NULL);
    if (scene.there.ring)
        GW_EXPECT_EQ(scene.there.ring[2], 0x1234);
    end(&scene);
}

static const struct gw_vmstate vmstate_nic_by_property = {
    GW_VMSTATE_OF(struct nic),
    .name = "nic",
    .version_id = 1,
    GW_VMSTATE_PROPERTY("x-nic", struct nic, has_offload),
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT64(packets, struct nic)),
};

/* One device is all its description says; the property of that is on, or off. */
static void move_by_property(bool on, uint64_t packets)
{
    struct pair pair = {.device_value = 1};
    struct nic here = {.packets = 77, .has_offload = on};
    struct nic there = {.packets = 5, .has_offload = true};
    struct gw_vmstate_device dev[2] = {
        {sizeof(dev[0]), &vmstate_nic_by_property, &here, NULL, 0, NULL},
        {sizeof(dev[0]), &vmstate_nic_by_property, &there, NULL, 0, NULL}};
    struct gw_device_desc desc;
    struct gw_error err = GW_ERROR_INIT;
    pair_add_block(&pair, "ram0", MIB, GW_BLOCK_ANON, 0);
    pair_init(&pair);
    GW_ASSERT_EQ(gw_vmstate_device_desc(&dev[0], &desc, &err), 0);
    GW_ASSERT_EQ(gw_source_add_device(pair.src, &desc, &err), 0);
    GW_ASSERT_EQ(gw_vmstate_device_desc(&dev[1], &desc, &err), 0);
    GW_ASSERT_EQ(gw_target_add_device(pair.tgt, &desc, &err), 0);
    pair_listen(&pair);
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    GW_EXPECT_EQ(pair.source_rc, 0);
    GW_EXPECT_EQ(there.packets, packets);
    pair_fini(&pair);
}

GW_TEST(described_device, that_is_not_needed_has_no_section)
{
    move_by_property(true, 77);
    move_by_property(false, 5);
}

// SPDX-License-Identifier: MIT
/* State that is loaded before any memory arrives, and devices that are loaded before others. */
#include "tests/rules/store.h"

#include <errno.h>
#include <godwit/vmstate.h>

/* ---- early, and in order ------------------------------------------------------------------------ */

struct map { /* says where memory is: to be loaded before any comes */
    struct pair *pair;
    uint32_t plugged;
    bool early_enough;
};

static int map_post_load(void *opaque, uint32_t version_id, struct gw_error *err)
{
    struct map *map = opaque;
    (void)version_id, (void)err;
    const struct pair_block *block = &map->pair->blocks[0];
    map->early_enough = block->target != NULL;
    for (uint64_t i = 0; map->early_enough && i < block->bytes; i++)
        map->early_enough = block->target[i] == 0;
    return 0;
}

static const struct gw_vmstate vmstate_map = {
    GW_VMSTATE_OF(struct map),
    .name = "map",
    .version_id = 1,
    .early_setup = true,
    .priority = GW_VMSTATE_PRIORITY_VIRTIO_MEM,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(plugged, struct map)),
    .post_load = map_post_load,
};

static void move_early(const char *uri)
{
    struct pair pair = {.device_value = 1, .listen_uri = uri};
    struct map here = {.pair = &pair, .plugged = 5};
    struct map there = {.pair = &pair};
    struct gw_vmstate_device dev[] = {{sizeof(dev[0]), &vmstate_map, &here, NULL, 0, NULL},
                                      {sizeof(dev[0]), &vmstate_map, &there, NULL, 0, NULL}};
    struct gw_device_desc desc;
    struct gw_error err = GW_ERROR_INIT;
    pair_add_block(&pair, "ram0", 8 * MIB, GW_BLOCK_ANON, 100);
    pair_init(&pair);
    GW_EXPECT_EQ(gw_vmstate_device_desc(&dev[0], &desc, &err), 0);
    GW_EXPECT_EQ(gw_source_add_device(pair.src, &desc, &err), 0);
    GW_EXPECT_EQ(gw_vmstate_device_desc(&dev[1], &desc, &err), 0);
    GW_EXPECT_EQ(gw_target_add_device(pair.tgt, &desc, &err), 0);
    pair_listen(&pair);
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    GW_EXPECT_EQ(pair.source_rc, 0);
    GW_EXPECT_EQ(there.plugged, 5);
    GW_EXPECT(there.early_enough);
    GW_EXPECT_EQ(pair_differs(&pair), -1);
    pair_fini(&pair);
}

GW_TEST(handlers, early_state_is_loaded_before_any_memory_arrives)
{
    move_early(NULL);
}

GW_TEST(handlers, early_state_is_loaded_before_any_memory_arrives_one_sided)
{
    move_early("loop1:early");
}

struct chip { /* an interrupt controller, or what raises interrupts */
    uint32_t lines;
    struct chip *controller; /* of a card */
    bool loaded, raised_in_time;
};

static int card_post_load(void *opaque, uint32_t version_id, struct gw_error *err)
{
    struct chip *card = opaque;
    (void)version_id, (void)err;
    card->raised_in_time = card->controller->loaded; /* else the line would be lost */
    card->controller->lines |= card->lines;
    return 0;
}

static int controller_post_load(void *opaque, uint32_t version_id, struct gw_error *err)
{
    struct chip *chip = opaque;
    (void)version_id, (void)err;
    chip->loaded = true;
    return 0;
}

static const struct gw_vmstate vmstate_card = {
    GW_VMSTATE_OF(struct chip),
    .name = "card",
    .version_id = 1,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(lines, struct chip)),
    .post_load = card_post_load,
};

static const struct gw_vmstate vmstate_controller = {
    GW_VMSTATE_OF(struct chip),
    .name = "controller",
    .version_id = 1,
    .priority = GW_VMSTATE_PRIORITY_APIC,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT32(lines, struct chip)),
    .post_load = controller_post_load,
};

GW_TEST(handlers, interrupt_controller_is_loaded_before_what_raises_interrupts)
{
    struct pair pair = {.device_value = 1};
    struct chip here[2] = {{.lines = 2}, {.lines = 1}}; /* the card is added first */
    struct chip there[2] = {{.controller = &there[1]}, {0}};
    static const struct gw_vmstate *const vmsd[] = {&vmstate_card, &vmstate_controller};
    struct gw_vmstate_device dev[2][2];
    struct gw_error err = GW_ERROR_INIT;
    pair_add_block(&pair, "ram0", MIB, GW_BLOCK_ANON, 0);
    pair_init(&pair);
    for (unsigned i = 0; i < 2; i++) {
        struct gw_device_desc desc;
        dev[0][i] = (struct gw_vmstate_device){sizeof(dev[0][i]), vmsd[i], &here[i], NULL, 0, NULL};
        dev[1][i] =
            (struct gw_vmstate_device){sizeof(dev[1][i]), vmsd[i], &there[i], NULL, 0, NULL};
        GW_EXPECT_EQ(gw_vmstate_device_desc(&dev[0][i], &desc, &err), 0);
        GW_EXPECT_EQ(gw_source_add_device(pair.src, &desc, &err), 0);
        GW_EXPECT_EQ(gw_vmstate_device_desc(&dev[1][i], &desc, &err), 0);
        GW_EXPECT_EQ(gw_target_add_device(pair.tgt, &desc, &err), 0);
    }
    pair_listen(&pair);
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    GW_EXPECT_EQ(pair.source_rc, 0);
    GW_EXPECT(there[0].raised_in_time);
    GW_EXPECT_EQ(there[1].lines, 3);
    pair_fini(&pair);
}

// SPDX-License-Identifier: MIT
/* Lists of blocks and sections (inventory.h), and the documents that they are read from. A document is known
 * by a member at its top: "schema" (`godwit analyze --json`), "devices" (a stream's description) or
 * "vmschkmachine" (a dump of all descriptions). It is walked as text; jansson sees a member or an element. */
#include "control/inventory.h"

#include "control/json_text.h"
#include "core/base/alloc.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* ---- lists ------------------------------------------------------------------------------------- */

void gw_inventory_fini(struct gw_inventory *inventory)
{
    for (unsigned i = 0; i < inventory->block_count; i++)
        gw_free(inventory->blocks[i].name);
    for (unsigned i = 0; i < inventory->section_count; i++)
        gw_free(inventory->sections[i].idstr);
    gw_free(inventory->blocks);
    gw_free(inventory->sections);
    gw_free(inventory->order);
    gw_description_free(inventory->description);
    *inventory = (struct gw_inventory){0};
}

int gw_inventory_add_block(struct gw_inventory *inventory, const char *name, uint64_t bytes,
                           struct gw_error *err)
{
    if (inventory->block_count == GW_INVENTORY_BLOCKS_MAX)
        return gw_fail(err, -E2BIG, "more than %u blocks", GW_INVENTORY_BLOCKS_MAX);
    if (inventory->block_count == inventory->block_room) {
        unsigned room = inventory->block_room ? 2 * inventory->block_room : 16;
        struct gw_inventory_block *blocks = gw_realloc(inventory->blocks, room, sizeof(*blocks));
        if (!blocks)
            return gw_fail(err, -ENOMEM, "list of blocks");
        inventory->blocks = blocks;
        inventory->block_room = room;
    }
    char *copy = gw_strdup(name);
    if (!copy)
        return gw_fail(err, -ENOMEM, "list of blocks");
    inventory->blocks[inventory->block_count++] =
        (struct gw_inventory_block){.name = copy, .bytes = bytes};
    return 0;
}

int gw_inventory_add_section(struct gw_inventory *inventory, const char *idstr,
                             const struct gw_inventory_section *section, struct gw_error *err)
{
    if (inventory->section_count == GW_INVENTORY_SECTIONS_MAX)
        return gw_fail(err, -E2BIG, "more than %u sections", GW_INVENTORY_SECTIONS_MAX);
    if (inventory->section_count == inventory->section_room) {
        unsigned room = inventory->section_room ? 2 * inventory->section_room : 64;
        struct gw_inventory_section *list = gw_realloc(inventory->sections, room, sizeof(*list));
        if (!list)
            return gw_fail(err, -ENOMEM, "list of sections");
        inventory->sections = list;
        inventory->section_room = room;
    }
    struct gw_inventory_section copy = *section;
    copy.idstr = gw_strdup(idstr);
    if (!copy.idstr)
        return gw_fail(err, -ENOMEM, "list of sections");
    inventory->sections[inventory->section_count++] = copy;
    return 0;
}

static int order_of(const char *a, uint32_t a_instance, const char *b, uint32_t b_instance)
{
    int order = strcmp(a, b);
    return order != 0 ? order : a_instance < b_instance ? -1 : a_instance > b_instance;
}

static int by_name(const void *a, const void *b, void *ctx)
{
    const struct gw_inventory *in = ctx;
    unsigned i = *(const unsigned *)a, j = *(const unsigned *)b;
    const struct gw_inventory_section *x = &in->sections[i], *y = &in->sections[j];
    int order = order_of(x->idstr, x->instance_id, y->idstr, y->instance_id);
    return order != 0 ? order : i < j ? -1 : i > j;
}

int gw_inventory_seal(struct gw_inventory *inventory, struct gw_error *err)
{
    inventory->order = gw_zalloc(inventory->section_count + 1, sizeof(*inventory->order));
    if (!inventory->order)
        return gw_fail(err, -ENOMEM, "list of sections");
    for (unsigned i = 0; i < inventory->section_count; i++)
        inventory->order[i] = i;
    qsort_r(inventory->order, inventory->section_count, sizeof(*inventory->order), by_name,
            inventory);
    return 0;
}

int gw_inventory_find(const struct gw_inventory *inventory, const char *idstr, uint32_t instance_id)
{
    unsigned low = 0, high = inventory->section_count;
    while (low < high) { /* the first that is not below */
        unsigned middle = low + (high - low) / 2;
        const struct gw_inventory_section *s = &inventory->sections[inventory->order[middle]];
        if (order_of(s->idstr, s->instance_id, idstr, instance_id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == inventory->section_count)
        return -ENOENT;
    const struct gw_inventory_section *s = &inventory->sections[inventory->order[low]];
    return order_of(s->idstr, s->instance_id, idstr, instance_id) == 0 ? (int)inventory->order[low]
                                                                       : -ENOENT;
}

/* ---- documents ---------------------------------------------------------------------------------- */

/* Where the values of the members that matter begin; bytes 0: not there. */
struct members {
    struct gw_json_text schema, devices, vmschkmachine, machine, page_bytes, footers, blocks,
        sections, description;
};

static int refuse(const struct gw_json_text *text, struct gw_error *err)
{
    return gw_fail(err, -EPROTO, "malformed JSON at offset %zu", text->at);
}

static int take_members(struct gw_json_text *text, struct members *to, struct gw_error *err)
{
    const struct {
        const char *key;
        struct gw_json_text *value;
    } known[] = {{"schema", &to->schema},
                 {"devices", &to->devices},
                 {"vmschkmachine", &to->vmschkmachine},
                 {"machine", &to->machine},
                 {"page-bytes", &to->page_bytes},
                 {"footers", &to->footers},
                 {"blocks", &to->blocks},
                 {"sections", &to->sections},
                 {"description", &to->description}};
    if (!gw_json_take_char(text, '{'))
        return refuse(text, err);
    do {
        gw_json_skip_space(text);
        size_t key = text->at;
        struct gw_json_text *value = NULL;
        if (!gw_json_skip_string(text))
            return refuse(text, err);
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
            if (gw_json_is_key(text, key, known[i].key))
                value = known[i].value;
        }
        if (!gw_json_take_char(text, ':'))
            return refuse(text, err);
        gw_json_skip_space(text);
        size_t begin = text->at;
        if (!gw_json_skip_value(text))
            return refuse(text, err);
        if (value)
            *value = (struct gw_json_text){.data = text->data + begin, .bytes = text->at - begin};
    } while (gw_json_take_char(text, ','));
    return gw_json_take_char(text, '}') ? 0 : refuse(text, err);
}

static json_t *parse(const struct gw_json_text *text)
{
    return text->bytes > 0 ? json_loadb(text->data, text->bytes, JSON_DECODE_ANY, NULL) : NULL;
}

typedef int element_fn(struct gw_inventory *inventory, json_t *element, struct gw_error *err);

static int take_element(struct gw_inventory *inventory, struct gw_json_text *list,
                        element_fn *element, struct gw_error *err)
{
    gw_json_skip_space(list);
    struct gw_json_text text = {.data = list->data + list->at};
    if (!gw_json_skip_value(list))
        return refuse(list, err);
    text.bytes = (size_t)(list->data + list->at - text.data);
    json_t *object = parse(&text);
    int rc = object ? element(inventory, object, err) : refuse(list, err);
    json_decref(object);
    return rc;
}

static int take_list(struct gw_inventory *inventory, struct gw_json_text *list, element_fn *element,
                     struct gw_error *err)
{
    if (list->bytes == 0)
        return 0;
    if (!gw_json_take_char(list, '['))
        return refuse(list, err);
    if (gw_json_take_char(list, ']'))
        return 0;
    do {
        int rc = take_element(inventory, list, element, err);
        if (rc < 0)
            return rc;
    } while (gw_json_take_char(list, ','));
    return 0;
}

static int take_block(struct gw_inventory *inventory, json_t *element, struct gw_error *err)
{
    const char *name = json_string_value(json_object_get(element, "name"));
    json_t *bytes = json_object_get(element, "bytes");
    if (!name || !json_is_integer(bytes))
        return gw_fail(err, -EPROTO, "block %u is malformed", inventory->block_count);
    return gw_inventory_add_block(inventory, name, (uint64_t)json_integer_value(bytes), err);
}

static int take_section(struct gw_inventory *inventory, json_t *element, struct gw_error *err)
{
    const char *name = json_string_value(json_object_get(element, "name"));
    json_t *instance = json_object_get(element, "instance");
    json_t *version = json_object_get(element, "version");
    if (!name || !json_is_integer(instance) || !json_is_integer(version))
        return gw_fail(err, -EPROTO, "section %u is malformed", inventory->section_count);
    struct gw_inventory_section section = {.instance_id = (uint32_t)json_integer_value(instance),
                                           .version_id = (uint32_t)json_integer_value(version),
                                           .has_version = true,
                                           .is_iterative =
                                               json_is_true(json_object_get(element, "iterative"))};
    return gw_inventory_add_section(inventory, name, &section, err);
}

/* A side that is no more than its description has its devices as sections. */
static int add_described(struct gw_inventory *inventory, struct gw_error *err)
{
    const struct gw_described_device *device;
    for (unsigned i = 0; (device = gw_description_device(inventory->description, i)); i++) {
        struct gw_inventory_section section = {.instance_id = device->instance_id,
                                               .version_id = device->version_id,
                                               .has_version = device->has_version};
        int rc = gw_inventory_add_section(inventory, device->idstr, &section, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_description(struct gw_inventory *inventory, const struct gw_json_text *text,
                            struct gw_error *err)
{
    size_t fault_at = 0;
    int rc = gw_description_new(text->data, text->bytes, &inventory->description, &fault_at, err);
    if (rc == 0)
        inventory->page_bytes = gw_description_page_bytes(inventory->description);
    return rc;
}

static int read_analysis(struct gw_inventory *inventory, struct members *members,
                         struct gw_error *err)
{
    json_t *machine = parse(&members->machine), *page = parse(&members->page_bytes);
    json_t *schema = parse(&members->schema);
    const char *text = json_string_value(machine), *name = json_string_value(schema);
    bool is_ours = name && strcmp(name, "godwit.analyze/1") == 0;
    if (text && strlen(text) < sizeof(inventory->machine))
        memcpy(inventory->machine, text, strlen(text) + 1);
    int rc = is_ours ? 0
                     : gw_fail(err, -EPROTO,
                               "a document of schema '%.40s', expected "
                               "'godwit.analyze/1'",
                               name ? name : "");
    inventory->source = GW_COMPAT_ANALYSIS;
    inventory->is_whole = members->footers.bytes > 0;
    inventory->has_footers = members->footers.bytes > 0 && members->footers.data[0] == 't';
    inventory->has_configuration = text != NULL;
    if (rc == 0)
        rc = take_list(inventory, &members->blocks, take_block, err);
    if (rc == 0)
        rc = take_list(inventory, &members->sections, take_section, err);
    if (rc == 0 && members->description.bytes > 0 && members->description.data[0] == '{')
        rc = read_description(inventory, &members->description, err);
    if (json_is_integer(page))
        inventory->page_bytes = (uint64_t)json_integer_value(page);
    json_decref(machine);
    json_decref(page);
    json_decref(schema);
    return rc;
}

int gw_inventory_read(struct gw_inventory *inventory, const char *text, size_t bytes,
                      struct gw_error *err)
{
    struct gw_json_text whole = {.data = text, .bytes = bytes};
    struct members members = {0};
    size_t fault_at = 0;
    int rc = take_members(&whole, &members, err);
    if (rc < 0)
        return rc;
    if (members.schema.bytes > 0)
        return read_analysis(inventory, &members, err);
    if (members.devices.bytes > 0 && members.devices.data[0] == '[') {
        inventory->source = GW_COMPAT_DESCRIPTION;
        rc = read_description(inventory, &(struct gw_json_text){.data = text, .bytes = bytes}, err);
    } else if (members.vmschkmachine.bytes > 0) {
        inventory->source = GW_COMPAT_STATIC;
        rc = gw_description_new_static(text, bytes, inventory->machine, &inventory->description,
                                       &fault_at, err);
    } else {
        return gw_fail(err, -EPROTO, "a JSON document that describes no devices");
    }
    return rc < 0 ? rc : add_described(inventory, err);
}

// SPDX-License-Identifier: MIT
/* The description's outer shape: an object with the page size and the array of devices. Only where each
 * device's object begins and ends is kept; jansson reads one device at a time, so that memory follows the
 * largest device and not the text. Its fields are walked in stream_fields.c. */
#include "control/stream_describe_impl.h"

#include "control/json_text.h"
#include "core/base/alloc.h"
#include "core/base/hash.h"

#include <jansson.h>
#include <string.h>

static int refuse(const struct gw_json_text *text, size_t *fault_at, struct gw_error *err,
                  const char *what)
{
    *fault_at = text->at < text->bytes ? text->at : text->bytes;
    return gw_fail(err, -EPROTO, "the description is malformed: %s expected", what);
}

json_t *gw_description_parse(const struct gw_description *description,
                             const struct gw_described_device *device)
{
    json_error_t ignored;
    return json_loadb(description->text + device->text_at, device->text_bytes, 0, &ignored);
}

int gw_description_add(struct gw_description *to, const struct gw_described_device *device,
                       struct gw_error *err)
{
    if (to->count == to->room) {
        unsigned room = to->room ? 2 * to->room : 64;
        struct gw_described_device *devices = gw_realloc(to->devices, room, sizeof(*devices));
        if (!devices)
            return gw_fail(err, -ENOMEM, "description");
        to->devices = devices;
        to->room = room;
    }
    to->devices[to->count++] = *device;
    return 0;
}

static int take_device(struct gw_json_text *text, struct gw_description *to, size_t *fault_at,
                       struct gw_error *err)
{
    struct gw_described_device device = {0};
    gw_json_skip_space(text);
    device.text_at = text->at;
    if (to->count == GW_DESCRIPTION_DEVICES_MAX || !gw_json_skip_value(text))
        return refuse(text, fault_at, err, "a device");
    device.text_bytes = text->at - device.text_at;
    *fault_at = device.text_at;
    if (device.text_bytes > GW_DESCRIPTION_DEVICE_TEXT_MAX)
        return gw_fail(err, -EPROTO, "the description of a device has %zu bytes",
                       device.text_bytes);
    json_t *object = gw_description_parse(to, &device);
    const char *name = json_string_value(json_object_get(object, "name"));
    json_t *instance = json_object_get(object, "instance_id");
    int rc = 0;
    if (!name || !json_is_integer(instance) || strlen(name) >= sizeof(device.idstr)) {
        rc = gw_fail(err, -EPROTO, "the description of device %u is malformed", to->count);
    } else {
        memcpy(device.idstr, name, strlen(name) + 1);
        device.instance_id = (uint32_t)json_integer_value(instance);
        device.has_version = json_is_integer(json_object_get(object, "version"));
        device.version_id = (uint32_t)json_integer_value(json_object_get(object, "version"));
        rc = gw_description_add(to, &device, err);
    }
    json_decref(object);
    return rc;
}

static int take_devices(struct gw_json_text *text, struct gw_description *to, size_t *fault_at,
                        struct gw_error *err)
{
    if (!gw_json_take_char(text, '['))
        return refuse(text, fault_at, err, "an array of devices");
    if (gw_json_take_char(text, ']'))
        return 0;
    do {
        int rc = take_device(text, to, fault_at, err);
        if (rc < 0)
            return rc;
    } while (gw_json_take_char(text, ','));
    return gw_json_take_char(text, ']') ? 0 : refuse(text, fault_at, err, "']'");
}

static int take_member(struct gw_json_text *text, struct gw_description *to, size_t *fault_at,
                       struct gw_error *err)
{
    gw_json_skip_space(text);
    size_t begin = text->at;
    if (!gw_json_skip_string(text))
        return refuse(text, fault_at, err, "a key");
    bool devices = gw_json_is_key(text, begin, "devices"),
         page = gw_json_is_key(text, begin, "page_size");
    if (!gw_json_take_char(text, ':'))
        return refuse(text, fault_at, err, "':'");
    if (devices)
        return take_devices(text, to, fault_at, err);
    gw_json_skip_space(text);
    begin = text->at;
    if (!gw_json_skip_value(text))
        return refuse(text, fault_at, err, "a value");
    json_t *value = json_loadb(to->text + begin, text->at - begin, JSON_DECODE_ANY, NULL);
    bool good = value && (!page || (json_is_integer(value) && json_integer_value(value) > 0));
    if (good && page)
        to->page_bytes = (uint64_t)json_integer_value(value);
    json_decref(value);
    text->at = good ? text->at : begin;
    return good ? 0 : refuse(text, fault_at, err, page ? "a page size" : "a value");
}

static int take_whole(struct gw_json_text *text, struct gw_description *to, size_t *fault_at,
                      struct gw_error *err)
{
    if (!gw_json_take_char(text, '{'))
        return refuse(text, fault_at, err, "'{'");
    do {
        int rc = take_member(text, to, fault_at, err);
        if (rc < 0)
            return rc;
    } while (gw_json_take_char(text, ','));
    if (!gw_json_take_char(text, '}'))
        return refuse(text, fault_at, err, "'}'");
    gw_json_skip_space(text);
    return text->at == text->bytes ? 0 : refuse(text, fault_at, err, "its end");
}

/* The first slot from which a device of that name and instance may be found. */
static unsigned first_slot(const struct gw_description *d, const char *idstr, uint32_t instance_id)
{
    uint64_t hash = gw_hash_text(idstr, (uintptr_t)d->text ^ instance_id);
    return (unsigned)hash & (d->slot_count - 1);
}

int gw_description_index(struct gw_description *d, struct gw_error *err)
{
    d->slot_count = 2;
    while (d->slot_count < 2 * d->count)
        d->slot_count *= 2;
    d->slots = gw_zalloc(d->slot_count, sizeof(*d->slots));
    if (!d->slots)
        return gw_fail(err, -ENOMEM, "description");
    for (unsigned i = 0; i < d->count; i++) {
        unsigned slot = first_slot(d, d->devices[i].idstr, d->devices[i].instance_id);
        while (d->slots[slot] != 0)
            slot = (slot + 1) & (d->slot_count - 1);
        d->slots[slot] = i + 1;
    }
    return 0;
}

int gw_description_new(const char *text, size_t bytes, struct gw_description **description,
                       size_t *fault_at, struct gw_error *err)
{
    struct gw_json_text walk = {.data = text, .bytes = bytes};
    struct gw_description *to = gw_zalloc(1, sizeof(*to));
    if (!to)
        return gw_fail(err, -ENOMEM, "description");
    to->text = text;
    int rc = take_whole(&walk, to, fault_at, err);
    if (rc == 0)
        rc = gw_description_index(to, err);
    if (rc < 0) {
        gw_description_free(to);
        return rc;
    }
    *description = to;
    return 0;
}

void gw_description_free(struct gw_description *description)
{
    if (!description)
        return;
    gw_free(description->devices);
    gw_free(description->slots);
    gw_free(description);
}

uint64_t gw_description_page_bytes(const struct gw_description *description)
{
    return description->page_bytes;
}

unsigned gw_description_count(const struct gw_description *description)
{
    return description->count;
}

const struct gw_described_device *gw_description_device(const struct gw_description *description,
                                                        unsigned index)
{
    return index < description->count ? &description->devices[index] : NULL;
}

static bool is_device(const struct gw_description *d, unsigned index, const char *idstr,
                      uint32_t instance_id)
{
    const struct gw_described_device *device = &d->devices[index];
    return device->instance_id == instance_id && strcmp(device->idstr, idstr) == 0;
}

int gw_description_find(const struct gw_description *description, const char *idstr,
                        uint32_t instance_id, unsigned near)
{
    if (near < description->count && is_device(description, near, idstr, instance_id))
        return (int)near;
    unsigned slot = first_slot(description, idstr, instance_id);
    for (; description->slots[slot] != 0; slot = (slot + 1) & (description->slot_count - 1)) {
        unsigned index = description->slots[slot] - 1;
        if (is_device(description, index, idstr, instance_id))
            return (int)index;
    }
    return -ENOENT;
}

// SPDX-License-Identifier: MIT
/* What `-dump-vmstate` writes: every device that a program knows, whether a machine has it or not, with the
 * version from which on each field is sent. As with a stream's description only where a device's object
 * begins and ends is kept. Devices that cannot be migrated have no description and are left out. */
#include "control/json_text.h"
#include "control/stream_describe_impl.h"
#include "core/base/alloc.h"

#include <string.h>

static int refuse(const struct gw_json_text *text, size_t *fault_at, struct gw_error *err,
                  const char *what)
{
    *fault_at = text->at < text->bytes ? text->at : text->bytes;
    return gw_fail(err, -EPROTO, "the dump of descriptions is malformed: %s expected", what);
}

static int take_object(struct gw_description *to, const char *name, char machine[256],
                       struct gw_described_device *device, json_t *object, struct gw_error *err)
{
    if (strcmp(name, "vmschkmachine") == 0) {
        const char *text = json_string_value(json_object_get(object, "Name"));
        if (text && strlen(text) < 256)
            memcpy(machine, text, strlen(text) + 1);
        return 0;
    }
    json_t *version = json_object_get(object, "version_id");
    if (!json_is_object(json_object_get(object, "Description")))
        return 0;
    if (strlen(name) >= sizeof(device->idstr) || !json_is_integer(version))
        return gw_fail(err, -EPROTO, "the description of device '%.40s' is malformed", name);
    memcpy(device->idstr, name, strlen(name) + 1);
    device->has_version = true;
    device->version_id = (uint32_t)json_integer_value(version);
    return gw_description_add(to, device, err);
}

static int take_device(struct gw_json_text *text, struct gw_description *to, char machine[256],
                       size_t *fault_at, struct gw_error *err)
{
    struct gw_described_device device = {0};
    gw_json_skip_space(text);
    size_t begin = text->at;
    if (!gw_json_skip_string(text))
        return refuse(text, fault_at, err, "a device's name");
    json_t *name = json_loadb(text->data + begin, text->at - begin, JSON_DECODE_ANY, NULL);
    bool colon = gw_json_take_char(text, ':');
    gw_json_skip_space(text);
    device.text_at = text->at;
    bool value = colon && to->count < GW_DESCRIPTION_DEVICES_MAX && gw_json_skip_value(text);
    device.text_bytes = text->at - device.text_at;
    json_t *object = name && value && device.text_bytes <= GW_DESCRIPTION_DEVICE_TEXT_MAX
                         ? gw_description_parse(to, &device)
                         : NULL;
    int rc;
    if (json_is_object(object))
        rc = take_object(to, json_string_value(name), machine, &device, object, err);
    else
        rc = refuse(text, fault_at, err, "a device");
    *fault_at = device.text_at;
    json_decref(name);
    json_decref(object);
    return rc;
}

static int take_whole(struct gw_json_text *text, struct gw_description *to, char machine[256],
                      size_t *fault_at, struct gw_error *err)
{
    if (!gw_json_take_char(text, '{'))
        return refuse(text, fault_at, err, "'{'");
    do {
        int rc = take_device(text, to, machine, fault_at, err);
        if (rc < 0)
            return rc;
    } while (gw_json_take_char(text, ','));
    if (!gw_json_take_char(text, '}'))
        return refuse(text, fault_at, err, "'}'");
    gw_json_skip_space(text);
    return text->at == text->bytes ? 0 : refuse(text, fault_at, err, "its end");
}

int gw_description_new_static(const char *text, size_t bytes, char machine[256],
                              struct gw_description **description, size_t *fault_at,
                              struct gw_error *err)
{
    struct gw_json_text walk = {.data = text, .bytes = bytes};
    struct gw_description *to = gw_zalloc(1, sizeof(*to));
    if (!to)
        return gw_fail(err, -ENOMEM, "description");
    to->text = text;
    to->is_static = true;
    machine[0] = '\0';
    int rc = take_whole(&walk, to, machine, fault_at, err);
    if (rc == 0)
        rc = gw_description_index(to, err);
    if (rc < 0) {
        gw_description_free(to);
        return rc;
    }
    *description = to;
    return 0;
}

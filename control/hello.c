// SPDX-License-Identifier: MIT
/* The bytes of a hello: fields {be16 id, be16 bytes, value} in ascending order of id, so that it
 * can grow. A field that is absent is zero. Ids that we do not know are skipped, unless their high
 * bit says that they must be understood. One table describes the fields in both directions. */
#include "control/codec.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#define FIELD_MANDATORY 0x8000u

enum field_kind { FIELD_U32, FIELD_U64, FIELD_BYTES, FIELD_TEXT };

static const struct field {
    uint16_t id;
    uint16_t bytes; /* of the value; FIELD_TEXT: at most */
    enum field_kind kind;
    size_t offset;
    const char *name;
} fields[] = {
#define U32(id_, member)                                                                           \
    {                                                                                              \
        id_, 4, FIELD_U32, offsetof(struct gw_hello, member), #member                              \
    }
#define U64(id_, member)                                                                           \
    {                                                                                              \
        id_, 8, FIELD_U64, offsetof(struct gw_hello, member), #member                              \
    }
    U32(1, version_min),
    U32(2, version_max),
    U32(3, flags),
    U32(4, page_bytes),
    U32(5, endpoints),
    U32(6, message_payload_max),
    U32(7, blocks_max),
    U64(8, stripe_bytes),
    U64(9, ram_bytes),
    U64(10, ram_bytes_max),
    U64(11, section_bytes_max),
    U64(12, memlock_bytes),
    U64(13, peer_timeout_ns),
    U64(14, settle_timeout_ns),
    U64(15, hold_timeout_ns),
    U64(16, device_timeout_ns),
    U64(17, incarnation),
    {18, 16, FIELD_BYTES, offsetof(struct gw_hello, uuid), "uuid"},
    {19, 255, FIELD_TEXT, offsetof(struct gw_hello, machine), "machine"},
    {20, 63, FIELD_TEXT, offsetof(struct gw_hello, agent), "agent"},
    {21, 255, FIELD_TEXT, offsetof(struct gw_hello, wires), "wires"},
    {22, 255, FIELD_TEXT, offsetof(struct gw_hello, wires_lacking), "wires_lacking"},
    U64(23, packet_bytes_max),
#undef U32
#undef U64
};

#define FIELD_COUNT (sizeof(fields) / sizeof(fields[0]))

/* Write the value; return its length, 0 for one that says nothing and is left out. */
static size_t put_value(const struct field *field, const struct gw_hello *hello, uint8_t *to)
{
    static const uint8_t zeros[16];
    const void *from = (const char *)hello + field->offset;
    uint32_t u32;
    uint64_t u64;
    size_t bytes;
    switch (field->kind) {
    case FIELD_U32:
        memcpy(&u32, from, sizeof(u32));
        gw_be32_store(to, u32);
        return u32 ? 4 : 0;
    case FIELD_U64:
        memcpy(&u64, from, sizeof(u64));
        gw_be64_store(to, u64);
        return u64 ? 8 : 0;
    case FIELD_BYTES:
        if (memcmp(from, zeros, field->bytes) == 0)
            return 0;
        memcpy(to, from, field->bytes);
        return field->bytes;
    case FIELD_TEXT:
        bytes = strnlen(from, field->bytes);
        memcpy(to, from, bytes);
        return bytes;
    }
    return 0;
}

size_t gw_hello_encode(const struct gw_hello *hello, uint8_t *to)
{
    uint8_t *at = to;
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        size_t bytes = put_value(&fields[i], hello, at + 4);
        if (bytes == 0)
            continue;
        gw_be16_store(at, fields[i].id);
        gw_be16_store(at + 2, (uint16_t)bytes);
        at += 4 + bytes;
    }
    return (size_t)(at - to);
}

static void take_value(const struct field *field, struct gw_hello *hello, const uint8_t *from,
                       size_t bytes)
{
    char *to = (char *)hello + field->offset;
    uint32_t u32;
    uint64_t u64;
    switch (field->kind) {
    case FIELD_U32:
        u32 = gw_be32_load(from);
        memcpy(to, &u32, sizeof(u32));
        break;
    case FIELD_U64:
        u64 = gw_be64_load(from);
        memcpy(to, &u64, sizeof(u64));
        break;
    case FIELD_BYTES:
        memcpy(to, from, bytes);
        break;
    case FIELD_TEXT:
        gw_text_copy(to, from, bytes);
        break;
    }
}

static int take_field(uint16_t id, const uint8_t *from, size_t bytes, struct gw_hello *hello,
                      struct gw_error *err)
{
    const struct field *field = NULL;
    for (size_t i = 0; i < FIELD_COUNT && !field; i++) {
        if (fields[i].id == id)
            field = &fields[i];
    }
    if (!field && (id & FIELD_MANDATORY))
        return gw_fail_code(err, -EPROTO, GW_CODE_UNSUPPORTED,
                            "field 0x%04x must be understood, and is not known here", (unsigned)id);
    if (!field)
        return 0;
    bool fits = field->kind == FIELD_TEXT ? bytes <= field->bytes : bytes == field->bytes;
    if (!fits)
        return gw_fail(err, -EPROTO, "field %s of %zu bytes, %s %u", field->name, bytes,
                       field->kind == FIELD_TEXT ? "at most" : "must be", (unsigned)field->bytes);
    take_value(field, hello, from, bytes);
    return 0;
}

int gw_hello_decode(const uint8_t *data, size_t bytes, struct gw_hello *hello, struct gw_error *err)
{
    const uint8_t *end = data + bytes;
    uint32_t last = 0;
    memset(hello, 0, sizeof(*hello));
    while (data < end) {
        if (end - data < 4)
            return gw_fail(err, -EPROTO, "ends inside a field's head");
        uint16_t id = gw_be16_load(data);
        size_t value_bytes = gw_be16_load(data + 2);
        data += 4;
        if (id == last)
            return gw_fail(err, -EPROTO, "field %u is there twice, or is 0", (unsigned)id);
        if (id < last)
            return gw_fail(err, -EPROTO, "field %u after field %" PRIu32, (unsigned)id, last);
        if (value_bytes > (size_t)(end - data))
            return gw_fail(err, -EPROTO, "field %u of %zu bytes, %zu are left", (unsigned)id,
                           value_bytes, (size_t)(end - data));
        int rc = take_field(id, data, value_bytes, hello, err);
        if (rc < 0)
            return rc;
        data += value_bytes;
        last = id;
    }
    return 0;
}

// SPDX-License-Identifier: MIT
/* Packets of a device's state, put in order. What is early waits in a tree by index, copied, each charged
 * to a budget with no less than a page, so that neither large packets nor many small ones cost more than
 * it has; an index alone sizes nothing. */
#include "devices/vfio/parallel.h"

#include <errno.h>
#include <inttypes.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#define CHARGE_MIN 4096u
#define INDEX_NONE UINT32_MAX /* reserved: no packet has it */

struct early {
    uint32_t index;
    bool is_config;
    size_t bytes, charged;
    uint8_t data[];
};

struct gw_parallel {
    const char *name;
    struct gw_parallel_budget *budget;
    const struct gw_parallel_sink *sink;
    void *ctx;
    void *tree;            /* of struct early, by index */
    uint32_t next;         /* index that the sink gets next */
    uint32_t highest;      /* index that came, if any_came */
    uint32_t config_index; /* INDEX_NONE: it did not come */
    bool any_came, is_over;
};

/* ---- bytes --------------------------------------------------------------------------------------- */

static void put32(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)(value >> 24);
    to[1] = (uint8_t)(value >> 16);
    to[2] = (uint8_t)(value >> 8);
    to[3] = (uint8_t)value;
}

static uint32_t get32(const uint8_t *from)
{
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

void gw_parallel_encode(const struct gw_parallel_packet *packet, uint32_t data_bytes,
                        uint8_t to[GW_PARALLEL_HEAD_BYTES + GW_PARALLEL_PAYLOAD_BYTES])
{
    put32(to, GW_PARALLEL_MAGIC);
    put32(to + 4, GW_PARALLEL_VERSION);
    put32(to + 8, GW_PARALLEL_DEVICE);
    memset(to + 12, 0, sizeof(packet->name));
    memcpy(to + 12, packet->name, strnlen(packet->name, sizeof(packet->name) - 1));
    put32(to + 268, packet->instance_id);
    put32(to + 272, GW_PARALLEL_PAYLOAD_BYTES + data_bytes);
    put32(to + 276, 0);
    put32(to + 280, packet->index);
    put32(to + 284, packet->is_config ? GW_PARALLEL_CONFIG : 0);
}

int gw_parallel_decode(const uint8_t *head, struct gw_parallel_packet *packet, struct gw_error *err)
{
    if (get32(head) != GW_PARALLEL_MAGIC || get32(head + 4) != GW_PARALLEL_VERSION ||
        get32(head + 8) != GW_PARALLEL_DEVICE)
        return gw_error_set(err, -EBADMSG, GW_CODE_DEVICE,
                            "no packet of device state: 0x%08" PRIx32 ", version %" PRIu32
                            ", flags 0x%" PRIx32,
                            get32(head), get32(head + 4), get32(head + 8));
    const char *name = (const char *)head + 12;
    size_t bytes = strnlen(name, sizeof(packet->name));
    for (size_t i = 0; i < bytes && i < sizeof(packet->name) - 1; i++)
        if (name[i] < ' ' || name[i] > '~')
            bytes = 0;
    if (bytes == 0 || bytes == sizeof(packet->name))
        return gw_error_set(err, -EBADMSG, GW_CODE_DEVICE,
                            "a packet of device state: its name is no text of 1 to 255 bytes");
    *packet = (struct gw_parallel_packet){.instance_id = get32(head + 268),
                                          .payload_bytes = get32(head + 272)};
    memcpy(packet->name, name, bytes);
    if (packet->payload_bytes > GW_PARALLEL_PAYLOAD_BYTES + GW_PARALLEL_DATA_BYTES_MAX)
        return gw_error_set(err, -ERANGE, GW_CODE_DEVICE,
                            "device '%s': a packet of %" PRIu32 " bytes, %u is the most",
                            packet->name, packet->payload_bytes,
                            GW_PARALLEL_PAYLOAD_BYTES + GW_PARALLEL_DATA_BYTES_MAX);
    return 0;
}

/* ---- life ---------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    const struct early *x = a, *y = b;
    return x->index < y->index ? -1 : x->index > y->index;
}

int gw_parallel_new(const char *name, struct gw_parallel_budget *budget,
                    const struct gw_parallel_sink *sink, void *ctx, struct gw_parallel **parallel,
                    struct gw_error *err)
{
    if (!name || !budget || sink->struct_bytes < sizeof(*sink) || !sink->data || !sink->config)
        return gw_error_set(err, -EINVAL, GW_CODE_INVALID,
                            "packets of device state: the sink is incomplete");
    struct gw_parallel *p = calloc(1, sizeof(*p));
    if (!p)
        return gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY, "device '%s': out of memory", name);
    *p = (struct gw_parallel){
        .name = name, .budget = budget, .sink = sink, .ctx = ctx, .config_index = INDEX_NONE};
    *parallel = p;
    return 0;
}

static void forget(struct gw_parallel *p, struct early *early)
{
    tdelete(early, &p->tree, compare);
    p->budget->bytes += early->charged;
    free(early);
}

void gw_parallel_free(struct gw_parallel *p)
{
    if (!p)
        return;
    while (p->tree)
        forget(p, *(struct early **)p->tree);
    free(p);
}

/* ---- packets ------------------------------------------------------------------------------------- */

static struct early *find(const struct gw_parallel *p, uint32_t index)
{
    struct early key = {.index = index};
    struct early **found = tfind(&key, &p->tree, compare);
    return found ? *found : NULL;
}

static int check_index(const struct gw_parallel *p, uint32_t index, bool is_config,
                       struct gw_error *err)
{
    const char *why = NULL;
    if (index == INDEX_NONE)
        why = "that index is reserved";
    else if (is_config && p->config_index != INDEX_NONE)
        why = "the configuration comes twice";
    else if (index < p->next)
        why = "it was passed already";
    else if (p->is_over || index > p->config_index)
        why = "it is above the configuration's";
    else if (is_config && p->any_came && index < p->highest)
        why = "it is the configuration's, and a higher one came before it";
    else if (find(p, index))
        why = "it is there already";
    if (!why)
        return 0;
    return gw_error_set(err, -EPROTO, GW_CODE_DEVICE, "device '%s': packet %" PRIu32 ": %s",
                        p->name, index, why);
}

static int keep(struct gw_parallel *p, uint32_t index, bool is_config, const uint8_t *data,
                size_t bytes, struct gw_error *err)
{
    size_t charged = sizeof(struct early) + bytes;
    charged = charged > CHARGE_MIN ? charged : CHARGE_MIN;
    if (charged > p->budget->bytes)
        return gw_error_set(err, -ENOBUFS, GW_CODE_LIMIT,
                            "device '%s': packet %" PRIu32 " of %zu bytes came early, and %" PRIu64
                            " bytes are left for those: %" PRIu32 " is missing",
                            p->name, index, bytes, p->budget->bytes, p->next);
    struct early *early = malloc(sizeof(*early) + bytes);
    if (early) {
        *early = (struct early){index, is_config, bytes, charged};
        memcpy(early->data, data, bytes);
    }
    if (!early || !tsearch(early, &p->tree, compare)) {
        free(early);
        return gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY,
                            "device '%s': packet %" PRIu32 ": out of memory", p->name, index);
    }
    p->budget->bytes -= charged;
    return 0;
}

static int pass_on(struct gw_parallel *p, bool is_config, const uint8_t *data, size_t bytes,
                   struct gw_error *err)
{
    int rc = is_config ? p->sink->config(p->ctx, data, bytes, err)
                       : p->sink->data(p->ctx, data, bytes, err);
    p->next++;
    p->is_over = is_config;
    return rc;
}

int gw_parallel_take(struct gw_parallel *p, const void *payload, size_t bytes, struct gw_error *err)
{
    const uint8_t *head = payload;
    if (bytes < GW_PARALLEL_PAYLOAD_BYTES)
        return gw_error_set(err, -EBADMSG, GW_CODE_DEVICE, "device '%s': a packet of %zu bytes",
                            p->name, bytes);
    if (get32(head) != 0)
        return gw_error_set(err, -EBADMSG, GW_CODE_DEVICE,
                            "device '%s': a packet of version %" PRIu32 ", 0 is known here",
                            p->name, get32(head));
    uint32_t index = get32(head + 4);
    bool is_config = get32(head + 8) & GW_PARALLEL_CONFIG;
    const uint8_t *data = head + GW_PARALLEL_PAYLOAD_BYTES;
    bytes -= GW_PARALLEL_PAYLOAD_BYTES;
    int rc = check_index(p, index, is_config, err);
    if (rc == 0)
        rc = index == p->next ? pass_on(p, is_config, data, bytes, err)
                              : keep(p, index, is_config, data, bytes, err);
    if (rc < 0)
        return rc;
    p->highest = p->any_came && p->highest > index ? p->highest : index;
    p->any_came = true;
    if (is_config)
        p->config_index = index;
    for (struct early *early; rc == 0 && (early = find(p, p->next)) != NULL;) {
        rc = pass_on(p, early->is_config, early->data, early->bytes, err);
        forget(p, early);
    }
    return rc;
}

int gw_parallel_finish(const struct gw_parallel *p, struct gw_error *err)
{
    if (p->is_over)
        return 0;
    return gw_error_set(err, -EBADMSG, GW_CODE_DEVICE, "device '%s': packet %" PRIu32 " is missing",
                        p->name, p->next);
}

// SPDX-License-Identifier: MIT
/* The state of a network device: addresses, filters, queue pairs, offloads, RSS. Nothing is sent or received
 * here; what a back end would have to be told after a load is what post_load works out. */
#include "devices/virtio/virtio_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PAIRS_MAX 128u
#define CONFIG_BYTES 12u
#define CONTROL_RING 64u
#define MAC_BYTES ((size_t)6)
#define MACS_MAX 64u         /* that are kept */
#define MACS_READ_MAX 65536u /* that are read, and dropped if they are more than that */
#define VLAN_BYTES 512u      /* 4096 bits, in words of the host that wrote them */
#define RSS_KEY_BYTES 40u
#define RSS_TABLE_MAX 128u

#define STATUS_LINK_UP 1u

struct net {
    struct gw_virtio *dev;
    struct net *waiting; /* itself: of the codec for the pairs behind the first */
    /* of the host's side */
    uint8_t own_mac[MAC_BYTES];
    uint16_t own_pairs;
    bool can_vnet_hdr, can_ufo;
    uint64_t offloads; /* that may be on */
    uint32_t hash_types;
    bool has_rss;

    uint8_t mac[MAC_BYTES];
    uint32_t tx_waiting[PAIRS_MAX];
    uint32_t mergeable;
    uint16_t status;
    uint8_t promisc, allmulti, multi_overflow, uni_overflow, alluni, nomulti, nouni, nobcast;
    uint32_t mac_count;
    uint8_t macs[MACS_MAX * MAC_BYTES];
    uint8_t vlans[VLAN_BYTES];
    uint32_t has_vnet_hdr;
    uint8_t has_ufo;
    uint16_t max_pairs, pairs;
    uint64_t guest_offloads;
    uint64_t loaded_offloads; /* set_features comes after them and computes its own */
    uint32_t first_multi;     /* of macs */
    bool link_down;

    uint8_t rss_enabled, rss_redirect, rss_hash;
    uint32_t rss_types;
    uint16_t rss_count, rss_default;
    uint8_t rss_key[RSS_KEY_BYTES];
    uint16_t rss_table[RSS_TABLE_MAX];
};

static struct net *net_of(const struct gw_virtio *dev)
{
    return dev->type_state;
}

/* ---- which fields are there --------------------------------------------------------------------- */

static bool keeps_macs(const void *opaque, uint32_t version_id)
{
    (void)version_id;
    return ((const struct net *)opaque)->mac_count <= MACS_MAX;
}

static bool drops_macs(const void *opaque, uint32_t version_id)
{
    return !keeps_macs(opaque, version_id);
}

static bool has_pairs(const void *opaque, uint32_t version_id)
{
    (void)version_id;
    return ((const struct net *)opaque)->own_pairs > 1;
}

/* Of the low features only: the rest has not come when this is asked. */
static bool has_offloads(const void *opaque, uint32_t version_id)
{
    const struct net *net = opaque;
    (void)version_id;
    return gw_virtio_has(net->dev, GW_VIRTIO_NET_F_GUEST_OFFLOADS) == 1;
}

/* ---- the pairs behind the first ------------------------------------------------------------------ */

/* As many as are in use, without a count of their own. */
static int put_waiting(const void *member, size_t bytes, struct gw_writer *w, struct gw_error *err)
{
    const struct net *net = *(struct net *const *)member;
    (void)bytes;
    (void)err;
    for (unsigned i = 1; i < net->pairs; i++)
        gw_writer_be32(w, net->tx_waiting[i]);
    return 0;
}

static int check_pairs(const struct net *net, struct gw_error *err)
{
    if (net->max_pairs != net->own_pairs)
        return gw_virtio_refuse(err, GW_VIRTIO_MISMATCH, "max_queue_pairs", "%u, and %u here",
                                net->max_pairs, net->own_pairs);
    if (net->pairs > net->own_pairs)
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "curr_queue_pairs", "%u, at most %u",
                                net->pairs, net->own_pairs);
    return 0;
}

static int get_waiting(void *member, size_t bytes, struct gw_reader *r, uint32_t version_id,
                       struct gw_error *err)
{
    struct net *net = *(struct net **)member;
    (void)bytes;
    (void)version_id;
    int rc = check_pairs(net, err);
    for (unsigned i = 1; rc == 0 && i < net->pairs; i++)
        net->tx_waiting[i] = gw_reader_be32(r);
    return rc;
}

static const struct gw_vmcodec waiting_codec = {"tx_waiting", put_waiting, get_waiting};

/* ---- RSS --------------------------------------------------------------------------------------- */

static bool sends_rss(const void *opaque)
{
    return ((const struct net *)opaque)->rss_enabled != 0;
}

static int check_rss_table(const struct net *net, struct gw_error *err)
{
    for (unsigned i = 0; i < net->rss_count; i++) {
        if (net->rss_table[i] >= net->own_pairs)
            return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "rss table", "entry %u is queue %u of %u",
                                    i, net->rss_table[i], net->own_pairs);
    }
    return 0;
}

static int rss_came(void *opaque, uint32_t version_id, struct gw_error *err)
{
    const struct net *net = opaque;
    (void)version_id;
    uint32_t count = net->rss_count;
    if (net->rss_enabled > 1 || net->rss_redirect > 1 || net->rss_hash > 1)
        return gw_virtio_refuse(err, GW_VIRTIO_INVALID, "rss", "flags %u, %u, %u are not 0 or 1",
                                net->rss_enabled, net->rss_redirect, net->rss_hash);
    if (count == 0 || (count & (count - 1)) != 0)
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "rss indirections_len",
                                "%" PRIu32 ", a power of two is taken", count);
    if (net->rss_default >= net->own_pairs)
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "rss default_queue", "%u of %u",
                                net->rss_default, net->own_pairs);
    if (net->rss_types & ~net->hash_types)
        return gw_virtio_refuse(err, GW_VIRTIO_RANGE, "rss hash_types",
                                "0x%" PRIx32 ", of which 0x%" PRIx32 " can be had here",
                                net->rss_types, net->hash_types);
    return check_rss_table(net, err);
}

static const struct gw_vmstate rss_vmsd = {
    GW_VMSTATE_OF(struct net),
    .name = "virtio-net-device/rss",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = sends_rss,
    .post_load = rss_came,
    GW_VMSTATE_FIELDS(
        GW_VMSTATE_UINT8(rss_enabled, struct net), GW_VMSTATE_UINT8(rss_redirect, struct net),
        GW_VMSTATE_UINT8(rss_hash, struct net), GW_VMSTATE_UINT32(rss_types, struct net),
        GW_VMSTATE_UINT16(rss_count, struct net), GW_VMSTATE_UINT16(rss_default, struct net),
        GW_VMSTATE_BUFFER(rss_key, struct net),
        GW_VMSTATE_VARRAY(UINT16, rss_table, struct net, rss_count)),
};

/* ---- the device's part -------------------------------------------------------------------------- */

static void drop_macs(struct net *net)
{
    if (net->mac_count <= MACS_MAX)
        return;
    net->mac_count = 0;
    net->multi_overflow = net->uni_overflow = 1; /* accept more, not less */
}

static int check_back_end(const struct net *net, struct gw_error *err)
{
    if (net->has_vnet_hdr && !net->can_vnet_hdr)
        return gw_virtio_refuse(err, GW_VIRTIO_MISMATCH, "has_vnet_hdr",
                                "the guest uses headers that the back end here does not take");
    if (net->has_ufo && !net->can_ufo)
        return gw_virtio_refuse(err, GW_VIRTIO_MISMATCH, "has_ufo",
                                "the guest uses UFO, which the back end here cannot do");
    return 0;
}

static int part_came(void *opaque, uint32_t version_id, struct gw_error *err)
{
    struct net *net = opaque;
    (void)version_id;
    drop_macs(net);
    if (has_offloads(net, 0) && (net->guest_offloads & ~net->offloads))
        return gw_virtio_refuse(err, GW_VIRTIO_FEATURES, "curr_guest_offloads",
                                "0x%" PRIx64 ", of which 0x%" PRIx64 " can be had here",
                                net->guest_offloads, net->offloads);
    if (!has_offloads(net, 0))
        net->guest_offloads = net->offloads;
    net->loaded_offloads = net->guest_offloads;
    return check_back_end(net, err);
}

static const struct gw_vmstate part_vmsd = {
    GW_VMSTATE_OF(struct net),
    .name = "virtio-net-device",
    .version_id = 11,
    .minimum_version_id = 11,
    .post_load = part_came,
    GW_VMSTATE_FIELDS(
        GW_VMSTATE_BUFFER(mac, struct net),
        GW_VMSTATE_SUB_ARRAY(UINT32, tx_waiting, struct net, 0, 1),
        GW_VMSTATE_UINT32(mergeable, struct net), GW_VMSTATE_UINT16(status, struct net),
        GW_VMSTATE_UINT8(promisc, struct net), GW_VMSTATE_UINT8(allmulti, struct net),
        GW_VMSTATE_UINT32(mac_count, struct net),
        GW_VMSTATE_VBUFFER(macs, struct net, mac_count, .factor = MAC_BYTES, .test = keeps_macs),
        GW_VMSTATE_UNUSED_VARRAY(struct net, mac_count, MAC_BYTES, MACS_READ_MAX,
                                 .test = drops_macs),
        GW_VMSTATE_BUFFER(vlans, struct net), GW_VMSTATE_UINT32(has_vnet_hdr, struct net),
        GW_VMSTATE_UINT8(multi_overflow, struct net), GW_VMSTATE_UINT8(uni_overflow, struct net),
        GW_VMSTATE_UINT8(alluni, struct net), GW_VMSTATE_UINT8(nomulti, struct net),
        GW_VMSTATE_UINT8(nouni, struct net), GW_VMSTATE_UINT8(nobcast, struct net),
        GW_VMSTATE_UINT8(has_ufo, struct net),
        GW_VMSTATE_UINT16_TEST(max_pairs, struct net, has_pairs),
        GW_VMSTATE_UINT16_TEST(pairs, struct net, has_pairs),
        GW_VMSTATE_CUSTOM(waiting, struct net, struct net *, waiting_codec, .test = has_pairs),
        GW_VMSTATE_UINT64_TEST(guest_offloads, struct net, has_offloads)),
    GW_VMSTATE_SUBSECTIONS(&rss_vmsd),
};

static const struct gw_vmstate net_vmsd = {
    GW_VMSTATE_OF(struct gw_virtio),
    .name = "virtio-net",
    .version_id = 11,
    .minimum_version_id = 11,
    .load_failed = gw_virtio_load_failed,
    GW_VMSTATE_FIELDS(
        GW_VMSTATE_CUSTOM(virtio, struct gw_virtio, struct gw_virtio *, gw_virtio_codec)),
};

/* ---- what follows from it ----------------------------------------------------------------------- */

/* Whoever negotiates anew has all offloads on that it may have. */
static void set_features(struct gw_virtio *dev, uint64_t features)
{
    struct net *net = net_of(dev);
    (void)features;
    net->guest_offloads = net->offloads;
}

static int post_load(struct gw_virtio *dev, struct gw_error *err)
{
    struct net *net = net_of(dev);
    (void)err;
    net->guest_offloads = net->loaded_offloads;
    net->first_multi = 0;
    while (net->first_multi < net->mac_count && !(net->macs[net->first_multi * MAC_BYTES] & 1))
        net->first_multi++;
    net->link_down = !(net->status & STATUS_LINK_UP);
    return 0;
}

static void reset(struct gw_virtio *dev)
{
    struct net *net = net_of(dev);
    memcpy(net->mac, net->own_mac, MAC_BYTES);
    memset(net->tx_waiting, 0, sizeof(net->tx_waiting));
    net->mergeable = 0;
    net->status = STATUS_LINK_UP;
    net->promisc = 1;
    net->allmulti = net->multi_overflow = net->uni_overflow = net->alluni = 0;
    net->nomulti = net->nouni = net->nobcast = 0;
    net->mac_count = net->first_multi = 0;
    memset(net->macs, 0, sizeof(net->macs));
    memset(net->vlans, 0, sizeof(net->vlans));
    net->has_vnet_hdr = net->can_vnet_hdr;
    net->has_ufo = net->can_ufo;
    net->max_pairs = net->own_pairs;
    net->pairs = 1;
    net->link_down = false;
    net->rss_enabled = net->rss_redirect = net->rss_hash = 0;
    net->rss_types = 0;
    net->rss_count = net->rss_default = 0;
}

static void read_config(struct gw_virtio *dev)
{
    const struct net *net = net_of(dev);
    uint8_t status[2] = {(uint8_t)net->status, (uint8_t)(net->status >> 8)};
    if (dev->config_bytes >= MAC_BYTES)
        memcpy(dev->config, net->mac, MAC_BYTES);
    for (unsigned i = 0; i < 2 && dev->config_bytes >= 8; i++)
        dev->config[6 + i] = status[dev->endian == GW_VIRTIO_BIG ? 1 - i : i];
}

static void free_net(struct gw_virtio *dev)
{
    (void)dev;
}

static const struct gw_virtio_device_ops net_ops = {
    .number = 1,
    .section = &net_vmsd,
    .desc = &part_vmsd,
    .set_features = set_features,
    .post_load = post_load,
    .read_config = read_config,
    .reset = reset,
    .free = free_net,
};

/* ---- life -------------------------------------------------------------------------------------- */

static int check(const struct gw_virtio_net_config *config, struct gw_error *err)
{
    if (!config || config->struct_bytes < sizeof(*config)) {
        gw_error_set(err, -EINVAL, GW_CODE_INVALID, "virtio-net: struct_bytes is not set");
        return -EINVAL;
    }
    if (config->queue_pairs == 0 || config->queue_pairs > PAIRS_MAX || config->ring < 2 ||
        config->ring > GW_VIRTIO_RING_MAX || (config->ring & (config->ring - 1)) != 0 ||
        config->config_bytes > GW_VIRTIO_CONFIG_MAX)
        return gw_error_set(err, -EINVAL, GW_CODE_INVALID,
                            "virtio-net: 1 to %u queue pairs, rings of a power of two up to %u "
                            "entries, at most %u bytes of configuration",
                            PAIRS_MAX, GW_VIRTIO_RING_MAX, GW_VIRTIO_CONFIG_MAX);
    return 0;
}

static void fill(struct net *net, const struct gw_virtio_net_config *config, struct gw_virtio *dev)
{
    net->dev = dev;
    net->waiting = net;
    memcpy(net->own_mac, config->mac, MAC_BYTES);
    net->own_pairs = (uint16_t)config->queue_pairs;
    net->can_vnet_hdr = config->has_vnet_hdr;
    net->can_ufo = config->has_ufo;
    net->offloads = config->offloads;
    net->hash_types = config->hash_types;
    dev->type = &net_ops;
    dev->type_state = net;
    dev->config_bytes = config->config_bytes ? config->config_bytes : CONFIG_BYTES;
    dev->shape_pairs = config->queue_pairs;
    dev->queue_count = 2 * config->queue_pairs + config->has_control;
    for (unsigned n = 0; n < dev->queue_count; n++)
        dev->queues[n].num_default = n < 2 * config->queue_pairs ? config->ring : CONTROL_RING;
}

int gw_virtio_net_new(const struct gw_virtio_config *config,
                      const struct gw_virtio_net_config *net_config, struct gw_virtio **dev,
                      struct gw_error *err)
{
    int rc = check(net_config, err);
    if (rc < 0)
        return rc;
    struct gw_virtio *fresh = calloc(1, sizeof(*fresh));
    struct net *net = calloc(1, sizeof(*net));
    if (!fresh || !net) {
        free(fresh);
        free(net);
        return gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY, "virtio-net: no memory for a device");
    }
    fill(net, net_config, fresh);
    rc = gw_virtio_init(fresh, config, err);
    if (rc < 0) {
        gw_virtio_free(fresh);
        return rc;
    }
    *dev = fresh;
    return 0;
}

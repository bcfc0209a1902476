/* SPDX-License-Identifier: MIT */
/* devices/vfio/parallel.h - a device's state in packets, over channels beside the stream.
 *
 * In the pause the states of several devices, or one of gigabytes, can go over as many channels as there
 * are: each read of a driver is a packet with an index of its own, and the last, with the highest index, is
 * the configuration. Packets arrive in any order on any channel; the target puts them in order, for each
 * device, in bounded memory. Which channels those are is for whoever has them: here are the packets.
 *
 *     u32 magic, u32 version, u32 flags: 64, name[256] (NUL-terminated), u32 instance, u32 payload bytes;
 *     the payload: u32 version: 0, u32 index, u32 flags (1: configuration), data
 *
 * Threads: one at a time calls anything of one gw_parallel; those that share a budget share a lock too. */
#ifndef GODWIT_DEVICES_VFIO_PARALLEL_H
#define GODWIT_DEVICES_VFIO_PARALLEL_H

#include <godwit/device.h>

#define GW_PARALLEL_MAGIC 0x11223344u
#define GW_PARALLEL_VERSION 1u
#define GW_PARALLEL_DEVICE 64u
#define GW_PARALLEL_CONFIG 1u
#define GW_PARALLEL_HEAD_BYTES 276u   /* in front of the payload */
#define GW_PARALLEL_PAYLOAD_BYTES 12u /* in front of the data */
#define GW_PARALLEL_DATA_BYTES_MAX (1u << 20)
#define GW_PARALLEL_BUDGET_BYTES (UINT64_C(1) << 30) /* of all devices, unless told otherwise */

struct gw_parallel_packet {
    char name[256];
    uint32_t instance_id;
    uint32_t payload_bytes;
    uint32_t index;
    bool is_config;
};

/** gw_parallel_encode() - head and payload's head of a packet with @data_bytes of data, which follow.
 *  @packet: payload_bytes is not looked at. */
void gw_parallel_encode(const struct gw_parallel_packet *packet, uint32_t data_bytes,
                        uint8_t to[GW_PARALLEL_HEAD_BYTES + GW_PARALLEL_PAYLOAD_BYTES]);
/** gw_parallel_decode() - of GW_PARALLEL_HEAD_BYTES bytes: whose packet it is, and payload_bytes, which are
 *  to be read next. Return: 0, -EBADMSG (not such a packet), -ERANGE (more data than one may have). */
int gw_parallel_decode(const uint8_t *head, struct gw_parallel_packet *packet,
                       struct gw_error *err);

struct gw_parallel_budget { /* shared by all devices of a guest */
    uint64_t bytes;         /* left */
};

/* Called in order of index: data, data, ..., config. */
struct gw_parallel_sink {
    size_t struct_bytes;
    int (*data)(void *ctx, const void *data, size_t bytes, struct gw_error *err);
    int (*config)(void *ctx, const void *data, size_t bytes, struct gw_error *err);
};

struct gw_parallel;

/** gw_parallel_new() - a device that takes packets. @budget, @sink, @ctx and @name are borrowed.
 *  Return: 0, -EINVAL, -ENOMEM. */
int gw_parallel_new(const char *name, struct gw_parallel_budget *budget,
                    const struct gw_parallel_sink *sink, void *ctx, struct gw_parallel **parallel,
                    struct gw_error *err);
void gw_parallel_free(
    struct gw_parallel *parallel); /* gives its part of the budget back; takes NULL */

/** gw_parallel_take() - one packet's payload. What is early is copied, and costs of the budget; what is
 *  next goes to the sink at once, and what follows it.
 *  Return: 0, or
 *    -EBADMSG  too short, or of another version
 *    -EPROTO   an index that cannot be: there already, passed, reserved, or above the configuration's; a
 *              second configuration
 *    -ENOBUFS  more would be held than the budget has
 *    -ENOMEM, or what the sink said */
int gw_parallel_take(struct gw_parallel *parallel, const void *payload, size_t bytes,
                     struct gw_error *err);
/** gw_parallel_finish() - is all of it there? -EBADMSG: it names the index that is missing. */
int gw_parallel_finish(const struct gw_parallel *parallel, struct gw_error *err);

#endif

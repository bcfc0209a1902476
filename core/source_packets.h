/* SPDX-License-Identifier: MIT */
/* core/source_packets.h - device state that goes beside the stream: complete_precopy of devices that opted in
 * (GW_DEVICE_WORKER) is called on workers, and what it writes goes over page endpoints. All of this is the
 * engine's thread. Where no device takes part there is none of it (src->packing is NULL), and each of these
 * does nothing. */
#ifndef GW_CORE_SOURCE_PACKETS_H
#define GW_CORE_SOURCE_PACKETS_H

#include "core/source.h"

/* After setup, when it is known who takes part. */
int gw_source_packets_open(struct gw_source *src, struct gw_error *err);
bool gw_source_packs(const struct gw_source *src);   /* [loop's thread, too] */
void gw_source_packets_begin(struct gw_source *src); /* the guest is paused */
/* What may be made and sent now. Return: when to step again. */
uint64_t gw_source_packets_step(struct gw_source *src, uint64_t now_ns);
void gw_source_on_packets_loaded(struct gw_source *src, const struct gw_message *msg);
/* Every device is done, and the target has loaded all of it. */
bool gw_source_packets_are_loaded(const struct gw_source *src);
/* Once all devices are done: put what ends their sections into the stream, in the devices' order. False: not
 * yet. */
bool gw_source_packets_end(struct gw_source *src);
void gw_source_packets_give_up(struct gw_source *src);         /* no callback begins any more */
bool gw_source_packets_are_quiet(const struct gw_source *src); /* no callback is at a worker */
uint64_t gw_source_packets_moved(const struct gw_source *src); /* grows with whatever moves */
void gw_source_packets_stop(struct gw_source *src);            /* page endpoints are stopped */
void gw_source_packets_close(struct gw_source *src);           /* and it is quiet */

#endif

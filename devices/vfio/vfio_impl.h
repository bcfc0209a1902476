/* SPDX-License-Identifier: MIT */
/* devices/vfio/vfio_impl.h - inside vfio_*.c only. */
#ifndef GODWIT_DEVICES_VFIO_VFIO_IMPL_H
#define GODWIT_DEVICES_VFIO_VFIO_IMPL_H

#include "devices/vfio/vfio.h"

enum gw_vfio_load_step {
    GW_VFIO_LOAD_NEW,    /* SETUP has to come */
    GW_VFIO_LOAD_DATA,   /* DATA may come */
    GW_VFIO_LOAD_CONFIG, /* CONFIG came in an earlier section: no DATA any more */
};

struct gw_vfio {
    struct gw_odev odev;
    struct gw_vfio_config config; /* name is our own */
    struct gw_vfio_stats stats;
    uint8_t *piece; /* GW_VFIO_PIECE_BYTES, while its state is read */

    /* source */
    bool saving;      /* between setup and cleanup */
    bool interrupted; /* the device was started in mid-transfer: what was sent is void */
    bool init_sent;
    uint32_t acks_wanted;                /* since set-up */
    uint64_t initial_bytes, dirty_bytes; /* as last told, less what was read since */
    uint64_t sent_bytes;

    /* target */
    enum gw_vfio_load_step load_step;
    bool init_loaded;
    bool announced, total_seen;
    uint64_t loaded_bytes, total_bytes;
};

int gw_vfio_piece_alloc(struct gw_vfio *vfio, struct gw_error *err);
void gw_vfio_piece_free(struct gw_vfio *vfio);
/* Until the driver gives or takes again. -ETIMEDOUT after stall_timeout_ms; without a descriptor to wait
 * for, a millisecond each of so many calls. */
int gw_vfio_wait(struct gw_vfio *vfio, short events, unsigned *waited_ms, struct gw_error *err);

#endif

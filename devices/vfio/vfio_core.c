// SPDX-License-Identifier: MIT
/* What both sides of an opaque device's migration share: its life, the one buffer that state passes
 * through, waiting for a driver that has nothing to give or no room to take, and stopping and starting
 * all of a guest's devices in two phases, so that none writes into another that has stopped. */
#include "devices/vfio/vfio_impl.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define STALL_TIMEOUT_MS 10000u
#define WAIT_SLICE_MS 100

static int check_config(const struct gw_vfio_config *config, struct gw_error *err)
{
    if (config->struct_bytes < sizeof(*config) || !config->name || !config->ops)
        return gw_error_set(err, -EINVAL, GW_CODE_INVALID,
                            "an opaque device: struct_bytes, name or ops is not set");
    const struct gw_odev_ops *ops = config->ops;
    if (ops->struct_bytes < sizeof(*ops) || !ops->caps || !ops->get_state || !ops->set_state ||
        !ops->reset || !ops->read || !ops->estimate || !ops->poll_fd ||
        !ops->save_config != !ops->load_config)
        return gw_error_set(err, -EINVAL, GW_CODE_INVALID,
                            "device '%s': the table of its driver is incomplete", config->name);
    return 0;
}

int gw_vfio_new(const struct gw_vfio_config *config, struct gw_vfio **vfio, struct gw_error *err)
{
    int rc = check_config(config, err);
    if (rc < 0)
        return rc;
    struct gw_vfio *v = calloc(1, sizeof(*v));
    char *name = strdup(config->name);
    if (!v || !name) {
        free(v);
        free(name);
        return gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY, "device '%s': out of memory",
                            config->name);
    }
    v->config = *config;
    v->config.name = name;
    if (v->config.stall_timeout_ms == 0)
        v->config.stall_timeout_ms = STALL_TIMEOUT_MS;
    v->odev = (struct gw_odev){.ops = config->ops, .dev = config->dev, .name = name};
    rc = gw_odev_init(&v->odev, err);
    if (rc == 0 && v->odev.caps.chunked && !config->ops->next)
        rc = gw_error_set(err, -EINVAL, GW_CODE_INVALID,
                          "device '%s': its state comes in chunks, and next is not set", name);
    if (rc < 0) {
        gw_vfio_free(v);
        return rc;
    }
    *vfio = v;
    return 0;
}

void gw_vfio_free(struct gw_vfio *v)
{
    if (!v)
        return;
    gw_vfio_piece_free(v);
    free((char *)(uintptr_t)v->config.name);
    free(v);
}

const char *gw_vfio_name(const struct gw_vfio *v)
{
    return v->config.name;
}

enum gw_odev_state gw_vfio_state(const struct gw_vfio *v)
{
    return v->odev.state;
}

void gw_vfio_stats(const struct gw_vfio *v, struct gw_vfio_stats *stats)
{
    *stats = v->stats;
    stats->moves = v->odev.moves;
    stats->recoveries = v->odev.recoveries;
    stats->resets = v->odev.resets;
}

int gw_vfio_piece_alloc(struct gw_vfio *v, struct gw_error *err)
{
    if (!v->piece)
        v->piece = malloc(GW_VFIO_PIECE_BYTES);
    if (!v->piece)
        return gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY,
                            "device '%s': a buffer of %zu bytes: out of memory", v->config.name,
                            GW_VFIO_PIECE_BYTES);
    return 0;
}

void gw_vfio_piece_free(struct gw_vfio *v)
{
    free(v->piece);
    v->piece = NULL;
}

/* In slices, and counted instead of timed: a slice that ended early counts as one that did not. */
int gw_vfio_wait(struct gw_vfio *v, short events, unsigned *waited_ms, struct gw_error *err)
{
    struct pollfd fd = {.fd = v->odev.ops->poll_fd(v->odev.dev), .events = events};
    int slice = fd.fd < 0 ? 1 : WAIT_SLICE_MS;
    if (*waited_ms >= v->config.stall_timeout_ms)
        return gw_error_set(err, -ETIMEDOUT, GW_CODE_TIMEOUT,
                            "device '%s': its driver %s nothing for %u ms", v->config.name,
                            events & POLLIN ? "gives" : "takes", *waited_ms);
    int rc = poll(&fd, fd.fd < 0 ? 0 : 1, slice);
    *waited_ms += rc > 0 ? 1 : (unsigned)slice;
    return 0;
}

/* ---- all of a guest's ------------------------------------------------------------------------ */

int gw_vfio_check_all(struct gw_vfio *const *list, unsigned count, struct gw_error *err)
{
    for (unsigned i = 0; count > 1 && i < count; i++) {
        const struct gw_odev_caps *caps = &list[i]->odev.caps;
        if (caps->quiesce || caps->chunked) /* a staging region knows no such state at all */
            continue;
        gw_error_set(err, -EOPNOTSUPP, GW_CODE_UNSUPPORTED,
                     "device '%s': it cannot be quiesced, and %u devices stop one after the other",
                     list[i]->config.name, count);
        gw_error_hint(err, "take all of them but one out of the guest before it moves");
        return -EOPNOTSUPP;
    }
    return 0;
}

static bool is_stopped(enum gw_odev_state state)
{
    return state == GW_ODEV_STOP || state == GW_ODEV_STOP_COPY || state == GW_ODEV_RESUMING;
}

static int quiesce(struct gw_vfio *v, struct gw_error *err)
{
    enum gw_odev_state state = v->odev.state;
    if (!v->odev.caps.quiesce || is_stopped(state))
        return 0;
    if (gw_odev_state_is_saving(state))
        return gw_odev_move(&v->odev, GW_ODEV_PRE_COPY_P2P, state, err);
    return gw_odev_move(&v->odev, GW_ODEV_RUNNING_P2P, GW_ODEV_RUNNING, err);
}

static int stop(struct gw_vfio *v, struct gw_error *err)
{
    if (is_stopped(v->odev.state))
        return 0;
    /* Directly from one state of saving to another: by way of STOP the transfer would be lost. */
    enum gw_odev_state want =
        gw_odev_state_is_saving(v->odev.state) ? GW_ODEV_STOP_COPY : GW_ODEV_STOP;
    return gw_odev_move(&v->odev, want, GW_ODEV_STOP, err);
}

int gw_vfio_stop_all(struct gw_vfio *const *list, unsigned count, struct gw_error *err)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < count; i++)
        rc = quiesce(list[i], err);
    for (unsigned i = 0; rc == 0 && i < count; i++)
        rc = stop(list[i], err);
    if (rc < 0)
        gw_vfio_start_all(list, count, NULL);
    return rc;
}

int gw_vfio_start_all(struct gw_vfio *const *list, unsigned count, struct gw_error *err)
{
    struct gw_error other = GW_ERROR_INIT;
    int first = 0;
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < count; i++) {
            struct gw_vfio *v = list[i];
            enum gw_odev_state want = pass == 0 ? GW_ODEV_RUNNING_P2P : GW_ODEV_RUNNING;
            if (pass == 0 && !v->odev.caps.quiesce)
                continue;
            if (v->saving && v->odev.state != GW_ODEV_RUNNING)
                v->interrupted = true;
            if (pass == 0 && v->odev.state == GW_ODEV_RUNNING)
                continue;
            int rc = gw_odev_move(&v->odev, want, GW_ODEV_ERROR, first < 0 ? &other : err);
            if (rc < 0 && first == 0)
                first = rc;
        }
    }
    return first;
}

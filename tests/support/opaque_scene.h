/* SPDX-License-Identifier: MIT */
/* tests/support/opaque_scene.h - a pair (pair.h) whose guest has opaque devices, the simulated vendor's. */
#ifndef GW_TEST_SUPPORT_OPAQUE_SCENE_H
#define GW_TEST_SUPPORT_OPAQUE_SCENE_H

#include "devices/vfio/vfio.h"
#include "tests/support/pair.h"
#include "tests/support/vendor.h"

#define OPAQUE_DEVICES_MAX 2

struct opaque_end { /* the devices of one side */
    struct vendor *vendor[OPAQUE_DEVICES_MAX];
    struct gw_staging *staging[OPAQUE_DEVICES_MAX];
    struct gw_feature *feature[OPAQUE_DEVICES_MAX];
    struct gw_vfio *vfio[OPAQUE_DEVICES_MAX];
};

struct opaque_scene {
    /* set by the test before opaque_scene_init(), or left */
    struct pair pair;
    unsigned devices; /* 0: 1 */
    bool ack;
    enum gw_block_kind kind;
    const char *downtime_limit; /* NULL: the default */
    uint32_t target_blocks;     /* of the target's device; 0: as the source's */
    struct vendor_config config;

    struct opaque_end src, dst;
    bool staging;
    unsigned owed;
    char uri[128];
};

/* Of so many bytes, with nothing odd about it. */
struct vendor_config opaque_config(uint64_t bytes);
/* What a test moves over @way if it is to be much: a gibibyte. A sixteenth of it under a sanitizer, and over
 * rdma, whose hosts are emulated, unless GODWIT_TEST_FULL asks for all of it: that takes minutes. */
uint64_t opaque_state_bytes(const char *way);
#define OPAQUE_STATE_S 1500 /* in which that is there, in emulation under a sanitizer too */
/* @way: "tcp_staging", "unix_feature", "ofi_...", "rdma_...": wire and interface. Skips where there is no such
 * wire. */
void opaque_scene_init(struct opaque_scene *scene, const char *way);
void opaque_scene_begin(struct opaque_scene *scene); /* the migration */
/* Until that is true; meanwhile the devices work, so many writes a millisecond. False: not in time. */
bool opaque_scene_until(struct opaque_scene *scene, bool (*done)(struct opaque_scene *),
                        unsigned writes_a_ms, unsigned seconds);
/* Begins, and until both sides have ended; meanwhile the devices work, so many writes a millisecond. False: they did
 * not end in time. */
bool opaque_scene_finish(struct opaque_scene *scene, unsigned writes_a_ms, unsigned seconds);
void opaque_scene_expect_moved(struct opaque_scene *scene);
/* The guest and its device run on at the source, which says so. */
void opaque_scene_expect_failed(struct opaque_scene *scene, const char *says);
void opaque_scene_fini(struct opaque_scene *scene);

/* Its parts, for a test that has another guest. scene->config, staging, ack and devices are set. */
const char *opaque_uri(struct opaque_scene *scene, const char *way); /* NULL: tcp, any loopback */
unsigned opaque_writes(struct opaque_scene *scene, unsigned writes); /* fewer where that is slow */
struct gw_params *opaque_params(const char *downtime_limit);
void opaque_device_open(struct opaque_scene *scene, struct opaque_end *end, unsigned i);
void opaque_end_close(struct opaque_scene *scene, struct opaque_end *end);

#endif

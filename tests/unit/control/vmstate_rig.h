/* SPDX-License-Identifier: MIT */
/* tests/unit/control/vmstate_rig.h - save an object to bytes, load bytes into an object. */
#ifndef GW_TEST_VMSTATE_RIG_H
#define GW_TEST_VMSTATE_RIG_H

#include "control/stream.h"
#include "core/base/alloc.h"
#include "tests/shim/gw_test.h"

#include <godwit/vmstate.h>
#include <stdio.h>
#include <string.h>

static struct gw_error rig_err;

static inline struct gw_vmstate_device rig_device(const struct gw_vmstate *vmsd, void *opaque)
{
    rig_err = (struct gw_error)GW_ERROR_INIT;
    return (struct gw_vmstate_device){.struct_bytes = sizeof(struct gw_vmstate_device),
                                      .vmsd = vmsd,
                                      .opaque = opaque,
                                      .name = "0000:00:04.0/dev",
                                      .instance_id = 3,
                                      .machine = "pc-7.2"};
}

/* To @w, which is made here. */
static inline int rig_save(const struct gw_vmstate *vmsd, void *opaque, struct gw_writer *w)
{
    struct gw_vmstate_device dev = rig_device(vmsd, opaque);
    gw_writer_init(w, 1 << 20);
    return gw_vmstate_save(&dev, w, &rig_err);
}

/* All of @data must be taken, unless the load fails. */
static inline int rig_load_version(const struct gw_vmstate *vmsd, void *opaque, const void *data,
                                   size_t bytes, uint32_t version_id)
{
    struct gw_vmstate_device dev = rig_device(vmsd, opaque);
    struct gw_reader r;
    gw_reader_init(&r, data, bytes);
    int rc = gw_vmstate_load(&dev, &r, version_id, &rig_err);
    if (rc == 0)
        GW_EXPECT_EQ(gw_reader_left(&r), 0);
    else
        GW_EXPECT(rig_err.rc == rc && rig_err.message[0] != '\0');
    return rc;
}

static inline int rig_load(const struct gw_vmstate *vmsd, void *opaque, const void *data,
                           size_t bytes)
{
    return rig_load_version(vmsd, opaque, data, bytes, vmsd->version_id);
}

/* A load must fail, and say this. */
#define RIG_EXPECT_REFUSED(rc, expected_rc, text)                                                  \
    do {                                                                                           \
        GW_EXPECT_EQ(rc, expected_rc);                                                             \
        GW_EXPECT_STREQ(rig_err.message, text);                                                    \
    } while (0)

#endif

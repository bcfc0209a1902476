// SPDX-License-Identifier: MIT
/* A device's state, loaded by a table. The first byte says by which: that of every kind of field, or one
 * made up from the four bytes after it. A load that fails leaves the object as it was; one that does not
 * gives one that is saved; or refused, where it says now that there should be what did not come. */
#include "control/stream.h"
#include "core/base/alloc.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/vmstate_random.h"
#include "tests/support/vmstate_sink.h"

#define STATE_BYTES_MAX (1u << 20)

static struct gw_vmstate_device device_of(const struct gw_vmstate *vmsd, void *opaque)
{
    return (struct gw_vmstate_device){
        .struct_bytes = sizeof(struct gw_vmstate_device), .vmsd = vmsd, .opaque = opaque};
}

static void save(const struct gw_vmstate *vmsd, void *object, struct gw_writer *w)
{
    struct gw_vmstate_device dev = device_of(vmsd, object);
    gw_writer_init(w, STATE_BYTES_MAX);
    FUZZ_MUST(gw_vmstate_save(&dev, w, NULL) == 0);
}

/* @object is whole, before and after. */
static void load(const struct gw_vmstate *vmsd, void *object, struct fuzz_input *in)
{
    struct gw_vmstate_device dev = device_of(vmsd, object);
    struct gw_error err = GW_ERROR_INIT;
    struct gw_writer before, after;
    struct gw_reader r;
    uint32_t version_id = fuzz_u8(in) & 7;
    save(vmsd, object, &before);
    gw_reader_init(&r, in->at, in->left);
    int rc = gw_vmstate_load(&dev, &r, version_id, &err);
    if (rc < 0) {
        fuzz_refused(rc, &err);
        save(vmsd, object, &after);
        FUZZ_MUST(before.bytes == after.bytes);
        FUZZ_MUST(memcmp(before.data, after.data, after.bytes) == 0);
    } else {
        gw_writer_init(&after, STATE_BYTES_MAX);
        rc = gw_vmstate_save(&dev, &after, &err);
        if (rc < 0)
            fuzz_refused(rc, &err);
    }
    gw_writer_fini(&before);
    gw_writer_fini(&after);
}

static void load_sink(struct fuzz_input *in)
{
    struct sink s;
    sink_init(&s);
    sink_fill(&s);
    load(&sink_vmsd, &s, in);
    sink_fini(&s);
}

static void load_random(struct fuzz_input *in)
{
    struct random_world world;
    uint64_t seed = fuzz_u32(in);
    struct random_desc *d = random_world_init(&world, seed);
    uint64_t state = ~seed;
    char *object = random_object_new(d);
    random_object_fill(d, object, &state);
    load(&d->vmsd, object, in);
    random_object_free(d, object);
    random_world_fini(&world);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct fuzz_input in = {data, bytes};
    int64_t live = gw_alloc_live();
    if (fuzz_u8(&in) & 1)
        load_random(&in);
    else
        load_sink(&in);
    FUZZ_MUST(gw_alloc_live() == live);
    return 0;
}

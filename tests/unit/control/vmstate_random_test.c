// SPDX-License-Identifier: MIT
/* Descriptions and values that nobody thought of: what is saved is what is loaded, and whatever a byte
 * is changed to, a load fails and leaves the object as it was, or gives one that can be saved.
 * GODWIT_VMSTATE_SEEDS says how many (100000); the thread sanitizer looks at a tenth unless told. */
#include "control/stream_describe.h"
#include "control/vmdesc.h"
#include "tests/support/vmstate_random.h"
#include "tests/unit/control/vmstate_rig.h"

#include <jansson.h>
#include <stdlib.h>

#ifdef __SANITIZE_THREAD__
#define SEEDS 10000
#else
#define SEEDS 100000
#endif
#define DESCRIPTION_MAX (1u << 20)

static unsigned seeds(void)
{
    const char *text = getenv("GODWIT_VMSTATE_SEEDS");
    return text ? (unsigned)strtoul(text, NULL, 10) : SEEDS;
}

static struct gw_writer saved, again;

static bool save_to(struct gw_writer *w, const struct random_desc *d, char *object)
{
    struct gw_vmstate_device dev = rig_device(&d->vmsd, object);
    gw_writer_reset(w);
    return gw_vmstate_save(&dev, w, &rig_err) == 0;
}

static int load_from(const struct random_desc *d, char *object, const void *data, size_t bytes)
{
    struct gw_vmstate_device dev = rig_device(&d->vmsd, object);
    struct gw_reader r;
    gw_reader_init(&r, data, bytes);
    return gw_vmstate_load(&dev, &r, d->vmsd.version_id, &rig_err);
}

static bool is_same(const struct gw_writer *a, const struct gw_writer *b)
{
    return a->bytes == b->bytes && memcmp(a->data, b->data, a->bytes) == 0;
}

/* Everything about one seed that must hold; says what does not. */
#define MUST(claim)                                                                                \
    do {                                                                                           \
        if (!(claim))                                                                              \
            GW_FAIL("seed %llu: %s (%s)", (unsigned long long)seed, #claim, rig_err.message);      \
    } while (0)

/* A body that is not what was saved. @b holds what was. Returns an object that does. */
static char *load_changed(uint64_t seed, const struct random_desc *d, char *b, const void *data,
                          size_t bytes)
{
    int rc = load_from(d, b, data, bytes);
    if (rc < 0) {
        MUST(rig_err.rc == rc && rig_err.code == GW_CODE_DEVICE);
        MUST(strstr(rig_err.message, "machine 'pc-7.2': device '0000:00:04.0/dev' instance 3: "));
        MUST(strstr(rig_err.message, " at offset "));
        MUST(save_to(&again, d, b) && is_same(&saved, &again));
        return b;
    }
    /* It is another object, and a whole one: unless it says now that it needs what did not come, which
     * only a device can know. */
    if (save_to(&again, d, b)) {
        char *c = random_object_new(d);
        if (load_from(d, c, again.data, again.bytes) == 0)
            MUST(random_is_equal(d, b, c, d->vmsd.version_id));
        else /* bytes behind a structure that now read like a subsection of it: the format's own */
            MUST(strstr(rig_err.message, ": subsection '"));
        random_object_free(d, c);
    } else {
        MUST(strstr(rig_err.message, "it points nowhere"));
    }
    random_object_free(d, b);
    b = random_object_new(d);
    MUST(load_from(d, b, saved.data, saved.bytes) == 0);
    return b;
}

static void check_seed(uint64_t seed, unsigned changes)
{
    struct random_world world;
    struct random_desc *d = random_world_init(&world, seed);
    uint64_t state = ~seed;
    int64_t live = gw_alloc_live();
    char *a = random_object_new(d), *b = random_object_new(d);
    random_object_fill(d, a, &state);
    rig_err = (struct gw_error)GW_ERROR_INIT;
    MUST(gw_vmstate_check(&d->vmsd, &rig_err) == 0);
    MUST(save_to(&saved, d, a));
    MUST(load_from(d, b, saved.data, saved.bytes) == 0);
    MUST(random_is_equal(d, a, b, d->vmsd.version_id));
    MUST(save_to(&again, d, b) && is_same(&saved, &again));
    uint8_t *changed = malloc(saved.bytes);
    MUST(changed != NULL);
    for (unsigned i = 0; i < changes; i++) {
        memcpy(changed, saved.data, saved.bytes);
        /* Few changes: anywhere. Many: every byte in turn. */
        size_t at =
            changes < saved.bytes ? random_below(&state, (unsigned)saved.bytes) : i % saved.bytes;
        changed[at] ^= (uint8_t)(1 + random_below(&state, 255));
        b = load_changed(seed, d, b, changed, saved.bytes);
    }
    size_t cut = random_below(&state, (unsigned)saved.bytes);
    uint8_t *piece = malloc(cut ? cut : 1); /* its end is the end of memory */
    MUST(piece != NULL);
    memcpy(piece, saved.data, cut);
    b = load_changed(seed, d, b, piece, cut);
    free(piece);
    free(changed);
    random_object_free(d, a);
    random_object_free(d, b);
    MUST(gw_alloc_live() == live);
    random_world_fini(&world);
}

static void begin(void)
{
    gw_writer_init(&saved, DESCRIPTION_MAX);
    gw_writer_init(&again, DESCRIPTION_MAX);
    /* So that they do not count as what a seed allocated. */
    gw_writer_bytes(&saved, "", 1);
    gw_writer_bytes(&again, "", 1);
}

static void end(void)
{
    gw_writer_fini(&saved);
    gw_writer_fini(&again);
}

GW_TEST(vmstate_random, what_is_saved_is_loaded_and_a_changed_byte_does_no_harm)
{
    begin();
    for (uint64_t seed = 0; seed < seeds(); seed++)
        check_seed(seed, 3);
    end();
}

GW_TEST(vmstate_random, every_byte_may_be_changed)
{
    begin();
    for (uint64_t seed = 0; seed < seeds() / 1000; seed++)
        check_seed(UINT64_C(1) << 40 | seed, 4096);
    end();
}

/* ---- running out of memory --------------------------------------------------------------------- */

GW_TEST(vmstate_random, each_allocation_may_fail)
{
    begin();
    for (uint64_t seed = 0; seed < seeds() / 50; seed++) {
        struct random_world world;
        struct random_desc *d = random_world_init(&world, seed);
        uint64_t state = ~seed;
        int64_t live = gw_alloc_live();
        char *a = random_object_new(d), *b = random_object_new(d);
        random_object_fill(d, a, &state);
        MUST(save_to(&saved, d, a));
        MUST(load_from(d, b, saved.data, saved.bytes) == 0);
        int rc = -ENOMEM;
        for (int64_t countdown = 0; rc < 0; countdown++) {
            gw_alloc_fail_after(countdown);
            rc = load_from(d, b, saved.data, saved.bytes);
            gw_alloc_fail_after(-1);
            MUST(rc == 0 || (rc == -ENOMEM && rig_err.rc == rc));
            MUST(save_to(&again, d, b) && is_same(&saved, &again));
        }
        random_object_free(d, a);
        random_object_free(d, b);
        MUST(gw_alloc_live() == live);
        random_world_fini(&world);
    }
    end();
}

/* ---- the description --------------------------------------------------------------------------- */

/* Bytes that a description's members say, by the rules of a reader that knows nothing else: fields by
 * size, arrays by array_len, then subsections, each behind 5 bytes and its name. */
static size_t described_bytes(const json_t *state)
{
    size_t bytes = 0, i;
    const json_t *item;
    json_array_foreach(json_object_get(state, "fields"), i, item)
    {
        const json_t *len = json_object_get(item, "array_len");
        size_t size = (size_t)json_integer_value(json_object_get(item, "size"));
        bytes += size * (len ? (size_t)json_integer_value(len) : 1);
        const json_t *inner = json_object_get(item, "struct");
        if (inner && described_bytes(inner) != size)
            return SIZE_MAX / 2;
    }
    json_array_foreach(json_object_get(state, "subsections"), i, item) bytes +=
        6 + json_string_length(json_object_get(item, "vmsd_name")) + described_bytes(item);
    return bytes;
}

GW_TEST(vmstate_random, description_adds_up_to_the_bytes_written)
{
    begin();
    for (uint64_t seed = 0; seed < seeds() / 10; seed++) {
        struct random_world world;
        struct random_desc *d = random_world_init(&world, seed);
        uint64_t state = ~seed;
        char *a = random_object_new(d);
        random_object_fill(d, a, &state);
        MUST(save_to(&again, d, a));
        struct gw_vmdesc desc;
        gw_vmdesc_init(&desc, 4096, DESCRIPTION_MAX);
        gw_vmdesc_device_begin(&desc, "dev", 0);
        saved.desc = &desc;
        MUST(save_to(&saved, d, a) && is_same(&saved, &again));
        saved.desc = NULL;
        gw_vmdesc_device_end(&desc, saved.bytes);
        gw_vmdesc_end(&desc);
        MUST(gw_writer_error(&desc.text) == 0);
        json_error_t why;
        json_t *json = json_loadb((const char *)desc.text.data, desc.text.bytes, 0, &why);
        if (!json)
            GW_FAIL("seed %llu: %s at %d: %.*s", (unsigned long long)seed, why.text, why.position,
                    (int)desc.text.bytes, (const char *)desc.text.data);
        const json_t *device = json_array_get(json_object_get(json, "devices"), 0);
        MUST(json_string_length(json_object_get(device, "vmsd_name")) == 5);
        MUST(described_bytes(device) == saved.bytes);
        json_decref(json);
        /* And whoever reads streams finds its way through the bytes. */
        struct gw_description *read;
        size_t fault_at = 0;
        uint64_t bytes;
        MUST(gw_description_new((const char *)desc.text.data, desc.text.bytes, &read, &fault_at,
                                &rig_err) == 0);
        MUST(gw_description_measure(read, 0, &bytes, &rig_err) == 0 && bytes == saved.bytes);
        MUST(gw_description_walk(read, 0, saved.data, saved.bytes, NULL, NULL, &fault_at,
                                 &rig_err) == 0);
        gw_description_free(read);
        gw_vmdesc_fini(&desc);
        random_object_free(d, a);
        random_world_fini(&world);
    }
    end();
}

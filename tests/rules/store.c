// SPDX-License-Identifier: MIT
/* Both sides of a store, and the scene around it. */
#include "tests/rules/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void store_note(char *log, const struct store *store, const char *what)
{
    static pthread_mutex_t lock =
        PTHREAD_MUTEX_INITIALIZER; /* handlers at workers note side by side */
    char step[64];
    snprintf(step, sizeof(step), "%s(%s) ", what, store ? store->name : "");
    pthread_mutex_lock(&lock);
    if (!strstr(log, step))
        strncat(log, step, 511 - strlen(log));
    pthread_mutex_unlock(&lock);
}

static uint8_t byte_at(const struct store *store, uint64_t at)
{
    return (uint8_t)((at * 2654435761u >> 11) + (uint8_t)store->name[0]);
}

static int fail_if(const struct store *store, enum failing where, struct gw_error *err)
{
    if (store->scene->failing != where)
        return 0;
    return gw_error_set(err, -EIO, GW_CODE_DEVICE, "as the test wanted");
}

/* ---- the source's side -------------------------------------------------------------------------- */

static int store_setup(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    struct store *store = opaque;
    store_note(store->scene->source_log, store, "setup");
    store->setups++;
    gw_writer_be64(w, store->bytes);
    return fail_if(store, FAILS_SETUP, err);
}

static int store_estimate(void *opaque, struct gw_device_pending *pending, struct gw_error *err)
{
    struct store *store = opaque;
    store_note(store->scene->source_log, store, "estimate");
    pending->must_precopy_bytes = store->bytes - store->sent;
    pending->acks_wanted = store->acks_wanted;
    if (store->estimates++ < store->untrue_estimates)
        pending->must_precopy_bytes = UINT64_MAX / 4;
    return fail_if(store, FAILS_ESTIMATE, err);
}

static int store_exact(void *opaque, struct gw_device_pending *pending, struct gw_error *err)
{
    struct store *store = opaque;
    store_note(store->scene->source_log, store, "exact");
    pending->must_precopy_bytes = store->bytes - store->sent;
    pending->acks_wanted = store->acks_wanted;
    if (store->exacts++ < store->untrue_exacts)
        pending->can_postcopy_bytes = UINT64_MAX / 4;
    return fail_if(store, FAILS_EXACT, err);
}

static void write_some(struct store *store, struct gw_writer *w, uint64_t bytes, uint64_t end)
{
    uint64_t some = end - store->sent < bytes ? end - store->sent : bytes;
    gw_writer_be64(w, some);
    for (uint64_t i = 0; i < some; i++)
        gw_writer_u8(w, byte_at(store, store->sent + i));
    store->sent += some;
}

static int store_iterate(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                         struct gw_error *err)
{
    struct store *store = opaque;
    store_note(store->scene->source_log, store, "iterate");
    if (bytes_max > store->bytes_max_seen)
        store->bytes_max_seen = bytes_max;
    if (store->sent >= store->live_bytes)
        return GW_DEVICE_DONE;
    write_some(store, w, store->step_bytes ? store->step_bytes : bytes_max, store->live_bytes);
    int rc = fail_if(store, FAILS_ITERATE, err);
    if (rc < 0)
        return rc;
    return store->step_bytes || store->sent == store->live_bytes ? GW_DEVICE_DONE : 0;
}

static int store_complete(void *opaque, struct gw_writer *w, uint64_t bytes_max,
                          struct gw_error *err)
{
    struct store *store = opaque;
    store_note(store->scene->source_log, store, "complete");
    if (!store->scene->paused)
        store->wrong = true;
    write_some(store, w, bytes_max, store->bytes);
    int rc = fail_if(store, FAILS_COMPLETE, err);
    return rc < 0 ? rc : store->sent == store->bytes ? GW_DEVICE_DONE : 0;
}

static int store_save(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    struct store *store = opaque;
    store_note(store->scene->source_log, store, "save");
    gw_writer_be32(w, 0x5a5a);
    return fail_if(store, FAILS_SAVE, err);
}

static void store_cleanup(void *opaque)
{
    struct store *store = opaque;
    store_note(store->scene->source_log, store, "cleanup");
    store->cleanups++;
}

int store_pause(struct pair *pair)
{
    struct store_scene *scene = (struct store_scene *)pair;
    store_note(scene->source_log, NULL, "pause");
    scene->paused = true;
    return 0;
}

static int resume_hook(struct pair *pair)
{
    struct store_scene *scene = (struct store_scene *)pair;
    store_note(scene->source_log, NULL, "resume");
    scene->paused = false;
    return 0;
}

/* ---- the target's side -------------------------------------------------------------------------- */

static int store_load_setup(void *opaque, struct gw_error *err)
{
    struct store *store = opaque;
    store_note(store->scene->target_log, store, "load_setup");
    store->load_setups++;
    return fail_if(store, FAILS_LOAD_SETUP, err);
}

bool store_ack_needed(void *opaque)
{
    struct store *store = opaque;
    store_note(store->scene->target_log, store, "ack_needed");
    return !store->wants_no_ack;
}

static void read_some(struct store *store, struct gw_reader *r)
{
    uint64_t some = gw_reader_be64(r);
    const uint8_t *bytes = gw_reader_take(r, some);
    for (uint64_t i = 0; bytes && i < some; i++)
        store->wrong |= bytes[i] != byte_at(store, store->loaded + i);
    store->loaded += bytes ? some : 0;
}

static int load_part(struct store *store, struct gw_reader *r, struct gw_error *err)
{
    if (store->scene->failing == READS_LESS)
        return 0;
    read_some(store, r);
    if (store->scene->failing == READS_MORE)
        gw_reader_u8(r);
    store->parts++;
    int rc = fail_if(store, FAILS_LOAD_PART, err);
    if (rc < 0 || store->scene->failing == ACKS_UNASKED)
        return rc < 0 ? rc : GW_DEVICE_ACK;
    if (store->acks_given < 2 && store->parts == store->ack_after[store->acks_given]) {
        store->acks_given++;
        return GW_DEVICE_ACK;
    }
    return 0;
}

static int store_load(void *opaque, struct gw_reader *r, enum gw_device_part part,
                      uint32_t version_id, struct gw_error *err)
{
    static const char *const names[] = {"begin", "part", "end", "full"};
    struct store *store = opaque;
    store_note(store->scene->target_log, store, names[part]);
    store->version_loaded = version_id;
    switch (part) {
    case GW_DEVICE_BEGIN:
        store->wrong |= gw_reader_be64(r) != store->bytes;
        return fail_if(store, FAILS_LOAD_BEGIN, err);
    case GW_DEVICE_PART:
        return load_part(store, r, err);
    case GW_DEVICE_END:
        store->ends++;
        read_some(store, r);
        return fail_if(store, FAILS_LOAD_END, err);
    case GW_DEVICE_FULL:
        store->wrong |= gw_reader_be32(r) != 0x5a5a;
        return fail_if(store, FAILS_LOAD_FULL, err);
    }
    return -EINVAL;
}

static int store_load_complete(void *opaque, struct gw_error *err)
{
    struct store *store = opaque;
    store_note(store->scene->target_log, store, "load_complete");
    store->wrong |= store->loaded != store->bytes;
    return fail_if(store, FAILS_LOAD_COMPLETE, err);
}

static void store_load_cleanup(void *opaque)
{
    struct store *store = opaque;
    store_note(store->scene->target_log, store, "load_cleanup");
    store->load_cleanups++;
}

/* ---- the scene ---------------------------------------------------------------------------------- */

struct store_scene *store_scene_new(void)
{
    struct store_scene *scene = calloc(1, sizeof(*scene));
    GW_ASSERT(scene);
    scene->source_params = pair_params();
    scene->target_params = pair_params();
    static const char *const both[] = {"x-settle-timeout", "300", "x-hold-timeout", "300"};
    for (unsigned i = 0; i < 4; i += 2) {
        GW_EXPECT_EQ(gw_params_set(scene->source_params, both[i], both[i + 1], NULL), 0);
        GW_EXPECT_EQ(gw_params_set(scene->target_params, both[i], both[i + 1], NULL), 0);
    }
    /* Long: what is pending of a store is what the test says, not what the machine's speed makes of it. */
    GW_EXPECT_EQ(gw_params_set(scene->source_params, "downtime-limit", "20000", NULL), 0);
    scene->pair.params = scene->source_params;
    scene->pair.target_params = scene->target_params;
    scene->pair.pause = store_pause;
    scene->pair.resume = resume_hook;
    scene->pair.device_value = 7;
    scene->source_ops = (struct gw_device_ops){
        .struct_bytes = sizeof(scene->source_ops),
        .setup = store_setup,
        .pending_estimate = store_estimate,
        .pending_exact = store_exact,
        .iterate = store_iterate,
        .complete_precopy = store_complete,
        .cleanup = store_cleanup,
    };
    scene->target_ops = (struct gw_device_ops){
        .struct_bytes = sizeof(scene->target_ops),
        .load_setup = store_load_setup,
        .load = store_load,
        .load_complete = store_load_complete,
        .load_cleanup = store_load_cleanup,
    };
    return scene;
}

struct store *store_add(struct store_scene *scene, const char *name, uint64_t bytes,
                        uint64_t live_bytes)
{
    struct store *store = &scene->stores[scene->count++];
    *store = (struct store){.scene = scene, .name = name, .bytes = bytes, .live_bytes = live_bytes};
    return store;
}

void store_scene_open(struct store_scene *scene, unsigned saves)
{
    struct gw_error err = GW_ERROR_INIT;
    pair_add_block(&scene->pair, "ram0", 4 * MIB, GW_BLOCK_ANON, 100);
    pair_init(&scene->pair);
    for (unsigned i = 0; i < scene->count; i++) {
        struct store *store = &scene->stores[i];
        struct gw_device_desc desc = {.struct_bytes = sizeof(desc),
                                      .name = store->name,
                                      .version_id = 3,
                                      .minimum_version_id = 2,
                                      .priority = (int32_t)i, /* the last added comes first */
                                      .flags = scene->source_flags,
                                      .opaque = store,
                                      .save = i < saves ? store_save : NULL,
                                      .ops = &scene->source_ops};
        GW_ASSERT_EQ(gw_source_add_device(scene->pair.src, &desc, &err), 0);
        desc.save = NULL;
        desc.flags = i < scene->target_plain ? 0 : scene->target_flags;
        desc.ops = &scene->target_ops;
        GW_ASSERT_EQ(gw_target_add_device(scene->pair.tgt, &desc, &err), 0);
    }
    pair_listen(&scene->pair);
    pair_start(&scene->pair);
}

void store_scene_close(struct store_scene *scene)
{
    pair_fini(&scene->pair);
    gw_params_free(scene->source_params);
    gw_params_free(scene->target_params);
    for (unsigned i = 0; i < scene->count; i++) {
        struct store *store = &scene->stores[i];
        GW_EXPECT(!store->wrong);
        GW_EXPECT_EQ(store->cleanups, scene->source_ops.cleanup ? 1 : 0);
        GW_EXPECT_EQ(store->load_cleanups, scene->target_ops.load_cleanup ? 1 : 0);
    }
    free(scene);
}

void store_expect_moved(struct store_scene *scene)
{
    struct pair *pair = &scene->pair;
    GW_EXPECT(pair_finish(pair, SECONDS));
    if (pair->source_rc != 0 || pair->target_rc != 0)
        GW_FAIL("source: %s; target: %s", pair->source_err.message, pair->target_err.message);
    GW_EXPECT(pair->target_runs);
    GW_EXPECT_EQ(pair->device_loaded, 7);
    GW_EXPECT_EQ(pair_differs(pair), -1);
    for (unsigned i = 0; i < scene->count; i++)
        GW_EXPECT_EQ(scene->stores[i].loaded, scene->stores[i].bytes);
}

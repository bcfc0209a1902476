/* SPDX-License-Identifier: MIT */
/* tests/rules/store.h - a device with handlers: bytes that prove themselves, some of which go before the
 * pause and the rest in it; and a source and a target that have one or two of them. */
#ifndef GW_TESTS_RULES_STORE_H
#define GW_TESTS_RULES_STORE_H

#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"

#include <godwit/device.h>
#include <stdatomic.h>

#define MIB (UINT64_C(1) << 20)
#define KIB (UINT64_C(1) << 10)
#define SECONDS 60u
#define STORES_MAX 8u

enum failing {
    FAILS_NOWHERE,
    FAILS_SETUP,
    FAILS_ESTIMATE,
    FAILS_EXACT,
    FAILS_ITERATE,
    FAILS_COMPLETE,
    FAILS_SAVE,
    FAILS_LOAD_SETUP,
    FAILS_LOAD_BEGIN,
    FAILS_LOAD_PART,
    FAILS_LOAD_END,
    FAILS_LOAD_FULL,
    FAILS_LOAD_COMPLETE,
    READS_LESS,
    READS_MORE,
    ACKS_UNASKED,
};

struct store_scene;

struct store { /* both sides of one device: the loops of both are this thread's */
    struct store_scene *scene;
    const char *name;
    uint64_t bytes, live_bytes; /* in all; of them before the pause */
    uint64_t step_bytes;        /* of a PART before the pause; 0: as many as may be */
    uint64_t pending_too_much;  /* told above what is true, while more than this was not asked */
    unsigned estimates, exacts, untrue_estimates, untrue_exacts;
    _Atomic uint64_t sent, loaded; /* of handlers at workers: each side's own thread */
    uint64_t bytes_max_seen;
    unsigned parts, ends, setups, cleanups, load_setups, load_cleanups;
    unsigned ack_after[2], acks_wanted, acks_given; /* parts loaded before an acknowledgement */
    bool wants_no_ack;
    _Atomic bool wrong;
    uint32_t version_loaded;
};

struct store_scene {
    struct pair pair;
    struct gw_params *source_params, *target_params;
    struct store stores[STORES_MAX];
    unsigned count;
    uint32_t source_flags, target_flags; /* of the stores, but see target_plain */
    unsigned target_plain;               /* as many of the first have none at the target */
    struct gw_device_ops source_ops, target_ops;
    enum failing failing;
    char source_log[512], target_log[512]; /* each step once */
    _Atomic bool paused;
    unsigned stalls;
};

struct store_scene *store_scene_new(void);
struct store *store_add(struct store_scene *scene, const char *name, uint64_t bytes,
                        uint64_t live_bytes);
/* Listens and starts; the first @saves stores have a section of the pause's alone, too. */
void store_scene_open(struct store_scene *scene, unsigned saves);
void store_scene_close(struct store_scene *scene); /* who was set up was cleaned up, once */
void store_expect_moved(struct store_scene *scene);
/* Handlers that a test puts in, or calls from its own. */
int store_pause(struct pair *pair);
bool store_ack_needed(void *opaque);
/* Each step is in a log once. @store may be NULL. */
void store_note(char *log, const struct store *store, const char *what);

#endif

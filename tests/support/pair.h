/* SPDX-License-Identifier: MIT */
/* tests/support/pair.h - a source and a target in one process, through the public API only, on a real
 * wire: for tests that must reach into both sides. The guest is memory of the test's own with real
 * kernel dirty tracking and, if wanted, a thread that writes it until paused. */
#ifndef GW_TEST_PAIR_H
#define GW_TEST_PAIR_H

#include <godwit/source.h>
#include <godwit/target.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define PAIR_BLOCKS_MAX 16384

struct pair_block {
    char name[32];
    unsigned char *source, *target;
    uint64_t bytes;
    enum gw_block_kind kind;
    uint32_t flags; /* GW_BLOCK_*, set before pair_init() */
    int source_fd, target_fd;
};

struct pair {
    /* set by the test before pair_init(), or left */
    const char *listen_uri; /* NULL: loopback_any() */
    const char *faults;     /* of the source's connections: do=...; NULL: none */
    struct gw_params
        *params; /* of the source; NULL: pair_params(), and it ends however much is written */
    struct gw_params *target_params; /* likewise: what is not about silence must not end by it */
    enum gw_dirty_method dirty_method;
    bool no_dirty; /* the test adds its own dirty source */
    bool writes;   /* a thread writes random words while the guest runs */
    int (*block_offered)(struct pair *pair,
                         const struct gw_block_offer *offer); /* first; may refuse */
    int (*blocks_ready)(struct pair *pair, struct gw_error *err);
    int (*acquire)(struct pair *pair);
    int (*run)(struct pair *pair);
    int (*release)(struct pair *pair);
    int (*retake)(struct pair *pair);
    int (*resume)(struct pair *pair);
    int (*pause)(struct pair *pair);
    int (*save)(struct pair *pair);
    int (*load)(struct pair *pair);
    void (*throttle)(struct pair *pair, unsigned vcpu, unsigned percent);
    void (*source_event)(struct pair *pair, const struct gw_event *event);
    void (*target_event)(struct pair *pair, const struct gw_event *event);
    void *test; /* the test's own */

    struct gw_params *patient;
    struct gw_loop *source_loop, *target_loop;
    struct gw_source *src;
    struct gw_target *tgt;
    struct gw_dirty *dirty;
    struct pair_block *blocks;
    unsigned block_count;
    uint64_t device_value;  /* saved by the source's device */
    uint64_t device_loaded; /* as the target's device read it */

    _Atomic bool source_runs, target_runs; /* the vCPU's view */
    _Atomic unsigned pauses, resumes, releases, retakes, acquires, runs, offers;
    _Atomic unsigned two_runners; /* both ran at once, ever */
    _Atomic uint64_t writes_done;
    pthread_t writer;
    bool writer_started;
    _Atomic bool writer_stop, writer_parked;
    struct gw_error source_err, target_err;
    int source_rc, target_rc;
};

/* Parameters with half a minute's patience, for a test that sets others: the defaults of 2 s of silence and of 5 s
 * to connect (under the thread sanitizer tcp;ofi_rxm alone takes 2 of these) are short where a machine has
 * much else to do. To be freed. */
struct gw_params *pair_params(void);
/* Adds guest memory at both ends, filled with a pattern of @fill percent non-zero pages. */
void pair_add_block(struct pair *pair, const char *name, uint64_t bytes, enum gw_block_kind kind,
                    unsigned fill);
void pair_init(
    struct pair *pair); /* loops, source, target, dirty source, blocks, device; asserts */
void pair_listen(struct pair *pair);
void pair_start(struct pair *pair);
/* Dispatches both loops until @done or @seconds; false: it did not come. */
bool pair_until(struct pair *pair, bool (*done)(struct pair *), unsigned seconds);
/* Both sides have ended: source_rc, target_rc and the errors are set. */
bool pair_finish(struct pair *pair, unsigned seconds);
void pair_pump(struct pair *pair, unsigned ms); /* sleeps on both loops' descriptors at most @ms */
/* Index of the first block that differs, or -1. Both sides must stand still. */
int pair_differs(const struct pair *pair);
enum gw_status pair_source_status(const struct pair *pair);
void pair_fini(struct pair *pair);

#endif

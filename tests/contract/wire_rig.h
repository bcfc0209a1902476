/* SPDX-License-Identifier: MIT */
/* tests/contract/wire_rig.h - two ends of any wire in one process, for a suite that knows no wire. */
#ifndef GW_TESTS_CONTRACT_WIRE_RIG_H
#define GW_TESTS_CONTRACT_WIRE_RIG_H

#include "core/base/clock.h"
#include "core/base/error.h"
#include "tests/shim/gw_test.h"
#include "transport/transport.h"

#define RIG_MEMORY_BYTES (8u << 20)
#define RIG_REGION 7
#define RIG_WAIT_NS (20 * GW_NS_PER_S)

struct rig {
    const char *wire;
    char directory[64];             /* unix: where the socket lies */
    char recording[64];             /* tap+: where the recordings lie */
    char address[GW_URI_BYTES_MAX]; /* of the listener, as it says it: without filters */
    struct gw_uri uri; /* of the listener, with the real port, through the same filters */
    struct gw_listener *ln;
    struct gw_domain *source_domain, *target_domain;
    struct gw_endpoint *source, *target; /* after rig_open() */
    struct gw_wire_config source_config, target_config;
    uint8_t *guest;  /* the target's memory, RIG_REGION */
    uint8_t *local;  /* the source's, as large */
    bool binds_late; /* its domains know their device once connected: memory is registered then */
    struct gw_mr *guest_mr, *local_mr;
    struct gw_rmr *rmr;
    enum gw_admission admission; /* what the listener says */
    unsigned asked;              /* how often it was asked */
    struct gw_preface preface;   /* the last that was asked about */
};

/* Every wire that this machine can test: "tcp4", "tcp6", "unix", and each of them through filters that
 * let everything pass: "tap+tcp4", "fault+unix"... "ofi-net" is ofi with provider net, "ofi-rxm" with
 * tcp;ofi_rxm, "ofi-rdma" with verbs;ofi_rxm. */
const char *const *gw_test_wires(void);
/* Those with keys, where puts land without the target's code: NICs, and what behaves like one. */
const char *const *gw_test_one_sided_wires(void);
/* Those on which tests can inject bytes of their own. */
const char *const *gw_test_stream_wires(void);
/* Skips where an end must not go while the other one works, because both are in one process. */
void rig_needs_lasting_peers(const char *wire);
/* The same, and where what a peer said before it closed may be lost. */
void rig_needs_last_words(const char *wire);
/* A wire that the machine lacks skips the test. */
void rig_listen(struct rig *rig, const char *wire);
/* With a query for the filters of the source's address, NULL: none, and for the listener's. */
void rig_listen_query(struct rig *rig, const char *wire, const char *source, const char *target);
void rig_open(struct rig *rig, const char *wire); /* and a connected pair, index 1 */
void rig_close(struct rig *rig);
/* Once through, for who counts descriptors: a wire's library may keep some as long as the process. */
void rig_warm(const char *wire);

/* One more connection; the source's end, the target's end. 0 or gw_connect's error. */
int rig_connect(struct rig *rig, const struct gw_wire_config *config, struct gw_endpoint **source,
                struct gw_endpoint **target, struct gw_error *err);
/* One step of the listener; *ep or NULL. */
struct gw_endpoint *rig_accept(struct rig *rig);
struct gw_endpoint *rig_accept_wait(struct rig *rig);
void rig_listener_doze(struct rig *rig); /* at most 2 ms */

/* Sleep as an owner does, for at most 20 ms. */
void rig_doze(struct gw_endpoint *ep);
/* Let an end that has nothing to say push out what it has queued, without sleeping. */
void rig_nudge(struct gw_endpoint *ep);
/* One message, or the final error; steps @other meanwhile (may be NULL). */
ssize_t rig_recv(struct gw_endpoint *ep, struct gw_endpoint *other, void *buf, size_t bytes);
/* 0, or the final error. */
int rig_send(struct gw_endpoint *ep, const void *data, size_t bytes);
/* Put all of it, collecting completions, stepping the @target: how many completed with 0. */
unsigned rig_put_all(struct rig *rig, const struct gw_put *puts, unsigned count);
/* One put from the same place of the source's memory. */
struct gw_put rig_put_at(struct rig *rig, uint64_t offset, uint32_t bytes, uint64_t cookie);

/* A plain socket connected to the listener, with @preface sent if it is not NULL. */
int rig_raw(struct rig *rig, const struct gw_preface *preface);
void rig_raw_write(int fd, const void *data, size_t bytes);
/* A raw source: the descriptor and the target's endpoint. */
int rig_raw_open(struct rig *rig, struct gw_endpoint **target);

bool rig_is_zero(const uint8_t *memory, size_t bytes);
uint64_t rig_random(uint64_t *state);
unsigned rig_fd_count(void);

#endif

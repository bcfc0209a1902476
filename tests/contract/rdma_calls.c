// SPDX-License-Identifier: MIT
/* Every call of verbs and the connection manager that can be refused is refused, each time that it is
 * made, one in each session. The linker sends the library's calls through the functions here (--wrap,
 * tests/programs.cmake). Whatever it was, who called the wire is told why in words, or has what it asked
 * for; and at the end nothing of the device's is held. */
#include "gw_config.h"
#include "tests/contract/wire_rig.h"

#if GW_HAVE_RDMA
#include "core/base/bytes.h"
#include "transport/rdma/rdma.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BYTES ((size_t)64 << 10)
#define WAIT_NS (10 * GW_NS_PER_S)
#define LATE_NS GW_NS_PER_S /* for the other end, when one has its endpoint */
#define TIMES_MAX 12        /* of what is called as often as it is waited */

/* ---- calls that are refused --------------------------------------------------------------------- */

static const char *refused = ""; /* set while one thread runs */
static _Atomic int countdown;

static bool is_refused(const char *name)
{
    if (strcmp(name, refused) != 0 || atomic_fetch_sub(&countdown, 1) != 1)
        return false;
    errno = EIO;
    return true;
}

/* An alias of each, so that what headers make macros of is not expanded. */
#define WRAP(type, name, params, args, failure)                                                    \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        return is_refused(#name) ? (failure) : __real_##name args;                                 \
    }

WRAP(struct ibv_device **, ibv_get_device_list, (int *count), (count), NULL)
WRAP(struct ibv_context *, ibv_open_device, (struct ibv_device * device), (device), NULL)
WRAP(int, ibv_query_device, (struct ibv_context * verbs, struct ibv_device_attr *attr),
     (verbs, attr), EIO)
WRAP(struct ibv_pd *, ibv_alloc_pd, (struct ibv_context * verbs), (verbs), NULL)
WRAP(struct ibv_mr *, ibv_reg_mr_iova2,
     (struct ibv_pd * pd, void *addr, size_t bytes, uint64_t iova, unsigned access),
     (pd, addr, bytes, iova, access), NULL)
WRAP(struct ibv_comp_channel *, ibv_create_comp_channel, (struct ibv_context * verbs), (verbs),
     NULL)
WRAP(struct ibv_cq *, ibv_create_cq,
     (struct ibv_context * verbs, int depth, void *ctx, struct ibv_comp_channel *channel,
      int vector),
     (verbs, depth, ctx, channel, vector), NULL)
WRAP(struct ibv_qp *, ibv_create_qp, (struct ibv_pd * pd, struct ibv_qp_init_attr *attr),
     (pd, attr), NULL)
WRAP(int, ibv_modify_qp, (struct ibv_qp * qp, struct ibv_qp_attr *attr, int mask), (qp, attr, mask),
     EIO)
WRAP(struct rdma_event_channel *, rdma_create_event_channel, (void), (), NULL)
WRAP(int, rdma_create_id,
     (struct rdma_event_channel * channel, struct rdma_cm_id **id, void *ctx,
      enum rdma_port_space space),
     (channel, id, ctx, space), -1)
WRAP(int, rdma_bind_addr, (struct rdma_cm_id * id, struct sockaddr *at), (id, at), -1)
WRAP(int, rdma_listen, (struct rdma_cm_id * id, int backlog), (id, backlog), -1)
WRAP(int, rdma_resolve_addr,
     (struct rdma_cm_id * id, struct sockaddr *from, struct sockaddr *to, int ms),
     (id, from, to, ms), -1)
WRAP(int, rdma_resolve_route, (struct rdma_cm_id * id, int ms), (id, ms), -1)
WRAP(int, rdma_connect, (struct rdma_cm_id * id, struct rdma_conn_param *param), (id, param), -1)
WRAP(int, rdma_accept, (struct rdma_cm_id * id, struct rdma_conn_param *param), (id, param), -1)
WRAP(int, rdma_establish, (struct rdma_cm_id * id), (id), -1)
WRAP(int, rdma_init_qp_attr, (struct rdma_cm_id * id, struct ibv_qp_attr *attr, int *mask),
     (id, attr, mask), -1)
WRAP(int, rdma_migrate_id, (struct rdma_cm_id * id, struct rdma_event_channel *channel),
     (id, channel), -1)
WRAP(int, rdma_get_cm_event, (struct rdma_event_channel * channel, struct rdma_cm_event **event),
     (channel, event), -1)

static const char *const calls[] = {
    "ibv_get_device_list", "ibv_open_device",
    "ibv_query_device",    "ibv_alloc_pd",
    "ibv_reg_mr_iova2",    "ibv_create_comp_channel",
    "ibv_create_cq",       "ibv_create_qp",
    "ibv_modify_qp",       "rdma_create_event_channel",
    "rdma_create_id",      "rdma_bind_addr",
    "rdma_listen",         "rdma_resolve_addr",
    "rdma_resolve_route",  "rdma_connect",
    "rdma_accept",         "rdma_establish",
    "rdma_init_qp_attr",   "rdma_migrate_id",
    "rdma_get_cm_event",
};

/* ---- a session ------------------------------------------------------------------------------------ */

struct session {
    struct gw_uri uri;
    struct gw_domain *source_dom, *target_dom;
    struct gw_listener *ln;
    struct gw_endpoint *source, *target;
    struct gw_mr *local, *guest;
    struct gw_rmr *rmr;
    uint8_t *memory; /* the source's, then the target's */
    struct gw_error err;
    _Atomic bool is_over; /* the attempt to connect */
    int connected;        /* with err */
};

static enum gw_admission admit(void *ctx, const struct gw_preface *preface, struct gw_domain **dom,
                               struct gw_wire_config *config)
{
    (void)preface, (void)config;
    *dom = ((struct session *)ctx)->target_dom;
    return GW_ADMIT_OK;
}

static void *connect_run(void *arg)
{
    struct session *s = arg;
    struct gw_wire_config config = {.index = 1, .deadline_ns = gw_clock_ns() + WAIT_NS};
    s->connected = gw_connect(s->source_dom, &s->uri, &config, &s->source, &s->err);
    atomic_store(&s->is_over, true);
    return NULL;
}

static int accept_meanwhile(struct session *s, struct gw_error *err)
{
    uint64_t until_ns = gw_clock_ns() + WAIT_NS;
    int rc = 0;
    while (!s->target && rc >= 0 && gw_clock_ns() < until_ns) {
        if (atomic_load(&s->is_over) && s->connected < 0)
            break;
        if (atomic_load(&s->is_over))
            until_ns = gw_min_u64(until_ns, gw_clock_ns() + LATE_NS);
        rc = gw_accept(s->ln, admit, s, &s->target, err);
        gw_clock_poll(NULL, 0, gw_clock_ns() + GW_NS_PER_MS);
    }
    return rc;
}

static int meet(struct session *s)
{
    struct gw_error err = GW_ERROR_INIT;
    pthread_t thread;
    pthread_create(&thread, NULL, connect_run, s);
    int rc = accept_meanwhile(s, &err);
    if (rc < 0) { /* nobody will answer */
        gw_listener_close(s->ln);
        s->ln = NULL;
    }
    pthread_join(thread, NULL);
    if (rc < 0)
        s->err = err;
    if (rc < 0 || s->connected < 0)
        return rc < 0 ? rc : s->connected;
    /* What failed at the target is in its log, and the source's endpoint ends. */
    return s->target ? 0 : gw_fail(&s->err, -ECONNRESET, "the target has no endpoint");
}

static int lend(struct session *s)
{
    struct gw_mr_desc local = {.addr = s->memory, .bytes = BYTES};
    struct gw_mr_desc guest = {
        .addr = s->memory + BYTES, .bytes = BYTES, .access = GW_MR_REMOTE_WRITE};
    uint8_t key[64];
    int rc = gw_mr_reg(s->source_dom, &local, &s->local, &s->err);
    if (rc == 0)
        rc = gw_mr_reg(s->target_dom, &guest, &s->guest, &s->err);
    if (rc < 0)
        return rc;
    int bytes = gw_mr_pack(s->guest, key);
    return gw_rmr_open(s->source_dom, 0, BYTES, key, (size_t)bytes, &s->rmr, &s->err);
}

static int put(struct session *s)
{
    struct gw_put put = {
        .local = s->memory, .mr = s->local, .rmr = s->rmr, .bytes = (uint32_t)BYTES};
    struct gw_completion done;
    int got = gw_put(s->source, &put, 1);
    while (got >= 0 && (got = gw_poll(s->source, &done, 1)) == 0)
        rig_doze(s->source);
    return got < 0 ? gw_ep_error(s->source, &s->err) : 0;
}

/* 0, or the first error, with s->err. */
static int run(struct session *s)
{
    struct gw_wire_config config = {0};
    char text[128];
    snprintf(text, sizeof(text), "rdma:%s:0", getenv("RIG_ADDR"));
    int rc = gw_uri_parse(text, &s->uri, &s->err);
    if (rc == 0)
        rc = gw_domain_open("rdma", &config, &s->source_dom, &s->err);
    if (rc == 0)
        rc = gw_domain_open("rdma", &config, &s->target_dom, &s->err);
    if (rc == 0)
        rc = gw_listen(&s->uri, &config, &s->ln, &s->err);
    if (rc == 0)
        rc = gw_uri_parse(gw_listener_uri(s->ln), &s->uri, &s->err);
    if (rc == 0)
        rc = meet(s);
    if (rc == 0)
        rc = lend(s);
    return rc == 0 ? put(s) : rc;
}

static void end(struct session *s)
{
    gw_rmr_close(s->rmr);
    gw_ep_close(s->source);
    gw_ep_close(s->target);
    gw_mr_dereg(s->local);
    gw_mr_dereg(s->guest);
    gw_listener_close(s->ln);
    gw_domain_close(s->source_dom);
    gw_domain_close(s->target_dom);
}

/* Whether it was made so often, and so refused. */
static bool refuse_one(uint8_t *memory, const char *name, int nth)
{
    struct session s = {.memory = memory, .err = GW_ERROR_INIT};
    refused = name;
    atomic_store(&countdown, nth);
    int rc = run(&s);
    if (!GW_EXPECT(rc == 0 || (s.err.rc < 0 && s.err.code != GW_CODE_NONE && s.err.message[0])))
        GW_NOTE_FAILURE("%s, call %d: %d, %d [%s] %s", name, nth, rc, s.err.rc,
                        gw_code_name(s.err.code), s.err.message);
    end(&s);
    refused = "";
    for (unsigned kind = 0; kind < GW_RDMA_KINDS; kind++) {
        if (!GW_EXPECT_EQ(gw_rdma_live((enum gw_rdma_kind)kind), 0))
            GW_NOTE_FAILURE("%s, call %d: object %u is left", name, nth, kind);
    }
    return atomic_load(&countdown) <= 0;
}

GW_TEST(rdma, a_call_that_is_refused_is_told_and_leaves_nothing_behind)
{
    if (!getenv("RIG_ADDR"))
        GW_SKIP("no RDMA device here: scripts/soft-roce runs this where there is one");
    uint8_t *memory =
        mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    GW_ASSERT(memory != MAP_FAILED);
    struct session fair = {.memory = memory, .err = GW_ERROR_INIT};
    GW_EXPECT_EQ(run(&fair), 0);
    end(&fair);
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        int nth = 1;
        while (nth <= TIMES_MAX && refuse_one(memory, calls[i], nth))
            nth++;
        if (!GW_EXPECT_GT(nth, 1))
            GW_NOTE_FAILURE("%s is never called", calls[i]);
    }
    munmap(memory, 2 * BYTES);
}
#endif

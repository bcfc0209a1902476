// SPDX-License-Identifier: MIT
/* What the rdma wire alone has to bear: peers that mean ill with a queue pair in their hands, requests
 * that come to nothing, devices and GIDs that were asked for, and an account of every object. Runs where
 * there is an RDMA device: scripts/soft-roce -- .../contract --gtest_filter='rdma.*'. */
#include "gw_config.h"
#include "tests/contract/wire_rig.h"

#if GW_HAVE_RDMA
#include "core/base/bytes.h"
#include "transport/rdma/rdma.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- a source that means ill ----------------------------------------------------------------------- */

/* A write that our own code would refuse. */
static void write_raw(struct gw_endpoint *ep, const struct rig *rig, uint32_t rkey, uint64_t addr,
                      uint32_t bytes)
{
    struct gw_rdma_ep *e = gw_rdma_ep_of(ep);
    const struct gw_rdma_mr *mr = (const struct gw_rdma_mr *)rig->local_mr;
    e->sge[0] = (struct ibv_sge){.addr = mr->iova, .length = bytes, .lkey = mr->mr->lkey};
    e->wr[0] =
        (struct ibv_send_wr){.sg_list = &e->sge[0], .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE};
    e->wr[0].wr.rdma.remote_addr = addr;
    e->wr[0].wr.rdma.rkey = rkey;
    e->records[e->posted % e->send_depth] = (struct gw_rdma_record){.work = GW_RDMA_MARK};
    GW_EXPECT_EQ(gw_rdma_post(e, 1), 1);
}

static void expect_end(struct gw_endpoint *ep, struct gw_endpoint *other, int rc, enum gw_code code)
{
    struct gw_error err = GW_ERROR_INIT;
    uint8_t heard[64];
    GW_EXPECT_LT(rig_recv(ep, other, heard, sizeof(heard)), 0);
    int got = gw_ep_error(ep, &err);
    if (rc != 0)
        GW_EXPECT_EQ(got, rc);
    if (!GW_EXPECT_EQ(err.code, code))
        GW_NOTE_FAILURE("said: %s", err.message);
    GW_EXPECT(err.message[0] && err.place[0]);
}

static void expect_refused(uint32_t wrong_key, int64_t offset, uint32_t bytes)
{
    struct rig rig;
    rig_open(&rig, "rdma4");
    const struct gw_rdma_rmr *rmr = (const struct gw_rdma_rmr *)rig.rmr;
    write_raw(rig.source, &rig, rmr->rkey ^ wrong_key, rmr->iova + (uint64_t)offset, bytes);
    expect_end(rig.source, rig.target, -EACCES, GW_CODE_PROTOCOL);
    uint8_t heard[8];
    GW_EXPECT_LT(rig_recv(rig.target, rig.source, heard, sizeof(heard)), 0);
    GW_EXPECT_LT(gw_ep_error(rig.target, NULL), 0);
    GW_EXPECT(rig_is_zero(rig.guest, RIG_MEMORY_BYTES));
    rig_close(&rig);
}

GW_TEST(rdma, a_write_outside_of_what_was_lent_ends_both_ends_and_changes_nothing)
{
    expect_refused(0, RIG_MEMORY_BYTES - 4095, 4096);
    expect_refused(0, -4096, 4096);
}

GW_TEST(rdma, a_write_with_a_wrong_key_ends_both_ends_and_changes_nothing)
{
    expect_refused(0x55, 0, 4096);
}

GW_TEST(rdma, a_key_means_nothing_on_another_session)
{
    struct rig rig, other;
    rig_open(&rig, "rdma4");
    rig_open(&other, "rdma4");
    const struct gw_rdma_rmr *rmr = (const struct gw_rdma_rmr *)other.rmr;
    write_raw(rig.source, &rig, rmr->rkey, rmr->iova, 4096);
    expect_end(rig.source, rig.target, -EACCES, GW_CODE_PROTOCOL);
    GW_EXPECT(rig_is_zero(other.guest, RIG_MEMORY_BYTES));
    /* Of which the other session has not heard. */
    uint8_t heard[8];
    GW_EXPECT_EQ(rig_send(other.source, "still", 5), 0);
    GW_EXPECT_EQ(rig_recv(other.target, other.source, heard, sizeof(heard)), 5);
    rig_close(&rig);
    rig_close(&other);
}

static void *put_for_ever(void *arg)
{
    struct rig *rig = arg;
    struct gw_completion done[64];
    uint64_t until_ns = gw_clock_ns() + RIG_WAIT_NS;
    int got = 0;
    for (unsigned i = 0; got >= 0 && gw_clock_ns() < until_ns; i++) {
        struct gw_put put = rig_put_at(rig, (uint64_t)(i % 16) << 16, 1u << 16, i);
        rig->local[put.offset] = (uint8_t)i; /* what lands late is seen */
        gw_put(rig->source, &put, 1);
        got = gw_poll(rig->source, done, 64);
        if (got == 0)
            rig_doze(rig->source);
    }
    return NULL;
}

GW_TEST(rdma, nothing_of_a_busy_peer_lands_after_revoke_has_returned)
{
    for (unsigned round = 0; round < 3; round++) {
        struct rig rig;
        pthread_t thread;
        uint8_t *frozen = malloc(RIG_MEMORY_BYTES);
        rig_open(&rig, "rdma4");
        pthread_create(&thread, NULL, put_for_ever, &rig);
        while (rig_is_zero(rig.guest, 1u << 20))
            gw_clock_poll(NULL, 0, gw_clock_ns() + GW_NS_PER_MS);
        gw_ep_revoke(rig.target);
        memcpy(frozen, rig.guest, RIG_MEMORY_BYTES);
        pthread_join(thread, NULL); /* its device is answered no more: it dies of that */
        GW_EXPECT_EQ(gw_ep_error(rig.source, NULL), -ETIMEDOUT);
        GW_EXPECT_MEMEQ(frozen, rig.guest, RIG_MEMORY_BYTES);
        free(frozen);
        rig_close(&rig);
    }
}

static void send_part(struct gw_endpoint *ep, uint8_t kind, uint16_t credits, uint32_t claimed,
                      uint32_t bytes)
{
    struct gw_rdma_ep *e = gw_rdma_ep_of(ep);
    uint8_t *slot = e->tx + (size_t)e->tx_slots * e->slot_bytes;
    slot[0] = kind;
    slot[1] = 0;
    gw_be16_store(slot + 2, credits);
    gw_be32_store(slot + 4, claimed);
    e->sge[0] = (struct ibv_sge){
        .addr = (uint64_t)(slot - e->rx), .length = bytes, .lkey = e->slots_mr->lkey};
    e->wr[0] = (struct ibv_send_wr){.sg_list = &e->sge[0], .num_sge = 1, .opcode = IBV_WR_SEND};
    e->records[e->posted % e->send_depth] = (struct gw_rdma_record){.work = GW_RDMA_MARK};
    gw_rdma_post(e, 1);
}

GW_TEST(rdma, parts_of_messages_that_make_no_sense_end_the_endpoint)
{
    static const struct {
        uint8_t kind;
        uint16_t credits;
        uint32_t claimed, bytes;
    } parts[] = {
        {2, 0, 100, 50}, /* shorter than it says */
        {2, 0, 10, 50},  /* longer */
        {2, 0, 0, 4},    /* no head */
        {0, 0, 42, 50},  /* no kind */
        {9, 0, 42, 50},  /* unknown */
        {1, 0, 0, 8},    /* an empty part: for ever more */
        {3, 5000, 0, 8}, /* more credits than slots */
        {2, 1, 42, 50},  /* one that was never used */
    };
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        struct rig rig;
        rig_open(&rig, "rdma4");
        send_part(rig.source, parts[i].kind, parts[i].credits, parts[i].claimed, parts[i].bytes);
        expect_end(rig.target, rig.source, -EPROTO, GW_CODE_PROTOCOL);
        rig_close(&rig);
    }
}

GW_TEST(rdma, a_message_that_never_ends_is_cut_at_the_limit)
{
    struct rig rig;
    rig_listen(&rig, "rdma4");
    rig.target_config.message_bytes_max = 32768;
    GW_ASSERT_EQ(rig_connect(&rig, &rig.source_config, &rig.source, &rig.target, NULL), 0);
    struct gw_rdma_ep *e = gw_rdma_ep_of(rig.source);
    for (unsigned i = 0; i < 4; i++)
        send_part(rig.source, 1, 0, e->slot_bytes - 8, e->slot_bytes);
    expect_end(rig.target, rig.source, -EPROTO, GW_CODE_PROTOCOL);
    rig_close(&rig);
}

GW_TEST(rdma, a_flood_beyond_the_credits_fills_the_slots_and_no_more)
{
    struct rig rig;
    rig_open(&rig, "rdma4");
    struct gw_rdma_ep *source = gw_rdma_ep_of(rig.source), *target = gw_rdma_ep_of(rig.target);
    int64_t before = (int64_t)target->rx_slots;
    for (uint32_t i = 0; i < target->rx_slots + 20 && source->rc == 0; i++)
        send_part(rig.source, 2, 0, 8, 16);
    /* The reader gets what fits; for the rest there is no slot: the flooder's device gives up. */
    for (uint64_t until_ns = gw_clock_ns() + RIG_WAIT_NS;
         gw_rdma_check(source) == 0 && gw_clock_ns() < until_ns;)
        rig_doze(rig.source);
    GW_EXPECT_LT(gw_ep_error(rig.source, NULL), 0);
    unsigned heard = 0;
    uint8_t message[16];
    while (gw_recv(rig.target, message, sizeof(message)) == 8)
        heard++;
    GW_EXPECT_LE(heard, before + 20);
    GW_EXPECT_GE(heard, before);
    rig_close(&rig);
}

GW_TEST(rdma, a_peer_without_the_receives_that_it_announced_is_given_up)
{
    struct rig rig;
    struct ibv_wc wc[64];
    rig_open(&rig, "rdma4");
    /* Its code never runs again: what it had posted is used up, and we believe it has more. */
    struct gw_rdma_ep *source = gw_rdma_ep_of(rig.source), *target = gw_rdma_ep_of(rig.target);
    uint64_t until_ns = gw_clock_ns() + RIG_WAIT_NS;
    while (gw_rdma_check(source) == 0 && gw_clock_ns() < until_ns) {
        source->tx_credits = source->theirs.slots;
        (void)gw_send(rig.source, &(struct iovec){rig.local, 100}, 1);
        while (ibv_poll_cq(target->cq, 64, wc) > 0)
            ;
        rig_doze(rig.source);
    }
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_ep_error(rig.source, &err), -EPROTO);
    GW_EXPECT(strstr(err.message, "no receive") != NULL);
    gw_rdma_to_error(target);
    target->rx_posted = 0; /* they were taken from under it */
    rig_close(&rig);
}

/* ---- requests that come to nothing ------------------------------------------------------------------ */

struct stranger {
    struct rdma_event_channel *events;
    struct rdma_cm_id *id;
};

static bool next_is(struct stranger *s, enum rdma_cm_event_type wanted)
{
    struct rdma_cm_event *event;
    if (rdma_get_cm_event(s->events, &event) != 0)
        return false;
    bool is = event->event == wanted;
    rdma_ack_cm_event(event);
    return is;
}

/* A request with @data, and no more: whatever is answered is not read. */
static bool stranger_knocks(struct stranger *s, const struct rig *rig, const void *data,
                            uint8_t bytes)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(rig->uri.port)};
    struct rdma_conn_param param = {.private_data = data,
                                    .private_data_len = bytes,
                                    .retry_count = 6,
                                    .rnr_retry_count = 6,
                                    .qp_num = 77};
    inet_pton(AF_INET, rig->uri.host, &to.sin_addr);
    return rdma_create_id(s->events, &s->id, NULL, RDMA_PS_TCP) == 0 &&
           rdma_resolve_addr(s->id, NULL, (struct sockaddr *)&to, 2000) == 0 &&
           next_is(s, RDMA_CM_EVENT_ADDR_RESOLVED) && rdma_resolve_route(s->id, 2000) == 0 &&
           next_is(s, RDMA_CM_EVENT_ROUTE_RESOLVED) && rdma_connect(s->id, &param) == 0;
}

static void hello_of(uint8_t bytes[GW_RDMA_HELLO_BYTES], uint16_t index)
{
    struct gw_preface preface = {.version = GW_PREFACE_VERSION, .index = index};
    struct gw_rdma_hello hello = {.slot_bytes = GW_RDMA_SLOT_BYTES, .slots = 20};
    gw_preface_encode(&preface, bytes);
    gw_rdma_hello_encode(&hello, bytes + GW_PREFACE_BYTES);
}

GW_TEST(rdma, private_data_that_is_garbage_is_refused_and_the_next_is_served)
{
    struct rig rig;
    uint8_t good[GW_RDMA_HELLO_BYTES], bad[GW_RDMA_HELLO_BYTES];
    rig_listen(&rig, "rdma4");
    hello_of(good, 1);
    for (unsigned i = 0; i < 5; i++) {
        struct stranger s = {.events = rdma_create_event_channel()};
        memcpy(bad, good, sizeof(bad));
        if (i == 1)
            bad[0] ^= 1; /* the magic */
        else if (i == 2)
            gw_be32_store(bad + 32, 1u << 30); /* slots of 1 GiB */
        else if (i == 3)
            gw_be16_store(bad + 36, 0); /* none */
        else if (i == 4)
            bad[39] = 1;
        GW_EXPECT(stranger_knocks(&s, &rig, bad, i == 0 ? 0 : sizeof(bad)));
        for (unsigned n = 0; n < 50; n++) {
            GW_EXPECT(rig_accept(&rig) == NULL);
            rig_listener_doze(&rig);
        }
        GW_EXPECT(next_is(&s, RDMA_CM_EVENT_REJECTED));
        rdma_destroy_id(s.id);
        rdma_destroy_event_channel(s.events);
    }
    GW_EXPECT_EQ(rig.asked, 0);
    GW_EXPECT_EQ(rig_connect(&rig, &rig.source_config, &rig.source, &rig.target, NULL), 0);
    rig_close(&rig);
}

#define STRANGERS 60

GW_TEST(rdma, requests_that_are_never_confirmed_keep_nobody_out_and_go_at_their_deadline)
{
    struct rig rig;
    uint8_t hello[GW_RDMA_HELLO_BYTES];
    struct stranger crowd[STRANGERS];
    struct gw_error err = GW_ERROR_INIT;
    rig_listen(&rig, "rdma4");
    gw_listener_close(rig.ln);
    rig.target_config.deadline_ns = GW_NS_PER_S;
    struct gw_uri uri = rig.uri;
    GW_ASSERT_EQ(gw_listen(&uri, &rig.target_config, &rig.ln, &err), 0);
    rig.target_config.deadline_ns = 0;
    int ids = gw_rdma_live(GW_RDMA_CM_ID), qps = gw_rdma_live(GW_RDMA_QP);
    for (uint16_t i = 0; i < STRANGERS; i++) {
        crowd[i] = (struct stranger){.events = rdma_create_event_channel()};
        hello_of(hello, (uint16_t)(2 + i));
        GW_EXPECT(stranger_knocks(&crowd[i], &rig, hello, sizeof(hello)));
        rig_accept(&rig); /* admits it: it has a queue pair now */
    }
    GW_EXPECT_EQ(rig_connect(&rig, &rig.source_config, &rig.source, &rig.target, &err), 0);
    uint64_t until_ns = gw_clock_ns() + RIG_WAIT_NS;
    while (gw_rdma_live(GW_RDMA_QP) > qps + 2 && gw_clock_ns() < until_ns) {
        rig_accept(&rig);
        rig_listener_doze(&rig);
    }
    GW_EXPECT_EQ(gw_rdma_live(GW_RDMA_QP), qps + 2);
    GW_EXPECT_EQ(gw_rdma_live(GW_RDMA_CM_ID), ids + 2);
    for (unsigned i = 0; i < STRANGERS; i++) {
        rdma_destroy_id(crowd[i].id);
        rdma_destroy_event_channel(crowd[i].events);
    }
    rig_close(&rig);
}

/* ---- devices and GIDs ------------------------------------------------------------------------------- */

static char said[4096];

static void keep_log(void *ctx, enum gw_log_level level, const char *component, const char *message)
{
    (void)ctx, (void)level;
    size_t used = strlen(said);
    snprintf(said + used, sizeof(said) - used, "%s: %s\n", component, message);
}

GW_TEST(rdma, the_log_says_which_device_port_and_gid_were_taken_and_why)
{
    struct rig rig;
    struct gw_log log = {.fn = keep_log, .level = GW_LOG_INFO};
    struct gw_endpoint *source, *target;
    rig_listen(&rig, "rdma4");
    rig.source_config.log = &log;
    said[0] = '\0';
    GW_ASSERT_EQ(rig_connect(&rig, &rig.source_config, &rig.source, &rig.target, NULL), 0);
    if (!GW_EXPECT(strstr(said, "GID index") && strstr(said, "RoCE v2") &&
                   strstr(said, "path MTU") && strstr(said, "by the route")))
        GW_NOTE_FAILURE("said: %s", said);
    said[0] = '\0'; /* once: the other endpoints are for who debugs */
    GW_ASSERT_EQ(rig_connect(&rig, &rig.source_config, &source, &target, NULL), 0);
    GW_EXPECT(strstr(said, "GID index") == NULL);
    gw_ep_close(source);
    gw_ep_close(target);
    rig_close(&rig);
}

GW_TEST(rdma, device_and_gid_are_as_asked_for_or_refused)
{
    struct rig rig;
    struct gw_error err = GW_ERROR_INIT;
    rig_listen(&rig, "rdma4");
    rig.source_config.rdma_device = "none9";
    GW_EXPECT_EQ(rig_connect(&rig, &rig.source_config, &rig.source, &rig.target, &err), -ENODEV);
    GW_EXPECT(strstr(err.message, "none9") && err.hint[0]);
    rig.source_config.rdma_device = gw_rdma_domain_of(rig.source_domain)->device;
    rig.source_config.rdma_gid = 1 + 200;
    GW_EXPECT_EQ(rig_connect(&rig, &rig.source_config, &rig.source, &rig.target, &err), -ENODEV);
    GW_EXPECT(strstr(err.message, "rdma-gid-index=200") != NULL);
    /* The GID of an IPv4 address is among the first few. */
    int connected = 0;
    for (unsigned index = 0; index < 4; index++) {
        struct gw_endpoint *source, *target;
        rig.source_config.rdma_gid = 1 + index;
        if (rig_connect(&rig, &rig.source_config, &source, &target, &err) < 0)
            continue;
        connected++;
        gw_ep_close(source);
        gw_ep_close(target);
    }
    GW_EXPECT_EQ(connected, 1);
    rig_close(&rig);
}

/* Listening at @text, with @device and @gid: how it is refused, or served where. */
static int listen_at(const char *text, const char *device, unsigned gid, struct gw_error *err,
                     char *where)
{
    struct gw_wire_config config = {.rdma_device = device, .rdma_gid = gid};
    struct gw_listener *ln = NULL;
    struct gw_uri uri;
    gw_error_clear(err);
    int rc = gw_uri_parse(text, &uri, err);
    if (rc == 0)
        rc = gw_listen(&uri, &config, &ln, err);
    if (rc < 0)
        return rc;
    snprintf(where, GW_URI_BYTES_MAX, "%s", gw_listener_uri(ln));
    gw_listener_close(ln);
    return 0;
}

GW_TEST(rdma, a_target_listens_where_device_and_gid_are_or_not_at_all)
{
    struct rig rig;
    struct gw_error err = GW_ERROR_INIT;
    char where[GW_URI_BYTES_MAX] = "", at_gid[GW_URI_BYTES_MAX], v4[128], v6[128];
    rig_listen(&rig, "rdma4"); /* skips where there is no device */
    rig_close(&rig);
    snprintf(v4, sizeof(v4), "rdma:%s:0", getenv("RIG_ADDR"));
    snprintf(v6, sizeof(v6), "rdma:[%s]:0", getenv("RIG_ADDR6"));
    GW_EXPECT_EQ(listen_at(v4, "none9", 0, &err, where), -ENODEV);
    GW_EXPECT(strstr(err.message, "none9: there is no such device") && err.hint[0]);
    GW_EXPECT_EQ(listen_at("rdma::0", "none9", 0, &err, where), -ENODEV);
    GW_EXPECT_EQ(listen_at(v4, "rxe0", 1 + 200, &err, where), -ENODEV);
    GW_EXPECT(strstr(err.message, "rxe0 has no GID of that index") != NULL);
    GW_EXPECT_EQ(listen_at(v4, "", 1 + 200, &err, where), -ENODEV);
    GW_EXPECT_EQ(listen_at(v4, "rxe0", 0, &err, where), 0);
    /* The GIDs are link-local, IPv4, IPv6, in this order. */
    GW_EXPECT_EQ(listen_at(v4, "", 1 + 1, &err, where), 0);
    GW_EXPECT_EQ(listen_at(v6, "", 1 + 1, &err, where), -EINVAL);
    GW_EXPECT(strstr(err.message, getenv("RIG_ADDR")) && err.hint[0]);
    GW_EXPECT_EQ(listen_at("rdma::0", "", 1 + 2, &err, at_gid), 0);
    GW_EXPECT(strstr(at_gid, getenv("RIG_ADDR6")) != NULL);
}

GW_TEST(rdma, a_port_that_is_listened_on_at_another_address_refuses_and_is_no_stranger)
{
    struct rig rig;
    struct gw_endpoint *source;
    struct gw_error err = GW_ERROR_INIT;
    rig_listen(&rig, "rdma4");
    snprintf(rig.uri.host, sizeof(rig.uri.host), "%s", getenv("RIG_ADDR6"));
    GW_EXPECT_EQ(gw_connect(rig.source_domain, &rig.uri, &rig.source_config, &source, &err),
                 -ECONNREFUSED);
    GW_EXPECT_EQ(err.code, GW_CODE_CONNECT);
    GW_EXPECT(strstr(err.message, "nobody listens there") && err.hint[0]);
    rig_close(&rig);
}

GW_TEST(rdma, on_demand_paging_is_used_or_refused)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_wire_config config = {.rdma_odp = true};
    struct gw_domain *dom;
    struct gw_mr *mr;
    void *memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct gw_mr_desc desc = {.addr = memory, .bytes = 1 << 20, .access = GW_MR_REMOTE_WRITE};
    if (!getenv("RIG_ADDR"))
        GW_SKIP("no RDMA device here: scripts/soft-roce runs this where there is one");
    GW_ASSERT(memory != MAP_FAILED);
    GW_ASSERT_EQ(gw_domain_open("rdma", &config, &dom, &err), 0);
    int rc = gw_mr_reg(dom, &desc, &mr, &err);
    if (rc == 0) {
        gw_mr_dereg(mr);
    } else {
        GW_EXPECT_EQ(rc, -EOPNOTSUPP);
        GW_EXPECT(strstr(err.message, "x-rdma-odp") && err.hint[0]);
    }
    gw_domain_close(dom);
    munmap(memory, 1 << 20);
}

GW_TEST(rdma, a_wildcard_names_an_address_that_a_peer_can_use)
{
    struct rig rig;
    struct gw_uri any;
    struct gw_error err = GW_ERROR_INIT;
    rig_listen(&rig, "rdma6");
    gw_listener_close(rig.ln);
    GW_ASSERT_EQ(gw_uri_parse("rdma::0", &any, &err), 0);
    GW_ASSERT_EQ(gw_listen(&any, &rig.target_config, &rig.ln, &err), 0);
    GW_ASSERT_EQ(gw_uri_parse(gw_listener_uri(rig.ln), &rig.uri, &err), 0);
    GW_EXPECT_NE(rig.uri.port, 0);
    for (unsigned i = 0; i < 2; i++) { /* by its own address, and by the other family's */
        if (i == 1)
            snprintf(rig.uri.host, sizeof(rig.uri.host), "%s", getenv("RIG_ADDR6"));
        if (rig_connect(&rig, &rig.source_config, &rig.source, &rig.target, &err) < 0)
            GW_FAIL("%s", err.message);
        gw_ep_close(rig.source);
        gw_ep_close(rig.target);
    }
    rig.source = rig.target = NULL;
    rig_close(&rig);
}

GW_TEST(rdma, an_address_that_no_device_has_is_refused_with_one_that_would_do)
{
    struct rig rig;
    struct gw_uri uri;
    struct gw_listener *ln;
    struct gw_error err = GW_ERROR_INIT;
    rig_listen(&rig, "rdma4");
    GW_ASSERT_EQ(gw_uri_parse("rdma:192.0.2.1:0", &uri, &err), 0);
    GW_EXPECT_LT(gw_listen(&uri, &rig.target_config, &ln, &err), 0);
    GW_EXPECT_EQ(err.code, GW_CODE_LISTEN);
    GW_EXPECT(strstr(err.hint, getenv("RIG_ADDR")) != NULL);
    rig_close(&rig);
}

/* ---- the account ------------------------------------------------------------------------------------- */

static int objects(void)
{
    int sum = 0;
    for (unsigned kind = 0; kind < GW_RDMA_KINDS; kind++)
        sum += gw_rdma_live((enum gw_rdma_kind)kind);
    return sum;
}

GW_TEST(rdma, every_object_is_released_on_every_path)
{
    struct rig rig;
    struct gw_endpoint *source, *target;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_completion done[8];
    rig_open(&rig, "rdma4"); /* closed in order */
    GW_EXPECT_GT(objects(), 10);
    rig_close(&rig);
    GW_EXPECT_EQ(objects(), 0);

    rig_open(&rig, "rdma4"); /* with puts under way, and refused, and unanswered */
    struct gw_put put = rig_put_at(&rig, 0, 1u << 20, 1);
    gw_put(rig.source, &put, 1);
    rig.admission = GW_ADMIT_BUSY;
    GW_EXPECT_LT(rig_connect(&rig, &rig.source_config, &source, &target, &err), 0);
    rig.source_config.deadline_ns = gw_clock_ns() + 50 * GW_NS_PER_MS;
    GW_EXPECT_LT(gw_connect(rig.source_domain, &rig.uri, &rig.source_config, &source, &err), 0);
    rig_close(&rig);
    GW_EXPECT_EQ(objects(), 0);

    rig_open(&rig, "rdma4"); /* after a failure, a revocation, a shutdown */
    write_raw(rig.source, &rig, 1, 0, 4096);
    for (int got = 0; got >= 0; got = gw_poll(rig.source, done, 8))
        rig_doze(rig.source);
    gw_ep_revoke(rig.target);
    gw_ep_shutdown(rig.source);
    rig_close(&rig);
    GW_EXPECT_EQ(objects(), 0);
}
#endif

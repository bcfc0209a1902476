/* SPDX-License-Identifier: MIT */
/* spike_verbs - what verbs do with the backend contract; two processes, one device, its own address.
 *
 *   gcc -std=gnu17 -O2 -Wall -Wextra spike_verbs.c -o spike_verbs -lrdmacm -libverbs -lpthread
 *   scripts/soft-roce -- sh -c './spike_verbs $RIG_ADDR [REPEATS [RETRIES]]'
 */
#include "spike.h"

#include <infiniband/verbs.h>
#include <poll.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <sys/eventfd.h>

#define LIST_COUNT 16 /* puts linked into one post, the last one signalled */
#define DEPTH 128
#define RECEIVES 8
static uint8_t retries = 6;
enum { PUT = 1, MESSAGE, RECEIVE };
enum revoke { QP_ERROR, QP_FLUSHED, QP_FLAGS, MR_DEREG, REVOKES };
static const char *const revoke_names[] = {"QP to ERROR", "QP to ERROR, flushed",
                                           "QP access flags to 0", "ibv_dereg_mr"};

struct end {
    struct rdma_cm_id *listener, *id;
    struct ibv_pd *pd; /* its own: keys of other sessions mean nothing here */
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    struct ibv_mr *mr, *message_mr;
    uint8_t *area;
    uint64_t messages[2][RECEIVES]; /* [0]: to send; [1]: received into */
    int oob;
    unsigned posts, puts, unfinished;
};

struct key {
    uint64_t addr;
    uint32_t rkey;
};

static void receive_post(struct end *e, unsigned slot)
{
    struct ibv_sge sge = {(uintptr_t)&e->messages[1][slot], 8, e->message_mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = (uint64_t)slot << 8 | RECEIVE, .sg_list = &sge, .num_sge = 1},
                       *bad;
    MUST(ibv_post_recv(e->id->qp, &wr, &bad) == 0);
}

static void end_open(struct end *e, int remote_write)
{
    struct ibv_qp_init_attr attr = {.qp_type = IBV_QPT_RC, .cap = {DEPTH, 8, 1, 1, 64}};
    uint8_t timeout = 12; /* 17 ms */
    MUST(e->pd = ibv_alloc_pd(e->id->verbs));
    MUST(e->channel = ibv_create_comp_channel(e->id->verbs));
    MUST(e->cq = ibv_create_cq(e->id->verbs, DEPTH + 16, NULL, e->channel, 0));
    attr.send_cq = attr.recv_cq = e->cq;
    MUST(rdma_create_qp(e->id, e->pd, &attr) == 0);
    MUST(rdma_set_option(e->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, 1) == 0);
    uint64_t start = now_ns();
    MUST(e->mr = ibv_reg_mr(e->pd, e->area, AREA_BYTES,
                            remote_write ? IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE : 0));
    static int said;
    if (!said++)
        printf("%s: ibv_reg_mr of %u MiB, touched: %.0f us\n", remote_write ? "target" : "source",
               AREA_BYTES >> 20, (double)(now_ns() - start) / 1e3);
    MUST(e->message_mr =
             ibv_reg_mr(e->pd, e->messages, sizeof(e->messages), IBV_ACCESS_LOCAL_WRITE));
    for (unsigned slot = 0; slot < RECEIVES; slot++)
        receive_post(e, slot);
}

static void end_close(struct end *e)
{
    rdma_disconnect(e->id);
    rdma_destroy_qp(e->id);
    MUST(ibv_destroy_cq(e->cq) == 0 && ibv_destroy_comp_channel(e->channel) == 0);
    MUST((!e->mr || ibv_dereg_mr(e->mr) == 0) && ibv_dereg_mr(e->message_mr) == 0);
    MUST(ibv_dealloc_pd(e->pd) == 0);
    rdma_destroy_id(e->id);
    e->unfinished = 0;
}

/* Puts @count slots: slot i of the local area to @offset + i * @stride. Returns 0 or an errno. */
static int put(struct end *e, const struct key *key, unsigned count, unsigned stride)
{
    struct ibv_send_wr wr[LIST_COUNT] = {0}, *bad;
    struct ibv_sge sge[LIST_COUNT];
    for (unsigned i = 0; i < count; i++) {
        unsigned at = i % LIST_COUNT, last = at == LIST_COUNT - 1 || i == count - 1;
        sge[at] = (struct ibv_sge){(uintptr_t)e->area + i * PUT_BYTES, PUT_BYTES, e->mr->lkey};
        wr[at] = (struct ibv_send_wr){.wr_id = PUT,
                                      .next = last ? NULL : &wr[at + 1],
                                      .sg_list = &sge[at],
                                      .num_sge = 1,
                                      .opcode = IBV_WR_RDMA_WRITE,
                                      .send_flags = last ? IBV_SEND_SIGNALED : 0};
        wr[at].wr.rdma.remote_addr = key->addr + (uint64_t)i * stride;
        wr[at].wr.rdma.rkey = key->rkey;
        if (!last)
            continue;
        int rc = ibv_post_send(e->id->qp, wr, &bad);
        if (rc)
            return rc;
        e->posts++, e->unfinished++, e->puts += at + 1;
    }
    return 0;
}

static int message_send(struct end *e, uint64_t value)
{
    e->messages[0][0] = value; /* inline: ours again when the post returns */
    struct ibv_sge sge = {(uintptr_t)e->messages[0], 8, 0};
    struct ibv_send_wr wr = {.wr_id = MESSAGE,
                             .sg_list = &sge,
                             .num_sge = 1,
                             .opcode = IBV_WR_SEND,
                             .send_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE},
                       *bad;
    e->unfinished++;
    return ibv_post_send(e->id->qp, &wr, &bad);
}

/* Polls until a message has come (@want_message) or nothing posted is unfinished, or an error. */
static enum ibv_wc_status reap(struct end *e, int want_message, uint64_t *message)
{
    struct ibv_wc wc;
    for (;;) {
        if (!want_message && !e->unfinished)
            return IBV_WC_SUCCESS;
        if (ibv_poll_cq(e->cq, 1, &wc) == 0)
            continue;
        if (wc.status)
            return wc.status;
        if ((wc.wr_id & 255) != RECEIVE) {
            e->unfinished--;
            continue;
        }
        *message = e->messages[1][wc.wr_id >> 8];
        receive_post(e, (unsigned)(wc.wr_id >> 8));
        if (want_message)
            return IBV_WC_SUCCESS;
    }
}

/* A beat as a write of no bytes: no key is needed for it. */
static int empty_put(struct end *e)
{
    struct ibv_send_wr wr = {.wr_id = PUT,
                             .opcode = IBV_WR_RDMA_WRITE,
                             .send_flags = IBV_SEND_SIGNALED},
                       *bad;
    e->unfinished++;
    return ibv_post_send(e->id->qp, &wr, &bad);
}

static void *ring_later(void *fd)
{
    usleep(20000);
    uint64_t at = now_ns();
    MUST(write(*(int *)fd, &at, 8) == 8);
    return NULL;
}

/* Sleeps on the channel and an eventfd; another thread rings, then the peer sends a message. */
static void wake_test(struct end *e)
{
    uint64_t at, message; /* what is told is when it was told */
    int bell = eventfd(0, 0);
    pthread_t thread;
    struct pollfd fds[2] = {{e->channel->fd, POLLIN, 0}, {bell, POLLIN, 0}};
    struct ibv_cq *cq;
    void *context;
    struct ibv_wc wc;
    MUST(ibv_req_notify_cq(e->cq, 0) == 0 && ibv_poll_cq(e->cq, 1, &wc) == 0);
    pthread_create(&thread, NULL, ring_later, &bell);
    MUST(poll(fds, 2, 5000) == 1 && fds[1].revents);
    at = now_ns();
    MUST(read(bell, &message, 8) == 8);
    printf("target: an eventfd beside the completion channel woke the sleeper in %.0f us\n",
           (double)(at - message) / 1e3);
    pthread_join(thread, NULL);
    close(bell);
    oob_say(e->oob, "m", 1);
    MUST(poll(fds, 1, 5000) == 1 && ibv_get_cq_event(e->channel, &cq, &context) == 0);
    ibv_ack_cq_events(cq, 1);
    MUST(reap(e, 1, &message) == 0);
    printf("target: a message woke the sleeper %.0f us after it was posted\n",
           (double)(now_ns() - message) / 1e3);
}

static void key_revoke(struct end *e, enum revoke how)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR, .qp_access_flags = 0};
    struct ibv_wc wc;
    if (how == MR_DEREG) {
        MUST(ibv_dereg_mr(e->mr) == 0);
        e->mr = NULL;
        return;
    }
    int mask = how == QP_FLAGS ? IBV_QP_ACCESS_FLAGS : IBV_QP_STATE;
    MUST(ibv_modify_qp(e->id->qp, &attr, mask) == 0);
    /* The responder flushes its receives once it has seen the new state: after the packet that it
     * may have been placing when ibv_modify_qp() returned. */
    for (unsigned flushed = 0; how == QP_FLUSHED && flushed < RECEIVES;)
        if (ibv_poll_cq(e->cq, 1, &wc) == 1 && (wc.wr_id & 255) == RECEIVE && wc.status)
            flushed++;
}

/* What registering and deregistering cost, by size; the memory was touched before. */
static void registration_cost(struct end *e)
{
    for (size_t mib = 4; mib <= 512; mib *= 8) {
        void *area = area_new(mib << 20);
        uint64_t start = now_ns();
        struct ibv_mr *mr =
            ibv_reg_mr(e->pd, area, mib << 20, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
        MUST(mr);
        uint64_t middle = now_ns();
        MUST(ibv_dereg_mr(mr) == 0);
        printf("target: %zu MiB, touched: register %.1f ms, deregister %.2f ms\n", mib,
               (double)(middle - start) / 1e6, (double)(now_ns() - middle) / 1e6);
        munmap(area, mib << 20);
    }
}

static unsigned runs[REVOKES], bad_runs[REVOKES];

struct verdict {
    uint64_t failed_ns;
    enum ibv_wc_status status;
    int message_status;
};

static void target_session(struct end *e, int measure, enum revoke how, int busy)
{
    uint64_t seed, ack;
    uint8_t before[PUT_BYTES];
    struct verdict v;
    char c;
    MUST(rdma_get_request(e->listener, &e->id) == 0);
    end_open(e, 1);
    MUST(rdma_accept(e->id, &(struct rdma_conn_param){.rnr_retry_count = 7}) == 0);
    oob_say(e->oob, &(struct key){(uintptr_t)e->area, e->mr->rkey}, sizeof(struct key));
    size_t fenced = 0, completed = 0;
    for (unsigned round = 0; measure && round < 2 * ROUNDS; round++) {
        if (round % 2 == 0) { /* a message after the puts */
            MUST(reap(e, 1, &seed) == 0);
            fenced += wrong(e->area, AREA_BYTES, seed) != 0;
        } else { /* only the source's completion, told out of band */
            oob_hear(e->oob, &seed, 8);
            completed += wrong(e->area, AREA_BYTES, seed) != 0;
        }
        MUST(message_send(e, seed) == 0 && reap(e, 0, &ack) == 0);
    }
    if (measure) {
        printf(
            "target: %u fences, %zu with bytes missing; %u completions, %zu with bytes missing\n",
            ROUNDS, fenced, ROUNDS, completed);
        wake_test(e);
        registration_cost(e);
    }
    oob_say(e->oob, "r", 1);
    usleep(busy ? 5000 + (unsigned)rand() % 20000 : 5000);
    uint64_t start = now_ns();
    key_revoke(e, how);
    uint64_t end = now_ns();
    memcpy(before, e->area, PUT_BYTES);
    oob_say(e->oob, "x", 1);
    usleep(60000);
    size_t changed = differing(before, e->area, PUT_BYTES);
    int can_send = how <= QP_FLUSHED ? -1 : message_send(e, 1); /* does the endpoint still speak? */
    oob_hear(e->oob, &v, sizeof(v));
    runs[how]++;
    bad_runs[how] += changed != 0;
    if (!busy || changed || runs[how] == 2)
        printf("revoke by %-20s %s: %5.0f us, %zu bytes changed afterwards; the peer: %s after "
               "%.1f ms; "
               "message to it %s\n",
               revoke_names[how], busy ? "busy" : "idle", (double)(end - start) / 1e3, changed,
               ibv_wc_status_str(v.status), ((double)v.failed_ns - (double)end) / 1e6,
               can_send           ? "impossible"
               : v.message_status ? "lost"
                                  : "arrives");
    end_close(e); /* both at once: rdma_disconnect() waits for the peer's */
    oob_hear(e->oob, &c, 1);
}

static void source_session(struct end *e, int measure, enum revoke how, int busy,
                           struct rdma_addrinfo *to)
{
    struct key key;
    struct verdict v = {0};
    uint64_t ack;
    char c;
    MUST(rdma_create_ep(&e->id, to, NULL, NULL) == 0);
    end_open(e, 0);
    MUST(rdma_connect(
             e->id, &(struct rdma_conn_param){.retry_count = retries, .rnr_retry_count = 7}) == 0);
    oob_hear(e->oob, &key, sizeof(key));
    uint64_t start = now_ns();
    for (unsigned round = 0; measure && round < 2 * ROUNDS; round++) {
        fill(e->area, AREA_BYTES, round + 1);
        MUST(put(e, &key, PUT_COUNT, PUT_BYTES) == 0);
        if (round % 2 == 0) {
            MUST(message_send(e, round + 1) == 0);
        } else {
            MUST(reap(e, 0, &ack) == 0);
            oob_say(e->oob, &(uint64_t){round + 1}, 8);
        }
        MUST(reap(e, 1, &ack) == 0 && ack == round + 1 && reap(e, 0, &ack) == 0);
    }
    if (measure) {
        printf("source: %u puts of %u KiB in %u posts, %.2f Gb/s with filling and checking\n",
               e->puts, PUT_BYTES >> 10, e->posts,
               8.0 * e->puts * PUT_BYTES / (double)(now_ns() - start));
        oob_hear(e->oob, &c, 1);
        usleep(20000);
        MUST(message_send(e, now_ns()) == 0 && reap(e, 0, &ack) == 0);
    }
    for (unsigned slot = 0; slot < PUT_COUNT; slot++)
        fill(e->area + slot * PUT_BYTES, PUT_BYTES, 1000 + slot);
    oob_hear(e->oob, &c, 1);
    if (!busy)
        oob_hear(e->oob, &c, 1);
    if (!busy && how == QP_FLAGS) { /* an honest peer, which puts nothing any more */
        MUST(message_send(e, 1) == 0);
        printf("source: a message after the revoke by access flags: %s\n",
               ibv_wc_status_str(reap(e, 0, &ack)));
        MUST(empty_put(e) == 0);
        printf("source: a write of no bytes after it: %s\n", ibv_wc_status_str(reap(e, 0, &ack)));
    }
    do { /* all slots to one place, so that whatever lands late changes it */
        MUST(put(e, &key, PUT_COUNT, 0) == 0);
        v.status = reap(e, 0, &ack);
    } while (!v.status);
    v.failed_ns = now_ns();
    if (busy)
        oob_hear(e->oob, &c, 1);
    struct ibv_wc wc;
    v.message_status = -1;
    for (uint64_t until = now_ns() + 100000000; now_ns() < until;)
        if (ibv_poll_cq(e->cq, 1, &wc) == 1 && (wc.wr_id & 255) == RECEIVE && wc.status == 0)
            v.message_status = 0;
    oob_say(e->oob, &v, sizeof(v));
    end_close(e);
    oob_say(e->oob, "c", 1);
}

int main(int argc, char **argv)
{
    struct rdma_addrinfo *address;
    struct end e = {.area = area_new(AREA_BYTES)};
    int pair[2];
    uint16_t port;
    MUST(argc >= 2 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    unsigned repeats = argc > 2 ? (unsigned)atoi(argv[2]) : 6;
    if (argc > 3)
        retries = (uint8_t)atoi(argv[3]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    int is_target = fork() != 0; /* before anything is registered */
    e.oob = pair[is_target];
    struct rdma_addrinfo hints = {.ai_port_space = RDMA_PS_TCP,
                                  .ai_flags = is_target ? RAI_PASSIVE : 0};
    if (is_target) {
        MUST(rdma_getaddrinfo(argv[1], "0", &hints, &address) == 0);
        MUST(rdma_create_ep(&e.listener, address, NULL, NULL) == 0 &&
             rdma_listen(e.listener, 8) == 0);
        port = ntohs(rdma_get_src_port(e.listener));
        oob_say(e.oob, &port, 2);
    } else {
        char text[8];
        oob_hear(e.oob, &port, 2);
        snprintf(text, sizeof(text), "%u", port);
        MUST(rdma_getaddrinfo(argv[1], text, &hints, &address) == 0);
    }
    for (unsigned i = 0; i < REVOKES * repeats; i++) {
        int busy = i / REVOKES > 0;
        if (is_target)
            target_session(&e, i == 0, i % REVOKES, busy);
        else
            source_session(&e, i == 0, i % REVOKES, busy, address);
    }
    for (unsigned how = 0; is_target && how < REVOKES; how++)
        printf("revoke by %-20s: bytes changed afterwards in %u of %u runs\n", revoke_names[how],
               bad_runs[how], runs[how]);
    if (is_target)
        wait(NULL);
    return 0;
}

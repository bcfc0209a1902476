/* SPDX-License-Identifier: MIT */
/* spike_ofi - what libfabric's RDM endpoints do with the backend contract; two processes, one machine.
 *
 *   gcc -std=gnu17 -O2 -Wall -Wextra spike_ofi.c -o spike_ofi -lfabric -lpthread
 *   ./spike_ofi PROVIDER [ADDRESS], so:
 *   for p in 'tcp;ofi_rxm' net shm sockets; do timeout 60 ./spike_ofi "$p"; done
 *   scripts/soft-roce -- sh -c './spike_ofi "verbs;ofi_rxm" $RIG_ADDR'
 */
#include "spike.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <sys/eventfd.h>

#define DEPTH 64
static const char *address = "127.0.0.1";
enum revoke { CLOSE_MR, CLOSE_EP, REVOKES };
static const char *const revoke_names[] = {"fi_close(mr)", "fi_close(ep)"};

struct end {
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_av *av;
    struct fid_cq *cq;
    struct fid_ep *ep;
    struct fid_mr *mr, *message_mr;
    fi_addr_t peer;
    uint8_t *area;
    uint64_t messages[2][8]; /* [0]: to send; [1]: received into */
    struct fi_context receives[8], asked[4 * DEPTH], quiet[4 * DEPTH];
    unsigned next, unfinished, uninvited;
    int oob, wait_fd;
};

struct hello {
    char name[256];
    uint64_t name_bytes, addr, key;
};

#define FI(call)                                                                                   \
    do {                                                                                           \
        int fi_rc = (int)(call);                                                                   \
        if (fi_rc < 0) {                                                                           \
            printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, fi_strerror(-fi_rc));             \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static void receive_post(struct end *e, unsigned slot)
{
    FI(fi_recv(e->ep, &e->messages[1][slot], 8, fi_mr_desc(e->message_mr), FI_ADDR_UNSPEC,
               &e->receives[slot]));
}

static void end_open(struct end *e, const char *provider, int is_target)
{
    static uint64_t key = 100;
    struct fi_info *hints = fi_allocinfo();
    hints->caps = FI_MSG | FI_RMA;
    hints->mode = FI_CONTEXT;
    hints->ep_attr->type = FI_EP_RDM;
    hints->domain_attr->mr_mode =
        FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;
    hints->fabric_attr->prov_name = strdup(provider);
    const char *node = strcmp(provider, "shm") ? address : NULL;
    FI(fi_getinfo(FI_VERSION(1, 17), node, NULL, node ? FI_SOURCE : 0, hints, &e->info));
    fi_freeinfo(hints);
    FI(fi_fabric(e->info->fabric_attr, &e->fabric, NULL));
    FI(fi_domain(e->fabric, e->info, &e->domain, NULL));
    FI(fi_av_open(e->domain, &(struct fi_av_attr){.type = FI_AV_TABLE, .count = 4}, &e->av, NULL));
    struct fi_cq_attr cq = {.size = 4 * DEPTH, .format = FI_CQ_FORMAT_DATA, .wait_obj = FI_WAIT_FD};
    int rc = fi_cq_open(e->domain, &cq, &e->cq, NULL);
    if (rc) {
        cq.wait_obj = FI_WAIT_NONE;
        FI(fi_cq_open(e->domain, &cq, &e->cq, NULL));
    }
    e->wait_fd = -1;
    if (rc == 0)
        rc = fi_control(&e->cq->fid, FI_GETWAIT, &e->wait_fd);
    FI(fi_endpoint(e->domain, e->info, &e->ep, NULL));
    FI(fi_ep_bind(e->ep, &e->av->fid, 0));
    /* Bound apart: in one call the receives would be selective too, and complete in silence. */
    FI(fi_ep_bind(e->ep, &e->cq->fid, FI_TRANSMIT | FI_SELECTIVE_COMPLETION));
    FI(fi_ep_bind(e->ep, &e->cq->fid, FI_RECV));
    FI(fi_enable(e->ep));
    uint64_t start = now_ns();
    FI(fi_mr_reg(e->domain, e->area, AREA_BYTES, is_target ? FI_REMOTE_WRITE : FI_WRITE, 0, key++,
                 0, &e->mr, NULL));
    uint64_t end = now_ns();
    FI(fi_mr_reg(e->domain, e->messages, sizeof(e->messages), FI_SEND | FI_RECV, 0, key++, 0,
                 &e->message_mr, NULL));
    for (unsigned slot = 0; slot < 8; slot++)
        receive_post(e, slot);
    static int said;
    if (is_target && !said++)
        printf("%s: registering 4 MiB %.0f us; mr_mode %#x; transmit order %s; wait fd %s; inject "
               "%zu, "
               "iov %zu\n",
               provider, (double)(end - start) / 1e3, (unsigned)e->info->domain_attr->mr_mode,
               e->info->tx_attr->msg_order & FI_ORDER_SAW ? "has SAW" : "has no SAW",
               rc ? fi_strerror(-rc) : "yes", e->info->tx_attr->inject_size,
               e->info->tx_attr->iov_limit);
    struct hello mine = {.name_bytes = sizeof(mine.name)}, theirs;
    FI(fi_getname(&e->ep->fid, mine.name, &mine.name_bytes));
    mine.addr = e->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR ? (uintptr_t)e->area : 0;
    mine.key = fi_mr_key(e->mr);
    oob_say(e->oob, &mine, sizeof(mine));
    oob_hear(e->oob, &theirs, sizeof(theirs));
    MUST(fi_av_insert(e->av, theirs.name, 1, &e->peer, 0, NULL) == 1);
    memcpy(e->messages[0] + 4, &theirs.addr, 8);
    memcpy(e->messages[0] + 5, &theirs.key, 8);
}

static void end_close(struct end *e)
{
    if (e->ep)
        fi_close(&e->ep->fid);
    if (e->mr)
        fi_close(&e->mr->fid);
    fi_close(&e->message_mr->fid);
    fi_close(&e->cq->fid);
    fi_close(&e->av->fid);
    fi_close(&e->domain->fid);
    fi_close(&e->fabric->fid);
    fi_freeinfo(e->info);
    e->unfinished = 0;
}

/* Polls, which is also what moves data under manual progress, until a message has come
 * (@want_message) or nothing is unfinished. @ms bounds it. Returns 0, -ETIMEDOUT or the error. */
static int reap(struct end *e, int want_message, uint64_t *message, unsigned ms)
{
    uint64_t until = now_ns() + ms * 1000000ull;
    struct fi_cq_data_entry done;
    while (want_message || e->unfinished) {
        ssize_t n = fi_cq_read(e->cq, &done, 1);
        if (n == -FI_EAVAIL) {
            struct fi_cq_err_entry error = {0};
            fi_cq_readerr(e->cq, &error, 0);
            return -error.err;
        }
        if (n == -FI_EAGAIN && now_ns() > until)
            return -ETIMEDOUT;
        if (n != 1)
            continue;
        struct fi_context *context = done.op_context;
        if (context >= e->quiet && context < e->quiet + 4 * DEPTH) {
            e->uninvited++;
            continue;
        }
        if (context >= e->asked && context < e->asked + 4 * DEPTH) {
            e->unfinished--;
            continue;
        }
        unsigned slot = (unsigned)(context - e->receives);
        *message = e->messages[1][slot];
        receive_post(e, slot);
        if (want_message)
            return 0;
    }
    return 0;
}

/* Puts all slots of the area, @stride apart; @flags for each, @last_flags for the last one too. */
static int put(struct end *e, unsigned stride, uint64_t flags, uint64_t last_flags)
{
    uint64_t unused, until = now_ns() + 2000000000ull;
    for (unsigned i = 0; i < PUT_COUNT; i++) {
        void *desc = fi_mr_desc(e->mr);
        struct iovec iov = {e->area + i * PUT_BYTES, PUT_BYTES};
        struct fi_rma_iov to = {e->messages[0][4] + (uint64_t)i * stride, PUT_BYTES,
                                e->messages[0][5]};
        uint64_t f = flags | (i + 1 < PUT_COUNT ? FI_MORE : last_flags);
        struct fi_context *context =
            &(f & FI_COMPLETION ? e->asked : e->quiet)[e->next++ % (4 * DEPTH)];
        struct fi_msg_rma msg = {&iov, &desc, 1, e->peer, &to, 1, context, 0};
        ssize_t rc;
        while ((rc = fi_writemsg(e->ep, &msg, f)) == -FI_EAGAIN) {
            int error = reap(e, 1, &unused, 0); /* progress; no message is due here */
            if (error && error != -ETIMEDOUT)
                return error;
            if (now_ns() > until)
                return -ETIMEDOUT;
        }
        if (rc)
            return (int)rc;
        e->unfinished += (f & FI_COMPLETION) != 0;
    }
    return 0;
}

static int message_send(struct end *e, uint64_t value)
{
    uint64_t unused;
    ssize_t rc;
    while ((rc = fi_inject(e->ep, &value, 8, e->peer)) == -FI_EAGAIN)
        reap(e, 1, &unused, 0);
    return (int)rc;
}

static void *ring_later(void *fd)
{
    usleep(20000);
    uint64_t at = now_ns();
    MUST(write(*(int *)fd, &at, 8) == 8);
    return NULL;
}

/* Sleeps on the wait fd and an eventfd; another thread rings, then the peer sends a message. */
static void wake_test(struct end *e)
{
    uint64_t at, message, wakes = 0;
    int bell = eventfd(0, 0), rc;
    pthread_t thread;
    struct fid *fids[1] = {&e->cq->fid};
    if (e->wait_fd < 0) {
        oob_say(e->oob, "m", 1);
        rc = reap(e, 1, &message, 5000);
        printf("  no fd to sleep on: polled until the message came (%d)\n", rc);
        return;
    }
    struct pollfd fds[2] = {{e->wait_fd, POLLIN, 0}, {bell, POLLIN, 0}};
    pthread_create(&thread, NULL, ring_later, &bell);
    do {
        while ((rc = fi_trywait(e->fabric, fids, 1)) == -FI_EAGAIN)
            reap(e, 1, &message, 0);
        poll(fds, 2, 5000);
        wakes++;
    } while (!fds[1].revents);
    at = now_ns();
    MUST(read(bell, &message, 8) == 8);
    printf("  an eventfd beside the wait fd woke the sleeper in %.0f us (%lu wakes)\n",
           (double)(at - message) / 1e3, wakes);
    pthread_join(thread, NULL);
    close(bell);
    wakes = 0;
    oob_say(e->oob, "m", 1);
    while ((rc = reap(e, 1, &message, 0)) == -ETIMEDOUT && wakes < 1000000)
        if (fi_trywait(e->fabric, fids, 1) == 0)
            wakes += (uint64_t)poll(fds, 1, 1000);
    printf("  a message woke the sleeper %.0f us after it was posted (%lu wakes, %d)\n",
           (double)(now_ns() - message) / 1e3, wakes, rc);
}

struct verdict {
    uint64_t failed_ns;
    int put_error, message_error;
};

/* Keeps the target's progress going until something arrives out of band. */
static void progress_until_told(struct end *e, void *data, size_t bytes)
{
    uint64_t message;
    struct pollfd fd = {e->oob, POLLIN, 0};
    while (poll(&fd, 1, 0) == 0)
        reap(e, 1, &message, 0);
    oob_hear(e->oob, data, bytes);
}

static void target_session(struct end *e, const char *provider, int measure, enum revoke how)
{
    static const char *const fences[] = {"puts, message", "puts, delivery complete, message"};
    uint64_t seed;
    uint8_t before[PUT_BYTES];
    struct verdict v;
    int finished, told;
    end_open(e, provider, 1);
    for (unsigned kind = 0; measure && kind < 2; kind++) {
        size_t missing = 0;
        uint64_t start = now_ns();
        for (unsigned round = 0; round < ROUNDS; round++) {
            FI(reap(e, 1, &seed, 5000));
            missing += wrong(e->area, AREA_BYTES, seed) != 0;
            FI(message_send(e, seed));
        }
        printf("  %s: %zu of %u with bytes missing (%.1f Gb/s with filling and checking)\n",
               fences[kind], missing, ROUNDS,
               8.0 * ROUNDS * AREA_BYTES / (double)(now_ns() - start));
    }
    if (measure) { /* the target does not poll at all while the source puts */
        oob_hear(e->oob, &finished, sizeof(finished));
        size_t missing = wrong(e->area, AREA_BYTES, 500);
        progress_until_told(e, &told, sizeof(told));
        printf("  target asleep: the source %s; %zu of %u KiB missing; awake: completions %s\n",
               finished ? "has all completions" : "gets no last completion", missing * 8 >> 10,
               AREA_BYTES >> 10, told ? "come" : "do not come");
        wake_test(e);
    }
    oob_say(e->oob, "r", 1);
    reap(e, 1, &seed, 30);
    uint64_t start = now_ns();
    fi_close(how == CLOSE_MR ? &e->mr->fid : &e->ep->fid);
    uint64_t end = now_ns();
    *(how == CLOSE_MR ? (void **)&e->mr : (void **)&e->ep) = NULL;
    memcpy(before, e->area, PUT_BYTES);
    struct verdict *heard = &v;
    for (uint64_t until = now_ns() + 200000000; e->ep && now_ns() < until;)
        reap(e, 1, &seed, 0); /* a target that goes on making progress */
    usleep(e->ep ? 0 : 200000);
    size_t changed = differing(before, e->area, PUT_BYTES);
    if (e->ep)
        progress_until_told(e, heard, sizeof(v));
    else
        oob_hear(e->oob, heard, sizeof(v));
    printf(
        "  revoke by %s, busy: %.0f us, %zu bytes changed afterwards; the peer: %s after %.1f ms; "
        "its message then: %s\n",
        revoke_names[how], (double)(end - start) / 1e3, changed,
        v.put_error ? fi_strerror(-v.put_error) : "no error in 1 s",
        ((double)v.failed_ns - (double)end) / 1e6,
        v.message_error ? fi_strerror(-v.message_error) : "accepted");
    end_close(e);
}

static void source_session(struct end *e, const char *provider, int measure)
{
    uint64_t ack;
    struct verdict v = {0};
    char c;
    end_open(e, provider, 0);
    for (unsigned round = 0; measure && round < 2 * ROUNDS; round++) {
        fill(e->area, AREA_BYTES, round + 1);
        if (round < ROUNDS) {
            FI(put(e, PUT_BYTES, 0, FI_COMPLETION));
        } else {
            FI(put(e, PUT_BYTES, FI_COMPLETION | FI_DELIVERY_COMPLETE, 0));
            FI(reap(e, 0, &ack, 5000));
        }
        FI(message_send(e, round + 1));
        FI(reap(e, 1, &ack, 5000));
        FI(reap(e, 0, &ack, 5000));
    }
    if (measure) {
        fill(e->area, AREA_BYTES, 500);
        int rc = put(e, PUT_BYTES, 0, FI_COMPLETION);
        int finished = rc == 0 && reap(e, 0, &ack, 300) == 0;
        printf("  completions nobody asked for: %u of %u\n", e->uninvited,
               (ROUNDS + 1) * (PUT_COUNT - 1));
        oob_say(e->oob, &finished, sizeof(finished));
        int told = reap(e, 0, &ack, 2000) == 0;
        oob_say(e->oob, &told, sizeof(told));
        oob_hear(e->oob, &c, 1);
        usleep(20000);
        FI(message_send(e, now_ns()));
    }
    for (unsigned slot = 0; slot < PUT_COUNT; slot++)
        fill(e->area + slot * PUT_BYTES, PUT_BYTES, 1000 + slot);
    oob_hear(e->oob, &c, 1);
    for (uint64_t until = now_ns() + 1000000000; !v.put_error && now_ns() < until;) {
        v.put_error = put(e, 0, FI_COMPLETION, 0);
        if (!v.put_error)
            v.put_error = reap(e, 0, &ack, 1000);
    }
    v.failed_ns = now_ns();
    v.message_error = (int)fi_inject(e->ep, &ack, 8, e->peer);
    oob_say(e->oob, &v, sizeof(v));
    end_close(e);
}

int main(int argc, char **argv)
{
    struct end e = {.area = area_new(AREA_BYTES)};
    int pair[2];
    MUST(argc >= 2 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    if (argc > 2)
        address = argv[2];
    setvbuf(stdout, NULL, _IOLBF, 0);
    int is_target = fork() != 0;
    e.oob = pair[is_target];
    close(pair[!is_target]);
    for (unsigned i = 0; i < REVOKES * 4; i++) {
        if (is_target)
            target_session(&e, argv[1], i == 0, i % REVOKES);
        else
            source_session(&e, argv[1], i == 0);
    }
    if (is_target)
        wait(NULL);
    return 0;
}

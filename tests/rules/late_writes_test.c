// SPDX-License-Identifier: MIT
/* A source that goes through a whole handover as it should, over wires where puts land without the target's
 * code, and keeps the keys that it was given: it goes on writing with them, past all that our own side checks,
 * from when the target has joined its last fence until long after the guest runs there. Not one byte changes
 * (rule 10). The source is a process of its own: it shares no library's memory with the target. */
#include "gw_config.h"

#if GW_HAVE_OFI && GW_HAVE_RDMA
#include "core/base/clock.h"
#include "tests/shim/gw_test.h"
#include "tests/support/one_sided.h"
#include "tests/support/pair.h"
#include "tests/support/raw_peer.h"
#include "transport/ofi/ofi_impl.h"
#include "transport/rdma/rdma.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define RAM_BYTES (UINT64_C(4) << 20)
#define SLOT_BYTES 65536u
#define SLOTS (RAM_BYTES / SLOT_BYTES)
#define SECONDS 60u
#define PEER_TIMEOUT_NS (30 * GW_NS_PER_S)
#define LATE_MS 400 /* so long, and so many writes, while the guest runs */
#define LATE_WRITES 64u
#define GUESTS 0xa5 /* what was put as it should be */

/* What both processes see. */
struct seen {
    char uri[256];
    _Atomic unsigned written; /* writes posted since the last fence was joined */
    _Atomic bool is_enough;   /* it may say ACK */
};

/* ---- the source ------------------------------------------------------------------------------------ */

static void write_by_ofi(struct gw_ofi_ep *e, const struct gw_ofi_rmr *rmr, const uint8_t *local,
                         uint64_t offset)
{
    static struct fi_context2 contexts[256];
    static unsigned next;
    struct fi_cq_msg_entry done[16];
    struct fi_cq_err_entry error;
    if (fi_write(e->ep, local, SLOT_BYTES, NULL, e->to, rmr->at + offset, rmr->key,
                 &contexts[next % 256]) == 0)
        next++;
    if (fi_cq_read(e->cq, done, 16) == -FI_EAVAIL)
        fi_cq_readerr(e->cq, &error, 0);
}

static void write_by_rdma(struct gw_rdma_ep *e, const struct raw_source *raw, const uint8_t *memory,
                          uint64_t offset)
{
    const struct gw_rdma_rmr *rmr = (const struct gw_rdma_rmr *)raw->rmr;
    const struct gw_rdma_mr *mr = (const struct gw_rdma_mr *)raw->mr;
    struct ibv_sge sge = {.addr = mr->iova + offset, .length = SLOT_BYTES, .lkey = mr->mr->lkey};
    struct ibv_send_wr *bad, wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE};
    struct ibv_wc done[16];
    (void)memory;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.wr.rdma.remote_addr = rmr->iova + offset;
    wr.wr.rdma.rkey = rmr->rkey;
    ibv_post_send(e->qp, &wr, &bad);
    ibv_poll_cq(e->cq, 16, done);
}

/* One more write into each slot in turn, each of other bytes than the last. */
static void write_late(struct raw_source *raw, uint8_t *memory, unsigned i)
{
    uint64_t offset = (uint64_t)(i % SLOTS) * SLOT_BYTES;
    memset(memory + offset, (int)(1 + i / SLOTS % 64), SLOT_BYTES);
    if (strcmp(raw->uri.scheme, "rdma") == 0)
        write_by_rdma(gw_rdma_ep_of(raw->page[0]), raw, memory, offset);
    else
        write_by_ofi((struct gw_ofi_ep *)raw->page[0], (const struct gw_ofi_rmr *)raw->rmr,
                     memory + offset, offset);
}

struct late {
    struct raw_source raw;
    struct seen *seen;
    uint8_t *memory;
};

/* It owns the page endpoint from here on, which has nothing more to say. */
static void *go_on_writing(void *arg)
{
    struct late *late = arg;
    for (;;) {
        write_late(&late->raw, late->memory,
                   atomic_fetch_add_explicit(&late->seen->written, 1, memory_order_relaxed));
        gw_clock_poll(NULL, 0,
                      gw_clock_ns() + GW_NS_PER_MS / 10); /* leaves the target a processor */
    }
    return NULL;
}

static void hear(struct raw_source *raw, enum gw_message_type type)
{
    struct gw_message msg;
    if (!raw_hear(raw, type, &msg))
        GW_FAIL("no %s", gw_message_name(type));
}

/* Run by the tests below, in a process of its own, which they kill. */
GW_TEST(DISABLED_late_writes, source)
{
    static const uint8_t device[8];
    static struct late late;
    struct raw_source *raw = &late.raw;
    const char *fd = getenv("GODWIT_LATE_FD");
    pthread_t thread;
    GW_ASSERT(fd != NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    late.seen = mmap(NULL, sizeof(*late.seen), PROT_READ | PROT_WRITE, MAP_SHARED, atoi(fd), 0);
    late.memory = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    GW_ASSERT(late.seen != MAP_FAILED && late.memory != MAP_FAILED);
    memset(late.memory, GUESTS, RAM_BYTES);
    raw_source_open(raw, late.seen->uri, RAM_BYTES, 1, PEER_TIMEOUT_NS);
    raw_lend(raw, late.memory, RAM_BYTES);
    for (uint64_t at = 0; at < RAM_BYTES; at += SLOT_BYTES)
        raw_put(raw, 0, late.memory + at, at, SLOT_BYTES);
    raw_fence(raw, 0, 1, true);
    hear(raw, GW_MSG_JOINED);
    raw->page_count = 0; /* ours to step no more */
    GW_ASSERT_EQ(pthread_create(&thread, NULL, go_on_writing, &late), 0);
    raw_ram_end(raw);
    raw_device(raw, "pair", device, sizeof(device));
    raw_eof(raw);
    raw_prepare(raw, 1);
    hear(raw, GW_MSG_PREPARED);
    raw_token(raw, GW_MSG_COMMIT);
    hear(raw, GW_MSG_OUTCOME);
    while (!atomic_load(&late.seen->is_enough))
        gw_clock_poll(NULL, 0, gw_clock_ns() + GW_NS_PER_MS);
    raw_token(raw, GW_MSG_ACK);
    pthread_join(thread, NULL); /* until it is killed */
}

/* ---- the target ------------------------------------------------------------------------------------ */

struct target {
    struct pair pair; /* first: hooks get it and cast */
    struct seen *seen;
    int fd;
    pid_t pid;
    uint8_t *at_load; /* its memory, when its devices were loaded */
    unsigned written_at_run;
    bool was_loaded;
};

static void expect_unchanged(struct target *target, const char *when)
{
    const uint8_t *memory = target->pair.blocks[0].target;
    uint64_t changed = 0;
    for (uint64_t i = 0; i < RAM_BYTES; i++)
        changed += memory[i] != target->at_load[i];
    if (changed > 0)
        GW_NOTE_FAILURE("%s: %llu bytes changed after the keys were revoked", when,
                        (unsigned long long)changed);
}

/* Keys are revoked by now: what there is of memory is what the guest has. */
static int note_memory(struct pair *pair)
{
    struct target *target = (struct target *)pair;
    memcpy(target->at_load, pair->blocks[0].target, RAM_BYTES);
    target->was_loaded = true;
    return 0;
}

static int note_run(struct pair *pair)
{
    struct target *target = (struct target *)pair;
    expect_unchanged(target, "when it runs");
    target->written_at_run = atomic_load(&target->seen->written);
    return 0;
}

static void open_target(struct target *target, const char *wire)
{
    const char *uri = gw_one_sided_uri(wire);
    memset(target, 0, sizeof(*target));
    target->pair.listen_uri = uri;
    target->pair.load = note_memory;
    target->pair.run = note_run;
    target->pair.target_params = pair_params();
    GW_ASSERT_EQ(gw_params_set(target->pair.target_params, "x-settle-timeout", "60000", NULL), 0);
    target->at_load = malloc(RAM_BYTES);
    target->fd = memfd_create("seen", 0);
    GW_ASSERT(target->fd >= 0 && ftruncate(target->fd, sizeof(*target->seen)) == 0);
    target->seen =
        mmap(NULL, sizeof(*target->seen), PROT_READ | PROT_WRITE, MAP_SHARED, target->fd, 0);
    GW_ASSERT(target->seen != MAP_FAILED);
    pair_add_block(&target->pair, "ram0", RAM_BYTES, GW_BLOCK_ANON, 0);
    pair_init(&target->pair);
    pair_listen(&target->pair);
    snprintf(target->seen->uri, sizeof(target->seen->uri), "%s", gw_target_uri(target->pair.tgt));
}

static void start_source(struct target *target)
{
    char fd[16];
    snprintf(fd, sizeof(fd), "%d", target->fd);
    setenv("GODWIT_LATE_FD", fd, 1);
    target->pid = fork();
    GW_ASSERT_GE(target->pid, 0);
    if (target->pid == 0) {
        execl("/proc/self/exe", "late", "--gtest_also_run_disabled_tests",
              "--gtest_filter=DISABLED_late_writes.source", (char *)NULL);
        _exit(127);
    }
}

static bool runs_or_ended(struct pair *pair)
{
    pair->target_rc = gw_target_wait(pair->tgt, 0, &pair->target_err);
    return atomic_load(&pair->runs) > 0 || pair->target_rc != -EINPROGRESS;
}

static bool target_over(struct pair *pair)
{
    pair->target_rc = gw_target_wait(pair->tgt, 0, &pair->target_err);
    return pair->target_rc != -EINPROGRESS;
}

/* Until it has written for that long, and that often, since the guest runs. */
static void let_it_write(struct target *target)
{
    uint64_t from = atomic_load(&target->seen->written),
             end_ns = gw_clock_ns() + LATE_MS * GW_NS_PER_MS;
    uint64_t last_ns = gw_clock_ns() + SECONDS * GW_NS_PER_S;
    while (gw_clock_ns() < last_ns &&
           (gw_clock_ns() < end_ns || atomic_load(&target->seen->written) < from + LATE_WRITES))
        pair_pump(&target->pair, 5);
    GW_EXPECT_GE(atomic_load(&target->seen->written), from + LATE_WRITES);
}

static void close_target(struct target *target)
{
    int status;
    kill(target->pid, SIGKILL);
    waitpid(target->pid, &status, 0);
    gw_params_free(target->pair.target_params);
    pair_fini(&target->pair);
    munmap(target->seen, sizeof(*target->seen));
    close(target->fd);
    free(target->at_load);
}

GW_TEST_EACH(late_writes, change_nothing_once_keys_are_revoked_and_the_guest_runs,
             gw_one_sided_wires)
{
    struct target target;
    struct pair *pair = &target.pair;
    open_target(&target, param);
    start_source(&target);
    GW_EXPECT(pair_until(pair, runs_or_ended, SECONDS));
    if (atomic_load(&pair->runs) != 1)
        GW_NOTE_FAILURE("the guest never ran: %s", pair->target_err.message);
    if (GW_EXPECT(target.was_loaded)) {
        for (uint64_t at = 0; at < RAM_BYTES; at += 4096) /* its keys were good ones */
            GW_EXPECT(target.at_load[at] != 0);
        let_it_write(&target);
        expect_unchanged(&target, "while it runs, its source connected");
        atomic_store(&target.seen->is_enough, true);
        GW_EXPECT(pair_until(pair, target_over, SECONDS));
        GW_EXPECT_EQ(pair->target_rc, 0);
        let_it_write(&target);
        expect_unchanged(&target, "after the migration");
    }
    close_target(&target);
}
#else
extern int gw_room_is_empty;
#endif

// SPDX-License-Identifier: MIT
/* First touch at the target. Where registering pins nothing, no key waits for memory to be populated: first
 * touch, which may be slower than the wire, then holds up the pages that are there already, and no others.
 * Here it takes until the test says so: the target's memory is a userfaultfd's, and whoever touches it waits. */
#include "tests/shim/gw_test.h"
#include "tests/support/one_sided.h"
#include "tests/support/pair.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RAM_BYTES (UINT64_C(32) << 20)
#define CHUNKS 16u /* of 2 MiB */
#define SECONDS 60u

/* The target has made its memory, which nobody has touched. */
static int hold_back(struct pair *pair, struct gw_error *err)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {
        .range = {.start = (uintptr_t)pair->blocks[0].target, .len = RAM_BYTES},
        .mode = UFFDIO_REGISTER_MODE_MISSING};
    int *fd = pair->test;
    (void)err;
    GW_EXPECT_EQ(ioctl(*fd, UFFDIO_API, &api), 0);
    GW_EXPECT_EQ(ioctl(*fd, UFFDIO_REGISTER, &range), 0);
    return 0;
}

static bool all_are_ready(struct pair *pair)
{
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    gw_source_stats(pair->src, &stats);
    return stats.chunks_needed == CHUNKS;
}

static unsigned populated(void *memory)
{
    static unsigned char map[RAM_BYTES / 4096];
    unsigned count = 0;
    GW_ASSERT_EQ(mincore(memory, RAM_BYTES, map), 0);
    for (unsigned i = 0; i < RAM_BYTES / 4096; i++)
        count += map[i] & 1;
    return count;
}

static void expect_moved(struct pair *pair)
{
    GW_EXPECT(pair_finish(pair, SECONDS));
    if (pair->source_rc != 0 || pair->target_rc != 0)
        GW_FAIL("source: %s; target: %s", pair->source_err.message, pair->target_err.message);
    GW_EXPECT_EQ(pair_differs(pair), -1);
}

static void close_pair(struct pair *pair)
{
    gw_params_free(pair->params);
    gw_params_free(pair->target_params);
    pair_fini(pair);
}

static const char *const wires[] = {"ofi_net", "ofi_rxm", NULL};
/* Without "net": there a registration waits for the call in progress (gw_ofi_enter()), and such a call may be
 * the one that touches memory. Between calls it goes ahead; here one would take for ever. */
static const char *const free_wires[] = {"ofi_rxm", NULL};

GW_TEST_EACH(first_touch, holds_back_no_key_where_nothing_is_pinned, free_wires)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        GW_SKIP("no userfaultfd that holds back the kernel, too");
    struct pair pair = {.listen_uri = gw_one_sided_uri(param),
                        .params = pair_params(),
                        .target_params = pair_params(),
                        .blocks_ready = hold_back,
                        .test = &fd};
    pair_add_block(&pair, "ram0", RAM_BYTES, GW_BLOCK_ANON, 100);
    pair_init(&pair);
    pair_listen(&pair);
    pair_start(&pair);
    bool are_ready = pair_until(&pair, all_are_ready, SECONDS);
    GW_EXPECT(are_ready);
    if (are_ready)
        GW_EXPECT_EQ(populated(pair.blocks[0].target), 0);
    close(fd); /* and wakes who waits */
    expect_moved(&pair);
    close_pair(&pair);
}

/* ---- memory that is not to be had ---------------------------------------------------------------- */

/* The file behind the target's memory ends in its middle. */
static int cut_short(struct pair *pair, struct gw_error *err)
{
    (void)err;
    return ftruncate(pair->blocks[0].target_fd, RAM_BYTES / 2);
}

/* The source has pages there, of zeros, which need no memory at the target. */
static void go_with_half(struct pair *pair)
{
    pair->blocks_ready = cut_short;
    pair_add_block(pair, "ram0", RAM_BYTES, GW_BLOCK_MEMFD, 0);
    memset(pair->blocks[0].source, 1, RAM_BYTES / 2);
    memset(pair->blocks[0].source + RAM_BYTES / 2, 0, RAM_BYTES / 2);
    pair_init(pair);
    pair_listen(pair);
    pair_start(pair);
}

GW_TEST(first_touch, is_advice_on_a_stream)
{
    struct pair pair = {.params = pair_params(), .target_params = pair_params()};
    go_with_half(&pair);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    GW_ASSERT_EQ(ftruncate(pair.blocks[0].target_fd, RAM_BYTES), 0); /* to be compared */
    expect_moved(&pair);
    close_pair(&pair);
}

GW_TEST_EACH(first_touch, of_memory_that_is_not_to_be_had_is_said_where_nobody_else_would, wires)
{
    struct pair pair = {.listen_uri = gw_one_sided_uri(param),
                        .params = pair_params(),
                        .target_params = pair_params()};
    /* What is there would take half a minute: nothing is over before it is found out, at once. */
    GW_ASSERT_EQ(gw_params_set(pair.params, "max-bandwidth", "512K", NULL), 0);
    go_with_half(&pair);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    GW_EXPECT_LT(pair.source_rc, 0);
    GW_EXPECT_EQ(pair.target_rc, -EFAULT);
    if (!strstr(pair.target_err.message, "block 'ram0' [") ||
        !strstr(pair.target_err.message, ", +4194304): prefault"))
        GW_NOTE_FAILURE("%s", pair.target_err.message);
    GW_EXPECT(pair.source_runs && !pair.target_runs);
    close_pair(&pair);
}

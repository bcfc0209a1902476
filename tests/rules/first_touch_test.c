// SPDX-License-Identifier: MIT
/* Where registering pins nothing, no key waits for memory to be populated: first touch, which may be slower
 * than the wire, then holds up the pages that are there already, and no others. Here it takes until the test
 * says so: the target's memory is a userfaultfd's, and whoever touches it waits. */
#include "tests/shim/gw_test.h"
#include "tests/support/one_sided.h"
#include "tests/support/pair.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
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

static void let_go(int fd, void *memory)
{
    struct uffdio_range range = {.start = (uintptr_t)memory, .len = RAM_BYTES};
    GW_EXPECT_EQ(ioctl(fd, UFFDIO_UNREGISTER, &range), 0); /* and wakes who waits */
    close(fd);
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

static const char *const wires[] = {"ofi_net", "ofi_rxm", NULL};

GW_TEST_EACH(first_touch, holds_back_no_key_where_nothing_is_pinned, wires)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        GW_SKIP("no userfaultfd that holds back the kernel, too");
    struct pair pair = {
        .listen_uri = gw_one_sided_uri(param), .blocks_ready = hold_back, .test = &fd};
    pair.params = pair_params();
    pair.target_params = pair_params();
    pair_add_block(&pair, "ram0", RAM_BYTES, GW_BLOCK_ANON, 100);
    pair_init(&pair);
    pair_listen(&pair);
    pair_start(&pair);
    GW_EXPECT(pair_until(&pair, all_are_ready, SECONDS));
    GW_EXPECT_EQ(populated(pair.blocks[0].target), 0);
    let_go(fd, pair.blocks[0].target);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    if (pair.source_rc != 0 || pair.target_rc != 0)
        GW_FAIL("source: %s; target: %s", pair.source_err.message, pair.target_err.message);
    GW_EXPECT_EQ(pair_differs(&pair), -1);
    gw_params_free(pair.params);
    gw_params_free(pair.target_params);
    pair_fini(&pair);
}

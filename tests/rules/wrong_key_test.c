// SPDX-License-Identifier: MIT
/* A target that is there and tells keys which are none: the device refuses the first put. Who is to blame is
 * said, although both ends lose that connection at once; no byte is written, and the guest runs on. The
 * target's keys are bent where verbs hands them out. Of a target that died: tests/rig/faults.py. */
#include "gw_config.h"
#include "tests/shim/gw_test.h"
#include "tests/support/one_sided.h"
#include "tests/support/pair.h"

#if GW_HAVE_RDMA
#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <string.h>

#define RAM_BYTES (UINT64_C(8) << 20)
#define SECONDS 60u

static _Atomic bool lies;

/* In the place of the library's; only what is lent is for others to write. */
struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t bytes, uint64_t iova,
                                unsigned int access)
{
    static struct ibv_mr *(*real)(struct ibv_pd *, void *, size_t, uint64_t, unsigned int);
    if (!real) {
        void *found = dlsym(RTLD_NEXT, "ibv_reg_mr_iova2");
        memcpy(&real, &found, sizeof(real));
    }
    struct ibv_mr *mr = real(pd, addr, bytes, iova, access);
    if (mr && lies && (access & IBV_ACCESS_REMOTE_WRITE))
        mr->rkey ^= 1;
    return mr;
}

GW_TEST_EACH(one_sided, a_key_that_is_none_is_the_living_targets_fault, gw_one_sided_rdma)
{
    struct pair pair = {.writes = true, .device_value = 7, .listen_uri = gw_one_sided_uri(param)};
    pair_add_block(&pair, "ram0", RAM_BYTES, GW_BLOCK_MEMFD, 80);
    pair_init(&pair);
    pair_listen(&pair);
    lies = true;
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    lies = false;
    GW_EXPECT_EQ(pair.source_rc, -EACCES);
    if (!GW_EXPECT_EQ(pair.source_err.code, GW_CODE_PROTOCOL))
        GW_NOTE_FAILURE("source: %s; target: %s", pair.source_err.message, pair.target_err.message);
    GW_EXPECT_STREQ(pair.source_err.phase, "active");
    GW_EXPECT_LT(pair.target_rc, 0);
    GW_EXPECT(pair.source_runs && !pair.target_runs);
    GW_EXPECT_EQ(pair.pauses, 0);
    pair_listen(&pair);
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    GW_EXPECT_EQ(pair.source_rc, 0);
    GW_EXPECT_EQ(pair_differs(&pair), -1);
    pair_fini(&pair);
}
#endif

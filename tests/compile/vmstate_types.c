// SPDX-License-Identifier: MIT
/* One field, given by -DFIELD=..., for members of every type. */
#include <godwit/vmstate.h>

#include <sys/queue.h>

struct inner {
    uint32_t x;
};
struct node {
    uint32_t x;
    TAILQ_ENTRY(node) tailq;
    LIST_ENTRY(node) list;
};
struct clock {
    int64_t when_ns;
};
struct tree;

struct t {
    int8_t i8;
    int16_t i16;
    int32_t i32;
    int64_t i64;
    uint8_t u8, raw[8], grid[2][3], *raw_at;
    uint16_t u16;
    uint32_t u32, u32s[4], *u32_at, *u32_few[3], **u32_many, bits3 : 3;
    const uint32_t *u32_ro;
    uint64_t u64, u64s[2], *u64_at;
    bool flag;
    float real32;
    double real;
    char text[8], *text_at;
    void *void_at;
    struct inner in, ins[2], in_grid[1][2], *in_at, *in_few[2], **in_many;
    struct clock clock;
    struct tree *tree;
    TAILQ_HEAD(, node) tailq;
    LIST_HEAD(, node) list;
};
struct tmp {
    uint8_t x;
    struct t *parent;
};
struct orphan {
    uint8_t x;
    struct inner *parent;
};

extern const struct gw_vmstate inner_vmsd, node_vmsd, tmp_vmsd, vmsd;
extern const struct gw_vmcodec codec;
extern const struct gw_vmtree_ops tree_ops;
extern const struct gw_vmtimer_ops clock_ops;
bool is_there(const void *opaque, uint32_t version_id);
bool is_needed(const void *opaque);

const struct gw_vmstate vmsd = {
    GW_VMSTATE_OF(struct t),
    .name = "t",
    .version_id = 9,
    GW_VMSTATE_FIELDS(FIELD),
};

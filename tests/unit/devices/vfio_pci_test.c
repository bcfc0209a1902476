// SPDX-License-Identifier: MIT
/* Configuration space of a function that is passed through, saved, loaded, and refused. */
#include "control/stream.h"
#include "devices/vfio/pci_config.h"
#include "tests/shim/gw_test.h"

#include <errno.h>
#include <string.h>

#define VECTORS 5

struct function {
    struct gw_vfio_pci pci;
    uint8_t config[4096], check[4096], writable[4096], clears[4096];
    uint8_t table[VECTORS * 16], pending[1];
    unsigned applied;
};

static int apply(void *opaque, struct gw_error *err)
{
    (void)err;
    ((struct function *)opaque)->applied++;
    return 0;
}

static void function_init(struct function *f, uint8_t fill, uint32_t vectors)
{
    memset(f, 0, sizeof(*f));
    f->pci = (struct gw_vfio_pci){
        .struct_bytes = sizeof(f->pci),
        .config_bytes = 256,
        .config = f->config,
        .check = f->check,
        .writable = f->writable,
        .clears = f->clears,
        .vectors = vectors,
        .table = f->table,
        .pending = f->pending,
        .apply = apply,
        .opaque = f,
    };
    memset(f->check, 0xff, 4); /* vendor and device */
    f->check[4] = 0xff;
    f->writable[4] = 0x07; /* command */
    memset(f->table, fill, sizeof(f->table));
    memcpy(f->config, "\x86\x80\x10\x10", 4);
    f->config[0x40] = fill;
}

static struct gw_error loaded(struct function *to, const struct gw_writer *w)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_reader r;
    gw_reader_init(&r, w->data, w->bytes);
    int rc = gw_vfio_pci_load(&to->pci, &r, &err);
    GW_EXPECT_EQ(rc, err.rc);
    GW_EXPECT_EQ(to->applied, rc == 0);
    if (rc == 0)
        GW_EXPECT_EQ(gw_reader_left(&r), 0);
    return err;
}

static void expect_refused(const struct gw_writer *w, int rc, const char *message)
{
    struct function to, before;
    function_init(&to, 1, VECTORS);
    before = to;
    struct gw_error err = loaded(&to, w);
    GW_EXPECT_EQ(err.rc, rc);
    GW_EXPECT_STREQ(err.message, message);
    GW_EXPECT_MEMEQ(to.config, before.config, sizeof(to.config));
    GW_EXPECT_MEMEQ(to.table, before.table, sizeof(to.table));
    GW_EXPECT_MEMEQ(to.pci.pins, before.pci.pins, sizeof(to.pci.pins));
}

static void save(const struct function *from, struct gw_writer *w)
{
    gw_writer_init(w, 1 << 20);
    GW_ASSERT_EQ(gw_vfio_pci_save(&from->pci, w, NULL), 0);
}

GW_TEST(vfio_pci, an_image_arrives_with_pins_and_vectors)
{
    struct function from, to;
    struct gw_writer w;
    function_init(&from, 7, VECTORS);
    function_init(&to, 1, VECTORS);
    from.config[4] = 0x06;
    from.config[6] = 0x18;
    from.pci.pins[1] = 1;
    from.pending[0] = 0x11;
    save(&from, &w);
    GW_EXPECT_EQ(w.bytes, 4 + 256 + 16 + 16 * VECTORS + 1);
    GW_EXPECT_EQ(w.data[3], 2);
    GW_EXPECT_EQ(w.data[4 + 6], 0x10); /* not the interrupt's bit */
    GW_EXPECT_EQ(loaded(&to, &w).rc, 0);
    GW_EXPECT_MEMEQ(to.config, from.config, 256);
    GW_EXPECT_MEMEQ(to.table, from.table, sizeof(to.table));
    GW_EXPECT_MEMEQ(to.pending, from.pending, 1);
    GW_EXPECT_EQ(to.pci.pins[1], 1);
    gw_writer_fini(&w);
}

GW_TEST(vfio_pci, an_older_image_has_no_pins)
{
    struct function from, to;
    struct gw_writer w;
    function_init(&from, 7, 0);
    function_init(&to, 1, 0);
    to.pci.pins[0] = 1;
    gw_writer_init(&w, 1 << 20);
    gw_writer_be32(&w, 1);
    gw_writer_bytes(&w, from.config, 256);
    GW_EXPECT_EQ(loaded(&to, &w).rc, 0);
    GW_EXPECT_EQ(to.pci.pins[0], 0);
    GW_EXPECT_EQ(to.config[0x40], 7);
    gw_writer_fini(&w);
}

GW_TEST(vfio_pci, an_image_of_another_function_is_refused_with_the_place)
{
    struct function from;
    struct gw_writer w;
    function_init(&from, 7, VECTORS);
    from.config[2] = 0x11;
    save(&from, &w);
    expect_refused(&w, -ENODEV,
                   "pci configuration: byte 0x2 is 0x11, and 0x10 here, of which 0xff "
                   "must be the same");
    from.config[2] = 0x10;
    from.config[4] = 0x0f; /* 0x07 of it is the guest's */
    gw_writer_fini(&w);
    save(&from, &w);
    expect_refused(&w, -ENODEV,
                   "pci configuration: byte 0x4 is 0x0f, and 0x00 here, of which 0xf8 "
                   "must be the same");
    gw_writer_fini(&w);
}

GW_TEST(vfio_pci, what_cannot_be_is_refused_and_nothing_is_taken)
{
    struct function from;
    struct gw_writer w;
    function_init(&from, 7, VECTORS);
    from.pci.pins[2] = 2;
    save(&from, &w);
    expect_refused(&w, -ERANGE, "pci configuration: level of pin C is 2");
    gw_writer_fini(&w);

    from.pci.pins[2] = 0;
    from.pending[0] = 0x20;
    save(&from, &w);
    expect_refused(&w, -EINVAL,
                   "pci configuration: an interrupt is pending behind the last of 5 vectors");
    w.data[3] = 3;
    expect_refused(&w, -ERANGE, "pci configuration: version 3, 2 is the highest here");
    w.data[3] = 2;
    w.bytes--;
    expect_refused(&w, -EBADMSG, "pci configuration: it ends before its 256 bytes and 5 vectors");
    w.bytes = 3;
    expect_refused(&w, -EBADMSG, "pci configuration: it ends before its 256 bytes and 5 vectors");
    gw_writer_fini(&w);
}

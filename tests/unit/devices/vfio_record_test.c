// SPDX-License-Identifier: MIT
/* The records of a section, byte by byte, and what a target does with those that should not be. */
#include "tests/unit/devices/vfio_rig.h"

#include <inttypes.h>

/* ---- what is written ----------------------------------------------------------------------------- */

struct text {
    char hex[4096];
};

static struct text hex_of(const struct gw_writer *w)
{
    struct text text = {""};
    for (size_t i = 0; i < w->bytes && i < sizeof(text.hex) / 2 - 1; i++)
        snprintf(text.hex + 2 * i, 3, "%02x", w->data[i]);
    return text;
}

static bool ends_with(const struct gw_writer *w, uint64_t tag)
{
    struct gw_reader r;
    if (w->bytes < 8)
        return false;
    gw_reader_init(&r, w->data + w->bytes - 8, 8);
    return gw_reader_be64(&r) == tag;
}

GW_TEST(vfio_record, set_up_is_two_tags)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    rig_open(&rig, RIG_FEATURE, &config, NULL);
    GW_EXPECT_EQ(gw_vfio_save_setup(rig.src.vfio, &rig.w, &rig.err), 0);
    GW_EXPECT_STREQ(hex_of(&rig.w).hex, "ffffffffef100003ffffffffef100001");
    gw_vfio_save_cleanup(rig.src.vfio);
    rig_close(&rig);
}

GW_TEST(vfio_record, an_announced_set_up_names_its_format)
{
    struct vendor_config config = rig_config();
    struct gw_vfio_config options = {.announce = true};
    struct rig rig;
    rig_open(&rig, RIG_STAGING, &config, &options);
    GW_EXPECT_EQ(gw_vfio_save_setup(rig.src.vfio, &rig.w, &rig.err), 0);
    GW_EXPECT_STREQ(hex_of(&rig.w).hex, "ffffffffef100003"
                                        "ffffffffef108001"
                                        "0676656e646f7200000003"
                                        "ffffffffef100001");
    gw_vfio_save_cleanup(rig.src.vfio);
    rig_close(&rig);
}

/* Else a loader that has seen the data tag would take the end tag for a length. */
GW_TEST(vfio_record, a_chunked_device_with_nothing_now_says_a_size_of_zero)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    rig_open(&rig, RIG_STAGING, &config, NULL);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(rig_round(&rig, 1000), 0);
    GW_EXPECT_EQ(gw_vfio_save_iterate(rig.src.vfio, &rig.w, 65536, &rig.err), GW_DEVICE_DONE);
    GW_EXPECT_STREQ(hex_of(&rig.w).hex, "ffffffffef1000040000000000000000ffffffffef100001");
    GW_EXPECT_EQ(rig_load(&rig, GW_DEVICE_PART), 0);
    rig_settle(&rig, false);
    rig_close(&rig);
}

GW_TEST(vfio_record, a_stream_device_with_nothing_now_says_its_end_alone)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    rig_open(&rig, RIG_FEATURE, &config, NULL);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(rig_round(&rig, 1000), 0);
    GW_EXPECT_EQ(gw_vfio_save_iterate(rig.src.vfio, &rig.w, 65536, &rig.err), GW_DEVICE_DONE);
    GW_EXPECT_STREQ(hex_of(&rig.w).hex, "ffffffffef100001");
    rig_settle(&rig, false);
    rig_close(&rig);
}

GW_TEST(vfio_record, one_section_of_the_live_phase_has_one_chunk)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    config.chunk = VENDOR_CHUNK_ODD;
    rig_open(&rig, RIG_STAGING, &config, NULL);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(gw_vfio_save_iterate(rig.src.vfio, &rig.w, 65536, &rig.err), 0);
    GW_EXPECT_EQ(rig.w.bytes, 8 + 8 + 4099 + 8);
    GW_EXPECT_EQ(strncmp(hex_of(&rig.w).hex, "ffffffffef1000040000000000001003", 32), 0);
    GW_EXPECT(ends_with(&rig.w, GW_VFIO_END_OF_STATE));
    rig_settle(&rig, false);
    rig_close(&rig);
}

/* A record for each would cost more than its bytes. */
GW_TEST(vfio_record, short_reads_of_a_descriptor_become_one_record)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    rig_open(&rig, RIG_FEATURE, &config, NULL);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(gw_vfio_save_iterate(rig.src.vfio, &rig.w, 20000, &rig.err), 0);
    GW_EXPECT_EQ(rig.w.bytes, 8 + 8 + 20000 + 8);
    GW_EXPECT(ends_with(&rig.w, GW_VFIO_END_OF_STATE));
    rig_settle(&rig, false);
    rig_close(&rig);
}

/* In the pause as many as fit, and one end. */
GW_TEST(vfio_record, the_rest_is_chunk_after_chunk_with_one_end)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    struct gw_reader r;
    unsigned chunks = 0;
    config.chunk = VENDOR_CHUNK_ODD;
    rig_open(&rig, RIG_STAGING, &config, NULL);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(gw_vfio_stop_all(&rig.src.vfio, 1, &rig.err), 0);
    GW_EXPECT_EQ(gw_vfio_save_complete(rig.src.vfio, &rig.w, 1 << 20, &rig.err), GW_DEVICE_DONE);
    gw_reader_init(&r, rig.w.data, rig.w.bytes);
    while (gw_reader_be64(&r) == GW_VFIO_DATA_STATE && chunks < 1000) {
        gw_reader_take(&r, gw_reader_be64(&r));
        chunks++;
    }
    GW_EXPECT_EQ(gw_reader_error(&r), 0);
    GW_EXPECT_EQ(gw_reader_left(&r), 0);
    GW_EXPECT_GT(chunks, 5);
    rig_settle(&rig, false);
    rig_close(&rig);
}

GW_TEST(vfio_record, state_above_a_section_goes_in_several)
{
    struct vendor_config config = rig_config();
    for (unsigned front = 0; front < 2; front++) {
        struct rig rig;
        rig_open(&rig, (enum rig_front)front, &config, NULL);
        rig.bytes_max = 5000;
        rig.rounds_max = 1;
        rig.writes_a_round = 20;
        rig_expect_moved(&rig, rig_migrate(&rig));
        GW_EXPECT_EQ(rig.sections[GW_DEVICE_BEGIN], 1);
        GW_EXPECT_GE(rig.sections[GW_DEVICE_PART], 12 * 4112 / 5000);
        GW_EXPECT_EQ(rig.sections[GW_DEVICE_END], 1);
        GW_EXPECT_EQ(rig.sections[GW_DEVICE_FULL], 1);
        rig_close(&rig);
    }
}

GW_TEST(vfio_record, the_configuration_stands_between_two_tags)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    config.config_bytes = 1;
    rig_open(&rig, RIG_FEATURE, &config, NULL);
    GW_EXPECT_EQ(gw_vfio_save_config(rig.src.vfio, &rig.w, &rig.err), 0);
    GW_EXPECT_EQ(rig.w.bytes, 8 + 5 + 8);
    GW_EXPECT_EQ(strncmp(hex_of(&rig.w).hex, "ffffffffef10000200000001", 24), 0);
    GW_EXPECT(ends_with(&rig.w, GW_VFIO_END_OF_STATE));
    rig_close(&rig);
}

/* ---- what must not be ------------------------------------------------------------------------- */

/* A target that waits for sections, and a way to write them by hand. */
static void open_target(struct rig *rig, enum rig_front front, const struct gw_vfio_config *options)
{
    struct vendor_config config = rig_config();
    rig_open(rig, front, &config, options);
    GW_ASSERT_EQ(rig->dst.desc.ops->load_setup(rig->dst.vfio, &rig->err), 0);
}

static void tag(struct rig *rig, uint64_t value)
{
    gw_writer_be64(&rig->w, value);
}

static void set_up(struct rig *rig)
{
    tag(rig, GW_VFIO_SETUP_STATE);
    tag(rig, GW_VFIO_END_OF_STATE);
    GW_ASSERT_EQ(rig_load(rig, GW_DEVICE_BEGIN), 0);
}

static void data(struct rig *rig, uint64_t bytes, size_t really)
{
    tag(rig, GW_VFIO_DATA_STATE);
    gw_writer_be64(&rig->w, bytes);
    for (size_t i = 0; i < really; i++)
        gw_writer_u8(&rig->w, (uint8_t)i);
}

static void expect_refused(struct rig *rig, enum gw_device_part part, int rc, const char *message)
{
    GW_EXPECT_EQ(rig_load(rig, part), rc);
    GW_EXPECT_EQ(rig->err.rc, rc);
    GW_EXPECT_EQ(rig->err.code, GW_CODE_DEVICE);
    GW_EXPECT_STREQ(rig->err.message, message);
    rig->dst.desc.ops->load_cleanup(rig->dst.vfio);
    GW_EXPECT_EQ(vendor_state(rig->dst.vendor), GW_ODEV_RUNNING);
    GW_EXPECT(vendor_violation(rig->dst.vendor) == NULL);
    rig_close(rig);
}

#define IT "device '0000:00:04.0/vfio': load: "

GW_TEST(vfio_record, an_unknown_tag_is_told_in_hex)
{
    struct rig rig;
    open_target(&rig, RIG_STAGING, NULL);
    set_up(&rig);
    tag(&rig, GW_VFIO_TAG(9));
    expect_refused(&rig, GW_DEVICE_PART, -EBADMSG, IT "unknown tag 0xffffffffef100009");
}

GW_TEST(vfio_record, a_tag_of_parallel_transfer_is_unknown_without_it)
{
    struct rig rig;
    open_target(&rig, RIG_FEATURE, NULL);
    set_up(&rig);
    tag(&rig, GW_VFIO_CONFIG_LOAD_READY);
    expect_refused(&rig, GW_DEVICE_FULL, -EBADMSG, IT "unknown tag 0xffffffffef100006");
}

GW_TEST(vfio_record, set_up_without_its_end_is_refused)
{
    struct rig rig;
    open_target(&rig, RIG_STAGING, NULL);
    tag(&rig, GW_VFIO_SETUP_STATE);
    tag(&rig, GW_VFIO_DATA_STATE);
    expect_refused(&rig, GW_DEVICE_BEGIN, -EBADMSG,
                   IT "its set-up is followed by 0xffffffffef100004 instead of its end");
}

GW_TEST(vfio_record, set_up_that_comes_twice_is_refused)
{
    struct rig rig;
    open_target(&rig, RIG_STAGING, NULL);
    set_up(&rig);
    tag(&rig, GW_VFIO_SETUP_STATE);
    tag(&rig, GW_VFIO_END_OF_STATE);
    expect_refused(&rig, GW_DEVICE_PART, -EPROTO, IT "its set-up comes twice");
}

GW_TEST(vfio_record, a_first_section_without_set_up_is_refused)
{
    struct rig rig;
    open_target(&rig, RIG_STAGING, NULL);
    tag(&rig, GW_VFIO_END_OF_STATE);
    expect_refused(&rig, GW_DEVICE_BEGIN, -EPROTO, IT "its first section has no set-up");
}

GW_TEST(vfio_record, configuration_without_its_end_is_refused)
{
    struct rig rig;
    open_target(&rig, RIG_STAGING, NULL);
    set_up(&rig);
    tag(&rig, GW_VFIO_CONFIG_STATE);
    vendor_save_config(rig.src.vendor, &rig.w, NULL);
    tag(&rig, GW_VFIO_CONFIG_STATE);
    expect_refused(&rig, GW_DEVICE_FULL, -EBADMSG,
                   IT "its configuration is followed by 0xffffffffef100002 instead of its end");
}

GW_TEST(vfio_record, configuration_that_is_not_for_this_device_is_refused)
{
    struct rig rig;
    open_target(&rig, RIG_FEATURE, NULL);
    set_up(&rig);
    tag(&rig, GW_VFIO_CONFIG_STATE);
    gw_writer_be32(&rig.w, 41);
    gw_writer_be64(&rig.w, 0);
    tag(&rig, GW_VFIO_END_OF_STATE);
    expect_refused(&rig, GW_DEVICE_FULL, -EINVAL,
                   IT "its configuration: 41 bytes of configuration, 40 are here");
}

GW_TEST(vfio_record, data_before_set_up_is_refused)
{
    struct rig rig;
    open_target(&rig, RIG_STAGING, NULL);
    data(&rig, 4, 4);
    tag(&rig, GW_VFIO_END_OF_STATE);
    expect_refused(&rig, GW_DEVICE_BEGIN, -EPROTO, IT "state comes before its set-up");
}

static void configuration(struct rig *rig)
{
    tag(rig, GW_VFIO_CONFIG_STATE);
    vendor_save_config(rig->src.vendor, &rig->w, NULL);
    tag(rig, GW_VFIO_END_OF_STATE);
}

GW_TEST(vfio_record, data_after_the_configuration_is_refused)
{
    struct rig rig;
    open_target(&rig, RIG_STAGING, NULL);
    set_up(&rig);
    configuration(&rig);
    GW_EXPECT_EQ(rig_load(&rig, GW_DEVICE_FULL), 0);
    data(&rig, 4, 4);
    tag(&rig, GW_VFIO_END_OF_STATE);
    expect_refused(&rig, GW_DEVICE_FULL, -EPROTO, IT "state comes after its end");
}

/* Many small chunks: their heads count as well. */
GW_TEST(vfio_record, a_section_of_the_rest_is_no_longer_than_asked_for)
{
    struct vendor_config config = rig_config();
    struct rig rig;
    int rc = 0;
    config.chunk = VENDOR_CHUNK_BYTE;
    rig_open(&rig, RIG_STAGING, &config, NULL);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(gw_vfio_stop_all(&rig.src.vfio, 1, &rig.err), 0);
    while (rc == 0) {
        rc = gw_vfio_save_complete(rig.src.vfio, &rig.w, 1024, &rig.err);
        GW_EXPECT_LE(rig.w.bytes, 1024 + 16 + 8); /* the last record's head, and the end */
        GW_EXPECT_EQ(rig_load(&rig, rc == 0 ? GW_DEVICE_PART : GW_DEVICE_END), 0);
    }
    GW_EXPECT_EQ(rc, GW_DEVICE_DONE);
    GW_EXPECT(vendor_is_equal(rig.src.vendor, rig.dst.vendor));
    rig_settle(&rig, false);
    rig_close(&rig);
}

/* The oldest form has it in front of the data, in one section. */
GW_TEST(vfio_record, configuration_in_front_of_data_in_one_section_is_taken)
{
    struct vendor_config config = rig_config();
    struct gw_reader r;
    struct gw_writer both;
    struct rig rig;
    rig_open(&rig, RIG_STAGING, &config, NULL);
    gw_writer_init(&both, 1 << 20);
    GW_EXPECT_EQ(rig_setup(&rig), 0);
    GW_EXPECT_EQ(gw_vfio_stop_all(&rig.src.vfio, 1, &rig.err), 0);
    GW_EXPECT_EQ(gw_vfio_save_config(rig.src.vfio, &both, &rig.err), 0);
    GW_EXPECT_EQ(gw_vfio_save_complete(rig.src.vfio, &both, 1 << 20, &rig.err), GW_DEVICE_DONE);
    gw_reader_init(&r, both.data, both.bytes);
    GW_EXPECT_EQ(gw_vfio_load(rig.dst.vfio, &r, &rig.err), 0);
    GW_EXPECT_EQ(gw_reader_left(&r), 0);
    GW_EXPECT_EQ(gw_vfio_load_finish(rig.dst.vfio, &rig.err), 0);
    GW_EXPECT(vendor_is_equal(rig.src.vendor, rig.dst.vendor));
    gw_writer_fini(&both);
    rig_settle(&rig, true);
    rig_close(&rig);
}

GW_TEST(vfio_record, data_longer_than_its_section_is_refused_unread)
{
    struct rig rig;
    open_target(&rig, RIG_STAGING, NULL);
    set_up(&rig);
    data(&rig, 2000000, 10);
    tag(&rig, GW_VFIO_END_OF_STATE);
    expect_refused(&rig, GW_DEVICE_PART, -ERANGE,
                   IT "a record of 2000000 bytes, 18 are left of its section");
}

GW_TEST(vfio_record, data_of_more_than_a_tebibyte_is_refused)
{
    struct rig rig;
    open_target(&rig, RIG_FEATURE, NULL);
    set_up(&rig);
    data(&rig, UINT64_MAX, 0);
    expect_refused(&rig, GW_DEVICE_PART, -ERANGE,
                   IT "a record of 18446744073709551615 bytes, 0 are left of its section");
}

/* Data of no bytes, or the end alone: what a device that has nothing now sends. Nothing tells the thousandth
 * from the first, and the driver hears of none. */
GW_TEST(vfio_record, sections_that_bring_nothing_are_taken_however_often)
{
    struct vendor_config config = rig_config();
    for (unsigned form = 0; form < 4; form++) {
        struct gw_vfio_stats stats;
        struct rig rig;
        rig_open(&rig, form / 2 ? RIG_FEATURE : RIG_STAGING, &config, NULL);
        GW_EXPECT_EQ(rig_setup(&rig), 0);
        gw_writer_reset(&rig.w);
        for (unsigned i = 0; i < 1000; i++) {
            if (form % 2)
                data(&rig, 0, 0);
            tag(&rig, GW_VFIO_END_OF_STATE);
            GW_EXPECT_EQ(rig_load(&rig, GW_DEVICE_PART), 0);
        }
        gw_vfio_stats(rig.dst.vfio, &stats);
        GW_EXPECT_EQ(stats.loaded_bytes, 0);
        GW_EXPECT_EQ(rig_round(&rig, 1000), 0); /* and then it comes all the same */
        rig_expect_moved(&rig, rig_complete(&rig));
        rig_close(&rig);
    }
}

/* As many records as a section of 16 MiB has room for: the time they take is that of their bytes. */
GW_TEST(vfio_record, records_that_bring_nothing_end_with_their_section)
{
    struct rig rig;
    open_target(&rig, RIG_STAGING, NULL);
    set_up(&rig);
    for (unsigned i = 0; i < 1u << 20; i++)
        data(&rig, 0, 0);
    expect_refused(&rig, GW_DEVICE_PART, -EBADMSG, IT "the section ends in the midst of a tag");
}

static struct gw_odev_ops only_saves(void)
{
    struct gw_odev_ops ops = gw_feature_odev_ops;
    ops.write = NULL;
    return ops;
}

GW_TEST(vfio_record, data_for_a_device_that_takes_none_is_refused)
{
    struct vendor_config config = rig_config();
    struct rig rig = {.err = GW_ERROR_INIT};
    struct gw_odev_ops ops = only_saves();
    rig_open(&rig, RIG_FEATURE, &config, NULL);
    gw_vfio_free(rig.dst.vfio);
    struct gw_vfio_config c = {
        .struct_bytes = sizeof(c), .name = config.name, .ops = &ops, .dev = rig.dst.feature};
    GW_ASSERT_EQ(gw_vfio_new(&c, &rig.dst.vfio, &rig.err), 0);
    gw_vfio_device_desc(rig.dst.vfio, &rig.dst.desc);
    GW_EXPECT_EQ(rig.dst.desc.ops->load_setup(rig.dst.vfio, &rig.err), 0);
    set_up(&rig);
    data(&rig, 4, 4);
    tag(&rig, GW_VFIO_END_OF_STATE);
    expect_refused(&rig, GW_DEVICE_PART, -EOPNOTSUPP,
                   IT "it takes no state, and the source has sent some");
}

GW_TEST(vfio_record, initial_data_that_nobody_waits_for_is_refused)
{
    struct rig rig;
    open_target(&rig, RIG_FEATURE, NULL);
    set_up(&rig);
    tag(&rig, GW_VFIO_INIT_DATA_SENT);
    expect_refused(&rig, GW_DEVICE_PART, -EPROTO, IT "nobody here waits for its initial data");
}

GW_TEST(vfio_record, initial_data_that_ends_twice_is_refused)
{
    struct gw_vfio_config options = {.switchover_ack = true};
    struct rig rig;
    open_target(&rig, RIG_FEATURE, &options);
    set_up(&rig);
    tag(&rig, GW_VFIO_INIT_DATA_SENT);
    GW_EXPECT_EQ(rig_load(&rig, GW_DEVICE_PART), GW_DEVICE_ACK);
    tag(&rig, GW_VFIO_INIT_DATA_SENT);
    expect_refused(&rig, GW_DEVICE_PART, -EPROTO, IT "the end of its initial data comes twice");
}

GW_TEST(vfio_record, more_behind_the_end_of_initial_data_is_left_and_refused)
{
    struct gw_vfio_config options = {.switchover_ack = true};
    struct rig rig;
    open_target(&rig, RIG_FEATURE, &options);
    set_up(&rig);
    tag(&rig, GW_VFIO_INIT_DATA_SENT);
    tag(&rig, GW_VFIO_END_OF_STATE);
    expect_refused(&rig, GW_DEVICE_PART, -EBADMSG, "8 bytes were not consumed");
}

GW_TEST(vfio_record, a_section_that_ends_in_the_midst_is_refused)
{
    static const struct {
        uint64_t tag;
        const char *message;
    } cut[] = {
        {GW_VFIO_DATA_STATE, IT "the section ends in the midst of a record of data"},
        {GW_VFIO_CONFIG_STATE, IT "the section ends in the midst of its configuration"},
        {GW_VFIO_TOTAL, IT "the section ends in the midst of its total"},
    };
    for (size_t i = 0; i < sizeof(cut) / sizeof(cut[0]); i++) {
        struct rig rig;
        open_target(&rig, RIG_STAGING, NULL);
        set_up(&rig);
        tag(&rig, cut[i].tag);
        gw_writer_be16(&rig.w, 0);
        expect_refused(&rig, GW_DEVICE_PART, -EBADMSG, cut[i].message);
    }
    struct rig rig;
    open_target(&rig, RIG_STAGING, NULL);
    set_up(&rig);
    gw_writer_be32(&rig.w, 0xffffffff);
    expect_refused(&rig, GW_DEVICE_PART, -EBADMSG, IT "the section ends in the midst of a tag");
}

/* ---- between two godwits --------------------------------------------------------------------- */

static void announce(struct rig *rig, const char *format, uint32_t version)
{
    tag(rig, GW_VFIO_SETUP_STATE);
    tag(rig, GW_VFIO_FORMAT);
    gw_writer_u8(&rig->w, (uint8_t)strlen(format));
    gw_writer_bytes(&rig->w, format, strlen(format));
    gw_writer_be32(&rig->w, version);
    tag(rig, GW_VFIO_END_OF_STATE);
}

GW_TEST(vfio_record, state_of_another_format_is_refused_before_its_first_byte)
{
    struct rig rig;
    open_target(&rig, RIG_FEATURE, NULL);
    announce(&rig, "other", 3);
    expect_refused(&rig, GW_DEVICE_BEGIN, -EOPNOTSUPP,
                   IT "its state is of format 'other', this device takes 'vendor'");
    open_target(&rig, RIG_FEATURE, NULL);
    announce(&rig, "vendor", 4);
    expect_refused(&rig, GW_DEVICE_BEGIN, -EOPNOTSUPP,
                   IT "its state is of version 4 of format 'vendor', 3 is the highest here");
}

GW_TEST(vfio_record, a_format_that_is_no_text_is_refused)
{
    struct rig rig;
    open_target(&rig, RIG_FEATURE, NULL);
    announce(&rig, "ven\tdor", 3);
    expect_refused(&rig, GW_DEVICE_BEGIN, -EBADMSG,
                   IT "byte 0x09 in the name of its format is not printable ASCII");
}

GW_TEST(vfio_record, an_announced_device_arrives)
{
    struct vendor_config config = rig_config();
    struct gw_vfio_config options = {.announce = true};
    for (unsigned front = 0; front < 2; front++) {
        struct rig rig;
        rig_open(&rig, (enum rig_front)front, &config, &options);
        rig.writes_a_round = 3;
        rig.bytes_max = 4096;
        rig_expect_moved(&rig, rig_migrate(&rig));
        rig_close(&rig);
    }
}

GW_TEST(vfio_record, a_total_that_does_not_add_up_is_refused)
{
    struct rig rig;
    open_target(&rig, RIG_FEATURE, NULL);
    announce(&rig, "vendor", 1);
    GW_EXPECT_EQ(rig_load(&rig, GW_DEVICE_BEGIN), 0);
    data(&rig, 16, 16);
    tag(&rig, GW_VFIO_TOTAL);
    gw_writer_be64(&rig.w, 17);
    tag(&rig, GW_VFIO_END_OF_STATE);
    expect_refused(&rig, GW_DEVICE_END, -EBADMSG,
                   IT "16 bytes of state came, the source has sent 17");
}

GW_TEST(vfio_record, an_announced_total_that_does_not_come_is_missed)
{
    struct rig rig;
    open_target(&rig, RIG_FEATURE, NULL);
    announce(&rig, "vendor", 1);
    GW_EXPECT_EQ(rig_load(&rig, GW_DEVICE_BEGIN), 0);
    data(&rig, 16, 16);
    tag(&rig, GW_VFIO_END_OF_STATE);
    GW_EXPECT_EQ(rig_load(&rig, GW_DEVICE_END), 0);
    GW_EXPECT_EQ(gw_vfio_load_finish(rig.dst.vfio, &rig.err), -EBADMSG);
    GW_EXPECT_STREQ(rig.err.message, IT "its state ended after 16 bytes, before all was there");
    rig.dst.desc.ops->load_cleanup(rig.dst.vfio);
    rig_close(&rig);
}

static void expect_missed(struct rig *rig, const char *what)
{
    GW_EXPECT_EQ(gw_vfio_load_finish(rig->dst.vfio, &rig->err), -ENODATA);
    GW_EXPECT_STREQ(rig->err.message, what);
    GW_EXPECT(strstr(rig->err.hint, "the same devices") != NULL);
    rig->dst.desc.ops->load_cleanup(rig->dst.vfio);
    GW_EXPECT_EQ(vendor_state(rig->dst.vendor), GW_ODEV_RUNNING);
    rig_close(rig);
}

GW_TEST(vfio_record, a_device_of_which_nothing_came_is_missed)
{
    struct rig rig;
    open_target(&rig, RIG_FEATURE, NULL);
    expect_missed(&rig, IT "nothing came of its state");
}

GW_TEST(vfio_record, a_configuration_that_did_not_come_is_missed)
{
    struct rig rig;
    open_target(&rig, RIG_STAGING, NULL);
    set_up(&rig);
    data(&rig, 16, 16);
    tag(&rig, GW_VFIO_END_OF_STATE);
    GW_EXPECT_EQ(rig_load(&rig, GW_DEVICE_END), 0);
    expect_missed(&rig, IT "its configuration did not come");
}

GW_TEST(vfio_record, state_that_the_driver_finds_invalid_is_refused_in_time)
{
    for (unsigned front = 0; front < 2; front++) {
        struct rig rig;
        open_target(&rig, (enum rig_front)front, NULL);
        set_up(&rig);
        data(&rig, 16, 16); /* another device's bytes: well-formed records, and no state */
        tag(&rig, GW_VFIO_END_OF_STATE);
        GW_EXPECT_EQ(rig_load(&rig, GW_DEVICE_END), 0);
        configuration(&rig);
        GW_EXPECT_EQ(rig_load(&rig, GW_DEVICE_FULL), 0);
        GW_EXPECT_EQ(gw_vfio_load_finish(rig.dst.vfio, &rig.err), -EINVAL);
        GW_EXPECT_STREQ(rig.err.hint, "the driver found the state invalid or incomplete");
        rig.dst.desc.ops->load_cleanup(rig.dst.vfio);
        GW_EXPECT_EQ(vendor_state(rig.dst.vendor), GW_ODEV_RUNNING);
        GW_EXPECT(vendor_violation(rig.dst.vendor) == NULL);
        rig_close(&rig);
    }
}

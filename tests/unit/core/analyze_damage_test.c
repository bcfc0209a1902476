// SPDX-License-Identifier: MIT
/* A stream whose damage lies between two sections: the description says which section it is, and what stands
 * behind it is read all the same. */
#include "core/base/alloc.h"
#include "tests/shim/gw_test.h"
#include "tests/support/recording.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEVICES 4

static const char *const names[DEVICES] = {"first", "second", "third", "fourth"};

struct stream {
    struct recording r;
    size_t at[DEVICES + 1]; /* of each section, and of the end mark */
};

static void make(struct stream *s, bool footers, bool described)
{
    static const char *const blocks[] = {"pc.ram", NULL};
    char json[1024] = "{\"page_size\": 4096, \"devices\": [";
    recording_init(&s->r);
    s->r.no_footers = !footers;
    recording_begin(&s->r, "pc");
    recording_ram(&s->r, blocks, RECORDING_PAGE);
    recording_head(&s->r, GW_ITEM_END, 2, "", 0, 0);
    recording_eos(&s->r);
    recording_foot(&s->r, 2);
    for (unsigned i = 0; i < DEVICES; i++) {
        size_t used = strlen(json);
        s->at[i] = s->r.w.bytes;
        recording_full(&s->r, 3 + i, names[i], "abcdefgh", 8);
        snprintf(json + used, sizeof(json) - used,
                 "%s{\"name\": \"%s\", \"instance_id\": 0, \"vmsd_name\": \"v\", \"version\": 1, "
                 "\"fields\": [{\"name\": \"f\", \"type\": \"buffer\", \"size\": 8}]}",
                 i ? ", " : "", names[i]);
    }
    s->at[DEVICES] = s->r.w.bytes;
    size_t used = strlen(json);
    snprintf(json + used, sizeof(json) - used, "]}");
    recording_end(&s->r, described ? json : NULL);
}

/* One fault, there and of that name; and every device is walked by its fields. */
static void check(const struct stream *s, unsigned device, size_t at, bool pipe)
{
    struct gw_analysis *a = recording_analyze(&s->r, pipe, NULL);
    struct gw_stream_fault f = {.struct_bytes = sizeof(f)};
    struct gw_stream_section section = {.struct_bytes = sizeof(section)};
    GW_ASSERT(a != NULL);
    if (!GW_EXPECT_EQ(recording_facts(a).fault_count, 1) || !GW_EXPECT(gw_analysis_fault(a, 0, &f)))
        gw_test_note(__FILE__, __LINE__, "%s: %s", names[device], recording_fault(a));
    GW_EXPECT_STREQ(f.section, names[device]);
    GW_EXPECT_EQ(f.offset, at);
    GW_EXPECT_EQ(recording_facts(a).section_count, 1 + DEVICES);
    for (unsigned i = 0; i < DEVICES && gw_analysis_section(a, 1 + i, &section); i++) {
        GW_EXPECT_STREQ(section.idstr, names[i]);
        GW_EXPECT_EQ(section.offset, s->at[i]);
        GW_EXPECT_EQ(section.body_bytes, 8);
        GW_EXPECT_EQ(section.form, GW_SECTION_FIELDS);
    }
    gw_analysis_free(a);
}

GW_TEST(analyze_damage, a_damaged_head_is_told_by_the_name_that_the_description_has)
{
    /* type, length of the name, version */
    static const struct {
        size_t at;
        uint8_t bit;
    } damage[] = {{0, 0x40}, {5, 0x80}, {0, 0xff}};
    for (unsigned device = 0; device < DEVICES; device++) {
        for (unsigned i = 0; i < 6; i++) {
            struct stream s;
            make(&s, true, true);
            s.r.w.data[s.at[device] + damage[i / 2].at] ^= damage[i / 2].bit;
            check(&s, device, s.at[device], i % 2);
            recording_fini(&s.r);
        }
    }
    GW_EXPECT_EQ(gw_alloc_live(), 0);
}

GW_TEST(analyze_damage, a_damaged_footer_is_told_and_what_follows_is_read)
{
    for (unsigned device = 0; device + 1 < DEVICES; device++) {
        for (unsigned byte = 0; byte < 5; byte++) {
            struct stream s;
            make(&s, true, true);
            size_t at = s.at[device + 1] - 5;
            s.r.w.data[at + byte] ^= 0x10;
            check(&s, device, at, byte % 2);
            recording_fini(&s.r);
        }
    }
}

GW_TEST(analyze_damage, without_a_description_the_walk_says_what_it_saw)
{
    struct stream s;
    make(&s, true, false);
    s.r.w.data[s.at[2]] ^= 0x40;
    struct gw_analysis *a = recording_analyze(&s.r, false, NULL);
    GW_EXPECT_EQ(recording_facts(a).fault_count, 1);
    GW_EXPECT(recording_fault_offset(a) >= s.at[1]);
    gw_analysis_free(a);
    recording_fini(&s.r);
    /* Nor where there are no footers: nothing vouches for where a section ends. */
    make(&s, false, true);
    s.r.w.data[s.at[2]] ^= 0x40;
    a = recording_analyze(&s.r, false, NULL);
    GW_EXPECT_GE(recording_facts(a).fault_count, 1);
    gw_analysis_free(a);
    recording_fini(&s.r);
}

GW_TEST(analyze_damage, two_damaged_heads_are_both_faults)
{
    struct stream s;
    make(&s, true, true);
    s.r.w.data[s.at[1]] ^= 0x40;
    s.r.w.data[s.at[3]] ^= 0x40;
    struct gw_analysis *a = recording_analyze(&s.r, false, NULL);
    GW_EXPECT_GE(recording_facts(a).fault_count, 2);
    GW_EXPECT_EQ(recording_fault_offset(a), s.at[1]);
    gw_analysis_free(a);
    recording_fini(&s.r);
}

GW_TEST(analyze_damage, each_allocation_may_fail)
{
    for (int64_t countdown = 0, done = 0; !done; countdown++) {
        struct stream s;
        make(&s, true, true);
        s.r.w.data[s.at[1]] ^= 0x40;
        struct gw_analysis *a = NULL;
        struct gw_error err = GW_ERROR_INIT;
        int fd = memfd_create("stream", MFD_CLOEXEC);
        GW_ASSERT_EQ(write(fd, s.r.w.data, s.r.w.bytes), (ssize_t)s.r.w.bytes);
        lseek(fd, 0, SEEK_SET);
        gw_alloc_fail_after(countdown);
        int rc = gw_analyze(fd, NULL, &a, &err);
        gw_alloc_fail_after(-1);
        GW_EXPECT(rc == 0 || (rc == -ENOMEM && err.rc == rc));
        done = rc == 0 || countdown > 10000;
        close(fd);
        gw_analysis_free(a);
        recording_fini(&s.r);
        GW_EXPECT_EQ(gw_alloc_live(), 0);
    }
}

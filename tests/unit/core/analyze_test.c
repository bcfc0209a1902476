// SPDX-License-Identifier: MIT
/* gw_analyze() on streams made by hand: what is found, where faults are, which files are made, and what a
 * guest that forges footers gets. */
#include "control/stream_read.h"
#include "core/base/alloc.h"
#include "tests/shim/gw_test.h"
#include "tests/support/recording.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const blocks[] = {"pc.ram", NULL};

#define JSON(devices) "{\"page_size\": 4096, \"devices\": [" devices "]}"
#define DEVICE(name, bytes)                                                                        \
    "{\"name\": \"" name "\", \"instance_id\": 0, \"vmsd_name\": \"v\", \"version\": 1, "          \
    "\"fields\": [{\"name\": \"f\", \"type\": \"buffer\", \"size\": " #bytes "}]}"

/* A machine of one block and two devices. */
static void whole(struct recording *r, const char *json)
{
    recording_init(r);
    recording_begin(r, "pc");
    recording_ram(r, blocks, 4 * RECORDING_PAGE);
    recording_head(r, GW_ITEM_PART, 2, "", 0, 0);
    recording_page(r, REC_PAGE, 0x1000, "pc.ram", 0x41);
    recording_page(r, REC_ZERO, 0x2000, NULL, 0);
    recording_eos(r);
    recording_foot(r, 2);
    recording_head(r, GW_ITEM_END, 2, "", 0, 0);
    recording_eos(r);
    recording_foot(r, 2);
    recording_full(r, 3, "first", "abc", 3);
    recording_full(r, 4, "0000:00:01.0/second", "defgh", 5);
    recording_end(r, json);
}

static struct gw_stream_section section_of(const struct gw_analysis *a, unsigned index)
{
    struct gw_stream_section s = {.struct_bytes = sizeof(s)};
    GW_ASSERT(gw_analysis_section(a, index, &s));
    return s;
}

static const bool ways[] = {false, true}; /* from a file, through a pipe */

GW_TEST(analyze, every_byte_is_accounted_for_from_a_file_and_a_pipe)
{
    for (unsigned i = 0; i < 2; i++) {
        struct recording r;
        whole(&r, JSON(DEVICE("first", 3) ", " DEVICE("0000:00:01.0/second", 5)));
        struct gw_analysis *a = recording_analyze(&r, ways[i], NULL);
        GW_ASSERT(a != NULL);
        struct gw_stream_facts facts = recording_facts(a);
        GW_EXPECT_STREQ(recording_fault(a), "");
        GW_EXPECT_EQ(facts.bytes, r.w.bytes);
        GW_EXPECT_STREQ(facts.machine, "pc");
        GW_EXPECT(facts.has_footers && facts.has_end && facts.has_description);
        GW_EXPECT_EQ(facts.section_count, 3);
        GW_EXPECT_EQ(facts.normal_pages, 1);
        GW_EXPECT_EQ(facts.zero_pages, 1);
        GW_EXPECT_EQ(section_of(a, 0).parts, 3);
        GW_EXPECT(section_of(a, 0).has_end);
        GW_EXPECT_EQ(section_of(a, 1).form, GW_SECTION_FIELDS);
        GW_EXPECT_EQ(section_of(a, 2).body_bytes, 5);
        char body[5];
        GW_EXPECT_EQ(gw_analysis_body(a, 2, 1, body, sizeof(body)), 4);
        GW_EXPECT_MEMEQ(body, "efgh", 4);
        gw_analysis_free(a);
        recording_fini(&r);
    }
    GW_EXPECT_EQ(gw_alloc_live(), 0);
}

/* As 10.0 and newer write it: the guest stands still, the ends follow. */
GW_TEST(analyze, the_start_of_a_switchover_is_told_where_it_stands)
{
    struct gw_stream_command_record command = {.struct_bytes = sizeof(command)};
    struct recording r;
    recording_init(&r);
    recording_begin(&r, "pc");
    recording_ram(&r, blocks, UINT64_C(4) * RECORDING_PAGE);
    size_t offset = r.w.bytes;
    recording_hex(&r, "08 000b 0000");
    recording_head(&r, GW_ITEM_END, 2, "", 0, 0);
    recording_eos(&r);
    recording_foot(&r, 2);
    recording_full(&r, 3, "first", "abc", 3);
    recording_end(&r, JSON(DEVICE("first", 3)));
    struct gw_analysis *a = recording_analyze(&r, true, NULL);
    GW_ASSERT(a != NULL);
    GW_EXPECT_STREQ(recording_fault(a), "");
    GW_EXPECT_EQ(recording_facts(a).command_count, 1);
    GW_ASSERT(gw_analysis_command(a, 0, &command));
    GW_EXPECT_STREQ(command.name, "SWITCHOVER_START");
    GW_EXPECT_EQ(command.offset, offset);
    gw_analysis_free(a);
    recording_fini(&r);
}

GW_TEST(analyze, without_a_description_devices_are_opaque_and_that_is_no_fault)
{
    struct recording r;
    whole(&r, NULL);
    struct gw_analysis *a = recording_analyze(&r, true, NULL);
    GW_EXPECT_STREQ(recording_fault(a), "");
    GW_EXPECT_EQ(section_of(a, 1).form, GW_SECTION_OPAQUE);
    GW_EXPECT_EQ(section_of(a, 1).body_bytes, 3);
    GW_EXPECT_EQ(recording_facts(a).section_count, 3);
    gw_analysis_free(a);
    recording_fini(&r);
}

/* ---- a guest that forges ---------------------------------------------------------------------- */

static size_t forged(const struct recording *r, uint8_t body[256], uint32_t id)
{
    struct recording inner;
    recording_init(&inner);
    inner.no_footers = r->no_footers;
    recording_hex(&inner, "0102");
    recording_foot(&inner, 3);
    recording_head(&inner, GW_ITEM_FULL, id, "forged", 0, 1);
    recording_hex(&inner, "0304");
    size_t bytes = inner.w.bytes;
    memcpy(body, inner.w.data, bytes);
    recording_fini(&inner);
    return bytes;
}

static void check_forged(bool footers, bool pipe, uint32_t id)
{
    struct recording r;
    uint8_t body[256];
    char json[512];
    recording_init(&r);
    r.no_footers = !footers;
    size_t bytes = forged(&r, body, id);
    recording_begin(&r, "pc");
    recording_ram(&r, blocks, RECORDING_PAGE);
    recording_full(&r, 3, "device", body, bytes);
    recording_full(&r, 9, "other", "z", 1);
    snprintf(
        json, sizeof(json),
        JSON("{\"name\": \"device\", \"instance_id\": 0, \"fields\": [{\"name\": \"f\", \"type\": "
             "\"buffer\", \"size\": %zu}]}, " DEVICE("other", 1)),
        bytes);
    recording_end(&r, json);
    struct gw_analysis *a = recording_analyze(&r, pipe, NULL);
    GW_EXPECT_STREQ(recording_fault(a), "");
    GW_EXPECT_EQ(recording_facts(a).section_count, 3);
    GW_EXPECT_EQ(section_of(a, 1).body_bytes, bytes);
    GW_EXPECT_EQ(section_of(a, 1).form, GW_SECTION_FIELDS);
    GW_EXPECT_STREQ(section_of(a, 2).idstr, "other");
    GW_EXPECT_EQ(section_of(a, 2).form, GW_SECTION_FIELDS);
    gw_analysis_free(a);
    recording_fini(&r);
}

GW_TEST(analyze, the_description_rules_over_footers_that_a_guest_forged)
{
    for (unsigned i = 0; i < 2; i++) {
        check_forged(true, ways[i], 9);          /* that of the section behind */
        check_forged(true, ways[i], 0x12345678); /* nobody's */
        check_forged(false, ways[i], 9);
    }
}

GW_TEST(analyze, a_section_that_the_walk_took_for_data_is_found_again)
{
    struct recording r;
    recording_init(&r);
    r.no_footers = true;
    recording_begin(&r, "pc");
    recording_ram(&r, blocks, RECORDING_PAGE);
    recording_head(&r, GW_ITEM_FULL, 3, "a", 0, 1);
    recording_hex(&r, "01 04 00000009 01 62 00000000 00000001");
    /* without footers, a body that ends inside of what looks like a head hides the next one */
    recording_head(&r, GW_ITEM_FULL, 4, "c", 0, 1);
    recording_hex(&r, "0506");
    recording_end(
        &r, JSON("{\"name\": \"a\", \"instance_id\": 0, \"fields\": [{\"name\": \"f\", \"type\": "
                 "\"buffer\", \"size\": 16}]}, " DEVICE("c", 2)));
    struct gw_analysis *a = recording_analyze(&r, true, NULL);
    GW_EXPECT_STREQ(recording_fault(a), "");
    GW_EXPECT_EQ(recording_facts(a).section_count, 3);
    GW_EXPECT_STREQ(section_of(a, 2).idstr, "c");
    GW_EXPECT_EQ(section_of(a, 2).body_bytes, 2);
    gw_analysis_free(a);
    recording_fini(&r);
}

/* ---- faults ----------------------------------------------------------------------------------- */

GW_TEST(analyze, faults_of_the_description_name_the_section)
{
    static const struct {
        const char *json, *words;
    } wrong[] = {
        {JSON(DEVICE("first", 4) ", " DEVICE("0000:00:01.0/second", 5)), "the description says 4"},
        {JSON(DEVICE("first", 3)), "not in the description"},
        {JSON(DEVICE("first", 3) ", " DEVICE("0000:00:01.0/second", 5) ", " DEVICE("third", 1)),
         "has 'third' 0, the stream has no such section"},
        {"{\"page_size\": 8192, \"devices\": [" DEVICE("first", 3) ", " DEVICE(
             "0000:00:01.0/second", 5) "]}",
         "pages of 8192"},
        {"{\"devices\": [}", "malformed"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct recording r;
        whole(&r, wrong[i].json);
        struct gw_analysis *a = recording_analyze(&r, true, NULL);
        if (!GW_EXPECT(strstr(recording_fault(a), wrong[i].words) != NULL))
            gw_test_note(__FILE__, __LINE__, "%s: %s", wrong[i].words, recording_fault(a));
        gw_analysis_free(a);
        recording_fini(&r);
    }
}

GW_TEST(analyze, a_stream_that_ends_early_is_a_fault_wherever_it_ends)
{
    struct recording r;
    whole(&r, JSON(DEVICE("first", 3) ", " DEVICE("0000:00:01.0/second", 5)));
    size_t bytes = r.w.bytes;
    size_t mark =
        bytes - strlen(JSON(DEVICE("first", 3) ", " DEVICE("0000:00:01.0/second", 5))) - 5;
    for (size_t cut = 0; cut < bytes; cut += cut < 400 || cut > 4400 ? 1 : 97) {
        struct gw_analysis *a = recording_analyze_bytes(r.w.data, cut, false, NULL);
        GW_ASSERT(a != NULL);
        if (!GW_EXPECT((recording_fault_offset(a) <= cut) == (cut != mark)))
            gw_test_note(__FILE__, __LINE__, "cut at %zu of %zu: %s", cut, bytes,
                         recording_fault(a));
        gw_analysis_free(a);
    }
    recording_fini(&r);
}

GW_TEST(analyze, what_follows_a_stream_is_a_fault)
{
    struct recording r;
    whole(&r, JSON(DEVICE("first", 3) ", " DEVICE("0000:00:01.0/second", 5)));
    recording_hex(&r, "00");
    struct gw_analysis *a = recording_analyze(&r, true, NULL);
    GW_EXPECT(strstr(recording_fault(a), "bytes follow the stream") != NULL);
    GW_EXPECT_EQ(recording_fault_offset(a), r.w.bytes - 1);
    gw_analysis_free(a);
    recording_fini(&r);
}

static const char *fault_of(const char *hex)
{
    static char text[512];
    struct recording r;
    recording_init(&r);
    recording_begin(&r, "pc");
    recording_hex(&r, hex);
    struct gw_analysis *a = recording_analyze(&r, true, NULL);
    snprintf(text, sizeof(text), "%s", recording_fault(a));
    gw_analysis_free(a);
    recording_fini(&r);
    return text;
}

GW_TEST(analyze, items_that_cannot_stand_there_are_refused)
{
    static const struct {
        const char *hex, *words;
    } wrong[] = {
        {"09", "unknown item type 0x09"},
        {"07", "a configuration section"},
        {"06 00000000", "before the end mark"},
        {"7e 00000001", "without a section"},
        {"08 0001 0000 05", "unknown item type 0x05"},
        {"02 00000002", "section 2, which is not open"},
        {"01 00000002 03 72616d 00000000 00000003", "RAM section of version 3"},
        {"08 0008 0000", "ENABLE_COLO"},
        {"08 0007 0004 00000009 08 0007 0004 00000000", "package inside of a package"},
        {"08 0007 0004 00000001 00", "end mark inside of a package"},
        {"08 0007 0004 00000005 08 0004 0000", "package, which RUN would end"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        if (!GW_EXPECT(strstr(fault_of(wrong[i].hex), wrong[i].words) != NULL))
            gw_test_note(__FILE__, __LINE__, "%s: %s", wrong[i].words, fault_of(wrong[i].hex));
    }
    GW_EXPECT_STREQ(fault_of("08 0007 0004 0000000b 08 0005 0000 010203040506 00"), "");
}

GW_TEST(analyze, memory_does_not_follow_what_a_stream_says)
{
    struct recording r;
    recording_init(&r);
    recording_begin(&r, "pc");
    for (uint32_t i = 0; i < 70000; i++) /* sections, commands: both have a limit */
        recording_head(&r, GW_ITEM_START, i, "x", i, 1), recording_foot(&r, i);
    gw_alloc_peak_reset();
    struct gw_analysis *a = recording_analyze(&r, false, NULL);
    GW_EXPECT(strstr(recording_fault(a), "more than 65536 sections") != NULL);
    GW_EXPECT_LT(gw_alloc_peak(), 64 << 20);
    gw_analysis_free(a);
    gw_writer_reset(&r.w);
    recording_begin(&r, "pc");
    for (uint32_t i = 0; i < 70000; i++)
        recording_hex(&r, "08 0002 0004 00000001");
    recording_end(&r, NULL);
    a = recording_analyze(&r, false, NULL);
    GW_EXPECT_STREQ(recording_fault(a), "");
    GW_EXPECT_EQ(recording_facts(a).command_count, 70000);
    GW_EXPECT_EQ(recording_facts(a).command_kept, 4096);
    gw_analysis_free(a);
    recording_fini(&r);
}

GW_TEST(analyze, any_allocation_may_fail)
{
    struct recording r;
    int fd = open("/dev/null", O_RDONLY);
    whole(&r, JSON(DEVICE("first", 3) ", " DEVICE("0000:00:01.0/second", 5)));
    int64_t before = gw_alloc_live();
    for (int64_t n = 0; n < 200; n++) {
        struct gw_error err = GW_ERROR_INIT;
        struct gw_analysis *a = NULL;
        char path[] = "/tmp/godwit-analyze-XXXXXX";
        int stream = mkstemp(path);
        unlink(path);
        GW_ASSERT_EQ(write(stream, r.w.data, r.w.bytes), (ssize_t)r.w.bytes);
        lseek(stream, 0, SEEK_SET);
        gw_alloc_fail_after(n);
        int rc = gw_analyze(stream, NULL, &a, &err);
        gw_alloc_fail_after(-1);
        GW_EXPECT(rc == 0 || (rc == -ENOMEM && err.rc == -ENOMEM));
        GW_EXPECT((a != NULL) == (rc == 0));
        gw_analysis_free(a);
        close(stream);
    }
    GW_EXPECT_EQ(gw_alloc_live(), before);
    close(fd);
    recording_fini(&r);
}

/* ---- mapped-ram ------------------------------------------------------------------------------- */

static void pad_to(struct recording *r, size_t bytes)
{
    while (r->w.bytes < bytes)
        gw_writer_u8(&r->w, 0);
}

GW_TEST(analyze, a_mapped_ram_file_is_read_in_its_order_from_a_pipe_too)
{
    for (unsigned i = 0; i < 2; i++) {
        char folder[] = "/tmp/godwit-analyze-XXXXXX", line[64], page[RECORDING_PAGE];
        struct recording r;
        recording_init(&r);
        recording_begin(&r, "pc");
        recording_hex(
            &r, "05 1a 636f6e66696775726174696f6e2f6361706162696c6974696573 00000001 00000001 "
                "0a 6d61707065642d72616d"); /* configuration/capabilities: mapped-ram */
        recording_head(&r, GW_ITEM_START, 2, "ram", 0, 4);
        recording_hex(&r, "0000000000002004 01 61 0000000000002000 00000001 0000000000001000");
        gw_writer_be64(&r.w, r.w.bytes + 16); /* the bitmap stands right here */
        gw_writer_be64(&r.w, 1 << 20);
        recording_hex(&r, "0200000000000000");
        pad_to(&r, (1 << 20) + RECORDING_PAGE);
        memset(page, 'm', sizeof(page));
        recording_bytes(&r, page, sizeof(page));
        recording_eos(&r);
        recording_foot(&r, 2);
        recording_full(&r, 3, "device", "abc", 3);
        recording_end(&r, JSON(DEVICE("device", 3)));
        GW_ASSERT(mkdtemp(folder) != NULL);
        struct gw_analysis *a = recording_analyze(&r, ways[i], folder);
        GW_EXPECT_STREQ(recording_fault(a), "");
        GW_EXPECT(recording_facts(a).is_mapped);
        GW_EXPECT_EQ(recording_facts(a).normal_pages, 1);
        gw_analysis_free(a);
        snprintf(line, sizeof(line), "%s/ram-0-a.bin", folder);
        int fd = open(line, O_RDONLY);
        GW_EXPECT_EQ(pread(fd, page, sizeof(page), 0), (ssize_t)sizeof(page));
        GW_EXPECT_EQ(page[0], 0);
        GW_EXPECT_EQ(pread(fd, page, sizeof(page), RECORDING_PAGE), (ssize_t)sizeof(page));
        GW_EXPECT_EQ(page[0], 'm');
        close(fd);
        snprintf(line, sizeof(line), "rm -rf '%s'", folder);
        GW_EXPECT_EQ(system(line), 0);
        recording_fini(&r);
    }
}

/* ---- files ------------------------------------------------------------------------------------ */

static void read_file(const char *folder, const char *name, char *to, size_t bytes, off_t size)
{
    char path[512];
    struct stat s;
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_RDONLY);
    if (!GW_EXPECT(fd >= 0)) {
        gw_test_note(__FILE__, __LINE__, "%s is not there", path);
        return;
    }
    GW_EXPECT_EQ(fstat(fd, &s), 0);
    GW_EXPECT_EQ(s.st_size, size);
    GW_EXPECT_EQ(s.st_mode & 0777, 0600);
    GW_EXPECT_EQ(read(fd, to, bytes), (ssize_t)bytes);
    close(fd);
    unlink(path);
}

GW_TEST(analyze, contents_become_files_with_harmless_names)
{
    static const char *const names[] = {"../a b/\"%", "..", NULL};
    for (unsigned i = 0; i < 2; i++) {
        char folder[] = "/tmp/godwit-analyze-XXXXXX", data[3 * RECORDING_PAGE];
        struct recording r;
        GW_ASSERT(mkdtemp(folder) != NULL);
        recording_init(&r);
        recording_begin(&r, "pc");
        recording_ram(&r, names, 4 * RECORDING_PAGE);
        recording_head(&r, GW_ITEM_PART, 2, "", 0, 0);
        recording_page(&r, REC_PAGE, 0, names[0], 'a');
        recording_page(&r, REC_PAGE, 0x1000, NULL, 'b');
        recording_page(&r, REC_ZERO, 0, NULL, 0);
        recording_page(&r, REC_ZERO, 0x2000, NULL, 'c');
        recording_hex(&r, "0000000000001060 01 0005 0102 7879 00"); /* does not fit */
        r.w.bytes -= 1;
        r.w.data[r.w.bytes - 5] = 4;
        recording_eos(&r);
        recording_foot(&r, 2);
        recording_head(&r, GW_ITEM_START, 7, "iterative", 0, 1);
        recording_hex(&r, "0102");
        recording_foot(&r, 7);
        recording_head(&r, GW_ITEM_END, 7, "", 0, 0);
        recording_hex(&r, "03");
        recording_foot(&r, 7);
        recording_full(&r, 3, "0000:00:01.0/x", "abc", 3);
        recording_end(&r, NULL);
        struct gw_analysis *a = recording_analyze(&r, ways[i], folder);
        GW_EXPECT_STREQ(recording_fault(a), "");
        gw_analysis_free(a);
        memset(data, 1, sizeof(data));
        read_file(folder, "ram-0-..%2Fa%20b%2F%22%25.bin", data, sizeof(data), 4 * RECORDING_PAGE);
        GW_EXPECT_EQ(data[0], 0);
        GW_EXPECT_EQ(data[RECORDING_PAGE], 'b');
        GW_EXPECT_EQ(data[RECORDING_PAGE + 1], 'x');
        GW_EXPECT_EQ(data[RECORDING_PAGE + 2], 'y');
        GW_EXPECT_EQ(data[2 * RECORDING_PAGE], 'c');
        read_file(folder, "ram-1-...bin", data, 1, 4 * RECORDING_PAGE);
        read_file(folder, "device-1-iterative.bin", data, 3, 3);
        GW_EXPECT_MEMEQ(data, "\1\2\3", 3);
        read_file(folder, "device-2-0000%3A00%3A01.0%2Fx.bin", data, 3, 3);
        GW_EXPECT_MEMEQ(data, "abc", 3);
        GW_EXPECT_EQ(rmdir(folder), 0); /* nothing else was made */
        recording_fini(&r);
    }
}

static int extract_beside(const char *obstacle, bool is_link)
{
    char folder[] = "/tmp/godwit-analyze-XXXXXX", path[600];
    struct gw_error err = GW_ERROR_INIT;
    struct gw_analysis *a = NULL;
    struct recording r;
    GW_ASSERT(mkdtemp(folder) != NULL);
    whole(&r, NULL);
    snprintf(path, sizeof(path), "%s/%s", folder, obstacle);
    if (is_link)
        GW_ASSERT_EQ(symlink("/tmp/godwit-must-not-be-made", path), 0);
    else
        close(open(path, O_CREAT | O_WRONLY, 0600));
    int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    GW_ASSERT_EQ(write(fd, r.w.data, r.w.bytes), (ssize_t)r.w.bytes);
    lseek(fd, 0, SEEK_SET);
    struct gw_analyze_options options = {.struct_bytes = sizeof(options), .extract = folder};
    int rc = gw_analyze(fd, &options, &a, &err);
    GW_EXPECT(strstr(err.message, obstacle) != NULL);
    GW_EXPECT(err.hint[0] != '\0');
    gw_analysis_free(a);
    close(fd);
    GW_EXPECT_EQ(access("/tmp/godwit-must-not-be-made", F_OK), -1);
    snprintf(path, sizeof(path), "rm -rf '%s'", folder);
    GW_EXPECT_EQ(system(path), 0);
    recording_fini(&r);
    return rc;
}

GW_TEST(analyze, no_file_that_exists_is_written_to_and_no_link_followed)
{
    GW_EXPECT_EQ(extract_beside("ram-0-pc.ram.bin", false), -EEXIST);
    GW_EXPECT_EQ(extract_beside("ram-0-pc.ram.bin", true), -EEXIST);
    GW_EXPECT_EQ(extract_beside("device-1-first.bin", false), -EEXIST);
    GW_EXPECT_EQ(extract_beside("device-1-first.bin", true), -EEXIST);
}

static int give_up(void *ctx, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return ++*(unsigned *)ctx > 0;
}

GW_TEST(analyze, the_caller_may_give_up_while_a_pipe_is_silent)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_analysis *a = NULL;
    unsigned calls = 0;
    struct gw_analyze_options options = {
        .struct_bytes = sizeof(options), .progress = give_up, .progress_ctx = &calls};
    int fds[2];
    GW_ASSERT_EQ(pipe(fds), 0);
    GW_EXPECT_EQ(gw_analyze(fds[0], &options, &a, &err), -ECANCELED);
    GW_EXPECT_EQ(calls, 1);
    close(fds[0]);
    close(fds[1]);
}

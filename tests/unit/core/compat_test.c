// SPDX-License-Identifier: MIT
/* gw_compat() on sides made by hand: what a side may be, what is missing on one of them, and sides that
 * cannot be read. What stands inside of a device is compare_test's. */
#include "core/base/alloc.h"
#include "tests/shim/gw_test.h"
#include "tests/support/recording.h"

#include <errno.h>
#include <godwit/compat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static struct gw_error err;

#define U32(name) "{\"name\": \"" name "\", \"type\": \"uint32\", \"size\": 4}"
#define DEVICE(name, version, fields)                                                              \
    "{\"name\": \"" name "\", \"instance_id\": 0, \"vmsd_name\": \"v\", \"version\": " #version    \
    ", \"fields\": [" fields "]}"
#define DESCRIPTION(devices) "{\"page_size\": 4096, \"devices\": [" devices "]}"

/* ---- sides --------------------------------------------------------------------------------------- */

static int read_bytes(const void *data, size_t bytes, bool through_pipe,
                      struct gw_compat_side **side)
{
    int fds[2];
    pid_t child = -1;
    err = (struct gw_error)GW_ERROR_INIT;
    if (through_pipe) {
        GW_ASSERT_EQ(pipe(fds), 0);
        child = fork();
        if (child == 0)
            _exit(write(fds[1], data, bytes) == (ssize_t)bytes ? 0 : 1);
        close(fds[1]);
    } else {
        fds[0] = memfd_create("side", MFD_CLOEXEC);
        GW_ASSERT_EQ(write(fds[0], data, bytes), (ssize_t)bytes);
        lseek(fds[0], 0, SEEK_SET);
    }
    int rc = gw_compat_read(fds[0], NULL, side, &err);
    close(fds[0]);
    if (child > 0)
        waitpid(child, NULL, 0);
    return rc;
}

static struct gw_compat_side *side_of_text(const char *text)
{
    struct gw_compat_side *side = NULL;
    if (read_bytes(text, strlen(text), false, &side) < 0)
        gw_test_note(__FILE__, __LINE__, "%s: %s", text, err.message);
    GW_ASSERT(side != NULL);
    return side;
}

struct made { /* a stream */
    const char *machine, *block;
    uint64_t pages;
    const char *devices[3]; /* four bytes each, of version 1 */
    const char *description;
    bool no_footers, no_configuration;
};

static void make(const struct made *made, struct recording *r)
{
    const char *names[] = {made->block, NULL};
    recording_init(r);
    r->no_footers = made->no_footers;
    if (made->no_configuration)
        recording_hex(r, "5145564d 00000003");
    else
        recording_begin(r, made->machine);
    recording_ram(r, names, made->pages * RECORDING_PAGE);
    recording_head(r, GW_ITEM_END, 2, "", 0, 0);
    recording_eos(r);
    recording_foot(r, 2);
    for (unsigned i = 0; i < 3 && made->devices[i]; i++)
        recording_full(r, 3 + i, made->devices[i], "abcd", 4);
    recording_end(r, made->description);
}

static struct gw_compat_side *side_of_stream(const struct made *made, bool through_pipe)
{
    struct gw_compat_side *side = NULL;
    struct recording r;
    make(made, &r);
    if (read_bytes(r.w.data, r.w.bytes, through_pipe, &side) < 0)
        gw_test_note(__FILE__, __LINE__, "%s", err.message);
    GW_ASSERT(side != NULL);
    recording_fini(&r);
    return side;
}

/* ---- what is found ------------------------------------------------------------------------------- */

static char found[2048]; /* "kind device path FB; " */

static char letter(unsigned way, unsigned breaks, unsigned doubtful)
{
    return breaks & way ? 'x' : doubtful & way ? '?' : '-';
}

static struct gw_compat_facts list(const struct gw_compat *compat)
{
    static const char kinds[] = "mpbdfs";
    struct gw_compat_finding f = {.struct_bytes = sizeof(f)};
    struct gw_compat_facts facts = {.struct_bytes = sizeof(facts)};
    found[0] = '\0';
    for (unsigned i = 0; gw_compat_finding(compat, i, &f); i++) {
        size_t used = strlen(found);
        snprintf(found + used, sizeof(found) - used, "%c %s%s%s %c%c; ", kinds[f.kind], f.device,
                 f.path[0] ? " " : "", f.path, letter(GW_COMPAT_FORWARD, f.breaks, f.doubtful),
                 letter(GW_COMPAT_BACKWARD, f.breaks, f.doubtful));
    }
    gw_compat_facts(compat, &facts);
    return facts;
}

/* Frees both. */
static struct gw_compat_facts compare(struct gw_compat_side *older, struct gw_compat_side *newer)
{
    struct gw_compat *compat = NULL;
    if (gw_compat(older, newer, &compat, &err) < 0)
        gw_test_note(__FILE__, __LINE__, "%s", err.message);
    GW_ASSERT(compat != NULL);
    gw_compat_side_free(older);
    gw_compat_side_free(newer);
    struct gw_compat_facts facts = list(compat);
    gw_compat_free(compat);
    return facts;
}

static const struct made plain = {
    "pc",
    "ram",
    4,
    {"one", "two", NULL},
    DESCRIPTION(DEVICE("one", 1, U32("a")) ", " DEVICE("two", 1, U32("b")))};

GW_TEST(compat, the_same_stream_has_no_findings_from_a_file_and_a_pipe)
{
    for (unsigned pipe = 0; pipe < 2; pipe++) {
        struct gw_compat_facts facts =
            compare(side_of_stream(&plain, pipe), side_of_stream(&plain, !pipe));
        GW_EXPECT_STREQ(found, "");
        GW_EXPECT_EQ(facts.compared, 2);
        GW_EXPECT_EQ(facts.by_version, 0); /* ram is never described */
        GW_EXPECT_EQ(facts.breaks | facts.doubtful, 0);
    }
    GW_EXPECT_EQ(gw_alloc_live(), 0);
}

GW_TEST(compat, a_side_says_what_it_is)
{
    struct gw_compat_side_facts facts = {.struct_bytes = sizeof(facts)};
    struct gw_compat_side *side = side_of_stream(&plain, false);
    gw_compat_side_facts(side, &facts);
    GW_EXPECT_EQ(facts.source, GW_COMPAT_STREAM);
    GW_EXPECT_STREQ(facts.machine, "pc");
    GW_EXPECT_EQ(facts.device_count, 3);
    GW_EXPECT_EQ(facts.described, 2);
    GW_EXPECT_EQ(facts.block_count, 1);
    gw_compat_side_free(side);
    side = side_of_text(" \n" DESCRIPTION(DEVICE("one", 1, U32("a"))));
    gw_compat_side_facts(side, &facts);
    GW_EXPECT_EQ(facts.source, GW_COMPAT_DESCRIPTION);
    GW_EXPECT(facts.machine == NULL);
    GW_EXPECT_EQ(facts.device_count, 1);
    gw_compat_side_free(side);
}

GW_TEST(compat, machine_and_blocks_are_compared)
{
    struct made other = plain;
    other.machine = "q35";
    struct gw_compat_facts facts =
        compare(side_of_stream(&plain, false), side_of_stream(&other, false));
    GW_EXPECT_STREQ(found, "m  xx; ");
    GW_EXPECT_EQ(facts.breaks, GW_COMPAT_FORWARD | GW_COMPAT_BACKWARD);
    other = plain;
    other.no_footers = true;
    compare(side_of_stream(&plain, false), side_of_stream(&other, false));
    GW_EXPECT_STREQ(found, "m  xx; ");
    other = plain;
    other.no_configuration = true;
    compare(side_of_stream(&plain, false), side_of_stream(&other, false));
    GW_EXPECT_STREQ(found, "m  xx; ");
    other = plain;
    other.pages = 5;
    compare(side_of_stream(&plain, false), side_of_stream(&other, false));
    GW_EXPECT_STREQ(found, "b ram xx; ");
    other = plain;
    other.block = "rom";
    compare(side_of_stream(&plain, false), side_of_stream(&other, false));
    GW_EXPECT_STREQ(found, "b ram x-; b rom -x; ");
}

GW_TEST(compat, a_device_that_only_one_has_is_found)
{
    static const struct made more = {"pc",
                                     "ram",
                                     4,
                                     {"one", "two", "three"},
                                     DESCRIPTION(DEVICE("one", 1, U32("a")) ", " DEVICE(
                                         "two", 1, U32("b")) ", " DEVICE("three", 1, U32("c")))};
    compare(side_of_stream(&plain, false), side_of_stream(&more, false));
    GW_EXPECT_STREQ(found, "d three ?x; ");
    compare(side_of_stream(&more, false), side_of_stream(&plain, false));
    GW_EXPECT_STREQ(found, "d three x?; ");
}

GW_TEST(compat, a_stream_and_a_description_compare_what_both_have)
{
    /* A description has no ram section: that it is missing there is no finding. */
    compare(side_of_stream(&plain, false),
            side_of_text(DESCRIPTION(DEVICE("one", 2, U32("a")) ", " DEVICE("two", 1, U32("c")))));
    GW_EXPECT_STREQ(found, "d one -x; f two b ??; ");
}

GW_TEST(compat, without_a_description_versions_are_compared)
{
    struct made bare = plain;
    bare.description = NULL;
    struct gw_compat_facts facts = compare(
        side_of_stream(&bare, false),
        side_of_text(DESCRIPTION(DEVICE("one", 2, U32("a")) ", " DEVICE("two", 1, U32("c")))));
    GW_EXPECT_STREQ(found, "d one -x; ");
    GW_EXPECT_EQ(facts.compared, 0);
    GW_EXPECT_EQ(facts.by_version, 2);
}

#define DUMP(name, members)                                                                        \
    "{\"vmschkmachine\": {\"Name\": \"pc\"}, \"" name                                              \
    "\": {\"Name\": \"d\", \"version_id\": 1, \"minimum_version_id\": 1, \"Description\": "        \
    "{\"name\": \"d\", \"version_id\": 1, \"minimum_version_id\": 1, \"Fields\": [" members "]}}}"
#define DUMPED "{\"field\": \"a\", \"version_id\": 0, \"field_exists\": false, \"size\": 4}"

GW_TEST(compat, what_could_be_sent_is_compared_with_its_like)
{
    struct gw_compat *compat = NULL;
    compare(side_of_text(DUMP("d", DUMPED)), side_of_text(DUMP("d", "")));
    GW_EXPECT_STREQ(found, "f d a xx; ");
    compare(side_of_text(DUMP("d", DUMPED)), side_of_text(DUMP("e", DUMPED)));
    GW_EXPECT_STREQ(found, "d d x-; d e -x; ");
    struct gw_compat_side *a = side_of_text(DUMP("d", DUMPED)), *b = side_of_stream(&plain, false);
    GW_EXPECT_EQ(gw_compat(a, b, &compat, &err), -EINVAL);
    GW_EXPECT(strstr(err.message, "could be sent") && err.hint[0]);
    gw_compat_side_free(a);
    gw_compat_side_free(b);
}

#define ANALYSIS(more)                                                                             \
    "{\"schema\": \"godwit.analyze/1\", \"machine\": \"pc\", \"page-bytes\": 4096, \"footers\": "  \
    "true, \"blocks\": "                                                                           \
    "[{\"index\": 0, \"name\": \"ram\", \"bytes\": 16384}], \"sections\": [{\"name\": \"ram\", "   \
    "\"instance\": 0, \"version\": 4, \"iterative\": true, \"fields\": null}, {\"name\": "         \
    "\"one\", \"instance\": 0, \"version\": 1, \"iterative\": false, \"fields\": []}, {\"name\": " \
    "\"two\", \"instance\": 0, \"version\": 1, \"iterative\": false, \"fields\": []}]" more "}"

GW_TEST(compat, an_analysis_stands_for_its_stream)
{
    struct gw_compat_facts facts =
        compare(side_of_stream(&plain, false),
                side_of_text(ANALYSIS(", \"description\": " DESCRIPTION(
                    DEVICE("one", 1, U32("a")) ", " DEVICE("two", 1, U32("b"))))));
    GW_EXPECT_STREQ(found, "");
    GW_EXPECT_EQ(facts.compared, 2);
    facts =
        compare(side_of_text(ANALYSIS(", \"description\": null")), side_of_stream(&plain, false));
    GW_EXPECT_STREQ(found, "");
    GW_EXPECT_EQ(facts.by_version, 2);
}

/* ---- sides that cannot be read --------------------------------------------------------------------- */

GW_TEST(compat, what_is_no_side_is_refused)
{
    static const struct {
        const char *text, *words;
    } wrong[] = {
        {"", "header"},
        {"hello", "header"},
        {"{", "malformed JSON"},
        {"{}", "malformed JSON"},
        {"{\"a\": 1}", "describes no devices"},
        {"{\"devices\": [7]}", "malformed"},
        {"{\"devices\": [{\"name\": \"d\"}]}", "malformed"},
        {"{\"schema\": \"godwit.run/1\"}", "schema 'godwit.run/1'"},
        {"{\"schema\": 7}", "expected 'godwit.analyze/1'"},
        {"{\"schema\": \"godwit.analyze/1\", \"blocks\": [7]}", "block 0 is malformed"},
        {"{\"schema\": \"godwit.analyze/1\", \"blocks\": 7}", "malformed JSON"},
        {"{\"schema\": \"godwit.analyze/1\", \"sections\": [{\"name\": \"d\"}]}",
         "section 0 is malformed"},
        {"{\"schema\": \"godwit.analyze/1\", \"description\": {\"devices\": 7}}", "malformed"},
        {"{\"vmschkmachine\": {\"Name\": \"pc\"}, \"d\": 7}", "a device expected"},
        {"{\"vmschkmachine\": {}, \"d\": {\"Description\": {}}}", "'d' is malformed"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct gw_compat_side *side = NULL;
        GW_EXPECT_LT(read_bytes(wrong[i].text, strlen(wrong[i].text), i % 2, &side), 0);
        GW_EXPECT(side == NULL);
        if (!GW_EXPECT(strstr(err.message, wrong[i].words) != NULL))
            gw_test_note(__FILE__, __LINE__, "%s: %s", wrong[i].text, err.message);
    }
    GW_EXPECT_EQ(gw_alloc_live(), 0);
}

GW_TEST(compat, a_damaged_stream_is_no_side)
{
    struct gw_compat_side *side = NULL;
    struct recording r;
    make(&plain, &r);
    GW_EXPECT_EQ(read_bytes(r.w.data, r.w.bytes - 1, false, &side), -EPROTO);
    GW_EXPECT(strstr(err.message, "section 'description'") && err.hint[0]);
    recording_fini(&r);
    /* What stands beside a stream has no devices. */
    GW_EXPECT_EQ(read_bytes("\0\2\0\4\0\0\0\1\0\1\0\4\0\0\0", 16, false, &side), -EPROTO);
    GW_EXPECT(strstr(err.message, "beside the stream") != NULL);
}

GW_TEST(compat, a_malformed_field_is_refused_with_the_devices_name)
{
    struct gw_compat *compat = NULL;
    struct gw_compat_side *a = side_of_text(DESCRIPTION(DEVICE("one", 1, U32("a"))));
    struct gw_compat_side *b = side_of_text(DESCRIPTION(DEVICE("one", 1, "{\"size\": 1}")));
    GW_EXPECT_EQ(gw_compat(a, b, &compat, &err), -EPROTO);
    GW_EXPECT(strstr(err.message, "device 'one': ") != NULL);
    gw_compat_side_free(a);
    gw_compat_side_free(b);
    GW_EXPECT_EQ(gw_alloc_live(), 0);
}

/* ---- limits ----------------------------------------------------------------------------------------- */

GW_TEST(compat, findings_beyond_the_limit_are_counted)
{
    size_t room = 1 << 20, used = 0;
    char *text = malloc(room);
    GW_ASSERT(text != NULL);
    used += (size_t)snprintf(text, room,
                             "{\"devices\": [{\"name\": \"d\", \"instance_id\": 0, "
                             "\"vmsd_name\": \"d\", \"version\": 1, \"fields\": [");
    for (unsigned i = 0; i < 5000; i++)
        used += (size_t)snprintf(text + used, room - used,
                                 "%s{\"name\": \"f%u\", \"type\": \"uint8\", \"size\": 1}",
                                 i ? ", " : "", i);
    snprintf(text + used, room - used, "]}]}");
    struct gw_compat_facts facts =
        compare(side_of_text(text), side_of_text(DESCRIPTION(DEVICE("d", 1, ""))));
    GW_EXPECT_EQ(facts.finding_count, 4096);
    GW_EXPECT_EQ(facts.dropped, 5000 - 4096);
    free(text);
}

GW_TEST(compat, each_allocation_may_fail)
{
    static const char *const texts[] = {ANALYSIS(", \"description\": " DESCRIPTION(DEVICE(
                                            "one", 2, U32("a")) ", " DEVICE("two", 1, U32("c")))),
                                        NULL};
    for (int64_t countdown = 0, done = 0; !done; countdown++) {
        struct gw_compat_side *a = NULL, *b = NULL;
        struct gw_compat *compat = NULL;
        struct recording r;
        make(&plain, &r);
        gw_alloc_fail_after(countdown);
        int rc = read_bytes(r.w.data, r.w.bytes, false, &a);
        if (rc == 0)
            rc = read_bytes(texts[0], strlen(texts[0]), false, &b);
        if (rc == 0)
            rc = gw_compat(a, b, &compat, &err);
        gw_alloc_fail_after(-1);
        GW_EXPECT(rc == 0 || (rc == -ENOMEM && err.rc == rc));
        done = rc == 0 || countdown > 10000;
        gw_compat_free(compat);
        gw_compat_side_free(a);
        gw_compat_side_free(b);
        recording_fini(&r);
        GW_EXPECT_EQ(gw_alloc_live(), 0);
    }
}

// SPDX-License-Identifier: MIT
/* Two descriptions of a device: each kind of difference, and what it means in each direction. Every pair is
 * compared both ways round, which must mirror the verdict. */
#include "control/compare.h"
#include "tests/shim/gw_test.h"

#include <stdio.h>
#include <string.h>

static struct gw_error err = GW_ERROR_INIT;

/* ---- the rig ----------------------------------------------------------------------------------- */

struct seen {
    char text[1024]; /* "kind path FB; ": x breaks, ? is doubtful, - is well */
    unsigned breaks, doubtful;
};

static char letter(unsigned way, const struct gw_compat_finding *f)
{
    GW_EXPECT_EQ(f->breaks & f->doubtful, 0);
    return f->breaks & way ? 'x' : f->doubtful & way ? '?' : '-';
}

static int note(void *ctx, const struct gw_compat_finding *f)
{
    static const char kinds[] = "mpbdfs";
    struct seen *seen = ctx;
    size_t used = strlen(seen->text);
    GW_EXPECT(f->message && f->message[0]);
    GW_EXPECT(f->breaks | f->doubtful);
    snprintf(seen->text + used, sizeof(seen->text) - used, "%c%s%s %c%c; ", kinds[f->kind],
             f->path[0] ? " " : "", f->path, letter(GW_COMPAT_FORWARD, f),
             letter(GW_COMPAT_BACKWARD, f));
    seen->breaks |= f->breaks;
    seen->doubtful |= f->doubtful;
    return 0;
}

static struct gw_description *read_text(const char *text, bool is_static)
{
    struct gw_description *d = NULL;
    char machine[256];
    size_t at = 0;
    int rc = is_static ? gw_description_new_static(text, strlen(text), machine, &d, &at, &err)
                       : gw_description_new(text, strlen(text), &d, &at, &err);
    if (rc < 0)
        gw_test_note(__FILE__, __LINE__, "%s: %s", text, err.message);
    GW_ASSERT_EQ(rc, 0);
    return d;
}

static int compare(const char *older, const char *newer, bool is_static, struct seen *seen)
{
    struct gw_description *a = read_text(older, is_static), *b = read_text(newer, is_static);
    *seen = (struct seen){.breaks = 0};
    int rc = gw_compare_device(a, 0, b, 0, note, seen, &err);
    gw_description_free(a);
    gw_description_free(b);
    seen->doubtful &= ~seen->breaks;
    return rc;
}

static unsigned mirrored(unsigned ways)
{
    return (ways & GW_COMPAT_FORWARD ? GW_COMPAT_BACKWARD : 0) |
           (ways & GW_COMPAT_BACKWARD ? GW_COMPAT_FORWARD : 0);
}

static void expect(const char *older, const char *newer, bool is_static, const char *expected)
{
    struct seen there, back, same;
    GW_EXPECT_EQ(compare(older, newer, is_static, &there), 0);
    if (!GW_EXPECT_STREQ(there.text, expected))
        gw_test_note(__FILE__, __LINE__, "%s\n%s", older, newer);
    GW_EXPECT_EQ(compare(newer, older, is_static, &back), 0);
    GW_EXPECT_EQ(back.breaks, mirrored(there.breaks));
    GW_EXPECT_EQ(back.doubtful, mirrored(there.doubtful));
    GW_EXPECT_EQ(compare(newer, newer, is_static, &same), 0);
    GW_EXPECT_STREQ(same.text, "");
}

/* ---- what was sent ------------------------------------------------------------------------------- */

#define DEVICE_(members)                                                                           \
    "{\"page_size\": 4096, \"devices\": [{\"name\": \"d\", \"instance_id\": 0" members "}]}"
#define DEVICE(version, fields)                                                                    \
    DEVICE_(", \"vmsd_name\": \"d\", \"version\": " #version ", \"fields\": [" fields "]")
#define WITH(version, fields, subsections)                                                         \
    DEVICE_(", \"vmsd_name\": \"d\", \"version\": " #version ", \"fields\": [" fields              \
            "], \"subsections\": [" subsections "]")
#define FIELD(name, type, size)                                                                    \
    "{\"name\": \"" name "\", \"type\": \"" type "\", \"size\": " #size "}"
#define U32(name) FIELD(name, "uint32", 4)
#define UNUSED(name, size) FIELD(name, "unused_buffer", size)
#define ARRAY(name, type, size, n)                                                                 \
    "{\"name\": \"" name "\", \"array_len\": " #n ", \"type\": \"" type "\", \"size\": " #size "}"
#define STATE(version, fields)                                                                     \
    "{\"vmsd_name\": \"s\", \"version\": " #version ", \"fields\": [" fields "]}"
#define STRUCT(name, size, version, fields)                                                        \
    "{\"name\": \"" name                                                                           \
    "\", \"type\": \"struct\", \"struct\": " STATE(version, fields) ", \"size\": " #size "}"
#define ELEMENT(name, i, size, version, fields)                                                    \
    "{\"name\": \"" name "\", \"index\": " #i                                                      \
    ", \"type\": \"struct\", \"struct\": " STATE(version, fields) ", \"size\": " #size "}"
#define SUBSECTION(name, version, fields)                                                          \
    "{\"vmsd_name\": \"d/" name "\", \"version\": " #version ", \"fields\": [" fields "]}"

static const struct {
    const char *older, *newer, *expected;
} sent[] = {
    {DEVICE(1, U32("a") ", " U32("b")), DEVICE(1, U32("a") ", " U32("b")), ""},
    /* versions: the newer is refused; the older may be loaded as long as fields say nothing else */
    {DEVICE(1, U32("a")), DEVICE(2, U32("a")), "d -x; "},
    /* a field more, by version and not */
    {DEVICE(1, U32("a")), DEVICE(2, U32("a") ", " U32("b")), "d -x; f b ?x; "},
    {DEVICE(1, U32("a")), DEVICE(1, U32("a") ", " U32("b")), "f b xx; "},
    {DEVICE(1, U32("b")), DEVICE(1, U32("a") ", " U32("b")), "f a xx; "},
    /* a field less */
    {DEVICE(1, U32("a") ", " U32("b")), DEVICE(1, U32("b")), "f a xx; "},
    {DEVICE(1, U32("a") ", " U32("b")), DEVICE(2, U32("b")), "d -x; f a ?x; "},
    /* it left its room; two did; what came found some */
    {DEVICE(1, U32("a") ", " U32("b")), DEVICE(1, UNUSED("unused", 4) ", " U32("b")), ""},
    {DEVICE(1, U32("a") ", " U32("b") ", " U32("c")), DEVICE(1, UNUSED("unused", 8) ", " U32("c")),
     ""},
    {DEVICE(1, UNUSED("unused", 8) ", " U32("c")),
     DEVICE(1, U32("a") ", " UNUSED("unused", 4) ", " U32("c")), ""},
    {DEVICE(1, UNUSED("unused", 8)), DEVICE(1, U32("a") ", " U32("b")), ""},
    {DEVICE(1, U32("a") ", " UNUSED("unused", 8) ", " U32("b")),
     DEVICE(1, UNUSED("unused", 4) ", " UNUSED("unused[1]", 8) ", " U32("b")), ""},
    {DEVICE(1, UNUSED("unused", 4)), DEVICE(1, UNUSED("unused", 5)), "f unused xx; f unused xx; "},
    /* another name */
    {DEVICE(1, U32("a") ", " U32("c")), DEVICE(1, U32("b") ", " U32("c")), "f a ??; "},
    /* sizes, numbers and types */
    {DEVICE(1, U32("a")), DEVICE(1, FIELD("a", "uint64", 8)), "f a xx; "},
    {DEVICE(1, U32("a")), DEVICE(2, FIELD("a", "uint64", 8)), "d -x; f a ?x; "},
    {DEVICE(1, U32("a")), DEVICE(1, FIELD("a", "int32", 4)), "f a ??; "},
    {DEVICE(1, FIELD("a", "buffer", 16)), DEVICE(1, FIELD("a", "buffer", 20)), "f a xx; "},
    {DEVICE(1, ARRAY("a", "uint8", 1, 3)), DEVICE(1, ARRAY("a", "uint8", 1, 4)), "f a xx; "},
    {DEVICE(1, FIELD("a", "pci config", 256)), DEVICE(1, FIELD("a", "pci config", 4096)),
     "f a ??; "},
    {DEVICE(1, FIELD("a", "qlist", 7)), DEVICE(1, FIELD("a", "qlist", 70)), ""},
    {DEVICE(1, FIELD("a", "qlist", 7)), DEVICE(1, FIELD("a", "qtailq", 7)), "f a ??; "},
    /* order */
    {DEVICE(1, U32("a") ", " U32("b") ", " U32("c")),
     DEVICE(1, U32("b") ", " U32("c") ", " U32("a")), "f a xx; "},
    {DEVICE(1, U32("a") ", " U32("b") ", " U32("c")),
     DEVICE(1, U32("c") ", " U32("a") ", " U32("b")), "f a xx; "},
    /* a structure's version is not in the stream */
    {DEVICE(1, STRUCT("s", 4, 1, U32("a"))), DEVICE(1, STRUCT("s", 4, 2, U32("a"))), ""},
    {DEVICE(1, STRUCT("s", 4, 1, U32("a"))), DEVICE(1, STRUCT("s", 8, 2, U32("a") ", " U32("b"))),
     "f s.b xx; "},
    {DEVICE(1, STRUCT("s", 4, 1, U32("a"))), DEVICE(2, STRUCT("s", 8, 1, U32("a") ", " U32("b"))),
     "d -x; f s.b xx; "},
    {DEVICE(1, STRUCT("s", 4, 1, STRUCT("t", 4, 1, U32("a")))),
     DEVICE(1, STRUCT("s", 4, 1, STRUCT("t", 4, 1, FIELD("a", "int32", 4)))), "f s.t.a ??; "},
    /* elements: the first that differs stands for all; NULL says nothing */
    {DEVICE(1, ELEMENT("e", 0, 4, 1, U32("a")) ", " ELEMENT("e", 1, 4, 1, U32("a"))),
     DEVICE(1, ELEMENT("e", 0, 8, 1, U32("a") ", " U32("b")) ", " ELEMENT("e", 1, 8, 1,
                                                                          U32("a") ", " U32("b"))),
     "f e[0].b xx; "},
    {DEVICE(1, ELEMENT("e", 0, 4, 1, U32("a")) ", " ELEMENT("e", 1, 4, 1, U32("a"))),
     DEVICE(1, ELEMENT("e", 0, 4, 1, U32("a"))), "f e xx; "},
    {DEVICE(1, FIELD("p", "struct", 1)), DEVICE(1, STRUCT("p", 4, 1, U32("a"))), ""},
    /* subsections: sent by one, not known to the other; in any order; with versions of their own */
    {DEVICE(1, U32("a")), WITH(1, U32("a"), SUBSECTION("x", 1, U32("b"))), "s d/x -x; "},
    {WITH(1, U32("a"), SUBSECTION("x", 1, U32("b"))), DEVICE(1, U32("a")), "s d/x x-; "},
    {WITH(1, U32("a"), SUBSECTION("x", 1, U32("b")) ", " SUBSECTION("y", 1, U32("c"))),
     WITH(1, U32("a"), SUBSECTION("y", 1, U32("c")) ", " SUBSECTION("x", 1, U32("b"))), ""},
    {WITH(1, U32("a"), SUBSECTION("x", 1, U32("b"))),
     WITH(1, U32("a"), SUBSECTION("x", 2, U32("b") ", " U32("c"))), "s d/x -x; f d/x.c ?x; "},
    {WITH(1, U32("a"), SUBSECTION("x", 1, U32("b"))),
     WITH(2, U32("a"), SUBSECTION("x", 1, U32("b") ", " U32("c"))), "d -x; f d/x.c xx; "},
    /* written by hand */
    {DEVICE_(", \"size\": 3, \"fields\": [" FIELD("data", "buffer", 3) "]"),
     DEVICE_(", \"size\": 4, \"fields\": [" FIELD("data", "buffer", 4) "]"), "d ??; "},
    {DEVICE_(", \"size\": 3, \"fields\": [" FIELD("data", "buffer", 3) "]"), DEVICE(1, U32("a")),
     "d ??; "},
};

GW_TEST(compare, each_kind_of_difference_in_what_was_sent_has_its_verdict)
{
    for (size_t i = 0; i < sizeof(sent) / sizeof(sent[0]); i++)
        expect(sent[i].older, sent[i].newer, false, sent[i].expected);
}

/* ---- what could be sent -------------------------------------------------------------------------- */

#define DUMP_STATE(version, minimum, fields)                                                       \
    "{\"name\": \"s\", \"version_id\": " #version ", \"minimum_version_id\": " #minimum            \
    ", \"Fields\": [" fields "]}"
#define DUMP_WITH(version, minimum, fields, subsections)                                           \
    "{\"vmschkmachine\": {\"Name\": \"pc\"}, \"d\": {\"Name\": \"d\", \"version_id\": " #version   \
    ", \"minimum_version_id\": " #minimum                                                          \
    ", \"Description\": {\"name\": \"d\", \"version_id\": " #version                               \
    ", \"minimum_version_id\": " #minimum ", \"Fields\": [" fields                                 \
    "], \"Subsections\": [" subsections "]}}}"
#define DUMP(version, minimum, fields) DUMP_WITH(version, minimum, fields, "")
#define DUMPED(name, from, test, size)                                                             \
    "{\"field\": \"" name "\", \"version_id\": " #from ", \"field_exists\": " #test                \
    ", \"size\": " #size "}"
#define DUMPED_STRUCT(name, size, version, fields)                                                 \
    "{\"field\": \"" name "\", \"version_id\": 0, \"field_exists\": false, \"size\": " #size       \
    ", \"Description\": " DUMP_STATE(version, 0, fields) "}"
#define A DUMPED("a", 0, false, 4)

static const struct {
    const char *older, *newer, *expected;
} possible[] = {
    {DUMP(1, 1, A), DUMP(1, 1, A), ""},
    {DUMP(1, 1, A), DUMP(2, 1, A), "d -x; "},
    {DUMP(1, 1, A), DUMP(2, 2, A), "d xx; "},
    /* a field more: of the new version, of the old one, by a test */
    {DUMP(1, 1, A), DUMP(2, 1, A ", " DUMPED("b", 2, false, 4)), "d -x; "},
    {DUMP(1, 1, A), DUMP(2, 1, A ", " DUMPED("b", 1, false, 4)), "d -x; f b x-; "},
    {DUMP(1, 1, A), DUMP(1, 1, A ", " DUMPED("b", 0, false, 4)), "f b xx; "},
    {DUMP(1, 1, A), DUMP(1, 1, A ", " DUMPED("b", 0, true, 4)), "f b ??; "},
    {DUMP(1, 1, A), DUMP(1, 1, A ", " DUMPED("b", 2, false, 4)), ""},
    /* a field less */
    {DUMP(1, 1, A ", " DUMPED("b", 0, false, 4)), DUMP(1, 1, A), "f b xx; "},
    {DUMP(1, 1, A ", " DUMPED("b", 0, false, 4)), DUMP(2, 1, A), "d -x; f b x-; "},
    {DUMP(1, 1, A ", " DUMPED("b", 0, false, 4)), DUMP(1, 1, A ", " DUMPED("unused", 0, false, 4)),
     ""},
    {DUMP(1, 1, A ", " DUMPED("b", 0, false, 4)), DUMP(2, 1, A ", " DUMPED("unused", 2, false, 4)),
     "d -x; f b x-; "},
    /* sizes, and from which version on */
    {DUMP(1, 1, A), DUMP(1, 1, DUMPED("a", 0, false, 8)), "f a xx; "},
    {DUMP(2, 1, DUMPED("a", 2, false, 4)), DUMP(3, 1, DUMPED("a", 3, false, 4)), "d -x; f a x-; "},
    {DUMP(2, 1, DUMPED("a", 1, false, 4)), DUMP(2, 1, DUMPED("a", 2, false, 4)), ""},
    /* a structure is loaded by the version of who loads */
    {DUMP(1, 1, DUMPED_STRUCT("s", 16, 1, A)), DUMP(1, 1, DUMPED_STRUCT("s", 24, 1, A)), ""},
    {DUMP(1, 1, DUMPED_STRUCT("s", 16, 1, A)),
     DUMP(1, 1, DUMPED_STRUCT("s", 16, 2, A ", " DUMPED("b", 2, false, 4))), "f s.b xx; "},
    {DUMP(1, 1, DUMPED_STRUCT("s", 16, 1, A)),
     DUMP(2, 1, DUMPED_STRUCT("s", 16, 1, A ", " DUMPED("b", 2, false, 4))), "d -x; "},
    /* whether a subsection is sent nobody knows */
    {DUMP(1, 1, A), DUMP_WITH(1, 1, A, DUMP_STATE(1, 1, A)), "s s -?; "},
    {DUMP_WITH(1, 1, A, DUMP_STATE(1, 1, A)), DUMP_WITH(1, 1, A, DUMP_STATE(2, 2, A)), "s s xx; "},
};

GW_TEST(compare, each_kind_of_difference_in_what_could_be_sent_has_its_verdict)
{
    for (size_t i = 0; i < sizeof(possible) / sizeof(possible[0]); i++)
        expect(possible[i].older, possible[i].newer, true, possible[i].expected);
}

/* ---- malformed ------------------------------------------------------------------------------------ */

GW_TEST(compare, a_malformed_description_is_refused)
{
    static const char *const wrong[] = {
        DEVICE(1, "{\"type\": \"uint8\", \"size\": 1}"),
        DEVICE(1, "{\"name\": \"a\", \"size\": 1}"),
        DEVICE(1, "{\"name\": \"a\", \"type\": \"uint8\"}"),
        DEVICE(1, "7"),
        WITH(1, U32("a"), "{\"fields\": []}"),
    };
    struct seen seen;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        GW_EXPECT_EQ(compare(DEVICE(1, U32("a")), wrong[i], false, &seen), -EPROTO);
        GW_EXPECT(strstr(err.message, "malformed") != NULL);
    }
}

GW_TEST(compare, a_subsection_that_is_there_twice_is_refused)
{
    struct seen seen;
    const char *twice =
        WITH(1, U32("a"), SUBSECTION("x", 1, U32("b")) ", " SUBSECTION("x", 2, U32("b")));
    GW_EXPECT_EQ(compare(DEVICE(1, U32("a")), twice, false, &seen), -EPROTO);
    GW_EXPECT(strstr(err.message, "'d/x' is there twice") != NULL);
}

static int stop(void *ctx, const struct gw_compat_finding *f)
{
    (void)f;
    ++*(int *)ctx;
    return -ECANCELED;
}

GW_TEST(compare, who_is_told_can_end_it)
{
    struct gw_description *a = read_text(DEVICE(1, U32("a") ", " U32("b")), false);
    struct gw_description *b = read_text(DEVICE(1, FIELD("x", "bool", 1)), false);
    int told = 0;
    GW_EXPECT_EQ(gw_compare_device(a, 0, b, 0, stop, &told, &err), -ECANCELED);
    GW_EXPECT_EQ(told, 1);
    gw_description_free(a);
    gw_description_free(b);
}

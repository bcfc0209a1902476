// SPDX-License-Identifier: MIT
/* Recordings as files: what is written is read again, nothing is written over, and a file that was
 * cut or altered is found out. */
#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "tests/shim/gw_test.h"
#include "tests/support/tap_reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static const struct gw_tap_head head = {.session = {0xab, 0xcd, 1, 2, 3},
                                        .index = 2,
                                        .side = 1,
                                        .attempt = 7,
                                        .flags = GW_TAP_HAS_BYTES,
                                        .wire = "tcp"};

static struct gw_tap_file *new_file(struct gw_error *err)
{
    struct gw_tap_file *file = calloc(1, sizeof(*file));
    if (gw_tap_file_create(file, folder, &head, NULL, err) == 0)
        return file;
    free(file);
    return NULL;
}

/* A message, two puts, a revoke, an end; the path of it. */
static void write_one(char *path, size_t bytes)
{
    struct gw_error err = GW_ERROR_INIT;
    uint8_t table[2 * GW_TAP_ENTRY_BYTES] = {0}, number[4] = {0};
    static uint8_t large[100000];
    snprintf(folder, sizeof(folder), "/tmp/godwit-test-XXXXXX");
    GW_ASSERT(mkdtemp(folder) != NULL);
    struct gw_tap_file *file = new_file(&err);
    if (!file)
        GW_FAIL("%s", err.message);
    snprintf(path, bytes, "%s", file->path);
    struct iovec message[2] = {{(void *)(uintptr_t) "hel", 3}, {(void *)(uintptr_t) "lo", 2}};
    gw_tap_file_add(file, gw_clock_ns(), GW_TAP_MESSAGE, GW_TAP_OUT, 0, message, 2);
    gw_be32_store(table, 3);
    gw_be32_store(table + 4, 5);
    gw_be64_store(table + 8, 4096);
    gw_be32_store(table + 20, sizeof(large));
    memset(large, 0x5a, sizeof(large));
    struct iovec puts[3] = {
        {table, sizeof(table)}, {(void *)(uintptr_t) "bytes", 5}, {large, sizeof(large)}};
    gw_tap_file_add(file, gw_clock_ns(), GW_TAP_PUTS, GW_TAP_IN, 2, puts, 3);
    gw_tap_file_add(file, gw_clock_ns(), GW_TAP_REVOKE, GW_TAP_OUT, 0, NULL, 0);
    gw_tap_file_add(file, gw_clock_ns(), GW_TAP_END, GW_TAP_OUT, 0, &(struct iovec){number, 4}, 1);
    gw_tap_file_close(file);
    free(file);
}

static void remove_one(const char *path)
{
    unlink(path);
    rmdir(folder);
}

GW_TEST(tap_file, what_is_written_is_read_again)
{
    char path[512];
    struct tap_recording r;
    struct tap_put put = {.bytes = NULL};
    struct gw_error err = GW_ERROR_INIT;
    struct stat st;
    write_one(path, sizeof(path));
    GW_EXPECT(strstr(path, "/abcd0102-target-2-7.tap") != NULL);
    GW_EXPECT_EQ(stat(path, &st), 0);
    GW_EXPECT_EQ(st.st_mode & 0777, 0600);
    if (tap_load(path, &r, &err) < 0)
        GW_FAIL("%s", err.message);
    GW_EXPECT(r.whole);
    GW_EXPECT_EQ(r.count, 4);
    GW_EXPECT_EQ(r.head.index, 2);
    GW_EXPECT_EQ(r.head.attempt, 7);
    GW_EXPECT_STREQ(r.head.wire, "tcp");
    GW_EXPECT_MEMEQ(r.head.session, head.session, GW_SESSION_BYTES);
    GW_EXPECT_EQ(r.records[0].bytes, 5);
    GW_EXPECT_MEMEQ(r.records[0].body, "hello", 5);
    GW_EXPECT_EQ(r.records[1].way, GW_TAP_IN);
    tap_put_next(&r, &r.records[1], 0, &put);
    GW_EXPECT_EQ(put.region, 3);
    GW_EXPECT_EQ(put.offset, 4096);
    GW_EXPECT_MEMEQ(put.bytes, "bytes", 5);
    tap_put_next(&r, &r.records[1], 1, &put);
    GW_EXPECT_EQ(put.length, 100000);
    GW_EXPECT_EQ(put.bytes[99999], 0x5a);
    GW_EXPECT_LE(r.records[0].at_ns, r.records[3].at_ns);
    tap_unload(&r);
    remove_one(path);
}

GW_TEST(tap_file, nothing_is_written_over)
{
    char path[512];
    struct gw_error err = GW_ERROR_INIT;
    write_one(path, sizeof(path));
    GW_EXPECT(new_file(&err) == NULL);
    GW_EXPECT_EQ(err.rc, -EEXIST);
    GW_EXPECT_EQ(err.code, GW_CODE_IO);
    GW_EXPECT(err.place[0] && strstr(err.message, "create") &&
              strstr(err.hint, "never written over"));
    GW_ASSERT_EQ(unlink(path), 0);
    GW_ASSERT_EQ(symlink("/tmp/elsewhere", path), 0);
    GW_EXPECT(new_file(&err) == NULL);
    remove_one(path);
}

GW_TEST(tap_file, a_folder_that_cannot_be_made_is_said_so)
{
    struct gw_error err = GW_ERROR_INIT;
    snprintf(folder, sizeof(folder), "/dev/null/x");
    GW_EXPECT(new_file(&err) == NULL);
    GW_EXPECT_EQ(err.rc, -ENOTDIR);
    GW_EXPECT(strstr(err.message, "make the folder") && err.hint[0]);
}

/* The file at @path with @bytes of @with at @at, or cut there where @with is NULL: what tap_load() says. */
static int load_altered(const char *path, size_t at, const void *with, size_t bytes,
                        unsigned *count, bool *whole)
{
    struct tap_recording r;
    struct gw_error err = GW_ERROR_INIT;
    char copy[600];
    GW_ASSERT_EQ(tap_load(path, &r, &err), 0);
    snprintf(copy, sizeof(copy), "%s.altered", path);
    FILE *file = fopen(copy, "wb");
    GW_ASSERT(file != NULL);
    if (with)
        memcpy(r.data + at, with, bytes);
    GW_ASSERT_EQ(fwrite(r.data, 1, with ? r.bytes : at, file), with ? r.bytes : at);
    fclose(file);
    tap_unload(&r);
    int rc = tap_load(copy, &r, &err);
    if (rc == 0) {
        *count = r.count;
        *whole = r.whole;
        tap_unload(&r);
    }
    unlink(copy);
    return rc;
}

GW_TEST(tap_file, one_that_was_cut_keeps_what_is_whole)
{
    char path[512];
    unsigned count = 0;
    bool whole = true;
    const size_t second = GW_TAP_HEAD_BYTES + GW_TAP_RECORD_BYTES + 5;
    write_one(path, sizeof(path));
    GW_EXPECT_EQ(load_altered(path, second + 100, NULL, 0, &count, &whole), 0);
    GW_EXPECT_EQ(count, 1);
    GW_EXPECT(!whole);
    GW_EXPECT_EQ(load_altered(path, GW_TAP_HEAD_BYTES, NULL, 0, &count, &whole), 0);
    GW_EXPECT_EQ(count, 0);
    GW_EXPECT_EQ(load_altered(path, 63, NULL, 0, &count, &whole), -EPROTO);
    remove_one(path);
}

GW_TEST(tap_file, one_that_was_altered_is_refused)
{
    const size_t first = GW_TAP_HEAD_BYTES, second = first + GW_TAP_RECORD_BYTES + 5;
    const struct {
        size_t at;
        uint8_t byte;
    } cases[] = {
        {0, 'g'},        {7, 2},          {24, 1},         {26, 2},
        {27, 2},         {47, 'x'},       {63, 1},         {first, 0},
        {first, 9},      {first + 1, 2},  {first + 3, 1},  {first + 7, 1},
        {second + 3, 3}, {second + 3, 0}, {second + 2, 3}, {second + 24 + 7, 6},
    };
    char path[512];
    unsigned count;
    bool whole;
    write_one(path, sizeof(path));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (!GW_EXPECT_EQ(load_altered(path, cases[i].at, &cases[i].byte, 1, &count, &whole),
                          -EPROTO))
            GW_NOTE_FAILURE("byte %zu as %u", cases[i].at, cases[i].byte);
    }
    remove_one(path);
}

// SPDX-License-Identifier: MIT
/* The built-in guest's disk: what its driver wrote is in the file, requests in flight move and end at the
 * target, and a block that is not what was written is found. */
#include "tests/shim/gw_test.h"
#include "tools/guest_disk.h"

#include "control/stream.h"
#include "core/base/alloc.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[32];
static struct gw_guest_disk *a, *b;
static struct gw_error err;

static void begin(void)
{
    err = (struct gw_error)GW_ERROR_INIT;
    strcpy(path, "/tmp/godwit-disk-XXXXXX");
    int fd = mkstemp(path);
    GW_ASSERT(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
    close(fd);
    GW_ASSERT_EQ(gw_guest_disk_new(path, &a, &err), 0);
    GW_ASSERT_EQ(gw_guest_disk_create(a, GW_BLOCK_ANON, 7, &err), 0);
}

static void end(void)
{
    gw_guest_disk_free(a);
    gw_guest_disk_free(b);
    a = b = NULL;
    unlink(path);
}

static void turn(struct gw_guest_disk *disk, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        for (unsigned vcpu = 0; vcpu < GW_GUEST_DISK_QUEUES; vcpu++)
            gw_guest_disk_turn(disk, vcpu);
    }
}

static void expect_good(struct gw_guest_disk *disk)
{
    GW_EXPECT_EQ(gw_guest_disk_verify(disk, &err), 0);
    GW_EXPECT_STREQ(err.message, "");
}

static int move(void)
{
    struct gw_block_desc from, to;
    struct gw_device_desc out, in;
    struct gw_writer w;
    struct gw_reader r;
    GW_ASSERT_EQ(gw_guest_disk_new(path, &b, &err), 0);
    gw_guest_disk_block(a, &from);
    GW_ASSERT_EQ(gw_guest_disk_offer(b, from.size_bytes, from.kind, &err), 0);
    gw_guest_disk_block(b, &to);
    memcpy(to.host, from.host, from.size_bytes);
    GW_ASSERT_EQ(gw_guest_disk_device(a, &out, &err), 0);
    GW_ASSERT_EQ(gw_guest_disk_device(b, &in, &err), 0);
    GW_EXPECT_STREQ(out.name, in.name);
    gw_writer_init(&w, 16 << 20);
    GW_EXPECT_EQ(out.save(out.opaque, &w, &err), 0);
    gw_reader_init(&r, w.data, w.bytes);
    int rc = in.load(in.opaque, &r, out.version_id, &err);
    gw_writer_fini(&w);
    return rc;
}

GW_TEST(guest_disk, what_was_written_is_in_the_file)
{
    begin();
    turn(a, 300);
    GW_EXPECT_GT(gw_guest_disk_ended(a), 5000);
    expect_good(a);
    end();
}

GW_TEST(guest_disk, requests_in_flight_move_and_end_at_the_target)
{
    begin();
    turn(a, 50);
    uint64_t ended = gw_guest_disk_ended(a);
    GW_EXPECT_GT(gw_guest_disk_in_flight(a), 8);
    GW_EXPECT_EQ(move(), 0);
    GW_EXPECT_EQ(gw_guest_disk_in_flight(b), gw_guest_disk_in_flight(a));
    expect_good(b);
    turn(b, 50);
    GW_EXPECT_GT(gw_guest_disk_ended(b), ended + 500);
    expect_good(b);
    expect_good(a); /* whose file is another's now: it is not asked */
    end();
}

GW_TEST(guest_disk, a_guest_that_stays_goes_on_with_its_file)
{
    begin();
    turn(a, 5);
    GW_EXPECT_EQ(move(), 0);
    gw_guest_disk_resumed(a);
    turn(a, 5);
    expect_good(a);
    end();
}

GW_TEST(guest_disk, a_block_that_is_not_what_was_written_is_found)
{
    begin();
    turn(a, 300);
    int fd = open(path, O_WRONLY);
    GW_EXPECT_EQ(pwrite(fd, "x", 1, (off_t)77 * 4096 + 99), 1);
    close(fd);
    GW_EXPECT_EQ(gw_guest_disk_verify(a, &err), -EBADMSG);
    GW_EXPECT(strstr(err.message, "block 77 is not what was written") != NULL);
    turn(a, 300); /* and whoever reads it sees it too, unless it is written before */
    end();
}

GW_TEST(guest_disk, a_disk_of_another_size_is_refused)
{
    begin();
    struct gw_block_desc block;
    gw_guest_disk_block(a, &block);
    GW_EXPECT_EQ(truncate(path, 64 << 20), 0);
    GW_ASSERT_EQ(gw_guest_disk_new(path, &b, &err), 0);
    GW_EXPECT_EQ(gw_guest_disk_offer(b, block.size_bytes, block.kind, &err), -EINVAL);
    GW_EXPECT(strstr(err.hint, "--disk") != NULL);
    end();
}

GW_TEST(guest_disk, a_file_that_is_not_there_is_made)
{
    struct stat info;
    begin();
    gw_guest_disk_free(a);
    a = NULL;
    unlink(path);
    GW_EXPECT_EQ(gw_guest_disk_new(path, &a, &err), 0);
    GW_EXPECT(stat(path, &info) == 0 && (uint64_t)info.st_size == GW_GUEST_DISK_BYTES);
    GW_EXPECT_EQ(truncate(path, 5000), 0);
    GW_EXPECT_EQ(gw_guest_disk_new(path, &b, &err), -EINVAL);
    end();
}

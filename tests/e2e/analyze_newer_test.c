// SPDX-License-Identifier: MIT
/* `godwit analyze` on a stream as QEMU 10 writes one, put together here byte by byte from the format's
 * description: subsections of the configuration, a section sent early, flush records between pages,
 * SWITCHOVER_START in front of the last of RAM, NULLs in runs, lists, nested subsections, the longer
 * globalstate, a description that begins with the configuration. */
#define _GNU_SOURCE
#include "tests/shim/gw_test.h"
#include "tests/support/command.h"
#include "tests/support/recording.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct command command;
static struct recording r;
static char folder[64], stream_path[128], pages_path[128];

/* ---- memory ------------------------------------------------------------------------------------ */

#define PAGE 4096u

static const struct block {
    const char *name, *file;
    uint32_t bytes;
} blocks[] = {{"pc.ram", "ram-0-pc.ram.bin", 0x40000},
              {"pc.bios", "ram-1-pc.bios.bin", 0x4000},
              {"/rom@etc/acpi/tables", "ram-2-%2From%40etc%2Facpi%2Ftables.bin", 0x2000}};
#define BLOCKS 3u
static uint8_t memory[BLOCKS][0x40000]; /* as it must arrive */

static void be64(uint64_t value)
{
    for (int shift = 56; shift >= 0; shift -= 8)
        gw_writer_u8(&r.w, (uint8_t)(value >> shift));
}

/* A page that nothing else is like; with CONTINUE if @named is false. */
static void page(unsigned block, uint32_t offset, bool named, unsigned seed)
{
    uint8_t *at = memory[block] + offset;
    for (unsigned i = 0; i < PAGE; i++)
        at[i] = (uint8_t)(seed * 31 + block * 7 + i * i / 3 + i);
    be64(offset | 0x08 | (named ? 0 : 0x20));
    if (named)
        recording_name(&r, blocks[block].name);
    recording_bytes(&r, at, PAGE);
}

static void zero(unsigned block, uint32_t offset, bool named)
{
    memset(memory[block] + offset, 0, PAGE);
    be64(offset | 0x02 | (named ? 0 : 0x20));
    if (named)
        recording_name(&r, blocks[block].name);
    gw_writer_u8(&r.w, 0);
}

#define FLUSH() be64(0x200)
#define RAM_ENDS() (be64(0x10), recording_hex(&r, "7e 00000001"))

/* ---- the stream -------------------------------------------------------------------------------- */

static void text(const char *bytes)
{
    recording_bytes(&r, bytes, strlen(bytes));
}

static void write_head(void)
{
    recording_hex(&r, "5145564d 00000003 07 0000000b");
    text("pc-q35-10.0");
    recording_hex(&r, "05");
    recording_name(&r, "configuration/capabilities");
    recording_hex(&r, "00000001 00000001");
    recording_name(&r, "x-ignore-shared");
    recording_hex(&r, "05");
    recording_name(&r, "configuration/uuid");
    recording_hex(&r, "00000001 00112233445566778899aabbccddeeff");
    recording_hex(&r, "08 0001 0000  08 0002 0004 00000001"); /* OPEN_RETURN_PATH, PING 1 */
}

static void write_ram_setup(void)
{
    recording_hex(&r, "01 00000001 03 72616d 00000000 00000004");
    be64(0x46000 | 0x04);
    for (unsigned i = 0; i < BLOCKS; i++) {
        recording_name(&r, blocks[i].name);
        be64(blocks[i].bytes);
        be64(i == 1 ? 0xfffc0000 : 0); /* where the guest sees it */
    }
    FLUSH();
    RAM_ENDS();
    recording_hex(&r, "04 00000007"); /* sent early, in the setup */
    recording_name(&r, "0000:00:04.0/virtio-mem-device-early");
    recording_hex(&r, "00000000 00000001  0000000000200000 0000000000000003  7e 00000007");
}

static void write_rounds(void)
{
    recording_hex(&r, "02 00000001");
    page(0, 0, true, 1);
    page(0, PAGE, false, 2);
    zero(0, 2 * PAGE, false);
    page(1, 0, true, 3);
    RAM_ENDS();
    recording_hex(&r, "02 00000001"); /* goes on in the block where the last one ended */
    page(1, PAGE, false, 4);
    zero(1, 2 * PAGE, false);
    page(2, PAGE, true, 5);
    FLUSH(); /* from here on, again */
    page(0, 0, true, 6);
    RAM_ENDS();
}

static void write_ram_end(void)
{
    recording_hex(&r, "08 000b 0000  03 00000001"); /* SWITCHOVER_START, END */
    page(0, 0x3f000, true, 7);
    zero(0, PAGE, false); /* it had something */
    FLUSH();
    RAM_ENDS();
}

#define BOARD_BODY                                                                                 \
    "00000009"             /* irq */                                                               \
    "0001 0203  0004 0506" /* lanes */                                                             \
    "0011 2233"            /* slots: one, two NULLs, one */                                        \
    "3030"                                                                                         \
    "0044 5566"                                                                                    \
    "01 0001  01 0002  00"                                      /* queue */                        \
    "00000002 01 00000000000000aa 07 01 00000000000000bb 08 00" /* map */                          \
    "0003"                                                      /* cur_offset, the second */       \
    "ffffffffffffffff"                                          /* deadline: not armed */          \
    "05 09 626f6172642f6e6577 00000001 01"                      /* board/new */                    \
    "05 0e 626f6172642f6e65772f64656570 00000002 00000007"      /* board/new/deep */

static void write_devices(void)
{
    recording_hex(&r, "04 00000000 05 74696d6572 00000000 00000002" /* timer */
                      "0000000000000001 0000000000000000 fffffffffffffffe  7e 00000000");
    recording_hex(&r, "04 00000009");
    recording_name(&r, "0000:00:02.0/board");
    recording_hex(&r, "00000000 00000001" BOARD_BODY "7e 00000009");
    recording_hex(&r, "04 0000000b"); /* of 100 bytes, 66 of them behind two flags */
    recording_name(&r, "globalstate");
    recording_hex(&r, "00000000 00000001  00000008");
    uint8_t state[100] = "running";
    state[32] = 1;
    recording_bytes(&r, state, sizeof(state));
    recording_hex(&r, "7e 0000000b");
}

#define FIELD(name, type, size)                                                                    \
    "{\"name\": \"" name "\", \"type\": \"" type "\", \"size\": " #size "}"
#define STATE(name, version, fields)                                                               \
    "\"vmsd_name\": \"" name "\", \"version\": " #version ", \"fields\": [" fields "]"
#define LANE                                                                                       \
    "\"struct\": {" STATE(                                                                         \
        "lane", 1,                                                                                 \
        FIELD("x", "uint16", 2) ", {\"name\": \"y\", \"array_len\": 2, "                           \
                                "\"type\": \"uint8\", \"size\": 1}") "}, "                         \
                                                                     "\"size\": 4"

static const char
    description[] = "{\"configuration\": {" STATE("configuration",
                                                  1, FIELD("len", "uint32", 4) ", " FIELD("name", "buffer", 11)) ", \"subsections\": [{" STATE("configuration/capabilities", 1, FIELD("count", "uint32", 4)) "}, {" STATE("configuration/uuid", 1, FIELD("uuid", "buffer", 16)) "}]}, "
                                                                                                                                                                                                                                                                                "\"page_size\": 4096, \"devices\": ["
                                                                                                                                                                                                                                                                                "{\"name\": \"0000:00:04.0/virtio-mem-device-early\", \"instance_id\": 0, " STATE("virtio-mem-device-early",
                                                                                                                                                                                                                                                                                                                                                                  1,
                                                                                                                                                                                                                                                                                                                                                                  FIELD(
                                                                                                                                                                                                                                                                                                                                                                      "size", "uint64", 8) ", " FIELD("bitmap", "bitmap", 8)) "}, {\"name\": \"timer\", \"instance_id\": 0, " STATE("timer",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                    2,
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                    FIELD("cpu_ticks_offset", "int64", 8) ", " FIELD("unused", "unused_buffer", 8) ", " FIELD("cpu_clock_offset",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                              "int64", 8)) "}, {\"name\": \"0000:00:02.0/board\", \"instance_id\": 0, " STATE("board",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                              1,
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                              FIELD(
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                  "irq",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                  "int32 le",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                  4) ", {\"name\": \"lanes\", \"array_len\": 2, \"type\": \"struct\", " LANE
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                     "}"
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                     ", {\"name\": \"slots\", \"index\": 0, \"type\": \"struct\", " LANE
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                     "}"
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                     ", {\"name\": \"slots\", \"array_len\": 2, \"type\": \"nullptr\", \"size\": 1}"
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                     ", {\"name\": \"slots\", \"index\": 3, \"type\": \"struct\", " LANE
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                     "}"
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                     ", {\"name\": \"queue\", \"type\": \"qtailq\", " STATE("item",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                            1,
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                            FIELD(
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                "n", "uint16",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                2)) ", " STATE("item",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                               1,
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                               FIELD("n", "uint16", 2)) ", \"size\": 7}"
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                        ", {\"name\": \"map\", \"type\": \"gtree\", " STATE("value", 1, FIELD("v", "uint8", 1)) ", " STATE(
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                            "value",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                            1,
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                            FIELD(
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                "v",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                "uint8", 1)) ", \"size\": 25}"
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                             ", " FIELD("cur_offset[1]", "uint16", 2) ", " FIELD("deadline", "timer", 8)) ", \"subsections\": [{" STATE("board/new",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                        1,
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                        FIELD(
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                            "on", "bool", 1)) ", \"subsections\": [{" STATE("board/new/deep",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                            2,
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                            FIELD("level",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                  "uint32", 4)) "}]}]}"
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                ", {\"name\": \"globalstate\", \"instance_id\": 0, " STATE(
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                    "globalstate",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                    1,
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                    FIELD("size", "uint32", 4) ", " FIELD("runstate",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                          "buffer", 32) ", " FIELD("has_vm_was_suspended", "bool", 1) ", " FIELD("vm_was_suspended",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                 "bool", 1) ", " FIELD("unused",
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                       "unused_buffer", 66)) "}]}";

static void write_stream(void)
{
    recording_init(&r);
    memset(memory, 0, sizeof(memory));
    write_head();
    write_ram_setup();
    write_rounds();
    write_ram_end();
    write_devices();
    recording_hex(&r, "00 06");
    gw_writer_be32(&r.w, sizeof(description) - 1);
    text(description);
}

/* ---- files ------------------------------------------------------------------------------------- */

static void write_file(void)
{
    int fd = open(stream_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    GW_ASSERT(fd >= 0 && gw_writer_error(&r.w) == 0);
    GW_ASSERT_EQ(write(fd, r.w.data, r.w.bytes), (ssize_t)r.w.bytes);
    close(fd);
}

static void begin(void)
{
    strcpy(folder, "/tmp/godwit-newer-XXXXXX");
    GW_ASSERT(mkdtemp(folder) != NULL);
    snprintf(stream_path, sizeof(stream_path), "%s/stream", folder);
    snprintf(pages_path, sizeof(pages_path), "%s/contents", folder);
    write_stream();
    write_file();
}

static void end(void)
{
    char line[128];
    snprintf(line, sizeof(line), "rm -rf '%s'", folder);
    GW_EXPECT_EQ(system(line), 0);
    recording_fini(&r);
}

#define ANALYZE(...)                                                                               \
    (command_start(&command, (const char *const[]){"analyze", __VA_ARGS__, NULL}),                 \
     command_finish(&command))

static void expect_file(const char *name, const uint8_t *data, size_t bytes)
{
    char path[256];
    uint8_t *is = malloc(bytes + 1);
    snprintf(path, sizeof(path), "%s/%s", pages_path, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    GW_ASSERT(fd >= 0 && is != NULL);
    GW_EXPECT_EQ(read(fd, is, bytes + 1), (ssize_t)bytes);
    GW_EXPECT_MEMEQ(is, data, bytes);
    close(fd);
    free(is);
}

/* ---- what it says ------------------------------------------------------------------------------ */

static void expect_head(json_t *document)
{
    GW_EXPECT_EQ(json_count_at(document, "bytes", NULL), (json_int_t)r.w.bytes);
    GW_EXPECT_STREQ(json_text_at(document, "machine", NULL), "pc-q35-10.0");
    GW_EXPECT_STREQ(json_text_at(document, "uuid", NULL), "00112233-4455-6677-8899-aabbccddeeff");
    json_t *capabilities = json_at(document, "capabilities", NULL);
    GW_EXPECT_EQ(json_array_size(capabilities), 1);
    GW_EXPECT(json_is_true(json_at(document, "return-path", NULL)));
    GW_EXPECT_EQ(json_count_at(document, "ram", "normal"), 7);
    GW_EXPECT_EQ(json_count_at(document, "ram", "zero"), 3);
    GW_EXPECT_EQ(json_array_size(json_at(document, "faults", NULL)), 0);
    json_t *bios = json_array_get(json_at(document, "blocks", NULL), 1);
    GW_EXPECT_EQ(json_count_at(bios, "received-pages", NULL), 3);
    GW_EXPECT_EQ(json_count_at(bios, "guest-address", NULL), 0xfffc0000);
}

static void expect_names(json_t *list, const char *const *names)
{
    size_t count = 0;
    for (; names[count]; count++)
        GW_EXPECT_STREQ(json_text_at(json_array_get(list, count), "name", NULL), names[count]);
    GW_EXPECT_EQ(json_array_size(list), count);
}

/* The fields of the board, as they lie in its body. */
static void expect_fields(json_t *section)
{
    static const struct {
        const char *path;
        unsigned at, bytes;
    } expected[] = {
        {"irq", 0, 4},
        {"lanes[0].x", 4, 2},
        {"lanes[0].y", 6, 2},
        {"lanes[1].x", 8, 2},
        {"lanes[1].y", 10, 2},
        {"slots[0].x", 12, 2},
        {"slots[0].y", 14, 2},
        {"slots", 16, 2},
        {"slots[3].x", 18, 2},
        {"slots[3].y", 20, 2},
        {"queue", 22, 7},
        {"map", 29, 25},
        {"cur_offset[1]", 54, 2},
        {"deadline", 56, 8},
        {"board/new.on", 79, 1},
        {"board/new.board/new/deep.level", 100, 4},
    };
    json_t *fields = json_at(section, "fields", NULL);
    json_int_t body = json_count_at(section, "body-offset", NULL);
    GW_EXPECT_EQ(json_array_size(fields), sizeof(expected) / sizeof(expected[0]));
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        json_t *field = json_array_get(fields, i);
        GW_EXPECT_STREQ(json_text_at(field, "path", NULL), expected[i].path);
        GW_EXPECT_EQ(json_count_at(field, "offset", NULL), body + expected[i].at);
        GW_EXPECT_EQ(json_count_at(field, "bytes", NULL), expected[i].bytes);
    }
}

GW_TEST(analyze_newer, stream_of_today_verifies_and_each_part_of_it_is_told)
{
    static const char *const commands[] = {"OPEN_RETURN_PATH", "PING", "SWITCHOVER_START", NULL};
    static const char *const sections[] = {"ram",         "0000:00:04.0/virtio-mem-device-early",
                                           "timer",       "0000:00:02.0/board",
                                           "globalstate", NULL};
    begin();
    GW_EXPECT_EQ(ANALYZE(stream_path, "--verify", "--json"), 0);
    json_t *document = command_document(&command), *section;
    GW_ASSERT(document != NULL);
    size_t i;
    expect_head(document);
    expect_names(json_at(document, "commands", NULL), commands);
    expect_names(json_at(document, "sections", NULL), sections);
    json_array_foreach(json_at(document, "sections", NULL), i, section)
        GW_EXPECT_STREQ(json_text_at(section, "form", NULL), i == 0 ? "ram" : "fields");
    section = json_array_get(json_at(document, "sections", NULL), 0);
    GW_EXPECT(json_is_true(json_at(section, "end", NULL)));
    GW_EXPECT_EQ(json_count_at(section, "parts", NULL), 4);
    expect_fields(json_array_get(json_at(document, "sections", NULL), 3));
    json_decref(document);
    end();
}

GW_TEST(analyze_newer, memory_that_is_extracted_is_what_was_sent_last)
{
    static const uint8_t timer[24] = {
        [7] = 1,     [16] = 0xff, [17] = 0xff, [18] = 0xff, [19] = 0xff,
        [20] = 0xff, [21] = 0xff, [22] = 0xff, [23] = 0xfe};
    char line[4400];
    const char *godwit = getenv("GODWIT") ? getenv("GODWIT") : GW_TEST_GODWIT;
    begin();
    GW_EXPECT_EQ(ANALYZE(stream_path, "--extract", pages_path), 0);
    for (unsigned i = 0; i < BLOCKS; i++)
        expect_file(blocks[i].file, memory[i], blocks[i].bytes);
    expect_file("device-2-timer.bin", timer, sizeof(timer));
    /* From a pipe, the same. */
    snprintf(line, sizeof(line),
             "cat '%s' | '%s' analyze --extract '%s/again' - >'%s/out' && diff -r '%s' '%s/again'",
             stream_path, godwit, folder, folder, pages_path, folder);
    GW_EXPECT_EQ(system(line), 0);
    end();
}

/* Damage where only the newer shapes vouch for a byte: a NULL, a flush record, the new command. */
GW_TEST(analyze_newer, damage_to_what_is_new_is_found)
{
    static const struct {
        const char *before; /* these bytes, the last one of which is changed */
        const char *section;
    } damages[] = {
        {"2233 3030", "0000:00:02.0/board"},
        {"00000000 00000200 00000000 00000010 7e 00000001 04", "ram"},
        {"08 000b", "command"},
    };
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        struct recording part;
        char words[80];
        begin();
        recording_init(&part);
        recording_hex(&part, damages[i].before);
        uint8_t *at = memmem(r.w.data, r.w.bytes, part.w.data, part.w.bytes);
        GW_ASSERT(at != NULL);
        at[i == 1 ? 6 : part.w.bytes - 1] ^= 0x04;
        recording_fini(&part);
        write_file();
        snprintf(words, sizeof(words), "section '%s", damages[i].section);
        GW_EXPECT_EQ(ANALYZE(stream_path, "--verify"), 5);
        if (!GW_EXPECT(strstr(command.err.text, words) != NULL))
            gw_test_note(__FILE__, __LINE__, "%s", command.err.text);
        end();
    }
}

/* ---- a channel beside it ------------------------------------------------------------------------- */

/* Of 1344 bytes: flags, how many pages it could have, has with data, has that are zero. */
static void packet(unsigned flags, unsigned room, unsigned normal, unsigned zeros)
{
    recording_hex(&r, "11223344 00000001");
    gw_writer_be32(&r.w, flags);
    gw_writer_be32(&r.w, room);
    gw_writer_be32(&r.w, normal);
    gw_writer_be32(&r.w, normal * PAGE); /* no longer stale where there are none */
    be64(1);
    gw_writer_be32(&r.w, zeros);
    uint8_t rest[28 + 256] = {0};
    if (normal + zeros > 0)
        memcpy(rest + 28, "pc.ram", 7);
    recording_bytes(&r, rest, sizeof(rest));
    for (unsigned i = 0; i < 128; i++)
        be64(i < normal + zeros ? i * PAGE : 0);
    for (unsigned i = 0; i < normal; i++)
        recording_bytes(&r, memory[0], PAGE);
}

GW_TEST(analyze_newer, channel_with_zero_pages_and_device_state_verifies)
{
    uint8_t idstr[256] = "0000:00:05.0/vfio";
    begin();
    recording_fini(&r);
    recording_init(&r);
    recording_hex(&r, "11223344 00000001 00112233445566778899aabbccddeeff 01");
    uint8_t rest[39] = {0};
    recording_bytes(&r, rest, sizeof(rest));
    packet(1, 0, 0, 0); /* SYNC, of the setup */
    packet(0, 128, 2, 3);
    packet(0, 128, 0, 128);
    recording_hex(&r, "11223344 00000001 00000040"); /* device state: a head of its own */
    recording_bytes(&r, idstr, sizeof(idstr));
    recording_hex(&r, "00000000 00000005 0102030405");
    packet(1, 0, 0, 0);
    write_file();
    GW_EXPECT_EQ(ANALYZE(stream_path, "--verify", "--json"), 0);
    json_t *document = command_document(&command);
    GW_ASSERT(document != NULL);
    GW_EXPECT_STREQ(json_text_at(document, "kind", NULL), "multifd");
    GW_EXPECT_STREQ(json_text_at(document, "uuid", NULL), "00112233-4455-6677-8899-aabbccddeeff");
    GW_EXPECT_EQ(json_count_at(document, "bytes", NULL), (json_int_t)r.w.bytes);
    GW_EXPECT_EQ(json_count_at(document, "multifd", "packets"), 5);
    GW_EXPECT_EQ(json_count_at(document, "multifd", "syncs"), 2);
    GW_EXPECT_EQ(json_count_at(document, "multifd", "device-packets"), 1);
    GW_EXPECT_EQ(json_count_at(document, "multifd", "data-bytes"), 2 * PAGE + 5);
    GW_EXPECT_EQ(json_count_at(document, "ram", "normal"), 2);
    GW_EXPECT_EQ(json_count_at(document, "ram", "zero"), 3 + 128);
    GW_EXPECT_EQ(json_array_size(json_at(document, "faults", NULL)), 0);
    json_decref(document);
    end();
}

// SPDX-License-Identifier: MIT
/* Writes the inputs that the corpora began with, as real as the library makes them: fuzz-seeds DIR
 * MESSAGES, where MESSAGES is tests/data/messages (the bytes of every message; other data beside it). One file an input, in
 * DIR/<target>/. The corpora in the tree are these and what libFuzzer found, minimised by its -merge=1;
 * docs/testing.md says how. */
#include "tests/fuzz/seeds.h"
#include "control/codec.h"
#include "control/stream_write.h"
#include "core/devices.h"
#include "ram/inline_write.h"
#include "tests/fuzz/fuzz.h"
#include "transport/preface.h"
#include "transport/stream.h"

#include <sys/stat.h>

static const char *folder;

void seed(const char *target, const char *name, const void *data, size_t bytes)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", folder, target);
    mkdir(path, 0777);
    snprintf(path, sizeof(path), "%s/%s/%s", folder, target, name);
    FILE *file = fopen(path, "wb");
    FUZZ_MUST(file != NULL);
    FUZZ_MUST(fwrite(data, 1, bytes, file) == bytes);
    FUZZ_MUST(fclose(file) == 0);
}

static void seed_prefaces(void)
{
    struct gw_preface preface = {.version = GW_PREFACE_VERSION, .index = 2};
    uint8_t bytes[2 * GW_PREFACE_BYTES];
    memset(preface.session, 0x5a, sizeof(preface.session));
    for (unsigned i = 0; i < 6; i++) {
        char name[16];
        gw_preface_encode(&preface, bytes);
        gw_answer_encode(&preface, (enum gw_admission)i, bytes + GW_PREFACE_BYTES);
        snprintf(name, sizeof(name), "answer-%u", i);
        seed("preface", name, bytes, sizeof(bytes));
    }
    seed("preface", "alone", bytes, GW_PREFACE_BYTES);
}

static void seed_uris(void)
{
    static const char *const texts[] = {"tcp:127.0.0.1:4444",
                                        "tcp:[::1]:0",
                                        "tcp:[fe80::1%eth0]:65535",
                                        "tcp://host-1.a_b:1",
                                        "unix:/run/godwit.sock",
                                        "tcp::0",
                                        "rdma:host:1",
                                        "tcpp:host:1",
                                        "tcp:host",
                                        "tcp:host:70000",
                                        "unix:",
                                        "tcp:[::1]"};
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        char name[16];
        snprintf(name, sizeof(name), "uri-%u", i);
        seed("uri", name, texts[i], strlen(texts[i]));
    }
}

/* Hexadecimal digits; '#' begins a comment. */
static size_t read_hex(const char *path, uint8_t *to, size_t room)
{
    FILE *file = fopen(path, "r");
    FUZZ_MUST(file != NULL);
    char line[4096];
    size_t bytes = 0;
    while (fgets(line, sizeof(line), file)) {
        line[strcspn(line, "#")] = '\0';
        for (const char *at = line; *at;) {
            unsigned value;
            if (sscanf(at, "%2x", &value) != 1)
                break;
            FUZZ_MUST(bytes < room);
            to[bytes++] = (uint8_t)value;
            at += strspn(at, " \t\n");
            at += 2;
        }
    }
    fclose(file);
    return bytes;
}

static void seed_messages(const char *messages)
{
    for (unsigned i = 0; gw_message_def_at(i); i++) {
        const struct gw_message_def *def = gw_message_def_at(i);
        uint8_t bytes[2 + 4096], frame[2 + GW_FRAME_HEAD_BYTES + 4096];
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s.hex", messages, def->name);
        size_t length = read_hex(path, bytes + 2, sizeof(bytes) - 2);
        FUZZ_MUST(length >= GW_MESSAGE_HEADER_BYTES);
        uint8_t *body = bytes + 2 + GW_MESSAGE_HEADER_BYTES;
        size_t body_bytes = length - GW_MESSAGE_HEADER_BYTES;
        if (def->type == GW_MSG_HELLO || def->type == GW_MSG_HELLO_REPLY) {
            for (uint8_t variant = 0; variant < 16; variant += 5) {
                char name[32];
                body[-1] = variant;
                snprintf(name, sizeof(name), "%s-%u", def->name, variant);
                seed("hello", name, body - 1, body_bytes + 1);
            }
        }
        if (def->type == GW_MSG_ZERO)
            seed("zero", "zero", body, body_bytes);
        if (def->type == GW_MSG_BLOCKS) {
            gw_be16_store(body - 2, (uint16_t)body_bytes);
            seed("blocks", "blocks", body - 2, body_bytes + 2);
        }
        bytes[2 + 6] = (uint8_t)i; /* the row and the flags stand in front of the body */
        bytes[2 + 7] = bytes[2 + 3];
        seed("message", def->name, bytes + 2 + 6, body_bytes + 2);

        /* channel: an end, a frame written in pieces of at most 32 bytes, a read after each */
        uint8_t script[2 * sizeof(frame)];
        size_t at = 0;
        length = read_hex(path, frame + GW_FRAME_HEAD_BYTES, 4096);
        struct gw_frame_head head = {.kind = GW_FRAME_MESSAGE, .payload_bytes = (uint32_t)length};
        gw_frame_head_encode(&head, frame);
        length += GW_FRAME_HEAD_BYTES;
        script[at++] =
            (uint8_t)((def->on & GW_ON_CONTROL ? 0 : 3) +
                      (def->on & GW_ON_CONTROL ? (def->from & GW_FROM_SOURCE ? 2 : 1) : 0));
        for (size_t done = 0; done < length; done += 32) {
            size_t piece = length - done < 32 ? length - done : 32;
            script[at++] = (uint8_t)(2 + 8 * (piece - 1));
            memcpy(script + at, frame + done, piece);
            at += piece;
            script[at++] = 3;
        }
        script[at++] = 4 + 8 * 20;
        seed("channel", def->name, script, at);
    }
}

static void add_item(uint8_t *to, size_t *used, const struct gw_writer *w)
{
    gw_be16_store(to + *used, (uint16_t)w->bytes);
    memcpy(to + *used + 2, w->data, w->bytes);
    *used += 2 + w->bytes;
}

static void seed_ram_start(void)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_ram *ram = gw_ram_new();
    struct gw_writer w;
    uint8_t bytes[512];
    struct gw_list_builder list = {.buf = bytes + 2, .bytes = sizeof(bytes) - 2};
    for (unsigned i = 0; i < 2; i++) {
        struct gw_block_offer_msg offer = {.bytes = 8192u << i, .page_bytes = 4096};
        snprintf(offer.name, sizeof(offer.name), "ram%u", i);
        FUZZ_MUST(gw_list_add_block(&list, &offer) == 0);
        struct gw_block_desc desc = {.struct_bytes = sizeof(desc),
                                     .name = offer.name,
                                     .host = (void *)(uintptr_t)4096,
                                     .size_bytes = offer.bytes,
                                     .page_bytes = 4096,
                                     .fd = -1};
        FUZZ_MUST(gw_ram_add_block(ram, &desc, &err) == (int)i);
    }
    gw_be16_store(bytes, (uint16_t)list.used);
    gw_writer_init(&w, 4096);
    struct gw_device_desc device = gw_savevm_ram(ram);
    FUZZ_MUST(gw_savevm_setup(&w, &device, GW_SECTION_RAM, &err) == 0);
    struct gw_section section;
    struct gw_reader body;
    enum gw_item_type type;
    FUZZ_MUST(gw_stream_read_item(w.data, w.bytes, &type, NULL, &section, &body, &err) == 0);
    memcpy(bytes + 2 + list.used, body.data, body.bytes);
    seed("blocks", "ram-start", bytes, 2 + list.used + body.bytes);
    gw_writer_fini(&w);
    gw_ram_free(ram);
}

static void seed_stream(void)
{
    static const char json[] = "{\"devices\":[]}";
    struct gw_section parts[] = {
        {.type = GW_ITEM_START, .section_id = 1, .idstr = "ram", .version_id = 4},
        {.type = GW_ITEM_PART, .section_id = 1},
        {.type = GW_ITEM_END, .section_id = 1},
        {.type = GW_ITEM_FULL, .section_id = 2, .idstr = "cpu", .instance_id = 3, .version_id = 1}};
    uint8_t bytes[2048];
    size_t used = 0;
    struct gw_writer w;
    gw_writer_init(&w, 4096);
    gw_stream_write_header(&w, "pc-i440fx-7.2");
    add_item(bytes, &used, &w);
    for (unsigned i = 0; i < 4; i++) {
        gw_writer_reset(&w);
        gw_stream_write_section(&w, &parts[i]);
        gw_writer_be64(&w, 0x10);
        gw_stream_write_footer(&w, parts[i].section_id);
        add_item(bytes, &used, &w);
    }
    gw_writer_reset(&w);
    gw_stream_write_eof(&w);
    add_item(bytes, &used, &w);
    gw_writer_reset(&w);
    gw_stream_write_description(&w, json, sizeof(json) - 1);
    add_item(bytes, &used, &w);
    seed("item", "stream", bytes, used);
    gw_writer_fini(&w);
}

/* Scripts of put_fuzz.c: frames that it builds at every edge, and one byte by byte. */
static void seed_puts(void)
{
    uint8_t bytes[64];
    for (unsigned edge = 0; edge < 8; edge++) {
        char name[16];
        size_t used = 0;
        bytes[used++] = 0;                        /* a frame */
        bytes[used++] = 1;                        /* of two entries */
        bytes[used++] = 0;                        /* the first page */
        bytes[used++] = (uint8_t)(edge << 5 | 3); /* 8192 bytes of block 1 at that edge */
        bytes[used++] = 7;                        /* receive */
        bytes[used++] = 0xf5;                     /* revoke */
        bytes[used++] = 0;
        bytes[used++] = 0;
        bytes[used++] = 0;
        bytes[used++] = 7;
        snprintf(name, sizeof(name), "edge-%u", edge);
        seed("put", name, bytes, used);
    }
    struct gw_frame_head head = {.kind = GW_FRAME_PUT, .entry_count = 1, .payload_bytes = 4096};
    struct gw_frame_entry entry = {.region = 1, .bytes = 4096, .offset = 4096};
    bytes[0] = 2 + 8 * 31; /* 32 bytes as they are */
    gw_frame_head_encode(&head, bytes + 1);
    gw_frame_entry_encode(&entry, bytes + 1 + GW_FRAME_HEAD_BYTES);
    memset(bytes + 33, 7, 8);
    seed("put", "raw", bytes, 41);
}

/* ---- recordings ------------------------------------------------------------------------------- */

static void put(struct gw_writer *w, const struct gw_inline_record *record)
{
    gw_writer_bytes(w, record->head, record->head_bytes);
    gw_writer_bytes(w, record->data, record->data_bytes);
}

/* A table of one block of four pages, a page of each kind. */
static void write_ram(struct gw_writer *w)
{
    static const uint8_t bytes[4096] = {1, 2, 3};
    static const struct gw_inline_entry entry = {.name = "a", .bytes = 0x4000};
    static const struct gw_inline_page pages[] = {
        {.kind = GW_INLINE_ZERO, .offset = 0x1000},
        {.kind = GW_INLINE_PAGE, .offset = 0x2000, .data = bytes, .bytes = sizeof(bytes)},
        {.kind = GW_INLINE_XBZRLE, .offset = 0x2000, .data = (const uint8_t *)"\0\1x", .bytes = 3}};
    struct gw_inline_writer ram;
    struct gw_inline_record record;
    gw_inline_writer_init(&ram);
    FUZZ_MUST(gw_inline_write_table(&ram, &entry, 1, &record, NULL) == 0);
    put(w, &record);
    gw_inline_write_entry(&ram, 0, &record);
    put(w, &record);
    for (unsigned i = 0; i < 3; i++) {
        FUZZ_MUST(gw_inline_write_page(&ram, &pages[i], &record) == 0);
        put(w, &record);
    }
    gw_inline_write_end(&record);
    put(w, &record);
}

static void seed_inline(void)
{
    struct gw_writer w;
    gw_writer_init(&w, 65536);
    gw_writer_u8(&w, 0);
    write_ram(&w);
    seed("inline", "ram", w.data, w.bytes);
    static const uint8_t hello[64] = {0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1};
    static const uint8_t packet[320 + 1024] = {0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1, 0, 0, 0, 1};
    gw_writer_reset(&w);
    gw_writer_u8(&w, 0x80);
    gw_writer_bytes(&w, hello, sizeof(hello));
    gw_writer_bytes(&w, packet, sizeof(packet));
    seed("inline", "channel", w.data, w.bytes);
    gw_writer_fini(&w);
    seed("xbzrle", "two-runs", "\xe8\7\3abc\x94\x18\1x", 10);
    seed("xbzrle", "one-byte", "\0\1A", 3);
}

static const char description[] = "{\"page_size\": 4096, \"devices\": [{\"name\": \"d\", "
                                  "\"instance_id\": 0, \"vmsd_name\": \"d\", "
                                  "\"version\": 1, \"fields\": [{\"name\": \"a\", \"array_len\": "
                                  "2, \"type\": \"struct\", \"struct\": "
                                  "{\"fields\": [{\"name\": \"x\", \"type\": \"bool\", \"size\": "
                                  "1}]}, \"size\": 1}], \"subsections\": "
                                  "[{\"vmsd_name\": \"d/s\", \"version\": 1, \"fields\": "
                                  "[{\"name\": \"y\", \"type\": \"uint16\", "
                                  "\"size\": 2}]}]}]}";
static const char described[] = "\1\0\5\3d/s\0\0\0\1\2\3";

static void seed_recordings(void)
{
    struct gw_section ram = {
        .type = GW_ITEM_START, .section_id = 1, .idstr = "ram", .version_id = 4};
    struct gw_section device = {
        .type = GW_ITEM_FULL, .section_id = 2, .idstr = "d", .version_id = 1};
    static const struct gw_command_item ping = {.command = GW_COMMAND_PING, .value = 1};
    static const struct gw_return_item pong = {.type = GW_RETURN_PONG, .value = 1};
    static const struct gw_return_item shut = {.type = GW_RETURN_SHUT};
    struct gw_writer w;
    gw_writer_init(&w, 65536);
    gw_writer_bytes(&w, description, sizeof(description)); /* with its NUL */
    gw_writer_bytes(&w, described, sizeof(described) - 1);
    seed("describe", "device", w.data, w.bytes);
    for (unsigned variant = 0; variant < 4; variant++) {
        char name[32];
        bool footers = variant & 1, described_too = variant & 2;
        gw_writer_reset(&w);
        gw_stream_write_header(&w, "pc");
        FUZZ_MUST(gw_stream_write_command(&w, &ping, NULL) == 0);
        gw_stream_write_section(&w, &ram);
        write_ram(&w);
        if (footers)
            gw_stream_write_footer(&w, 1);
        gw_stream_write_section(&w, &device);
        gw_writer_bytes(&w, described, sizeof(described) - 1);
        if (footers)
            gw_stream_write_footer(&w, 2);
        gw_stream_write_eof(&w);
        if (described_too)
            gw_stream_write_description(&w, description, sizeof(description) - 1);
        snprintf(name, sizeof(name), "stream-%u", variant);
        seed("recording", name, w.data, w.bytes);
    }
    gw_writer_reset(&w);
    FUZZ_MUST(gw_return_write(&w, &pong, NULL) == 0 && gw_return_write(&w, &shut, NULL) == 0);
    seed("recording", "return-path", w.data, w.bytes);
    gw_writer_fini(&w);
}

/* What a stream has in front of its sections, and its return path: one thing a seed, behind the byte that says
 * which. */
static void seed_rewrite(void)
{
    static const struct gw_command_item commands[] = {
        {.command = GW_COMMAND_OPEN_RETURN_PATH},
        {.command = GW_COMMAND_POSTCOPY_ADVISE, .value = 1, .sizes = 0x201000, .page_bytes = 4096},
        {.command = GW_COMMAND_RECV_BITMAP, .block = "pc.ram"}};
    static const struct gw_return_item messages[] = {
        {.type = GW_RETURN_PONG, .value = 1},
        {.type = GW_RETURN_REQ_PAGES_ID, .start = 0x1000, .value = 4096, .block = "pc.ram"},
        {.type = GW_RETURN_REQ_PAGES, .start = 0x2000, .value = 4096}};
    static const struct gw_discard_range ranges[] = {{0x1000, 0x1000}, {0x4000, 0x2000}};
    static struct gw_configuration configuration = {.present = true,
                                                    .machine = "pc",
                                                    .page_bits = 12,
                                                    .capability_count = 1,
                                                    .capabilities = {"x-ignore-shared"},
                                                    .has_uuid = true};
    char name[32];
    struct gw_writer w;
    gw_writer_init(&w, 4096);
    gw_writer_u8(&w, 0);
    FUZZ_MUST(gw_stream_write_configuration(&w, &configuration, NULL) == 0);
    seed("rewrite", "configuration", w.data, w.bytes);
    for (unsigned i = 0; i < 3; i++) {
        gw_writer_reset(&w);
        gw_writer_u8(&w, 1);
        FUZZ_MUST(gw_stream_write_command(&w, &commands[i], NULL) == 0);
        snprintf(name, sizeof(name), "command-%u", i);
        seed("rewrite", name, w.data, w.bytes);
        gw_writer_reset(&w);
        gw_writer_u8(&w, 2);
        FUZZ_MUST(gw_return_write(&w, &messages[i], NULL) == 0);
        snprintf(name, sizeof(name), "message-%u", i);
        seed("rewrite", name, w.data, w.bytes);
    }
    gw_writer_reset(&w);
    gw_writer_u8(&w, 1);
    FUZZ_MUST(gw_stream_write_discard(&w, "pc.ram", ranges, 2, NULL) == 0);
    seed("rewrite", "discard", w.data, w.bytes);
    gw_writer_reset(&w);
    gw_writer_u8(&w, 2);
    FUZZ_MUST(gw_return_write_bitmap(&w, "pc.ram", (const uint8_t *)"12345678", 8, NULL) == 0);
    seed("rewrite", "bitmap", w.data, w.bytes);
    gw_writer_fini(&w);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: fuzz-seeds DIR MESSAGES\n");
        return 2;
    }
    folder = argv[1];
    mkdir(folder, 0777);
    seed_prefaces();
    seed_uris();
    seed_messages(argv[2]);
    seed_ram_start();
    seed_stream();
    seed_puts();
    seed_inline();
    seed_recordings();
    seed_rewrite();
    char tree[4096];
    snprintf(tree, sizeof(tree), "%s/../../..", argv[2]);
    seed_virtio(tree);
    seed_vmstate();
    return 0;
}

// SPDX-License-Identifier: MIT
/* The stream that a source says, taken out of a recording of its messages: `godwit analyze` must walk every
 * byte of it by the description at its end, as it does a stream of QEMU's. */
#include "control/message.h"
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"
#include "tests/support/tap_reader.h"

#include <dirent.h>
#include <godwit/analyze.h>
#include <godwit/vmstate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define SECONDS 30u

struct nic {
    uint64_t packets;
    uint32_t ring[4];
    bool offloads;
};

static const struct gw_vmstate vmstate_nic = {
    GW_VMSTATE_OF(struct nic),
    .name = "nic",
    .version_id = 2,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT64(packets, struct nic),
                      GW_VMSTATE_ARRAY(UINT32, ring, struct nic, 4),
                      GW_VMSTATE_BOOL(offloads, struct nic)),
};
static const struct gw_vmstate vmstate_map = {
    GW_VMSTATE_OF(struct nic),
    .name = "map",
    .version_id = 1,
    .early_setup = true,
    GW_VMSTATE_FIELDS(GW_VMSTATE_UINT64(packets, struct nic)),
};

/* ---- a device with handlers: a few bytes in each kind of section --------------------------------- */

static int write_some(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    (void)opaque, (void)err;
    gw_writer_be32(w, 0x01020304);
    return 0;
}

static int write_turn(void *opaque, struct gw_writer *w, uint64_t bytes_max, struct gw_error *err)
{
    (void)bytes_max;
    write_some(opaque, w, err);
    return GW_DEVICE_DONE;
}

static int read_some(void *opaque, struct gw_reader *r, enum gw_device_part part,
                     uint32_t version_id, struct gw_error *err)
{
    (void)opaque, (void)part, (void)version_id, (void)err;
    gw_reader_be32(r);
    return 0;
}

static const struct gw_device_ops ops = {
    .struct_bytes = sizeof(ops),
    .setup = write_some,
    .iterate = write_turn,
    .complete_precopy = write_turn,
    .load = read_some,
};

static void add(struct pair *pair, const struct gw_device_desc *desc, bool at_target)
{
    struct gw_error err = GW_ERROR_INIT;
    int rc = at_target ? gw_target_add_device(pair->tgt, desc, &err)
                       : gw_source_add_device(pair->src, desc, &err);
    if (rc < 0)
        GW_FAIL("%s", err.message);
}

/* ---- the recording ------------------------------------------------------------------------------- */

static void copy_stream(const struct tap_session *session, FILE *to)
{
    for (unsigned i = 0; i < session->count; i++) {
        const struct tap_recording *recording = &session->recordings[i];
        for (unsigned k = 0; recording->head.index == 0 && k < recording->count; k++) {
            const struct tap_record *record = &recording->records[k];
            struct gw_message msg;
            struct gw_error err = GW_ERROR_INIT;
            if (record->kind != GW_TAP_MESSAGE || record->way != GW_TAP_OUT)
                continue;
            GW_ASSERT_EQ(gw_message_decode(record->body, record->bytes, &msg, &err), 0);
            if (msg.type == GW_MSG_STREAM)
                GW_ASSERT_EQ(fwrite(msg.u.data.data, 1, msg.u.data.bytes, to), msg.u.data.bytes);
        }
    }
}

static void remove_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL) {
        char path[1024];
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        unlink(path);
    }
    if (dir)
        closedir(dir);
    rmdir(folder);
}

static void expect_section(struct gw_analysis *analysis, unsigned index, const char *idstr,
                           enum gw_section_form form, uint64_t parts)
{
    struct gw_stream_section section = {.struct_bytes = sizeof(section)};
    if (!gw_analysis_section(analysis, index, &section))
        GW_FAIL("section %u of '%s' is not there", index, idstr);
    GW_EXPECT_STREQ(section.idstr, idstr);
    GW_EXPECT_EQ(section.form, form);
    GW_EXPECT_EQ(section.parts, parts);
}

/* It begins with the configuration, of which it knows how long the machine's name is. */
static void expect_configuration(FILE *stream, const struct gw_stream_facts *facts)
{
    static char text[1 << 16];
    char expected[256];
    GW_ASSERT(facts->machine != NULL && facts->description_bytes < sizeof(text));
    snprintf(expected, sizeof(expected),
             "{\"configuration\": {\"vmsd_name\": \"configuration\", \"version\": 1, \"fields\": "
             "[{\"name\": \"len\", \"type\": \"uint32\", \"size\": 4}, {\"name\": \"name\", "
             "\"type\": \"buffer\", \"size\": %zu}]}, \"page_size\": ",
             strlen(facts->machine));
    ssize_t got = pread(fileno(stream), text, facts->description_bytes,
                        (off_t)(facts->bytes - facts->description_bytes));
    GW_ASSERT_EQ(got, (ssize_t)facts->description_bytes);
    text[strlen(expected)] = '\0';
    GW_EXPECT_STREQ(text, expected);
}

static void expect_walked(FILE *stream)
{
    struct gw_analysis *analysis = NULL;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_stream_facts facts = {.struct_bytes = sizeof(facts)};
    struct gw_stream_fault fault = {.struct_bytes = sizeof(fault)};
    GW_ASSERT_EQ(fflush(stream), 0);
    GW_ASSERT_EQ(lseek(fileno(stream), 0, SEEK_SET), 0);
    GW_ASSERT_EQ(gw_analyze(fileno(stream), NULL, &analysis, &err), 0);
    gw_analysis_facts(analysis, &facts);
    if (gw_analysis_fault(analysis, 0, &fault))
        GW_NOTE_FAILURE("'%s' at %llu: %s", fault.section, (unsigned long long)fault.offset,
                        fault.message);
    GW_EXPECT_EQ(facts.fault_count, 0);
    GW_EXPECT(facts.has_footers && facts.has_end && facts.has_description);
    expect_configuration(stream, &facts);
    GW_EXPECT_EQ(facts.section_count, 5);
    expect_section(analysis, 0, "ram", GW_SECTION_RAM, 2);
    expect_section(analysis, 1, "map", GW_SECTION_FIELDS, 1); /* early, and listed */
    expect_section(analysis, 2, "pump", GW_SECTION_OPAQUE, 3);
    expect_section(analysis, 3, "pair", GW_SECTION_FIELDS, 1); /* one field, a buffer */
    expect_section(analysis, 4, "nic", GW_SECTION_FIELDS, 1);
    gw_analysis_free(analysis);
}

GW_TEST(own_stream, is_walked_by_its_own_description)
{
    char folder[] = "/tmp/godwit-own-XXXXXX";
    GW_ASSERT(mkdtemp(folder) != NULL);
    struct pair pair = {.device_value = 3};
    struct nic here[2] = {{.packets = 9, .ring = {1, 2, 3, 4}, .offloads = true}, {0}};
    struct nic there[2] = {{0}, {0}};
    static const struct gw_vmstate *const vmsd[] = {&vmstate_nic, &vmstate_map};
    struct gw_vmstate_device devs[2][2];
    struct gw_error err = GW_ERROR_INIT;
    pair_add_block(&pair, "ram0", 2 * MIB, GW_BLOCK_ANON, 50);
    pair_init(&pair);
    for (unsigned side = 0; side < 2; side++) {
        struct gw_device_desc desc = {.struct_bytes = sizeof(desc),
                                      .name = "pump",
                                      .version_id = 1,
                                      .priority = 1,
                                      .ops = &ops};
        add(&pair, &desc, side == 1);
        for (unsigned i = 0; i < 2; i++) {
            devs[side][i] = (struct gw_vmstate_device){
                sizeof(devs[0][0]), vmsd[i], side ? &there[i] : &here[i], NULL, 0, NULL};
            GW_ASSERT_EQ(gw_vmstate_device_desc(&devs[side][i], &desc, &err), 0);
            desc.priority = i == 0 ? 0 : 2; /* "map" first */
            add(&pair, &desc, side == 1);
        }
    }
    pair_listen(&pair);
    char uri[1024];
    snprintf(uri, sizeof(uri), "tap+%s?dir=%s", gw_target_uri(pair.tgt), folder);
    if (gw_source_start(pair.src, uri, &err) < 0)
        GW_FAIL("start: %s", err.message);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    if (pair.source_rc < 0)
        GW_FAIL("source: %s; target: %s", pair.source_err.message, pair.target_err.message);
    GW_EXPECT_EQ(there[0].ring[3], 4);
    pair_fini(&pair);

    struct tap_session session;
    FILE *stream = tmpfile();
    GW_ASSERT(stream != NULL);
    if (tap_session_load(folder, 0, &session, &err) < 0)
        GW_FAIL("%s", err.message);
    copy_stream(&session, stream);
    tap_session_unload(&session);
    expect_walked(stream);
    fclose(stream);
    remove_folder(folder);
}

// SPDX-License-Identifier: MIT
/* Streams by hand (recording.h). */
#include "tests/support/recording.h"

#include "ram/inline_write.h"
#include "tests/shim/gw_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

void recording_init(struct recording *r)
{
    *r = (struct recording){.no_footers = false};
    gw_writer_init(&r->w, (size_t)256 << 20);
}

void recording_fini(struct recording *r)
{
    gw_writer_fini(&r->w);
}

void recording_bytes(struct recording *r, const void *data, size_t bytes)
{
    gw_writer_bytes(&r->w, data, bytes);
}

void recording_hex(struct recording *r, const char *hex)
{
    unsigned value;
    for (const char *at = hex + strspn(hex, " "); *at; at += 2, at += strspn(at, " ")) {
        GW_ASSERT_EQ(sscanf(at, "%2x", &value), 1);
        gw_writer_u8(&r->w, (uint8_t)value);
    }
}

void recording_name(struct recording *r, const char *name)
{
    gw_writer_u8(&r->w, (uint8_t)strlen(name));
    gw_writer_bytes(&r->w, name, strlen(name));
}

void recording_begin(struct recording *r, const char *machine)
{
    gw_stream_write_header(&r->w, machine);
}

void recording_head(struct recording *r, enum gw_item_type type, uint32_t id, const char *idstr,
                    uint32_t instance, uint32_t version)
{
    struct gw_section section = {
        .type = type, .section_id = id, .instance_id = instance, .version_id = version};
    snprintf(section.idstr, sizeof(section.idstr), "%s", idstr);
    gw_stream_write_section(&r->w, &section);
}

void recording_foot(struct recording *r, uint32_t id)
{
    if (!r->no_footers)
        gw_stream_write_footer(&r->w, id);
}

void recording_ram(struct recording *r, const char *const *names, uint64_t bytes)
{
    struct gw_inline_entry entries[8];
    struct gw_inline_writer table;
    struct gw_inline_record record;
    unsigned count = 0;
    for (; names[count]; count++) {
        GW_ASSERT(count < sizeof(entries) / sizeof(entries[0]));
        entries[count] = (struct gw_inline_entry){.name = names[count], .bytes = bytes};
    }
    gw_inline_writer_init(&table);
    GW_ASSERT_EQ(gw_inline_write_table(&table, entries, count, &record, NULL), 0);
    recording_head(r, GW_ITEM_START, 2, "ram", 0, 4);
    recording_bytes(r, record.head, record.head_bytes);
    for (unsigned i = 0; i < count; i++) {
        gw_inline_write_entry(&table, i, &record);
        recording_bytes(r, record.head, record.head_bytes);
    }
    recording_eos(r);
    recording_foot(r, 2);
}

/* Made by hand: callers choose flags and contents that the library would not write. */
void recording_page(struct recording *r, unsigned kind, uint64_t offset, const char *name,
                    uint8_t fill)
{
    uint8_t page[RECORDING_PAGE];
    gw_writer_be64(&r->w, offset | kind | (name ? 0 : REC_AGAIN));
    if (name)
        recording_name(r, name);
    memset(page, fill, sizeof(page));
    gw_writer_bytes(&r->w, page, kind == REC_PAGE ? sizeof(page) : kind == REC_ZERO ? 1 : 0);
}

void recording_eos(struct recording *r)
{
    struct gw_inline_record record;
    gw_inline_write_end(&record);
    recording_bytes(r, record.head, record.head_bytes);
}

void recording_full(struct recording *r, uint32_t id, const char *idstr, const void *body,
                    size_t bytes)
{
    recording_head(r, GW_ITEM_FULL, id, idstr, 0, 1);
    gw_writer_bytes(&r->w, body, bytes);
    recording_foot(r, id);
}

void recording_end(struct recording *r, const char *json)
{
    gw_stream_write_eof(&r->w);
    if (json)
        gw_stream_write_description(&r->w, json, strlen(json));
}

static void write_all(int fd, const uint8_t *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t put = write(fd, data, bytes);
        if (put <= 0)
            return;
        data += put;
        bytes -= (size_t)put;
    }
}

struct gw_analysis *recording_analyze_bytes(const void *data, size_t bytes, bool through_pipe,
                                            const char *extract)
{
    struct gw_analyze_options options = {.struct_bytes = sizeof(options), .extract = extract};
    struct gw_error err = GW_ERROR_INIT;
    struct gw_analysis *analysis = NULL;
    int fds[2];
    pid_t child = -1;
    if (through_pipe) {
        GW_ASSERT_EQ(pipe(fds), 0);
        child = fork();
        if (child == 0) {
            close(fds[0]);
            write_all(fds[1], data, bytes);
            _exit(0);
        }
        close(fds[1]);
    } else {
        fds[0] = memfd_create("stream", MFD_CLOEXEC);
        write_all(fds[0], data, bytes);
        lseek(fds[0], 0, SEEK_SET);
    }
    int rc = gw_analyze(fds[0], &options, &analysis, &err);
    if (child > 0) {
        close(fds[0]);
        waitpid(child, NULL, 0);
    } /* a file stays open: the analysis reads it again. The test's process ends soon. */
    if (rc < 0)
        gw_test_note(__FILE__, __LINE__, "gw_analyze: %s", err.message);
    return rc < 0 ? NULL : analysis;
}

struct gw_analysis *recording_analyze(const struct recording *r, bool through_pipe,
                                      const char *extract)
{
    GW_ASSERT_EQ(gw_writer_error(&r->w), 0);
    return recording_analyze_bytes(r->w.data, r->w.bytes, through_pipe, extract);
}

const char *recording_fault(const struct gw_analysis *analysis)
{
    struct gw_stream_fault fault = {.struct_bytes = sizeof(fault)};
    return analysis && gw_analysis_fault(analysis, 0, &fault) ? fault.message : "";
}

uint64_t recording_fault_offset(const struct gw_analysis *analysis)
{
    struct gw_stream_fault fault = {.struct_bytes = sizeof(fault)};
    return analysis && gw_analysis_fault(analysis, 0, &fault) ? fault.offset : UINT64_MAX;
}

struct gw_stream_facts recording_facts(const struct gw_analysis *analysis)
{
    struct gw_stream_facts facts = {.struct_bytes = sizeof(facts)};
    gw_analysis_facts(analysis, &facts);
    return facts;
}

uint8_t *recording_golden_from(const char *tree, const char *name, size_t *bytes)
{
    char command[4200];
    size_t room = (size_t)4 << 20;
    snprintf(command, sizeof(command), "gzip -dc '%s/tests/data/streams/%s.gz'", tree, name);
    FILE *file = popen(command, "r");
    GW_ASSERT(file != NULL);
    uint8_t *data = malloc(room);
    GW_ASSERT(data != NULL);
    *bytes = fread(data, 1, room, file);
    GW_ASSERT(*bytes > 0 && *bytes < room);
    GW_ASSERT_EQ(pclose(file), 0);
    return data;
}

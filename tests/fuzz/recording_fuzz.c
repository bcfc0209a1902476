// SPDX-License-Identifier: MIT
/* A whole recording, whatever it is: the analysis ends, its answers are in range, a fault has a sentence and
 * an offset within the input, and what was walked adds up. */
#include "core/base/alloc.h"
#include "tests/fuzz/fuzz.h"

#include <godwit/analyze.h>
#include <sys/mman.h>
#include <unistd.h>

static int take_field(void *ctx, const struct gw_stream_field *field)
{
    uint64_t *sum = ctx;
    uint8_t last = field->bytes ? field->data[field->bytes - 1] : 0;
    FUZZ_MUST(field->path != NULL && field->type != NULL);
    *sum += field->bytes + (last & 0);
    return 0;
}

static void ask(struct gw_analysis *a, size_t bytes)
{
    struct gw_stream_facts facts = {.struct_bytes = sizeof(facts)};
    struct gw_stream_fault fault = {.struct_bytes = sizeof(fault)};
    struct gw_stream_section s = {.struct_bytes = sizeof(s)};
    struct gw_stream_block b = {.struct_bytes = sizeof(b)};
    struct gw_stream_command_record c = {.struct_bytes = sizeof(c)};
    gw_analysis_facts(a, &facts);
    FUZZ_MUST(facts.bytes <= bytes);
    for (unsigned i = 0; i < facts.fault_count; i++) {
        FUZZ_MUST(gw_analysis_fault(a, i, &fault));
        FUZZ_MUST(fault.offset <= bytes && fault.section[0] && fault.message[0]);
    }
    for (unsigned i = 0; i < facts.section_count; i++) {
        uint64_t sum = 0;
        struct gw_error err = GW_ERROR_INIT;
        FUZZ_MUST(gw_analysis_section(a, i, &s));
        FUZZ_MUST(s.offset < bytes && s.body_offset <= bytes && s.body_bytes <= bytes);
        if (s.form == GW_SECTION_FIELDS) {
            FUZZ_MUST(gw_analysis_fields(a, i, take_field, &sum, &err) == 0);
            FUZZ_MUST(sum <= s.body_bytes);
        }
    }
    for (unsigned i = 0; i < facts.block_count; i++)
        FUZZ_MUST(gw_analysis_block(a, i, &b) && b.name[0]);
    for (unsigned i = 0; i < facts.command_kept; i++)
        FUZZ_MUST(gw_analysis_command(a, i, &c) && c.name[0]);
    FUZZ_MUST(!gw_analysis_section(a, facts.section_count, &s));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static int fd = -1;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_analysis *a = NULL;
    if (fd < 0)
        fd = memfd_create("recording", 0);
    FUZZ_MUST(fd >= 0 && ftruncate(fd, 0) == 0);
    FUZZ_MUST(pwrite(fd, data, bytes, 0) == (ssize_t)bytes);
    lseek(fd, 0, SEEK_SET);
    FUZZ_MUST(gw_analyze(fd, NULL, &a, &err) == 0);
    ask(a, bytes);
    gw_analysis_free(a);
    FUZZ_MUST(gw_alloc_live() == 0);
    return 0;
}

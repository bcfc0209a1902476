// SPDX-License-Identifier: MIT
/* Inputs of fuzz-vmstate: every kind of field, whole, in both versions; what a mutation begins with is then
 * as deep in the state as its last field. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/seeds.h"
#include "tests/support/vmstate_sink.h"

#include "control/stream.h"

static void seed_sink(const char *name, bool has_extra, uint8_t version_id)
{
    static const uint8_t by_table = 0; /* of every kind */
    struct sink s;
    struct gw_writer w;
    struct gw_vmstate_device dev = {.struct_bytes = sizeof(dev), .vmsd = &sink_vmsd, .opaque = &s};
    sink_init(&s);
    sink_fill(&s);
    s.has_extra = has_extra;
    gw_writer_init(&w, 65536);
    gw_writer_bytes(&w, &by_table, 1);
    gw_writer_u8(&w, version_id);
    FUZZ_MUST(gw_vmstate_save(&dev, &w, NULL) == 0);
    seed("vmstate", name, w.data, w.bytes);
    gw_writer_fini(&w);
    sink_fini(&s);
}

void seed_vmstate(void)
{
    seed_sink("every-kind", true, 2);
    seed_sink("without-subsections", false, 2);
    seed_sink("version-1", true, 1);
}

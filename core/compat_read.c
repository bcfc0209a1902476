// SPDX-License-Identifier: MIT
/* One side of a comparison, read. A stream is analyzed, so that it counts only whole; a document is read into
 * memory and becomes an inventory at once. Both come from wherever an analysis can read. */
#include "core/compat_impl.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <string.h>

#define DOCUMENT_BYTES_MAX ((size_t)64 << 20)
#define LOOK_BYTES 4096u

/* ---- documents ---------------------------------------------------------------------------------- */

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* No stream begins with a brace. */
bool gw_analyze_is_document(struct gw_analysis *a)
{
    const uint8_t *at;
    size_t left = gw_input_look(&a->in, LOOK_BYTES, &at);
    size_t i = 0;
    while (i < left && i < LOOK_BYTES && is_space(at[i]))
        i++;
    return i < left && at[i] == '{';
}

static int grow(struct gw_analysis *a, size_t *room, size_t bytes, struct gw_error *err)
{
    size_t more = *room ? 2 * *room : (size_t)1 << 20;
    if (bytes > DOCUMENT_BYTES_MAX)
        return gw_fail(err, -E2BIG, "a document of more than %zu MiB", DOCUMENT_BYTES_MAX >> 20);
    while (more < bytes + 1)
        more *= 2;
    char *text = gw_realloc(a->description_text, more, 1);
    if (!text)
        return gw_fail(err, -ENOMEM, "document");
    a->description_text = text;
    *room = more;
    return 0;
}

int gw_analyze_document(struct gw_analysis *a, struct gw_error *err)
{
    const uint8_t *at;
    size_t there, bytes = 0, room = 0;
    a->is_document = true;
    while ((there = gw_input_look(&a->in, 1, &at)) > 0) {
        int rc = bytes + there < room ? 0 : grow(a, &room, bytes + there, err);
        if (rc < 0)
            return rc;
        memcpy(a->description_text + bytes, at, there);
        bytes += there;
        gw_input_skip(&a->in, there);
    }
    if (a->in.rc < 0)
        return gw_input_short(&a->in, "document", err);
    a->description_text[bytes] = '\0';
    a->facts.description_bytes = bytes;
    return 0;
}

/* ---- streams ------------------------------------------------------------------------------------ */

static int check_stream(const struct gw_analysis *a, struct gw_error *err)
{
    if (a->facts.kind != GW_STREAM_SAVEVM)
        return gw_fail(err, -EPROTO, "a recorded channel beside the stream, which has no devices");
    if (a->facts.fault_count == 0)
        return 0;
    const struct gw_analyzed_fault *fault = &a->faults[0];
    int rc = gw_fail(err, -EPROTO, "section '%s': %s", fault->section, fault->message);
    gw_error_hint(err, "a side is a recorded savevm stream, whole, or a JSON document: what "
                       "`godwit analyze --json` or -dump-vmstate writes, or a description");
    return rc;
}

static int take_stream(struct gw_inventory *to, struct gw_analysis *a, struct gw_error *err)
{
    int rc = check_stream(a, err);
    to->source = GW_COMPAT_STREAM;
    to->is_whole = true;
    to->has_footers = a->facts.has_footers;
    to->has_configuration = a->configuration.present;
    if (a->configuration.present)
        memcpy(to->machine, a->configuration.machine, sizeof(to->machine));
    to->page_bytes = a->ram.page_bytes;
    for (unsigned i = 0; rc == 0 && i < a->ram.block_count; i++)
        rc = gw_inventory_add_block(to, a->ram.blocks[i].name, a->ram.blocks[i].bytes, err);
    for (unsigned i = 0; rc == 0 && i < a->facts.section_count; i++) {
        const struct gw_analyzed_section *s = &a->sections[i];
        struct gw_inventory_section section = {.instance_id = s->instance_id,
                                               .version_id = s->version_id,
                                               .has_version = true,
                                               .is_iterative = s->is_iterative};
        rc = gw_inventory_add_section(to, s->idstr, &section, err);
    }
    to->description = a->description; /* its text stays with the analysis */
    a->description = NULL;
    return rc;
}

/* ---- a side ------------------------------------------------------------------------------------- */

int gw_compat_read(int fd, const struct gw_analyze_options *options, struct gw_compat_side **side,
                   struct gw_error *err)
{
    struct gw_error local = GW_ERROR_INIT;
    struct gw_compat_side *to;
    if (options && options->struct_bytes > offsetof(struct gw_analyze_options, extract) &&
        options->extract)
        return gw_fail(err, -EINVAL, "nothing is extracted where two sides are compared");
    to = gw_zalloc(1, sizeof(*to));
    if (!to)
        return gw_fail(err, -ENOMEM, "comparison");
    int rc = gw_analyze_any(fd, options, true, &to->analysis, &local);
    if (rc == 0 && to->analysis->is_document)
        rc = gw_inventory_read(&to->inventory, to->analysis->description_text,
                               (size_t)to->analysis->facts.description_bytes, &local);
    else if (rc == 0)
        rc = take_stream(&to->inventory, to->analysis, &local);
    if (rc == 0)
        rc = gw_inventory_seal(&to->inventory, &local);
    if (rc < 0) {
        gw_error_copy(err, &local);
        gw_compat_side_free(to);
        return rc;
    }
    *side = to;
    return 0;
}

void gw_compat_side_free(struct gw_compat_side *side)
{
    if (!side)
        return;
    gw_inventory_fini(&side->inventory);
    gw_analysis_free(side->analysis);
    gw_free(side);
}

/* A device of the list, in the description. */
int gw_compat_described(const struct gw_inventory *inventory, unsigned section)
{
    const struct gw_inventory_section *s = &inventory->sections[section];
    return inventory->description
               ? gw_description_find(inventory->description, s->idstr, s->instance_id, section)
               : -ENOENT;
}

void gw_compat_side_facts(const struct gw_compat_side *side, struct gw_compat_side_facts *facts)
{
    const struct gw_inventory *in = &side->inventory;
    struct gw_compat_side_facts known = {.struct_bytes = facts->struct_bytes,
                                         .source = in->source,
                                         .machine = in->machine[0] ? in->machine : NULL,
                                         .device_count = in->section_count,
                                         .block_count = in->block_count};
    for (unsigned i = 0; i < in->section_count; i++)
        known.described += gw_compat_described(in, i) >= 0;
    memcpy(facts, &known, gw_min_u64(facts->struct_bytes, sizeof(known)));
}

// SPDX-License-Identifier: MIT
/* The table: what the stream is, its blocks, its sections, its commands, what is wrong with it. Numbers stand
 * in front, names last, because a name may be 255 characters long. */
#include "tools/analyze.h"

#include "tools/options.h"

#include <inttypes.h>

#define COMMANDS_SHOWN 64u

static const char *const forms[] = {"ram", "fields", "opaque"};

static void print_uuid(const struct gw_stream_facts *facts, FILE *out)
{
    fprintf(out, "  uuid          ");
    for (unsigned i = 0; i < sizeof(facts->uuid); i++)
        fprintf(out, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", facts->uuid[i]);
    fprintf(out, "\n");
}

static void print_stream(const struct gw_analysis *a, const struct gw_stream_facts *facts,
                         FILE *out)
{
    fprintf(out, "  machine       %s\n", facts->machine ? facts->machine : "(no configuration)");
    if (facts->has_uuid)
        print_uuid(facts, out);
    for (unsigned i = 0; i < facts->capability_count; i++)
        fprintf(out, "  capability    %s\n", gw_analysis_capability(a, i));
    fprintf(out, "  page          %" PRIu32 " bytes\n", facts->page_bytes);
    fprintf(out, "  footers       %s\n", facts->has_footers ? "yes" : "no");
    fprintf(out, "  end mark      %s\n", facts->has_end ? "yes" : "no");
    if (facts->has_description)
        fprintf(out, "  description   %" PRIu64 " bytes\n", facts->description_bytes);
    else
        fprintf(out, "  description   none\n");
    if (facts->has_return_path)
        fprintf(out, "  return path   opened\n");
    if (facts->has_postcopy_advice || facts->has_postcopy)
        fprintf(out, "  postcopy      %s\n", facts->has_postcopy ? "entered" : "advised");
    if (facts->is_mapped)
        fprintf(out, "  mapped-ram    yes\n");
}

static void print_channel(const struct gw_stream_facts *facts, FILE *out)
{
    fprintf(out, "  channel       %u\n", facts->channel);
    print_uuid(facts, out);
    fprintf(out, "  packets       %" PRIu64 ", %" PRIu64 " of them syncs, %" PRIu64 " of devices\n",
            facts->packets, facts->syncs, facts->device_packets);
    fprintf(out, "  pages         %" PRIu64 ", %" PRIu64 " zero\n", facts->normal_pages,
            facts->zero_pages);
    fprintf(out, "  data          %" PRIu64 " bytes, compression %s\n", facts->packet_data_bytes,
            facts->compression);
}

static void print_blocks(const struct gw_analysis *a, FILE *out)
{
    struct gw_stream_block block = {.struct_bytes = sizeof(block)};

    fprintf(out, "\nblocks\n%5s %15s %11s %11s %11s %9s %9s  %s\n", "#", "bytes", "received",
            "pages", "zero", "xbzrle", "zlib", "name");
    for (unsigned i = 0; gw_analysis_block(a, i, &block); i++) {
        fprintf(out,
                "%5u %15" PRIu64 " %11" PRIu64 " %11" PRIu64 " %11" PRIu64 " %9" PRIu64 " %9" PRIu64
                "  %s",
                i, block.bytes, block.received_pages, block.normal_pages, block.zero_pages,
                block.xbzrle_pages, block.compressed_pages, block.name);
        if (block.page_bytes)
            fprintf(out, " (pages of %" PRIu64 ")", block.page_bytes);
        if (block.has_guest_address)
            fprintf(out, " (at 0x%" PRIx64 ")", block.guest_address);
        fprintf(out, "\n");
    }
}

static void print_sections(const struct gw_analysis *a, FILE *out)
{
    struct gw_stream_section s = {.struct_bytes = sizeof(s)};

    fprintf(out, "\nsections\n%5s %15s %6s %15s %6s %4s %5s %-6s  %s\n", "#", "offset", "id",
            "bytes", "parts", "ver", "inst", "form", "name");
    for (unsigned i = 0; gw_analysis_section(a, i, &s); i++)
        fprintf(out,
                "%5u %15" PRIu64 " %6" PRIu32 " %15" PRIu64 " %6" PRIu64 " %4" PRIu32 " %5" PRIu32
                " %-6s  %s%s%s\n",
                i, s.offset, s.section_id, s.body_bytes, s.parts, s.version_id, s.instance_id,
                forms[s.form], s.idstr, s.is_packaged ? " (packaged)" : "",
                s.is_iterative && !s.has_end ? " (no END)" : "");
}

static void print_commands(const struct gw_analysis *a, const struct gw_stream_facts *facts,
                           FILE *out)
{
    struct gw_stream_command_record c = {.struct_bytes = sizeof(c)};
    unsigned i = 0;

    fprintf(out, "\n%s\n%15s %10s  %s\n",
            facts->kind == GW_STREAM_RETURN_PATH ? "messages" : "commands", "offset", "value",
            "name");
    for (; i < COMMANDS_SHOWN && gw_analysis_command(a, i, &c); i++)
        fprintf(out, "%15" PRIu64 " %10" PRIu32 "  %s%s%s\n", c.offset, c.value, c.name,
                c.block[0] ? " " : "", c.block);
    if (facts->command_count > i)
        fprintf(out, "%15s %10s  (%" PRIu64 " more)\n", "", "", facts->command_count - i);
}

static void print_faults(const struct gw_analysis *a, FILE *out)
{
    struct gw_stream_fault f = {.struct_bytes = sizeof(f)};

    fprintf(out, "\nfaults\n%15s  %s\n", "offset", "section: what");
    for (unsigned i = 0; gw_analysis_fault(a, i, &f); i++)
        fprintf(out, "%15" PRIu64 "  %s: %s\n", f.offset, f.section, f.message);
}

void gw_analyze_table(const struct gw_analysis *analysis, FILE *out)
{
    static const char *const kinds[] = {"savevm stream", "multifd channel", "return path"};
    struct gw_stream_facts facts = {.struct_bytes = sizeof(facts)};
    char amount[24];

    gw_analysis_facts(analysis, &facts);
    gw_amount_text((double)facts.bytes, false, amount);
    fprintf(out, "%s\n  read          %" PRIu64 " bytes (%s)\n", kinds[facts.kind], facts.bytes,
            amount);
    if (facts.kind == GW_STREAM_SAVEVM)
        print_stream(analysis, &facts, out);
    if (facts.kind == GW_STREAM_MULTIFD)
        print_channel(&facts, out);
    if (facts.command_count > 0)
        print_commands(analysis, &facts, out);
    if (facts.block_count > 0)
        print_blocks(analysis, out);
    if (facts.section_count > 0)
        print_sections(analysis, out);
    if (facts.fault_count > 0)
        print_faults(analysis, out);
}

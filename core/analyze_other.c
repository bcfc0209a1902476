// SPDX-License-Identifier: MIT
/* Recordings that are no savevm stream: a multifd channel, and what the other side said on the return path. */
#include "core/analyze_impl.h"

#include <stdio.h>
#include <string.h>

static const char *compression_name(uint32_t method)
{
    switch (method) {
    case 0x00:
        return "none";
    case 0x02:
        return "zlib";
    case 0x04:
        return "zstd";
    case 0x08:
        return "qpl";
    case 0x10:
        return "uadk";
    case 0x20:
        return "qatzip";
    default:
        return "mixed";
    }
}

int gw_analyze_multifd(struct gw_analysis *a, struct gw_error *err)
{
    struct gw_multifd *m = &a->multifd;
    struct gw_stream_facts *facts = &a->facts;
    facts->kind = GW_STREAM_MULTIFD;
    m->page_bytes = 4096;
    snprintf(a->section_name, sizeof(a->section_name), "multifd hello");
    int rc = gw_multifd_take_hello(m, &a->in, err);
    while (rc == 0) {
        struct gw_multifd_packet packet;
        snprintf(a->section_name, sizeof(a->section_name), "multifd packet %llu",
                 (unsigned long long)m->packets);
        rc = gw_multifd_take(m, &a->in, &packet, err);
        if (rc <= 0)
            break;
        rc = 0;
    }
    facts->has_end = rc == 0;
    facts->page_bytes = (uint32_t)m->page_bytes;
    facts->channel = m->id;
    memcpy(facts->uuid, m->uuid, sizeof(facts->uuid));
    facts->packets = m->packets;
    facts->syncs = m->syncs;
    facts->device_packets = m->device_packets;
    facts->packet_data_bytes = m->data_bytes;
    facts->normal_pages = m->normal_pages;
    facts->zero_pages = m->zero_pages;
    facts->compression = compression_name(m->method);
    return rc;
}

int gw_analyze_return_path(struct gw_analysis *a, struct gw_error *err)
{
    a->facts.kind = GW_STREAM_RETURN_PATH;
    snprintf(a->section_name, sizeof(a->section_name), "return path");
    struct gw_return_item item = {0};
    while (!gw_input_is_empty(&a->in)) {
        int rc = gw_return_take(&a->in, &item, err);
        if (rc < 0)
            return rc;
        struct gw_analyzed_command record = {
            .name = item.name, .offset = item.offset, .value = item.value};
        rc = gw_analyze_note_command(a, &record, item.block, err);
        if (rc < 0)
            return rc;
    }
    a->facts.has_end = a->in.rc == 0;
    return a->in.rc < 0 ? gw_input_short(&a->in, "return path", err) : 0;
}

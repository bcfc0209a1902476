// SPDX-License-Identifier: MIT
/* x-wire at the source: pages over another wire than control. HELLO names the wires that it would take,
 * best first; HELLO_REPLY the addresses at which the target listens for them. The first page endpoint is
 * tried over one after the other; where it comes to be, the others follow, and if none does, pages
 * take the wire that control took, unless one was asked for by name. Why each better one was not taken
 * is told with the one that was. Control, and with it the handover, knows nothing of all this. */
#include "core/source.h"

#include "core/base/bytes.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool is_asked(const struct gw_source *src)
{
    return src->wires.count > 0;
}

void gw_source_wires_reset(struct gw_source *src)
{
    memset(&src->wires, 0, sizeof(src->wires));
    src->page_uri = src->uri;
}

uint32_t gw_source_page_flags(const struct gw_source *src)
{
    return gw_wires_flags(&src->page_uri);
}

struct gw_domain *gw_source_page_dom(const struct gw_source *src)
{
    return src->wires.dom ? src->wires.dom : src->dom;
}

void gw_source_wires_close(struct gw_source *src)
{
    gw_domain_close(src->wires.dom);
    src->wires.dom = NULL;
}

/* Of the largest chunk: what has to be registered at one time, at least. */
static uint64_t chunk_bytes(const struct gw_source *src)
{
    uint64_t bytes = gw_max_u64(src->params.chunk_bytes, GW_CHUNK_BYTES_MIN);
    for (unsigned i = 0; i < gw_ram_block_count(src->ram); i++)
        bytes = gw_max_u64(bytes, gw_ram_block(src->ram, i)->desc.page_bytes);
    return bytes;
}

/* The budget is of the wire that is most strict: which it will be is not known yet. One for which the limit is
 * too low is not asked for, and does not count. */
uint32_t gw_source_wires_offer(struct gw_source *src, struct gw_hello *hello)
{
    uint32_t flags = gw_wires_flags(&src->uri);
    char wanted[GW_WIRES_TEXT_BYTES];
    const char *at = wanted;
    struct gw_source_wires *wires = &src->wires;
    struct gw_uri uri;

    gw_source_wires_reset(src);
    if (src->params.wire == GW_WIRE_SAME)
        return flags;
    gw_wires_wanted(src->params.wire, wanted);
    while (wires->count < GW_WIRES_MAX &&
           gw_wires_next(&at, wires->at[wires->count].name, GW_WIRE_WORD_BYTES)) {
        struct gw_source_wire *wire = &wires->at[wires->count++];
        struct gw_error err = GW_ERROR_INIT;
        snprintf(wire->why, sizeof(wire->why), "not offered by the target");
        int rc = gw_wires_beside(wire->name, &src->uri, &uri, &err);
        if (rc == 0)
            rc = gw_wires_fit(&uri, hello->endpoints, src->params.registered_bytes_max,
                              chunk_bytes(src), &err);
        if (rc < 0) {
            snprintf(wire->why, sizeof(wire->why), "%.*s", GW_WIRE_WHY_BYTES - 1, err.message);
            continue;
        }
        gw_wires_add(hello->wires, wire->name);
        flags |= gw_wires_flags(&uri);
    }
    return flags;
}

/* ---- the target's answer ---------------------------------------------------------------------- */

static struct gw_source_wire *find(struct gw_source_wires *wires, const char *text)
{
    for (unsigned i = 0; i < wires->count; i++) {
        size_t bytes = strlen(wires->at[i].name);
        if (strncmp(text, wires->at[i].name, bytes) == 0 && text[bytes] == ':')
            return &wires->at[i];
    }
    return NULL;
}

int gw_source_wires_answered(struct gw_source *src, const struct gw_hello *reply,
                             struct gw_error *err)
{
    struct gw_source_wires *wires = &src->wires;
    char text[GW_WIRES_TEXT_BYTES];
    const char *at = reply->wires;

    while (gw_wires_next(&at, text, sizeof(text))) {
        struct gw_source_wire *wire = find(wires, text);
        if (!wire || wire->named)
            return gw_fail(err, -EPROTO,
                           "HELLO_REPLY: page wire '%.120s' was not asked for, or twice", text);
        int rc = gw_wires_take(text, wire->name, &src->uri, &wire->uri, err);
        if (rc < 0)
            return gw_error_prefix(err, "HELLO_REPLY");
        wire->named = true;
    }
    for (unsigned i = 0; i < wires->count; i++)
        gw_wires_why(reply->wires_lacking, wires->at[i].name, wires->at[i].why,
                     sizeof(wires->at[i].why));
    gw_source_wires_next(src);
    return 0;
}

/* ---- trying ----------------------------------------------------------------------------------- */

static bool is_by_name(const struct gw_source *src)
{
    return src->params.wire != GW_WIRE_AUTO;
}

/* The wire to try from here on: the next that the target named, in the end the one of control. */
void gw_source_wires_next(struct gw_source *src)
{
    struct gw_source_wires *wires = &src->wires;

    while (wires->next < wires->count && !wires->at[wires->next].named)
        wires->next++;
    src->page_uri = wires->next < wires->count ? wires->at[wires->next].uri : src->uri;
}

bool gw_source_wires_is_trying(const struct gw_source *src)
{
    return src->wires.next < src->wires.count && src->page_count == 0;
}

/* None is left that was asked for by name. */
static int none_by_name(const struct gw_source *src, struct gw_error *err)
{
    static const char *const words[] = {"same", "auto", "rdma", "ofi"};
    const struct gw_source_wires *wires = &src->wires;
    const char *why = "not in this build";

    if (wires->count > 0)
        why = wires->at[wires->count - 1].why;
    gw_fail_code(err, -EOPNOTSUPP, GW_CODE_UNSUPPORTED, "x-wire=%s: %s%s%s",
                 words[src->params.wire], wires->count ? wires->at[wires->count - 1].name : "",
                 wires->count ? ": " : "", why);
    gw_error_hint(err, "`godwit doctor` at both hosts says what is missing; x-wire=auto takes what "
                       "there is");
    return -EOPNOTSUPP;
}

int gw_source_wires_check(const struct gw_source *src, struct gw_error *err)
{
    if (src->params.wire == GW_WIRE_SAME || !is_by_name(src) || src->wires.next < src->wires.count)
        return 0;
    return none_by_name(src, err);
}

/* By the connect job: the domain of the wire that is tried. */
int gw_source_wires_domain(struct gw_source *src, const struct gw_wire_config *config,
                           struct gw_error *err)
{
    if (src->wires.next == src->wires.count || src->wires.dom)
        return 0;
    return gw_domain_open(src->page_uri.scheme, config, &src->wires.dom, err);
}

int gw_source_wires_failed(struct gw_source *src, struct gw_error *err)
{
    struct gw_source_wire *wire = &src->wires.at[src->wires.next];

    snprintf(wire->why, sizeof(wire->why), "%.*s", GW_WIRE_WHY_BYTES - 1, err->message);
    gw_log_info(&src->log, "source", "pages not over %s: %s", wire->name, wire->why);
    gw_source_wires_close(src);
    src->wires.next++;
    gw_source_wires_next(src);
    gw_error_clear(err);
    return gw_source_wires_check(src, err);
}

void gw_source_wires_chosen(struct gw_source *src)
{
    const struct gw_source_wires *wires = &src->wires;
    char why[GW_WIRE_WHY_BYTES * GW_WIRES_MAX] = "";

    if (src->params.wire == GW_WIRE_SAME)
        return;
    for (unsigned i = 0; i < wires->next; i++) {
        size_t used = strlen(why);
        snprintf(why + used, sizeof(why) - used, "%s%s: %s", used ? "; " : "", wires->at[i].name,
                 wires->at[i].why);
    }
    if (!is_asked(src))
        snprintf(why, sizeof(why), "this build has no other");
    else if (why[0] == '\0')
        snprintf(why, sizeof(why), "the best that both ends have");
    pthread_mutex_lock(&src->stats_lock);
    gw_wire_label(&src->page_uri, src->stats.wire_name, sizeof(src->stats.wire_name));
    pthread_mutex_unlock(&src->stats_lock);
    gw_log_info(&src->log, "source", "pages over %s%s%s%s", src->page_uri.text, why[0] ? " (" : "",
                why, why[0] ? ")" : "");
    gw_source_tell(src, GW_EVENT_WIRE, NULL, "pages over %s%s%s%s", src->page_uri.text,
                   why[0] ? " (" : "", why, why[0] ? ")" : "");
}

// SPDX-License-Identifier: MIT
/* Lists of page wires, as hello carries them, and the addresses made of their names. A list is a
 * peer's text: whatever it says, the outcome is an address of a wire that we would have named
 * ourselves, or a refusal. */
#include "core/wires.h"

#include "core/memlock.h"
#include "ram/chunk.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Best first. Providers over TCP do in software what the wire tcp does in the kernel: `net` carries as
 * much as tcp does (docs/decisions/0012), tcp;ofi_rxm half of it, so that one is taken where ofi is asked
 * for by name. */
static const struct {
    const char *name, *scheme;
    bool is_auto;
} wires[] = {
    {"rdma", "rdma", true},
    {"ofi:verbs;ofi_rxm", "ofi", true},
    {"ofi:net", "ofi", true},
    {"ofi:tcp;ofi_rxm", "ofi", false},
};

_Static_assert(sizeof(wires) / sizeof(wires[0]) <= GW_WIRES_MAX, "each has a place");

void gw_wires_wanted(uint64_t choice, char text[GW_WIRES_TEXT_BYTES])
{
    text[0] = '\0';
    for (size_t i = 0; i < sizeof(wires) / sizeof(wires[0]); i++) {
        bool wanted = (choice == GW_WIRE_AUTO && wires[i].is_auto) ||
                      (choice == GW_WIRE_RDMA && strcmp(wires[i].scheme, "rdma") == 0) ||
                      (choice == GW_WIRE_OFI && strcmp(wires[i].scheme, "ofi") == 0);
        if (wanted && gw_wire_name(wires[i].scheme))
            gw_wires_add(text, wires[i].name);
    }
}

bool gw_wires_next(const char **at, char *word, size_t bytes)
{
    size_t length = strcspn(*at, ",");

    if (**at == '\0')
        return false;
    snprintf(word, bytes, "%.*s", (int)length, *at);
    *at += length + ((*at)[length] == ',');
    return true;
}

bool gw_wires_add(char text[GW_WIRES_TEXT_BYTES], const char *word)
{
    size_t used = strlen(text), bytes = strlen(word), comma = used > 0;

    if (used + comma + bytes >= GW_WIRES_TEXT_BYTES)
        return false;
    if (comma)
        text[used++] = ',';
    memcpy(text + used, word, bytes + 1);
    return true;
}

#define WHY_BYTES_MAX 100 /* so that the text holds what is to say of more than one */

void gw_wires_lack(char text[GW_WIRES_TEXT_BYTES], const char *name, const char *why)
{
    char entry[GW_WIRE_WORD_BYTES + WHY_BYTES_MAX + 2];
    size_t used = strlen(text), room = GW_WIRES_TEXT_BYTES - 1 - used;

    snprintf(entry, sizeof(entry), "%.*s=%.*s", GW_WIRE_WORD_BYTES - 1, name, WHY_BYTES_MAX, why);
    for (char *c = entry; *c; c++)
        *c = *c == '|' ? '/' : *c;
    size_t bytes = strlen(entry), bar = used > 0;
    if (room < bytes + bar)
        return;
    if (bar)
        text[used] = '|';
    memcpy(text + used + bar, entry, bytes + 1);
}

void gw_wires_why(const char *text, const char *name, char *why, size_t bytes)
{
    size_t length = strlen(name);

    for (const char *at = text; *at != '\0'; at += strcspn(at, "|"), at += *at == '|') {
        if (strncmp(at, name, length) == 0 && at[length] == '=') {
            at += length + 1;
            snprintf(why, bytes, "at the target: %.*s", (int)strcspn(at, "|"), at);
            return;
        }
    }
}

static bool is_known(const char *name)
{
    for (size_t i = 0; i < sizeof(wires) / sizeof(wires[0]); i++) {
        if (strcmp(wires[i].name, name) == 0)
            return true;
    }
    return false;
}

static int make(const char *name, const char *host, uint16_t port, struct gw_uri *uri,
                struct gw_error *err)
{
    char text[GW_URI_BYTES_MAX];

    snprintf(text, sizeof(text), strchr(host, ':') ? "%s:[%s]:%u" : "%s:%s:%u", name, host, port);
    return gw_uri_parse(text, uri, err);
}

int gw_wires_beside(const char *name, const struct gw_uri *beside, struct gw_uri *uri,
                    struct gw_error *err)
{
    if (!is_known(name))
        return gw_fail(err, -EINVAL, "no page wire is called '%.80s'", name);
    if (beside->host[0] == '\0' || beside->port == 0)
        return gw_fail(err, -EINVAL, "it needs a host and a port beside it");
    int rc = make(name, beside->host, 0, uri, err);
    if (rc == 0 && !gw_wire_name(uri->scheme))
        rc = gw_fail(err, -EINVAL, "no wire '%s' in this build", uri->scheme);
    return rc;
}

uint32_t gw_wires_flags(const struct gw_uri *uri)
{
    bool pins = uri->provider[0] != '\0' && gw_provider_pins(uri->provider);
    return gw_wire_flags(uri->scheme) | (pins ? GW_EP_PINS : 0);
}

int gw_wires_fit(const struct gw_uri *uri, unsigned endpoints, uint64_t bytes_max, uint64_t need,
                 struct gw_error *err)
{
    uint64_t budget = gw_memlock_budget(gw_wires_flags(uri), endpoints, bytes_max);
    if (budget >= need)
        return 0;
    gw_fail_code(err, -ENOMEM, GW_CODE_LIMIT,
                 "memory to be registered: need %" PRIu64 " KiB, have %" PRIu64
                 " (memlock, x-registered-max)",
                 need / 1024, budget / 1024);
    return -ENOMEM;
}

static bool is_any(const char *host)
{
    return host[0] == '\0' || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

int gw_wires_take(const char *text, const char *name, const struct gw_uri *beside,
                  struct gw_uri *uri, struct gw_error *err)
{
    struct gw_uri said, named;
    size_t bytes = strlen(name);

    if (strncmp(text, name, bytes) != 0 || text[bytes] != ':' ||
        gw_uri_parse(text, &said, err) < 0 || said.port == 0)
        return gw_fail(err, -EPROTO, "'%.120s' is no address of wire %s", text, name);
    int rc = make(name, is_any(said.host) ? beside->host : said.host, said.port, &named, err);
    if (rc == 0)
        *uri = named;
    return rc;
}

// SPDX-License-Identifier: MIT
/* Addresses: text to struct gw_uri. A table says which shape follows each scheme; what does not fit is
 * refused with the part that is wrong and an example that would be right. Nothing is resolved here.
 * Filters stand in front of the wire, and bring a query, from the first '?' on; without a filter a
 * '?' is a character like any other. */
#include "core/base/bytes.h"
#include "transport/filter/filter.h"
#include "transport/transport.h"

#include <stdio.h>
#include <string.h>
#include <sys/un.h>

enum form { FORM_HOST_PORT, FORM_PROVIDER, FORM_PATH };

static const struct {
    const char *scheme;
    enum form form;
    const char *example;
} forms[] = {
    {"tcp", FORM_HOST_PORT, "tcp:host:4444, tcp:[::1]:4444"},
    {"unix", FORM_PATH, "unix:/run/godwit.sock"},
    {"rdma", FORM_HOST_PORT, "rdma:host:4444, rdma:[fd00::1]:4444"},
    {"ofi", FORM_PROVIDER, "ofi:tcp;ofi_rxm:host:4444"},
    {"loop", FORM_PATH, "loop:name"},
    {"loop1", FORM_PATH, "loop1:name"},
};

#define FORM_COUNT (sizeof(forms) / sizeof(forms[0]))

/* sun_path and its terminating zero. */
#define PATH_BYTES_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)

static int refuse(struct gw_error *err, size_t form, const char *text, const char *why)
{
    int rc = gw_fail(err, -EINVAL, "address '%.200s': %s", text, why);
    gw_error_hint(err, "for example %s", forms[form].example);
    return rc;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name_char(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '.' || c == '_';
}

/* Edits (insert, delete, replace) between two short words. */
static unsigned distance(const char *a, size_t a_len, const char *b)
{
    unsigned row[32];
    size_t b_len = strlen(b);
    if (a_len > 16 || b_len >= sizeof(row) / sizeof(row[0]))
        return 99;
    for (size_t j = 0; j <= b_len; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= a_len; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_len; j++) {
            unsigned best = diagonal + ((a[i - 1] | 0x20) != b[j - 1]);
            diagonal = row[j];
            best = best < row[j] + 1 ? best : row[j] + 1;
            row[j] = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
        }
    }
    return row[b_len];
}

static int refuse_scheme(struct gw_error *err, const char *text, size_t scheme_bytes)
{
    char known[128] = "";
    size_t best = FORM_COUNT;
    unsigned best_distance = 3; /* further away it is another word */

    for (size_t i = 0; i < FORM_COUNT; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "", forms[i].scheme);
        unsigned d = distance(text, scheme_bytes, forms[i].scheme);
        if (d < best_distance) {
            best_distance = d;
            best = i;
        }
    }
    int rc = gw_fail(err, -EINVAL, "address '%.200s': unknown wire '%.*s' (known: %s)", text,
                     (int)gw_min_u64(scheme_bytes, 32), text, known);
    if (best < FORM_COUNT)
        gw_error_hint(err, "did you mean '%s'? for example %s", forms[best].scheme,
                      forms[best].example);
    else
        gw_error_hint(err, "for example %s or %s", forms[0].example, forms[1].example);
    return rc;
}

static int parse_port(const char *text, size_t form, const char *port, uint16_t *value,
                      struct gw_error *err)
{
    uint32_t number = 0;
    if (*port == '\0')
        return refuse(err, form, text,
                      "the port is missing (0: any free one, for the listening side)");
    for (const char *p = port; *p; p++) {
        if (!is_digit(*p))
            return refuse(err, form, text, "the port is not a number");
        number = number * 10 + (uint32_t)(*p - '0');
        if (number > UINT16_MAX)
            return refuse(err, form, text, "the port is greater than 65535");
    }
    *value = (uint16_t)number;
    return 0;
}

static int copy_host(const char *text, size_t form, const char *host, size_t bytes,
                     struct gw_uri *uri, struct gw_error *err)
{
    if (bytes >= sizeof(uri->host))
        return refuse(err, form, text, "the host name is longer than 255 bytes");
    memcpy(uri->host, host, bytes);
    uri->host[bytes] = '\0';
    return 0;
}

/* "[v6%zone]:port" */
static int parse_bracketed(const char *text, size_t form, const char *rest, struct gw_uri *uri,
                           struct gw_error *err)
{
    const char *end = strchr(rest, ']');
    if (!end)
        return refuse(err, form, text, "'[' without ']'");
    if (end == rest + 1)
        return refuse(err, form, text, "no address between the brackets");
    bool zone = false;
    for (const char *p = rest + 1; p < end; p++) {
        bool hex = is_digit(*p) || ((*p | 0x20) >= 'a' && (*p | 0x20) <= 'f');
        if (*p == '%' && !zone)
            zone = true;
        else if (zone ? !is_name_char(*p) && *p != ':' : !hex && *p != ':' && *p != '.')
            return refuse(err, form, text, "not an IPv6 address between the brackets");
    }
    if (end[1] != ':')
        return refuse(err, form, text, "':' and a port must follow ']'");
    int rc = copy_host(text, form, rest + 1, (size_t)(end - rest - 1), uri, err);
    return rc < 0 ? rc : parse_port(text, form, end + 2, &uri->port, err);
}

static int parse_host_port(const char *text, size_t form, const char *rest, struct gw_uri *uri,
                           struct gw_error *err)
{
    if (strncmp(rest, "//", 2) == 0)
        rest += 2;
    if (*rest == '[')
        return parse_bracketed(text, form, rest, uri, err);

    const char *colon = strchr(rest, ':');
    if (!colon)
        return refuse(err, form, text, "':' and a port must follow the host");
    if (strchr(colon + 1, ':'))
        return refuse(err, form, text,
                      "more than one ':' after the wire (an IPv6 address goes in "
                      "brackets)");
    for (const char *p = rest; p < colon; p++) {
        if (!is_name_char(*p))
            return refuse(err, form, text,
                          "a host name has letters, digits, '-', '_' and '.' only");
    }
    int rc = copy_host(text, form, rest, (size_t)(colon - rest), uri, err);
    return rc < 0 ? rc : parse_port(text, form, colon + 1, &uri->port, err);
}

/* "provider:host:port", "provider:[v6]:port" */
static int parse_provider(const char *text, size_t form, const char *rest, struct gw_uri *uri,
                          struct gw_error *err)
{
    size_t bytes = strcspn(rest, ":");
    if (rest[bytes] == '\0')
        return refuse(err, form, text,
                      "a provider, ':', a host, ':' and a port must follow the wire");
    if (bytes == 0)
        return refuse(err, form, text, "the provider is missing");
    if (bytes >= sizeof(uri->provider))
        return refuse(err, form, text, "the provider's name is longer than 63 bytes");
    for (size_t i = 0; i < bytes; i++) {
        if (!is_name_char(rest[i]) && rest[i] != ';')
            return refuse(err, form, text,
                          "a provider's name has letters, digits, '-', '_', '.' and ';' only");
    }
    memcpy(uri->provider, rest, bytes);
    uri->provider[bytes] = '\0';
    return parse_host_port(text, form, rest + bytes + 1, uri, err);
}

static int parse_path(const char *text, size_t form, const char *rest, struct gw_uri *uri,
                      struct gw_error *err)
{
    size_t bytes = strlen(rest);
    if (bytes == 0)
        return refuse(err, form, text, "the path is missing");
    if (bytes > PATH_BYTES_MAX)
        return refuse(err, form, text, "the path of a socket has at most 107 bytes");
    memcpy(uri->path, rest, bytes + 1);
    return 0;
}

static int refuse_filter(struct gw_error *err, const char *text, const char *name)
{
    char known[64] = "";
    for (unsigned i = 0; gw_filter_name(i); i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "", gw_filter_name(i));
    }
    int rc = gw_fail(err, -EINVAL, "address '%.200s': unknown filter '%.*s' (known: %s)", text,
                     (int)gw_min_u64(strcspn(name, "+"), 32), name, known);
    gw_error_hint(err, "for example tap+tcp:host:4444?dir=recording");
    return rc;
}

/* Where the wire's name begins, behind the filters. */
static int parse_filters(const char *text, size_t scheme_bytes, size_t *wire_at,
                         struct gw_error *err)
{
    size_t at = 0;
    while (memchr(text + at, '+', scheme_bytes - at)) {
        const struct gw_filter *filter = gw_filter_of(text + at);
        if (!filter)
            return refuse_filter(err, text, text + at);
        for (size_t other = 0; other < at; other += strcspn(text + other, "+") + 1) {
            if (gw_filter_of(text + other) == filter)
                return gw_fail(err, -EINVAL, "address '%.200s': filter '%s' stands there twice",
                               text, filter->name);
        }
        at += strcspn(text + at, "+") + 1;
    }
    if (scheme_bytes >= sizeof(((struct gw_uri *)0)->scheme))
        return gw_fail(err, -EINVAL, "address '%.200s': the wire's name is too long", text);
    *wire_at = at;
    return 0;
}

int gw_uri_parse(const char *text, struct gw_uri *uri, struct gw_error *err)
{
    struct gw_uri parsed = {.port = 0};
    size_t bytes = strnlen(text, sizeof(parsed.text));
    if (bytes == sizeof(parsed.text))
        return gw_fail(err, -EINVAL, "the address is longer than %zu bytes",
                       sizeof(parsed.text) - 1);
    memcpy(parsed.text, text, bytes + 1);

    size_t scheme_bytes = strcspn(text, ":");
    if (text[scheme_bytes] == '\0') {
        int rc = gw_fail(err, -EINVAL, "address '%.200s': no wire before a ':'", text);
        gw_error_hint(err, "for example %s or %s", forms[0].example, forms[1].example);
        return rc;
    }
    size_t wire_at = 0, form = 0;
    int rc = memchr(text, '+', scheme_bytes) ? parse_filters(text, scheme_bytes, &wire_at, err) : 0;
    if (rc < 0)
        return rc;
    const char *wire = text + wire_at;
    size_t wire_bytes = scheme_bytes - wire_at;
    while (form < FORM_COUNT && (strlen(forms[form].scheme) != wire_bytes ||
                                 memcmp(forms[form].scheme, wire, wire_bytes) != 0))
        form++;
    if (form == FORM_COUNT)
        return refuse_scheme(err, wire, wire_bytes);

    char rest[GW_URI_BYTES_MAX];
    memcpy(parsed.scheme, text, scheme_bytes);
    memcpy(rest, text + scheme_bytes + 1, bytes - scheme_bytes);
    if (wire_at > 0)
        rest[strcspn(rest, "?")] = '\0';
    switch (forms[form].form) {
    case FORM_HOST_PORT:
        rc = parse_host_port(text, form, rest, &parsed, err);
        break;
    case FORM_PROVIDER:
        rc = parse_provider(text, form, rest, &parsed, err);
        break;
    case FORM_PATH:
        rc = parse_path(text, form, rest, &parsed, err);
        break;
    }
    if (rc == 0 && wire_at > 0)
        rc = gw_filter_check(&parsed, err);
    if (rc == 0)
        *uri = parsed;
    return rc;
}

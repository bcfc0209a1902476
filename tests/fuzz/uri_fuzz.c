// SPDX-License-Identifier: MIT
/* Addresses. What is accepted, put together again from its parts, is accepted and has the same parts. */
#include "tests/fuzz/fuzz.h"
#include "transport/transport.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_uri uri, again;
    char made[2 * GW_URI_BYTES_MAX];
    char *text = malloc(bytes + 1);
    FUZZ_MUST(text != NULL);
    if (bytes)
        memcpy(text, data, bytes);
    text[bytes] = '\0';
    int rc = gw_uri_parse(text, &uri, &err);
    if (rc < 0) {
        fuzz_refused(rc, &err);
        free(text);
        return 0;
    }
    FUZZ_MUST(strcmp(uri.text, text) == 0);
    FUZZ_MUST(gw_wire_name(uri.scheme) != NULL);
    /* A query belongs to the filters in front of the wire, and is kept in the text alone. */
    const char *query = strchr(uri.scheme, '+') ? strchr(text + strlen(uri.scheme), '?') : NULL;
    const char *host = text + strlen(uri.scheme) + 1;
    host += uri.provider[0] ? strlen(uri.provider) + 1 : 0;
    host += strspn(host, "/");
    int at = snprintf(made, sizeof(made), "%s:%s%s", uri.scheme, uri.provider,
                      uri.provider[0] ? ":" : "");
    if (uri.path[0])
        at += snprintf(made + at, sizeof(made) - (size_t)at, "%s", uri.path);
    else
        at += snprintf(made + at, sizeof(made) - (size_t)at, *host == '[' ? "[%s]:%u" : "%s:%u",
                       uri.host, uri.port);
    snprintf(made + at, sizeof(made) - (size_t)at, "%s", query ? query : "");
    FUZZ_MUST(gw_uri_parse(made, &again, &err) == 0);
    FUZZ_MUST(strcmp(again.scheme, uri.scheme) == 0 && strcmp(again.host, uri.host) == 0);
    FUZZ_MUST(strcmp(again.path, uri.path) == 0 && again.port == uri.port);
    FUZZ_MUST(strcmp(again.provider, uri.provider) == 0);
    free(text);
    return 0;
}

// SPDX-License-Identifier: MIT
/* Addresses: what is understood, and what is said about the rest. */
#include "tests/shim/gw_test.h"
#include "transport/transport.h"

#include <stdio.h>
#include <string.h>

static void expect_host(const char *text, const char *host, unsigned port)
{
    struct gw_uri uri;
    struct gw_error err = GW_ERROR_INIT;
    if (!GW_EXPECT_EQ(gw_uri_parse(text, &uri, &err), 0)) {
        GW_NOTE_FAILURE("%s: %s", text, err.message);
        return;
    }
    GW_EXPECT_STREQ(uri.scheme, "tcp");
    GW_EXPECT_STREQ(uri.host, host);
    GW_EXPECT_EQ(uri.port, port);
    GW_EXPECT_STREQ(uri.text, text);
}

static void expect_refused(const char *text, const char *why, const char *hint)
{
    struct gw_uri uri = {.port = 7};
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_uri_parse(text, &uri, &err), -EINVAL);
    GW_EXPECT_EQ(uri.port, 7);
    if (!GW_EXPECT(strstr(err.message, why) != NULL && strstr(err.hint, hint) != NULL))
        GW_NOTE_FAILURE("'%s' said '%s', hint '%s'", text, err.message, err.hint);
}

GW_TEST(uri, hosts_and_ports)
{
    expect_host("tcp:host:4444", "host", 4444);
    expect_host("tcp://host:4444", "host", 4444);
    expect_host("tcp:10.0.0.1:0", "10.0.0.1", 0);
    expect_host("tcp::4444", "", 4444);
    expect_host("tcp:a-b.example_1:65535", "a-b.example_1", 65535);
}

GW_TEST(uri, ipv6_in_brackets)
{
    expect_host("tcp:[::1]:4444", "::1", 4444);
    expect_host("tcp://[fe80::1%eth0]:1", "fe80::1%eth0", 1);
    expect_host("tcp:[::ffff:10.0.0.1]:2", "::ffff:10.0.0.1", 2);
    expect_host("tcp:[fe80::1%br-lan.5]:1", "fe80::1%br-lan.5", 1);
}

GW_TEST(uri, unix_paths)
{
    struct gw_uri uri;
    char text[200] = "unix:/";
    GW_EXPECT_EQ(gw_uri_parse("unix:/run/a:b socket", &uri, NULL), 0);
    GW_EXPECT_STREQ(uri.path, "/run/a:b socket");
    GW_EXPECT_STREQ(uri.host, "");
    memset(text + 6, 'x', 106);
    GW_EXPECT_EQ(gw_uri_parse(text, &uri, NULL), 0);
    GW_EXPECT_EQ(strlen(uri.path), 107);
    memset(text + 6, 'x', 107);
    expect_refused(text, "at most 107", "unix:/run/");
    expect_refused("unix:", "path is missing", "unix:/run/");
}

GW_TEST(uri, ports_that_are_none)
{
    expect_refused("tcp:host:", "port is missing", "tcp:host:4444");
    expect_refused("tcp:host", "port must follow", "tcp:host:4444");
    expect_refused("tcp:host:65536", "greater than 65535", "tcp:");
    expect_refused("tcp:host:99999999999999999999", "greater than 65535", "tcp:");
    expect_refused("tcp:host:44x4", "not a number", "tcp:");
    expect_refused("tcp:host:-1", "not a number", "tcp:");
    expect_refused("tcp:host:4444,ipv4=on", "not a number", "tcp:");
    expect_refused("tcp:host: 1", "not a number", "tcp:");
}

GW_TEST(uri, hosts_that_are_none)
{
    expect_refused("tcp:::1:4444", "brackets", "[::1]");
    expect_refused("tcp:[::1:4444", "without ']'", "[::1]");
    expect_refused("tcp:[]:4444", "no address", "[::1]");
    expect_refused("tcp:[::1]4444", "must follow ']'", "[::1]");
    expect_refused("tcp:[::1]", "must follow ']'", "[::1]");
    expect_refused("tcp:[host]:1", "not an IPv6", "[::1]");
    expect_refused("tcp:[::1%a%b]:1", "not an IPv6", "[::1]");
    expect_refused("tcp:ho st:1", "letters, digits", "tcp:");
    expect_refused("tcp:h\n:1", "letters, digits", "tcp:");
    char text[400] = "tcp:";
    memset(text + 4, 'h', 256);
    snprintf(text + 260, 10, ":1");
    expect_refused(text, "longer than 255", "tcp:");
}

GW_TEST(uri, an_unknown_wire_near_a_known_one)
{
    expect_refused("tpc:host:1", "unknown wire 'tpc'", "did you mean 'tcp'");
    expect_refused("TCP:host:1", "unknown wire 'TCP'", "did you mean 'tcp'");
    expect_refused("unx:/a", "unknown wire", "did you mean 'unix'");
    expect_refused("carrier-pigeon:a", "known: tcp, unix", "for example");
    expect_refused("host", "no wire", "for example");
    expect_refused("", "no wire", "for example");
    expect_refused(":1", "unknown wire", "for example");
}

GW_TEST(uri, rdma_has_a_host_and_a_port)
{
    struct gw_uri uri;
    struct gw_error err = GW_ERROR_INIT;
    GW_ASSERT_EQ(gw_uri_parse("rdma:host.example:4444", &uri, &err), 0);
    GW_EXPECT_STREQ(uri.scheme, "rdma");
    GW_EXPECT_STREQ(uri.host, "host.example");
    GW_EXPECT_EQ(uri.port, 4444);
    GW_EXPECT_STREQ(uri.provider, "");
    GW_ASSERT_EQ(gw_uri_parse("rdma://[fd00::1]:0", &uri, &err), 0);
    GW_EXPECT_STREQ(uri.host, "fd00::1");
    GW_EXPECT_EQ(uri.port, 0);
    expect_refused("rdma:host", "a port must follow the host", "rdma:host:4444");
    expect_refused("rdma:[fd00::1", "'[' without ']'", "rdma:[fd00::1]:4444");
    expect_refused("rmda:host:1", "unknown wire 'rmda'", "did you mean 'rdma'");
}

GW_TEST(uri, ofi_has_a_provider_before_host_and_port)
{
    static const struct {
        const char *text, *provider, *host;
        unsigned port;
    } cases[] = {
        {"ofi:tcp;ofi_rxm:127.0.0.1:4444", "tcp;ofi_rxm", "127.0.0.1", 4444},
        {"ofi:net:[::1]:0", "net", "::1", 0},
        {"ofi:shm:localhost:65535", "shm", "localhost", 65535},
        {"ofi:verbs;ofi_rxm:[fe80::1%eth0]:1", "verbs;ofi_rxm", "fe80::1%eth0", 1},
        {"ofi:net::4444", "net", "", 4444},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct gw_uri uri;
        struct gw_error err = GW_ERROR_INIT;
        if (!GW_EXPECT_EQ(gw_uri_parse(cases[i].text, &uri, &err), 0))
            GW_FAIL("%s: %s", cases[i].text, err.message);
        GW_EXPECT_STREQ(uri.scheme, "ofi");
        GW_EXPECT_STREQ(uri.provider, cases[i].provider);
        GW_EXPECT_STREQ(uri.host, cases[i].host);
        GW_EXPECT_EQ(uri.port, cases[i].port);
    }
    char label[64];
    struct gw_uri uri;
    GW_ASSERT_EQ(gw_uri_parse("tap+ofi:net:host:1?dir=x", &uri, NULL), 0);
    GW_EXPECT_STREQ(uri.provider, "net");
    gw_wire_label(&uri, label, sizeof(label));
    GW_EXPECT_STREQ(label, gw_wire_name("ofi") ? "ofi:net" : "?:net");
    GW_ASSERT_EQ(gw_uri_parse("tcp:host:1", &uri, NULL), 0);
    gw_wire_label(&uri, label, sizeof(label));
    GW_EXPECT_STREQ(label, "tcp");
}

GW_TEST(uri, ofi_without_its_parts)
{
    char text[128];
    expect_refused("ofi:host", "a provider, ':', a host", "ofi:tcp;ofi_rxm:host:4444");
    expect_refused("ofi::host:1", "the provider is missing", "ofi:");
    expect_refused("ofi:net:host", "a port must follow the host", "ofi:");
    expect_refused("ofi:host:4444", "a port must follow the host", "ofi:tcp;ofi_rxm:host:4444");
    expect_refused("ofi:n@t:host:1", "a provider's name has letters", "ofi:");
    snprintf(text, sizeof(text), "ofi:%064d:host:1", 0);
    expect_refused(text, "longer than 63 bytes", "ofi:");
}

GW_TEST(uri, filters_stand_in_front_and_bring_a_query)
{
    struct gw_uri uri;
    struct gw_error err = GW_ERROR_INIT;
    GW_ASSERT_EQ(gw_uri_parse("tap+tcp:[::1]:4444?dir=/tmp/a%26b&payload=on", &uri, &err), 0);
    GW_EXPECT_STREQ(uri.scheme, "tap+tcp");
    GW_EXPECT_STREQ(uri.host, "::1");
    GW_EXPECT_EQ(uri.port, 4444);
    GW_EXPECT_STREQ(gw_wire_name(uri.scheme), "tcp");
    GW_EXPECT_EQ(gw_wire_flags(uri.scheme), gw_wire_flags("tcp"));
    GW_ASSERT_EQ(gw_uri_parse("tap+unix:/run/a b?dir=x", &uri, &err), 0);
    GW_EXPECT_STREQ(uri.path, "/run/a b");
    /* Without a filter a '?' belongs to the path. */
    GW_ASSERT_EQ(gw_uri_parse("unix:/run/a?dir=x", &uri, &err), 0);
    GW_EXPECT_STREQ(uri.path, "/run/a?dir=x");
}

GW_TEST(uri, filters_and_parameters_that_are_none)
{
    expect_refused("tape+tcp:h:1?dir=x", "unknown filter 'tape' (known: tap", "tap+tcp");
    expect_refused("tap+tpc:h:1?dir=x", "unknown wire 'tpc'", "did you mean 'tcp'");
    expect_refused("tap+tap+tcp:h:1?dir=x", "'tap' stands there twice", "");
    expect_refused("tap+tcp:h:1", "no folder", "dir=");
    expect_refused("tap+tcp:h:1?dir=", "no folder", "dir=");
    expect_refused("tap+tcp:h:1?dri=x", "unknown parameter 'dri'", "dir, payload");
    expect_refused("tap+tcp:h:1?dir=x&payload=yes", "payload='yes'", "payload=on");
    expect_refused("tap+tcp:h:1?dir", "is no parameter", "name=value");
    expect_refused("tap+tcp:h:1?dir=%2", "two hexadecimal", "%25");
    expect_refused("tap+tcp:h:1?dir=%zz", "two hexadecimal", "%25");
    expect_refused("tap+tcp:h:1?dir=a%00b", "two hexadecimal", "%25");
    expect_refused("tcp:h:1?dir=x", "not a number", "tcp:");
}

GW_TEST(uri, an_endless_address)
{
    char text[GW_URI_BYTES_MAX + 10];
    struct gw_uri uri;
    struct gw_error err = GW_ERROR_INIT;
    memset(text, 't', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    GW_EXPECT_EQ(gw_uri_parse(text, &uri, &err), -EINVAL);
    GW_EXPECT(strstr(err.message, "longer than 1023") != NULL);
}

GW_TEST(uri, wires_of_this_build_are_listed)
{
    GW_EXPECT_STREQ(gw_wire_scheme(0), "tcp");
    GW_EXPECT_STREQ(gw_wire_name("unix"), "unix");
    GW_EXPECT(gw_wire_name("tape") == NULL);
    GW_EXPECT_EQ(gw_wire_flags("tape"), 0);
    GW_EXPECT(gw_wire_flags("tcp") & GW_EP_RECONNECTS);
    unsigned count = 0;
    while (gw_wire_scheme(count))
        count++;
    GW_EXPECT_GE(count, 2);
}

// SPDX-License-Identifier: MIT
/* What --version says of wires is what the library has. */
#include "tests/shim/gw_test.h"
#include "transport/transport.h"

#include <stdio.h>
#include <string.h>

GW_TEST(version, every_wire_is_named_and_one_for_tests_is_named_apart)
{
    const char *features = gw_build_features();
    const char *apart = strstr(features, " in-process=");
    const char *scheme;
    GW_ASSERT(strncmp(features, "wires=", 6) == 0);
    GW_ASSERT(apart != NULL);
    for (unsigned i = 0; (scheme = gw_wire_scheme(i)) != NULL; i++) {
        const char *at = strstr(features, scheme);
        if (!GW_EXPECT(at != NULL))
            continue;
        bool in_process = gw_wire_flags(scheme) & GW_EP_IN_PROCESS;
        GW_EXPECT_EQ(at > apart, in_process);
        GW_EXPECT(strchr("=,", at[-1]) && strchr(", ", at[strlen(scheme)]));
    }
    GW_EXPECT(gw_wire_flags("loop") & GW_EP_IN_PROCESS);
    GW_EXPECT(!(gw_wire_flags("tcp") & GW_EP_IN_PROCESS));
    GW_EXPECT(strstr(features, " lz4=") != NULL);
}

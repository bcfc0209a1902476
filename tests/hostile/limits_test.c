// SPDX-License-Identifier: MIT
/* docs/protocol.md, section 6, says what stops every length and count that a peer may choose. Each row of
 * its table is held against the code here: against the constant where a header has it, against the
 * text of its #define where it is one file's own. A row that nobody knows is a failure, too. */
#include "control/channel.h"
#include "control/codec.h"
#include "core/outcomes.h"
#include "core/target.h"
#include "ram/block.h"
#include "ram/peer.h"
#include "tests/shim/gw_test.h"
#include "transport/listener.h"

#include <godwit/block.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)

/* ---- what the code says ------------------------------------------------------------------------ */

static const struct limit {
    const char *row;    /* how its line begins */
    const char *says;   /* what must stand in its second column */
    uint64_t is, value; /* what the code has, and what that text means */
} limits[] = {
    {"message", "body at most 1 MiB", GW_PAYLOAD_BYTES_MAX, MIB},
    {"message", "header 8 ", GW_MESSAGE_HEADER_BYTES, 8},
    {"message", "on page endpoints 32 KiB in all", GW_PAGE_MESSAGE_BYTES_MAX, 32 * KIB},
    {"HELLO, HELLO_REPLY", "4096 bytes", GW_HELLO_BYTES_MAX, 4096},
    {"bytes sent ahead", "the grant: 64 KiB", GW_CHANNEL_GRANT_FIRST, 64 * KIB},
    {"bytes sent ahead", "the window (4 MiB)", GW_CHANNEL_WINDOW_DEFAULT, 4 * MIB},
    {"bytes of ours", "4 MiB per connection", GW_CHANNEL_QUEUE_DEFAULT, 4 * MIB},
    {"page endpoints", "255", GW_ENDPOINTS_MAX - 1, 255},
    {"blocks", "which is 32768", GW_BLOCKS_MAX, 32768},
    {"connections without", "8 that have begun", GW_CANDIDATES_MAX, 8},
    {"connections without", "1024 silent ones", GW_PENDING_MAX, 1024},
    {"outcomes of", "64", GW_OUTCOMES_KEPT, 64},
    {"ranges in one ZERO", "1024", GW_ZERO_RUNS_MAX, 1024},
    {"packets sent", " 4096 more ", GW_PACKET_CHARGE_BYTES, 4096},
    {"packets sent", "; 1024 packets", GW_PACKETS_AHEAD_MAX, 1024},
    {"names of blocks", "255 bytes", GW_NAME_BYTES_MAX, 255},
    {"keys", "64 bytes", GW_KEY_BYTES_MAX, 64},
    {"ranges", "2^52 pages", GW_ZERO_PAGE_END_MAX, UINT64_C(1) << 52},
    {"error texts", "31, ", GW_TEXT_CODE_BYTES_MAX, 31},
    {"error texts", " 23, ", GW_TEXT_PHASE_BYTES_MAX, 23},
    {"error texts", " 95, ", GW_TEXT_PLACE_BYTES_MAX, 95},
    {"error texts", " 319, 319 ", GW_TEXT_MESSAGE_BYTES_MAX, 319},
    {"error texts", ", 319 bytes", GW_TEXT_HINT_BYTES_MAX, 319},
    {"agent", "63 bytes", sizeof(((struct gw_hello *)0)->agent) - 1, 63},
};

/* One file's own: its #define, word for word. */
static const struct defined {
    const char *row, *says, *file, *name, *text;
} defines[] = {
    {"free messages", "64", "control/channel.c", "FREE_MESSAGES_MAX", "64u"},
    {"bytes of ours", "a reserve of 1.25 MiB", "control/channel.c", "RESERVE_BYTES",
     "(GW_MESSAGE_BYTES_DEFAULT + (UINT64_C(256) << 10))"},
    {"connections without", "for 5 s each", "core/target_setup.c", "FIRST_MESSAGE_NS",
     "(5 * GW_NS_PER_S)"},
    {"connections without", "20 ms where another waits", "core/target_setup.c",
     "CANDIDATE_GRACE_NS", "(20 * GW_NS_PER_MS)"},
    {"items of the stream", "16392", "core/target_load.c", "ITEMS_WAITING_MAX", "(16384u + 8u)"},
    {"sections in a stream", "16384", "control/order.c", "SECTIONS_MAX", "16384u"},
    {"zero pages placed", "8192", "core/page_in.c", "PLACE_PAGES", "8192u"},
    {"zero pages placed", "; 64", "core/page_in.c", "MESSAGES_MAX", "64u"},
    {"stripe", "a multiple of 512 pages", "control/handshake.c", "STRIPE_PAGES", "512u"},
    {"stripe", "at most 1 TiB", "control/handshake.c", "STRIPE_BYTES_MAX", "(UINT64_C(1) << 40)"},
    {"time-outs", "peer time-out at least 10 ms", "control/handshake.c", "PEER_TIMEOUT_NS_MIN",
     "(10 * GW_NS_PER_MS)"},
    {"time-outs", "30 days", "control/handshake.c", "TIMEOUT_NS_MAX",
     "(UINT64_C(30) * 24 * 3600 * GW_NS_PER_S)"},
    {"wishes kept", "4096", "core/target_prefault.c", "WISHES_KEPT", "4096u"},
};

/* Rows without a number of the code's own: what they say is negotiated or an operator's. */
static const char *const negotiated[] = {"RAM", "item of the stream:", "what is lent"};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- what the document says -------------------------------------------------------------------- */

static char *text_of(const char *path)
{
    char name[512];
    snprintf(name, sizeof(name), "%s/%s", GW_TEST_SOURCE, path);
    FILE *file = fopen(name, "re");
    char *text = calloc(1, 1u << 20);
    GW_ASSERT(file && text);
    GW_EXPECT_LT(fread(text, 1, (1u << 20) - 1, file), (1u << 20) - 1);
    fclose(file);
    return text;
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* The row of that name, or that begins with those words: its second column on; NULL: none. */
static char *column_of(char *table, const char *row)
{
    for (char *line = table; begins(line, "| "); line = strchr(line, '\n') + 1) {
        const char *end = line + 2 + strlen(row);
        bool is_whole = strncmp(end, " |", 2) == 0 || strchr(row, ' ');
        if (begins(line + 2, row) && is_whole)
            return strchr(line + 2, '|');
    }
    return NULL;
}

static void expect_said(char *table, const char *row, const char *says)
{
    char *column = column_of(table, row);
    char *found = column ? strstr(column, says) : NULL;
    if (!found || found > strchr(column, '\n'))
        GW_NOTE_FAILURE("docs/protocol.md, 6: row '%s' does not say '%s'", row, says);
}

static bool is_known(const char *line)
{
    for (size_t i = 0; i < COUNT(limits); i++) {
        if (begins(line, limits[i].row))
            return true;
    }
    for (size_t i = 0; i < COUNT(defines); i++) {
        if (begins(line, defines[i].row))
            return true;
    }
    for (size_t i = 0; i < COUNT(negotiated); i++) {
        if (begins(line, negotiated[i]))
            return true;
    }
    return false;
}

static void expect_defined(const struct defined *defined)
{
    char head[96];
    char *text = text_of(defined->file), *at = NULL;
    snprintf(head, sizeof(head), "#define %s ", defined->name);
    at = strstr(text, head);
    if (at) {
        at += strlen(head);
        at += strspn(at, " \\\n");
    }
    if (!at || !begins(at, defined->text))
        GW_NOTE_FAILURE("%s: %s is not %s", defined->file, defined->name, defined->text);
    free(text);
}

GW_TEST(limits, are_those_that_the_protocol_document_says)
{
    char *document = text_of("docs/protocol.md");
    char *table = strstr(document, "\n## 6. Limits");
    table = table ? strstr(table, "|---|---|---|\n") : NULL;
    GW_ASSERT(table != NULL);
    table = strchr(table, '\n') + 1;
    for (size_t i = 0; i < COUNT(limits); i++) {
        if (limits[i].is != limits[i].value)
            GW_NOTE_FAILURE("'%s': the code has %" PRIu64, limits[i].says, limits[i].is);
        expect_said(table, limits[i].row, limits[i].says);
    }
    for (size_t i = 0; i < COUNT(defines); i++) {
        expect_defined(&defines[i]);
        expect_said(table, defines[i].row, defines[i].says);
    }
    for (char *line = table; begins(line, "| "); line = strchr(line, '\n') + 1) {
        if (!is_known(line + 2))
            GW_NOTE_FAILURE("docs/protocol.md, 6: nothing holds '%.40s' to the code", line + 2);
    }
    free(document);
}

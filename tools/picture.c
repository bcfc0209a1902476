// SPDX-License-Identifier: MIT
/* Two pictures in characters: a bar for each round (what it moved), a bar for each row of the downtime
 * ledger (how long it took). Plain ASCII, at most a hundred columns wide, no colour. */
#include "tools/picture.h"

#include "tools/options.h"

#include <inttypes.h>
#include <string.h>

#define BAR_COLUMNS 40
#define ROUNDS_SHOWN 24u

static void bar(double value, double largest, char text[BAR_COLUMNS + 1])
{
    double columns = largest > 0 ? value / largest * BAR_COLUMNS : 0;
    unsigned count = columns > BAR_COLUMNS ? BAR_COLUMNS : (unsigned)(columns + 0.5);

    if (count == 0 && value > 0)
        count = 1;
    memset(text, '#', count);
    text[count] = '\0';
}

static void round_row(const struct gw_round *round, const char *name, double largest, FILE *out)
{
    char text[BAR_COLUMNS + 1], bytes[24];

    bar((double)round->bytes, largest, text);
    gw_amount_text((double)round->bytes, false, bytes);
    fprintf(out, "%7s %9" PRIu64 " %9" PRIu64 " %9s %9.1f ms  %s\n", name, round->normal_pages,
            round->duplicate_pages, bytes, (double)round->duration_ns / 1e6, text);
}

/* All rounds but the first ones and the last, as one row. */
static void middle_row(const struct gw_report *report, double largest, FILE *out)
{
    struct gw_round sum = {0};
    char name[24];

    for (unsigned i = ROUNDS_SHOWN - 1; i + 1 < report->round_count; i++) {
        sum.bytes += report->rounds[i].bytes;
        sum.normal_pages += report->rounds[i].normal_pages;
        sum.duplicate_pages += report->rounds[i].duplicate_pages;
        sum.duration_ns += report->rounds[i].duration_ns;
    }
    snprintf(name, sizeof(name), "%u more", report->round_count - ROUNDS_SHOWN);
    round_row(&sum, name, largest, out);
}

void gw_picture_rounds(const struct gw_report *report, FILE *out)
{
    unsigned count = report->round_count;
    double largest = 0;

    for (unsigned i = 0; i < count; i++) {
        if ((double)report->rounds[i].bytes > largest)
            largest = (double)report->rounds[i].bytes;
    }
    fprintf(out, "  round     pages     zeros     moved         time\n");
    for (unsigned i = 0; i < count; i++) {
        char name[16];
        if (count > ROUNDS_SHOWN && i == ROUNDS_SHOWN - 1) {
            middle_row(report, largest, out);
            i = count - 2;
            continue;
        }
        snprintf(name, sizeof(name), "%" PRIu32, report->rounds[i].number);
        round_row(&report->rounds[i], report->rounds[i].paused ? "paused" : name, largest, out);
    }
}

void gw_picture_downtime(const struct gw_report *report, FILE *out)
{
    const struct gw_ledger *ledger = &report->stats.downtime;
    const struct {
        const char *name;
        uint64_t ns;
    } rows[] = {
        {"pause", ledger->pause_ns},
        {"last dirty sync", ledger->sync_ns},
        {"last pages", ledger->puts_ns},
        {"fences", ledger->fences_ns},
        {"device save", ledger->device_save_ns},
        {"wire", ledger->wire_ns},
        {"revoke", ledger->revoke_ns},
        {"device load", ledger->device_load_ns},
        {"release", ledger->release_ns},
        {"acquire", ledger->acquire_ns},
        {"resume", ledger->resume_ns},
        {"(digest)", ledger->digest_ns}, /* not part of the sum */
    };
    char text[BAR_COLUMNS + 1];
    double largest = 0;

    for (unsigned i = 0; i + 1 < sizeof(rows) / sizeof(rows[0]); i++) {
        if ((double)rows[i].ns > largest)
            largest = (double)rows[i].ns;
    }
    fprintf(out, "  downtime %.1f ms\n", (double)report->stats.downtime_ns / 1e6);
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].ns == 0)
            continue;
        bar((double)rows[i].ns, largest, text);
        fprintf(out, "%17s %9.3f ms  %s\n", rows[i].name, (double)rows[i].ns / 1e6, text);
    }
}

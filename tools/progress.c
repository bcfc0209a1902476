// SPDX-License-Identifier: MIT
/* Progress is read from the library's statistics by a clock of its own; nothing in the migration
 * waits for it. The rate is what was handed to the wire since the last line. The estimate is what
 * remains over the rate less what the guest dirties meanwhile: none while it does not converge. */
#include "tools/progress.h"

#include "tools/options.h"
#include "tools/talk.h"
#include "tools/wait.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TERMINAL_NS (GW_WAIT_NS_PER_S / 5)
#define LINE_NS GW_WAIT_NS_PER_S

void gw_progress_init(struct gw_progress *progress, bool receiving, uint64_t now_ns)
{
    *progress = (struct gw_progress){.receiving = receiving, .last_ns = now_ns, .round = 1};
    progress->interval_ns = gw_talk_is_terminal() ? TERMINAL_NS : LINE_NS;
    progress->next_ns = now_ns + progress->interval_ns;
}

/* Bytes per second. The rate counts pages of the size that dirty tracking has. */
static double dirtied(const struct gw_stats *stats)
{
    return (double)stats->dirty_pages_rate * (double)(stats->page_bytes ? stats->page_bytes : 4096);
}

static void add_eta(const struct gw_stats *stats, double rate, char *text, size_t bytes)
{
    double gain = rate - dirtied(stats);
    size_t used = strlen(text);

    if (gain > 0 && (double)stats->remaining_bytes / gain < 360000)
        snprintf(text + used, bytes - used, ", ETA %.0f s", (double)stats->remaining_bytes / gain);
    else
        snprintf(text + used, bytes - used, ", ETA -");
}

/* What matters most stands first: a terminal of 80 columns shows all of it but the last word. */
void gw_progress_text(const struct gw_progress *progress, const struct gw_stats *stats, double rate,
                      char *text, size_t bytes)
{
    char moved[24], speed[24], dirty[24], remaining[24];

    gw_amount_text((double)stats->transferred_bytes, false, moved);
    gw_amount_text(rate, true, speed);
    gw_amount_text(dirtied(stats), true, dirty);
    gw_amount_text((double)stats->remaining_bytes, false, remaining);
    if (progress->receiving) {
        snprintf(text, bytes, "%s: %s at %s", gw_status_name(stats->status), moved, speed);
        return;
    }
    snprintf(text, bytes, "%s: round %" PRIu32 ", %s, dirtied %s, %s remaining",
             gw_status_name(stats->status), progress->round, speed, dirty, remaining);
    add_eta(stats, rate, text, bytes);
    size_t used = strlen(text);
    snprintf(text + used, bytes - used, ", %s sent", moved);
}

void gw_progress_tick(struct gw_progress *progress, const struct gw_stats *stats, uint64_t now_ns)
{
    char text[256];

    if (now_ns < progress->next_ns)
        return;
    uint64_t bytes = stats->transferred_bytes - progress->last_bytes;
    double seconds = (double)(now_ns - progress->last_ns) / (double)GW_WAIT_NS_PER_S;
    gw_progress_text(progress, stats, seconds > 0 ? (double)bytes / seconds : 0, text,
                     sizeof(text));
    gw_talk_progress(text);
    progress->last_ns = now_ns;
    progress->last_bytes = stats->transferred_bytes;
    progress->next_ns = now_ns + progress->interval_ns;
}

void gw_progress_end(void)
{
    if (gw_talk_is_terminal())
        gw_talk_progress("");
}

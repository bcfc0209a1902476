// SPDX-License-Identifier: MIT
/* Reading (reading.h): a signal ends it at the next progress, which comes while a pipe is silent too. */
#include "tools/reading.h"

#include "tools/options.h"
#include "tools/signals.h"
#include "tools/talk.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static bool is_stdin(const struct gw_reading *reading)
{
    return strcmp(reading->path, "-") == 0;
}

/* Numbers first: a narrow terminal cuts the line's end, and a path may be long. */
int gw_reading_progress(void *ctx, uint64_t done, uint64_t total)
{
    const struct gw_reading *reading = ctx;
    const char *name = is_stdin(reading) ? "stdin" : reading->path;
    char text[256], amount[24], whole[24];

    if (gw_talk_is_terminal()) {
        gw_amount_text((double)done, false, amount);
        gw_amount_text((double)total, false, whole);
        if (total > 0)
            snprintf(text, sizeof(text), "%s of %s, %.0f %%: %s", amount, whole,
                     100 * (double)done / (double)total, name);
        else /* a pipe does not say how much will come */
            snprintf(text, sizeof(text), "%s: %s", amount, name);
        gw_talk_progress(text);
    }
    return gw_signals_seen();
}

int gw_reading_open(struct gw_reading *reading)
{
    if (is_stdin(reading)) {
        reading->fd = STDIN_FILENO;
        return -1;
    }
    reading->fd = open(reading->path, O_RDONLY | O_CLOEXEC);
    if (reading->fd >= 0)
        return -1;
    gw_talk_error("'%s' not opened: %s", reading->path, strerror(errno));
    return GW_EXIT_FAILED;
}

int gw_reading_judge(const struct gw_reading *reading, int rc, const struct gw_error *err)
{
    if (gw_talk_is_terminal())
        gw_talk_progress("");
    if (rc == -ECANCELED && gw_signals_seen()) {
        gw_talk_error("cancelled");
        return GW_EXIT_CANCELLED;
    }
    if (rc < 0) {
        gw_talk_show(reading->path, err);
        return GW_EXIT_FAILED;
    }
    return -1;
}

void gw_reading_close(struct gw_reading *reading)
{
    if (reading->fd > STDIN_FILENO)
        close(reading->fd);
    reading->fd = -1;
}

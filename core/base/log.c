// SPDX-License-Identifier: MIT
/* Logs: formats one line and hands it to the embedder's function. Cannot fail. */
#include "core/base/log.h"

#include <stdarg.h>
#include <stdio.h>

void gw_log(const struct gw_log *log, enum gw_log_level level, const char *component,
            const char *format, ...)
{
    if (!log || !log->fn || level > log->level)
        return;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log->fn(log->ctx, level, component, text);
}

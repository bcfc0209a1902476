/* SPDX-License-Identifier: MIT */
/* godwit/log.h - where the library's rare remarks go. The library itself prints nothing. */
#ifndef GODWIT_LOG_H
#define GODWIT_LOG_H

#include <godwit/version.h>

#ifdef __cplusplus
extern "C" {
#endif

enum gw_log_level { GW_LOG_ERROR, GW_LOG_WARN, GW_LOG_INFO, GW_LOG_DEBUG };

/* Called from any library thread, several at once; must not block for long nor call back into
 * godwit. @text is one line without a newline, valid during the call. */
typedef void gw_log_fn(void *ctx, enum gw_log_level level, const char *component, const char *text);

struct gw_log {
    gw_log_fn *fn; /* NULL: silent */
    void *ctx;
    enum gw_log_level level; /* the most talkative level wanted */
};

#ifdef __cplusplus
}
#endif
#endif

/* SPDX-License-Identifier: MIT */
/* core/base/log.h - say something to the operator, through the caller's gw_log_fn. Rare, lower
 * case, values with units, never per page. A NULL log is silence. */
#ifndef GW_BASE_LOG_H
#define GW_BASE_LOG_H

#include <godwit/log.h>

void gw_log(const struct gw_log *log, enum gw_log_level level, const char *component,
            const char *format, ...) GW_PRINTF(4, 5);

#define gw_log_warn(log, component, ...) gw_log(log, GW_LOG_WARN, component, __VA_ARGS__)
#define gw_log_info(log, component, ...) gw_log(log, GW_LOG_INFO, component, __VA_ARGS__)
#define gw_log_debug(log, component, ...) gw_log(log, GW_LOG_DEBUG, component, __VA_ARGS__)

#endif

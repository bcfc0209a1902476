/* SPDX-License-Identifier: MIT */
/* godwit/params.h - parameters and capabilities by QEMU's names, and the one parser of sizes and
 * rates. Names, types, defaults and meanings: gw_param_list(), `godwit send --set help`.
 * godwit's own carry the prefix "x-" (unstable) or have no counterpart in QEMU ("digest"). */
#ifndef GODWIT_PARAMS_H
#define GODWIT_PARAMS_H

#include <godwit/error.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gw_params; /* a set of values; a plain value: copied by those who take it */

GW_API struct gw_params *gw_params_new(void);         /* all defaults; NULL: out of memory */
GW_API void gw_params_free(struct gw_params *params); /* takes NULL */
/** gw_params_set() - @value as text: "200M", "on", "fail".
 *  Return: 0; -EINVAL (unknown name, with one that is near as hint; malformed or out of range value:
 *  @params is unchanged). */
GW_API int gw_params_set(struct gw_params *params, const char *name, const char *value,
                         struct gw_error *err);
/** gw_params_get() - the value as a number: bytes, bytes per second, milliseconds, 0 or 1, or the
 *  index of an enumeration. -ENOENT: no such name. */
GW_API int gw_params_get(const struct gw_params *params, const char *name, uint64_t *value);

struct gw_param_info {
    size_t struct_bytes;
    const char *name;
    const char *type;          /* "bytes", "bytes/s", "ms", "count", "bool", "one of a|b|c" */
    const char *default_value; /* as text */
    const char *help;          /* one line */
    bool live;                 /* gw_source_set() may change it while a migration runs */
};

/** gw_param_list() - the @index-th parameter; set info->struct_bytes first. Texts are static.
 *  Return false after the last. */
GW_API bool gw_param_list(unsigned index, struct gw_param_info *info);

/** gw_size_parse() - "4k" "2M" "1G" "1T": 1024-based bytes; "1GiB" as written (KiB MiB GiB TiB),
 *  "1GB" is refused. @rate: also "10Gbit" (decimal bits per second), "1GiB/s", "200M" is bytes per
 *  second. Fractions ("1.5G") are taken. Anything else: -EINVAL and a sentence. */
GW_API int gw_size_parse(const char *text, uint64_t *bytes, struct gw_error *err);
GW_API int gw_rate_parse(const char *text, uint64_t *bytes_per_second, struct gw_error *err);

#ifdef __cplusplus
}
#endif
#endif

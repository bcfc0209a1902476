/* SPDX-License-Identifier: MIT */
/* tools/analyze.h - what `godwit analyze` prints: a table, a document "godwit.analyze/1", differences. */
#ifndef GW_TOOLS_ANALYZE_H
#define GW_TOOLS_ANALYZE_H

#include <godwit/analyze.h>
#include <stdio.h>

void gw_analyze_table(const struct gw_analysis *analysis, FILE *out);

/* Written piece by piece: a stream may have more fields than there is memory for. Return: 0, or a negative
 * errno with @err set. */
int gw_analyze_json(struct gw_analysis *analysis, struct gw_analysis *other, FILE *out,
                    struct gw_error *err);

/* A line per difference; @found is given its words. */
typedef void gw_difference_fn(void *ctx, const char *what, const char *left, const char *right);
/* Return: how many differences, or a negative errno with @err set. */
int64_t gw_analyze_diff(struct gw_analysis *left, struct gw_analysis *right,
                        gw_difference_fn *found, void *ctx, struct gw_error *err);

#endif

/* SPDX-License-Identifier: MIT */
/* tools/picture.h - what happened in a migration, drawn with characters: its rounds, its downtime. */
#ifndef GW_TOOLS_PICTURE_H
#define GW_TOOLS_PICTURE_H

#include "tools/report.h"

#include <stdio.h>

/* Bars are scaled to the largest of their kind; rounds beyond 24 are summed up in one row. */
void gw_picture_rounds(const struct gw_report *report, FILE *out);
void gw_picture_downtime(const struct gw_report *report, FILE *out);

#endif

/* SPDX-License-Identifier: MIT */
/* tools/signals.h - SIGINT and SIGTERM: the first asks to cancel, the second kills. */
#ifndef GW_TOOLS_SIGNALS_H
#define GW_TOOLS_SIGNALS_H

#include <stdbool.h>

/* Before any thread is started. Return: 0 or a negative errno. */
int gw_signals_init(void);

/* Readable from the first signal on, for ever. -1 before gw_signals_init(). */
int gw_signals_fd(void);

/* Has the first signal come? */
bool gw_signals_seen(void);

#endif

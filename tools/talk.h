/* SPDX-License-Identifier: MIT */
/* tools/talk.h - everything the command says to a human, all of it on stderr. Each call writes whole
 * lines; the functions are safe from any thread, because the library logs from its own. */
#ifndef GW_TOOLS_TALK_H
#define GW_TOOLS_TALK_H

#include <godwit/error.h>
#include <godwit/log.h>
#include <stdbool.h>

/* The command's exit statuses: a contract with scripts. */
enum gw_exit {
    GW_EXIT_COMPLETED = 0,
    GW_EXIT_FAILED = 1, /* the guest runs on at the source, or never ran here */
    GW_EXIT_USAGE = 2,
    GW_EXIT_CANCELLED = 3,
    GW_EXIT_UNKNOWN = 4, /* source: the outcome of the handover is not known */
    GW_EXIT_CHECK = 5,   /* a check failed after the guest ran */
};

/* Who speaks ("send"), and whether notes and progress are wanted. Reads NO_COLOR and GODWIT_LOG. */
void gw_talk_init(const char *command, bool quiet);

void gw_talk_note(const char *format, ...) GW_PRINTF(1, 2);  /* silenced by quiet */
void gw_talk_warn(const char *format, ...) GW_PRINTF(1, 2);  /* silenced by quiet */
void gw_talk_error(const char *format, ...) GW_PRINTF(1, 2); /* never silenced */
void gw_talk_line(const char *format, ...) GW_PRINTF(1, 2);  /* never silenced, bare, one write */

/* One sentence and what to do; @hint may be NULL. Return: GW_EXIT_USAGE. */
int gw_talk_usage(const char *hint, const char *format, ...) GW_PRINTF(2, 3);

/* An error of the library: "@what: message", then place, phase, hint and the peer's words, each on a
 * line of its own if it says anything. */
void gw_talk_show(const char *what, const struct gw_error *err);

/* A progress line: on a terminal it replaces the one before, elsewhere it is a line. An empty text
 * takes the last one away. */
void gw_talk_progress(const char *text);
bool gw_talk_is_terminal(void);

/* For the library's remarks: notes and warnings, unless quiet; GODWIT_LOG=LEVEL[,COMPONENT] asks for
 * more or less. */
struct gw_log gw_talk_log(void);

#endif

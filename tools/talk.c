// SPDX-License-Identifier: MIT
/* What the command says. One lock guards stderr, because library threads log while the main thread
 * draws progress: a progress line on a terminal is wiped before anything else is written and comes
 * back with the next tick. Each text leaves as whole lines in one write, so two processes that share
 * a terminal (godwit try) do not mix their words. Nothing here fails: a closed stderr is silence. */
#include "tools/talk.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LINE_BYTES 2048

static pthread_mutex_t stderr_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    char command[32];
    bool quiet;
    bool terminal; /* stderr is one */
    bool colour;
    bool drawn; /* a progress line stands there */
    enum gw_log_level level;
    char component[32]; /* log only this one; "": all */
} talk = {.command = "godwit", .level = GW_LOG_INFO};

static void put_locked(const char *text, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(STDERR_FILENO, text, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        text += n;
        bytes -= (size_t)n;
    }
}

static void wipe_locked(void)
{
    if (talk.drawn)
        put_locked("\r\033[K", 4);
    talk.drawn = false;
}

static void put_line(const char *line)
{
    pthread_mutex_lock(&stderr_lock);
    wipe_locked();
    put_locked(line, strlen(line));
    pthread_mutex_unlock(&stderr_lock);
}

/* "godwit send: error: ..." with the word in colour where colour is wanted. */
static void GW_PRINTF(3, 0)
    put_word(const char *word, const char *colour, const char *format, va_list args)
{
    char text[LINE_BYTES], line[LINE_BYTES + 128];

    vsnprintf(text, sizeof(text), format, args);
    if (word[0] == '\0')
        snprintf(line, sizeof(line), "%s: %s\n", talk.command, text);
    else if (talk.colour)
        snprintf(line, sizeof(line), "%s: \033[%sm%s:\033[0m %s\n", talk.command, colour, word,
                 text);
    else
        snprintf(line, sizeof(line), "%s: %s: %s\n", talk.command, word, text);
    put_line(line);
}

static void read_log_wish(void)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    const char *wish = getenv("GODWIT_LOG");

    if (!wish)
        return;
    size_t length = strcspn(wish, ",");
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strlen(names[i]) == length && strncasecmp(wish, names[i], length) == 0)
            talk.level = (enum gw_log_level)i;
    }
    if (wish[length] == ',')
        snprintf(talk.component, sizeof(talk.component), "%s", wish + length + 1);
}

void gw_talk_init(const char *command, bool quiet)
{
    const char *no_colour = getenv("NO_COLOR");
    const char *term = getenv("TERM");

    snprintf(talk.command, sizeof(talk.command), "godwit%s%s", command[0] ? " " : "", command);
    talk.quiet = quiet;
    talk.terminal = isatty(STDERR_FILENO) && !(term && strcmp(term, "dumb") == 0);
    talk.colour = talk.terminal && !(no_colour && no_colour[0] != '\0');
    talk.level = quiet ? GW_LOG_ERROR : GW_LOG_INFO;
    talk.component[0] = '\0';
    read_log_wish();
}

void gw_talk_note(const char *format, ...)
{
    va_list args;

    if (talk.quiet)
        return;
    va_start(args, format);
    put_word("", "", format, args);
    va_end(args);
}

void gw_talk_warn(const char *format, ...)
{
    va_list args;

    if (talk.quiet)
        return;
    va_start(args, format);
    put_word("warning", "33", format, args);
    va_end(args);
}

void gw_talk_error(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    put_word("error", "31", format, args);
    va_end(args);
}

void gw_talk_line(const char *format, ...)
{
    char line[LINE_BYTES];
    va_list args;

    va_start(args, format);
    int length = vsnprintf(line, sizeof(line) - 1, format, args);
    va_end(args);
    if (length < 0)
        return;
    if ((size_t)length > sizeof(line) - 2)
        length = sizeof(line) - 2;
    line[length] = '\n';
    line[length + 1] = '\0';
    put_line(line);
}

int gw_talk_usage(const char *hint, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    put_word("error", "31", format, args);
    va_end(args);
    if (hint && hint[0] != '\0')
        gw_talk_line("  hint: %s", hint);
    return GW_EXIT_USAGE;
}

static void add_row(char *text, size_t bytes, const char *name, const char *value)
{
    size_t used = strlen(text);

    if (value[0] != '\0')
        snprintf(text + used, bytes - used, "\n  %s: %s", name, value);
}

void gw_talk_show(const char *what, const struct gw_error *err)
{
    char rows[4 * GW_ERROR_TEXT_BYTES + 64] = "";

    add_row(rows, sizeof(rows), "place", err->place);
    add_row(rows, sizeof(rows), "phase", err->phase);
    add_row(rows, sizeof(rows), "peer", err->peer);
    add_row(rows, sizeof(rows), "hint", err->hint);
    gw_talk_error("%s%s%s [%s]%s", what, what[0] ? ": " : "",
                  err->message[0] ? err->message : strerror(-err->rc), gw_code_name(err->code),
                  rows);
}

/* What fits: a line that wraps could not be wiped. */
static size_t columns_of_terminal(void)
{
    struct winsize size;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 79;
}

void gw_talk_progress(const char *text)
{
    char line[512];

    if (talk.quiet)
        return;
    pthread_mutex_lock(&stderr_lock);
    if (talk.terminal) {
        wipe_locked();
        put_locked(text, strnlen(text, columns_of_terminal()));
        talk.drawn = text[0] != '\0';
    } else if (text[0] != '\0') {
        int length = snprintf(line, sizeof(line), "%s: %s\n", talk.command, text);
        put_locked(line, (size_t)length < sizeof(line) ? (size_t)length : sizeof(line) - 1);
    }
    pthread_mutex_unlock(&stderr_lock);
}

bool gw_talk_is_terminal(void)
{
    return talk.terminal;
}

static void log_line(void *ctx, enum gw_log_level level, const char *component, const char *text)
{
    static const char *const words[] = {"error: ", "warning: ", "", "debug: "};
    (void)ctx;

    if (talk.component[0] != '\0' && strcmp(talk.component, component) != 0)
        return;
    gw_talk_line("%s: %s%s: %s", talk.command, (unsigned)level < 4 ? words[level] : "", component,
                 text);
}

struct gw_log gw_talk_log(void)
{
    return (struct gw_log){.fn = log_line, .level = talk.level};
}

// SPDX-License-Identifier: MIT
/* main: the table of subcommands. It finds the one that was named and hands it its arguments; what
 * the subcommand returns is the exit status. */
#include "tools/options.h"
#include "tools/signals.h"
#include "tools/talk.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static const struct gw_command *const commands[] = {
    &gw_cmd_try, &gw_cmd_send, &gw_cmd_receive, &gw_cmd_doctor, &gw_cmd_analyze, &gw_cmd_compat};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

/* Promised, not there: told apart from typing errors. */
static const struct {
    const char *name;
    const char *purpose;
} later[] = {
    {"save", "writes a guest to a file or pipe"},
    {"load", "reads a guest from a file or pipe"},
    {"bench", "measures migrations"},
};
#define LATER_COUNT (sizeof(later) / sizeof(later[0]))

static void print_help(FILE *out)
{
    fprintf(out, "godwit moves running guests between hosts.\n\n");
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        fprintf(out, "  godwit %-8s %-7s %s\n", commands[i]->name, commands[i]->operand,
                commands[i]->summary);
    fprintf(
        out,
        "\n  godwit SUBCOMMAND --help\n  godwit --version\n\n"
        "Exit status: 0 completed, 1 failed (the guest runs on at the source, or never ran\n"
        "here), 2 usage, 3 cancelled, 4 outcome unknown, 5 a check failed after the guest ran.\n");
}

static void print_version(void)
{
    printf("godwit %d.%d.%d\nlibrary: %s\nbuild: %s\njansson: %s\n", GW_VERSION_MAJOR,
           GW_VERSION_MINOR, GW_VERSION_PATCH, gw_version(), gw_build_features(),
           jansson_version_str());
}

static int unknown_command(const char *name)
{
    const char *names[COMMAND_COUNT + LATER_COUNT];
    char hint[96];

    for (unsigned i = 0; i < LATER_COUNT; i++) {
        if (strcmp(name, later[i].name) == 0)
            return gw_talk_usage("`godwit --help` lists what works",
                                 "`godwit %s`, which %s, is not in this version yet", name,
                                 later[i].purpose);
    }
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        names[i] = commands[i]->name;
    names[COMMAND_COUNT] = "--help";
    names[COMMAND_COUNT + 1] = "--version";
    const char *nearest = gw_nearest_word(name, names, COMMAND_COUNT + 2);
    if (nearest)
        snprintf(hint, sizeof(hint), "did you mean `godwit %s`?", nearest);
    else
        snprintf(hint, sizeof(hint), "`godwit --help` lists them");
    return gw_talk_usage(hint, "there is no %s '%s'", name[0] == '-' ? "option" : "subcommand",
                         name);
}

static const struct gw_command *find(const char *name)
{
    for (unsigned i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    }
    return NULL;
}

/* A caller may have closed our standard streams. The next descriptors opened here would take their
 * numbers, and what is said to a human would go into a guest's memory or to its target. In the place
 * of a closed stdout stands one that cannot be written, so that data that goes nowhere is an error. */
static void keep_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)open("/dev/null", fd == 2 ? O_WRONLY : O_RDONLY); /* the lowest free is @fd */
    }
}

static int help(int argc, char **argv)
{
    const struct gw_command *command = argc > 2 ? find(argv[2]) : NULL;

    if (argc > 3)
        return gw_talk_usage("`godwit help SUBCOMMAND`", "'%s' is one argument too many", argv[3]);
    if (argc > 2 && !command)
        return unknown_command(argv[2]);
    if (command)
        gw_options_help(command, stdout);
    else
        print_help(stdout);
    return GW_EXIT_COMPLETED;
}

static int version(int argc, char **argv)
{
    if (argc > 2)
        return gw_talk_usage("`godwit --version` stands alone", "'%s' is one argument too many",
                             argv[2]);
    print_version();
    return GW_EXIT_COMPLETED;
}

/* A full disk must not look like success where the data went to stdout. */
static int close_stdout(int status)
{
    if (fflush(stdout) == EOF && status == GW_EXIT_COMPLETED) {
        gw_talk_error("stdout could not be written");
        return GW_EXIT_FAILED;
    }
    return status;
}

/* argv[0] is the subcommand. */
static int run(const struct gw_command *command, int argc, char **argv)
{
    struct gw_options options;

    if (gw_options_init(&options) < 0) {
        gw_talk_error("out of memory");
        return GW_EXIT_FAILED;
    }
    if (command->set_defaults)
        command->set_defaults(&options);
    int status = gw_options_parse(&options, command, argc, argv);
    if (status < 0 && command->hears_signals && gw_signals_init() < 0) {
        gw_talk_error("signals cannot be handled");
        status = GW_EXIT_FAILED;
    }
    if (status < 0)
        status = command->run(&options);
    gw_options_fini(&options);
    return status;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    keep_standard_streams();
    signal(SIGPIPE, SIG_IGN); /* a reader that left is an error to tell, not a death */
    gw_talk_init("", false);
    if (argc < 2) {
        print_help(stderr);
        return GW_EXIT_USAGE;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)
        return close_stdout(help(argc, argv));
    if (strcmp(name, "--version") == 0)
        return close_stdout(version(argc, argv));
    const struct gw_command *command = find(name);
    return command ? close_stdout(run(command, argc - 1, argv + 1)) : unknown_command(name);
}

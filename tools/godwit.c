// SPDX-License-Identifier: MIT
/* main: the table of subcommands. It finds the one that was named and hands it its arguments; what
 * the subcommand returns is the exit status. */
#include "tools/options.h"
#include "tools/talk.h"

#include <jansson.h>
#include <string.h>

static const struct gw_command *const commands[] = {&gw_cmd_try, &gw_cmd_send, &gw_cmd_receive,
                                                    &gw_cmd_doctor};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

/* Promised, not there: told apart from typing errors. */
static const struct {
    const char *name;
    const char *purpose;
} later[] = {
    {"save", "writes a guest to a file or pipe"},
    {"load", "reads a guest from a file or pipe"},
    {"analyze", "reads a recorded stream"},
    {"bench", "measures migrations"},
};
#define LATER_COUNT (sizeof(later) / sizeof(later[0]))

static void print_help(FILE *out)
{
    fprintf(out, "godwit moves running guests between hosts.\n\n");
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        fprintf(out, "  godwit %-8s %-6s %s\n", commands[i]->name, commands[i]->operand,
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

/* A full disk must not look like success where the data went to stdout. */
static int close_stdout(int status)
{
    if (fflush(stdout) == EOF && status == GW_EXIT_COMPLETED) {
        gw_talk_error("stdout could not be written");
        return GW_EXIT_FAILED;
    }
    return status;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    gw_talk_init("", false);
    if (argc < 2) {
        print_help(stderr);
        return GW_EXIT_USAGE;
    }
    if (strcmp(name, "help") == 0 && argc == 3 && find(argv[2])) {
        gw_options_help(find(argv[2]), stdout);
        return close_stdout(GW_EXIT_COMPLETED);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help(stdout);
        return close_stdout(GW_EXIT_COMPLETED);
    }
    if (strcmp(name, "--version") == 0) {
        print_version();
        return close_stdout(GW_EXIT_COMPLETED);
    }
    const struct gw_command *command = find(name);
    return command ? close_stdout(command->run(argc - 1, argv + 1)) : unknown_command(name);
}

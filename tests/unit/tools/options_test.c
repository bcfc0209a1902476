// SPDX-License-Identifier: MIT
/* The command line: what is taken, what is refused with which status, what is suggested instead. What
 * is said on stderr is caught in a file. */
#include "tests/shim/gw_test.h"
#include "tools/options.h"
#include "tools/talk.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct gw_options options;
static char said[4096];

/* Parse `godwit NAME words...` and keep what was said. */
static int parse(const struct gw_command *command, const char *const *words)
{
    static char copies[24][128];
    char *argv[25];
    int argc = 1;

    snprintf(copies[0], sizeof(copies[0]), "%s", command->name);
    argv[0] = copies[0];
    for (; *words; words++, argc++) {
        snprintf(copies[argc], sizeof(copies[argc]), "%s", *words);
        argv[argc] = copies[argc];
    }
    argv[argc] = NULL;
    int file = memfd_create("stderr", MFD_CLOEXEC);
    int kept = dup(STDERR_FILENO);
    dup2(file, STDERR_FILENO);
    gw_options_fini(&options);
    GW_EXPECT_EQ(gw_options_init(&options), 0);
    int status = gw_options_parse(&options, command, argc, argv);
    dup2(kept, STDERR_FILENO);
    ssize_t bytes = pread(file, said, sizeof(said) - 1, 0);
    said[bytes > 0 ? bytes : 0] = '\0';
    close(kept);
    close(file);
    return status;
}

#define PARSE(command, ...) parse(&(command), (const char *const[]){__VA_ARGS__, NULL})

static bool said_so(const char *text)
{
    if (strstr(said, text))
        return true;
    GW_NOTE_FAILURE("not said: '%s' but '%s'", text, said);
    return false;
}

static uint64_t set_to(const char *name)
{
    uint64_t value = UINT64_MAX;

    GW_EXPECT_EQ(gw_params_get(options.params, name, &value), 0);
    return value;
}

GW_TEST(options, defaults_are_those_of_the_contract)
{
    GW_ASSERT_EQ(PARSE(gw_cmd_send, "tcp:h:1"), -1);
    GW_EXPECT_STREQ(options.uri, "tcp:h:1");
    GW_EXPECT_EQ(options.guest.ram_bytes, UINT64_C(1) << 30);
    GW_EXPECT_EQ(options.guest.vcpus, 1);
    GW_EXPECT_EQ(options.guest.memory, GW_BLOCK_ANON);
    GW_EXPECT_EQ(options.guest.fill, GW_FILL_RANDOM);
    GW_EXPECT_EQ(options.guest.pattern, GW_PATTERN_UNIFORM);
    GW_EXPECT_EQ(options.guest.dirty_rate, 0);
    GW_EXPECT_EQ(options.guest.seed, 1);
    GW_EXPECT_EQ(options.guest.device_state_bytes, 0);
    GW_EXPECT(options.warmup_s == 1.0);
    GW_EXPECT(options.run_for_s == 1.0);
    GW_EXPECT(!options.hold && !options.quiet && !options.serve);
    GW_EXPECT_EQ(set_to("x-connect-timeout"), 5000);
    GW_EXPECT_EQ(set_to("digest"), 0);
}

GW_TEST(options, values_stand_behind_a_space_or_an_equals_sign_in_any_order)
{
    GW_ASSERT_EQ(PARSE(gw_cmd_send, "--ram=2M", "tcp:h:1", "--vcpus", "2", "--digest"), -1);
    GW_EXPECT_EQ(options.guest.ram_bytes, 2u << 20);
    GW_EXPECT_EQ(options.guest.vcpus, 2);
    GW_EXPECT_EQ(set_to("digest"), 1);
    GW_EXPECT_STREQ(options.uri, "tcp:h:1");
}

GW_TEST(options, set_reaches_the_parameters)
{
    GW_ASSERT_EQ(PARSE(gw_cmd_send, "tcp:h:1", "--set", "max-bandwidth=200M", "--set",
                       "multifd-channels=4", "--connect-timeout", "0.25"),
                 -1);
    GW_EXPECT_EQ(set_to("max-bandwidth"), 200u << 20);
    GW_EXPECT_EQ(set_to("multifd-channels"), 4);
    GW_EXPECT_EQ(set_to("x-connect-timeout"), 250);
    GW_EXPECT_EQ(options.set_count, 2);
}

GW_TEST(options, an_unknown_parameter_is_refused_with_the_nearest_one)
{
    GW_EXPECT_EQ(PARSE(gw_cmd_send, "tcp:h:1", "--set", "max-bandwith=1M"), GW_EXIT_USAGE);
    said_so("max-bandwith");
    said_so("max-bandwidth");
}

GW_TEST(options, an_unknown_option_is_refused_with_the_nearest_one)
{
    GW_EXPECT_EQ(PARSE(gw_cmd_send, "tcp:h:1", "--vcpu=2"), GW_EXIT_USAGE);
    said_so("there is no option '--vcpu'");
    said_so("did you mean --vcpus?");
    GW_EXPECT_EQ(PARSE(gw_cmd_receive, "tcp:h:1", "--completely-else"), GW_EXIT_USAGE);
    said_so("godwit receive --help");
}

GW_TEST(options, an_abbreviation_is_not_taken)
{
    GW_EXPECT_EQ(PARSE(gw_cmd_send, "tcp:h:1", "--dirty", "1M"), GW_EXIT_USAGE);
    said_so("did you mean --dirty-rate?");
}

GW_TEST(options, an_option_of_another_subcommand_is_refused)
{
    GW_EXPECT_EQ(PARSE(gw_cmd_send, "tcp:h:1", "--serve"), GW_EXIT_USAGE);
    GW_EXPECT_EQ(PARSE(gw_cmd_receive, "tcp:h:1", "--dirty-rate", "1M"), GW_EXIT_USAGE);
}

GW_TEST(options, what_is_missing_or_too_much_is_named)
{
    GW_EXPECT_EQ(PARSE(gw_cmd_send, "--quiet"), GW_EXIT_USAGE);
    said_so("the address is missing");
    GW_EXPECT_EQ(PARSE(gw_cmd_send, "tcp:h:1", "tcp:h:2"), GW_EXIT_USAGE);
    said_so("'tcp:h:2' is one argument too many");
    said_so("hint: ");
    GW_EXPECT_EQ(PARSE(gw_cmd_send, "tcp:h:1", "--ram"), GW_EXIT_USAGE);
    said_so("--ram needs a value");
    GW_EXPECT_EQ(PARSE(gw_cmd_receive, "tcp:h:1", "--serve=yes"), GW_EXIT_USAGE);
    said_so("--serve takes no value");
    said_so("hint: ");
}

GW_TEST(options, malformed_values_are_refused_with_a_sentence_that_names_the_option)
{
    static const char *const wrong[][2] = {
        {"--ram", "1GB"},
        {"--ram", "-1"},
        {"--vcpus", "many"},
        {"--memory", "paper"},
        {"--fill", "full"},
        {"--pattern", "hot:9"},
        {"--dirty-rate", "1Gb"},
        {"--warmup", "later"},
        {"--warmup", "-1"},
        {"--warmup", "nan"},
        {"--warmup", "0x1p3"},
        {"--warmup", " 1"},
        {"--warmup", "1e7"},
        {"--warmup", "."},
        {"--warmup", "1.2.3"},
        {"--warmup", "9999999"},
        {"--connect-timeout", "3601"},
        {"--vcpus", "0"},
        {"--vcpus", "257"},
        {"--fill", "mixed:101"},
        {"--pattern", "zipf:nan"},
        {"--dirty-rate", "200M/s"},
        {"--seed", "x"},
        {"--on-unknown", "cry"},
        {"--connect-timeout", "soon"},
    };

    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        GW_EXPECT_EQ(PARSE(gw_cmd_send, "tcp:h:1", wrong[i][0], wrong[i][1]), GW_EXIT_USAGE);
        said_so(wrong[i][0]);
        said_so(wrong[i][1]);
        said_so("hint: ");
    }
    GW_EXPECT_EQ(PARSE(gw_cmd_send, "tcp:h:1", "--set", "digest"), GW_EXIT_USAGE);
    said_so("is not NAME=VALUE");
}

GW_TEST(options, a_wrong_value_names_its_option_once)
{
    GW_EXPECT_EQ(PARSE(gw_cmd_send, "tcp:h:1", "--vcpus", "many"), GW_EXIT_USAGE);
    said_so("error: --vcpus: 'many'");
}

GW_TEST(options, a_guest_that_cannot_be_is_refused_with_the_option_that_helps)
{
    static const char *const wrong[][3] = {
        {"--ram=1000", "--vcpus=1", "hint: --ram"},
        {"--ram=0", "--vcpus=1", "hint: --ram"},
        {"--ram=17T", "--vcpus=1", "hint: --ram"},
        {"--ram=3M", "--memory=hugetlb", "hint: --ram"},
        {"--ram=8k", "--vcpus=3", "more --ram"},
        {"--ram=1M", "--device-state=65G", "hint: --device-state"},
    };

    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        GW_EXPECT_EQ(PARSE(gw_cmd_send, "tcp:h:1", wrong[i][0], wrong[i][1]), GW_EXIT_USAGE);
        said_so(wrong[i][2]);
        GW_EXPECT_EQ(PARSE(gw_cmd_try, wrong[i][0], wrong[i][1]), GW_EXIT_USAGE);
    }
}

GW_TEST(options, a_count_with_a_leading_zero_is_decimal)
{
    GW_ASSERT_EQ(
        PARSE(gw_cmd_send, "tcp:h:1", "--vcpus", "010", "--fill", "mixed:050", "--seed", "0x10"),
        -1);
    GW_EXPECT_EQ(options.guest.vcpus, 10);
    GW_EXPECT_EQ(options.guest.percent_zero, 50);
    GW_EXPECT_EQ(options.guest.seed, 16);
}

GW_TEST(options, document_and_events_cannot_have_one_file)
{
    GW_EXPECT_EQ(PARSE(gw_cmd_send, "tcp:h:1", "--json", "f", "--events", "f"), GW_EXIT_USAGE);
    said_so("--json and --events");
    GW_EXPECT_EQ(PARSE(gw_cmd_send, "tcp:h:1", "--json", "f", "--events", "g"), -1);
}

GW_TEST(options, receive_knows_what_the_contract_lists)
{
    GW_ASSERT_EQ(PARSE(gw_cmd_receive, "unix:/run/s", "--prealloc", "64M", "--memory", "memfd",
                       "--run-for", "0.5", "--ram-max", "2G", "--serve", "--quiet"),
                 -1);
    GW_EXPECT_EQ(options.prealloc_bytes, 64u << 20);
    GW_EXPECT_EQ(options.memory, GW_BLOCK_MEMFD);
    GW_EXPECT(options.run_for_s == 0.5);
    GW_EXPECT_EQ(options.ram_bytes_max, UINT64_C(2) << 30);
    GW_EXPECT(options.serve && options.quiet);
}

GW_TEST(options, hold_is_asked_for_by_name)
{
    GW_ASSERT_EQ(PARSE(gw_cmd_send, "tcp:h:1", "--on-unknown", "hold"), -1);
    GW_EXPECT(options.hold);
    GW_ASSERT_EQ(PARSE(gw_cmd_send, "tcp:h:1", "--on-unknown=exit"), -1);
    GW_EXPECT(!options.hold);
}

static void help_fits(const struct gw_command *command)
{
    char text[8192] = "";
    FILE *file = fmemopen(text, sizeof(text), "w");
    unsigned lines = 0;

    gw_options_help(command, file);
    fclose(file);
    for (const char *line = text; *line; lines++) {
        size_t length = strcspn(line, "\n");
        if (!GW_EXPECT_LE(length, 80))
            GW_NOTE_FAILURE("too wide: %.*s", (int)length, line);
        line += length + 1;
    }
    GW_EXPECT_LE(lines, 24);
    GW_EXPECT(strstr(text, command->summary) != NULL);
}

GW_TEST(options, help_fits_a_screen_of_24_lines_and_80_columns)
{
    help_fits(&gw_cmd_send);
    help_fits(&gw_cmd_receive);
    help_fits(&gw_cmd_try);
    help_fits(&gw_cmd_doctor);
}

GW_TEST(options, the_nearest_word_is_near)
{
    static const char *const words[] = {"send", "receive", "try", "doctor"};

    GW_EXPECT_STREQ(gw_nearest_word("sned", words, 4), "send");
    GW_EXPECT_STREQ(gw_nearest_word("recieve", words, 4), "receive");
    GW_EXPECT_STREQ(gw_nearest_word("docter", words, 4), "doctor");
    GW_EXPECT(gw_nearest_word("migrate-everything", words, 4) == NULL);
}

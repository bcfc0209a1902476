// SPDX-License-Identifier: MIT
/* The command line. getopt_long(3) splits it; a table says what each option takes and who has it, so a
 * subcommand's help and its parser cannot disagree. Options are taken by their whole names only: an
 * abbreviation that works today would break the script that uses it when a new option arrives. The
 * first thing that is wrong ends it: one sentence, a hint, status 2. */
#include "tools/options.h"

#include "tools/talk.h"

#include <errno.h>
#include <getopt.h>
#include <godwit/doctor.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FOR_GUEST (GW_FOR_SEND | GW_FOR_TRY)
#define FOR_RUN (GW_FOR_SEND | GW_FOR_RECEIVE | GW_FOR_TRY)
#define FOR_TARGET (GW_FOR_RECEIVE | GW_FOR_TRY)
#define FOR_ALL (FOR_RUN | GW_FOR_DOCTOR | GW_FOR_ANALYZE | GW_FOR_COMPAT)

#define SECONDS_MAX 1e6
#define CONNECT_SECONDS_MAX 3600.0 /* x-connect-timeout's */

enum option_id {
    OPTION_GUEST = 256, /* a guest's: gw_guest_config_set() knows it */
    OPTION_WARMUP,
    OPTION_SET,
    OPTION_CONNECT_TIMEOUT,
    OPTION_ON_UNKNOWN,
    OPTION_RAM_MAX,
    OPTION_PREALLOC,
    OPTION_MEMORY,
    OPTION_RUN_FOR,
    OPTION_DISK,
    OPTION_SERVE,
    OPTION_WIRE,
    OPTION_DIGEST,
    OPTION_JSON,
    OPTION_DOCUMENT,
    OPTION_EXTRACT,
    OPTION_VERIFY,
    OPTION_DIFF,
    OPTION_EVENTS,
    OPTION_QUIET,
    OPTION_HELP,
};

struct option_row {
    const char *name;
    const char *argument; /* NULL: takes none */
    enum option_id id;
    unsigned commands; /* GW_FOR_* */
    const char *help;
};

static const struct option_row rows[] = {
    {"ram", "SIZE", OPTION_GUEST, FOR_GUEST, "guest memory (1G)"},
    {"vcpus", "N", OPTION_GUEST, FOR_GUEST, "threads that write it (1)"},
    {"memory", "KIND", OPTION_GUEST, FOR_GUEST, "anon, memfd or hugetlb (anon)"},
    {"fill", "WHAT", OPTION_GUEST, FOR_GUEST, "random zero text mixed:%ZERO file:PATH (random)"},
    {"pattern", "WHAT", OPTION_GUEST, FOR_GUEST,
     "uniform zipf:T hot:WRITES/PAGES sequential (uniform)"},
    {"dirty-rate", "RATE", OPTION_GUEST, FOR_GUEST,
     "bytes of pages written a second (0; try: 200M)"},
    {"seed", "N", OPTION_GUEST, FOR_GUEST, "of the fill and the pattern (1)"},
    {"device-state", "SIZE", OPTION_GUEST, FOR_GUEST,
     "bytes of device state beside the vCPUs' (0)"},
    {"disk", "FILE", OPTION_DISK, GW_FOR_SEND | GW_FOR_RECEIVE,
     "its disk, the same file at both ends; written over"},
    {"warmup", "SECONDS", OPTION_WARMUP, FOR_GUEST, "the guest runs so long before it moves (1)"},
    {"prealloc", "SIZE", OPTION_PREALLOC, GW_FOR_RECEIVE, "touch so much memory before listening"},
    {"memory", "KIND", OPTION_MEMORY, GW_FOR_RECEIVE,
     "of the guest here (the source's; prealloc: anon)"},
    {"ram-max", "SIZE", OPTION_RAM_MAX, GW_FOR_RECEIVE,
     "refuse a larger guest (half of the free memory)"},
    {"run-for", "SECONDS", OPTION_RUN_FOR, FOR_TARGET, "let the guest write on so long (1)"},
    {"serve", NULL, OPTION_SERVE, GW_FOR_RECEIVE, "go on taking guests"},
    {"wire", "NAME", OPTION_WIRE, GW_FOR_TRY, "tcp (loopback) or unix (tcp)"},
    {"set", "NAME=VALUE", OPTION_SET, FOR_RUN, "a migration parameter; `--set help` lists them"},
    {"connect-timeout", "SECONDS", OPTION_CONNECT_TIMEOUT, GW_FOR_SEND,
     "try a refused address so long (5)"},
    {"on-unknown", "WHAT", OPTION_ON_UNKNOWN, GW_FOR_SEND,
     "exit (status 4) or hold (stay paused, ask on) (exit)"},
    {"digest", NULL, OPTION_DIGEST, FOR_GUEST, "compare all memory of both ends in the pause"},
    {"json", "FILE", OPTION_JSON, FOR_RUN, "write one document at the end; `-`: stdout"},
    {"json", NULL, OPTION_DOCUMENT, GW_FOR_DOCTOR | GW_FOR_ANALYZE | GW_FOR_COMPAT,
     "write one document instead of lines"},
    {"extract", "DIR", OPTION_EXTRACT, GW_FOR_ANALYZE, "write memory and device states to files"},
    {"verify", NULL, OPTION_VERIFY, GW_FOR_ANALYZE,
     "status 5 if anything is wrong with the stream"},
    {"diff", "OTHER", OPTION_DIFF, GW_FOR_ANALYZE, "say how another stream differs"},
    {"events", "FILE", OPTION_EVENTS, FOR_RUN, "write a line as each event happens"},
    {"quiet", NULL, OPTION_QUIET, FOR_ALL, "no progress, no notes; errors all the same"},
    {"help", NULL, OPTION_HELP, FOR_ALL, "this screen"},
};

#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

/* ---- words and amounts ------------------------------------------------------------------------ */

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Edits (insert, delete, replace) from @a to @b; beyond 39 characters they are not told apart. */
static unsigned distance(const char *a, const char *b)
{
    enum { LONGEST = 40 };
    unsigned row[LONGEST];
    size_t columns = strnlen(b, LONGEST - 1);

    for (unsigned j = 0; j <= columns; j++)
        row[j] = j;
    for (unsigned i = 1; i < LONGEST && a[i - 1]; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= columns; j++) {
            unsigned replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = least(replaced, least(row[j], row[j - 1]) + 1);
        }
    }
    return row[columns];
}

const char *gw_nearest_word(const char *word, const char *const *words, unsigned count)
{
    unsigned nearest = 1 + (unsigned)strlen(word) / 3; /* further away it is another word */
    const char *best = NULL;

    for (unsigned i = 0; i < count; i++) {
        unsigned edits = distance(word, words[i]);
        if (edits < nearest || (edits == nearest && !best)) {
            nearest = edits;
            best = words[i];
        }
    }
    return best;
}

void gw_amount_text(double bytes, bool rate, char text[24])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    unsigned unit = 0;

    while (bytes >= 1024 && unit < 4) {
        bytes /= 1024;
        unit++;
    }
    snprintf(text, 24, "%.*f %s%s", unit == 0 || bytes >= 99.95 ? 0 : 1, bytes, units[unit],
             rate ? "/s" : "");
}

uint64_t gw_options_ram_max(void)
{
    return gw_guest_memory_free(false) / 2;
}

/* ---- values ----------------------------------------------------------------------------------- */

static int wrong_value(const struct option_row *row, const struct gw_error *err)
{
    size_t length = strlen(row->name);

    if (strncmp(err->message, row->name, length) == 0 && err->message[length] == ':')
        return gw_talk_usage(err->hint, "--%s", err->message); /* it names the option itself */
    return gw_talk_usage(err->hint, "--%s: %s", row->name, err->message);
}

static int take_size(const struct option_row *row, const char *value, uint64_t *bytes)
{
    struct gw_error err = GW_ERROR_INIT;

    return gw_size_parse(value, bytes, &err) < 0 ? wrong_value(row, &err) : -1;
}

static int take_seconds(const struct option_row *row, const char *value, double max,
                        double *seconds)
{
    char hint[64];

    /* strtod(3) would also take "0x1p3", "inf" and what stands behind a space. */
    if (value[0] == '\0' || value[strspn(value, "0123456789.")] != '\0' ||
        strcmp(value, ".") == 0 || strchr(value, '.') != strrchr(value, '.'))
        return gw_talk_usage("write 5 or 0.5", "--%s: '%s' is not a number of seconds", row->name,
                             value);
    double number = strtod(value, NULL);
    if (!(number <= max)) {
        snprintf(hint, sizeof(hint), "at most %.0f", max);
        return gw_talk_usage(hint, "--%s: %s seconds are too many", row->name, value);
    }
    *seconds = number;
    return -1;
}

static int take_word(const struct option_row *row, const char *value, const char *const *words,
                     unsigned count, unsigned *index)
{
    char hint[128] = "it is one of";

    for (unsigned i = 0; i < count; i++) {
        size_t used = strlen(hint);
        if (strcmp(value, words[i]) == 0) {
            *index = i;
            return -1;
        }
        snprintf(hint + used, sizeof(hint) - used, "%s %s", i ? "," : "", words[i]);
    }
    return gw_talk_usage(hint, "--%s: there is no '%s'", row->name, value);
}

static int take_param(struct gw_options *options, char *value)
{
    struct gw_error err = GW_ERROR_INIT;
    const char *equals = strchr(value, '=');
    char name[64];

    if (strcmp(value, "help") == 0) {
        gw_options_list_params(stdout);
        return GW_EXIT_COMPLETED;
    }
    if (!equals || equals == value || (size_t)(equals - value) >= sizeof(name))
        return gw_talk_usage("for example --set max-bandwidth=200M; `--set help` lists them",
                             "--set: '%s' is not NAME=VALUE", value);
    snprintf(name, sizeof(name), "%.*s", (int)(equals - value), value);
    if (gw_params_set(options->params, name, equals + 1, &err) < 0)
        return gw_talk_usage(err.hint, "--set: %s", err.message);
    if (options->set_count == sizeof(options->set) / sizeof(options->set[0]))
        return gw_talk_usage("at most 64 times", "--set: given too often");
    options->set[options->set_count++] = value;
    return -1;
}

static int take_connect_timeout(struct gw_options *options, const struct option_row *row,
                                const char *value)
{
    struct gw_error err = GW_ERROR_INIT;
    double seconds = 0;
    char ms[32];
    int status = take_seconds(row, value, CONNECT_SECONDS_MAX, &seconds);

    if (status >= 0)
        return status;
    snprintf(ms, sizeof(ms), "%.0f", ceil(seconds * 1000));
    if (gw_params_set(options->params, "x-connect-timeout", ms, &err) < 0)
        return wrong_value(row, &err);
    return -1;
}

static int take_guest_setting(struct gw_options *options, const struct option_row *row,
                              const char *value)
{
    struct gw_error err = GW_ERROR_INIT;

    if (gw_guest_config_set(&options->guest, row->name, value, &err) < 0)
        return wrong_value(row, &err);
    return -1;
}

static int take_choice(struct gw_options *options, const struct option_row *row, const char *value)
{
    static const char *const kinds[] = {"anon", "memfd", "hugetlb"}; /* as enum gw_block_kind */
    static const char *const unknown[] = {"exit", "hold"};
    static const char *const wires[] = {"tcp", "unix"};
    unsigned index = 0;
    int status;

    switch (row->id) {
    case OPTION_MEMORY:
        status = take_word(row, value, kinds, 3, &index);
        options->memory = (enum gw_block_kind)index;
        options->memory_given = true;
        return status;
    case OPTION_ON_UNKNOWN:
        status = take_word(row, value, unknown, 2, &index);
        options->hold = index == 1;
        return status;
    default:
        status = take_word(row, value, wires, 2, &index);
        options->wire = wires[index];
        return status;
    }
}

static int take_flag(struct gw_options *options, const struct option_row *row)
{
    switch (row->id) {
    case OPTION_SERVE:
        options->serve = true;
        break;
    case OPTION_DIGEST:
        options->digest = gw_params_set(options->params, "digest", "on", NULL) == 0;
        break;
    case OPTION_DOCUMENT:
        options->document = true;
        break;
    case OPTION_VERIFY:
        options->verify = true;
        break;
    default: /* quiet was seen before the others */
        break;
    }
    return -1;
}

static int take(struct gw_options *options, const struct option_row *row, char *value)
{
    switch (row->id) {
    case OPTION_GUEST:
        return take_guest_setting(options, row, value);
    case OPTION_WARMUP:
        return take_seconds(row, value, SECONDS_MAX, &options->warmup_s);
    case OPTION_SET:
        return take_param(options, value);
    case OPTION_CONNECT_TIMEOUT:
        return take_connect_timeout(options, row, value);
    case OPTION_RAM_MAX:
        return take_size(row, value, &options->ram_bytes_max);
    case OPTION_PREALLOC:
        return take_size(row, value, &options->prealloc_bytes);
    case OPTION_RUN_FOR:
        return take_seconds(row, value, SECONDS_MAX, &options->run_for_s);
    case OPTION_DISK:
        options->disk = value;
        return -1;
    case OPTION_JSON:
        options->json = value;
        return -1;
    case OPTION_EVENTS:
        options->events = value;
        return -1;
    case OPTION_EXTRACT:
        options->extract = value;
        return -1;
    case OPTION_DIFF:
        options->other = value;
        return -1;
    case OPTION_MEMORY:
    case OPTION_ON_UNKNOWN:
    case OPTION_WIRE:
        return take_choice(options, row, value);
    case OPTION_SERVE:
    case OPTION_DIGEST:
    case OPTION_DOCUMENT:
    case OPTION_VERIFY:
    case OPTION_QUIET:
    case OPTION_HELP:
        break;
    }
    return take_flag(options, row);
}

/* ---- the line --------------------------------------------------------------------------------- */

int gw_options_init(struct gw_options *options)
{
    *options = (struct gw_options){.wire = "tcp", .run_for_s = 1, .warmup_s = 1};
    gw_guest_config_init(&options->guest);
    options->params = gw_params_new();
    return options->params ? 0 : -ENOMEM;
}

void gw_options_fini(struct gw_options *options)
{
    gw_params_free(options->params);
    options->params = NULL;
}

/* The rows of @command as getopt wants them; .val is the row's index + 1000. */
static unsigned table_of(const struct gw_command *command, struct option table[ROW_COUNT + 1])
{
    unsigned count = 0;

    for (unsigned i = 0; i < ROW_COUNT; i++) {
        if (rows[i].commands & command->bit)
            table[count++] =
                (struct option){rows[i].name, rows[i].argument ? required_argument : no_argument,
                                NULL, 1000 + (int)i};
    }
    table[count] = (struct option){0};
    return count;
}

static int unknown_option(const struct gw_command *command, const char *token)
{
    const char *names[ROW_COUNT];
    char word[64], hint[128];
    unsigned count = 0;

    for (unsigned i = 0; i < ROW_COUNT; i++) {
        if (rows[i].commands & command->bit)
            names[count++] = rows[i].name;
    }
    snprintf(word, sizeof(word), "%.*s", (int)strcspn(token, "="), token);
    const char *bare = word + strspn(word, "-");
    const char *nearest = gw_nearest_word(bare, names, count);
    for (unsigned i = 0; !nearest && i < count; i++) {
        if (bare[0] != '\0' && strncmp(names[i], bare, strlen(bare)) == 0)
            nearest = names[i];
    }
    if (nearest)
        snprintf(hint, sizeof(hint), "did you mean --%s?", nearest);
    else
        snprintf(hint, sizeof(hint), "`godwit %s --help` lists what there is", command->name);
    return gw_talk_usage(hint, "there is no option '%s'", word);
}

/* Was @token written in full? getopt also takes abbreviations. */
static bool is_exact(const char *token, const char *name)
{
    size_t length = strlen(name);

    return strncmp(token, "--", 2) == 0 && strncmp(token + 2, name, length) == 0 &&
           (token[2 + length] == '\0' || token[2 + length] == '=');
}

static int take_operand(struct gw_options *options, const struct gw_command *command,
                        const char *text)
{
    if (command->operand[0] == '\0')
        return gw_talk_usage("it takes options only", "'%s' is one argument too many", text);
    if (command->bit == GW_FOR_COMPAT && options->uri && !options->other) {
        options->other = text;
        return -1;
    }
    if (command->bit == GW_FOR_COMPAT && options->uri)
        return gw_talk_usage("two are compared", "'%s' is one argument too many", text);
    if (options->uri)
        return gw_talk_usage("leave one of them out",
                             "'%s' is one argument too many: the %s is '%s'", text,
                             command->bit == GW_FOR_ANALYZE ? "file" : "address", options->uri);
    options->uri = text;
    return -1;
}

static int parse_one(struct gw_options *options, const struct gw_command *command, int code,
                     const char *token)
{
    char hint[96];

    if (code == 1)
        return take_operand(options, command, optarg);
    if (code == 'h') {
        gw_options_help(command, stdout);
        return GW_EXIT_COMPLETED;
    }
    if (code == 'q')
        return -1;
    if (code == ':' && optopt >= 1000) {
        const struct option_row *row = &rows[optopt - 1000];
        snprintf(hint, sizeof(hint), "write --%s %s", row->name, row->argument);
        return gw_talk_usage(hint, "--%s needs a value", row->name);
    }
    if (code < 1000 && optopt >= 1000) {
        snprintf(hint, sizeof(hint), "write --%s alone", rows[optopt - 1000].name);
        return gw_talk_usage(hint, "--%s takes no value", rows[optopt - 1000].name);
    }
    if (code < 1000 || !is_exact(token, rows[code - 1000].name))
        return unknown_option(command, token);
    if (rows[code - 1000].id == OPTION_HELP) {
        gw_options_help(command, stdout);
        return GW_EXIT_COMPLETED;
    }
    return take(options, &rows[code - 1000], optarg);
}

/* Quiet counts wherever it stands, for what is said about the rest of the line too. */
static bool is_quiet(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--quiet") == 0 || strcmp(argv[i], "-q") == 0)
            return true;
    }
    return false;
}

/* What no single option shows: a guest that cannot be, two documents in one file. */
static int check_whole(const struct gw_options *options, const struct gw_command *command)
{
    struct gw_error err = GW_ERROR_INIT;
    char hint[96];

    if ((command->bit & FOR_GUEST) && gw_guest_config_check(&options->guest, &err) < 0)
        return gw_talk_usage(err.hint, "%s", err.message);
    if (options->json && options->events && strcmp(options->json, options->events) == 0)
        return gw_talk_usage("give each a file of its own",
                             "--json and --events cannot both write to '%s'", options->json);
    if (!options->uri && command->bit == GW_FOR_ANALYZE)
        return gw_talk_usage("for example godwit analyze stream.bin; - is stdin",
                             "the file is missing");
    if (!options->other && command->bit == GW_FOR_COMPAT)
        return gw_talk_usage("for example godwit compat old.stream new.stream",
                             "two files are compared, %s given",
                             options->uri ? "one was" : "none was");
    if (options->other && options->uri && strcmp(options->other, "-") == 0 &&
        strcmp(options->uri, "-") == 0)
        return gw_talk_usage("one of them must be a file", "stdin cannot be compared with itself");
    if (!options->uri && command->operand[0] != '\0' && command->operand[0] != '[') {
        snprintf(hint, sizeof(hint), "for example godwit %s tcp:127.0.0.1:4444", command->name);
        return gw_talk_usage(hint, "the address is missing");
    }
    return -1;
}

int gw_options_parse(struct gw_options *options, const struct gw_command *command, int argc,
                     char **argv)
{
    struct option table[ROW_COUNT + 1];

    options->quiet = is_quiet(argc, argv);
    gw_talk_init(command->name, options->quiet);
    table_of(command, table);
    optind = 0; /* glibc: start anew */
    opterr = 0;
    for (;;) {
        int at = optind ? optind : 1;
        optopt = 0;
        /* "-": operands come in order as code 1, so argv[at] is always what is being read. */
        int code = getopt_long(argc, argv, "-:hq", table, NULL);
        if (code == -1)
            break;
        int status = parse_one(options, command, code, argv[at]);
        if (status >= 0)
            return status;
    }
    while (optind < argc) { /* after "--" */
        int status = take_operand(options, command, argv[optind++]);
        if (status >= 0)
            return status;
    }
    return check_whole(options, command);
}

int gw_options_check_uri(const struct gw_options *options)
{
    struct gw_error err = GW_ERROR_INIT;

    return gw_doctor_run(options->uri, NULL, NULL, &err) < 0
               ? gw_talk_usage(err.hint, "%s", err.message)
               : -1;
}

/* ---- screens ---------------------------------------------------------------------------------- */

void gw_options_help(const struct gw_command *command, FILE *out)
{
    fprintf(out, "godwit %s%s%s [OPTION]...\n%s\n\n", command->name, command->operand[0] ? " " : "",
            command->operand, command->summary);
    for (unsigned i = 0; i < ROW_COUNT; i++) {
        char left[48];
        if (!(rows[i].commands & command->bit))
            continue;
        snprintf(left, sizeof(left), "--%s %s", rows[i].name,
                 rows[i].argument ? rows[i].argument : "");
        fprintf(out, "  %-26s%s\n", left, rows[i].help);
    }
}

void gw_options_list_params(FILE *out)
{
    struct gw_param_info info = {.struct_bytes = sizeof(info)};

    fprintf(out, "%-27s%-10s%-9s%s\n", "NAME", "TYPE", "DEFAULT", "MEANING");
    for (unsigned i = 0; gw_param_list(i, &info); i++) {
        bool words = strncmp(info.type, "one of ", 7) == 0;
        fprintf(out, "%-27s%-10s%-9s%s%s%s%s%s\n", info.name, words ? "word" : info.type,
                info.default_value, info.help, words ? " (" : "", words ? info.type + 7 : "",
                words ? ")" : "", info.live ? " [live]" : "");
    }
}

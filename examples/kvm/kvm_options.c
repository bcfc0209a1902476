// SPDX-License-Identifier: MIT
/* The command line, by one table. What is not understood is said in a sentence. */
#include "examples/kvm/kvm_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { FLAG, TEXT, SIZE, RATE, COUNT, SECONDS, WORD };

struct option {
    const char *name, *value;
    enum kind kind;
    size_t offset;
    const char *help;
    const char *const *words; /* WORD: an int gets its index */
};

static const char *const memory_words[] = {"anon", "memfd", "hugetlb", NULL};
static const char *const fill_words[] = {"random", "zero", NULL};
static const char *const tracking_words[] = {"log", "ring", NULL};

#define AT(member) offsetof(struct parsed, member)

struct parsed {
    struct vmm_options o;
    int memory, fill, tracking;
    double connect_s; /* 0: not given */
    bool help;
};

static const struct option table[] = {
    {"--program", "writer|ticker|disk|FILE", TEXT, AT(o.boot.program), "what the guest is (writer)",
     NULL},
    {"--ram", "SIZE", SIZE, AT(o.boot.ram_bytes), "its memory (64M)", NULL},
    {"--blocks", "N", COUNT, AT(o.boot.blocks), "that are its memory, 1 to 4 (2)", NULL},
    {"--memory", "anon|memfd|hugetlb", WORD, AT(memory), "what they are made of (memfd)",
     memory_words},
    {"--vcpus", "N", COUNT, AT(o.vcpus), "1 to 4 (1)", NULL},
    {"--working-set", "SIZE", SIZE, AT(o.boot.hot_bytes), "pages it rewrites in turn (4M)", NULL},
    {"--dirty-rate", "RATE", RATE, AT(o.boot.rate_bytes), "rewritten in a second (4M)", NULL},
    {"--fill", "random|zero", WORD, AT(fill), "its other pages (random)", fill_words},
    {"--dirty-source", "log|ring", WORD, AT(tracking), "KVM's dirty log, or its rings (log)",
     tracking_words},
    {"--slow", "PERCENT", COUNT, AT(o.slow_percent), "of the time in which no vCPU runs (0)", NULL},
    {"--disk", "FILE", TEXT, AT(o.disk), "its disk, at both ends (none)", NULL},
    {"--lock", "FILE", TEXT, AT(o.lock), "locked by who may run the guest (the disk)", NULL},
    {"--serial", "FILE", TEXT, AT(o.serial), "what the guest says is appended there (stdout)",
     NULL},
    {"--warmup", "SECONDS", SECONDS, AT(o.warmup_s), "before it is sent (1)", NULL},
    {"--run-for", "SECONDS", SECONDS, AT(o.run_for_s),
     "run: until a signal; receive: after arrival (1)", NULL},
    {"--then", "URI", TEXT, AT(o.then_uri), "receive: send it on to there afterwards", NULL},
    {"--ram-max", "SIZE", SIZE, AT(o.ram_bytes_max), "receive: refuse more (2G)", NULL},
    {"--connect-timeout", "SECONDS", SECONDS, AT(connect_s), "send: for a refused address (5)",
     NULL},
    {"--events", "FILE", TEXT, AT(o.events), "a line for each event as it happens", NULL},
    {"--json", "FILE", TEXT, AT(o.json), "the document; - is stdout", NULL},
    {"--quiet", NULL, FLAG, AT(o.quiet), "errors only", NULL},
    {"--help", NULL, FLAG, AT(help), "", NULL},
};
#define OPTIONS (sizeof(table) / sizeof(table[0]))

static int usage(const char *what, const char *why)
{
    fprintf(stderr, "godwit-kvm: %s %s (see godwit-kvm --help)\n", what, why);
    return VMM_EXIT_USAGE;
}

static int help(void)
{
    puts("usage: godwit-kvm run | send URI | receive URI [OPTION]...\n"
         "Runs a small KVM guest here, sends it to URI, or waits for one there.\n");
    for (unsigned i = 0; i < OPTIONS - 1; i++)
        printf("  %s %-*s %s\n", table[i].name, 32 - (int)strlen(table[i].name),
               table[i].value ? table[i].value : "", table[i].help);
    puts("  --set NAME=VALUE                  a parameter: godwit send --set help lists them\n\n"
         "Exit status: 0 completed, 1 failed, 2 usage, 3 cancelled, 4 outcome unknown, 5 a check "
         "failed");
    return VMM_EXIT_COMPLETED;
}

static bool parse_number(const char *text, double most, double *number)
{
    char *end;
    *number = strtod(text, &end);
    return end != text && *end == '\0' && *number >= 0 && *number <= most;
}

static int parse_word(const struct option *option, const char *text, int *index)
{
    for (*index = 0; option->words[*index]; ++*index) {
        if (strcmp(option->words[*index], text) == 0)
            return -1;
    }
    fprintf(stderr, "godwit-kvm: %s is %s, not '%s'\n", option->name, option->value, text);
    return VMM_EXIT_USAGE;
}

static int parse_value(const struct option *option, const char *text, void *into)
{
    struct gw_error err = GW_ERROR_INIT;
    double number = 0;
    int rc = 0;
    switch (option->kind) {
    case FLAG:
        *(bool *)into = true;
        break;
    case TEXT:
        *(const char **)into = text;
        break;
    case SIZE:
        rc = gw_size_parse(text, into, &err);
        break;
    case RATE:
        rc = gw_rate_parse(text, into, &err);
        break;
    case COUNT:
        rc = parse_number(text, 1000, &number) && number == (unsigned)number ? 0 : -1;
        *(unsigned *)into = rc == 0 ? (unsigned)number : 0;
        break;
    case SECONDS:
        rc = parse_number(text, 1e6, into) ? 0 : -1;
        break;
    case WORD:
        return parse_word(option, text, into);
    }
    if (rc == 0)
        return -1;
    fprintf(stderr, "godwit-kvm: %s %s: %s\n", option->name, text,
            err.rc ? err.message : "not such a number");
    return VMM_EXIT_USAGE;
}

static int parse_set(struct vmm_options *options, const char *text)
{
    struct gw_error err = GW_ERROR_INIT;
    const char *equals = strchr(text, '=');
    char name[64] = "";
    if (equals && (size_t)(equals - text) < sizeof(name))
        memcpy(name, text, (size_t)(equals - text));
    if (gw_params_set(options->params, name, equals ? equals + 1 : "", &err) == 0)
        return -1;
    fprintf(stderr, "godwit-kvm: --set %s: %s %s\n", text, err.message, err.hint);
    return VMM_EXIT_USAGE;
}

static int parse_mode(struct vmm_options *options, int argc, char **argv, int *next)
{
    const char *word = argc > 1 ? argv[1] : "";
    *next = 2;
    if (strcmp(word, "--help") == 0)
        return help();
    if (strcmp(word, "run") == 0) {
        options->mode = VMM_RUN;
        return -1;
    }
    options->mode = strcmp(word, "send") == 0 ? VMM_SEND : VMM_RECEIVE;
    if (strcmp(word, "send") != 0 && strcmp(word, "receive") != 0)
        return usage(word, "is not run, send or receive");
    if (argc < 3 || argv[2][0] == '-')
        return usage(word, "wants a URI");
    options->uri = argv[2];
    *next = 3;
    return -1;
}

/* Before a guest is made for it. */
static int check_uri(const char *uri)
{
    struct gw_error err = GW_ERROR_INIT;
    if (!uri || gw_doctor_run(uri, NULL, NULL, &err) >= 0)
        return -1;
    fprintf(stderr, "godwit-kvm: %s\n  hint: %s\n", err.message, err.hint);
    return VMM_EXIT_USAGE;
}

static int check(struct vmm_options *o, double connect_s)
{
    char ms[32];
    snprintf(ms, sizeof(ms), "%.0f", connect_s * 1000);
    if (connect_s > 0 && gw_params_set(o->params, "x-connect-timeout", ms, NULL) < 0)
        return usage("--connect-timeout", "is at most an hour");
    if (o->vcpus < 1 || o->vcpus > VMM_VCPUS_MAX)
        return usage("--vcpus", "is 1 to 4");
    if (o->slow_percent > 99)
        return usage("--slow", "is 0 to 99");
    if (o->then_uri && o->mode != VMM_RECEIVE)
        return usage("--then", "is for receive");
    int status = check_uri(o->uri);
    return status < 0 ? check_uri(o->then_uri) : status;
}

int vmm_options_parse(struct vmm_options *options, int argc, char **argv)
{
    struct parsed parsed = {.o = *options, .memory = VMM_MEMFD};
    int next, status = parse_mode(&parsed.o, argc, argv, &next);
    if (parsed.o.mode != VMM_RUN)
        parsed.o.run_for_s = 1;
    for (int i = next; status < 0 && i < argc; i++) {
        const struct option *option = NULL;
        for (unsigned k = 0; k < OPTIONS; k++) {
            if (strcmp(table[k].name, argv[i]) == 0)
                option = &table[k];
        }
        bool takes_value = !option || option->value;
        if (!option && strcmp(argv[i], "--set") != 0)
            status = usage(argv[i], "is not an option");
        else if (takes_value && i + 1 == argc)
            status = usage(argv[i], "wants a value");
        else if (!option)
            status = parse_set(&parsed.o, argv[++i]);
        else
            status =
                parse_value(option, takes_value ? argv[++i] : "", (char *)&parsed + option->offset);
    }
    parsed.o.memory = (enum vmm_memory)parsed.memory;
    parsed.o.boot.cold_is_zero = parsed.fill == 1;
    parsed.o.ring = parsed.tracking == 1;
    *options = parsed.o;
    if (status < 0 && parsed.help)
        return help();
    return status < 0 ? check(options, parsed.connect_s) : status;
}

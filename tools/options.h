/* SPDX-License-Identifier: MIT */
/* tools/options.h - one table of options for all subcommands: what each takes, means, and who has it.
 * The help screens are written from the same table. */
#ifndef GW_TOOLS_OPTIONS_H
#define GW_TOOLS_OPTIONS_H

#include "tools/guest.h"

#include <godwit/params.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Who has an option. */
#define GW_FOR_SEND 1u
#define GW_FOR_RECEIVE 2u
#define GW_FOR_TRY 4u
#define GW_FOR_DOCTOR 8u
#define GW_FOR_ANALYZE 16u
#define GW_FOR_COMPAT 32u

struct gw_options;

struct gw_command {
    const char *name;
    unsigned bit;        /* GW_FOR_*; 0: not there yet */
    const char *operand; /* "URI", "OLD NEW": needed; "[URI]": may be given; "": none */
    const char *summary; /* one line */
    bool hears_signals;  /* ends by itself when one comes (signals.h) */
    void (*set_defaults)(struct gw_options *options); /* where it has others; may be NULL */
    int (*run)(const struct gw_options *options);     /* returns the exit status */
};

extern const struct gw_command gw_cmd_try, gw_cmd_send, gw_cmd_receive, gw_cmd_doctor,
    gw_cmd_analyze, gw_cmd_compat;

struct gw_options {
    const char *uri; /* NULL: not given */
    struct gw_params *params;
    struct gw_guest_config guest;
    const char *json;    /* path, "-" or NULL */
    const char *events;  /* path, "-" or NULL */
    const char *wire;    /* try: "tcp" or "unix" */
    const char *disk;    /* the guest's: path or NULL */
    const char *extract; /* analyze: folder or NULL */
    const char *other;   /* analyze: the stream to compare with, or NULL; compat: NEW */
    bool quiet, digest, hold, serve, verify;
    bool document;             /* --json without a file */
    enum gw_block_kind memory; /* receive: of prealloc_bytes, and of the guest */
    bool memory_given;         /* false: of the source's kind, where nothing is touched ahead */
    uint64_t ram_bytes_max, prealloc_bytes;
    double run_for_s, warmup_s;
    unsigned set_count; /* texts given to --set, for who passes them on */
    char *set[64];
};

/* Defaults; @options->params is made. Return: 0 or -ENOMEM. */
int gw_options_init(struct gw_options *options);
void gw_options_fini(struct gw_options *options);

/* Read @argv (argv[0]: the subcommand). What is wrong is said on stderr in a sentence with a hint.
 * Return: -1: go on; else the status to exit with (--help, --set help, a usage error). */
int gw_options_parse(struct gw_options *options, const struct gw_command *command, int argc,
                     char **argv);

/* Is options->uri an address of this build? As above: -1, or a usage error was said. */
int gw_options_check_uri(const struct gw_options *options);

void gw_options_help(const struct gw_command *command, FILE *out);
void gw_options_list_params(FILE *out);

/* Half of the memory that is free now: what receive takes at most unless told. */
uint64_t gw_options_ram_max(void);

/* The nearest of @count words, or NULL if none resembles @word. */
const char *gw_nearest_word(const char *word, const char *const *words, unsigned count);

/* "4.0 GiB"; with "/s" for rates if @rate. */
void gw_amount_text(double bytes, bool rate, char text[24]);

#endif

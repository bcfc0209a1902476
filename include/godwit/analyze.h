/* SPDX-License-Identifier: MIT */
/* godwit/analyze.h - read a recorded savevm stream, whoever wrote it: what is in it, whether every byte is
 * accounted for, and its contents as files.
 * Life:    gw_analyze(), any number of questions, gw_analysis_free().
 * Threads: an analysis belongs to the thread that made it.
 * Memory:  bounded whatever the stream says (256 MiB hold a stream of 1 TiB); the input is read once,
 *          forwards, so a pipe will do. Where it is a regular file, devices are read again from it. */
#ifndef GODWIT_ANALYZE_H
#define GODWIT_ANALYZE_H

#include <godwit/error.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gw_analysis;

/* Called now and then. @bytes_total: 0: not known. Return: not 0 to give up (-ECANCELED). */
typedef int gw_analyze_progress_fn(void *ctx, uint64_t bytes_done, uint64_t bytes_total);

struct gw_analyze_options {
    size_t struct_bytes;
    /* Folder for "ram-<index>-<name>.bin" (sparse) and "device-<index>-<name>.bin", made if it is not
     * there; every byte of a name outside of [A-Za-z0-9._-] becomes %XX, and a name that would be too long
     * for a file is cut. No file that exists is written to, no symbolic link followed. NULL: none. */
    const char *extract;
    gw_analyze_progress_fn *progress; /* may be NULL */
    void *progress_ctx;
};

/**
 * gw_analyze() - read a stream from its first byte to its last.
 * @fd:       open for reading, where the stream begins; borrowed for this call, and if it is a regular file
 *            until gw_analysis_free(). Its position may move.
 * @options:  may be NULL.
 * @analysis: set on success, which is also: a stream that is damaged. gw_analysis_fault() says where.
 *
 * Return: 0, or
 *   -EINVAL     an option is malformed
 *   -ENOMEM     out of memory
 *   -ECANCELED  the progress callback said so
 *   other       the input could not be read, or a file not written; @err says which
 */
GW_API int gw_analyze(int fd, const struct gw_analyze_options *options,
                      struct gw_analysis **analysis, struct gw_error *err);
GW_API void gw_analysis_free(struct gw_analysis *analysis); /* takes NULL */

enum gw_stream_kind {
    GW_STREAM_SAVEVM,      /* a whole stream, or what there is of it */
    GW_STREAM_MULTIFD,     /* a recorded multifd channel */
    GW_STREAM_RETURN_PATH, /* what the other side said */
};

struct gw_stream_facts {
    size_t struct_bytes;
    enum gw_stream_kind kind;
    uint64_t bytes;      /* read */
    const char *machine; /* NULL: no configuration section */
    bool has_uuid;
    uint8_t uuid[16];
    uint32_t page_bytes; /* of the target */
    bool has_footers, has_end, has_description;
    bool has_return_path, has_postcopy_advice, has_postcopy; /* commands that came */
    bool is_mapped;                                          /* mapped-ram */
    uint64_t description_bytes;
    unsigned capability_count, section_count, block_count, fault_count;
    uint64_t command_count; /* more than gw_analysis_command() has if there were very many */
    unsigned command_kept;
    uint64_t ram_bytes; /* of all blocks, as the table says */
    uint64_t zero_pages, normal_pages, xbzrle_pages, compressed_pages; /* records */
    /* of a multifd channel */
    unsigned channel;
    uint64_t packets, syncs, device_packets, packet_data_bytes;
    const char *compression; /* "none", "zlib"... */
};
GW_API void gw_analysis_facts(const struct gw_analysis *analysis, struct gw_stream_facts *facts);
/** gw_analysis_capability() - a name from the configuration section, or NULL past the end. */
GW_API const char *gw_analysis_capability(const struct gw_analysis *analysis, unsigned index);

enum gw_section_form {
    GW_SECTION_RAM,    /* every record was read */
    GW_SECTION_FIELDS, /* walked by the description, to its exact end */
    GW_SECTION_OPAQUE, /* delimited by its footer (or by what follows) alone */
};

struct gw_stream_section {
    size_t struct_bytes;
    const char *idstr; /* as long as the analysis lives */
    uint32_t section_id, instance_id, version_id;
    enum gw_section_form form;
    bool is_iterative; /* START, PARTs, END; else FULL */
    bool has_end;      /* iterative: the END came */
    bool is_packaged;  /* inside of a package (postcopy) */
    uint64_t offset;   /* of its first byte in the stream */
    uint64_t body_offset;
    uint64_t parts;       /* sections it came in: 1 for a FULL */
    uint64_t body_bytes;  /* of all its bodies */
    uint64_t last_offset; /* iterative: of the last of them */
};
/* Return: false past the end. */
GW_API bool gw_analysis_section(const struct gw_analysis *analysis, unsigned index,
                                struct gw_stream_section *section);

struct gw_stream_block {
    size_t struct_bytes;
    const char *name;
    uint64_t bytes;
    uint64_t page_bytes;    /* of what is behind it; 0: not said */
    uint64_t guest_address; /* with has_guest_address */
    bool has_guest_address;
    uint64_t received_pages; /* different ones; those that never came are zero */
    uint64_t zero_pages, normal_pages, xbzrle_pages, compressed_pages;
};
GW_API bool gw_analysis_block(const struct gw_analysis *analysis, unsigned index,
                              struct gw_stream_block *block);

struct gw_stream_command_record {
    size_t struct_bytes;
    const char *name; /* "PING"; of the return path as well: "PONG" */
    uint64_t offset;
    uint32_t value;    /* of PING, PONG, SHUT; bytes of PACKAGED; ranges of POSTCOPY_RAM_DISCARD */
    const char *block; /* or "" */
};
GW_API bool gw_analysis_command(const struct gw_analysis *analysis, unsigned index,
                                struct gw_stream_command_record *command);

struct gw_stream_fault {
    size_t struct_bytes;
    uint64_t offset;
    const char *section; /* idstr, or what stands there: "header", "description" */
    const char *message;
};
/* The first is what ended the walk, if something did; fields that do not fit the description follow. */
GW_API bool gw_analysis_fault(const struct gw_analysis *analysis, unsigned index,
                              struct gw_stream_fault *fault);

struct gw_stream_field {
    size_t struct_bytes;
    const char *path;    /* "vq[2].ring.num"; a subsection's name stands in front of its fields */
    const char *type;    /* as the description has it: "uint32", "timer", "pci config" */
    uint64_t offset;     /* in the stream */
    uint64_t bytes;      /* of all elements */
    uint64_t count;      /* of elements */
    const uint8_t *data; /* its bytes, during the call */
};
typedef int gw_stream_field_fn(void *ctx, const struct gw_stream_field *field);
/** gw_analysis_fields() - the fields of a section whose form is GW_SECTION_FIELDS, in order.
 *  Return: 0, -ENOENT: it has none; what @field returned if that was not 0; or another errno. */
GW_API int gw_analysis_fields(struct gw_analysis *analysis, unsigned section,
                              gw_stream_field_fn *field, void *ctx, struct gw_error *err);
/** gw_analysis_description() - the stream's description of a device, as it stands there: a JSON object, without
 *  a NUL behind it, as long as the analysis lives. Return: NULL past the end, or if there is no description
 *  that could be read. */
GW_API const char *gw_analysis_description(const struct gw_analysis *analysis, unsigned index,
                                           size_t *bytes);
/** gw_analysis_body() - up to @bytes bytes of a FULL section's body from @at on.
 *  Return: how many, or -ENODATA: it was not kept (a large one, from a pipe). */
GW_API int64_t gw_analysis_body(struct gw_analysis *analysis, unsigned section, uint64_t at,
                                void *to, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif

/* SPDX-License-Identifier: MIT */
/* core/analyze_impl.h - inside core/analyze*.c only. */
#ifndef GW_CORE_ANALYZE_IMPL_H
#define GW_CORE_ANALYZE_IMPL_H

#include "control/stream_describe.h"
#include "control/stream_read.h"
#include "ram/inline.h"

#include <godwit/analyze.h>

#define GW_ANALYZE_SECTIONS_MAX 65536u
#define GW_ANALYZE_COMMANDS_MAX 4096u
#define GW_ANALYZE_FAULTS_MAX 256u
#define GW_ANALYZE_BODY_BYTES_MAX ((size_t)32 << 20) /* of a body that is walked */

struct gw_analyzed_section {
    char *idstr;
    uint32_t section_id, instance_id, version_id;
    enum gw_section_form form;
    bool is_iterative, has_end, is_packaged, is_described;
    uint64_t offset, body_offset, parts, body_bytes, last_offset;
    unsigned described; /* index in the description, with is_described */
    int extract_fd;     /* iterative, while it is open; or -1 */
};

struct gw_analyzed_command {
    const char *name;
    uint64_t offset;
    uint32_t value;
    char *block; /* NULL: none */
};

struct gw_analyzed_fault {
    uint64_t offset;
    char *section, *message;
};

/* ---- what was read and may be wanted again ----------------------------------------------------- */

struct gw_keep_piece {
    uint64_t offset, bytes, at;
};

/* A regular file is read again. From a pipe, pieces are copied to memory up to a limit and, if there is a
 * folder that will be written to anyway, to an unnamed file in it. */
struct gw_keep {
    int fd; /* regular file, or -1 */
    uint64_t fd_base;
    uint8_t *data;
    size_t used, room;
    int spill_fd; /* or -1 */
    uint64_t spilled;
    struct gw_keep_piece *pieces;
    unsigned piece_count, piece_room;
    int rc; /* latched: not kept from here on */
};

void gw_keep_init(struct gw_keep *keep);
void gw_keep_fini(struct gw_keep *keep);
void gw_keep_add(struct gw_keep *keep, uint64_t offset, const uint8_t *data, size_t bytes);
/* Return: how many bytes from @offset on, -ENODATA: not kept. */
ssize_t gw_keep_read(const struct gw_keep *keep, uint64_t offset, void *to, size_t bytes);
/* All of them, or -ENODATA. */
int gw_keep_read_all(const struct gw_keep *keep, uint64_t offset, void *to, size_t bytes);

/* ---- files -------------------------------------------------------------------------------------- */

struct gw_extract; /* NULL: nothing is extracted */

int gw_extract_new(const char *folder, struct gw_extract **extract, struct gw_error *err);
void gw_extract_free(struct gw_extract *extract);
int gw_extract_folder_fd(const struct gw_extract *extract);
int gw_extract_block(struct gw_extract *extract, unsigned index,
                     const struct gw_inline_block *block, struct gw_error *err);
int gw_extract_page(struct gw_extract *extract, const struct gw_inline_page *page,
                    uint64_t page_bytes, struct gw_error *err);
/* The last pages are on their way; after this they are in the files. */
int gw_extract_flush(struct gw_extract *extract, struct gw_error *err);
int gw_extract_device(struct gw_extract *extract, unsigned index, const char *idstr, int *fd,
                      struct gw_error *err);

/* ---- the analysis ------------------------------------------------------------------------------- */

struct gw_analysis {
    struct gw_stream_facts facts;
    struct gw_configuration configuration;
    struct gw_inline ram;
    struct gw_multifd multifd;
    struct gw_analyzed_section *sections;
    unsigned section_room;
    uint32_t *open; /* hash of open ids -> section index + 1 */
    unsigned open_room, open_count;
    struct gw_analyzed_command *commands;
    unsigned command_room;
    struct gw_analyzed_fault *faults;
    unsigned fault_room;
    struct gw_keep keep;
    char *description_text;
    uint64_t description_offset, devices_end; /* of its text; of the end mark before it */
    struct gw_description *description;

    /* while reading */
    struct gw_input in;
    const struct gw_analyze_options *options;
    struct gw_extract *extract;
    int fd;
    bool is_regular;
    uint64_t bytes_total, progress_ns, fd_base;
    uint64_t section_at; /* of the item being read: faults name it */
    char section_name[300];
    bool footers_known, ram_open, packaged, after_listen;
    unsigned blocks_extracted;
    bool takes_documents, is_document;
    bool lost;      /* a device's body has no end that the walk could see */
    bool lost_item; /* no item begins at item_at */
    uint64_t item_at;
    bool is_explained; /* a later fault says what the first one was about */
    bool is_confirmed; /* the first fault is damage indeed, whatever else can be read */
    bool give_up;      /* an error that is not the stream's */
};

/* Note what is wrong. Takes @err's sentence. Return: 0 or -ENOMEM. */
int gw_analyze_fault(struct gw_analysis *a, uint64_t offset, const char *section,
                     const struct gw_error *err);
/* The stream proper (analyze_stream.c). A fault of the stream returns -EPROTO or -EBADMSG with in.fault_at;
 * anything else has give_up. */
int gw_analyze_stream(struct gw_analysis *a, struct gw_error *err);
/* After gw_analyze_stream() lost its way in a device: read on to the end and look for the description there.
 * Return: 1: found, 0: not. */
int gw_analyze_find_description(struct gw_analysis *a, struct gw_error *err);
/* gw_analyze(); with @takes_documents the input may be JSON as well, which is only read: is_document, its text
 * in description_text, its length in facts.description_bytes. */
int gw_analyze_any(int fd, const struct gw_analyze_options *options, bool takes_documents,
                   struct gw_analysis **analysis, struct gw_error *err);
bool gw_analyze_is_document(struct gw_analysis *a);
int gw_analyze_document(struct gw_analysis *a, struct gw_error *err);
/* Other recordings (analyze_other.c). */
int gw_analyze_multifd(struct gw_analysis *a, struct gw_error *err);
int gw_analyze_return_path(struct gw_analysis *a, struct gw_error *err);
int gw_analyze_note_command(struct gw_analysis *a, const struct gw_analyzed_command *command,
                            const char *block, struct gw_error *err);
/* Sections against their description (analyze_devices.c). */
int gw_analyze_devices(struct gw_analysis *a, struct gw_error *err);
int gw_analyze_extract_devices(struct gw_analysis *a, struct gw_error *err);
/* A section that begins at @offset becomes number @index; it ends at @end until it is cut. -ENODATA: none does. */
int gw_analyze_insert_section(struct gw_analysis *a, unsigned index, uint64_t offset, uint64_t end,
                              struct gw_error *err);
int gw_analyze_device_fault(struct gw_analysis *a, const struct gw_analyzed_section *s,
                            uint64_t offset, const struct gw_error *err);
/* Could an item begin there, after the devices' sections? */
bool gw_analyze_is_item(const struct gw_analysis *a, const uint8_t *look, size_t bytes);
/* Damage between two sections (analyze_damage.c). Where the walk ended at the last section, which is @bytes
 * long by its description. Return: 1: it was cut there, and what follows too. */
int gw_analyze_cut_damaged(struct gw_analysis *a, unsigned index, uint64_t bytes,
                           struct gw_error *err);
/* Where it ended before the first of them. Return: as above. */
int gw_analyze_first_damaged(struct gw_analysis *a, struct gw_error *err);
struct gw_analyzed_section *gw_analyze_add_section(struct gw_analysis *a,
                                                   const struct gw_section *section,
                                                   uint64_t offset, struct gw_error *err);

#endif

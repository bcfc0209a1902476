// SPDX-License-Identifier: MIT
/* gw_analyze(): reads a recording to its end and keeps what is asked about it later. What is wrong with the
 * stream becomes a fault of the analysis, with its offset and the section it stands in; an error of the call
 * is what kept it from being read or written. Memory is bounded by counts: sections, commands and faults
 * have limits, PARTs of a section are added up. */
#include "core/analyze_impl.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOM_BYTES ((size_t)2 << 20) /* more than the largest piece that is looked at */
#define PROGRESS_NS (100 * GW_NS_PER_MS)

/* ---- faults ----------------------------------------------------------------------------------- */

int gw_analyze_fault(struct gw_analysis *a, uint64_t offset, const char *section,
                     const struct gw_error *err)
{
    unsigned count = a->facts.fault_count;
    if (count == GW_ANALYZE_FAULTS_MAX)
        return 0;
    if (count == a->fault_room) {
        unsigned room = a->fault_room ? 2 * a->fault_room : 8;
        struct gw_analyzed_fault *faults = gw_realloc(a->faults, room, sizeof(*faults));
        if (!faults)
            return -ENOMEM;
        a->faults = faults;
        a->fault_room = room;
    }
    struct gw_analyzed_fault *fault = &a->faults[count];
    *fault = (struct gw_analyzed_fault){
        .offset = offset, .section = gw_strdup(section), .message = gw_strdup(err->message)};
    a->facts.fault_count++;
    return fault->section && fault->message ? 0 : -ENOMEM;
}

/* ---- input ------------------------------------------------------------------------------------ */

static int show_progress(struct gw_analysis *a, uint64_t done)
{
    uint64_t now = gw_clock_ns();
    if (!a->options->progress || now < a->progress_ns)
        return 0;
    a->progress_ns = now + PROGRESS_NS;
    return a->options->progress(a->options->progress_ctx, done, a->bytes_total);
}

/* Until there is something to read: a pipe may be silent for long, and the caller wants to be asked. */
static int wait_for_input(struct gw_analysis *a, uint64_t offset)
{
    struct pollfd fd = {.fd = a->fd, .events = POLLIN};
    for (;;) {
        if (show_progress(a, offset))
            return -ECANCELED;
        int rc = gw_clock_poll(&fd, 1, gw_clock_ns() + PROGRESS_NS);
        if (rc != 0)
            return rc;
    }
}

static ssize_t read_input(void *ctx, void *to, size_t bytes, uint64_t offset)
{
    struct gw_analysis *a = ctx;
    for (;;) {
        int rc = a->is_regular ? 0 : wait_for_input(a, offset);
        if (rc < 0)
            return rc;
        if (show_progress(a, offset))
            return -ECANCELED;
        ssize_t got = a->is_regular ? pread(a->fd, to, bytes, (off_t)(a->fd_base + offset))
                                    : read(a->fd, to, bytes);
        if (got >= 0)
            return got;
        if (errno != EINTR && errno != EAGAIN)
            return -errno;
    }
}

static int open_input(struct gw_analysis *a, struct gw_error *err)
{
    struct stat stat_of;
    if (fstat(a->fd, &stat_of) < 0)
        return gw_fail(err, -errno, "input");
    if (S_ISDIR(stat_of.st_mode))
        return gw_fail(err, -EISDIR, "input");
    off_t at = lseek(a->fd, 0, SEEK_CUR);
    a->is_regular = S_ISREG(stat_of.st_mode) && at >= 0;
    if (a->is_regular) {
        a->fd_base = (uint64_t)at;
        a->bytes_total = stat_of.st_size > at ? (uint64_t)(stat_of.st_size - at) : 0;
        a->keep.fd = a->fd;
        a->keep.fd_base = a->fd_base;
    }
    int rc = gw_input_init(&a->in, read_input, a, ROOM_BYTES);
    return rc < 0 ? gw_fail(err, rc, "input") : 0;
}

static int open_extract(struct gw_analysis *a, struct gw_error *err)
{
    if (!a->options->extract)
        return 0;
    int rc = gw_extract_new(a->options->extract, &a->extract, err);
    if (rc == 0 && !a->is_regular)
        a->keep.spill_fd =
            openat(gw_extract_folder_fd(a->extract), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return rc; /* without it what is large is not kept */
}

/* ---- the whole -------------------------------------------------------------------------------- */

static int walk(struct gw_analysis *a, struct gw_error *err)
{
    const uint8_t *at;
    size_t left = gw_input_look(&a->in, 8, &at);
    if (a->takes_documents && gw_analyze_is_document(a))
        return gw_analyze_document(a, err);
    if (left >= 4 && gw_be32_load(at) == GW_MULTIFD_MAGIC)
        return gw_analyze_multifd(a, err);
    if (gw_return_is_first(at, left))
        return gw_analyze_return_path(a, err);
    return gw_analyze_stream(a, err);
}

static bool is_fault(const struct gw_analysis *a, int rc)
{
    return (rc == -EPROTO || rc == -EBADMSG) && !a->give_up && a->in.rc == 0;
}

static void drop_first_fault(struct gw_analysis *a)
{
    gw_free(a->faults[0].section);
    gw_free(a->faults[0].message);
    a->facts.fault_count--;
    memmove(&a->faults[0], &a->faults[1], a->facts.fault_count * sizeof(a->faults[0]));
}

/* What the walk took for damage may have been data: the description knows. It counts only if all devices
 * are then walked without a fault. */
static int look_again(struct gw_analysis *a, struct gw_error *err)
{
    int rc = gw_analyze_find_description(a, err);
    if (rc <= 0)
        return rc;
    rc = gw_analyze_devices(a, err);
    if (rc == 0 && a->is_explained)
        drop_first_fault(a);
    if (rc < 0 || a->is_explained || a->is_confirmed || a->lost_item || a->facts.fault_count > 1)
        return rc;
    for (unsigned i = 0; i < a->facts.section_count; i++) {
        if (!a->sections[i].is_iterative && a->sections[i].form == GW_SECTION_OPAQUE)
            return 0;
    }
    drop_first_fault(a);
    return 0;
}

static int analyze(struct gw_analysis *a, struct gw_error *err)
{
    int rc = open_input(a, err);
    if (rc == 0)
        rc = open_extract(a, err);
    if (rc < 0)
        return rc;
    rc = walk(a, err);
    if (is_fault(a, rc)) {
        rc = gw_analyze_fault(a, a->in.fault_at, a->section_name, err);
        if (rc == 0 && (a->lost || a->lost_item))
            rc = look_again(a, err);
    } else if (rc == 0 && !a->is_document) {
        rc = gw_analyze_devices(a, err);
    }
    a->facts.bytes = gw_input_tell(&a->in);
    if (rc < 0)
        return a->in.rc < 0 ? a->in.rc : rc;
    rc = gw_extract_flush(a->extract, err);
    if (rc == 0 && a->extract)
        rc = gw_analyze_extract_devices(a, err);
    return rc;
}

static void count_up(struct gw_analysis *a)
{
    struct gw_stream_facts *facts = &a->facts;
    if (facts->kind != GW_STREAM_SAVEVM)
        return;
    facts->page_bytes = (uint32_t)a->ram.page_bytes;
    facts->machine = a->configuration.present ? a->configuration.machine : NULL;
    facts->has_uuid = a->configuration.has_uuid;
    memcpy(facts->uuid, a->configuration.uuid, sizeof(facts->uuid));
    facts->capability_count = a->configuration.capability_count;
    facts->block_count = a->ram.block_count;
    facts->ram_bytes = a->ram.total;
    for (unsigned i = 0; i < a->ram.block_count; i++) {
        const uint64_t *kinds = a->ram.blocks[i].kinds;
        facts->zero_pages += kinds[GW_INLINE_ZERO];
        facts->normal_pages += kinds[GW_INLINE_PAGE];
        facts->xbzrle_pages += kinds[GW_INLINE_XBZRLE];
        facts->compressed_pages += kinds[GW_INLINE_COMPRESSED];
    }
}

static void close_working(struct gw_analysis *a)
{
    for (unsigned i = 0; i < a->facts.section_count; i++) {
        if (a->sections[i].extract_fd >= 0)
            close(a->sections[i].extract_fd);
        a->sections[i].extract_fd = -1;
    }
    gw_extract_free(a->extract);
    a->extract = NULL;
    gw_input_fini(&a->in);
    gw_free(a->open);
    a->open = NULL;
    a->open_room = 0;
    a->options = NULL;
}

int gw_analyze_any(int fd, const struct gw_analyze_options *options, bool takes_documents,
                   struct gw_analysis **analysis, struct gw_error *err)
{
    struct gw_analyze_options taken = {.struct_bytes = sizeof(taken)};
    struct gw_error local = GW_ERROR_INIT;
    struct gw_analysis *a = gw_zalloc(1, sizeof(*a));
    if (!a)
        return gw_fail(err, -ENOMEM, "analysis");
    if (options)
        memcpy(&taken, options,
               options->struct_bytes < sizeof(taken) ? options->struct_bytes : sizeof(taken));
    a->fd = fd;
    a->takes_documents = takes_documents;
    a->options = &taken;
    a->facts.struct_bytes = sizeof(a->facts);
    gw_keep_init(&a->keep);
    gw_inline_init(&a->ram);
    int rc = analyze(a, &local);
    close_working(a);
    if (rc < 0) {
        if (local.rc != rc) /* none, or that of a fault which was being noted */
            gw_fail(&local, rc, "analysis");
        gw_error_copy(err, &local);
        gw_analysis_free(a);
        return rc;
    }
    count_up(a);
    *analysis = a;
    return 0;
}

int gw_analyze(int fd, const struct gw_analyze_options *options, struct gw_analysis **analysis,
               struct gw_error *err)
{
    return gw_analyze_any(fd, options, false, analysis, err);
}

void gw_analysis_free(struct gw_analysis *a)
{
    if (!a)
        return;
    for (unsigned i = 0; i < a->facts.section_count; i++)
        gw_free(a->sections[i].idstr);
    for (unsigned i = 0; i < a->facts.command_kept; i++)
        gw_free(a->commands[i].block);
    for (unsigned i = 0; i < a->facts.fault_count; i++) {
        gw_free(a->faults[i].section);
        gw_free(a->faults[i].message);
    }
    gw_free(a->sections);
    gw_free(a->commands);
    gw_free(a->faults);
    gw_inline_fini(&a->ram);
    gw_keep_fini(&a->keep);
    gw_description_free(a->description);
    gw_free(a->description_text);
    gw_free(a);
}

/* ---- questions -------------------------------------------------------------------------------- */

/* Callers may know fewer fields than we have: what they said, and no more. */
#define GIVE(to, from)                                                                             \
    do {                                                                                           \
        size_t bytes_ = (to)->struct_bytes;                                                        \
        (from).struct_bytes = bytes_;                                                              \
        memcpy((to), &(from), bytes_ < sizeof(from) ? bytes_ : sizeof(from));                      \
    } while (0)

void gw_analysis_facts(const struct gw_analysis *a, struct gw_stream_facts *facts)
{
    struct gw_stream_facts known = a->facts;
    GIVE(facts, known);
}

const char *gw_analysis_capability(const struct gw_analysis *a, unsigned index)
{
    return index < a->configuration.capability_count ? a->configuration.capabilities[index] : NULL;
}

bool gw_analysis_section(const struct gw_analysis *a, unsigned index,
                         struct gw_stream_section *section)
{
    if (index >= a->facts.section_count)
        return false;
    const struct gw_analyzed_section *s = &a->sections[index];
    struct gw_stream_section known = {.idstr = s->idstr,
                                      .section_id = s->section_id,
                                      .instance_id = s->instance_id,
                                      .version_id = s->version_id,
                                      .form = s->form,
                                      .is_iterative = s->is_iterative,
                                      .has_end = s->has_end,
                                      .is_packaged = s->is_packaged,
                                      .offset = s->offset,
                                      .body_offset = s->body_offset,
                                      .parts = s->parts,
                                      .body_bytes = s->body_bytes,
                                      .last_offset = s->last_offset};
    GIVE(section, known);
    return true;
}

bool gw_analysis_block(const struct gw_analysis *a, unsigned index, struct gw_stream_block *block)
{
    if (index >= a->ram.block_count)
        return false;
    const struct gw_inline_block *b = &a->ram.blocks[index];
    struct gw_stream_block known = {.name = b->name,
                                    .bytes = b->bytes,
                                    .page_bytes = b->page_bytes,
                                    .guest_address = b->guest_address,
                                    .has_guest_address = b->has_guest_address,
                                    .received_pages = b->received.count,
                                    .zero_pages = b->kinds[GW_INLINE_ZERO],
                                    .normal_pages = b->kinds[GW_INLINE_PAGE],
                                    .xbzrle_pages = b->kinds[GW_INLINE_XBZRLE],
                                    .compressed_pages = b->kinds[GW_INLINE_COMPRESSED]};
    GIVE(block, known);
    return true;
}

bool gw_analysis_command(const struct gw_analysis *a, unsigned index,
                         struct gw_stream_command_record *command)
{
    if (index >= a->facts.command_kept)
        return false;
    const struct gw_analyzed_command *c = &a->commands[index];
    struct gw_stream_command_record known = {
        .name = c->name, .offset = c->offset, .value = c->value, .block = c->block ? c->block : ""};
    GIVE(command, known);
    return true;
}

const char *gw_analysis_description(const struct gw_analysis *a, unsigned index, size_t *bytes)
{
    const struct gw_described_device *device =
        a->description ? gw_description_device(a->description, index) : NULL;
    if (!device)
        return NULL;
    *bytes = device->text_bytes;
    return a->description_text + device->text_at;
}

bool gw_analysis_fault(const struct gw_analysis *a, unsigned index, struct gw_stream_fault *fault)
{
    if (index >= a->facts.fault_count)
        return false;
    const struct gw_analyzed_fault *f = &a->faults[index];
    struct gw_stream_fault known = {
        .offset = f->offset, .section = f->section, .message = f->message};
    GIVE(fault, known);
    return true;
}

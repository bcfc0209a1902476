/* SPDX-License-Identifier: MIT */
/* control/stream_read.h - the savevm stream read forwards from an input whose end is not known: the pieces
 * that stand at top level, where a device's state ends that nobody here understands, the other direction's
 * messages, and the description that follows the end mark. item.c reads items whose bounds are known.
 *
 * Every function consumes what it read. On failure @err has a sentence and in->fault_at the offset. */
#ifndef GW_CONTROL_STREAM_READ_H
#define GW_CONTROL_STREAM_READ_H

#include "control/stream.h"
#include "core/base/input.h"

#define GW_CAPABILITIES_MAX 64u
#define GW_PAGE_BITS_MIN 10u
#define GW_PAGE_BITS_MAX 20u

/* ---- header and configuration ---------------------------------------------------------------- */

#define GW_CONFIGURATION_PAGE_BITS "configuration/target-page-bits"
#define GW_CONFIGURATION_CAPABILITIES "configuration/capabilities"
#define GW_CONFIGURATION_UUID "configuration/uuid"

struct gw_configuration {
    bool present;
    char machine[256];
    uint32_t page_bits; /* 0: not said */
    bool has_uuid;
    uint8_t uuid[16];
    unsigned capability_count;
    char capabilities[GW_CAPABILITIES_MAX][256];
};

bool gw_configuration_has(const struct gw_configuration *configuration, const char *capability);
/* Magic, version, and the configuration section if there is one. */
int gw_stream_take_header(struct gw_input *in, struct gw_configuration *configuration,
                          struct gw_error *err);

/* ---- sections -------------------------------------------------------------------------------- */

/* What stands behind the type byte: section->type says which it was. */
int gw_stream_take_section(struct gw_input *in, struct gw_section *section, struct gw_error *err);
int gw_stream_take_footer(struct gw_input *in, uint32_t section_id, struct gw_error *err);

/* Is a section of this id open, so that a PART or END may follow? */
typedef bool gw_is_open_fn(void *ctx, uint32_t section_id);

struct gw_scan { /* how to tell where an item begins */
    bool footers;
    bool packaged; /* inside of a package: no end mark */
    gw_is_open_fn *is_open;
    void *ctx;
};

/* Could an item begin at @at, of which @left bytes are known, and all there are if @ended? */
bool gw_stream_is_item(const struct gw_scan *scan, const uint8_t *at, size_t left, bool ended);
/* Bytes that gw_stream_is_item() looks at. */
#define GW_ITEM_LOOK_BYTES 288u

/* Consume a body of unknown length up to its footer (where there are none: up to the next item), which
 * stays. A footer counts if its id is @section_id and an item, or nothing, follows it. *@bytes: of the body.
 * -EPROTO: it ends nowhere, or its footer is damaged; everything up to there was consumed. */
int gw_stream_skip_body(struct gw_input *in, const struct gw_scan *scan, uint32_t section_id,
                        uint64_t *bytes, struct gw_error *err);

/* ---- commands -------------------------------------------------------------------------------- */

enum gw_stream_command {
    GW_COMMAND_OPEN_RETURN_PATH = 1,
    GW_COMMAND_PING,
    GW_COMMAND_POSTCOPY_ADVISE,
    GW_COMMAND_POSTCOPY_LISTEN,
    GW_COMMAND_POSTCOPY_RUN,
    GW_COMMAND_POSTCOPY_RAM_DISCARD,
    GW_COMMAND_PACKAGED,
    GW_COMMAND_ENABLE_COLO,
    GW_COMMAND_POSTCOPY_RESUME,
    GW_COMMAND_RECV_BITMAP,
    GW_COMMAND_SWITCHOVER_START,
};

struct gw_discard_range { /* bytes of a block */
    uint64_t start, bytes;
};

struct gw_command_item {
    enum gw_stream_command command;
    const char *name;
    uint64_t offset;            /* of the type byte */
    uint16_t payload_bytes;     /* as on the wire; a package's content comes after it */
    uint32_t value;             /* PING's value, PACKAGED's bytes, ADVISE: 1 with page sizes */
    uint64_t sizes, page_bytes; /* ADVISE: page sizes OR-ed, target page */
    char block[256];            /* DISCARD, RECV_BITMAP */
    unsigned ranges;            /* DISCARD */
    const uint8_t *range_data;  /* DISCARD: until the next call on the input */
};

/* What stands behind the type byte 08. */
int gw_stream_take_command(struct gw_input *in, struct gw_command_item *command,
                           struct gw_error *err);
/* Of a DISCARD that was taken; @index < ranges. */
struct gw_discard_range gw_command_range(const struct gw_command_item *command, unsigned index);
const char *gw_command_name(enum gw_stream_command command);
/* Is this a command with a length that it may have? */
bool gw_stream_is_command(unsigned command, unsigned payload_bytes);

/* ---- the return path ------------------------------------------------------------------------- */

enum gw_return_type {
    GW_RETURN_SHUT = 1,
    GW_RETURN_PONG,
    GW_RETURN_REQ_PAGES_ID,
    GW_RETURN_REQ_PAGES,
    GW_RETURN_RECV_BITMAP,
    GW_RETURN_RESUME_ACK,
    GW_RETURN_SWITCHOVER_ACK,
};
#define GW_BITMAP_END_MARK UINT64_C(0x0123456789abcdef)

struct gw_return_item {
    enum gw_return_type type;
    const char *name;
    uint64_t offset;
    uint32_t value;  /* SHUT, PONG, RESUME_ACK: value; REQ_PAGES: bytes asked for */
    uint64_t start;  /* REQ_PAGES: offset in the block; RECV_BITMAP: bytes of the bitmap */
    char block[256]; /* REQ_PAGES_ID, RECV_BITMAP */
    bool is_named;   /* a REQ_PAGES_ID came: REQ_PAGES means its block. Kept from call to call */
};

/* The next message; before the first, @item is all zero. */
int gw_return_take(struct gw_input *in, struct gw_return_item *item, struct gw_error *err);
const char *gw_return_name(enum gw_return_type type);
/* Could a return path's first message begin so? */
bool gw_return_is_first(const uint8_t *at, size_t left);

#endif

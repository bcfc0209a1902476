/* SPDX-License-Identifier: MIT */
/* tests/support/recording.h - savevm streams made by hand, and what the library says about them. */
#ifndef GW_TEST_RECORDING_H
#define GW_TEST_RECORDING_H

#include "control/stream.h"

#include <godwit/analyze.h>

#define RECORDING_PAGE 4096u

/* Records of a RAM section, by their flags. */
enum { REC_ZERO = 2, REC_PAGE = 8, REC_AGAIN = 32, REC_XBZRLE = 64 };

struct recording {
    struct gw_writer w;
    bool no_footers;
};

void recording_init(struct recording *r); /* nothing in it yet */
void recording_fini(struct recording *r);
void recording_bytes(struct recording *r, const void *data, size_t bytes);
void recording_hex(struct recording *r, const char *hex);       /* spaces are passed over */
void recording_name(struct recording *r, const char *name);     /* with its length in front */
void recording_begin(struct recording *r, const char *machine); /* header and configuration */
void recording_head(struct recording *r, enum gw_item_type type, uint32_t id, const char *idstr,
                    uint32_t instance, uint32_t version);
void recording_foot(struct recording *r, uint32_t id);
/* START of ram, id 2, with blocks of @bytes each, and its end record. */
void recording_ram(struct recording *r, const char *const *names, uint64_t bytes);
/* One record; @name NULL: with AGAIN. @fill: the byte of a zero page, or of each byte of a page. */
void recording_page(struct recording *r, unsigned kind, uint64_t offset, const char *name,
                    uint8_t fill);
void recording_eos(struct recording *r);
void recording_full(struct recording *r, uint32_t id, const char *idstr, const void *body,
                    size_t bytes);
void recording_end(struct recording *r, const char *json); /* NULL: no description */

/* Of the bytes of @r, from a file, or through a pipe. NULL, and noted: the call failed. */
struct gw_analysis *recording_analyze(const struct recording *r, bool through_pipe,
                                      const char *extract);
struct gw_analysis *recording_analyze_bytes(const void *data, size_t bytes, bool through_pipe,
                                            const char *extract);
/* The first fault's sentence; "" if there is none. */
const char *recording_fault(const struct gw_analysis *analysis);
uint64_t recording_fault_offset(const struct gw_analysis *analysis); /* UINT64_MAX: none */
struct gw_stream_facts recording_facts(const struct gw_analysis *analysis);

/* A golden stream of tests/data/streams, whole. Asserts that it can be read. */
uint8_t *recording_golden_from(const char *tree, const char *name, size_t *bytes);
#define recording_golden(name, bytes) recording_golden_from(GW_TEST_SOURCE, (name), (bytes))

#endif

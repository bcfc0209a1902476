/* SPDX-License-Identifier: MIT */
/* core/wires.h - which wires pages may take when control came over another (x-wire): how they are named
 * in hello, field 21. The source asks with names, "rdma,ofi:net", best first; the target answers with the
 * addresses at which it listens, in the same order, "rdma:10.0.0.1:4001,ofi:net:0.0.0.0:4002". */
#ifndef GW_CORE_WIRES_H
#define GW_CORE_WIRES_H

#include "core/params.h"
#include "transport/transport.h"

#define GW_WIRES_MAX 4
#define GW_WIRES_TEXT_BYTES 256 /* of hello's field, with its end */
#define GW_WIRE_WORD_BYTES 96   /* a name */

/* What a source of x-wire=@choice (enum gw_wire_choice) asks for: only what this build has. */
void gw_wires_wanted(uint64_t choice, char text[GW_WIRES_TEXT_BYTES]);
/* The next word of a list; false at its end. A word that does not fit is cut. */
bool gw_wires_next(const char **at, char *word, size_t bytes);
/* Append @word; false: no room for it. */
bool gw_wires_add(char text[GW_WIRES_TEXT_BYTES], const char *word);
/* Why @name cannot be had, said and found in hello's field 22; too long a reason is cut. @why is left as
 * it was where the text says nothing of @name. */
void gw_wires_lack(char text[GW_WIRES_TEXT_BYTES], const char *name, const char *why);
void gw_wires_why(const char *text, const char *name, char *why, size_t bytes);
/* An address of the wire called @name, beside that of @beside: its host, any port. -EINVAL for names that
 * a peer may not ask for: wires of one process, filters, other garbage; or that this build lacks. */
int gw_wires_beside(const char *name, const struct gw_uri *beside, struct gw_uri *uri,
                    struct gw_error *err);
/* What gw_wire_flags() says of its scheme, and whether its provider pins. */
uint32_t gw_wires_flags(const struct gw_uri *uri);
/* -ENOMEM: pages over @uri would pin memory, and the limit of this process, or @bytes_max (0: none), is too
 * low for a chunk of @need bytes beside the messages of so many page endpoints. */
int gw_wires_fit(const struct gw_uri *uri, unsigned endpoints, uint64_t bytes_max, uint64_t need,
                 struct gw_error *err);
/* @text, as a target named it, is an address of the wire called @name; a host that says "any" is that
 * of @beside, where the source reached the target. -EPROTO. */
int gw_wires_take(const char *text, const char *name, const struct gw_uri *beside,
                  struct gw_uri *uri, struct gw_error *err);

#endif

/* SPDX-License-Identifier: MIT */
/* transport/preface.h - the 32 bytes that open every connection, and the 32 that answer them.
 *
 *   preface                                   answer
 *   0  6  magic "GODWIT"                      0  6  magic "godwit"
 *   6  2  version, 1                          6  2  version of the answering side, 1
 *   8 16  session                             8 16  session, repeated
 *  24  2  endpoint index                     24  2  endpoint index, repeated
 *  26  1  security: 0 none, 1 tls, 2 psk     26  1  admission: enum gw_admission, never LATER
 *  27  5  zero                               27  5  zero
 *
 * Integers are big-endian. The magics differ so that an echo is not taken for an answer. */
#ifndef GW_TRANSPORT_PREFACE_H
#define GW_TRANSPORT_PREFACE_H

#include "transport/transport.h"

#define GW_PREFACE_VERSION 1

void gw_preface_encode(const struct gw_preface *preface, uint8_t bytes[GW_PREFACE_BYTES]);
/* 0; -EPROTO: not a preface; -EPROTONOSUPPORT: a preface of another version (version is set). */
int gw_preface_decode(const uint8_t bytes[GW_PREFACE_BYTES], struct gw_preface *preface);

void gw_answer_encode(const struct gw_preface *preface, enum gw_admission admission,
                      uint8_t bytes[GW_PREFACE_BYTES]);
/* What the peer said to @preface: 0 if admitted, else err is set and says what to do about it. */
int gw_answer_check(const struct gw_preface *preface, const uint8_t bytes[GW_PREFACE_BYTES],
                    struct gw_error *err);

/* "none", "tls", "psk". */
const char *gw_security_name(uint8_t security);
/* One clause: "the session is not known there". */
const char *gw_admission_text(enum gw_admission admission);

/* Send config's preface on @fd (connected, non-blocking), wait for the answer until @deadline_ns. */
int gw_preface_exchange(int fd, const struct gw_wire_config *config, uint64_t deadline_ns,
                        struct gw_error *err);

#endif

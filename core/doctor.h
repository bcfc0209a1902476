/* SPDX-License-Identifier: MIT */
/* core/doctor.h - the probes behind gw_doctor_run(), by subject. Each tells what it found through
 * @all, leaves nothing behind, and returns after a bounded time. */
#ifndef GW_CORE_DOCTOR_H
#define GW_CORE_DOCTOR_H

#include "core/base/finding.h"
#include "transport/transport.h"

/* @uri: the address asked about, or NULL: its wire is needed. */
void gw_doctor_wires(const struct gw_uri *uri, struct gw_findings *all);
void gw_doctor_memory(const struct gw_uri *uri, struct gw_findings *all);
void gw_doctor_userfaultfd(struct gw_findings *all);
void gw_doctor_dirty(struct gw_findings *all);
void gw_doctor_kvm(struct gw_findings *all);
void gw_doctor_peer(const struct gw_uri *uri, struct gw_findings *all);

/* Is @uri an address of that wire, filters or not? False for NULL. */
bool gw_doctor_asks_for(const struct gw_uri *uri, const char *wire);

#endif

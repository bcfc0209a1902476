/* SPDX-License-Identifier: MIT */
/* core/base/error.h - filling a struct gw_error from inside the library. See STYLE: whoever finds
 * the fault writes the message (object, operation, cause); callers may prefix their own name. */
#ifndef GW_BASE_ERROR_H
#define GW_BASE_ERROR_H

#include <errno.h>
#include <godwit/error.h>
#include <stdbool.h>

/* Our own mistakes only; stays on in release; never judges input. */
#define gw_assert(condition)                                                                       \
    ((condition) ? (void)0 : gw_assert_failed(#condition, __FILE__, __LINE__))
_Noreturn void gw_assert_failed(const char *condition, const char *file, int line);

/* Fill @err (may be NULL) with @rc (negative errno) and a message; the strerror text is appended as
 * ": text" unless @rc is one the message explains itself (-EPROTO, -ECANCELED, -EINVAL, -EBADMSG).
 * gw_fail() derives the code from @rc; gw_fail_code() states it. Both return @rc. */
int gw_fail(struct gw_error *err, int rc, const char *format, ...) GW_PRINTF(3, 4);
int gw_fail_code(struct gw_error *err, int rc, enum gw_code code, const char *format, ...)
    GW_PRINTF(4, 5);

/* "prefix: " before the message that is there. Returns err->rc (or 0). */
int gw_error_prefix(struct gw_error *err, const char *format, ...) GW_PRINTF(2, 3);
void gw_error_phase(struct gw_error *err, const char *phase); /* only if none is set yet */
void gw_error_place(struct gw_error *err, const char *format, ...) GW_PRINTF(2, 3);
/* The peer's words: made printable, cut. Not NUL-terminated input. */
void gw_error_peer(struct gw_error *err, const char *text, size_t bytes);
void gw_error_clear(struct gw_error *err);
/* Copy respecting struct_bytes of both; either may be NULL. */
void gw_error_copy(struct gw_error *to, const struct gw_error *from);
bool gw_error_is_set(const struct gw_error *err);
/* The code with this name, GW_CODE_NONE if there is none. */
enum gw_code gw_code_from_name(const char *name);

#endif

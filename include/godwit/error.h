/* SPDX-License-Identifier: MIT */
/* godwit/error.h - what went wrong, where, and what to do about it.
 *
 * Calls return 0 or a count, else a negative errno. Set-up calls and callbacks also fill a
 * struct gw_error that the caller owns: fixed sizes, no allocation, valid until overwritten.
 * Every function that takes one takes NULL as well. */
#ifndef GODWIT_ERROR_H
#define GODWIT_ERROR_H

#include <godwit/version.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The reason in a form that a script can match; gw_code_name() gives its text ("no-convergence").
 * The list grows at its end only. */
enum gw_code {
    GW_CODE_NONE,
    GW_CODE_INVALID,     /* a caller's argument or parameter is malformed */
    GW_CODE_NO_MEMORY,   /* allocation or mapping failed */
    GW_CODE_LIMIT,       /* a declared limit (ours or the peer's) would be exceeded */
    GW_CODE_UNSUPPORTED, /* this pair of features, hosts or versions cannot work */
    GW_CODE_CONNECT,     /* no connection could be made */
    GW_CODE_LISTEN,      /* the address could not be listened on */
    GW_CODE_REFUSED,     /* the peer refused the session */
    GW_CODE_PROTOCOL,    /* the peer broke the protocol */
    GW_CODE_PEER_LOST, /* the connection ended: the peer closed it or died, or the way to it is gone */
    GW_CODE_TIMEOUT,        /* a documented time budget ran out */
    GW_CODE_CANCELLED,      /* gw_source_cancel() or its counterpart at the peer */
    GW_CODE_NO_CONVERGENCE, /* the guest dirties faster than the wire carries */
    GW_CODE_BLOCK,          /* a memory block is missing, of the wrong size, or refused */
    GW_CODE_DEVICE,         /* device state could not be saved or loaded */
    GW_CODE_GUEST,          /* pause, resume, release, acquire or run failed */
    GW_CODE_DIRTY,          /* dirty tracking failed */
    GW_CODE_DIGEST,         /* memory differs between source and target */
    GW_CODE_DECLINED,       /* the target gave the guest back after COMMIT (acquire failed) */
    GW_CODE_VOID,           /* the target discarded the guest; the source goes on */
    GW_CODE_UNKNOWN,        /* the outcome of the handover is not known */
    GW_CODE_RETAKE,         /* what was released could not be taken back; the guest stays paused */
    GW_CODE_IO,             /* a system call failed */
    GW_CODE_INTERNAL,       /* a fault of godwit's own */
    GW_CODE_VERIFY,         /* a check of guest memory failed */
    GW_CODE_LINK_DOWN,      /* this side's own port, or the link at it, is down */
    GW_CODE_DEVICE_LOST,    /* this side's own RDMA device was removed, or broke */
    GW_CODE_PEER_SILENT, /* nothing came from the peer within x-peer-timeout: it, or the way, stands still */
    GW_CODE_COUNT_
};

#define GW_ERROR_PHASE_BYTES 24
#define GW_ERROR_PLACE_BYTES 96
#define GW_ERROR_TEXT_BYTES 320

struct gw_error {
    size_t
        struct_bytes; /* sizeof(struct gw_error): how it grows; GW_ERROR_INIT sets it. Fields that do
                          * not end inside it are never touched; 0 means those listed here, for ever */
    int rc;           /* negative errno; 0: no error */
    enum gw_code code;
    char phase[GW_ERROR_PHASE_BYTES];  /* migration state in which it happened ("active"), or "" */
    char place[GW_ERROR_PLACE_BYTES];  /* object: "block 'ram0'", "tcp:[::1]:4444 endpoint 2" */
    char message[GW_ERROR_TEXT_BYTES]; /* what was being done and what went wrong */
    char hint[GW_ERROR_TEXT_BYTES];    /* what to do about it, or "" */
    char peer[GW_ERROR_TEXT_BYTES]; /* the peer's own words, or "" (control characters removed) */
};

#define GW_ERROR_INIT                                                                              \
    {                                                                                              \
        .struct_bytes = sizeof(struct gw_error)                                                    \
    }

/** gw_code_name() - a code's stable text, e.g. "peer-lost". [any thread] Static storage. */
GW_API const char *gw_code_name(enum gw_code code);

/** gw_error_set() - fill @err; for callbacks of an embedder. [any thread]
 *  @rc: negative errno. Cuts texts that are too long. Clears phase, place, hint and peer.
 *  Return: @rc, so that a callback can write `return gw_error_set(...)`. */
GW_API int gw_error_set(struct gw_error *err, int rc, enum gw_code code, const char *format, ...)
    GW_PRINTF(4, 5);

/** gw_error_hint() - add what to do about it. [any thread] Does nothing on a NULL or empty error. */
GW_API void gw_error_hint(struct gw_error *err, const char *format, ...) GW_PRINTF(2, 3);

#ifdef __cplusplus
}
#endif
#endif

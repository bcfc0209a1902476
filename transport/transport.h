/* SPDX-License-Identifier: MIT */
/* transport/transport.h - what the rooms above may do with a wire.
 *
 * Words: a *wire* is a backend (tcp, unix, rdma...); a *domain* owns memory registrations and is
 * shared by all endpoints of one migration; an *endpoint* is one open connection (index 0: control,
 * 1..N: pages), owned by one thread; a *put* places bytes of ours into a region of the peer; a
 * *message* is a fence, one way, on its own endpoint: when it arrives, every put posted before it
 * there is visible, and nothing is said about other endpoints.
 *
 * A completion lends back, a fence places: a completed put says only that its local bytes are the
 * caller's again. Every accepted put has exactly one completion, flushed or not.
 *
 * Threads: an endpoint belongs to one thread at a time; only gw_ep_shutdown() is [any thread].
 * Nothing blocks but gw_connect() (until config->deadline_ns). Who has nothing to do arms its
 * endpoints (gw_ep_arm), sleeps in gw_clock_poll() and tells them what woke it (gw_ep_awake).
 *
 * Errors: 0 or a count, -EAGAIN (later), any other negative is final for the endpoint: then only
 * poll (to collect the flushed completions; when none is left it returns the error too), recv (a
 * stream still hands out what had arrived: the peer's last words) and close make sense.
 * gw_ep_error() says why; -EACCES: a one-sided put was refused at the peer, whose memory is not, or
 * no longer, lent. Two refusals concern the argument and leave the endpoint as it was:
 * -EINVAL of gw_put (a range outside of its region) and -EMSGSIZE of gw_send (too long). */
#ifndef GW_TRANSPORT_H
#define GW_TRANSPORT_H

#include "core/base/error.h"
#include "core/base/log.h"

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct gw_uri;
struct gw_findings; /* core/base/finding.h */
struct gw_domain;
struct gw_endpoint;
struct gw_listener;
struct gw_mr;
struct gw_rmr;

/* ---- addresses --------------------------------------------------------------------------- */

#define GW_URI_BYTES_MAX 1024

/* "tcp:host:port", "tcp:[v6%zone]:port", "tcp://host:port", "rdma:host:port", "unix:path",
 * "ofi:provider:host:port"; with filters in front, each
 * once, and their query: "tap+tcp:host:port?dir=path" (docs/filters.md). */
struct gw_uri {
    char scheme[32];   /* with its filters: "tap+tcp" */
    char provider[64]; /* ofi: libfabric's name, "tcp;ofi_rxm"; "" elsewhere */
    char host[256];    /* name or address without brackets; "" where the scheme has none */
    uint16_t port;
    char path[256];              /* unix: the path */
    char text[GW_URI_BYTES_MAX]; /* as written, for messages */
};

int gw_uri_parse(const char *text, struct gw_uri *uri, struct gw_error *err);

/* ---- sessions ---------------------------------------------------------------------------- */

#define GW_SESSION_BYTES 16
#define GW_PREFACE_BYTES 32
#define GW_ENDPOINTS_MAX 256 /* control + 255 page endpoints */

/* Regions of a domain are numbered from 0, the blocks of a guest in order (ram/block.h). */
#define GW_REGIONS_MAX 65536u

enum gw_security { GW_SECURITY_NONE, GW_SECURITY_TLS, GW_SECURITY_PSK };

struct gw_preface {
    uint16_t version;
    uint8_t session[GW_SESSION_BYTES]; /* random, chosen by the connecting side */
    uint16_t index;                    /* endpoint index: 0 control, 1..N pages */
    uint8_t security;                  /* enum gw_security */
};

/* What the accepting side answers to a preface; anything but OK ends the connection. */
enum gw_admission {
    GW_ADMIT_OK,
    GW_ADMIT_VERSION,  /* preface or wire version not supported */
    GW_ADMIT_SECURITY, /* not the configured security */
    GW_ADMIT_UNKNOWN,  /* a page endpoint of a session that nobody opened */
    GW_ADMIT_BUSY,     /* it would be admitted, and the means are lacking: a log says which */
    GW_ADMIT_INDEX,    /* index out of range or already open */
    GW_ADMIT_LATER, /* not now: keep the connection waiting, ask again (bounded by the deadline) */
};

/* What a stream-like (not ONE_SIDED) target endpoint tells as puts arrive, on the endpoint's
 * thread. check() is called for each entry of a frame's table before any payload is read;
 * a negative answer fails the endpoint (-EPROTO). placed() after an entry's last byte is in memory. */
struct gw_place_ops {
    int (*check)(void *ctx, uint32_t region, uint64_t offset, uint32_t bytes);
    void (*placed)(void *ctx, uint32_t region, uint64_t offset, uint32_t bytes);
};

struct gw_wire_config {
    uint8_t session[GW_SESSION_BYTES];
    uint16_t index;
    uint8_t security;
    uint64_t deadline_ns;       /* absolute; set-up that blocks gives up then. 0: 10 s from now */
    uint64_t peer_timeout_ns;   /* keepalive and TCP_USER_TIMEOUT; 0: 2 s */
    uint32_t message_bytes_max; /* longest message either way; 0: GW_MESSAGE_BYTES_DEFAULT */
    bool
        heard_first; /* set by admit: answer, but hand the endpoint over only when its peer has said
                       * something; until then it costs a descriptor. Wires may ignore it. */
    const struct gw_place_ops *place; /* target page endpoints; may be NULL */
    void *place_ctx;
    const struct gw_log *log; /* outlives the endpoint */
    const char *rdma_device; /* rdma: this one, outlives the call; NULL or "": as the route leads */
    bool
        rdma_odp; /* rdma, when a domain is opened: memory is not pinned, the device faults it in */
    unsigned rdma_gid; /* rdma: 1 + the index of the GID to connect from, or to listen at; 0: any */
};

#define GW_MESSAGE_BYTES_DEFAULT ((1u << 20) + 64) /* a 1 MiB payload and its header */

#define GW_EP_ONE_SIDED 1u /* puts land without the peer's code; regions need the peer's key */
#define GW_EP_ZERO_COPY 2u
#define GW_EP_PINS 4u        /* registrations charge the memlock budget */
#define GW_EP_REPLIES 8u     /* two-way */
#define GW_EP_RAW 16u        /* no framing: recorded wires */
#define GW_EP_RECONNECTS 32u /* the source can connect again to the same address */
#define GW_EP_IN_PROCESS 64u /* both ends are in this process */

struct gw_ep_attr {
    uint32_t flags;         /* GW_EP_* */
    uint32_t put_bytes_max; /* longest single put */
    uint32_t put_count_max; /* puts that one gw_put() call may accept */
    uint32_t put_window;    /* puts that may be accepted and not yet completed */
    uint32_t message_bytes_max;
    uint8_t session[GW_SESSION_BYTES];
    uint16_t index;
    uint64_t rx_bytes;     /* received so far, payload included: liveness is that it moves */
    uint64_t tx_bytes;     /* handed to the wire so far, headers included */
    uint64_t copied_bytes; /* page bytes that went through a buffer of ours */
    uint64_t system_calls; /* made by this endpoint so far */
    bool tx_pending;       /* accepted puts or messages are not yet handed to the wire */
    char peer[128];        /* the peer's address, for messages */
};

/* ---- memory ------------------------------------------------------------------------------ */

#define GW_MR_LOCAL_READ 0u   /* source of puts */
#define GW_MR_REMOTE_WRITE 1u /* the peer may put here */
#define GW_MR_REMOTE_READ 2u  /* the peer may get from here */

#define GW_KEY_BYTES_MAX 64

/* ---- traffic ----------------------------------------------------------------------------- */

struct gw_put {         /* local[0, bytes) to rmr[offset, offset + bytes) */
    const void *local;  /* inside mr; lent until its completion */
    struct gw_mr *mr;   /* local registration; may be NULL where !GW_EP_PINS */
    struct gw_rmr *rmr; /* region of the peer, or of a file */
    uint64_t offset;    /* bytes into the region */
    uint32_t bytes;     /* 1..attr.put_bytes_max */
    uint64_t cookie;    /* the caller's; comes back in the completion */
};

struct gw_get {
    void *local;
    struct gw_mr *mr;
    struct gw_rmr *rmr;
    uint64_t offset;
    uint32_t bytes;
    uint64_t cookie;
};

struct gw_completion {
    uint64_t cookie;
    int status; /* 0, or the negative errno with which it was flushed: nothing is known of its bytes */
};

/* 0, or -EINVAL and what this build was made without. */
int gw_wire_check(const char *scheme, struct gw_error *err);
/* The wire's name for @scheme ("tcp", of "tap+tcp" too), NULL if there is no such wire
 * here. */
const char *gw_wire_name(const char *scheme);
/* The name in statistics of the wire that @uri leads through: gw_wire_name(), and with it libfabric's
 * provider, "ofi:net"; "?" if there is none. */
void gw_wire_label(const struct gw_uri *uri, char *text, size_t bytes);
/* The @index-th scheme of this build, NULL after the last. */
const char *gw_wire_scheme(unsigned index);
/* Flags (GW_EP_*) that every endpoint of this scheme has; 0 if unknown. */
uint32_t gw_wire_flags(const char *scheme);
/* Does this provider of libfabric's pin what is registered, or want it populated before (FI_MR_ALLOCATED)? Of one that
 * is not known: yes. */
bool gw_provider_pins(const char *provider);

/* What works of wire @scheme on this host, from its library and the kernel's modules to devices, ports
 * and permissions (transport/wire_report.h); @needed as in godwit/doctor.h. Blocks for a second at
 * most. Wires of sockets have nothing to tell. */
void gw_wire_report(const char *scheme, bool needed, struct gw_findings *all);
/* What wire @scheme says about the way to @uri->host, whatever the wire of @uri, without connecting. */
void gw_wire_report_path(const char *scheme, const struct gw_uri *uri, bool needed,
                         struct gw_findings *all);

int gw_domain_open(const char *scheme, const struct gw_wire_config *config, struct gw_domain **dom,
                   struct gw_error *err);
void gw_domain_close(struct gw_domain *dom); /* after its endpoints and registrations; takes NULL */

int gw_connect(struct gw_domain *dom, const struct gw_uri *uri, const struct gw_wire_config *config,
               struct gw_endpoint **ep, struct gw_error *err);

/* The listener's decision about one preface, called inside gw_accept(). On GW_ADMIT_OK it sets
 * @dom and fills @config (all but session, index, security). */
typedef enum gw_admission gw_admit_fn(void *ctx, const struct gw_preface *preface,
                                      struct gw_domain **dom, struct gw_wire_config *config);

/* @config: security (a preface with another is refused unasked), deadline_ns (here relative: how long
 * a connection may take to be admitted; 0: 5 s) and log count. */
int gw_listen(const struct gw_uri *uri, const struct gw_wire_config *config,
              struct gw_listener **ln, struct gw_error *err);
/* "tcp:[::1]:4444": the URI that a peer can use, with the real port and without our filters. Static as
 * long as @ln. */
const char *gw_listener_uri(const struct gw_listener *ln);
/* One step: take new connections, read prefaces, ask @admit. Never blocks; a connection that has not
 * sent its preface within config->deadline (relative: 5 s) is dropped.
 * Return: 1 and *ep; 0: nothing ready; negative: the listener is broken (err set). A refused or
 * garbled connection is not an error: it is answered, closed, logged. */
int gw_accept(struct gw_listener *ln, gw_admit_fn *admit, void *admit_ctx, struct gw_endpoint **ep,
              struct gw_error *err);
/* As gw_ep_arm/gw_ep_awake. */
int gw_listener_arm(struct gw_listener *ln, struct pollfd *fds, unsigned max, uint64_t *wake_ns);
void gw_listener_awake(struct gw_listener *ln, const struct pollfd *fds, unsigned count);
void gw_listener_close(struct gw_listener *ln); /* unix: unlinks what it made; takes NULL */

void gw_ep_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr);
int gw_ep_error(const struct gw_endpoint *ep,
                struct gw_error *err);       /* why it is final; 0: it is not */
void gw_ep_shutdown(struct gw_endpoint *ep); /* [any thread] every later op: -ESHUTDOWN */
void gw_ep_revoke(struct gw_endpoint *ep); /* on return the peer can place nothing more here; O(1).
                                              * Messages still pass where the wire can. */
void gw_ep_close(struct gw_endpoint *ep);  /* on return no NIC touches lent memory; takes NULL */

struct gw_mr_desc {
    void *addr;
    uint64_t bytes;
    uint32_t access; /* GW_MR_* */
    uint32_t region; /* with REMOTE_*: the number by which a stream peer names it (block id) */
};

int gw_mr_reg(struct gw_domain *dom, const struct gw_mr_desc *desc, struct gw_mr **mr,
              struct gw_error *err);
void gw_mr_dereg(struct gw_mr *mr); /* takes NULL */
/* The key to send to the peer; 0 bytes on wires whose regions need none.
 * Return: its length, at most GW_KEY_BYTES_MAX. */
int gw_mr_pack(const struct gw_mr *mr, void *key);
/* A region of the peer: @key as packed there (may be empty on streams), @region its number. */
int gw_rmr_open(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err);
void gw_rmr_close(struct gw_rmr *rmr); /* takes NULL */

/* How many were accepted, 0: later. A stream gathers them into frames: what does not fill one goes with
 * the next message, with gw_ep_arm(), or with a second gw_poll() that follows no put. */
int gw_put(struct gw_endpoint *ep, const struct gw_put *puts, unsigned count);
int gw_get(struct gw_endpoint *ep, const struct gw_get *gets,
           unsigned count); /* -EOPNOTSUPP so far */
int gw_poll(struct gw_endpoint *ep, struct gw_completion *done, unsigned max);
/* One whole message, or -EAGAIN. The bytes are the caller's again at once. */
int gw_send(struct gw_endpoint *ep, const struct iovec *iov, int iov_count);
/* One whole message (its length), or -EAGAIN; -EMSGSIZE (final) if it does not fit. */
ssize_t gw_recv(struct gw_endpoint *ep, void *buf, size_t bytes);

/* Prepare to sleep: fill @fds (at most 2 are needed) and lower *wake_ns if the endpoint must be
 * stepped by then. Return: how many; 0 with *wake_ns = 0: do not sleep, something is ready now. An
 * endpoint whose final error has been told, and whose completions are collected, arms nothing. */
int gw_ep_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns);
void gw_ep_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count);

#endif

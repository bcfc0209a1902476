/* SPDX-License-Identifier: MIT */
/* transport/filter/filter.h - an endpoint that wraps an endpoint: "fault+tcp:host:port?...", or more
 * than one, "tap+fault+tcp:...". A filter is chosen in the address of the side that uses it and is
 * never seen by the peer. Its table is that of a wire; a domain, a listener and an endpoint of it hold
 * those of the wire below, and regions pass as they are unless it wraps them too.
 *
 * What every filter does alike is here: its place in an address, its share of the query, and how
 * connections are made and taken. A filter brings what differs: its endpoint, and the ops that look
 * at what passes. */
#ifndef GW_TRANSPORT_FILTER_FILTER_H
#define GW_TRANSPORT_FILTER_FILTER_H

#include "transport/ops.h"

#include <pthread.h>

enum gw_filter_side { GW_FILTER_SOURCE, GW_FILTER_TARGET }; /* which connects, which accepts */

struct gw_filter_domain {
    struct gw_domain base;
    const struct gw_filter *filter;
    struct gw_domain *inner;
    pthread_mutex_t attempts_lock; /* guards attempts */
    uint32_t attempts[GW_ENDPOINTS_MAX];
};

struct gw_filter_endpoint {
    struct gw_endpoint base;
    struct gw_endpoint *inner;
};

struct gw_filter_open { /* what is known of a connection before it is made */
    struct gw_filter_domain *dom;
    const struct gw_uri *uri; /* with the query */
    enum gw_filter_side side;
    uint32_t attempt;              /* of this endpoint index in this domain, from 1 */
    struct gw_wire_config *config; /* of the wire below; a filter may wrap its place callbacks */
};

struct gw_filter {
    const char *name;          /* "tap" */
    const char *const *params; /* its names in the query, NULL at the end */
    const struct gw_transport_ops *ops;
    size_t domain_bytes; /* of its domain, which begins with struct gw_filter_domain */
    int (*domain_init)(struct gw_filter_domain *dom, struct gw_error *err); /* may be NULL */
    void (*domain_fini)(struct gw_filter_domain *dom);                      /* may be NULL */
    /* Are the values of its parameters in order? */
    int (*check)(const struct gw_uri *uri, struct gw_error *err);
    /* Its endpoint, inner still unset; before the connection is made. */
    int (*endpoint_new)(const struct gw_filter_open *open, struct gw_filter_endpoint **ep,
                        struct gw_error *err);
    /* inner is set, and open. */
    void (*endpoint_opened)(struct gw_filter_endpoint *ep); /* may be NULL */
    /* The connection was not made: inner is unset. The table's close is the filter's own. */
    void (*endpoint_free)(struct gw_filter_endpoint *ep);
};

extern const struct gw_filter gw_fault_filter;
extern const struct gw_filter gw_tap_filter;

/* ---- addresses ------------------------------------------------------------------------------ */

/* The filter whose name @scheme begins with, "tap+tcp"; NULL if it begins with none. */
const struct gw_filter *gw_filter_of(const char *scheme);
/* The wire below all filters: "tcp". */
const char *gw_filter_wire(const char *scheme);
/* The @index-th filter's name, NULL after the last. */
const char *gw_filter_name(unsigned index);
/* The address with its first filter taken away, and the query with the last one. */
void gw_filter_strip(const struct gw_uri *uri, struct gw_uri *inner);
/* The query of a parsed @uri: known names, values in order. */
int gw_filter_check(const struct gw_uri *uri, struct gw_error *err);

struct gw_query { /* name=value&name=value, %XX in values decoded */
    const char *at;
    char name[32];
    char value[GW_URI_BYTES_MAX];
};

void gw_query_begin(struct gw_query *query, const struct gw_uri *uri);
/* 1: name and value are set; 0: the end; -EINVAL: malformed, err is set. */
int gw_query_next(struct gw_query *query, struct gw_error *err);

/* ---- what filters share --------------------------------------------------------------------- */

int gw_filter_domain_open(const char *scheme, const struct gw_wire_config *config,
                          struct gw_domain **dom, struct gw_error *err);
int gw_filter_no_domain_open(const struct gw_wire_config *config, struct gw_domain **dom,
                             struct gw_error *err); /* for the table: it names no wire */
void gw_filter_domain_close(struct gw_domain *dom);
int gw_filter_connect(struct gw_domain *dom, const struct gw_uri *uri,
                      const struct gw_wire_config *config, struct gw_endpoint **ep,
                      struct gw_error *err);
int gw_filter_listen(const struct gw_uri *uri, const struct gw_wire_config *config,
                     struct gw_listener **ln, struct gw_error *err);
const char *gw_filter_listener_uri(const struct gw_listener *ln); /* of the wire below */
int gw_filter_accept(struct gw_listener *ln, gw_admit_fn *admit, void *admit_ctx,
                     struct gw_endpoint **ep, struct gw_error *err);
int gw_filter_listener_arm(struct gw_listener *ln, struct pollfd *fds, unsigned max,
                           uint64_t *wake_ns);
void gw_filter_listener_awake(struct gw_listener *ln, const struct pollfd *fds, unsigned count);
void gw_filter_listener_close(struct gw_listener *ln);
void gw_filter_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr);
int gw_filter_error(const struct gw_endpoint *ep, struct gw_error *err);
void gw_filter_shutdown(struct gw_endpoint *ep);
/* Regions of the wire below, handed out as they are: the last three are in the table for
 * completeness and are never reached. */
int gw_filter_mr_reg(struct gw_domain *dom, const struct gw_mr_desc *desc, struct gw_mr **mr,
                     struct gw_error *err);
int gw_filter_rmr_open(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                       size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err);
void gw_filter_mr_dereg(struct gw_mr *mr);
int gw_filter_mr_pack(const struct gw_mr *mr, void *key);
void gw_filter_rmr_close(struct gw_rmr *rmr);

static inline struct gw_filter_domain *gw_filter_domain_of(struct gw_domain *dom)
{
    return (struct gw_filter_domain *)dom;
}

static inline struct gw_filter_endpoint *gw_filter_endpoint_of(struct gw_endpoint *ep)
{
    return (struct gw_filter_endpoint *)ep;
}

#endif

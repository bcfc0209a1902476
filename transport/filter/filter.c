// SPDX-License-Identifier: MIT
/* What every filter does alike. A connection through a filter is made in three steps: the filter's
 * endpoint, then the connection of the wire below it, then both are joined; at the listening side
 * the first step is taken when the owner admits the preface, because the place callbacks of the
 * wire's endpoint may be the filter's by then. A connection that is not made gives the first step
 * back. Nothing here touches what passes. */
#include "transport/filter/filter.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"

#include <stdio.h>
#include <string.h>

static const struct gw_filter *const filters[] = {
    &gw_tap_filter,
    &gw_fault_filter,
};

#define FILTER_COUNT (sizeof(filters) / sizeof(filters[0]))

/* ---- addresses ---- */

const struct gw_filter *gw_filter_of(const char *scheme)
{
    size_t bytes = strcspn(scheme, "+");
    for (size_t i = 0; scheme[bytes] && i < FILTER_COUNT; i++) {
        if (strlen(filters[i]->name) == bytes && memcmp(filters[i]->name, scheme, bytes) == 0)
            return filters[i];
    }
    return NULL;
}

const char *gw_filter_wire(const char *scheme)
{
    const char *plus = strrchr(scheme, '+');
    return plus ? plus + 1 : scheme;
}

const char *gw_filter_name(unsigned index)
{
    return index < FILTER_COUNT ? filters[index]->name : NULL;
}

void gw_filter_strip(const struct gw_uri *uri, struct gw_uri *inner)
{
    size_t skip = strcspn(uri->scheme, "+") + 1;
    *inner = *uri;
    memmove(inner->scheme, inner->scheme + skip, sizeof(inner->scheme) - skip);
    memmove(inner->text, inner->text + skip, sizeof(inner->text) - skip);
    if (!strchr(inner->scheme, '+'))
        inner->text[strcspn(inner->text, "?")] = '\0';
}

void gw_query_begin(struct gw_query *query, const struct gw_uri *uri)
{
    const char *mark = strchr(uri->scheme, '+') ? strchr(uri->text, '?') : NULL;
    query->at = mark ? mark + 1 : "";
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* False: a '%' without two digits after it, or one that stands for the end of a text. */
static bool decode(const char *from, size_t bytes, char *to)
{
    for (size_t i = 0; i < bytes; i++) {
        if (from[i] != '%') {
            *to++ = from[i];
            continue;
        }
        int high = i + 2 < bytes ? hex_digit(from[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(from[i + 2]) : -1;
        if (low < 0 || high * 16 + low == 0)
            return false;
        *to++ = (char)(high * 16 + low);
        i += 2;
    }
    *to = '\0';
    return true;
}

int gw_query_next(struct gw_query *query, struct gw_error *err)
{
    if (*query->at == '\0')
        return 0;
    size_t bytes = strcspn(query->at, "&");
    size_t name = strcspn(query->at, "=&");
    if (name == 0 || name == bytes || name >= sizeof(query->name)) {
        int rc = gw_fail(err, -EINVAL, "'%.*s' in the query is no parameter",
                         (int)gw_min_u64(bytes, 100), query->at);
        gw_error_hint(err, "parameters are name=value, with '&' between them");
        return rc;
    }
    memcpy(query->name, query->at, name);
    query->name[name] = '\0';
    if (!decode(query->at + name + 1, bytes - name - 1, query->value)) {
        int rc = gw_fail(err, -EINVAL, "'%.*s' in the query: '%%' without two hexadecimal digits",
                         (int)gw_min_u64(bytes, 100), query->at);
        gw_error_hint(err, "'%%' itself is written %%25, '&' is %%26");
        return rc;
    }
    query->at += bytes + (query->at[bytes] == '&');
    return 1;
}

static bool has_param(const struct gw_filter *filter, const char *name)
{
    for (const char *const *p = filter->params; *p; p++) {
        if (strcmp(*p, name) == 0)
            return true;
    }
    return false;
}

static int refuse_param(const struct gw_uri *uri, const char *name, struct gw_error *err)
{
    char known[160] = "";
    const struct gw_filter *filter;
    for (const char *scheme = uri->scheme; (filter = gw_filter_of(scheme)) != NULL;
         scheme = strchr(scheme, '+') + 1) {
        for (const char *const *p = filter->params; *p; p++) {
            size_t used = strlen(known);
            snprintf(known + used, sizeof(known) - used, "%s%s", used ? ", " : "", *p);
        }
    }
    int rc = gw_fail(err, -EINVAL, "address '%.200s': unknown parameter '%s'", uri->text, name);
    gw_error_hint(err, "its filters know: %s", known);
    return rc;
}

int gw_filter_check(const struct gw_uri *uri, struct gw_error *err)
{
    struct gw_query query;
    const struct gw_filter *filter = NULL;
    int rc;
    gw_query_begin(&query, uri);
    while ((rc = gw_query_next(&query, err)) > 0) {
        const char *scheme = uri->scheme;
        while ((filter = gw_filter_of(scheme)) != NULL && !has_param(filter, query.name))
            scheme = strchr(scheme, '+') + 1;
        if (!filter)
            return refuse_param(uri, query.name, err);
    }
    for (const char *scheme = uri->scheme; rc == 0 && (filter = gw_filter_of(scheme)) != NULL;
         scheme = strchr(scheme, '+') + 1)
        rc = filter->check(uri, err);
    if (rc < 0)
        gw_error_prefix(err, "address '%.100s'", uri->text);
    return rc;
}

/* ---- domains ---- */

int gw_filter_domain_open(const char *scheme, const struct gw_wire_config *config,
                          struct gw_domain **dom, struct gw_error *err)
{
    const struct gw_filter *filter = gw_filter_of(scheme);
    struct gw_filter_domain *d = gw_zalloc(1, filter->domain_bytes);
    if (!d)
        return gw_fail(err, -ENOMEM, "domain of wire '%s'", scheme);
    d->base.ops = filter->ops;
    d->filter = filter;
    int rc = gw_domain_open(strchr(scheme, '+') + 1, config, &d->inner, err);
    if (rc < 0)
        goto out;
    rc = -pthread_mutex_init(&d->attempts_lock, NULL);
    if (rc < 0) {
        gw_fail(err, rc, "domain of wire '%s': lock", scheme);
        goto out;
    }
    rc = filter->domain_init ? filter->domain_init(d, err) : 0;
    if (rc < 0) {
        pthread_mutex_destroy(&d->attempts_lock);
        goto out;
    }
    *dom = &d->base;
    return 0;
out:
    gw_domain_close(d->inner);
    gw_free(d);
    return rc;
}

int gw_filter_no_domain_open(const struct gw_wire_config *config, struct gw_domain **dom,
                             struct gw_error *err)
{
    (void)config;
    (void)dom;
    return gw_fail(err, -EINVAL, "a filter without a wire");
}

void gw_filter_domain_close(struct gw_domain *dom)
{
    struct gw_filter_domain *d = gw_filter_domain_of(dom);
    if (d->filter->domain_fini)
        d->filter->domain_fini(d);
    gw_domain_close(d->inner);
    pthread_mutex_destroy(&d->attempts_lock);
    gw_free(d);
}

static uint32_t next_attempt(struct gw_filter_domain *d, uint16_t index)
{
    if (index >= GW_ENDPOINTS_MAX)
        return 1; /* the wire refuses it */
    pthread_mutex_lock(&d->attempts_lock);
    uint32_t attempt = ++d->attempts[index];
    pthread_mutex_unlock(&d->attempts_lock);
    return attempt;
}

int gw_filter_mr_reg(struct gw_domain *dom, const struct gw_mr_desc *desc, struct gw_mr **mr,
                     struct gw_error *err)
{
    return gw_mr_reg(gw_filter_domain_of(dom)->inner, desc, mr, err);
}

int gw_filter_rmr_open(struct gw_domain *dom, uint32_t region, uint64_t bytes, const void *key,
                       size_t key_bytes, struct gw_rmr **rmr, struct gw_error *err)
{
    return gw_rmr_open(gw_filter_domain_of(dom)->inner, region, bytes, key, key_bytes, rmr, err);
}

void gw_filter_mr_dereg(struct gw_mr *mr)
{
    gw_assert(mr == NULL); /* its table is that of the wire below */
}

int gw_filter_mr_pack(const struct gw_mr *mr, void *key)
{
    (void)key;
    gw_assert(mr == NULL);
    return 0;
}

void gw_filter_rmr_close(struct gw_rmr *rmr)
{
    gw_assert(rmr == NULL);
}

/* ---- connecting ---- */

static void joined(const struct gw_filter *filter, struct gw_filter_endpoint *wrap,
                   struct gw_endpoint *inner, struct gw_endpoint **ep)
{
    wrap->base.ops = filter->ops;
    wrap->inner = inner;
    if (filter->endpoint_opened)
        filter->endpoint_opened(wrap);
    *ep = &wrap->base;
}

int gw_filter_connect(struct gw_domain *dom, const struct gw_uri *uri,
                      const struct gw_wire_config *config, struct gw_endpoint **ep,
                      struct gw_error *err)
{
    struct gw_filter_domain *d = gw_filter_domain_of(dom);
    struct gw_wire_config mine = *config;
    struct gw_filter_endpoint *wrap = NULL;
    struct gw_endpoint *inner = NULL;
    struct gw_uri below;
    struct gw_filter_open open = {.dom = d,
                                  .uri = uri,
                                  .side = GW_FILTER_SOURCE,
                                  .attempt = next_attempt(d, config->index),
                                  .config = &mine};
    gw_filter_strip(uri, &below);
    int rc = d->filter->endpoint_new(&open, &wrap, err);
    if (rc < 0)
        return rc;
    rc = gw_connect(d->inner, &below, &mine, &inner, err);
    if (rc < 0)
        d->filter->endpoint_free(wrap);
    else
        joined(d->filter, wrap, inner, ep);
    return rc;
}

/* ---- listening ---- */

/* An endpoint of ours for a connection that was admitted and not yet handed over. */
struct made {
    struct made *next;
    struct gw_filter_endpoint *wrap;
    uint8_t session[GW_SESSION_BYTES];
    uint16_t index;
};

/* More of them wait only where their connections are lost: the oldest goes. */
#define MADE_MAX GW_ENDPOINTS_MAX

struct filter_listener {
    struct gw_listener base;
    const struct gw_filter *filter;
    struct gw_listener *inner;
    struct gw_uri uri;
    const struct gw_log *log;
    gw_admit_fn *admit; /* of the gw_accept() that runs */
    void *admit_ctx;
    struct made *made; /* the newest first */
    unsigned made_count;
};

static struct filter_listener *listener_of(struct gw_listener *ln)
{
    return (struct filter_listener *)ln;
}

int gw_filter_listen(const struct gw_uri *uri, const struct gw_wire_config *config,
                     struct gw_listener **ln, struct gw_error *err)
{
    struct gw_uri below;
    struct filter_listener *l = gw_zalloc(1, sizeof(*l));
    if (!l)
        return gw_fail(err, -ENOMEM, "%s: listen", uri->text);
    l->filter = gw_filter_of(uri->scheme);
    l->base.ops = l->filter->ops;
    l->uri = *uri;
    l->log = config->log;
    gw_filter_strip(uri, &below);
    int rc = gw_listen(&below, config, &l->inner, err);
    if (rc < 0)
        gw_free(l);
    else
        *ln = &l->base;
    return rc;
}

const char *gw_filter_listener_uri(const struct gw_listener *ln)
{
    return gw_listener_uri(((const struct filter_listener *)ln)->inner);
}

static struct gw_filter_endpoint *take_at(struct filter_listener *l, struct made **at)
{
    struct made *made = *at;
    struct gw_filter_endpoint *wrap = made->wrap;
    *at = made->next;
    l->made_count--;
    gw_free(made);
    return wrap;
}

/* The one of this connection, NULL: none. */
static struct gw_filter_endpoint *take_made(struct filter_listener *l, const uint8_t *session,
                                            uint16_t index)
{
    for (struct made **at = &l->made; *at; at = &(*at)->next) {
        if ((*at)->index == index && memcmp((*at)->session, session, GW_SESSION_BYTES) == 0)
            return take_at(l, at);
    }
    return NULL;
}

static void give_up_oldest(struct filter_listener *l)
{
    struct made **at = &l->made;
    while (*at && (*at)->next)
        at = &(*at)->next;
    if (*at)
        l->filter->endpoint_free(take_at(l, at));
}

static int keep(struct filter_listener *l, const struct gw_wire_config *config,
                struct gw_filter_endpoint *wrap)
{
    struct made *made = gw_zalloc(1, sizeof(*made));
    /* One with its name is of a connection that was lost while it was admitted. */
    struct gw_filter_endpoint *lost = take_made(l, config->session, config->index);
    if (lost)
        l->filter->endpoint_free(lost);
    if (!made)
        return -ENOMEM;
    if (l->made_count == MADE_MAX)
        give_up_oldest(l);
    made->wrap = wrap;
    memcpy(made->session, config->session, GW_SESSION_BYTES);
    made->index = config->index;
    made->next = l->made;
    l->made = made;
    l->made_count++;
    return 0;
}

static enum gw_admission admit(void *ctx, const struct gw_preface *preface, struct gw_domain **dom,
                               struct gw_wire_config *config)
{
    struct filter_listener *l = ctx;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_domain *outer = NULL;
    struct gw_filter_endpoint *wrap = NULL;
    enum gw_admission admission = l->admit(l->admit_ctx, preface, &outer, config);
    if (admission != GW_ADMIT_OK)
        return admission;
    gw_assert(outer != NULL && outer->ops == l->filter->ops);
    config->heard_first = false; /* fewer of ours wait for connections that are lost */
    struct gw_filter_domain *d = gw_filter_domain_of(outer);
    memcpy(config->session, preface->session, GW_SESSION_BYTES);
    config->index = preface->index;
    struct gw_filter_open open = {.dom = d,
                                  .uri = &l->uri,
                                  .side = GW_FILTER_TARGET,
                                  .attempt = next_attempt(d, preface->index),
                                  .config = config};
    int rc = l->filter->endpoint_new(&open, &wrap, &err);
    if (rc == 0 && keep(l, config, wrap) < 0) {
        l->filter->endpoint_free(wrap);
        rc = gw_fail(&err, -ENOMEM, "a new endpoint");
    }
    if (rc < 0) {
        gw_log_warn(l->log, "filter", "%s: endpoint %u: not admitted: %s", l->filter->name,
                    preface->index, err.message);
        return GW_ADMIT_BUSY;
    }
    *dom = d->inner;
    return GW_ADMIT_OK;
}

int gw_filter_accept(struct gw_listener *ln, gw_admit_fn *asked, void *asked_ctx,
                     struct gw_endpoint **ep, struct gw_error *err)
{
    struct filter_listener *l = listener_of(ln);
    struct gw_endpoint *inner = NULL;
    l->admit = asked;
    l->admit_ctx = asked_ctx;
    int rc = gw_accept(l->inner, admit, l, &inner, err);
    if (rc > 0) {
        struct gw_ep_attr attr;
        gw_ep_query(inner, &attr);
        struct gw_filter_endpoint *wrap = take_made(l, attr.session, attr.index);
        gw_assert(wrap != NULL);
        joined(l->filter, wrap, inner, ep);
    }
    return rc;
}

int gw_filter_listener_arm(struct gw_listener *ln, struct pollfd *fds, unsigned max,
                           uint64_t *wake_ns)
{
    return gw_listener_arm(listener_of(ln)->inner, fds, max, wake_ns);
}

void gw_filter_listener_awake(struct gw_listener *ln, const struct pollfd *fds, unsigned count)
{
    gw_listener_awake(listener_of(ln)->inner, fds, count);
}

void gw_filter_listener_close(struct gw_listener *ln)
{
    struct filter_listener *l = listener_of(ln);
    while (l->made)
        give_up_oldest(l);
    gw_listener_close(l->inner);
    gw_free(l);
}

/* ---- endpoints ---- */

void gw_filter_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr)
{
    gw_ep_query(((const struct gw_filter_endpoint *)ep)->inner, attr);
}

int gw_filter_error(const struct gw_endpoint *ep, struct gw_error *err)
{
    return gw_ep_error(((const struct gw_filter_endpoint *)ep)->inner, err);
}

void gw_filter_shutdown(struct gw_endpoint *ep)
{
    gw_ep_shutdown(gw_filter_endpoint_of(ep)->inner);
}

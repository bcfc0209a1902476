// SPDX-License-Identifier: MIT
/* How a page endpoint comes to be, from an admitted tcp connection: with the first step libfabric's
 * endpoint is opened, its card goes out, the peer's comes in, then each end hears a hello of the other on the fabric itself: so
 * the provider's own connection stands, both ways, before anything is accepted. The connecting side
 * waits for that; the accepting side is stepped through it. What fails here is told to the peer: a card
 * may say why there is no endpoint. */
#include "transport/ofi/ofi_impl.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "transport/ofi/ofi.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define CONNECT_NS (10 * GW_NS_PER_S)
#define PEER_TIMEOUT_NS (2 * GW_NS_PER_S)
#define LEFT_OVERS_MAX 256u /* of one dead process, an endpoint each */

/* ---- the peer's card -------------------------------------------------------------------------- */

static int insert_peer(struct gw_ofi_ep *e, const struct gw_ofi_card *card)
{
    const struct fi_info *info = e->dom->fabric.info;
    uint8_t address[GW_OFI_ADDRESS_BYTES_MAX + 1] = {0}; /* an address that is a text ends */
    sa_family_t family;
    memcpy(address, card->address, sizeof(card->address));
    memcpy(&family, address, sizeof(family));
    if (strcmp(card->provider, info->fabric_attr->prov_name) != 0)
        return gw_ofi_ep_fail(e, -EPROTONOSUPPORT, GW_CODE_UNSUPPORTED,
                              "the peer's provider is '%s', ours is '%s'", card->provider,
                              info->fabric_attr->prov_name);
    if (card->address_format != info->addr_format ||
        (info->addr_format == FI_SOCKADDR_IN &&
         (family != AF_INET || card->address_bytes != sizeof(struct sockaddr_in))) ||
        (info->addr_format == FI_SOCKADDR_IN6 &&
         (family != AF_INET6 || card->address_bytes != sizeof(struct sockaddr_in6))))
        return gw_ofi_ep_fail(e, -EPROTO, GW_CODE_PROTOCOL,
                              "the peer's fabric address is of another kind than ours");
    gw_ofi_enter(e->dom);
    int count = fi_av_insert(e->av, address, 1, &e->to, 0, NULL);
    gw_ofi_leave(e->dom);
    if (count != 1)
        return gw_ofi_ep_fail(e, -EPROTO, GW_CODE_PROTOCOL, "the peer's fabric address is refused");
    return 0;
}

static bool one_process_allowed;

void gw_ofi_allow_one_process(bool allow)
{
    one_process_allowed = allow;
}

/* shm's addresses begin with the process: "fi_shm://4711...". */
static int check_process(struct gw_ofi_ep *e, const struct gw_ofi_card *card)
{
    unsigned long process = 0;
    char text[GW_OFI_ADDRESS_BYTES_MAX + 1] = "";
    memcpy(text, card->address, sizeof(card->address));
    if (one_process_allowed || strcmp(card->provider, "shm") != 0 ||
        sscanf(text, "fi_shm://%lu", &process) != 1 || process != (unsigned long)getpid())
        return 0;
    gw_ofi_ep_fail(e, -EOPNOTSUPP, GW_CODE_UNSUPPORTED,
                   "provider 'shm' cannot join two ends of one process: it goes on reading an end "
                   "that was closed");
    gw_error_hint(&e->err, "use tcp;ofi_rxm, or two processes");
    return e->rc;
}

int gw_ofi_take_card(struct gw_ofi_ep *e)
{
    struct gw_ofi_card card;
    const char *why = "";
    if (gw_ofi_card_decode(e->card, &card, &why) < 0)
        return gw_ofi_ep_fail(e, -EPROTO, GW_CODE_PROTOCOL, "the peer's card: %s", why);
    if (card.refused) {
        gw_ofi_ep_fail(e, -EOPNOTSUPP, GW_CODE_UNSUPPORTED,
                       "the peer could not open its end of provider '%s'", card.provider);
        gw_error_peer(&e->err, (const char *)card.address, card.address_bytes);
        return e->rc;
    }
    int rc = check_process(e, &card);
    if (rc == 0)
        rc = insert_peer(e, &card);
    if (rc < 0)
        return rc;
    e->tx_token = card.token;
    e->state = GW_OFI_HELLO;
    e->moved = true;
    if (e->connects)
        gw_ofi_say_hello(e);
    gw_ofi_maybe_joined(e);
    return 0;
}

/* ---- life ------------------------------------------------------------------------------------- */

static int open_cq(struct gw_ofi_ep *e)
{
    const struct gw_ofi_fabric *f = &e->dom->fabric;
    struct fi_cq_attr attr = {.size = e->queue.capacity + GW_OFI_RECEIVES,
                              .format = FI_CQ_FORMAT_MSG,
                              .wait_obj = f->sleeps ? FI_WAIT_FD : FI_WAIT_NONE};
    int rc = fi_cq_open(f->domain, &attr, &e->cq, NULL);
    if (rc < 0 && f->sleeps) {
        attr.wait_obj = FI_WAIT_NONE;
        rc = fi_cq_open(f->domain, &attr, &e->cq, NULL);
    }
    if (rc == 0 && attr.wait_obj == FI_WAIT_FD &&
        fi_control(&e->cq->fid, FI_GETWAIT, &e->cq_fd) != 0)
        e->cq_fd = -1;
    return rc;
}

/* An endpoint of libfabric's, bound to @e's queue and addresses, and enabled. On failure there is none. */
static int open_bound(struct gw_ofi_ep *e, const char **what)
{
    const struct gw_ofi_fabric *f = &e->dom->fabric;
    *what = "fi_endpoint";
    int rc = fi_endpoint(f->domain, f->info, &e->ep, NULL);
    if (rc < 0) {
        e->ep = NULL;
        return rc;
    }
    *what = "fi_ep_bind";
    rc = fi_ep_bind(e->ep, &e->av->fid, 0);
    if (rc == 0)
        rc = fi_ep_bind(e->ep, &e->cq->fid, FI_TRANSMIT | FI_RECV);
    if (rc == 0) {
        *what = "fi_enable";
        rc = fi_enable(e->ep);
    }
    if (rc < 0) {
        fi_close(&e->ep->fid);
        e->ep = NULL;
    }
    return rc;
}

/* ofi_rxm wants a completion queue for FI_UNIVERSE_SIZE peers, 256 if nobody says; soft-RoCE's largest has 32767
 * entries. libfabric reads the variable once: it cannot be set from here. */
static int fail_open(const char *provider, int rc, const char *what, struct gw_error *err)
{
    gw_ofi_fail(err, rc, what);
    if (rc == -EINVAL && strcmp(provider, "verbs;ofi_rxm") == 0)
        gw_error_hint(
            err,
            "set FI_UNIVERSE_SIZE=16 in the environment of both processes: the device may have no "
            "completion queue as long as the provider wants (max_cqe in 'ibv_devinfo -v')");
    return gw_ofi_errno(rc);
}

static int open_fabric_ep(struct gw_ofi_ep *e, struct gw_error *err)
{
    const struct gw_ofi_fabric *f = &e->dom->fabric;
    struct fi_av_attr av = {.type = FI_AV_TABLE, .count = 1};
    const char *what = "fi_cq_open";
    gw_ofi_enter(e->dom);
    int rc = open_cq(e);
    if (rc == 0) {
        what = "fi_av_open";
        rc = fi_av_open(f->domain, &av, &e->av, NULL);
    }
    /* shm names an endpoint after the process's number, and takes what a killed process of the same
     * number left for one in use; it removes that as it says so (libfabric 1.17, docs/decisions/0011). */
    for (unsigned tries = 0; rc == 0 && !e->ep; tries++) {
        rc = open_bound(e, &what);
        if (rc == -FI_EBUSY && tries < LEFT_OVERS_MAX)
            rc = 0;
    }
    gw_ofi_leave(e->dom);
    return rc < 0 ? fail_open(e->provider, rc, what, err) : 0;
}

static int make_card(struct gw_ofi_ep *e, struct gw_ofi_card *card, struct gw_error *err)
{
    const struct fi_info *info = e->dom->fabric.info;
    size_t bytes = sizeof(card->address);
    *card = (struct gw_ofi_card){.token = e->rx_token, .address_format = info->addr_format};
    snprintf(card->provider, sizeof(card->provider), "%s", info->fabric_attr->prov_name);
    int rc = fi_getname(&e->ep->fid, card->address, &bytes);
    card->address_bytes = (uint32_t)bytes;
    return rc < 0 ? gw_ofi_fail(err, rc, "fi_getname") : 0;
}

/* The first bytes of ours on this connection but preface or answer: they always fit. */
static int send_card(int fd, const struct gw_ofi_card *card, struct gw_error *err)
{
    uint8_t bytes[GW_OFI_CARD_BYTES];
    gw_ofi_card_encode(card, bytes);
    ssize_t n = send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n == sizeof(bytes))
        return 0;
    return gw_fail_code(err, n < 0 ? -errno : -EIO, GW_CODE_PEER_LOST, "the peer hung up");
}

static void refuse(int fd, const char *provider, const struct gw_error *why)
{
    struct gw_ofi_card card = {.refused = true};
    snprintf(card.provider, sizeof(card.provider), "%s", provider);
    snprintf((char *)card.address, sizeof(card.address), "%.*s", (int)sizeof(card.address) - 1,
             why->message);
    card.address_bytes = (uint32_t)strlen((const char *)card.address);
    send_card(fd, &card, NULL);
    shutdown(fd, SHUT_WR);
}

/* The connecting side: until both ends have heard each other. */
static int join(struct gw_ofi_ep *e, uint64_t deadline_ns, struct gw_error *err)
{
    while (e->rc == 0 && e->state != GW_OFI_JOINED) {
        struct pollfd fds[2];
        uint64_t wake_ns = deadline_ns;
        int count = gw_ofi_arm(&e->base, fds, 2, &wake_ns);
        if (e->rc != 0 || e->state == GW_OFI_JOINED)
            break;
        if (wake_ns != 0 && gw_clock_poll(fds, (unsigned)count, wake_ns) >= 0)
            gw_ofi_awake(&e->base, fds, (unsigned)count);
        if (gw_clock_ns() < deadline_ns)
            continue;
        gw_ofi_ep_fail(e, -ETIMEDOUT, GW_CODE_TIMEOUT,
                       "admitted, but provider '%s' did not reach the peer's endpoint in time",
                       e->provider);
        gw_error_hint(&e->err, "it uses ports of its own, which a firewall may hold; 'shm' reaches "
                               "this machine only");
    }
    if (e->rc != 0)
        gw_error_copy(err, &e->err);
    return e->rc;
}

static int open_all(struct gw_ofi_ep *e, struct gw_ofi_card *card, struct gw_error *err)
{
    int rc = gw_ofi_domain_bind(e->dom, e->provider, e->fd, err);
    if (rc == 0)
        rc = open_fabric_ep(e, err);
    if (rc == 0)
        rc = gw_ofi_buffer_reg(e->dom, e->queue.pieces,
                               (size_t)e->queue.piece_count * GW_OFI_PIECE_BYTES, FI_SEND,
                               &e->tx_mr, err);
    if (rc == 0)
        rc =
            gw_ofi_buffer_reg(e->dom, e->slots_memory, (size_t)GW_OFI_RECEIVES * GW_OFI_PIECE_BYTES,
                              FI_RECV, &e->rx_mr, err);
    return rc < 0 ? rc : make_card(e, card, err);
}

void gw_ofi_ep_open(struct gw_ofi_ep *e)
{
    struct gw_error why = GW_ERROR_INIT;
    struct gw_ofi_card card;
    int rc = open_all(e, &card, &why);
    if (rc < 0)
        refuse(e->fd, e->provider, &why);
    else
        rc = send_card(e->fd, &card, &why);
    if (rc < 0) {
        gw_ofi_ep_fail(e, rc, why.code, "%s", why.message);
        gw_error_hint(&e->err, "%s", why.hint);
        return;
    }
    e->state = GW_OFI_CARD;
    e->moved = true;
    gw_ofi_receives_post(e);
}

static int allocate(struct gw_ofi_ep *e, struct gw_error *err)
{
    int rc = gw_ofi_queue_init(e);
    e->slots_memory = gw_zalloc(GW_OFI_RECEIVES, GW_OFI_PIECE_BYTES);
    e->message = gw_zalloc(1, e->config.message_bytes_max);
    if (rc < 0 || !e->slots_memory || !e->message)
        return gw_fail(err, -ENOMEM, "buffers");
    if (getrandom(&e->rx_token, sizeof(e->rx_token), 0) != (ssize_t)sizeof(e->rx_token))
        return gw_fail(err, -errno, "token");
    return 0;
}

int gw_ofi_ep_new(int fd, struct gw_domain *dom, const char *provider,
                  const struct gw_wire_config *config, const char *peer, bool connects,
                  struct gw_endpoint **ep, struct gw_error *err)
{
    struct gw_error why = GW_ERROR_INIT;
    struct gw_ofi_ep *e = gw_zalloc(1, sizeof(*e));
    if (!e) {
        close(fd);
        return gw_fail(err, -ENOMEM, "%s endpoint %u", peer, config->index);
    }
    e->base.ops = &gw_ofi_ops;
    e->dom = gw_ofi_domain_of(dom);
    e->config = *config;
    e->fd = fd;
    e->cq_fd = -1;
    e->connects = connects;
    e->err = (struct gw_error)GW_ERROR_INIT;
    e->fd_ready = true;
    e->doze_ns = GW_OFI_DOZE_MIN_NS;
    if (e->config.message_bytes_max == 0)
        e->config.message_bytes_max = GW_MESSAGE_BYTES_DEFAULT;
    if (e->config.peer_timeout_ns == 0)
        e->config.peer_timeout_ns = PEER_TIMEOUT_NS;
    snprintf(e->peer, sizeof(e->peer), "%s", peer);
    snprintf(e->provider, sizeof(e->provider), "%s", provider);
    int rc = allocate(e, &why);
    if (rc == 0 && connects)
        rc = join(e, config->deadline_ns ? config->deadline_ns : gw_clock_ns() + CONNECT_NS, &why);
    if (rc < 0) {
        gw_ofi_close(&e->base);
        gw_error_prefix(&why, "%s endpoint %u", peer, config->index);
        gw_error_copy(err, &why);
        return rc;
    }
    *ep = &e->base;
    return 0;
}

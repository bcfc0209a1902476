// SPDX-License-Identifier: MIT
/* A page endpoint's life. Made from an admitted tcp connection: libfabric's endpoint is opened, its card
 * goes out, the peer's comes in, then each end hears a hello of the other on the fabric itself: so the
 * provider's own connection stands, both ways, before anything is accepted. The connecting side waits
 * for that; the accepting side is stepped through it.
 *
 * Then every op steps it: libfabric moves what it can (a provider with manual progress moves nothing
 * otherwise, also at a target that only has to let writes land), completions are taken, what waits is
 * posted, and now and then the tcp connection is looked at: its end is the peer's.
 *
 * A final error closes libfabric's endpoint at once, after what had arrived was taken: then nothing
 * touches lent memory any more, and every put that was accepted is done with that error. Revoking is
 * the same without an error, and tells the peer by one byte, because some providers never do. */
#include "transport/ofi/ofi_impl.h"

#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "transport/ofi/ofi.h"

#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define CONNECT_NS (10 * GW_NS_PER_S)
#define PEER_TIMEOUT_NS (2 * GW_NS_PER_S)
#define ENTRIES_MAX 16
#define READS_MAX                                                                                  \
    64 /* of the completion queue, in one step: then the owner may do something else */
/* Without being told by poll, the connection is looked at this often. */
#define FD_NS (5 * GW_NS_PER_MS)
/* What a peer said before it closed travels on another connection than the news of its end. */
#define LAST_WORDS_NS (10 * GW_NS_PER_MS)
/* Where nothing can be slept on: a put waits so long at most, and an idle endpoint costs so much. */
#define DOZE_MIN_NS (20 * UINT64_C(1000))
#define DOZE_MAX_NS GW_NS_PER_MS
/* Where something can: what its descriptor does not tell (connections of its own) waits so long. */
#define SLEEP_MAX_NS (20 * GW_NS_PER_MS)

/* ---- the end ---------------------------------------------------------------------------------- */

static ssize_t take_completions(struct gw_ofi_ep *e);

/* On return libfabric neither reads nor writes lent memory for this endpoint. */
static void close_fabric_ep(struct gw_ofi_ep *e)
{
    if (e->ep)
        gw_assert(fi_close(&e->ep->fid) == 0);
    e->ep = NULL;
}

static void drain(struct gw_ofi_ep *e)
{
    for (unsigned i = 0; e->ep && i < READS_MAX && take_completions(e) > 0;)
        i++;
}

int gw_ofi_ep_fail(struct gw_ofi_ep *e, int rc, enum gw_code code, const char *format, ...)
{
    if (e->rc != 0)
        return e->rc;
    char text[GW_ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (atomic_load_explicit(&e->shut, memory_order_relaxed)) {
        rc = -ESHUTDOWN;
        code = GW_CODE_CANCELLED;
        snprintf(text, sizeof(text), "the endpoint was shut down");
    }
    e->rc = gw_fail_code(&e->err, rc, code, "%s", text);
    gw_error_place(&e->err, "%.64s endpoint %u", e->peer, e->config.index);
    drain(e);
    close_fabric_ep(e);
    gw_ofi_queue_flush(&e->queue, rc);
    shutdown(e->fd, SHUT_RDWR); /* so the peer learns of it */
    return rc;
}

static bool is_gone(int fd)
{
    uint8_t byte;
    ssize_t n = recv(fd, &byte, sizeof(byte), MSG_DONTWAIT | MSG_PEEK);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

int gw_ofi_ep_fail_fabric(struct gw_ofi_ep *e, int rc, const char *what)
{
    switch (-rc) {
    case FI_ECONNRESET:
    case FI_ECONNABORTED:
    case FI_ECONNREFUSED:
    case FI_ENOTCONN:
    case FI_ECANCELED:
    case FI_ESHUTDOWN:
    case FI_EHOSTUNREACH:
    case FI_ENETUNREACH:
    case EPIPE:
        return gw_ofi_ep_fail(e, -ECONNRESET, GW_CODE_PEER_LOST,
                              "the peer closed the connection (%s: %s)", what, fi_strerror(-rc));
    case FI_ETIMEDOUT:
        return gw_ofi_ep_fail(e, -ETIMEDOUT, GW_CODE_PEER_LOST, "the peer fell silent (%s)", what);
    default:
        break;
    }
    if (is_gone(e->fd))
        return gw_ofi_ep_fail(e, -ECONNRESET, GW_CODE_PEER_LOST,
                              "the peer closed the connection (%s: %s)", what, fi_strerror(-rc));
    return gw_ofi_ep_fail(e, gw_ofi_errno(rc), rc == -FI_ENOMEM ? GW_CODE_NO_MEMORY : GW_CODE_IO,
                          "%s: %s", what, fi_strerror(-rc));
}

int gw_ofi_ep_check(struct gw_ofi_ep *e)
{
    if (atomic_load_explicit(&e->shut, memory_order_relaxed) && e->rc == 0)
        gw_ofi_ep_fail(e, -ESHUTDOWN, GW_CODE_CANCELLED, "the endpoint was shut down");
    if (e->rc != 0)
        e->rc_was_told = true;
    return e->rc;
}

int gw_ofi_error(const struct gw_endpoint *ep, struct gw_error *err)
{
    const struct gw_ofi_ep *e = (const struct gw_ofi_ep *)ep;
    if (e->rc != 0)
        gw_error_copy(err, &e->err);
    return e->rc;
}

void gw_ofi_shutdown(struct gw_endpoint *ep)
{
    struct gw_ofi_ep *e = gw_ofi_ep_of(ep);
    atomic_store_explicit(&e->shut, true, memory_order_relaxed);
    shutdown(e->fd, SHUT_RDWR); /* wakes an owner that sleeps */
}

void gw_ofi_revoke(struct gw_endpoint *ep)
{
    struct gw_ofi_ep *e = gw_ofi_ep_of(ep);
    const uint8_t notice = GW_OFI_WITHDRAWN;
    if (e->revoked)
        return;
    e->revoked = true;
    close_fabric_ep(e);
    gw_ofi_queue_flush(&e->queue, e->rc ? e->rc : -ESHUTDOWN);
    /* It fits: a card and this are all that ever goes this way. */
    send(e->fd, &notice, sizeof(notice), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* ---- completions ------------------------------------------------------------------------------ */

static struct gw_ofi_slot *slot_of(struct gw_ofi_ep *e, void *context)
{
    struct gw_ofi_slot *slot = context;
    return slot >= e->slots && slot < e->slots + GW_OFI_RECEIVES ? slot : NULL;
}

static struct gw_ofi_op *op_of(struct gw_ofi_ep *e, void *context)
{
    struct gw_ofi_op *op = context;
    bool ours = op >= e->queue.ops && op < e->queue.ops + e->queue.capacity;
    return ours && op->state == GW_OFI_POSTED ? op : NULL;
}

static void slot_done(struct gw_ofi_ep *e, struct gw_ofi_slot *slot, size_t bytes)
{
    if (slot->done)
        return;
    slot->done = true;
    slot->bytes = (uint32_t)gw_min_u64(bytes, GW_OFI_PIECE_BYTES);
    e->slot_done++;
}

static void take_error(struct gw_ofi_ep *e)
{
    struct fi_cq_err_entry entry = {.err = 0};
    if (fi_cq_readerr(e->cq, &entry, 0) <= 0)
        return;
    struct gw_ofi_slot *slot = slot_of(e, entry.op_context);
    struct gw_ofi_op *op = op_of(e, entry.op_context);
    if (slot) {
        /* A piece that is too long, perhaps a stranger's: it counts as one of no bytes. If it was the
         * peer's, the next one's number says so. A receive that is cancelled was our doing. */
        slot_done(e, slot, 0);
        if (entry.err != FI_ETRUNC && entry.err != FI_EMSGSIZE && entry.err != FI_ECANCELED)
            gw_ofi_ep_fail_fabric(e, -entry.err, "receive");
        return;
    }
    if (op) {
        const char *what = op->is_put ? "write" : "send";
        gw_ofi_queue_done(&e->queue, op, e->rc ? e->rc : -EIO);
        gw_ofi_ep_fail_fabric(e, -entry.err, what);
    }
}

/* How many were taken; 0: there is none; negative: libfabric's error. */
static ssize_t take_completions(struct gw_ofi_ep *e)
{
    struct fi_cq_msg_entry entries[ENTRIES_MAX];
    ssize_t n = fi_cq_read(e->cq, entries, ENTRIES_MAX);
    if (n == -FI_EAVAIL) {
        take_error(e);
        return 1;
    }
    for (ssize_t i = 0; i < n; i++) {
        struct gw_ofi_slot *slot = slot_of(e, entries[i].op_context);
        struct gw_ofi_op *op = op_of(e, entries[i].op_context);
        if (slot)
            slot_done(e, slot, entries[i].len);
        else if (op)
            gw_ofi_queue_done(&e->queue, op, 0);
    }
    if (n > 0)
        e->moved = true;
    return n == -FI_EAGAIN ? 0 : n;
}

/* ---- the tcp connection ----------------------------------------------------------------------- */

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
    if (fi_av_insert(e->av, address, 1, &e->to, 0, NULL) != 1)
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

static int take_card(struct gw_ofi_ep *e)
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

/* The peer takes no more puts. It hears nothing either, which is no error until something is put. */
static void take_notice(struct gw_ofi_ep *e, uint8_t byte)
{
    if (byte != GW_OFI_WITHDRAWN || e->withdrawn) {
        gw_ofi_ep_fail(e, -EPROTO, GW_CODE_PROTOCOL, "something followed the peer's card");
        return;
    }
    e->withdrawn = true;
    drain(e);
    gw_ofi_queue_trim(&e->queue);
    if (e->queue.put_bytes > 0)
        gw_ofi_ep_fail(e, -ECONNRESET, GW_CODE_PEER_LOST, "the peer takes no more puts");
    close_fabric_ep(e);
    gw_ofi_queue_flush(&e->queue, 0);
}

static void look_at_fd(struct gw_ofi_ep *e, uint64_t now_ns)
{
    uint8_t byte;
    bool in_card = e->state == GW_OFI_CARD;
    if (e->hung_up_ns || (!e->fd_ready && now_ns - e->fd_tried_ns < FD_NS))
        return;
    e->fd_tried_ns = now_ns;
    e->fd_ready = false;
    e->system_calls++;
    ssize_t n =
        in_card ? recv(e->fd, e->card + e->card_got, sizeof(e->card) - e->card_got, MSG_DONTWAIT)
                : recv(e->fd, &byte, sizeof(byte), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n < 0 && errno == ETIMEDOUT) {
        gw_ofi_ep_fail(e, -ETIMEDOUT, GW_CODE_PEER_LOST, "the peer fell silent for %llu ms",
                       (unsigned long long)(e->config.peer_timeout_ns / GW_NS_PER_MS));
        return;
    }
    if (n <= 0) {
        e->hung_up_ns = now_ns;
        return;
    }
    e->fd_ready = true; /* there may be more */
    if (!in_card) {
        take_notice(e, byte);
        return;
    }
    e->card_got += (size_t)n;
    if (e->card_got == sizeof(e->card))
        take_card(e);
}

/* ---- stepping --------------------------------------------------------------------------------- */

/* While the owner leaves every receive unread, libfabric is not asked for more. */
static bool is_deaf(const struct gw_ofi_ep *e)
{
    return e->slot_posted > 0 && e->slot_done == e->slot_posted;
}

void gw_ofi_ep_step(struct gw_ofi_ep *e)
{
    uint64_t now_ns = gw_clock_ns();
    look_at_fd(e, now_ns);
    ssize_t n = 0;
    bool heard = false;
    for (unsigned i = 0; e->ep && !is_deaf(e) && i < READS_MAX; i++) {
        n = take_completions(e);
        if (n <= 0)
            break;
        heard = true;
        gw_ofi_message_take(e);
    }
    if (n < 0 && e->rc == 0)
        gw_ofi_ep_fail_fabric(e, (int)n, "completion queue");
    if (e->ep)
        gw_ofi_receives_post(e);
    if (e->ep && e->state != GW_OFI_CARD)
        gw_ofi_queue_post(e);
    gw_ofi_message_take(e);
    if (e->hung_up_ns && heard)
        e->hung_up_ns = now_ns; /* its last words go on */
    if (e->hung_up_ns && e->rc == 0 && now_ns - e->hung_up_ns >= LAST_WORDS_NS)
        gw_ofi_ep_fail(e, -ECONNRESET, GW_CODE_PEER_LOST, "the peer closed the connection");
}

static int arm_time(struct gw_ofi_ep *e, struct pollfd *fds, uint64_t *wake_ns)
{
    e->doze_ns = e->moved ? DOZE_MIN_NS : gw_min_u64(2 * e->doze_ns, DOZE_MAX_NS);
    e->moved = false;
    if (e->ep || e->hung_up_ns)
        *wake_ns = gw_min_u64(*wake_ns, gw_clock_ns() + e->doze_ns);
    if (e->hung_up_ns)
        return 0;
    fds[0] = (struct pollfd){.fd = e->fd, .events = POLLIN};
    return 1;
}

/* Both descriptors, if libfabric has nothing left to do and says so. */
static int arm_fds(struct gw_ofi_ep *e, struct pollfd *fds, uint64_t *wake_ns)
{
    struct fid *fid = &e->cq->fid;
    int rc = fi_trywait(e->dom->fabric.fabric, &fid, 1);
    if (rc != 0) {
        *wake_ns = 0;
        return 0;
    }
    *wake_ns = gw_min_u64(*wake_ns, gw_clock_ns() + SLEEP_MAX_NS);
    fds[0] = (struct pollfd){.fd = e->fd, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = e->cq_fd, .events = POLLIN};
    return 2;
}

int gw_ofi_arm(struct gw_endpoint *ep, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    struct gw_ofi_ep *e = gw_ofi_ep_of(ep);
    gw_assert(max >= 2);
    if (e->rc == 0 && !atomic_load_explicit(&e->shut, memory_order_relaxed))
        gw_ofi_ep_step(e);
    bool something = gw_ofi_queue_reported(&e->queue) || gw_ofi_message_take(e);
    if (e->rc == 0 && !something && !atomic_load_explicit(&e->shut, memory_order_relaxed)) {
        if (e->cq_fd >= 0 && e->ep && e->state == GW_OFI_JOINED && !e->hung_up_ns)
            return arm_fds(e, fds, wake_ns);
        return arm_time(e, fds, wake_ns);
    }
    if (e->rc == 0 || !e->rc_was_told || something)
        *wake_ns = 0;
    return 0;
}

void gw_ofi_awake(struct gw_endpoint *ep, const struct pollfd *fds, unsigned count)
{
    struct gw_ofi_ep *e = gw_ofi_ep_of(ep);
    e->system_calls++; /* the owner's poll */
    for (unsigned i = 0; i < count; i++) {
        if (fds[i].fd == e->fd && fds[i].revents != 0)
            e->fd_ready = true;
    }
}

void gw_ofi_query(const struct gw_endpoint *ep, struct gw_ep_attr *attr)
{
    const struct gw_ofi_ep *e = (const struct gw_ofi_ep *)ep;
    attr->flags = e->base.ops->flags | (e->dom->fabric.pins ? GW_EP_PINS : 0);
    attr->put_bytes_max = GW_OFI_PUT_BYTES_MAX;
    attr->put_count_max = GW_OFI_WINDOW;
    attr->put_window = GW_OFI_WINDOW;
    attr->message_bytes_max = e->config.message_bytes_max;
    memcpy(attr->session, e->config.session, GW_SESSION_BYTES);
    attr->index = e->config.index;
    attr->rx_bytes = e->rx_bytes;
    attr->tx_bytes = e->tx_bytes;
    attr->system_calls = e->system_calls;
    attr->tx_pending = e->queue.open_count > 0;
    snprintf(attr->peer, sizeof(attr->peer), "%s", e->peer);
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

static int open_fabric_ep(struct gw_ofi_ep *e, struct gw_error *err)
{
    const struct gw_ofi_fabric *f = &e->dom->fabric;
    struct fi_av_attr av = {.type = FI_AV_TABLE, .count = 1};
    const char *what = "fi_cq_open";
    int rc = open_cq(e);
    if (rc == 0) {
        what = "fi_av_open";
        rc = fi_av_open(f->domain, &av, &e->av, NULL);
    }
    if (rc == 0) {
        what = "fi_endpoint";
        rc = fi_endpoint(f->domain, f->info, &e->ep, NULL);
    }
    if (rc == 0) {
        what = "fi_ep_bind";
        rc = fi_ep_bind(e->ep, &e->av->fid, 0);
    }
    if (rc == 0)
        rc = fi_ep_bind(e->ep, &e->cq->fid, FI_TRANSMIT | FI_RECV);
    if (rc == 0) {
        what = "fi_enable";
        rc = fi_enable(e->ep);
    }
    return rc < 0 ? gw_ofi_fail(err, rc, what) : 0;
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
                       e->dom->provider);
        gw_error_hint(&e->err, "it uses ports of its own, which a firewall may hold; 'shm' reaches "
                               "this machine only");
    }
    if (e->rc != 0)
        gw_error_copy(err, &e->err);
    return e->rc;
}

static int init(struct gw_ofi_ep *e, const char *provider, struct gw_error *err)
{
    if (gw_ofi_queue_init(e) < 0)
        return gw_fail(err, -ENOMEM, "endpoint %u", e->config.index);
    e->slots_memory = gw_zalloc(GW_OFI_RECEIVES, GW_OFI_PIECE_BYTES);
    e->message = gw_zalloc(1, e->config.message_bytes_max);
    if (!e->slots_memory || !e->message)
        return gw_fail(err, -ENOMEM, "endpoint %u", e->config.index);
    if (getrandom(&e->rx_token, sizeof(e->rx_token), 0) != (ssize_t)sizeof(e->rx_token))
        return gw_fail(err, -errno, "token");
    int rc = gw_ofi_domain_bind(e->dom, provider, e->fd, err);
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
    if (rc < 0)
        return rc;
    gw_ofi_receives_post(e);
    if (e->rc != 0)
        gw_error_copy(err, &e->err);
    return e->rc;
}

int gw_ofi_ep_new(int fd, struct gw_domain *dom, const char *provider,
                  const struct gw_wire_config *config, const char *peer, bool connects,
                  struct gw_endpoint **ep, struct gw_error *err)
{
    struct gw_error why = GW_ERROR_INIT;
    struct gw_ofi_card card;
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
    e->doze_ns = DOZE_MIN_NS;
    if (e->config.message_bytes_max == 0)
        e->config.message_bytes_max = GW_MESSAGE_BYTES_DEFAULT;
    if (e->config.peer_timeout_ns == 0)
        e->config.peer_timeout_ns = PEER_TIMEOUT_NS;
    snprintf(e->peer, sizeof(e->peer), "%s", peer);
    int rc = init(e, provider, &why);
    if (rc == 0)
        rc = make_card(e, &card, &why);
    if (rc < 0)
        refuse(fd, provider, &why);
    else
        rc = send_card(fd, &card, &why);
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

void gw_ofi_close(struct gw_endpoint *ep)
{
    struct gw_ofi_ep *e = gw_ofi_ep_of(ep);
    close_fabric_ep(e);
    struct fid *const fids[] = {e->tx_mr ? &e->tx_mr->fid : NULL, e->rx_mr ? &e->rx_mr->fid : NULL,
                                e->cq ? &e->cq->fid : NULL, e->av ? &e->av->fid : NULL};
    for (size_t i = 0; i < sizeof(fids) / sizeof(fids[0]); i++)
        gw_assert(!fids[i] || fi_close(fids[i]) == 0);
    close(e->fd);
    gw_ofi_queue_fini(&e->queue);
    gw_free(e->slots_memory);
    gw_free(e->message);
    gw_free(e);
}

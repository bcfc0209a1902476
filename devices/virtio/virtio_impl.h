/* SPDX-License-Identifier: MIT */
/* devices/virtio/virtio_impl.h - the core, and what it asks of a transport and of a device.
 *
 * Order of a load (virtio_load.c), which is what these tables are made around:
 *   transport config; common fields; per queue: common fields, transport's part; a notification without
 *   a vector; the device's own part; subsections; then, in virtio_settle.c, endianness, features,
 *   rings; last the device's post_load.
 * So the device's part is loaded when only the low features are known, and those unchecked:
 * gw_virtio_has() and gw_virtio_endian() answer GW_VIRTIO_TOO_EARLY for the rest. */
#ifndef GW_DEVICES_VIRTIO_IMPL_H
#define GW_DEVICES_VIRTIO_IMPL_H

#include "devices/virtio/virtio.h"

/* What a device writes to guest memory is read by the migration meanwhile, as is what vCPUs write: that race is
 * the point, and the page goes again. */
#define GW_VIRTIO_RACES __attribute__((no_sanitize("thread")))

struct gw_virtqueue {
    uint32_t num;               /* entries; 0: there is no such queue */
    uint32_t num_default;       /* after a reset */
    uint32_t num_max;           /* that a guest may ask for */
    uint32_t align;             /* of the used ring, legacy */
    uint64_t desc, avail, used; /* guest addresses; desc 0: not set up */
    uint16_t vector;
    uint16_t last_avail; /* next to take */
    uint16_t shadow_avail, used_idx;
    uint8_t last_avail_wrap, used_wrap; /* packed rings */
    uint32_t inuse;                     /* taken and not returned */
    uint16_t signalled_used;
    bool signalled_used_valid;
};

/* One request taken from a ring. */
struct gw_virtio_segment {
    uint64_t address;
    uint32_t bytes;
};
struct gw_virtio_element {
    struct gw_virtio_element *next;
    uint32_t queue;
    uint32_t head;
    uint32_t descs; /* of a packed ring that it takes; 0 of a split one */
    uint32_t in_count, out_count;
    struct gw_virtio_segment segments[]; /* in first, as on the wire */
};

struct gw_virtio_transport_ops {
    const char *name;
    bool has_variable_alignment; /* a queue's align is in the state */
    int (*save_config)(struct gw_virtio *dev, struct gw_writer *w, struct gw_error *err);
    int (*load_config)(struct gw_virtio *dev, struct gw_reader *r, struct gw_error *err);
    int (*save_queue)(struct gw_virtio *dev, unsigned n, struct gw_writer *w, struct gw_error *err);
    int (*load_queue)(struct gw_virtio *dev, unsigned n, struct gw_reader *r, struct gw_error *err);
    const struct gw_vmstate *extra; /* of the transport's own state, or NULL */
    bool (*has_extra)(const struct gw_virtio *dev);
    void (*notify)(struct gw_virtio *dev, uint16_t vector); /* isr or a vector has changed */
    void (*reset)(struct gw_virtio *dev);
};

struct gw_virtio_device_ops {
    uint32_t number;                  /* of the type, as registers tell it */
    const struct gw_vmstate *section; /* of the whole device: one field, this core */
    int (*save)(struct gw_virtio *dev, struct gw_writer *w, struct gw_error *err);
    int (*load)(struct gw_virtio *dev, struct gw_reader *r, struct gw_error *err);
    const struct gw_vmstate *desc; /* declarative part, after save and load */
    void (*set_features)(struct gw_virtio *dev, uint64_t features); /* told the final set */
    int (*post_load)(struct gw_virtio *dev, struct gw_error *err);
    uint32_t (*held)(const struct gw_virtio *dev, unsigned queue); /* requests that it holds */
    void (*drop)(struct gw_virtio *dev, unsigned queue);           /* forget those */
    void (*read_config)(struct gw_virtio *dev); /* bring dev->config up to date */
    void (*write_config)(struct gw_virtio *dev);
    void (*reset)(struct gw_virtio *dev);
    void (*free)(struct gw_virtio *dev);
};

enum gw_virtio_stage {
    GW_VIRTIO_IDLE,
    GW_VIRTIO_PARTS, /* of a load: subsections have not come */
    GW_VIRTIO_SETTLING,
};

/* Subsections that came. */
enum { GW_VIRTIO_CAME_FEATURES = 1, GW_VIRTIO_CAME_QUEUES = 2, GW_VIRTIO_CAME_PACKED = 4 };

struct gw_virtio {
    struct gw_virtio *virtio; /* itself: what a codec of the section is given */
    struct gw_virtio *extra;  /* the same, for the transport's part */
    struct gw_vmstate_device section, shape;
    char *name, *shape_name;
    const struct gw_virtio_transport_ops *bus;
    const struct gw_virtio_device_ops *type;
    void *bus_state, *type_state; /* their own */
    struct gw_virtio_host host;
    uint32_t flags;

    uint64_t host_features, guest_features;
    uint8_t status, isr;
    uint16_t queue_sel;
    uint16_t config_vector;
    uint8_t endian, default_endian; /* enum gw_virtio_endian */
    uint8_t broken, started, disabled;
    bool start_on_kick;
    uint32_t generation; /* of the configuration */
    uint32_t config_bytes;
    uint8_t config[GW_VIRTIO_CONFIG_MAX];
    uint32_t queue_count;
    struct gw_virtqueue queues[GW_VIRTIO_QUEUES_MAX];

    enum gw_virtio_stage stage;
    unsigned came;
    uint64_t low_features; /* of a load: what the common fields said */

    /* What the layout depends on: of the shape. */
    uint32_t shape_bus, shape_vectors, shape_pci_bytes, shape_queues, shape_pairs, shape_flags;
};

/* ---- virtio_core.c ----------------------------------------------------------------------------- */

int gw_virtio_init(struct gw_virtio *dev, const struct gw_virtio_config *config,
                   struct gw_error *err);
/* "field 'f': ..."; its value is @fault, which a constant is, so that whoever reads the code sees it too. */
#define gw_virtio_refuse(err, fault, field, ...)                                                   \
    (gw_virtio_say_refused((err), (fault), (field), __VA_ARGS__), (int)(fault))
void gw_virtio_say_refused(struct gw_error *err, int fault, const char *field, const char *format,
                           ...) GW_PRINTF(4, 5);
void gw_virtio_log(const struct gw_virtio *dev, const char *format, ...) GW_PRINTF(2, 3);
void gw_virtio_reset_quietly(struct gw_virtio *dev); /* its line stays as it is */
/* Has the guest taken this feature? 1, 0, or GW_VIRTIO_TOO_EARLY. */
int gw_virtio_has(const struct gw_virtio *dev, unsigned bit);
static inline bool gw_virtio_offers(const struct gw_virtio *dev, unsigned bit)
{
    return (dev->host_features >> bit & 1) != 0;
}
/* GW_VIRTIO_LITTLE, GW_VIRTIO_BIG, or GW_VIRTIO_TOO_EARLY. */
int gw_virtio_endian(const struct gw_virtio *dev);
/* The guest's fault: nothing more until a reset. */
void gw_virtio_break(struct gw_virtio *dev, const char *why);
void gw_virtio_notify_config(struct gw_virtio *dev);
void gw_virtio_notify_queue(struct gw_virtio *dev, unsigned n);
void gw_virtio_set_status(struct gw_virtio *dev, uint8_t status);
void gw_virtio_set_features(struct gw_virtio *dev, uint64_t features); /* cut to what is offered */

/* ---- virtio_save.c, virtio_load.c, virtio_subsections.c, virtio_settle.c ----------------------- */

extern const struct gw_vmcodec gw_virtio_codec; /* of the one field of a device's section */
int gw_virtio_save(struct gw_virtio *dev, struct gw_writer *w, struct gw_error *err);
int gw_virtio_load(struct gw_virtio *dev, struct gw_reader *r, struct gw_error *err);
void gw_virtio_load_failed(void *opaque);
/* After reading: was it there? */
int gw_virtio_took(const struct gw_reader *r, const char *field, struct gw_error *err);
extern const struct gw_vmstate gw_virtio_subsections, gw_virtio_shape_vmsd;
bool gw_virtio_sends_features(const void *dev);
int gw_virtio_settle(struct gw_virtio *dev, struct gw_error *err);

/* ---- virtio_ring.c ----------------------------------------------------------------------------- */

/* Where a legacy guest's avail and used rings are. */
void gw_virtqueue_derive(const struct gw_virtio *dev, struct gw_virtqueue *vq);
uint64_t gw_virtqueue_avail_bytes(const struct gw_virtio *dev, const struct gw_virtqueue *vq);
uint64_t gw_virtqueue_used_bytes(const struct gw_virtio *dev, const struct gw_virtqueue *vq);
/* Are all three areas memory, and aligned? */
bool gw_virtqueue_is_mapped(const struct gw_virtio *dev, const struct gw_virtqueue *vq);
uint16_t gw_virtqueue_avail_idx(const struct gw_virtio *dev, const struct gw_virtqueue *vq);
uint16_t gw_virtqueue_used_idx(const struct gw_virtio *dev, const struct gw_virtqueue *vq);
/* The next request, for gw_virtio_element_free(), or NULL: there is none, or the device is broken now. */
struct gw_virtio_element *gw_virtqueue_pop(struct gw_virtio *dev, unsigned n);
/* It is done and @bytes were written to it; the guest is told if it wants to be. */
void gw_virtqueue_push(struct gw_virtio *dev, struct gw_virtio_element *element, uint32_t bytes);
struct gw_virtio_element *gw_virtio_element_new(uint32_t in_count, uint32_t out_count);
void gw_virtio_element_free(struct gw_virtio_element *element);

/* ---- virtio_element.c -------------------------------------------------------------------------- */

int gw_virtio_element_save(const struct gw_virtio *dev, const struct gw_virtio_element *element,
                           struct gw_writer *w, struct gw_error *err);
/* All of it is checked: counts, the ring, guest memory. */
int gw_virtio_element_load(const struct gw_virtio *dev, uint32_t queue, struct gw_reader *r,
                           struct gw_virtio_element **element, struct gw_error *err);

/* ---- transports -------------------------------------------------------------------------------- */

int gw_virtio_mmio_new(struct gw_virtio *dev, bool is_legacy);
int gw_virtio_pci_new(struct gw_virtio *dev, const struct gw_virtio_pci_config *config,
                      struct gw_error *err);
bool gw_virtio_mmio_is_here(const struct gw_virtio *dev);

#endif

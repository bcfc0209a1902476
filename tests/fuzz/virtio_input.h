/* SPDX-License-Identifier: MIT */
/* tests/fuzz/virtio_input.h - the head of an input of fuzz-virtio: a byte of the bits below, and how many bytes
 * of memory stand in front of the section, the lowest first. What follows is packed (pack.h). */
#ifndef GW_TEST_FUZZ_VIRTIO_INPUT_H
#define GW_TEST_FUZZ_VIRTIO_INPUT_H

#define VIRTIO_INPUT_HEAD 4u
#define VIRTIO_INPUT_MAX ((size_t)768 << 10) /* memory and section */

enum {
    VIRTIO_INPUT_SCENE = 0x1f,    /* of rig_scenes */
    VIRTIO_INPUT_BIG = 0x20,      /* a guest that does not say is a big-endian one */
    VIRTIO_INPUT_STANDARD = 0x40, /* GW_VIRTIO_STANDARD_RINGS */
    VIRTIO_INPUT_OWN = 0x80,      /* GW_VIRTIO_OWN_ELEMENTS */
};

#endif

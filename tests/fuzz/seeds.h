/* SPDX-License-Identifier: MIT */
/* tests/fuzz/seeds.h - what writes the inputs that the corpora began with. */
#ifndef GW_TEST_FUZZ_SEEDS_H
#define GW_TEST_FUZZ_SEEDS_H

#include <stddef.h>

/* One file, of DIR/@target. */
void seed(const char *target, const char *name, const void *data, size_t bytes);
/* @tree: that of the source, whose tests/data it reads. */
void seed_virtio(const char *tree);
void seed_vmstate(void);

#endif

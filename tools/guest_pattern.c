// SPDX-License-Identifier: MIT
/* Which page a vCPU writes next: a function of (seed, vCPU, how many writes it made), so a guest goes
 * on at the target with the very next one. Each vCPU has a share of the pages of its own, and the
 * pattern within it. */
#include "tools/guest_impl.h"

#include <math.h>

#define PATTERN_STREAM UINT64_C(0x84222325cbf29ce4)

static uint64_t below(uint64_t chance, uint64_t count)
{
    return (uint64_t)(((__uint128_t)chance * count) >> 64);
}

/* ---- Zipf: the k-th page of n is written k^-exponent times as often as the first ---------------- */

/* Rejection-inversion (Hoermann and Derflinger 1996): the integral H of h(x) = x^-s, and its
 * inverse; both pass smoothly through s = 1. */
static double zipf_integral(const struct gw_guest_zipf *z, double x)
{
    double t = 1 - z->exponent;
    return fabs(t) < 1e-9 ? log(x) : expm1(t * log(x)) / t;
}

static double zipf_inverse(const struct gw_guest_zipf *z, double y)
{
    double t = 1 - z->exponent;
    return fabs(t) < 1e-9 ? exp(y) : exp(log1p(fmax(t * y, -1)) / t);
}

static void zipf_init(struct gw_guest_zipf *z, double exponent, uint64_t count, uint64_t seed)
{
    *z = (struct gw_guest_zipf){.exponent = exponent, .count = count};
    z->h_first = zipf_integral(z, 1.5) - 1;
    z->h_last = zipf_integral(z, (double)count + 0.5);
    z->shortcut = 2 - zipf_inverse(z, zipf_integral(z, 2.5) - pow(2, -exponent));
    /* Popular pages lie apart: a stride without a common divisor reaches every page once. */
    z->stride = (uint64_t)((double)count * 0.6180339887) | 1;
    for (;; z->stride += 2) {
        uint64_t a = z->stride;
        uint64_t b = count;
        while (b) {
            uint64_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1)
            break;
    }
    z->offset = below(gw_guest_mix(seed, PATTERN_STREAM), count);
}

static uint64_t zipf_rank(const struct gw_guest_zipf *z, uint64_t chance)
{
    for (uint64_t i = 0;; i++) {
        double u = (double)(gw_guest_word(chance, i) >> 11) * 0x1p-53;
        double y = z->h_last + u * (z->h_first - z->h_last);
        double x = zipf_inverse(z, y);
        double k = floor(x + 0.5);
        k = fmin(fmax(k, 1), (double)z->count);
        if (k - x <= z->shortcut || y >= zipf_integral(z, k + 0.5) - pow(k, -z->exponent))
            return (uint64_t)k - 1;
    }
}

/* ---- all patterns ---------------------------------------------------------------------------- */

static uint64_t hot_page(const struct gw_guest_vcpu *vcpu, uint64_t chance)
{
    const struct gw_guest_config *config = &vcpu->guest->config;
    uint64_t hot = vcpu->page_count * config->hot_pages / 100;
    hot = hot ? hot : 1;
    bool is_hot = below(gw_guest_mix(chance, PATTERN_STREAM), 100) < config->hot_writes;
    if (is_hot || hot == vcpu->page_count)
        return below(chance, hot);
    return hot + below(chance, vcpu->page_count - hot);
}

void gw_guest_pattern_init(struct gw_guest_vcpu *vcpu)
{
    const struct gw_guest_config *config = &vcpu->guest->config;
    if (config->pattern == GW_PATTERN_ZIPF)
        zipf_init(&vcpu->zipf, config->zipf_exponent, vcpu->page_count, config->seed + vcpu->index);
}

uint64_t gw_guest_pattern_page(const struct gw_guest_vcpu *vcpu, uint64_t nth)
{
    const struct gw_guest_config *config = &vcpu->guest->config;
    uint64_t chance =
        gw_guest_mix(gw_guest_mix(config->seed ^ PATTERN_STREAM, vcpu->index + UINT64_C(1)), nth);
    switch (config->pattern) {
    case GW_PATTERN_ZIPF: {
        const struct gw_guest_zipf *z = &vcpu->zipf;
        return (zipf_rank(z, chance) * z->stride + z->offset) % z->count;
    }
    case GW_PATTERN_HOT:
        return hot_page(vcpu, chance);
    case GW_PATTERN_SEQUENTIAL:
        return nth % vcpu->page_count;
    case GW_PATTERN_UNIFORM:
    case GW_PATTERN_COUNT_:
        break;
    }
    return below(chance, vcpu->page_count);
}

/* random.h: xoshiro256** (Blackman, Vigna 2018) for owners that were given a seed: fast, repeatable, no secrets. */
#ifndef CAKE_BASE_RANDOM_H
#define CAKE_BASE_RANDOM_H

#include "base/base.h"

typedef struct cake__random {
    uint64_t state[4];
} cake__random_t;

/* splitmix64, as the authors advise for seeding */
static inline void cake__random_init(cake__random_t *random, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = (seed += UINT64_C(0x9e3779b97f4a7c15));
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        random->state[i] = z ^ (z >> 31);
    }
}

static inline uint64_t cake__random_u64(cake__random_t *random)
{
    uint64_t *s = random->state, x = s[1] * 5, result = ((x << 7) | (x >> 57)) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 45) | (s[3] >> 19);
    return result;
}

/* Uniform in [0, bound); 0 for bound 0. The bias is below bound / 2^64. */
static inline uint64_t cake__random_below(cake__random_t *random, uint64_t bound)
{
    return (uint64_t)(((unsigned __int128)cake__random_u64(random) * bound) >> 64);
}

/* Uniform in [0, 1). */
static inline double cake__random_unit(cake__random_t *random)
{
    return (double)(cake__random_u64(random) >> 11) * 0x1.0p-53;
}

#endif

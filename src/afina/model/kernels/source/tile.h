/* What the kernels of training share: the inner product of a small tile of bf16 numbers with fp32
   sums, packing, rounding, and powers of two.

   A tile is R rows by 32 or 16 columns. vdpbf16ps multiplies pairs of neighbours along the summed
   side, so the right side is packed in steps: [step][column][2]. The left side is read a pair at a
   time, wherever its rows and steps lie. The sums of a tile stay in registers from the first to
   the last step, in one order: no result depends on how work is shared out among threads. */
#ifndef AFINA_TILE_H
#define AFINA_TILE_H
#include <math.h>
#include <stddef.h>

#include "common.h"
#include "room.h"

#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define WIDE 32
#define TALL 12 /* rows of a full tile: 24 sums, two packed vectors, and pairs from memory */

INLINE size_t padded(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* Numbers ------------------------------------------------------------------------------------ */
INLINE v_mask lanes(int64_t count) {
    return count >= LANES ? 0xffff : count <= 0 ? 0 : (v_mask)((1u << count) - 1);
}
INLINE v_wide load16(const bf16 *x) { return v_widened(v_load_half((const void *)x)); }
INLINE v_wide load_some(const bf16 *x, v_mask some) {
    return v_widened(v_load_half_some(some, x));
}
INLINE void store16(bf16 *out, v_wide x) {
    v_store_half((void *)out, v_narrowed(x));
}
INLINE void store_some(bf16 *out, v_wide x, v_mask some) {
    v_store_half_some(out, some, v_narrowed(x));
}
/* 2 to the power of x; 0 below -200, and what is not a number stays none: vmaxps gives its second
   side then. Polynomial of Cephes' exp2f (S. Moshier). */
INLINE v_wide power_of_two(v_wide x) {
    x = v_max(v_all(-200.0f), x);
    v_wide whole = v_round(x);
    v_wide rest = v_sub(x, whole), sum = v_all(1.535336188319500e-4f);
    sum = v_fma(sum, rest, v_all(1.339887440266574e-3f));
    sum = v_fma(sum, rest, v_all(9.618437357674640e-3f));
    sum = v_fma(sum, rest, v_all(5.550332471162809e-2f));
    sum = v_fma(sum, rest, v_all(2.402264791363012e-1f));
    sum = v_fma(sum, rest, v_all(6.931472028550421e-1f));
    sum = v_fma(sum, rest, v_all(1.0f));
    return v_times_power(sum, whole);
}

/* silu(x) = x chance(x), arXiv:1702.03118 */
INLINE v_wide chance(v_wide x) { /* 1 / (1 + exp(-x)) */
    v_wide power = power_of_two(v_mul(
        v_max(v_all(-80.0f), x), v_all(-1.4426950408889634f)));
    v_wide one = v_all(1.0f);
    return v_div(one, v_add(one, power));
}

/* Packing ------------------------------------------------------------------------------------ */
/* A 16 by 16 square of 32-bit words, turned. */
INLINE void turn_square(v_bits r[16]) {
    v_bits t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = v_zip_words_low(r[i], r[i + 1]);
        t[i + 1] = v_zip_words_high(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = v_zip_two_low(t[i], t[i + 2]);
        r[i + 1] = v_zip_two_high(t[i], t[i + 2]);
        r[i + 2] = v_zip_two_low(t[i + 1], t[i + 3]);
        r[i + 3] = v_zip_two_high(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = v_even_quarters(r[i], r[i + 4]);
        t[i + 4] = v_odd_quarters(r[i], r[i + 4]);
        t[i + 8] = v_even_quarters(r[i + 8], r[i + 12]);
        t[i + 12] = v_odd_quarters(r[i + 8], r[i + 12]);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = v_even_quarters(t[i], t[i + 8]);
        r[i + 8] = v_odd_quarters(t[i], t[i + 8]);
        r[i + 4] = v_even_quarters(t[i + 4], t[i + 12]);
        r[i + 12] = v_odd_quarters(t[i + 4], t[i + 12]);
    }
}
/* Up to 32 rows of `length` numbers (even), each a column of the packed side; the rest is 0. */
static void pack_rows(bf16 *out, const bf16 *const *rows, int count, int64_t length) {
    for (int side = 0; side < WIDE; side += LANES)
        for (int64_t k = 0; k < length; k += 2 * LANES) {
            int64_t words = (length - k) / 2 < LANES ? (length - k) / 2 : LANES;
            v_mask some = lanes(words);
            v_bits r[LANES];
            for (int i = 0; i < LANES; i++)
                r[i] = side + i < count
                           ? v_load_words(some, rows[side + i] + k)
                           : v_no_bits();
            turn_square(r);
            for (int64_t i = 0; i < words; i++)
                v_store_bits(out + (k / 2 + i) * 2 * WIDE + 2 * side, r[i]);
        }
}
/* Two rows as one step of 32 columns: neighbours are the two rows' numbers. */
INLINE void weave(bf16 *out, v_bits even, v_bits odd) {
    v_store_bits(out, v_woven_low(even, odd));
    v_store_bits(out + WIDE, v_woven_high(even, odd));
}

/* The panel of columns from n on of w, packed: [in / 2][32][2]. */
static __attribute__((unused)) void pack_panel(bf16 *out, const bf16 *w, int64_t row,
                                               int64_t turned, int64_t in, int64_t outs,
                                               int64_t n) {
    int count = outs - n < WIDE ? (int)(outs - n) : WIDE;
    if (!turned) {
        const bf16 *rows[WIDE];
        for (int i = 0; i < count; i++) rows[i] = w + (n + i) * row;
        pack_rows(out, rows, count, in);
        return;
    }
    v_mask32 some = count == WIDE ? 0xffffffffu : (1u << count) - 1;
    for (int64_t k = 0; k < in; k += 2) {
        const bf16 *at = w + k * row + n;
        v_bits even = v_load_numbers(some, at);
        v_bits odd = k + 1 < in ? v_load_numbers(some, at + row)
                                 : v_no_bits();
        weave(out + k * WIDE, even, odd);
    }
}


/* Tiles -------------------------------------------------------------------------------------- */
/* The left side: the pair of row r and step k lies at + r * row + k * step (bytes). */
typedef struct { const char *at; int64_t row, step; } strip;

#define EACH_ROW(R) _Pragma("GCC unroll 16") for (int r = 0; r < R; r++)
#define EACH_SIDE(V) _Pragma("GCC unroll 4") for (int v = 0; v < V; v++)
#define TILE(R, V)                                                                                \
    INLINE void tile_##R##_##V(strip a, const char *b, int64_t b_step, int64_t steps,             \
                               v_wide sum[R][V]) {                                                \
        for (int64_t k = 0; k < steps; k++) {                                                     \
            v_pairs w[V];                                                                        \
            EACH_SIDE(V) w[v] = v_load_pairs(b + 64 * v);          \
            EACH_ROW(R) {                                \
                v_pairs x = v_pair(a.at + r * a.row);                                             \
                EACH_SIDE(V) sum[r][v] = v_dot(sum[r][v], x, w[v]);     \
            }                                                                                     \
            a.at += a.step;                                                                       \
            b += b_step;                                                                          \
        }                                                                                         \
    }
TILE(12, 2) TILE(8, 2) TILE(4, 2) TILE(2, 2) TILE(1, 2)
TILE(12, 1) TILE(8, 1) TILE(4, 1) TILE(2, 1) TILE(1, 1)

/* Calls ONE(12), ONE(8), ... from row `from` on until `to`. */
#define BY_TILES(from, to, ONE)                                                                   \
    for (int64_t at_ = (from), end_ = (to); at_ < end_;) {                                        \
        int64_t left_ = end_ - at_;                                                               \
        if (left_ >= 12) { ONE(12, at_); at_ += 12; }                                             \
        else if (left_ >= 8) { ONE(8, at_); at_ += 8; }                                           \
        else if (left_ >= 4) { ONE(4, at_); at_ += 4; }                                           \
        else if (left_ >= 2) { ONE(2, at_); at_ += 2; }                                           \
        else { ONE(1, at_); at_ += 1; }                                                           \
    }
#endif

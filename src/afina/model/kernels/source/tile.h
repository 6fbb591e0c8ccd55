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
#include <stdlib.h>

#include "common.h"

#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define WIDE 32
#define TALL 12 /* rows of a full tile: 24 sums, two packed vectors, and pairs from memory */

/* A thread's own memory: it grows and is kept, as threads are. NULL when there is no more. Where each
   access is watched it is no larger than what was asked for, so that what reaches behind it is seen. */
#ifdef __SANITIZE_ADDRESS__
#define ROOM_STEP 64
#define FITS(kept, size) ((kept) == (size))
#else
#define ROOM_STEP 4096
#define FITS(kept, size) ((kept) >= (size))
#endif
static __thread struct { char *at; size_t size; } kept_room;
INLINE char *room(size_t size) {
    size = (size + ROOM_STEP - 1) & ~(size_t)(ROOM_STEP - 1);
    if (!FITS(kept_room.size, size)) {
        free(kept_room.at);
        kept_room.at = aligned_alloc(64, size);
        kept_room.size = kept_room.at ? size : 0;
    }
    return kept_room.at;
}
INLINE size_t padded(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* Numbers ------------------------------------------------------------------------------------ */
INLINE __mmask16 lanes(int64_t count) {
    return count >= LANES ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}
INLINE __m512 widened(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
INLINE __m512 load16(const bf16 *x) { return widened(_mm256_loadu_si256((const void *)x)); }
INLINE __m512 load_some(const bf16 *x, __mmask16 some) {
    return widened(_mm256_maskz_loadu_epi16(some, x));
}
INLINE void store16(bf16 *out, __m512 x) {
    _mm256_storeu_si256((void *)out, (__m256i)_mm512_cvtneps_pbh(x));
}
INLINE void store_some(bf16 *out, __m512 x, __mmask16 some) {
    _mm256_mask_storeu_epi16(out, some, (__m256i)_mm512_cvtneps_pbh(x));
}
/* 2 to the power of x; 0 below -200, and what is not a number stays none: vmaxps gives its second
   side then. Polynomial of Cephes' exp2f (S. Moshier). */
INLINE __m512 power_of_two(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-200.0f), x);
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 rest = _mm512_sub_ps(x, whole), sum = _mm512_set1_ps(1.535336188319500e-4f);
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.339887440266574e-3f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(9.618437357674640e-3f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(5.550332471162809e-2f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(2.402264791363012e-1f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(6.931472028550421e-1f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(sum, whole);
}

/* silu(x) = x chance(x), arXiv:1702.03118 */
INLINE __m512 chance(__m512 x) { /* 1 / (1 + exp(-x)) */
    __m512 power = power_of_two(_mm512_mul_ps(
        _mm512_max_ps(_mm512_set1_ps(-80.0f), x), _mm512_set1_ps(-1.4426950408889634f)));
    __m512 one = _mm512_set1_ps(1.0f);
    return _mm512_div_ps(one, _mm512_add_ps(one, power));
}

/* Packing ------------------------------------------------------------------------------------ */
/* A 16 by 16 square of 32-bit words, turned. */
INLINE void turn_square(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}
/* Up to 32 rows of `length` numbers (even), each a column of the packed side; the rest is 0. */
static void pack_rows(bf16 *out, const bf16 *const *rows, int count, int64_t length) {
    for (int side = 0; side < WIDE; side += LANES)
        for (int64_t k = 0; k < length; k += 2 * LANES) {
            int64_t words = (length - k) / 2 < LANES ? (length - k) / 2 : LANES;
            __mmask16 some = lanes(words);
            __m512i r[LANES];
            for (int i = 0; i < LANES; i++)
                r[i] = side + i < count
                           ? _mm512_maskz_loadu_epi32(some, rows[side + i] + k)
                           : _mm512_setzero_si512();
            turn_square(r);
            for (int64_t i = 0; i < words; i++)
                _mm512_storeu_si512(out + (k / 2 + i) * 2 * WIDE + 2 * side, r[i]);
        }
}
/* Two rows as one step of 32 columns: neighbours are the two rows' numbers. */
INLINE void weave(bf16 *out, __m512i even, __m512i odd) {
    static const uint16_t low[32] = {0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39,
                                     8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    __m512i first = _mm512_loadu_si512(low);
    __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
    _mm512_storeu_si512(out, _mm512_permutex2var_epi16(even, first, odd));
    _mm512_storeu_si512(out + WIDE, _mm512_permutex2var_epi16(even, second, odd));
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
    __mmask32 some = count == WIDE ? 0xffffffffu : (1u << count) - 1;
    for (int64_t k = 0; k < in; k += 2) {
        const bf16 *at = w + k * row + n;
        __m512i even = _mm512_maskz_loadu_epi16(some, at);
        __m512i odd = k + 1 < in ? _mm512_maskz_loadu_epi16(some, at + row)
                                 : _mm512_setzero_si512();
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
                               __m512 sum[R][V]) {                                                \
        for (int64_t k = 0; k < steps; k++) {                                                     \
            __m512bh w[V];                                                                        \
            EACH_SIDE(V) w[v] = (__m512bh)_mm512_loadu_si512(b + 64 * v);          \
            EACH_ROW(R) {                                \
                int32_t pair;                                                                     \
                memcpy(&pair, a.at + r * a.row, 4);                                               \
                __m512bh x = (__m512bh)_mm512_set1_epi32(pair);                                   \
                EACH_SIDE(V) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], x, w[v]);     \
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

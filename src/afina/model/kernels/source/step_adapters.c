/* The low-rank inputs of adapters: rows times the A of their pages.

   Four sums a row and rank hide the latency of the product; they are added in one order at the end,
   so that a row's bits are the same whether its adapter's other rows stand beside it or not. */
#include "step.h"

#define inlined static inline __attribute__((always_inline))
#define SUMS 4
#define TILE 6

/* Rows `row` to `row + count` times one part of one page; `count` is a constant where called. */
inlined void tile(const bf16 *x, const bf16 *a, int64_t in, bf16 *low, int64_t apart,
                  const int count) {
    __m512 sum[TILE][SUMS];
    for (int r = 0; r < count; r++)
        for (int s = 0; s < SUMS; s++) sum[r][s] = _mm512_setzero_ps();
    int64_t pair = 0, pairs = in / 2;
    for (; pair + SUMS <= pairs; pair += SUMS) {
#pragma GCC unroll 4
        for (int s = 0; s < SUMS; s++) {
            __m512bh columns = (__m512bh)_mm512_loadu_si512(a + (pair + s) * 32);
#pragma GCC unroll 6
            for (int r = 0; r < count; r++)
                sum[r][s] = _mm512_dpbf16_ps(sum[r][s], pair_of(x + r * in + 2 * (pair + s)), columns);
        }
    }
    for (; pair < pairs; pair++) {
        __m512bh columns = (__m512bh)_mm512_loadu_si512(a + pair * 32);
        for (int r = 0; r < count; r++)
            sum[r][0] = _mm512_dpbf16_ps(sum[r][0], pair_of(x + r * in + 2 * pair), columns);
    }
    for (int r = 0; r < count; r++) {
        __m512 two = _mm512_add_ps(sum[r][0], sum[r][1]);
        put_narrowed(low + r * apart, _mm512_add_ps(two, _mm512_add_ps(sum[r][2], sum[r][3])));
    }
}

/* Fills `low` `[pages of all rows][parts][16]` for the rows of one kin, from their input `x`. */
void step_low(const linear *w, const bf16 *x, bf16 *low, const kin *k, const int64_t *first_page,
              const int64_t *pages) {
    int64_t first = first_page[k->row], count = first_page[k->row + 1] - first;
    int64_t apart = count * w->parts * RANKS;
    for (int64_t i = 0; i < count; i++) {
        for (int64_t part = 0; part < w->parts; part++) {
            const bf16 *a = w->a + pages[first + i] * w->a_apart + part * w->in * RANKS;
            const bf16 *from = x + k->row * w->in;
            bf16 *to = low + ((first + i) * w->parts + part) * RANKS;
            int64_t left = k->count;
            for (; left >= TILE; left -= TILE, from += TILE * w->in, to += TILE * apart)
                tile(from, a, w->in, to, apart, TILE);
            if (left >= 4) tile(from, a, w->in, to, apart, 4), from += 4 * w->in, to += 4 * apart, left -= 4;
            if (left >= 2) tile(from, a, w->in, to, apart, 2), from += 2 * w->in, to += 2 * apart, left -= 2;
            if (left >= 1) tile(from, a, w->in, to, apart, 1);
        }
    }
}

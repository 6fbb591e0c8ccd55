/* The low-rank inputs of adapters: rows times the A of their pages.

   Four sums a row and rank hide the latency of the product; they are added in one order at the end,
   so that a row's bits are the same whether its adapter's other rows stand beside it or not. */
#include "matrix.h"
#include "step.h"

#define inlined static inline __attribute__((always_inline))

#if AFINA_MATRIX
/* Rows `row` on times one part of one page. */
static void lower(const bf16 *x, const bf16 *a, int64_t in, bf16 *low, int64_t apart,
                  int64_t count) {
    float sums[MATRIX_ROWS * RANKS] __attribute__((aligned(64)));
    for (; count > 0; count -= MATRIX_ROWS) {
        int64_t rows = count < MATRIX_ROWS ? count : MATRIX_ROWS;
        matrix_sides sides = {(const char *)x, 2 * in, 64, (const char *)a, 4 * RANKS, in / 2, {NULL,
                              0}};
        matrix_multiply(sums, 4 * RANKS, &sides, rows, 0, 0, matrix_nothing, NULL);
        for (int64_t r = 0; r < rows; r++)
            put_narrowed(low + r * apart, v_load(sums + r * RANKS));
        x += MATRIX_ROWS * in, low += MATRIX_ROWS * apart;
    }
}
#else
#define SUMS 4
#define TILE 6

/* Rows `row` to `row + count` times one part of one page; `count` is a constant where called. */
inlined void tile(const bf16 *x, const bf16 *a, int64_t in, bf16 *low, int64_t apart,
                  const int count) {
    v_wide sum[TILE][SUMS];
    for (int r = 0; r < count; r++)
        for (int s = 0; s < SUMS; s++) sum[r][s] = v_zero();
    int64_t pair = 0, pairs = in / 2;
    for (; pair + SUMS <= pairs; pair += SUMS) {
#pragma GCC unroll 4
        for (int s = 0; s < SUMS; s++) {
            v_pairs columns = v_load_pairs(a + (pair + s) * 32);
#pragma GCC unroll 6
            for (int r = 0; r < count; r++)
                sum[r][s] = v_dot(sum[r][s], pair_of(x + r * in + 2 * (pair + s)), columns);
        }
    }
    for (; pair < pairs; pair++) {
        v_pairs columns = v_load_pairs(a + pair * 32);
        for (int r = 0; r < count; r++)
            sum[r][0] = v_dot(sum[r][0], pair_of(x + r * in + 2 * pair), columns);
    }
    for (int r = 0; r < count; r++) {
        v_wide two = v_add(sum[r][0], sum[r][1]);
        put_narrowed(low + r * apart, v_add(two, v_add(sum[r][2], sum[r][3])));
    }
}
static void lower(const bf16 *x, const bf16 *a, int64_t in, bf16 *low, int64_t apart,
                  int64_t count) {
    for (; count >= TILE; count -= TILE, x += TILE * in, low += TILE * apart)
        tile(x, a, in, low, apart, TILE);
    if (count >= 4) tile(x, a, in, low, apart, 4), x += 4 * in, low += 4 * apart, count -= 4;
    if (count >= 2) tile(x, a, in, low, apart, 2), x += 2 * in, low += 2 * apart, count -= 2;
    if (count >= 1) tile(x, a, in, low, apart, 1);
}
#endif

/* Fills `low` `[pages of all rows][parts][16]` for the rows of one kin, from their input `x`. */
void step_low(const linear *w, const bf16 *x, bf16 *low, const kin *k, const int64_t *first_page,
              const int64_t *pages) {
    int64_t first = first_page[k->row], count = first_page[k->row + 1] - first;
    int64_t apart = count * w->parts * RANKS;
    for (int64_t i = 0; i < count; i++) {
        for (int64_t part = 0; part < w->parts; part++) {
            const bf16 *a = w->a + pages[first + i] * w->a_apart + part * w->in * RANKS;
            bf16 *to = low + ((first + i) * w->parts + part) * RANKS;
            lower(x + k->row * w->in, a, w->in, to, apart, k->count);
        }
    }
}

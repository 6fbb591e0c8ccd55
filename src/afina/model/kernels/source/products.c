/* x W for bf16 rows: each output is one sum over the inputs, in one order, in fp32, whatever rows
   stand beside it; so a row's bits never depend on its company.

   Weights lie as `[outs / 32][in / 2][32][2]`: what 32 outputs need of two inputs is two registers,
   and a block is read from its beginning to its end. A tile of 12 rows and 32 outputs keeps 24 sums
   in registers, enough to hide the latency of VDPBF16PS (Intel 64 manual, volume 2C). */
#include "matrix.h"

#define OUTS 32

typedef struct {
    const bf16 *x, *weight, *add;
    bf16 *out;
    int64_t rows, in, outs;
} product;

/* `add`, where it is given, is added to the sums before they are rounded. */
static inline __attribute__((always_inline)) void store(const product *p, int64_t at,
                                                        v_wide low, v_wide high) {
    if (p->add != NULL) {
        low = v_add(low, v_widened(v_load_half(p->add + at)));
        high = v_add(high, v_widened(v_load_half(p->add + at + 16)));
    }
    v_store_bits(p->out + at, v_narrowed_two(low, high));
}

#if AFINA_MATRIX
static void rows_of_block(const product *p, int64_t block) {
    float sums[MATRIX_ROWS * OUTS] __attribute__((aligned(64)));
    for (int64_t row = 0; row < p->rows; row += MATRIX_ROWS) {
        int64_t count = p->rows - row < MATRIX_ROWS ? p->rows - row : MATRIX_ROWS;
        matrix_sides sides = {(const char *)(p->x + row * p->in), 2 * p->in, 64,
                              (const char *)(p->weight + block * OUTS * p->in), 4 * OUTS, p->in / 2,
                              {NULL, 0}};
        matrix_product(sums, 4 * OUTS, &sides, count, 0);
        for (int64_t r = 0; r < count; r++)
            store(p, (row + r) * p->outs + block * OUTS, v_load(sums + r * OUTS),
                  v_load(sums + r * OUTS + 16));
    }
}
#else
#define matrix_begin()
#define matrix_end()
/* Rows `row` to `row + count` of one block of outputs; `count` is a constant where it is called. */
static inline __attribute__((always_inline)) void tile(const product *p, int64_t row,
                                                       int64_t block, const int count) {
    const bf16 *weight = p->weight + block * OUTS * p->in;
    const bf16 *x = p->x + row * p->in;
    v_wide low[12], high[12];
    for (int r = 0; r < count; r++) low[r] = high[r] = v_zero();
    for (int64_t k = 0; k < p->in; k += 2) {
        v_pairs first = v_load_pairs(weight + k * OUTS);
        v_pairs second = v_load_pairs(weight + k * OUTS + 32);
#pragma GCC unroll 12
        for (int r = 0; r < count; r++) {
            v_pairs both = v_pair(x + r * p->in + k);
            low[r] = v_dot(low[r], both, first);
            high[r] = v_dot(high[r], both, second);
        }
    }
    for (int r = 0; r < count; r++)
        store(p, (row + r) * p->outs + block * OUTS, low[r], high[r]);
}

static void rows_of_block(const product *p, int64_t block) {
    int64_t row = 0;
    for (; p->rows - row >= 12; row += 12) tile(p, row, block, 12);
    if (p->rows - row >= 8) tile(p, row, block, 8), row += 8;
    if (p->rows - row >= 4) tile(p, row, block, 4), row += 4;
    if (p->rows - row >= 2) tile(p, row, block, 2), row += 2;
    if (p->rows - row >= 1) tile(p, row, block, 1);
}
#endif

static void multiply_part(void *given) {
    const product *p = given;
    int64_t first, last;
    part_of(p->outs / OUTS, &first, &last);
    matrix_begin();
    for (int64_t block = first; block < last; block++) rows_of_block(p, block);
    matrix_end();
}

/* out `[rows, outs]` = x `[rows, in]` times the packed weight, plus add `[rows, outs]` or NULL,
   which may be out itself. `in` is even, `outs` a multiple of 32. */
void afina_multiply(const bf16 *x, const bf16 *weight, const bf16 *add, bf16 *out, int64_t rows,
                    int64_t in, int64_t outs, int threads) {
    product p = {x, weight, add, out, rows, in, outs};
    in_parallel(multiply_part, &p, threads);
}

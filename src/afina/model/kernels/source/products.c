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
                                                        __m512 low, __m512 high) {
    if (p->add != NULL) {
        __m512i both = _mm512_loadu_si512(p->add + at);
        __m512i first = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(both));
        __m512i second = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1));
        low = _mm512_add_ps(low, _mm512_castsi512_ps(_mm512_slli_epi32(first, 16)));
        high = _mm512_add_ps(high, _mm512_castsi512_ps(_mm512_slli_epi32(second, 16)));
    }
    _mm512_storeu_si512(p->out + at, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

#if AFINA_MATRIX
static void rows_of_block(const product *p, int64_t block) {
    float sums[MATRIX_ROWS * OUTS] __attribute__((aligned(64)));
    for (int64_t row = 0; row < p->rows; row += MATRIX_ROWS) {
        int64_t count = p->rows - row < MATRIX_ROWS ? p->rows - row : MATRIX_ROWS;
        matrix_sides sides = {(const char *)(p->x + row * p->in), 2 * p->in, 64,
                              (const char *)(p->weight + block * OUTS * p->in), 4 * OUTS, p->in / 2,
                              NULL, 0};
        matrix_product(sums, 4 * OUTS, &sides, count, 0);
        for (int64_t r = 0; r < count; r++)
            store(p, (row + r) * p->outs + block * OUTS, _mm512_load_ps(sums + r * OUTS),
                  _mm512_load_ps(sums + r * OUTS + 16));
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
    __m512 low[12], high[12];
    for (int r = 0; r < count; r++) low[r] = high[r] = _mm512_setzero_ps();
    for (int64_t k = 0; k < p->in; k += 2) {
        __m512bh first = (__m512bh)_mm512_loadu_si512(weight + k * OUTS);
        __m512bh second = (__m512bh)_mm512_loadu_si512(weight + k * OUTS + 32);
#pragma GCC unroll 12
        for (int r = 0; r < count; r++) {
            int32_t pair;
            memcpy(&pair, x + r * p->in + k, sizeof pair);
            __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
            low[r] = _mm512_dpbf16_ps(low[r], both, first);
            high[r] = _mm512_dpbf16_ps(high[r], both, second);
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

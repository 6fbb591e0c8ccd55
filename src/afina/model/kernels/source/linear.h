/* A linear layer's product, and what is done with its sums while they are at hand. */
#ifndef AFINA_LINEAR_H
#define AFINA_LINEAR_H
#include "matrix.h"
#include "tile.h"

typedef struct {
    const bf16 *x, *w, *low, *b, *beside;
    bf16 *out;
    bf16 *inner; /* or NULL: out is gate and up side by side, and silu(gate) up goes here */
    bf16 *both;  /* or NULL: the sums are the gradient of silu(gate) up. Comes as gate and up side
                    by side and goes as their gradients; out gets silu(gate) up */
    const float *gain; /* [outs], or NULL: what sums are multiplied by before `beside` is added */
    int64_t x_row, w_row, low_row, b_row, beside_row, out_row; /* lengths of rows in memory */
    int64_t rows, in, outs, rank;
    int64_t w_turned, b_turned; /* whether they are [in, outs] and [rank, outs] */
    int64_t waits;              /* for all products before it in the list */
    float scale;
    int64_t failed, next; /* the next piece of work; 0 before */
} product;

INLINE strip rows_of(const bf16 *x, int64_t row, int64_t m) {
    strip found = {(const char *)(x + m * row), 2 * row, 4};
    return found;
}
/* Where the sums of a panel's side go. A panel of gate and up is 16 columns of each. */
INLINE int64_t column_of(const product *p, int64_t n, int v) {
    return p->inner ? (v ? p->outs / 2 : 0) + n / 2 : n + v * LANES;
}
INLINE void store(const product *p, v_wide sum, int64_t m, int64_t column, v_mask some) {
    if (p->gain) sum = v_mul(sum, v_load_some(some, p->gain + column));
    if (p->beside)
        sum = v_add(sum, load_some(p->beside + m * p->beside_row + column, some));
    store_some(p->out + m * p->out_row + column, sum, some);
}
INLINE void open_gate(const product *p, v_wide gate, v_wide up, int64_t m, int64_t n) {
    store16(p->inner + m * (p->outs / 2) + n / 2,
            v_mul(v_mul(gate, chance(gate)), up));
}
INLINE void gate_back(const product *p, v_wide grad, int64_t m, int64_t column, v_mask some) {
    bf16 *at = p->both + 2 * m * p->outs + column;
    v_wide x = load_some(at, some), up = load_some(at + p->outs, some), open = chance(x);
    v_wide passed = v_mul(x, open);
    /* the slope of silu: open + x open (1 - open) */
    v_wide slope = v_fma(passed, v_sub(v_all(1.0f), open), open);
    store_some(p->out + m * p->out_row + column, v_mul(passed, up), some);
    store_some(at, v_mul(v_mul(grad, up), slope), some);
    store_some(at + p->outs, v_mul(grad, passed), some);
}

/* What becomes of 32 sums that lie in memory. */
static __attribute__((unused)) void finish_row(const product *p, const float *sums, int64_t m,
                                               int64_t n) {
    v_wide sum[2];
    EACH_SIDE(2) {
        sum[v] = v_load(sums + v * LANES);
        if (!p->rank && p->scale != 1.0f) sum[v] = v_mul(sum[v], v_all(p->scale));
        int64_t column = column_of(p, n, v);
        v_mask some = p->inner ? 0xffff : lanes(p->outs - column);
        if (!some) continue;
        if (p->both)
            gate_back(p, sum[v], m, column, some);
        else
            store(p, sum[v], m, column, some);
    }
    if (p->inner) open_gate(p, sum[0], sum[1], m, n);
}
/* A part of a deep product: numbers [k, k + length) of each row, or its low-rank term, whose sums are
   added to those that are there, or are the first. */
typedef struct { int64_t k, length; int low, more; } deep_part;

/* What linear.c asks of either way to multiply (linear_matrix.h, linear_vectors.h):
   PANEL_ROOM            bytes of packed panels that stay in the second cache beside a strip of x
   BLOCK                 rows at a time
   room_of(numbers)      as many as a packed panel has
   strip_size(p)         bytes of a packed strip of BLOCK rows
   pack_strip            packs one
   multiply_strip        times a panel, from column n on: the i-th of `count`
   finish_strips         all that is begun is done
   DEEP                  numbers of a row, from which on neither strip nor panel fits a cache
   PART                  are summed at a time then
   LOW_FIRST             whether the low-rank term is the first part or the last
   deep_strip_size(part) bytes of a strip of BLOCK rows of such a part
   add_block             adds a part of BLOCK rows to the sums of `count` panels */
#endif

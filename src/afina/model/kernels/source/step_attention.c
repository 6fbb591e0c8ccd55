/* Attention of a piece of a sequence over its blocks of the cache, where they lie.

   Keys of a block stand with their sixteen positions side by side, so that sixteen scores are one
   register; values with two positions side by side, as VDPBF16PS wants them. Scores are computed
   for all positions, then their weights, then the weighted sum: places in ascending order, whatever
   the piece; a place that a query does not see adds exactly nothing. What lies in a block behind
   the piece's last position is another's, and is never multiplied: zero times infinity is no
   number. */
#include <math.h>

#include "step.h"

/* Vectors of scores, or of values, that four rows' sums are kept of: as many as registers hold. */
#ifdef AFINA_HALVES
#define AT_ONCE 1
#else
#define AT_ONCE 4
#endif
#define inlined static inline __attribute__((always_inline))

/* What the tiles of one piece and one key head share. A query row is a position's query of one head:
   `ratio` of them a position. */
typedef struct {
    const bf16 *keys, *values; /* of this key head in block 0 */
    const int64_t *table;
    const bf16 *q;             /* the first position's first query of this key head */
    int64_t ratio, row_apart, size, block_apart;
    int64_t first, blocks;     /* blocks that are read: from `first`, so many */
    int64_t start, count;
    float *scores;             /* [count * ratio][blocks * 16] */
    float scaling;
    int64_t window;
} view;

static const bf16 *query(const view *v, int64_t row) {
    return v->q + row / v->ratio * v->row_apart + row % v->ratio * v->size;
}

/* Scores of `rows` query rows and `blocks` blocks; both are constants where it is called. */
inlined void score(const view *v, int64_t row, int64_t block, const int rows, const int blocks) {
    const bf16 *q[4], *k[4];
    for (int r = 0; r < rows; r++) q[r] = query(v, row + r);
    for (int b = 0; b < blocks; b++) k[b] = v->keys + v->table[v->first + block + b] * v->block_apart;
    v_wide sum[4][4];
    for (int r = 0; r < rows; r++)
        for (int b = 0; b < blocks; b++) sum[r][b] = v_zero();
    for (int64_t i = 0; i < v->size; i += 2) {
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++) {
            v_pairs keys = v_load_pairs(k[b] + i * PLACES);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                sum[r][b] = v_dot(sum[r][b], pair_of(q[r] + i), keys);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int b = 0; b < blocks; b++)
            v_store(v->scores + ((row + r) * v->blocks + block + b) * PLACES, sum[r][b]);
}

inlined void score_rows(const view *v, int64_t block, const int blocks) {
    int64_t row = 0, rows = v->count * v->ratio;
    for (; rows - row >= 4; row += 4) score(v, row, block, 4, blocks);
    if (rows - row == 3) score(v, row, block, 3, blocks);
    if (rows - row == 2) score(v, row, block, 2, blocks);
    if (rows - row == 1) score(v, row, block, 1, blocks);
}

/* The places of a block that a query at `position` sees. */
static v_mask seen(const view *v, int64_t block, int64_t position) {
    int64_t begin = (v->first + block) * PLACES;
    int64_t last = position - begin, first = v->window > 0 ? position - v->window + 1 - begin : 0;
    if (last < 0 || first >= PLACES) return 0;
    uint32_t upto = last >= PLACES - 1 ? 0xFFFF : (1u << (last + 1)) - 1;
    uint32_t before = first > 0 ? (1u << first) - 1 : 0;
    return (v_mask)(upto & ~before);
}

/* Turns a row's scores into weights in bf16, in their place; the sum of the weights. */
static float weigh(const view *v, int64_t row) {
    float *scores = v->scores + row * v->blocks * PLACES;
    bf16 *weights = (bf16 *)scores;
    int64_t position = v->start + row / v->ratio;
    const v_wide none = v_all(-INFINITY);
    v_wide most = none;
    for (int64_t b = 0; b < v->blocks; b++)
        most = v_choose(seen(v, b, position), v_max(most, v_load(scores + b * PLACES)), most);
    v_wide top = v_all(v_largest(most));
    v_wide scaling = v_all(v->scaling), sum = v_zero();
    for (int64_t b = 0; b < v->blocks; b++) {
        v_wide x = v_mul(v_sub(v_load(scores + b * PLACES), top), scaling);
        x = v_where(seen(v, b, position), step_exp(x));
        sum = v_add(sum, x);
        put_narrowed(weights + b * PLACES, x);
    }
    return v_sum(sum);
}

/* Adds `pairs` pairs of a block's positions to sums of `rows` query rows over `wide` registers of a
   head; the last pair's second position is left out if `odd`. */
inlined void add_block(const bf16 *values, const bf16 *const *weights, int64_t size, int64_t pairs,
                       int odd, v_wide sum[4][4], const int rows, const int wide) {
    for (int64_t pair = 0; pair < pairs; pair++) {
        v_bits mask = v_all_words(odd && pair == pairs - 1 ? 0xFFFF : -1);
#pragma GCC unroll 4
        for (int d = 0; d < wide; d++) {
            v_bits both = v_load_bits(values + (pair * size + 16 * d) * 2);
            v_pairs value = v_as_pairs(v_and(both, mask));
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                sum[r][d] = v_dot(sum[r][d], pair_of(weights[r] + 2 * pair), value);
        }
    }
}

/* Weighted sums of values for `rows` query rows and `wide` registers of a head from `from` on. */
inlined void mix(const view *v, int64_t row, int64_t from, const float *sums, bf16 *out,
                 int64_t out_apart, const int rows, const int wide) {
    v_wide sum[4][4];
    for (int r = 0; r < rows; r++)
        for (int d = 0; d < wide; d++) sum[r][d] = v_zero();
    int64_t last = v->start + v->count - 1 - v->first * PLACES; /* of the piece, in what is read */
    for (int64_t b = 0; b < v->blocks; b++) {
        const bf16 *weights[4];
        for (int r = 0; r < rows; r++)
            weights[r] = (const bf16 *)(v->scores + (row + r) * v->blocks * PLACES) + b * PLACES;
        const bf16 *values = v->values + v->table[v->first + b] * v->block_apart + from * 2;
        int64_t places = last + 1 - b * PLACES;
        if (places >= PLACES)
            add_block(values, weights, v->size, PLACES / 2, 0, sum, rows, wide);
        else
            add_block(values, weights, v->size, (places + 1) / 2, places % 2, sum, rows, wide);
    }
    for (int r = 0; r < rows; r++) {
        v_wide share = v_all(1.0f / sums[row + r]);
        int64_t position = (row + r) / v->ratio, head = (row + r) % v->ratio;
        bf16 *to = out + position * out_apart + head * v->size + from;
        for (int d = 0; d < wide; d++) put_narrowed(to + 16 * d, v_mul(sum[r][d], share));
    }
}

inlined void mix_rows(const view *v, int64_t from, const float *sums, bf16 *out, int64_t out_apart,
                      const int wide) {
    int64_t row = 0, rows = v->count * v->ratio;
    for (; rows - row >= 4; row += 4) mix(v, row, from, sums, out, out_apart, 4, wide);
    if (rows - row == 3) mix(v, row, from, sums, out, out_apart, 3, wide);
    if (rows - row == 2) mix(v, row, from, sums, out, out_apart, 2, wide);
    if (rows - row == 1) mix(v, row, from, sums, out, out_apart, 1, wide);
}

/* What the positions of a piece see through the queries of one key head; written to `seen`.
   `scores` has room for a number a query row and position, and one a query row behind them. */
void step_attend(const network *n, const layer *l, const step *s, const piece *p, int64_t head,
                 float *scores) {
    int64_t size = n->size, ratio = n->heads / n->kv_heads, apart = n->heads * size;
    int64_t qkv_apart = (n->heads + 2 * n->kv_heads) * size;
    int64_t earliest = l->window > 0 ? p->start - l->window + 1 : 0;
    int64_t first = earliest > 0 ? earliest / PLACES : 0;
    view v = {
        .keys = l->keys + head * size * PLACES,
        .values = l->values + head * size * PLACES,
        .table = s->tables + p->table,
        .q = s->qkv + p->row * qkv_apart + head * ratio * size,
        .ratio = ratio,
        .row_apart = qkv_apart,
        .size = size,
        .block_apart = n->kv_heads * size * PLACES,
        .first = first,
        .blocks = (p->start + p->count - 1) / PLACES + 1 - first,
        .start = p->start,
        .count = p->count,
        .scores = scores,
        .scaling = (float)n->scaling,
        .window = l->window,
    };
    int64_t block = 0, rows = p->count * ratio;
    for (; v.blocks - block >= AT_ONCE; block += AT_ONCE) score_rows(&v, block, AT_ONCE);
#if AT_ONCE > 1
    if (v.blocks - block >= 2) score_rows(&v, block, 2), block += 2;
    if (v.blocks - block >= 1) score_rows(&v, block, 1);
#endif
    float *sums = scores + rows * v.blocks * PLACES;
    for (int64_t row = 0; row < rows; row++) sums[row] = weigh(&v, row);
    bf16 *out = s->seen + p->row * apart + head * ratio * size;
    int64_t from = 0;
    for (; size - from >= 16 * AT_ONCE; from += 16 * AT_ONCE)
        mix_rows(&v, from, sums, out, apart, AT_ONCE);
#if AT_ONCE > 1
    if (size - from >= 32) mix_rows(&v, from, sums, out, apart, 2), from += 32;
    if (size - from >= 16) mix_rows(&v, from, sums, out, apart, 1);
#endif
}

/* Gradients of low-rank matrices: sum[i, j] += scale * sum over k of x[k, i] y[k, j], in fp32, each
   from the first row to the last. */
#include "tile.h"

/* `turned`: sum is [ys, xs]. With `inverse`, y is not what a product read but what its norm did: the
   product read weight[j] inverse[k] y[k, j]. The row's factor goes to x, which is narrow, and the
   column's to the sum, so that the norm need not be made again. */
typedef struct {
    const bf16 *x, *y, *weight;
    const float *inverse;
    float *sum;
    int64_t x_row, y_row, sum_row, rows, xs, ys, turned;
    float scale;
    int64_t failed, next; /* the next piece of work; 0 before */
} gradient;

/* Adds one vector of sums for row i, columns j and on. */
static void add_vector(const gradient *p, __m512 found, int64_t i, int64_t j) {
    __mmask16 some = lanes(p->ys - j);
    found = _mm512_mul_ps(found, _mm512_set1_ps(p->scale));
    if (p->weight) found = _mm512_mul_ps(found, load_some(p->weight + j, some));
    if (p->turned) {
        float done[LANES], *at = p->sum + j * p->sum_row + i;
        _mm512_storeu_ps(done, found);
        for (int l = 0; l < LANES && (some >> l & 1); l++) at[l * p->sum_row] += done[l];
        return;
    }
    float *at = p->sum + i * p->sum_row + j;
    __m512 before = _mm512_maskz_loadu_ps(some, at);
    _mm512_mask_storeu_ps(at, some, _mm512_add_ps(found, before));
}
/* Columns [from, to) of x, each row times its factor. */
static void scale_rows(bf16 *out, const gradient *p, int64_t from, int64_t to) {
    for (int64_t k = 0; k < p->rows; k++)
        for (int64_t i = from; i < to; i += LANES) {
            __mmask16 some = lanes(to - i);
            __m512 x = load_some(p->x + k * p->x_row + i, some);
            store_some(out + k * (to - from) + i - from,
                       _mm512_mul_ps(x, _mm512_set1_ps(p->inverse[k])), some);
        }
}
/* Columns [from, to) of x as left sides, a panel of 32 behind another. */
static void pack_left(bf16 *out, bf16 *scaled, const gradient *p, int64_t from, int64_t to) {
    const bf16 *x = p->x + from;
    int64_t row = p->x_row, steps = (p->rows + 1) / 2;
    if (p->inverse) {
        scale_rows(scaled, p, from, to);
        x = scaled, row = to - from;
    }
    for (int64_t i = 0; i < to - from; i += WIDE)
        pack_panel(out + 2 * steps * i, x, row, 1, p->rows, to - from, i);
}

#define ONE_SUM(R)                                                                                \
    static void sum_##R(const gradient *p, strip x, const bf16 *packed, int64_t i, int64_t j) {   \
        __m512 sum[R][2];                                                                         \
        EACH_ROW(R) sum[r][0] = sum[r][1] = _mm512_setzero_ps();                                  \
        x.at += i * x.row;                                                                        \
        tile_##R##_2(x, (const char *)packed, 128, (p->rows + 1) / 2, sum);                       \
        for (int r = 0; r < R; r++)                                                               \
            for (int v = 0; v < 2; v++) add_vector(p, sum[r][v], i + r, j + v * LANES);           \
    }
ONE_SUM(12) ONE_SUM(8) ONE_SUM(4) ONE_SUM(2) ONE_SUM(1)

/* The wider side is shared out, and each thread packs the other one for itself: columns of y one
   panel at a time, by whoever is free, or else an even part of those of x. */
static void one_gradient(gradient *p) {
    int64_t steps = (p->rows + 1) / 2, first = 0, last = (p->xs + WIDE - 1) / WIDE, n = 0;
    int64_t panels = (p->ys + WIDE - 1) / WIDE;
    int by_x = p->xs > p->ys;
    if (by_x) part_of(last, &first, &last);
    if (first == last) return;
    int64_t wide = (last - first) * WIDE, end = last * WIDE < p->xs ? last * WIDE : p->xs;
    bf16 *packed = (bf16 *)room(4 * steps * (WIDE + 2 * wide));
    if (!packed) { p->failed = 1; return; }
    bf16 *left = packed + 2 * steps * WIDE;
    pack_left(left, left + 2 * steps * wide, p, first * WIDE, end);
    while ((n = by_x ? n : __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED)) < panels) {
        pack_panel(packed, p->y, p->y_row, 1, p->rows, p->ys, n * WIDE);
        for (int64_t i = first * WIDE; i < end; i += WIDE) {
            strip rows = {(const char *)(left + 2 * steps * (i - first * WIDE)), 4, 128};
            rows.at -= i * 4; /* rows of a tile are counted from the first of all */
            int64_t until = i + WIDE < end ? i + WIDE : end;
#define SUM_ONE(R, at) sum_##R(p, rows, packed, at, n * WIDE)
            BY_TILES(i, until, SUM_ONE)
        }
        n += by_x;
    }
}

typedef struct { gradient *list; int64_t count; } gradients;

static void gradient_part(void *given) {
    const gradients *p = given;
    for (int64_t i = 0; i < p->count; i++) one_gradient(p->list + i);
}
int afina_add_gradient(gradient *list, int64_t count, int threads) {
    gradients all = {list, count};
    in_parallel(gradient_part, &all, threads);
    int failed = 0;
    for (int64_t i = 0; i < count; i++) failed |= list[i].failed != 0;
    return failed;
}

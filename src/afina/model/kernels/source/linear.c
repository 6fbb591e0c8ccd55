/* Linear layers with their low-rank terms: out = x W + scale * (low B) + beside. W is [outs, in]
   (forward) or [in, outs] (backward), as it lies in memory: a panel of 32 columns is packed when its
   turn comes, which costs one part in some hundred rows. What a tile's sums are for is done while
   they are in registers: adding the residual, opening the gate, or its gradient. */
#include "tile.h"

#define PANEL_ROOM (320 << 10) /* packed panels that stay in the second cache beside a strip of x */

typedef struct {
    const bf16 *x, *w, *low, *b, *beside;
    bf16 *out;
    bf16 *inner; /* or NULL: out is gate and up side by side, and silu(gate) up goes here */
    bf16 *both;  /* or NULL: the sums are the gradient of silu(gate) up. Comes as gate and up side
                    by side and goes as their gradients; out gets silu(gate) up */
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
INLINE void store(const product *p, __m512 sum, int64_t m, int64_t column, __mmask16 some) {
    if (p->beside)
        sum = _mm512_add_ps(sum, load_some(p->beside + m * p->beside_row + column, some));
    store_some(p->out + m * p->out_row + column, sum, some);
}
INLINE void open_gate(const product *p, __m512 gate, __m512 up, int64_t m, int64_t n) {
    store16(p->inner + m * (p->outs / 2) + n / 2,
            _mm512_mul_ps(_mm512_mul_ps(gate, chance(gate)), up));
}
INLINE void gate_back(const product *p, __m512 grad, int64_t m, int64_t column, __mmask16 some) {
    bf16 *at = p->both + 2 * m * p->outs + column;
    __m512 x = load_some(at, some), up = load_some(at + p->outs, some), open = chance(x);
    __m512 passed = _mm512_mul_ps(x, open);
    /* the slope of silu: open + x open (1 - open) */
    __m512 slope = _mm512_fmadd_ps(passed, _mm512_sub_ps(_mm512_set1_ps(1.0f), open), open);
    store_some(p->out + m * p->out_row + column, _mm512_mul_ps(passed, up), some);
    store_some(at, _mm512_mul_ps(_mm512_mul_ps(grad, up), slope), some);
    store_some(at + p->outs, _mm512_mul_ps(grad, passed), some);
}

#define ONE_TILE(R, V)                                                                            \
    static void product_##R##_##V(const product *p, const bf16 *packed, int64_t m, int64_t n) {   \
        __m512 sum[R][V], scale = _mm512_set1_ps(p->scale);                                       \
        const char *w = (const char *)packed;                                                     \
        EACH_ROW(R) EACH_SIDE(V) sum[r][v] = _mm512_setzero_ps();                                 \
        if (p->rank)                                                                              \
            tile_##R##_##V(rows_of(p->low, p->low_row, m), w + p->in * 64, 128, p->rank / 2,      \
                           sum);                                                                  \
        else                                                                                      \
            tile_##R##_##V(rows_of(p->x, p->x_row, m), w, 128, p->in / 2, sum);                   \
        if (p->scale != 1.0f)                                                                     \
            EACH_ROW(R) EACH_SIDE(V) sum[r][v] = _mm512_mul_ps(sum[r][v], scale);                 \
        if (p->rank) tile_##R##_##V(rows_of(p->x, p->x_row, m), w, 128, p->in / 2, sum);          \
        EACH_SIDE(V) {                                                                            \
            int64_t column = column_of(p, n, v);                                                  \
            __mmask16 some = p->inner ? 0xffff : lanes(p->outs - column);                         \
            if (p->both)                                                                          \
                EACH_ROW(R) gate_back(p, sum[r][v], m + r, column, some);                         \
            else                                                                                  \
                EACH_ROW(R) store(p, sum[r][v], m + r, column, some);                             \
        }                                                                                         \
        if (V == 2 && p->inner)                                                                   \
            EACH_ROW(R) open_gate(p, sum[r][0], sum[r][V - 1], m + r, n);                         \
    }
ONE_TILE(12, 2) ONE_TILE(8, 2) ONE_TILE(4, 2) ONE_TILE(2, 2) ONE_TILE(1, 2)
ONE_TILE(12, 1) ONE_TILE(8, 1) ONE_TILE(4, 1) ONE_TILE(2, 1) ONE_TILE(1, 1)

static void product_rows(const product *p, const bf16 *packed, int64_t m, int64_t to, int64_t n) {
    if (p->outs - n > LANES) {
#define WIDE_ONE(R, at) product_##R##_2(p, packed, at, n)
        BY_TILES(m, to, WIDE_ONE)
    } else {
#define SLIM_ONE(R, at) product_##R##_1(p, packed, at, n)
        BY_TILES(m, to, SLIM_ONE)
    }
}
/* Columns of gate and of up in turns of 16, of a weight that has gate's rows above up's. */
static void pack_gated(bf16 *out, const bf16 *w, int64_t row, int64_t in, int64_t outs,
                       int64_t n) {
    const bf16 *rows[WIDE];
    for (int i = 0; i < WIDE; i++)
        rows[i] = w + (n / 2 + (i < LANES ? i : outs / 2 + i - LANES)) * row;
    pack_rows(out, rows, WIDE, in);
}
static void pack_both(bf16 *panel, const product *p, int64_t n) {
    bf16 *low = panel + p->in * WIDE;
    if (p->inner) {
        pack_gated(panel, p->w, p->w_row, p->in, p->outs, n);
        if (p->rank) pack_gated(low, p->b, p->b_row, p->rank, p->outs, n);
        return;
    }
    pack_panel(panel, p->w, p->w_row, p->w_turned, p->in, p->outs, n);
    if (p->rank) pack_panel(low, p->b, p->b_row, p->b_turned, p->rank, p->outs, n);
}

/* Panels at a time: as many as the cache holds, but so few that there are pieces for all threads, and
   as many for each. */
static int64_t group_of(int64_t panels, int64_t most, int64_t all) {
    for (int64_t group = most; group > 1; group--) {
        int64_t pieces = (panels + group - 1) / group;
        if (pieces % all == 0 && pieces >= 3 * all) return group;
    }
    return 1;
}
static void panels_of(const product *p, bf16 *packed, int64_t n, int64_t count) {
    int64_t size = (p->in + p->rank) * WIDE;
    for (int64_t i = 0; i < count; i++) pack_both(packed + i * size, p, (n + i) * WIDE);
}
static void multiply_panels(const product *p, const bf16 *packed, int64_t first, int64_t last,
                            int64_t n, int64_t count) {
    int64_t size = (p->in + p->rank) * WIDE;
    for (int64_t m = first; m < last; m += TALL)
        for (int64_t i = 0; i < count; i++)
            product_rows(p, packed + i * size, m, m + TALL < last ? m + TALL : last,
                         (n + i) * WIDE);
}

/* Work is taken piece by piece by whoever is free: a thread that the machine holds up does not hold
   up the others. */
static void one_product(product *p) {
    int64_t panels = (p->outs + WIDE - 1) / WIDE, size = 2 * (p->in + p->rank) * WIDE, at;
    int64_t all = omp_get_num_threads(), most = PANEL_ROOM / size > 1 ? PANEL_ROOM / size : 1;
    /* few panels are too coarse to share out: then rows are, and each thread packs for itself */
    int by_rows = panels % all != 0 && panels < 8 * all;
    int64_t group = by_rows ? panels : group_of(panels, most, all);
    bf16 *packed = (bf16 *)room(size * group);
    if (!packed) { p->failed = 1; return; }
    if (by_rows) panels_of(p, packed, 0, panels);
    int64_t step = by_rows ? 5 * TALL : group, end = by_rows ? p->rows : panels;
    while ((at = step * __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED)) < end) {
        int64_t count = end - at < step ? end - at : step;
        if (by_rows) {
            multiply_panels(p, packed, at, at + count, 0, panels);
        } else {
            panels_of(p, packed, at, count);
            multiply_panels(p, packed, 0, p->rows, at, count);
        }
    }
}

typedef struct { product *list; int64_t count; } products;

static void product_part(void *given) {
    const products *p = given;
    for (int64_t i = 0; i < p->count; i++) {
        if (p->list[i].waits) GOMP_barrier();
        one_product(p->list + i);
    }
}
int afina_linear(product *list, int64_t count, int threads) {
    products all = {list, count};
    in_parallel(product_part, &all, threads);
    int failed = 0;
    for (int64_t i = 0; i < count; i++) failed |= list[i].failed != 0;
    return failed;
}

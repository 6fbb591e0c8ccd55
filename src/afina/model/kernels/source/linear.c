/* A linear layer with its low-rank term in one product: out = x W + scale * (low B) + beside. W is
   [outs, in] (forward) or [in, outs] (backward), as it lies in memory: a panel of 32 columns is
   packed when its turn comes, which costs one part in some hundred rows. */
#include "tile.h"

#define PANEL_ROOM (320 << 10) /* packed panels that stay in the second cache beside a strip of x */

typedef struct {
    const bf16 *x, *w, *low, *b, *beside;
    bf16 *out;
    int64_t x_row, w_row, low_row, b_row, beside_row, out_row; /* lengths of rows in memory */
    int64_t rows, in, outs, rank;
    int64_t w_turned, b_turned; /* whether they are [in, outs] and [rank, outs] */
    float scale;
    int64_t failed;
} product;

INLINE strip rows_of(const bf16 *x, int64_t row, int64_t m) {
    strip found = {(const char *)(x + m * row), 2 * row, 4};
    return found;
}

#define ONE_TILE(R, V)                                                                            \
    static void product_##R##_##V(const product *p, const bf16 *packed, int64_t m, int64_t n) {   \
        __m512 sum[R][V];                                                                         \
        EACH_ROW(R)                                                               \
            EACH_SIDE(V) sum[r][v] = _mm512_setzero_ps();                          \
        const char *w = (const char *)packed;                                                     \
        if (p->rank) {                                                                            \
            const char *b = w + (p->in / 2) * 128;                                                \
            __m512 scale = _mm512_set1_ps(p->scale);                                              \
            tile_##R##_##V(rows_of(p->low, p->low_row, m), b, 128, p->rank / 2, sum);             \
            EACH_ROW(R)                                                           \
                EACH_SIDE(V) sum[r][v] = _mm512_mul_ps(sum[r][v], scale);          \
        }                                                                                         \
        tile_##R##_##V(rows_of(p->x, p->x_row, m), w, 128, p->in / 2, sum);                       \
        if (!p->rank && p->scale != 1.0f) {                                                       \
            __m512 scale = _mm512_set1_ps(p->scale);                                              \
            EACH_ROW(R)                                                           \
                EACH_SIDE(V) sum[r][v] = _mm512_mul_ps(sum[r][v], scale);          \
        }                                                                                         \
        EACH_SIDE(V) {                                                             \
            __mmask16 some = lanes(p->outs - n - v * LANES);                                      \
            EACH_ROW(R) {                                                         \
                __m512 done = sum[r][v];                                                          \
                int64_t column = n + v * LANES;                                                   \
                if (p->beside)                                                                    \
                    done = _mm512_add_ps(                                                         \
                        done, load_some(p->beside + (m + r) * p->beside_row + column, some));     \
                store_some(p->out + (m + r) * p->out_row + column, done, some);                   \
            }                                                                                     \
        }                                                                                         \
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

static void product_part(void *given) {
    product *p = given;
    int64_t panels = (p->outs + WIDE - 1) / WIDE, size = (p->in + p->rank) * WIDE;
    int64_t all = omp_get_num_threads(), from, to, first = 0, last = p->rows;
    /* few panels are too coarse to share out: then rows are, and each thread packs for itself */
    if (panels % all == 0 || panels >= 8 * all) {
        part_of(panels, &from, &to);
    } else {
        from = 0, to = panels;
        part_of(p->rows, &first, &last);
    }
    int64_t group = PANEL_ROOM / (2 * size);
    group = group < 1 ? 1 : group;
    bf16 *packed = (bf16 *)room(2 * size * group);
    if (!packed) { p->failed = 1; return; }
    for (int64_t n = from; n < to; n += group) {
        int64_t count = to - n < group ? to - n : group;
        for (int64_t i = 0; i < count; i++) {
            bf16 *panel = packed + i * size;
            pack_panel(panel, p->w, p->w_row, p->w_turned, p->in, p->outs, (n + i) * WIDE);
            if (p->rank)
                pack_panel(panel + p->in * WIDE, p->b, p->b_row, p->b_turned, p->rank, p->outs,
                           (n + i) * WIDE);
        }
        for (int64_t m = first; m < last; m += TALL)
            for (int64_t i = 0; i < count; i++)
                product_rows(p, packed + i * size, m, m + TALL < last ? m + TALL : last,
                             (n + i) * WIDE);
    }
}
int64_t afina_linear(product *p, int threads) {
    in_parallel(product_part, p, threads);
    return p->failed;
}

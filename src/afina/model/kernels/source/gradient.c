/* Gradients of low-rank matrices: sum[i, j] += scale * sum over k of x[k, i] y[k, j], in fp32, each
   from the first row to the last. */
#include "matrix.h"
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

INLINE v_wide scaled(const gradient *p, v_wide found, int64_t j) {
    found = v_mul(found, v_all(p->scale));
    return p->weight ? v_mul(found, load_some(p->weight + j, lanes(p->ys - j))) : found;
}
INLINE void add_some(float *at, v_wide found, v_mask some) {
    v_store_some(at, some, v_add(found, v_load_some(some, at)));
}
#if AFINA_MATRIX
#define ROUND 32 /* rows are summed so many at a time, with zeros behind the last */

/* Columns [from, to) of x, each row times its factor. */
static void scale_rows(bf16 *out, const gradient *p, int64_t from, int64_t to) {
    for (int64_t k = 0; k < p->rows; k++)
        for (int64_t i = from; i < to; i += LANES) {
            v_mask some = lanes(to - i);
            v_wide x = load_some(p->x + k * p->x_row + i, some);
            store_some(out + k * (to - from) + i - from,
                       v_mul(x, v_all(p->inverse[k])), some);
        }
}
/* Columns [from, to) of x, scaled if need be into `scaled_x`; how long their rows are. */
static const bf16 *columns_of(bf16 *scaled_x, const gradient *p, int64_t from, int64_t to,
                              int64_t *row) {
    *row = p->inverse ? to - from : p->x_row;
    if (!p->inverse) return p->x + from;
    scale_rows(scaled_x, p, from, to);
    return scaled_x;
}

/* Sixteen columns of x as rows: out[column][row], `length` of them. */
static void turn_columns(bf16 *out, int64_t length, const bf16 *x, int64_t row, int64_t rows,
                         v_mask some) {
    for (int64_t k = 0; k < length; k += ROUND) {
        v_bits pairs[LANES];
        for (int s = 0; s < LANES; s++) {
            const bf16 *at = x + (k + 2 * s) * row;
            v_mask first = k + 2 * s < rows ? some : 0, second = k + 2 * s + 1 < rows ? some : 0;
            pairs[s] = v_joined(v_load_half_some(first, at), v_load_half_some(second, at + row));
        }
        turn_square(pairs);
        for (int i = 0; i < LANES; i++) v_store_bits(out + i * length + k, pairs[i]);
    }
}
/* The scaled columns lie behind the left sides. */
static void pack_left(bf16 *out, const gradient *p, int64_t from, int64_t to, int64_t length) {
    int64_t row, wide = (to - from + WIDE - 1) / WIDE * WIDE;
    const bf16 *x = columns_of(out + length * wide, p, from, to, &row);
    for (int64_t i = 0; i < to - from; i += LANES)
        turn_columns(out + i * length, length, x + i, row, p->rows, lanes(to - from - i));
}
/* Adds a square of sums, rows i and on, columns j and on. */
static void add_square(const gradient *p, const float *sums, int64_t i, int64_t to, int64_t j) {
    v_mask some = lanes(p->ys - j);
    v_wide found[LANES];
    if (!some) return;
    for (int r = 0; r < LANES; r++)
        found[r] = r < to - i ? scaled(p, v_load(sums + r * WIDE), j) : v_zero();
    if (!p->turned) {
        for (int r = 0; r < LANES && r < to - i; r++)
            add_some(p->sum + (i + r) * p->sum_row + j, found[r], some);
        return;
    }
    v_bits square[LANES];
    for (int r = 0; r < LANES; r++) square[r] = v_as_bits(found[r]);
    turn_square(square);
    for (int c = 0; c < LANES && (some >> c & 1); c++)
        add_some(p->sum + (j + c) * p->sum_row + i, v_as_wide(square[c]), lanes(to - i));
}
static void add_panel(const gradient *p, const bf16 *left, const bf16 *packed, int64_t length,
                      int64_t first, int64_t end, int64_t j) {
    float sums[MATRIX_ROWS * WIDE] __attribute__((aligned(64)));
    for (int64_t i = first; i < end; i += MATRIX_ROWS) {
        int64_t to = i + MATRIX_ROWS < end ? i + MATRIX_ROWS : end;
        matrix_sides s = {(const char *)(left + (i - first) * length), 2 * length, 64,
                          (const char *)packed, 128, length / 2, {NULL, 0}};
        matrix_product(sums, 4 * WIDE, &s, to - i, 0);
        for (int64_t r = i; r < to; r += LANES)
            for (int v = 0; v < 2; v++)
                add_square(p, sums + (r - i) * WIDE + v * LANES, r, to, j + v * LANES);
    }
}
#define PANELS_ROOM 0 /* one panel at a time */
#define LEFT_ROOM(wide) (2 * (wide)) /* numbers of a row, packed and scaled */

static void add_panels(const gradient *p, const bf16 *left, const bf16 *packed, int64_t length,
                       int64_t first, int64_t end, int64_t n, int64_t count) {
    for (int64_t c = 0; c < count; c++)
        add_panel(p, left, packed + c * length * WIDE, length, first, end, (n + c) * WIDE);
}
#else
#define ROUND 2
#define PANELS_ROOM (320 << 10) /* bytes of panels that stay in the second cache */
#define LEFT_ROOM(wide) ((wide) + TALL) /* the last twelve may be partly empty */
#define matrix_begin()
#define matrix_end()

/* Numbers of row k of x, column i and on, times the row's factor. */
INLINE v_half some_of_row(const gradient *p, int64_t k, int64_t i, v_mask some) {
    v_half found = v_load_half_some(some, p->x + k * p->x_row + i);
    if (p->inverse)
        found = v_narrowed(
            v_mul(v_widened(found), v_all(p->inverse[k])));
    return found;
}
/* Columns [from, to) of x as left sides: [step][12][2] of twelve columns behind those of twelve
   others, so that a tile reads its side from one end to the other, in the first cache. */
static void pack_left(bf16 *out, const gradient *p, int64_t from, int64_t to, int64_t length) {
    for (int64_t i = from; i < to; i += TALL, out += length * TALL) {
        v_mask some = lanes(to - i < TALL ? to - i : TALL);
        for (int64_t k = 0; k < p->rows; k += 2) {
            v_half even = some_of_row(p, k, i, some);
            v_half odd = k + 1 < p->rows ? some_of_row(p, k + 1, i, some) : v_no_half();
            v_store_words((1 << TALL) - 1, out + k * TALL, v_joined(even, odd));
        }
    }
}
/* Adds one vector of sums for row i, columns j and on. */
static void add_vector(const gradient *p, v_wide found, int64_t i, int64_t j) {
    v_mask some = lanes(p->ys - j);
    found = scaled(p, found, j);
    if (!p->turned) {
        add_some(p->sum + i * p->sum_row + j, found, some);
        return;
    }
    float done[LANES], *at = p->sum + j * p->sum_row + i;
    v_store(done, found);
    for (int l = 0; l < LANES && (some >> l & 1); l++) at[l * p->sum_row] += done[l];
}
/* Where sums go is fetched while they are made: they lie in memory that was last touched a layer ago. */
#define ONE_SUM(R)                                                                                \
    static void sum_##R(const gradient *p, strip x, const bf16 *packed, int64_t i, int64_t j) {   \
        v_wide sum[R][2];                                                                         \
        EACH_ROW(R) {                                                                             \
            const float *into = p->sum + (i + r) * p->sum_row + j;                                \
            sum[r][0] = sum[r][1] = v_zero();                                          \
            if (p->turned) continue;                                                              \
            __builtin_prefetch(into, 1);                                                          \
            if (p->ys - j > LANES) __builtin_prefetch(into + LANES, 1);                           \
        }                                                                                         \
        x.at += i * x.row;                                                                        \
        tile_##R##_2(x, (const char *)packed, 128, (p->rows + 1) / 2, sum);                       \
        for (int r = 0; r < R; r++)                                                               \
            for (int v = 0; v < 2; v++) add_vector(p, sum[r][v], i + r, j + v * LANES);           \
    }
ONE_SUM(12) ONE_SUM(8) ONE_SUM(4) ONE_SUM(2) ONE_SUM(1)

static void add_panels(const gradient *p, const bf16 *left, const bf16 *packed, int64_t length,
                       int64_t first, int64_t end, int64_t n, int64_t count) {
    for (int64_t i = first; i < end; i += TALL) {
        strip rows = {(const char *)(left + length * (i - first)), 4, 4 * TALL};
        rows.at -= i * 4; /* rows of a tile are counted from the first of all */
        int64_t until = i + TALL < end ? i + TALL : end;
        for (int64_t c = 0; c < count; c++) {
#define SUM_ONE(R, at) sum_##R(p, rows, packed + c * length * WIDE, at, (n + c) * WIDE)
            BY_TILES(i, until, SUM_ONE)
        }
    }
}
#endif

/* Panels at a time: as many as the cache holds, but so few that there are pieces for all threads. */
static int64_t panels_at_once(int64_t panels, int64_t length, int64_t threads) {
    int64_t group = PANELS_ROOM / (2 * length * WIDE), most = panels / (3 * threads);
    if (group > most) group = most;
    return group > 1 ? group : 1;
}
/* The wider side is shared out, and each thread packs the other one for itself: columns of y some
   panels at a time, by whoever is free, or else an even part of those of x. */
static void one_gradient(gradient *p) {
    int64_t length = (p->rows + ROUND - 1) / ROUND * ROUND, steps = (p->rows + 1) / 2;
    int64_t first = 0, last = (p->xs + WIDE - 1) / WIDE, n = 0;
    int64_t panels = (p->ys + WIDE - 1) / WIDE;
    int by_x = p->xs > p->ys;
    int64_t group = panels_at_once(panels, length, by_x ? 1 : omp_get_num_threads());
    if (by_x) part_of(last, &first, &last);
    if (first == last) return;
    int64_t wide = (last - first) * WIDE, end = last * WIDE < p->xs ? last * WIDE : p->xs;
    bf16 *packed = (bf16 *)room(2 * length * (group * WIDE + LEFT_ROOM(wide)));
    if (!packed) { p->failed = 1; return; }
    bf16 *left = packed + group * length * WIDE;
    pack_left(left, p, first * WIDE, end, length);
    while ((n = by_x ? n : group * __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED)) < panels) {
        int64_t count = panels - n < group ? panels - n : group;
        for (int64_t c = 0; c < count; c++) {
            bf16 *at = packed + c * length * WIDE;
            memset(at + 2 * steps * WIDE, 0, 2 * (length - 2 * steps) * WIDE);
            pack_panel(at, p->y, p->y_row, 1, p->rows, p->ys, (n + c) * WIDE);
        }
        add_panels(p, left, packed, length, first * WIDE, end, n, count);
        n += by_x ? group : 0;
    }
}

typedef struct { gradient *list; int64_t count; } gradients;

static void gradient_part(void *given) {
    const gradients *p = given;
    matrix_begin();
    for (int64_t i = 0; i < p->count; i++) one_gradient(p->list + i);
    matrix_end();
}
int afina_add_gradient(gradient *list, int64_t count, int threads) {
    gradients all = {list, count};
    in_parallel(gradient_part, &all, threads);
    int failed = 0;
    for (int64_t i = 0; i < count; i++) failed |= list[i].failed != 0;
    return failed;
}

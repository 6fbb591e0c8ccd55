/* Linear layers with their low-rank terms: out = x W + scale * (low B) + beside. W is [outs, in]
   (forward) or [in, outs] (backward), as it lies in memory: a panel of 32 columns is packed when its
   turn comes, which costs one part in some hundred rows. What a tile's sums are for is done while
   they are in registers: adding the residual, opening the gate, or its gradient. */
#include "linear.h"
#if AFINA_MATRIX
#include "linear_matrix.h"
#else
#include "linear_vectors.h"
#endif

#define ROWS_AT_ONCE 64 /* where rows are shared out */

/* Columns of gate and of up in turns of 16, of a weight that has gate's rows above up's. */
static void pack_gated(bf16 *out, const bf16 *w, int64_t row, int64_t in, int64_t outs,
                       int64_t n) {
    const bf16 *rows[WIDE];
    for (int i = 0; i < WIDE; i++)
        rows[i] = w + (n / 2 + (i < LANES ? i : outs / 2 + i - LANES)) * row;
    pack_rows(out, rows, WIDE, in);
}
/* The panel of columns from n on: numbers [k, k + length) of the weight, with zeros up to what a panel
   has. */
static void pack_weight(bf16 *panel, const product *p, int64_t n, int64_t k, int64_t length) {
    const bf16 *w = p->w + (p->w_turned ? k * p->w_row : k);
    memset(panel + length * WIDE, 0, 2 * (room_of(length) - length) * WIDE);
    if (p->inner)
        pack_gated(panel, w, p->w_row, length, p->outs, n);
    else
        pack_panel(panel, w, p->w_row, p->w_turned, length, p->outs, n);
}
static void pack_low(bf16 *panel, const product *p, int64_t n) {
    memset(panel + p->rank * WIDE, 0, 2 * (room_of(p->rank) - p->rank) * WIDE);
    if (!p->rank) return;
    if (p->inner)
        pack_gated(panel, p->b, p->b_row, p->rank, p->outs, n);
    else
        pack_panel(panel, p->b, p->b_row, p->b_turned, p->rank, p->outs, n);
}

/* Panels at a time: as many as the cache holds, but so few that there are pieces for all threads, and
   as many for each. */
static int64_t group_of(int64_t panels, int64_t most, int64_t all, int64_t least) {
    for (int64_t group = most; group > 1; group--) {
        int64_t pieces = (panels + group - 1) / group;
        if (pieces % all == 0 && pieces >= least * all) return group;
    }
    return 1;
}
/* Numbers of a packed panel: the weight's and the low-rank one's. */
INLINE int64_t panel_size(const product *p) { return (room_of(p->in) + room_of(p->rank)) * WIDE; }

static void panels_of(const product *p, bf16 *packed, int64_t n, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        bf16 *panel = packed + i * panel_size(p);
        pack_weight(panel, p, (n + i) * WIDE, 0, p->in);
        pack_low(panel + room_of(p->in) * WIDE, p, (n + i) * WIDE);
    }
}
static void multiply_panels(const product *p, const bf16 *packed, char *strip_room, int64_t first,
                            int64_t last, int64_t n, int64_t count) {
    strips s = {.p = p};
    for (int64_t m = first; m < last; m += BLOCK) {
        int64_t to = m + BLOCK < last ? m + BLOCK : last;
        pack_strip(strip_room, p, m, to);
        for (int64_t i = 0; i < count; i++)
            multiply_strip(&s, packed + i * panel_size(p), strip_room, m, to, (n + i) * WIDE, i,
                           count);
    }
    finish_strips(&s);
}

/* Deep products: a part of the numbers of all rows at a time, so that its panels and a strip of rows
   stay in the caches; sums wait in memory. */
typedef struct {
    bf16 *packed;
    char *strip;
    float *sums; /* [rows][panels][32] */
} deep_room;

static void add_part(const product *p, const deep_room *at, int64_t n, int64_t count,
                     deep_part part) {
    for (int64_t i = 0; i < count; i++) {
        bf16 *panel = at->packed + i * room_of(part.length) * WIDE;
        if (part.low)
            pack_low(panel, p, (n + i) * WIDE);
        else
            pack_weight(panel, p, (n + i) * WIDE, part.k, part.length);
    }
    for (int64_t m = 0; m < p->rows; m += BLOCK) {
        int64_t rows = p->rows - m < BLOCK ? p->rows - m : BLOCK;
        add_block(p, at->strip, at->packed, at->sums + m * count * WIDE, m, rows, count, part);
    }
}
static void multiply_deep(product *p, int64_t n, int64_t count) {
    int64_t part = PART > room_of(p->rank) ? PART : room_of(p->rank), row = count * WIDE;
    int64_t of_panels = 2 * part * row, of_strip = deep_strip_size(part);
    char *at = room(of_panels + of_strip + 4 * p->rows * row);
    if (!at) { p->failed = 1; return; }
    deep_room given = {(bf16 *)at, at + of_panels, (float *)(at + of_panels + of_strip)};
    deep_part low = {0, p->rank, 1, !LOW_FIRST};
    if (p->rank && LOW_FIRST) add_part(p, &given, n, count, low);
    for (int64_t k = 0; k < p->in; k += PART) {
        deep_part one = {k, p->in - k < PART ? p->in - k : PART, 0,
                         k > 0 || (p->rank && LOW_FIRST)};
        add_part(p, &given, n, count, one);
    }
    if (p->rank && !LOW_FIRST) add_part(p, &given, n, count, low);
    for (int64_t m = 0; m < p->rows; m++)
        for (int64_t i = 0; i < count; i++)
            finish_row(p, given.sums + m * row + i * WIDE, m, (n + i) * WIDE);
}

/* Work is taken piece by piece by whoever is free: a thread that the machine holds up does not hold
   up the others. */
static void one_product(product *p) {
    int64_t panels = (p->outs + WIDE - 1) / WIDE, size = 2 * panel_size(p), at;
    int64_t all = omp_get_num_threads(), most = PANEL_ROOM / size > 1 ? PANEL_ROOM / size : 1;
    int deep = p->in > DEEP;
    if (deep) most = PANEL_ROOM / (2 * PART * WIDE);
    /* few panels are too coarse to share out: then rows are, and each thread packs for itself */
    int by_rows = !deep && panels % all != 0 && panels < 8 * all;
    int64_t group = by_rows ? panels : group_of(panels, most, all, deep ? 1 : 3);
    bf16 *packed = deep ? NULL : (bf16 *)room(size * group + strip_size(p));
    if (!packed && !deep) { p->failed = 1; return; }
    char *strip_room = deep ? NULL : (char *)(packed + panel_size(p) * group);
    if (by_rows) panels_of(p, packed, 0, panels);
    int64_t step = by_rows ? ROWS_AT_ONCE : group, end = by_rows ? p->rows : panels;
    while ((at = step * __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED)) < end) {
        int64_t count = end - at < step ? end - at : step;
        if (deep) {
            multiply_deep(p, at, count);
        } else if (by_rows) {
            multiply_panels(p, packed, strip_room, at, at + count, 0, panels);
        } else {
            panels_of(p, packed, at, count);
            multiply_panels(p, packed, strip_room, 0, p->rows, at, count);
        }
    }
}

typedef struct { product *list; int64_t count; } products;

static void product_part(void *given) {
    const products *p = given;
    matrix_begin();
    for (int64_t i = 0; i < p->count; i++) {
        if (p->list[i].waits) GOMP_barrier();
        one_product(p->list + i);
    }
    matrix_end();
}
int afina_linear(product *list, int64_t count, int threads) {
    products all = {list, count};
    in_parallel(product_part, &all, threads);
    int failed = 0;
    for (int64_t i = 0; i < count; i++) failed |= list[i].failed != 0;
    return failed;
}

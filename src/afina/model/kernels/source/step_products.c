/* Products of a step: rows times packed weights, with what adapters, biases and residuals add, in
   one pass and one rounding.

   In vectors, a tile of 12 rows and 32 outputs keeps 24 sums in registers, enough to hide the latency
   of VDPBF16PS (Intel 64 manual, volume 2C); in matrix tiles, a block is 32 rows, and what is added
   to its sums is computed while the next one is multiplied. While a block of weights is multiplied,
   the next one is fetched: at 32 rows arithmetic and memory take about as long as each other. */
#include "matrix.h"
#include "room.h"
#include "step.h"

#define inlined static inline __attribute__((always_inline))

/* Adds what the row's adapter has learned about 16 outputs: its low-rank input times its B. */
inlined v_wide with_adapter(const linear *w, const flow *f, int64_t row, int64_t sixteen,
                            v_wide sum) {
    int64_t part = w->part_of[sixteen];
    for (int64_t i = f->first_page[row]; i < f->first_page[row + 1]; i++) {
        const bf16 *low = f->low + (i * w->parts + part) * RANKS;
        const bf16 *b = w->b + f->pages[i] * w->b_apart + sixteen * RANKS * 16;
#pragma GCC unroll 8
        for (int j = 0; j < RANKS / 2; j++)
            sum = v_dot(sum, pair_of(low + 2 * j),
                                   v_load_pairs(b + 32 * j));
    }
    return sum;
}

inlined v_wide finished(const linear *w, const flow *f, int64_t row, int64_t sixteen, v_wide sum) {
    int64_t at = 16 * sixteen;
    if (w->bias != NULL) sum = v_add(sum, widened(w->bias + at));
    if (f->low != NULL) sum = with_adapter(w, f, row, sixteen, sum);
    if (w->factor != NULL)
        sum = v_fma(sum, v_load(w->factor + at), v_load(w->offset + at));
    if (f->add != NULL) sum = v_add(sum, widened(f->add + row * w->outs + at));
    return sum;
}

inlined void store(const linear *w, const flow *f, int64_t row, int64_t block, v_wide low,
                   v_wide high) {
    low = finished(w, f, row, 2 * block, low);
    high = finished(w, f, row, 2 * block + 1, high);
    v_store_bits(f->out + row * w->outs + block * OUTS,
                        v_narrowed_two(low, high));
}

void step_store(const linear *w, const flow *f, int64_t row, int64_t block, v_wide low,
                v_wide high) {
    store(w, f, row, block, low, high);
}

/* Asks for what the adapters of some rows will add to a block. */
inlined void fetch_b(const linear *w, const flow *f, int64_t row, int64_t count, int64_t block) {
    for (int64_t i = f->first_page[row]; i < f->first_page[row + count]; i++) {
        const char *b = (const char *)(w->b + f->pages[i] * w->b_apart + 2 * block * RANKS * 16);
        for (int line = 0; line < 16; line++) _mm_prefetch(b + 64 * line, _MM_HINT_T0);
    }
}

#if AFINA_MATRIX
#define TILE MATRIX_ROWS
#else
#define TILE 12
#endif

/* Rows of the next tile: a segment's are as equal as can be, as one of a single row takes half as long
   as a full one of vectors. */
inlined int64_t tile_count(int64_t left) {
    int64_t turns = (left + TILE - 1) / TILE;
    return (left + turns - 1) / turns;
}

#if AFINA_MATRIX
#define FETCHED 32 /* lines of a block's weights that 16 steps read */

/* Rows whose sums are there, rows that are being multiplied, and room for the sums of both. */
typedef struct {
    const linear *w;
    const flow *f;
    int64_t row, block, done, count, turn;
    int64_t next_row, next_block, fetched, next_count;
    const char *strip; /* all rows, ready to be multiplied; NULL: each as it lies */
    float sums[2][TILE * OUTS] __attribute__((aligned(64)));
} finishing;

/* What an adapter adds is asked for once, by the first of its rows. */
inlined void fetch_row(const finishing *at, int64_t row) {
    const flow *f = at->f;
    int64_t first = f->first_page[row];
    int known = row > at->next_row && first > f->first_page[row - 1] &&
                f->pages[first] == f->pages[f->first_page[row - 1]];
    if (!known) fetch_b(at->w, f, row, 1, at->next_block);
}
inlined void finish_two(void *given) {
    finishing *at = given;
    if (at->f->low != NULL)
        for (int i = 0; i < 2 && at->fetched < at->next_count; i++, at->fetched++)
            fetch_row(at, at->next_row + at->fetched);
    for (int i = 0; i < 2 && at->done < at->count; i++, at->done++) {
        const float *sums = at->sums[at->turn] + at->done * OUTS;
        store(at->w, at->f, at->row + at->done, at->block, v_load(sums),
              v_load(sums + 16));
    }
}
static void finish(finishing *at) {
    while (at->done < at->count) finish_two(at);
}
static void multiply(finishing *at, int64_t row, int64_t block, const char *ahead, int64_t pace,
                     int64_t count) {
    const linear *w = at->w;
    const char *weight = (const char *)(w->weight + block * OUTS * w->in);
    float *sums = at->sums[1 - at->turn];
    matrix_fetch fetch = {ahead, pace};
    at->next_row = row, at->next_block = block, at->fetched = 0, at->next_count = count;
    if (at->strip) {
        matrix_multiply_strip(sums, 4 * OUTS, at->strip + 4 * row * w->in, weight, w->in / 2, count, 0,
                              &fetch, finish_two, at);
    } else {
        matrix_sides sides = {(const char *)(at->f->x + row * w->in), 2 * w->in, 64, weight,
                              4 * OUTS, w->in / 2, fetch};
        matrix_multiply(sums, 4 * OUTS, &sides, count, 0, 1, finish_two, at);
    }
    finish(at);
    at->turn = 1 - at->turn;
    at->row = row, at->block = block, at->done = 0, at->count = count;
}

#ifdef AFINA_FMA
#define STRIP_MOST (1 << 22) /* bytes; a quarter of it was no slower and no quicker to speak of */

/* All rows in fp32, as tiles will read them, once for all blocks of weights; NULL where they are too
   many. */
static const char *ready(const linear *w, const flow *f) {
    int64_t rows = 0;
    for (int64_t i = 0; i < f->segment_count; i++) {
        const segment *s = f->segments + i;
        if (s->row + s->count > rows) rows = s->row + s->count;
    }
    if (w->in % 32 || 4 * rows * w->in > STRIP_MOST) return NULL;
    char *strip = room((size_t)(4 * rows * w->in));
    for (int64_t i = 0; strip && i < f->segment_count; i++) {
        const segment *s = f->segments + i;
        if (s->small && w->codes != NULL) continue;
        int64_t row = s->row, left = s->count;
        for (int64_t count; left > 0; row += count, left -= count) {
            count = tile_count(left);
            matrix_pack(strip + 4 * row * w->in, f->x + row * w->in, w->in, count, w->in, 1.0f, 0,
                        w->in);
        }
    }
    return strip;
}
#else
static const char *ready(const linear *w, const flow *f) { return (void)w, (void)f, NULL; }
#endif
void step_begin(void) { matrix_begin(); }
void step_end(void) { matrix_end(); }
#else
#define FETCHED 2 /* lines that a step reads */

typedef struct {
    const linear *w;
    const flow *f;
    const char *strip; /* never */
} finishing;

/* Rows `row` to `row + count` of one block; `count` is a constant where it is called. `ahead` is
   fetched meanwhile, `pace` lines of it for each pair of inputs. */
inlined void tile(const linear *w, const flow *f, int64_t row, int64_t block, const char *ahead,
                  int64_t pace, const int count) {
    const bf16 *weight = w->weight + block * OUTS * w->in;
    const bf16 *x = f->x + row * w->in;
    const int64_t in = w->in;
    if (f->low != NULL) fetch_b(w, f, row, count, block);
    v_wide low[TILE], high[TILE];
    for (int r = 0; r < count; r++) low[r] = high[r] = v_zero();
    for (int64_t k = 0; k < in; k += 2) {
        v_pairs first = v_load_pairs(weight + k * OUTS);
        v_pairs second = v_load_pairs(weight + k * OUTS + 32);
        for (int64_t line = 0; line < pace; line++) _mm_prefetch(ahead + 64 * line, _MM_HINT_T1);
        ahead += 64 * pace;
#pragma GCC unroll 12
        for (int r = 0; r < count; r++) {
            v_pairs both = pair_of(x + r * in + k);
            low[r] = v_dot(low[r], both, first);
            high[r] = v_dot(high[r], both, second);
        }
    }
    for (int r = 0; r < count; r++) store(w, f, row + r, block, low[r], high[r]);
}

/* The tile of so many rows, each count with code of its own. */
static void multiply(finishing *at, int64_t row, int64_t block, const char *ahead, int64_t pace,
                     int64_t count) {
    const linear *w = at->w;
    const flow *f = at->f;
#define CASE(n) \
    case n: tile(w, f, row, block, ahead, pace, n); break;
    switch (count) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
    }
#undef CASE
}

static void finish(finishing *at) { (void)at; }
static const char *ready(const linear *w, const flow *f) { return (void)w, (void)f, NULL; }
void step_begin(void) {}
void step_end(void) {}
#endif

static void tiles(finishing *at, const segment *s, int64_t block, const char *ahead, int64_t pace) {
    int64_t row = s->row, left = s->count, lines = OUTS * at->w->in / 32;
    for (int64_t count; left > 0; ) {
        count = tile_count(left);
        multiply(at, row, block, ahead, pace, count);
        row += count, left -= count, ahead += 64 * (lines * pace / FETCHED);
    }
}

/* Computes blocks of outputs until all are taken, for all rows. */
void step_product(const linear *w, const flow *f, claim *c) {
    int64_t blocks = w->outs / OUTS, bytes = OUTS * w->in * (int64_t)sizeof(bf16);
    int64_t turns = 0;
    for (int64_t i = 0; i < f->segment_count; i++) {
        const segment *s = f->segments + i;
        if (s->small && w->bits == 4)
            for (int64_t r = s->row; r < s->row + s->count; r++)
                step_sums(f->x + r * w->in, w->in, f->sums + r * (w->in / 32));
        turns += (s->count + TILE - 1) / TILE;
    }
    int64_t pace = turns > FETCHED ? 1 : turns > 0 ? FETCHED / turns : FETCHED;
    finishing at = {.w = w, .f = f, .strip = ready(w, f)};
    for (int64_t block = next_of(c); block < blocks;) {
        int64_t next = next_of(c);
        const char *ahead = (const char *)w->weight + (next < blocks ? next : block) * bytes;
        for (int64_t i = 0; i < f->segment_count; i++) {
            const segment *s = f->segments + i;
            if (s->small && w->codes != NULL)
                step_small_tile(w, f, s->row, s->count, block);
            else
                tiles(&at, s, block, ahead, pace);
        }
        block = next;
    }
    finish(&at);
}

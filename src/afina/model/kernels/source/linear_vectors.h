/* Products of strips and panels by VDPBF16PS: tiles of 12 rows in registers. */
#ifndef AFINA_LINEAR_VECTORS_H
#define AFINA_LINEAR_VECTORS_H
#include "linear.h"

#define PANEL_ROOM (320 << 10)
#define BLOCK TALL
typedef struct { const product *p; } strips;

#define matrix_begin()
#define matrix_end()
INLINE int64_t strip_size(const product *p) { return (void)p, 0; }
INLINE int64_t room_of(int64_t numbers) { return numbers; }
INLINE void finish_strips(strips *s) { (void)s; }
INLINE void pack_strip(char *out, const product *p, int64_t m, int64_t to) {
    (void)out, (void)p, (void)m, (void)to; /* rows are read where they lie */
}

#define ONE_TILE(R, V)                                                                            \
    static void product_##R##_##V(const product *p, const bf16 *packed, int64_t m, int64_t n) {   \
        v_wide sum[R][V], scale = v_all(p->scale);                                       \
        const char *w = (const char *)packed;                                                     \
        EACH_ROW(R) EACH_SIDE(V) sum[r][v] = v_zero();                                 \
        if (p->rank)                                                                              \
            tile_##R##_##V(rows_of(p->low, p->low_row, m), w + p->in * 64, 128, p->rank / 2,      \
                           sum);                                                                  \
        else                                                                                      \
            tile_##R##_##V(rows_of(p->x, p->x_row, m), w, 128, p->in / 2, sum);                   \
        if (p->scale != 1.0f)                                                                     \
            EACH_ROW(R) EACH_SIDE(V) sum[r][v] = v_mul(sum[r][v], scale);                 \
        if (p->rank) tile_##R##_##V(rows_of(p->x, p->x_row, m), w, 128, p->in / 2, sum);          \
        EACH_SIDE(V) {                                                                            \
            int64_t column = column_of(p, n, v);                                                  \
            v_mask some = p->inner ? 0xffff : lanes(p->outs - column);                         \
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

static void multiply_strip(strips *s, const bf16 *packed, const char *x, int64_t m, int64_t to,
                           int64_t n, int64_t i, int64_t count) {
    const product *p = s->p;
    (void)x, (void)i, (void)count;
    if (p->outs - n > LANES) {
#define WIDE_ONE(R, at) product_##R##_2(p, packed, at, n)
        BY_TILES(m, to, WIDE_ONE)
    } else {
#define SLIM_ONE(R, at) product_##R##_1(p, packed, at, n)
        BY_TILES(m, to, SLIM_ONE)
    }
}

/* Products too deep for a cache (see linear.c): twelve rows of a part stay in the first cache, three
   panels of it in the second. Sums go on where they were: their bits are those of one pass. */
#define DEEP 8192
#define PART 1536
#define LOW_FIRST 1
INLINE int64_t deep_strip_size(int64_t part) { return (void)part, 0; }

#define DEEP_TILE(R)                                                                              \
    static void add_##R(strip x, const bf16 *packed, int64_t steps, float *at, int64_t row,       \
                        int more, float scale) {                                                  \
        v_wide sum[R][2];                                                                         \
        EACH_ROW(R) EACH_SIDE(2) sum[r][v] = more ? v_load(at + r * row + v * LANES)      \
                                                  : v_zero();                          \
        tile_##R##_2(x, (const char *)packed, 128, steps, sum);                                   \
        EACH_ROW(R) EACH_SIDE(2) v_store(                                                 \
            at + r * row + v * LANES, v_mul(sum[r][v], v_all(scale)));           \
    }
DEEP_TILE(12) DEEP_TILE(8) DEEP_TILE(4) DEEP_TILE(2) DEEP_TILE(1)

static void add_block(const product *p, char *strip_room, const bf16 *packed, float *sums,
                      int64_t m, int64_t rows, int64_t count, deep_part at) {
    const bf16 *x = at.low ? p->low : p->x + at.k;
    int64_t x_row = at.low ? p->low_row : p->x_row, row = count * WIDE;
    float scale = at.low ? p->scale : 1.0f;
    (void)strip_room;
    for (int64_t i = 0; i < count; i++) {
        const bf16 *panel = packed + i * at.length * WIDE;
#define DEEP_ONE(R, from)                                                                         \
    add_##R(rows_of(x, x_row, m + (from)), panel, at.length / 2, sums + (from) * row + i * WIDE,  \
            row, at.more, scale)
        BY_TILES(0, rows, DEEP_ONE)
    }
}
#endif

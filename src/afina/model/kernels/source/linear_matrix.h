/* Products of strips and panels by matrix.h. What the sums of a block are for is done while the next
   one is multiplied: matrix tiles and vectors are two units of a processor and work beside each other. */
#ifndef AFINA_LINEAR_MATRIX_H
#define AFINA_LINEAR_MATRIX_H
#include "linear.h"

#define PANEL_ROOM (1 << 20)
#define BLOCK MATRIX_ROWS

/* A block whose rows are being finished, and room for the sums of that one and the next. */
typedef struct {
    const product *p;
    int64_t m, n, row, rows, turn;
    float sums[2][BLOCK * WIDE] __attribute__((aligned(64)));
} strips;

/* Numbers are summed 32 at a time, with zeros behind the last. */
INLINE int64_t room_of(int64_t numbers) { return (numbers + 31) & ~(int64_t)31; }
INLINE int64_t strip_size(const product *p) {
    return matrix_strip_size(p->in) + matrix_strip_size(p->rank);
}

/* The low-rank side carries the scale, so that one sum takes both terms. */
static void pack_low_side(char *out, const product *p, int64_t m, int64_t to, int64_t from,
                          int64_t all) {
    matrix_pack(out, p->low + m * p->low_row, p->low_row, to - m, p->rank, p->scale, from, all);
}
static void pack_strip(char *out, const product *p, int64_t m, int64_t to) {
    int64_t in = room_of(p->in), all = in + room_of(p->rank);
    matrix_pack(out, p->x + m * p->x_row, p->x_row, to - m, p->in, 1.0f, 0, all);
    if (p->rank) pack_low_side(out, p, m, to, in, all);
}
INLINE void finish_two(void *given) {
    strips *s = given;
    for (int r = 0; r < 2 && s->row < s->rows; r++, s->row++)
        finish_row(s->p, s->sums[s->turn] + s->row * WIDE, s->m + s->row, s->n);
}
static void finish_strips(strips *s) {
    while (s->row < s->rows) finish_two(s);
}
/* Of the rows behind these, the i-th part of `count` is fetched meanwhile. */
static void multiply_strip(strips *s, const bf16 *packed, const char *x, int64_t m, int64_t to,
                           int64_t n, int64_t i, int64_t count) {
    const product *p = s->p;
    int64_t steps = (room_of(p->in) + room_of(p->rank)) / 2, pace = (BLOCK + count - 1) / count;
    const char *next = (const char *)(p->x + to * p->x_row) + 64 * pace * (p->in / 32) * i;
    int fetch = to < p->rows && p->x_row == p->in;
    matrix_fetch ahead = {fetch ? next : NULL, pace};
    matrix_multiply_strip(s->sums[1 - s->turn], 4 * WIDE, x, (const char *)packed, steps, to - m, 0,
                          &ahead, finish_two, s);
    finish_strips(s);
    s->turn = 1 - s->turn;
    s->m = m, s->n = n, s->row = 0, s->rows = to - m;
}

/* Products too deep for a cache: see linear.c. */
#define DEEP 4096
#define PART 1024
#define LOW_FIRST 0
#define deep_strip_size(part) matrix_strip_size(part)

static void add_block(const product *p, char *strip_room, const bf16 *packed, float *sums,
                      int64_t m, int64_t rows, int64_t count, deep_part at) {
    int64_t steps = room_of(at.length) / 2;
    if (at.low)
        pack_low_side(strip_room, p, m, m + rows, 0, 2 * steps);
    else
        matrix_pack(strip_room, p->x + m * p->x_row + at.k, p->x_row, rows, at.length, 1.0f, 0,
                    2 * steps);
    for (int64_t i = 0; i < count; i++) {
        matrix_fetch none = {NULL, 0};
        matrix_multiply_strip(sums + i * WIDE, 4 * count * WIDE, strip_room,
                              (const char *)(packed + i * 2 * steps * WIDE), steps, rows, at.more,
                              &none, matrix_nothing, NULL);
    }
}
#endif

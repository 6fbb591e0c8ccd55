/* Products in the processor's matrix tiles (AMX: Intel 64 manual, volume 1, chapter 18), where it
   has them: 16 rows by 16 columns by 32 summed numbers at once, some thirty times what VDPBF16PS
   does on the same core. The right side lies as it does for that instruction, [step][32][2].

   A sum runs from the first step to the last, 16 steps at a time: in each the even and the odd
   numbers are summed apart. It depends on its own row and column alone, whatever rows stand beside
   it. Compiled with AFINA_TILES=1; AFINA_TILES=2 computes the same without such a processor, for
   tests. */
#ifndef AFINA_MATRIX_TILES_H
#define AFINA_MATRIX_TILES_H

#define MATRIX_ROWS 32  /* of a block: two tiles by two */
#define MATRIX_STEPS 16 /* pairs of numbers that a tile sums */

typedef struct {
    uint8_t palette, start, none[14];
    uint16_t width[16]; /* bytes of a row */
    uint8_t rows[16];
} matrix_shape;

#if AFINA_TILES == 1
#define matrix_load_shape(shape) _tile_loadconfig(shape)
#define matrix_keep_shape(shape) _tile_storeconfig(shape)
#define matrix_leave() _tile_release()
#define matrix_zero(t) _tile_zero(t)
#define matrix_load(t, at, row) _tile_loadd(t, at, row)
#define matrix_store(t, at, row) _tile_stored(t, at, row)
#define matrix_add(sum, left, right) _tile_dpbf16ps(sum, left, right)
#else
#include "matrix_slow.h"
#endif

/* Some compilers do not know what a tile reads in memory: by here it has been written. */
#define matrix_written() __asm__ volatile("" ::: "memory")

/* Tiles 0 to 3 are sums (two by two), 4 and 5 the left side, 6 and 7 the right one. One a thread, for
   all kernels (matrix.c). */
typedef struct {
    matrix_shape before;
    int64_t rows;
} matrix_state;
extern __thread matrix_state matrix_now __attribute__((visibility("hidden")));

/* Each thread begins and ends a kernel's use of tiles; what others had there stays theirs. */
MATRIX_INLINE void matrix_begin(void) {
    matrix_keep_shape(&matrix_now.before);
    matrix_written();
    matrix_now.rows = 0;
}
MATRIX_INLINE void matrix_end(void) {
    if (matrix_now.before.palette)
        matrix_load_shape(&matrix_now.before);
    else
        matrix_leave();
}
void matrix_set(int64_t rows); /* how many rows left sides and sums have: 1 to 32 */

/* Adds 16 steps. `high` is whether there are more than 16 rows, `wide` whether there are 32 columns
   and not 16: constants where it is called. */
MATRIX_INLINE void matrix_step(const char *left, int64_t left_row, const char *right,
                               int64_t right_step, const int high, const int wide) {
    matrix_load(4, left, left_row);
    matrix_load(6, right, right_step);
    if (wide) matrix_load(7, right + 64, right_step);
    matrix_add(0, 4, 6);
    if (wide) matrix_add(1, 4, 7);
    if (high) {
        matrix_load(5, left + 16 * left_row, left_row);
        matrix_add(2, 5, 6);
        if (wide) matrix_add(3, 5, 7);
    }
}
/* The last steps where there are fewer than 16: zeros stand in for the others. */
MATRIX_INLINE void matrix_pad(char *left, char *right, const matrix_sides *s, int64_t rows,
                              int64_t from, const int wide) {
    int64_t steps = s->steps - from;
    const char *begin = s->left + from / MATRIX_STEPS * s->left_step;
    v_mask some = (v_mask)((1u << steps) - 1);
    for (int64_t r = 0; r < rows; r++)
        v_store_bits(left + 64 * r,
                           v_load_words(some, begin + r * s->left_row));
    for (int64_t k = 0; k < MATRIX_STEPS; k++)
        for (int side = 0; side < 64 + 64 * wide; side += 64)
            v_store_bits(right + 128 * k + side,
                               k < steps ? v_load_bits(s->right + (from + k) * s->right_step +
                                                              side)
                                         : v_no_bits());
}
MATRIX_INLINE void matrix_steps(const matrix_sides *s, int64_t rows, const int high,
                                const int wide, matrix_meanwhile meanwhile, void *given) {
    const char *left = s->left, *right = s->right, *ahead = s->fetch.ahead;
    int64_t k = 0;
    for (; k + MATRIX_STEPS <= s->steps; k += MATRIX_STEPS) {
        if (ahead) {
            for (int64_t line = 0; line < s->fetch.pace; line++)
                _mm_prefetch(ahead + 64 * line, _MM_HINT_T1);
            ahead += 64 * s->fetch.pace;
        }
        matrix_step(left, s->left_row, right, s->right_step, high, wide);
        meanwhile(given);
        left += s->left_step;
        right += MATRIX_STEPS * s->right_step;
    }
    if (k == s->steps) return;
    char rest[(MATRIX_ROWS + 2 * MATRIX_STEPS) * 64] __attribute__((aligned(64)));
    matrix_pad(rest, rest + 64 * MATRIX_ROWS, s, rows, k, wide);
    matrix_written();
    matrix_step(rest, 64, rest + 64 * MATRIX_ROWS, 128, high, wide);
}
/* See matrix.h. A scale that is no power of two rounds the numbers once more. */
#define MATRIX_LINE 64
#define MATRIX_STRIDE (MATRIX_ROWS * MATRIX_LINE)
#define matrix_strip_size(in) (((in) + 31) / 32 * MATRIX_STRIDE)
static __attribute__((unused)) void matrix_pack(char *out, const bf16 *x, int64_t row, int64_t rows,
                                                int64_t in, float scale, int64_t from, int64_t all) {
    (void)all;
    out += from / 32 * MATRIX_STRIDE;
    for (int64_t k = 0; k < in; k += 32, out += MATRIX_STRIDE) {
        int64_t words = (in - k) / 2;
        v_mask some = words >= 16 ? 0xffff : (v_mask)((1u << words) - 1);
        for (int64_t r = 0; r < rows; r++) {
            char *at = out + r * MATRIX_LINE;
            v_store_bits(at, v_load_words(some, x + r * row + k));
            for (char *half = at; scale != 1.0f && half <= at + 32; half += 32)
                v_store_half(half, v_narrowed(v_mul(v_widened(v_load_half(half)), v_all(scale))));
        }
    }
}
/* sum[rows][32] = or += left x right in fp32, up to 32 rows, or sum[rows][16]; a row of sums takes
   `row` bytes. */
MATRIX_INLINE void matrix_multiply(float *sum, int64_t row, const matrix_sides *s, int64_t rows,
                                   int more, const int wide, matrix_meanwhile meanwhile,
                                   void *given) {
    const int high = rows > 16;
    char *at = (char *)sum, *below = at + 16 * row;
    if (rows != matrix_now.rows) matrix_set(rows);
    matrix_written();
    if (more) {
        matrix_load(0, at, row);
        if (wide) matrix_load(1, at + 64, row);
        if (high) matrix_load(2, below, row);
        if (high && wide) matrix_load(3, below + 64, row);
    } else {
        matrix_zero(0);
        matrix_zero(1);
        matrix_zero(2);
        matrix_zero(3);
    }
    if (high)
        matrix_steps(s, rows, 1, wide, meanwhile, given);
    else
        matrix_steps(s, rows, 0, wide, meanwhile, given);
    matrix_store(0, at, row);
    if (wide) matrix_store(1, at + 64, row);
    if (high) matrix_store(2, below, row);
    if (high && wide) matrix_store(3, below + 64, row);
    matrix_written();
}
/* Packed strips lie as other left sides do. */
MATRIX_INLINE void matrix_multiply_strip(float *sum, int64_t row, const char *left,
                                         const char *right, int64_t steps, int64_t rows, int more,
                                         const matrix_fetch *fetch, matrix_meanwhile meanwhile,
                                         void *given) {
    matrix_sides s = {left, MATRIX_LINE, MATRIX_STRIDE, right, 128, steps, *fetch};
    matrix_multiply(sum, row, &s, rows, more, 1, meanwhile, given);
}
#endif

/* Products in the processor's matrix tiles (AMX: Intel 64 manual, volume 1, chapter 18), where it
   has them: 16 rows by 16 columns by 32 summed numbers at once, some thirty times what VDPBF16PS
   does on the same core. The right side lies as it does for that instruction, [step][32][2].

   A sum runs from the first step to the last, 16 steps at a time: in each the even and the odd
   numbers are summed apart. It depends on its own row and column alone, whatever rows stand beside
   it. Compiled with AFINA_TILES=1; AFINA_TILES=2 computes the same without such a processor, for
   tests; without either, AFINA_MATRIX is 0 and nothing here exists. */
#ifndef AFINA_MATRIX_H
#define AFINA_MATRIX_H
#include "common.h"

#ifndef AFINA_TILES
#define AFINA_MATRIX 0
#else
#define AFINA_MATRIX 1
#define MATRIX_INLINE static inline __attribute__((always_inline))

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

typedef struct {
    const char *left; /* [rows][2 steps], each row at + row * left_row (bytes) */
    int64_t left_row;
    int64_t left_step; /* bytes from 16 steps to the next: 64 where a row lies in one piece */
    const char *right; /* [steps][32][2], each step at + step * right_step (bytes) */
    int64_t right_step, steps;
    const char *ahead; /* or NULL: fetched meanwhile, `pace` lines of 64 bytes each 16 steps */
    int64_t pace;
} matrix_sides;

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
    __mmask16 some = (__mmask16)((1u << steps) - 1);
    for (int64_t r = 0; r < rows; r++)
        _mm512_store_si512(left + 64 * r,
                           _mm512_maskz_loadu_epi32(some, begin + r * s->left_row));
    for (int64_t k = 0; k < MATRIX_STEPS; k++)
        for (int side = 0; side < 64 + 64 * wide; side += 64)
            _mm512_store_si512(right + 128 * k + side,
                               k < steps ? _mm512_loadu_si512(s->right + (from + k) * s->right_step +
                                                              side)
                                         : _mm512_setzero_si512());
}
/* What is done between the steps: vectors' work, while tiles multiply. */
typedef void (*matrix_meanwhile)(void *given);
MATRIX_INLINE void matrix_nothing(void *given) { (void)given; }

MATRIX_INLINE void matrix_steps(const matrix_sides *s, int64_t rows, const int high,
                                const int wide, matrix_meanwhile meanwhile, void *given) {
    const char *left = s->left, *right = s->right, *ahead = s->ahead;
    int64_t k = 0;
    for (; k + MATRIX_STEPS <= s->steps; k += MATRIX_STEPS) {
        if (ahead) {
            for (int64_t line = 0; line < s->pace; line++)
                _mm_prefetch(ahead + 64 * line, _MM_HINT_T1);
            ahead += 64 * s->pace;
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
/* Rows of bf16 numbers as left sides that are read from one end to the other: 16 steps of all rows
   behind one another, MATRIX_ROWS of them whether there are so many or not, with zeros behind the
   last number. What is read of each is `in` numbers, an even number. */
#define MATRIX_LINE 64
#define MATRIX_STRIDE (MATRIX_ROWS * MATRIX_LINE)
#define matrix_strip_size(in) (((in) + 31) / 32 * MATRIX_STRIDE) /* bytes */
static __attribute__((unused)) void matrix_pack(char *out, const bf16 *x, int64_t row, int64_t rows,
                                                int64_t in) {
    for (int64_t k = 0; k < in; k += 32) {
        int64_t words = (in - k) / 2;
        __mmask16 some = words >= 16 ? 0xffff : (__mmask16)((1u << words) - 1);
        for (int64_t r = 0; r < rows; r++)
            _mm512_store_si512(out + r * MATRIX_LINE,
                               _mm512_maskz_loadu_epi32(some, x + r * row + k));
        out += MATRIX_STRIDE;
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
static __attribute__((unused)) void matrix_product(float *sum, int64_t row, const matrix_sides *s,
                                                   int64_t rows, int more) {
    matrix_multiply(sum, row, s, rows, more, 1, matrix_nothing, NULL);
}
#endif
#endif

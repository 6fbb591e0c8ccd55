/* Products of blocks of rows by panels of 32 columns, where a processor has better means for them
   than VDPBF16PS and its vectors of registers: matrix tiles (matrix_tiles.h), or, where
   that is missing or slow, FMA (matrix_fma.h). Elsewhere AFINA_MATRIX is 0 and nothing here exists.

   MATRIX_ROWS            rows of a block, at most
   matrix_begin, _end     what each thread does before and after
   matrix_multiply        sum[rows][32] = or += left x right, or sum[rows][16]; sums are fp32, and a
                          row of them takes `row` bytes
   matrix_strip_size(in)  bytes of a left side that will meet many panels, as a strip of its own
   matrix_pack            fills it from place `from` on (a multiple of 32, of `all`): `in` (even)
                          numbers of each row times a scale, and zeros up to the next multiple of 32
   matrix_multiply_strip  the same for a strip

   A sum depends on its own row and column alone, whatever rows stand beside it. */
#ifndef AFINA_MATRIX_H
#define AFINA_MATRIX_H
#include "common.h"

#if defined(AFINA_TILES) || defined(AFINA_FMA)
#define AFINA_MATRIX 1
#define MATRIX_INLINE static inline __attribute__((always_inline))

/* What is fetched meanwhile: `pace` lines of 64 bytes each 16 steps, or nothing where it is NULL. */
typedef struct {
    const char *ahead;
    int64_t pace;
} matrix_fetch;

typedef struct {
    const char *left; /* [rows][2 steps], each row at + row * left_row (bytes) */
    int64_t left_row;
    int64_t left_step; /* bytes from 16 steps to the next: 64 where a row lies in one piece */
    const char *right; /* [steps][32][2], each step at + step * right_step (bytes) */
    int64_t right_step, steps;
    matrix_fetch fetch;
} matrix_sides;

/* What is done between the steps: vectors' work, while tiles multiply. */
typedef void (*matrix_meanwhile)(void *given);
MATRIX_INLINE void matrix_nothing(void *given) { (void)given; }


#ifdef AFINA_TILES
#include "matrix_tiles.h"
#else
#include "matrix_fma.h"
#endif

static __attribute__((unused)) void matrix_product(float *sum, int64_t row, const matrix_sides *s,
                                                   int64_t rows, int more) {
    matrix_multiply(sum, row, s, rows, more, 1, matrix_nothing, NULL);
}
#else
#define AFINA_MATRIX 0
#endif
#endif

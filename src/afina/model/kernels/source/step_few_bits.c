/* Rows times weights in 4 or 8 bits. A step of few rows waits for weights to be read; here it reads
   a third or a half of them. The products are those of the codes; what a group of inputs is scaled by
   is multiplied in fp32 afterwards:

   4 bits: w = scale q + low for groups of 32 inputs; the second term needs only the sum of a
           group's inputs. Codes [outs / 32][in / 4][16][2] words: nibbles are the outputs o and
           16 + o of one pair of inputs, then of the next. Scales in fp16, [outs / 32][in / 32]
           [scale, low][32].
   8 bits: w = scale (q - 128), a scale an output. Codes [outs / 32][in / 2][16][2] words: the bytes
           are the outputs o and 16 + o. Scales in fp32, [outs].

   few_bits_vectors.h and few_bits_fma.h have a tile of up to TILE rows: tile_4 and tile_8. */
#include "step.h"

#define inlined static inline __attribute__((always_inline))
#define GROUP 32
/* The sum of each group of a row's inputs. */
void step_sums(const bf16 *x, int64_t in, float *sums) {
    const v_pairs ones = v_as_pairs(v_all_numbers(0x3F80));
    for (int64_t k = 0; k < in; k += GROUP) {
        v_pairs inputs = v_load_pairs(x + k);
        *sums++ = v_sum(v_dot(v_zero(), inputs, ones));
    }
}

inlined v_wide halves(const uint16_t *from) {
    return v_from_fp16(v_load_half(from));
}

#ifdef AFINA_FMA
#include "few_bits_fma.h"
#else
#include "few_bits_vectors.h"
#endif

/* Rows `row` to `row + count` of a block of outputs. */
void step_small_tile(const linear *w, const flow *f, int64_t row, int64_t count, int64_t block) {
    for (int64_t left = count; left > 0; row += TILE, left -= TILE) {
        int64_t now = left < TILE ? left : TILE;
#define CASE(n) \
    case n: \
        if (w->bits == 4) tile_4(w, f, row, block, n); \
        else tile_8(w, f, row, block, n); \
        break;
        switch (now) {
            CASE(1) CASE(2)
#if TILE > 2
            CASE(3) CASE(4)
#endif
        }
#undef CASE
    }
}

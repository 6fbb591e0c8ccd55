/* Sixteen numbers at a time: the words that all kernels are written in, and two ways to say them.

   v_wide   16 numbers in fp32
   v_half   16 numbers of 16 bits
   v_bits   32 numbers of 16 bits, or 16 words of 32
   v_pairs  32 numbers in bf16, two by two, as v_dot takes them
   v_mask   a bit for each of 16 numbers

   What reads or writes some numbers takes the mask of the first few and touches no memory behind
   them; what is not read is 0. Both ways round a number to bf16 to the nearest, of two to the even
   one. Sums run in other orders in each, so their bits differ; within one they depend on nothing
   but the numbers. */
#ifndef AFINA_VECTOR_H
#define AFINA_VECTOR_H
#include <immintrin.h>

#define V_INLINE static inline __attribute__((always_inline))
typedef __mmask16 v_mask;
typedef __mmask32 v_mask32;

#if defined(AFINA_HALVES) || defined(AFINA_WIDE)
#define AFINA_FMA 1 /* numbers in bf16 are multiplied as fp32 */
#endif
#ifdef AFINA_HALVES
#include "vector_256.h"
#else
#include "vector_512.h"
#endif

/* Two neighbouring numbers in all places. */
V_INLINE v_pairs v_pair(const void *from) {
    int32_t pair;
    memcpy(&pair, from, sizeof pair);
    return v_as_pairs(v_all_words(pair));
}
#endif

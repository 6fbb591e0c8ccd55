/* vector.h for processors with AVX-512 (Intel 64 manual, volume 2). Two numbers in bf16 are multiplied
   by VDPBF16PS, or, with AFINA_WIDE, as fp32 by FMA: for processors that have no such instruction,
   or a slow one. */
#ifndef AFINA_VECTOR_512_H
#define AFINA_VECTOR_512_H

typedef __m512 v_wide;
typedef __m256i v_half;
typedef __m512i v_bits;
#ifdef AFINA_WIDE
typedef __m512i v_pairs;
#else
typedef __m512bh v_pairs;
#endif

/* Arithmetic of numbers in fp32 */
#define v_all _mm512_set1_ps
#define v_zero _mm512_setzero_ps
#define v_add _mm512_add_ps
#define v_sub _mm512_sub_ps
#define v_mul _mm512_mul_ps
#define v_div _mm512_div_ps
#define v_fma _mm512_fmadd_ps   /* a b + c */
#define v_fnma _mm512_fnmadd_ps /* c - a b */
#define v_max _mm512_max_ps     /* the second of two where one is no number */
#define v_min _mm512_min_ps
#define v_abs _mm512_abs_ps
#define v_sqrt _mm512_sqrt_ps
#define v_round(x) _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define v_times_power _mm512_scalef_ps /* times two to the power of a whole number */
#define v_sum _mm512_reduce_add_ps
#define v_largest _mm512_reduce_max_ps
#define v_least _mm512_reduce_min_ps

/* Some of them */
#define v_where _mm512_maskz_mov_ps
#define v_choose(mask, x, other) _mm512_mask_mov_ps(other, mask, x)
#define v_add_where(mask, sum, x) _mm512_mask_add_ps(sum, mask, sum, x)
#define v_together _mm512_maskz_compress_ps
#define v_at_most(a, b) _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ)
#define v_at_least(a, b) _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ)
#define v_above(a, b) _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ)
#define v_below_words _mm512_cmplt_epi32_mask
#define v_equal_numbers _mm512_cmpeq_epi16_mask

/* Memory */
#define v_load _mm512_loadu_ps
#define v_store _mm512_storeu_ps
#define v_load_some _mm512_maskz_loadu_ps
#define v_store_some _mm512_mask_storeu_ps
#define v_load_bits(p) _mm512_loadu_si512(p)
#define v_load_pairs(p) ((v_pairs)_mm512_loadu_si512(p))
#define v_store_bits(p, x) _mm512_storeu_si512(p, x)
#define v_load_words _mm512_maskz_loadu_epi32
#define v_store_words(mask, p, x) _mm512_mask_storeu_epi32(p, mask, x)
#define v_load_numbers _mm512_maskz_loadu_epi16 /* by a mask of 32 */
#define v_load_half(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define v_store_half(p, x) _mm256_storeu_si256((__m256i *)(void *)(p), x)
#define v_load_half_some _mm256_maskz_loadu_epi16
#define v_store_half_some _mm256_mask_storeu_epi16

/* bf16 and fp32 */
V_INLINE v_wide v_widened(v_half x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
#ifdef AFINA_WIDE
/* To the nearest, and of two to the even one, in the low half of each word. */
V_INLINE __m512i v_rounded(__m512 x) {
    __m512i bits = _mm512_castps_si512(x), high = _mm512_srli_epi32(bits, 16);
    __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    /* what is no number stays none, and would not if its bits ran over */
    __m512i none = _mm512_or_si512(high, _mm512_set1_epi32(0x40));
    return _mm512_mask_mov_epi32(_mm512_srli_epi32(up, 16),
                                 _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), none);
}
#define v_narrowed(x) _mm512_cvtepi32_epi16(v_rounded(x))
V_INLINE v_bits v_narrowed_two(v_wide low, v_wide high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(v_narrowed(low)), v_narrowed(high), 1);
}
V_INLINE v_bits v_paired(v_wide even, v_wide odd) { /* rounded, neighbours one of each */
    return _mm512_or_si512(v_rounded(even), _mm512_slli_epi32(v_rounded(odd), 16));
}
V_INLINE v_wide v_even(v_pairs x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
V_INLINE v_wide v_odd(v_pairs x) {
    return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int)0xffff0000)));
}
/* sum + both products of each pair */
V_INLINE v_wide v_dot(v_wide sum, v_pairs x, v_pairs y) {
    return v_fma(v_odd(x), v_odd(y), v_fma(v_even(x), v_even(y), sum));
}
#else
#define v_dot _mm512_dpbf16_ps
#define v_narrowed(x) ((__m256i)_mm512_cvtneps_pbh(x))
#define v_narrowed_two(low, high) ((__m512i)_mm512_cvtne2ps_pbh(high, low))
V_INLINE v_bits v_paired(v_wide even, v_wide odd) {
    static const uint16_t order[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                       31};
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(order), v_narrowed_two(even, odd));
}
#endif
#define v_from_fp16 _mm512_cvtph_ps
/* Bits */
#define v_from_words _mm512_cvtepi32_ps
#define v_words_right _mm512_srli_epi32 /* zeros come in */
#define v_words_left _mm512_slli_epi32
#define v_words_right_signed _mm512_srai_epi32
#define v_all_words _mm512_set1_epi32
#define v_all_numbers _mm512_set1_epi16
#define v_no_bits _mm512_setzero_si512
#define v_no_half _mm256_setzero_si256
#define v_and _mm512_and_si512
#define v_xor _mm512_xor_si512
#define v_right _mm512_srli_epi16  /* of numbers, zeros come in */
#define v_signs(x) _mm512_srai_epi16(x, 15)
#define v_max_numbers _mm512_max_epi16
V_INLINE v_bits v_without(v_bits x, v_bits what) { /* 0 where numbers are equal */
    return _mm512_maskz_mov_epi16(_mm512_cmpneq_epi16_mask(x, what), x);
}
#define v_as_wide _mm512_castsi512_ps
#define v_as_bits _mm512_castps_si512
#define v_as_pairs(x) ((v_pairs)(x))
#define v_extended _mm512_zextsi256_si512
#define v_twice _mm512_broadcast_i64x4
V_INLINE v_bits v_joined(v_half even, v_half odd) { /* words of one number of each */
    return _mm512_or_si512(_mm512_cvtepu16_epi32(even),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}
/* Numbers by the low four bits of each, from a table that stands there twice */
#define v_looked_up(table, x) ((v_pairs)_mm512_permutexvar_epi16(x, table))

/* Turning squares */
#define v_zip_words_low _mm512_unpacklo_epi32
#define v_zip_words_high _mm512_unpackhi_epi32
#define v_zip_two_low _mm512_unpacklo_epi64
#define v_zip_two_high _mm512_unpackhi_epi64
#define v_even_quarters(a, b) _mm512_shuffle_i32x4(a, b, 0x88)
#define v_odd_quarters(a, b) _mm512_shuffle_i32x4(a, b, 0xdd)
static const uint16_t v_weave_order[32] = {0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5,
                                           37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42,
                                           11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
V_INLINE v_bits v_woven_low(v_bits even, v_bits odd) { /* their first 16 numbers in turns */
    return _mm512_permutex2var_epi16(even, _mm512_loadu_si512(v_weave_order), odd);
}
V_INLINE v_bits v_woven_high(v_bits even, v_bits odd) { /* and their last 16 */
    v_bits order = _mm512_add_epi16(_mm512_loadu_si512(v_weave_order), _mm512_set1_epi16(16));
    return _mm512_permutex2var_epi16(even, order, odd);
}
#endif

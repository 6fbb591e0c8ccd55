/* vector.h for processors with AVX2, FMA and F16C: each of its vectors is two of theirs, and bf16
   numbers become fp32 where they are multiplied, which shifts or masks make of them. */
#ifndef AFINA_VECTOR_256_H
#define AFINA_VECTOR_256_H

typedef struct { __m256 a, b; } v_wide;
typedef __m256i v_half;
typedef struct { __m256i a, b; } v_bits;
typedef struct { __m256i a, b; } v_pairs;

#define V_BOTH(TYPE, name, one, two) ((TYPE){name(one.a, two.a), name(one.b, two.b)})
#define V_ONE(name, intrinsic) \
    V_INLINE v_wide name(v_wide x, v_wide y) { return V_BOTH(v_wide, intrinsic, x, y); }
#define V_BITS(name, intrinsic) \
    V_INLINE v_bits name(v_bits x, v_bits y) { return V_BOTH(v_bits, intrinsic, x, y); }

/* Arithmetic of numbers in fp32 */
V_INLINE v_wide v_all(float x) { return (v_wide){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
V_INLINE v_wide v_zero(void) { return (v_wide){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
V_ONE(v_add, _mm256_add_ps)
V_ONE(v_sub, _mm256_sub_ps)
V_ONE(v_mul, _mm256_mul_ps)
V_ONE(v_div, _mm256_div_ps)
V_ONE(v_max, _mm256_max_ps)
V_ONE(v_min, _mm256_min_ps)
V_INLINE v_wide v_fma(v_wide x, v_wide y, v_wide z) {
    return (v_wide){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
V_INLINE v_wide v_fnma(v_wide x, v_wide y, v_wide z) {
    return (v_wide){_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}
V_INLINE v_wide v_abs(v_wide x) {
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v_wide){_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
V_INLINE v_wide v_sqrt(v_wide x) { return (v_wide){_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
#define V_ROUND(x) _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
V_INLINE v_wide v_round(v_wide x) { return (v_wide){V_ROUND(x.a), V_ROUND(x.b)}; }

/* Times two to the power of a whole number, in two steps, as 2^-150 has no fp32 of its own. */
V_INLINE __m256 v_power(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
V_INLINE __m256 v_times_power_8(__m256 x, __m256 whole) {
    __m256i n = _mm256_cvtps_epi32(whole);
    n = _mm256_max_epi32(n, _mm256_set1_epi32(-252));
    n = _mm256_min_epi32(n, _mm256_set1_epi32(252));
    __m256i first = _mm256_srai_epi32(n, 1);
    return _mm256_mul_ps(_mm256_mul_ps(x, v_power(first)), v_power(_mm256_sub_epi32(n, first)));
}
V_INLINE v_wide v_times_power(v_wide x, v_wide whole) {
    return (v_wide){v_times_power_8(x.a, whole.a), v_times_power_8(x.b, whole.b)};
}

/* A sum over places, halves onto halves. */
#define V_FOLD(name, operation)                                                                  \
    V_INLINE float name(v_wide x) {                                                              \
        __m256 eight = _mm256_##operation##_ps(x.a, x.b);                                        \
        __m128 four = _mm_##operation##_ps(_mm256_castps256_ps128(eight),                        \
                                           _mm256_extractf128_ps(eight, 1));                     \
        four = _mm_##operation##_ps(four, _mm_movehl_ps(four, four));                            \
        return _mm_cvtss_f32(_mm_##operation##_ss(four, _mm_shuffle_ps(four, four, 1)));         \
    }
V_FOLD(v_sum, add)
V_FOLD(v_largest, max)
V_FOLD(v_least, min)

/* Some of them: masks are bits, and become vectors where they are used. */
V_INLINE __m256i v_spread(unsigned mask) { /* of eight places */
    __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)mask), bit), bit);
}
#define V_SPREAD(mask) _mm256_castsi256_ps(v_spread(mask))
V_INLINE v_wide v_choose(v_mask mask, v_wide x, v_wide other) {
    return (v_wide){_mm256_blendv_ps(other.a, x.a, V_SPREAD(mask & 255)),
                    _mm256_blendv_ps(other.b, x.b, V_SPREAD(mask >> 8))};
}
V_INLINE v_wide v_where(v_mask mask, v_wide x) {
    return (v_wide){_mm256_and_ps(x.a, V_SPREAD(mask & 255)),
                    _mm256_and_ps(x.b, V_SPREAD(mask >> 8))};
}
V_INLINE v_wide v_add_where(v_mask mask, v_wide sum, v_wide x) {
    return v_choose(mask, v_add(sum, x), sum);
}
#define V_COMPARE(name, how)                                                                     \
    V_INLINE v_mask name(v_wide x, v_wide y) {                                                   \
        return (v_mask)(_mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, how)) |                       \
                        _mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, how)) << 8);                  \
    }
V_COMPARE(v_at_most, _CMP_LE_OQ)
V_COMPARE(v_at_least, _CMP_GE_OQ)
V_COMPARE(v_above, _CMP_GT_OQ)
V_INLINE v_mask v_below_words(v_bits x, v_bits y) {
    __m256 a = _mm256_castsi256_ps(_mm256_cmpgt_epi32(y.a, x.a));
    __m256 b = _mm256_castsi256_ps(_mm256_cmpgt_epi32(y.b, x.b));
    return (v_mask)(_mm256_movemask_ps(a) | _mm256_movemask_ps(b) << 8);
}
V_INLINE v_mask32 v_equal_numbers(v_bits x, v_bits y) {
    __m256i bytes = _mm256_packs_epi16(_mm256_cmpeq_epi16(x.a, y.a), _mm256_cmpeq_epi16(x.b, y.b));
    return (v_mask32)_mm256_movemask_epi8(_mm256_permute4x64_epi64(bytes, 0xd8));
}

/* Memory. Most masks are full, and what is left of a row is rare. */
V_INLINE v_wide v_load(const void *p) {
    const float *at = p;
    return (v_wide){_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)};
}
V_INLINE void v_store(void *p, v_wide x) {
    float *at = p;
    _mm256_storeu_ps(at, x.a);
    _mm256_storeu_ps(at + 8, x.b);
}
V_INLINE v_bits v_load_bits(const void *p) {
    const __m256i *at = p;
    return (v_bits){_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}
V_INLINE v_pairs v_load_pairs(const void *p) {
    const __m256i *at = p;
    return (v_pairs){_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}
V_INLINE void v_store_bits(void *p, v_bits x) {
    __m256i *at = p;
    _mm256_storeu_si256(at, x.a);
    _mm256_storeu_si256(at + 1, x.b);
}
V_INLINE v_bits v_load_words(v_mask mask, const void *p) {
    const int *at = p;
    if (mask == 0xffff) return v_load_bits(p);
    return (v_bits){_mm256_maskload_epi32(at, v_spread(mask & 255)),
                    _mm256_maskload_epi32(at + 8, v_spread(mask >> 8))};
}
V_INLINE void v_store_words(v_mask mask, void *p, v_bits x) {
    int *at = p;
    _mm256_maskstore_epi32(at, v_spread(mask & 255), x.a);
    _mm256_maskstore_epi32(at + 8, v_spread(mask >> 8), x.b);
}
V_INLINE v_wide v_load_some(v_mask mask, const void *p) {
    v_bits found = v_load_words(mask, p);
    return (v_wide){_mm256_castsi256_ps(found.a), _mm256_castsi256_ps(found.b)};
}
V_INLINE void v_store_some(void *p, v_mask mask, v_wide x) {
    v_bits bits = {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)};
    if (mask == 0xffff)
        v_store(p, x);
    else
        v_store_words(mask, p, bits);
}
/* The first `count` of 16 or 32 numbers of 16 bits, with zeros behind them. */
static __attribute__((unused, noinline)) void v_copy(void *to, const void *from, int count) {
    for (int i = 0; i < count; i++) ((uint16_t *)to)[i] = ((const uint16_t *)from)[i];
}
V_INLINE v_bits v_load_numbers(v_mask32 mask, const void *p) {
    uint16_t kept[32] = {0};
    if (mask == 0xffffffffu) return v_load_bits(p);
    v_copy(kept, p, __builtin_popcount(mask));
    return v_load_bits(kept);
}
V_INLINE v_half v_load_half(const void *p) { return _mm256_loadu_si256(p); }
V_INLINE void v_store_half(void *p, v_half x) { _mm256_storeu_si256(p, x); }
V_INLINE v_half v_load_half_some(v_mask mask, const void *p) {
    uint16_t kept[16] = {0};
    if (mask == 0xffff) return v_load_half(p);
    v_copy(kept, p, __builtin_popcount(mask));
    return v_load_half(kept);
}
V_INLINE void v_store_half_some(void *p, v_mask mask, v_half x) {
    uint16_t kept[16];
    if (mask == 0xffff) {
        v_store_half(p, x);
        return;
    }
    v_store_half(kept, x);
    v_copy(p, kept, __builtin_popcount(mask));
}
/* Those in the mask, side by side, with zeros behind them. */
V_INLINE v_wide v_together(v_mask mask, v_wide x) {
    float from[16], to[16] = {0};
    int count = 0;
    v_store(from, x);
    for (unsigned left = mask; left; left &= left - 1) to[count++] = from[__builtin_ctz(left)];
    return v_load(to);
}

/* bf16 and fp32 */
V_INLINE __m256 v_widened_8(__m128i x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
V_INLINE v_wide v_widened(v_half x) {
    return (v_wide){v_widened_8(_mm256_castsi256_si128(x)),
                    v_widened_8(_mm256_extracti128_si256(x, 1))};
}
/* To the nearest, and of two to the even one, in the low half of each word. */
V_INLINE __m256i v_rounded(__m256 x) {
    __m256i bits = _mm256_castps_si256(x), high = _mm256_srli_epi32(bits, 16);
    __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    /* what is no number stays none, and would not if its bits ran over */
    __m256i none = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    __m256 is_none = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(_mm256_srli_epi32(up, 16)),
                                                _mm256_castsi256_ps(none), is_none));
}
V_INLINE v_half v_narrowed(v_wide x) {
    __m256i packed = _mm256_packus_epi32(v_rounded(x.a), v_rounded(x.b));
    return _mm256_permute4x64_epi64(packed, 0xd8);
}
V_INLINE v_bits v_narrowed_two(v_wide low, v_wide high) {
    return (v_bits){v_narrowed(low), v_narrowed(high)};
}
V_INLINE v_bits v_paired(v_wide even, v_wide odd) {
    return (v_bits){
        _mm256_or_si256(v_rounded(even.a), _mm256_slli_epi32(v_rounded(odd.a), 16)),
        _mm256_or_si256(v_rounded(even.b), _mm256_slli_epi32(v_rounded(odd.b), 16))};
}
V_INLINE v_wide v_from_fp16(v_half x) {
    return (v_wide){_mm256_cvtph_ps(_mm256_castsi256_si128(x)),
                    _mm256_cvtph_ps(_mm256_extracti128_si256(x, 1))};
}
V_INLINE __m256 v_even(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
V_INLINE __m256 v_odd(__m256i pairs) {
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000)));
}
V_INLINE v_wide v_dot(v_wide sum, v_pairs x, v_pairs y) {
    sum.a = _mm256_fmadd_ps(v_even(x.a), v_even(y.a), sum.a);
    sum.b = _mm256_fmadd_ps(v_even(x.b), v_even(y.b), sum.b);
    sum.a = _mm256_fmadd_ps(v_odd(x.a), v_odd(y.a), sum.a);
    sum.b = _mm256_fmadd_ps(v_odd(x.b), v_odd(y.b), sum.b);
    return sum;
}

/* Bits */
V_INLINE v_bits v_all_words(int x) { return (v_bits){_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
V_INLINE v_bits v_all_numbers(int x) {
    return (v_bits){_mm256_set1_epi16((short)x), _mm256_set1_epi16((short)x)};
}
V_INLINE v_wide v_from_words(v_bits x) {
    return (v_wide){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)};
}
#define V_SHIFT(name, intrinsic)                                                                 \
    V_INLINE v_bits name(v_bits x, int by) {                                                     \
        return (v_bits){intrinsic(x.a, by), intrinsic(x.b, by)};                                 \
    }
V_SHIFT(v_words_right, _mm256_srli_epi32)
V_SHIFT(v_words_left, _mm256_slli_epi32)
V_SHIFT(v_words_right_signed, _mm256_srai_epi32)
V_INLINE v_bits v_no_bits(void) {
    return (v_bits){_mm256_setzero_si256(), _mm256_setzero_si256()};
}
V_INLINE v_half v_no_half(void) { return _mm256_setzero_si256(); }
V_BITS(v_and, _mm256_and_si256)
V_BITS(v_xor, _mm256_xor_si256)
V_BITS(v_max_numbers, _mm256_max_epi16)
V_INLINE v_bits v_right(v_bits x, int by) {
    return (v_bits){_mm256_srli_epi16(x.a, by), _mm256_srli_epi16(x.b, by)};
}
V_INLINE v_bits v_signs(v_bits x) {
    return (v_bits){_mm256_srai_epi16(x.a, 15), _mm256_srai_epi16(x.b, 15)};
}
V_INLINE v_bits v_without(v_bits x, v_bits what) {
    return (v_bits){_mm256_andnot_si256(_mm256_cmpeq_epi16(x.a, what.a), x.a),
                    _mm256_andnot_si256(_mm256_cmpeq_epi16(x.b, what.b), x.b)};
}
V_INLINE v_wide v_as_wide(v_bits x) {
    return (v_wide){_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)};
}
V_INLINE v_bits v_as_bits(v_wide x) {
    return (v_bits){_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)};
}
V_INLINE v_pairs v_as_pairs(v_bits x) { return (v_pairs){x.a, x.b}; }
V_INLINE v_bits v_extended(v_half x) { return (v_bits){x, _mm256_setzero_si256()}; }
V_INLINE v_bits v_twice(v_half x) { return (v_bits){x, x}; }
V_INLINE v_bits v_joined(v_half even, v_half odd) {
    __m256i low = _mm256_unpacklo_epi16(even, odd), high = _mm256_unpackhi_epi16(even, odd);
    return (v_bits){_mm256_permute2x128_si256(low, high, 0x20),
                    _mm256_permute2x128_si256(low, high, 0x31)};
}
/* Bytes are looked up: those of the table's numbers apart, and only where a number's own byte is. */
V_INLINE __m256i v_looked_up_16(__m256i table, __m256i x) {
    __m256i bytes = _mm256_set1_epi16(0x00ff);
    __m256i both = _mm256_packus_epi16(_mm256_and_si256(table, bytes), _mm256_srli_epi16(table, 8));
    __m256i low = _mm256_permute4x64_epi64(both, 0x88), high = _mm256_permute4x64_epi64(both, 0xdd);
    __m256i place = _mm256_and_si256(x, _mm256_set1_epi16(15));
    __m256i nowhere = _mm256_set1_epi16((short)0x8000);
    __m256i of_low = _mm256_shuffle_epi8(low, _mm256_or_si256(place, nowhere));
    __m256i of_high = _mm256_shuffle_epi8(high, place);
    return _mm256_or_si256(of_low, _mm256_slli_epi16(of_high, 8));
}
V_INLINE v_pairs v_looked_up(v_bits table, v_bits x) {
    return (v_pairs){v_looked_up_16(table.a, x.a), v_looked_up_16(table.b, x.b)};
}

/* Turning squares */
V_BITS(v_zip_words_low, _mm256_unpacklo_epi32)
V_BITS(v_zip_words_high, _mm256_unpackhi_epi32)
V_BITS(v_zip_two_low, _mm256_unpacklo_epi64)
V_BITS(v_zip_two_high, _mm256_unpackhi_epi64)
V_INLINE v_bits v_even_quarters(v_bits x, v_bits y) {
    return (v_bits){_mm256_permute2x128_si256(x.a, x.b, 0x20),
                    _mm256_permute2x128_si256(y.a, y.b, 0x20)};
}
V_INLINE v_bits v_odd_quarters(v_bits x, v_bits y) {
    return (v_bits){_mm256_permute2x128_si256(x.a, x.b, 0x31),
                    _mm256_permute2x128_si256(y.a, y.b, 0x31)};
}
V_INLINE v_bits v_woven_low(v_bits even, v_bits odd) { return v_joined(even.a, odd.a); }
V_INLINE v_bits v_woven_high(v_bits even, v_bits odd) { return v_joined(even.b, odd.b); }
#endif

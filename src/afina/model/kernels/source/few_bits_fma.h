/* Tiles of step_few_bits.c without bf16 products. Codes become whole numbers and then fp32, where they
   stand in their words: what a nibble is too large by, a power of two, is taken from the input that
   it is multiplied with, so that no code is shifted. Each product is exact, as with bf16. */
#ifndef AFINA_FEW_BITS_FMA_H
#define AFINA_FEW_BITS_FMA_H

#ifdef AFINA_HALVES
#define TILE 2
#else
#define TILE 4
#endif
#define EACH_ROW _Pragma("GCC unroll 4") for (int r = 0; r < count; r++)

inlined v_wide code_at(v_bits words, int mask) {
    return v_from_words(v_and(words, v_all_words(mask)));
}

/* A group's inputs, eight numbers for four: of each nibble of an even and of an odd input the input
   over what the nibble is too large by. */
inlined void spread_group(float *out, const bf16 *x) {
    const __m256i order = _mm256_setr_epi32(0, 0, 2, 2, 1, 1, 3, 3);
    const __m256 over = _mm256_setr_ps(1.0f, 0x1p-4f, 0x1p-8f, 0x1p-12f, 1.0f, 0x1p-4f, 0x1p-8f,
                                       0x1p-12f);
    float wide[GROUP] __attribute__((aligned(64)));
    v_store(wide, widened(x));
    v_store(wide + 16, widened(x + 16));
    for (int k = 0; k < GROUP; k += 4) {
        __m256 four = _mm256_broadcast_ps((const __m128 *)(wide + k));
        _mm256_store_ps(out + 2 * k, _mm256_mul_ps(_mm256_permutevar8x32_ps(four, order), over));
    }
}
/* Sums of one group: sum[row][half of a block], each of 16 outputs: o and 16 + o. */
inlined void add_group(const float x[TILE][2 * GROUP], const uint16_t *codes,
                       v_wide sum[TILE][2], const int count) {
    EACH_ROW sum[r][0] = sum[r][1] = v_zero();
    for (int64_t k = 0; k < GROUP; k += 4) {
        v_bits even = v_load_bits(codes + k * 8), odd = v_words_right(even, 16);
#pragma GCC unroll 2
        for (int place = 0; place < 2; place++) {
            v_bits words = place ? odd : even;
#pragma GCC unroll 2
            for (int next = 0; next < 2; next++) {
                int mask = next ? 0xf00 : 0xf;
                v_wide low = code_at(words, mask), high = code_at(words, mask << 4);
                EACH_ROW {
                    const float *at = x[r] + 2 * k + 4 * place + 2 * next;
                    sum[r][0] = v_fma(low, v_all(at[0]), sum[r][0]);
                    sum[r][1] = v_fma(high, v_all(at[1]), sum[r][1]);
                }
            }
        }
    }
}

inlined void tile_4(const linear *w, const flow *f, int64_t row, int64_t block, const int count) {
    const uint16_t *codes = (const uint16_t *)w->codes + block * w->in * 8;
    const uint16_t *scales = (const uint16_t *)w->scales + block * w->in * 2;
    const float *sums = f->sums + row * (w->in / GROUP);
    float x[TILE][2 * GROUP] __attribute__((aligned(64)));
    v_wide done[TILE][2];
    EACH_ROW done[r][0] = done[r][1] = v_zero();
    for (int64_t g = 0; g < w->in / GROUP; g++) {
        v_wide sum[TILE][2];
        EACH_ROW spread_group(x[r], f->x + (row + r) * w->in + g * GROUP);
        add_group(x, codes + g * GROUP * 8, sum, count);
        for (int half = 0; half < 2; half++) {
            v_wide scale = halves(scales + g * GROUP * 2 + 16 * half);
            v_wide least = halves(scales + g * GROUP * 2 + 32 + 16 * half);
            EACH_ROW {
                v_wide all = v_all(sums[r * (w->in / GROUP) + g]);
                done[r][half] = v_fma(sum[r][half], scale, done[r][half]);
                done[r][half] = v_fma(all, least, done[r][half]);
            }
        }
    }
    EACH_ROW step_store(w, f, row + r, block, done[r][0], done[r][1]);
}

/* A byte of each word, less 128: their highest bits are turned before. */
inlined v_wide byte_at(v_bits words, const int byte) {
    return v_from_words(v_words_right_signed(v_words_left(words, 24 - 8 * byte), 24));
}
inlined void tile_8(const linear *w, const flow *f, int64_t row, int64_t block, const int count) {
    const uint16_t *codes = (const uint16_t *)w->codes + block * w->in * 16;
    const float *scales = (const float *)w->scales + block * OUTS;
    const v_bits turn = v_all_words((int)0x80808080);
    v_wide sum[TILE][2];
    EACH_ROW sum[r][0] = sum[r][1] = v_zero();
    for (int64_t k = 0; k < w->in; k += 2) {
        v_bits words = v_xor(v_load_bits(codes + k * 16), turn);
#pragma GCC unroll 2
        for (int place = 0; place < 2; place++) {
            v_wide low = byte_at(words, 2 * place), high = byte_at(words, 2 * place + 1);
            EACH_ROW {
                uint32_t bits = (uint32_t)f->x[(row + r) * w->in + k + place] << 16;
                v_wide x = v_as_wide(v_all_words((int)bits));
                sum[r][0] = v_fma(low, x, sum[r][0]);
                sum[r][1] = v_fma(high, x, sum[r][1]);
            }
        }
    }
    EACH_ROW step_store(w, f, row + r, block, v_mul(sum[r][0], v_load(scales)),
                        v_mul(sum[r][1], v_load(scales + 16)));
}
#undef EACH_ROW
#endif

/* Rows times weights in 4 or 8 bits. A step of few rows waits for weights to be read; here it reads
   a third or a half of them.

   Codes become bf16 by looking them up: a word holds four nibbles, VPERMW takes the low five bits
   of each word as an index, and a table that says the same for both values of the fifth makes
   masking needless (Intel 64 manual, volume 2C). Numbers of 0 to 15, and multiples of 16 up to 128,
   are exact in bf16, so the products are those of the codes; what a group of inputs is scaled by is
   multiplied in fp32 afterwards:

   4 bits: w = scale q + low for groups of 32 inputs; the second term needs only the sum of a
           group's inputs. Codes [outs / 32][in / 4][16][2] words: nibbles are the outputs o and
           16 + o of one pair of inputs, then of the next. Scales in fp16, [outs / 32][in / 32]
           [scale, low][32].
   8 bits: w = scale (q - 128), a scale an output. Codes [outs / 32][in / 2][16][2] words: the bytes
           are the outputs o and 16 + o. Scales in fp32, [outs]. */
#include "step.h"

#define inlined static inline __attribute__((always_inline))
#define GROUP 32
#define TILE 4

static const uint16_t plain[16] = {0x0000, 0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0, 0x40C0, 0x40E0,
                                   0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};
/* -128 to 112 in steps of 16 */
static const uint16_t upper[16] = {0xC300, 0xC2E0, 0xC2C0, 0xC2A0, 0xC280, 0xC240, 0xC200, 0xC180,
                                   0x0000, 0x4180, 0x4200, 0x4240, 0x4280, 0x42A0, 0x42C0, 0x42E0};

static __m512i twice(const uint16_t *table) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)table));
}

inlined __m512bh looked_up(__m512i table, __m512i words) {
    return (__m512bh)_mm512_permutexvar_epi16(words, table);
}

/* The sum of each group of a row's inputs. */
void step_sums(const bf16 *x, int64_t in, float *sums) {
    const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3F80);
    for (int64_t k = 0; k < in; k += GROUP) {
        __m512bh inputs = (__m512bh)_mm512_loadu_si512(x + k);
        *sums++ = _mm512_reduce_add_ps(_mm512_dpbf16_ps(_mm512_setzero_ps(), inputs, ones));
    }
}

/* Sums of one group: two chains for each half of a block. */
inlined void add_group(const bf16 *x, int64_t in, const uint16_t *codes, __m512i table,
                       __m512 sum[TILE][4], const int count) {
    for (int r = 0; r < count; r++)
        for (int s = 0; s < 4; s++) sum[r][s] = _mm512_setzero_ps();
#pragma GCC unroll 2
    for (int64_t k = 0; k < GROUP; k += 4) {
        __m512i words = _mm512_loadu_si512(codes + k * 8);
        __m512bh w[4] = {looked_up(table, words), looked_up(table, _mm512_srli_epi16(words, 4)),
                         looked_up(table, _mm512_srli_epi16(words, 8)),
                         looked_up(table, _mm512_srli_epi16(words, 12))};
#pragma GCC unroll 4
        for (int r = 0; r < count; r++) {
            __m512bh one = pair_of(x + r * in + k), two = pair_of(x + r * in + k + 2);
            sum[r][0] = _mm512_dpbf16_ps(sum[r][0], one, w[0]);
            sum[r][1] = _mm512_dpbf16_ps(sum[r][1], one, w[1]);
            sum[r][2] = _mm512_dpbf16_ps(sum[r][2], two, w[2]);
            sum[r][3] = _mm512_dpbf16_ps(sum[r][3], two, w[3]);
        }
    }
}

inlined __m512 halves(const uint16_t *from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}

inlined void tile_4(const linear *w, const flow *f, int64_t row, int64_t block, const int count) {
    const uint16_t *codes = (const uint16_t *)w->codes + block * w->in * 8;
    const uint16_t *scales = (const uint16_t *)w->scales + block * w->in * 2;
    const bf16 *x = f->x + row * w->in;
    const float *sums = f->sums + row * (w->in / GROUP);
    const __m512i table = twice(plain);
    __m512 low[TILE], high[TILE];
    for (int r = 0; r < count; r++) low[r] = high[r] = _mm512_setzero_ps();
    for (int64_t g = 0; g < w->in / GROUP; g++) {
        __m512 sum[TILE][4];
        add_group(x + g * GROUP, w->in, codes + g * GROUP * 8, table, sum, count);
        const uint16_t *s = scales + g * GROUP * 2;
        __m512 scale[2] = {halves(s), halves(s + 16)}, least[2] = {halves(s + 32), halves(s + 48)};
        for (int r = 0; r < count; r++) {
            __m512 all = _mm512_set1_ps(sums[r * (w->in / GROUP) + g]);
            low[r] = _mm512_fmadd_ps(_mm512_add_ps(sum[r][0], sum[r][2]), scale[0], low[r]);
            high[r] = _mm512_fmadd_ps(_mm512_add_ps(sum[r][1], sum[r][3]), scale[1], high[r]);
            low[r] = _mm512_fmadd_ps(all, least[0], low[r]);
            high[r] = _mm512_fmadd_ps(all, least[1], high[r]);
        }
    }
    for (int r = 0; r < count; r++) step_store(w, f, row + r, block, low[r], high[r]);
}

inlined void tile_8(const linear *w, const flow *f, int64_t row, int64_t block, const int count) {
    const uint16_t *codes = (const uint16_t *)w->codes + block * w->in * 16;
    const float *scales = (const float *)w->scales + block * OUTS;
    const bf16 *x = f->x + row * w->in;
    const __m512i few = twice(plain), many = twice(upper);
    __m512 sum[TILE][4];
    for (int r = 0; r < count; r++)
        for (int s = 0; s < 4; s++) sum[r][s] = _mm512_setzero_ps();
    for (int64_t k = 0; k < w->in; k += 2) {
        __m512i words = _mm512_loadu_si512(codes + k * 16);
        __m512bh c[4] = {looked_up(few, words), looked_up(many, _mm512_srli_epi16(words, 4)),
                         looked_up(few, _mm512_srli_epi16(words, 8)),
                         looked_up(many, _mm512_srli_epi16(words, 12))};
#pragma GCC unroll 4
        for (int r = 0; r < count; r++) {
            __m512bh both = pair_of(x + r * w->in + k);
            for (int s = 0; s < 4; s++) sum[r][s] = _mm512_dpbf16_ps(sum[r][s], both, c[s]);
        }
    }
    for (int r = 0; r < count; r++) {
        __m512 low = _mm512_mul_ps(_mm512_add_ps(sum[r][0], sum[r][1]), _mm512_loadu_ps(scales));
        __m512 high = _mm512_mul_ps(_mm512_add_ps(sum[r][2], sum[r][3]), _mm512_loadu_ps(scales + 16));
        step_store(w, f, row + r, block, low, high);
    }
}

/* Rows `row` to `row + count` of a block of outputs. */
void step_small_tile(const linear *w, const flow *f, int64_t row, int64_t count, int64_t block) {
    for (int64_t left = count; left > 0; row += TILE, left -= TILE) {
        int64_t now = left < TILE ? left : TILE;
        if (w->bits == 4)
            now == 4   ? tile_4(w, f, row, block, 4)
            : now == 3 ? tile_4(w, f, row, block, 3)
            : now == 2 ? tile_4(w, f, row, block, 2)
                       : tile_4(w, f, row, block, 1);
        else
            now == 4   ? tile_8(w, f, row, block, 4)
            : now == 3 ? tile_8(w, f, row, block, 3)
            : now == 2 ? tile_8(w, f, row, block, 2)
                       : tile_8(w, f, row, block, 1);
    }
}

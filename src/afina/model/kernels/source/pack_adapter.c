/* An adapter's matrices as its pages hold them (step.h): A with the sixteen ranks of a page side by
   side for each pair of inputs, B with sixteen outputs side by side for each pair of ranks. Both are
   squares of 32-bit words, turned. */
#include "tile.h"

enum { RANKS = 16 };

typedef struct {
    const bf16 *a, *b;   /* [rank, in] and [outs, rank] */
    bf16 *to_a, *to_b;   /* in the first page; the next are `apart` further */
    int64_t rank, in, outs, apart; /* `apart` in numbers */
    float factor;        /* of B */
} matrices;

/* Sixteen ranks from `first` on, those behind the last zero. */
static void pack_a(const matrices *m, int64_t first, int64_t used, bf16 *to) {
    int64_t words = m->in / 2;
    for (int64_t w = 0; w < words; w += LANES) {
        __m512i square[16];
        __mmask16 some = lanes(words - w);
        for (int r = 0; r < RANKS; r++)
            square[r] = r < used ? _mm512_maskz_loadu_epi32(some, m->a + (first + r) * m->in + 2 * w)
                                 : _mm512_setzero_si512();
        turn_square(square);
        for (int64_t i = 0; i < LANES && w + i < words; i++)
            _mm512_storeu_si512(to + (w + i) * 2 * RANKS, square[i]);
    }
}

/* Sixteen ranks of sixteen outputs at a time, those behind the last zero, times the factor. */
static void pack_b(const matrices *m, int64_t first, int64_t used, bf16 *to) {
    __mmask16 some = lanes(used);
    __m512 factor = _mm512_set1_ps(m->factor);
    for (int64_t o = 0; o < m->outs; o += LANES, to += LANES * RANKS) {
        __m512i square[16];
        for (int r = 0; r < LANES; r++) {
            __m256i row = _mm256_setzero_si256();
            if (o + r < m->outs) row = _mm256_maskz_loadu_epi16(some, m->b + (o + r) * m->rank + first);
            if (m->factor != 1.0f)
                row = (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(widened(row), factor));
            square[r] = _mm512_zextsi256_si512(row);
        }
        turn_square(square);
        for (int k = 0; k < RANKS / 2; k++) _mm512_storeu_si512(to + k * 2 * LANES, square[k]);
    }
}

void afina_pack_adapter(const matrices *list, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        const matrices *m = list + i;
        bf16 *a = m->to_a, *b = m->to_b;
        for (int64_t first = 0; first < m->rank; first += RANKS, a += m->apart, b += m->apart) {
            int64_t used = m->rank - first < RANKS ? m->rank - first : RANKS;
            pack_a(m, first, used, a);
            pack_b(m, first, used, b);
        }
    }
}

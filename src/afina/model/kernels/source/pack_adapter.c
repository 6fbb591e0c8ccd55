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
        v_bits square[16];
        v_mask some = lanes(words - w);
        for (int r = 0; r < RANKS; r++)
            square[r] = r < used ? v_load_words(some, m->a + (first + r) * m->in + 2 * w)
                                 : v_no_bits();
        turn_square(square);
        for (int64_t i = 0; i < LANES && w + i < words; i++)
            v_store_bits(to + (w + i) * 2 * RANKS, square[i]);
    }
}

/* Sixteen ranks of sixteen outputs at a time, those behind the last zero, times the factor. */
static void pack_b(const matrices *m, int64_t first, int64_t used, bf16 *to) {
    v_mask some = lanes(used);
    v_wide factor = v_all(m->factor);
    for (int64_t o = 0; o < m->outs; o += LANES, to += LANES * RANKS) {
        v_bits square[16];
        for (int r = 0; r < LANES; r++) {
            v_half row = v_no_half();
            if (o + r < m->outs) row = v_load_half_some(some, m->b + (o + r) * m->rank + first);
            if (m->factor != 1.0f)
                row = v_narrowed(v_mul(v_widened(row), factor));
            square[r] = v_extended(row);
        }
        turn_square(square);
        for (int k = 0; k < RANKS / 2; k++) v_store_bits(to + k * 2 * LANES, square[k]);
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

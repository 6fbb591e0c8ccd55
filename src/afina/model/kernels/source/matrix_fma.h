/* Products by FMA in fp32, of numbers in bf16 that become fp32 where they are multiplied: for processors
   without bf16 products, or with slow ones. A tile is two registers of columns by as many rows as hide
   the latency of FMA with sums that all stay in registers: 12 rows by 32 columns with AVX-512, 6 by 16
   with AVX2 (Intel 64 manual, volume 2).

   The left side is widened before, as each of its numbers is multiplied sixteen times and more; the
   right side while it is read, which halves what is read. A product of two bf16 numbers is exact
   in fp32; a sum runs from the first number to the last. */
#ifndef AFINA_MATRIX_FMA_H
#define AFINA_MATRIX_FMA_H

#define MATRIX_ROWS 36
#define MATRIX_PART 512 /* numbers that are widened at a time where there is no strip */
#define matrix_begin()
#define matrix_end()

/* MATRIX_TALL: rows of a tile in registers; MATRIX_LANES: numbers of a register. Even and odd are the
   two of each pair of bf16. */
#ifdef AFINA_HALVES
#define MATRIX_TALL 6
#define MATRIX_LANES 8
typedef __m256 matrix_register;
#define matrix_load _mm256_loadu_ps
#define matrix_store _mm256_storeu_ps
#define matrix_zero _mm256_setzero_ps
#define matrix_even(at) v_even(_mm256_loadu_si256((const __m256i *)(const void *)(at)))
#define matrix_odd(at) v_odd(_mm256_loadu_si256((const __m256i *)(const void *)(at)))
#else
#define MATRIX_TALL 12
#define MATRIX_LANES 16
typedef __m512 matrix_register;
#define matrix_load _mm512_loadu_ps
#define matrix_store _mm512_storeu_ps
#define matrix_zero _mm512_setzero_ps
#define matrix_even(at) v_even(_mm512_loadu_si512(at))
#define matrix_odd(at) v_odd(_mm512_loadu_si512(at))
#endif

/* A block's rows are shared out among tiles as evenly as can be: a tile of one row takes as long as
   one of four. A strip is tile behind tile, each [in / 32][rows of the tile][32] in fp32. */
#define matrix_strip_size(in) (((in) + 31) / 32 * 32 * MATRIX_ROWS * (int64_t)sizeof(float))
MATRIX_INLINE int64_t matrix_tile_rows(int64_t rows, int64_t at) {
    int64_t tiles = (rows - at + MATRIX_TALL - 1) / MATRIX_TALL;
    return (rows - at + tiles - 1) / tiles;
}
/* Each tile of a block asks for its share of what is fetched, as memory gives evenly. */
MATRIX_INLINE matrix_fetch matrix_share(const matrix_fetch *all, int64_t steps, int64_t row,
                                        int64_t tall, int64_t rows) {
    int64_t from = all->pace * row / rows, to = all->pace * (row + tall) / rows;
    matrix_fetch found = {all->ahead ? all->ahead + steps / 16 * 64 * from : NULL, to - from};
    return found;
}
/* Sixteen steps of one row, times a scale unless it is 1. */
MATRIX_INLINE void matrix_widen(float *out, const bf16 *x, int64_t count, const int scaled,
                                v_wide scale) {
    v_wide first, second;
    if (count >= 32) {
        first = v_widened(v_load_half(x)), second = v_widened(v_load_half(x + 16));
    } else {
        v_mask some = count >= 16 ? 0xffff : (v_mask)((1u << count) - 1);
        v_mask more = count <= 16 ? 0 : (v_mask)((1u << (count - 16)) - 1);
        first = v_widened(v_load_half_some(some, x));
        second = v_widened(v_load_half_some(more, x + 16));
    }
    v_store(out, scaled ? v_mul(first, scale) : first);
    v_store(out + 16, scaled ? v_mul(second, scale) : second);
}
static __attribute__((unused)) void matrix_pack(char *strip, const bf16 *x, int64_t row,
                                                int64_t rows, int64_t in, float scale,
                                                int64_t from, int64_t all) {
    v_wide by = v_all(scale);
    const int scaled = scale != 1.0f;
    for (int64_t m = 0, tall; m < rows; m += tall) {
        tall = matrix_tile_rows(rows, m);
        float *out = (float *)strip + m * all + from * tall;
        for (int64_t k = 0; k < in; k += 32)
            for (int64_t r = 0; r < tall; r++, out += 32)
                matrix_widen(out, x + (m + r) * row + k, in - k, scaled, by);
    }
}

/* One number of a row times one or two registers of columns. Compilers that see what is meant here reorder
   it until sums no longer fit into registers, and half of the speed is gone. */
MATRIX_INLINE void matrix_add(matrix_register *sum, const float *left, const matrix_register *w) {
    matrix_register x;
    __asm__ volatile("vbroadcastss %3, %2\n\tvfmadd231ps %4, %2, %0\n\tvfmadd231ps %5, %2, %1"
                     : "+v"(sum[0]), "+v"(sum[1]), "=&v"(x)
                     : "m"(*left), "v"(w[0]), "v"(w[1]));
}
MATRIX_INLINE void matrix_add_one(matrix_register *sum, const float *left,
                                  const matrix_register *w) {
    matrix_register x;
    __asm__ volatile("vbroadcastss %2, %1\n\tvfmadd231ps %3, %1, %0"
                     : "+v"(*sum), "=&v"(x)
                     : "m"(*left), "v"(*w));
}
/* One step: two numbers of each row times those of `wide` registers of columns, 1, 2 or 4. */
MATRIX_INLINE void matrix_step(matrix_register sum[MATRIX_TALL][4], const float *left,
                               const char *right, const int rows, const int wide) {
    matrix_register w[4];
#pragma GCC unroll 2
    for (int odd = 0; odd < 2; odd++) {
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++) {
            const char *at = right + 4 * MATRIX_LANES * v;
            w[v] = odd ? matrix_odd(at) : matrix_even(at);
        }
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            if (wide == 1) matrix_add_one(sum[r], left + 32 * r + odd, w);
            if (wide >= 2) matrix_add(sum[r], left + 32 * r + odd, w);
            if (wide == 4) matrix_add(sum[r] + 2, left + 32 * r + odd, w + 2);
        }
    }
}
/* A tile of some rows times `wide` registers of columns; both are constants where it is called. */
MATRIX_INLINE void matrix_tile(float *out, int64_t row, const float *left, const char *right,
                               int64_t right_step, int64_t steps, int more, matrix_fetch fetch,
                               const int rows, const int wide) {
    matrix_register sum[MATRIX_TALL][4];
    char *at = (char *)out;
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++)
            sum[r][v] = more ? matrix_load((float *)(at + r * row) + MATRIX_LANES * v) : matrix_zero();
    for (; steps >= 16; steps -= 16, left += 32 * rows) {
        for (int64_t line = 0; fetch.ahead && line < fetch.pace; line++, fetch.ahead += 64)
            _mm_prefetch(fetch.ahead, _MM_HINT_T1);
        for (int k = 0; k < 16; k++, right += right_step)
            matrix_step(sum, left + 2 * k, right, rows, wide);
    }
    for (int64_t k = 0; k < steps; k++, right += right_step)
        matrix_step(sum, left + 2 * k, right, rows, wide);
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++)
            matrix_store((float *)(at + r * row) + MATRIX_LANES * v, sum[r][v]);
}
/* Functions of their own, as registers are all taken. */
typedef void (*matrix_made)(float *, int64_t, const float *, const char *, int64_t, int64_t, int,
                            matrix_fetch);
#define MATRIX_TILE(R, V)                                                                        \
    static __attribute__((unused, noinline)) void matrix_tile_##R##_##V(                         \
        float *out, int64_t row, const float *left, const char *right, int64_t right_step,       \
        int64_t steps, int more, matrix_fetch fetch) {                                           \
        matrix_tile(out, row, left, right, right_step, steps, more, fetch, R, V);                \
    }
#define MATRIX_SIX(V)                                                                            \
    MATRIX_TILE(1, V) MATRIX_TILE(2, V) MATRIX_TILE(3, V) MATRIX_TILE(4, V) MATRIX_TILE(5, V)    \
    MATRIX_TILE(6, V)
#define MATRIX_SIX_MADE(V)                                                                       \
    matrix_tile_1_##V, matrix_tile_2_##V, matrix_tile_3_##V, matrix_tile_4_##V, matrix_tile_5_##V, \
        matrix_tile_6_##V
MATRIX_SIX(2)
#ifdef AFINA_HALVES
MATRIX_TILE(1, 4) MATRIX_TILE(2, 4)
#else
#define MATRIX_NEXT_SIX(V)                                                                       \
    MATRIX_TILE(7, V) MATRIX_TILE(8, V) MATRIX_TILE(9, V) MATRIX_TILE(10, V) MATRIX_TILE(11, V)  \
    MATRIX_TILE(12, V)
#define MATRIX_NEXT_SIX_MADE(V)                                                                  \
    matrix_tile_7_##V, matrix_tile_8_##V, matrix_tile_9_##V, matrix_tile_10_##V,                 \
        matrix_tile_11_##V, matrix_tile_12_##V
MATRIX_NEXT_SIX(2) MATRIX_SIX(1) MATRIX_NEXT_SIX(1)
#endif

/* A tile of up to MATRIX_TALL rows times 16 or 32 columns. */
#ifdef AFINA_HALVES
MATRIX_INLINE void matrix_tiles(float *out, int64_t row, const float *left, const char *right,
                                int64_t right_step, int64_t steps, int more, int64_t rows,
                                int wide, matrix_fetch fetch) {
    static const matrix_made slim[] = {NULL, MATRIX_SIX_MADE(2)};
    matrix_fetch none = {NULL, 0};
    if (wide && rows <= 2) {
        (rows == 1 ? matrix_tile_1_4 : matrix_tile_2_4)(out, row, left, right, right_step, steps,
                                                        more, fetch);
        return;
    }
    slim[rows](out, row, left, right, right_step, steps, more, fetch);
    if (wide) slim[rows](out + 16, row, left, right + 64, right_step, steps, more, none);
}
#else
MATRIX_INLINE void matrix_tiles(float *out, int64_t row, const float *left, const char *right,
                                int64_t right_step, int64_t steps, int more, int64_t rows,
                                int wide, matrix_fetch fetch) {
    static const matrix_made slim[] = {NULL, MATRIX_SIX_MADE(1), MATRIX_NEXT_SIX_MADE(1)};
    static const matrix_made broad[] = {NULL, MATRIX_SIX_MADE(2), MATRIX_NEXT_SIX_MADE(2)};
    (wide ? broad : slim)[rows](out, row, left, right, right_step, steps, more, fetch);
}
#endif

MATRIX_INLINE void matrix_multiply_strip(float *sum, int64_t row, const char *left,
                                         const char *right, int64_t steps, int64_t rows, int more,
                                         const matrix_fetch *fetch, matrix_meanwhile meanwhile,
                                         void *given) {
    const float *strip = (const float *)left;
    (void)meanwhile, (void)given; /* there is no second unit that would be idle */
    for (int64_t m = 0, tall; m < rows; m += tall) {
        tall = matrix_tile_rows(rows, m);
        matrix_tiles((float *)((char *)sum + m * row), row, strip + m * 2 * steps, right, 128, steps,
                     more, tall, 1, matrix_share(fetch, steps, m, tall, rows));
    }
}
MATRIX_INLINE void matrix_multiply(float *sum, int64_t row, const matrix_sides *s, int64_t rows,
                                   int more, const int wide, matrix_meanwhile meanwhile,
                                   void *given) {
    float strip[MATRIX_TALL * MATRIX_PART] __attribute__((aligned(64)));
    (void)meanwhile, (void)given;
    for (int64_t m = 0, tall; m < rows; m += tall) {
        float *to = (float *)((char *)sum + m * row);
        tall = matrix_tile_rows(rows, m);
        for (int64_t k = 0; k < s->steps; k += MATRIX_PART / 2) {
            int64_t steps = s->steps - k < MATRIX_PART / 2 ? s->steps - k : MATRIX_PART / 2;
            matrix_fetch fetch = matrix_share(&s->fetch, s->steps, m, tall, rows);
            if (fetch.ahead) fetch.ahead += k / 16 * 64 * fetch.pace;
            float *out = strip;
            for (int64_t part = 0; part < steps; part += 16)
                for (int64_t r = 0; r < tall; r++, out += 32)
                    matrix_widen(out, (const bf16 *)(s->left + (m + r) * s->left_row +
                                                     (k + part) / 16 * s->left_step),
                                 2 * (steps - part), 0, v_zero());
            matrix_tiles(to, row, strip, s->right + k * s->right_step, s->right_step, steps,
                         more || k, tall, wide, fetch);
        }
    }
}
#endif

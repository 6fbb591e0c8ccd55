/* Products without bf16 products: numbers become fp32 and are multiplied by FMA, six rows by two
   registers of columns at a time. Twelve sums hide the latency of FMA, and with two registers of
   the right side and one of the left they are all that there are (Intel 64 manual, volume 2: AVX2).

   The left side is widened before, as each of its numbers is multiplied sixteen times and more; the
   right side while it is read, which halves what is read. A product of two bf16 numbers is exact
   in fp32; a sum runs from the first number to the last. */
#ifndef AFINA_MATRIX_HALVES_H
#define AFINA_MATRIX_HALVES_H

#define MATRIX_ROWS 36
#define MATRIX_TALL 6   /* rows of a tile in registers */
#define MATRIX_PART 512 /* numbers that are widened at a time where there is no strip */
#define matrix_begin()
#define matrix_end()

/* A block's rows are shared out among tiles as evenly as can be: a tile of one row takes as long as
   one of four. A strip is tile behind tile, each [in / 32][rows of the tile][32] in fp32. */
#define matrix_strip_size(in) (((in) + 31) / 32 * 32 * MATRIX_ROWS * (int64_t)sizeof(float))
MATRIX_INLINE int64_t matrix_tile_rows(int64_t rows, int64_t at) {
    int64_t tiles = (rows - at + MATRIX_TALL - 1) / MATRIX_TALL;
    return (rows - at + tiles - 1) / tiles;
}
/* Sixteen steps of one row. */
MATRIX_INLINE void matrix_widen(float *out, const bf16 *x, int64_t count, v_wide scale) {
    v_mask first = count >= 16 ? 0xffff : (v_mask)((1u << count) - 1), second = 0;
    if (count > 16) second = count >= 32 ? 0xffff : (v_mask)((1u << (count - 16)) - 1);
    v_store(out, v_mul(v_widened(v_load_half_some(first, x)), scale));
    v_store(out + 16, v_mul(v_widened(v_load_half_some(second, x + 16)), scale));
}
static __attribute__((unused)) void matrix_pack(char *strip, const bf16 *x, int64_t row,
                                                int64_t rows, int64_t in, float scale,
                                                int64_t from, int64_t all) {
    v_wide by = v_all(scale);
    for (int64_t m = 0, tall; m < rows; m += tall) {
        tall = matrix_tile_rows(rows, m);
        float *out = (float *)strip + m * all + from * tall;
        for (int64_t k = 0; k < in; k += 32)
            for (int64_t r = 0; r < tall; r++, out += 32)
                matrix_widen(out, x + (m + r) * row + k, in - k, by);
    }
}

/* One number of a row times two registers of columns. Compilers that see what is meant here reorder it
   until sums no longer fit into registers, and half of the speed is gone. */
MATRIX_INLINE void matrix_add(__m256 *sum, const float *left, const __m256 *w) {
    __m256 x;
    __asm__ volatile("vbroadcastss %3, %2\n\tvfmadd231ps %4, %2, %0\n\tvfmadd231ps %5, %2, %1"
                     : "+x"(sum[0]), "+x"(sum[1]), "=&x"(x)
                     : "m"(*left), "x"(w[0]), "x"(w[1]));
}
/* One step: two numbers of each row times those of `wide` registers of columns, 2 or 4. */
MATRIX_INLINE void matrix_step(__m256 sum[MATRIX_TALL][4], const float *left, const char *right,
                               const int rows, const int wide) {
    __m256 w[4];
#pragma GCC unroll 2
    for (int odd = 0; odd < 2; odd++) {
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++) {
            __m256i pairs = _mm256_loadu_si256((const __m256i *)(right + 32 * v));
            w[v] = odd ? v_odd(pairs) : v_even(pairs);
        }
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            matrix_add(sum[r], left + 32 * r + odd, w);
            if (wide == 4) matrix_add(sum[r] + 2, left + 32 * r + odd, w + 2);
        }
    }
}
/* A tile of some rows times 8 `wide` columns; both are constants where it is called. */
MATRIX_INLINE void matrix_tile(float *out, int64_t row, const float *left, const char *right,
                               int64_t right_step, int64_t steps, int more, matrix_fetch fetch,
                               const int rows, const int wide) {
    __m256 sum[MATRIX_TALL][4];
    char *at = (char *)out;
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++)
            sum[r][v] = more ? _mm256_loadu_ps((float *)(at + r * row) + 8 * v) : _mm256_setzero_ps();
    for (; steps >= 16; steps -= 16, left += 32 * rows) {
        for (int64_t line = 0; fetch.ahead && line < fetch.pace; line++, fetch.ahead += 64)
            _mm_prefetch(fetch.ahead, _MM_HINT_T1);
        for (int k = 0; k < 16; k++, right += right_step)
            matrix_step(sum, left + 2 * k, right, rows, wide);
    }
    for (int64_t k = 0; k < steps; k++, right += right_step)
        matrix_step(sum, left + 2 * k, right, rows, wide);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++) _mm256_storeu_ps((float *)(at + r * row) + 8 * v, sum[r][v]);
}
/* Functions of their own, as registers are all taken. */
#define MATRIX_TILE(R, V)                                                                        \
    static __attribute__((unused, noinline)) void matrix_tile_##R##_##V(                         \
        float *out, int64_t row, const float *left, const char *right, int64_t right_step,       \
        int64_t steps, int more, matrix_fetch fetch) {                                           \
        matrix_tile(out, row, left, right, right_step, steps, more, fetch, R, V);                \
    }
MATRIX_TILE(1, 2) MATRIX_TILE(2, 2) MATRIX_TILE(3, 2) MATRIX_TILE(4, 2) MATRIX_TILE(5, 2)
MATRIX_TILE(6, 2) MATRIX_TILE(1, 4) MATRIX_TILE(2, 4)

/* A tile of up to six rows times 16 or 32 columns. */
MATRIX_INLINE void matrix_tiles(float *out, int64_t row, const float *left, const char *right,
                                int64_t right_step, int64_t steps, int more, int64_t rows,
                                int wide, matrix_fetch fetch) {
    typedef void (*tile)(float *, int64_t, const float *, const char *, int64_t, int64_t, int,
                         matrix_fetch);
    static const tile slim[] = {NULL, matrix_tile_1_2, matrix_tile_2_2, matrix_tile_3_2,
                                matrix_tile_4_2, matrix_tile_5_2, matrix_tile_6_2};
    matrix_fetch none = {NULL, 0};
    if (wide && rows <= 2) {
        (rows == 1 ? matrix_tile_1_4 : matrix_tile_2_4)(out, row, left, right, right_step, steps,
                                                        more, fetch);
        return;
    }
    slim[rows](out, row, left, right, right_step, steps, more, fetch);
    if (wide) slim[rows](out + 16, row, left, right + 64, right_step, steps, more, none);
}

MATRIX_INLINE void matrix_multiply_strip(float *sum, int64_t row, const char *left,
                                         const char *right, int64_t steps, int64_t rows, int more,
                                         const matrix_fetch *fetch, matrix_meanwhile meanwhile,
                                         void *given) {
    const float *strip = (const float *)left;
    matrix_fetch none = {NULL, 0};
    (void)meanwhile, (void)given; /* there is no second unit that would be idle */
    for (int64_t m = 0, tall; m < rows; m += tall) {
        tall = matrix_tile_rows(rows, m);
        matrix_tiles((float *)((char *)sum + m * row), row, strip + m * 2 * steps, right, 128, steps,
                     more, tall, 1, m ? none : *fetch);
    }
}
MATRIX_INLINE void matrix_multiply(float *sum, int64_t row, const matrix_sides *s, int64_t rows,
                                   int more, const int wide, matrix_meanwhile meanwhile,
                                   void *given) {
    float strip[MATRIX_TALL * MATRIX_PART] __attribute__((aligned(64)));
    v_wide one = v_all(1.0f);
    (void)meanwhile, (void)given;
    for (int64_t m = 0, tall; m < rows; m += tall) {
        float *to = (float *)((char *)sum + m * row);
        tall = matrix_tile_rows(rows, m);
        for (int64_t k = 0; k < s->steps; k += MATRIX_PART / 2) {
            int64_t steps = s->steps - k < MATRIX_PART / 2 ? s->steps - k : MATRIX_PART / 2;
            matrix_fetch fetch = {s->fetch.ahead ? s->fetch.ahead + k / 16 * 64 * s->fetch.pace : NULL,
                                  s->fetch.pace};
            if (m) fetch.ahead = NULL;
            float *out = strip;
            for (int64_t part = 0; part < steps; part += 16)
                for (int64_t r = 0; r < tall; r++, out += 32)
                    matrix_widen(out, (const bf16 *)(s->left + (m + r) * s->left_row +
                                                     (k + part) / 16 * s->left_step),
                                 2 * (steps - part), one);
            matrix_tiles(to, row, strip, s->right + k * s->right_step, s->right_step, steps,
                         more || k, tall, wide, fetch);
        }
    }
}
#endif

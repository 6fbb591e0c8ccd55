/* Matrix tiles without such a processor: what AMX computes (Intel 64 manual, volume 2,
   TDPBF16PS), number by number, so that all kernels can be tested anywhere. */
#ifndef AFINA_MATRIX_SLOW_H
#define AFINA_MATRIX_SLOW_H

typedef struct {
    matrix_shape shape;
    char tile[8][16][64];
} matrix_slow_tiles;
extern __thread matrix_slow_tiles matrix_kept __attribute__((visibility("hidden")));

static __attribute__((unused)) void matrix_load_shape(const matrix_shape *shape) {
    memset(&matrix_kept, 0, sizeof matrix_kept);
    matrix_kept.shape = *shape;
}
static __attribute__((unused)) void matrix_keep_shape(matrix_shape *shape) { *shape = matrix_kept.shape; }
static __attribute__((unused)) void matrix_leave(void) { memset(&matrix_kept, 0, sizeof matrix_kept); }
static __attribute__((unused)) void matrix_zero(int t) { memset(matrix_kept.tile[t], 0, sizeof matrix_kept.tile[t]); }
static __attribute__((unused)) void matrix_load(int t, const char *at, int64_t row) {
    matrix_zero(t);
    for (int r = 0; r < matrix_kept.shape.rows[t]; r++)
        memcpy(matrix_kept.tile[t][r], at + r * row, matrix_kept.shape.width[t]);
}
static __attribute__((unused)) void matrix_store(int t, char *at, int64_t row) {
    for (int r = 0; r < matrix_kept.shape.rows[t]; r++)
        memcpy(at + r * row, matrix_kept.tile[t][r], matrix_kept.shape.width[t]);
}
static __attribute__((unused)) float matrix_number(const char *at) {
    uint16_t half;
    memcpy(&half, at, 2);
    uint32_t bits = (uint32_t)half << 16;
    float found;
    memcpy(&found, &bits, 4);
    return found;
}
static __attribute__((unused)) void matrix_add(int sum, int left, int right) {
    for (int r = 0; r < matrix_kept.shape.rows[sum]; r++)
        for (int c = 0; c < 16; c++) {
            float even = 0, odd = 0, before;
            for (int k = 0; k < 16; k++) {
                const char *a = matrix_kept.tile[left][r] + 4 * k;
                const char *b = matrix_kept.tile[right][k] + 4 * c;
                even = __builtin_fmaf(matrix_number(a), matrix_number(b), even);
                odd = __builtin_fmaf(matrix_number(a + 2), matrix_number(b + 2), odd);
            }
            char *at = matrix_kept.tile[sum][r] + 4 * c;
            memcpy(&before, at, 4);
            before += even + odd;
            memcpy(at, &before, 4);
        }
}
#endif

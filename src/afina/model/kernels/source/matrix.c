/* What all kernels know of a thread's matrix tiles. */
#include "matrix.h"

#ifdef AFINA_TILES
__thread matrix_state matrix_now;
#if AFINA_TILES == 2
__thread matrix_slow_tiles matrix_kept;
#endif

void matrix_set(int64_t rows) {
    matrix_shape shape;
    memset(&shape, 0, sizeof shape);
    shape.palette = 1;
    for (int t = 0; t < 8; t++) shape.width[t] = 64, shape.rows[t] = 16;
    uint8_t first = (uint8_t)(rows < 16 ? rows : 16), second = (uint8_t)(rows > 16 ? rows - 16 : 16);
    shape.rows[0] = shape.rows[1] = shape.rows[4] = first;
    shape.rows[2] = shape.rows[3] = shape.rows[5] = second;
    matrix_written();
    matrix_load_shape(&shape);
    matrix_now.rows = rows;
}
#else
typedef int nothing_here;
#endif

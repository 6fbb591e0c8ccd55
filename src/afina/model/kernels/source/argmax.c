/* The place of each row's largest number, the first of equals. Rows are bf16, read once: as whole
   numbers of 16 bits they have the order of what they stand for, once the negative ones are turned
   round and minus zero is zero. Not a number counts as larger or smaller than all, by its sign. */
#include "common.h"

typedef struct {
    const bf16 *rows;
    int64_t *found;
    int64_t count, width, apart;
} search;

/* Numbers whose order as signed 16 bits is that of the bf16 they were. */
static inline v_bits ordered(v_bits x) {
    x = v_without(x, v_all_numbers(INT16_MIN));
    return v_xor(x, v_right(v_signs(x), 1));
}

static inline int16_t ordered_one(bf16 x) {
    if (x == 0x8000) return 0;
    int16_t sign = (int16_t)x >> 15;
    return (int16_t)(x ^ ((uint16_t)sign >> 1));
}

static int64_t largest(const bf16 *row, int64_t width) {
    v_bits most = v_all_numbers(INT16_MIN);
    int64_t i = 0;
    for (; i + 32 <= width; i += 32)
        most = v_max_numbers(most, ordered(v_load_bits(row + i)));
    int16_t lanes[32], top = INT16_MIN;
    v_store_bits(lanes, most);
    for (int lane = 0; lane < 32; lane++) top = lanes[lane] > top ? lanes[lane] : top;
    for (; i < width; i++) top = ordered_one(row[i]) > top ? ordered_one(row[i]) : top;
    v_bits wanted = v_all_numbers(top);
    for (i = 0; i + 32 <= width; i += 32) {
        v_mask32 is = v_equal_numbers(ordered(v_load_bits(row + i)), wanted);
        if (is) return i + __builtin_ctz(is);
    }
    while (i < width - 1 && ordered_one(row[i]) != top) i++;
    return i;
}

static void search_part(void *given) {
    const search *s = given;
    int64_t first, last;
    part_of(s->count, &first, &last);
    for (int64_t i = first; i < last; i++) s->found[i] = largest(s->rows + i * s->apart, s->width);
}

/* found `[count]`; rows are `apart` numbers from one another and at least one wide. */
void afina_argmax(const bf16 *rows, int64_t *found, int64_t count, int64_t width, int64_t apart,
                  int threads) {
    search s = {rows, found, count, width, apart};
    in_parallel(search_part, &s, threads);
}

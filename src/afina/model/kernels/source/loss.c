/* The loss of rows of logits: -log of the target's chance, whether the target is the first choice,
   and the gradient. A row is read three times while it lies in the second cache; no copy of it in
   fp32 ever exists. */
#include "tile.h"

typedef struct {
    const bf16 *logits;
    bf16 *grad; /* NULL, or where it goes: logits itself, too */
    const int64_t *targets;
    const float *weights;
    float *losses;
    uint8_t *right;
    int64_t rows, row, size;
} loss;

static const float LOG2_E = 1.4426950408889634f;

static float largest(const bf16 *x, int64_t size) {
    v_wide top = v_all(-INFINITY);
    for (int64_t i = 0; i < size; i += LANES) {
        v_mask some = lanes(size - i);
        top = v_choose(some, v_max(top, load_some(x + i, some)), top);
    }
    return v_largest(top);
}
/* exp(x - top) of numbers from i on, 0 behind the last. */
INLINE v_wide chances(const bf16 *x, int64_t i, v_wide shift, v_mask some) {
    v_wide scaled = v_mul(load_some(x + i, some), v_all(LOG2_E));
    return v_where(some, power_of_two(v_sub(scaled, shift)));
}
static float total(const bf16 *x, int64_t size, v_wide shift) {
    v_wide sum[2] = {v_zero(), v_zero()};
    for (int64_t i = 0; i < size; i += LANES) {
        int side = i / LANES & 1;
        sum[side] = v_add(sum[side], chances(x, i, shift, lanes(size - i)));
    }
    return v_sum(v_add(sum[0], sum[1]));
}
INLINE float number(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float found;
    memcpy(&found, &bits, 4);
    return found;
}

static void loss_part(void *given) {
    const loss *p = given;
    int64_t from, to;
    part_of(p->rows, &from, &to);
    for (int64_t m = from; m < to; m++) {
        const bf16 *x = p->logits + m * p->row;
        int64_t target = p->targets[m];
        float top = largest(x, p->size), reached = number(x[target]);
        v_wide shift = v_all(top * LOG2_E);
        float sum = total(x, p->size, shift), weight = p->weights[m];
        /* of equals the first is chosen */
        int first = reached == top;
        for (int64_t i = 0; i < target && first; i++) first = number(x[i]) != top;
        p->right[m] = (uint8_t)first;
        p->losses[m] = __builtin_logf(sum) - (reached - top);
        if (!p->grad) continue;
        bf16 *grad = p->grad + m * p->row;
        float of_target = weight * (__builtin_exp2f((reached - top) * LOG2_E) / sum - 1.0f);
        v_wide factor = v_all(weight / sum);
        for (int64_t i = 0; i < p->size; i += LANES) {
            v_mask some = lanes(p->size - i);
            store_some(grad + i, v_mul(chances(x, i, shift, some), factor), some);
        }
        store_some(grad + target, v_all(of_target), 1);
    }
}
int afina_loss(loss *p, int threads) {
    in_parallel(loss_part, p, threads);
    return 0;
}

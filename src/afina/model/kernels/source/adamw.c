/* AdamW (arXiv:1711.05101) in one pass over weights, gradients and both moments: clipping, moments,
   the move, and whether all that comes out are numbers. Each number is made by the operations of
   torch's fused kernel, in their order, so that it has the same bits. */
#include "tile.h"

typedef struct {
    float *weights, *first, *second;
    const float *grads;
    int64_t count; /* a multiple of 16 */
    float clip, decay, add_first, keep_second, add_second, root, epsilon, size, largest;
    int64_t odd; /* whether some weight is no number, or larger than the largest; 0 before */
} adamw;

static void adamw_part(void *given) {
    adamw *p = given;
    int64_t from, to;
    part_of(p->count / LANES, &from, &to);
    v_mask fine = 0xffff;
#define ALL(x) v_all(x)
    for (int64_t i = from * LANES; i < to * LANES; i += LANES) {
        v_wide weight = v_load(p->weights + i), grad = v_load(p->grads + i);
        v_wide first = v_load(p->first + i), second = v_load(p->second + i);
        if (p->clip < 1.0f) grad = v_mul(grad, ALL(p->clip));
        if (p->decay != 1.0f) weight = v_mul(weight, ALL(p->decay));
        first = v_fma(ALL(p->add_first), v_sub(grad, first), first);
        second = v_fma(v_mul(ALL(p->add_second), grad), grad,
                                 v_mul(second, ALL(p->keep_second)));
        v_wide below = v_add(v_div(v_sqrt(second), ALL(p->root)),
                                     ALL(p->epsilon));
        weight = v_sub(weight,
                               v_div(v_mul(ALL(p->size), first), below));
        fine &= v_at_most(v_abs(weight), ALL(p->largest));
        v_store(p->weights + i, weight);
        v_store(p->first + i, first);
        v_store(p->second + i, second);
    }
    if (fine != 0xffff) __atomic_store_n(&p->odd, 1, __ATOMIC_RELAXED);
}
int afina_adamw(adamw *p, int threads) {
    in_parallel(adamw_part, p, threads);
    return 0;
}

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
    __mmask16 fine = 0xffff;
#define ALL(x) _mm512_set1_ps(x)
    for (int64_t i = from * LANES; i < to * LANES; i += LANES) {
        __m512 weight = _mm512_loadu_ps(p->weights + i), grad = _mm512_loadu_ps(p->grads + i);
        __m512 first = _mm512_loadu_ps(p->first + i), second = _mm512_loadu_ps(p->second + i);
        if (p->clip < 1.0f) grad = _mm512_mul_ps(grad, ALL(p->clip));
        if (p->decay != 1.0f) weight = _mm512_mul_ps(weight, ALL(p->decay));
        first = _mm512_fmadd_ps(ALL(p->add_first), _mm512_sub_ps(grad, first), first);
        second = _mm512_fmadd_ps(_mm512_mul_ps(ALL(p->add_second), grad), grad,
                                 _mm512_mul_ps(second, ALL(p->keep_second)));
        __m512 below = _mm512_add_ps(_mm512_div_ps(_mm512_sqrt_ps(second), ALL(p->root)),
                                     ALL(p->epsilon));
        weight = _mm512_sub_ps(weight,
                               _mm512_div_ps(_mm512_mul_ps(ALL(p->size), first), below));
        fine &= _mm512_cmp_ps_mask(_mm512_abs_ps(weight), ALL(p->largest), _CMP_LE_OQ);
        _mm512_storeu_ps(p->weights + i, weight);
        _mm512_storeu_ps(p->first + i, first);
        _mm512_storeu_ps(p->second + i, second);
    }
    if (fine != 0xffff) __atomic_store_n(&p->odd, 1, __ATOMIC_RELAXED);
}
int afina_adamw(adamw *p, int threads) {
    in_parallel(adamw_part, p, threads);
    return 0;
}

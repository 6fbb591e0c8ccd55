/* What is not a product, a row at a time: norms, the gate, rotation. All arithmetic is fp32; a
   number is rounded once, when it is stored. */
#include "tile.h"

typedef struct {
    const bf16 *x, *weight, *grad, *beside;
    bf16 *out;
    float *inverse;
    int64_t rows, width;
    float epsilon;
} norm;

/* weight * x / sqrt(mean(x^2) + epsilon), and 1 over the root. arXiv:1910.07467 */
static void norm_part(void *given) {
    const norm *p = given;
    int64_t from, to;
    part_of(p->rows, &from, &to);
    for (int64_t m = from; m < to; m++) {
        const bf16 *x = p->x + m * p->width;
        v_wide sum = v_zero();
        for (int64_t i = 0; i < p->width; i += LANES) {
            v_wide a = load_some(x + i, lanes(p->width - i));
            sum = v_fma(a, a, sum);
        }
        float mean = v_sum(sum) / (float)p->width;
        float inverse = p->inverse[m] = 1.0f / __builtin_sqrtf(mean + p->epsilon);
        for (int64_t i = 0; i < p->width; i += LANES) {
            v_mask some = lanes(p->width - i);
            v_wide a = v_mul(load_some(x + i, some), v_all(inverse));
            a = v_mul(a, load_some(p->weight + i, some));
            store_some(p->out + m * p->width + i, a, some);
        }
    }
}
int afina_norm_forward(norm *p, int threads) {
    in_parallel(norm_part, p, threads);
    return 0;
}

/* The gradient of x through the norm of a frozen weight, with `beside` added. */
static void norm_back_part(void *given) {
    const norm *p = given;
    int64_t from, to;
    part_of(p->rows, &from, &to);
    for (int64_t m = from; m < to; m++) {
        int64_t at = m * p->width;
        v_wide inverse = v_all(p->inverse[m]), sum = v_zero();
        for (int64_t i = 0; i < p->width; i += LANES) {
            v_mask some = lanes(p->width - i);
            v_wide g = v_mul(load_some(p->grad + at + i, some),
                                     load_some(p->weight + i, some));
            sum = v_fma(g, load_some(p->x + at + i, some), sum);
        }
        float along = v_sum(sum) * p->inverse[m] / (float)p->width;
        v_wide part = v_all(along * p->inverse[m]);
        for (int64_t i = 0; i < p->width; i += LANES) {
            v_mask some = lanes(p->width - i);
            v_wide g = v_mul(load_some(p->grad + at + i, some),
                                     load_some(p->weight + i, some));
            g = v_fnma(load_some(p->x + at + i, some), part, g);
            g = v_mul(g, inverse);
            if (p->beside) g = v_add(g, load_some(p->beside + at + i, some));
            store_some(p->out + at + i, g, some);
        }
    }
}
int afina_norm_backward(norm *p, int threads) {
    in_parallel(norm_back_part, p, threads);
    return 0;
}

/* The gradient of a norm's weight: sum[i] += sum over m of grad[m, i] inverse[m] x[m, i], from the
   first row to the last. Columns are shared out. */
typedef struct {
    const bf16 *x, *grad;
    const float *inverse;
    float *sum;
    int64_t rows, width;
} scale_gradient;

static void scale_part(void *given) {
    const scale_gradient *p = given;
    int64_t from, to;
    part_of((p->width + LANES - 1) / LANES, &from, &to);
    for (int64_t i = from * LANES; i < to * LANES; i += LANES) {
        v_mask some = lanes(p->width - i);
        v_wide sum = v_zero();
        for (int64_t m = 0; m < p->rows; m++) {
            v_wide x = load_some(p->x + m * p->width + i, some);
            x = v_mul(x, v_all(p->inverse[m]));
            sum = v_fma(load_some(p->grad + m * p->width + i, some), x, sum);
        }
        sum = v_add(sum, v_load_some(some, p->sum + i));
        v_store_some(p->sum + i, some, sum);
    }
}
int afina_scale_gradient(scale_gradient *p, int threads) {
    in_parallel(scale_part, p, threads);
    return 0;
}

/* silu(gate) * up, where a row is gate and then up. arXiv:2002.05202 */
typedef struct {
    const bf16 *both; /* [rows, 2 width] */
    bf16 *inner;      /* [rows, width] */
    int64_t rows, width;
} gate;

static void gate_part(void *given) {
    const gate *p = given;
    int64_t from, to;
    part_of(p->rows, &from, &to);
    for (int64_t m = from; m < to; m++)
        for (int64_t i = 0; i < p->width; i += LANES) {
            v_mask some = lanes(p->width - i);
            const bf16 *at = p->both + 2 * m * p->width + i;
            v_wide x = load_some(at, some), up = load_some(at + p->width, some);
            v_wide done = v_mul(v_mul(x, chance(x)), up);
            store_some(p->inner + m * p->width + i, done, some);
        }
}
int afina_gate_forward(gate *p, int threads) {
    in_parallel(gate_part, p, threads);
    return 0;
}

/* Turns the first heads of each row by its position, in place: halves against halves, or back.
   cos and sin are [rows, size]. RoPE, arXiv:2104.09864 */
typedef struct {
    bf16 *x;
    const bf16 *cos, *sin;
    int64_t rows, row, heads, size;
    float sign; /* -1: back */
} rotation;

static void rotation_part(void *given) {
    const rotation *p = given;
    int64_t from, to, middle = p->size / 2;
    part_of(p->rows, &from, &to);
    v_wide sign = v_all(p->sign);
    for (int64_t m = from; m < to; m++)
        for (int64_t i = 0; i < middle; i += LANES) {
            v_mask some = lanes(middle - i);
            const bf16 *c = p->cos + m * p->size + i, *s = p->sin + m * p->size + i;
            v_wide c1 = load_some(c, some), c2 = load_some(c + middle, some);
            v_wide s1 = load_some(s, some), s2 = load_some(s + middle, some);
            /* going back each bf16 takes the other one's sine */
            v_wide of_high = p->sign > 0 ? s1 : s2, of_low = p->sign > 0 ? s2 : s1;
            of_high = v_mul(of_high, sign);
            of_low = v_mul(of_low, sign);
            for (int64_t h = 0; h < p->heads; h++) {
                bf16 *at = p->x + m * p->row + h * p->size + i;
                v_wide low = load_some(at, some), high = load_some(at + middle, some);
                v_wide first = v_fnma(high, of_high, v_mul(low, c1));
                v_wide second = v_fma(low, of_low, v_mul(high, c2));
                store_some(at, first, some);
                store_some(at + middle, second, some);
            }
        }
}
int afina_rotate(rotation *p, int threads) {
    in_parallel(rotation_part, p, threads);
    return 0;
}

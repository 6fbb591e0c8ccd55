/* What a step does to each row by itself: norms, rotary positions, the gate of the wide layer. */
#include "step.h"

/* e to the x, within two units of the last place: 2^n times a polynomial in the rest (Cephes'
   expf). Far below, zero. */
__m512 step_exp(__m512 x) {
    x = _mm512_min_ps(x, _mm512_set1_ps(88.0f));
    x = _mm512_max_ps(x, _mm512_set1_ps(-104.0f));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

/* The row divided by its root mean square, rounded, times the weight: where transformers rounds. */
void step_norm(const bf16 *h, const bf16 *weight, double eps, int64_t width, bf16 *out) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < width; i += 16) {
        __m512 x = widened(h + i);
        sum = _mm512_fmadd_ps(x, x, sum);
    }
    float mean = _mm512_reduce_add_ps(sum) / (float)width;
    __m512 scale = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_sqrt_ps(_mm512_set1_ps(mean + (float)eps)));
    for (int64_t i = 0; i < width; i += 16) {
        put_narrowed(out + i, _mm512_mul_ps(widened(h + i), scale));
        put_narrowed(out + i, _mm512_mul_ps(widened(out + i), widened(weight + i)));
    }
}

/* silu(gate) * up, for gate and up side by side. */
void step_gate(const bf16 *gate_up, int64_t wide, bf16 *out) {
    const __m512 one = _mm512_set1_ps(1.0f);
    for (int64_t i = 0; i < wide; i += 16) {
        __m512 gate = widened(gate_up + i), up = widened(gate_up + wide + i);
        __m512 below = _mm512_add_ps(one, step_exp(_mm512_sub_ps(_mm512_setzero_ps(), gate)));
        put_narrowed(out + i, _mm512_mul_ps(_mm512_div_ps(gate, below), up));
    }
}

/* Rotates a head in place: its halves are the two coordinates. Halves need not be whole registers,
   so small heads go number by number. */
static void turn(bf16 *head, const bf16 *cos, const bf16 *sin, int64_t size) {
    int64_t half = size / 2, i = 0;
    for (; i + 16 <= half; i += 16) {
        __m512 x = widened(head + i), y = widened(head + half + i);
        __m512 c = widened(cos + i), s = widened(sin + i);
        put_narrowed(head + i, _mm512_fnmadd_ps(y, s, _mm512_mul_ps(x, c)));
        put_narrowed(head + half + i, _mm512_fmadd_ps(x, s, _mm512_mul_ps(y, c)));
    }
    if (i < half) {
        __mmask16 m = (__mmask16)((1u << (half - i)) - 1);
#define PART(p) _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)), 16))
        __m512 x = PART(head + i), y = PART(head + half + i), c = PART(cos + i), s = PART(sin + i);
        __m512 first = _mm512_fnmadd_ps(y, s, _mm512_mul_ps(x, c));
        __m512 second = _mm512_fmadd_ps(x, s, _mm512_mul_ps(y, c));
        _mm256_mask_storeu_epi16(head + i, m, (__m256i)_mm512_cvtneps_pbh(first));
        _mm256_mask_storeu_epi16(head + half + i, m, (__m256i)_mm512_cvtneps_pbh(second));
#undef PART
    }
}

/* Writes a head's key and value to their place in a block of the cache. */
static void keep(const network *n, const layer *l, int64_t slot, int64_t head, const bf16 *key,
                 const bf16 *value) {
    int64_t block = slot / PLACES, place = slot % PLACES, size = n->size;
    int64_t base = (block * n->kv_heads + head) * size * PLACES;
    for (int64_t i = 0; i < size; i += 2)
        memcpy(l->keys + base + i * PLACES + 2 * place, key + i, 2 * sizeof(bf16));
    bf16 *values = l->values + base + (place / 2) * size * 2 + place % 2;
    for (int64_t i = 0; i < size; i++) values[2 * i] = value[i];
}

/* Norms and rotates a row's queries and keys, and keeps its keys and values. */
void step_turn(const network *n, const layer *l, const step *s, int64_t row) {
    int64_t size = n->size, heads = n->heads + n->kv_heads;
    bf16 *qkv = s->qkv + row * (heads + n->kv_heads) * size;
    for (int64_t i = 0; i < heads; i++) {
        bf16 *head = qkv + i * size;
        const bf16 *norm = i < n->heads ? l->q_norm : l->k_norm;
        if (norm != NULL) step_norm(head, norm, n->head_eps, size, head);
        turn(head, s->cos + s->positions[row] * size, s->sin + s->positions[row] * size, size);
    }
    for (int64_t i = 0; i < n->kv_heads; i++) {
        const bf16 *key = qkv + (n->heads + i) * size;
        keep(n, l, s->slots[row], i, key, key + n->kv_heads * size);
    }
}

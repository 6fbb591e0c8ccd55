/* What a step does to each row by itself: norms, rotary positions, the gate of the wide layer. */
#include "step.h"

/* e to the x, within two units of the last place: 2^n times a polynomial in the rest (Cephes'
   expf). Far below, zero. */
v_wide step_exp(v_wide x) {
    x = v_min(x, v_all(88.0f));
    x = v_max(x, v_all(-104.0f));
    v_wide n = v_round(v_mul(x, v_all(1.44269504f)));
    v_wide r = v_fnma(n, v_all(0.693359375f), x);
    r = v_fnma(n, v_all(-2.12194440e-4f), r);
    v_wide p = v_all(1.9875691500e-4f);
    p = v_fma(p, r, v_all(1.3981999507e-3f));
    p = v_fma(p, r, v_all(8.3334519073e-3f));
    p = v_fma(p, r, v_all(4.1665795894e-2f));
    p = v_fma(p, r, v_all(1.6666665459e-1f));
    p = v_fma(p, r, v_all(5.0000001201e-1f));
    p = v_fma(p, v_mul(r, r), v_add(r, v_all(1.0f)));
    return v_times_power(p, n);
}

/* The row divided by its root mean square, rounded, times the weight: where transformers rounds. */
void step_norm(const bf16 *h, const bf16 *weight, double eps, int64_t width, bf16 *out) {
    v_wide sum = v_zero();
    for (int64_t i = 0; i < width; i += 16) {
        v_wide x = widened(h + i);
        sum = v_fma(x, x, sum);
    }
    float mean = v_sum(sum) / (float)width;
    v_wide scale = v_div(v_all(1.0f), v_sqrt(v_all(mean + (float)eps)));
    for (int64_t i = 0; i < width; i += 16) {
        put_narrowed(out + i, v_mul(widened(h + i), scale));
        put_narrowed(out + i, v_mul(widened(out + i), widened(weight + i)));
    }
}

/* silu(gate) * up, for gate and up side by side. */
void step_gate(const bf16 *gate_up, int64_t wide, bf16 *out) {
    const v_wide one = v_all(1.0f);
    for (int64_t i = 0; i < wide; i += 16) {
        v_wide gate = widened(gate_up + i), up = widened(gate_up + wide + i);
        v_wide below = v_add(one, step_exp(v_sub(v_zero(), gate)));
        put_narrowed(out + i, v_mul(v_div(gate, below), up));
    }
}

/* Rotates a head in place: its halves are the two coordinates. Halves need not be whole registers,
   so small heads go number by number. */
static void turn(bf16 *head, const bf16 *cos, const bf16 *sin, int64_t size) {
    int64_t half = size / 2, i = 0;
    for (; i + 16 <= half; i += 16) {
        v_wide x = widened(head + i), y = widened(head + half + i);
        v_wide c = widened(cos + i), s = widened(sin + i);
        put_narrowed(head + i, v_fnma(y, s, v_mul(x, c)));
        put_narrowed(head + half + i, v_fma(x, s, v_mul(y, c)));
    }
    if (i < half) {
        v_mask m = (v_mask)((1u << (half - i)) - 1);
#define PART(p) v_widened(v_load_half_some(m, p))
        v_wide x = PART(head + i), y = PART(head + half + i), c = PART(cos + i), s = PART(sin + i);
        v_wide first = v_fnma(y, s, v_mul(x, c));
        v_wide second = v_fma(x, s, v_mul(y, c));
        v_store_half_some(head + i, m, v_narrowed(first));
        v_store_half_some(head + half + i, m, v_narrowed(second));
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

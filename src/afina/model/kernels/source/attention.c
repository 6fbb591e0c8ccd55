/* Attention over a bin of chats, forward. See attention.h. */
#include "attention.h"

typedef struct {
    bf16 *k, *woven_v, *q;    /* [keys, D], [keys / 2][D][2], [D / 2][32][2] */
    bf16 *chances, *turned;   /* words of the chunk, and as a left side */
    float *scores, *sum;             /* [chunk][32], [32][D] */
} forward_room;

INLINE int find_room(forward_room *f, int64_t keys, int64_t size) {
    size_t of_keys = padded(2 * even(keys) * size), of_q = padded(2 * size * WIDE);
    size_t of_chunk = padded(4 * CHUNK * WIDE);
    char *at = room(3 * of_keys + 3 * of_q + 2 * of_chunk);
    if (!at) return 0;
    f->k = (bf16 *)at, at += of_keys;
    f->woven_v = (bf16 *)at, at += 2 * of_keys; /* the values themselves stand behind, first */
    f->q = (bf16 *)at, at += of_q;
    f->sum = (float *)at, at += 2 * of_q;
    f->scores = (float *)at, at += of_chunk;
    f->chances = (bf16 *)at;
    f->turned = f->chances + CHUNK * WIDE;
    return 1;
}

typedef struct { v_wide top[2], total[2]; } running;

/* Scores of a chunk become chances, as words of two keys; what was summed before shrinks. */
static void soften(forward_room *f, const columns *c, running *now, int64_t from, int64_t count,
                   float factor, int64_t size, int first) {
    v_wide scale = v_all(factor), lowest = v_all(-1e30f), shrink[2];
    for (int v = 0; v < 2; v++) {
        v_wide top = now->top[v];
        for (int64_t k = 0; k < count; k++) {
            float *at = f->scores + k * WIDE + LANES * v;
            v_wide score = v_mul(v_load(at), scale);
            if (is_edge(c, from + k))
                score = v_choose(sees(c, v, from + k), score, lowest);
            v_store(at, score);
            top = v_max(top, score);
        }
        shrink[v] = power_of_two(v_sub(now->top[v], top));
        now->top[v] = top;
        v_wide total = v_mul(now->total[v], shrink[v]);
        for (int64_t k = 0; k < count; k += 2) {
            const float *at = f->scores + k * WIDE + LANES * v;
            v_wide one = power_of_two(v_sub(v_load(at), top));
            v_wide two = k + 1 < count
                             ? power_of_two(v_sub(v_load(at + WIDE), top))
                             : v_zero();
            total = v_add(total, v_add(one, two));
            v_store_bits(f->chances + k * WIDE + WIDE * v, v_paired(one, two));
        }
        now->total[v] = total;
    }
    if (first) return;
    float by[WIDE];
    for (int v = 0; v < 2; v++) v_store(by + LANES * v, shrink[v]);
    for (int i = 0; i < WIDE; i++)
        for (int64_t d = 0; d < size; d += LANES) {
            float *at = f->sum + i * size + d;
            v_store(at, v_mul(v_load(at), v_all(by[i])));
        }
}

static void finish(const attention *p, const forward_room *f, const columns *c,
                   const running *now) {
    float top[WIDE], share[WIDE];
    v_wide one = v_all(1.0f);
    for (int v = 0; v < 2; v++) {
        v_store(top + LANES * v, now->top[v]);
        v_store(share + LANES * v, v_div(one, now->total[v]));
    }
    for (int i = 0; i < c->count; i++) {
        int64_t at = c->token[i] * p->queries + c->head[i];
        p->tops[2 * at] = top[i];
        p->tops[2 * at + 1] = share[i];
        for (int64_t d = 0; d < p->size; d += LANES) {
            v_wide done = v_load(f->sum + i * p->size + d);
            store16(p->out + at * p->size + d, v_mul(done, v_all(share[i])));
        }
    }
}

static void attend_columns(attention *p, forward_room *f, const job *j, int64_t at, int64_t g) {
    columns c;
    const bf16 *rows[WIDE] = {0};
    running now;
    int64_t size = p->size;
    find_columns(&c, p, j, at, g);
    for (int i = 0; i < c.count; i++)
        rows[i] = p->qkv + c.token[i] * row_of(p) + c.head[i] * size;
    pack_rows(f->q, rows, c.count, size);
    for (int v = 0; v < 2; v++) {
        now.top[v] = v_all(-1e30f);
        now.total[v] = v_zero();
    }
    for (int64_t from = c.unseen; from < c.seen_some; from += CHUNK) {
        int64_t count = c.seen_some - from < CHUNK ? c.seen_some - from : CHUNK;
        strip keys = {(const char *)(f->k + from * size), 2 * size, 4};
        multiply(f->scores, WIDE, keys, count, f->q, 2 * WIDE, size / 2, 0);
        int first = from == c.unseen;
        soften(f, &c, &now, from, count, p->scale * 1.4426950408889634f, size, first);
        strip chances = left_of(f->turned, f->chances, count);
        multiply_heads(f->sum, size, chances, c.count, f->woven_v + from * size, even(count) / 2,
                       !first);
    }
    finish(p, f, &c, &now);
}

static void attend_part(void *given) {
    attention *p = given;
    int64_t repeats = p->queries / p->keys;
    matrix_begin();
    for (int64_t n; (n = next_piece(p)) < p->count * p->keys;) {
        const job *j = p->jobs + n / p->keys;
        int64_t g = n % p->keys, keys = job_keys(j), all = (j->to - j->from) * repeats;
        forward_room f;
        if (!find_room(&f, keys, p->size)) { p->failed = 1; break; }
        bf16 *values = f.woven_v + even(keys) * p->size;
        copy_keys(f.k, p, j, p->queries + g);
        copy_keys(values, p, j, p->queries + p->keys + g);
        weave_rows(f.woven_v, values, keys, p->size);
        for (int64_t at = 0; at < all; at += WIDE) attend_columns(p, &f, j, at, g);
    }
    matrix_end();
}
int afina_attend(attention *p, int threads) {
    p->next = 0;
    in_parallel(attend_part, p, threads);
    return p->failed != 0;
}

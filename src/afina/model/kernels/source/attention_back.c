/* Attention over a bin of chats, backward. See attention.h.

   Chances are made again from the kept tops (arXiv:2205.14135). A job sums what its keys and values
   get in a place of its own; afterwards those sums are added in the order of jobs, key by key: a
   beginning that many chats share gets the same sum however many threads there are. */
#include "attention.h"

typedef struct {
    bf16 *k, *v, *woven_k;             /* [keys, D], twice, and [keys / 2][D][2] */
    bf16 *q, *grad;                    /* packed columns: [D / 2][32][2] */
    bf16 *rows, *woven_q, *woven_grad; /* [32, D], and [16][D][2] twice */
    bf16 *chances, *slopes, *words;    /* [chunk, 32] twice, and words of two keys */
    bf16 *turned;                      /* those as a left side */
    float *scores, *of_chances, *of_q; /* [chunk][32] twice, [32][D] */
} back_room;

INLINE char *take(char **at, size_t bytes) {
    char *here = *at;
    *at += padded(bytes);
    return here;
}
static int find_room(back_room *f, int64_t keys, int64_t size) {
    size_t of_keys = 2 * even(keys) * size, of_columns = 2 * size * WIDE;
    size_t of_chunk = 2 * CHUNK * WIDE;
    char *at = room(3 * padded(of_keys) + 7 * padded(of_columns) + 8 * padded(of_chunk));
    if (!at) return 0;
    f->k = (bf16 *)take(&at, of_keys);
    f->v = (bf16 *)take(&at, of_keys);
    f->woven_k = (bf16 *)take(&at, of_keys);
    f->q = (bf16 *)take(&at, of_columns);
    f->grad = (bf16 *)take(&at, of_columns);
    f->rows = (bf16 *)take(&at, of_columns);
    f->woven_q = (bf16 *)take(&at, of_columns);
    f->woven_grad = (bf16 *)take(&at, of_columns);
    f->of_q = (float *)take(&at, 2 * of_columns);
    f->chances = (bf16 *)take(&at, of_chunk);
    f->slopes = (bf16 *)take(&at, of_chunk);
    f->words = (bf16 *)take(&at, of_chunk);
    f->turned = (bf16 *)take(&at, of_chunk);
    f->scores = (float *)take(&at, 2 * of_chunk);
    f->of_chances = (float *)take(&at, 2 * of_chunk);
    return 1;
}

/* The columns' rows of x, packed as a right side and woven two by two; missing ones are 0. */
static void pack_columns(back_room *f, bf16 *packed, bf16 *woven, const bf16 *const *rows,
                         int count, int64_t size) {
    pack_rows(packed, rows, count, size);
    for (int i = 0; i < count; i++) memcpy(f->rows + i * size, rows[i], 2 * size);
    memset(f->rows + count * size, 0, 2 * (WIDE - count) * size);
    weave_rows(woven, f->rows, WIDE, size);
}

typedef struct { v_wide top[2], share[2], dot[2]; } known;

/* What the forward pass knew of the columns, and the products of outputs with their gradients. */
static void find_known(known *found, const attention *p, const columns *c) {
    float top[WIDE] = {0}, share[WIDE] = {0}, dot[WIDE] = {0};
    for (int i = 0; i < c->count; i++) {
        int64_t at = c->token[i] * p->queries + c->head[i];
        v_wide sum = v_zero();
        for (int64_t d = 0; d < p->size; d += LANES)
            sum = v_fma(load16(p->out + at * p->size + d),
                                  load16(p->of_out + at * p->size + d), sum);
        top[i] = p->tops[2 * at];
        share[i] = p->tops[2 * at + 1];
        dot[i] = v_sum(sum);
    }
    for (int v = 0; v < 2; v++) {
        found->top[v] = v_load(top + LANES * v);
        found->share[v] = v_load(share + LANES * v);
        found->dot[v] = v_load(dot + LANES * v);
    }
}

/* Chances and the gradients of scores of one key, 16 columns: chance (of_chance - dot) scale. */
INLINE void of_key(const back_room *f, const columns *c, const known *k, float scale, int64_t from,
                   int64_t key, int v, v_wide *chance, v_wide *slope) {
    int64_t at = key * WIDE + LANES * v;
    v_wide factor = v_all(scale * 1.4426950408889634f);
    v_wide score = v_mul(v_load(f->scores + at), factor);
    *chance = v_mul(power_of_two(v_sub(score, k->top[v])), k->share[v]);
    if (is_edge(c, from + key))
        *chance = v_where(sees(c, v, from + key), *chance);
    v_wide rest = v_sub(v_load(f->of_chances + at), k->dot[v]);
    *slope = v_mul(v_mul(*chance, rest), v_all(scale));
}
static void find_slopes(back_room *f, const columns *c, const known *k, float scale, int64_t from,
                        int64_t count) {
    for (int64_t key = 0; key < count; key += 2)
        for (int v = 0; v < 2; v++) {
            int64_t at = key * WIDE + LANES * v;
            v_wide chance, slope, next_chance, next = v_zero();
            of_key(f, c, k, scale, from, key, v, &chance, &slope);
            store16(f->chances + at, chance);
            store16(f->slopes + at, slope);
            if (key + 1 < count) {
                of_key(f, c, k, scale, from, key + 1, v, &next_chance, &next);
                store16(f->chances + at + WIDE, next_chance);
                store16(f->slopes + at + WIDE, next);
            }
            v_store_bits(f->words + key * WIDE + WIDE * v, v_paired(slope, next));
        }
}

static void pull_columns(attention *p, back_room *f, const job *j, int64_t at, int64_t g,
                         float *of_k, float *of_v) {
    columns c;
    known k;
    const bf16 *queries[WIDE] = {0}, *grads[WIDE] = {0};
    int64_t size = p->size;
    find_columns(&c, p, j, at, g);
    for (int i = 0; i < c.count; i++) {
        queries[i] = p->qkv + c.token[i] * row_of(p) + c.head[i] * size;
        grads[i] = p->of_out + (c.token[i] * p->queries + c.head[i]) * size;
    }
    pack_columns(f, f->q, f->woven_q, queries, c.count, size);
    pack_columns(f, f->grad, f->woven_grad, grads, c.count, size);
    find_known(&k, p, &c);
    for (int64_t from = c.unseen; from < c.seen_some; from += CHUNK) {
        int64_t count = c.seen_some - from < CHUNK ? c.seen_some - from : CHUNK;
        strip keys = {(const char *)(f->k + from * size), 2 * size, 4};
        strip values = {(const char *)(f->v + from * size), 2 * size, 4};
        multiply(f->scores, WIDE, keys, count, f->q, 2 * WIDE, size / 2, 0);
        multiply(f->of_chances, WIDE, values, count, f->grad, 2 * WIDE, size / 2, 0);
        find_slopes(f, &c, &k, p->scale, from, count);
        strip chances = {(const char *)f->chances, 2 * WIDE, 4};
        strip slopes = {(const char *)f->slopes, 2 * WIDE, 4};
        strip words = left_of(f->turned, f->words, count);
        multiply_heads(of_v + from * size, size, chances, count, f->woven_grad, WIDE / 2, 1);
        multiply_heads(of_k + from * size, size, slopes, count, f->woven_q, WIDE / 2, 1);
        multiply_heads(f->of_q, size, words, c.count, f->woven_k + from * size, even(count) / 2,
                       from > c.unseen);
    }
    for (int i = 0; i < c.count; i++)
        for (int64_t d = 0; d < size; d += LANES)
            store16(p->of_qkv + c.token[i] * row_of(p) + c.head[i] * size + d,
                    v_load(f->of_q + i * size + d));
}

static void pull_part(void *given) {
    attention *p = given;
    int64_t repeats = p->queries / p->keys;
    matrix_begin();
    for (int64_t n; (n = next_piece(p)) < p->count * p->keys;) {
        const job *j = p->jobs + n / p->keys;
        int64_t g = n % p->keys, keys = job_keys(j), all = (j->to - j->from) * repeats;
        back_room f;
        if (!find_room(&f, keys, p->size)) { p->failed = 1; break; }
        copy_keys(f.k, p, j, p->queries + g);
        copy_keys(f.v, p, j, p->queries + p->keys + g);
        weave_rows(f.woven_k, f.k, keys, p->size);
        float *of_k = p->sums + (j->place * p->keys + g * keys) * 2 * p->size;
        memset(of_k, 0, 8 * keys * p->size);
        float *of_v = of_k + keys * p->size;
        for (int64_t at = 0; at < all; at += WIDE) pull_columns(p, &f, j, at, g, of_k, of_v);
    }
    matrix_end();
}

/* Adds what the job's keys [from, to) got (key `from` is token `at`) for tokens [first, last). */
INLINE void add_keys(float *sum, const attention *p, const job *j, int64_t side, int64_t g,
                     int64_t from, int64_t to, int64_t at, int64_t first, int64_t last) {
    int64_t keys = job_keys(j), size = p->size;
    const float *found = p->sums + ((j->place * p->keys + g * keys) * 2 + side * keys) * size;
    int64_t begin = at > first ? at : first, end = at + to - from < last ? at + to - from : last;
    for (int64_t t = begin; t < end; t++)
        for (int64_t d = 0; d < size; d += LANES) {
            const float *more = found + (from + t - at) * size + d;
            float *into = sum + (t - first) * size + d;
            v_store(into, v_add(v_load(into), v_load(more)));
        }
}
static void gather_part(void *given) {
    attention *p = given;
    int64_t blocks = (p->tokens + WIDE - 1) / WIDE, size = p->size, sides = 2 * p->keys, from, to;
    part_of(blocks, &from, &to);
    float *sum = (float *)room(4 * WIDE * size);
    if (!sum) { p->failed = 1; return; }
    for (int64_t n = from * sides; n < to * sides; n++) {
        int64_t first = n / sides * WIDE, side = n % sides / p->keys, g = n % p->keys;
        int64_t last = first + WIDE < p->tokens ? first + WIDE : p->tokens;
        memset(sum, 0, 4 * WIDE * size);
        for (const job *j = p->jobs; j < p->jobs + p->count; j++) {
            int64_t shared = j->befores > j->first ? j->befores - j->first : 0;
            add_keys(sum, p, j, side, g, 0, shared, j->before + j->first, first, last);
            add_keys(sum, p, j, side, g, shared, job_keys(j),
                     j->start + shared + j->first - j->befores, first, last);
        }
        for (int64_t t = first; t < last; t++)
            for (int64_t d = 0; d < size; d += LANES)
                store16(p->of_qkv + t * row_of(p) + (p->queries + n % sides) * size + d,
                        v_load(sum + (t - first) * size + d));
    }
}
int afina_attend_back(attention *p, int threads) {
    p->next = 0;
    in_parallel(pull_part, p, threads);
    if (!p->failed) in_parallel(gather_part, p, threads);
    return p->failed != 0;
}

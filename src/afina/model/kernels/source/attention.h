/* What the forward and the backward pass of attention share: jobs, keys, blocks of columns.

   A job is a stretch of one chat's queries with all the keys that they may see: those of the
   beginning that it shares, and its own. Scores are made turned, keys by columns: a column is one
   query of one head, so a softmax runs down vectors, and the query heads of a key head stand side
   by side. Keys are taken in chunks that stay in the first cache, as FlashAttention does
   (arXiv:2205.14135): no scores are ever kept. */
#ifndef AFINA_ATTENTION_H
#define AFINA_ATTENTION_H
#include "matrix.h"
#include "tile.h"

#if AFINA_MATRIX
#define CHUNK 256 /* keys at a time, a multiple of a tile's rows and of what it sums */
#else
#define CHUNK 240 /* keys at a time, a multiple of a tile's rows and of 2 */
#define matrix_begin()
#define matrix_end()
#endif

typedef struct {
    int64_t before, befores; /* the shared beginning: its first token, its tokens */
    int64_t start;           /* the chat's own first token */
    int64_t from, to;        /* the stretch of its queries */
    int64_t first;           /* the first key that any of them sees, an even number */
    int64_t place;           /* where the job's sums for keys begin, in keys */
} job;

typedef struct {
    const bf16 *qkv; /* [tokens, queries + 2 keys, size] */
    bf16 *out;       /* [tokens, queries * size] */
    float *tops;     /* [tokens, queries, 2]: the largest score, and 1 over the sum */
    const bf16 *of_out;
    bf16 *of_qkv;
    float *sums; /* [keys of all jobs, keys, 2, size]: by job, head, side, key */
    const job *jobs;
    int64_t count, tokens, queries, keys, size;
    int64_t window; /* 0: none */
    float scale;
    int64_t next, failed;
} attention;

INLINE int64_t job_keys(const job *j) { return j->befores + j->to - j->first; }
INLINE int64_t even(int64_t n) { return (n + 1) & ~(int64_t)1; }
INLINE int64_t row_of(const attention *p) { return (p->queries + 2 * p->keys) * p->size; }
INLINE int64_t token_of(const job *j, int64_t key) {
    key += j->first;
    return key < j->befores ? j->before + key : j->start + key - j->befores;
}

/* Copies the job's keys or values (column `head` of qkv) into rows one behind another. */
INLINE void copy_keys(bf16 *out, const attention *p, const job *j, int64_t head) {
    int64_t count = job_keys(j), size = p->size, row = row_of(p);
    for (int64_t k = 0; k < count; k++)
        memcpy(out + k * size, p->qkv + token_of(j, k) * row + head * size, 2 * size);
    if (count & 1) memset(out + count * size, 0, 2 * size);
}
/* Rows two by two as steps: [count / 2][size][2]. */
INLINE void weave_rows(bf16 *out, const bf16 *rows, int64_t count, int64_t size) {
    for (int64_t k = 0; k < count; k += 2)
        for (int64_t d = 0; d < size; d += WIDE)
            weave(out + k * size + 2 * d, v_load_bits(rows + k * size + d),
                  v_load_bits(rows + (k + 1) * size + d));
}

/* Thirty-two columns of a job: queries of one position side by side by head. */
typedef struct {
    int count;
    int64_t token[WIDE], head[WIDE];
    int64_t seen_all, seen_some, unseen; /* keys: all columns see below seen_all, some below
                                            seen_some; none sees below unseen */
    int64_t skipped_some;                /* from here on no column is behind its window */
    v_bits limit[2], floor[2];          /* of each column: floor <= key < limit */
} columns;

INLINE void find_columns(columns *c, const attention *p, const job *j, int64_t at, int64_t g) {
    int64_t repeats = p->queries / p->keys, all = (j->to - j->from) * repeats;
    int32_t limit[WIDE], low[WIDE];
    c->count = all - at < WIDE ? (int)(all - at) : WIDE;
    for (int i = 0; i < WIDE; i++) {
        int64_t column = i < c->count ? at + i : at + c->count - 1;
        int64_t position = j->from + column / repeats;
        int64_t seen = j->befores + position + 1, hidden = p->window ? seen - p->window : 0;
        c->token[i] = j->start + position;
        c->head[i] = g * repeats + column % repeats;
        limit[i] = (int32_t)(seen - j->first);
        low[i] = hidden > j->first ? (int32_t)(hidden - j->first) : 0;
    }
    c->seen_all = limit[0];
    c->seen_some = limit[c->count - 1];
    c->unseen = low[0] & ~1;
    c->skipped_some = low[c->count - 1];
    for (int v = 0; v < 2; v++) {
        c->limit[v] = v_load_bits(limit + LANES * v);
        c->floor[v] = v_load_bits(low + LANES * v);
    }
}
INLINE v_mask sees(const columns *c, int v, int64_t key) {
    v_bits k = v_all_words((int32_t)key);
    return v_below_words(k, c->limit[v]) & ~v_below_words(k, c->floor[v]);
}
INLINE int is_edge(const columns *c, int64_t key) {
    return key >= c->seen_all || key < c->skipped_some;
}

/* Products of the passes: out[row][32 columns] = or += left x right, fp32. `left_of` makes a left
   side of words of two keys, [keys / 2][32 columns]: a row is a column. */
#if AFINA_MATRIX
static void multiply(float *out, int64_t row, strip a, int64_t rows, const bf16 *b, int64_t b_row,
                     int64_t steps, int more) {
    for (int64_t m = 0; m < rows; m += MATRIX_ROWS) {
        matrix_sides s = {a.at + m * a.row, a.row, 64, (const char *)b, 2 * b_row, steps, {NULL, 0}};
        int64_t count = rows - m < MATRIX_ROWS ? rows - m : MATRIX_ROWS;
        matrix_product(out + m * row, 4 * row, &s, count, more);
    }
}
static strip left_of(bf16 *turned, const bf16 *words, int64_t keys) {
    for (int side = 0; side < WIDE; side += LANES)
        for (int64_t k = 0; k < keys; k += 2 * LANES) {
            v_bits r[LANES];
            for (int i = 0; i < LANES; i++)
                r[i] = k + 2 * i < keys ? v_load_bits(words + (k + 2 * i) * WIDE + 2 * side)
                                        : v_no_bits();
            turn_square(r);
            for (int i = 0; i < LANES; i++)
                v_store_bits(turned + (side + i) * CHUNK + k, r[i]);
        }
    strip found = {(const char *)turned, 2 * CHUNK, 4};
    return found;
}
#else
#define ONE_BLOCK(R)                                                                              \
    INLINE void block_##R(float *out, int64_t row, strip a, int64_t m, const char *b,             \
                          int64_t b_step, int64_t steps, int more) {                              \
        v_wide sum[R][2];                                                                         \
        float *at = out + m * row;                                                                \
        a.at += m * a.row;                                                                        \
        EACH_ROW(R) EACH_SIDE(2) sum[r][v] =                                                      \
            more ? v_load(at + r * row + LANES * v) : v_zero();               \
        tile_##R##_2(a, b, b_step, steps, sum);                                                   \
        EACH_ROW(R) EACH_SIDE(2) v_store(at + r * row + LANES * v, sum[r][v]);           \
    }
ONE_BLOCK(12) ONE_BLOCK(8) ONE_BLOCK(4) ONE_BLOCK(2) ONE_BLOCK(1)

static void multiply(float *out, int64_t row, strip a, int64_t rows, const bf16 *b, int64_t b_row,
                     int64_t steps, int more) {
#define BLOCK_ONE(R, at) block_##R(out, row, a, at, (const char *)b, 2 * b_row, steps, more)
    BY_TILES(0, rows, BLOCK_ONE)
}
static strip left_of(bf16 *turned, const bf16 *words, int64_t keys) {
    (void)turned, (void)keys;
    strip found = {(const char *)words, 4, 4 * WIDE};
    return found;
}
#endif
/* The same for all `size` columns of a right side [steps][size][2]. */
static void multiply_heads(float *out, int64_t size, strip a, int64_t rows, const bf16 *b,
                           int64_t steps, int more) {
    for (int64_t d = 0; d < size; d += WIDE)
        multiply(out + d, size, a, rows, b + 2 * d, 2 * size, steps, more);
}

/* The next of `count` pieces of work, whoever is free. */
INLINE int64_t next_piece(attention *p) {
    return __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED);
}
#endif

/* One step of a decoder: its network, its positions, and the kernels that compute it.

   A row is a position. Everything that a row needs is summed in one order that its own place alone
   decides, so its bits never depend on its company, on chunks, or on the number of threads. The
   structs have their twins in step.py; all members are eight bytes wide. */
#ifndef AFINA_STEP_H
#define AFINA_STEP_H

#include "common.h"

#define OUTS 32  /* outputs of a block of weights */
#define RANKS 16 /* ranks of a page of an adapter */
#define PLACES 16 /* positions of a block of the cache */

extern void GOMP_barrier(void);

/* A linear layer, or several that read the same input, side by side (`parts` of them). */
typedef struct {
    const bf16 *weight;     /* [outs / 32][in / 2][32][2] */
    const void *codes;      /* the same in 4 or 8 bits, or NULL (step_few_bits.c) */
    const void *scales;
    const bf16 *bias;       /* [outs], or NULL */
    const float *factor;    /* [outs], or NULL: what the output is multiplied by */
    const float *offset;    /* [outs]: what is added then */
    const bf16 *a;          /* by page [parts][in / 2][16][2], or NULL: no adapter touches it */
    const bf16 *b;          /* by page [outs / 16][8][16][2] */
    const int64_t *part_of; /* [outs / 16] */
    int64_t a_apart, b_apart; /* numbers from one page to the next */
    int64_t in, outs, parts, bits;
} linear;

typedef struct {
    linear qkv, out, gate_up, down;
    const bf16 *before, *between; /* norms' weights [width] */
    const bf16 *q_norm, *k_norm;  /* of heads [size], or NULL */
    bf16 *keys;                   /* [blocks][kv_heads][size / 2][16][2] */
    bf16 *values;                 /* [blocks][kv_heads][8][size][2] */
    int64_t window;               /* positions that a query sees, or 0: all before it */
} layer;

typedef struct {
    const layer *layers;
    int64_t count;
    const bf16 *embedding; /* [vocabulary][width] */
    const bf16 *last;      /* norm */
    const linear *head;
    int64_t width, wide, heads, kv_heads, size;
    double scaling, eps, head_eps;
} network;

/* Neighbouring rows of one sequence: `count` positions from `start` on. */
typedef struct {
    int64_t row, count, start, table; /* the last: where its blocks begin among `tables` */
} piece;

/* Neighbouring rows that read the same weights: as trained, or in few bits. */
typedef struct {
    int64_t row, count, small;
} segment;

/* Neighbouring rows of one adapter. */
typedef struct {
    int64_t row, count;
} kin;

/* A thread takes the next part of the work by raising this; each has a cache line of its own. */
typedef struct {
    int64_t next;
    int64_t apart[7];
} claim;

typedef struct {
    int64_t rows, kept_rows;
    const int64_t *ids, *positions, *slots; /* [rows]; a slot is block * 16 + place */
    const bf16 *cos, *sin;      /* by position [size] */
    const piece *pieces;
    const int64_t *tables;      /* blocks */
    const segment *segments, *kept_segments;
    const kin *kins, *kept_kins;
    const int64_t *first_page, *kept_first_page; /* [rows + 1]: a row's pages among `pages` */
    const int64_t *pages, *kept_pages;
    const int64_t *kept;        /* rows whose logits are wanted */
    int64_t piece_count, segment_count, kept_segment_count, kin_count, kept_kin_count;
    bf16 *h, *x, *qkv, *seen, *gate_up, *wide, *low;
    bf16 *logits;               /* [kept_rows][vocabulary] */
    float *scores;              /* [threads][scores_size] */
    int64_t scores_size;
    float *sums;                /* [threads][sums_size] */
    int64_t sums_size;
    claim *claims;              /* zeros, one a phase */
    int64_t threads;
} step;

/* What a product reads and writes. */
typedef struct {
    const bf16 *x, *add; /* [rows][in]; [rows][outs] or NULL, may be out */
    bf16 *out;           /* [rows][outs] */
    const bf16 *low;     /* x A by page: [pages of all rows][parts][16] */
    const int64_t *first_page, *pages;
    const segment *segments;
    int64_t segment_count;
    float *sums;         /* room of this thread's for sums of inputs: [rows][in / 32] */
} flow;

static inline int64_t next_of(claim *c) {
    return __atomic_fetch_add(&c->next, 1, __ATOMIC_RELAXED);
}

static inline v_wide widened(const bf16 *from) {
    return v_widened(v_load_half(from));
}

static inline void put_narrowed(bf16 *to, v_wide x) {
    v_store_half(to, v_narrowed(x));
}

/* Two neighbouring numbers in all lanes. */
static inline v_pairs pair_of(const bf16 *from) {
    return v_pair(from);
}

/* step_products.c and step_few_bits.c; each thread begins and ends a step */
void step_begin(void);
void step_end(void);
void step_product(const linear *w, const flow *f, claim *c);
void step_small_tile(const linear *w, const flow *f, int64_t row, int64_t count, int64_t block);
void step_sums(const bf16 *x, int64_t in, float *sums);
void step_store(const linear *w, const flow *f, int64_t row, int64_t block, v_wide low,
                v_wide high);
/* step_adapters.c */
void step_low(const linear *w, const bf16 *x, bf16 *low, const kin *k, const int64_t *first_page,
              const int64_t *pages);
/* step_rows.c */
void step_norm(const bf16 *h, const bf16 *weight, double eps, int64_t width, bf16 *out);
void step_gate(const bf16 *gate_up, int64_t wide, bf16 *out);
void step_turn(const network *n, const layer *l, const step *s, int64_t row);
v_wide step_exp(v_wide x);
/* step_attention.c */
void step_attend(const network *n, const layer *l, const step *s, const piece *p, int64_t head,
                 float *scores);

#endif

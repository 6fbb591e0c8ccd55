/* A step of a decoder (Llama's make), from ids to logits, in one parallel region: each phase's work
   is taken part by part by whichever thread is free, and a barrier stands between phases. */
#include "step.h"

#define ROWS 4 /* that a thread takes at once where rows are worked on by themselves */

typedef struct {
    const network *n;
    const step *s;
    int64_t phase;
} walk;

static claim *begin_phase(walk *w) { return w->s->claims + w->phase++; }

/* Groups of rows, one after the other; ends with the phase's barrier. */
#define EACH(count, name, body)                                             \
    do {                                                                    \
        claim *taken = begin_phase(w);                                      \
        for (int64_t name = next_of(taken); name < (count); name = next_of(taken)) body \
        GOMP_barrier();                                                     \
    } while (0)

static float *sums_of(const step *s) { return s->sums + omp_get_thread_num() * s->sums_size; }

static int64_t groups_of(int64_t rows) { return (rows + ROWS - 1) / ROWS; }

static void embed(walk *w) {
    const network *n = w->n;
    const step *s = w->s;
    size_t bytes = (size_t)n->width * sizeof(bf16);
    EACH(s->rows, row,
         { memcpy(s->h + row * n->width, n->embedding + s->ids[row] * n->width, bytes); });
}

static void norm_rows(walk *w, const bf16 *weight) {
    const network *n = w->n;
    const step *s = w->s;
    EACH(groups_of(s->rows), group, {
        int64_t end = (group + 1) * ROWS < s->rows ? (group + 1) * ROWS : s->rows;
        for (int64_t row = group * ROWS; row < end; row++)
            step_norm(s->h + row * n->width, weight, n->eps, n->width, s->x + row * n->width);
    });
}

/* The low-rank inputs of one product, if any adapter touches it. */
static void lower(walk *w, const linear *of, const bf16 *x) {
    const step *s = w->s;
    if (of->a == NULL || s->kin_count == 0) return;
    EACH(s->kin_count, i, { step_low(of, x, s->low, s->kins + i, s->first_page, s->pages); });
}

static void multiply(walk *w, const linear *of, const bf16 *x, const bf16 *add, bf16 *out) {
    const step *s = w->s;
    flow f = {x, add, out, of->a == NULL || s->kin_count == 0 ? NULL : s->low,
              s->first_page, s->pages, s->segments, s->segment_count, sums_of(s)};
    lower(w, of, x);
    step_product(of, &f, begin_phase(w));
    GOMP_barrier();
}

static void attend(walk *w, const layer *l) {
    const network *n = w->n;
    const step *s = w->s;
    float *scores = s->scores + omp_get_thread_num() * s->scores_size;
    EACH(groups_of(s->rows), group, {
        int64_t end = (group + 1) * ROWS < s->rows ? (group + 1) * ROWS : s->rows;
        for (int64_t row = group * ROWS; row < end; row++) step_turn(n, l, s, row);
    });
    EACH(s->piece_count * n->kv_heads, unit, {
        step_attend(n, l, s, s->pieces + unit / n->kv_heads, unit % n->kv_heads, scores);
    });
}

static void gate_rows(walk *w) {
    const network *n = w->n;
    const step *s = w->s;
    EACH(groups_of(s->rows), group, {
        int64_t end = (group + 1) * ROWS < s->rows ? (group + 1) * ROWS : s->rows;
        for (int64_t row = group * ROWS; row < end; row++)
            step_gate(s->gate_up + row * 2 * n->wide, n->wide, s->wide + row * n->wide);
    });
}

/* Logits of the kept rows. */
static void answer(walk *w) {
    const network *n = w->n;
    const step *s = w->s;
    const linear *of = n->head;
    EACH(s->kept_rows, row, {
        step_norm(s->h + s->kept[row] * n->width, n->last, n->eps, n->width, s->x + row * n->width);
    });
    int touched = of->a != NULL && s->kept_kin_count > 0;
    if (touched)
        EACH(s->kept_kin_count, i,
             { step_low(of, s->x, s->low, s->kept_kins + i, s->kept_first_page, s->kept_pages); });
    flow f = {s->x, NULL, s->logits, touched ? s->low : NULL, s->kept_first_page, s->kept_pages,
              s->kept_segments, s->kept_segment_count, sums_of(s)};
    step_product(of, &f, begin_phase(w));
}

static void forward(void *given) {
    walk copy = *(walk *)given, *w = &copy;
    const step *s = w->s;
    step_begin();
    embed(w);
    for (int64_t i = 0; i < w->n->count; i++) {
        const layer *l = w->n->layers + i;
        norm_rows(w, l->before);
        multiply(w, &l->qkv, s->x, NULL, s->qkv);
        attend(w, l);
        multiply(w, &l->out, s->seen, s->h, s->h);
        norm_rows(w, l->between);
        multiply(w, &l->gate_up, s->x, NULL, s->gate_up);
        gate_rows(w);
        multiply(w, &l->down, s->wide, s->h, s->h);
    }
    answer(w);
    step_end();
}

/* Computes a step. `s->claims` has `afina_step_phases` zeros. */
void afina_step(const network *n, const step *s) {
    walk w = {n, s, 0};
    in_parallel(forward, &w, (int)s->threads);
}

int64_t afina_step_phases(int64_t layers) { return 13 * layers + 4; }

/* Which token a row of logits gives, and how likely its tokens are. Formulas and reasons:
   afina/serving/sampling.py. A row is one thread's, from its first number to its last, whatever
   stands beside it. */
#include "tile.h"

enum { BLOCK = 256 };
static const float LOG2_E = 1.4426950408889634f;

typedef struct {
    const void *rows;      /* bf16, or fp32 where `wide` */
    const int64_t *places; /* [count] of the rows that are asked for */
    int64_t count, apart, width, padded, wide;
    int64_t crowded; /* set where there was no memory */
} table;

/* A row as a thread has it. */
typedef struct {
    float *y, *w; /* numbers over heat, and what they weigh: exp(y - top) */
    float top, bottom; /* the largest, and the least that is not minus infinity */
    int64_t padded;
    float *near_y, *near_w; /* room for some of both */
} line;

/* A line without numbers; 0, which is noted, where there is no memory. */
static int line_of(table *t, line *made) {
    size_t row = (size_t)t->padded + 4 * LANES;
    float *at = (float *)(void *)room(4 * sizeof(float) * row);
    if (!at) t->crowded = 1;
    *made = (line){at, at + row, 0, 0, t->padded, at + 2 * row, at + 3 * row};
    return at != NULL;
}

/* Takes a row's numbers, over `heat`; behind the last minus infinity, which weighs nothing. */
static void take(const table *t, int64_t row, float heat, line *l) {
    const bf16 *narrow = (const bf16 *)t->rows + row * t->apart;
    const float *wide = (const float *)t->rows + row * t->apart;
    v_wide over = v_all(heat), none = v_all(-INFINITY);
    v_wide top = none, bottom = v_all(INFINITY);
    for (int64_t i = 0; i < t->padded; i += LANES) {
        v_mask some = lanes(t->width - i);
        v_wide x = t->wide ? v_load_some(some, wide + i) : load_some(narrow + i, some);
        /* a zero more makes minus zero zero, which is its equal */
        x = v_choose(some, v_add(v_div(x, over), v_zero()), none);
        v_store(l->y + i, x);
        top = v_max(x, top);
        some = v_above(x, none);
        bottom = v_choose(some, v_min(x, bottom), bottom);
    }
    l->top = v_largest(top), l->bottom = v_least(bottom);
    top = v_all(l->top);
    for (int64_t i = 0; i < t->padded; i += LANES) {
        v_wide below = v_sub(v_load(l->y + i), top);
        v_wide power = power_of_two(v_mul(below, v_all(LOG2_E)));
        v_store(l->w + i, power);
    }
}

/* What those weigh that reach `least`. No more can weigh less: sums run in one order. */
static float mass(const float *y, const float *w, float least, int64_t count) {
    v_wide from = v_all(least), sum[4];
    for (int s = 0; s < 4; s++) sum[s] = v_zero();
    for (int64_t i = 0; i < count; i += 4 * LANES)
        for (int s = 0; s < 4; s++) {
            v_wide x = v_load(y + i + s * LANES);
            v_mask in = v_at_least(x, from);
            sum[s] = v_add_where(in, sum[s], v_load(w + i + s * LANES));
        }
    return v_sum(
        v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3])));
}

/* Numbers in the order of their bits, and back. */
INLINE int32_t turned(int32_t bits) { return bits ^ ((bits >> 31) & INT32_MAX); }
static int32_t order_of(float x) {
    int32_t bits;
    memcpy(&bits, &x, 4);
    return turned(bits);
}
static float number_at(int32_t order) {
    int32_t bits = turned(order);
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* Lays those side by side that reach `low` and not `high`, to the next whole step of `mass`. Their
   number; what weigh those that reach `high`, into *above. */
static int64_t gather(line *l, float low, float high, float *above) {
    v_wide least = v_all(low), most = v_all(high), sum = v_zero();
    int64_t count = 0;
    for (int64_t i = 0; i < l->padded; i += LANES) {
        v_wide y = v_load(l->y + i), w = v_load(l->w + i);
        v_mask over = v_at_least(y, most);
        sum = v_add_where(over, sum, w);
        v_mask in = v_at_least(y, least) & ~over;
        if (!in) continue;
        v_store(l->near_y + count, v_together(in, y));
        v_store(l->near_w + count, v_together(in, w));
        count += __builtin_popcount(in);
    }
    *above = v_sum(sum);
    for (; count % (4 * LANES); count++) l->near_y[count] = -INFINITY, l->near_w[count] = 0;
    return count;
}

/* The largest number of which those that reach it weigh `part` of all. First the numbers between
   the least and the largest are halved, then, among the few that are left, all that a float can
   be. */
static float threshold(line *l, float part) {
    if (!(l->bottom <= l->top)) return -INFINITY;
    float wanted = part * mass(l->y, l->w, -INFINITY, l->padded), above;
    float low = l->bottom, high = number_at(order_of(l->top) + 1);
    float middle = l->top - 16.0f; /* most often it is among the near ones */
    for (int halved = 0; halved < 7; halved++) {
        if (middle > low && middle < high) {
            if (mass(l->y, l->w, middle, l->padded) >= wanted)
                low = middle;
            else
                high = middle;
        }
        middle = low / 2 + high / 2;
    }
    int64_t count = gather(l, low, high, &above);
    int64_t first = order_of(low), last = order_of(high) - 1;
    while (first < last) {
        int64_t order = first + (last - first + 1) / 2;
        if (above + mass(l->near_y, l->near_w, number_at((int32_t)order), count) >= wanted)
            first = order;
        else
            last = order - 1;
    }
    return number_at((int32_t)first);
}

/* Noise --------------------------------------------------------------------------------------- */
static uint64_t mixed(uint64_t x) { /* the finaliser of splitmix64 */
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}
static float gumbel(uint64_t key, int64_t index) {
    uint64_t bits = mixed(key + (uint64_t)(index + 1) * 0x9E3779B97F4A7C15u);
    double even = ((double)(bits >> 11) + 0.5) * 0x1p-53;
    return -(float)__builtin_log(-__builtin_log(even));
}

/* Draws ---------------------------------------------------------------------------------------- */
typedef struct {
    table of;
    const uint64_t *keys;
    const float *heats, *limits;
    int64_t *found;
} draws;

/* First the block, by the logarithm of what it weighs, then the token in it. */
static int64_t drawn(const line *l, float least, uint64_t key, int64_t width) {
    int64_t blocks = l->padded / BLOCK, block = 0, token = 0;
    float best = -INFINITY;
    for (int64_t b = 0; b < blocks; b++) {
        float weight = mass(l->y + b * BLOCK, l->w + b * BLOCK, least, BLOCK);
        float x = __builtin_logf(weight) + gumbel(key, b);
        if (x > best) best = x, block = b;
    }
    best = -INFINITY;
    for (int64_t i = 0; i < BLOCK; i++) {
        float y = l->y[block * BLOCK + i];
        if (!(y >= least)) continue;
        float x = y + gumbel(key, blocks + i);
        if (x > best) best = x, token = i;
    }
    token += block * BLOCK;
    return token < width ? token : width - 1; /* where nothing is a number */
}

static void draw_part(void *given) {
    draws *d = given;
    int64_t from, to;
    part_of(d->of.count, &from, &to);
    line l;
    if (!line_of(&d->of, &l)) return;
    for (int64_t i = from; i < to; i++) {
        take(&d->of, d->of.places[i], d->heats[i], &l);
        float least = d->limits[i] < 1.0f ? threshold(&l, d->limits[i]) : -INFINITY;
        d->found[i] = drawn(&l, least, d->keys[i], d->of.width);
    }
}
int afina_draw(draws *d, int threads) {
    in_parallel(draw_part, d, threads);
    return d->of.crowded != 0;
}

/* Candidates ----------------------------------------------------------------------------------- */
typedef struct {
    table of;
    const int64_t *tokens; /* whose log-probability is told */
    int64_t *ids;          /* [count, most], the likeliest first, of equals the first */
    float *chosen, *told;  /* [count] and [count, most] */
    int64_t most;
} listing;

static void insert(float x, int64_t id, float *values, int64_t *ids, int64_t most) {
    int64_t at = most - 1;
    for (; at > 0 && values[at - 1] < x; at--) values[at] = values[at - 1], ids[at] = ids[at - 1];
    values[at] = x, ids[at] = id;
}
static void list_best(const line *l, float *values, int64_t *ids, int64_t most) {
    const float *y = l->y;
    for (int64_t k = 0; k < most; k++) values[k] = -INFINITY, ids[k] = k;
    for (int64_t i = 0; i < l->padded; i += LANES) {
        v_wide last = v_all(values[most - 1]);
        uint32_t over = v_above(v_load(y + i), last);
        for (; over; over &= over - 1) {
            int64_t id = i + __builtin_ctz(over);
            if (y[id] > values[most - 1]) insert(y[id], id, values, ids, most);
        }
    }
}

static void list_part(void *given) {
    listing *p = given;
    int64_t from, to;
    part_of(p->of.count, &from, &to);
    line l;
    if (!line_of(&p->of, &l)) return;
    for (int64_t i = from; i < to; i++) {
        take(&p->of, p->of.places[i], 1.0f, &l);
        float whole = __builtin_logf(mass(l.y, l.w, -INFINITY, l.padded));
        p->chosen[i] = l.y[p->tokens[i]] - l.top - whole;
        if (!p->most) continue;
        float *told = p->told + i * p->most;
        list_best(&l, told, p->ids + i * p->most, p->most);
        for (int64_t k = 0; k < p->most; k++) told[k] = told[k] - l.top - whole;
    }
}
int afina_candidates(listing *p, int threads) {
    in_parallel(list_part, p, threads);
    return p->of.crowded != 0;
}

/* Tiles of step_few_bits.c by bf16 products. Codes become bf16 by looking them up: a word holds four
   nibbles, VPERMW takes the low five bits of each word as an index, and a table that says the same for
   both values of the fifth makes masking needless (Intel 64 manual, volume 2C). Numbers of 0 to 15,
   and multiples of 16 up to 128, are exact in bf16. */
#ifndef AFINA_FEW_BITS_VECTORS_H
#define AFINA_FEW_BITS_VECTORS_H

#define TILE 4

static const uint16_t plain[16] = {0x0000, 0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0, 0x40C0, 0x40E0,
                                   0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};
/* -128 to 112 in steps of 16 */
static const uint16_t upper[16] = {0xC300, 0xC2E0, 0xC2C0, 0xC2A0, 0xC280, 0xC240, 0xC200, 0xC180,
                                   0x0000, 0x4180, 0x4200, 0x4240, 0x4280, 0x42A0, 0x42C0, 0x42E0};

static v_bits twice(const uint16_t *table) {
    return v_twice(v_load_half(table));
}

inlined v_pairs looked_up(v_bits table, v_bits words) {
    return v_looked_up(table, words);
}

/* Sums of one group: two chains for each half of a block. */
inlined void add_group(const bf16 *x, int64_t in, const uint16_t *codes, v_bits table,
                       v_wide sum[TILE][4], const int count) {
    for (int r = 0; r < count; r++)
        for (int s = 0; s < 4; s++) sum[r][s] = v_zero();
#pragma GCC unroll 2
    for (int64_t k = 0; k < GROUP; k += 4) {
        v_bits words = v_load_bits(codes + k * 8);
        v_pairs w[4] = {looked_up(table, words), looked_up(table, v_right(words, 4)),
                         looked_up(table, v_right(words, 8)),
                         looked_up(table, v_right(words, 12))};
#pragma GCC unroll 4
        for (int r = 0; r < count; r++) {
            v_pairs one = pair_of(x + r * in + k), two = pair_of(x + r * in + k + 2);
            sum[r][0] = v_dot(sum[r][0], one, w[0]);
            sum[r][1] = v_dot(sum[r][1], one, w[1]);
            sum[r][2] = v_dot(sum[r][2], two, w[2]);
            sum[r][3] = v_dot(sum[r][3], two, w[3]);
        }
    }
}

inlined void tile_4(const linear *w, const flow *f, int64_t row, int64_t block, const int count) {
    const uint16_t *codes = (const uint16_t *)w->codes + block * w->in * 8;
    const uint16_t *scales = (const uint16_t *)w->scales + block * w->in * 2;
    const bf16 *x = f->x + row * w->in;
    const float *sums = f->sums + row * (w->in / GROUP);
    const v_bits table = twice(plain);
    v_wide low[TILE], high[TILE];
    for (int r = 0; r < count; r++) low[r] = high[r] = v_zero();
    for (int64_t g = 0; g < w->in / GROUP; g++) {
        v_wide sum[TILE][4];
        add_group(x + g * GROUP, w->in, codes + g * GROUP * 8, table, sum, count);
        const uint16_t *s = scales + g * GROUP * 2;
        v_wide scale[2] = {halves(s), halves(s + 16)}, least[2] = {halves(s + 32), halves(s + 48)};
        for (int r = 0; r < count; r++) {
            v_wide all = v_all(sums[r * (w->in / GROUP) + g]);
            low[r] = v_fma(v_add(sum[r][0], sum[r][2]), scale[0], low[r]);
            high[r] = v_fma(v_add(sum[r][1], sum[r][3]), scale[1], high[r]);
            low[r] = v_fma(all, least[0], low[r]);
            high[r] = v_fma(all, least[1], high[r]);
        }
    }
    for (int r = 0; r < count; r++) step_store(w, f, row + r, block, low[r], high[r]);
}

inlined void tile_8(const linear *w, const flow *f, int64_t row, int64_t block, const int count) {
    const uint16_t *codes = (const uint16_t *)w->codes + block * w->in * 16;
    const float *scales = (const float *)w->scales + block * OUTS;
    const bf16 *x = f->x + row * w->in;
    const v_bits few = twice(plain), many = twice(upper);
    v_wide sum[TILE][4];
    for (int r = 0; r < count; r++)
        for (int s = 0; s < 4; s++) sum[r][s] = v_zero();
    for (int64_t k = 0; k < w->in; k += 2) {
        v_bits words = v_load_bits(codes + k * 16);
        v_pairs c[4] = {looked_up(few, words), looked_up(many, v_right(words, 4)),
                         looked_up(few, v_right(words, 8)),
                         looked_up(many, v_right(words, 12))};
#pragma GCC unroll 4
        for (int r = 0; r < count; r++) {
            v_pairs both = pair_of(x + r * w->in + k);
            for (int s = 0; s < 4; s++) sum[r][s] = v_dot(sum[r][s], both, c[s]);
        }
    }
    for (int r = 0; r < count; r++) {
        v_wide low = v_mul(v_add(sum[r][0], sum[r][1]), v_load(scales));
        v_wide high = v_mul(v_add(sum[r][2], sum[r][3]), v_load(scales + 16));
        step_store(w, f, row + r, block, low, high);
    }
}
#endif

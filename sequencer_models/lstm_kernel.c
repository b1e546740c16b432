/* LSTM recurrences of several directions over many sequences: forward, and the backward pass through time.
 *
 * Tokens lie in memory as the image has them; a lane (one direction of one pass) says which token a sequence reads at
 * which step. So nothing is transposed or copied on the way in or out, and columns, rows and flat sequences are one
 * routine. A task takes R sequences of one lane through all of their steps: its states and the recurrent weights stay
 * in cache. Products are summed in tiles that fill the registers; the gates are computed after all tiles of R sequences:
 * their long chains, between two tiles, would keep the next products waiting.
 *
 * Shapes: P lanes, D hidden size, T steps. Per token: gates P x 4D (input, forget, candidate, output, as in
 * nn.LSTM), hidden P x D, cell P x D. w_hh is P x 4D x D. These three tensors are float, or bfloat16 ("narrow");
 * weights, states and sums are float. Where the processor multiplies pairs of bfloat16 ("dots") and the tensors are
 * narrow, the factors of the recurrent products are rounded to it too, as autocast rounds those of nn.LSTM.
 *
 * Results do not depend on the number of threads: what is summed over sequences is summed in a fixed number of
 * parts, in a fixed order.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

/* Floats of a vector; tiles of MR sequences x NG vectors, and of WR rows x WG vectors of the weights' gradient. */
#if defined(__AVX512F__)
enum { VL = 16, MR = 6, NG = 4, WR = 8, WG = 3 }; /* 32 registers */
#elif defined(__AVX__)
enum { VL = 8, MR = 6, NG = 2, WR = 6, WG = 2 }; /* 16 registers: 12 sums, 2 weights, and what they are multiplied by */
#else
enum { VL = 4, MR = 4, NG = 4, WR = 4, WG = 4 }; /* NEON: 32 registers */
#endif
enum { R = 24, PARTS = 16 };

typedef float vf __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(2 * VL), aligned(2), may_alias));
#if defined(__AVX512F__) && defined(__AVX512BF16__)
enum { DOTS = 1 };
#else
enum { DOTS = 0 };
#endif
#define INLINE static inline __attribute__((always_inline))

/* Where a lane's sequences lie, in tokens: sequence s at step t reads
 * first + (s / inner_count) * outer + (s % inner_count) * inner + t * step. */
typedef struct {
    int64_t first, outer, inner_count, inner, step, steps, sequences;
} Lane;

/* ------------------------------------------------------------------ vectors */

INLINE vf splat(float x) { return x - (vf){}; } /* x + 0 would be an addition: of -0 it is not x */

INLINE vf load_full(const void *base, int64_t i, int narrow) {
    if (!narrow)
        return *(const vf *)((const float *)base + i);
    vu wide = __builtin_convertvector(*(const vh *)((const uint16_t *)base + i), vu) << 16;
    return (vf)wide;
}

INLINE vh to_bfloat16(vf x) { /* round to nearest even, as torch does; NaNs stay NaNs */
    vu bits = (vu)x;
    vu rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    vu is_nan = (vu)(x != x);
    return __builtin_convertvector((rounded & ~is_nan) | (0x7fc0 & is_nan), vh);
}

INLINE void store_full(void *base, int64_t i, vf x, int narrow) {
    if (narrow)
        *(vh *)((uint16_t *)base + i) = to_bfloat16(x);
    else
        *(vf *)((float *)base + i) = x;
}

/* n values of a vector, n < VL; in pieces of a size that the compiler knows. */
INLINE void copy_part(char *to, const char *from, int n, int size) {
#pragma GCC unroll 4
    for (int piece = VL / 2; piece > 0; piece /= 2)
        if (n & piece) {
            memcpy(to, from, (size_t)(piece * size));
            to += piece * size;
            from += piece * size;
        }
}

/* n values; the rest of the vector is 0. */
INLINE vf load(const void *base, int64_t i, int n, int narrow) {
    if (n == VL)
        return load_full(base, i, narrow);
    const int size = narrow ? 2 : 4;
    uint32_t part[VL] = {0};
    copy_part((char *)part, (const char *)base + i * size, n, size);
    return load_full(part, 0, narrow);
}

INLINE void store(void *base, int64_t i, vf x, int n, int narrow) {
    if (n == VL) {
        store_full(base, i, x, narrow);
        return;
    }
    const int size = narrow ? 2 : 4;
    uint32_t part[VL];
    store_full(part, 0, x, narrow);
    copy_part((char *)base + i * size, (const char *)part, n, size);
}

INLINE vu splat_pair(uint32_t pair) { return (vu){} + pair; }

/* Two neighbours of bfloat16 in each 32 bits: sum + a0 * b0 + a1 * b1. */
INLINE vf dot(vf sum, vu a, vu b) {
#if defined(__AVX512F__) && defined(__AVX512BF16__)
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
    (void)a, (void)b;
    return sum; /* never taken */
#endif
}

INLINE uint32_t rounded(float x) { /* as `to_bfloat16`; weights are no NaNs */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

INLINE uint32_t pair_of(float low, float high) { return rounded(low) | rounded(high) << 16; }

/* Rows 2i and 2i + 1 of `from` (rows x width) side by side: (rows / 2) x width pairs. */
INLINE void interleave(uint32_t *to, const uint16_t *from, int rows, int width) {
    for (int r = 0; r < rows; r += 2)
        for (int u = 0; u < width; u += VL) {
            vu low = __builtin_convertvector(*(const vh *)(from + r * width + u), vu);
            vu high = __builtin_convertvector(*(const vh *)(from + (r + 1) * width + u), vu);
            *(vu *)(to + r / 2 * width + u) = low | high << 16;
        }
}

INLINE vf choose(vi mask, vf yes, vf no) { return (vf)(((vi)yes & mask) | ((vi)no & ~mask)); }

/* exp within 2 ulp of e^x, x cut off at +-87. Cephes' reduction and polynomial. */
INLINE vf exp_of(vf x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = choose(x < 87.0f, x, splat(87.0f));
    x = choose(x > -87.0f, x, splat(-87.0f));
    vf shifted = x * 1.44269504f + magic;
    vf n = shifted - magic;
    vf r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vf p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return (vf)((vi)p + ((vi)shifted << 23));
}

INLINE vf reciprocal(vf x) {
#if defined(__AVX512F__)
    vf guess = (vf)_mm512_rcp14_ps((__m512)x); /* 14 bits; a Newton step doubles them */
    return guess * (2.0f - x * guess);
#else
    return 1.0f / x;
#endif
}

INLINE vf sigmoid(vf x) { return reciprocal(1.0f + exp_of(-x)); }

INLINE vf tanh_of(vf x) { return 1.0f - 2.0f * reciprocal(1.0f + exp_of(2.0f * x)); } /* within 2e-7 */

/* ------------------------------------------------------------------ tasks */

INLINE int64_t token(const Lane *lane, int64_t sequence) {
    return lane->first + sequence / lane->inner_count * lane->outer + sequence % lane->inner_count * lane->inner;
}

INLINE int left(int D, int group) { return D - group * VL < VL ? D - group * VL : VL; }

static float *zeros(size_t count) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, count * sizeof(float)))
        return NULL;
    return memset(memory, 0, count * sizeof(float));
}

/* One lane's recurrent weights, for each group of VL units: step of the sum x gate x unit. */
static void pack_by_gate(float *packed, const float *w, int D, int groups) {
    for (int j = 0; j < groups; j++)
        for (int k = 0; k < D; k++)
            for (int g = 0; g < 4; g++)
                for (int v = 0; v < VL; v++)
                    packed[((j * D + k) * 4 + g) * VL + v] = j * VL + v < D ? w[(g * D + j * VL + v) * D + k] : 0;
}

/* The same in pairs of steps of the sum. */
static void pack_pairs_by_gate(uint32_t *packed, const float *w, int D, int groups) {
    const int pairs = (D + 1) / 2;
    for (int j = 0; j < groups; j++)
        for (int k = 0; k < pairs; k++)
            for (int g = 0; g < 4; g++)
                for (int v = 0; v < VL; v++) {
                    const float *row = w + (g * D + j * VL + v) * D + 2 * k;
                    packed[((j * pairs + k) * 4 + g) * VL + v] =
                        j * VL + v < D ? pair_of(row[0], 2 * k + 1 < D ? row[1] : 0.0f) : 0;
                }
}

/* How many of the groups that are left `hidden_tile` takes at once: as evenly as can be. */
INLINE int at_once(int groups) {
    const int uneven = NG == 4 && (groups == NG + 1 || groups == NG + 2);
    return groups >= NG && !uneven ? NG : groups < 3 ? groups : 3;
}

/* One lane's recurrent weights as `hidden_tile` reads them: for the groups that it takes at once, row by row; filled up
 * with 0 to 4 * units x units. And that in pairs of rows. */
static void pack_by_row(float *packed, const float *w, int D, int units) {
    for (int j = 0, count; j < units / VL; j += count) {
        count = at_once(units / VL - j);
        const int width = count * VL, first = j * VL, n = D - first < width ? D - first : width;
        float *panel = packed + (int64_t)4 * units * first;
        for (int row = 0; row < 4 * D; row++)
            memcpy(panel + (row / D * units + row % D) * width, w + row * D + first, (size_t)n * sizeof(float));
    }
}

static void pack_pairs_by_row(uint32_t *packed, const float *w, int D, int units) {
    for (int j = 0, count; j < units / VL; j += count) {
        count = at_once(units / VL - j);
        const int width = count * VL, first = j * VL, n = D - first < width ? D - first : width;
        uint32_t *panel = packed + (int64_t)2 * units * first;
        for (int row = 0; row < 4 * units; row += 2)
            for (int u = 0; u < n; u++) {
                const int g = row / units, unit = row % units; /* units are even: a pair is of one gate */
                const float *at = w + (g * D + unit) * D + first + u;
                panel[row / 2 * width + u] = unit < D ? pair_of(at[0], unit + 1 < D ? at[D] : 0.0f) : 0;
            }
    }
}

/* Sums of NG gates, from `first` on, of group j, for MR sequences: of what is projected, the bias, and what the hidden
 * states of the step before give. The gates that are read `ahead` bytes from here are asked for. */
INLINE void gate_tile(vf (*sums)[4], char *const *gates_of, int64_t ahead, const float *w, const vf *bias,
                      const float *h, int D, int j, int first, int first_step, const int narrow) {
    const int units = (D + VL - 1) / VL * VL, rest = left(D, j), size = narrow ? 2 : 4, dots = narrow && DOTS;
    vf sum[MR][NG];
#pragma GCC unroll 8
    for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
        for (int g = 0; g < NG; g++) {
            const int at = (first + g) * D + j * VL;
            sum[r][g] = load(gates_of[r], at, rest, narrow) + bias[first + g];
            __builtin_prefetch(gates_of[r] + ahead + at * size, 1);
        }
    if (!first_step && dots)
        for (int k = 0; k < (D + 1) / 2; k++) {
            const vu *row = (const vu *)w + 4 * k + first;
            vu wk[NG];
#pragma GCC unroll 4
            for (int g = 0; g < NG; g++)
                wk[g] = row[g];
#pragma GCC unroll 8
            for (int r = 0; r < MR; r++) {
                vu x = splat_pair(((const uint32_t *)h)[r * units / 2 + k]);
#pragma GCC unroll 4
                for (int g = 0; g < NG; g++)
                    sum[r][g] = dot(sum[r][g], wk[g], x);
            }
        }
    else if (!first_step)
        for (int k = 0; k < D; k++) {
            const vf *row = (const vf *)w + 4 * k + first;
            vf wk[NG];
#pragma GCC unroll 4
            for (int g = 0; g < NG; g++)
                wk[g] = row[g];
#pragma GCC unroll 8
            for (int r = 0; r < MR; r++) {
                vf x = splat(h[r * units + k]);
#pragma GCC unroll 4
                for (int g = 0; g < NG; g++)
                    sum[r][g] += wk[g] * x;
            }
        }
#pragma GCC unroll 8
    for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
        for (int g = 0; g < NG; g++)
            sums[r][first + g] = sum[r][g];
}

/* R sequences (or the rest) of a lane through all steps. `state`: hidden twice, then cell, each R x units. */
INLINE void forward_task(const Lane *lane, int p, int P, int D, int64_t from, int n, char *gates, const float *packed,
                         const float *bias, char *hidden, char *cell, float *state, char *dummy, const int narrow) {
    const int groups = (D + VL - 1) / VL, units = groups * VL, size = narrow ? 2 : 4;
    const int tiles = (n + MR - 1) / MR, dots = narrow && DOTS, pairs = (D + 1) / 2;
    const int width = dots ? units / 2 : units; /* of the hidden states of a sequence, in floats */
    float *before = state, *after = state + R * units, *c = state + 2 * R * units;
    int64_t start[R];
    for (int r = 0; r < n; r++)
        start[r] = token(lane, from + r);
    memset(state, 0, (size_t)(3 * R * units) * sizeof(float));
    for (int64_t t = 0; t < lane->steps; t++) {
        char *gates_of[R], *hidden_of[R], *cell_of[R];
        const int64_t ahead = t + 1 < lane->steps ? lane->step * P * 4 * D * size : 0;
        for (int r = 0; r < tiles * MR; r++) {
            int64_t at = r < n ? start[r] + t * lane->step : 0;
            gates_of[r] = r < n ? gates + (at * P + p) * 4 * D * size : dummy;
            hidden_of[r] = hidden + (at * P + p) * D * size;
            cell_of[r] = cell ? cell + (at * P + p) * D * size : dummy;
        }
        for (int j = 0; j < groups; j++) {
            const int rest = left(D, j);
            const float *w = packed + (int64_t)j * (dots ? pairs : D) * 4 * VL;
            vf b[4];
            for (int g = 0; g < 4; g++)
                b[g] = load(bias, g * D + j * VL, rest, 0);
            vf sums[R][4];
            for (int r = 0; r < tiles * MR; r += MR)
#pragma GCC unroll 2
                for (int g = 0; g < 4; g += NG)
                    gate_tile(sums + r, gates_of + r, ahead, w, b, before + r * width, D, j, g, t == 0, narrow);
            for (int r = 0; r < n; r++) {
                const int at = r * units + j * VL;
                vf i = sigmoid(sums[r][0]), f = sigmoid(sums[r][1]), g = tanh_of(sums[r][2]), o = sigmoid(sums[r][3]);
                vf state_c = f * load_full(c, at, 0) + i * g;
                vf state_h = o * tanh_of(state_c);
                store_full(c, at, state_c, 0);
                store_full(after, at, state_h, dots);
                store(hidden_of[r], j * VL, state_h, rest, narrow);
                if (cell) {
                    store(gates_of[r], j * VL, i, rest, narrow);
                    store(gates_of[r], D + j * VL, f, rest, narrow);
                    store(gates_of[r], 2 * D + j * VL, g, rest, narrow);
                    store(gates_of[r], 3 * D + j * VL, o, rest, narrow);
                    store(cell_of[r], j * VL, state_c, rest, narrow);
                }
            }
        }
        float *swap = before;
        before = after;
        after = swap;
    }
}

/* Sums of `count` groups, from `j` on, of what reaches the hidden states: from above, and from the step after. */
INLINE void hidden_tile(float *grad_h, char *const *from_above, const float *grad_g, const float *w, int D, int j,
                        int units, int r0, int first_step, const int narrow, const int count) {
    const int dots = narrow && DOTS;
    vf sum[MR][NG];
#pragma GCC unroll 8
    for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
        for (int g = 0; g < count; g++)
            sum[r][g] = load(from_above[r0 + r], (j + g) * VL, left(D, j + g), narrow);
    if (!first_step && dots)
        for (int k = 0; k < 2 * units; k++) {
            const uint32_t *row = (const uint32_t *)w + (int64_t)2 * units * j * VL + k * count * VL;
            vu wk[NG];
#pragma GCC unroll 4
            for (int g = 0; g < count; g++)
                wk[g] = *(const vu *)(row + g * VL);
#pragma GCC unroll 8
            for (int r = 0; r < MR; r++) {
                vu x = splat_pair(((const uint32_t *)grad_g)[(int64_t)(r0 + r) * 2 * units + k]);
#pragma GCC unroll 4
                for (int g = 0; g < count; g++)
                    sum[r][g] = dot(sum[r][g], wk[g], x);
            }
        }
    else if (!first_step)
        for (int k = 0; k < 4 * units; k++) {
            const float *row = w + (int64_t)4 * units * j * VL + k * count * VL;
            vf wk[NG];
#pragma GCC unroll 4
            for (int g = 0; g < count; g++)
                wk[g] = *(const vf *)(row + g * VL);
#pragma GCC unroll 8
            for (int r = 0; r < MR; r++) {
                vf x = splat(grad_g[(int64_t)(r0 + r) * 4 * units + k]);
#pragma GCC unroll 4
                for (int g = 0; g < count; g++)
                    sum[r][g] += wk[g] * x;
            }
        }
#pragma GCC unroll 8
    for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
        for (int g = 0; g < count; g++)
            *(vf *)(grad_h + (r0 + r) * units + (j + g) * VL) = sum[r][g];
}

/* grad_w (4 * units x units) += grad_g^T h over n sequences, for WR rows and `count` groups of it; with dots over
 * pairs of sequences, interleaved. */
INLINE void weight_tile(float *grad_w, const float *grad_g, const float *h, int units, int row, int j, int n,
                        const int dots, const int count) {
    vf sum[WR][WG];
#pragma GCC unroll 8
    for (int i = 0; i < WR; i++)
#pragma GCC unroll 4
        for (int g = 0; g < count; g++)
            sum[i][g] = *(const vf *)(grad_w + (int64_t)(row + i) * units + (j + g) * VL);
    if (dots)
        for (int r = 0; r < (n + 1) / 2; r++) {
            vu hr[WG];
#pragma GCC unroll 4
            for (int g = 0; g < count; g++)
                hr[g] = *(const vu *)((const uint32_t *)h + r * units + (j + g) * VL);
#pragma GCC unroll 8
            for (int i = 0; i < WR; i++) {
                vu x = splat_pair(((const uint32_t *)grad_g)[(int64_t)r * 4 * units + row + i]);
#pragma GCC unroll 4
                for (int g = 0; g < count; g++)
                    sum[i][g] = dot(sum[i][g], hr[g], x);
            }
        }
    else
        for (int r = 0; r < n; r++) {
            vf hr[WG];
#pragma GCC unroll 4
            for (int g = 0; g < count; g++)
                hr[g] = *(const vf *)(h + r * units + (j + g) * VL);
#pragma GCC unroll 8
            for (int i = 0; i < WR; i++) {
                vf x = splat(grad_g[(int64_t)r * 4 * units + row + i]);
#pragma GCC unroll 4
                for (int g = 0; g < count; g++)
                    sum[i][g] += hr[g] * x;
            }
        }
#pragma GCC unroll 8
    for (int i = 0; i < WR; i++)
#pragma GCC unroll 4
        for (int g = 0; g < count; g++)
            *(vf *)(grad_w + (int64_t)(row + i) * units + (j + g) * VL) = sum[i][g];
}

/* R sequences (or the rest) of a lane backwards through all steps. `state`, each R x units: gradients of the hidden
 * and the cell state, hidden states of the step before; then R x 4 * units: gradients of the gates. With dots the last
 * two are bfloat16, and followed by the same in pairs of sequences. */
INLINE void backward_task(const Lane *lane, int p, int P, int D, int64_t from, int n, char *gates, const float *w,
                          const char *hidden, const char *cell, const char *grad_hidden, float *grad_w,
                          float *grad_bias, float *state, char *dummy, const int narrow) {
    const int groups = (D + VL - 1) / VL, units = groups * VL, size = narrow ? 2 : 4;
    const int tiles = (n + MR - 1) / MR, dots = narrow && DOTS;
    float *grad_h = state, *grad_c = state + R * units, *h_before = state + 2 * R * units;
    float *grad_g = state + 3 * R * units;
    float *h_pairs = h_before + R * units / 2, *grad_g_pairs = grad_g + 2 * R * units;
    int64_t start[R];
    for (int r = 0; r < n; r++)
        start[r] = token(lane, from + r);
    memset(state, 0, (size_t)(7 * R * units) * sizeof(float));
    for (int64_t t = lane->steps - 1; t >= 0; t--) {
        char *above[R];
        for (int r = 0; r < tiles * MR; r++)
            above[r] = r < n ? (char *)grad_hidden + ((start[r] + t * lane->step) * P + p) * D * size : dummy;
        for (int j = 0; j < groups;) {
            const int count = at_once(groups - j);
            for (int tile = 0; tile < tiles; tile++) {
                const int last = t == lane->steps - 1;
                if (NG >= 4 && count == 4)
                    hidden_tile(grad_h, above, grad_g, w, D, j, units, tile * MR, last, narrow, 4);
                else if (NG >= 3 && count == 3)
                    hidden_tile(grad_h, above, grad_g, w, D, j, units, tile * MR, last, narrow, 3);
                else if (count == 2)
                    hidden_tile(grad_h, above, grad_g, w, D, j, units, tile * MR, last, narrow, 2);
                else
                    hidden_tile(grad_h, above, grad_g, w, D, j, units, tile * MR, last, narrow, 1);
            }
            j += count;
        }
        for (int r = 0; r < n; r++) {
            const int64_t at = (start[r] + t * lane->step) * P + p, at_before = at - lane->step * P;
            char *gates_r = gates + at * 4 * D * size;
            for (int j = 0; j < groups; j++) {
                const int rest = left(D, j), u = j * VL;
                vf i = load(gates_r, u, rest, narrow), f = load(gates_r, D + u, rest, narrow);
                vf g = load(gates_r, 2 * D + u, rest, narrow), o = load(gates_r, 3 * D + u, rest, narrow);
                vf tanh_c = tanh_of(load(cell, at * D + u, rest, narrow));
                vf c_before = t > 0 ? load(cell, at_before * D + u, rest, narrow) : splat(0.0f);
                vf dh = load_full(grad_h, r * units + u, 0);
                vf dc = load_full(grad_c, r * units + u, 0) + dh * o * (1.0f - tanh_c * tanh_c);
                vf di = dc * g * i * (1.0f - i), df = dc * c_before * f * (1.0f - f);
                vf dg = dc * i * (1.0f - g * g), dout = dh * tanh_c * o * (1.0f - o);
                store_full(grad_c, r * units + u, dc * f, 0);
                const vf grads[4] = {di, df, dg, dout};
#pragma GCC unroll 4
                for (int gate = 0; gate < 4; gate++) {
                    store_full(grad_g, (int64_t)r * 4 * units + gate * units + u, grads[gate], dots);
                    store(gates_r, gate * D + u, grads[gate], rest, narrow);
                    *(vf *)(grad_bias + gate * units + u) += grads[gate];
                }
                if (t > 0)
                    store_full(h_before, r * units + u, load(hidden, at_before * D + u, rest, narrow), dots);
            }
        }
        const float *left_rows = dots ? grad_g_pairs : grad_g, *right_rows = dots ? h_pairs : h_before;
        if (dots && t > 0) {
            interleave((uint32_t *)h_pairs, (const uint16_t *)h_before, n, units);
            interleave((uint32_t *)grad_g_pairs, (const uint16_t *)grad_g, n, 4 * units);
        }
        if (t > 0)
            for (int j = 0; j < groups;) {
                const int count = groups - j >= WG && groups - j != WG + 1 ? WG : groups - j >= 2 ? 2 : 1;
                for (int row = 0; row < 4 * units; row += WR) {
                    if (count == WG)
                        weight_tile(grad_w, left_rows, right_rows, units, row, j, n, dots, WG);
                    else if (count == 2)
                        weight_tile(grad_w, left_rows, right_rows, units, row, j, n, dots, 2);
                    else
                        weight_tile(grad_w, left_rows, right_rows, units, row, j, n, dots, 1);
                }
                j += count;
            }
    }
}

/* ------------------------------------------------------------------ threads */

/* Torch's own OpenMP threads. Elsewhere than on a Mac its library is GNU's, or has GNU's entry points too, which every
 * compiler can call; what a Clang makes of a pragma would ask for those of LLVM's library. */
#if !defined(__APPLE__)
extern void GOMP_parallel(void (*work)(void *), void *data, unsigned threads, unsigned flags);
#endif

/* Tasks 0 <= i < count, each with `scratch` floats of its thread, which are 0 at first. */
typedef struct {
    void (*task)(const void *call, int64_t i, float *scratch);
    const void *call;
    int64_t count, next;
    size_t scratch;
    int short_of_memory;
} Loop;

static void work(void *shared) {
    Loop *loop = shared;
    float *scratch = zeros(loop->scratch);
    if (!scratch) {
        __atomic_store_n(&loop->short_of_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    for (int64_t i; (i = __atomic_fetch_add(&loop->next, 1, __ATOMIC_RELAXED)) < loop->count;)
        loop->task(loop->call, i, scratch);
    free(scratch);
}

/* Run them on all threads, in any order; back when all are done, with 0, or with -1 where memory was short. */
static int each(int64_t count, size_t scratch, void (*task)(const void *, int64_t, float *), const void *call) {
    Loop loop = {task, call, count, 0, scratch, 0};
#if defined(__APPLE__)
#pragma omp parallel
    work(&loop);
#else
    GOMP_parallel(work, &loop, 0, 0);
#endif
    return loop.short_of_memory ? -1 : 0;
}

/* ------------------------------------------------------------------ entry points */

/* The threads that the next call gets: a build that does not share torch's is found out by it. */
int seqpipe_lstm_threads(void) {
#if defined(__APPLE__) && !defined(_OPENMP)
    return 1;
#else
    extern int omp_get_max_threads(void);
    return omp_get_max_threads();
#endif
}

/* Which compiler this was. */
const char *seqpipe_lstm_compiler(void) {
#if defined(SEQPIPE_ZIG)
    return "zig (" __VERSION__ ")";
#elif defined(__clang__)
    return __VERSION__;
#else
    return "gcc " __VERSION__;
#endif
}

/* What the tasks of a call share. */
typedef struct {
    char *gates, *hidden, *cell;
    const char *grad_hidden;
    const float *w_hh, *bias;
    float *weights, *sums, *grad_w_hh, *grad_bias; /* weights: as the tasks read them */
    const Lane *lanes;
    const int64_t *tasks; /* of each lane the first */
    int P, D, narrow, groups, units, parts;
    size_t panel; /* floats of a lane in `weights` */
} Call;

static void pack_lane_by_gate(const void *shared, int64_t p, float *scratch) {
    const Call *c = shared;
    float *packed = c->weights + p * c->panel;
    const float *w = c->w_hh + p * 4 * c->D * c->D;
    (void)scratch;
    if (c->narrow && DOTS)
        pack_pairs_by_gate((uint32_t *)packed, w, c->D, c->groups);
    else
        pack_by_gate(packed, w, c->D, c->groups);
}

static void forward_block(const void *shared, int64_t task, float *scratch) {
    const Call *c = shared;
    char *dummy = (char *)(scratch + (size_t)3 * R * c->units);
    int p = 0;
    while (task >= c->tasks[p + 1])
        p++;
    const int64_t from = (task - c->tasks[p]) * R, rest = c->lanes[p].sequences - from;
    const int n = rest < R ? (int)rest : R;
    const float *w = c->weights + p * c->panel, *b = c->bias + (int64_t)p * 4 * c->D;
    if (c->narrow)
        forward_task(c->lanes + p, p, c->P, c->D, from, n, c->gates, w, b, c->hidden, c->cell, scratch, dummy, 1);
    else
        forward_task(c->lanes + p, p, c->P, c->D, from, n, c->gates, w, b, c->hidden, c->cell, scratch, dummy, 0);
}

/* Takes `gates`, the projected inputs without a bias, to `hidden`. With a `cell`, for a backward pass: the cell
 * states are stored there and the gates in place of their inputs. Returns 0, or -1 where memory is short. */
int seqpipe_lstm_forward(void *gates, const float *w_hh, const float *bias, void *hidden, void *cell,
                         const Lane *lanes, int P, int D, int narrow) {
    const int groups = (D + VL - 1) / VL, units = groups * VL;
    const size_t panel = (size_t)groups * D * 4 * VL;
    int64_t tasks[P + 1];
    tasks[0] = 0;
    for (int p = 0; p < P; p++)
        tasks[p + 1] = tasks[p] + (lanes[p].sequences + R - 1) / R;
    const Call call = {.gates = gates, .hidden = hidden, .cell = cell, .w_hh = w_hh, .bias = bias, .lanes = lanes,
                       .weights = zeros(P * panel), .tasks = tasks, .P = P, .D = D, .narrow = narrow,
                       .groups = groups, .units = units, .panel = panel};
    int status = call.weights ? 0 : -1;
    if (!status)
        status = each(P, 1, pack_lane_by_gate, &call);
    if (!status)
        status = each(tasks[P], (size_t)(3 * R + 4) * units, forward_block, &call);
    free(call.weights);
    return status;
}

static void pack_lane_by_row(const void *shared, int64_t p, float *scratch) {
    const Call *c = shared;
    float *packed = c->weights + p * c->panel;
    const float *w = c->w_hh + p * 4 * c->D * c->D;
    (void)scratch;
    if (c->narrow && DOTS)
        pack_pairs_by_row((uint32_t *)packed, w, c->D, c->units);
    else
        pack_by_row(packed, w, c->D, c->units);
}

static void backward_part(const void *shared, int64_t part, float *scratch) {
    const Call *c = shared;
    const int p = (int)(part / c->parts);
    const int64_t blocks = (c->lanes[p].sequences + R - 1) / R, nth = part % c->parts;
    const float *w = c->weights + p * c->panel;
    float *grad_w = c->sums + part * (c->panel + 4 * c->units), *grad_b = grad_w + c->panel;
    char *dummy = (char *)(scratch + (size_t)7 * R * c->units);
    for (int64_t block = blocks * nth / c->parts; block < blocks * (nth + 1) / c->parts; block++) {
        const int64_t from = block * R, rest = c->lanes[p].sequences - from;
        const int n = rest < R ? (int)rest : R;
        if (c->narrow)
            backward_task(c->lanes + p, p, c->P, c->D, from, n, c->gates, w, c->hidden, c->cell, c->grad_hidden,
                          grad_w, grad_b, scratch, dummy, 1);
        else
            backward_task(c->lanes + p, p, c->P, c->D, from, n, c->gates, w, c->hidden, c->cell, c->grad_hidden,
                          grad_w, grad_b, scratch, dummy, 0);
    }
}

/* The parts' sums for one gate of one lane, in their order. */
static void add_parts(const void *shared, int64_t gate, float *scratch) {
    const Call *c = shared;
    const int D = c->D, units = c->units, p = (int)(gate / 4), g = (int)(gate % 4);
    (void)scratch;
    for (int u = 0; u < D; u++) {
        const int64_t row = gate * D + u;
        float *out = c->grad_w_hh + row * D;
        memset(out, 0, (size_t)D * sizeof(float));
        c->grad_bias[row] = 0;
        for (int part = p * c->parts; part < (p + 1) * c->parts; part++) {
            const float *sum = c->sums + (size_t)part * (c->panel + 4 * units);
            for (int k = 0; k < D; k++)
                out[k] += sum[(size_t)(g * units + u) * units + k];
            c->grad_bias[row] += sum[c->panel + g * units + u];
        }
    }
}

/* Takes the gradient of `hidden` back to the projected inputs, in place of the `gates` that the forward pass left,
 * and to the weights and the bias (P x 4D x D and P x 4D). Returns 0, or -1 where memory is short. */
int seqpipe_lstm_backward(void *gates, const float *w_hh, const void *hidden, const void *cell,
                          const void *grad_hidden, float *grad_w_hh, float *grad_bias, const Lane *lanes, int P, int D,
                          int narrow) {
    const int units = (D + VL - 1) / VL * VL, parts = PARTS / P > 0 ? PARTS / P : 1;
    const size_t panel = (size_t)(4 * units + WR - 1) / WR * WR * units; /* room for whole tiles of the sums */
    const Call call = {.gates = gates, .hidden = (char *)hidden, .cell = (char *)cell, .grad_hidden = grad_hidden,
                       .w_hh = w_hh, .grad_w_hh = grad_w_hh, .grad_bias = grad_bias, .lanes = lanes,
                       .weights = zeros(P * panel), .sums = zeros((size_t)P * parts * (panel + 4 * units)),
                       .P = P, .D = D, .narrow = narrow, .units = units, .parts = parts, .panel = panel};
    int status = call.weights && call.sums ? 0 : -1;
    if (!status)
        status = each(P, 1, pack_lane_by_row, &call);
    if (!status)
        status = each((int64_t)P * parts, (size_t)(7 * R + 1) * units, backward_part, &call);
    if (!status)
        status = each((int64_t)P * 4, 1, add_parts, &call);
    free(call.weights);
    free(call.sums);
    return status;
}

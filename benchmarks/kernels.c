/* What benchmarks/kernels.py measures the cpu backend against, compiled with the backend's own flags:
 * the processor's divide limit, and a real linear recurrence h_i = λ_i h_{i−1} + x_i, one λ a head and position, C
 * channels, float32, cut into the same tiles and blocks as resolvent_apply. Layouts: λ (batch, n, heads), everything else
 * (batch, n, heads, C) with C a multiple of 64.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 16, S = 32, V = 4, CHUNK = 16 * V };

typedef float f16 __attribute__((vector_size(64)));

static inline f16 read16(const float *from) {
    f16 x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline void write16(float *to, f16 x) { memcpy(to, &x, sizeof x); }

/* rounds × 64 independent float64 divisions out of registers. */
double divide(int64_t rounds) {
    typedef double v8 __attribute__((vector_size(64)));
    v8 x[8], sum = {0};
    for (int j = 0; j < 8; j++) x[j] = (v8){1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8} + 0.01 * j;
    for (int64_t r = 0; r < rounds; r++)
        for (int j = 0; j < 8; j++) x[j] = 1.0 / x[j];
    for (int j = 0; j < 8; j++) sum += x[j];
    return sum[0] + sum[7];
}

typedef struct {
    int64_t batch, heads, n, width, threads;
    const float *rate, *x, *saved; /* x: of the backward pass, the gradient of h; saved: h */
    float *out, *grad_rate;        /* h, or the gradient of x */
} Recurrence;

static void ascend(const Recurrence *call, int64_t batch, int64_t head, int64_t first, int64_t rows, float *state) {
    int64_t row = call->heads * call->width;
    for (int64_t c = 0; c < call->width; c += CHUNK) {
        int64_t at = (batch * call->n + first) * row + head * call->width + c;
        const float *rate = call->rate + (batch * call->n + first) * call->heads + head;
        f16 h[V];
        for (int v = 0; v < V; v++) h[v] = read16(state + c + 16 * v);
        for (int64_t i = 0; i < rows; i++)
            for (int v = 0; v < V; v++) {
                h[v] = rate[i * call->heads] * h[v] + read16(call->x + at + i * row + 16 * v);
                write16(call->out + at + i * row + 16 * v, h[v]);
            }
        for (int v = 0; v < V; v++) write16(state + c + 16 * v, h[v]);
    }
}

static void descend(const Recurrence *call, int64_t batch, int64_t head, int64_t first, int64_t rows, float *state) {
    int64_t row = call->heads * call->width, lanes = call->heads;
    const float *rate = call->rate + (batch * call->n + first) * lanes + head;
    float *grad_rate = call->grad_rate + (batch * call->n + first) * lanes + head;
    for (int64_t c = 0; c < call->width; c += CHUNK) {
        int64_t at = (batch * call->n + first) * row + head * call->width + c;
        f16 m[V]; /* λ_{i+1} m_{i+1} */
        for (int v = 0; v < V; v++) m[v] = read16(state + c + 16 * v);
        for (int64_t i = rows - 1; i >= 0; i--) {
            f16 sum = {0};
            for (int v = 0; v < V; v++) {
                m[v] += read16(call->x + at + i * row + 16 * v);
                write16(call->out + at + i * row + 16 * v, m[v]);
                if (first + i > 0) sum += m[v] * read16(call->saved + at + (i - 1) * row + 16 * v);
                m[v] *= rate[i * lanes];
            }
            float total = 0;
            for (int j = 0; j < 16; j++) total += sum[j];
            grad_rate[i * lanes] = total + (c ? grad_rate[i * lanes] : 0);
        }
        for (int v = 0; v < V; v++) write16(state + c + 16 * v, m[v]);
    }
}

static void recurrence(const Recurrence *call, int backward) {
    int64_t lanes = call->batch * call->heads, tiles = (lanes + LANES - 1) / LANES, blocks = (call->n + S - 1) / S;
#pragma omp parallel for schedule(dynamic) num_threads(call->threads) if (call->threads > 1)
    for (int64_t tile = 0; tile < tiles; tile++) {
        float *state = calloc((size_t)(LANES * call->width), sizeof(float));
        for (int64_t b = 0; b < blocks; b++) {
            int64_t first = (backward ? blocks - 1 - b : b) * S, rows = call->n - first < S ? call->n - first : S;
            for (int64_t l = tile * LANES; l < (tile + 1) * LANES && l < lanes; l++)
                (backward ? descend : ascend)(call, l / call->heads, l % call->heads, first, rows,
                                              state + (l - tile * LANES) * call->width);
        }
        free(state);
    }
}

void recurrence_forward(const Recurrence *call) { recurrence(call, 0); }
void recurrence_backward(const Recurrence *call) { recurrence(call, 1); }

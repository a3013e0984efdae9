/* Tiles: W lanes of a tensor side by side in float64, and the cavity recursions over them.
 *
 * A lane is one (sequence, head). A tile is cut into blocks of S positions, so that everything a block needs stays in
 * the first cache levels: its arguments are packed from tensors of any strides and either precision into planes
 * [position][lane], the recursions run over the planes with the lanes as vectors, and results are unpacked again. The
 * lanes of a position do not depend on each other, which is what hides the latency of the division. An argument that
 * is the same at every position is a plane of one row, read with row stride 0.
 *
 * Going backward over blocks needs the cavity values of a block again: each pass keeps the row that enters a block
 * (a checkpoint) and repeats the block from there, which costs less than writing and reading all of them.
 *
 * Included by one .c file an op, which defines W first. |d_i| between 1e-154 and 1e154 neither over- nor underflows.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vector.h"

enum { S = 64, VECTORS = W / 8 };

/* ------------------------------------------------------------------------------------------------- what a call is */

enum { SINGLE = 0, DOUBLE = 1, COMPLEX = 2 }; /* kind of an element: precision, plus COMPLEX */

typedef struct {
    int64_t data;                         /* address; 0: not wanted */
    int64_t batch, head, position, width; /* strides in elements, 0 along a broadcast axis */
    int64_t kind;
} Array;

typedef struct {
    int64_t batch, heads, n, width, causal, threads;
    Array arrays[];
} Call;

typedef struct {
    int64_t batch, head; /* of its first lane */
    int at, count;       /* lanes of the tile */
} Run;

typedef struct {
    Run run[W]; /* lanes of one sequence are a run: their addresses differ by the head stride */
    int runs, lanes;
} Tile;

static int64_t lanes_of(const Call *call) { return call->batch * call->heads; }
static int64_t tiles_of(const Call *call) { return (lanes_of(call) + W - 1) / W; }
static int64_t blocks_of(const Call *call) { return (call->n + S - 1) / S; }
static int64_t least(int64_t x, int64_t y) { return x < y ? x : y; }
static int64_t most(int64_t x, int64_t y) { return x > y ? x : y; }

static Tile tile_at(const Call *call, int64_t index) {
    Tile tile = {.runs = 0, .lanes = (int)least(W, lanes_of(call) - index * W)};
    for (int at = 0; at < tile.lanes;) {
        int64_t lane = index * W + at, head = lane % call->heads;
        int count = (int)least(tile.lanes - at, call->heads - head);
        tile.run[tile.runs++] = (Run){lane / call->heads, head, at, count};
        at += count;
    }
    return tile;
}

#include "planes.h"

/* ----------------------------------------------------------------------------------------------- a block's planes */

typedef struct {
    double a[S * W], zr[S * W], zi[S * W];
    double k[(S + 1) * W];                   /* row i couples positions i-1 and i of the block */
    double t[(S + 1) * W];                   /* apply: the hop, k = t² */
    double lr[(S + 1) * W], li[(S + 1) * W]; /* left cavity; row 0 enters the block, position i is row i+1 */
    int64_t k_row, z_row;                    /* row strides: W, or 0 where all positions share one row */
    int64_t first, rows;
    const void *potential;                   /* the plane a, or the tensor itself where its lanes are adjacent */
    int64_t potential_row, single;
} Block;

static void zero_row(double *row) { memset(row, 0, W * sizeof(double)); }
static void copy_row(double *to, const double *from) { memcpy(to, from, W * sizeof(double)); }

/* Lanes that a tile does not have compute along on harmless numbers: a = 0, z = i, k = 0. */
static void block_begin(Block *block, const Call *call) {
    if (lanes_of(call) % W == 0) return;
    memset(block, 0, sizeof *block);
    for (int i = 0; i < S * W; i++) block->zi[i] = 1;
}

static void square_hops(Block *block, int64_t rows) {
    for (int64_t i = 0; i < rows * W; i++) block->k[i] = block->t[i] * block->t[i];
}

/* Packs what all positions share, and starts the left cavity. `hop`: whether bonds are t and not k. */
static void block_open(Block *block, const Call *call, const Tile *tile, int hop) {
    const Array *bonds = call->arrays + 1, *shift = call->arrays + 2;
    double *plane = hop ? block->t : block->k;
    block->k_row = bonds->position ? W : 0;
    block->z_row = shift->position ? W : 0;
    if (!block->z_row) pack(shift, tile, 0, 1, block->zr, block->zi);
    if (!block->k_row) {
        if (call->n > 1)
            pack(bonds, tile, 0, 1, plane, NULL);
        else
            zero_row(plane);
        if (hop) square_hops(block, 1);
    }
    zero_row(block->lr);
    zero_row(block->li);
}

/* Whether position first of the tile is one row of adjacent lanes in the tensor itself. */
static int adjacent(const Array *x, const Tile *tile) { return x->head == 1 && tile->run[0].count == W; }

/* The arguments of a block. The potential is packed where its lanes are not adjacent, or where `plane`. */
static void block_load(Block *block, const Call *call, const Tile *tile, int64_t index, int hop, int plane) {
    const Array *potential = call->arrays, *bonds = call->arrays + 1, *shift = call->arrays + 2;
    int64_t first = index * S, rows = least(S, call->n - first);
    block->first = first;
    block->rows = rows;
    block->potential = block->a;
    block->potential_row = W;
    block->single = 0;
    if (!plane && adjacent(potential, tile)) {
        int64_t offset = offset_of(potential, tile->run, first);
        block->single = potential->kind == SINGLE;
        block->potential = block->single ? (const void *)((const float *)potential->data + offset)
                                         : (const void *)((const double *)potential->data + offset);
        block->potential_row = potential->position;
    } else {
        pack(potential, tile, first, rows, block->a, NULL);
    }
    if (block->z_row) pack(shift, tile, first, rows, block->zr, block->zi);
    if (block->k_row) {
        double *plane = hop ? block->t : block->k;
        int64_t from = most(first - 1, 0), to = least(first + rows, call->n - 1);
        if (first == 0) zero_row(plane);
        if (first + rows == call->n) zero_row(plane + rows * W);
        if (to > from) pack(bonds, tile, from, to - from, plane + (from - first + 1) * W, NULL);
        if (hop) square_hops(block, rows + 1);
    }
}

/* -------------------------------------------------------------------------------------------- the left recursion */

/* 1 / (a − z − k g), the conjugate of whose denominator is w. */
INLINE c8 cavity_step(v8 a, v8 zr, v8 zi, v8 k, c8 g) {
    v8 wr = a - zr - k * g.re, wi = zi + k * g.im;
    v8 m = 1 / (wr * wr + wi * wi);
    return (c8){wr * m, wi * m};
}

/* gL_i = 1 / (d_i − k_{i−1} gL_{i−1}) over the block, the state in registers. It starts from row 0 of the planes; rows
 * from 1 on are written where `keep`, else row 0 becomes the state at the end. */
#define DEFINE_LEFT_CAVITY(T)                                                                                          \
    INLINE void left_cavity_##T(Block *block, int shared, int keep) {                                                  \
        const T *a = block->potential;                                                                                 \
        const int64_t rows = block->rows, a_row = block->potential_row, k_row = block->k_row, z_row = block->z_row;    \
        v8 zr[VECTORS], zi[VECTORS], k[VECTORS];                                                                       \
        c8 g[VECTORS];                                                                                                 \
        for (int v = 0; v < VECTORS; v++) {                                                                            \
            g[v] = (c8){read_double(block->lr + 8 * v), read_double(block->li + 8 * v)};                               \
            zr[v] = read_double(block->zr + 8 * v);                                                                    \
            zi[v] = read_double(block->zi + 8 * v);                                                                    \
            k[v] = read_double(block->k + 8 * v);                                                                      \
        }                                                                                                              \
        for (int64_t i = 0; i < rows; i++)                                                                             \
            for (int v = 0; v < VECTORS; v++) {                                                                        \
                v8 zr_ = shared ? zr[v] : read_double(block->zr + i * z_row + 8 * v);                                  \
                v8 zi_ = shared ? zi[v] : read_double(block->zi + i * z_row + 8 * v);                                  \
                v8 k_ = shared ? k[v] : read_double(block->k + i * k_row + 8 * v);                                     \
                g[v] = cavity_step(read_##T(a + i * a_row + 8 * v), zr_, zi_, k_, g[v]);                               \
                if (keep) {                                                                                            \
                    write_double(block->lr + (i + 1) * W + 8 * v, g[v].re);                                            \
                    write_double(block->li + (i + 1) * W + 8 * v, g[v].im);                                            \
                }                                                                                                      \
            }                                                                                                          \
        for (int v = 0; v < VECTORS && !keep; v++) {                                                                   \
            write_double(block->lr + 8 * v, g[v].re);                                                                  \
            write_double(block->li + 8 * v, g[v].im);                                                                  \
        }                                                                                                              \
    }
DEFINE_LEFT_CAVITY(float)
DEFINE_LEFT_CAVITY(double)

static int shared_by_all_positions(const Block *block) { return !block->k_row && !block->z_row; }

/* All cavity values of the block, in planes. */
static void left_cavity(Block *block) {
    if (block->single && shared_by_all_positions(block))
        left_cavity_float(block, 1, 1);
    else if (block->single)
        left_cavity_float(block, 0, 1);
    else if (shared_by_all_positions(block))
        left_cavity_double(block, 1, 1);
    else
        left_cavity_double(block, 0, 1);
}

/* Only what enters the next block. */
static void left_cavity_state(Block *block) {
    if (block->single && shared_by_all_positions(block))
        left_cavity_float(block, 1, 0);
    else if (block->single)
        left_cavity_float(block, 0, 0);
    else if (shared_by_all_positions(block))
        left_cavity_double(block, 1, 0);
    else
        left_cavity_double(block, 0, 0);
}

/* After `left_cavity`: the last row enters the next block. */
static void left_advance(Block *block) {
    copy_row(block->lr, block->lr + block->rows * W);
    copy_row(block->li, block->li + block->rows * W);
}

/* ---------------------------------------------------------------------------- sums over the axes of broadcasting */

/* to = Σ from over the axes along which `to` has stride 0; `from` is float64 and has `n` positions. */
static void sum_gradient(const Call *call, const Array *from, const Array *to, int64_t n) {
    if (!from->data || !to->data) return;
    if (!from->position) n = 1;
    int64_t batch = to->batch ? call->batch : 1, heads = to->head ? call->heads : 1, positions = to->position ? n : 1;
    int parts = to->kind & COMPLEX ? 2 : 1, threads = call->threads > 1 && lanes_of(call) * n > 32768;
#pragma omp parallel for num_threads(call->threads) if (threads)
    for (int64_t bi = 0; bi < batch * positions; bi++) {
        int64_t b0 = bi / positions, i0 = bi % positions;
        int64_t b1 = to->batch ? b0 + 1 : call->batch, i1 = to->position ? i0 + 1 : n;
        for (int64_t h0 = 0; h0 < heads; h0++) {
            int64_t h1 = to->head ? h0 + 1 : call->heads;
            double sum[2] = {0, 0};
            for (int64_t b = b0; b < b1; b++)
                for (int64_t i = i0; i < i1; i++)
                    for (int64_t h = h0; h < h1; h++) {
                        const double *x = (const double *)from->data
                                          + parts * (b * from->batch + i * from->position + h * from->head);
                        for (int part = 0; part < parts; part++) sum[part] += x[part];
                    }
            int64_t at = parts * (b0 * to->batch + i0 * to->position + h0 * to->head);
            for (int part = 0; part < parts; part++) {
                if (to->kind & DOUBLE)
                    ((double *)to->data)[at + part] = sum[part];
                else
                    ((float *)to->data)[at + part] = (float)sum[part];
            }
        }
    }
}

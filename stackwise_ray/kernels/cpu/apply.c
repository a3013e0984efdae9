/* resolvent_apply and its backward pass, causal and two-sided: cavity values of a tile's block first, with the lanes as
 * vectors (tile.h), then the substitutions of one lane after the other, with its P channels as vectors (apply_lane.h).
 */
#define W 16
#include "tile.h"

enum { POTENTIAL, HOP, SHIFT, VALUES, OUTPUT, GRAD, GRAD_POTENTIAL, GRAD_HOP, GRAD_SHIFT, GRAD_VALUES, SUM_HOP, SUM_SHIFT };
enum { CAUSAL, ASCEND, TWO_SIDED, ADJOINT_ASCEND, ADJOINT_CAUSAL, ADJOINT_TWO_SIDED }; /* passes over a lane's block */

typedef struct {
    int64_t rows;
    const double *gr, *gi, *t;        /* gL of position i at [i * W]; hop before position i at [i * t_row] */
    double *sum_r, *sum_i, *crossed;  /* sums over channels: of position i at [i * W], of the bond before it likewise */
    int64_t t_row, x_row, out_row, saved_row;
    const void *x, *saved;            /* values, or the gradient of the output; the op's output */
    void *out;
    int has_before, has_after;        /* whether `saved` has the rows next to the block */
    c8 *up, *down, *kept;             /* states that the next block takes over; the substituted block */
} Lane;

#define T float
#include "apply_lane.h"
#undef T
#define T double
#include "apply_lane.h"
#undef T

typedef struct {
    Block block;
    double sum_r[S * W], sum_i[S * W], crossed[(S + 1) * W]; /* of the adjoint, over channels */
    double wr[(S + 1) * W], wi[(S + 1) * W];                 /* causal adjoint of the cavity; row `rows` enters */
    double grad_a[S * W], grad_zi[S * W];
    double sum_t[W], sum_zr[W], sum_zi[W];
    int64_t vectors;     /* of a lane's channels */
    c8 *up, *down, *kept; /* [lane][vector]; kept: a block of four vectors */
    char *copy[2];       /* rows whose channels are not adjacent: of x, of the saved output */
    double *cavities;    /* gL entering each block: [block][re, im][lane] */
    c8 *states;          /* two-sided: the upward states entering each block */
} Work;

enum { ALIGNMENT = 64 };

static void *part_of(uintptr_t *at, size_t bytes) {
    void *part = (void *)*at;
    *at += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return part;
}

/* One piece of memory a thread, from address `base` on; returns its size. */
static size_t work_layout(const Call *call, Work *work, uintptr_t base) {
    uintptr_t at = base;
    size_t vectors = (size_t)(call->width + 7) / 8, blocks = (size_t)blocks_of(call);
    part_of(&at, sizeof(Work));
    work->vectors = (int64_t)vectors;
    work->up = part_of(&at, W * vectors * sizeof(c8));
    work->down = part_of(&at, W * vectors * sizeof(c8));
    work->kept = part_of(&at, S * 4 * sizeof(c8));
    for (int i = 0; i < 2; i++) work->copy[i] = part_of(&at, (S + 2) * (size_t)call->width * 2 * sizeof(double));
    work->cavities = part_of(&at, blocks * 2 * W * sizeof(double));
    work->states = part_of(&at, call->causal ? 0 : blocks * W * vectors * sizeof(c8));
    return at - base;
}

static Work *work_begin(const Call *call) {
    Work sizes, *work = aligned_alloc(ALIGNMENT, work_layout(call, &sizes, 0));
    if (!work) return NULL;
    block_begin(&work->block, call);
    work_layout(call, work, (uintptr_t)work);
    return work;
}

/* ---------------------------------------------------------------------------------------------- lanes of a block */

/* Positions first … first + rows - 1 of one lane with adjacent channels: in place, or copied. */
static void *rows_of(const Array *x, int64_t batch, int64_t head, int64_t first, int64_t rows, int64_t width,
                     char *copy, int64_t *row) {
    size_t element = (x->kind & DOUBLE ? sizeof(double) : sizeof(float)) * (x->kind & COMPLEX ? 2 : 1);
    int64_t parts = x->kind & COMPLEX ? 2 : 1;
    char *start = (char *)x->data + (int64_t)element * (batch * x->batch + head * x->head + first * x->position);
    *row = parts * x->position;
    if (x->width == 1 || width == 1) return start;
    *row = parts * width;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t p = 0; p < width; p++)
            memcpy(copy + element * (size_t)(i * width + p),
                   start + (int64_t)element * (i * x->position + p * x->width), element);
    return copy;
}

static void pass_over_block(int pass, Work *work, const Call *call, const Tile *tile) {
    Block *block = &work->block;
    const Array *values = call->arrays + VALUES, *output = call->arrays + OUTPUT;
    int adjoint = pass >= ADJOINT_ASCEND, sums = pass > ADJOINT_ASCEND;
    const Array *from = adjoint ? call->arrays + GRAD : values, *to = adjoint ? call->arrays + GRAD_VALUES : output;
    for (int r = 0; r < tile->runs; r++)
        for (int j = 0; j < tile->run[r].count; j++) {
            int64_t batch = tile->run[r].batch, head = tile->run[r].head + j, l = tile->run[r].at + j;
            Lane lane = {
                .rows = block->rows,
                .gr = block->lr + W + l,
                .gi = block->li + W + l,
                .t = block->t + l,
                .t_row = block->k_row,
                .sum_r = work->sum_r + l,
                .sum_i = work->sum_i + l,
                .crossed = work->crossed + l,
                .has_before = block->first > 0,
                .has_after = block->first + block->rows < call->n,
                .up = work->up + l * work->vectors,
                .down = work->down + l * work->vectors,
                .kept = work->kept,
            };
            lane.x = rows_of(from, batch, head, block->first, block->rows, call->width, work->copy[0], &lane.x_row);
            lane.out = rows_of(to, batch, head, block->first, 0, 1, NULL, &lane.out_row);
            lane.saved = lane.x;
            if (sums) {
                char *saved = rows_of(output, batch, head, block->first - lane.has_before,
                                      block->rows + lane.has_before + lane.has_after, call->width, work->copy[1],
                                      &lane.saved_row);
                size_t element = output->kind & DOUBLE ? sizeof(double) : sizeof(float);
                lane.saved = saved + (int64_t)element * lane.saved_row * lane.has_before;
            }
            if (values->kind & DOUBLE)
                pass_over_lane_double(pass, values->kind & COMPLEX, &lane, call->width);
            else
                pass_over_lane_float(pass, values->kind & COMPLEX, &lane, call->width);
        }
}

static size_t states_bytes(const Work *work) { return W * (size_t)work->vectors * sizeof(c8); }

static void keep_entering(Work *work, int64_t index, int states) {
    copy_row(work->cavities + index * 2 * W, work->block.lr);
    copy_row(work->cavities + index * 2 * W + W, work->block.li);
    if (states) memcpy(work->states + index * W * work->vectors, work->up, states_bytes(work));
}

static void load_again(Work *work, const Call *call, const Tile *tile, int64_t index, int states) {
    block_load(&work->block, call, tile, index, 1, 0);
    copy_row(work->block.lr, work->cavities + index * 2 * W);
    copy_row(work->block.li, work->cavities + index * 2 * W + W);
    if (states) memcpy(work->up, work->states + index * W * work->vectors, states_bytes(work));
    left_cavity(&work->block);
}

/* What enters every block from the left: gL, and with `pass` ASCEND or ADJOINT_ASCEND the upward states too. */
static void checkpoints(int pass, Work *work, const Call *call, const Tile *tile) {
    int states = pass == ASCEND || pass == ADJOINT_ASCEND;
    block_open(&work->block, call, tile, 1);
    if (states) memset(work->up, 0, states_bytes(work));
    for (int64_t index = 0; index < blocks_of(call); index++) {
        keep_entering(work, index, states);
        if (index + 1 == blocks_of(call)) break;
        block_load(&work->block, call, tile, index, 1, 0);
        if (!states) {
            left_cavity_state(&work->block);
            continue;
        }
        left_cavity(&work->block);
        pass_over_block(pass, work, call, tile);
        left_advance(&work->block);
    }
}

/* ---------------------------------------------------------------------------------------------- forward, backward */

static void causal_tile(Work *work, const Call *call, const Tile *tile) {
    block_open(&work->block, call, tile, 1);
    memset(work->up, 0, states_bytes(work));
    for (int64_t index = 0; index < blocks_of(call); index++) {
        block_load(&work->block, call, tile, index, 1, 0);
        left_cavity(&work->block);
        pass_over_block(CAUSAL, work, call, tile);
        left_advance(&work->block);
    }
}

static void two_sided_tile(Work *work, const Call *call, const Tile *tile) {
    checkpoints(ASCEND, work, call, tile);
    memset(work->down, 0, states_bytes(work));
    for (int64_t index = blocks_of(call) - 1; index >= 0; index--) {
        load_again(work, call, tile, index, 1);
        pass_over_block(TWO_SIDED, work, call, tile);
    }
}

static void adjoint_begin(Work *work) {
    memset(work->down, 0, states_bytes(work));
    zero_row(work->sum_t);
    zero_row(work->sum_zr);
    zero_row(work->sum_zi);
}

static void sums_begin(Work *work) {
    memset(work->sum_r, 0, sizeof work->sum_r);
    memset(work->sum_i, 0, sizeof work->sum_i);
    memset(work->crossed, 0, sizeof work->crossed);
}

static void emit_gradients(Work *work, const Call *call, const Tile *tile, const double *grad_z, int64_t bond,
                           int64_t bonds, const double *grad_t) {
    const Block *block = &work->block;
    unpack(call->arrays + GRAD_POTENTIAL, tile, block->first, block->rows, work->grad_a, NULL);
    emit(call->arrays + GRAD_SHIFT, tile, block->first, block->rows, grad_z, work->grad_zi, work->sum_zr, work->sum_zi);
    emit(call->arrays + GRAD_HOP, tile, bond, bonds, grad_t, NULL, work->sum_t, NULL);
}

static void adjoint_end(Work *work, const Call *call, const Tile *tile) {
    emit_sums(call->arrays + GRAD_HOP, tile, work->sum_t, NULL);
    emit_sums(call->arrays + GRAD_SHIFT, tile, work->sum_zr, work->sum_zi);
}

/* w_i = Σ m_i u_i + k_i gL_i² w_{i+1}; ∂a = −Re w, ∂z = conj w, ∂t_{i−1} = Re Σ m_i u_{i−1} + 2 t_{i−1} Re(w_i gL_{i−1}). */
static void cavity_adjoint(Work *work) {
    const Block *block = &work->block;
    for (int64_t i = block->rows - 1; i >= 0; i--) {
        const double *restrict k = block->k + (i + 1) * block->k_row, *restrict t = block->t + i * block->k_row;
        const double *restrict lr = block->lr + i * W, *restrict li = block->li + i * W;
        const double *restrict sr = work->sum_r + i * W, *restrict si = work->sum_i + i * W;
        const double *restrict nr = work->wr + (i + 1) * W, *restrict ni = work->wi + (i + 1) * W;
        double *restrict wr = work->wr + i * W, *restrict wi = work->wi + i * W;
        double *restrict ga = work->grad_a + i * W, *restrict gz = work->grad_zi + i * W;
        double *restrict gt = work->crossed + i * W;
#pragma omp simd
        for (int l = 0; l < W; l++) {
            double gr = lr[l + W], gi = li[l + W];
            double cr = k[l] * (gr * gr - gi * gi), ci = k[l] * (2 * gr * gi);
            wr[l] = sr[l] + cr * nr[l] - ci * ni[l];
            wi[l] = si[l] + cr * ni[l] + ci * nr[l];
            ga[l] = -wr[l];
            gz[l] = -wi[l];
            gt[l] += 2 * t[l] * (wr[l] * lr[l] - wi[l] * li[l]);
        }
    }
}

static void causal_backward_tile(Work *work, const Call *call, const Tile *tile) {
    Block *block = &work->block;
    checkpoints(CAUSAL, work, call, tile);
    adjoint_begin(work);
    for (int64_t index = blocks_of(call) - 1; index >= 0; index--) {
        load_again(work, call, tile, index, 0);
        if (index == blocks_of(call) - 1) {
            zero_row(work->wr + block->rows * W);
            zero_row(work->wi + block->rows * W);
        }
        sums_begin(work);
        pass_over_block(ADJOINT_CAUSAL, work, call, tile);
        cavity_adjoint(work);
        int64_t skip = block->first == 0; /* there is no bond before the first position */
        emit_gradients(work, call, tile, work->wr, block->first - 1 + skip, block->rows - skip, work->crossed + skip * W);
        copy_row(work->wr + S * W, work->wr);
        copy_row(work->wi + S * W, work->wi);
    }
    adjoint_end(work, call, tile);
}

/* Λ = G conj(grad): ∂a = −Re Σ Λ y, ∂z = conj Σ Λ y, ∂t_i = Re Σ (Λ_i y_{i+1} + Λ_{i+1} y_i). */
static void two_sided_backward_tile(Work *work, const Call *call, const Tile *tile) {
    Block *block = &work->block;
    checkpoints(ADJOINT_ASCEND, work, call, tile);
    adjoint_begin(work);
    for (int64_t index = blocks_of(call) - 1; index >= 0; index--) {
        load_again(work, call, tile, index, 1);
        sums_begin(work);
        pass_over_block(ADJOINT_TWO_SIDED, work, call, tile);
        for (int64_t i = 0; i < block->rows * W; i++) {
            work->grad_a[i] = -work->sum_r[i];
            work->grad_zi[i] = -work->sum_i[i];
        }
        emit_gradients(work, call, tile, work->sum_r, block->first, least(block->rows, call->n - 1 - block->first),
                       work->crossed + W);
    }
    adjoint_end(work, call, tile);
}

/* --------------------------------------------------------------------------------------------------- entry points */

#include "every_tile.h"

int bk_apply(const Call *call) { return for_every_tile(call, call->causal ? causal_tile : two_sided_tile); }

int bk_apply_backward(const Call *call) {
    int failed = for_every_tile(call, call->causal ? causal_backward_tile : two_sided_backward_tile);
    if (failed) return failed;
    sum_gradient(call, call->arrays + GRAD_HOP, call->arrays + SUM_HOP, call->n - 1);
    sum_gradient(call, call->arrays + GRAD_SHIFT, call->arrays + SUM_SHIFT, call->n);
    return 0;
}

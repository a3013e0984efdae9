/* resolvent_diagonal and its backward pass, causal and two-sided, fused over blocks of positions (see tile.h).
 *
 * Complex numbers are pairs of planes (r, i). The recursions and adjoints are those of kernels/backends/reference.py.
 */
#define W 32
#include "tile.h"

enum { POTENTIAL, COUPLING, SHIFT, OUTPUT, GRAD = OUTPUT, GRAD_POTENTIAL, GRAD_COUPLING, GRAD_SHIFT, SUM_COUPLING, SUM_SHIFT };

typedef struct {
    Block block;
    double rr[(S + 1) * W], ri[(S + 1) * W]; /* right cavity; row `rows` enters the block */
    double gr[S * W], gi[S * W];             /* two-sided: G_ii */
    double sr[S * W], si[S * W];             /* conj(grad), then the adjoint's source */
    double pr[(S + 1) * W], pi[(S + 1) * W]; /* adjoint from the right (w where causal); row `rows` enters */
    double qr[W], qi[W];                     /* adjoint from the left: the row before */
    double grad_a[S * W], grad_k[S * W], grad_zr[S * W], grad_zi[S * W];
    double sum_k[W], sum_zr[W], sum_zi[W];
    double checkpoints[]; /* a block: gL entering from the left; two-sided backward: then gR and p from the right */
} Work;

enum { CHECKPOINT = 6 * W };

static Work *work_begin(const Call *call) {
    Work *work = malloc(sizeof(Work) + (size_t)blocks_of(call) * CHECKPOINT * sizeof(double));
    if (work) block_begin(&work->block, call);
    return work;
}

static void keep_rows(double *to, const double *re, const double *im) {
    copy_row(to, re);
    copy_row(to + W, im);
}

static void take_rows(const double *from, double *re, double *im) {
    copy_row(re, from);
    copy_row(im, from + W);
}

/* The gL that enters every block. */
static void left_checkpoints(Work *work, const Call *call, const Tile *tile) {
    Block *block = &work->block;
    block_open(block, call, tile, 0);
    for (int64_t index = 0; index < blocks_of(call); index++) {
        keep_rows(work->checkpoints + index * CHECKPOINT, block->lr, block->li);
        if (index + 1 == blocks_of(call)) break;
        block_load(block, call, tile, index, 0, 0);
        left_cavity_state(block);
    }
}

static void left_again(Work *work, const Call *call, const Tile *tile, int64_t index) {
    block_load(&work->block, call, tile, index, 0, !call->causal);
    take_rows(work->checkpoints + index * CHECKPOINT, work->block.lr, work->block.li);
    left_cavity(&work->block);
}

/* gR_i = 1 / (d_i − k_i gR_{i+1}) and g_i = 1 / (d_i − k_{i−1} gL_{i−1} − k_i gR_{i+1}). */
static void right_cavity_and_diagonal(Work *work) {
    const Block *block = &work->block;
    for (int64_t i = block->rows - 1; i >= 0; i--) {
        const double *restrict a = block->a + i * W;
        const double *restrict zr = block->zr + i * block->z_row, *restrict zi = block->zi + i * block->z_row;
        const double *restrict kl = block->k + i * block->k_row, *restrict kr = block->k + (i + 1) * block->k_row;
        const double *restrict lr = block->lr + i * W, *restrict li = block->li + i * W;
        const double *restrict nr = work->rr + (i + 1) * W, *restrict ni = work->ri + (i + 1) * W;
        double *restrict rr = work->rr + i * W, *restrict ri = work->ri + i * W;
        double *restrict gr = work->gr + i * W, *restrict gi = work->gi + i * W;
#pragma omp simd
        for (int l = 0; l < W; l++) {
            double wr = a[l] - zr[l] - kr[l] * nr[l], wi = zi[l] + kr[l] * ni[l];
            double vr = wr - kl[l] * lr[l], vi = wi + kl[l] * li[l];
            double m = 1 / (wr * wr + wi * wi), o = 1 / (vr * vr + vi * vi);
            rr[l] = wr * m;
            ri[l] = wi * m;
            gr[l] = vr * o;
            gi[l] = vi * o;
        }
    }
}

static void right_advance(Work *work) {
    /* the first row of this block enters the one before, which is a whole one */
    copy_row(work->rr + S * W, work->rr);
    copy_row(work->ri + S * W, work->ri);
}

/* -------------------------------------------------------------------------------------------------------- forward */

static void causal_tile(Work *work, const Call *call, const Tile *tile) {
    Block *block = &work->block;
    block_open(block, call, tile, 0);
    for (int64_t index = 0; index < blocks_of(call); index++) {
        block_load(block, call, tile, index, 0, 0);
        left_cavity(block);
        unpack(call->arrays + OUTPUT, tile, block->first, block->rows, block->lr + W, block->li + W);
        left_advance(block);
    }
}

static void two_sided_tile(Work *work, const Call *call, const Tile *tile) {
    Block *block = &work->block;
    left_checkpoints(work, call, tile);
    for (int64_t index = blocks_of(call) - 1; index >= 0; index--) {
        left_again(work, call, tile, index);
        if (index == blocks_of(call) - 1) {
            zero_row(work->rr + block->rows * W);
            zero_row(work->ri + block->rows * W);
        }
        right_cavity_and_diagonal(work);
        unpack(call->arrays + OUTPUT, tile, block->first, block->rows, work->gr, work->gi);
        right_advance(work);
    }
}

/* ------------------------------------------------------------------------------------------------------- backward */

static void emit_gradients(Work *work, const Call *call, const Tile *tile) {
    const Block *block = &work->block;
    int64_t bonds = least(block->rows, call->n - 1 - block->first);
    unpack(call->arrays + GRAD_POTENTIAL, tile, block->first, block->rows, work->grad_a, NULL);
    emit(call->arrays + GRAD_COUPLING, tile, block->first, bonds, work->grad_k, NULL, work->sum_k, NULL);
    emit(call->arrays + GRAD_SHIFT, tile, block->first, block->rows, work->grad_zr, work->grad_zi, work->sum_zr,
         work->sum_zi);
}

static void sums_begin(Work *work) {
    zero_row(work->sum_k);
    zero_row(work->sum_zr);
    zero_row(work->sum_zi);
}

static void sums_end(const Work *work, const Call *call, const Tile *tile) {
    emit_sums(call->arrays + GRAD_COUPLING, tile, work->sum_k, NULL);
    emit_sums(call->arrays + GRAD_SHIFT, tile, work->sum_zr, work->sum_zi);
}

/* w_i = g_i² (Γ_i + k_i w_{i+1}); ∂a = −Re w, ∂z = conj w, ∂k_i = Re(w_{i+1} g_i). */
static void causal_adjoint(Work *work, const Ahead *ahead) {
    const Block *block = &work->block;
    for (int64_t i = block->rows - 1; i >= 0; i--) {
        fetch(ahead, i);
        const double *restrict k = block->k + (i + 1) * block->k_row;
        const double *restrict gr = block->lr + (i + 1) * W, *restrict gi = block->li + (i + 1) * W;
        const double *restrict yr = work->sr + i * W, *restrict yi = work->si + i * W; /* grad, Γ = conj grad */
        const double *restrict nr = work->pr + (i + 1) * W, *restrict ni = work->pi + (i + 1) * W;
        double *restrict wr = work->pr + i * W, *restrict wi = work->pi + i * W;
        double *restrict ga = work->grad_a + i * W, *restrict gk = work->grad_k + i * W;
        double *restrict gz = work->grad_zi + i * W;
#pragma omp simd
        for (int l = 0; l < W; l++) {
            double fr = yr[l] + k[l] * nr[l], fi = k[l] * ni[l] - yi[l];
            double qr = gr[l] * gr[l] - gi[l] * gi[l], qi = 2 * gr[l] * gi[l];
            gk[l] = nr[l] * gr[l] - ni[l] * gi[l];
            wr[l] = qr * fr - qi * fi;
            wi[l] = qr * fi + qi * fr;
            ga[l] = -wr[l];
            gz[l] = -wi[l];
        }
    }
}

static void causal_backward_tile(Work *work, const Call *call, const Tile *tile) {
    const Array *grad = call->arrays + GRAD, *grad_shift = call->arrays + GRAD_SHIFT;
    Block *block = &work->block;
    left_checkpoints(work, call, tile);
    sums_begin(work);
    for (int64_t index = blocks_of(call) - 1; index >= 0; index--) {
        left_again(work, call, tile, index);
        Ahead ahead = {.arrays = 0};
        look_ahead(&ahead, call->arrays + POTENTIAL, tile, index - 1);
        look_ahead(&ahead, grad, tile, index - 1);
        look_ahead(&ahead, call->arrays + GRAD_POTENTIAL, tile, index - 1);
        pack(grad, tile, block->first, block->rows, work->sr, work->si);
        if (index == blocks_of(call) - 1) {
            zero_row(work->pr + block->rows * W);
            zero_row(work->pi + block->rows * W);
        }
        causal_adjoint(work, &ahead);
        int64_t bonds = least(block->rows, call->n - 1 - block->first);
        unpack(call->arrays + GRAD_POTENTIAL, tile, block->first, block->rows, work->grad_a, NULL);
        emit(call->arrays + GRAD_COUPLING, tile, block->first, bonds, work->grad_k, NULL, work->sum_k, NULL);
        emit(grad_shift, tile, block->first, block->rows, work->pr, work->grad_zi, work->sum_zr, work->sum_zi);
        copy_row(work->pr + S * W, work->pr);
        copy_row(work->pi + S * W, work->pi);
    }
    sums_end(work, call, tile);
}

/* s_i = −g_i² Γ_i and p_i = s_i + k_i gL_i² p_{i+1}. */
static void adjoint_from_the_right(Work *work) {
    const Block *block = &work->block;
    for (int64_t i = block->rows - 1; i >= 0; i--) {
        const double *restrict k = block->k + (i + 1) * block->k_row;
        const double *restrict lr = block->lr + (i + 1) * W, *restrict li = block->li + (i + 1) * W;
        const double *restrict gr = work->gr + i * W, *restrict gi = work->gi + i * W;
        const double *restrict nr = work->pr + (i + 1) * W, *restrict ni = work->pi + (i + 1) * W;
        double *restrict sr = work->sr + i * W, *restrict si = work->si + i * W;
        double *restrict pr = work->pr + i * W, *restrict pi = work->pi + i * W;
#pragma omp simd
        for (int l = 0; l < W; l++) {
            double qr = gr[l] * gr[l] - gi[l] * gi[l], qi = 2 * gr[l] * gi[l], yr = sr[l], yi = si[l];
            double cr = k[l] * (lr[l] * lr[l] - li[l] * li[l]), ci = k[l] * (2 * lr[l] * li[l]);
            sr[l] = -(qr * yr + qi * yi);
            si[l] = qr * yi - qi * yr;
            pr[l] = sr[l] + cr * nr[l] - ci * ni[l];
            pi[l] = si[l] + cr * ni[l] + ci * nr[l];
        }
    }
}

/* q_i = s_i + k_{i−1} gR_i² q_{i−1}; D = p + q − s: ∂a = Re D, ∂z = −conj D; ∂k_i = −Re(p_{i+1} gL_i + q_i gR_{i+1}). */
static void adjoint_from_the_left(Work *work) {
    const Block *block = &work->block;
    for (int64_t i = 0; i < block->rows; i++) {
        const double *restrict k = block->k + i * block->k_row;
        const double *restrict lr = block->lr + (i + 1) * W, *restrict li = block->li + (i + 1) * W;
        const double *restrict rr = work->rr + i * W, *restrict ri = work->ri + i * W;
        const double *restrict sr = work->sr + i * W, *restrict si = work->si + i * W;
        const double *restrict pr = work->pr + i * W, *restrict pi = work->pi + i * W;
        double *restrict qr = work->qr, *restrict qi = work->qi;
        double *restrict ga = work->grad_a + i * W, *restrict gk = work->grad_k + i * W;
        double *restrict gzr = work->grad_zr + i * W, *restrict gzi = work->grad_zi + i * W;
#pragma omp simd
        for (int l = 0; l < W; l++) {
            double cr = k[l] * (rr[l] * rr[l] - ri[l] * ri[l]), ci = k[l] * (2 * rr[l] * ri[l]);
            double ur = sr[l] + cr * qr[l] - ci * qi[l], ui = si[l] + cr * qi[l] + ci * qr[l];
            double dr = pr[l] + ur - sr[l], di = pi[l] + ui - si[l];
            qr[l] = ur;
            qi[l] = ui;
            ga[l] = dr;
            gzr[l] = -dr;
            gzi[l] = di;
            gk[l] = pi[l + W] * li[l] - pr[l + W] * lr[l] + ui * ri[l + W] - ur * rr[l + W];
        }
    }
}

/* Cavities, G_ii, s and p of a block, from the rows that enter it on both sides. */
static void both_sides_again(Work *work, const Call *call, const Tile *tile, int64_t index) {
    const double *right = work->checkpoints + index * CHECKPOINT + 2 * W;
    left_again(work, call, tile, index);
    int64_t end = work->block.rows * W;
    take_rows(right, work->rr + end, work->ri + end);
    take_rows(right + 2 * W, work->pr + end, work->pi + end);
    pack(call->arrays + GRAD, tile, work->block.first, work->block.rows, work->sr, work->si);
    right_cavity_and_diagonal(work);
    adjoint_from_the_right(work);
}

static void two_sided_backward_tile(Work *work, const Call *call, const Tile *tile) {
    int64_t blocks = blocks_of(call);
    left_checkpoints(work, call, tile);
    memset(work->checkpoints + (blocks - 1) * CHECKPOINT + 2 * W, 0, 4 * W * sizeof(double));
    for (int64_t index = blocks - 1; index > 0; index--) {
        both_sides_again(work, call, tile, index);
        double *right = work->checkpoints + (index - 1) * CHECKPOINT + 2 * W;
        keep_rows(right, work->rr, work->ri);
        keep_rows(right + 2 * W, work->pr, work->pi);
    }
    sums_begin(work);
    zero_row(work->qr);
    zero_row(work->qi);
    for (int64_t index = 0; index < blocks; index++) {
        both_sides_again(work, call, tile, index);
        adjoint_from_the_left(work);
        emit_gradients(work, call, tile);
    }
    sums_end(work, call, tile);
}

/* --------------------------------------------------------------------------------------------------- entry points */

#include "every_tile.h"
#include "stream.h"

int bk_diagonal(const Call *call) {
    if (can_stream(call, 0)) return stream_all(call, 0);
    return for_every_tile(call, call->causal ? causal_tile : two_sided_tile);
}

int bk_diagonal_backward(const Call *call) {
    int failed = can_stream(call, 1) ? stream_all(call, 1)
                                     : for_every_tile(call, call->causal ? causal_backward_tile : two_sided_backward_tile);
    if (failed) return failed;
    sum_gradient(call, call->arrays + GRAD_COUPLING, call->arrays + SUM_COUPLING, call->n - 1);
    sum_gradient(call, call->arrays + GRAD_SHIFT, call->arrays + SUM_SHIFT, call->n);
    return 0;
}

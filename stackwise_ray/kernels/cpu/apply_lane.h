/* The substitutions of resolvent_apply for one lane, one block and V·8 of its P channels, for elements of type T.
 *
 * Included by apply.c once for each T. The functions are inlined with constant V and flags; `count` is 8, or what is
 * left of the last vector. What one position hands to the next stays in registers.
 */
#define NAME_(x, T) x##_##T
#define NAME__(x, T) NAME_(x, T)
#define NAME(x) NAME__(x, T)

/* u_i = gL_i (x_i + t_{i−1} u_{i−1}) upwards; x is conjugated where `conjugate`. Writes u to `out`, or to `kept`. */
INLINE void NAME(ascend)(const Lane *lane, int V, int count, const T *x, int64_t x_row, int x_complex, int conjugate,
                         T *out, int64_t out_row, c8 *kept, c8 *state) {
    c8 u[4];
    for (int v = 0; v < V; v++) u[v] = state[v];
    for (int64_t i = 0; i < lane->rows; i++) {
        double gr = lane->gr[i * W], gi = lane->gi[i * W], t = lane->t[i * lane->t_row];
        for (int v = 0; v < V; v++) {
            c8 value = NAME(read_channels)(x + i * x_row + 8 * v * (x_complex ? 2 : 1), x_complex, count);
            v8 fr = value.re + t * u[v].re;
            v8 fi = (conjugate ? t * u[v].im - value.im : x_complex ? value.im + t * u[v].im : t * u[v].im);
            u[v].re = gr * fr - gi * fi;
            u[v].im = gr * fi + gi * fr;
            if (out) NAME(write_channels)(out + i * out_row + 16 * v, 1, count, u[v]);
            if (kept) kept[i * V + v] = u[v];
        }
    }
    for (int v = 0; v < V; v++) state[v] = u[v];
}

/* y_i = u_i + t_i gL_i y_{i+1} downwards, written to `out`: as it is, or, where `saved` (the op's own output y) is
 * given, y is the adjoint Λ; then conj Λ (or its real part) is written and the sums of ∂a, ∂z and ∂t are added. */
INLINE void NAME(descend)(Lane *lane, int V, int count, const c8 *kept, T *out, int64_t out_row, int out_complex,
                          const T *saved, int64_t saved_row, int has_after, c8 *state) {
    c8 y[4], after[4];
    for (int v = 0; v < V; v++) {
        y[v] = state[v];
        after[v] = (c8){{0}, {0}};
        if (saved && has_after) after[v] = NAME(read_channels)(saved + lane->rows * saved_row + 16 * v, 1, count);
    }
    for (int64_t i = lane->rows - 1; i >= 0; i--) {
        double t = lane->t[(i + 1) * lane->t_row], cr = t * lane->gr[i * W], ci = t * lane->gi[i * W];
        v8 product_r = {0}, product_i = {0}, crossed = {0};
        for (int v = 0; v < V; v++) {
            c8 u = kept[i * V + v], before = y[v];
            y[v].re = u.re + cr * before.re - ci * before.im;
            y[v].im = u.im + cr * before.im + ci * before.re;
            if (saved) {
                c8 here = NAME(read_channels)(saved + i * saved_row + 16 * v, 1, count);
                product_r += y[v].re * here.re - y[v].im * here.im;
                product_i += y[v].re * here.im + y[v].im * here.re;
                crossed += y[v].re * after[v].re - y[v].im * after[v].im;
                crossed += before.re * here.re - before.im * here.im;
                after[v] = here;
                NAME(write_channels)(out + i * out_row + 8 * v * (out_complex ? 2 : 1), out_complex, count,
                                     (c8){y[v].re, -y[v].im});
            } else {
                NAME(write_channels)(out + i * out_row + 16 * v, 1, count, y[v]);
            }
        }
        if (saved) {
            lane->sum_r[i * W] += total(product_r);
            lane->sum_i[i * W] += total(product_i);
            lane->crossed[(i + 1) * W] += total(crossed);
        }
    }
    for (int v = 0; v < V; v++) state[v] = y[v];
}

/* Causal adjoint downwards: m_i = gL_i (Y_i + t_i m_{i+1}) with Y = conj grad; writes ∂x = conj m, adds Σ m_i u_i and
 * Re Σ m_i u_{i−1}, u being the op's own output. */
INLINE void NAME(causal_adjoint)(Lane *lane, int V, int count, const T *grad, int64_t grad_row, const T *saved,
                                 int64_t saved_row, int has_before, T *out, int64_t out_row, int out_complex,
                                 c8 *state) {
    c8 m[4], u[4];
    for (int v = 0; v < V; v++) {
        m[v] = state[v];
        u[v] = NAME(read_channels)(saved + (lane->rows - 1) * saved_row + 16 * v, 1, count);
    }
    for (int64_t i = lane->rows - 1; i >= 0; i--) {
        double gr = lane->gr[i * W], gi = lane->gi[i * W], t = lane->t[(i + 1) * lane->t_row];
        v8 source_r = {0}, source_i = {0}, crossed = {0};
        for (int v = 0; v < V; v++) {
            c8 y = NAME(read_channels)(grad + i * grad_row + 16 * v, 1, count), before = {{0}, {0}};
            if (i > 0 || has_before) before = NAME(read_channels)(saved + (i - 1) * saved_row + 16 * v, 1, count);
            v8 fr = y.re + t * m[v].re, fi = t * m[v].im - y.im;
            m[v].re = gr * fr - gi * fi;
            m[v].im = gr * fi + gi * fr;
            source_r += m[v].re * u[v].re - m[v].im * u[v].im;
            source_i += m[v].re * u[v].im + m[v].im * u[v].re;
            crossed += m[v].re * before.re - m[v].im * before.im;
            u[v] = before;
            NAME(write_channels)(out + i * out_row + 8 * v * (out_complex ? 2 : 1), out_complex, count,
                                 (c8){m[v].re, -m[v].im});
        }
        lane->sum_r[i * W] += total(source_r);
        lane->sum_i[i * W] += total(source_i);
        lane->crossed[i * W] += total(crossed);
    }
    for (int v = 0; v < V; v++) state[v] = m[v];
}

/* ------------------------------------------------------------------------------- all channels of a lane and block */

INLINE void NAME(channels)(int pass, int is_complex, Lane *lane, int V, int count, int64_t p) {
    const T *x = (const T *)lane->x + p * (is_complex || pass >= ADJOINT_ASCEND ? 2 : 1);
    const T *saved = (const T *)lane->saved + 2 * p;
    T *out = (T *)lane->out + p * (is_complex || pass < ADJOINT_ASCEND ? 2 : 1);
    c8 *up = lane->up + p / 8, *down = lane->down + p / 8;
    int64_t x_row = lane->x_row, out_row = lane->out_row, saved_row = lane->saved_row;
    switch (pass) {
    case CAUSAL: NAME(ascend)(lane, V, count, x, x_row, is_complex, 0, out, out_row, NULL, up); break;
    case ASCEND: NAME(ascend)(lane, V, count, x, x_row, is_complex, 0, NULL, 0, NULL, up); break;
    case TWO_SIDED:
        NAME(ascend)(lane, V, count, x, x_row, is_complex, 0, NULL, 0, lane->kept, up);
        NAME(descend)(lane, V, count, lane->kept, out, out_row, 1, NULL, 0, 0, down);
        break;
    case ADJOINT_ASCEND: NAME(ascend)(lane, V, count, x, x_row, 1, 1, NULL, 0, NULL, up); break;
    case ADJOINT_TWO_SIDED:
        NAME(ascend)(lane, V, count, x, x_row, 1, 1, NULL, 0, lane->kept, up);
        NAME(descend)(lane, V, count, lane->kept, out, out_row, is_complex, saved, saved_row, lane->has_after, down);
        break;
    case ADJOINT_CAUSAL:
        NAME(causal_adjoint)(lane, V, count, x, x_row, saved, saved_row, lane->has_before, out, out_row, is_complex,
                             down);
    }
}

/* Vectors of channels four at a time, then one, then what is left of one. */
INLINE void NAME(all_channels)(int pass, int is_complex, Lane *lane, int64_t width) {
    int64_t p = 0;
    for (; p + 32 <= width; p += 32) NAME(channels)(pass, is_complex, lane, 4, 8, p);
    for (; p + 8 <= width; p += 8) NAME(channels)(pass, is_complex, lane, 1, 8, p);
    if (p < width) NAME(channels)(pass, is_complex, lane, 1, (int)(width - p), p);
}

/* One pass over a lane's block; `is_complex` tells of the values. */
static void NAME(pass_over_lane)(int pass, int is_complex, Lane *lane, int64_t width) {
#define CASE(name)                                                                                                     \
    case name:                                                                                                         \
        if (is_complex)                                                                                                \
            NAME(all_channels)(name, 1, lane, width);                                                                  \
        else                                                                                                           \
            NAME(all_channels)(name, 0, lane, width);                                                                  \
        break
    switch (pass) {
        CASE(CAUSAL);
        CASE(ASCEND);
        CASE(TWO_SIDED);
        CASE(ADJOINT_CAUSAL);
        CASE(ADJOINT_TWO_SIDED);
    case ADJOINT_ASCEND: NAME(all_channels)(ADJOINT_ASCEND, 1, lane, width);
    }
#undef CASE
}
#undef NAME
#undef NAME_
#undef NAME__

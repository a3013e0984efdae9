/* The causal diagonal straight from tensor to tensor, in the usual case: every vector of eight lanes lies in one sequence,
 * all positions of a lane share coupling and shift, and lanes are adjacent (the potential's positions may be instead).
 * The state of up to eight vectors stays in registers; the backward pass repeats blocks from their checkpoints.
 *
 * Included by diagonal.c.
 */
enum { MANY = 8, FEW = 4 }; /* vectors of lanes together: the divisions of one hide the latency of another's */
enum { CHECKPOINTS = 2 * MANY * 8 }; /* of a block: re and im */
enum { TO_OUTPUT, TO_PLANES, NOWHERE };

typedef struct {
    Tile tile[MANY];                                   /* the eight lanes of each vector */
    const void *potential[MANY], *a[MANY], *grad[MANY]; /* a: the potential of the block, from its first position on */
    void *out[MANY];                                   /* output, or gradient of the potential */
    int64_t a_row, out_row, grad_row;
    _Alignas(64) double zr[MANY * 8], zi[MANY * 8], k[MANY * 8];
    double re[MANY * 8], im[MANY * 8];                         /* gL that enters: a checkpoint */
    double wr[MANY * 8], wi[MANY * 8];                         /* adjoint that enters */
    double sum_k[MANY * 8], sum_zr[MANY * 8], sum_zi[MANY * 8]; /* of the gradients */
    double plane[S * MANY * 8];                                /* potential with adjacent positions, turned */
    double planes[S * MANY * 16];                               /* gL of a block: re and im of a vector */
} Stream;

static void stream_begin(Stream *stream, const Call *call, const Array *out, int64_t first, int V) {
    const Array *potential = call->arrays + POTENTIAL;
    int64_t element = potential->kind & DOUBLE ? sizeof(double) : sizeof(float), parts = out->kind & COMPLEX ? 2 : 1;
    memset(stream->k, 0, sizeof stream->k);
    memset(stream->re, 0, sizeof stream->re);
    memset(stream->im, 0, sizeof stream->im);
    stream->a_row = potential->head == 1 ? potential->position : 8 * V;
    stream->out_row = parts * out->position;
    for (int v = 0; v < V; v++) {
        Tile *tile = stream->tile + v;
        tile->run[0] = (Run){(first + 8 * v) / call->heads, (first + 8 * v) % call->heads, 0, 8};
        tile->runs = 1;
        if (call->n > 1) pack(call->arrays + COUPLING, tile, 0, 1, stream->k + 8 * v, NULL);
        pack(call->arrays + SHIFT, tile, 0, 1, stream->zr + 8 * v, stream->zi + 8 * v);
        stream->potential[v] = (const char *)potential->data + element * offset_of(potential, tile->run, 0);
        stream->out[v] = (char *)out->data + parts * element * offset_of(out, tile->run, 0);
    }
}

#define DEFINE_STREAM(T)                                                                                               \
    INLINE void stream_put_##T(int where, T *out, double *planes, c8 g) {                                              \
        if (where == TO_OUTPUT) write_pairs_##T(out, g);                                                               \
        if (where == TO_PLANES) {                                                                                      \
            write_double(planes, g.re);                                                                                \
            write_double(planes + 8, g.im);                                                                            \
        }                                                                                                              \
    }                                                                                                                  \
    /* A row is written while the next is computed: what waits for a division fills the processor's scheduler, and the \
     * divisions behind it start late. */                                                                              \
    INLINE void stream_rows_##T(Stream *stream, int where, int V, int64_t rows) {                                      \
        const int64_t a_row = stream->a_row, out_row = stream->out_row;                                                \
        const T *a[V];                                                                                                 \
        T *out[V];                                                                                                     \
        double *planes = stream->planes;                                                                               \
        v8 zr[V], zi[V], k[V];                                                                                         \
        c8 g[V];                                                                                                       \
        for (int v = 0; v < V; v++) {                                                                                  \
            a[v] = stream->a[v];                                                                                       \
            out[v] = stream->out[v];                                                                                   \
            zr[v] = read_double(stream->zr + 8 * v);                                                                   \
            zi[v] = read_double(stream->zi + 8 * v);                                                                   \
            k[v] = read_double(stream->k + 8 * v);                                                                     \
            g[v] = (c8){read_double(stream->re + 8 * v), read_double(stream->im + 8 * v)};                             \
            g[v] = cavity_step(read_##T(a[v]), zr[v], zi[v], k[v], g[v]);                                              \
        }                                                                                                              \
        for (int64_t i = 1; i < rows; i++)                                                                             \
            for (int v = 0; v < V; v++) {                                                                              \
                stream_put_##T(where, out[v] + (i - 1) * out_row, planes + ((i - 1) * V + v) * 16, g[v]);              \
                g[v] = cavity_step(read_##T(a[v] + i * a_row), zr[v], zi[v], k[v], g[v]);                              \
            }                                                                                                          \
        for (int v = 0; v < V; v++) {                                                                                  \
            stream_put_##T(where, out[v] + (rows - 1) * out_row, planes + ((rows - 1) * V + v) * 16, g[v]);            \
            write_double(stream->re + 8 * v, g[v].re);                                                                 \
            write_double(stream->im + 8 * v, g[v].im);                                                                 \
        }                                                                                                              \
    }                                                                                                                  \
    INLINE void stream_load_##T(Stream *stream, const Array *potential, int V, int64_t first, int64_t rows) {          \
        for (int v = 0; v < V; v++) {                                                                                  \
            const T *from = (const T *)stream->potential[v] + first * potential->position;                             \
            stream->a[v] = from;                                                                                       \
            if (potential->head == 1) continue;                                                                        \
            T *plane = (T *)stream->plane + 8 * v;                                                                     \
            turn_##T(from, potential->head, (int)rows, plane, 8 * V);                                                  \
            stream->a[v] = plane;                                                                                      \
        }                                                                                                              \
    }                                                                                                                  \
    INLINE void stream_forward_##T(Stream *stream, const Call *call, int64_t first, int V) {                           \
        const Array *potential = call->arrays + POTENTIAL;                                                             \
        int64_t step = potential->head == 1 ? call->n : S;                                                             \
        stream_begin(stream, call, call->arrays + OUTPUT, first, V);                                                   \
        for (int64_t i = 0; i < call->n; i += step) {                                                                  \
            int64_t rows = least(step, call->n - i);                                                                   \
            stream_load_##T(stream, potential, V, i, rows);                                                            \
            stream_rows_##T(stream, TO_OUTPUT, V, rows);                                                               \
            for (int v = 0; v < V; v++) stream->out[v] = (T *)stream->out[v] + rows * stream->out_row;                 \
        }                                                                                                              \
    }                                                                                                                  \
    /* w_i = g_i² (Γ_i + k_i w_{i+1}) of positions first … first + rows - 1, for G vectors; what the block before needs\
     * is fetched meanwhile. */                                                                                        \
    INLINE void stream_adjoint_##T(Stream *stream, int V, int from, int G, int64_t first, int64_t rows) {              \
        const int64_t grad_row = stream->grad_row, out_row = stream->out_row, ahead = first >= S ? S : 0;              \
        const int64_t a_row = stream->a_row;                                                                           \
        const T *grad[G], *a[G];                                                                                       \
        T *out[G];                                                                                                     \
        v8 k[G], sum_k[G], sum_zr[G], sum_zi[G];                                                                       \
        c8 w[G];                                                                                                       \
        for (int v = 0; v < G; v++) {                                                                                  \
            int at = 8 * (from + v);                                                                                   \
            a[v] = stream->a[from + v];                                                                                \
            grad[v] = (const T *)stream->grad[from + v] + first * grad_row;                                            \
            out[v] = (T *)stream->out[from + v] + first * out_row;                                                     \
            w[v] = (c8){read_double(stream->wr + at), read_double(stream->wi + at)};                                   \
            k[v] = read_double(stream->k + at);                                                                        \
            sum_k[v] = read_double(stream->sum_k + at);                                                                \
            sum_zr[v] = read_double(stream->sum_zr + at);                                                              \
            sum_zi[v] = read_double(stream->sum_zi + at);                                                              \
        }                                                                                                              \
        for (int64_t i = rows - 1; i >= 0; i--)                                                                        \
            for (int v = 0; v < G; v++) {                                                                              \
                const double *at = stream->planes + (i * V + from + v) * 16;                                           \
                __builtin_prefetch(a[v] + (i - ahead) * a_row, 0, 2);                                                  \
                __builtin_prefetch(grad[v] + (i - ahead) * grad_row, 0, 2);                                            \
                __builtin_prefetch(out[v] + (i - ahead) * out_row, 1, 2);                                              \
                c8 g = {read_double(at), read_double(at + 8)}, y = read_pairs_##T(grad[v] + i * grad_row);             \
                v8 fr = y.re + k[v] * w[v].re, fi = k[v] * w[v].im - y.im;                                             \
                v8 qr = g.re * g.re - g.im * g.im, qi = (g.re + g.re) * g.im;                                          \
                sum_k[v] += w[v].re * g.re - w[v].im * g.im;                                                           \
                w[v] = (c8){qr * fr - qi * fi, qr * fi + qi * fr};                                                     \
                sum_zr[v] += w[v].re;                                                                                  \
                sum_zi[v] -= w[v].im;                                                                                  \
                write_##T(out[v] + i * out_row, -w[v].re);                                                             \
            }                                                                                                          \
        for (int v = 0; v < G; v++) {                                                                                  \
            int at = 8 * (from + v);                                                                                   \
            write_double(stream->wr + at, w[v].re);                                                                    \
            write_double(stream->wi + at, w[v].im);                                                                    \
            write_double(stream->sum_k + at, sum_k[v]);                                                                \
            write_double(stream->sum_zr + at, sum_zr[v]);                                                              \
            write_double(stream->sum_zi + at, sum_zi[v]);                                                              \
        }                                                                                                              \
    }                                                                                                                  \
    INLINE void stream_backward_##T(Stream *stream, const Call *call, int64_t first, int V, double *kept) {            \
        const Array *potential = call->arrays + POTENTIAL, *grad = call->arrays + GRAD;                                \
        int64_t blocks = (call->n + S - 1) / S;                                                                        \
        stream_begin(stream, call, call->arrays + GRAD_POTENTIAL, first, V);                                           \
        memset(stream->wr, 0, (char *)stream->plane - (char *)stream->wr); /* and the sums */                          \
        stream->grad_row = 2 * grad->position;                                                                         \
        for (int v = 0; v < V; v++) stream->grad[v] = (T *)grad->data + 2 * offset_of(grad, stream->tile[v].run, 0);   \
        for (int64_t b = 0; b < blocks; b++) {                                                                         \
            memcpy(kept + b * CHECKPOINTS, stream->re, sizeof stream->re + sizeof stream->im);                         \
            if (b + 1 == blocks) break;                                                                                \
            stream_load_##T(stream, potential, V, b * S, S);                                                           \
            stream_rows_##T(stream, NOWHERE, V, S);                                                                    \
        }                                                                                                              \
        for (int64_t b = blocks - 1; b >= 0; b--) {                                                                    \
            int64_t rows = least(S, call->n - b * S);                                                                  \
            memcpy(stream->re, kept + b * CHECKPOINTS, sizeof stream->re + sizeof stream->im);                         \
            stream_load_##T(stream, potential, V, b * S, rows);                                                        \
            stream_rows_##T(stream, TO_PLANES, V, rows);                                                               \
            for (int v = 0; v < V; v += FEW)                                                                           \
                stream_adjoint_##T(stream, V, v, V < FEW ? V : FEW, b * S, rows);                                      \
        }                                                                                                              \
        for (int v = 0; v < V; v++) {                                                                                  \
            const Array *coupling = call->arrays + GRAD_COUPLING, *shift = call->arrays + GRAD_SHIFT;                  \
            Tile *tile = stream->tile + v;                                                                             \
            if (coupling->data) unpack(coupling, tile, 0, 1, stream->sum_k + 8 * v, NULL);                             \
            if (shift->data) unpack(shift, tile, 0, 1, stream->sum_zr + 8 * v, stream->sum_zi + 8 * v);                \
        }                                                                                                              \
    }                                                                                                                  \
    INLINE void stream_some_##T(Stream *stream, const Call *call, int64_t first, int V, double *kept) {                \
        if (kept)                                                                                                      \
            stream_backward_##T(stream, call, first, V, kept);                                                         \
        else                                                                                                           \
            stream_forward_##T(stream, call, first, V);                                                                \
    }                                                                                                                  \
    static void stream_##T(Stream *stream, const Call *call, int64_t first, int64_t vectors, double *kept) {           \
        for (; vectors >= MANY; vectors -= MANY, first += 8 * MANY) stream_some_##T(stream, call, first, MANY, kept);  \
        for (; vectors >= FEW; vectors -= FEW, first += 8 * FEW) stream_some_##T(stream, call, first, FEW, kept);      \
        for (; vectors > 0; vectors--, first += 8) stream_some_##T(stream, call, first, 1, kept);                      \
    }
DEFINE_STREAM(float)
DEFINE_STREAM(double)

/* A tensor that was expanded along its positions is read with stride 0, but its gradient has them all. */
static int can_stream(const Call *call, int backward) {
    const Array *potential = call->arrays + POTENTIAL, *grad = call->arrays + GRAD;
    return call->causal && call->heads % 8 == 0 && (potential->head == 1 || potential->position == 1)
           && !call->arrays[COUPLING].position && !call->arrays[SHIFT].position
           && (!backward || (grad->head == 1 && grad->kind == (potential->kind | COMPLEX)
                             && !call->arrays[GRAD_COUPLING].position && !call->arrays[GRAD_SHIFT].position));
}

/* Returns 0, or 1 where memory was refused. */
static int stream_all(const Call *call, int backward) {
    int failed = 0;
    int64_t vectors = lanes_of(call) / 8, share = vectors >= MANY * call->threads ? MANY : FEW;
    size_t checkpoints = backward ? (size_t)(call->n + S - 1) / S * CHECKPOINTS * sizeof(double) : 0;
#pragma omp parallel num_threads(call->threads) if (call->threads > 1) reduction(| : failed)
    {
        Stream *stream = aligned_alloc(64, sizeof(Stream) + checkpoints);
        failed = !stream;
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < vectors; first += share) {
            int64_t count = least(share, vectors - first);
            double *kept = backward ? (double *)(stream + 1) : NULL;
            if (!stream) continue;
            if (call->arrays[POTENTIAL].kind & DOUBLE)
                stream_double(stream, call, 8 * first, count, kept);
            else
                stream_float(stream, call, 8 * first, count, kept);
        }
        free(stream);
    }
    return failed;
}

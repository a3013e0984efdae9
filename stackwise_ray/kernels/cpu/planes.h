/* Between tensors of any strides, either precision, real or complex, and planes of float64, [position][lane] with W lanes.
 *
 * Included by tile.h, after what a call and a tile are.
 */
/* `rows` adjacent positions of eight lanes into rows of eight adjacent lanes, in whole squares and what is left. What
 * comes next in memory is fetched meanwhile: a block of all lanes is more streams than the processor foresees. */
#define DEFINE_TURN(T, SQUARE)                                                                                         \
    static inline void turn_##T(const T *x, int64_t lane, int rows, T *out, int64_t out_row) {                         \
        int i = 0;                                                                                                     \
        for (; i + 8 <= rows; i += 8) {                                                                                \
            SQUARE square[8];                                                                                          \
            for (int j = 0; j < 8; j++) memcpy(square + j, x + i + j * lane, sizeof *square);                          \
            for (int j = 0; j < 8; j++) __builtin_prefetch(x + i + S + j * lane);                                      \
            transpose_##T(square);                                                                                     \
            for (int j = 0; j < 8; j++) memcpy(out + (i + j) * out_row, square + j, sizeof *square);                   \
        }                                                                                                              \
        for (; i < rows; i++)                                                                                          \
            for (int j = 0; j < 8; j++) out[i * out_row + j] = x[i + j * lane];                                        \
    }
DEFINE_TURN(float, f8)
DEFINE_TURN(double, v8)

/* The rows of one run; `lane` and `row` are strides in T. */
#define DEFINE_COPIES(T)                                                                                               \
    static inline void read_real_##T(const T *x, int64_t lane, int64_t row, int count, int64_t rows, double *out) {    \
        if (lane == 1 && count == W) {                                                                                 \
            for (int64_t i = 0; i < rows; i++)                                                                         \
                for (int l = 0; l < W; l++) out[i * W + l] = x[i * row + l];                                           \
        } else if (row == 1) {                                                                                         \
            int64_t i = 0, whole = count / 8 * 8;                                                                      \
            for (; i + 8 <= rows; i += 8)                                                                              \
                for (int64_t l = 0; l < whole; l += 8) {                                                               \
                    v8 square[8];                                                                                      \
                    for (int j = 0; j < 8; j++) square[j] = read_##T(x + i + (l + j) * lane);                          \
                    transpose_double(square);                                                                             \
                    for (int j = 0; j < 8; j++) write_double(out + (i + j) * W + l, square[j]);                        \
                }                                                                                                      \
            for (int64_t j = 0; j < rows; j++)                                                                         \
                for (int64_t l = j < i ? whole : 0; l < count; l++) out[j * W + l] = x[j + l * lane];                  \
        } else {                                                                                                       \
            for (int64_t i = 0; i < rows; i++)                                                                         \
                for (int l = 0; l < count; l++) out[i * W + l] = x[i * row + l * lane];                                \
        }                                                                                                              \
    }                                                                                                                  \
    static inline void read_complex_##T(const T *x, int64_t lane, int64_t row, int count, int64_t rows, double *re,    \
                                        double *im) {                                                                  \
        if (lane == 2 && count == W) {                                                                                 \
            for (int64_t i = 0; i < rows; i++)                                                                         \
                for (int l = 0; l < W; l++) re[i * W + l] = x[i * row + 2 * l], im[i * W + l] = x[i * row + 2 * l + 1];\
        } else {                                                                                                       \
            for (int64_t i = 0; i < rows; i++)                                                                         \
                for (int l = 0; l < count; l++) {                                                                      \
                    const T *from = x + i * row + l * lane;                                                            \
                    re[i * W + l] = from[0], im[i * W + l] = from[1];                                                  \
                }                                                                                                      \
        }                                                                                                              \
    }                                                                                                                  \
    static inline void write_real_##T(T *out, int64_t row, int count, int64_t rows, const double *x) {                 \
        if (count == W) {                                                                                              \
            for (int64_t i = 0; i < rows; i++)                                                                         \
                for (int l = 0; l < W; l++) out[i * row + l] = (T)x[i * W + l];                                        \
        } else {                                                                                                       \
            for (int64_t i = 0; i < rows; i++)                                                                         \
                for (int l = 0; l < count; l++) out[i * row + l] = (T)x[i * W + l];                                    \
        }                                                                                                              \
    }                                                                                                                  \
    static inline void write_complex_##T(T *out, int64_t row, int count, int64_t rows, const double *re,               \
                                         const double *im) {                                                           \
        if (count == W) {                                                                                              \
            for (int64_t i = 0; i < rows; i++)                                                                         \
                for (int l = 0; l < W; l++)                                                                            \
                    out[i * row + 2 * l] = (T)re[i * W + l], out[i * row + 2 * l + 1] = (T)im[i * W + l];              \
        } else {                                                                                                       \
            for (int64_t i = 0; i < rows; i++)                                                                         \
                for (int l = 0; l < count; l++)                                                                        \
                    out[i * row + 2 * l] = (T)re[i * W + l], out[i * row + 2 * l + 1] = (T)im[i * W + l];              \
        }                                                                                                              \
    }
DEFINE_COPIES(float)
DEFINE_COPIES(double)

static int64_t offset_of(const Array *x, const Run *run, int64_t first) {
    return run->batch * x->batch + run->head * x->head + first * x->position;
}

/* Positions first … first + rows - 1 into planes; lanes that the tile does not have keep what they held. */
static void pack(const Array *x, const Tile *tile, int64_t first, int64_t rows, double *re, double *im) {
    for (int r = 0; r < tile->runs; r++) {
        const Run *run = tile->run + r;
        int64_t offset = offset_of(x, run, first);
        const float *single = (const float *)x->data;
        const double *full = (const double *)x->data;
        switch (x->kind) {
        case SINGLE: read_real_float(single + offset, x->head, x->position, run->count, rows, re + run->at); break;
        case DOUBLE: read_real_double(full + offset, x->head, x->position, run->count, rows, re + run->at); break;
        case COMPLEX | SINGLE:
            read_complex_float(single + 2 * offset, 2 * x->head, 2 * x->position, run->count, rows, re + run->at,
                               im + run->at);
            break;
        default:
            read_complex_double(full + 2 * offset, 2 * x->head, 2 * x->position, run->count, rows, re + run->at,
                                im + run->at);
        }
    }
}

/* Rows of tensors with adjacent lanes that a later block needs. Fetched row by row amid the arithmetic, they arrive
 * while it runs; the processor itself foresees streams upwards through memory, not blocks taken downwards. */
typedef struct {
    const char *start[3];
    int64_t row[3], bytes[3]; /* of one position */
    int arrays;
} Ahead;

INLINE void look_ahead(Ahead *ahead, const Array *x, const Tile *tile, int64_t index) {
    int64_t element = (x->kind & DOUBLE ? 8 : 4) * (x->kind & COMPLEX ? 2 : 1);
    if (index < 0 || x->head != 1 || tile->run[0].count != W) return;
    ahead->start[ahead->arrays] = (const char *)x->data + element * offset_of(x, tile->run, index * S);
    ahead->row[ahead->arrays] = element * x->position;
    ahead->bytes[ahead->arrays++] = element * W;
}

INLINE void fetch(const Ahead *ahead, int64_t i) {
    for (int j = 0; j < ahead->arrays; j++)
        for (int64_t byte = 0; byte < ahead->bytes[j]; byte += 64)
            __builtin_prefetch(ahead->start[j] + i * ahead->row[j] + byte, 0, 2);
}

/* `pack` the other way round, into a tensor whose heads are adjacent. */
static void unpack(const Array *x, const Tile *tile, int64_t first, int64_t rows, const double *re, const double *im) {
    for (int r = 0; r < tile->runs; r++) {
        const Run *run = tile->run + r;
        int64_t offset = offset_of(x, run, first);
        float *single = (float *)x->data;
        double *full = (double *)x->data;
        switch (x->kind) {
        case SINGLE: write_real_float(single + offset, x->position, run->count, rows, re + run->at); break;
        case DOUBLE: write_real_double(full + offset, x->position, run->count, rows, re + run->at); break;
        case COMPLEX | SINGLE:
            write_complex_float(single + 2 * offset, 2 * x->position, run->count, rows, re + run->at, im + run->at);
            break;
        default: write_complex_double(full + 2 * offset, 2 * x->position, run->count, rows, re + run->at, im + run->at);
        }
    }
}

/* A gradient's rows: written where it has positions, else added to the tile's sums. */
static void emit(const Array *x, const Tile *tile, int64_t first, int64_t rows, const double *re, const double *im,
                 double *sum_re, double *sum_im) {
    if (!x->data || rows <= 0) return;
    if (x->position) {
        unpack(x, tile, first, rows, re, im);
        return;
    }
    for (int64_t i = 0; i < rows; i++)
        for (int l = 0; l < W; l++) sum_re[l] += re[i * W + l];
    if (im)
        for (int64_t i = 0; i < rows; i++)
            for (int l = 0; l < W; l++) sum_im[l] += im[i * W + l];
}

static void emit_sums(const Array *x, const Tile *tile, const double *sum_re, const double *sum_im) {
    if (x->data && !x->position) unpack(x, tile, 0, 1, sum_re, sum_im);
}

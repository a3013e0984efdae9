/* Eight float64 channels as one value, read from and written to rows of either precision.
 *
 * GCC's and clang's vector extensions: two AVX2, one AVX-512 or four NEON registers. A row's last few channels go
 * through a padded copy.
 */
typedef double v8 __attribute__((vector_size(64)));
typedef float f8 __attribute__((vector_size(32)));
typedef float f16 __attribute__((vector_size(64)));
typedef int i16 __attribute__((vector_size(64)));
#define INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define SHUFFLE(x, ...) __builtin_shufflevector(x, x, __VA_ARGS__)
#else
#define SHUFFLE(x, ...) __builtin_shuffle(x, (i16){__VA_ARGS__})
#endif

typedef union {
    f16 whole;
    f8 half[2];
} Floats;

typedef struct {
    v8 re, im;
} c8;

INLINE double total(v8 x) {
    typedef double v4 __attribute__((vector_size(32)));
    typedef double v2 __attribute__((vector_size(16)));
    union {
        v8 v;
        v4 half[2];
    } a = {.v = x};
    union {
        v4 v;
        v2 half[2];
    } b = {.v = a.half[0] + a.half[1]};
    v2 c = b.half[0] + b.half[1];
    return c[0] + c[1];
}

INLINE v8 read_float(const float *from) {
    f8 x;
    memcpy(&x, from, sizeof x);
    return __builtin_convertvector(x, v8);
}

INLINE c8 read_pairs_float(const float *from) {
    Floats x;
    memcpy(&x, from, sizeof x);
    x.whole = SHUFFLE(x.whole, 0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    return (c8){__builtin_convertvector(x.half[0], v8), __builtin_convertvector(x.half[1], v8)};
}

INLINE void write_float(float *to, v8 x) {
    f8 y = __builtin_convertvector(x, f8);
    memcpy(to, &y, sizeof y);
}

INLINE void write_pairs_float(float *to, c8 x) {
    Floats y;
    y.half[0] = __builtin_convertvector(x.re, f8);
    y.half[1] = __builtin_convertvector(x.im, f8);
    y.whole = SHUFFLE(y.whole, 0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    memcpy(to, &y, sizeof y);
}

INLINE v8 read_double(const double *from) {
    v8 x;
    memcpy(&x, from, sizeof x);
    return x;
}

INLINE c8 read_pairs_double(const double *from) {
    c8 x;
    for (int j = 0; j < 8; j++) x.re[j] = from[2 * j], x.im[j] = from[2 * j + 1];
    return x;
}

INLINE void write_double(double *to, v8 x) { memcpy(to, &x, sizeof x); }

INLINE void write_pairs_double(double *to, c8 x) {
    for (int j = 0; j < 8; j++) to[2 * j] = x.re[j], to[2 * j + 1] = x.im[j];
}

/* `count` of eight channels of a real or complex row; the missing ones read as 0. */
#define DEFINE_ROWS(T)                                                                                                 \
    INLINE c8 read_channels_##T(const T *from, int is_complex, int count) {                                            \
        T padded[16] = {0};                                                                                            \
        if (count < 8) from = memcpy(padded, from, (size_t)count * (is_complex ? 2 : 1) * sizeof(T));                  \
        if (is_complex) return read_pairs_##T(from);                                                                   \
        return (c8){read_##T(from), (v8){0}};                                                                          \
    }                                                                                                                  \
    INLINE void write_channels_##T(T *to, int is_complex, int count, c8 x) {                                           \
        T padded[16], *target = count < 8 ? padded : to;                                                               \
        if (is_complex)                                                                                                \
            write_pairs_##T(target, x);                                                                                \
        else                                                                                                           \
            write_##T(target, x.re);                                                                                   \
        if (count < 8) memcpy(to, padded, (size_t)count * (is_complex ? 2 : 1) * sizeof(T));                           \
    }
DEFINE_ROWS(float)
DEFINE_ROWS(double)

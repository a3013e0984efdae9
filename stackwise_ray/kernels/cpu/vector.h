/* Eight float64 channels as one value, read from and written to rows of either precision.
 *
 * GCC's and clang's vector extensions: two AVX2, one AVX-512 or four NEON registers. A row's last few channels go
 * through a padded copy.
 */
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

typedef double v8 __attribute__((vector_size(64)));
typedef float f8 __attribute__((vector_size(32)));
typedef float f16 __attribute__((vector_size(64)));
typedef f16 __attribute__((aligned(4), may_alias)) f16_anywhere; /* of a memcpy, gcc 12 may keep a copy on the stack */
typedef int i8 __attribute__((vector_size(32)));
typedef int i16 __attribute__((vector_size(64)));
typedef long long l8 __attribute__((vector_size(64)));
#define INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define SHUFFLE(x, ...) __builtin_shufflevector(x, x, __VA_ARGS__)
#define SHUFFLE2(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#define SHUFFLE2F(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define SHUFFLE(x, ...) __builtin_shuffle(x, (i16){__VA_ARGS__})
#define SHUFFLE2(x, y, ...) __builtin_shuffle(x, y, (l8){__VA_ARGS__})
#define SHUFFLE2F(x, y, ...) __builtin_shuffle(x, y, (i8){__VA_ARGS__})
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

/* gcc up to 12 converts by halves, which costs the extra moves. */
INLINE v8 widen(f8 x) {
#if defined(__AVX512F__)
    return (v8)_mm512_cvtps_pd((__m256)x);
#else
    return __builtin_convertvector(x, v8);
#endif
}

INLINE f8 narrow(v8 x) {
#if defined(__AVX512F__)
    return (f8)_mm512_cvtpd_ps((__m512d)x);
#else
    return __builtin_convertvector(x, f8);
#endif
}

/* Halves of sixteen floats, and two halves as pairs. Through memory, as gcc passes a union's halves, each would wait for
 * the stores of the other half. */
INLINE f8 lower(f16 x) {
#if defined(__AVX512F__)
    return (f8)_mm512_castps512_ps256((__m512)x);
#else
    return ((Floats){.whole = x}).half[0];
#endif
}

INLINE f8 upper(f16 x) {
#if defined(__AVX512F__)
    return (f8)_mm256_castpd_ps(_mm512_extractf64x4_pd((__m512d)x, 1));
#else
    return ((Floats){.whole = x}).half[1];
#endif
}

INLINE f16 zip(f8 x, f8 y) {
#if defined(__AVX512F__)
    const i16 order = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
    return (f16)_mm512_permutex2var_ps(_mm512_castps256_ps512((__m256)x), (__m512i)order,
                                       _mm512_castps256_ps512((__m256)y));
#else
    Floats z = {.half = {x, y}};
    return SHUFFLE(z.whole, 0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
#endif
}

/* Three times the halves of the list are zipped: eight rows become eight columns. */
#define DEFINE_TRANSPOSE(T, ROW, ZIP)                                                                                  \
    INLINE void transpose_##T(ROW square[8]) {                                                                         \
        for (int round = 0; round < 3; round++) {                                                                      \
            ROW zipped[8];                                                                                             \
            for (int j = 0; j < 4; j++) {                                                                              \
                zipped[2 * j] = ZIP(square[j], square[j + 4], 0, 8, 1, 9, 2, 10, 3, 11);                               \
                zipped[2 * j + 1] = ZIP(square[j], square[j + 4], 4, 12, 5, 13, 6, 14, 7, 15);                         \
            }                                                                                                          \
            for (int j = 0; j < 8; j++) square[j] = zipped[j];                                                         \
        }                                                                                                              \
    }
DEFINE_TRANSPOSE(float, f8, SHUFFLE2F)
DEFINE_TRANSPOSE(double, v8, SHUFFLE2)

INLINE v8 read_float(const float *from) {
    f8 x;
    memcpy(&x, from, sizeof x);
    return widen(x);
}

INLINE c8 read_pairs_float(const float *from) {
    f16 x;
    memcpy(&x, from, sizeof x);
    x = SHUFFLE(x, 0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    return (c8){widen(lower(x)), widen(upper(x))};
}

INLINE void write_float(float *to, v8 x) {
    f8 y = narrow(x);
    memcpy(to, &y, sizeof y);
}

INLINE void write_pairs_float(float *to, c8 x) {
    *(f16_anywhere *)to = zip(narrow(x.re), narrow(x.im));
}

INLINE v8 read_double(const double *from) {
    v8 x;
    memcpy(&x, from, sizeof x);
    return x;
}

INLINE c8 read_pairs_double(const double *from) {
    v8 x = read_double(from), y = read_double(from + 8);
    return (c8){SHUFFLE2(x, y, 0, 2, 4, 6, 8, 10, 12, 14), SHUFFLE2(x, y, 1, 3, 5, 7, 9, 11, 13, 15)};
}

INLINE void write_double(double *to, v8 x) { memcpy(to, &x, sizeof x); }

INLINE void write_pairs_double(double *to, c8 x) {
    write_double(to, SHUFFLE2(x.re, x.im, 0, 8, 1, 9, 2, 10, 3, 11));
    write_double(to + 8, SHUFFLE2(x.re, x.im, 4, 12, 5, 13, 6, 14, 7, 15));
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

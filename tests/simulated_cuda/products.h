// Matrix products by columns, as cuBLAS and cublasLt count. Factors are rounded as the compute type has it; sums are of the
// type of the matrices, in the order of the inner dimension.
#pragma once
#include <string.h>

#include <algorithm>
#include <vector>

#include "cuda.h"

namespace {

enum Status { SUCCESS = 0, INVALID_VALUE = 7, EXECUTION_FAILED = 13, INTERNAL_ERROR = 14, NOT_SUPPORTED = 15 };
enum Type { REAL_32 = 0, REAL_64 = 1 };
enum Compute { COMPUTE_32F = 68, COMPUTE_64F = 70, FAST_16F = 74, FAST_16BF = 75, FAST_TF32 = 77 };

struct Handle {
    int device = current_device;
    void* stream = nullptr;
    void* workspace = nullptr;
};

float cut(float x, unsigned bits) {  // rounded to nearest, without so many of its last bits
    unsigned word;
    memcpy(&word, &x, 4);
    if ((word & 0x7f800000) == 0x7f800000) return x;  // infinite, or no number
    word = (word + (1u << (bits - 1)) - 1 + (word >> bits & 1)) & ~((1u << bits) - 1);
    memcpy(&x, &word, 4);
    return x;
}
float rounded(float x, int compute) {
    switch (compute) {
        case FAST_TF32: return cut(x, 13);
        case FAST_16BF: return cut(x, 16);
        case FAST_16F: return static_cast<float>(static_cast<_Float16>(x));
        default: return x;
    }
}
double rounded(double x, int) { return x; }

struct Product {
    int transposes_a, transposes_b, m, n, k, lda, ldb, ldc, compute;

    size_t extent_a() const { return size_t((transposes_a ? m : k) - 1) * lda + (transposes_a ? k : m); }
    size_t extent_b() const { return size_t((transposes_b ? k : n) - 1) * ldb + (transposes_b ? n : k); }
    size_t extent_c() const { return size_t(n - 1) * ldc + m; }
    bool is_valid() const {
        return m >= 0 && n >= 0 && k >= 0 && lda >= std::max(1, transposes_a ? k : m) &&
               ldb >= std::max(1, transposes_b ? n : k) && ldc >= std::max(1, m);
    }
    template <typename T> bool is_within_memory(const T* a, const T* b, const T* c) const {
        return !m || !n || !k || (is_device_memory(a, extent_a() * sizeof(T)) && is_device_memory(b, extent_b() * sizeof(T)) &&
                                  is_device_memory(c, extent_c() * sizeof(T)));
    }
};

// c := alpha a b + beta c, all by columns.
template <typename T> cudaError_t multiply(Product p, T alpha, const T* a, const T* b, T beta, T* c) {
    std::vector<T> left(size_t(p.m) * p.k), sum(p.m);
    for (int inner = 0; inner < p.k; ++inner)
        for (int i = 0; i < p.m; ++i)
            left[size_t(inner) * p.m + i] =
                rounded(p.transposes_a ? a[size_t(i) * p.lda + inner] : a[size_t(inner) * p.lda + i], p.compute);
    for (int j = 0; j < p.n; ++j) {
        std::fill(sum.begin(), sum.end(), T(0));
        for (int inner = 0; inner < p.k; ++inner) {
            T factor = rounded(p.transposes_b ? b[size_t(inner) * p.ldb + j] : b[size_t(j) * p.ldb + inner], p.compute);
            const T* column = &left[size_t(inner) * p.m];
            for (int i = 0; i < p.m; ++i) sum[i] += column[i] * factor;
        }
        T* out = c + size_t(j) * p.ldc;
        for (int i = 0; i < p.m; ++i) out[i] = beta == 0 ? alpha * sum[i] : alpha * sum[i] + beta * out[i];
    }
    return cudaSuccess;
}

}  // namespace

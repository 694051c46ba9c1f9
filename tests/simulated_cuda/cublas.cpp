// cuBLAS, and of cublasLt what benchmarks/lt_product.py asks for. Factors are rounded as the compute type has it; sums are
// of the type of the matrices, in the order of the inner dimension.
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <map>

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
    count("products");
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

template <typename T>
int enqueue(void* stream, Product p, const void* alpha, const void* a, const void* b, const void* beta, void* c) {
    auto *first = static_cast<const T*>(a), *second = static_cast<const T*>(b);
    auto* out = static_cast<T*>(c);
    if (!p.is_within_memory(first, second, out)) return EXECUTION_FAILED;
    T one = *static_cast<const T*>(alpha), other = *static_cast<const T*>(beta);
    return submit(stream, [=] { return multiply<T>(p, one, first, second, other, out); }) ? INTERNAL_ERROR : SUCCESS;
}

}  // namespace

DRIVER cublasCreate_v2(Handle** made) {
    ENTER;
    if (spoil_captures(true)) return INTERNAL_ERROR;
    *made = new Handle;
    return SUCCESS;
}
DRIVER cublasDestroy_v2(Handle* handle) {
    ENTER;
    delete handle;
    return SUCCESS;
}
DRIVER cublasSetStream_v2(Handle* handle, void* stream) {
    ENTER;
    handle->stream = stream;
    handle->workspace = nullptr;  // as cuBLAS does: the workspace is set after the stream
    return SUCCESS;
}
DRIVER cublasSetWorkspace_v2(Handle* handle, void* workspace, size_t size) {
    ENTER;
    if (reinterpret_cast<size_t>(workspace) % 256 || !is_device_memory(workspace, size)) return INVALID_VALUE;
    handle->workspace = workspace;
    return SUCCESS;
}
EXPORT const char* cublasGetStatusName(int status) {
    switch (status) {
        case SUCCESS: return "CUBLAS_STATUS_SUCCESS";
        case 1: return "CUBLAS_STATUS_NOT_INITIALIZED";
        case INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
        case EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
        case NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
        default: return "CUBLAS_STATUS_INTERNAL_ERROR";
    }
}
EXPORT const char* cublasGetStatusString(int status) { return cublasGetStatusName(status); }

DRIVER cublasGemmEx(Handle* handle, int transposes_a, int transposes_b, int m, int n, int k, const void* alpha,
                    const void* a, int type_a, int lda, const void* b, int type_b, int ldb, const void* beta, void* c,
                    int type_c, int ldc, int compute, int algorithm) {
    ENTER;
    if (handle->device != current_device) {
        fprintf(stderr, "simulated CUDA: cuBLAS of device %d while %d is current\n", handle->device, current_device);
        return INTERNAL_ERROR;
    }
    Product product{transposes_a, transposes_b, m, n, k, lda, ldb, ldc, compute};
    if (!product.is_valid()) return INVALID_VALUE;
    bool is_double = type_a == REAL_64;
    if (type_a != type_b || type_a != type_c || (type_a != REAL_32 && !is_double)) return NOT_SUPPORTED;
    if (is_double != (compute == COMPUTE_64F) || algorithm != -1) return NOT_SUPPORTED;
    if (is_capturing(handle->stream) && !handle->workspace) return INTERNAL_ERROR;  // it would take memory
    auto multiply = is_double ? enqueue<double> : enqueue<float>;
    return multiply(handle->stream, product, alpha, a, b, beta, c);
}

// ---- cublasLt

namespace {

struct Layout {
    int type;
    unsigned long long rows, columns;
    long long ld;
};
struct Description {
    int compute, scale;
    int transposes_a = 0, transposes_b = 0, epilog = 1;
    void* bias = nullptr;
};
const unsigned long long ALGORITHM = 0xA160;  // the one that there is
enum { EPILOG_RELU = 2, EPILOG_BIAS = 4 };

}  // namespace

DRIVER cublasLtCreate(Handle** handle) { return cublasCreate_v2(handle); }
DRIVER cublasLtMatmulDescCreate(Description** made, int compute, int scale) {
    ENTER;
    *made = new Description{compute, scale};
    return SUCCESS;
}
DRIVER cublasLtMatmulDescDestroy(Description* description) {
    delete description;
    return SUCCESS;
}
DRIVER cublasLtMatmulDescSetAttribute(Description* description, int attribute, const void* value, size_t size) {
    std::map<int, void*> targets = {{3, &description->transposes_a},
                                    {4, &description->transposes_b},
                                    {7, &description->epilog},
                                    {8, &description->bias}};
    void* target = targets[attribute];
    if (!target || size != (attribute == 8 ? sizeof(void*) : sizeof(int))) return INVALID_VALUE;
    memcpy(target, value, size);
    return SUCCESS;
}
DRIVER cublasLtMatrixLayoutCreate(Layout** made, int type, unsigned long long rows, unsigned long long columns, long long ld) {
    *made = new Layout{type, rows, columns, ld};
    return SUCCESS;
}
DRIVER cublasLtMatmulPreferenceCreate(unsigned long long** made) {
    *made = new unsigned long long(0);
    return SUCCESS;
}
DRIVER cublasLtMatmulPreferenceDestroy(unsigned long long* preference) {
    delete preference;
    return SUCCESS;
}
DRIVER cublasLtMatmulPreferenceSetAttribute(unsigned long long* preference, int attribute, const void* value, size_t size) {
    if (attribute != 1 || size != sizeof *preference) return INVALID_VALUE;
    memcpy(preference, value, size);
    return SUCCESS;
}
DRIVER cublasLtMatmulAlgoGetHeuristic(void*, Description*, Layout*, Layout*, Layout*, Layout*, unsigned long long*, int wanted,
                                      unsigned long long* found, int* count) {
    ENTER;
    memset(found, 0, 96);  // sizeof(cublasLtMatmulHeuristicResult_t)
    *found = ALGORITHM;
    *count = wanted > 0;
    return SUCCESS;
}
DRIVER cublasLtMatmul(void*, Description* description, const float* alpha, const float* a, Layout* of_a, const float* b,
                      Layout* of_b, const float* beta, const float*, Layout*, float* c, Layout* of_c,
                      const unsigned long long* algorithm, void* workspace, size_t size, void* stream) {
    ENTER;
    const Description how = *description;
    Product p{how.transposes_a, how.transposes_b, int(of_c->rows), int(of_c->columns),
              int(how.transposes_a ? of_a->rows : of_a->columns), int(of_a->ld), int(of_b->ld), int(of_c->ld), COMPUTE_32F};
    bool fits = int(how.transposes_a ? of_a->columns : of_a->rows) == p.m &&
                int(how.transposes_b ? of_b->rows : of_b->columns) == p.n &&
                int(how.transposes_b ? of_b->columns : of_b->rows) == p.k && p.is_valid();
    bool is_float = !of_a->type && !of_b->type && !of_c->type && *beta == 0;
    if (!fits || !is_float || *algorithm != ALGORITHM || !is_device_memory(workspace, size)) return INVALID_VALUE;
    float factor = *alpha;
    return submit(stream, [=] {
        multiply<float>(p, factor, a, b, 0.0f, c);
        for (int j = 0; j < p.n; ++j)
            for (int i = 0; i < p.m; ++i) {
                float& value = c[size_t(j) * p.ldc + i];
                if (how.epilog & EPILOG_BIAS) value += static_cast<const float*>(how.bias)[i];
                if (how.epilog & EPILOG_RELU) value = value > 0 ? value : 0;
            }
        return cudaSuccess;
    }) ? INTERNAL_ERROR : SUCCESS;
}
EXPORT const char* cublasLtGetStatusName(int status) { return cublasGetStatusName(status); }
EXPORT const char* cublasLtGetStatusString(int status) { return cublasGetStatusName(status); }

// cuBLAS.
#include <stdio.h>

#include "products.h"

namespace {

template <typename T>
int enqueue(void* stream, Product p, const void* alpha, const void* a, const void* b, const void* beta, void* c) {
    auto *first = static_cast<const T*>(a), *second = static_cast<const T*>(b);
    auto* out = static_cast<T*>(c);
    if (!p.is_within_memory(first, second, out)) return EXECUTION_FAILED;
    T one = *static_cast<const T*>(alpha), other = *static_cast<const T*>(beta);
    return submit(stream, [=] {
        count("products");
        return multiply<T>(p, one, first, second, other, out);
    }) ? INTERNAL_ERROR : SUCCESS;
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

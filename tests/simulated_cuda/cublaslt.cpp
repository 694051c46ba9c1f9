// cublasLt: algorithms that are proposed, made from their attributes, checked, and used. None of them cuts a sum by itself,
// however long it is: who wants that must ask for it. There are three:
//   20  reads 16 bytes at once, which matrices and their columns must be multiples of; cuts sums, in whichever way
//   7   reads numbers one by one, and cuts sums
//   3   reads them one by one, and cuts none
//   FAKECUDA_LT=none: no algorithm is known; FAKECUDA_LT=refuse: cublasLtMatmul refuses all; FAKECUDA_LT=version: another one
#include <stdio.h>
#include <stdlib.h>

#include <map>

#include "products.h"

namespace {

enum { MAGIC = 0xA160, TILE_64x64 = 15, EPILOG_RELU = 2, EPILOG_BIAS = 4 };
enum Attribute { ID, TILE, PARTS, SCHEME, SWIZZLE, CUSTOM, STAGES, INNER_SHAPE, CLUSTER, ATTRIBUTES };
enum Scheme { UNCUT = 0, IN_PLACE = 1, COMPUTE_TYPE = 2, OUTPUT_TYPE = 4 };

struct Algorithm {  // cublasLtMatmulAlgo_t: 64 bytes that mean nothing to others
    unsigned magic, of[ATTRIBUTES], unused[6];
};
struct Result {  // cublasLtMatmulHeuristicResult_t
    Algorithm algorithm;
    unsigned long long workspace;
    int state;
    float waves;
    int reserved[4];
};
static_assert(sizeof(Algorithm) == 64 && sizeof(Result) == 96, "as in cublasLt.h");

struct Layout {
    int type;
    unsigned long long rows, columns;
    long long ld;
    size_t size() const { return type == REAL_64 ? 8 : 4; }
};
struct Description {
    int compute, scale;
    int transposes_a = 0, transposes_b = 0, epilog = 1;
    void* bias = nullptr;
};
struct Preference {
    unsigned long long workspace = 0;
    unsigned schemes = 7, alignments[4] = {256, 256, 256, 256};  // of a, b, c and d
};

bool asked_for(const char* what) {
    const char* set = getenv("FAKECUDA_LT");
    return set && !strcmp(set, what);
}
bool is_known(unsigned id) { return id == 20 || id == 7 || id == 3; }
unsigned alignment_of(const Algorithm& one, const Layout* of) { return one.of[ID] == 20 ? 16 : of->size(); }
bool is_aligned(const Layout* of, unsigned bytes) { return of->ld * of->size() % bytes == 0; }

// Whether these fit together, and the product that they are.
bool product_of(const Description* how, const Layout* a, const Layout* b, const Layout* c, Product* made) {
    *made = {how->transposes_a, how->transposes_b, int(c->rows), int(c->columns),
             int(how->transposes_a ? a->rows : a->columns), int(a->ld), int(b->ld), int(c->ld), how->compute};
    bool is_double = c->type == REAL_64;
    return int(how->transposes_a ? a->columns : a->rows) == made->m && int(how->transposes_b ? b->rows : b->columns) == made->n &&
           int(how->transposes_b ? b->columns : b->rows) == made->k && made->is_valid() && made->m && made->n && made->k &&
           a->type == c->type && b->type == c->type && (is_double || c->type == REAL_32) &&
           is_double == (how->compute == COMPUTE_64F);
}

int checked(const Algorithm& one, const Product& p, const Layout* a, const Layout* b, const Layout* c, size_t* workspace) {
    unsigned parts = one.of[PARTS], scheme = one.of[SCHEME];
    if (one.magic != MAGIC || !is_known(one.of[ID]) || one.of[TILE] != TILE_64x64 || parts < 1) return INVALID_VALUE;
    if ((parts > 1) != (scheme != UNCUT) || (parts > 1 && (one.of[ID] == 3 || int(parts) > p.k))) return NOT_SUPPORTED;
    if (scheme == IN_PLACE && one.of[ID] != 20) return NOT_SUPPORTED;
    for (auto of : {a, b, c})
        if (!is_aligned(of, alignment_of(one, of))) return NOT_SUPPORTED;
    *workspace = parts > 1 ? size_t(parts) * p.m * p.n * c->size() : 0;
    return SUCCESS;
}

// c := alpha a b + beta c, the sum cut into parts, which lie in the workspace before they are added up.
template <typename T>
cudaError_t multiply_in_parts(Product p, const Algorithm& one, T alpha, const T* a, const T* b, T beta, T* c, T* room) {
    static int before = 0;
    int parts = one.of[PARTS], each = (p.k + parts - 1) / parts;
    size_t size = size_t(p.m) * p.n;
    for (int part = 0; part < parts; ++part) {
        Product some = p;
        int first = std::min(p.k, part * each);
        some.k = std::min(p.k, first + each) - first;
        some.ldc = p.m;
        multiply<T>(some, T(1), a + (p.transposes_a ? first : size_t(first) * p.lda),
                    b + (p.transposes_b ? size_t(first) * p.ldb : first), T(0), room + part * size);
    }
    // In place they are added by whichever block comes first: here another one each time.
    int begin = one.of[SCHEME] == IN_PLACE ? ++before % parts : 0;
    for (int j = 0; j < p.n; ++j)
        for (int i = 0; i < p.m; ++i) {
            T sum = 0, &out = c[size_t(j) * p.ldc + i];
            for (int part = 0; part < parts; ++part) sum += room[(begin + part) % parts * size + size_t(j) * p.m + i];
            out = beta == 0 ? alpha * sum : alpha * sum + beta * out;
        }
    return cudaSuccess;
}

template <typename T>
int enqueue(void* stream, Product p, const Algorithm& one, const Description& how, const void* alpha, const void* a,
            const void* b, const void* beta, void* c, void* workspace) {
    auto *first = static_cast<const T*>(a), *second = static_cast<const T*>(b);
    auto* out = static_cast<T*>(c);
    if (!p.is_within_memory(first, second, out)) return EXECUTION_FAILED;
    T factor = *static_cast<const T*>(alpha), other = *static_cast<const T*>(beta);
    return submit(stream, [=] {
        count("products");
        if (one.of[PARTS] > 1) {
            count("products in parts");
            multiply_in_parts<T>(p, one, factor, first, second, other, out, static_cast<T*>(workspace));
        } else {
            multiply<T>(p, factor, first, second, other, out);
        }
        for (int j = 0; j < p.n; ++j)
            for (int i = 0; i < p.m; ++i) {
                T& value = out[size_t(j) * p.ldc + i];
                if (how.epilog & EPILOG_BIAS) value += static_cast<const T*>(how.bias)[i];
                if (how.epilog & EPILOG_RELU) value = value > 0 ? value : 0;
            }
        return cudaSuccess;
    }) ? INTERNAL_ERROR : SUCCESS;
}

template <typename T> int copied(T* from, void* to, size_t size, size_t* written) {
    if (size != sizeof *from || !to) return INVALID_VALUE;
    memcpy(to, from, size);
    if (written) *written = size;
    return SUCCESS;
}

}  // namespace

DRIVER cublasLtCreate(Handle** made) {
    ENTER;
    if (spoil_captures(true)) return INTERNAL_ERROR;
    *made = new Handle;
    return SUCCESS;
}
EXPORT size_t cublasLtGetVersion() { return asked_for("version") ? 139999 : 130001; }
EXPORT const char* cublasGetStatusName(int);
EXPORT const char* cublasLtGetStatusName(int status) { return cublasGetStatusName(status); }
EXPORT const char* cublasLtGetStatusString(int status) { return cublasGetStatusName(status); }

DRIVER cublasLtMatmulDescCreate(Description** made, int compute, int scale) {
    ENTER;
    *made = new Description{compute, scale};
    return SUCCESS;
}
DRIVER cublasLtMatmulDescDestroy(Description* description) {
    ENTER;
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
    ENTER;
    *made = new Layout{type, rows, columns, ld};
    return SUCCESS;
}
DRIVER cublasLtMatrixLayoutDestroy(Layout* layout) {
    ENTER;
    delete layout;
    return SUCCESS;
}
DRIVER cublasLtMatmulPreferenceCreate(Preference** made) {
    ENTER;
    *made = new Preference;
    return SUCCESS;
}
DRIVER cublasLtMatmulPreferenceDestroy(Preference* preference) {
    ENTER;
    delete preference;
    return SUCCESS;
}
DRIVER cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* value, size_t size) {
    void* target = attribute == 1 ? static_cast<void*>(&preference->workspace) : attribute == 3 ? &preference->schemes : nullptr;
    if (attribute >= 5 && attribute <= 8) target = &preference->alignments[attribute - 5];
    if (!target || size != (attribute == 1 ? 8 : 4)) return INVALID_VALUE;
    memcpy(target, value, size);
    return SUCCESS;
}

DRIVER cublasLtMatmulAlgoInit(Handle*, int, int, int, int, int, int, int id, Algorithm* made) {
    ENTER;
    if (!is_known(id)) return INVALID_VALUE;
    *made = Algorithm{MAGIC, {unsigned(id), 0, 1}};
    return SUCCESS;
}
DRIVER cublasLtMatmulAlgoConfigSetAttribute(Algorithm* one, int attribute, const void* value, size_t size) {
    ENTER;
    bool is_short = attribute == INNER_SHAPE || attribute == CLUSTER;
    if (attribute <= ID || attribute >= ATTRIBUTES || size != (is_short ? 2 : 4)) return INVALID_VALUE;
    one->of[attribute] = 0;
    memcpy(&one->of[attribute], value, size);
    return SUCCESS;
}
DRIVER cublasLtMatmulAlgoConfigGetAttribute(Algorithm* one, int attribute, void* value, size_t size, size_t* written) {
    ENTER;
    if (attribute < ID || attribute >= ATTRIBUTES) return INVALID_VALUE;
    unsigned short word = one->of[attribute];
    bool is_short = attribute == INNER_SHAPE || attribute == CLUSTER;
    return is_short ? copied(&word, value, size, written) : copied(&one->of[attribute], value, size, written);
}
DRIVER cublasLtMatmulAlgoCapGetAttribute(Algorithm* one, int attribute, void* value, size_t size, size_t* written) {
    ENTER;
    int cuts = one->of[ID] != 3;
    unsigned schemes = one->of[ID] == 20 ? 7 : cuts ? COMPUTE_TYPE : 0, alignment = one->of[ID] == 20 ? 16 : 4;
    if (attribute == 0) return copied(&cuts, value, size, written);
    if (attribute == 1) return copied(&schemes, value, size, written);
    return attribute >= 16 && attribute <= 19 ? copied(&alignment, value, size, written) : INVALID_VALUE;
}
DRIVER cublasLtMatmulAlgoCheck(Handle*, Description* how, Layout* a, Layout* b, Layout* c, Layout*, const Algorithm* one,
                               Result* result) {
    ENTER;
    Product p;
    size_t workspace = 0;
    if (!product_of(how, a, b, c, &p)) return INVALID_VALUE;
    if (int error = checked(*one, p, a, b, c, &workspace)) return error;
    result->workspace = workspace;  // `algorithm` stays as it was
    return SUCCESS;
}
DRIVER cublasLtMatmulAlgoGetHeuristic(Handle*, Description* how, Layout* a, Layout* b, Layout* c, Layout*, Preference* wanted,
                                      int most, Result* found, int* number) {
    ENTER;
    Product p;
    *number = 0;
    if (!product_of(how, a, b, c, &p)) return INVALID_VALUE;
    if (asked_for("none")) return NOT_SUPPORTED;
    // In place is what it would cut a long sum by, if it may.
    for (Algorithm one : {Algorithm{MAGIC, {20, TILE_64x64, 4, IN_PLACE}}, Algorithm{MAGIC, {20, TILE_64x64, 1}},
                          Algorithm{MAGIC, {7, TILE_64x64, 1}}, Algorithm{MAGIC, {3, TILE_64x64, 1}}}) {
        size_t workspace = 0;
        bool is_allowed = !one.of[SCHEME] || ((wanted->schemes & one.of[SCHEME]) && p.k >= 64);
        for (int i = 0; i < 4; ++i) is_allowed &= wanted->alignments[i] >= alignment_of(one, c);
        if (*number == most || !is_allowed || checked(one, p, a, b, c, &workspace) || workspace > wanted->workspace) continue;
        found[*number] = Result{one, workspace};
        ++*number;
    }
    return *number ? SUCCESS : NOT_SUPPORTED;
}
DRIVER cublasLtMatmul(Handle* handle, Description* how, const void* alpha, const void* a, Layout* of_a, const void* b,
                      Layout* of_b, const void* beta, const void* c, Layout* of_c, void* d, Layout* of_d,
                      const Algorithm* one, void* workspace, size_t size, void* stream) {
    ENTER;
    if (handle->device != current_device) {
        fprintf(stderr, "simulated CUDA: cuBLAS of device %d while %d is current\n", handle->device, current_device);
        return INTERNAL_ERROR;
    }
    Product p;
    size_t needed = 0;
    if (!product_of(how, of_a, of_b, of_c, &p) || c != d || of_c != of_d) return INVALID_VALUE;
    if (asked_for("refuse")) return NOT_SUPPORTED;
    if (int error = checked(*one, p, of_a, of_b, of_c, &needed)) return error;
    for (const void* address : {a, b, static_cast<const void*>(d)})
        if (reinterpret_cast<size_t>(address) % alignment_of(*one, of_c)) return INVALID_VALUE;
    if (needed > size || (needed && !is_device_memory(workspace, size))) return INVALID_VALUE;
    auto multiply = of_c->type == REAL_64 ? enqueue<double> : enqueue<float>;
    return multiply(stream, p, *one, *how, alpha, a, b, beta, d, workspace);
}

// What a CUDA kernel sees when g++ compiles it for the simulator: threadIdx and the like, __syncthreads, the warp
// shuffles, atomics, CUDA's overloads of the mathematical functions, and pointers that know where their array ends.
//
// `compiler.py` turns every pointer of a kernel's source into Pointer<>, and every __shared__ array into Shared<>. Each
// read and write then goes through `touch`, which knows bounds, memory that was never written, and races. The threads
// themselves are fibers of `runtime.cpp`.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

struct Index { unsigned x, y, z; };
typedef Index dim3;
extern "C" Index threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;

struct Cell;    // who read and wrote an element last
struct Region { // memory that a pointer may reach
    char* begin;
    char* end;
    const char* name;
    Cell* cells;     // null where races are not looked for
    char* cells_from;
    long long granule; // bytes of one cell
};

struct Argument { // what a kernel is given, as launching.py fills it in
    void* address;
    const long long* shape_and_strides;
    Region region;
    long long item_size;
    int is_array, is_written;
};

extern "C" {
[[noreturn]] void sim_fail(const char* format, ...);
[[noreturn]] void sim_out_of_bounds(const Region* region, const char* at, int size, int writes);
[[noreturn]] void sim_never_written(const Region* region, const char* at, int size);
void sim_note(const Region* region, const char* at, int size, int writes);
void sim_may_switch();
void sim_barrier(int site);
long long sim_barrier_reduce(int site, int kind, long long value);
void sim_warp_barrier(int site, unsigned mask);
unsigned long long sim_shuffle(int site, unsigned mask, unsigned long long value, int lane, int is_read);
unsigned sim_ballot(int site, unsigned mask, int predicate);
int sim_lane();
void sim_register_shared(Region* region, int item_size, int is_float);
extern long long sim_bytes_read, sim_bytes_written;
}

// Memory that was never written holds a signalling NaN, or 0xA5 in every byte: see `poison` in memory.py.
template <typename T> inline bool is_poison(const T* at) {
    if constexpr (std::is_same<T, float>::value) {
        uint32_t bits; memcpy(&bits, at, 4); return bits == 0x7FA5A5A5u;
    } else if constexpr (std::is_same<T, double>::value) {
        uint64_t bits; memcpy(&bits, at, 8); return bits == 0x7FF5A5A5A5A5A5A5ull;
    } else if constexpr (std::is_integral<T>::value && sizeof(T) == 4) {
        uint32_t bits; memcpy(&bits, at, 4); return bits == 0xA5A5A5A5u;
    } else if constexpr (std::is_integral<T>::value && sizeof(T) == 8) {
        uint64_t bits; memcpy(&bits, at, 8); return bits == 0xA5A5A5A5A5A5A5A5ull;
    } else {
        return false;
    }
}

template <typename T> inline void touch(const T* at, const Region* region, bool writes) {
    const char* byte = (const char*)at;
    if (!region || byte < region->begin || byte + sizeof(T) > region->end || (uintptr_t)byte % alignof(T))
        sim_out_of_bounds(region, byte, sizeof(T), writes);
    if (region->cells) sim_note(region, byte, sizeof(T), writes);
}

template <typename T> inline T load(const T* at, const Region* region) {
    touch(at, region, false);
    if (is_poison(at)) sim_never_written(region, (const char*)at, sizeof(T));
    sim_bytes_read += sizeof(T);
    return *at;
}

template <typename T> inline void store(T* at, const Region* region, T value) {
    touch(at, region, true);
    sim_bytes_written += sizeof(T);
    *at = value;
}

template <typename T> class Pointer;

// What p[i] is: it reads when it is used as a value, and writes when it is assigned to.
template <typename T> class Ref {
    typedef typename std::remove_const<T>::type Value;
public:
    Ref(T* at, const Region* region) : at(at), region(region) {}
    Ref(const Ref& other) = default;
    operator Value() const { return load<Value>(at, region); }
    Value operator=(Value value) { store(at, region, value); return value; }
    Value operator=(const Ref& other) { return *this = Value(other); }
    template <typename U> Value operator+=(U value) { return *this = Value(Value(*this) + value); }
    template <typename U> Value operator-=(U value) { return *this = Value(Value(*this) - value); }
    template <typename U> Value operator*=(U value) { return *this = Value(Value(*this) * value); }
    template <typename U> Value operator/=(U value) { return *this = Value(Value(*this) / value); }
    template <typename U> Value operator&=(U value) { return *this = Value(Value(*this) & value); }
    template <typename U> Value operator|=(U value) { return *this = Value(Value(*this) | value); }
    template <typename U> Value operator^=(U value) { return *this = Value(Value(*this) ^ value); }
    Value operator++() { return *this += 1; }
    Value operator--() { return *this -= 1; }
    Value operator++(int) { Value old = *this; *this = Value(old + 1); return old; }
    Value operator--(int) { Value old = *this; *this = Value(old - 1); return old; }
    Pointer<T> operator&() const { return Pointer<T>(at, region); }
protected:
    T* at;
    const Region* region;
};

template <typename T> class Pointer {
    typedef typename std::remove_const<T>::type Value;
    // A vector such as float4 is read as a value, so that its .x can be named; a number through a Ref.
    typedef typename std::conditional<std::is_const<T>::value && std::is_class<T>::value, Value, Ref<T>>::type Element;
public:
    Pointer() : at(nullptr), region(nullptr) {}
    Pointer(decltype(nullptr)) : Pointer() {}
    Pointer(T* at, const Region* region) : at(at), region(region) {}
    template <typename U, std::enable_if_t<std::is_convertible<U (*)[], T (*)[]>::value, int> = 0>
    Pointer(const Pointer<U>& other) : at(other.at), region(other.region) {}
    template <typename U, std::enable_if_t<!std::is_convertible<U (*)[], T (*)[]>::value, int> = 0>
    explicit Pointer(const Pointer<U>& other) : at((T*)other.at), region(other.region) {}
    Element operator[](ptrdiff_t i) const { return element(at + i); }
    Element operator*() const { return element(at); }
    Pointer operator+(ptrdiff_t n) const { return Pointer(at + n, region); }
    Pointer operator-(ptrdiff_t n) const { return Pointer(at - n, region); }
    template <typename U> ptrdiff_t operator-(const Pointer<U>& other) const { return at - other.at; }
    Pointer& operator+=(ptrdiff_t n) { at += n; return *this; }
    Pointer& operator-=(ptrdiff_t n) { at -= n; return *this; }
    Pointer& operator++() { ++at; return *this; }
    Pointer& operator--() { --at; return *this; }
    Pointer operator++(int) { Pointer old = *this; ++at; return old; }
    Pointer operator--(int) { Pointer old = *this; --at; return old; }
    explicit operator bool() const { return at != nullptr; }
    template <typename U> bool operator==(const Pointer<U>& other) const { return at == other.at; }
    template <typename U> bool operator!=(const Pointer<U>& other) const { return at != other.at; }
    template <typename U> bool operator<(const Pointer<U>& other) const { return at < other.at; }
    T* at;
    const Region* region;
private:
    Element element(T* p) const {
        if constexpr (std::is_same<Element, Value>::value) return load<Value>(p, region);
        else return Ref<T>(p, region);
    }
};
template <typename T> Pointer<T> operator+(ptrdiff_t n, const Pointer<T>& p) { return p + n; }

// reinterpret_cast<P>(p)
template <typename To, typename From> inline To pointer_cast(const From& from) { return To(from); }

// Shared memory: one block runs at a time, so there is one of each array, unset again when a block begins.
template <typename T, int... inner> struct Row;
template <typename T, int size, int next, int... inner> struct Row<T, size, next, inner...> {
    T* at; const Region* region;
    Row<T, next, inner...> operator[](ptrdiff_t i) const {
        if (i < 0 || i >= size) sim_fail("index %td of shared array `%s` lies outside of %d", i, region->name, size);
        int stride = next * (1 * ... * inner);
        return Row<T, next, inner...>{at + i * stride, region};
    }
    operator Pointer<T>() const { return Pointer<T>(at, region); }
};
template <typename T, int size> struct Row<T, size> {
    T* at; const Region* region;
    Ref<T> operator[](ptrdiff_t i) const {
        if (i < 0 || i >= size) sim_fail("index %td of shared array `%s` lies outside of %d", i, region->name, size);
        sim_may_switch();
        return Ref<T>(at + i, region);
    }
    Ref<T> operator*() const { return (*this)[0]; }
    operator Pointer<T>() const { return Pointer<T>(at, region); }
    Pointer<T> operator+(ptrdiff_t n) const { return Pointer<T>(at + n, region); }
};
template <typename T, int... sizes> struct Memory {
    static const int size = (1 * ... * sizes);
    alignas(16) T values[size];
    Region extent;
    explicit Memory(const char* name) : extent{(char*)values, (char*)(values + size), name, nullptr, nullptr, 0} {
        sim_register_shared(&extent, sizeof(T), std::is_floating_point<T>::value);
    }
};
template <typename T, int... sizes> struct Shared : Memory<T, sizes...>, Row<T, sizes...> {
    explicit Shared(const char* name) : Memory<T, sizes...>(name), Row<T, sizes...>{this->values, &this->extent} {}
};
template <typename T> struct SharedScalar : Memory<T>, Ref<T> {
    explicit SharedScalar(const char* name) : Memory<T>(name), Ref<T>(this->values, &this->extent) {}
    using Ref<T>::operator=;
};

// The arrays of cupy.ElementwiseKernel: element i counts in the order of the broadcast shape.
template <typename T> struct CArray {
    Pointer<T> data;
    const long long* shape_and_strides; // ndim, then the shape, then the strides in bytes
    Pointer<T> where(ptrdiff_t i) const {
        long long ndim = shape_and_strides[0], bytes = 0;
        const long long *shape = shape_and_strides + 1, *strides = shape + ndim;
        for (long long axis = ndim - 1; axis > 0; --axis) {
            bytes += i % shape[axis] * strides[axis];
            i /= shape[axis];
        }
        if (ndim) bytes += i * strides[0];
        return Pointer<T>((T*)((char*)data.at + bytes), data.region);
    }
    Ref<T> operator[](ptrdiff_t i) const { return Ref<T>(where(i).at, data.region); }
    // CuPy gives the operation a plain reference to its element.
    T& element(ptrdiff_t i, bool is_output) const {
        Pointer<T> p = where(i);
        typedef typename std::remove_const<T>::type Value;
        touch((const Value*)p.at, p.region, is_output);
        if (!is_output && is_poison((const Value*)p.at)) sim_never_written(p.region, (const char*)p.at, sizeof(T));
        return *p.at;
    }
};
#define CUPY_FOR(i, n) \
    for (ptrdiff_t i = (ptrdiff_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (ptrdiff_t)blockDim.x * gridDim.x)

#define __global__ static
#define __device__ static
#define __host__
#define __constant__ static const
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

#define __syncthreads() sim_barrier(__COUNTER__)
#define __syncthreads_count(p) (int)sim_barrier_reduce(__COUNTER__, 0, !!(p))
#define __syncthreads_and(p) (int)sim_barrier_reduce(__COUNTER__, 1, !!(p))
#define __syncthreads_or(p) (int)sim_barrier_reduce(__COUNTER__, 2, !!(p))
inline void sim_warp_barrier_all(int site, unsigned mask = 0xffffffffu) { sim_warp_barrier(site, mask); }
#define __syncwarp(...) sim_warp_barrier_all(__COUNTER__ __VA_OPT__(, ) __VA_ARGS__)
#define __threadfence()
#define __threadfence_block()

template <typename T> inline unsigned long long to_bits(T value) {
    unsigned long long bits = 0; memcpy(&bits, &value, sizeof(T)); return bits;
}
template <typename T> inline T from_bits(unsigned long long bits) { T value; memcpy(&value, &bits, sizeof(T)); return value; }

// As the programming guide has them: width is a power of two, and what falls out of the segment is the lane's own.
template <typename T> inline T sim_shuffle_to(int site, unsigned mask, T value, int source, bool inside) {
    int lane = sim_lane();
    return from_bits<T>(sim_shuffle(site, mask, to_bits(value), inside ? source : lane, 1));
}
template <typename T> inline T sim_shfl(int site, unsigned mask, T value, int source, int width = 32) {
    int lane = sim_lane();
    return sim_shuffle_to(site, mask, value, (lane & ~(width - 1)) + (source & (width - 1)), true);
}
template <typename T> inline T sim_shfl_down(int site, unsigned mask, T value, unsigned delta, int width = 32) {
    int lane = sim_lane();
    return sim_shuffle_to(site, mask, value, lane + (int)delta, (lane & (width - 1)) + (int)delta < width);
}
template <typename T> inline T sim_shfl_up(int site, unsigned mask, T value, unsigned delta, int width = 32) {
    int lane = sim_lane();
    return sim_shuffle_to(site, mask, value, lane - (int)delta, (lane & (width - 1)) - (int)delta >= 0);
}
template <typename T> inline T sim_shfl_xor(int site, unsigned mask, T value, int lanes, int width = 32) {
    int lane = sim_lane(), source = lane ^ lanes;
    return sim_shuffle_to(site, mask, value, source, source < (lane & ~(width - 1)) + width);
}
// A Ref is read before it is sent.
template <typename T> inline T value_of(const T& value) { return value; }
template <typename T> inline std::remove_const_t<T> value_of(const Ref<T>& value) { return value; }
#define __shfl_sync(mask, value, ...) sim_shfl(__COUNTER__, mask, value_of(value), __VA_ARGS__)
#define __shfl_down_sync(mask, value, ...) sim_shfl_down(__COUNTER__, mask, value_of(value), __VA_ARGS__)
#define __shfl_up_sync(mask, value, ...) sim_shfl_up(__COUNTER__, mask, value_of(value), __VA_ARGS__)
#define __shfl_xor_sync(mask, value, ...) sim_shfl_xor(__COUNTER__, mask, value_of(value), __VA_ARGS__)
#define __ballot_sync(mask, p) sim_ballot(__COUNTER__, mask, !!(p))
#define __any_sync(mask, p) (sim_ballot(__COUNTER__, mask, !!(p)) != 0)
#define __all_sync(mask, p) (sim_ballot(__COUNTER__, mask, !(p)) == 0)

// Only one fiber runs at a time, so an atomic is an access that no race is looked for in.
template <typename T, typename F> inline T sim_atomic(Pointer<T> p, F change) {
    Region unraced = *p.region;
    unraced.cells = nullptr;
    T old = load(p.at, &unraced);
    store<T>(p.at, &unraced, change(old));
    return old;
}
template <typename T> using Same = typename std::enable_if<true, T>::type; // not deduced: 1 is a T too
template <typename T> T atomicAdd(Pointer<T> p, Same<T> v) { return sim_atomic(p, [=](T old) { return T(old + v); }); }
template <typename T> T atomicSub(Pointer<T> p, Same<T> v) { return sim_atomic(p, [=](T old) { return T(old - v); }); }
template <typename T> T atomicMin(Pointer<T> p, Same<T> v) { return sim_atomic(p, [=](T old) { return v < old ? v : old; }); }
template <typename T> T atomicMax(Pointer<T> p, Same<T> v) { return sim_atomic(p, [=](T old) { return v > old ? v : old; }); }
template <typename T> T atomicExch(Pointer<T> p, Same<T> v) { return sim_atomic(p, [=](T) { return v; }); }
template <typename T> T atomicCAS(Pointer<T> p, Same<T> is, Same<T> v) { return sim_atomic(p, [=](T old) { return old == is ? v : old; }); }
template <typename T> T atomicAnd(Pointer<T> p, Same<T> v) { return sim_atomic(p, [=](T old) { return T(old & v); }); }
template <typename T> T atomicOr(Pointer<T> p, Same<T> v) { return sim_atomic(p, [=](T old) { return T(old | v); }); }
template <typename T> T atomicInc(Pointer<T> p, Same<T> v) { return sim_atomic(p, [=](T old) { return old >= v ? T(0) : T(old + 1); }); }

// Vectors that are read and written in one transaction, so their alignment counts.
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct uint3 { unsigned x, y, z; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

// CUDA's overloads, in the types it has them for; <math.h> brings exp(float) and its like.
#define SIM_LEAST_AND_LARGEST(T) \
    inline T min(T a, T b) { return b < a ? b : a; } \
    inline T max(T a, T b) { return a < b ? b : a; }
SIM_LEAST_AND_LARGEST(int)
SIM_LEAST_AND_LARGEST(unsigned)
SIM_LEAST_AND_LARGEST(long long)
SIM_LEAST_AND_LARGEST(unsigned long long)
// Of a number and NaN they give the number.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(a, b); }
inline double min(double a, float b) { return fmin(a, b); }
inline double max(float a, double b) { return fmax(a, b); }
inline double max(double a, float b) { return fmax(a, b); }
inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline float __uint_as_float(unsigned x) { return from_bits<float>(x); }
inline float __int_as_float(int x) { return from_bits<float>((unsigned)x); }
inline unsigned __float_as_uint(float x) { return (unsigned)to_bits(x); }
inline int __float_as_int(float x) { return (int)to_bits(x); }
template <typename T> inline std::remove_const_t<T> __ldg(const Pointer<T>& p) { return *p; }

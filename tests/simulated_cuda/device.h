// What CUDA source sees where g++ compiles it: plain pointers, so that CuPy's headers work unchanged.
#pragma once
#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <initializer_list>
#include <utility>

#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
struct uint3 {
    unsigned x, y, z;
};
#define OF_THREAD const  // to one thread they are, and it need not look them up again
#include "kernel.h"

#define __global__ __attribute__((visibility("default")))
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ static
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __restrict__ __restrict
static const int warpSize = 32;

// ---- threads that wait for each other; where in the source they do is told by a number of its own

extern "C" {
long long simulated_barrier(int site, int kind, long long value);
int simulated_lane();
void simulated_warp_barrier(int site, unsigned mask);
unsigned long long simulated_shuffle(int site, unsigned mask, unsigned long long value, int lane);
unsigned simulated_ballot(int site, unsigned mask, int predicate);
}
#define __syncthreads() simulated_barrier(__COUNTER__, 3, 0)
#define __syncthreads_count(p) (int)simulated_barrier(__COUNTER__, 0, !!(p))
#define __syncthreads_and(p) (int)simulated_barrier(__COUNTER__, 1, !!(p))
#define __syncthreads_or(p) (int)simulated_barrier(__COUNTER__, 2, !!(p))
inline void warp_barrier(int site, unsigned mask = 0xffffffffu) { simulated_warp_barrier(site, mask); }
#define __syncwarp(...) warp_barrier(__COUNTER__ __VA_OPT__(, ) __VA_ARGS__)
inline void __threadfence_block() {}
#define __ballot_sync(mask, p) simulated_ballot(__COUNTER__, mask, !!(p))
#define __any_sync(mask, p) (simulated_ballot(__COUNTER__, mask, !!(p)) != 0)
#define __all_sync(mask, p) (simulated_ballot(__COUNTER__, mask, !(p)) == 0)

template <typename T> inline unsigned long long bits_of(T value) {
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof value);
    return bits;
}
template <typename T> inline T from_bits(unsigned long long bits) {
    T value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
// As the programming guide has them: width is a power of two, and what falls out of the segment is the lane's own.
template <typename T> inline T shuffled(int site, unsigned mask, T value, int lane, bool is_inside) {
    return from_bits<T>(simulated_shuffle(site, mask, bits_of(value), is_inside ? lane : simulated_lane()));
}
template <typename T> inline T shuffle(int site, unsigned mask, T value, int source, int width = 32) {
    return shuffled(site, mask, value, (simulated_lane() & ~(width - 1)) + (source & (width - 1)), true);
}
template <typename T> inline T shuffle_down(int site, unsigned mask, T value, unsigned by, int width = 32) {
    int lane = simulated_lane();
    return shuffled(site, mask, value, lane + (int)by, (lane & (width - 1)) + (int)by < width);
}
template <typename T> inline T shuffle_up(int site, unsigned mask, T value, unsigned by, int width = 32) {
    int lane = simulated_lane();
    return shuffled(site, mask, value, lane - (int)by, (lane & (width - 1)) - (int)by >= 0);
}
template <typename T> inline T shuffle_xor(int site, unsigned mask, T value, int lanes, int width = 32) {
    int lane = simulated_lane(), source = lane ^ lanes;
    return shuffled(site, mask, value, source, source < (lane & ~(width - 1)) + width);
}
#define __shfl_sync(...) shuffle(__COUNTER__, __VA_ARGS__)
#define __shfl_down_sync(...) shuffle_down(__COUNTER__, __VA_ARGS__)
#define __shfl_up_sync(...) shuffle_up(__COUNTER__, __VA_ARGS__)
#define __shfl_xor_sync(...) shuffle_xor(__COUNTER__, __VA_ARGS__)

// ---- atomics: threads never run at once. With checks (CHECKED, see checks.cpp) no race is looked for in them.

#ifdef CHECKED
#define UNCHECKED __attribute__((no_sanitize("thread", "bounds", "alignment")))
extern "C" void simulated_atomic(const void* address, size_t size);
extern "C" void simulated_fence();
extern "C" void simulated_shared(const char* name, void* begin, size_t size);
#else
#define UNCHECKED
inline void simulated_atomic(const void*, size_t) {}
inline void simulated_fence() {}
#endif
inline void __threadfence() { simulated_fence(); }

#define ATOMIC(name, T, changed)                    \
    UNCHECKED inline T name(T* address, T value) {  \
        simulated_atomic(address, sizeof value);    \
        T old = *address;                           \
        *address = changed;                         \
        return old;                                 \
    }
#define ATOMICS(T)                                                      \
    ATOMIC(atomicAdd, T, old + value) ATOMIC(atomicExch, T, value)      \
    UNCHECKED inline T atomicCAS(T* address, T compared, T value) {     \
        simulated_atomic(address, sizeof value);                        \
        T old = *address;                                               \
        if (old == compared) *address = value;                          \
        return old;                                                     \
    }
#define ATOMICS_OF_INTEGERS(T)                                                                            \
    ATOMICS(T) ATOMIC(atomicSub, T, old - value) ATOMIC(atomicMin, T, value < old ? value : old)          \
    ATOMIC(atomicMax, T, value > old ? value : old) ATOMIC(atomicAnd, T, old & value) ATOMIC(atomicOr, T, old | value)
ATOMICS_OF_INTEGERS(int)
ATOMICS_OF_INTEGERS(unsigned)
ATOMICS_OF_INTEGERS(unsigned long long)
ATOMICS(float)
ATOMICS(double)
ATOMIC(atomicInc, unsigned, old >= value ? 0 : old + 1)

// ---- vectors

#define VECTOR2(name, T, alignment)     \
    struct alignas(alignment) name##2 { \
        T x, y;                         \
    };                                  \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }
#define VECTOR4(name, T, alignment)     \
    struct alignas(alignment) name##4 { \
        T x, y, z, w;                   \
    };                                  \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTOR2(int, int, 8) VECTOR2(uint, unsigned, 8) VECTOR2(float, float, 8) VECTOR2(double, double, 16)
VECTOR4(uchar, unsigned char, 4) VECTOR4(int, int, 16) VECTOR4(uint, unsigned, 16) VECTOR4(float, float, 16)
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }

// ---- functions

#define LEAST_AND_MOST(T)                          \
    inline T min(T a, T b) { return b < a ? b : a; } \
    inline T max(T a, T b) { return a < b ? b : a; }
LEAST_AND_MOST(int) LEAST_AND_MOST(unsigned) LEAST_AND_MOST(long) LEAST_AND_MOST(unsigned long)
LEAST_AND_MOST(long long) LEAST_AND_MOST(unsigned long long)
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
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned __int128)a * b >> 64; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline float __uint_as_float(unsigned x) { return from_bits<float>(x); }
inline float __int_as_float(int x) { return from_bits<float>((unsigned)x); }
inline unsigned __float_as_uint(float x) { return (unsigned)bits_of(x); }
inline int __float_as_int(float x) { return (int)bits_of(x); }
inline double __longlong_as_double(long long x) { return from_bits<double>(x); }
inline long long __double_as_longlong(double x) { return (long long)bits_of(x); }
template <typename T> inline T __ldg(const T* address) { return *address; }

// ---- a kernel's entry: it takes its parameters from an array of addresses, each as the type that its function declares

template <typename... A> struct Caller {
    static constexpr size_t sizes[sizeof...(A) + 1] = {sizeof(A)..., 0};
    template <void (*kernel)(A...), size_t... I> UNCHECKED static void call(void** parameters, std::index_sequence<I...>) {
        kernel(*(A*)parameters[I]...);
    }
    template <void (*kernel)(A...)> static void call(void** parameters) {
        call<kernel>(parameters, std::index_sequence_for<A...>());
    }
};
template <typename... A> Caller<A...> caller_of(void (*)(A...));
template <typename... A> constexpr int parameters_of(void (*)(A...)) { return sizeof...(A); }
#define KERNEL(name, synchronizes, flushes, ...)                                       \
    static const char* const names_##name[] = {__VA_ARGS__};                           \
    extern "C" __attribute__((visibility("default"))) const Kernel kernel_##name = {   \
        #name, decltype(caller_of(name))::template call<name>, parameters_of(name),    \
        decltype(caller_of(name))::sizes, names_##name, synchronizes, flushes};

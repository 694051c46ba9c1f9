// What a compiled kernel and the device that runs it know of each other.
#pragma once
#include <stddef.h>

struct Kernel {
    const char* name;
    void (*call)(void** parameters);  // one thread
    int parameters;
    const size_t* sizes;       // of the parameters, in bytes
    const char* const* names;  // of the parameters
    int synchronizes;          // whether its threads wait for each other
    int flushes;               // whether subnormal numbers of float32 are zeros to it
};

#ifndef OF_THREAD
#define OF_THREAD
#endif
extern "C" {
extern OF_THREAD uint3 threadIdx, blockIdx, blockDim, gridDim;
}

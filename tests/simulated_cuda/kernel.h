// What a compiled kernel and the device that runs it know of each other.
#pragma once
#include <stddef.h>

struct Kernel {
    const char* name;
    void (*call)(void** parameters);  // one thread
    int parameters;
    const size_t* sizes;  // of the parameters, in bytes
    int synchronizes;     // whether its threads wait for each other
    int flushes;          // whether subnormal numbers of float32 are zeros to it
};

extern "C" {
extern uint3 threadIdx, blockIdx, blockDim, gridDim;
}

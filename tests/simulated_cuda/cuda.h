// A CUDA that runs on processors: the driver, the runtime, NVRTC and cuBLAS as far as CuPy and nvmath use them for gpunn.
// This is what its parts share: one lock, the failures asked for, memory, and streams of work.
#pragma once
#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))
#define RUNTIME EXPORT cudaError_t CUDARTAPI
#define DRIVER EXPORT int

// One lock for everything: calls come from many threads, and none of them takes long.
extern std::recursive_mutex everything;

// ---- failures.cpp: what the environment asks for

long number_from_environment(const char* name, long otherwise);
int failure_of(const char* function);  // the error that this call is to give, 0 for none
void kernel_was_run();                 // counts them, for failures that begin after so many
bool is_hanging();                     // whether the host waits for a stream for ever
bool is_broken();                      // whether every call fails from now on
cudaError_t failed(cudaError_t error);  // remembers it for cudaGetLastError
void count(const std::string& what);   // see simulated_count: calls by function, work by kernel

struct AnyError {  // a failure as what the function returns
    int code;
    template <class T> operator T() const { return static_cast<T>(code); }
};

// How a call begins: alone, and not at all where it is to fail.
#define ENTER                                                  \
    std::lock_guard<std::recursive_mutex> alone(everything);   \
    if (int code = failure_of(__func__)) return AnyError{code}

// ---- devices.cpp

extern thread_local int current_device;
int devices();
unsigned long number_of_gpu(int device);  // another one for every GPU of every machine

// ---- memory.cpp

size_t total_memory();
size_t free_memory();  // of the current device
bool is_device_memory(const void* begin, size_t size);
int device_of_memory(const void* address);  // -1 where it is none of a device
std::pair<char*, size_t> device_block(const void* address);  // what was taken at once; of size 0 where there is none

// ---- streams.cpp

typedef std::function<cudaError_t()> Work;
struct Stream;

// Give work to a stream, or to the graph that it is being captured into.
cudaError_t submit(void* stream, Work work);
// What a call does to captures under way that no capture allows; `even_relaxed` where the mode does not matter.
cudaError_t spoil_captures(bool even_relaxed = false);
void finish_everything();
bool do_something();  // that some stream was given and that may be done now; false where there is nothing
int device_of_stream(const void* stream);
bool is_capturing(const void* stream);
bool is_legacy(const void* stream);

// ---- threads.cpp

struct Kernel;
cudaError_t run_grid(const Kernel* kernel, dim3 grid, dim3 block, void** parameters);

// Modules, kernels and their launches. Blocks run one after another; threads of a block as fibers where they wait for
// each other, and else one after another too. Races and bounds are looked for in tests/simulator, not here.
#include <dlfcn.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <xmmintrin.h>

#include <algorithm>
#include <map>

#include "cuda.h"
#include "kernel.h"

uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

enum State { READY, AT_BARRIER, AT_WARP, DONE };
struct Fiber {
    jmp_buf context;
    bool is_fresh = true;
    State state;
    uint3 index;
    int kind;       // of the barrier
    unsigned mask;  // of the lanes that exchange
    unsigned long long value;
    long long result;
};
struct Warp {
    unsigned long long values[32];
    unsigned ballot;
};

const size_t STACK = 128 << 10, MOST_THREADS = 1024;
std::vector<Fiber> fibers;
std::vector<Warp> warps;
char* stacks;
std::vector<unsigned> turn;  // the fibers that run before anything is released
size_t next_in_turn;
jmp_buf scheduler;
unsigned current;
const Kernel* kernel_now;
void** parameters_now;

void run_fiber();
[[noreturn]] void resume(unsigned number) {
    Fiber& fiber = fibers[number];
    current = number;
    threadIdx = fiber.index;
    if (!fiber.is_fresh) _longjmp(fiber.context, 1);
    fiber.is_fresh = false;
    static ucontext_t fresh;
    getcontext(&fresh);
    fresh.uc_stack.ss_sp = stacks + number * STACK;
    fresh.uc_stack.ss_size = STACK;
    fresh.uc_link = nullptr;
    makecontext(&fresh, run_fiber, 0);
    setcontext(&fresh);
    abort();
}
[[noreturn]] void go_on() {
    if (next_in_turn < turn.size()) resume(turn[next_in_turn++]);
    _longjmp(scheduler, 1);
}
void hand_over(State state) {
    fibers[current].state = state;
    if (!_setjmp(fibers[current].context)) go_on();
}
void run_fiber() {
    for (;;) {
        kernel_now->call(parameters_now);
        hand_over(DONE);
    }
}

bool release_barrier(unsigned threads) {
    std::vector<Fiber*> waiting;
    unsigned done = 0;
    for (unsigned t = 0; t < threads; ++t) {
        done += fibers[t].state == DONE;
        if (fibers[t].state == AT_BARRIER) waiting.push_back(&fibers[t]);
    }
    if (waiting.empty() || waiting.size() + done < threads) return false;
    enum { COUNT, ALL, ANY };  // as in device.h
    int kind = waiting[0]->kind;
    long long result = kind == ALL;
    for (Fiber* fiber : waiting) {
        if (kind == COUNT) result += fiber->value;
        if (kind == ALL) result = result && fiber->value;
        if (kind == ANY) result = result || fiber->value;
    }
    for (Fiber* fiber : waiting) {
        fiber->state = READY;
        fiber->result = result;
    }
    return true;
}

bool release_warp(unsigned number, unsigned threads) {
    unsigned first = number * 32, end = std::min(first + 32, threads);
    bool released = false;
    for (unsigned t = first; t < end; ++t) {
        if (fibers[t].state != AT_WARP) continue;
        unsigned mask = fibers[t].mask, ballot = 0;
        std::vector<unsigned> lanes;
        for (unsigned lane = 0; lane < 32 && first + lane < end; ++lane)
            if (mask >> lane & 1) lanes.push_back(lane);
        if (!std::all_of(lanes.begin(), lanes.end(), [&](unsigned lane) {
                return fibers[first + lane].state == AT_WARP && fibers[first + lane].mask == mask;
            }))
            continue;
        for (unsigned lane : lanes) {
            Fiber& fiber = fibers[first + lane];
            ballot |= unsigned(fiber.value & 1) << lane;
            warps[number].values[lane] = fiber.value;
            fiber.state = READY;
        }
        warps[number].ballot = ballot;
        released = true;
    }
    return released;
}

cudaError_t run_block_of_fibers(dim3 block) {
    unsigned threads = block.x * block.y * block.z;
    for (unsigned t = 0; t < threads; ++t) {
        fibers[t].index = {t % block.x, t / block.x % block.y, t / block.x / block.y};
        fibers[t].state = READY;
    }
    for (;;) {
        turn.clear();
        bool all_done = true, released = false;
        for (unsigned t = 0; t < threads; ++t) {
            if (fibers[t].state == READY) turn.push_back(t);
            all_done &= fibers[t].state == DONE;
        }
        if (all_done) return cudaSuccess;
        if (!turn.empty()) {
            next_in_turn = 0;
            if (!_setjmp(scheduler)) go_on();
            continue;
        }
        for (unsigned warp = 0; warp < warps.size(); ++warp) released |= release_warp(warp, threads);
        if (!released && !release_barrier(threads)) {
            fprintf(stderr, "simulated CUDA: the threads of %s wait for each other\n", kernel_now->name);
            return cudaErrorLaunchTimeout;
        }
    }
}

void run_block_in_turn(dim3 block) {
    current = 0;
    for (unsigned z = 0; z < block.z; ++z)
        for (unsigned y = 0; y < block.y; ++y)
            for (unsigned x = 0; x < block.x; ++x, ++current) {
                threadIdx = {x, y, z};
                kernel_now->call(parameters_now);
            }
}

// Within it, subnormal numbers are zeros, as -ftz=true has it. compiling.py takes float64 out of it.
struct Flushing {
    unsigned before = _mm_getcsr();
    explicit Flushing(bool is_on) {
        if (is_on) _mm_setcsr(before | 0x8040);
    }
    ~Flushing() { _mm_setcsr(before); }
};

}  // namespace

cudaError_t run_grid(const Kernel* kernel, dim3 grid, dim3 block, void** parameters) {
    kernel_was_run();
    count(std::string("kernel ") + kernel->name);
    if (is_broken()) return cudaSuccess;  // the call after it is the first to fail
    Flushing flushing(kernel->flushes);
    if (fibers.empty()) {
        fibers.assign(MOST_THREADS, Fiber());
        stacks = static_cast<char*>(mmap(nullptr, MOST_THREADS * STACK, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    }
    kernel_now = kernel;
    parameters_now = parameters;
    gridDim = {grid.x, grid.y, grid.z};
    blockDim = {block.x, block.y, block.z};
    warps.assign((block.x * block.y * block.z + 31) / 32, Warp());
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = {x, y, z};
                if (!kernel->synchronizes)
                    run_block_in_turn(block);
                else if (cudaError_t error = run_block_of_fibers(block))
                    return error;
            }
    return cudaSuccess;
}

// ---- what kernels call; see device.h

EXPORT long long simulated_barrier(int kind, long long value) {
    fibers[current].kind = kind;
    fibers[current].value = value;
    hand_over(AT_BARRIER);
    return fibers[current].result;
}
EXPORT int simulated_lane() { return current % 32; }
EXPORT unsigned long long simulated_shuffle(unsigned mask, unsigned long long value, int lane) {
    fibers[current].mask = mask;
    fibers[current].value = value;
    hand_over(AT_WARP);
    return warps[current / 32].values[lane & 31];
}
EXPORT unsigned simulated_ballot(unsigned mask, int predicate) {
    fibers[current].mask = mask;
    fibers[current].value = predicate != 0;
    hand_over(AT_WARP);
    return warps[current / 32].ballot;
}

// ---- the driver: modules and launches

namespace {

const char MAGIC[] = "SIMCUBIN";  // then the size of a shared library in 8 bytes, and the library
struct Module {
    void* library;
    int device;
};
std::map<const void*, int> device_of_kernel;

}  // namespace

DRIVER cuModuleLoadData(void** made, const char* image) {
    ENTER;
    const int invalid_image = cudaErrorInvalidKernelImage;
    if (memcmp(image, MAGIC, 8)) return invalid_image;
    size_t size;
    memcpy(&size, image + 8, 8);
    // The file stays open: dlopen knows a library by its path, and the number of a file that was closed is used again.
    int file = memfd_create("kernel", 0);
    if (write(file, image + 16, size) != static_cast<ssize_t>(size)) return invalid_image;
    std::string path = "/proc/self/fd/" + std::to_string(file);
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "simulated CUDA: %s\n", dlerror());
        return invalid_image;
    }
    *made = new Module{library, current_device};
    return 0;
}
DRIVER cuModuleUnload(Module* module) {
    ENTER;
    finish_everything();
    dlclose(module->library);
    delete module;
    return 0;
}
DRIVER cuModuleGetFunction(void** kernel, Module* module, const char* name) {
    ENTER;
    *kernel = dlsym(module->library, (std::string("kernel_") + name).c_str());
    device_of_kernel[*kernel] = module->device;
    return *kernel ? 0 : 500;  // CUDA_ERROR_NOT_FOUND
}
DRIVER cuFuncGetAttribute(int* value, int, void*) { return *value = 0, 0; }

// What a device would do to a launch whose parts belong to several devices.
static int wrong_device(const Kernel* kernel, int there, void** parameters) {
    if (there != current_device || device_of_kernel[kernel] != current_device) {
        fprintf(stderr, "simulated CUDA: %s of device %d on a stream of device %d while %d is current\n", kernel->name,
                device_of_kernel[kernel], there, current_device);
        return cudaErrorInvalidResourceHandle;
    }
    for (int i = 0; i < kernel->parameters; ++i) {
        if (kernel->sizes[i] < sizeof(void*)) continue;
        int owner = device_of_memory(*static_cast<void**>(parameters[i]));
        if (owner >= 0 && owner != there) {
            fprintf(stderr, "simulated CUDA: %s of device %d is given memory of device %d\n", kernel->name, there, owner);
            return cudaErrorIllegalAddress;
        }
    }
    return 0;
}

DRIVER cuLaunchKernel(const Kernel* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared, void* stream, void** parameters, void**) {
    ENTER;
    if (int error = wrong_device(kernel, device_of_stream(stream), parameters)) return error;
    unsigned long long threads = 1ull * block_x * block_y * block_z, blocks = 1ull * grid_x * grid_y * grid_z;
    bool too_large = threads > MOST_THREADS || grid_x > 0x7fffffffu || grid_y > 65535 || grid_z > 65535 || shared > 48 << 10;
    if (!threads || !blocks || too_large) return cudaErrorInvalidValue;
    // What the parameters hold now is what the kernel sees, in a graph too.
    auto held = std::make_shared<std::vector<std::vector<char>>>();
    for (int i = 0; i < kernel->parameters; ++i) {
        const char* begin = static_cast<char*>(parameters[i]);
        held->emplace_back(begin, begin + kernel->sizes[i]);
    }
    dim3 grid(grid_x, grid_y, grid_z), block(block_x, block_y, block_z);
    return submit(stream, [=] {
        std::vector<void*> addresses;
        for (auto& parameter : *held) addresses.push_back(parameter.data());
        return run_grid(kernel, grid, block, addresses.data());
    });
}

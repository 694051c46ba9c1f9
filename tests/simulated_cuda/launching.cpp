// Modules, and launches of their kernels; threads.cpp runs them.
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>

#include "cuda.h"
#include "kernel.h"

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
    bool too_large = threads > 1024 || grid_x > 0x7fffffffu || grid_y > 65535 || grid_z > 65535 || shared > 48 << 10;
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

// Which devices there are, and what they say of themselves, by the environment:
//   FAKECUDA_DEVICES=n  FAKECUDA_CC=89,61 (compute capabilities)  FAKECUDA_DRIVER=12040  FAKECUDA_NAME=name
//   FAKECUDA_INIT=code (of cuInit and of the count)  FAKECUDA_MEMORY=bytes (see memory.cpp)
//   FAKECUDA_MACHINE=n (processes with the same one have the same GPUs)
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda.h"

thread_local int current_device = 0;

int devices() {
    static const int count = number_from_environment("FAKECUDA_DEVICES", 1);
    return count;
}

unsigned long number_of_gpu(int device) { return (number_from_environment("FAKECUDA_MACHINE", 0) << 8) + device + 1; }

static int driver() {
    static const int version = number_from_environment("FAKECUDA_DRIVER", CUDART_VERSION);
    return version;
}

static int capability(int device) {
    std::string list = getenv("FAKECUDA_CC") ? getenv("FAKECUDA_CC") : "90";
    for (; device && list.find(',') != std::string::npos; --device) list = list.substr(list.find(',') + 1);
    return atoi(list.c_str());
}

static std::string name(int device) {
    std::string name = getenv("FAKECUDA_NAME") ? getenv("FAKECUDA_NAME") : "simulated device";
    return device ? name + " " + std::to_string(device) : name;
}

// ---- the runtime

RUNTIME cudaDriverGetVersion(int* version) { return *version = driver(), cudaSuccess; }
RUNTIME cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }

RUNTIME cudaGetDeviceCount(int* count) {
    int too_old = driver() < CUDART_VERSION / 1000 * 1000 ? cudaErrorInsufficientDriver : 0;
    if (int code = number_from_environment("FAKECUDA_INIT", too_old)) return failed(static_cast<cudaError_t>(code));
    *count = devices();
    return cudaSuccess;
}
RUNTIME cudaGetDevice(int* device) {
    ENTER;
    *device = current_device;
    return cudaSuccess;
}
RUNTIME cudaSetDevice(int device) {
    ENTER;
    if (device < 0 || device >= devices()) return failed(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}
RUNTIME cudaDeviceSynchronize() {
    ENTER;
    if (cudaError_t error = spoil_captures(true)) return failed(error);
    finish_everything();
    return cudaSuccess;
}
RUNTIME cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    switch (static_cast<int>(attribute)) {
        case cudaDevAttrComputeCapabilityMajor: *value = capability(device) / 10; break;
        case cudaDevAttrComputeCapabilityMinor: *value = capability(device) % 10; break;
        case cudaDevAttrMultiProcessorCount: *value = 4; break;
        case cudaDevAttrMemoryPoolsSupported: *value = 1; break;
        case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
        case cudaDevAttrWarpSize: *value = 32; break;
        default: *value = 0;
    }
    return cudaSuccess;
}
RUNTIME cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    if (device < 0 || device >= devices()) return failed(cudaErrorInvalidDevice);
    memset(properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "%s", name(device).c_str());
    snprintf(properties->uuid.bytes, sizeof properties->uuid.bytes, "%lx", number_of_gpu(device));
    properties->totalGlobalMem = total_memory();
    properties->major = capability(device) / 10;
    properties->minor = capability(device) % 10;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->multiProcessorCount = 4;
    properties->sharedMemPerBlock = 48 << 10;
    return cudaSuccess;
}
RUNTIME cudaMemGetInfo(size_t* free, size_t* total) {
    ENTER;
    *free = free_memory();
    *total = total_memory();
    return cudaSuccess;
}
// Devices reach each other's memory by copies alone, as most that are sold without NVLink.
RUNTIME cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 0, cudaSuccess; }

// ---- the driver

DRIVER cuInit(unsigned) { return number_from_environment("FAKECUDA_INIT", 0); }
DRIVER cuDriverGetVersion(int* version) { return *version = driver(), 0; }
DRIVER cuDeviceGetCount(int* count) { return *count = devices(), 0; }
DRIVER cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal < devices() ? 0 : cudaErrorInvalidDevice;
}
DRIVER cuDeviceGetName(char* text, int size, int device) { return snprintf(text, size, "%s", name(device).c_str()), 0; }
DRIVER cuDeviceTotalMem_v2(size_t* size, int) { return *size = total_memory(), 0; }
DRIVER cuDeviceGetAttribute(int* value, int attribute, int device) {
    return cudaDeviceGetAttribute(value, static_cast<cudaDeviceAttr>(attribute), device);
}
DRIVER cuCtxGetCurrent(void** context) { return *context = reinterpret_cast<void*>(0xC0), 0; }
DRIVER cuCtxSetCurrent(void*) { return 0; }
DRIVER cuCtxGetDevice(int* device) { return *device = current_device, 0; }

// ---- what errors are called

struct Error {
    int code;
    const char *name, *text;
};
static const Error ERRORS[] = {
    {0, "cudaSuccess", "no error"},
    {1, "cudaErrorInvalidValue", "invalid argument"},
    {2, "cudaErrorMemoryAllocation", "out of memory"},
    {3, "cudaErrorInitializationError", "initialization error"},
    {35, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
    {46, "cudaErrorDevicesUnavailable", "CUDA-capable device(s) is/are busy or unavailable"},
    {100, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {101, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {200, "cudaErrorInvalidKernelImage", "device kernel image is invalid"},
    {209, "cudaErrorNoKernelImageForDevice", "no kernel image is available for execution on the device"},
    {214, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"},
    {222, "cudaErrorUnsupportedPtxVersion", "the provided PTX was compiled with an unsupported toolchain."},
    {304, "cudaErrorOperatingSystem", "OS call failed or operation not supported on this OS"},
    {400, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {401, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {600, "cudaErrorNotReady", "device not ready"},
    {700, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {702, "cudaErrorLaunchTimeout", "the launch timed out and was terminated"},
    {719, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {801, "cudaErrorNotSupported", "operation not supported"},
    {802, "cudaErrorSystemNotReady", "system not yet initialized"},
    {803, "cudaErrorSystemDriverMismatch", "system has unsupported display driver / cuda driver combination"},
    {804, "cudaErrorCompatNotSupportedOnDevice", "forward compatibility was attempted on non supported HW"},
    {900, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {901, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
    {904, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {905, "cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work in another stream"},
    {906, "cudaErrorStreamCaptureImplicit", "operation would make the legacy stream depend on a capturing blocking stream"},
    {907, "cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a capturing stream"},
    {999, "cudaErrorUnknown", "unknown error"},
};
static const Error& error_of(int code) {
    for (const Error& error : ERRORS)
        if (error.code == code) return error;
    return ERRORS[sizeof ERRORS / sizeof *ERRORS - 1];
}
EXPORT const char* CUDARTAPI cudaGetErrorName(cudaError_t code) { return error_of(code).name; }
EXPORT const char* CUDARTAPI cudaGetErrorString(cudaError_t code) { return error_of(code).text; }
DRIVER cuGetErrorName(int code, const char** text) { return *text = error_of(code).name, 0; }
DRIVER cuGetErrorString(int code, const char** text) { return *text = error_of(code).text, 0; }

// Failures by the environment, each a number of CUDA's:
//   FAKECUDA_FAIL=function:nth:code[:on],...   the nth call of a function fails, with `on` all that come after too
//   FAKECUDA_CONTEXT=code                      every call that needs a context fails
//   FAKECUDA_STICKY=kernels:code               after so many kernels every call fails
//   FAKECUDA_HANG=kernels                      after so many kernels the host waits for a stream for ever
//   FAKECUDA_LOG=1                             names on standard error the calls that failed
// In a process that was forked off after the first call every call fails, as it does on a device.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "cuda.h"

std::recursive_mutex everything;

static long kernels;
static std::map<std::string, long> counted;
static int broken;
static thread_local cudaError_t last_error = cudaSuccess;

long number_from_environment(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text ? strtol(text, nullptr, 0) : otherwise;
}

bool is_broken() { return broken; }

// How often a function was called, a kernel was run, or "kernels" or "products" were: since the last simulated_reset.
void count(const std::string& what) { ++counted[what]; }
EXPORT long simulated_count(const char* what) { return counted.count(what) ? counted[what] : 0; }
EXPORT void simulated_reset() { counted.clear(); }

bool is_hanging() {
    static const long after = number_from_environment("FAKECUDA_HANG", 0);
    return after && kernels > after;
}

void kernel_was_run() {
    static const char* plan = getenv("FAKECUDA_STICKY");
    ++kernels;
    count("kernels");
    if (plan && kernels == atol(plan)) broken = atoi(strchr(plan, ':') + 1);
}

cudaError_t failed(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

static bool begins(const char* text, const char* with) { return !strncmp(text, with, strlen(with)); }

static int planned(const char* function) {
    static const char* plan = getenv("FAKECUDA_FAIL");
    static std::map<std::string, long> calls;
    if (!plan) return 0;
    long call = ++calls[function];
    std::string all = plan;
    for (size_t at = 0, end; at < all.size(); at = end + 1) {
        end = std::min(all.find(',', at), all.size());
        std::string one = all.substr(at, end - at);
        size_t name = one.find(':'), code = one.find(':', name + 1);
        if (one.substr(0, name) != function) continue;
        long nth = atol(one.c_str() + name + 1);
        if (call == nth || (call > nth && one.find(":on") != std::string::npos)) return atoi(one.c_str() + code + 1);
    }
    return 0;
}

int failure_of(const char* function) {
    count(function);
    static pid_t born = 0;
    static const char* context = getenv("FAKECUDA_CONTEXT");
    int code = 0;
    if (!begins(function, "nvrtc")) {
        if (!born) born = getpid();
        if (getpid() != born) code = cudaErrorInitializationError;
        if (context && strcmp(function, "cudaGetDevice")) code = atoi(context);
        if (broken) code = broken;
        if (code && begins(function, "nccl")) code = 1;
        if (code && begins(function, "cublas")) code = begins(function, "cublasCreate") ? 1 : 13;
    }
    if (!code) code = planned(function);
    if (code && getenv("FAKECUDA_LOG")) fprintf(stderr, "simulated CUDA: %s -> %d\n", function, code);
    if (code && begins(function, "cuda")) failed(static_cast<cudaError_t>(code));
    return code;
}

RUNTIME cudaGetLastError() {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
RUNTIME cudaPeekAtLastError() { return last_error; }

// A function of the runtime that is not here jumps here, with its name.
EXPORT cudaError_t simulated_missing(const char* name) {
    fprintf(stderr, "simulated CUDA: %s is not implemented\n", name);
    return failed(cudaErrorNotSupported);
}

// Memory of the devices and pinned memory of the host: it holds nonsense when it is given, and again when it is given back.
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <map>
#include <utility>

#include "cuda.h"

namespace {

struct Block {
    size_t size;
    int device;  // -1 for pinned memory
};
std::map<char*, Block> device_blocks, pinned_blocks;
std::map<int, size_t> used;

const size_t ALIGNMENT = 512, APART = 64 << 10;  // what lies just outside of a block is in no other
const int NONSENSE = 0xA5;  // as floating point a tiny negative number: it spoils sums, and does not look like zero

void* take(std::map<char*, Block>& blocks, size_t size, int device) {
    void* begin = nullptr;
    if (posix_memalign(&begin, ALIGNMENT, size + APART)) return nullptr;
    memset(begin, NONSENSE, size);
    blocks[static_cast<char*>(begin)] = {size, device};
    return begin;
}

bool give_back(std::map<char*, Block>& blocks, void* begin) {
    auto at = blocks.find(static_cast<char*>(begin));
    if (at == blocks.end()) return false;
    memset(begin, NONSENSE, at->second.size);
    free(begin);
    blocks.erase(at);
    return true;
}

const std::pair<char* const, Block>* block_of(const std::map<char*, Block>& blocks, const void* begin, size_t size) {
    auto at = blocks.upper_bound(const_cast<char*>(static_cast<const char*>(begin)));
    if (at == blocks.begin()) return nullptr;
    --at;
    return static_cast<const char*>(begin) + size <= at->first + at->second.size ? &*at : nullptr;
}
bool is_pinned(const void* begin, size_t size) { return block_of(pinned_blocks, begin, size); }

}  // namespace

bool is_device_memory(const void* begin, size_t size) { return block_of(device_blocks, begin, size); }
int device_of_memory(const void* address) {
    auto* block = block_of(device_blocks, address, 1);
    return block ? block->second.device : -1;
}
std::pair<char*, size_t> device_block(const void* address) {
    auto* block = block_of(device_blocks, address, 1);
    return block ? std::pair(block->first, block->second.size) : std::pair<char*, size_t>();
}
static size_t total = number_from_environment("FAKECUDA_MEMORY", 2L << 30);
size_t total_memory() { return total; }
size_t free_memory() { return total - std::min(total, used[current_device]); }
// From now on each device has so much memory; what was before.
EXPORT size_t simulated_memory(size_t wanted) { return std::exchange(total, wanted); }

RUNTIME cudaMalloc(void** begin, size_t size) {
    ENTER;
    if (cudaError_t error = spoil_captures()) return failed(error);
    if (size > free_memory() || !(*begin = take(device_blocks, size, current_device)))
        return failed(cudaErrorMemoryAllocation);
    used[current_device] += size;
    return cudaSuccess;
}
RUNTIME cudaFree(void* begin) {
    ENTER;
    if (!begin) return cudaSuccess;
    if (cudaError_t error = spoil_captures()) return failed(error);
    finish_everything();  // as cudaFree does
    auto at = device_blocks.find(static_cast<char*>(begin));
    if (at == device_blocks.end()) return failed(cudaErrorInvalidValue);
    used[at->second.device] -= at->second.size;
    give_back(device_blocks, begin);
    return cudaSuccess;
}
RUNTIME cudaHostAlloc(void** begin, size_t size, unsigned) {
    ENTER;
    if (cudaError_t error = spoil_captures()) return failed(error);
    *begin = take(pinned_blocks, size, -1);
    return failed(*begin ? cudaSuccess : cudaErrorMemoryAllocation);
}
RUNTIME cudaFreeHost(void* begin) {
    ENTER;
    if (cudaError_t error = spoil_captures()) return failed(error);
    finish_everything();
    return failed(!begin || give_back(pinned_blocks, begin) ? cudaSuccess : cudaErrorInvalidValue);
}
RUNTIME cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
    std::lock_guard<std::recursive_mutex> alone(everything);
    memset(attributes, 0, sizeof *attributes);
    attributes->type = is_device_memory(address, 1) ? cudaMemoryTypeDevice
                       : is_pinned(address, 1)      ? cudaMemoryTypeHost
                                                    : cudaMemoryTypeUnregistered;
    attributes->device = std::max(0, device_of_memory(address));
    if (attributes->type != cudaMemoryTypeUnregistered) attributes->devicePointer = const_cast<void*>(address);
    return cudaSuccess;
}

// ---- copies

static cudaError_t check(const void* to, const void* from, size_t size, cudaMemcpyKind kind) {
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (to_device && !is_device_memory(to, size)) return cudaErrorInvalidValue;
    if (from_device && !is_device_memory(from, size)) return cudaErrorInvalidValue;
    return cudaSuccess;
}

static Work copy(void* to, const void* from, size_t size) {
    return [=] { return memmove(to, from, size), cudaSuccess; };
}

RUNTIME cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind kind) {
    ENTER;
    if (cudaError_t error = check(to, from, size, kind)) return failed(error);
    return failed(submit(nullptr, copy(to, from, size)));
}
RUNTIME cudaStreamSynchronize(cudaStream_t stream);
RUNTIME cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
    ENTER;
    if (cudaError_t error = check(to, from, size, kind)) return failed(error);
    if (kind == cudaMemcpyHostToDevice && !is_pinned(from, size)) {
        // Memory that is not pinned is copied aside before the call returns; pinned memory is read when the copy is made.
        auto held = std::make_shared<std::vector<char>>(static_cast<const char*>(from), static_cast<const char*>(from) + size);
        return failed(submit(stream, [=] { return memcpy(to, held->data(), size), cudaSuccess; }));
    }
    cudaError_t error = submit(stream, copy(to, from, size));
    if (!error && kind == cudaMemcpyDeviceToHost && !is_pinned(to, size) && !is_capturing(stream))
        return cudaStreamSynchronize(stream);  // a copy to memory that is not pinned waits
    return failed(error);
}
RUNTIME cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t size, cudaStream_t stream) {
    ENTER;
    if (!is_device_memory(to, size) || !is_device_memory(from, size)) return failed(cudaErrorInvalidValue);
    if (device_of_memory(to) != to_device || device_of_memory(from) != from_device) return failed(cudaErrorInvalidValue);
    return failed(submit(stream, copy(to, from, size)));
}
RUNTIME cudaMemset(void* begin, int value, size_t size) {
    ENTER;
    if (!is_device_memory(begin, size)) return failed(cudaErrorInvalidValue);
    return failed(submit(nullptr, [=] { return memset(begin, value, size), cudaSuccess; }));
}
RUNTIME cudaMemsetAsync(void* begin, int value, size_t size, cudaStream_t stream) {
    ENTER;
    if (!is_device_memory(begin, size)) return failed(cudaErrorInvalidValue);
    return failed(submit(stream, [=] { return memset(begin, value, size), cudaSuccess; }));
}

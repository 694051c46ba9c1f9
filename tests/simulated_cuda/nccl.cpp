// NCCL between processes of one machine. What ranks give goes through memory that they share, piece by piece, and is added in
// the order of the ranks, so each has the same bits. Who waits for a rank that is gone waits for ever, as with NCCL.
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <random>
#include <thread>

#include "cuda.h"

namespace {

enum Result { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };
enum Type { INT_32 = 2, REAL_32 = 7, REAL_64 = 8 };
const int MOST_RANKS = 16;
const size_t PIECE = 1 << 20;

struct UniqueId {
    char path[128];
};

// What one rank wants to do, for the others to compare.
struct Call {
    int kind, type;
    size_t count;
};

// Memory of all ranks; zeros when it is made.
struct Shared {
    std::atomic<int> here, round;
    std::atomic<unsigned long> device[MOST_RANKS];
    Call calls[MOST_RANKS];
    char pieces[MOST_RANKS][PIECE];
};

struct Communicator {
    int size, rank, device;
    Shared* shared;
    std::atomic<bool> is_meeting{false}, is_aborted{false};

    // Wait until all ranks are here; false if this one was aborted meanwhile.
    bool meet() {
        int round = shared->round;
        is_meeting = true;
        if (shared->here.fetch_add(1) + 1 == size) {
            shared->here = 0;
            ++shared->round;
        }
        for (long turn = 0; shared->round == round && !is_aborted; ++turn) turn < 1000 ? sched_yield() : usleep(100);
        is_meeting = false;
        return !is_aborted;
    }

    bool agree(Call call) {
        shared->calls[rank] = call;
        if (!meet()) return false;
        for (int other = 0; other < size; ++other)
            if (memcmp(&shared->calls[other], &call, sizeof call)) {
                fprintf(stderr, "simulated NCCL: rank %d calls another collective than rank %d, or with another size\n", rank, other);
                abort();
            }
        return true;
    }

    template <typename T> cudaError_t reduce(const T* send, T* receive, size_t count, int type) {
        if (!agree({0, type, count})) return cudaErrorUnknown;
        for (size_t at = 0, most = PIECE / sizeof(T); at < count; at += most) {
            size_t length = std::min(most, count - at);
            memcpy(shared->pieces[rank], send + at, length * sizeof(T));
            if (!meet()) return cudaErrorUnknown;
            for (size_t i = 0; i < length; ++i) {
                T sum = 0;
                for (int from = 0; from < size; ++from) sum += reinterpret_cast<const T*>(shared->pieces[from])[i];
                receive[at + i] = sum;
            }
            if (!meet()) return cudaErrorUnknown;
        }
        return cudaSuccess;
    }

    cudaError_t gather(const char* send, char* receive, size_t bytes) {
        if (!agree({1, 0, bytes})) return cudaErrorUnknown;
        for (size_t at = 0; at < bytes; at += PIECE) {
            size_t length = std::min(PIECE, bytes - at);
            memcpy(shared->pieces[rank], send + at, length);
            if (!meet()) return cudaErrorUnknown;
            for (int from = 0; from < size; ++from) memcpy(receive + from * bytes + at, shared->pieces[from], length);
            if (!meet()) return cudaErrorUnknown;
        }
        return cudaSuccess;
    }
};

size_t size_of(int type) { return type == REAL_64 ? 8 : type == REAL_32 || type == INT_32 ? 4 : 0; }

// A device goes on while its host waits for something else: where other ranks wait for this one, do what it was given.
void go_on(Communicator* communicator) {
    while (!communicator->is_aborted) {
        usleep(1000);
        int round = communicator->shared->round;
        if (!communicator->shared->here || communicator->is_meeting) continue;
        std::unique_lock<std::recursive_mutex> alone(everything, std::try_to_lock);
        while (alone && communicator->shared->round == round && do_something()) {}
    }
}

cudaError_t counted(const char* name) {
    kernel_was_run();
    count(std::string("kernel ") + name);
    return cudaSuccess;
}

}  // namespace

DRIVER ncclGetVersion(int* version) { return *version = 22707, SUCCESS; }
EXPORT const char* ncclGetErrorString(int result) {
    const char* texts[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error", "invalid argument",
                           "invalid usage", "remote process exited or there was a network error"};
    return result >= 0 && result < 7 ? texts[result] : "unknown result code";
}
DRIVER ncclGetUniqueId(UniqueId* id) {
    ENTER;
    std::random_device chance;
    snprintf(id->path, sizeof id->path, "/dev/shm/simulated-nccl-%08x%08x", chance(), chance());
    int file = open(id->path, O_CREAT | O_EXCL | O_RDWR, 0600);
    bool is_made = file >= 0 && !ftruncate(file, sizeof(Shared));
    close(file);
    return is_made ? SUCCESS : SYSTEM_ERROR;
}
DRIVER ncclCommInitRankConfig(Communicator** made, int size, UniqueId id, int rank, void*) {
    ENTER;
    if (spoil_captures(true) || size > MOST_RANKS || rank < 0 || rank >= size) return INVALID_ARGUMENT;
    int file = open(id.path, O_RDWR);
    void* memory = file < 0 ? MAP_FAILED : mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) return SYSTEM_ERROR;
    auto* communicator = *made = new Communicator{size, rank, current_device, static_cast<Shared*>(memory)};
    Shared* shared = communicator->shared;
    shared->device[rank] = number_of_gpu(current_device);
    communicator->meet();
    for (int other = 0; other < size; ++other)
        if (other != rank && shared->device[other] == shared->device[rank]) return INVALID_USAGE;
    communicator->meet();
    if (!rank) unlink(id.path);
    if (size > 1) std::thread(go_on, communicator).detach();
    return SUCCESS;
}
DRIVER ncclCommInitRank(Communicator** made, int size, UniqueId id, int rank) {
    return ncclCommInitRankConfig(made, size, id, rank, nullptr);
}
// Its memory stays: another thread may look into it.
DRIVER ncclCommAbort(Communicator* communicator) { return communicator->is_aborted = true, SUCCESS; }
DRIVER ncclCommDestroy(Communicator* communicator) { return ncclCommAbort(communicator); }
DRIVER ncclCommGetAsyncError(Communicator*, int* result) {
    *result = SUCCESS;
    ENTER;
    return SUCCESS;
}
DRIVER ncclCommCount(Communicator* communicator, int* count) { return *count = communicator->size, SUCCESS; }
DRIVER ncclCommUserRank(Communicator* communicator, int* rank) { return *rank = communicator->rank, SUCCESS; }
DRIVER ncclCommCuDevice(Communicator* communicator, int* device) { return *device = communicator->device, SUCCESS; }

DRIVER ncclAllReduce(const void* send, void* receive, size_t count, int type, int operation, Communicator* communicator, void* stream) {
    ENTER;
    size_t bytes = count * size_of(type);
    bool is_right = !operation && bytes && is_device_memory(send, bytes) && is_device_memory(receive, bytes);
    if (!is_right || device_of_stream(stream) != communicator->device) return INVALID_ARGUMENT;
    return submit(stream, [=] {
        counted("ncclAllReduce");
        if (type == REAL_64) return communicator->reduce(static_cast<const double*>(send), static_cast<double*>(receive), count, type);
        if (type == REAL_32) return communicator->reduce(static_cast<const float*>(send), static_cast<float*>(receive), count, type);
        return communicator->reduce(static_cast<const int*>(send), static_cast<int*>(receive), count, type);
    }) ? INVALID_USAGE : SUCCESS;
}
DRIVER ncclAllGather(const void* send, void* receive, size_t count, int type, Communicator* communicator, void* stream) {
    ENTER;
    size_t bytes = count * size_of(type);
    bool is_right = bytes && is_device_memory(send, bytes) && is_device_memory(receive, communicator->size * bytes);
    if (!is_right || device_of_stream(stream) != communicator->device) return INVALID_ARGUMENT;
    return submit(stream, [=] {
        counted("ncclAllGather");
        return communicator->gather(static_cast<const char*>(send), static_cast<char*>(receive), bytes);
    }) ? INVALID_USAGE : SUCCESS;
}

// What CuPy's binding asks for and gpunn does not.
#define MISSING(name)                                                \
    DRIVER name() {                                                  \
        fprintf(stderr, "simulated CUDA: " #name " is not implemented\n"); \
        return INVALID_USAGE;                                        \
    }
MISSING(ncclBcast)
MISSING(ncclBroadcast)
MISSING(ncclCommInitAll)
MISSING(ncclCommSplit)
MISSING(ncclGroupEnd)
MISSING(ncclGroupStart)
MISSING(ncclRecv)
MISSING(ncclReduce)
MISSING(ncclReduceScatter)
MISSING(ncclSend)

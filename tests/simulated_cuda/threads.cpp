// The threads of a grid: blocks run one after another, threads of a block as fibers that hand over where they wait for each
// other, or else one after another too. What no device allows ends the launch: barriers that not all threads reach, threads
// that wait for each other for ever. Within simulated_checks the order of blocks and threads is drawn from a seed.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <xmmintrin.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "threads.h"

uint3 threadIdx, blockIdx, blockDim, gridDim;
Schedule schedule;
unsigned current, block_number, barriers;

namespace {

enum State { READY, AT_BARRIER, AT_WARP, DONE };
enum { COUNT, ALL, ANY, NOTHING };  // what a barrier computes, as in device.h
struct Fiber {
    jmp_buf context;
    bool is_fresh = true;
    State state;
    uint3 index;
    int site, kind;
    unsigned mask;  // of the lanes that exchange
    unsigned long long value;
    long long result;
};
struct Warp {
    unsigned long long values[32];
    unsigned ballot, barriers;
};

const size_t STACK = 128 << 10, MOST_THREADS = 1024;
std::vector<Fiber> fibers;
std::vector<Warp> warps;
char* stacks;
std::vector<unsigned> turn;  // the fibers that run before anything is released
size_t next_in_turn;
jmp_buf scheduler, failed_launch;
std::mt19937_64 chance;
const Kernel* kernel_now;
void** parameters_now;
std::string problem;

// Forwards, backwards, all mixed, or warps mixed: what is wrong in one order may come right in another.
void arrange(std::vector<unsigned>& threads) {
    if (schedule.order() == 1) std::reverse(threads.begin(), threads.end());
    if (schedule.order() == 2) std::shuffle(threads.begin(), threads.end(), chance);
    if (schedule.order() == 3) {
        std::vector<unsigned> place(warps.size());
        std::iota(place.begin(), place.end(), 0);
        std::shuffle(place.begin(), place.end(), chance);
        std::stable_sort(threads.begin(), threads.end(),
                         [&](unsigned a, unsigned b) { return place[a / 32] < place[b / 32]; });
    }
}

void run_fiber();
[[noreturn]] void resume(unsigned number) {
    Fiber& fiber = fibers[number];
    current = number;
    threadIdx = fiber.index;
    if (!fiber.is_fresh) _longjmp(fiber.context, 1);
    fiber.is_fresh = false;
    static ucontext_t fresh;  // only to get on the fiber's stack: from then on it keeps its own context
    getcontext(&fresh);
    fresh.uc_stack.ss_sp = stacks + number * STACK;
    fresh.uc_stack.ss_size = STACK;
    fresh.uc_link = nullptr;
    makecontext(&fresh, run_fiber, 0);
    setcontext(&fresh);
    abort();
}
// One fiber hands over to the next by itself, the last to the scheduler.
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

// Lets all go on who wait at one barrier, where that is all threads of the block.
bool release_barrier(unsigned threads) {
    unsigned waiting = 0, done = 0;
    const Fiber* first = nullptr;
    for (unsigned t = 0; t < threads; ++t) {
        done += fibers[t].state == DONE;
        if (fibers[t].state != AT_BARRIER) continue;
        ++waiting;
        if (!first) first = &fibers[t];
        if (fibers[t].site != first->site) fail("barrier divergence: threads of a block wait at different __syncthreads");
    }
    if (waiting && done && waiting + done == threads)
        fail("barrier divergence: %u of %u threads wait at __syncthreads, the others have ended", waiting, threads);
    if (waiting < threads) return false;
    long long result = first->kind == ALL;
    for (unsigned t = 0; t < threads; ++t) {
        if (first->kind == COUNT) result += fibers[t].value;
        if (first->kind == ALL) result = result && fibers[t].value;
        if (first->kind == ANY) result = result || fibers[t].value;
    }
    for (unsigned t = 0; t < threads; ++t) {
        fibers[t].state = READY;
        fibers[t].result = result;
    }
    ++barriers;
    return true;
}

bool release_warp(unsigned number, unsigned threads) {
    unsigned first = number * 32, lanes = std::min(32u, threads - first);  // nobody waits for lanes that are not there
    Warp& warp = warps[number];
    bool released = false;
    for (unsigned lane = 0; lane < lanes; ++lane) {
        const Fiber& leader = fibers[first + lane];
        if (leader.state != AT_WARP) continue;
        unsigned mask = leader.mask, ballot = 0;
        if (!(mask >> lane & 1)) fail("lane %u calls a warp function whose mask %08x leaves it out", lane, mask);
        bool are_there = true;
        for (unsigned other = 0; other < lanes; ++other) {
            if (!(mask >> other & 1)) continue;
            const Fiber& fiber = fibers[first + other];
            if (fiber.state == DONE)
                fail("warp divergence: lane %u has ended, and the mask %08x of a warp function names it", other, mask);
            are_there &= fiber.state == AT_WARP;
            if (fiber.state == AT_WARP && (fiber.mask != mask || fiber.site != leader.site))
                fail("warp divergence: lanes %u and %u wait at different warp functions, or with different masks", lane, other);
            ballot |= unsigned(fiber.value & 1) << other;
        }
        if (!are_there) continue;
        for (unsigned other = 0; other < lanes; ++other)
            if (mask >> other & 1) {
                warp.values[other] = fibers[first + other].value;
                fibers[first + other].state = READY;
            }
        warp.ballot = ballot;
        warp.barriers += leader.kind != NOTHING;  // __syncwarp orders memory; a shuffle does not
        released = true;
    }
    return released;
}

void run_block_of_fibers(unsigned threads) {
    for (unsigned t = 0; t < threads; ++t) fibers[t].state = READY;
    for (;;) {
        turn.clear();
        bool are_done = true, released = false;
        for (unsigned t = 0; t < threads; ++t) {
            if (fibers[t].state == READY) turn.push_back(t);
            are_done &= fibers[t].state == DONE;
        }
        if (are_done) return;
        if (!turn.empty()) {
            arrange(turn);
            next_in_turn = 0;
            if (!_setjmp(scheduler)) go_on();
            continue;
        }
        for (unsigned warp = 0; warp < warps.size(); ++warp) released |= release_warp(warp, threads);
        if (!released && !release_barrier(threads))
            fail("deadlock: no thread of the block can go on, some wait at __syncthreads, some at a warp function");
    }
}

void run_block_in_turn(unsigned threads) {
    for (current = 0; current < threads; ++current) {
        threadIdx = fibers[current].index;
        kernel_now->call(parameters_now);
    }
}

void run_blocks(unsigned threads) {
    static std::vector<unsigned> order;
    order.resize(gridDim.x * gridDim.y * gridDim.z);
    std::iota(order.begin(), order.end(), 0);
    if (schedule.order() == 1) std::reverse(order.begin(), order.end());
    if (schedule.order() >= 2) std::shuffle(order.begin(), order.end(), chance);
    for (unsigned number : order) {
        block_number = number + 1;
        blockIdx = {number % gridDim.x, number / gridDim.x % gridDim.y, number / gridDim.x / gridDim.y};
        barriers = 0;
        warps.assign((threads + 31) / 32, Warp());
        if (schedule.checks) begin_block();
        if (kernel_now->synchronizes || schedule.checks)
            run_block_of_fibers(threads);
        else
            run_block_in_turn(threads);
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
    unsigned threads = block.x * block.y * block.z;
    for (unsigned t = 0; t < threads; ++t) fibers[t].index = {t % block.x, t / block.x % block.y, t / block.x / block.y};
    if (schedule.checks) {
        chance.seed(schedule.seed);
        begin_checks(kernel, parameters);
    }
    if (_setjmp(failed_launch)) {
        for (Fiber& fiber : fibers) fiber.is_fresh = true;  // where they stood is given up
        return cudaErrorLaunchFailure;
    }
    run_blocks(threads);
    if (schedule.checks) end_checks();
    return cudaSuccess;
}

void fail(const char* format, ...) {
    char what[700], message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    snprintf(message, sizeof message, "%s, schedule %llu: block (%u, %u, %u), thread (%u, %u, %u): %s", kernel_now->name,
             schedule.seed, blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, what);
    if (problem.empty()) problem = message;
    if (!schedule.checks) fprintf(stderr, "simulated CUDA: %s\n", message);
    _longjmp(failed_launch, 1);
}
unsigned barriers_of_warp() { return warps[current / 32].barriers; }
bool is_on_stack(const char* address) { return address >= stacks && address < stacks + MOST_THREADS * STACK; }
void may_hand_over() {
    if (schedule.preempts() && chance() % 8 == 0) hand_over(READY);
}

// From now on kernels run in an order by `seed`: 0 to 3 forwards, backwards, mixed, by warps; 4 to 7 with threads that hand
// over at shared memory too; and so on with other random numbers. Those compiled with checks report what they do wrong,
// with `races` two threads at one element too.
EXPORT void simulated_checks(bool checks, unsigned long long seed, bool races) {
    std::lock_guard<std::recursive_mutex> alone(everything);
    schedule = {checks, races, seed};
    problem.clear();
}
// What a kernel did wrong first since then, or "".
EXPORT const char* simulated_problem() { return problem.c_str(); }

// ---- what kernels call; see device.h

static void wait(State state, int site, int kind, unsigned mask, unsigned long long value) {
    Fiber& fiber = fibers[current];
    fiber.site = site, fiber.kind = kind, fiber.mask = mask, fiber.value = value;
    hand_over(state);
}
EXPORT long long simulated_barrier(int site, int kind, long long value) {
    wait(AT_BARRIER, site, kind, 0, value);
    return fibers[current].result;
}
EXPORT int simulated_lane() { return current % 32; }
EXPORT void simulated_warp_barrier(int site, unsigned mask) { wait(AT_WARP, site, ALL, mask, 0); }
EXPORT unsigned long long simulated_shuffle(int site, unsigned mask, unsigned long long value, int lane) {
    wait(AT_WARP, site, NOTHING, mask, value);
    if (lane < 0 || lane > 31 || !(mask >> lane & 1) || current / 32 * 32 + lane >= blockDim.x * blockDim.y * blockDim.z)
        fail("a shuffle reads lane %d, which its mask %08x or the block does not have", lane, mask);
    return warps[current / 32].values[lane];
}
EXPORT unsigned simulated_ballot(int site, unsigned mask, int predicate) {
    wait(AT_WARP, site, NOTHING, mask, predicate != 0);
    return warps[current / 32].ballot;
}

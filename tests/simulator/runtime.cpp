// Runs the threads of a grid: one block after another in any order, the threads of a block as fibers that hand over at
// barriers and shuffles, in an order drawn from a seed. It finds barriers that not all threads reach, accesses outside
// of an array, memory read before it was written, and races: two threads, one of them writing, at one element with
// no barrier between. See cuda.h for what the kernels see of it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <vector>

struct Index { unsigned x, y, z; };

struct Cell { // of an element: its last write, and its reads since it was last ordered after them
    uint32_t writer_block, writer, write_epoch, write_warp_epoch;
    uint32_t reader_block, reader_warp, reader, read_epoch, read_warp_epoch;
};

struct Region {
    char *begin, *end;
    const char* name;
    Cell* cells;
    char* cells_from;
    long long granule;
};

struct Argument { // as launching.py fills it in
    void* address;
    const long long* shape_and_strides;
    Region region;
    long long item_size;
    int is_array, is_written;
};

typedef void (*Entry)(const Argument*);

extern "C" {
Index threadIdx, blockIdx, blockDim, gridDim;
long long sim_bytes_read, sim_bytes_written;
[[noreturn]] void sim_fail(const char* format, ...);
}

namespace {

enum State { READY, AT_BARRIER, AT_WARP, DONE };
const uint32_t NONE = 0, MANY = 0xffffffffu; // blocks and threads count from 1 in a Cell
const size_t STACK = 128 * 1024;

struct Fiber {
    jmp_buf context;
    bool is_fresh = true;
    State state;
    Index index;
    int site, kind;
    unsigned mask;
    unsigned long long value;
    long long result;
};

struct Warp {
    unsigned long long values[32];
    unsigned ballot;
    uint32_t epoch;
};

struct Launch {
    Entry entry;
    const Argument* arguments;
    bool races, preempts;
    int order;
} launch;

struct SharedArray { Region* region; int item_size, is_float; Entry owner; };

std::vector<Fiber> fibers;
std::vector<Warp> warps;
std::vector<SharedArray> shared_arrays;
char* stacks;
size_t stacks_for;
std::vector<uint32_t> round_of_fibers; // those that run before barriers are looked at again
size_t next_of_round;
jmp_buf scheduler;
uint32_t current, block_number, epoch;
uint64_t random_state;
bool in_fibers;
char message[1024];

uint64_t random_number() { // SplitMix64
    uint64_t z = random_state += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

void shuffle(std::vector<uint32_t>& numbers) {
    for (size_t i = numbers.size(); i > 1; --i) std::swap(numbers[i - 1], numbers[random_number() % i]);
}

// Forwards, backwards, all mixed, or warps mixed: what is wrong in one order may come right in another.
void arrange(std::vector<uint32_t>& threads) {
    if (launch.order == 1) std::reverse(threads.begin(), threads.end());
    if (launch.order == 2) shuffle(threads);
    if (launch.order == 3) {
        std::vector<uint32_t> first;
        for (uint32_t warp = 0; warp < warps.size(); ++warp) first.push_back(warp);
        shuffle(first);
        std::vector<uint32_t> place(warps.size());
        for (uint32_t i = 0; i < first.size(); ++i) place[first[i]] = i;
        std::stable_sort(threads.begin(), threads.end(),
                         [&](uint32_t a, uint32_t b) { return place[a / 32] < place[b / 32]; });
    }
}

void fiber_main();

[[noreturn]] void resume(uint32_t number) {
    Fiber& fiber = fibers[number];
    current = number;
    threadIdx = fiber.index;
    if (!fiber.is_fresh) _longjmp(fiber.context, 1);
    fiber.is_fresh = false;
    static ucontext_t fresh; // only to get on the fiber's stack: from then on it keeps its own context
    getcontext(&fresh);
    fresh.uc_stack.ss_sp = stacks + number * STACK;
    fresh.uc_stack.ss_size = STACK;
    fresh.uc_link = nullptr;
    makecontext(&fresh, fiber_main, 0);
    setcontext(&fresh);
    abort(); // setcontext does not return
}

// One fiber hands over to the next of the round by itself, the last to the scheduler.
[[noreturn]] void go_on() {
    if (next_of_round < round_of_fibers.size()) resume(round_of_fibers[next_of_round++]);
    _longjmp(scheduler, 1);
}

void hand_over(State state) {
    Fiber& fiber = fibers[current];
    fiber.state = state;
    if (!_setjmp(fiber.context)) go_on();
}

void fiber_main() {
    for (;;) {
        launch.entry(launch.arguments);
        hand_over(DONE);
    }
}

void make_fibers(size_t count) {
    if (fibers.size() < count) {
        if (stacks) munmap(stacks, stacks_for * STACK);
        stacks = (char*)mmap(nullptr, count * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        stacks_for = count;
        fibers.assign(count, Fiber());
    }
}


void fill_with_poison(const SharedArray& array) {
    for (char* at = array.region->begin; at < array.region->end; at += array.item_size) {
        memset(at, 0xA5, array.item_size);
        if (array.is_float && array.item_size == 4) at[3] = 0x7F;
        if (array.is_float && array.item_size == 8) at[7] = 0x7F, at[6] = (char)0xF5;
    }
    if (array.region->cells) {
        size_t items = (array.region->end - array.region->begin) / array.item_size;
        memset((void*)array.region->cells, 0, items * sizeof(Cell));
    }
}

// Lets all go on who wait at one barrier. True if any could.
bool release_barrier(uint32_t threads) {
    uint32_t waiting = 0, done = 0;
    const Fiber* first = nullptr;
    for (uint32_t t = 0; t < threads; ++t) {
        const Fiber& fiber = fibers[t];
        done += fiber.state == DONE;
        if (fiber.state != AT_BARRIER) continue;
        ++waiting;
        if (!first) first = &fiber;
        if (fiber.site != first->site) sim_fail("barrier divergence: threads of a block wait at different __syncthreads");
    }
    if (waiting && waiting + done == threads && done)
        sim_fail("barrier divergence: %u of %u threads wait at __syncthreads, the others have ended", waiting, threads);
    if (waiting < threads) return false;
    long long result = first->kind == 1;
    for (uint32_t t = 0; t < threads; ++t) {
        long long value = (long long)fibers[t].value;
        if (first->kind == 0) result += value;
        if (first->kind == 1) result = result && value;
        if (first->kind == 2) result = result || value;
    }
    for (uint32_t t = 0; t < threads; ++t) {
        fibers[t].state = READY;
        fibers[t].result = result;
    }
    ++epoch;
    return true;
}

bool release_warp(uint32_t number, uint32_t threads) {
    uint32_t first = number * 32, end = std::min(first + 32, threads);
    bool released = false;
    for (uint32_t t = first; t < end; ++t) {
        Fiber& leader = fibers[t];
        if (leader.state != AT_WARP) continue;
        unsigned mask = leader.mask, ballot = 0;
        if (!(mask >> (t - first) & 1)) sim_fail("lane %u calls a warp function whose mask %08x leaves it out", t - first, mask);
        bool all_there = true;
        for (uint32_t lane = 0; lane < 32; ++lane) {
            if (!(mask >> lane & 1)) continue;
            uint32_t other = first + lane;
            // Lanes that the block does not have are in a full mask too, and nobody waits for them.
            if (other >= end) continue;
            Fiber& fiber = fibers[other];
            if (fiber.state == DONE)
                sim_fail("warp divergence: lane %u has ended, and the mask %08x of a warp function names it", lane, mask);
            if (fiber.state != AT_WARP) { all_there = false; continue; }
            if (fiber.mask != mask || fiber.site != leader.site)
                sim_fail("warp divergence: lanes %u and %u wait at different warp functions, or with different masks",
                         t - first, lane);
            ballot |= (unsigned)(fiber.value & 1) << lane;
        }
        if (!all_there) continue;
        Warp& warp = warps[number];
        warp.ballot = ballot;
        for (uint32_t lane = 0; lane < 32; ++lane) {
            if (!(mask >> lane & 1) || first + lane >= end) continue;
            warp.values[lane] = fibers[first + lane].value;
            fibers[first + lane].state = READY;
        }
        if (leader.kind == 1) ++warp.epoch; // __syncwarp orders memory; a shuffle does not
        released = true;
    }
    return released;
}

void run_block_in_fibers(uint32_t threads) {
    for (;;) {
        round_of_fibers.clear();
        for (uint32_t t = 0; t < threads; ++t)
            if (fibers[t].state == READY) round_of_fibers.push_back(t);
        if (round_of_fibers.empty()) {
            bool released = false, all_done = true;
            for (uint32_t w = 0; w < warps.size(); ++w) released |= release_warp(w, threads);
            if (!released) released = release_barrier(threads);
            for (uint32_t t = 0; t < threads; ++t) all_done &= fibers[t].state == DONE;
            if (all_done) return;
            if (!released)
                sim_fail("deadlock: no thread of the block can go on, some wait at __syncthreads, some at a warp function");
            continue;
        }
        arrange(round_of_fibers);
        next_of_round = 0;
        if (!_setjmp(scheduler)) go_on();
    }
}

jmp_buf failed;

void run_grid(uint32_t threads, bool synchronizes) {
    uint32_t blocks = gridDim.x * gridDim.y * gridDim.z;
    std::vector<uint32_t> block_order(blocks), thread_order(threads);
    for (uint32_t b = 0; b < blocks; ++b) block_order[b] = b;
    if (launch.order == 1) std::reverse(block_order.begin(), block_order.end());
    if (launch.order >= 2) shuffle(block_order);
    warps.assign((threads + 31) / 32, Warp());
    make_fibers(threads);
    for (uint32_t number : block_order) {
        block_number = number + 1;
        blockIdx = {number % gridDim.x, number / gridDim.x % gridDim.y, number / gridDim.x / gridDim.y};
        epoch = 0;
        for (Warp& warp : warps) warp.epoch = 0;
        for (const SharedArray& array : shared_arrays)
            if (array.owner == launch.entry) fill_with_poison(array);
        for (uint32_t t = 0; t < threads; ++t) {
            fibers[t].index = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
            fibers[t].state = READY;
            thread_order[t] = t;
        }
        if (synchronizes) {
            in_fibers = true;
            run_block_in_fibers(threads);
            in_fibers = false;
        } else { // nobody waits for anybody: each thread runs to its end
            arrange(thread_order);
            for (uint32_t t : thread_order) {
                current = t;
                threadIdx = fibers[t].index;
                launch.entry(launch.arguments);
            }
        }
    }
}

// Arrays that share memory with one that is written share cells: a race may be between two arguments.
std::vector<Cell*> make_cells(Argument* arguments, int count) {
    std::vector<Cell*> made;
    for (int i = 0; i < count; ++i) {
        Argument& argument = arguments[i];
        if (!argument.is_array || !argument.is_written || argument.region.cells || argument.region.begin == argument.region.end) continue;
        char *begin = argument.region.begin, *end = argument.region.end;
        long long granule = argument.item_size;
        for (bool grows = true; grows;) {
            grows = false;
            for (int j = 0; j < count; ++j) {
                const Region& r = arguments[j].region;
                if (!arguments[j].is_array || r.begin >= end || begin >= r.end) continue;
                granule = std::min(granule, arguments[j].item_size);
                if (r.begin < begin) begin = r.begin, grows = true;
                if (r.end > end) end = r.end, grows = true;
            }
        }
        Cell* cells = (Cell*)calloc((end - begin) / granule + 1, sizeof(Cell));
        made.push_back(cells);
        for (int j = 0; j < count; ++j) {
            Region& r = arguments[j].region;
            if (!arguments[j].is_array || r.begin >= end || begin >= r.end) continue;
            r.cells = cells;
            r.cells_from = begin;
            r.granule = granule;
        }
    }
    return made;
}

[[noreturn]] void race(const Region* region, const char* at, int writes, uint32_t other, const char* other_does) {
    long long element = (at - region->begin) / region->granule;
    char who[64] = "several threads";
    if (other != MANY) snprintf(who, sizeof who, "thread %u of a block", other - 1);
    sim_fail("race: it %s element %lld of `%s`, which %s %s with no barrier between", writes ? "writes" : "reads", element,
             region->name, who, other_does);
}

} // namespace

extern "C" {

void sim_fail(const char* format, ...) {
    char what[700];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    snprintf(message, sizeof message, "block (%u, %u, %u), thread (%u, %u, %u): %s", blockIdx.x, blockIdx.y, blockIdx.z,
             threadIdx.x, threadIdx.y, threadIdx.z, what);
    for (Fiber& fiber : fibers) fiber.is_fresh = true; // where they stood is given up
    _longjmp(failed, 1);
}

void sim_out_of_bounds(const Region* region, const char* at, int size, int writes) {
    if (!region) sim_fail("%s through a null pointer", writes ? "writes" : "reads");
    long long offset = at - region->begin;
    const char* does = writes ? "writes" : "reads";
    if (at >= region->begin && at + size <= region->end)
        sim_fail("%s %d bytes at byte %lld of `%s`: not aligned", does, size, offset, region->name);
    sim_fail("%s element %lld of `%s`, which has %lld: out of bounds", does,
             offset >= 0 ? offset / size : -((size - 1 - offset) / size), region->name,
             (long long)(region->end - region->begin) / size);
}

void sim_never_written(const Region* region, const char* at, int size) {
    sim_fail("reads element %lld of `%s`, which was never written", (long long)(at - region->begin) / size, region->name);
}

void sim_note(const Region* region, const char* at, int size, int writes) {
    uint32_t me = current + 1, warp = current / 32 + 1, warp_epoch = warps[current / 32].epoch;
    Cell* cell = region->cells + (at - region->cells_from) / region->granule;
    Cell* end = region->cells + (at + size - 1 - region->cells_from) / region->granule + 1;
    for (; cell < end; ++cell) {
        if (cell->writer && (cell->writer_block != block_number ||
                             (cell->writer != me && cell->write_epoch == epoch &&
                              ((cell->writer - 1) / 32 + 1 != warp || cell->write_warp_epoch == warp_epoch))))
            race(region, at, writes, cell->writer, "wrote");
        if (writes) {
            if (cell->reader_block &&
                (cell->reader_block != block_number ||
                 (cell->read_epoch == epoch && (cell->reader_warp != warp || (cell->read_warp_epoch == warp_epoch && cell->reader != me)))))
                race(region, at, writes, cell->reader, "read");
            cell->writer_block = block_number, cell->writer = me, cell->write_epoch = epoch, cell->write_warp_epoch = warp_epoch;
            cell->reader_block = NONE;
            continue;
        }
        bool is_first = !cell->reader_block;
        if (!is_first && cell->reader_block != block_number) {
            cell->reader_block = cell->reader_warp = cell->reader = MANY;
            continue;
        }
        if (is_first || cell->read_epoch < epoch) {
            cell->reader_block = block_number, cell->reader_warp = warp, cell->reader = me;
        } else if (cell->reader_warp != warp) {
            cell->reader_warp = cell->reader = MANY;
        } else if (cell->read_warp_epoch < warp_epoch) {
            cell->reader = me;
        } else if (cell->reader != me) {
            cell->reader = MANY;
        }
        cell->read_epoch = epoch, cell->read_warp_epoch = warp_epoch;
    }
}

void sim_may_switch() {
    if (launch.preempts && in_fibers && random_number() % 8 == 0) hand_over(READY);
}

static void wait(State state, int site, int kind, unsigned mask, unsigned long long value) {
    Fiber& fiber = fibers[current];
    fiber.site = site, fiber.kind = kind, fiber.mask = mask, fiber.value = value;
    hand_over(state);
}

void sim_barrier(int site) { wait(AT_BARRIER, site, 3, 0, 0); }

long long sim_barrier_reduce(int site, int kind, long long value) {
    wait(AT_BARRIER, site, kind, 0, (unsigned long long)value);
    return fibers[current].result;
}

int sim_lane() { return current % 32; }

void sim_warp_barrier(int site, unsigned mask) { wait(AT_WARP, site, 1, mask, 0); }

unsigned long long sim_shuffle(int site, unsigned mask, unsigned long long value, int lane, int) {
    wait(AT_WARP, site, 0, mask, value);
    uint32_t source = current / 32 * 32 + lane;
    if (lane < 0 || lane > 31 || !(mask >> lane & 1) || source >= blockDim.x * blockDim.y * blockDim.z)
        sim_fail("a shuffle reads lane %d, which its mask %08x or the block does not have", lane, mask);
    return warps[current / 32].values[lane];
}

unsigned sim_ballot(int site, unsigned mask, int predicate) {
    wait(AT_WARP, site, 0, mask, predicate);
    return warps[current / 32].ballot;
}

void sim_register_shared(Region* region, int item_size, int is_float) {
    region->granule = item_size;
    region->cells_from = region->begin;
    if (launch.races) region->cells = (Cell*)calloc((region->end - region->begin) / item_size, sizeof(Cell));
    shared_arrays.push_back({region, item_size, is_float, launch.entry});
    fill_with_poison(shared_arrays.back());
}

// Runs a grid. Returns "" or what went wrong.
const char* sim_launch(Entry entry, Argument* arguments, int count, const unsigned* grid, const unsigned* block,
                       unsigned long long seed, int synchronizes, int races) {
    message[0] = 0;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    random_state = seed;
    // Seeds 0, 1, ... take the orders in turn, then again with threads that hand over in between.
    launch = {entry, arguments, races != 0, seed / 4 % 2 == 1, (int)(seed % 4)};
    for (SharedArray& array : shared_arrays) {
        if (array.owner != entry) continue;
        free(array.region->cells);
        size_t items = (array.region->end - array.region->begin) / array.item_size;
        array.region->cells = races ? (Cell*)calloc(items, sizeof(Cell)) : nullptr;
    }
    std::vector<Cell*> made;
    if (races) made = make_cells(arguments, count);
    if (!_setjmp(failed)) run_grid(block[0] * block[1] * block[2], synchronizes != 0);
    in_fibers = false;
    for (Cell* cells : made) free(cells);
    return message;
}

// What g++'s checks of undefined behaviour report; each is given where in the source.
struct Place { const char* file; unsigned line, column; };
#define SIM_UNDEFINED(name, what) \
    void __ubsan_handle_##name##_abort(Place* place, void*, void*) { sim_fail("line %u: " what, place->line); }
SIM_UNDEFINED(out_of_bounds, "index outside of a local array")
SIM_UNDEFINED(divrem_overflow, "integer division by zero")
SIM_UNDEFINED(add_overflow, "integer overflow in an addition")
SIM_UNDEFINED(sub_overflow, "integer overflow in a subtraction")
SIM_UNDEFINED(mul_overflow, "integer overflow in a multiplication")
SIM_UNDEFINED(negate_overflow, "integer overflow in a negation")
SIM_UNDEFINED(shift_out_of_bounds, "shift by too many bits")
void __ubsan_handle_missing_return(Place* place) { sim_fail("line %u: function ends without a value", place->line); }
}

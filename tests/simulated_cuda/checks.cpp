// What a kernel does to memory, where it was compiled with checks (compiling.py): accesses outside of the arrays that it was
// given, memory that was never written, indices outside of an array, undefined arithmetic, and races: two threads, one of
// them writing, at one element with no barrier between. g++ calls `__tsan_read4` and the like before each access, and
// `__ubsan_handle_...` for what it finds itself; what they do is ours.
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <map>

#include "threads.h"

namespace {

const unsigned MANY = ~0u;  // blocks, warps and threads
struct Moment {             // who came to an element, and when; block 0 for nobody
    unsigned block, warp, thread, barriers, barriers_of_warp;
    unsigned long long number;  // of all moments, in the order in which they are simulated

    bool is_before(const Moment& now) const {
        return !block || (block == now.block && (thread == now.thread || barriers < now.barriers ||
                                                 (warp == now.warp && barriers_of_warp < now.barriers_of_warp)));
    }
    bool is_within(const Moment& other) const { return number <= other.number && is_before(other); }
    void add(const Moment& now) {  // another one that is not ordered after it
        if (block != now.block) block = MANY;
        if (block == MANY || warp != now.warp) warp = MANY;
        thread = MANY;
        barriers = now.barriers, barriers_of_warp = now.barriers_of_warp, number = now.number;
    }
};
Moment this_moment() {
    static unsigned long long number;
    return {block_number, current / 32, current, barriers, barriers_of_warp(), ++number};
}

// What orders two blocks: a fence and an atomic behind it in one, and in the other an atomic at the same address later and a
// fence behind that. What came before the first fence, by barriers in its block, comes before what follows the second.
std::map<const void*, std::vector<Moment>> published;  // the fences before the atomics of an address
std::map<unsigned, Moment> fenced;                     // the last fence of each thread of this block
std::map<unsigned, std::vector<Moment>> met;           // what its atomics have met that no fence of it follows yet
std::vector<std::pair<Moment, std::vector<Moment>>> acquired;  // by the fences of this block

bool is_published(const Moment& then, const Moment& now) {
    for (auto& [fence, fences] : acquired)
        if (fence.is_within(now))
            for (const Moment& other : fences)
                if (then.is_within(other)) return true;
    return false;
}
struct Cell {  // of an element: its last write, and its reads since then
    Moment write, read;
};

struct Region {  // an array that the kernel may reach
    char *begin, *end;
    const char* name;
    bool is_shared;
    std::vector<Cell> cells;  // as large as the smallest access
    size_t cell_size = 0;
    size_t read = 0, written = 0;

    // The cell of an address, in cells no larger than an access of this size.
    Cell* cell(const char* at, size_t size) {
        if (!cell_size || size < cell_size) {
            std::vector<Cell> finer((end - begin + size - 1) / size);
            for (size_t i = 0; cell_size && i < finer.size(); ++i) finer[i] = cells[i * size / cell_size];
            cells.swap(finer);
            cell_size = size;
        }
        return &cells[(at - begin) / cell_size];
    }
};
std::vector<Region> regions;

[[noreturn]] void race(const Region& region, const char* at, size_t size, bool writes, const Moment& other, const char* did) {
    char who[64] = "several threads";
    if (other.thread != MANY) snprintf(who, sizeof who, "thread %u of a block", other.thread);
    fail("race: it %s element %zu of `%s`, which %s %s with no barrier between", writes ? "writes" : "reads",
         (at - region.begin) / size, region.name, who, did);
}

void look_for_races(Region& region, const char* at, size_t size, bool writes) {
    const Moment now = this_moment();
    auto is_ordered = [&](const Moment& then) { return then.is_before(now) || is_published(then, now); };
    Cell* cell = region.cell(at, size);
    for (Cell* end = cell + std::max<size_t>(1, size / region.cell_size); cell < end; ++cell) {
        if (!is_ordered(cell->write)) race(region, at, size, writes, cell->write, "wrote");
        if (writes) {
            if (!is_ordered(cell->read)) race(region, at, size, writes, cell->read, "read");
            *cell = {now, Moment()};
        } else if (is_ordered(cell->read)) {
            cell->read = now;
        } else {
            cell->read.add(now);
        }
    }
}

// 0xA5 in every byte, as memory.cpp leaves it, or the NaN that the tests fill arrays with.
bool is_unset(const char* at, size_t size) {
    for (; size >= 4; at += 8, size = size >= 8 ? size - 8 : 0) {
        uint64_t bits = 0xA5A5A5A5A5A5A5A5;
        memcpy(&bits, at, std::min<size_t>(8, size));
        uint32_t low = bits, high = bits >> 32;
        if (low == 0xA5A5A5A5 ? high == 0xA5A5A5A5 || high == 0x7FF5A5A5 : size == 4 && low == 0x7FA5A5A5) return true;
    }
    return false;
}

Region& region_of(const char* at, size_t size, bool writes) {
    static size_t last;
    auto holds = [=](const Region& region) { return at >= region.begin && at + size <= region.end; };
    if (last < regions.size() && holds(regions[last])) return regions[last];
    for (last = 0; last < regions.size(); ++last)
        if (holds(regions[last])) return regions[last];
    const char* does = writes ? "writes" : "reads";
    if (regions.empty() || at < reinterpret_cast<char*>(4096)) fail("%s through a null pointer", does);
    auto distance = [=](const Region& region) { return at < region.begin ? region.begin - at : at - region.end; };
    const Region& nearest = *std::min_element(regions.begin(), regions.end(), [=](const Region& a, const Region& b) {
        return distance(a) < distance(b);
    });
    long long offset = at - nearest.begin, unit = size;
    fail("%s element %lld of `%s`, which has %lld: out of bounds", does, offset >= 0 ? offset / unit : -((unit - 1 - offset) / unit),
         nearest.name, (nearest.end - nearest.begin) / unit);
}

void check(const void* address, size_t size, bool writes, bool races = true) {
    const char* at = static_cast<const char*>(address);
    if (!schedule.checks || is_on_stack(at)) return;
    Region& region = region_of(at, size, writes);
    if (region.is_shared) may_hand_over();
    if (schedule.races && races) look_for_races(region, at, size, writes);
    if (!writes && is_unset(at, size))
        fail("reads element %zu of `%s`, which was never written", (at - region.begin) / size, region.name);
    (writes ? region.written : region.read) += size;
}

}  // namespace

void begin_checks(const Kernel* kernel, void** parameters) {
    published.clear();
    regions.clear();
    regions.reserve(64);  // they stay where they are: threads hand over while they look at one
    for (int i = 0; i < kernel->parameters; ++i) {
        if (kernel->sizes[i] < sizeof(void*)) continue;
        auto [begin, size] = device_block(*static_cast<void**>(parameters[i]));
        if (!size || std::any_of(regions.begin(), regions.end(), [&](Region& r) { return r.begin == begin; })) continue;
        regions.push_back({begin, begin + size, kernel->names[i]});
    }
}

void end_checks() {
    auto is_untouched = [](const Region& region) { return !region.read && !region.written; };
    if (!regions.empty() && std::all_of(regions.begin(), regions.end(), is_untouched))
        fail("touches none of its arrays: it was compiled without checks");
}

void begin_block() {
    fenced.clear(), met.clear(), acquired.clear();
    for (Region& region : regions)
        if (region.is_shared) {
            memset(region.begin, 0xA5, region.end - region.begin);
            region.cells.clear();
            region.cell_size = 0;
        }
}

// Bytes that the last kernel read and wrote. Of an array that a processor's cache holds each is fetched once, however often
// it is looked up.
EXPORT size_t simulated_moved() {
    const size_t cache = 32 << 10;
    size_t moved = 0;
    for (const Region& region : regions) {
        size_t size = region.end - region.begin;
        if (!region.is_shared) moved += region.written + (size <= cache ? std::min(size, region.read) : region.read);
    }
    return moved;
}

// ---- what kernels call

EXPORT void simulated_atomic(const void* address, size_t size) {
    check(address, size, false, false);
    check(address, size, true, false);
    if (!schedule.races) return;
    std::vector<Moment>& fences = published[address];
    std::vector<Moment>& mine = met[current];
    mine.insert(mine.end(), fences.begin(), fences.end());
    if (fenced.count(current)) fences.push_back(fenced[current]);
}
EXPORT void simulated_fence() {
    if (!schedule.races) return;
    const Moment now = fenced[current] = this_moment();
    if (!met[current].empty()) acquired.emplace_back(now, std::move(met[current]));
    met[current].clear();
}
// Stands behind the declaration of an array of shared memory.
EXPORT void simulated_shared(const char* name, void* begin, size_t size) {
    char* from = static_cast<char*>(begin);
    if (!schedule.checks || std::any_of(regions.begin(), regions.end(), [=](Region& r) { return r.begin == from; })) return;
    regions.push_back({from, from + size, name, true});
    memset(begin, 0xA5, size);
}

EXPORT void __tsan_init() {}
#define ACCESSES(size)                                                               \
    EXPORT void __tsan_read##size(void* at) { check(at, size, false); }              \
    EXPORT void __tsan_write##size(void* at) { check(at, size, true); }              \
    EXPORT void __tsan_unaligned_read##size(void* at) { check(at, size, false); }    \
    EXPORT void __tsan_unaligned_write##size(void* at) { check(at, size, true); }
ACCESSES(1) ACCESSES(2) ACCESSES(4) ACCESSES(8) ACCESSES(16)
EXPORT void __tsan_read_range(void* at, size_t size) { check(at, size, false); }
EXPORT void __tsan_write_range(void* at, size_t size) { check(at, size, true); }

struct Type {
    uint16_t kind, bits;
    char name[1];
};
struct Place {
    const char* file;
    unsigned line, column;
};
struct Index : Place {
    const Type *array, *index;
};
struct Misaligned : Place {
    const Type* type;
};
EXPORT void __ubsan_handle_out_of_bounds_abort(Index* where, size_t index) {
    long long number = where->index->bits >> 1 < 6 ? int(index) : index;
    fail("line %u: index %lld lies outside of %s", where->line, number, where->array->name);
}
EXPORT void __ubsan_handle_type_mismatch_v1_abort(Misaligned* where, void*) {
    fail("line %u: address of %s is not aligned", where->line, where->type->name);
}
#define UNDEFINED(name, what) \
    EXPORT void __ubsan_handle_##name##_abort(Place* place, void*, void*) { fail("line %u: " what, place->line); }
UNDEFINED(divrem_overflow, "integer division by zero")
UNDEFINED(add_overflow, "integer overflow in an addition")
UNDEFINED(sub_overflow, "integer overflow in a subtraction")
UNDEFINED(mul_overflow, "integer overflow in a multiplication")
UNDEFINED(negate_overflow, "integer overflow in a negation")
UNDEFINED(shift_out_of_bounds, "shift by too many bits")

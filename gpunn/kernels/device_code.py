"""Provide CUDA C++ that kernels share in their `preamble`: block sums, 128-bit loads, rows split among blocks.

Blocks have one dimension, a multiple of 32 threads. The order of every sum depends on the sizes alone and nothing is
added by atomics, so each run gives the same bits. A thread that waits for one load at a time leaves most of the memory
bandwidth unused, so `each` and `each_into` issue several wide loads before they need the first value.
"""

# Blocks that fill a device, eight on each of 132 multiprocessors, and the fewest elements worth a block. Both are
# constants: if they depended on the device, so would the last digits of the sums.
BLOCKS, LEAST = 1056, 512

BLOCK_SUM = """
// Sum one value per lane over the warp and return it in every lane: each pair of lanes adds the same two numbers.
template <typename V> __device__ inline V warp_sum(V value) {
    for (int apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(0xffffffffu, value, apart);
    return value;
}

// Sum `count` values per thread over the block, for every thread; `part` is shared memory, `count` elements per warp.
template <int count, typename V> __device__ inline void block_sums(V (&values)[count], V* part) {
    #pragma unroll
    for (int k = 0; k < count; ++k) {
        values[k] = warp_sum(values[k]);
        if (threadIdx.x % 32 == 0) part[threadIdx.x / 32 * count + k] = values[k];
    }
    __syncthreads();
    #pragma unroll
    for (int k = 0; k < count; ++k) {
        values[k] = part[k];
        for (int warp = 1; warp < blockDim.x / 32; ++warp) values[k] += part[warp * count + k];
    }
    __syncthreads();
}
template <typename V> __device__ inline V block_sum(V value, V* part) {
    V values[1] = {value};
    block_sums(values, part);
    return values[0];
}
"""

WIDE = """
// The numbers that fit into 128 bits, loaded and stored at once.
template <typename V> struct alignas(16) Wide {
    static const unsigned count = 16 / sizeof(V);
    V at[count];
};
template <typename V> __device__ inline bool is_wide(const V* address) {
    return reinterpret_cast<unsigned long long>(address) % 16 == 0;
}
template <typename V> __device__ inline Wide<V> load_wide(const V* from) {
    return *reinterpret_cast<const Wide<V>*>(from);
}
template <typename V> __device__ inline void store_wide(V* to, const Wide<V>& values) {
    *reinterpret_cast<Wide<V>*>(to) = values;
}

// See `each` and `each_into`.
template <int ahead, bool writes, int inputs, typename V, typename F>
__device__ inline void each_value(const V* const (&from)[inputs], V* to, unsigned begin, unsigned end, F use) {
    const unsigned width = Wide<V>::count, step = blockDim.x * width;
    bool wide = !writes || is_wide(to + begin);
    for (int k = 0; k < inputs; ++k) wide = wide && is_wide(from[k] + begin);
    unsigned rest = begin;  // from here on numbers are taken one by one
    if (wide) {
        rest = end - (end - begin) % width;
        for (unsigned base = begin + threadIdx.x * width; base < rest; base += ahead * step) {
            Wide<V> given[ahead][inputs];
            #pragma unroll
            for (int u = 0; u < ahead; ++u)
                #pragma unroll
                for (int k = 0; k < inputs; ++k)
                    if (base + u * step < rest) given[u][k] = load_wide(from[k] + base + u * step);
            #pragma unroll
            for (int u = 0; u < ahead; ++u) {
                if (base + u * step >= rest) continue;
                Wide<V> made;
                #pragma unroll
                for (unsigned e = 0; e < width; ++e) {
                    V values[inputs];
                    for (int k = 0; k < inputs; ++k) values[k] = given[u][k].at[e];
                    if constexpr (writes) made.at[e] = use(values); else use(values);
                }
                if constexpr (writes) store_wide(to + base + u * step, made);
            }
        }
    }
    for (unsigned base = rest + threadIdx.x; base < end; base += 4 * blockDim.x) {
        V given[4][inputs];
        #pragma unroll
        for (int u = 0; u < 4; ++u)
            for (int k = 0; k < inputs; ++k)
                if (base + u * blockDim.x < end) given[u][k] = from[k][base + u * blockDim.x];
        #pragma unroll
        for (int u = 0; u < 4; ++u) {
            if (base + u * blockDim.x >= end) continue;
            if constexpr (writes) to[base + u * blockDim.x] = use(given[u]); else use(given[u]);
        }
    }
}

// Call use(values) for the elements begin .. end of some arrays, split among the threads of a block, with `ahead` loads
// of 128 bits per array in flight; if an address is not aligned to 16 bytes, one number at a time.
template <int ahead, int inputs, typename V, typename F>
__device__ inline void each(const V* const (&from)[inputs], unsigned begin, unsigned end, F use) {
    each_value<ahead, false>(from, static_cast<V*>(nullptr), begin, end, use);
}
// The same with to[i] := use(values); `to` may be one of the arrays.
template <int ahead, int inputs, typename V, typename F>
__device__ inline void each_into(const V* const (&from)[inputs], V* to, unsigned begin, unsigned end, F use) {
    each_value<ahead, true>(from, to, begin, end, use);
}
"""

SHARED_ROWS = """
// Return where part `number` of n elements begins, in parts of `size` (see `part_of_row`); at most n.
__device__ inline unsigned part_begin(unsigned number, unsigned size, unsigned n) { return min(number * size, n); }

// Return, to all threads, whether this block is the last of `count` to arrive. The last one can read the earlier writes
// of the others, though not through const __restrict__. The ticket in device memory is 0 before the first and after the
// last block, and so ready for the next launch, also in a graph.
__device__ inline bool is_last_block(unsigned* ticket, unsigned count) {
    __shared__ bool is_last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        is_last = atomicInc(ticket, count - 1) == count - 1;
        __threadfence();
    }
    __syncthreads();
    return is_last;
}

// Sum a row of which this block has summed one part; parts and tickets are the scratch of all rows. It returns true in
// the last block of a row, with the sums of all parts, added in order, in every thread.
template <int count, typename V> __device__ inline bool sums_of_row(V (&sums)[count], V* parts, unsigned* tickets) {
    __shared__ V part[32 * count];
    block_sums(sums, part);
    if (gridDim.y == 1) return true;
    parts += (long long)blockIdx.x * gridDim.y * count;
    if (threadIdx.x == 0)
        for (int k = 0; k < count; ++k) parts[blockIdx.y * count + k] = sums[k];
    if (!is_last_block(tickets + blockIdx.x, gridDim.y)) return false;
    for (int k = 0; k < count; ++k) sums[k] = V(0);
    for (unsigned each = threadIdx.x; each < gridDim.y; each += blockDim.x)
        for (int k = 0; k < count; ++k) sums[k] += parts[each * count + k];
    block_sums(sums, part);
    return true;
}
"""

OF_SAMPLES = """
// Neighbouring threads take neighbouring samples, whose values are contiguous, and several threads share the outputs of
// one sample: their results are joined in shared memory, in order.
template <typename V, typename F> __device__ inline V join_of_sample(V value, int samples, V* part, F join) {
    part[threadIdx.x] = value;
    __syncthreads();
    V all = part[threadIdx.x & (samples - 1)];
    for (int at = (threadIdx.x & (samples - 1)) + samples; at < blockDim.x; at += samples) all = join(all, part[at]);
    __syncthreads();
    return all;
}
template <typename V> __device__ inline V sum_of_sample(V value, int samples, V* part) {
    return join_of_sample(value, samples, part, [](V a, V b) { return a + b; });
}
"""

DEVICE = BLOCK_SUM + WIDE + SHARED_ROWS

_MOST_LANES = 32  # threads of a sample at most


def samples_of_block(outputs: int, threads: int) -> int:
    """Return log₂ of the number of samples of a block; its threads share the outputs, so that none is idle."""
    return (threads // min(_MOST_LANES, outputs)).bit_length() - 1


def parts_of_row(rows: int, size: int) -> int:
    """Return the number of blocks that share each row: 1 for short rows, else enough to fill a device."""
    return max(1, min(-(-BLOCKS // rows), -(-size // LEAST)))


def part_of_row(size: int, parts: int) -> int:
    """Return the elements of each part of a row but the last; parts are aligned to 128 bits if the row is."""
    return -(-size // (16 * parts)) * 16

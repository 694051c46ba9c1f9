"""Make the wide form of an element-wise kernel: from the same record, a kernel with several elements a thread.

CuPy computes one element a thread, with four bytes of an array in flight. Two loads of 128 bits have eight times as
many in flight, enough to keep the device's memory busy. Only large arrays then leave every multiprocessor its blocks;
all else stays with CuPy, which also takes strides, broadcasting and mixed types.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from gpunn.backend.compiling import CUDA_NAMES, cuda_body
from gpunn.kernels.device_code import WIDE
from gpunn.kernels.record import Array, Elementwise, Launch, Raw

# Fewest elements of the wide form: 512 blocks of float32. From a model of a device, not from a measurement on one.
LARGE = 2**20
_THREADS, _VECTORS = 256, 2  # threads of a block; vectors of a thread, for each array
_Arrays: TypeAlias = tuple[bool, ...]  # which arguments are arrays, read or written element by element


def fitting(kernel: Elementwise | Raw, arguments: tuple[Any, ...]) -> Elementwise | Raw:
    """Return the wide form of a kernel if the arguments are large and allow it, else the kernel."""
    if not isinstance(kernel, Elementwise) or not kernel.may_be_wide:
        return kernel
    arrays = tuple(not raw and hasattr(value, "strides") for (_, _, raw), value in _given(kernel, arguments))
    through = [value for value, is_array in zip(arguments, arrays, strict=True) if is_array]
    if not through or through[0].size < LARGE or through[0].itemsize not in (4, 8):
        return kernel
    size, itemsize = through[0].size, through[0].itemsize
    for array in through:
        is_alike = array.size == size and array.itemsize == itemsize and array.flags.c_contiguous
        if not is_alike or array.data.ptr % 16:
            return kernel
    if any(raw and not value.flags.c_contiguous for (_, _, raw), value in _given(kernel, arguments)):
        return kernel
    return _made(kernel, arrays)


def _given(kernel: Elementwise, arguments: tuple[Any, ...]) -> list[tuple[tuple[str, str, bool], Any]]:
    return list(zip(_parameters(kernel), arguments, strict=True))


@lru_cache(256)
def _parameters(kernel: Elementwise) -> tuple[tuple[str, str, bool], ...]:
    """Return (type, name, is raw) of every parameter, inputs first."""
    texts = [text.split() for part in (kernel.inputs, kernel.outputs) for text in part.split(",") if text.strip()]
    return tuple((words[-2], words[-1], words[0] == "raw") for words in texts)


@lru_cache(256)
def _made(kernel: Elementwise, arrays: _Arrays) -> Raw:
    """Write the CUDA C++: load the elements of a thread, compute, store; the last elements one by one."""
    parameters = _parameters(kernel)
    inputs = sum(bool(text.strip()) for text in kernel.inputs.split(","))
    types = {kind: at for at, (kind, _, _) in reversed(list(enumerate(parameters))) if len(kind) == 1 and arrays[at]}
    declared, loads, names, stores = [], [], [], []
    for at, (kind, name, raw) in enumerate(parameters):
        cuda, is_output = CUDA_NAMES.get(kind, kind), at >= inputs
        const = "" if is_output else "const "
        if raw:
            declared.append(f"{const}{cuda}* {name}")
        elif not arrays[at]:
            declared.append(f"{cuda} {name}")
        else:
            declared.append(f"{const}{cuda}* all_{name}")
            loads.append(f"load_some(all_{name}, at, size, wide_{name}[u]);")
            names.append((f"Wide<{cuda}> wide_{name}[{_VECTORS}];", f"{const}{cuda}& {name} = wide_{name}[u].at[e];"))
            if is_output:
                stores.append(f"store_some(all_{name}, at, size, wide_{name}[u]);")
    lines = "\n            "
    width = f"Wide<{next(CUDA_NAMES.get(k, k) for (k, _, _), each in zip(parameters, arrays, strict=True) if each)}>"
    source = f"""
extern "C" __global__ void {kernel.name}_wide({", ".join(declared)}, long long size) {{
    const int width = {width}::count;
    const long long first = ((long long)blockIdx.x * {_VECTORS} * blockDim.x + threadIdx.x) * width;
    {" ".join(array for array, _ in names)}
    {kernel.prepare}
    #pragma unroll
    for (int u = 0; u < {_VECTORS}; ++u) {{
        const long long at = first + u * (long long)blockDim.x * width;
        {" ".join(loads)}
    }}
    #pragma unroll
    for (int u = 0; u < {_VECTORS}; ++u) {{
        const long long at = first + u * (long long)blockDim.x * width;
        #pragma unroll
        for (int e = 0; e < width; ++e) {{
            const long long i = at + e;
            if (i >= size) break;
            {lines.join(element for _, element in names)}
            {{ {cuda_body(kernel)}; }}
        }}
        {" ".join(stores)}
    }}
}}
"""
    return Raw(
        f"{kernel.name}_wide",
        source,
        launch=_launch(parameters, arrays, types),
        host=kernel.host,
        types=types,
        preamble=f"{WIDE}{_SOME}{kernel.preamble}",
        is_listed=False,
    )


def _launch(
    parameters: tuple[tuple[str, str, bool], ...], arrays: _Arrays, types: dict[str, int]
) -> Callable[..., Launch]:
    def launch(*arguments: Any) -> Launch:
        values: list[Any] = []
        for (kind, _, raw), is_array, value in zip(parameters, arrays, arguments, strict=True):
            dtype = arguments[types[kind]].dtype if kind in types else np.dtype(kind)
            values.append(value if raw or is_array else dtype.type(value))
        through: Array = arguments[arrays.index(True)]
        of_block = _THREADS * _VECTORS * (16 // through.itemsize)
        return Launch(-(-through.size // of_block), _THREADS, (*values, np.int64(through.size)))

    return launch


_SOME = """
template <typename V> __device__ inline void load_some(const V* all, long long at, long long size, Wide<V>& some) {
    const int width = Wide<V>::count;
    if (at + width <= size) {
        some = load_wide(all + at);
    } else {
        #pragma unroll
        for (int e = 0; e < width; ++e)
            if (at + e < size) some.at[e] = all[at + e];
    }
}
template <typename V> __device__ inline void store_some(V* all, long long at, long long size, const Wide<V>& some) {
    const int width = Wide<V>::count;
    if (at + width <= size) {
        store_wide(all + at, some);
    } else {
        #pragma unroll
        for (int e = 0; e < width; ++e)
            if (at + e < size) all[at + e] = some.at[e];
    }
}
"""

"""Fuse bias and activation with the batch normalization behind them, where GPU blocks share its channels.

Shared channels take (23) two passes forward and two back. These kernels are the first and the last: one computes the
statistics while the activation is written, the other the gradients (8) and (12) from the gradient by x. Both are made
from the records of the activation, and save a launch and a pass.
"""

from typing import NamedTuple

from gpunn.kernels import activations  # noqa: F401 - fuses each activation with the bias
from gpunn.kernels.bias import launch_sums, with_bias
from gpunn.kernels.device_code import DEVICE
from gpunn.kernels.normalization import STATISTICS, launch_shared, moments, normalize_gradient_by_sums
from gpunn.kernels.record import Array, Elementwise, Launch, Raw


class Joined(NamedTuple):
    """Kernels of an activation between a bias and a batch normalization."""

    forward: Raw  # a := f(a + b), then mean and variance of a as in `moments`
    backward: Raw  # da from `normalize_gradient_by_sums`, dz := da ⊙ f′(z), db[u] := Σ_j dz[u, j]; dz may be dy


def _forward(activation: Elementwise) -> Raw:
    name = f"bias_{activation.name}_and_moments"
    # Each part takes its own first value as origin, since other blocks may already have overwritten the channel's.
    source = f"""
extern "C" __global__ void {name}(T* x, const T* bias, T momentum, T* mean, T* variance, T* running_mean,
                                  T* running_variance, T* parts, unsigned* tickets, int size, int of_part) {{
    int c = blockIdx.x, count = gridDim.y;
    unsigned begin = part_begin(blockIdx.y, of_part, size), end = part_begin(blockIdx.y + 1, of_part, size);
    x += (long long)c * size;
    const T* const from[1] = {{x}};
    const T b = bias[c];
    auto activated = [=](T given) {{
        T z = given + b, a;
        {activation.operation}
        return a;
    }};
    __shared__ T origin;
    if (threadIdx.x == 0 && begin < end) origin = activated(x[begin]);
    __syncthreads();
    Moments all = {{T(0), T(0), T(0)}};
    each_into<4>(from, x, begin, end, [&](const T (&values)[1]) {{
        T a = activated(values[0]);
        all.add(a - origin);
        return a;
    }});
    all = of_block(all);
    if (count > 1) {{
        parts += 2LL * c * count;
        if (threadIdx.x == 0) parts[2 * blockIdx.y] = all.mean, parts[2 * blockIdx.y + 1] = all.squares;
        if (!is_last_block(tickets + c, count)) return;
        all = {{T(0), T(0), T(0)}};
        for (int part = threadIdx.x; part < count; part += blockDim.x) {{
            begin = part_begin(part, of_part, size), end = part_begin(part + 1, of_part, size);
            if (begin < end) all.add({{T(end - begin), x[begin] - x[0] + parts[2 * part], parts[2 * part + 1]}});
        }}
        all = of_block(all);
    }}
    if (threadIdx.x == 0)
        remember(x[0] + all.mean, all.squares / T(size), T(size), momentum, mean + c, variance + c, running_mean + c,
                 running_variance + c);
}}
"""

    def forward(x: Array, bias: Array, momentum: float, *others: Array) -> None:
        with_bias[activation].forward.host(bias[:, None], x.reshape(len(bias), -1))
        moments.host(x, momentum, *others)

    return Raw(name, source, launch=launch_shared, host=forward, preamble=DEVICE + STATISTICS)


def _launch_backward(dy: Array, x: Array, *others: Array) -> Launch:
    *given, dz, db, parts, tickets = others
    return launch_sums(parts, tickets, db, dy, x, *given, dz)


def _backward(activation: Elementwise) -> Raw:
    gradient = with_bias[activation].gradient
    name = f"normalize_{gradient.name}_and_sums"
    source = f"""
extern "C" __global__ void {name}(const T* dy, const T* x, const T* gamma, const T* mean, const T* variance, T epsilon,
                                  T share, const T* dgamma, const T* dbeta, T* dzs, T* total, T* parts,
                                  unsigned* tickets, int n, int size) {{
    int c = blockIdx.x;
    long long start = (long long)c * n;
    const T* const from[2] = {{dy + start, x + start}};
    T m = mean[c], scale = T(1) / sqrt(variance[c] + epsilon), factor = gamma[c] * scale;
    T by_gamma = share * dgamma[c], by_beta = share * dbeta[c], sum[1] = {{}};
    each_into<2>(from, dzs + start, part_begin(blockIdx.y, size, n), part_begin(blockIdx.y + 1, size, n),
                 [&](const T (&values)[2]) {{
        T a = values[1], da = factor * (values[0] - by_beta - (a - m) * scale * by_gamma), dz;
        {gradient.operation}
        sum[0] += dz;
        return dz;
    }});
    if (sums_of_row(sum, parts, tickets) && threadIdx.x == 0) total[c] = sum[0];
}}
"""

    def backward(
        dy: Array, x: Array, gamma: Array, mean: Array, variance: Array, epsilon: float, share: float, dgamma: Array,
        dbeta: Array, dz: Array, db: Array, *scratch: Array,
    ) -> None:  # fmt: skip
        flat_dy, flat_x, flat_dz = (array.reshape(len(db), -1) for array in (dy, x, dz))
        columns = (array[:, None] for array in (gamma, mean, variance))
        by_sums = dgamma[:, None], dbeta[:, None]
        normalize_gradient_by_sums.host(flat_dy, flat_x, *columns, epsilon, share, *by_sums, flat_dz)
        with_bias[activation].backward.host(flat_dz, flat_x, flat_dz, db, *scratch)

    return Raw(name, source, launch=_launch_backward, host=backward, preamble=DEVICE)


joined: dict[Elementwise | Raw, Joined] = {
    activation: Joined(_forward(activation), _backward(activation))
    for activation in with_bias
    if isinstance(activation, Elementwise)
}

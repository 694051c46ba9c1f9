# %% [markdown]
# # 13. On a GPU: what a kernel is
#
# You read the same operation twice, in NumPy and in CUDA, follow one number to the thread that computes it, watch a
# training step as the ten launches that it is, and work out why two kernels in one are faster than two.
#
# **What is known, and what is not.** Nothing here needs a GPU. gpunn has not been run on a real one yet: its CUDA code
# is compiled for each architecture and executed by a simulator, which compares it with NumPy. So this chapter counts
# what can be counted, and measures no times. [What stands in place of a GPU](../docs/gpu.md) keeps the record.

# %%
import inspect
from itertools import zip_longest

import matplotlib.pyplot as plt
import numpy as np

import gpunn as gn
from gpunn.backend.devices import select
from gpunn.kernels import Elementwise, registry

plt.style.use("gpunn.display.lecture")
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"

# %% [markdown]
# ## The same network, another processor
#
# A network says nothing about where it runs. With `device="auto"` that is the first CUDA device that can be used, else
# the CPU. (`fit` lays images flat for a network that begins with `Dense`, as in chapter 9.)

# %%
data = gn.load_data("digits")
model = gn.Sequential([gn.Dense(128), gn.ReLU(), gn.Dense(10)])
model.fit(data, optimizer=gn.SGD(0.1, momentum=0.9), epochs=10, device="auto", seed=0, progress=False)
print("trained on", model.backend.device, f"  validation {model.evaluate(data.validation).accuracy:.0%}")

# %% [markdown]
# A CPU has a few strong cores, made to do different things quickly one after another. A GPU has thousands of weak ones,
# made to do *the same thing to many numbers at once*. A neural network is just that: the same formula for each of 128
# units and each of 128 images.
#
# ## A kernel, twice
#
# A **kernel** is a function that a GPU runs for many elements. In gpunn each is a record with two bodies: the CUDA
# source, for one element, and NumPy, for the whole array. They stand together in one file, with the equation that they
# are. Here is [the ReLU](../gpunn/kernels/activations.py "a = z < T(0) ? T(0) : z;").


# %%
def show(name):
    """Print both bodies of a kernel side by side."""
    kernel = registry[name]
    cuda = [f"{kernel.inputs} → {kernel.outputs}", *kernel.operation.strip().splitlines()]
    host = [line for line in inspect.getsource(kernel.host).splitlines() if not line.startswith("@")]
    print(f"{'CUDA: one element':33} │ NumPy: all elements\n{'─' * 34}┼{'─' * 40}")
    for left, right in zip_longest(cuda, host, fillvalue=""):
        print(f"{left:33} │ {right}".rstrip())
    print()


show("relu")
show("sigmoid")

# %% [markdown]
# `T` is `float` or `double`. C's `condition ? this : that` is Python's `this if condition else that`. That is all the
# C++ there is in most kernels: a formula for one number, without a loop. Who runs the loop?
#
# ## One element, one thread
#
# Nobody. The GPU starts a **thread** for every element, all with the same program, and each thread is told its number.
# Threads come in **blocks** of, say, 256. For $n$ elements one starts $\lceil n / 256 \rceil$ blocks, and threads whose
# number is too large do nothing. Around our formula, CuPy writes in essence this:
#
# ```c
# int i = blockIdx.x * blockDim.x + threadIdx.x;   // my number: block · size + place in it
# if (i < n) {
#     T z = in[i], a;
#     a = z < T(0) ? T(0) : z;
#     out[i] = a;
# }
# ```

# %% alt="27 elements below four blocks of eight threads; the last five threads have no element"
n, size = 27, 8
blocks = -(-n // size)  # rounded up
figure, axes = plt.subplots(figsize=(10, 1.9))
for thread in range(blocks * size):
    idle, shade = thread >= n, BLUE if thread // size % 2 else ORANGE
    axes.add_patch(plt.Rectangle((thread, 1.2), 0.86, 0.75, facecolor="#EEEEEE" if idle else shade))
    axes.text(thread + 0.43, 1.57, thread, ha="center", va="center", color=GREY if idle else "white")
    if not idle:
        axes.add_patch(plt.Rectangle((thread, 0), 0.86, 0.75, facecolor="white", edgecolor=GREY))
        axes.text(thread + 0.43, 0.37, f"z[{thread}]", ha="center", va="center", fontsize=7)
        axes.plot([thread + 0.43] * 2, [0.78, 1.17], color=GREY, linewidth=1)
for block in range(blocks):
    axes.text((block + 0.5) * size, 2.2, f"block {block}", ha="center")
axes.text(n + 0.1, 0.37, "no element left: idle", color=GREY, va="center")
axes.set(xlim=(-0.2, blocks * size + 0.2), ylim=(-0.1, 2.7))
axes.axis("off")
plt.show()

# %% [markdown]
# We can play GPU. `launch` calls a thread's program once for each number, in *any* order: on a GPU nobody knows which
# thread comes first. As no thread needs what another one writes, it does not matter.


# %%
def launch(program, count, *arrays, threads=256, seed=0):
    """Run a program for every thread of enough blocks, in a random order."""
    numbers = np.random.default_rng(seed).permutation(-(-count // threads) * threads)
    for i in numbers:
        program(int(i), count, *arrays)


def relu_thread(i, n, z, a):
    """Do what one thread of the ReLU does."""
    if i < n:
        a[i] = 0 if z[i] < 0 else z[i]


z = np.random.default_rng(0).normal(size=1000).astype("float32")
by_threads, by_numpy = np.empty_like(z), np.empty_like(z)
launch(relu_thread, len(z), z, by_threads)
registry["relu"].host(z, by_numpy)
print("same bits:", bool((by_threads == by_numpy).all()))
assert (by_threads == by_numpy).all()

# %% [markdown]
# ## When threads must talk: a sum
#
# The gradient of a bias is a sum over the batch, (12). If all threads added to one number at once, they would overwrite
# each other. So the threads meet in the middle: in each round half of them add what their partner has, and after $\log_2 n$
# rounds the first one holds the sum. In gpunn 32 threads do so, a warp, each of them by
# [this line](../gpunn/kernels/device_code.py "value += __shfl_xor_sync(0xffffffffu, value, apart);"), and the few sums of the warps
# of a block are then added one after another.

# %% alt="Sixteen numbers are added in pairs, in four rounds, until one is left"
numbers = np.random.default_rng(4).integers(1, 10, 16)
part = numbers.copy()
figure, axes = plt.subplots(figsize=(9, 3))
ring = {"boxstyle": "circle,pad=0.3", "facecolor": "#DCEAF5", "edgecolor": BLUE}
for level in range(5):
    alive = 16 >> level
    axes.text(-1.2, -level, f"round {level}" if level else "start", ha="right", va="center", color=GREY)
    for place in range(alive):
        axes.text(place, -level, part[place], ha="center", va="center", bbox=ring, fontsize=9)
    half = alive // 2
    for place in range(half):
        axes.plot([place, place], [-level - 0.3, -level - 0.7], color=BLUE, linewidth=1)
        axes.plot([place + half, place], [-level - 0.3, -level - 0.7], color=ORANGE, linewidth=1)
    part[:half] += part[half:alive]
axes.set(xlim=(-2.6, 15.6), ylim=(-4.5, 0.5))
axes.axis("off")
plt.show()
assert part[0] == numbers.sum()

# %% [markdown]
# And this is the whole kernel. A block takes one row, the δ of one unit. Each of its threads first adds up every 128th
# number by itself, then the 128 partial sums meet in `block_sum`, by rounds as drawn.

# %%
print(registry["row_sums"].source.strip())

# %% [markdown]
# The order of these additions never changes, and that is worth something: floating-point addition is not associative,
# so another order gives other last digits. Kernels that let threads add in the order of their arrival give another
# training each time. gpunn's do not.

# %%
values = np.random.default_rng(5).normal(size=1024).astype("float32")


def tree(values):
    """Add up in rounds of halves."""
    while len(values) > 1:
        values = values[: len(values) // 2] + values[len(values) // 2 :]
    return values[0]


def sums(orders):
    """Count the different results of adding up in these orders."""
    return len({float(tree(values[order])) for order in orders})


shuffled = [np.random.default_rng(seed).permutation(1024) for seed in range(100)]
print("different sums in one order, a hundred times:", sums([shuffled[0]] * 100))
print("more than one in a hundred orders:", sums(shuffled) > 1)

# %% [markdown]
# ## A training step is ten launches
#
# All kernels of gpunn are run by one method, and all products of matrices by another. So a step can be overheard, on
# the CPU as well: here everything is written down that one step of 64-128-10 asks for.

# %%
backend, heard = select("cpu"), []
run, planned = backend.run, backend.planned


def listening_run(kernel, *arguments):
    heard.append(kernel.name)
    run(kernel, *arguments)


def listening_planned(a, b, c):
    product = planned(a, b, c)

    def listening_product(alpha, beta):
        heard.append(f"product {a.shape[0]}×{a.shape[1]} · {b.shape[0]}×{b.shape[1]}, α = {alpha:.3g}, β = {beta:.6g}")
        product(alpha, beta)

    return listening_product


# %%
backend.run, backend.planned = listening_run, listening_planned
some = data.train.first(64)
listened = gn.Sequential([gn.Dense(128), gn.ReLU(), gn.Dense(10)])
listened.fit(gn.Data.from_samples(some, validation=0), optimizer=gn.SGD(0.1), regularizer=gn.L2(0.5), epochs=1,
             batch_size=64, device=backend, seed=0, progress=False)  # fmt: skip
backend.run, backend.planned = run, planned
step = heard[heard.index("gather") : heard.index("sgd") + 1]
for number, each in enumerate(step, 1):
    print(f"{number:2}  {each}")
assert len(step) == 10

# %% [markdown]
# | | what it is | equation |
# |---|---|---|
# | 1 | fetch the images of the batch, bytes to floats | |
# | 2, 3 | $z = w a$; $+ b$ and the ReLU in one | (2), (3) |
# | 4, 5 | the last layer; bias, softmax, loss, δ and right answers in one | (2), δᴸ |
# | 6 | $w^T \delta$ | (8) |
# | 7, 9 | $w := \beta w + \alpha\, \delta a^T$ with $\alpha = -\eta$, $\beta = 1 - \eta\lambda/n$ | (13) and (21) at once |
# | 8 | times $f'(z)$, and its sums for the biases | (8) and (12) |
# | 10 | biases | (22) |
#
# The weights' gradient is never written anywhere: the product adds it straight to the weights. On a CUDA device the ten
# are recorded once as a *graph* and replayed, so that Python does not stand between them.
#
# ## Why two in one are faster
#
# Adding a bias takes one addition for each number. But each number must be read from memory before, and written after.
# Count the bytes of float32 (4 each) for bias and ReLU of 128 units and 8,192 images, the way back through them, and an
# update (20) with momentum of as many weights:


# %%
def traffic(passes, elements, size=4):
    """Bytes read and written by kernels, each given as (arrays read, arrays written)."""
    return sum(size * elements * (reads + writes) for reads, writes in passes)


elements = 128 * 8192
plans = {
    "bias | ReLU": [(1, 1), (1, 1)],
    "bias and ReLU": [(1, 1)],
    "ReLU′ | sums": [(2, 1), (1, 0)],
    "ReLU′ and sums": [(2, 1)],
    "λw | momentum | step": [(2, 1), (2, 1), (2, 1)],
    "the whole update": [(3, 2)],
}
moved = {name: traffic(passes, elements) / 1e6 for name, passes in plans.items()}

# %% alt="Bars of memory traffic: each kernel that does several things at once moves less than its parts"
figure, axes = plt.subplots(figsize=(7, 2.8))
bars = axes.barh(list(moved), moved.values(), color=[GREY, BLUE] * 3)
axes.set_title("grey: kernels one after another, blue: one kernel")
axes.bar_label(bars, [f"{value:.1f} MB" for value in moved.values()], padding=3)
axes.set(xlabel="bytes moved, counted", xlim=(0, 1.2 * max(moved.values())))
axes.grid(axis="y", visible=False)
axes.invert_yaxis()
plt.show()
print("what the fused kernel computes:", registry["bias_relu"].operation)

# %% [markdown]
# The fused kernel is made from the record of the ReLU, so
# [the formula still stands in one place](../gpunn/kernels/bias.py "T z = a + b; {activation.operation}").
#
# **Does it matter?** Compare what a GPU can compute with what it can fetch. The data sheet of NVIDIA's A100 (40 GB)
# says 19.5 TFLOP/s in float32 and 1,555 GB/s. So it can do 12.5 operations in the time that one byte takes, or 50 in
# that of one number. A kernel that does fewer waits for memory, however fast the cores are. The picture, called a
# *roofline*, is computed from these two numbers; nothing in it was measured.

# %% alt="A roofline: elementwise kernels lie on the slope where memory decides, large products under the flat roof"
peak, bandwidth = 19.5e12, 1555e9


def product(m, k, n):
    """Operations for each byte of a product (m × k)(k × n), each matrix moved once."""
    return 2 * m * k * n / (4 * (m * k + k * n + m * n))


kernels = {"bias": 1 / 8, "bias and ReLU": 2 / 8, "update with momentum": 6 / 20}
kernels |= {"product 128·784·128": product(128, 784, 128), "product 4096³": product(4096, 4096, 4096)}
intensity = np.logspace(-1.3, 3.3, 200)
figure, axes = plt.subplots(figsize=(8, 3.8))
axes.loglog(intensity, np.minimum(peak, bandwidth * intensity) / 1e12, color=GREY)
for name, flops in kernels.items():
    reach = min(peak, bandwidth * flops) / 1e12
    axes.plot(flops, reach, "o", color=ORANGE if flops < peak / bandwidth else GREEN, markersize=8)
    drop = 1 if "update" in name else -15
    axes.annotate(name, (flops, reach), xytext=(8, drop), textcoords="offset points")
axes.text(0.06, 0.25, "memory decides", rotation=31, color=ORANGE)
axes.text(60, 24, "the cores decide", color=GREEN)
axes.set(xlabel="operations for each byte moved", ylabel="TFLOP/s at most", ylim=(0.05, 50))
plt.show()
assert max(kernels["bias"], kernels["bias and ReLU"]) < peak / bandwidth < kernels["product 4096³"]

# %% [markdown]
# All element-wise kernels lie far down the slope. There, saving a pass over memory is all that counts: twice the work
# for each byte takes no longer. Large products lie under the flat roof.
#
# ## What is measured, and what is not
#
# | | how it is known |
# |---|---|
# | each CUDA body computes what its NumPy body does | executed by the simulator, compared in the tests |
# | the same bits whatever the order of threads | a hundred random orders in the simulator |
# | it compiles for each architecture | by NVIDIA's compiler |
# | ten launches a step | counted, here and in the tests |
# | bytes moved | counted, here |
# | how many milliseconds a step takes on a GPU | **not known**: no GPU has run it yet |
#
# If you have one, `gpunn doctor` runs every kernel on it and compares, and `gpunn train mnist` says the time. The first
# line that disagrees with this page is the most interesting one.
#
# ## What to remember
#
# - A kernel is a formula for one element. A thread runs it, and knows only its own number.
# - Threads that need each other's results go by rounds, always in the same order.
# - Element-wise kernels wait for memory: do more in one pass.
#
# ## Exercises

# %% [markdown] tags=["exercise"]
# **1. How many threads?** In the softmax *several threads share the classes of one sample*, and put their sums together.
# For 10 classes a block of 256 threads has 16 samples, so 16 threads for each. How many blocks are started for 300
# samples, and how many threads have no class? Ask the record: `registry["softmax"].launch(z, a)`. Why 16, and not 10?

# %% tags=["solution"]
z = np.zeros((10, 300), "float32")
started = registry["softmax"].launch(z, np.empty_like(z))
idle = started.blocks * started.threads - z.size
print(f"{started.blocks} blocks of {started.threads} threads, {idle} of them idle")
print("256 threads are shared out evenly by powers of two only, and none then has to divide to find its sample")
assert (started.blocks, started.threads, idle) == (19, 256, 1864)

# %% [markdown] tags=["exercise"]
# **2. A kernel of your own.** The *hard tanh* is $z$ between −1 and 1, and −1 or 1 outside. Write its record and that
# of its derivative, written from the output, with both bodies. Make an activation of it, check its gradient, and train
# with it.


# %% tags=["solution"]
def hard(z, a):
    np.clip(z, -1, 1, out=a)


def hard_slope(da, a, dz):
    np.multiply(da, abs(a) < 1, out=dz)


class HardTanh(gn.Activation):
    """Compute min(max(z, −1), 1)."""

    kernel = Elementwise("hard_tanh", "T z", "T a", "a = z < T(-1) ? T(-1) : z > T(1) ? T(1) : z;", host=hard)
    gradient_kernel = Elementwise("hard_tanh_gradient", "T da, T a", "T dz",
                                  "dz = a > T(-1) && a < T(1) ? da : T(0);", host=hard_slope)  # fmt: skip


# %% tags=["solution"]
gn.check_gradients(HardTanh(), (5,))  # raises an error where the derivative is wrong
own = gn.Sequential([gn.Dense(64), HardTanh(), gn.Dense(10)])
own.fit(data, epochs=10, device="cpu", seed=0, progress=False)
right = own.evaluate(data.validation).accuracy
print(f"validation {right:.0%}")
assert right > 0.9

# %% [markdown] tags=["exercise"]
# **3. Why samples come last.** Neighbouring threads have neighbouring numbers, and memory is fetched in lines of 128
# bytes for 32 threads at once. An array of 10 classes × 128 samples of float32 can lie class after class, as in gpunn,
# or sample after sample. 32 threads, one for each sample, read class 3. How many lines are fetched in each layout?

# %% tags=["solution"]
sample = np.arange(32)
samples_last = (3 * 128 + sample) * 4 // 128  # the line of element (3, sample)
samples_first = (sample * 10 + 3) * 4 // 128  # the line of element (sample, 3)
print(
    "samples last:", len(set(samples_last.tolist())), "line;  samples first:", len(set(samples_first.tolist())), "lines"
)
assert len(set(samples_last.tolist())) == 1
assert len(set(samples_first.tolist())) == 10

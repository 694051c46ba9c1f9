"""Memory: what is too much is refused before it is taken, in one line, and the process goes on."""

import gc
import mmap
import os
import re
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fuzz import bombs
from support.cli_helpers import assert_one_line, gpunn, own_folder
from support.harness import one_line
from support.paths import ROOT, TESTS

import gpunn as gn
from gpunn.backend import limits
from gpunn.backend.devices import select
from gpunn.config import PARTS
from gpunn.data.formats.idx import idx_header, read_idx
from gpunn.data.formats.inputs import read_inputs
from gpunn.errors import MemoryShortageError, OptionError
from gpunn.kernels import numba_loops
from gpunn.nn.footprint import UNCOUNTED, count_network

folder = pytest.fixture(own_folder)

MEBIBYTE = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def _numba_is_loaded() -> None:
    numba_loops.load()  # what it takes is not to be part of what a test measures, whichever of them comes first


@pytest.fixture(autouse=True)
def _no_limit_afterwards() -> Iterator[None]:
    yield
    gn.set_memory_limit(None)


def leave(nbytes: int) -> None:
    """Set a limit that leaves so many bytes."""
    gc.collect()  # what other tests have left must not be given back a moment later
    gn.set_memory_limit(limits.resident_bytes() + nbytes)


# Sizes


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("2GB", 2 * 10**9),
        ("2 GiB", 2**31),
        ("1.5gib", 3 * 2**29),
        ("512MiB", 2**29),
        (10**9, 10**9),
        ("1000000", 10**6),
    ],
)
def test_a_size_is_a_number_with_a_unit_or_bytes(text: str | int, nbytes: int) -> None:
    assert limits.as_bytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "2G", "GB", "-1GB", "0", "2 gigabytes", "nan", "1e9", "9" * 50, "٢GB", "\n"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="a memory limit is a size such as 2GB"):
        limits.as_bytes(text)


def test_a_limit_below_what_is_taken_already_is_refused() -> None:
    with pytest.raises(OptionError, match="that are taken already"):
        gn.set_memory_limit("1MB")
    assert limits.memory_limit() is None


# What is free


def test_no_more_is_free_than_the_machine_has_and_the_limit_leaves() -> None:
    whole = limits.free_bytes()
    assert whole > 0
    leave(100 * MEBIBYTE)
    assert limits.free_bytes() == pytest.approx(100 * MEBIBYTE, abs=8 * MEBIBYTE)
    with mmap.mmap(-1, 50 * MEBIBYTE) as taken:  # not by malloc, which may have kept as much
        taken.write(b"x" * len(taken))
        assert limits.free_bytes() < 60 * MEBIBYTE
    assert limits.free_bytes() == pytest.approx(100 * MEBIBYTE, abs=8 * MEBIBYTE)


def test_no_more_is_free_than_a_container_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "groups" / "outer" / "inner"
    own.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/outer/inner\n")
    monkeypatch.setattr(limits, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(limits, "_OWN_GROUP", tmp_path / "own")
    whole = limits.free_bytes()
    (own / "memory.max").write_text("max\n")
    assert limits.free_bytes() == pytest.approx(whole, rel=0.2)
    (own.parent / "memory.max").write_text(f"{100 * MEBIBYTE}\n")
    (own.parent / "memory.current").write_text(f"{70 * MEBIBYTE}\n")
    (own.parent / "memory.stat").write_text(f"anon 5\ninactive_file {30 * MEBIBYTE}\n")
    assert limits.free_bytes() == 60 * MEBIBYTE


# Files


def test_a_promise_beyond_the_limit_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    array = np.zeros((200, MEBIBYTE), np.uint8)
    (tmp_path / "packed").write_bytes(bombs.zeros(idx_header(np.uint8, array.shape), 200))
    np.savez_compressed(tmp_path / "a.npz", x=array, y=np.arange(200) % 2)
    np.save(tmp_path / "a.npy", array)
    del array
    leave(100 * MEBIBYTE)
    readers = {"packed": read_idx, "a.npz": gn.load_data, "a.npy": lambda path: read_inputs(path, (MEBIBYTE,))}
    for name, read in readers.items():
        with pytest.raises(MemoryShortageError, match=r"takes 200\.0 MiB of memory") as caught:
            read(tmp_path / name)
        assert name in one_line(caught.value)
        assert "or raise the limit" in str(caught.value)
    gn.set_memory_limit(None)
    assert read_idx(tmp_path / "packed").shape == (200, MEBIBYTE)


def test_numbers_that_grow_when_they_become_floats_are_counted() -> None:
    x = np.ones((60, MEBIBYTE), bool)
    leave(100 * MEBIBYTE)
    with pytest.raises(MemoryShortageError, match=r"a copy as float32 takes 240\.0 MiB"):
        gn.Samples(x, np.arange(60) % 2)


def test_the_copy_that_a_split_makes_is_counted() -> None:
    samples = gn.Samples(np.ones((60, MEBIBYTE), np.uint8), np.arange(60) % 2)
    leave(30 * MEBIBYTE)
    with pytest.raises(MemoryShortageError, match="a copy of samples takes"):
        gn.Data.from_samples(samples)


# Networks


def network() -> gn.Sequential:
    return gn.Sequential([gn.Conv2D(8, 3), gn.ReLU(), gn.MaxPool2D(), gn.Flatten(), gn.Dense(10)])


def images(count: int = 3000) -> gn.Data:
    rng = np.random.default_rng(0)
    return gn.Data.from_arrays(
        rng.integers(0, 256, (count, 28, 28, 1)).astype(np.uint8), np.arange(count) % 10, validation=0
    )


def test_the_bytes_of_a_network_are_counted_without_taking_any() -> None:
    backend = select("cpu")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert count_network([gn.Dense(2**20), gn.Dense(2**20)], (2**20,), 32, backend, "float32").nbytes > 2**43
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_a_batch_beyond_the_limit_is_refused_with_one_that_fits() -> None:
    data = images()
    numba_loops.load()
    leave(80 * MEBIBYTE)
    with pytest.raises(MemoryShortageError) as caught:
        network().fit(data, epochs=1, batch_size=3000, device="cpu", progress=False)
    message = one_line(caught.value)
    assert message.startswith("out of memory on cpu: batches of 3000 need about ")
    assert "MiB were free: a batch size of " in message
    fitting = int(message.partition("a batch size of ")[2].split()[0])
    # What was advised does fit, under the same limit and in the same process.
    history = network().fit(data, epochs=1, batch_size=fitting, device="cpu", progress=False)
    assert len(history) > 0


def test_a_network_that_is_too_large_for_any_batch_is_refused_at_once() -> None:
    model = gn.Sequential([gn.Dense(2**31 - 1)])
    with pytest.raises(MemoryShortageError, match=r"take a smaller network or less data \(nothing was taken\)"):
        model.build((2**20,), 1, "cpu")
    assert model.backend is None
    with pytest.raises(gn.GpunnError, match="not built yet"):
        model.arrays()


OPTIMIZERS = {
    "plain": lambda: gn.SGD(0.01),
    "momentum": lambda: gn.SGD(0.01, momentum=0.9),
    "nesterov": lambda: gn.SGD(0.01, momentum=0.9, nesterov=True),
    "Adam": lambda: gn.Adam(1e-4),
    "AdamW": lambda: gn.AdamW(1e-4),
}


def wide_network() -> gn.Sequential:
    return gn.Sequential([gn.Dense(600), gn.ReLU(), gn.Dense(600), gn.BatchNorm(), gn.ReLU(), gn.Dense(10)])


def wide_data(dtype: str = "float32") -> gn.Data:
    rng = np.random.default_rng(0)
    return gn.Data.from_arrays(rng.normal(size=(3200, 64)).astype(dtype), np.arange(3200) % 10, validation=200)


def test_every_optimizer_is_tried() -> None:
    assert {type(make()) for make in OPTIMIZERS.values()} == {
        kind for kind in PARTS["optimizer"].values() if kind.__module__.startswith("gpunn.")
    }


@pytest.mark.parametrize("skips", [False, True], ids=["", "skipping"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_takes_no_more_than_was_counted(name: str, skips: bool) -> None:
    data, options = wide_data(), {"device": "cpu", "progress": False, "batch_size": 256, "skip_bad_batches": skips}
    wide_network().fit(data, epochs=1, optimizer=OPTIMIZERS[name](), **options)  # what is loaded once is loaded
    layers, backend = wide_network().layers, select("cpu")
    counted = count_network(layers, (64,), 256, backend, "float32", None, OPTIMIZERS[name](), skips).nbytes
    gc.collect()
    tracemalloc.start()
    try:
        wide_network().fit(data, epochs=2, optimizer=OPTIMIZERS[name](), **options)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < counted
    assert peak > counted / 3  # nor is it said to take many times as much


@pytest.mark.parametrize("skips", [False, True], ids=["", "skipping"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_batch_that_is_said_to_fit_does_fit(name: str, skips: bool) -> None:
    data, options = wide_data("float64"), {"device": "cpu", "progress": False, "epochs": 1, "skip_bad_batches": skips}
    wide_network().fit(data, optimizer=OPTIMIZERS[name](), batch_size=1000, **options)
    layers, backend = wide_network().layers, select("cpu")
    counted = count_network(layers, (64,), 3000, backend, "float32", None, OPTIMIZERS[name](), skips).nbytes
    leave(int(0.9 * counted) + UNCOUNTED)
    with pytest.raises(MemoryShortageError) as caught:
        wide_network().fit(data, optimizer=OPTIMIZERS[name](), batch_size=3000, **options)
    fitting = int(one_line(caught.value).partition("a batch size of ")[2].split()[0])
    wide_network().fit(data, optimizer=OPTIMIZERS[name](), batch_size=fitting, **options)
    assert limits.free_bytes() > 0


def test_a_network_that_is_trained_again_is_not_counted_twice() -> None:
    data, options = wide_data(), {"device": "cpu", "progress": False, "epochs": 1, "batch_size": 256}
    model = wide_network()
    model.fit(data, optimizer=gn.Adam(), **options)
    counted = count_network(model.layers, (64,), 256, select("cpu"), "float32", None, gn.Adam()).nbytes
    of_network = count_network(model.layers, (64,), 256, select("cpu"), "float32").nbytes
    leave(int(counted + UNCOUNTED - of_network / 2))
    model.fit(data, optimizer=gn.Adam(), **options)


FRESH = """
import gc, re, sys
import numpy as np
import gpunn as gn
from gpunn.backend import limits
from gpunn.errors import MemoryShortageError

rng, (case, room) = np.random.default_rng(0), sys.argv[1:]
flat = rng.normal(size=(3200, 784)).astype("f4")
pixels, labels = (flat.reshape(-1, 28, 28, 1) * 40).astype("u1"), np.arange(3200) % 10
wide = [gn.Dense(600), gn.ReLU(), gn.Dropout(0.5), gn.Dense(600), gn.BatchNorm(), gn.Tanh(), gn.Dense(10)]
deep = [gn.Conv2D(8, 3), gn.BatchNorm(), gn.ReLU(), gn.MaxPool2D(), gn.Conv2D(16, 3, groups=2), gn.Sigmoid(),
        gn.AveragePool2D(), gn.Flatten(), gn.Dropout(0.3), gn.Dense(10)]
moved = gn.Augmentation(shift=1, rotation=10, scale=0.1)
inputs, targets, layers, options = {
    "best weights": (flat[:, :64], labels, wide, {"optimizer": gn.Adam(1e-4), "patience": 3, "regularizer": gn.L1(1)}),
    "skipping": (flat[:, :64], labels, wide, {"optimizer": gn.SGD(0.01, 0.9, True), "skip_bad_batches": True}),
    "float64": (flat[:, :64].astype("f8"), labels, wide, {"regularizer": gn.L2(1.0), "dtype": "float64"}),
    "wide targets": (flat, flat, [gn.Dense(32), gn.ReLU(), gn.Dense(784)], {"optimizer": gn.Adam(1e-3)}),
    "images": (pixels, labels, deep, {"optimizer": gn.SGD(0.01), "augmentation": moved, "recompute_statistics": True}),
}[case]
data = gn.Data.from_arrays(inputs, targets, validation=200)
gc.collect()
limit = limits.resident_bytes() + (int(room) << 20)
gn.set_memory_limit(limit)
open("/proc/self/clear_refs", "w").write("5")  # the most that was taken is counted from here on
size = 3000
for attempt in range(3):
    try:
        gn.Sequential(layers).fit(data, epochs=1, batch_size=size, device="cpu", progress=False, **options)
        break
    except MemoryShortageError as error:
        print(error)
        size = int(re.search(r"a batch size of (\\d+) would", str(error))[1])
most = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
print("trained", attempt, size, f"{(limit - most) / 2**20:.1f} MiB left", "within" if most <= limit else "above")
"""


@pytest.mark.parametrize(
    ("case", "room"),
    [("best weights", 234), ("skipping", 224), ("float64", 264), ("wide targets", 259), ("images", 254)],
)
@pytest.mark.parametrize("compiles", [False, True])
def test_a_process_that_has_loaded_nothing_yet_ends_below_its_limit(
    case: str, room: int, compiles: bool, tmp_path: Path
) -> None:
    compiling = {"NUMBA_CACHE_DIR": str(tmp_path)} if compiles else {}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, case, str(room)], capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "2"}
        | compiling,
    )  # fmt: skip
    assert re.fullmatch(r"trained [01] .* within", done.stdout.splitlines()[-1]), done.stdout + done.stderr


ADVISED = """
import os, re, sys
from simulated_cuda.installing import install
install()
import numpy as np
import gpunn as gn
from gpunn.backend.devices import select
from gpunn.errors import MemoryShortageError

make, skips, place = eval(sys.argv[1]), sys.argv[2] == "True", sys.argv[3]
rng = np.random.default_rng(0)
data = gn.Data.from_arrays(rng.normal(size=(1200, 64)).astype("f4"), np.arange(1200) % 10, validation=200)
size = 1000
for attempt in range(8):
    model = gn.Sequential([gn.Dense(500), gn.ReLU(), gn.Dense(500), gn.ReLU(), gn.Dense(10)])
    try:
        model.fit(data, epochs=1, batch_size=size, device="cuda", progress=False, optimizer=make(),
                  skip_bad_batches=skips, data_on=place)
    except MemoryShortageError as error:
        print(error)
        size = int(re.search(r"a batch size of (\\d+) would", str(error))[1])
    else:
        print("trained", attempt, size)
        break
"""


@pytest.mark.simulated_cuda
@pytest.mark.parametrize("place", ["auto", "device"])
@pytest.mark.parametrize(
    ("optimizer", "skips", "megabytes"),
    [("lambda: gn.SGD(0.01)", False, 42), ("lambda: gn.Adam(1e-4)", False, 45), ("lambda: gn.Adam(1e-4)", True, 49)],
)
def test_the_batch_that_is_said_to_fit_does_fit_on_a_device(
    optimizer: str, skips: bool, megabytes: int, place: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ADVISED, optimizer, str(skips), place],
        capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": f"{TESTS}:{ROOT}", "FAKECUDA_MEMORY": str(megabytes * 10**6)},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1].startswith("trained 1 "), done.stdout + done.stderr


OUT_OF_MEMORY = """
import resource, sys
import numpy as np
import gpunn as gn
from gpunn.backend import limits
from gpunn.errors import MemoryShortageError

rng = np.random.default_rng(0)
data = gn.Data.from_arrays(rng.integers(0, 256, (4000, 28, 28, 1)).astype(np.uint8), np.arange(4000) % 10, validation=0)

def model():
    return gn.Sequential([gn.Conv2D(8, 3), gn.ReLU(), gn.MaxPool2D(), gn.Flatten(), gn.Dense(10)])

trained = model()
trained.fit(data, epochs=1, batch_size=50, device="cpu", progress=False)  # every buffer of the BLAS is made
wide = gn.Sequential([gn.Dense(10_000)]).build((4,), 32, "cpu")
wide.predict_proba(np.zeros((256, 4)))
large = gn.Samples(np.zeros((60_000, 28, 28, 1)), np.arange(60_000) % 10)
limits.free_bytes = lambda: 2**40  # as if all were free: NumPy is the first to notice
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (100 << 20),) * 2)

for what in (
    lambda: model().fit(data, epochs=1, batch_size=4000, device="cpu", progress=False),
    lambda: wide.predict_proba(np.zeros((20_000, 4))),
    lambda: trained.evaluate(large),
):
    try:
        what()
        print("taken")
    except MemoryShortageError as error:
        print(error)
    except MemoryError as error:
        print("foreign:", error)

history = model().fit(data, epochs=1, batch_size=100, device="cpu", progress=False)
print("usable", len(history), trained.evaluate(data.train).total)
"""


def test_where_numpy_itself_runs_out_of_memory_the_same_is_said_and_the_process_is_usable() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY],
        capture_output=True, text=True, check=True, timeout=300,
        env={"OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    fit, predict, evaluate, usable = done.stdout.splitlines()
    assert fit.startswith("out of memory on cpu: batches of 4000 need about ")
    assert "a batch size of 2000 would fit (Unable to allocate " in fit
    assert predict.startswith("out of memory on cpu: batches of 256 need about ")
    assert "Unable to allocate" in predict
    assert evaluate.startswith("out of memory on cpu: batches of 256 need about ")
    assert usable == "usable 4 4000"


# The program


def test_the_program_keeps_to_a_limit_in_one_line(folder: Path) -> None:
    text = (
        (folder / "tiny.toml")
        .read_text()
        .replace('units = "outputs"', "units = 100000\n[[layers]]\ntype = 'Dense'\nunits = 10")
    )
    (folder / "large.toml").write_text(text)
    limit = f"{limits.resident_bytes() + (340 << 20)}"
    done = gpunn("train", "--recipe", "large.toml", "--memory-limit", limit)
    assert_one_line(done, 1, "out of memory on cpu: batches of 700 need about ", "were free")
    assert not (folder / "runs").exists()
    assert limits.memory_limit() is None  # it is the command's, not the process's
    assert gpunn("train", "--recipe", "tiny.toml", "--memory-limit", limit, "--out", "run").code == 0
    assert gpunn("evaluate", "run", "--memory-limit", "2GiB").code == 0


@pytest.mark.parametrize("megabytes", [170, 260, 400])
def test_the_program_with_its_pictures_ends_below_its_limit_or_says_why_not(tmp_path: Path, megabytes: int) -> None:
    command = [sys.executable, "-m", "gpunn", "train", "--recipe", "lenet-digits", "--epochs", "1", "--out", "run"]
    script = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]);"
        "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command, "--device", "cpu", "--memory-limit", f"{megabytes}MB"],
        capture_output=True, text=True, timeout=300, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "2"},
    )  # fmt: skip
    code, most = map(int, done.stdout.splitlines()[-1].split())
    assert most <= megabytes * 10**6, f"{most / 10**6:.0f} MB: {done.stderr}"
    assert code == (0 if megabytes == 400 else code), done.stderr
    assert code == 0 or "out of memory on cpu: batches of 32 need" in done.stderr


@pytest.mark.parametrize(("limit", "word"), [("much", "a size such as 2GB"), ("1MB", "taken already")])
def test_a_limit_that_cannot_be_is_wrong_usage(folder: Path, limit: str, word: str) -> None:
    assert_one_line(gpunn("train", "--memory-limit", limit), 2, word)

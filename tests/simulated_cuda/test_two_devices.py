"""Two devices in one process: each has its own memory, streams and kernels, and a mixture of them is refused."""

import re

import pytest
from support.paths import ROOT

from simulated_cuda.core import LATE
from simulated_cuda.processes import python

COMMON = """
import threading
import numpy as np, cupy
import gpunn as gn
from gpunn.backend.devices import backend_of, select

digits = gn.load_data("digits")
data = gn.Data.from_samples(digits.train.first(400), validation=40)

def trained(device, **options):
    layers = [gn.Conv2D(3, 3), gn.BatchNorm(), gn.ReLU(), gn.MaxPool2D(2), gn.Flatten(), gn.Dropout(0.3), gn.Dense(10)]
    model = gn.Sequential(layers)
    model.fit(data, epochs=1, batch_size=40, device=device, progress=False, **options)
    return model

def bits(model):
    return {name: array.tobytes() for name, array in model.arrays().items()}
"""

CASES = {
    "the second device trains to the bits of the first, streamed and in other precisions too": """
first = bits(trained("cuda:0"))
assert bits(trained("cuda:1")) == first
assert bits(trained("cuda:1", data_on="host")) == first
assert bits(trained("cuda:1", precision="tf32")) == bits(trained("cuda:0", precision="tf32")) != first
""",
    "a network moves from one device to the other": """
model = trained("cuda:0")
accuracy = model.evaluate(digits.test).accuracy
model.fit(data, epochs=1, batch_size=40, device="cuda:1", progress=False)
assert model.backend is select("cuda:1") is not select("cuda:0")
assert model.evaluate(digits.test).accuracy > 0.5 * accuracy
""",
    "threads train on both at once as each does alone": """
alone, together = bits(trained("cuda:0")), {}
def work(number):
    together[number] = bits(trained(f"cuda:{number % 2}"))
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert [together.get(number) == alone for number in range(4)] == [True] * 4
""",
    "inputs of one device are taken by a network on the other": """
x, y = digits.train.inputs[:400].reshape(400, -1) / np.float32(16), digits.train.targets[:400]
def answers(x, device):
    model = gn.Sequential([gn.Dense(10)])
    model.fit(x, y, epochs=1, device=device, progress=False)
    return model.predict_proba(x).tobytes(), repr(model.evaluate(x, y))
expected = answers(x, "cuda:0")
for of_inputs in (0, 1):
    with cupy.cuda.Device(of_inputs):
        there = cupy.asarray(x)
    for device in ("cuda:0", "cuda:1"):
        assert answers(there, device) == expected, (of_inputs, device)
""",
    "whichever device is the current one": f"import sys; sys.path.append({str(ROOT / 'benchmarks')!r})"
    """
from profiler import elapsed, mark
for current in (1, 0):
    with cupy.cuda.Device(current):
        for device in ("cuda:0", "cuda:1"):
            backend = select(device)
            x = backend.asarray(np.arange(6, dtype="f4").reshape(2, 3))
            c = backend.zeros((2, 2), "f4")
            backend.gemm(1.0, x, x.T, 0.0, c)
            replay = backend.capture(lambda: backend.gemm(1.0, x, x.T, 1.0, c))
            replay()
            begin = mark(backend); replay(); assert elapsed(backend, begin, mark(backend)) >= 0
            backend.synchronize()
            assert backend.to_host(c).tolist() == [[15, 42], [42, 150]]
            assert x.device.id == int(device[5:]) and backend_of(x) is backend
            assert backend.free_bytes() > 0
            made = backend.staging(x); made.claim(); made.host[0][...] = 1; made.upload(2); made.release()
            assert backend.to_host(x).sum() == 6
        assert cupy.cuda.Device().id == current
""",
    "arrays of the other device are brought over": """
for here, there in ((0, 1), (1, 0)):
    with cupy.cuda.Device(there):
        values = cupy.full((2, 3), 5, "f4")
    backend = select(f"cuda:{here}")
    moved, target = backend.asarray(values), backend.zeros((2, 3), "f4")
    backend.assign(target, values, 2.0)
    assert moved.device.id == here
    assert backend.to_host(moved).tolist() == [[5] * 3] * 2 and backend.to_host(target).tolist() == [[10] * 3] * 2
model = trained("cuda:1")
images = digits.test.inputs[:5].astype("f4") / 16
with cupy.cuda.Device(0):
    there = cupy.asarray(images)
np.testing.assert_array_equal(model.backend.to_host(model.forward(there)), model.backend.to_host(model.forward(images)))
""",
    "a device that is first used while the other records waits, and spoils nothing": """
import time
here, there = select("cuda:0"), []
x = here.zeros((2, 2), "f4")
other = threading.Thread(target=lambda: there.append(select("cuda:1")))
def work():
    other.start()
    time.sleep(0.3)
    here.gemm(1.0, x, x, 0.0, x)
here.capture(work)()
other.join()
assert there[0].device == "cuda:1" and not there[0].cublas.trouble
""",
    "a third device is refused, and its number said": """
from gpunn.errors import DeviceError
try:
    select("cuda:2")
except DeviceError as error:
    assert "there is no device 2, only 2" in str(error)
else:
    raise AssertionError
""",
}


@pytest.mark.parametrize("order", [-1, LATE, 5])
@pytest.mark.parametrize("what", CASES)
def test_two_devices(what: str, order: int) -> None:
    done = python("-c", COMMON + CASES[what], devices=2, order=order)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "simulated CUDA" not in done.stderr


MIXTURES = {
    "with cupy.cuda.Device(1): zero._elementwise(relu)(x, x)": r"array resides \(0\) is different from the current",
    "with cupy.cuda.Device(1): zero.cublas.gemm(1.0, x, x, 0.0, x)": "cuBLAS of device 0 while 1 is current",
    "with one.stream: one._elementwise(relu)(x, x)": "created on .1. does not match with the current device",
}


@pytest.mark.parametrize("work", MIXTURES)
def test_a_mixture_is_refused(work: str) -> None:
    given = """
from gpunn.kernels import registry
relu, zero, one = registry["relu"], select("cuda:0"), select("cuda:1")
x = zero.zeros((2, 2), "f4")
zero.run(relu, x, x)
"""
    done = python("-c", f"{COMMON}{given}\n{work}", devices=2)
    assert done.returncode == 1
    assert re.search(MIXTURES[work], done.stderr), done.stderr


@pytest.mark.parametrize(("capabilities", "old"), [("61,90", "CUDA 13"), ("35,90", "CUDA 12")])
def test_doctor_tries_the_first_gpu_that_can_be_used_and_names_the_other(capabilities: str, old: str) -> None:
    script = "from gpunn.cli.doctor import diagnose, format_findings; print(format_findings(diagnose()))"
    done = python("-c", script, devices=2, cc=capabilities)
    lines = done.stdout.splitlines()
    named = next(line for line in lines if "  GPU 0  " in line)
    assert named.startswith("warn")
    assert f"is too old for {old}" in named
    assert not [line for line in lines if line.startswith("missing")], done.stdout
    assert next(line for line in lines if "  cuda:1  " in line).startswith("ok"), done.stdout
    assert re.search(r"ok +product +right", done.stdout)
    # What auto takes is the same one, and it says why.
    reason = python("-c", "from gpunn.backend import select; b = select(); print(b.device, b.reason)", devices=2,
                    cc=capabilities).stdout  # fmt: skip
    assert reason.startswith("cuda:1 a CUDA device is there, as cuda:0 cannot be used: ")

"""Every kind of training is that of one process, to the rounding of float64, uneven shares and idle ranks too."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.ranks import job

PROGRAM = """
import sys
import numpy as np
import gpunn as gn
from gpunn.backend.ranks import world
from gpunn.errors import DivergenceError

digits = gn.load_data("digits")
rng = np.random.default_rng(0)
x = rng.standard_normal((203, 6))
y = x @ rng.standard_normal((6, 2)) + 0.1
tokens = rng.integers(0, 11, (150, 5))

def dense(outputs=10):
    return gn.Sequential([gn.Dense(16), gn.Tanh(), gn.Dense(outputs)])

def convolution(*more):
    last = [gn.ReLU(), gn.MaxPool2D(2), gn.Flatten(), gn.Dropout(0.3), gn.Dense(10)]
    return gn.Sequential([gn.Conv2D(4, 3), *more, *last])

adam, momentum = gn.Adam(0.01), gn.SGD(0.05, momentum=0.9, nesterov=True)
moved = gn.Augmentation(shift=1, rotation=10)
KINDS = {
    "plain": lambda: (dense(), digits, {}),
    "l1 and adam": lambda: (dense(), digits, {"optimizer": adam, "regularizer": gn.L1(3.0)}),
    "adamw": lambda: (dense(), digits, {"optimizer": gn.AdamW(0.01)}),
    "augmented and dropped out": lambda: (convolution(), digits, {"optimizer": momentum, "augmentation": moved}),
    "batchnorm": lambda: (convolution(gn.BatchNorm()), digits, {"batch_size": 129, "recompute_statistics": True}),
    "regression": lambda: (dense(2), (x, y), {"loss": gn.MeanSquaredError()}),
    "autoencoder": lambda: (dense(6), (x, x), {"loss": gn.MeanSquaredError()}),
    "tokens": lambda: (gn.Sequential([gn.Embedding(11, 4), gn.Flatten(), gn.Dense(3)]), (tokens, tokens[:, 0] % 3), {}),
    "weights of classes": lambda: (dense(), digits, {"class_weight": "balanced"}),
    "weights of samples": lambda: (
        dense(), (digits.train.inputs, digits.train.targets), {"sample_weight": np.arange(1, 1294)}),
    "average": lambda: (dense(), digits, {"average": 0.9}),
    "bad batches skipped": lambda: (dense(), digits, {"skip_bad_batches": True}),
    "patience": lambda: (dense(), digits, {"patience": 1, "optimizer": gn.SGD(1.0), "epochs": 4}),
    "streamed": lambda: (dense(), digits, {"data_on": "host"}),
    "metrics": lambda: (dense(), digits, {"batch_size": 129, "metrics": ["f1", "top3"]}),
    "one batch": lambda: (dense(), digits, {"batch_size": 5000}),
    "diverging": lambda: (dense(), digits, {"optimizer": gn.SGD(1e6)}),
}

found = {}
for kind, make in KINDS.items():
    model, data, options = make()
    given = data if isinstance(data, tuple) else (data,)
    usual = {"epochs": 2, "batch_size": 50, "device": "cpu", "dtype": "float64", "seed": 1, "progress": False}
    try:
        history = model.fit(*given, **usual | options)
        rows = [[value for name, value in record.metrics.items() if name != "seconds"] for record in history]
        found[kind + ", history"] = np.array(rows, float)
        found[kind + ", weights"] = np.concatenate([np.ravel(array) for array in model.arrays().values()])
    except DivergenceError as error:
        found[kind + ", said"] = np.array(str(error))
if world().is_first:
    np.savez(sys.argv[1], **found)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("kinds")
    known: dict[int, dict[str, Any]] = {}

    def by(count: int) -> dict[str, Any]:
        if count not in known:
            with job(count, sys.executable, "-c", PROGRAM, f"{count}.npz", folder=folder) as started:
                done = started.done()
                started.wait_until_all_have_ended(5)
            assert done.code == 0, done
            with np.load(folder / f"{count}.npz") as file:
                known[count] = dict(file)
        return known[count]

    return by


@pytest.mark.parametrize("count", [2, 4])
def test_every_kind_of_training_is_that_of_one_rank(trained: Callable[[int], dict[str, Any]], count: int) -> None:
    one, several = trained(1), trained(count)
    assert one.keys() == several.keys()
    apart = {}
    for kind, expected in one.items():
        if expected.dtype.kind == "U":
            assert str(several[kind]) == str(expected)
            continue
        assert several[kind].shape == expected.shape, kind
        known = np.isfinite(expected)
        assert (np.isfinite(several[kind]) == known).all(), kind
        difference, size = (np.linalg.norm(array[known]) for array in (several[kind] - expected, expected))
        apart[kind] = float(difference / max(1.0, size))
    assert {kind: far for kind, far in apart.items() if far > 1e-9} == {}

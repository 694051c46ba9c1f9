"""The cases that the library onnx brings for those who run its files, as gpunn sees them.

python tests/support/onnx_suite.py runs all of them; with --add it puts those that pass now into the list.
"""

import importlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

import gpunn as gn
from gpunn.backend.devices import select
from gpunn.errors import GpunnError
from gpunn.saving.onnx.elementwise import ELEMENTWISE
from gpunn.saving.onnx.importing import network_of
from gpunn.saving.onnx.parsing import read_model

LIST = Path(__file__).resolve().parent.parent / "saving" / "onnx_cases.txt"
DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
OF_FILES = ("pytorch-converted", "pytorch-operator", "simple")
# Nodes that work on numbers one by one, whatever the shape: the suite gives them as (3, 4, 5), a network sees rows.
_SHAPELESS = ELEMENTWISE | {"Dropout", "Identity"}


class Case(NamedTuple):
    """A model, inputs and the outputs that are right, within `rtol` and `atol`."""

    name: str
    model: Any
    sets: list[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float


def cases_of_files() -> Iterator[Case]:
    """Give the cases that lie as files in the library."""
    for kind in OF_FILES:
        for folder in sorted((DATA / kind).iterdir()):
            if not (folder / "model.onnx").is_file():
                continue
            sets = []
            for data in sorted(folder.glob("test_data_set_*")):
                inputs, outputs = (
                    [_tensor(path) for path in sorted(data.glob(f"{word}_*.pb"), key=_number)]
                    for word in ("input", "output")
                )
                sets.append((inputs, outputs))
            about = folder / "data.json"
            bounds = json.loads(about.read_text()) if about.is_file() else {}
            model = onnx.load(folder / "model.onnx")
            yield Case(f"{kind}/{folder.name}", model, sets, bounds.get("rtol", 1e-3), bounds.get("atol", 1e-7))


def cases_of_nodes(*modules: str) -> Iterator[Case]:
    """Give the cases of some operators, which the library makes when asked; of all if none is named."""
    from onnx.backend.test.case import node

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not modules:
            from onnx.backend.test.loader import load_model_tests

            load_model_tests(kind="node")
        for name in modules:
            importlib.import_module(f"onnx.backend.test.case.node.{name}")
    for case in node._NodeTestCases:
        yield Case(f"node/{case.name}", case.model, case.data_sets, case.rtol, case.atol)


def answers(model: Any, inputs: list[Any]) -> list[NDArray[Any]]:
    """What gpunn computes of a model; weights may come as inputs, and the first is the batch."""
    given = {entry.name for entry in model.graph.initializer}
    names = [entry.name for entry in model.graph.input if entry.name not in given]
    x = inputs[0] if inputs else None
    if not isinstance(x, np.ndarray):
        raise gn.GpunnError("the input is no tensor")
    weights = {name: value for name, value in zip(names[1:], inputs[1:], strict=False) if isinstance(value, np.ndarray)}
    file = read_model(model, weights)
    shape = x.shape
    if all(node.kind in _SHAPELESS for node in file.operators) and x.ndim != 2:
        x = x.reshape(len(x) if x.ndim > 1 else 1, -1)
        file.shapes[names[0]] = x.shape
    network = network_of(gn.Sequential, file, select("cpu"), len(x) if x.ndim else 1)
    turned = x.ndim == 4 and len(network.input_shape) == 3 and network.input_shape == (*x.shape[2:], x.shape[1])
    y = network.predict_proba(x.transpose(0, 2, 3, 1) if turned else x)
    if y.ndim == 4:
        y = y.transpose(0, 3, 1, 2)
    return [y.reshape(shape) if x.shape != shape and y.shape == x.shape else y]


def outcome(case: Case) -> str:
    """ "" where a case passes; else why gpunn refuses it, or what is wrong, after "WRONG"."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for inputs, outputs in case.sets:
            try:
                found = answers(case.model, inputs)
            except GpunnError as error:
                return str(error)
            except Exception as error:  # noqa: BLE001
                return f"WRONG {type(error).__name__}: {error}"
            for own, right in zip(found, outputs, strict=True):
                if not isinstance(right, np.ndarray) or own.shape != right.shape:
                    return f"WRONG shape {own.shape}, right {getattr(right, 'shape', None)}"
                if not np.allclose(own, right, rtol=case.rtol, atol=max(case.atol, 1e-6), equal_nan=True):
                    return f"WRONG by {np.abs(own - right).max()}"
    return ""


def _tensor(path: Path) -> Any:
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
        return numpy_helper.to_array(tensor)
    except Exception:  # noqa: BLE001 - sequences, maps and the like
        return None


def _number(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def known() -> list[str]:
    """Names of the cases that pass, which only become more."""
    return LIST.read_text("utf-8").split()


def main(arguments: list[str]) -> None:
    found = {case.name: outcome(case) for case in (*cases_of_files(), *cases_of_nodes())}
    passed = [name for name, wrong in found.items() if not wrong]
    wrong = [f"{name}: {why}" for name, why in found.items() if why.startswith("WRONG") or not why.isprintable()]
    wrong += [f"{name} passed before: {found.get(name, 'it is gone')}" for name in known() if found.get(name, "gone")]
    if "--add" in arguments:
        LIST.write_text("\n".join(sorted({*known(), *passed})) + "\n", "utf-8")
    new = len(set(passed) - set(known()))
    print(
        f"{len(found):,} cases: {len(passed)} pass, {new} of them not in the list yet, others are refused",
        *wrong,
        sep="\n",
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main(sys.argv[1:])

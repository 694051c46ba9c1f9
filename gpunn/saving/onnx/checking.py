"""Check an exported graph: by the rules of ONNX, and by its outputs against the network's."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, checker
from onnx.reference import ReferenceEvaluator

from gpunn.errors import GpunnError

_MEND = "a layer of your own may write other nodes than it computes; else please report it"
_TOLERANCE = 1e-4  # of the largest output, or of 1: wrong graphs exceed it by far, rounding stays far below


def check_form(made: ModelProto) -> None:
    """Raise GpunnError for a graph that the checker of onnx refuses."""
    try:
        checker.check_model(made, full_check=True)
    except Exception as error:  # noqa: BLE001 - the library raises several undocumented classes
        reason = " ".join(str(error).split())
        raise GpunnError(f"the graph breaks the rules of ONNX ({reason:.300}): {_MEND}") from None


def check_answers(made: ModelProto, given: NDArray[Any], wanted: NDArray[Any]) -> None:
    """Raise GpunnError unless the graph, run by `onnx.reference`, computes the wanted outputs."""
    name, run = made.graph.input[0].name, made
    if made.opset_import[0].version == 13:  # onnx.reference then normalizes by the batch; our nodes mean the same in 14
        run = ModelProto.FromString(made.SerializeToString())
        run.opset_import[0].version = 14
    with np.errstate(all="ignore"):
        (answers,) = ReferenceEvaluator(run).run([made.graph.output[0].name], {name: given})
    if answers.shape != wanted.shape:
        raise GpunnError(f"the graph gives answers {answers.shape}, the network {wanted.shape}: {_MEND}")
    finite = np.isfinite(wanted)
    largest = float(np.abs(wanted[finite]).max(initial=1.0))
    difference = np.abs(np.where(finite, answers, 0) - np.where(finite, wanted, 0)).max(initial=0.0)
    if not difference <= _TOLERANCE * largest or not np.array_equal(np.isfinite(answers), finite):
        raise GpunnError(
            f"the graph gives other answers than the network, by up to {difference:.3g} of {largest:.3g}: {_MEND}"
        )

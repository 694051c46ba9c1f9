"""Pack samples, mistakes, top activations and weights into the data file of a static page."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.serve.network import ServedNetwork
from gpunn.serve.samples import RunSamples, UnavailableError, label, largest_first, per_unit, seen

MOST_SAMPLES, MOST_BYTES = 1000, 2 << 20  # of packed samples
MOST_MISTAKES = 100
MOST_IMAGES = 8  # top samples of each unit
MOST_UNITS = 4096  # of a layer whose units have top samples
MOST_WEIGHTS = 4 << 20  # bytes of weights that the ONNX file does not hold in the form that is shown
_BATCH = 64


@dataclass
class Pack:
    """Join arrays into one file, and return the offset of each."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, array: NDArray[Any]) -> int:
        """Append an array, little-endian, and return its offset in bytes."""
        offset, content = self.size, np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        self.parts.append(content)
        self.size += len(content)
        return offset

    def content(self) -> bytes:
        """Return the bytes of the file."""
        return b"".join(self.parts)


def pack_samples(served: ServedNetwork, samples: RunSamples, pack: Pack) -> dict[str, Any]:
    """Pack samples of the default set, mistakes first; describe them, the confusion matrix and the top samples."""
    made: dict[str, Any] = {"samples": None, "mistakes": None, "confusion": None, "largest": {}}
    try:
        name = samples.default_set()
        own = samples.get(name, served)
    except UnavailableError:
        return made
    if not len(own):
        return made
    mistakes = None
    with suppress(UnavailableError):
        mistakes = samples.mistakes(served, name, 0, MOST_MISTAKES)
        made["confusion"] = samples.confusion(served, name)
    size = prod(served.shown_shape)
    most = max(1, min(MOST_SAMPLES, MOST_BYTES // size))
    wrong = [] if mistakes is None else [row["index"] for row in mistakes["mistakes"]][: most // 2]
    spread = np.linspace(0, len(own) - 1, min(len(own), most)).astype(np.int64).tolist()
    chosen = list(dict.fromkeys([*wrong, *spread]))[:most]
    if mistakes is not None:
        rows = [{key: value for key, value in row.items() if key != "pixels"} for row in mistakes["mistakes"]]
        rows = [row | {"place": place} for place, row in enumerate(rows[: len(wrong)])]
        made["mistakes"] = {"total": mistakes["total"], "of": mistakes["of"], "rows": rows}
    pixels = np.stack([seen(served, own, index) for index in chosen])
    scale = 1.0 if own.tokens else own.scale
    is_bytes = own.inputs.dtype == np.uint8 and not own.tokens
    if is_bytes:
        as_bytes = np.rint(pixels / np.float32(scale)).astype(np.uint8)
        is_bytes = np.array_equal(np.multiply(as_bytes, scale, dtype=np.float32), pixels)
        pixels = as_bytes if is_bytes else pixels
    made["samples"] = {
        "set": name,
        "count": len(chosen),
        "of": len(own),
        "at": pack.add(pixels),
        "kind": "uint8" if is_bytes else "float32",
        "factor": scale if is_bytes else 1.0,
        "shape": list(served.shown_shape),
        "rows": [{"index": index, "label": label(served, own, index)} for index in chosen],
    }
    made["largest"] = _top_samples(served, own.inputs, chosen, scale, pack)
    return made


def _top_samples(
    served: ServedNetwork, inputs: Any, chosen: Sequence[int], scale: float, pack: Pack
) -> dict[int, dict[str, int]]:
    """Pack the samples that activate each unit of each layer most; describe where by the layer's index."""
    layers = [index for index, layer in enumerate(served.probed.layers) if layer.units <= MOST_UNITS]
    best: list[list[NDArray[Any]]] = [[] for _ in layers]
    model = served.model
    for start in range(0, len(chosen), _BATCH):
        rows = np.stack([np.asarray(inputs[index]) for index in chosen[start : start + _BATCH]])
        batch = model._batch(rows, model._built())
        for held, outputs in zip(best, served.probed.outputs(batch, scale, layers), strict=True):
            held.append(per_unit(outputs))
    made = {}
    for index, held in zip(layers, best, strict=True):
        values = np.concatenate(held)
        order = largest_first(values)[:MOST_IMAGES]
        of_these = np.take_along_axis(values, order, 0).astype(np.float32)
        kept, units = order.shape
        where = {"numbers": pack.add(order.astype(np.uint16)), "values": pack.add(of_these)}
        made[index] = {**where, "kept": kept, "units": units}
    return made


def pack_weights(served: ServedNetwork, network: bytes, pack: Pack) -> dict[str, dict[str, Any]]:
    """Describe where the weights of each layer lie, in the ONNX file or in the pack, by the layer's index."""
    probed, made, room = served.probed, dict[str, dict[str, Any]](), MOST_WEIGHTS
    for index in sorted({layer.weighted for layer in probed.layers if layer.weighted is not None}):
        weights, bias = probed.weights_in(index)
        units = probed.layers[index].units
        described: dict[str, Any] = {"weights": None, "bias": None, "turned": weights.ndim == 4}
        if len(weights) == units:
            where = _placed(weights, network, pack, room)
            room -= where["size"] if where and where["file"] == "samples" else 0
            described["weights"] = where and {**where, "shape": list(weights.shape)}
        if bias is not None:
            described["bias"] = _placed(bias, network, pack, MOST_WEIGHTS)
        made[str(index)] = described
    return made


def _placed(array: NDArray[Any], network: bytes, pack: Pack, room: int) -> dict[str, Any] | None:
    """Find an array in the ONNX file, or add it to the pack if there is room."""
    numbers = np.ascontiguousarray(array, "<f4")
    offset = network.find(numbers.tobytes())
    if offset >= 0:
        return {"file": "network", "at": offset, "size": numbers.nbytes}
    if numbers.nbytes > room:
        return None
    return {"file": "samples", "at": pack.add(numbers), "size": numbers.nbytes}

"""Pack what a page without a server shows of a run: samples, what units answer to most, mistakes, and weights."""

import base64
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.serve.samples import RunSamples, UnavailableError
from gpunn.serve.served import Served

MOST_SAMPLES, MOST_BYTES = 1000, 2 << 20  # of samples that are packed
MOST_MISTAKES = 100
MOST_IMAGES = 8  # samples of each unit
MOST_UNITS = 4096  # of a layer, whose units have such samples
MOST_WEIGHTS = 4 << 20  # bytes of weights that do not lie in the network's file as they are shown
_BATCH = 64


@dataclass
class Pack:
    """Arrays one after another in one file, each with the place where it begins."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, array: NDArray[Any]) -> int:
        """Add an array, little-endian, and return where it begins."""
        place, content = self.size, np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        self.parts.append(content)
        self.size += len(content)
        return place

    def content(self) -> bytes:
        """Return the file."""
        return b"".join(self.parts)


def pack_samples(served: Served, samples: RunSamples, pack: Pack) -> dict[str, Any]:
    """Pack samples of the set that is shown, the mistakes first; describe them, and what the page makes of them."""
    made: dict[str, Any] = {"samples": None, "mistakes": None, "confusion": None, "largest": {}}
    try:
        name = samples.usual()
        own = samples.of(name, served)
    except UnavailableError:
        return made
    if not len(own):
        return made
    mistakes = None
    with suppress(UnavailableError):
        mistakes = samples.mistakes(served, name, 0, MOST_MISTAKES)
        made["confusion"] = samples.confusion(served, name)
    size = prod(served.pictured)
    most = max(1, min(MOST_SAMPLES, MOST_BYTES // size))
    wrong = [] if mistakes is None else [row["index"] for row in mistakes["mistakes"]][: most // 2]
    spread = np.linspace(0, len(own) - 1, min(len(own), most)).astype(np.int64).tolist()
    chosen = list(dict.fromkeys([*wrong, *spread]))[:most]
    if mistakes is not None:
        rows = [{key: value for key, value in row.items() if key != "pixels"} for row in mistakes["mistakes"]]
        rows = [row | {"place": place} for place, row in enumerate(rows[: len(wrong)])]
        made["mistakes"] = {"total": mistakes["total"], "of": mistakes["of"], "rows": rows}
    shown = [samples.sample(served, name, index) for index in chosen]
    pixels = np.stack([_decoded(row.pop("pixels")) for row in shown])
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
        "shape": list(served.pictured),
        "rows": [{key: row[key] for key in ("index", "label", "values") if key in row} for row in shown],
    }
    made["largest"] = _largest(served, own.inputs, chosen, scale, pack)
    return made


def _decoded(array: dict[str, Any]) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(array["data"]), "<f4").reshape(array["shape"])


def _largest(served: Served, inputs: Any, chosen: Sequence[int], scale: float, pack: Pack) -> dict[int, dict[str, int]]:
    """Pack, for each unit of each layer, the samples of its largest outputs; of a map its largest counts."""
    places = [index for index, place in enumerate(served.view.places) if place.units <= MOST_UNITS]
    best: list[list[NDArray[Any]]] = [[] for _ in places]
    model = served.model
    for start in range(0, len(chosen), _BATCH):
        rows = np.stack([np.asarray(inputs[index]) for index in chosen[start : start + _BATCH]])
        batch = model._batch(rows, model._built())
        for held, outputs in zip(best, served.view.outputs(batch, scale, places), strict=True):
            held.append(outputs if outputs.ndim == 2 else outputs.max(axis=tuple(range(1, outputs.ndim - 1))))
    made = {}
    for index, held in zip(places, best, strict=True):
        values = np.concatenate(held)
        order = np.argsort(-np.nan_to_num(values, nan=-np.inf), axis=0, kind="stable")[:MOST_IMAGES]
        of_these = np.take_along_axis(values, order, 0).astype(np.float32)
        kept, units = order.shape
        where = {"numbers": pack.add(order.astype(np.uint16)), "values": pack.add(of_these)}
        made[index] = {**where, "kept": kept, "units": units}
    return made


def pack_weights(served: Served, network: bytes, pack: Pack) -> dict[str, dict[str, Any]]:
    """Tell where the weights of each layer lie, in the file of the network or in the pack, by the layer's number."""
    view, made, room = served.view, dict[str, dict[str, Any]](), MOST_WEIGHTS
    for index in sorted({place.weighted for place in view.places if place.weighted is not None}):
        weights, bias = view.weights_in(index)
        units = view.places[index].units
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
    """Find an array in the file of the network, or add it to the pack where there is room."""
    numbers = np.ascontiguousarray(array, "<f4")
    place = network.find(numbers.tobytes())
    if place >= 0:
        return {"file": "network", "at": place, "size": numbers.nbytes}
    if numbers.nbytes > room:
        return None
    return {"file": "samples", "at": pack.add(numbers), "size": numbers.nbytes}

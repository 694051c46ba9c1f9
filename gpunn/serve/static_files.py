"""Make the files of a static page, all but the runtime."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpunn.data.training_inputs import TrainingInputs
from gpunn.errors import GpunnError
from gpunn.saving.onnx import OPSET
from gpunn.saving.onnx.export import OUTPUT_OF, checked_graph, output_name
from gpunn.serve.folder import FINISHED, STOPPED
from gpunn.serve.network import ServedNetwork
from gpunn.serve.samples import RunSamples
from gpunn.serve.static_pack import Pack, pack_samples, pack_weights
from gpunn.serve.watcher import Watcher
from gpunn.version import __version__

PAGE, BROWSER = Path(__file__).with_name("page"), Path(__file__).with_name("browser")
MOST_ROWS = 2000  # of the history
_POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'"
_HEAD = f"""  <meta http-equiv="Content-Security-Policy" content="{_POLICY}">
  <script src="static/browser/notice.js"></script>
"""
_ENGINE, _ENGINE_HERE = 'data-engine="./engine-server.js"', 'data-engine="./browser/engine.js"'
_CHARSET = '  <meta charset="utf-8">\n'
_LEFT_OUT = ("engine-server.js",)


def page_files(watcher: Watcher) -> dict[str, bytes]:
    """Return the bytes of a page's files by name."""
    served = watcher.served
    experiment, tokens = watcher.experiment, served.model.tokens
    load = None if experiment is None else (lambda: experiment.load_data(tokens))
    samples, pack = RunSamples(load, watcher.has_test), Pack()
    described = _described(watcher, samples)
    given = described["input"]
    names = [layer["name"] for layer in described["layers"]]
    # As ONNX, with the output of each layer as one more output of the graph.
    graph = checked_graph(served.model, OPSET, "NHWC", False, False, names)
    network: bytes = graph.SerializeToString(deterministic=True)
    packed = pack_samples(served, samples, pack)
    largest = packed.pop("largest")
    written = {
        "gpunn": __version__,
        "model": described,
        "picture": picture_for(served.model.trained_on, given["shape"]) if given.get("takes_pictures") else None,
        "input": _input(served),
        "output": output_name(served.model),
        "layers": [
            {"output": OUTPUT_OF.format(layer["name"]), "shown": layer["shown"], "largest": largest.get(layer["index"])}
            for layer in described["layers"]
        ],
        "units": pack_weights(served, network, pack),
        **packed,
        "history": _history(watcher),
    }
    files = {
        "network/network.json": json.dumps(
            written, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode(),
        "network/model.onnx": network,
        "network/samples.bin": pack.content(),
        "index.html": _page((PAGE / "index.html").read_text("utf-8")).encode(),
    }
    for source, into in ((PAGE, "static"), (BROWSER, "static/browser")):
        for path in sorted(source.iterdir()):
            if path.suffix in (".js", ".css", ".svg", ".txt") and path.name not in _LEFT_OUT:
                files[f"{into}/{path.name}"] = path.read_bytes()
    return files


def _described(watcher: Watcher, samples: RunSamples) -> dict[str, Any]:
    """Describe the network and its run as the server does; a static page does not follow a training."""
    return {
        "state": STOPPED if watcher.state == STOPPED else FINISHED,
        "has_samples": watcher.experiment is not None,
        "has_history": bool(watcher.rows),
        "has_test": False,
        **watcher.describe(samples),
    }


def picture_for(trained_on: TrainingInputs | None, shape: Sequence[int]) -> dict[str, Any]:
    """Describe how a picture becomes an input (height, width, channels); see `browser/prepare.js`."""
    if trained_on is None:  # as `gpunn predict` does it: on a dark ground, without a search for the drawing
        told: dict[str, Any] = {"ground": "dark", "is_drawn": True, "from_files": False, "drawings": None}
        return {**told, "shape": list(shape), "is_grey": False, "black": [0.0], "white": [1.0], "factor": 1.0}
    black, white = trained_on.pixel_range
    return {
        "shape": list(shape),
        "ground": trained_on.ground,
        "is_grey": trained_on.is_grey,
        "is_drawn": trained_on.is_drawn,
        "from_files": trained_on.from_files,
        "drawings": None if trained_on.drawings is None else asdict(trained_on.drawings),
        "black": black.tolist(),
        "white": white.tolist(),
        "factor": trained_on.scale if trained_on.is_bytes else 1.0,
    }


def _input(served: ServedNetwork) -> dict[str, Any]:
    """Describe the input of the graph: kind, shape, the shape that is shown, and the factor within the graph."""
    model, trained_on = served.model, served.model.trained_on
    factor = trained_on.scale if trained_on is not None and not trained_on.is_bytes else 1.0
    shape = model.input_shape if model.tokens or trained_on is None else trained_on.shape
    kind = "int64" if model.tokens else "float32"
    return {"kind": kind, "shape": list(shape), "shown": list(served.shown_shape), "factor": factor}


def _history(watcher: Watcher) -> dict[str, Any] | None:
    """Return the history; of a long one, rows spread over it, with the last."""
    if not watcher.rows:
        return None
    whole = watcher.history()
    every = -(-len(whole["rows"]) // MOST_ROWS)
    return whole | {"rows": whole["rows"][::-1][::every][::-1]}


def _page(text: str) -> str:
    """Return the page with the engine of the browser, and a policy against loading from elsewhere."""
    for before, after in ((_ENGINE, _ENGINE_HERE), (_CHARSET, _CHARSET + _HEAD)):
        if text.count(before) != 1:
            raise GpunnError(f"index.html has no {before.strip()}: the package is damaged, install it again")
        text = text.replace(before, after)
    return text.replace("on this machine", "in your browser").replace("from this server", "from this web space")

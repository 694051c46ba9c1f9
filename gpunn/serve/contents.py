"""What a page without a server consists of, but for the runtime: files by their names."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpunn.data.training_inputs import TrainingInputs
from gpunn.errors import GpunnError
from gpunn.saving.onnx import OPSET
from gpunn.saving.onnx.export import OUTPUT_OF, checked_graph, output_name
from gpunn.sequential import Sequential
from gpunn.serve.folder import FINISHED, STOPPED
from gpunn.serve.packing import Pack, pack_samples, pack_weights
from gpunn.serve.samples import RunSamples, UnavailableError
from gpunn.serve.served import Served
from gpunn.serve.watching import Watcher
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
    """Return the files of a page by their names."""
    served = watcher.served
    experiment, tokens = watcher.experiment, served.model.tokens
    load = None if experiment is None else (lambda: experiment.load_data(tokens))
    samples, pack = RunSamples(load, watcher.has_test), Pack()
    described = _described(watcher, samples)
    given = described["input"]
    names = [layer["name"] for layer in described["layers"]]
    network = _network(served.model, names)
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
    """Describe the network and its run as the server does; what is trained meanwhile does not come to this page."""
    served, ranges = watcher.served, dict[str, tuple[float, float]]()
    if served.columns is not None:
        with suppress(UnavailableError):
            ranges = samples.ranges()
    experiment, figures = watcher.experiment, watcher.figures()
    return {
        "name": watcher.folder.name,
        "recipe": experiment.name if experiment else "",
        "data": Path(experiment.data.source).name if experiment else "",
        "state": STOPPED if watcher.state == STOPPED else FINISHED,
        "has_samples": experiment is not None,
        "has_history": bool(watcher.rows),
        "has_test": False,
        "accuracy": figures.get("test_accuracy", figures.get("validation_accuracy")),
        "figures": figures,
        **served.describe(ranges),
    }


def _network(model: Sequential, names: list[str]) -> bytes:
    """Write the network as ONNX, which gives the output of each layer too."""
    content: bytes = checked_graph(model, OPSET, "NHWC", False, False, names).SerializeToString(deterministic=True)
    return content


def picture_for(trained_on: TrainingInputs | None, shape: Sequence[int]) -> dict[str, Any]:
    """Tell how a picture becomes an input of a shape (height, width, channels); see `browser/prepare.js`."""
    if trained_on is None:  # as `gpunn predict` does it: dark ground, and nothing is looked for
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


def _input(served: Served) -> dict[str, Any]:
    """Describe the input of the graph: kind and shape, the shape in which it is shown, and the factor within."""
    model, trained_on = served.model, served.model.trained_on
    factor = trained_on.scale if trained_on is not None and not trained_on.is_bytes else 1.0
    shape = model.input_shape if model.tokens or trained_on is None else trained_on.shape
    kind = "int64" if model.tokens else "float32"
    return {"kind": kind, "shape": list(shape), "shown": list(served.pictured), "factor": factor}


def _history(watcher: Watcher) -> dict[str, Any] | None:
    """Return the history, of a long one rows spread over it, the last among them."""
    if not watcher.rows:
        return None
    whole = watcher.history()
    every = -(-len(whole["rows"]) // MOST_ROWS)
    return whole | {"rows": whole["rows"][::-1][::every][::-1]}


def _page(text: str) -> str:
    """Return the page with its own engine, and told to load nothing from elsewhere."""
    for before, after in ((_ENGINE, _ENGINE_HERE), (_CHARSET, _CHARSET + _HEAD)):
        if text.count(before) != 1:
            raise GpunnError(f"index.html has no {before.strip()}: the package is damaged, install it again")
        text = text.replace(before, after)
    return text.replace("on this machine", "in your browser").replace("from this server", "from this web space")

"""Read and write experiments: complete descriptions of a run, in TOML files or recipes of gpunn."""

import contextlib
import logging
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from math import prod
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote_from_bytes, unquote_to_bytes

from gpunn.config import check_names, from_config, from_table, nearest, to_built_config, to_config
from gpunn.data import NAMES, Data, Samples, load_data
from gpunn.data.class_weights import checked_class_weight
from gpunn.data.formats.image_folder import learns_numbers
from gpunn.data.formats.inputs import column_names
from gpunn.data.load import is_image_folder
from gpunn.data.sklearn_sets import is_sklearn_table
from gpunn.data.tables import RECONSTRUCTION, are_pixels, names_in, tables_in
from gpunn.errors import DataError, GpunnError, OptionError
from gpunn.experiments.pretrained import StartPart
from gpunn.files import read_regular
from gpunn.nn.layers.chain import MOST_LAYERS, check_tables
from gpunn.nn.tasks import Task
from gpunn.saving.checkpoint import Origin
from gpunn.saving.checkpointer import CheckpointPart
from gpunn.saving.origin import fingerprint, versions
from gpunn.sequential import Sequential
from gpunn.train.arguments import PlainOptions, TrainOptions, next_batch_size
from gpunn.train.custom_metrics import checked_columns
from gpunn.train.trainer import Trainer
from gpunn.version import __version__

log = logging.getLogger(__name__)

OF_IMAGES = ("image_size", "colours")  # options of `load_data` for folders of images
OF_TABLES = ("target", "ignore", "missing", "task", "scaling")  # options of `load_data` for tables
_PARTS = ("optimizer", "loss", "regularizer", "augmentation")
_URI = "file://"
_MOST_BYTES = 1 << 16  # an experiment file has a few lines: a larger file is something else
_MOST_DOTS = 16  # of a line: the time of tomllib grows with the square of the dots in a key
_LEAST_BATCH = 32  # smaller batches have too noisy gradients for the learning rates of the recipes


@dataclass(frozen=True)
class DataPart:
    """Settings under `[data]`: arguments of `load_data`; shape and SHA-256 of the training samples once loaded."""

    source: str = "digits"
    validation: float | int | str = 0.1
    limit: int | None = None
    image_size: int | tuple[int, ...] = ()
    colours: str = ""
    target: str = ""
    ignore: str = ""
    missing: str = ""
    task: str = ""
    scaling: str = ""
    shape: tuple[int, ...] = ()
    sha256: str = ""


@dataclass(frozen=True)
class TrainingPart(PlainOptions):
    """Settings under `[training]`: plain options of `Sequential.fit`; batches shrink for `least_steps` an epoch."""

    batch_size: int = 128
    device: str = "auto"
    least_steps: int = 0

    def batch_size_for(self, count: int) -> int:
        """Choose the batch size for `count` training samples."""
        if not self.least_steps:
            return self.batch_size
        return min(self.batch_size, max(_LEAST_BATCH, count // self.least_steps), count)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Complete description of a run; parts are tables of `gpunn.config`, a loss of None is chosen by the targets."""

    version: str = ""
    name: str
    description: str = ""
    data: DataPart = field(default_factory=DataPart)
    training: TrainingPart = field(default_factory=TrainingPart)
    start: StartPart | None = None
    layers: tuple[dict[str, Any], ...]
    loss: dict[str, Any] | None = None
    optimizer: dict[str, Any]
    regularizer: dict[str, Any] | None = None
    augmentation: dict[str, Any] | None = None
    metrics: tuple[Any, ...] = ()
    checkpoints: CheckpointPart = field(default_factory=CheckpointPart)

    def with_options(self, *, data: str | None = None, checkpoints: Mapping[str, Any] = {}, **options: Any) -> Self:
        """Return an experiment with other data, settings, or learning rate (for a schedule, its peak).

        None keeps a value. A given batch size holds for small data sets too. With `at_epoch`, the learning rate
        changes at that epoch.
        """
        changed, kept = ({k: v for k, v in given.items() if v is not None} for given in (options, checkpoints))
        rate, epoch, optimizer = changed.pop("learning_rate", None), changed.pop("at_epoch", None), self.optimizer
        part = self.data if data is None else replace(self.data, source=_located(data))
        if data is not None and part.shape:  # a run has noted how it read the data before
            if not is_image_folder(data):
                part = replace(part, image_size=(), colours="")
            if data in NAMES:
                task = part.task if part.task == RECONSTRUCTION else ""
                part = replace(part, target="", ignore="", missing="", scaling="", task=task)
        of_data = {name: changed.pop(name) for name in (*OF_IMAGES, *OF_TABLES) if name in changed}
        part = replace(part, **of_data)
        if data is not None or of_data or "seed" in changed:
            part = replace(part, shape=(), sha256="")  # other samples, so these fingerprints no longer apply
        if "batch_size" in changed:
            changed["least_steps"] = 0
        if rate is not None:
            before = optimizer.get("learning_rate")
            after = _at_rate(before, rate)
            changing = {"type": "Changed", "before": before, "at": epoch, "after": after}
            optimizer = {**optimizer, "learning_rate": after if epoch is None else changing}
            from_config("optimizer", optimizer)  # refuses an invalid rate
        training, plan = replace(self.training, **changed), replace(self.checkpoints, **kept)
        return replace(self, data=part, training=training, optimizer=optimizer, checkpoints=plan)

    def load_data(self, tokens: int = 0) -> Data:
        """Load the data; raise DataError unless their SHA-256 is that of the experiment, if it has one.

        Inputs are tokens if the first layer is an Embedding, or if the layers are open and `tokens` is given.
        """
        part = self.data
        given: dict[str, Any] = {name: getattr(part, name) or None for name in (*OF_IMAGES, *OF_TABLES)}
        given |= {"validation": part.validation, "limit": part.limit, "seed": self.training.seed}
        if tokens := tokens or (from_config("layer", with_units(self.layers[0], 1)).tokens if self.layers else 0):
            given["tokens"] = tokens
        data = load_data(part.source, **given)
        if self.loss and data.train.one_hot and from_config("loss", self.loss).of_targets is Task.BINARY:
            data = data.as_floats()  # as the trainer would, but here for the fingerprint
        if self.start is not None and part.shape:
            data = data.mapped(lambda samples: _shaped(samples, part.shape), data.class_names)
        if part.sha256 and data.train.sha256() != part.sha256:
            mend = "name the data on the command line to train on them all the same"
            raise DataError(f"{part.source} does not hold the training data that this experiment was made with: {mend}")
        return data

    def model(self, data: Data, *, begins: bool = True) -> Sequential:
        """Make the network for some data; with `begins`, it takes the weights of a pretrained network, if any."""
        outputs = data.train.classes or data.train.targets.shape[1]
        layers = [from_config("layer", with_units(layer, outputs)) for layer in self.layers]
        return Sequential(layers) if self.start is None else self.start.model(layers, begins=begins)

    def trainer(self, data: Data, *, progress: bool = True, begins: bool = True) -> Trainer:
        """Make the trainer for some data; see `model` for `begins`."""
        return Trainer(self.model(data, begins=begins), self.options(data, progress=progress), data)

    def options(self, data: Data, *, progress: bool = True) -> TrainOptions:
        """Make the options of `Sequential.fit` for some data."""
        given = asdict(self.training) | {kind: getattr(self, kind) for kind in _PARTS} | {"progress": progress}
        given["metrics"] = list(self.metrics)
        count, size = len(data.train), self.training.batch_size_for(len(data.train))
        layers = self.model(data, begins=False).layers if count % max(size, 1) == 1 else ()
        given["batch_size"] = fitting = next_batch_size(size, count, layers) if layers else size
        if fitting != size:
            why = f"{count:,} in batches of {size} leave a batch of one, which BatchNorm cannot normalise"
            log.warning("batches of %d samples: %s", fitting, why)
        return TrainOptions.among(given)

    def resolved(self, trainer: Trainer) -> Self:
        """Fill in data, device, loss and initial weights from the trainer."""
        train, regularizer = trainer.data.train, trainer.options.regularizer
        training = replace(self.training, batch_size=trainer.batch_size, device=trainer.backend.device, least_steps=0)
        part = replace(self.data, source=_located(self.data.source), shape=train.shape, sha256=train.sha256())
        if train.from_files:  # chosen by the images
            part = replace(part, image_size=train.shape[:2], colours="grey" if train.shape[2] == 1 else "rgb")
        if train.columns is not None:  # chosen by the table
            task = "classes" if train.classes else "regression"
            part = replace(part, target=",".join(train.columns.targets), task=task)
        return replace(
            self,
            data=part,
            training=training,
            layers=tuple(to_built_config(layer) for layer in trainer.model.layers),
            loss=to_config(trainer.loss),
            optimizer=to_config(trainer.optimizer),
            regularizer=None if regularizer is None else to_config(regularizer),
            version=__version__,
        )

    def to_toml(self) -> str:
        """Write the experiment as a file that `read_experiment` reads."""
        import tomli_w

        data, start = replace(self.data, source=_as_text(self.data.source)), self.start
        start = start and replace(start, network=_as_text(start.network))
        return tomli_w.dumps(_plain(asdict(replace(self, data=data, start=start))))

    def origin(self, trainer: Trainer) -> Origin:
        """Describe the experiment, data and versions of a run for its checkpoints."""
        return Origin(self.to_toml(), fingerprint(trainer.data, self.data.sha256), versions(trainer))


def _at_rate(schedule: Any, rate: float) -> Any:
    """Return a learning rate, or the table of a schedule, with another (peak) rate."""
    if not isinstance(schedule, dict):
        return rate
    if schedule["type"] == "Changed":
        return _at_rate(schedule["after"], rate)
    if schedule["type"] == "Warmup":
        return {**schedule, "rate": _at_rate(schedule["rate"], rate)}
    return {**schedule, "peak" if schedule["type"] == "OneCycle" else "rate": rate}


def with_units(layer: Any, outputs: int) -> Any:
    """Return a layer's table with `units = "outputs"` replaced by the number of classes or float targets."""
    return {**layer, "units": outputs} if isinstance(layer, dict) and layer.get("units") == "outputs" else layer


def _shaped(samples: Samples, shape: tuple[int, ...]) -> Samples:
    """Reshape samples to the inputs of a network where the sizes match."""
    if samples.shape == shape or prod(samples.shape) != prod(shape):
        return samples
    return replace(samples, inputs=samples.inputs.reshape(len(samples), *shape))


def _as_text(path: str) -> str:
    """Return a path as text; as a file: URI if its bytes are no UTF-8."""
    is_text = path == path.encode(errors="replace").decode()
    return path if is_text else _URI + quote_from_bytes(os.fsencode(Path(path).absolute()))


def _as_path(text: str) -> str:
    """Return the path behind a text of `_as_text`."""
    return os.fsdecode(unquote_to_bytes(text.removeprefix(_URI))) if text.startswith(_URI) else text


def _located(source: str) -> str:
    """Make a source independent of the working directory: names stay, paths become absolute."""
    try:
        path = Path(source).expanduser()
        return source if source in NAMES or not path.exists() else str(path.absolute())
    except (OSError, RuntimeError):
        return source  # loading the data will raise the error


def _plain(value: Any) -> Any:
    """Convert to types of TOML: leave out None and empty values, turn tuples into lists."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items() if inner is not None and inner not in ("", ())}
    return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value


def recipe_for(source: str | None, target: str | None = None, task: str | None = None) -> str:
    """Return the default recipe for a source of data, with the target and task chosen, if any."""
    if task == RECONSTRUCTION:
        return "autoencoder"
    if source is not None and is_image_folder(source):
        return "image-numbers" if learns_numbers(Path(source), names_in(target, "target"), task) else "images"
    path = Path(source or "")
    with contextlib.suppress(GpunnError, OSError):
        path = tables_in(path).get("train", path) if source and path.is_dir() else path
        if is_sklearn_table(source or ""):
            return "table"
        if source not in (None, *NAMES) and path.is_file() and (names := column_names(path)) is not None:
            return "mlp" if are_pixels(names) else "table"
    return "mlp"


def recipes() -> dict[str, Path]:
    """Return the files of the recipes that come with gpunn, by name."""
    return dict(sorted((path.stem, path) for path in Path(__file__).with_name("recipes").glob("*.toml")))


def read_experiment(recipe: str) -> Experiment:
    """Read a recipe by name, or an experiment file; raise OptionError if that fails."""
    known, path = recipes(), Path(recipe)
    if recipe in known:
        path = known[recipe]
    elif path.suffix != ".toml" and path.name == recipe:
        expected = f"expected {', '.join(known)} or a .toml file{nearest(recipe, known, ', did you mean {}?')}"
        raise OptionError(f"unknown recipe {recipe!r}: {expected}")
    return parse_experiment(read_text(path, f"recipe {path}"), recipe if recipe in known else str(path))


def read_text(path: Path, name: str) -> str:
    """Read the text of an experiment file; raise OptionError, with its `name`, if that fails."""
    try:
        return read_regular(path, _MOST_BYTES).decode("utf-8")
    except OSError as error:
        raise OptionError(f"{name} cannot be read ({error.strerror or error}): check the path") from None
    except UnicodeDecodeError:
        raise OptionError(f"{name} is not UTF-8 text: it is no experiment file") from None


def parse_experiment(text: str, where: str) -> Experiment:
    """Parse an experiment from TOML; raise OptionError, which names `where`, for an invalid one."""
    with errors_of(where):
        # The name of a file may have characters that the name of a run may not.
        return _parse(table_of(text), re.sub(r"[^\w.-]+", "_", Path(where).stem).lstrip(".") or "experiment")


def table_of(text: str) -> dict[str, Any]:
    """Parse the TOML of an experiment file; use it within `errors_of`."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > _MOST_DOTS:
            raise OptionError(f"line {number} has more than {_MOST_DOTS} dots, and no experiment needs so many")
    return tomllib.loads(text)


@contextlib.contextmanager
def errors_of(where: str) -> Iterator[None]:
    """Turn errors of parsing into an OptionError that names the file."""
    try:
        yield
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"{where} is no TOML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise OptionError(f"{where} is no experiment: its tables are nested too deeply") from None
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from None
    except ValueError as error:  # a number of more digits than Python reads or shows
        raise OptionError(f"{where} is no experiment: {error}") from None


def _parse(table: dict[str, Any], stem: str) -> Experiment:
    if "search" in table:
        raise OptionError("it has ranges to search, [search], where an experiment has values: gpunn search FILE.toml")
    check_names(table, [field.name for field in fields(Experiment)], "an experiment")
    start = from_table(StartPart, table["start"], "start") if "start" in table else None
    are_chosen = start is not None and not start.layers  # by the pretrained network and the data
    for key in ("layers", "optimizer"):
        if key not in table and not (key == "layers" and are_chosen):
            raise OptionError(f"{key} is missing: an experiment has layers and an optimizer")
    if are_chosen and "layers" in table:
        raise OptionError("[start] needs layers beside [[layers]]: how many of the first begin with its weights")
    layers = [] if are_chosen else table["layers"]
    if not isinstance(layers, list) or not (are_chosen or 0 < len(layers) <= MOST_LAYERS):
        raise OptionError(f"layers must be a list of 1 to {MOST_LAYERS:,} tables, each with a type")
    check_tables(layers)
    parts = {kind: table[kind] for kind in _PARTS if kind in table}
    # Make every part once, so that errors show before any data are read.
    for kind, part in [*(("layer", with_units(layer, 1)) for layer in layers), *parts.items()]:
        from_config(kind, part)
    metrics = table.get("metrics", [])
    checked_columns(metrics)
    texts = {key: table.get(key, default) for key, default in (("name", stem), ("description", ""), ("version", ""))}
    for key, text in texts.items():
        if not isinstance(text, str) or not text.isprintable():
            raise OptionError(f"{key} must be a text of one line, got {text!r}")
    if not re.fullmatch(r"(?!\.)[\w.-]+", texts["name"]):
        raise OptionError(f"name must be letters, digits, '-', '_' and '.', got {texts['name']!r}")
    sections = {"data": DataPart, "training": TrainingPart, "checkpoints": CheckpointPart}
    made = {section: from_table(part, table.get(section, {}), section) for section, part in sections.items()}
    checked_class_weight(made["training"].class_weight)
    data = made["data"]
    made["data"] = replace(data, source=_as_path(data.source))
    made["start"] = start and replace(start, network=_as_path(start.network))
    if len(data.shape) not in (0, 1, 3) or not all(type(size) is int and 0 < size < 2**31 for size in data.shape):
        raise OptionError(f"data.shape must be [features] or [height, width, channels], got {list(data.shape)}")
    made |= texts | {kind: _table(part) for kind, part in parts.items()}
    return Experiment(**made, layers=tuple(map(_table, layers)), metrics=tuple(metrics))


def _table(config: Any) -> Any:
    return {"type": config} if isinstance(config, str) else config

"""Fine-tune a pretrained network: take its layers, and replace the last one for the new data."""

from dataclasses import replace
from math import prod
from pathlib import Path

from gpunn.config import to_built_config, to_config
from gpunn.config.outside import allowing
from gpunn.data import Data
from gpunn.data.checks import is_binary
from gpunn.data.load import is_image_folder
from gpunn.errors import OptionError, ShapeError
from gpunn.experiments.experiment import DataPart, Experiment, TrainingPart, read_experiment
from gpunn.experiments.folder import experiment_file, holds_run, model_file
from gpunn.experiments.pretrained import StartPart
from gpunn.nn.layers import Activation
from gpunn.nn.layout import fed_shape
from gpunn.nn.network import Network
from gpunn.nn.replacing import place_of_last, with_last
from gpunn.nn.tasks import Task
from gpunn.saving.checkpointer import CheckpointPart, Say

FREEZE = 1  # epochs in which only the new layer learns, by default
ALWAYS = "all"
LEAST_STEPS = 10  # an epoch, by smaller batches: data sets for fine-tuning are small


def start_from(run: str, data: str | None, recipe: str | None, freeze: str | None, say: Say) -> Experiment:
    """Return the experiment that fine-tunes the network of a run with the settings of a recipe.

    Args:
        run: Run folder, model file or checkpoint.
        data: Source of the data; None for that of the recipe.
        recipe: Recipe for everything but layers and loss; None for the settings of the run, or `mlp` without any.
        freeze: Number of epochs with frozen layers, or "all"; None for that of the recipe, or `FREEZE`.
        say: Function that shows the line about the origin of the settings.
    """
    if data is None and recipe is None:
        allow = allowing()
        mend = f"gpunn train DATA --from {run}{allow}; gpunn train --resume {run}{allow} goes on with the old ones"
        raise OptionError(f"--from needs the data to train on: {mend}")
    if data is not None and holds_run(Path(data)):
        raise OptionError(f"{data} is a run, not data: name the data to train on, gpunn train DATA --from {run}")
    path = model_file(run)
    written = None if recipe else experiment_file(path)
    settings = read_experiment(recipe or str(written or "mlp"))
    say(f"settings    {f'those of {written}' if written else f'recipe {settings.name}'}; the layers are from {path}")
    training = settings.training
    if written:
        least = training.least_steps or LEAST_STEPS
        training = replace(training, device="auto", least_steps=least, class_weight=None)
        own = DataPart(source="")
        settings = replace(settings, data=own, description="", checkpoints=CheckpointPart())
    epochs = _epochs(freeze, training)
    start = StartPart(str(path.absolute()), trainable=freeze != ALWAYS)
    return replace(settings, start=start, layers=(), training=replace(training, freeze=epochs))


def _epochs(freeze: str | None, training: TrainingPart) -> int:
    """Return the number of epochs with frozen layers."""
    if freeze is None:
        return training.freeze or FREEZE
    if freeze == ALWAYS:
        return 0
    if not (freeze.isascii() and freeze.isdigit() and len(freeze) < 10):
        raise OptionError(f"--freeze must be a number of epochs from 0, or {ALWAYS}, got {freeze!r:.40}")
    return int(freeze)


def prepare(experiment: Experiment) -> tuple[Experiment, Data]:
    """Load the data of an experiment, and choose its layers if it fine-tunes a network."""
    start = experiment.start
    if start is None or experiment.layers:
        return experiment, experiment.load_data()
    network, start = start.read()
    loss = None if network.loss is None else to_config(network.loss)
    part = _fitted(experiment.data, network)
    data = replace(experiment, data=part, loss=loss).load_data(network.tokens)
    if network.arranged(data.train) is not data.train:
        data = data.mapped(network.arranged, data.class_names)
    _check(network, data, start.network)
    layers, taken, keeps_end = _layers(network, data)
    at = place_of_last(network)
    tables = [{**to_built_config(layer)} for layer in layers]
    for number, table in enumerate(tables):
        table.pop("trainable", None)  # from the earlier training
        if not start.trainable and number < at:
            table["trainable"] = False
    chosen = replace(
        experiment,
        layers=tuple(tables),
        loss=loss if keeps_end else None,
        start=replace(start, layers=taken),
        data=replace(part, shape=data.train.shape),
    )
    return chosen, data


def _fitted(part: DataPart, network: Network) -> DataPart:
    """Fit images of a folder to the size and colours of the earlier training, unless others are given."""
    shape = network.trained_on.shape if network.trained_on else network.input_shape
    if len(shape) != 3 or not is_image_folder(part.source):
        return part
    colours = part.colours or {1: "grey", 3: "rgb"}.get(shape[2], "")
    return replace(part, image_size=part.image_size or shape[:2], colours=colours)


def _layers(network: Network, data: Data) -> tuple[list[object], int, bool]:
    """Return the layers for the data, how many are taken over, and whether loss and last activation stay."""
    train, outputs = data.train, prod(network.output_shape)
    at = place_of_last(network)
    if train.classes and network.task is Task.CLASSES and data.class_names == network.class_names:
        return [*network.layers], len(network.layers), True
    keeps_end = network.task is None or (network.task is Task.CLASSES) == bool(train.classes)
    wanted = train.classes or train.targets.shape[1]
    if train.classes and outputs == 1:  # one output suits two classes only
        keeps_end, wanted = keeps_end and wanted == 2, 1 if wanted == 2 and keeps_end else wanted
    if network.task is Task.BINARY and not is_binary(train.targets):
        keeps_end = False
    layers = with_last(network, wanted)
    if not keeps_end:  # the last activation was chosen for the old targets
        layers = [layer for number, layer in enumerate(layers) if number <= at or not isinstance(layer, Activation)]
    return [*layers], at, keeps_end


def _check(network: Network, data: Data, path: str) -> None:
    """Raise an error unless the samples have the shape and the range of the network's inputs."""
    shape, wanted = data.train.shape, network.trained_on.shape if network.trained_on else network.input_shape
    if fed_shape(network.layers, shape) != network.input_shape:
        mend = "bring them to that shape"
        if len(shape) == len(wanted) == 3:
            mend = f"folders of images are fitted by --image-size {wanted[0]}x{wanted[1]}"
            mend += {1: " --colours grey", 3: " --colours rgb"}.get(wanted[2], "")
        has, takes = (" × ".join(map(str, sizes)) for sizes in (shape, wanted))
        raise ShapeError(f"{data.name} has samples of {has}, the network of {path} takes {takes}: {mend}")
    if network.trained_on is not None:
        network.trained_on.check_samples(data.train)


def describe_start(experiment: Experiment) -> list[str]:
    """Describe which layers are pretrained, and how long they are frozen."""
    start, freeze, layers = experiment.start, experiment.training.freeze, experiment.layers
    if start is None:
        return []
    if start.layers < len(layers):
        new = f"{start.layers} of {len(layers)} layers of {start.network}; the last is new for these data"
    else:
        new = f"all layers of {start.network}, the last too: the classes are the same"
    lines = [f"begins with {new}"]
    epochs = "1 epoch" if freeze == 1 else f"{freeze} epochs"
    only = "the new layers learn" if start.layers < len(layers) else "the last layer learns"
    if not start.trainable:
        lines.append(f"frozen      only {only}, to the end")
    elif freeze:
        held = "to the end" if freeze >= experiment.training.epochs else "then all layers do"
        lines.append(f"frozen      for {epochs} only {only}, {held} (--freeze 0: all from the start)")
    return lines

"""Write a training as events that TensorBoard shows: curves, histograms, pictures, hyper-parameters."""

import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, cast

from gpunn.config.scalars import positive_whole
from gpunn.errors import OptionError, OutputError
from gpunn.files import StrPath
from gpunn.nn.summary import summary
from gpunn.reports import events
from gpunn.reports.filters import draw_network
from gpunn.reports.predictions import draw_answers
from gpunn.saving.origin import parts_of
from gpunn.train.callbacks import Callback, TrainingView
from gpunn.train.record import COLUMNS, Record
from gpunn.train.report import ClassificationReport, report_on
from gpunn.train.trainer import Trainer

MOST_SHARE = 0.01  # of a training's time for histograms, by default
_USUAL = 0.02  # seconds for histograms, before the first are timed
_LONGEST = 1000  # characters of a hyper-parameter


def _tag(column: str) -> str:
    part, _, figure = column.partition("_")
    return f"{figure}/{part}" if part in ("train", "validation") else column


TAGS = {column: _tag(column) for column in COLUMNS[1:]}  # "train_loss" is "loss/train", beside "loss/validation"


class TensorBoard(Callback):
    """Write events of a training for TensorBoard: `tensorboard --logdir runs` shows a run for each folder.

    Each record adds a point to every column of `history.csv`: `loss/train`, `loss/validation`, `accuracy/train`,
    `learning_rate` and so on, and `f1/validation` for `fit(metrics=["f1"])`. The end of an epoch adds histograms of
    weights and gradients (`TrainingView.gradients`). The end of the training adds the confusion matrix, mistakes and
    filters, from the validation set. The numbers of the training stay the same to the last bit. If a `Checkpointer`
    resumes a training, each step appears once.

    Args:
        folder: Folder of the events. Default: that of the `Checkpointer`, else the next free runs/fit-<n>.
        histograms_every: Number of epochs between histograms; 0: none. Default: after the last epoch, and after others
            while they take at most 1 % of the time.
        images_every: Number of epochs between pictures, which take about a second; 0: none. Default: at the end alone.

    Attributes:
        folder: Folder of the events, once a training has begun.

    Raises:
        OptionError: Invalid arguments, or the extra is missing: `pip install 'gpunn[tensorboard]'`.
        OutputError: From `fit`: the folder holds events of another training, or cannot be written to.
    """

    first_rank_only = True

    def __init__(
        self,
        folder: StrPath | None = None,
        *,
        histograms_every: int | None = None,
        images_every: int | None = None,
    ) -> None:
        if folder is not None and (not isinstance(folder, str | os.PathLike) or "\0" in str(folder)):
            raise OptionError(f"the folder of events is a path such as 'runs/first', got {folder!r}")
        for name, every in (("histograms_every", histograms_every), ("images_every", images_every)):
            if every is not None:
                positive_whole(every, name, least=0)
        events.require_tensorboard()
        self._given = self.folder = None if folder is None else Path(folder)
        self.histograms_every, self.images_every = histograms_every, images_every
        self.texts: dict[str, str] = {}  # more texts to show, by name

    def __getstate__(self) -> dict[str, Any]:
        # A copy has the arguments; the event file belongs to the running training.
        names = ("_given", "folder", "histograms_every", "images_every", "texts")
        return {name: vars(self)[name] for name in names}

    def on_train_begin(self, training: TrainingView) -> None:
        folder = self._given or training.folder or _next_free()
        old = events.own_files(folder)
        if old and training.resumed_from is None and folder != training.folder:
            mend = "give another folder, or remove it"
            raise OutputError(f"{folder} holds events of another training, {old[0].name}: {mend}")
        self.folder, self._began = folder, time.perf_counter()
        self._spent, self._took = 0.0, _USUAL
        self._has_gradients = True
        # The checkpoint has the records; only the event files have the rest.
        kept = events.kept_until(old, training.step) if training.resumed_from is not None else {}
        begin, now = events.written_before(0), training.history[-1].seconds if training.history else 0.0
        before: events.Kept = {(0, value.tag): (begin, value) for value in self._first(training)}
        scalars = {*TAGS.values(), *(value.tag for record in training.history for value in _points(record))}
        before |= {key: pair for key, pair in kept.items() if key[1] not in scalars and key not in before}
        for record in training.history:
            ago = events.written_before(now - record.seconds)
            for value in _points(record):
                key = record.step, value.tag
                before[key] = kept[key][0] if key in kept else ago, value
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {folder}: {error.strerror or error}: give another folder") from None
        self._file = events.EventFile(folder, before)
        cast(Trainer, training.trainer).exits.callback(self._file.flush)  # after an error too

    def on_record(self, training: TrainingView, record: Record) -> None:
        self._file.add(record.step, _points(record))

    def on_epoch_end(self, training: TrainingView) -> None:
        epoch = training.step // training.steps_per_epoch
        if self._is_time_for_histograms(training, epoch):
            self._add_histograms(training)
        if self.images_every and epoch % self.images_every == 0 and training.step < training.steps:
            self._file.add(training.step, _drawn(training))

    def on_train_end(self, training: TrainingView) -> None:
        self._file.add(training.step, () if self.images_every == 0 else _drawn(training))
        self._file.add(training.step, [events.end_of_session()])
        self._file.flush()

    def end_with(self, training: TrainingView, pictures: Iterable[Path]) -> None:
        """End with existing pictures, instead of `on_train_end`."""
        self._file.add(training.step, (events.image(path.stem, path.read_bytes()) for path in pictures))
        self._file.add(training.step, [events.end_of_session()])
        self._file.flush()

    def _first(self, training: TrainingView) -> list[events.Value]:
        """Return the values of the first event: hyper-parameters and texts."""
        figures = ("loss/validation", "accuracy/validation") if training.data.validation else ("loss/train",)
        texts = {"network": summary(training.model), **self.texts}
        made = events.parameters(_parameters(training), figures)
        return made + [events.text(name, _as_code(words)) for name, words in texts.items()]

    def _is_time_for_histograms(self, training: TrainingView, epoch: int) -> bool:
        if self.histograms_every is not None:
            return self.histograms_every > 0 and epoch % self.histograms_every == 0
        seconds = time.perf_counter() - self._began
        # Twice, since the last epoch will add histograms too.
        return training.step == training.steps or self._spent + 2 * self._took <= MOST_SHARE * seconds

    def _add_histograms(self, training: TrainingView) -> None:
        began = time.perf_counter()
        arrays = {f"weights/{name}": array for name, array in training.weights().items()}
        if self._has_gradients:
            try:
                arrays |= {f"gradients/{name}": array for name, array in training.gradients().items()}
            except MemoryError as error:  # the training goes on without them
                self._has_gradients = False
                training.say(f"no histograms of gradients: {error}")
        self._file.add(training.step, (events.histogram(tag, array) for tag, array in arrays.items()))
        self._took = time.perf_counter() - began
        self._spent += self._took


def _points(record: Record) -> list[events.Value]:
    """Return a point of each column that applies, and of each validation metric."""
    numbers = [(tag, getattr(record, column)) for column, tag in TAGS.items()]
    numbers += [(f"{name}/validation", number) for name, number in record.measured]
    return [events.scalar(tag, number) for tag, number in numbers if number == number]


def _drawn(training: TrainingView) -> Iterator[events.Value]:
    """Draw the pictures of a run folder from the validation set, as images."""
    model, data = training.model, training.data
    with tempfile.TemporaryDirectory() as name:
        folder, names = Path(name), list[str]()
        if data.validation is not None:
            report = report_on(model, data.validation)
            if isinstance(report, ClassificationReport):
                names += draw_answers(folder, data.validation, report, data.class_names, f"{data.name}, validation set")
        names += draw_network(folder, model, data, data.name)
        for each in names:
            yield events.image(Path(each).stem, (folder / each).read_bytes())


def _parameters(training: TrainingView) -> dict[str, Any]:
    """Return the hyper-parameters of a training by dotted names, "optimizer.learning_rate"."""
    parts = parts_of(cast(Trainer, training.trainer))
    layers = ", ".join(map(repr, training.model.layers))
    parts |= {"layers": layers, "epochs": training.epochs, "device": training.device, "data": training.data.name}
    if parts["trained_before"] == (0, 0):
        del parts["trained_before"]
    return dict(_flat(parts))


def _flat(parts: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the numbers, bools and strings of nested tables, without empty values."""
    for key, value in parts.items():
        name = f"{within}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, bool | int | float | str):
            yield name, value[:_LONGEST] if isinstance(value, str) else value
        elif value not in (None, [], ()):
            yield name, str(value)[:_LONGEST]


def _as_code(words: str) -> str:
    """Return words as a Markdown code block."""
    return "\n".join(f"    {line}" for line in words.splitlines())


def _next_free() -> Path:
    """Make the next free folder runs/fit-<n>."""
    for number in count(1):
        folder = Path("runs") / f"fit-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputError(f"cannot make {folder}: {error.strerror or error}: give another folder") from None
        return folder
    raise AssertionError("there is always a next number")

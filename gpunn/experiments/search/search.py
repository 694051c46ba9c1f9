"""Search the ranges of an experiment file: train one network per trial, and judge it on the validation set."""

import csv
import io
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpunn.config.outside import allowing
from gpunn.data import Data
from gpunn.errors import DivergenceError, GpunnError, OptionError, OutputError, in_one_line
from gpunn.experiments.experiment import Experiment
from gpunn.experiments.fine_tuning import prepare
from gpunn.experiments.search.pictures import PICTURE, draw
from gpunn.experiments.search.space import SearchPart, Space
from gpunn.experiments.search.study import ERROR, Study, open_study, require_optuna
from gpunn.files import StrPath, write_atomically
from gpunn.saving.checkpointer import Say
from gpunn.train.callbacks import Callback, TrainingView
from gpunn.train.record import COLUMNS, Record
from gpunn.train.trainer import Trainer

TRIALS, BEST = "trials.csv", "best.toml"
_HOPELESS = 3  # failed trials without a good one, after which the search gives up


class _TrialReporter(Callback):
    """Report the metric of each record to a trial, and prune the trial if it is worse than most."""

    def __init__(self, trial: Any, metric: str) -> None:
        self.trial, self.metric, self.records, self.epoch = trial, metric, 0, 0.0

    def on_record(self, training: TrainingView, record: Record) -> None:
        value = record.number(self.metric)
        self.records, self.epoch = self.records + 1, record.epoch
        if math.isfinite(value):
            self.trial.report(value, self.records)
            if self.trial.should_prune():
                raise require_optuna().TrialPruned(f"epoch {record.epoch:.3g}")


class Search:
    """Run the trials of a search, as one of the workers on its folder."""

    def __init__(self, space: Space, part: SearchPart, folder: Path, say: Say, **options: Any) -> None:
        self.space, self.part, self.folder, self.say, self._options = space, part, folder, say, options
        self._data: tuple[Any, Data] | None = None

    def experiment(self, values: dict[str, Any]) -> Experiment:
        """Make the experiment of some values, with the options of the command line."""
        return self.space.experiment(values).with_options(**self._options)

    def run(self, study: Study) -> None:
        """Run trials until the requested number is reached."""
        failed = 0
        while study.count() < self.part.trials:
            trial, values = study.ask()
            chosen = self.space.in_words(values)
            try:
                value, words = self._train(trial, values)
            except require_optuna().TrialPruned as pruned:
                study.prune(trial)
                self._tell(study, trial, f"ended early in {pruned}", chosen)
            except DivergenceError:
                study.prune(trial)
                self._tell(study, trial, "diverged", chosen)
            except (GpunnError, MemoryError) as error:
                study.fail(trial, in_one_line(str(error)))
                self._tell(study, trial, f"failed: {in_one_line(str(error))}", chosen)
                failed += 1
                if failed == _HOPELESS and study.best() is None:
                    raise
            except BaseException:  # a signal, or an error in your own code: run the trial again later
                study.give_back(trial)
                raise
            else:
                study.complete(trial, value)
                self._tell(study, trial, words, chosen)
            self.write(study)

    def _train(self, trial: Any, values: dict[str, Any]) -> tuple[float, str]:
        """Train a network; return the metric of its final weights, and a line about it."""
        experiment = self.experiment(values)
        experiment, data = self._prepared(experiment)
        trainer = experiment.trainer(data, progress=False)
        trial.set_user_attr("device", trainer.backend.device)
        metric = self.part.metric
        trainer.callbacks.add(reporting := _TrialReporter(trial, metric))
        try:
            trainer.run()
        finally:
            trial.set_user_attr("epochs", reporting.epoch)
        record = _last(trainer)
        value = record.number(metric)
        if not math.isfinite(value):
            known = [name for name in (*COLUMNS[2:], *record.metrics) if math.isfinite(record.number(name))]
            raise OptionError(f"metric {metric!r} of [search] is in no record: expected {', '.join(known)}")
        return value, f"{value:.4g}"

    def _prepared(self, experiment: Experiment) -> tuple[Experiment, Data]:
        """Return an experiment and its data, loaded once if all trials share them."""
        key = experiment.data, experiment.training.seed, experiment.start, experiment.layers[:1]
        if self._data is None or self._data[0] != key:
            self._data = None  # frees their memory before the next data take theirs
            prepared_experiment, data = prepare(experiment)
            if data.validation is None or data.validation_is_test:
                mend = "give training samples for it by validation = 0.1 under [data]"
                raise OptionError(f"a search needs validation samples, and the test set stays closed: {mend}")
            # A search must not see the test set, so leave it out.
            self._data = key, Data(data.name, data.train, data.validation, data.class_names)
            return prepared_experiment, self._data[1]
        if experiment.start is not None and not experiment.layers:
            return prepare(experiment)[0], self._data[1]
        return experiment, self._data[1]

    def _tell(self, study: Study, trial: Any, words: str, chosen: str) -> None:
        best = study.best()
        leading = f" (best {best.value:.4g}, trial {best.number})" if best is not None else ""
        self.say(f"trial {trial.number:<5} {words}{leading}: {chosen}")

    def write(self, study: Study) -> None:
        """Write the table of trials and the best experiment so far."""
        rows = [["trial", "state", self.part.metric, "epochs", *self.space.ranges, "error"]]
        for trial in study.trials():
            if trial.state.is_finished():
                chosen = [trial.params.get(name, "") for name in self.space.ranges]
                attrs = trial.user_attrs
                value = "" if trial.value is None else repr(float(trial.value))
                row = [trial.number, trial.state.name.lower(), value, attrs.get("epochs", ""), *chosen]
                rows.append([*map(str, row), attrs.get(ERROR, "")])
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(rows)
        write_atomically(self.folder / TRIALS, table.getvalue().encode())
        if (best := study.best()) is not None:
            values = self.space.suggest(require_optuna().trial.FixedTrial(best.params))
            experiment = self.experiment(values)
            training = replace(experiment.training, device=best.user_attrs.get("device", experiment.training.device))
            found = f"trial {best.number} of {self.part.trials}: {self.part.metric} {best.value:.4g}"
            text = replace(experiment, training=training, description=found).to_toml()
            write_atomically(self.folder / BEST, text.encode())


def _last(trainer: Trainer) -> Record:
    """Return the record of the final weights of a training."""
    best = trainer.monitor.best
    step = best.step if trainer.restores_best and best is not None else trainer.history[-1].step
    return next(record for record in trainer.history if record.step == step)


def search(
    file: str,
    say: Say,
    out: StrPath | None = None,
    storage: str | None = None,
    *,
    trials: int | None = None,
    seed: int | None = None,
    **options: Any,
) -> Path:
    """Search the ranges of a file, or continue that search, and return its folder.

    Args:
        file: Experiment file with ranges.
        say: Function that shows a line.
        out: Folder of the search; None for searches/<name>.
        storage: Database shared by the workers; None for a journal file in the folder.
        trials: Total number of trials; None for that of the file.
        seed: Seed of the choices; None for that of the file.
        options: Arguments of `Experiment.with_options`: data, epochs, device, and so on.
    """
    require_optuna()
    space = Space.read(file)
    part = replace(
        space.search,
        trials=space.search.trials if trials is None else trials,
        seed=space.search.seed if seed is None else seed,
    )
    options = {name: value for name, value in options.items() if value is not None}
    example = space.experiment({name: each.ends[0] for name, each in space.ranges.items()}).with_options(**options)
    folder = Path(out) if out is not None else Path("searches") / example.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {folder}: {error.strerror or error}: give another folder by --out") from None
    made = Search(space, part, folder, say, **options)
    what = f"{space.fingerprint()} {part.seed} {options}"
    with ExitStack() as stack:
        study = stack.enter_context(open_study(folder, storage, space, part, what))
        say(f"search      {part.metric.replace('_', ' ')} by {', '.join(space.ranges)}")
        say(f"folder      {folder} (the same command in another terminal shares the work)")
        if before := study.count():
            say(f"goes on     after {before} of {part.trials} trials")
        try:
            made.run(study)
        except KeyboardInterrupt:
            say("stopped: the same command goes on")
            raise
        _conclude(study, made, say)
    return folder


def _conclude(study: Study, made: Search, say: Callable[[str], None]) -> None:
    best = study.best()
    if best is None:
        raise GpunnError(f"no trial came to its end: see {made.folder / TRIALS}, and begin with narrower ranges")
    made.write(study)
    figures = [trial for trial in study.trials() if trial.state.is_finished()]
    draw(figures, best, study.importances(), [*made.space.ranges], made.part, made.folder / PICTURE)
    chosen = made.space.in_words(best.params)
    say(f"best        {made.part.metric.replace('_', ' ')} {best.value:.4g}, trial {best.number}: {chosen}")
    say(f"pictures    {made.folder / PICTURE}; all trials are in {made.folder / TRIALS}")
    say(f"train it    gpunn train --recipe {made.folder / BEST}{allowing()}  (which opens the test set)")

"""Call the callbacks of a training in their order, and keep their states."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

from gpunn.backend.ranks import world
from gpunn.errors import OptionError
from gpunn.train.callbacks import CHECKPOINTS, YOURS, Callback, Display, StopTraining, TrainingView
from gpunn.train.distributed import first_text


class Callbacks:
    """The callbacks of one training, called one after another.

    The order is that of their turns, and within one that of the list, but that what restores a checkpoint begins first.
    """

    def __init__(self, callbacks: Iterable[Callback], training: TrainingView) -> None:
        self._all, self._training, self._ranks = list[Callback](), training, world()
        self.failure: Exception | None = None  # what one has raised that is not `StopTraining`
        for callback in callbacks:
            self.add(callback)

    def add(self, callback: Callback) -> None:
        """Call one more, after those of its turn that there are."""
        self._all = sorted([*self._all, callback], key=lambda each: each._turn)

    def remove(self, callback: Callback) -> None:
        """Call one no more."""
        self._all.remove(callback)

    def call(self, hook: Callable[..., None], *given: object) -> None:
        """Call a hook, a method of `Callback`, of each."""
        callbacks = self._all
        if hook is Callback.on_train_begin:
            callbacks = sorted(callbacks, key=lambda each: each._turn != CHECKPOINTS)
        self._call(callbacks, hook, *given)

    def after_steps(self, done: int) -> None:
        """Call `on_steps` of those whose turn it is after so many steps."""
        due = (each for each in self._all if each.every_steps is None or done % each.every_steps == 0)
        self._call(due, Callback.on_steps)

    def is_due(self, done: int) -> bool:
        """Whether one is to be called after so many steps, so that no steps beyond may be replayed with these."""
        return any(each.every_steps is not None and done % each.every_steps == 0 for each in self._all)

    @property
    def wait_for_records(self) -> bool:
        """Whether one is told of each record at once: it may stop the training, or look at the network."""
        return any(_waits(each, Callback.on_record) for each in self._all)

    def states(self) -> dict[str, Any]:
        """Return the states of those that have any, by name."""
        made = {}
        for name, callback in self._by_name().items():
            with self.watched():
                if state := callback.state_dict():
                    made[name] = checked_state(state, f"state_dict() of {name}")
        return made

    def load_states(self, states: Mapping[str, Any]) -> list[str]:
        """Give each its state, and return the names of those that are not there."""
        named = self._by_name()
        for name in states.keys() & named.keys():
            if not self._is_called(named[name]):
                continue
            with self.watched():
                named[name].load_state_dict(states[name])
        return sorted(states.keys() - named.keys())

    def _by_name(self) -> dict[str, Callback]:
        """Name each by its class, and from the second of a class on by its number, too."""
        made: dict[str, Callback] = {}
        for callback in self._all:
            name = type(callback).__name__
            numbers = (f"{name} {number}" if number > 1 else name for number in count(1))
            made[next(each for each in numbers if each not in made)] = callback
        return made

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Remember an exception that a callback raises."""
        try:
            yield
        except Exception as error:
            self.failure = error
            raise

    @property
    def displays(self) -> list[Display]:
        """Those that show what the training says."""
        return [each for each in self._all if isinstance(each, Display) and self._is_called(each)]

    def _is_called(self, callback: Callback) -> bool:
        return self._ranks.is_first or not callback.first_rank_only

    def _call(self, callbacks: Iterable[Callback], hook: Callable[..., None], *given: object) -> None:
        for callback in callbacks:
            if _waits(callback, hook):
                self._training.trainer.settle()
            why = self._stopped_by(callback, hook, *given) if self._is_called(callback) else ""
            # Those of gpunn go by the records, which are the same on all ranks; yours may go by anything.
            if callback._turn == YOURS and _has(callback, hook):
                why = first_text(self._ranks, why)
            if why and hook is not Callback.on_train_end:
                self._training.trainer.stop(why)

    def _stopped_by(self, callback: Callback, hook: Callable[..., None], *given: object) -> str:
        """Call a hook, and say why it stops the training; "" where it does not."""
        try:
            with self.watched():
                getattr(callback, hook.__name__)(self._training, *given)
        except StopTraining as stop:
            return stop.reason or f"{type(callback).__name__} asked for it"
        return ""


def _has(callback: Callback, hook: Callable[..., None]) -> bool:
    """Whether a callback has a hook of its own."""
    return getattr(type(callback), hook.__name__) is not getattr(Callback, hook.__name__)


def _waits(callback: Callback, hook: Callable[..., None]) -> bool:
    """Whether all looks are judged before a hook is called; a class to which records may come late says so itself."""
    return _has(callback, hook) and (callback._waits or "_waits" not in vars(type(callback)))


def checked_state(state: Any, what: str) -> Any:
    """Return a state as JSON gives it back; raise OptionError unless that is the same."""
    if not isinstance(state, dict):
        raise OptionError(f"{what} must be a dict, {{'best': 0.5}}, say, got {state!r:.60}")
    try:
        if wrong := _wrong(state):
            raise OptionError(f"{what} must hold dicts with texts as keys, lists, numbers, texts and None, got {wrong}")
        return json.loads(json.dumps(state))
    except (RecursionError, ValueError) as error:
        raise OptionError(f"{what} cannot be kept as JSON: {error}") from None


def _wrong(value: Any) -> str:
    """Name the first part of a state that JSON would not give back as it was, and what to write for it; or ""."""
    if isinstance(value, dict):
        wrong = next((f"the key {key!r:.60}: str(key)" for key in value if type(key) is not str), "")
        return wrong or next(filter(None, map(_wrong, value.values())), "")
    if type(value) is list:
        return next(filter(None, map(_wrong, value)), "")
    if value is None or isinstance(value, bool | float) or type(value) in (int, str):
        return ""
    mends = {"ndarray": "array.tolist()", "tuple": "list(...)", "set": "sorted(...)"}
    mend = mends.get(type(value).__name__, "float(...)" if hasattr(value, "__float__") else "leave it out")
    return f"{type(value).__name__} {value!r:.60}: {mend}"

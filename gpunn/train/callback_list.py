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
    """Call the callbacks of one training in the order of their turns, and of the list within a turn.

    `on_train_begin` is the exception: checkpoints come first, since they restore the training.
    """

    def __init__(self, callbacks: Iterable[Callback], training: TrainingView) -> None:
        self._all, self._training, self._ranks = list[Callback](), training, world()
        self.failure: Exception | None = None  # raised by a callback, other than `StopTraining`
        for callback in callbacks:
            self.add(callback)

    def add(self, callback: Callback) -> None:
        """Add a callback, the last of its turn."""
        self._all = sorted([*self._all, callback], key=lambda each: each._turn)

    def remove(self, callback: Callback) -> None:
        """Remove a callback."""
        self._all.remove(callback)

    def call(self, hook: Callable[..., None], *given: object) -> None:
        """Call a hook, a method of `Callback`, of every callback."""
        callbacks = self._all
        if hook is Callback.on_train_begin:
            callbacks = sorted(callbacks, key=lambda each: each._turn != CHECKPOINTS)
        self._call(callbacks, hook, *given)

    def after_steps(self, done: int) -> None:
        """Call `on_steps` of the callbacks that are due after `done` steps."""
        due = (each for each in self._all if each.every_steps is None or done % each.every_steps == 0)
        self._call(due, Callback.on_steps)

    def is_due(self, done: int) -> bool:
        """Return whether a callback asks for `done` steps; a replay then ends there."""
        return any(each.every_steps is not None and done % each.every_steps == 0 for each in self._all)

    @property
    def wait_for_records(self) -> bool:
        """Return whether a callback needs each record at once, to stop the training or look at the network."""
        return any(_waits(each, Callback.on_record) for each in self._all)

    def states(self) -> dict[str, Any]:
        """Return the states of the callbacks that have one, by name."""
        made = {}
        for name, callback in self._by_name().items():
            with self.watched():
                if state := callback.state_dict():
                    made[name] = checked_state(state, f"state_dict() of {name}")
        return made

    def load_states(self, states: Mapping[str, Any]) -> list[str]:
        """Load the states by name, and return the names without a callback."""
        named = self._by_name()
        for name in states.keys() & named.keys():
            if not self._is_called(named[name]):
                continue
            with self.watched():
                named[name].load_state_dict(states[name])
        return sorted(states.keys() - named.keys())

    def _by_name(self) -> dict[str, Callback]:
        """Name each callback by its class, and number the second of a class and those after it."""
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
        """Callbacks that show the messages of the training."""
        return [each for each in self._all if isinstance(each, Display) and self._is_called(each)]

    def _is_called(self, callback: Callback) -> bool:
        return self._ranks.is_first or not callback.first_rank_only

    def _call(self, callbacks: Iterable[Callback], hook: Callable[..., None], *given: object) -> None:
        for callback in callbacks:
            if _waits(callback, hook):
                self._training.trainer.settle()
            why = self._reason_to_stop(callback, hook, *given) if self._is_called(callback) else ""
            # Callbacks of gpunn decide by the records, which are the same on all ranks; yours may decide by anything.
            if callback._turn == YOURS and _has(callback, hook):
                why = first_text(self._ranks, why)
            if why and hook is not Callback.on_train_end:
                self._training.trainer.stop(why)

    def _reason_to_stop(self, callback: Callback, hook: Callable[..., None], *given: object) -> str:
        """Call a hook, and return its reason to stop the training; "" if it has none."""
        try:
            with self.watched():
                getattr(callback, hook.__name__)(self._training, *given)
        except StopTraining as stop:
            return stop.reason or f"{type(callback).__name__} asked for it"
        return ""


def _has(callback: Callback, hook: Callable[..., None]) -> bool:
    """Return whether a callback overrides a hook."""
    return getattr(type(callback), hook.__name__) is not getattr(Callback, hook.__name__)


def _waits(callback: Callback, hook: Callable[..., None]) -> bool:
    """Return whether pending records are judged before a hook; `_waits` counts only in the very class that sets it."""
    return _has(callback, hook) and (callback._waits or "_waits" not in vars(type(callback)))


def checked_state(state: Any, what: str) -> Any:
    """Return a state as JSON reads it back; raise OptionError unless nothing is lost."""
    if not isinstance(state, dict):
        raise OptionError(f"{what} must be a dict, {{'best': 0.5}}, say, got {state!r:.60}")
    try:
        if wrong := _wrong(state):
            raise OptionError(f"{what} must hold dicts with texts as keys, lists, numbers, texts and None, got {wrong}")
        return json.loads(json.dumps(state))
    except (RecursionError, ValueError) as error:
        raise OptionError(f"{what} cannot be kept as JSON: {error}") from None


def _wrong(value: Any) -> str:
    """Name the first part of a state that JSON would change, and its mend; "" if there is none."""
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

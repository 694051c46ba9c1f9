"""The checkpoints of a run: when one is written, which are kept, and which is the newest whole one."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpunn.errors import CheckpointError, OptionError
from gpunn.files import remove_folder
from gpunn.saving.checkpoint import Checkpoint, DamagedCheckpointError, Origin, open_checkpoint, write_checkpoint
from gpunn.scalars import positive_whole
from gpunn.train.trainer import Trainer

Say = Callable[[str], None]  # shows a line to a person
MOST_SHARE = 0.02  # of the time of a training, for checkpoints by the clock

_NAME = re.compile(r"step-(0|[1-9][0-9]{0,9})")


@dataclass(frozen=True)
class CheckpointPart:
    """`[checkpoints]`: how often they are written, and how many are kept; no number of a training depends on it."""

    every: int | None = None  # steps
    minutes: float = 1.0  # more where writing takes long; 0 for none by the clock
    keep: int = 2

    def __post_init__(self) -> None:
        for name, value in (("every", self.every), ("keep", self.keep)):
            if value is not None:
                positive_whole(value, f"{name} of checkpoints")
        if not 0 <= self.minutes < float("inf"):
            raise OptionError(f"minutes of checkpoints must be 0 or more, got {self.minutes!r}")


class Checkpointer:
    """Writes the checkpoints of a training into a folder, as a plan says; `step` is that of the newest, or None."""

    def __init__(self, folder: Path, trainer: Trainer, origin: Origin, plan: CheckpointPart) -> None:
        self.folder, self._trainer, self.origin, self._plan = folder, trainer, origin, plan
        # The checkpoint that a run resumes is not written again: while it was replaced there would be none.
        self.step: int | None = trainer.done if (folder / f"step-{trainer.done}").is_dir() else None
        self._asked, self._saved, self._took = trainer.done, time.monotonic(), 0.0

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint; to be asked after a step."""
        plan, before, self._asked = self._plan, self._asked, self._trainer.done
        # A device may have been given several steps at once.
        if plan.every is not None and self._asked // plan.every > before // plan.every:
            return True
        return plan.minutes > 0 and time.monotonic() - self._saved >= max(60 * plan.minutes, self._took / MOST_SHARE)

    def save(self) -> None:
        """Write a checkpoint of the training unless there are non-finite numbers, and remove those no longer kept."""
        trainer = self._trainer
        if self.step == trainer.done:
            return
        trainer.check_numbers()
        began = time.monotonic()
        self.folder.mkdir(exist_ok=True)
        write_checkpoint(self.folder / f"step-{trainer.done}", trainer.state(), self.origin, trainer.model)
        self.step = trainer.done
        there = listed(self.folder)
        # A run that diverges resumes from one whose network was still good.
        good = next((step for step, _ in there if step <= trainer.monitor.good.step), None)
        for step, path in there[self._plan.keep :]:
            if step != good:
                remove_folder(path)
        self._saved = time.monotonic()
        self._took = self._saved - began


def listed(folder: Path) -> list[tuple[int, Path]]:
    """List step and path of every checkpoint in a folder, whole or not, the newest first."""
    found = [(_NAME.fullmatch(path.name), path) for path in (folder.iterdir() if folder.is_dir() else ())]
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def newest(folder: Path, say: Say, most: int | None = None) -> Checkpoint | None:
    """Open the newest whole checkpoint, of at most step `most`; None where there is none, damaged or not."""
    there = [path for step, path in listed(folder) if most is None or step <= most]
    for path in there:
        try:
            return open_checkpoint(path)
        except DamagedCheckpointError as error:
            say(f"passed over a damaged checkpoint: {error}")
    if there:
        raise CheckpointError(f"{folder} holds no checkpoint that is whole: begin the run again in another folder")
    return None

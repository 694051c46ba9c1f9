"""Show a profile: as a table, and as bars beside what the machine would need at its best."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from profiler import Part, Profile, profile

from gpunn.backend.limits import size
from gpunn.display.style import FAINT, TRAINING, picture
from gpunn.experiments.experiment import Experiment
from gpunn.files import write_atomically
from gpunn.saving.checkpointer import Say
from gpunn.train.trainer import Trainer

PROFILE, PROFILE_PICTURE = "profile.json", "profile.png"

HEADINGS = ("pass", "stage", "time", "share", "GFLOP/s", "GB/s", "of the limit")


def write_profile(folder: Path, experiment: Experiment, trainer: Trainer, say: Say) -> None:
    """Write and show where the time of a step goes; after the results, which it must not change."""
    profiled = profile(trainer)
    write_atomically(folder / PROFILE, (json.dumps(asdict(profiled), indent=2) + "\n").encode())
    plot_profile(profiled, folder / PROFILE_PICTURE, title=f"a step of {experiment.name} on {trainer.data.name}")
    say(f"\n{profile_table(profiled)}\nprofile        {folder / PROFILE}, {folder / PROFILE_PICTURE}")


def duration(seconds: float) -> str:
    """Write a time with three digits and its unit."""
    for unit, length in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}" if seconds < 1000 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds * 1e6:.2f} µs"


def profile_rows(profile: Profile) -> list[tuple[str, ...]]:
    """Return the lines of the table: each part, and all of them together."""
    rows = [(part.part, part.stage, *_figures([part], profile.seconds)) for part in profile.parts]
    return [*rows, ("all", "", *_figures(profile.parts, profile.seconds))]


def _figures(parts: Sequence[Part], whole: float) -> tuple[str, ...]:
    seconds, flops, nbytes, least = (
        sum(getattr(part, name) for part in parts) for name in ("seconds", "flops", "nbytes", "least_seconds")
    )
    rates = (f"{amount / seconds / 1e9:.3g}" if amount and seconds > 0 else "" for amount in (flops, nbytes))
    limit = f"{least / seconds:.0%}" if least and seconds > 0 else ""
    return duration(seconds), f"{seconds / whole:.1%}", *rates, limit


def profile_notes(profile: Profile) -> list[str]:
    """Return the sentences that the figures are to be read by."""
    precision = profile.precision if profile.dtype == "float32" else profile.dtype
    notes = [
        (
            f"A step of {profile.batch_size} samples in {duration(profile.step_seconds)} as training runs it, "
            f"{duration(profile.seconds)} with its parts timed: means over the faster half of {profile.steps} steps."
        ),
        (
            f"The machine's own: {profile.product_flops / 1e9:,.0f} GFLOP/s in {precision} for a product of "
            f"{profile.product_size:,}², {profile.copy_rate / 1e9:,.1f} GB/s, read and written, for a copy of "
            f"{size(profile.copy_bytes / 2)}."
        ),
        "Of the limit: what these products, or a copy of as many bytes, take here at best, as a share of the time.",
    ]
    if profile.is_replayed:
        notes.append(
            "Timed kernel by kernel: training replays the step as one graph, inside which nothing can be timed."
        )
    return notes


def profile_table(profile: Profile) -> str:
    """Write the parts of a step as a table in plain text."""
    rows = [HEADINGS, *profile_rows(profile)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("─" * width for width in widths))
    lines = []
    for row in rows:
        words = (f"{text:{'<' if at < 2 else '>'}{widths[at]}}" for at, text in enumerate(row))
        lines.append("  ".join(words).rstrip())
    return "\n".join([*lines, *profile_notes(profile)])


def plot_profile(profile: Profile, path: str | os.PathLike[str], *, title: str = "") -> None:
    """Draw a bar for each part: its time, and within it the time at the machine's own rates."""
    unit, scale = ("ms", 1e3) if profile.seconds >= 2e-3 else ("µs", 1e6)
    names = [f"{part.part} {part.stage}".strip() for part in profile.parts]
    measured = [scale * part.seconds for part in profile.parts]
    least = [scale * min(part.seconds, part.least_seconds) for part in profile.parts]
    with picture(path, 8.0, 1.2 + 0.24 * len(names), title) as figure:
        axes = figure.add_subplot()
        axes.barh(range(len(names)), measured, color=FAINT, label="measured")
        axes.barh(range(len(names)), least, color=TRAINING, label="at the machine's own rates of products and copies")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel(f"{unit} of a step of {profile.batch_size} samples ({duration(profile.seconds)})")
        figure.legend(loc="outside lower center", ncols=2)
        axes.grid()

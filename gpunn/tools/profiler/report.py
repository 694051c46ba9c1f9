"""Where a step's time goes, as a table and as bars beside what the machine would need at its best."""

from __future__ import annotations

import os

from gpunn.backend.limits import size
from gpunn.reports.style import FAINT, TRAINING, light_grid, picture
from gpunn.tools.profiler.profile import Part, Profile

HEADINGS = ("pass", "stage", "time", "share", "GFLOP/s", "GB/s", "of the limit")


def duration(seconds: float) -> str:
    """A time with three digits and its unit."""
    for unit, length in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}" if seconds < 1000 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds * 1e6:.2f} µs"


def profile_rows(profile: Profile) -> list[tuple[str, ...]]:
    """The lines of the table: each part, and all of them together."""
    rows = [_row(part.part, part.stage, part.seconds, profile.seconds, *_sums([part])) for part in profile.parts]
    return [*rows, _row("all", "", profile.seconds, profile.seconds, *_sums(profile.parts))]


def _sums(parts: list[Part] | tuple[Part, ...]) -> tuple[int, int, float]:
    return (
        sum(part.flops for part in parts),
        sum(part.nbytes for part in parts),
        sum(part.least_seconds for part in parts),
    )


def _row(
    part: str, stage: str, seconds: float, whole: float, flops: int, nbytes: int, least_seconds: float
) -> tuple[str, ...]:
    def rate(amount: int) -> str:
        return f"{amount / seconds / 1e9:.3g}" if amount and seconds > 0 else ""

    limit = f"{least_seconds / seconds:.0%}" if least_seconds and seconds > 0 else ""
    return part, stage, duration(seconds), f"{seconds / whole:.1%}", rate(flops), rate(nbytes), limit


def profile_notes(profile: Profile) -> list[str]:
    """What the figures are to be read by, a sentence each."""
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
    """The parts of a step, as a table in plain text."""
    rows = [HEADINGS, *profile_rows(profile)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADINGS))]
    rows.insert(1, tuple("─" * width for width in widths))
    lines = (
        "  ".join(
            text.ljust(width) if at < 2 else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "\n".join([*lines, *profile_notes(profile)])


def plot_profile(profile: Profile, path: str | os.PathLike[str], *, title: str = "") -> None:
    """Draw a bar for each part: how long it takes, and of that what the machine's own rates would take.

    Args:
        profile: what was measured.
        path: the PNG to write.
        title: what the picture is of.

    Raises:
        OutputError: if the file cannot be written.
    """
    unit, scale = ("ms", 1e3) if profile.seconds >= 2e-3 else ("µs", 1e6)
    names = [f"{part.part} {part.stage}".strip() for part in profile.parts]
    places = range(len(names))
    with picture(path, 8.0, 1.2 + 0.24 * len(names), title) as figure:
        axes = figure.add_subplot()
        axes.barh(places, [scale * part.seconds for part in profile.parts], color=FAINT, label="measured")
        axes.barh(
            places, [scale * min(part.seconds, part.least_seconds) for part in profile.parts], color=TRAINING,
            label="at the machine's own rates of products and copies",
        )  # fmt: skip
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set_xlabel(f"{unit} of a step of {profile.batch_size} samples ({duration(profile.seconds)})")
        figure.legend(loc="outside lower center", ncols=2)
        light_grid(axes)

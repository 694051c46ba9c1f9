"""Files that were once treated wrongly, a few hundred bytes each: regressions/TARGET/NAME, as a fuzzer has them."""

from pathlib import Path

FOLDER = Path(__file__).parent / "regressions"


def regressions(target: str) -> dict[str, bytes]:
    """What a target was found to be wrong about, by name."""
    folder = FOLDER / target
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.is_dir() else {}

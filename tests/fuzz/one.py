"""One target under atheris, which looks for files that reach code that none has reached before.

python -m fuzz.one TARGET FOLDER RUNS [libFuzzer options]: FOLDER keeps the files that were found to be of interest.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

# Not the loops, of which Numba makes machine code.
with atheris.instrument_imports(
    include=["gpunn", "json", "tomllib", "zipfile", "PIL"], exclude=["gpunn.kernels.numba_loops"]
):
    from fuzz.targets import TARGETS

from fuzz.harness import Target, check, scratch, warm_up
from fuzz.regressions import regressions

_LONGEST = 1 << 14


def prepare(target: Target, folder: Path) -> Path:
    """The folder with the files to begin with, and a dictionary beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    known = [*target.seeds().values(), *regressions(target.name).values()]
    if len(target.wraps) == 1:
        known += [content for make in target.hostile.values() if len(content := make()) <= _LONGEST]
    for number, data in enumerate(known):
        (folder / f"known-{number}").write_bytes(data)
    dictionary = folder.with_suffix(".dict")
    words = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words)
    dictionary.write_text("".join(f'"{word}"\n' for word in words))
    return dictionary


def main(name: str, folder: Path, runs: int, options: list[str]) -> None:
    """Look for findings; ends the process, with an exit code other than 0 where there is one."""
    target = TARGETS[name]
    dictionary = prepare(target, folder)
    with scratch() as place:
        warm_up(target, place)

        def one(data: bytes) -> None:
            check(target, target.file(data), place)

        arguments = [
            f"-runs={runs}", f"-max_len={_LONGEST}", f"-dict={dictionary}", f"-artifact_prefix={folder}-finding-",
            "-timeout=1200", "-rss_limit_mb=3000", "-print_final_stats=1", *options, str(folder),
        ]  # fmt: skip
        atheris.Setup([sys.argv[0], *arguments], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])

"""Fuzz some targets, one after another, and write down what was done: python -m fuzz --help."""

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fuzz.targets import TARGETS

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("atheris", "numpy", "pillow")


def fuzzed(name: str, runs: int, folder: Path, options: list[str]) -> dict[str, Any]:
    """Fuzz one target: executions, seconds, inputs of interest, and the finding, "" where there is none."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.one", name, str(folder / name), str(runs), *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
    )  # fmt: skip
    (folder / f"{name}.log").write_text(done.stdout)
    executions = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stdout)
    finding = re.search(r"(?:Finding|Error|ERROR).*", done.stdout) if done.returncode else None
    return {
        "executions": int(executions[1]) if executions else 0,
        "seconds": round(time.perf_counter() - begun, 1),
        "inputs": sum(1 for _ in (folder / name).iterdir()),
        "finding": (finding[0] if finding else f"exit code {done.returncode}") if done.returncode else "",
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; left out, all")
    parser.add_argument("--runs", type=int, default=100_000, help="executions of each target")
    parser.add_argument("--folder", type=Path, default=_ROOT / "build" / "fuzz", help="for inputs, logs and findings")
    parser.add_argument("--out", type=Path, help="JSON file for what was done")
    parser.add_argument("--seed", type=int, default=1, help="of the fuzzer")
    given = parser.parse_args()
    if unknown := set(given.targets) - TARGETS.keys():
        parser.error(f"unknown targets {', '.join(sorted(unknown))}: expected some of {', '.join(TARGETS)}")
    given.folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in given.targets or TARGETS:
        result = results[name] = fuzzed(name, given.runs, given.folder, [f"-seed={given.seed}"])
        print(
            f"{name:12} {result['executions']:>9,} executions {result['seconds']:>8,.1f} s  {result['finding']}",
            flush=True,
        )
    report = {
        "command": f"scripts/fuzz.sh {' '.join(sys.argv[1:])}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "executions": sum(result["executions"] for result in results.values()),
        "seconds": round(sum(result["seconds"] for result in results.values()), 1),
        "targets": results,
    }
    if given.out:
        given.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{report['executions']:,} executions in {report['seconds']:,.1f} s")
    sys.exit(any(result["finding"] for result in results.values()))


if __name__ == "__main__":
    main()

"""Run every check that needs a GPU, step by step, and write the results as one JSON.

scripts/gpu-check.sh starts it. A run of some steps adds them to the JSON of the same device, driver and libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gpu_steps import Step, steps
from machine import RESULTS, ROOT, commit, machine, refuse_simulated, write_result

KEPT = RESULTS / "gpu"
HOW = {"missing": "not done", "failed": "failed"}


def gpu() -> dict[str, Any]:
    """The device that gpunn takes, its driver and its libraries."""
    from gpunn.backend.cuda import CupyBackend
    from gpunn.backend.devices import select

    backend = select("cuda")
    assert isinstance(backend, CupyBackend)
    runtime = backend.cupy.cuda.runtime
    properties = runtime.getDeviceProperties(backend.index)
    # All GPUs of a machine have one driver.
    asked = ["nvidia-smi", "--id=0", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        driver = ""
    versions = {"driver": runtime.driverGetVersion(), "runtime": runtime.runtimeGetVersion()}
    return {
        "name": properties["name"].decode(),
        "memory_gib": round(properties["totalGlobalMem"] / 2**30, 1),
        "capability": f"{properties['major']}.{properties['minor']}",
        "driver": driver,
        **{f"cuda_{what}": f"{value // 1000}.{value % 1000 // 10}" for what, value in versions.items()},
        "cupy": backend.cupy.__version__,
    }


def begin(out: Path) -> tuple[Path, dict[str, Any]]:
    """Where the JSON goes, and what is in it already."""
    # In a process of its own: this one holds no memory of the device, which may take one process at a time.
    asked = subprocess.run([sys.executable, __file__, "--gpu"], capture_output=True, text=True, check=False)
    if asked.returncode:
        sys.exit((asked.stderr.strip().splitlines() or ["no CUDA device can be used: run gpunn doctor"])[-1])
    about = {"gpu": json.loads(asked.stdout), "machine": machine()}
    refuse_simulated(out, about)
    name = re.sub(r"[^a-z0-9]+", "-", about["gpu"]["name"].lower()).strip("-") + ".json"
    for path in (out / name, KEPT / name):
        if path.is_file() and (known := json.loads(path.read_text("utf-8"))) == about | {"steps": known["steps"]}:
            return out / name, known
    return out / name, about | {"steps": {}}


def ran(command: list[str], log: Path, **variables: str) -> int:
    """Run a command, show what it says, and keep it."""
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | variables, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            file.write(line)
    return process.wait()


def one(step: Step, folder: Path) -> dict[str, Any]:
    """Do one step: whether it passed, or why it could not be done, its seconds and its figures."""
    print(f"\n== {step.name}", flush=True)
    found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "commit": commit()}
    if step.missing:
        found["missing"] = step.missing
        print(f"-- {in_words(found)}", flush=True)
        return found
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run nothing is to be taken for a figure of this one
    folder.mkdir(parents=True)
    begun, log = time.perf_counter(), folder / "log.txt"
    status = ran(step.command, log, **step.variables)
    found["seconds"] = round(time.perf_counter() - begun, 1)
    try:
        found |= step.figures(log.read_text("utf-8"))
    except Exception as error:  # noqa: BLE001 - what one step leaves must not end the others
        # Without the path, which names the machine: this gets onto a page.
        reason = " ".join(str(getattr(error, "strerror", "") or error).split())
        found["failed"] = f"exit code {status}" if status else f"no figures: {reason}"
    if status and "failed" not in found and "missing" not in found:
        found["failed"] = f"exit code {status}"
    print(f"-- {in_words(found)}, {found['seconds']} s", flush=True)
    return found


def in_words(found: dict[str, Any]) -> str:
    """How a step went."""
    return next((f"{how}: {found[key]}" for key, how in HOW.items() if key in found), "passed")


def main() -> int:
    arguments, tests = sys.argv[1:], []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, tests = arguments[:at], arguments[at + 1 :]
    if arguments == ["--gpu"]:
        print(json.dumps(gpu()))
        return 0
    parser = argparse.ArgumentParser(prog="scripts/gpu-check.sh", usage="%(prog)s [--small] [STEP ...] [-- PYTEST ...]")
    parser.add_argument("wanted", nargs="*", metavar="STEP", help="a step, or the first word of several; else all")
    parser.add_argument("--small", action="store_true", help="a little of each step: to see that it runs")
    options = parser.parse_args(arguments)
    usual = ROOT / "bench" / "gpu-check" if options.small else KEPT
    out = Path(os.environ.get("OUT") or usual).resolve()
    logs = out / "logs"
    every = steps(logs, options.small, tests)
    chosen = [step for step in every if not options.wanted or {step.name, step.name.split("-")[0]} & {*options.wanted}]
    if unknown := {*options.wanted} - {word for step in every for word in (step.name, step.name.split("-")[0])}:
        parser.error(f"unknown step {', '.join(sorted(unknown))}: expected {', '.join(step.name for step in every)}")
    path, result = begin(out)
    about, found = result["gpu"], {}
    print(f"{about['name']}, driver {about['driver'] or 'unknown'}, CuPy {about['cupy']}: {path}", flush=True)
    for step in chosen:
        found[step.name] = one(step, logs / step.name) | ({"small": True} if options.small else {})
        result["steps"][step.name] = found[step.name]
        write_result(path, result)  # after each: a run that is cut off leaves what it has done
    print()
    for name, each in found.items():
        print(f"{name:24} {each.get('seconds', 0):8.1f} s  {in_words(each)}")
    failed, missing = ([name for name, each in found.items() if word in each] for word in ("failed", "missing"))
    passed = "all passed" + (f"; {len(missing)} not done" if missing else "")
    print(f"\nfailed: {' '.join(failed)}" if failed else f"\n{passed}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

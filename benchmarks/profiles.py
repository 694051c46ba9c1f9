"""Where the time of gpunn's steps goes in a workload: a profile in a process of its own, after the rounds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from peers import ROOT, WORKERS, WorkerError, environment


def profile_of(folder: Path, device: str, precision: str) -> dict[str, Any]:
    """The profile of a workload that lies in a folder, as a dictionary.

    Raises:
        WorkerError: it could not be taken.
    """
    command = [sys.executable, str(WORKERS / "gpunn_profile.py"), str(folder), device, precision]
    env = environment(sys.executable, WORKERS, WORKERS.parent, ROOT)
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise WorkerError(f"the profile failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    profile: dict[str, Any] = json.loads(done.stdout)
    return profile

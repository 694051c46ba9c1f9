"""Profile gpunn's steps of a workload in a separate process, after the rounds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from peers import ROOT, WORKERS, WorkerError, environment


def profile_of(folder: Path, device: str, precision: str) -> dict[str, Any]:
    """Profile a workload in a folder, and return the profile as a dictionary.

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

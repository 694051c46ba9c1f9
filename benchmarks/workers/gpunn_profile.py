"""Where the time of gpunn's steps goes in a task, as JSON: python workers/gpunn_profile.py FOLDER DEVICE PRECISION."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from gpunn_worker import Gpunn
from profiler import profile
from protocol import Task

if __name__ == "__main__":
    worker = Gpunn(Task(Path(sys.argv[1]), "fit", *sys.argv[2:]))
    json.dump(asdict(profile(worker.trainer)), sys.stdout)

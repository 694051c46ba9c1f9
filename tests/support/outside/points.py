"""A data format: a line a sample, its label first, such as `2: 0.5 -1.25`; registered when this is imported."""

from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn


@gn.register_format(".points")
def read_points(path: Path) -> tuple[Any, Any]:
    rows = [line.split(":") for line in path.read_text().splitlines() if line]
    return np.array([row[1].split() for row in rows], np.float32), np.array([int(row[0]) for row in rows])

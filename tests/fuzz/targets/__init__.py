"""Everything that reads a file, by name."""

import importlib
import importlib.util
from typing import Any

from fuzz.harness import Target
from fuzz.targets import (
    archives,
    checkpoints,
    csv_tables,
    experiments,
    histories,
    idx,
    images,
    models,
    npy,
    npz,
    parquet_tables,
    runs,
)

_MODULES: list[Any] = [
    idx,
    archives,
    npz,
    npy,
    images,
    csv_tables,
    parquet_tables,
    models,
    experiments,
    runs,
    histories,
    checkpoints,
]
if importlib.util.find_spec("onnx"):  # an extra
    _MODULES.append(importlib.import_module("fuzz.targets.onnx_files"))
TARGETS: dict[str, Target] = {module.TARGET.name: module.TARGET for module in _MODULES}

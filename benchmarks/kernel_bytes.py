"""Run a training step of lenet-bn kernel by kernel for ncu to count bytes; write the bytes of arguments as JSON.

ncu ... python benchmarks/kernel_bytes.py [--small] FILE
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from workloads import layers_of, recipe

import gpunn as gn
from gpunn.backend.devices import select
from gpunn.kernels.random import epoch_order
from gpunn.train.arguments import TrainOptions
from gpunn.train.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a batch of 8 instead of 128")
    parser.add_argument("file", type=Path)
    asked = parser.parse_args()
    batch, backend = 8 if asked.small else 128, select("cuda")
    given: Counter[str] = Counter()
    run = backend.run

    def counted(kernel: Any, *arguments: Any) -> None:
        arrays = {id(each): each.nbytes for each in arguments if hasattr(each, "nbytes") and hasattr(each, "strides")}
        given[kernel.name] += sum(arrays.values())  # one that is given twice lies in memory once
        run(kernel, *arguments)

    backend.run = counted  # type: ignore[method-assign]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, 28, 28, 1)).astype(np.uint8)
    data = gn.Data.from_arrays(images, rng.integers(0, 10, batch), validation=0)
    options = TrainOptions(
        optimizer=gn.SGD(0.01, momentum=0.9), batch_size=batch, device=backend, capture=False, progress=False
    )
    trainer = Trainer(gn.Sequential(layers_of(recipe("lenet-bn"))), options, data)
    trainer.step.start_epoch(epoch_order(batch, seed=0, epoch=0), np.full(trainer.step.steps_per_epoch, 0.01))
    trainer.step(batch)
    backend.synchronize()
    asked.file.write_text(json.dumps(given, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()

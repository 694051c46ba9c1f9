"""gpunn as the ranks of an mpiexec, or alone: rounds of the same steps, the time of the slowest rank of each.

mpiexec -n N python workers/gpunn_ranks.py FOLDER ROUNDS
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from gpunn_worker import Gpunn
from protocol import Task, judged

from gpunn.backend.ranks import world


def main() -> None:
    task = Task(Path(sys.argv[1]), "fit", "cpu", "float32")
    ranks, worker, took = world(), Gpunn(task), []
    for _ in range(1 + int(sys.argv[2])):  # the first warms up
        worker.reset(0)
        ranks.any(False)  # all begin together
        began = time.perf_counter()
        worker.run()
        took.append(float(ranks.all_gather(np.array([time.perf_counter() - began])).max()))
    found = judged(worker.outputs(task.inputs[: task.checked]), task.labels[: task.checked])
    if ranks.is_first:
        print(json.dumps({"seconds": took[1:], **found, "device": worker.describe()["device"]}), flush=True)


if __name__ == "__main__":
    main()

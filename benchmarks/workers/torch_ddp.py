"""PyTorch's DistributedDataParallel on gloo, or PyTorch alone: rounds of the same steps, the time of the slowest rank.

RANK=… WORLD_SIZE=… python workers/torch_ddp.py FOLDER ROUNDS
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from protocol import Task, judged
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch_worker import Torch

RANK, SIZE = (int(os.environ.get(name, value)) for name, value in (("RANK", "0"), ("WORLD_SIZE", "1")))


class Shared(Torch):
    """One rank of a training: its share of each batch, by a sampler that gives all of them the order of the task."""

    def _make(self, seed: int) -> None:
        super()._make(seed)
        self.whole = self.net
        if SIZE > 1:
            net: Any = DistributedDataParallel(self.net)
            self.net = net
        share = self.task.batch // SIZE
        batches = self.order[: len(self.order) // self.task.batch * self.task.batch].reshape(-1, SIZE, share)
        self.order = batches[:, RANK].reshape(-1)
        self.share = share

    def _load(self, weights: dict[str, Any]) -> None:
        net, self.net = self.net, getattr(self, "whole", self.net)
        super()._load(weights)
        self.net = net

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self.optimizer.state.clear()  # the velocities

    def _epoch(self) -> None:
        self.net.train()
        for start in range(0, len(self.order), self.share):
            self._step(self.order[start : start + self.share])


def main() -> None:
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    if SIZE > 1:
        store = f"file://{folder / os.environ['GPUNN_STORE']}"
        distributed.init_process_group("gloo", init_method=store, rank=RANK, world_size=SIZE)
    task = Task(folder, "eager", "cpu", "float32")
    worker, took = Shared(task), []
    for _ in range(1 + rounds):  # the first warms up
        worker.reset(0)
        if SIZE > 1:
            distributed.barrier()
        began = time.perf_counter()
        worker.run()
        seconds = torch.tensor(time.perf_counter() - began)
        if SIZE > 1:
            distributed.all_reduce(seconds, distributed.ReduceOp.MAX)
        took.append(float(seconds))
    worker.net = worker.whole
    found = judged(worker.outputs(task.inputs[: task.checked]), task.labels[: task.checked])
    if RANK == 0:
        print(json.dumps({"seconds": took[1:], **found, "version": torch.__version__}), flush=True)
    if SIZE > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()

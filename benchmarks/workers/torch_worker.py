"""PyTorch at work, as its users write it.

Modes: eager, channels_last (the same with images in the layout that its convolutions like better), compile, and graph
(a CUDA graph of the whole step).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from protocol import Task, Worker, serve
from torch import nn
from torch.nn import functional as f


class Mean(nn.Module):
    """The mean of each map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


class Residual(nn.Module):
    """x + f(x), with a convolution 1×1 where shapes differ."""

    def __init__(self, layers: nn.Sequential, projection: nn.Module | None) -> None:
        super().__init__()
        self.layers, self.projection = layers, projection

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) + (x if self.projection is None else self.projection(x))

    def __getitem__(self, place: str) -> nn.Module:
        return self.projection if place == "projection" else self.layers[int(place)]


def module(layer: dict[str, Any], weights: dict[str, Any], place: str, width: int) -> nn.Module:
    """One layer as PyTorch's; `width` is the number of channels or features that come in, < 0 for features."""
    kind = layer["type"]
    if kind == "Dense":
        return nn.Linear(weights[f"{place}.w"].shape[1], layer["units"])
    if kind == "Conv2D":
        padding = layer.get("padding", 0)
        padding = layer["size"] // 2 if padding == "same" else padding
        bias = layer.get("bias") is not False
        stride, groups = layer.get("stride", 1), layer.get("groups", 1)
        return nn.Conv2d(width, layer["filters"], layer["size"], stride, padding, groups=groups, bias=bias)
    if kind == "BatchNorm":
        return nn.BatchNorm1d(-width) if width < 0 else nn.BatchNorm2d(width)
    if kind == "Dropout":
        return nn.Dropout(layer["p"])
    if kind == "Residual":
        inner, filters = network(layer["layers"], weights, f"{place}.", width)
        projection = None
        if f"{place}.projection.w" in weights:
            stride = math.prod(each.get("stride", 1) for each in layer["layers"])
            projection = nn.Conv2d(width, filters, 1, stride, bias=False)
        return Residual(inner, projection)
    known = {"ReLU": nn.ReLU, "Sigmoid": nn.Sigmoid, "MaxPool2D": lambda: nn.MaxPool2d(2), "Flatten": nn.Flatten}
    return (known | {"GlobalAveragePool2D": Mean})[kind]()


def network(
    layers: list[dict[str, Any]], weights: dict[str, Any], before: str, width: int
) -> tuple[nn.Sequential, int]:
    """The network of some layers, and the number of its channels, or of features as a number below 0."""
    modules = []
    for number, layer in enumerate(layers):
        made = module(layer, weights, f"{before}{number}", width)
        modules.append(made)
        if layer["type"] == "Dense":
            width = -layer["units"]
        elif layer["type"] == "Residual":
            last = [each["filters"] for each in layer["layers"] if each["type"] == "Conv2D"]
            width = last[-1] if last else width
        width = layer.get("filters", width)
    return nn.Sequential(*modules), width


class Torch(Worker):
    def __init__(self, task: Task) -> None:
        self.task = task
        self.device = torch.device(task.device)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = task.precision == "tf32"
        torch.backends.cudnn.benchmark = True
        self._make(0)

    def _make(self, seed: int) -> None:
        task = self.task
        self.data = self._bytes(task.inputs)
        self.labels = torch.from_numpy(task.labels.astype(np.int64)).to(self.device)
        weights = task.weights(seed)
        width = task.shape[2] if task.is_images else -math.prod(task.shape)
        self.net = network(task.layers, weights, "", width)[0].to(self.device)
        if task.mode == "channels_last":
            self.net = self.net.to(memory_format=torch.channels_last)
        self._load(weights)
        decayed = [p for p in self.net.parameters() if p.ndim > 1]
        others = [p for p in self.net.parameters() if p.ndim == 1]
        groups = [{"params": decayed, "weight_decay": task.decay}, {"params": others}] if task.decay else [
            {"params": list(self.net.parameters())}
        ]  # fmt: skip
        # The fused update is PyTorch's fastest, on the CPU too.
        self.optimizer = torch.optim.SGD(
            groups, lr=task.rate, momentum=task.momentum, nesterov=task.momentum > 0, fused=True
        )
        self.forward, self.probabilities = self._cost, self._softmax
        if task.mode == "compile":
            self.forward, self.probabilities = torch.compile(self._cost), torch.compile(self._softmax)
        self.order = torch.from_numpy(task.order(seed).astype(np.int64)).to(self.device)
        self.graph: Any = None

    def _bytes(self, inputs: Any) -> torch.Tensor:
        x = torch.from_numpy(inputs)
        if not self.task.is_images:
            return x.reshape(len(x), -1).to(self.device)
        layout = torch.channels_last if self.task.mode == "channels_last" else torch.contiguous_format
        return x.permute(0, 3, 1, 2).contiguous(memory_format=layout).to(self.device)

    def _load(self, weights: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, value in weights.items():
                *places, letter = name.split(".")
                part = self.net[int(places[0])]
                for place in places[1:]:
                    part = part[place]
                target = part.weight if letter in ("w", "gamma") else part.bias
                target.copy_(torch.from_numpy(value))
        for part in self.net.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.reset_running_stats()

    def _cost(self, index: torch.Tensor) -> torch.Tensor:
        x = self.data[index].to(torch.float32) / 255
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.task.precision == "bfloat16"):
            return f.cross_entropy(self.net(x), self.labels[index])

    def _step(self, index: torch.Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.forward(index).backward()
        self.optimizer.step()

    def describe(self) -> dict[str, Any]:
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        about = {"version": torch.__version__, "threads": torch.get_num_threads(), "device": name}
        return about | {"precision": self.task.precision}

    def reset(self, seed: int) -> None:
        self.seed = seed
        torch.manual_seed(seed)
        if self.task.kind != "train":
            self._load(self.task.weights(seed))
        if self.task.mode == "graph" and self.graph is None:
            self._capture()
            self._load(self.task.weights(seed))
        self._wait()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _capture(self) -> None:
        """The whole step as one graph, which reads the indices of its batch from a buffer."""
        self.index = torch.zeros(self.task.batch, dtype=torch.int64, device=self.device)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._step(self.index)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self.graph):
            self.forward(self.index).backward()
            self.optimizer.step()

    def run(self) -> Any:
        task = self.task
        if task.kind == "predict":
            self.net.eval()
            for _ in range(task.steps):
                probabilities = self._predict(task.inputs)
            return probabilities
        if task.kind == "train":
            self._make(self.seed)
        self._epoch()
        if task.test_inputs is not None:
            self.outputs(task.test_inputs)
        return None

    def _epoch(self) -> None:
        task = self.task
        self.net.train()
        for number, start in enumerate(range(0, len(self.order), task.batch)):
            index = self.order[start : start + task.batch]
            if self.graph is not None:
                self.index.copy_(index)
                self.graph.replay()
                continue
            if task.peak:
                for group in self.optimizer.param_groups:
                    group["lr"] = float(task.rates[number])
            self._step(index)
        self._wait()

    @torch.inference_mode()
    def _predict(self, inputs: Any) -> Any:
        """Probabilities for images in host memory, as an array there."""
        return self.probabilities(self._bytes(inputs)).cpu().numpy()

    def _softmax(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.net(pictures.to(torch.float32) / 255), 1)

    @torch.inference_mode()
    def outputs(self, inputs: Any) -> Any:
        self.net.eval()
        parts = (inputs[start : start + 1000] for start in range(0, len(inputs), 1000))
        return np.concatenate([self.net(self._bytes(part).to(torch.float32) / 255).cpu().numpy() for part in parts])

    def device_bytes(self) -> int:
        return torch.cuda.max_memory_reserved() if self.device.type == "cuda" else 0


if __name__ == "__main__":
    serve(Torch)

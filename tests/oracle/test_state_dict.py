"""Weights of PyTorch models in gpunn's networks and back: the same outputs, and the same training from there."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.paths import ROOT

import gpunn as gn
from gpunn.kernels.random import epoch_order

SHAPE, COUNT, BATCH, EPOCHS = (20, 20, 1), 160, 32, 20  # 100 steps
DTYPES = ("float32", "float64")


def lenet(torch: Any, dtype: str) -> Any:
    """LeNet with BatchNorm as people write it in PyTorch, used for a while, so that no statistic is a round number."""
    nn = torch.nn

    class LeNet(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm2d(6)
            self.conv2, self.bn2 = nn.Conv2d(6, 16, 5, bias=False), nn.BatchNorm2d(16)
            self.fc1, self.bn3 = nn.Linear(16 * 3 * 3, 40), nn.BatchNorm1d(40)
            self.fc2 = nn.Linear(40, 10)

        def forward(self, x: Any) -> Any:
            x = torch.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 2)
            x = torch.max_pool2d(torch.relu(self.bn2(self.conv2(x))), 2)
            return self.fc2(torch.relu(self.bn3(self.fc1(x.flatten(1)))))

    torch.manual_seed(0)
    module = LeNet().to(getattr(torch, dtype)).train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(8, 1, *SHAPE[:2], dtype=getattr(torch, dtype)))
    return module


def ours(dtype: str) -> gn.Sequential:
    layers = [
        gn.Conv2D(6, 5, padding=2), gn.BatchNorm(), gn.ReLU(), gn.MaxPool2D(2),
        gn.Conv2D(16, 5, bias=False), gn.BatchNorm(), gn.ReLU(), gn.MaxPool2D(2),
        gn.Flatten(), gn.Dense(40), gn.BatchNorm(), gn.ReLU(), gn.Dense(10),
    ]  # fmt: skip
    return gn.Sequential(layers).build(SHAPE, BATCH, "cpu", dtype)


def inputs(count: int = COUNT) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, *SHAPE)), rng.integers(0, 10, count)


def first(x: Any, dtype: str, torch: Any) -> Any:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2).astype(dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", ["mapping", "file", "names"])
def test_a_lenet_of_pytorch_answers_the_same(torch: Any, tmp_path: Path, dtype: str, way: str) -> None:
    module, model = lenet(torch, dtype).eval(), ours(dtype)
    source: Any = module.state_dict()
    if way == "file":
        save_file({name: value.numpy() for name, value in source.items()}, source := tmp_path / "lenet.safetensors")
    names = ["conv1", "bn1", "conv2", "bn2", "fc1", "bn3", "fc2"]
    found = gn.load_state_dict(model, source, names if way == "names" else None)
    assert list(found.values()) == names
    x, _ = inputs()
    with torch.no_grad():
        expected = module(first(x, dtype, torch)).numpy()
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(model.predict_proba(x.astype(dtype)), expected, atol=tolerance, rtol=tolerance)


def test_a_hundred_steps_from_there_are_the_same(torch: Any) -> None:
    """SGD with momentum in float64: weights and running averages, equal to 1e-9."""
    module, model = lenet(torch, "float64"), ours("float64")
    gn.load_state_dict(model, module.state_dict())
    x, t = inputs()
    options: dict[str, Any] = {"epochs": EPOCHS, "batch_size": BATCH, "dtype": "float64", "seed": 5, "device": "cpu"}
    data = gn.Data("x", gn.Samples(x, t, classes=10), None, tuple("0123456789"))
    model.fit(data, optimizer=gn.SGD(0.02, momentum=0.9), progress=False, **options)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9)
    images, labels, steps = first(x, "float64", torch), torch.from_numpy(t), 0
    for epoch in range(EPOCHS):
        order = epoch_order(COUNT, seed=5, epoch=epoch)
        for start in range(0, COUNT, BATCH):
            rows = torch.from_numpy(order[start : start + BATCH].astype(np.int64))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(images[rows]), labels[rows]).backward()
            optimizer.step()
            steps += 1
    assert steps == 100
    theirs, names = module.state_dict(), ["conv1", "bn1", "conv2", "bn2", "fc1", "bn3", "fc2"]
    found = model.state_dict(names)
    assert found.keys() == theirs.keys()
    for name, value in found.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(value, theirs[name].numpy(), rtol=1e-9, atol=1e-9, err_msg=name)


def test_our_state_dict_is_loaded_by_pytorch(torch: Any) -> None:
    nn, model = torch.nn, ours("float32")
    x, t = inputs()
    model.fit(x.astype(np.float32), t, epochs=1, device="cpu", progress=False)
    theirs = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(144, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 10),
    ).eval()  # fmt: skip
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in model.state_dict().items()})
    with torch.no_grad():
        expected = torch.softmax(theirs(first(x, "float32", torch)), dim=1).numpy()
    np.testing.assert_allclose(model.predict_proba(x.astype(np.float32)), expected, atol=1e-5)


def test_other_layers_with_weights_move_over(torch: Any) -> None:
    nn = torch.nn
    theirs = nn.Sequential(
        nn.ConvTranspose2d(4, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=3), nn.BatchNorm2d(6, affine=False),
        nn.Flatten(), nn.Linear(6 * 7 * 7, 5), nn.LayerNorm(5), nn.Linear(5, 2),
    ).eval()  # fmt: skip
    model = gn.Sequential([
        gn.ConvTranspose2D(6, 3, stride=2), gn.ReLU(), gn.Conv2D(6, 3, groups=3), gn.BatchNorm(),
        gn.Flatten(), gn.Dense(5), gn.LayerNorm(), gn.Dense(2),
    ]).build((4, 4, 4), 8, "cpu")  # fmt: skip
    gn.load_state_dict(model, theirs.state_dict())
    x = np.random.default_rng(0).normal(size=(8, 4, 4, 4)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(first(x, "float32", torch)).numpy()
    np.testing.assert_allclose(model.forward(x), expected, atol=1e-5)


def test_an_embedding_moves_over_and_what_stands_behind_its_flatten_turned(torch: Any) -> None:
    nn = torch.nn
    theirs = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(3 * 4, 5)).eval()
    model = gn.Sequential([gn.Embedding(7, 4), gn.Flatten(), gn.Dense(5)]).build((3,), 8, "cpu")
    source = theirs.state_dict()
    source["2.weight"] = source["2.weight"].reshape(5, 3, 4).transpose(1, 2).reshape(5, 12)
    gn.load_state_dict(model, source)
    x = np.random.default_rng(0).integers(0, 7, (8, 3))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(model.forward(x), expected, atol=1e-5)


def test_parameters_of_bfloat16_and_ones_that_want_a_gradient_are_read(torch: Any) -> None:
    linear, model = torch.nn.Linear(3, 2), gn.Sequential([gn.Dense(2)]).build((3,), 4, "cpu")
    gn.load_state_dict(model, dict(linear.named_parameters()))
    np.testing.assert_array_equal(model.parameters["dense1.w"].value, linear.weight.detach().numpy())
    gn.load_state_dict(model, linear.bfloat16().state_dict())
    np.testing.assert_array_equal(model.parameters["dense1.w"].value, linear.weight.detach().float().numpy())


def test_memory_is_shared_in_both_directions(torch: Any) -> None:
    """Inputs, outputs and parameters by DLPack, without a copy."""
    model = gn.Sequential([gn.Dense(2)]).build((3,), 4, "cpu")
    parameter = model.parameters["dense1.w"]
    tensor = torch.from_dlpack(parameter)
    assert tensor.data_ptr() == torch.from_dlpack(parameter.value).data_ptr() == parameter.value.ctypes.data
    tensor.mul_(0).add_(1)  # as an optimizer of theirs changes it
    x = torch.randn(4, 3)
    y = torch.from_dlpack(model.forward(x))
    np.testing.assert_allclose(y.numpy(), np.stack([x.numpy().sum(axis=1)] * 2, axis=1), rtol=1e-6)
    gradient = torch.from_dlpack(parameter.grad)
    model.backward(np.ones((4, 2), np.float32))
    np.testing.assert_allclose(gradient.numpy()[0], x.numpy().sum(axis=0), rtol=1e-6)


def test_tensors_are_taken_wherever_arrays_are(torch: Any) -> None:
    x, t = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    model = gn.Sequential([gn.Dense(2)])
    options: dict[str, Any] = {"epochs": 1, "device": "cpu", "progress": False}
    model.fit(x, t, **options)
    twin = gn.Sequential([gn.Dense(2)])
    twin.fit(x.numpy(), t.numpy(), **options)
    for given in (x, x.clone().requires_grad_(), x.half().float(), x.t().contiguous().t()):
        np.testing.assert_allclose(model.predict_proba(given), twin.predict_proba(x.numpy()), atol=1e-3)
    assert repr(model.evaluate(x, t)) == repr(twin.evaluate(x.numpy(), t.numpy()))
    np.testing.assert_array_equal(model.predict(x), twin.predict(x.numpy()))


@pytest.mark.parametrize(
    ("made", "mend"),
    [
        (lambda torch: torch.randn(4, 3).bfloat16(), "float"),
        (lambda torch: torch.randn(4, 3).to_sparse(), "dense"),
        (lambda torch: torch.empty(4, 3, device="meta"), "cpu"),
        (lambda torch: torch.randn(4, 3).to(torch.complex64), "numbers"),
    ],
    ids=["bfloat16", "sparse", "meta", "complex"],
)
def test_tensors_that_cannot_be_taken_are_refused_in_one_line(torch: Any, made: Any, mend: str) -> None:
    model = gn.Sequential([gn.Dense(2)]).build((3,), 4, "cpu")
    for call in (model.predict, model.forward, lambda x: model.fit(x, [0, 1, 0, 1], device="cpu", progress=False)):
        with pytest.raises(gn.GpunnError, match=mend) as caught:
            call(made(torch))
        assert "\n" not in str(caught.value)


def test_the_names_of_pytorch_on_the_page_are_there(torch: Any) -> None:
    page = (ROOT / "docs" / "coming-from.md").read_text("utf-8")
    for where, module in (("nn", torch.nn), ("optim", torch.optim), ("init", torch.nn.init)):
        names = set(re.findall(rf"`{where}\.(\w+)", page))
        assert names
        assert [name for name in names if not hasattr(module, name)] == []
    for name in ("StepLR", "CosineAnnealingLR"):
        assert name in page
        assert hasattr(torch.optim.lr_scheduler, name)

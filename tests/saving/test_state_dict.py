"""Weights by PyTorch's names: which module goes to which layer, and what is refused (with PyTorch: tests/oracle)."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.harness import one_line

import gpunn as gn
from gpunn.errors import DataError, GpunnError, ModelFileError, OptionError, ShapeError


def network(seed: int = 0) -> gn.Sequential:
    layers = [gn.Conv2D(3, 3), gn.BatchNorm(), gn.ReLU(), gn.Flatten(), gn.Dense(4), gn.LayerNorm(), gn.Dense(2)]
    return gn.Sequential(layers).build((5, 5, 2), 8, "cpu", seed=seed)


def nested(seed: int = 0) -> gn.Sequential:
    inner = [gn.Conv2D(4, 3, padding="same"), gn.BatchNorm()]
    beside = gn.Concatenate([gn.Conv2D(2, 1)], [gn.ReLU(), gn.Conv2D(3, 1)])
    layers = [gn.Chain([gn.ReLU(), gn.Conv2D(2, 1)]), gn.Residual(inner), beside, gn.Flatten(), gn.Dense(2)]
    return gn.Sequential(layers).build((5, 5, 2), 8, "cpu", seed=seed)


X = np.random.default_rng(0).normal(size=(6, 5, 5, 2)).astype(np.float32)


def test_the_names_are_those_of_a_sequential_of_pytorch() -> None:
    found = network().state_dict()
    assert {name: value.shape for name, value in found.items()} == {
        "0.weight": (3, 2, 3, 3), "0.bias": (3,),
        "1.weight": (3,), "1.bias": (3,), "1.running_mean": (3,), "1.running_var": (3,), "1.num_batches_tracked": (),
        "4.weight": (4, 27), "4.bias": (4,), "5.weight": (4,), "5.bias": (4,), "6.weight": (2, 4), "6.bias": (2,),
    }  # fmt: skip
    assert found["1.num_batches_tracked"].dtype == np.int64
    assert [*nested().state_dict()] == [
        "0.1.weight", "0.1.bias", "1.0.weight", "1.0.bias", "1.1.weight", "1.1.bias", "1.1.running_mean",
        "1.1.running_var", "1.1.num_batches_tracked", "1.projection.weight", "2.0.0.weight", "2.0.0.bias",
        "2.1.1.weight", "2.1.1.bias", "4.weight", "4.bias",
    ]  # fmt: skip


@pytest.mark.parametrize("made", [network, nested])
@pytest.mark.parametrize("way", ["mapping", "file", "npz"])
def test_a_network_takes_what_another_gave(tmp_path: Path, made: Any, way: str) -> None:
    one, other = made(1), made(2)
    source: Any = one.state_dict()
    if way == "file":
        save_file(source, source := tmp_path / "a.safetensors")
    elif way == "npz":
        np.savez(path := tmp_path / "a.npz", **source)
        source = np.load(path)
    assert not np.array_equal(one.predict_proba(X), other.predict_proba(X))
    found = gn.load_state_dict(other, source)
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    assert [*found.values()] == [*dict.fromkeys(name.rpartition(".")[0] for name in one.state_dict())]


def test_they_are_copies() -> None:
    model = network()
    found, before = model.state_dict(), model.predict_proba(X)
    for value in found.values():
        value[...] = 7
    np.testing.assert_array_equal(model.predict_proba(X), before)
    gn.load_state_dict(model, found)
    after = model.predict_proba(X)
    for value in found.values():
        value[...] = 5
    np.testing.assert_array_equal(model.predict_proba(X), after)


def test_modules_are_found_by_kind_and_shapes_in_their_order() -> None:
    model = gn.Sequential([gn.Dense(3), gn.ReLU(), gn.Dense(3), gn.Dense(3), gn.Dense(2)]).build((3,), 4, "cpu")
    given = {}
    for number, name in enumerate(["encoder", "middle", "decoder"]):
        given |= {f"net.{name}.weight": np.full((3, 3), number), f"net.{name}.bias": np.full(3, number)}
    given = {"head.weight": np.ones((2, 3)), "head.bias": np.zeros(2), **given}
    found = gn.load_state_dict(model, given)
    assert [*found.items()] == [
        ("dense1", "net.encoder"), ("dense2", "net.middle"), ("dense3", "net.decoder"), ("dense4", "head"),
    ]  # fmt: skip
    assert float(model.parameters["dense3.w"].value[0, 0]) == 2


def test_in_a_file_modules_that_are_alike_need_numbers_or_names(tmp_path: Path) -> None:
    model = gn.Sequential([gn.Dense(3), gn.Dense(3)]).build((3,), 4, "cpu")

    def file(*names: str) -> Path:
        arrays = {f"{name}.bias": np.full(3, number, np.float32) for number, name in enumerate(names)}
        arrays |= {f"{name}.weight": np.zeros((3, 3), np.float32) for name in names}
        save_file(arrays, path := tmp_path / "a.safetensors")
        return path

    assert [*gn.load_state_dict(model, file("fc9", "fc10")).values()] == ["fc9", "fc10"]
    path = file("encoder", "decoder")
    with pytest.raises(OptionError, match=r"names=\[") as caught:
        gn.load_state_dict(model, path)
    one_line(caught.value)
    gn.load_state_dict(model, path, names=["encoder", "decoder"])
    assert [float(model.parameters[f"dense{n}.b"].value[0]) for n in (1, 2)] == [0, 1]


def test_a_module_alone_and_half_precision(tmp_path: Path) -> None:
    model = gn.Sequential([gn.Dense(2)]).build((3,), 4, "cpu", "float64")
    weight = np.arange(6).reshape(2, 3) / 4
    gn.load_state_dict(model, {"weight": weight.astype(np.float16), "bias": [1, 2]})
    np.testing.assert_array_equal(model.parameters["dense1.w"].value, weight)
    np.testing.assert_array_equal(model.parameters["dense1.b"].value, [1, 2])
    # bfloat16 as safetensors writes it: the upper half of a float32.
    upper = (weight.astype("<f4").view(np.uint32) >> 16).astype("<u2").tobytes()
    header = b'{"bias":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},'
    header += b'"weight":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]}}'
    path = tmp_path / "half.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\x80\x3f\x00\x40" + upper)
    model = gn.Sequential([gn.Dense(2)]).build((3,), 4, "cpu")
    gn.load_state_dict(model, path)
    np.testing.assert_array_equal(model.parameters["dense1.w"].value, weight)
    np.testing.assert_array_equal(model.parameters["dense1.b"].value, [1, 2])


def test_names_of_ones_own_are_written_and_read() -> None:
    names = ["conv", "bn", "fc1", "norm", "fc2"]
    found = network(1).state_dict(names)
    assert "bn.running_var" in found
    other = network(2)
    assert [*gn.load_state_dict(other, found, names).values()] == names
    np.testing.assert_array_equal(other.predict_proba(X), network(1).predict_proba(X))


def test_safetensors_reads_what_is_written(tmp_path: Path) -> None:
    save_file(network().state_dict(), path := tmp_path / "a.safetensors")
    assert load_file(path).keys() == network().state_dict().keys()


def test_a_training_goes_on_from_there_with_new_means() -> None:
    x, t = X, np.arange(6) % 2
    options: dict[str, Any] = {"epochs": 1, "device": "cpu", "progress": False, "optimizer": "adam"}
    one, other = network(1), network(1)
    before = one.state_dict()
    one.fit(x, t, **options)
    gn.load_state_dict(one, before)
    one.count_on(0, 0)
    one.fit(x, t, **options)
    other.fit(x, t, **options)
    np.testing.assert_array_equal(one.predict_proba(x), other.predict_proba(x))


def changed(**values: Any) -> dict[str, Any]:
    found: dict[str, Any] = network().state_dict()
    return {name: value for name, value in {**found, **values}.items() if value is not None}


WRONG: dict[str, tuple[Any, type[GpunnError], str]] = {
    "none": (None, OptionError, "state dict"),
    "list": ([1], OptionError, "state dict"),
    "empty": ({}, ShapeError, "no module fits conv1"),
    "shape": (changed(**{"4.weight": np.zeros((4, 26))}), ShapeError, "4×26"),
    "no bias": (changed(**{"4.bias": None}), ShapeError, "4.*weight 4×27, and dense1 takes"),
    "no statistics": (changed(**{"1.running_var": None}), ShapeError, "running_var"),
    "one more": (changed(**{"9.weight": np.zeros(3)}), ShapeError, "left over"),
    "another word": (changed(**{"4.scale": np.zeros(3)}), ShapeError, "scale"),
    "within": ({"state_dict": {"0.weight": 1}}, DataError, "is in it"),
    "text": (changed(**{"4.weight": "a"}), DataError, "4.weight"),
    "key": ({3: np.zeros(2)}, DataError, "names of text"),
    "no file": ("nothing.safetensors", ModelFileError, "cannot be read"),
    "folder": (".", OptionError, "path"),
    "no path": ("", OptionError, "path"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_said_in_one_line_and_changes_nothing(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (source, kind, match), model = WRONG[what], network()
    before = model.predict_proba(X)
    with pytest.raises(kind, match=match) as caught:
        gn.load_state_dict(model, source)
    one_line(caught.value)
    np.testing.assert_array_equal(model.predict_proba(X), before)


@pytest.mark.parametrize("content", [b"PK\x03\x04 zip", b"\x80\x02}q\x00.", b"", b"\xff" * 40], ids=str)
def test_files_of_other_kinds_are_refused(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "model.pt").write_bytes(content)
    mend = "safetensors.torch.save_file" if content[:1] in (b"P", b"\x80") else "no safetensors file"
    with pytest.raises(ModelFileError, match=mend) as caught:
        gn.load_state_dict(network(), path)
    one_line(caught.value)


def test_a_file_of_gpunn_is_named(tmp_path: Path) -> None:
    (model := network()).save(path := tmp_path / "a.safetensors")
    with pytest.raises(ModelFileError, match="load_model"):
        gn.load_state_dict(model, path)


@pytest.mark.parametrize(
    "names", [["a"], ["a"] * 5, "abcde", [1, 2, 3, 4, 5], ["a", "b", "c", "d", ""], ["x"] * 4 + ["y"]]
)
def test_names_are_one_for_each_layer(names: Any) -> None:
    for call in (lambda: network().state_dict(names), lambda: gn.load_state_dict(network(), changed(), names)):
        with pytest.raises(OptionError, match="5 different texts"):
            call()
    with pytest.raises(DataError, match="no module 'a'"):
        gn.load_state_dict(network(), changed(), list("abcde"))


def test_a_network_that_is_not_built_says_so() -> None:
    model = gn.Sequential([gn.Dense(2)])
    for call in (model.state_dict, lambda: gn.load_state_dict(model, {})):
        with pytest.raises(GpunnError, match="not built"):
            call()
    with pytest.raises(OptionError, match="network"):
        gn.load_state_dict("model", {})  # type: ignore[arg-type]


def test_other_threads_wait() -> None:
    model, done = network(), threading.Event()
    with model.lock:
        thread = threading.Thread(target=lambda: (gn.load_state_dict(model, changed()), done.set()))
        thread.start()
        assert not done.wait(0.05)
    thread.join()
    assert done.is_set()

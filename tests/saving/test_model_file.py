"""Models as files: what is saved comes back to the byte, and a damaged or hostile file is refused in one line."""

import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save
from support.harness import DTYPES, one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.config import to_built_config
from gpunn.errors import DeviceError, GpunnError, MemoryShortageError, ModelFileError, OptionError, OutputError


def a_model(backend: Backend | str = "cpu", dtype: str = "float32") -> gn.Sequential:
    model = gn.Sequential([gn.Dense(5, gn.Normal(0.3), bias=0.25), gn.LeakyReLU(0.2), gn.Dense(3)]).build(
        (4,), 8, backend, dtype, 3
    )
    model.loss, model.class_names, model.input_scale = gn.SoftmaxCrossEntropy(), ("a", "b", "ç"), 1 / 255
    return model


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """A good file, its description and tensors changed by hand."""
    a_model().save(path)
    arrays = load_file(path)
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    description = json.loads(header["__metadata__"]["gpunn"])
    change(description, arrays)
    path.write_bytes(save(arrays, metadata={"gpunn": json.dumps(description)}))
    return path


def refused(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        gn.load_model(path, "cpu")
    assert caught.value.__cause__ is None
    message = one_line(caught.value)
    assert str(path) in message
    return message


# Round trips


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_comes_back_to_the_byte(backend: Backend, dtype: str, tmp_path: Path) -> None:
    model, path = a_model(backend, dtype), tmp_path / "model.safetensors"
    model.save(path)
    again = gn.load_model(path, backend.device)
    assert again.dtype == dtype
    assert (again.input_shape, again.class_names, again.input_scale) == ((4,), ("a", "b", "ç"), 1 / 255)
    assert [to_built_config(layer) for layer in again.layers] == [to_built_config(layer) for layer in model.layers]
    assert isinstance(again.loss, gn.SoftmaxCrossEntropy)
    for name, value in model.parameters.to_host().items():
        assert again.parameters.to_host()[name].tobytes() == value.tobytes()
    x = np.random.default_rng(0).integers(0, 256, (9, 4)).astype(np.uint8)
    assert again.predict_proba(x).tobytes() == model.predict_proba(x).tobytes()


@pytest.mark.parametrize(
    "loss", [None, gn.MeanSquaredError(), gn.BinaryCrossEntropy(), gn.SoftmaxCrossEntropy()], ids=repr
)
@pytest.mark.parametrize(
    "layer",
    [gn.Sigmoid(), gn.Tanh(), gn.ReLU(), gn.LeakyReLU(-0.3), gn.Softplus(), gn.Softmax(), gn.Flatten()],
    ids=repr,
)
def test_every_layer_and_cost_comes_back(tmp_path: Path, layer: Any, loss: Any) -> None:
    model = gn.Sequential([gn.Dense(4), layer]).build((3,), device="cpu", seed=1)
    model.loss = loss
    model.save(tmp_path / "m")
    again = gn.load_model(tmp_path / "m", "cpu")
    x = np.random.default_rng(0).normal(size=(5, 3))
    assert again.predict_proba(x).tobytes() == model.predict_proba(x).tobytes()
    assert type(again.loss) is type(loss)


def test_what_the_training_inputs_were_comes_back_and_may_be_missing(tmp_path: Path) -> None:
    model = gn.Sequential([gn.Dense(2)])
    model.fit(
        (np.arange(240).reshape(20, 12) / 240, np.arange(20) % 2), epochs=1, batch_size=6, progress=False, device="cpu"
    )
    model.save(tmp_path / "m")
    assert gn.load_model(tmp_path / "m", "cpu").trained_on == model.trained_on is not None
    path = rewritten(tmp_path / "old", lambda description, arrays: description.pop("trained_on", None))
    assert gn.load_model(path, "cpu").trained_on is None


def test_what_batchnorm_remembers_comes_back(tmp_path: Path) -> None:
    model = gn.Sequential(
        [gn.Conv2D(3, 3), gn.BatchNorm(), gn.ReLU(), gn.MaxPool2D(2), gn.Dropout(0.5), gn.Flatten(), gn.Dense(2)]
    )
    rng = np.random.default_rng(0)
    data = gn.Samples(rng.normal(3, 2, (40, 6, 6, 1)), np.arange(40) % 2)
    model.fit(data, epochs=2, batch_size=12, device="cpu", progress=False)
    model.save(tmp_path / "m")
    again = gn.load_model(tmp_path / "m", "cpu")
    assert again.predict_proba(data.inputs).tobytes() == model.predict_proba(data.inputs).tobytes()


def test_a_model_that_was_loaded_can_be_trained_on(tmp_path: Path) -> None:
    x, labels = np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 3
    a_model().save(tmp_path / "m")
    again = gn.load_model(tmp_path / "m", "cpu", batch_size=10)
    before = again.parameters.to_host()
    again.fit((x, labels), epochs=1, batch_size=10, device="cpu", progress=False)
    assert not np.array_equal(again.parameters.to_host()["dense1.w"], before["dense1.w"])


def test_a_file_is_plain_safetensors_that_others_can_read(tmp_path: Path) -> None:
    model = a_model()
    model.save(tmp_path / "m")
    arrays = load_file(tmp_path / "m")
    assert sorted(arrays) == ["dense1.b", "dense1.w", "dense2.b", "dense2.w"]
    np.testing.assert_array_equal(arrays["dense1.w"], model.parameters.to_host()["dense1.w"])


def test_saving_the_same_model_gives_the_same_file(tmp_path: Path) -> None:
    for name in "ab":
        a_model().save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_saving_replaces_the_older_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"old")
    a_model().save(tmp_path / "m")
    gn.load_model(tmp_path / "m", "cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        a_model().save(tmp_path / "no" / "such" / "folder" / "m")
    one_line(caught.value)


def test_a_network_that_is_not_built_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(GpunnError, match="not built yet"):
        gn.Sequential([gn.Dense(3)]).save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


# Damage


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    assert "there is no model file" in refused(tmp_path / "m")
    assert "there is no model file" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0", b"hello world", b"\xff" * 100, b"PK\x03\x04" + bytes(100), bytes(8)])
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m").write_bytes(content)
    assert "is damaged or no model file" in refused(tmp_path / "m")


def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    a_model().save(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    path = tmp_path / "cut"
    for length in {*range(0, len(content), 7), *range(16), *range(len(content) - 16, len(content))}:
        path.write_bytes(content[:length])
        refused(path)


def test_a_file_that_goes_on_too_long_is_refused(tmp_path: Path) -> None:
    a_model().save(tmp_path / "m")
    (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes() + b"\0")
    refused(tmp_path / "m")


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_bytes_that_are_changed_give_a_model_or_one_line(tmp_path: Path, data: st.DataObject) -> None:
    """A changed weight cannot be noticed; nothing else may come of a changed header than an error of ours."""
    path = tmp_path / "m"
    if not path.exists():
        a_model().save(path)
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "changed").write_bytes(content)
    try:
        gn.load_model(tmp_path / "changed", "cpu")
    except ModelFileError as error:
        one_line(error)


# Tensors that are not those of the network


def test_a_tensor_that_is_missing_or_not_expected_is_named(tmp_path: Path) -> None:
    def lose(description: dict[str, Any], arrays: dict[str, Any]) -> None:
        arrays["dense9\n.w"] = arrays.pop("dense1.w")

    message = refused(rewritten(tmp_path / "m", lose))
    assert "missing dense1.w; not expected 'dense9\\n.w'" in message


@pytest.mark.parametrize("shape", [(4, 5), (5, 3), (20,), (1, 5, 4), ()])
def test_a_tensor_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = rewritten(tmp_path / "m", lambda d, arrays: arrays.update({"dense1.w": np.zeros(shape, np.float32)}))
    assert f"dense1.w must be of shape (5, 4), got {shape}" in refused(path)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "uint8", "bool"])
def test_a_tensor_of_another_dtype_is_refused(tmp_path: Path, dtype: str) -> None:
    path = rewritten(tmp_path / "m", lambda d, arrays: arrays.update({"dense1.w": np.zeros((5, 4), dtype)}))
    assert f"'dense1.w' must be float32, got {dtype}" in refused(path)


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2"])
def test_a_tensor_of_a_dtype_that_numpy_lacks_is_refused(tmp_path: Path, dtype: str) -> None:
    nbytes = 2 if dtype == "BF16" else 1
    metadata = {"gpunn": json.dumps({"format": 1, "dtype": "float32"})}
    header = {"__metadata__": metadata, "dense1.w": {"dtype": dtype, "shape": [1], "data_offsets": [0, nbytes]}}
    text = json.dumps(header).encode()
    (tmp_path / "m").write_bytes(len(text).to_bytes(8, "little") + text + bytes(nbytes))
    refused(tmp_path / "m")


def with_header(path: Path, header: bytes, values: bytes = b"") -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + values)
    return path


def entries(*rows: tuple[str, str, list[int], list[int]]) -> bytes:
    metadata = {"gpunn": json.dumps({"format": 1, "dtype": "float32", "layers": []})}
    tensors = {name: {"dtype": dtype, "shape": shape, "data_offsets": place} for name, dtype, shape, place in rows}
    return json.dumps({"__metadata__": metadata, **tensors}).encode()


@pytest.mark.parametrize(
    ("rows", "nbytes", "word"),
    [
        ([("a", "F32", [1], [0, 4]), ("b", "F32", [1], [0, 4])], 4, "the place of 'b' begins at byte 0, expected 4"),
        ([("a", "F32", [2], [0, 8]), ("b", "F32", [2], [4, 12])], 12, "begins at byte 4, expected 8"),
        ([("a", "F32", [1], [0, 4]), ("b", "F32", [1], [8, 12])], 12, "begins at byte 8, expected 4"),
        ([("a", "F32", [1], [4, 8])], 8, "begins at byte 4, expected 0"),
        ([("a", "F32", [1], [0, 8])], 8, "takes 4 bytes, its place has 8"),
        ([("a", "F32", [2**62, 2**62], [0, 4])], 4, "'a' takes"),
        ([("a", "F32", [-1], [0, -4])], 0, "has no shape"),
        ([("a", "F32", [True], [0, 4])], 4, "has no shape"),
        ([("a", "F32", [1.0], [0, 4])], 4, "has no shape"),
        ([("a", "F32", [1] * 100, [0, 4])], 4, "has no shape"),
        ([("a", "F32", [2**63], [0, 2**65])], 4, "has no shape"),
        ([("a", "O", [1], [0, 4])], 4, "has the type 'O'"),
        ([("a", "F32", [1], [0, 4])], 5, "its arrays take 4 bytes, the file has 5"),
        ([("a", "F32", [1], [0, 4])], 3, "its arrays take 4 bytes, the file has 3"),
        ([("a", "F32", [10**9, 10**6], [0, 4 * 10**15])], 3, "its arrays take 4,000,000,000,000,000 bytes"),
    ],
)
def test_arrays_that_overlap_leave_gaps_or_promise_too_much_are_refused(
    tmp_path: Path, rows: list[Any], nbytes: int, word: str
) -> None:
    assert word in refused(with_header(tmp_path / "m", entries(*rows), bytes(nbytes)))


@pytest.mark.parametrize(
    ("header", "word"),
    [
        (b"[]", "its header is no table"),
        (b"[" * 100_000, "its header is no JSON"),
        (b'{"a":' * 100_000, "its header is no JSON"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "its header is no JSON"),
        (b'{"a": 1, "a": 1}', "a name stands in it twice"),
        (b'{"a": 1}', "'a' must have dtype, shape and data_offsets"),
        (b'{"__metadata__": {"gpunn": 1}}', "are no texts"),
        (b'{"__metadata__": []}', "are no texts"),
        (b"\xff{}", "its header is no JSON"),
    ],
)
def test_a_header_that_is_none_is_refused(tmp_path: Path, header: bytes, word: str) -> None:
    assert word in refused(with_header(tmp_path / "m", header))


def test_a_million_names_are_refused_unread(tmp_path: Path) -> None:
    entry = b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    path = with_header(tmp_path / "m", b"{" + b",".join(entry % number for number in range(1_000_000)) + b"}")
    tracemalloc.start()
    try:
        assert "at most 2,097,152 are read" in refused(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_length_beyond_the_file_is_refused(tmp_path: Path) -> None:
    for length in (3, 2**31, 2**63, 2**64 - 1):
        (tmp_path / "m").write_bytes(length.to_bytes(8, "little") + b"{}")
        assert f"its header promises {length:,} bytes, the file has 10" in refused(tmp_path / "m")


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m")
    assert "it is no regular file" in refused(tmp_path / "m")


def test_a_file_that_is_cut_short_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would kill a process that has mapped it."""
    from gpunn.saving import model_file

    def cut(file: Any, *rest: Any) -> Any:
        os.truncate(path, path.stat().st_size - 40)
        return model_file_read(file, *rest)

    path = tmp_path / "m"
    gn.Sequential([gn.Dense(50)]).build((2000,), device="cpu").save(path)
    model_file_read = model_file.read_values
    monkeypatch.setattr(model_file, "read_values", cut)
    assert "it ends within 'dense" in refused(path)


# Descriptions


def test_tensors_of_another_library_are_told_from_a_model(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(save({"w": np.zeros(3)}))
    assert "holds tensors but no network of gpunn" in refused(tmp_path / "m")
    (tmp_path / "m").write_bytes(save({"w": np.zeros(3)}, metadata={"format": "pt"}))
    assert "holds tensors but no network of gpunn" in refused(tmp_path / "m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("1" * 5000, "no JSON"),
        ("[]", "a format that this version does not know"),
        ("null", "a format that this version does not know"),
        ('{"format": 2}', "a format that this version does not know"),
        ('{"format": 1}', "unknown dtype"),
        ('{"format": 1, "dtype": ["float32"]}', "unknown dtype"),
        ('{"format": 1, "dtype": "float32"}', "'layers'"),
    ],
)
def test_a_description_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m").write_bytes(save({"w": np.zeros(3)}, metadata={"gpunn": text}))
    assert message in refused(tmp_path / "m")


RECORD: dict[str, Any] = {
    "shape": [4], "is_bytes": False, "scale": 1.0, "low": [0.0], "high": [1.0], "ground": "dark", "is_grey": True,
    "is_drawn": False,
}  # fmt: skip


def nested(depth: int) -> dict[str, Any]:
    layer: dict[str, Any] = {"type": "ReLU"}
    for _ in range(depth):
        layer = {"type": "Residual", "layers": [layer]}
    return layer


HOSTILE: list[dict[str, Any]] = [
    {"layers": []},
    {"layers": None},
    {"layers": "Dense"},
    {"layers": {"type": "Dense"}},
    {"layers": [None]},
    {"layers": [["Dense"]]},
    {"layers": [{"type": "Evil\n"}]},
    {"layers": [{"type": "os.system", "command": "true"}]},
    {"layers": [{"type": "Sequential"}]},
    {"layers": [{"type": "Dense"}]},
    {"layers": [{"type": "Dense", "units": "x" * 10_000}]},
    {"layers": [{"type": "Dense", "units": -5}]},
    {"layers": [{"type": "Dense", "units": 0}]},
    {"layers": [{"type": "Dense", "units": True}]},
    {"layers": [{"type": "Dense", "units": 3.5}]},
    {"layers": [{"type": "Dense", "units": float("inf")}]},
    {"layers": [{"type": "Dense", "units": float("nan")}]},
    {"layers": [{"type": "Dense", "units": 10**30}]},
    {"layers": [{"type": "Dense", "units": 10**9}]},
    {"layers": [{"type": "Dense", "units": [5, 5]}]},
    {"layers": [{"type": "Dense", "units": 5, "colour": "red"}]},
    {"layers": [{"type": "Dense", "units": 5, "weights": {"type": "Normal", "deviation": -1}}]},
    {"layers": [{"type": "Dense", "units": 5, "weights": {"type": "Normal", "deviation": {}}}]},
    {"layers": [{"type": "Dense", "units": 5, "weights": ["a", ["b"]]}]},
    {"layers": [{"type": "Dense", "units": 5, "bias": 1e300}, {"type": "Dense", "units": 10**6}]},
    {"layers": [{"type": "Dense", "units": 65_536}, {"type": "Dense", "units": 65_536}]},
    {"layers": [{"type": "LeakyReLU", "alpha": -(10**400)}]},
    {"layers": [{"type": "LeakyReLU", "alpha": None}]},
    {"layers": [{"type": "Conv2D", "filters": 5, "size": 3}]},
    {"layers": [{"type": "Conv2D", "filters": 2, "size": 1, "padding": 10**8}], "input_shape": [4, 4, 1]},
    {"layers": [{"type": "MaxPool2D", "size": 10**5}], "input_shape": [4, 4, 1]},
    {"input_shape": []},
    {"input_shape": None},
    {"input_shape": 4},
    {"input_shape": "4"},
    {"input_shape": [4.5]},
    {"input_shape": [True]},
    {"input_shape": [0]},
    {"input_shape": [-4]},
    {"input_shape": [10**12]},
    {"input_shape": [60_000, 60_000, 1]},
    {"input_shape": [2, 2]},
    {"input_shape": [[0], 10**9]},
    {"input_shape": [10**5] * 10_000},
    {"input_shape": [5]},
    {"dtype": "float16"},
    {"dtype": "object"},
    {"dtype": "float64"},
    {"loss": "NoSuchLoss"},
    {"loss": 3},
    {"loss": {"type": "SoftmaxCrossEntropy", "x": 1}},
    {"input_scale": None},
    {"input_scale": "1"},
    {"input_scale": float("nan")},
    {"input_scale": 0},
    {"input_scale": -1.0},
    {"input_scale": 10**400},
    {"class_names": None},
    {"class_names": 3},
    {"class_names": "abc"},
    {"class_names": {"a": 1}},
    {"class_names": [1, 2, 3]},
    {"class_names": ["a\n", "b", "c"]},
    {"class_names": ["\x1b[31m", "b", "c"]},
    {"class_names": ["\ud800", "b", "c"]},
    {"trained_on": 3},
    {"trained_on": {}},
    *(
        {"trained_on": RECORD | change}
        for change in (
            {"shape": [5]},
            {"shape": []},
            {"shape": [2, 2]},
            {"shape": [10**5] * 10_000},
            {"shape": "4"},
            {"shape": [-4]},
            {"is_bytes": 1},
            {"is_grey": None},
            {"scale": 0},
            {"scale": "1"},
            {"low": []},
            {"low": [0.0, 1.0]},
            {"high": [float("nan")]},
            {"high": [10**400]},
            {"high": ["x"]},
            {"high": 3},
            {"ground": "green"},
            {"ground": []},
            {"more": 1},
        )
    ),
    {"layers": ["ReLU"] * 1001},
    {"layers": ["ReLU"] * 100_000},
    # Layers within layers, which are counted before any is made.
    {"layers": [{"type": "Residual", "layers": ["ReLU"] * 10_000}]},
    {"layers": [{"type": "Chain", "layers": ["ReLU"] * 90}] * 12},
    {"layers": [{"type": "Concatenate", "branches": [["ReLU"]] * 20_000}]},
    {"layers": [{"type": "Concatenate", "branches": [[]] * 100_000}]},
    {"layers": [{"type": "Concatenate", "branches": [[[[[]]]], []]}]},
    {"layers": [{"type": "Concatenate", "branches": [None, ["ReLU"]]}]},
    {"layers": [{"type": "Residual", "layers": ["ReLU"], "projection": {"type": "L2", "strength": 1.0}}]},
    {"layers": [{"type": "Residual", "layers": ["ReLU"], "projection": [["ReLU"] * 2000]}]},
    {"layers": [nested(17)]},
    {"layers": [nested(300)]},
    # A stride takes no memory of its own, and neither do rows between filters.
    {"layers": [{"type": "ConvTranspose2D", "filters": 4, "stride": 2**20}], "input_shape": [4, 4, 1]},
    {"layers": [{"type": "ConvTranspose2D", "filters": 4, "size": 2**20}], "input_shape": [4, 4, 1]},
    {"layers": [{"type": "ConvTranspose2D", "filters": 4, "size": [1, 2**20]}], "input_shape": [4, 4, 1]},
]


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: str(change)[:60])
def test_a_description_of_no_network_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = rewritten(tmp_path / "m", lambda description, arrays: description.update(change))
    before = time.process_time()
    assert len(refused(path)) < 1000
    assert time.process_time() - before < 2


def test_layers_within_layers_that_a_file_could_not_have_are_not_saved(tmp_path: Path) -> None:
    model = gn.Sequential([gn.Chain([gn.Tanh() for _ in range(1001)]), gn.Dense(2)]).build((2,), device="cpu")
    with pytest.raises(OptionError, match="at most 1,000, those within"):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("key", ["layers", "loss", "input_shape", "input_scale", "class_names", "dtype", "format"])
def test_a_description_without_one_of_its_parts_is_refused(tmp_path: Path, key: str) -> None:
    refused(rewritten(tmp_path / "m", lambda description, arrays: description.pop(key)))


def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    """65,536 x 65,536 weights would be 16 GiB: refused before they are made."""
    import resource

    layers = [{"type": "Dense", "units": 65_536}, {"type": "Dense", "units": 65_536}]
    path = rewritten(tmp_path / "m", lambda description, arrays: description.update(layers=layers))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_what_doubles_its_features_200_times_is_refused_in_a_short_line(tmp_path: Path) -> None:
    layers = [{"type": "Concatenate", "branches": [["ReLU"], []]}] * 200
    path = rewritten(tmp_path / "m", lambda description, arrays: description.update(layers=layers))
    with pytest.raises(MemoryShortageError) as caught:
        gn.load_model(path, "cpu")
    assert len(one_line(caught.value)) < 200


# Arguments of load_model


def test_a_wrong_argument_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_model().save(tmp_path / "m")
    with pytest.raises(OptionError, match="unknown device"):
        gn.load_model(tmp_path / "m", "gpu")
    with pytest.raises(OptionError, match="batch size"):
        gn.load_model(tmp_path / "m", "cpu", batch_size=0)
    monkeypatch.setattr("gpunn.backend.devices.cuda_trouble", lambda index=0: "no driver")
    with pytest.raises(DeviceError, match="no driver"):
        gn.load_model(tmp_path / "m", "cuda")

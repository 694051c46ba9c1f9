"""Embedding: rows of a table by whole numbers, their gradients, and that nothing on the way changes a number."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.cli_helpers import gpunn, without_pictures
from support.harness import central_differences, one_line, relative_error

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.data.loader import StreamingLoader
from gpunn.errors import DataError, GpunnError, OptionError, ShapeError
from gpunn.kernels.embedding import embed_gradient

TOKENS = 12


def has_a_three(n: int = 240, length: int = 7, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sequences of tokens, and whether a 3 stands next to a 4."""
    x = np.random.default_rng(seed).integers(0, TOKENS, (n, length))
    return x, ((x[:, :-1] == 3) | (x[:, 1:] == 4)).any(axis=1).astype(int)


def network(*, frozen: bool = False) -> gn.Sequential:
    first = gn.Embedding(TOKENS, 5)
    first.trainable = not frozen
    return gn.Sequential([first, gn.Conv2D(6, (1, 2)), gn.ReLU(), gn.GlobalAveragePool2D(), gn.Dense(2)])


def trained(x: Any, y: Any, **options: Any) -> gn.Sequential:
    model = network()
    model.fit(x, y, **{"epochs": 2, "batch_size": 16, "device": "cpu", "progress": False, **options})
    return model


def assert_same(one: gn.Sequential, other: gn.Sequential) -> None:
    other_arrays = other.arrays()
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, other_arrays[name], name)


# The equation


def test_each_token_becomes_its_row(backend: Backend) -> None:
    model = gn.Sequential([gn.Embedding(TOKENS, 3)]).build((4,), 8, backend)
    w = model.arrays()["embedding1.w"]
    x = np.random.default_rng(0).integers(0, TOKENS, (5, 4))
    y = backend.to_host(model.forward(x))
    assert y.shape == (5, 1, 4, 3)
    np.testing.assert_array_equal(y[:, 0], w[x])


def test_the_table_begins_as_the_standard_normal_distribution() -> None:
    w = gn.Sequential([gn.Embedding(500, 40)]).build((1,), device="cpu").arrays()["embedding1.w"]
    assert abs(w.mean()) < 0.02
    assert abs(w.std() - 1) < 0.02
    small = gn.Sequential([gn.Embedding(500, 40, gn.Normal(0.1))]).build((1,), device="cpu").arrays()["embedding1.w"]
    assert abs(small.std() - 0.1) < 0.002


@pytest.mark.parametrize(
    "layers",
    [
        [gn.Embedding(5, 3), gn.Flatten(), gn.Dense(3)],
        [gn.Embedding(5, 3), gn.Conv2D(4, (1, 2)), gn.Tanh(), gn.GlobalAveragePool2D(), gn.Dense(3)],
        [gn.Embedding(5, 4), gn.LayerNorm(), gn.AveragePool2D((1, 2)), gn.Flatten(), gn.Dense(3)],
        [gn.Embedding(5, 3), gn.Dropout(0.4), gn.Flatten(), gn.Dense(3)],
        [gn.Embedding(5, 2), gn.Softplus(), gn.Flatten(), gn.Dense(3)],
    ],
    ids=range(5),
)
def test_back_propagation_into_the_table(backend: Backend, layers: list[gn.Layer]) -> None:
    rng = np.random.default_rng(1)
    model = gn.Sequential(layers).build((6,), 4, backend, "float64", 1)
    loss, x, t = gn.SoftmaxCrossEntropy(), rng.integers(0, 4, (4, 6)), rng.integers(0, 3, 4)  # never the last token
    loss.forward(model.forward(x, training=True), t)
    model.backward(loss.backward())
    w = model.parameters[0]
    gradient, values = backend.to_host(w.grad), backend.to_host(w.value)
    model.count_on(0, 0)

    def cost() -> float:
        backend.assign(w.value, values)
        return loss.forward(model.forward(x, training=True), t)

    assert relative_error(gradient, central_differences(cost, values)) < 1e-6
    assert not gradient[4].any()


@pytest.mark.parametrize("tokens", [40, 1000], ids=["small", "larger than the batch"])
def test_gradients_of_either_way_are_sums_in_float64(tokens: int) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.integers(0, 40, (9, 16)).astype(np.int32), rng.normal(size=(5, 1, 9, 16)).astype(np.float32)
    dw = np.full((tokens, 5), np.nan, np.float32)
    embed_gradient.host(x, dy, dw)
    exact = np.zeros((tokens, 5))
    np.add.at(exact, x.reshape(-1), dy.reshape(5, -1).T.astype(np.float64))
    np.testing.assert_array_equal(dw, exact.astype(np.float32))


# Numbers reach the table as they are


def test_every_kind_of_whole_numbers_trains_alike() -> None:
    x, y = has_a_three()
    own = trained(x, y)
    integers, floats = (
        ("uint8", "int8", "int16", "uint16", "int32", "uint32", "uint64", ">i4"),
        ("f2", "f4", "f8", ">f8"),
    )
    for dtype in (*integers, *floats):
        assert_same(own, trained(x.astype(dtype), y))
    assert_same(own, trained(x.tolist(), y.tolist()))
    assert_same(own, trained(np.asfortranarray(x), y))
    assert_same(own, trained(gn.Samples(x, y), None))
    assert_same(own, trained(gn.Samples(x, y, scale=1 / 255), None))
    assert_same(own, trained(gn.Samples(x, y, tokens=TOKENS), None))


def test_numbers_that_would_pass_for_pixels_are_neither_divided_nor_drawn(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 200, (60, 64)), rng.integers(0, 2, 60)
    made = []
    for data in ((x, y), (x.astype(np.uint8), y), (gn.Data.from_arrays(x, y, validation=0.1), None)):
        model = gn.Sequential([gn.Embedding(200, 3), gn.Flatten(), gn.Dense(2)])
        model.fit(*data, epochs=1, progress=False, device="cpu")
        made.append(model)
        assert model.trained_on is not None
        assert (model.trained_on.scale, model.trained_on.is_bytes, model.trained_on.drawings) == (1.0, False, None)
    assert_same(made[0], made[1])
    assert_same(made[0], made[2])
    assert [message[:40] for message in caplog.messages] == ["inputs are whole numbers from 0 to 199: "]  # from_arrays


def test_whole_numbers_beyond_floats_are_exact() -> None:
    high = 2**24 + 3
    x = np.array([[high - 1], [high - 2], [high - 3], [0]])
    model = gn.Sequential([gn.Embedding(high, 1), gn.Flatten()]).build((1,), device="cpu")
    w = model.arrays()["embedding1.w"][:, 0]
    np.testing.assert_array_equal(model.predict_proba(x)[:, 0], w[x[:, 0]])
    assert gn.Samples(x, [0, 1, 0, 1], tokens=high).inputs.tolist() == x.tolist()
    data = gn.Data.from_arrays(x, [[0.5], [1.0], [2.0], [3.0]], tokens=high, validation=0)
    assert data.train.inputs.tolist() == x.tolist()
    with pytest.raises(DataError, match="float32 rounds whole numbers from 16,777,216 on") as caught:
        gn.Samples(x, [0, 1, 0, 1]).as_tokens(high)
    one_line(caught.value)
    with pytest.raises(DataError, match=f"from 0 to {high - 1}, got {high} in sample 1 at position 0"):
        model.predict(np.array([[1], [high]]))


def test_a_memory_map_streams_its_tokens(tmp_path: Path) -> None:
    x, y = has_a_three()
    for dtype in ("uint8", "int32", "int64"):
        np.save(tmp_path / "x.npy", x.astype(dtype))
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        samples = gn.Samples(mapped, y, tokens=TOKENS)
        assert_same(trained(x, y), trained(gn.Data.from_samples(samples), None))
    assert isinstance(samples.inputs, np.ndarray)


def test_tokens_from_the_host_are_the_same(backend: Backend) -> None:
    x, y = has_a_three()
    own = trained(x, y, device=backend)
    assert_same(own, trained(x, y, device=backend, data_on="host"))
    assert_same(own, trained(x.astype(np.uint8), y, device=backend, data_on="host"))
    samples = gn.Samples(x, y, tokens=TOKENS)
    assert StreamingLoader(backend, samples, "float32").row_dtype == np.int32


def test_images_of_one_channel_go_flat() -> None:
    x, y = has_a_three(length=6)
    own = trained(x, y)
    assert_same(own, trained(x.reshape(-1, 2, 3), y))
    assert_same(own, trained(x.reshape(-1, 2, 3, 1).astype(np.uint8), y))
    np.testing.assert_array_equal(own.predict_proba(x), own.predict_proba(x.reshape(-1, 2, 3)))
    with pytest.raises(DataError, match="got images of 3 channels"):
        network().fit(np.zeros((9, 2, 2, 3), int), np.arange(9) % 2, progress=False)


def test_a_single_column_of_tokens() -> None:
    x = np.arange(60) % 4
    model = gn.Sequential([gn.Embedding(4, 2), gn.Flatten(), gn.Dense(2)])
    model.fit(x[:, None], x % 2, epochs=30, batch_size=8, progress=False, device="cpu")
    assert model.evaluate(x[:, None], x % 2).accuracy == 1
    assert model.predict(x[:1, None]).tolist() == [0]
    assert model.predict(x[:0, None]).shape == (0,)


# What is refused

BAD: dict[str, tuple[Any, str]] = {
    "too large": (lambda x: x + 1, r"from 0 to 11, got 12 in sample \d+ at position \d: Embedding\(13, ...\)"),
    "negative": (lambda x: x - 1, r"got -1 in sample \d+ at position \d: number them from 0"),
    "halves": (lambda x: x + 0.5, r"got \d+.5 in sample 0 at position 0: tokens are not scaled"),
    "scaled": (lambda x: x / 255, r"got 0.\d+ in sample \d+ at position \d: tokens are not scaled"),
    "NaN": (lambda x: np.where(x == 3, np.nan, x), r"got NaN in sample \d+ at position \d"),
    "Inf": (lambda x: np.where(x == 3, np.inf, x), r"got inf in sample \d+ at position \d"),
    "wrapped": (lambda x: np.where(x == 3, 2**32 + 1, x), r"got 4294967297 in sample \d+ at position \d"),
    "unsigned": (lambda x: np.where(x == 3, np.uint64(2**64 - 1), x.astype(np.uint64)), r"got 18446744073709551615 "),
    "texts": (lambda x: x.astype(str), "inputs must be numbers, got <U21"),
    "1-D": (lambda x: x[:, 0], "(x.reshape|x\\[None\\]|expected inputs)"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_token_is_refused_before_anything_is_computed(what: str) -> None:
    x, y = has_a_three()
    change, message = BAD[what]
    bad, model = change(x), trained(x, y, epochs=1)
    before = model.arrays()
    calls = {
        "fit": lambda: network().fit(bad, y, progress=False, device="cpu"),
        "fit again": lambda: model.fit(bad, y, progress=False),
        "validation": lambda: model.fit(x, y, validation_data=(bad, y), progress=False),
        "predict": lambda: model.predict(bad),
        "evaluate": lambda: model.evaluate(bad, y),
        "report": lambda: model.report(bad, y),
        "forward": lambda: model.forward(bad[:9]),
        "find": lambda: model.find_learning_rate(bad, y),
    }
    for name, call in calls.items():
        with pytest.raises(GpunnError, match=message) as caught:
            call()
        one_line(caught.value)
        for array, kept in zip(model.arrays().values(), before.values(), strict=True):
            np.testing.assert_array_equal(array, kept, name)


def test_columns_that_were_standardised_are_refused(tmp_path: Path) -> None:
    x, y = has_a_three()
    rows = "\n".join(",".join(map(str, (*row, label))) for row, label in zip(x, y, strict=True))
    (tmp_path / "t.csv").write_text("a,b,c,d,e,f,g,label\n" + rows)
    with pytest.raises(DataError, match='scaling="none"'):
        network().fit(gn.load_data(tmp_path / "t.csv"), progress=False)
    plain = gn.load_data(tmp_path / "t.csv", scaling="none")
    asked = gn.load_data(tmp_path / "t.csv", tokens=TOKENS)
    assert asked.train.tokens == TOKENS
    assert asked.train.inputs.dtype == np.int32
    one = trained(plain, None)
    assert_same(one, trained(asked, None))
    with pytest.raises(OptionError, match='scaling "standard"'):
        gn.load_data(tmp_path / "t.csv", tokens=TOKENS, scaling="standard")
    assert one.evaluate(asked.train) == one.evaluate(plain.train)


@pytest.mark.parametrize(("tokens", "features"), [(0, 2), (2, 0), (-1, 2), (1.5, 2), ("a", 2), (True, 2), (2**31, 1)])
def test_sizes_that_cannot_be_are_refused(tokens: Any, features: Any) -> None:
    with pytest.raises(OptionError, match=r"(tokens|features) of Embedding must be") as caught:
        gn.Embedding(tokens, features)
    one_line(caught.value)


def test_it_is_the_first_layer_of_rows() -> None:
    with pytest.raises(ShapeError, match=r"embedding1: Embedding.* put it before all other layers") as caught:
        gn.Sequential([gn.Dense(3), gn.Embedding(4, 2)]).build((2,), device="cpu")
    one_line(caught.value)
    with pytest.raises(ShapeError, match="put it before all other layers"):
        gn.Sequential([gn.Embedding(4, 2), gn.Embedding(4, 2)]).build((2,), device="cpu")
    with pytest.raises(ShapeError, match="put it before all other layers"):
        gn.Sequential([gn.Embedding(4, 2)]).build((2, 2, 1), device="cpu")
    with pytest.raises(OptionError, match="at most"):
        gn.Samples([[1]], [0], tokens=2**31)
    with pytest.raises(DataError, match="not scaled"):
        gn.Samples([[1]], [0], scale=0.5, tokens=2)


# A life


def test_it_learns_and_is_the_same_after_a_file_a_copy_and_a_pickle(tmp_path: Path) -> None:
    x, y = has_a_three(600)
    model = network()
    model.fit(x, y, epochs=30, batch_size=16, optimizer=gn.Adam(0.01), progress=False, device="cpu")
    assert model.evaluate(*has_a_three(200, seed=1)).accuracy > 0.97
    model.save(tmp_path / "m.safetensors")
    for other in (gn.load_model(tmp_path / "m.safetensors"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict_proba(x), model.predict_proba(x))
        assert other.evaluate(x, y) == model.evaluate(x, y)
        with pytest.raises(DataError, match="got 12"):
            other.predict(x + 1)
    assert "Embedding(tokens=12, features=5)  1 × 7 × 5" in model.summary()


def test_two_calls_of_one_epoch_are_one_of_two() -> None:
    x, y = has_a_three()
    for optimizer in (gn.SGD(0.1), gn.SGD(0.1, momentum=0.9), gn.Adam(0.01)):
        once = trained(x, y, optimizer=optimizer)
        twice = trained(x, y, optimizer=optimizer, epochs=1)
        twice.fit(x, y, optimizer=optimizer, epochs=1, batch_size=16, progress=False)
        assert_same(once, twice)


def test_plain_gradient_descent_is_that_of_momentum_0(backend: Backend) -> None:
    """The plain update is folded into products of weights, and a table's gradient is none."""
    x, y = has_a_three()
    plain, other = (trained(x, y, optimizer=optimizer) for optimizer in (gn.SGD(0.1), gn.SGD(0.1, momentum=1e-30)))
    for name, array in plain.arrays().items():
        np.testing.assert_allclose(array, other.arrays()[name], rtol=1e-4, atol=1e-6)


def test_a_frozen_table_stays_as_it_is(backend: Backend) -> None:
    x, y = has_a_three()
    model = network(frozen=True)
    model.build((7,), 16, backend)
    before = model.arrays()
    model.fit(x, y, epochs=1, batch_size=16, progress=False, device=backend)
    np.testing.assert_array_equal(model.arrays()["embedding1.w"], before["embedding1.w"])
    assert not np.array_equal(model.arrays()["dense1.w"], before["dense1.w"])
    model.layers[0].trainable = True
    model.fit(x, y, epochs=1, batch_size=16, progress=False, device=backend)
    assert not np.array_equal(model.arrays()["embedding1.w"], before["embedding1.w"])


def test_batches_of_one_and_float64(backend: Backend) -> None:
    x, y = has_a_three(20)
    model = network()
    model.fit(x, y, epochs=1, batch_size=1, dtype="float64", progress=False, device=backend)
    assert model.arrays()["embedding1.w"].dtype == np.float64
    assert np.isfinite(model.evaluate(x, y).loss)


def test_weighted_skipped_and_augmented() -> None:
    x, y = has_a_three()
    trained(x, y, class_weight="balanced", skip_bad_batches=True, regularizer=gn.L2(1.0))
    with pytest.raises(ShapeError, match="augmentation needs images"):
        trained(x, y, augmentation=gn.Augmentation(shift=1))


def test_the_same_bits_twice(backend: Backend) -> None:
    x, y = has_a_three()
    assert_same(trained(x, y, device=backend), trained(x, y, device=backend))


# Files


def test_a_file_of_whole_numbers_needs_no_word_for_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an experiment the first layer says so; the command line and Python give the same bits."""
    monkeypatch.chdir(tmp_path)
    x, y = has_a_three()
    layers = "".join(f"[[layers]]\n{table}\n" for table in (
        "type = 'Embedding'\ntokens = 12\nfeatures = 5", "type = 'Conv2D'\nfilters = 6\nsize = [1, 2]",
        "type = 'ReLU'", "type = 'GlobalAveragePool2D'", "type = 'Dense'\nunits = 'outputs'"))  # fmt: skip
    text = "name = 'tokens'\n[training]\nepochs = 2\nbatch_size = 16\ndevice = 'cpu'\n"
    text += "[optimizer]\ntype = 'SGD'\nlearning_rate = 0.1\nmomentum = 0.9\n"
    Path("t.toml").write_text(text + layers)
    np.savez("t.npz", x=x, y=y)
    rows = "\n".join(",".join(map(str, (*row, f"class {label}"))) for row, label in zip(x, y, strict=True))
    Path("t.csv").write_text("a,b,c,d,e,f,g,label\n" + rows)
    Path("new.csv").write_text("g,f,e,d,c,b,a\n" + "\n".join(",".join(map(str, row[::-1])) for row in x))
    own = trained(gn.load_data("t.npz", tokens=TOKENS), None)
    for name in ("t.npz", "t.csv"):
        assert gpunn("train", name, "--recipe", "t.toml", "--out", f"run-{name}").code == 0
        assert_same(own, gn.load_model(f"run-{name}/model.safetensors"))
        for command in (("evaluate", f"run-{name}"), ("evaluate", f"run-{name}", name)):
            assert gpunn(*command).code == 0
        assert not Path(f"run-{name}/activations.png").exists()
        with monkeypatch.context() as patch:
            without_pictures(patch)
            assert gpunn("train", "--resume", f"run-{name}", "--epochs", "3").code == 0
    answers = gpunn("predict", "run-t.csv", "new.csv", "--format", "csv")
    assert len(answers.out.splitlines()) == len(x) + 1
    Path("new.csv").write_text("a,b,c,d,e,f,g\n0,1,2,3,4,5,12\n")
    refused = gpunn("predict", "run-t.csv", "new.csv")
    assert "got 12 in sample 0 at position 6" in refused.err
    assert refused.code == 1


# Within other layers


@pytest.mark.parametrize(
    "first",
    [
        lambda: [gn.Chain([gn.Embedding(TOKENS, 5), gn.LayerNorm()])],
        lambda: [gn.Chain([gn.Chain([gn.Embedding(TOKENS, 5)])])],
        lambda: [gn.Concatenate([gn.Embedding(TOKENS, 2)], [gn.Embedding(TOKENS, 3), gn.Tanh()])],
        lambda: [gn.Embedding(TOKENS, 5), gn.Residual([gn.Conv2D(5, (1, 3), padding="same"), gn.ReLU()])],
    ],
    ids=["chain", "chains", "branches", "residual"],
)
def test_it_begins_a_layer_of_layers(backend: Backend, first: Any, tmp_path: Path) -> None:
    x, y = has_a_three()
    model = gn.Sequential([*first(), gn.Conv2D(6, (1, 2)), gn.ReLU(), gn.GlobalAveragePool2D(), gn.Dense(2)])
    assert model.tokens == TOKENS
    model.fit(x, y, epochs=25, batch_size=16, optimizer=gn.Adam(0.01), progress=False, device=backend)
    assert model.evaluate(x, y).accuracy > 0.95
    model.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(gn.load_model(tmp_path / "m.safetensors").predict(x), model.predict(x))
    with pytest.raises(DataError, match="got 12"):
        model.predict(x + 1)


def test_within_a_layer_it_is_refused_where_no_tokens_come() -> None:
    for layers in (
        [gn.Residual([gn.Embedding(4, 2)])],
        [gn.Concatenate([gn.Embedding(4, 2)], [gn.Dense(2)])],
        [gn.Dense(2), gn.Chain([gn.Embedding(4, 2)])],
        [gn.Chain([gn.Dense(2), gn.Embedding(4, 2)])],
    ):
        with pytest.raises(ShapeError, match=r".") as caught:
            gn.Sequential(layers).build((3,), device="cpu")
        one_line(caught.value)


def test_gradients_are_checked_at_drawn_and_at_given_tokens() -> None:
    for given in (None, [[0, 1, 2, 4], [1, 1, 1, 3]], np.array([[0.0, 1.0, 2.0, 4.0]])):
        for part in (gn.Embedding(5, 3), gn.Sequential([gn.Embedding(5, 3), gn.Flatten(), gn.Dense(2)])):
            assert gn.check_gradients(part, (4,), inputs=given).worst.error < 1e-8
    with pytest.raises(DataError, match="got 5"):
        gn.check_gradients(gn.Embedding(5, 3), (1,), inputs=[[5]])


def test_scikit_learn_scales_no_tokens() -> None:
    pytest.importorskip("sklearn")
    from gpunn.sklearn import Classifier

    x = np.arange(200).reshape(-1, 1) % 100
    layers = [gn.Embedding(100, 8), gn.Flatten(), gn.Dense(2)]
    model = Classifier(layers, epochs=20, batch_size=8, random_state=0).fit(x, x[:, 0] % 2)
    assert model.score(x, x[:, 0] % 2) > 0.95

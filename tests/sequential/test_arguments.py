"""What `fit`, `evaluate` and `predict` may be given: arrays, names, sets of any size; or one line that says why not."""

import inspect
import logging
import re
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.harness import one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.errors import DataError, GpunnError, OptionError, ShapeError
from gpunn.nn.arguments import as_shape
from gpunn.train.arguments import TrainOptions, fitting_batch_size

QUIET: dict[str, Any] = {"progress": False, "device": "cpu"}
CENTRES = np.array([[2.0, 0, 0, 1], [0, 2, 0, -1], [0, 0, 2, 0]])
XOR = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])


def three(n: int = 90, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Samples of three classes that are easily told apart."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return CENTRES[labels] + generator.normal(0, 0.3, (n, 4)), labels


def network(outputs: int = 3) -> gn.Sequential:
    return gn.Sequential([gn.Dense(8), gn.Tanh(), gn.Dense(outputs)])


def trained(outputs: int = 3, **options: Any) -> gn.Sequential:
    model = network(outputs)
    model.fit(three(), **{"epochs": 20, "batch_size": 16, **QUIET, **options})
    return model


# Targets


def shown(value: Any) -> str:
    """A value in the name of a test, which must be the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


@pytest.mark.parametrize("loss", [None, gn.SoftmaxCrossEntropy(), gn.MeanSquaredError(), "mse", gn.SoftmaxCrossEntropy])
@pytest.mark.parametrize("dtype", [np.float64, np.int64, bool])
def test_rows_of_one_1_are_learned_as_the_labels_that_they_are(loss: Any, dtype: Any) -> None:
    x, labels = three()
    by_rows, by_labels = network(), network()
    rows = np.eye(3, dtype=dtype)[labels]
    by_rows.fit(x, rows, loss=loss, epochs=3, **QUIET)
    by_labels.fit(x, labels, loss=loss, epochs=3, **QUIET)
    np.testing.assert_array_equal(by_rows.predict_proba(x), by_labels.predict_proba(x))
    assert by_rows.class_names == ("0", "1", "2")
    assert by_rows.evaluate(x, rows) == by_labels.evaluate(x, labels)
    assert by_rows.evaluate(gn.Samples(x, rows)).right == by_labels.evaluate(x, rows).right > 60


def test_binary_cross_entropy_takes_rows_of_one_1_as_several_answers() -> None:
    x, labels = three()
    rows = np.eye(3)[labels]
    many = np.vstack([rows[:-1], [1.0, 1, 0]])  # one sample of two classes, and the data are the same but for it
    one, several = network(), network()
    one.fit(x, rows, loss=gn.BinaryCrossEntropy(), epochs=2, **QUIET)
    several.fit(x, many, loss=gn.BinaryCrossEntropy(), epochs=2, **QUIET)
    assert one.class_names == several.class_names == ()
    data = gn.Data.from_arrays(x, rows, test=(x, rows))
    one.fit(data, loss="bce", epochs=1, **QUIET)
    assert one.class_names == ()
    assert np.isfinite(one.evaluate(data).loss)
    costs = {one.evaluate(*given).loss for given in ((data,), (x, rows), (gn.Samples(x, rows, classes=0),))}
    assert len(costs) == 1


def test_names_are_learned_and_evaluated() -> None:
    x, labels = three()
    words = np.array(["dog", "cat", "owl"])[labels]
    model = network()
    model.fit(x, words, epochs=20, batch_size=16, **QUIET)
    assert model.class_names == ("cat", "dog", "owl")
    assert model.evaluate(x, words).accuracy > 0.95
    np.testing.assert_array_equal(np.array(model.class_names)[model.predict(x[:3])], words[:3])
    with pytest.raises(DataError, match="label 'cow' at index 1 is no class"):
        model.evaluate(x[:2], ["cat", "cow"])


@pytest.mark.parametrize("loss", [None, gn.SoftmaxCrossEntropy(), gn.MeanSquaredError(), gn.BinaryCrossEntropy()])
def test_whole_numbers_kept_as_floats_are_labels_to_a_network_of_several_outputs(loss: Any) -> None:
    x, labels = three()
    model = network()
    model.fit(x, labels.astype(float), loss=loss, epochs=20, **QUIET)
    assert model.class_names == ("0", "1", "2")
    assert model.evaluate(x, labels.astype(float)).accuracy > 0.9


@pytest.mark.parametrize("y", [np.arange(90) % 7, np.arange(90) % 7 * 1.0, np.arange(90) / 7, np.arange(90) % 7 - 3])
def test_a_network_of_one_output_learns_numbers(y: NDArray[Any]) -> None:
    x, _ = three()
    one, column = network(1), network(1)
    one.fit(x, y, epochs=3, loss="mse", **QUIET)
    column.fit(x, y.reshape(-1, 1).astype(float), loss="mse", epochs=3, **QUIET)
    np.testing.assert_array_equal(one.predict_proba(x), column.predict_proba(x))
    assert one.evaluate(x, y).loss == column.evaluate(x, y[:, None]).loss


def test_minus_one_and_one_are_numbers_to_one_output_and_no_labels_to_several() -> None:
    x, labels = three()
    signs = np.where(labels == 0, -1, 1)
    model = gn.Sequential([gn.Dense(8), gn.Tanh(), gn.Dense(1), gn.Tanh()])
    model.fit(x, signs, epochs=40, **QUIET)
    np.testing.assert_array_equal(np.sign(model.predict_proba(x)[:, 0]), signs)
    with pytest.raises(DataError, match=r"\(y > 0\).astype\(int\) makes classes 0 and 1 of -1 and 1"):
        network(2).fit(x, signs, **QUIET)


def test_labels_that_begin_at_1_are_said(caplog: pytest.LogCaptureFixture) -> None:
    x, labels = three()
    with pytest.raises(ShapeError, match="labels begin at 1, so y - 1 makes 3 classes of them"):
        network().fit(x, labels + 1, **QUIET)
    model = network(4)
    with caplog.at_level(logging.WARNING):
        model.fit(x, labels + 1, epochs=20, **QUIET)
    (said,) = caplog.messages
    assert "none of the 81 training samples is of class 0, so it is not learned: labels that begin at 1" in said
    assert "y - 1" in said
    np.testing.assert_array_equal(model.predict(x[:9]), labels[:9] + 1)


def test_classes_that_a_limit_leaves_out_are_said(caplog: pytest.LogCaptureFixture) -> None:
    x, labels = three()
    order = np.argsort(labels, kind="stable")
    data = gn.Data.from_arrays(x[order], labels[order], limit=40)
    with caplog.at_level(logging.WARNING):
        network().fit(data, epochs=1, **QUIET)
    (said,) = caplog.messages
    assert "is of class 2" in said
    assert "limit" in said
    caplog.clear()
    network().fit(x, labels, epochs=1, **QUIET)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("y", "mend"),
    [(np.tile([1.0, 1, 0], (90, 1)), "take BinaryCrossEntropy"), (np.full((90, 3), 0.3), "take MeanSquaredError")],
)
def test_softmax_cross_entropy_of_float_targets_says_what_suits_them(y: Any, mend: str) -> None:
    with pytest.raises(DataError, match=mend) as caught:
        network().fit(three()[0], y, loss=gn.SoftmaxCrossEntropy(), **QUIET)
    one_line(caught.value)


def test_names_are_told_apart_however_they_are_numbered() -> None:
    x, labels = three()
    words = np.array(["dog", "cat", "owl"])[labels]
    model = network()
    model.fit(x, words, epochs=20, batch_size=16, **QUIET)
    fewer = labels != 1  # alphabetical numbers are others without the cat
    data = gn.Data.from_arrays(x, words, test=gn.Data.from_arrays(x[fewer], words[fewer], validation=0).train)
    other = gn.Data("b", data.train, None, ("dog", "owl"), lambda: data.test)
    assert model.evaluate(other).accuracy == model.evaluate(x[fewer], words[fewer]).accuracy > 0.95
    strange = gn.Data("b", data.train, None, ("dog", "cow"), lambda: data.test)
    with pytest.raises(DataError, match="label 'cow' at index"):
        model.evaluate(strange)
    # Numbers say nothing of names, nor names of numbers.
    assert model.evaluate(gn.Data.from_arrays(x, labels, test=(x, (labels + 1) % 3 % 2))).total == 90


def test_names_mean_nothing_to_what_was_trained_on_numbers() -> None:
    x, labels = three()
    words = np.array(["dog", "cat", "owl"])[labels]
    by_hand, regression = network().build(4, device="cpu"), network(2)
    regression.fit(x, x[:, :2], epochs=1, **QUIET)
    for model in (by_hand, regression, trained(epochs=1)):
        with pytest.raises(DataError, match=r"label 'dog' at index 0 is no class: expected (numbers|'0', '1', '2')"):
            model.evaluate(x, words)
    for y in (labels, x[:, :2]):
        with pytest.raises(DataError, match="label 'dog' at index 0 is no class"):
            _ = gn.Data.from_arrays(x, y, test=(x, words)).test
        with pytest.raises(DataError, match="label 'dog' at index 0 is no class"):
            network().fit(x, y, validation_data=(x, words), **QUIET)


def test_one_class_alone_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        network(1).fit(gn.Data.from_arrays(three()[0], ["yes"] * 90), epochs=1, **QUIET)
    assert caplog.messages == ["all training samples are of class yes: there is nothing to tell apart"]


def test_by_hand_rows_of_one_1_and_booleans_are_labels_too(backend: Backend) -> None:
    z, labels = np.random.default_rng(0).normal(size=(6, 2)), np.arange(6) % 2
    y, loss = backend.asarray(z), gn.SoftmaxCrossEntropy()
    expected = float(loss.forward(y, labels))
    for given in (np.eye(2)[labels], np.eye(2, dtype=int)[labels].tolist(), labels == 1, labels.tolist()):
        assert float(loss.forward(y, given)) == expected
    with pytest.raises(ShapeError, match="expects integer labels"):
        loss.forward(y, np.full((6, 2), 0.5))


# fit and evaluate


def test_x_and_y_may_be_given_one_by_one_or_as_a_pair() -> None:
    x, labels = three()
    answers = []
    for given in ((x, labels), ((x, labels),), ([x, labels],), (gn.Samples(x, labels),), (x.tolist(), labels.tolist())):
        model = network()
        model.fit(*given, epochs=2, **QUIET)
        answers.append(model.predict_proba(x))
        assert model.evaluate(*given).total == 90
    for other in answers[1:]:
        np.testing.assert_array_equal(other, answers[0])


def test_a_data_set_is_evaluated_on_its_test_set() -> None:
    x, labels = three()
    model = trained()
    data = gn.Data.from_arrays(x, labels, test=three(30, seed=1))
    assert model.evaluate(data) == model.evaluate(data.test)
    with pytest.raises(DataError, match=r"arrays has no test set: evaluate its \.validation"):
        model.evaluate(gn.Data.from_arrays(x, labels))


def test_bytes_are_evaluated_as_they_were_trained_on() -> None:
    x, labels = three()
    x = (40 * (x + 3)).astype(np.uint8)
    model = network()
    model.fit(x, labels, epochs=20, **QUIET)
    assert model.evaluate(x, labels) == model.evaluate(gn.Samples(x, labels, 1 / 255))


@pytest.mark.parametrize("validation", [three(20, seed=5), list(three(20, seed=5)), gn.Samples(*three(20, seed=5))])
@pytest.mark.parametrize("kind", ["arrays", "samples", "data"])
def test_validation_data_are_watched_and_everything_else_is_learned(kind: str, validation: Any) -> None:
    x, labels = three()
    data = gn.Data.from_arrays(x, labels, validation=0)
    given: Any = {"arrays": (x, labels), "samples": (data.train,), "data": (data,)}[kind]
    model, plain = network(), network()
    history = model.fit(*given, validation_data=validation, epochs=2, **QUIET)
    plain.fit(data, epochs=2, **QUIET)
    np.testing.assert_array_equal(model.predict_proba(x), plain.predict_proba(x))
    result = model.evaluate(*three(20, seed=5))
    assert history[-1].validation_loss == pytest.approx(result.loss)
    assert data.validation is None


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, DataError, "fit takes a data set, samples, or x and y, got nothing"),
        ({"data": three()[0]}, DataError, "got ndarray without targets"),
        ({"y": three()[1]}, DataError, "got y without x"),
        ({"data": "digits"}, DataError, r"write fit\(gpunn.load_data\('digits'\)\)"),
        ({"data": gn.Samples(*three()), "y": three()[1]}, DataError, "fit takes Samples alone, or x and y"),
        ({"data": gn.Data.from_arrays(*three()), "y": three()[1]}, DataError, "fit takes Data alone, or x and y"),
        ({"data": gn.Data.from_arrays(*three()), "validation_data": three()}, OptionError, "9 samples for validation"),
        ({"data": three(), "validation_data": 0.1}, DataError, "validation_data is .x, y. or Samples, got float"),
        ({"data": three(), "validation_data": three()[0]}, DataError, "validation_data is .x, y. or Samples, got nd"),
        ({"data": three(), "validation_data": (XOR, [0, 1, 1, 0])}, DataError, "expected inputs of shape"),
        (
            {"data": three(), "validation_data": (three()[0], three()[1] + 1)},
            DataError,
            "validation set of arrays: lab",
        ),
        ({"data": three(), "validation_data": (three()[0], three()[0])}, DataError, "validation set of arrays: expect"),
        ({"data": three(), "loss": "cross"}, OptionError, "unknown loss 'cross': expected one of BinaryCrossEntropy"),
        ({"data": three(), "loss": "SoftmaxCrossEntrpy"}, OptionError, "did you mean SoftmaxCrossEntropy"),
        ({"data": three(), "loss": gn.SGD()}, OptionError, r"expected a loss such as MeanSquaredError\(\), got SGD"),
        ({"data": three(), "loss": len}, OptionError, "expected a loss such as"),
        ({"data": three(), "optimizer": "adma"}, OptionError, "did you mean Adam"),
        ({"data": three(), "optimizer": 0.1}, OptionError, r"expected an optimizer .*: write SGD\(0.1\)"),
        ({"data": three(), "optimizer": gn.L2(1.0)}, OptionError, r"expected an optimizer such as SGD\(0.1\), got L2"),
        ({"data": three(), "regularizer": 1e-4}, OptionError, r"expected a regularizer .*: write L2\(0.0001\)"),
        ({"data": three(), "regularizer": "l2"}, OptionError, r"L2 needs strength: write L2\(...\), got 'l2'"),
        ({"data": three(), "regularizer": gn.L1}, OptionError, r"L1 needs strength: write L1\(...\)"),
        ({"data": three(), "augmentation": True}, OptionError, r"expected an augmentation such as Augmentation\(shift"),
        ({"data": three(), "progress": "no"}, OptionError, "progress must be True or False, got 'no'"),
        ({"data": three(), "recompute_statistics": None}, OptionError, "recompute_statistics must be True or False"),
        ({"data": three(), "patience": "3"}, OptionError, "patience must be a number, got '3'"),
        ({"data": three(), "optimizer": gn.Adam(), "epochs": "3"}, OptionError, "epochs must be a whole number"),
        ({"data": three(), "dtype": np.int32}, OptionError, "unknown dtype .*: expected float32 or float64"),
        ({"data": three(), "dtype": None}, OptionError, "unknown dtype None: expected float32 or float64"),
        ({"data": three(), "device": None}, OptionError, "unknown device None"),
        ({"data": three(), "seed": None}, OptionError, "seed must be a whole number"),
    ],
    ids=shown,
)
def test_what_fit_cannot_take_is_one_line(options: dict[str, Any], error: type[GpunnError], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        network().fit(**{**QUIET, **options})
    one_line(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((None,), "expected samples such as data.test, a data set, or x and y, got nothing"),
        ((three()[0],), "got ndarray without targets"),
        (("digits",), "got 'digits'"),
        ((gn.Samples(*three()), three()[1]), "evaluate takes Samples alone"),
        ((three()[0], three()[1][:5]), "90 inputs, 5 targets"),
        ((three()[0], three()[1] + 1), "y - 1 counts from 0"),
        ((three()[0], three()[0]), "expected labels of 3 classes"),
        ((np.full((3, 4), np.nan), [0, 1, 2]), "NaN"),
        ((np.zeros((0, 4)), []), "no values"),
    ],
    ids=shown,
)
def test_what_evaluate_cannot_take_is_one_line(given: Any, said: str) -> None:
    model = trained(epochs=1)
    with pytest.raises(DataError, match=said) as caught:
        model.evaluate(*given)
    one_line(caught.value)


# Names, classes and instances


@pytest.mark.parametrize("rate", ["0.1", "cosine", gn.Cosine, None, True, [0.1], np.nan, -1])
def test_what_is_no_learning_rate_is_one_line(rate: Any) -> None:
    for kind in (gn.SGD, gn.Adam):
        with pytest.raises(OptionError, match="learning rate") as caught:
            kind(rate)
        one_line(caught.value)
    assert gn.SGD(np.float32(0.5)).learning_rate == gn.SGD(np.array(0.5)).learning_rate == 0.5


@pytest.mark.parametrize("optimizer", ["Adam", "adam", gn.Adam, gn.Adam(), {"type": "Adam"}])
@pytest.mark.parametrize("loss", ["MeanSquaredError", "mean_squared_error", "MSE", gn.MeanSquaredError])
def test_parts_may_be_named(optimizer: Any, loss: Any) -> None:
    x, labels = three()
    named, made = network(), network()
    named.fit(x, labels, loss=loss, optimizer=optimizer, epochs=2, **QUIET)
    made.fit(x, labels, loss=gn.MeanSquaredError(), optimizer=gn.Adam(), epochs=2, **QUIET)
    np.testing.assert_array_equal(named.predict_proba(x), made.predict_proba(x))


def test_numpy_s_types_are_dtypes_too() -> None:
    assert trained(epochs=1, dtype=np.float64).dtype == "float64"
    assert trained(epochs=1, dtype=np.dtype("float32")).dtype == "float32"


def test_layers_without_arguments_may_be_named() -> None:
    model = gn.Sequential(["Flatten", gn.Dense(4, weights="HE"), "relu", gn.Dense(2, weights=gn.LeCun), gn.Softmax])
    assert repr(model.layers) == "[Flatten(), Dense(4, weights='he'), ReLU(), Dense(2, weights=LeCun()), Softmax()]"


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ((gn.Dense(3),), r"a network is a list of layers: write Sequential\(\[Dense\(3\)\]\)"),
        ((gn.Dense(3), gn.ReLU()), r"write Sequential\(\[Dense\(3\), ReLU\(\)\]\)"),
        ((3,), r"a network is a list of layers such as \[Dense\(10\)\], got 3"),
        ((None,), "a network is a list of layers"),
        (("relu",), "a network is a list of layers"),
        (([],), "a network is a list of layers"),
        (([gn.Dense],), r"Dense needs units: write Dense\(...\)"),
        (([10],), r"expected a layer such as Dense\(10\), got 10: write Dense\(10\)"),
        ((["rleu"],), "did you mean ReLU"),
        (([gn.L2(1.0)],), "expected a layer"),
        (([[gn.Dense(3)]],), "expected a layer"),
    ],
)
def test_what_is_no_list_of_layers_is_one_line(layers: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        gn.Sequential(*layers)
    one_line(caught.value)


def test_a_bias_of_true_is_a_bias_that_begins_with_0() -> None:
    for layer in (gn.Dense(2, bias=True), gn.Conv2D(2, bias=np.True_)):
        assert layer.bias == 0.0
        assert layer.bias is not False
    assert gn.Dense(2, bias=np.False_).bias is False


def test_a_number_of_features_is_a_shape() -> None:
    assert as_shape(4) == as_shape((4,)) == as_shape([4]) == as_shape(np.array([4])) == (4,)
    assert network().build(4, device="cpu").input_shape == (4,)
    for wrong in ("4", None, 2.5, (2, 3), ()):
        with pytest.raises(GpunnError, match="input shape"):
            as_shape(wrong)


# What a network is asked


class Tensor:
    """An array of another library."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values, self.shape, self.ndim = values, values.shape, values.ndim

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.values

    def transpose(self, *axes: int) -> None:
        raise TypeError("not as NumPy has it")


class Frame:
    """What has nothing but a method that gives an array."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values

    def to_numpy(self) -> NDArray[Any]:
        return self.values.astype(object)


@pytest.mark.parametrize(
    "wrapped",
    [list, Tensor, Frame, lambda x: x.astype(object), lambda x: np.ma.masked_array(x), lambda x: x.tolist(),
     lambda x: tuple(map(Tensor, x))],
)  # fmt: skip
def test_whatever_numpy_makes_an_array_of_is_answered(wrapped: Any) -> None:
    model = trained()
    x, _ = three()
    np.testing.assert_array_equal(model.predict(wrapped(x)), model.predict(x))
    np.testing.assert_array_equal(model.predict_proba(wrapped(x)), model.predict_proba(x))
    assert model.forward(wrapped(x[:5])).shape == (5, 3)
    assert model.evaluate(wrapped(x), three()[1]) == model.evaluate(x, three()[1])


def images() -> gn.Sequential:
    return gn.Sequential([gn.Conv2D(2), "relu", gn.Flatten(), gn.Dense(2)]).build((4, 4, 1), device="cpu")


@pytest.mark.parametrize("dtype", [">f4", ">i2", np.longdouble, np.float16, bool, np.uint64])
def test_numbers_of_any_kind_are_answered(dtype: Any) -> None:
    x = np.random.default_rng(0).integers(0, 2, (5, 4))
    model = trained(epochs=1)
    np.testing.assert_array_equal(model.predict_proba(x.astype(dtype)), model.predict_proba(x.astype("f4")))


def test_pictures_of_pillow_are_answered() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    model = images()
    np.testing.assert_array_equal(
        model.predict_proba([Image.fromarray(p) for p in pixels]), model.predict_proba(pixels)
    )
    with pytest.raises(DataError, match="no rectangular NumPy array"):
        model.predict([Image.new("L", (4, 4)), Image.new("L", (5, 4))])
    with pytest.raises(DataError, match=r"places in a palette: take picture.convert\('L'\)"):
        model.predict([Image.new("L", (4, 4)), Image.new("P", (4, 4))])


@pytest.mark.parametrize("shape", [(0, 12), (0, 2, 3, 2), (0,)])
def test_no_samples_get_no_answers(shape: tuple[int, ...]) -> None:
    model = gn.Sequential([gn.Dense(2)]).build((12,), device="cpu")
    assert model.predict(np.zeros(shape)).shape == (0,)
    assert model.predict_proba(np.zeros(shape)).shape == (0, 2)
    assert images().predict([]).shape == (0,)
    assert images().predict_proba(np.zeros((0, 4, 4))).shape == (0, 2)


@pytest.mark.parametrize("ask", ["predict", "predict_proba", "forward"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_numbers_that_are_not_finite_get_no_answer(ask: str, value: float) -> None:
    x = three()[0]
    x[7, 2] = value
    with pytest.raises(
        DataError, match=r"inputs must be finite float32 numbers, got .* in sample 7 at position \(2,\)"
    ):
        getattr(trained(epochs=1), ask)(x)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (None, "inputs must be numbers, got NoneType"),
        ("seven.png", "inputs must be numbers, got str"),
        ({"x": 1}, "inputs must be numbers, got dict"),
        ({1, 2}, "inputs must be numbers, got set"),
        ((row for row in XOR), "inputs must be numbers, got generator"),
        ([[1, 2], [3]], "inputs are no rectangular NumPy array"),
        (np.zeros((2, 4), complex), "inputs must be numbers, got complex128"),
        (np.array([["a", "b", "c", "d"]]), "inputs must be numbers, got <U1"),
        (np.array([[1, None, 2, 3]], dtype=object), "inputs must be numbers, got object"),
        (np.ma.masked_array(np.zeros((1, 4)), [[0, 1, 0, 0]]), "masked"),
        (3.0, r"expected inputs \(batch, 4\), got \(\)"),
        (np.zeros(4), r"expected inputs \(batch, 4\), got \(4,\): x\[None\] makes a batch of one sample"),
        ([1.0, 2, 3, 4], r"x\[None\] makes a batch of one sample"),
        (np.zeros(5), r"expected inputs \(batch, 4\), got \(5,\)$"),
        (np.zeros((0, 2, 3)), r"expected inputs \(batch, 4\), got \(0, 2, 3\)$"),
        (np.zeros((2, 0)), r"expected inputs \(batch, 4\), got \(2, 0\)$"),
    ],
    ids=shown,
)
def test_what_a_network_cannot_be_asked_is_one_line(x: Any, said: str) -> None:
    model = trained(epochs=1)
    for ask in (model.predict, model.predict_proba, model.forward):
        with pytest.raises((DataError, ShapeError), match=said) as caught:
            ask(x)
        one_line(caught.value)


def test_one_image_alone_is_told_how_to_be_a_batch_of_features() -> None:
    with pytest.raises(ShapeError, match=r"got \(4, 4, 1\): x\[None\] makes a batch of one sample"):
        gn.Sequential([gn.Dense(2)]).build(16, device="cpu").predict(np.zeros((4, 4, 1)))


@pytest.mark.parametrize("x", [np.zeros((4, 4, 1)), np.zeros((4, 4)), np.zeros((1, 16))[0], Image.new("L", (4, 4))])
def test_one_sample_alone_is_told_how_to_be_a_batch(x: Any) -> None:
    with pytest.raises(ShapeError, match=r"got .*: x\[None\] makes a batch of one sample"):
        images().predict(x)


# Sets of any size


@pytest.mark.parametrize("outputs", [1, 2])
def test_four_samples_are_learned_with_the_defaults_of_fit(outputs: int, backend: Backend) -> None:
    model = gn.Sequential([gn.Dense(8), gn.Tanh(), gn.Dense(outputs)])
    y = np.array([0, 1, 1, 0])
    history = model.fit(XOR, y if outputs == 2 else y * 1.0, epochs=500, progress=False, device=backend)
    assert history[-1].step == 500
    assert np.isnan(history[-1].validation_loss)
    if outputs == 2:
        assert model.evaluate(XOR, y).accuracy == 1.0
        np.testing.assert_array_equal(model.predict(XOR), y)
    else:
        np.testing.assert_array_equal(model.predict_proba(XOR)[:, 0] > 0.5, y == 1)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 19, 20, 21])
@pytest.mark.parametrize("kind", ["labels", "names", "floats", "rows"])
def test_sets_of_any_size_are_learned(n: int, kind: str) -> None:
    x = np.random.default_rng(0).normal(size=(n, 4))
    y = {"labels": np.arange(n) % 3, "names": np.array(["a", "b", "c"])[np.arange(n) % 3], "floats": x[:, :2] / 2,
         "rows": np.eye(3)[np.arange(n) % 3]}[kind]  # fmt: skip
    data = gn.Data.from_arrays(x, y)
    assert (data.validation is None) == (n < 20)
    outputs = data.train.classes or 2
    for given in ((data,), (x, y), (gn.Samples(x, data.train.targets),) if n < 20 else (data,)):
        history = network(outputs).fit(*given, epochs=2, **QUIET)
        assert history[-1].epoch == 2


def test_as_many_classes_as_samples_hold_none_back() -> None:
    x = np.random.default_rng(0).normal(size=(30, 4))
    assert gn.Data.from_arrays(x, np.arange(30)).validation is None
    assert len(gn.Data.from_arrays(x, np.minimum(np.arange(30), 28)).validation) == 1
    with pytest.raises(OptionError, match="give at most 0"):
        gn.Data.from_arrays(x, np.arange(30), validation=3)


def test_a_batch_is_at_most_the_samples() -> None:
    assert fitting_batch_size(None, 4, []) == 4
    assert fitting_batch_size(1000, 72, []) == 72
    assert fitting_batch_size(None, 1000, []) == 128
    assert fitting_batch_size(16, 72, []) == 16


def test_a_batch_size_that_was_cut_and_rows_held_back_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    network().fit(three(), epochs=1, batch_size=100, device="cpu")
    said = capsys.readouterr().err
    assert "batches of 81 samples: a batch size of 100 is more than there are\n" in said
    assert "9 of 90 samples are held back for validation" in said
    network().fit(three(12), epochs=1, device="cpu")
    assert "samples:" not in (said := capsys.readouterr().err)
    assert "held back" not in said
    network().fit(three(), epochs=1, device="cpu", validation_data=three())
    assert "held back" not in capsys.readouterr().err


@pytest.mark.parametrize("n", [2, 3, 129, 257])
def test_no_sample_is_left_over_for_batchnorm_unless_it_is_asked_for(n: int) -> None:
    x, labels = three(n)
    model = gn.Sequential([gn.Dense(8), gn.BatchNorm(), gn.ReLU(), gn.Dense(3)])
    model.fit(gn.Data.from_arrays(x, labels, validation=0), epochs=2, **QUIET)
    assert n % model.batch_size != 1
    if n > 128:
        with pytest.raises(OptionError, match="leave a batch of one, which BatchNorm cannot normalise"):
            model.fit(gn.Data.from_arrays(x, labels, validation=0), batch_size=128, **QUIET)


def test_a_single_sample_is_no_batch_for_batchnorm() -> None:
    model = gn.Sequential([gn.Dense(8), gn.BatchNorm(), gn.Dense(1)])
    with pytest.raises(GpunnError, match="BatchNorm") as caught:
        model.fit(np.zeros((1, 4)), np.zeros((1, 1)), **QUIET)
    one_line(caught.value)


def test_fit_and_the_options_of_a_trainer_have_the_same_defaults() -> None:
    given = {name: p.default for name, p in inspect.signature(gn.Sequential.fit).parameters.items()}
    options = {each.name: each.default for each in fields(TrainOptions)}
    assert set(given) - set(options) == {"self", "data", "y", "validation_data", "sample_weight"}
    assert options == {name: given[name] for name in options}


def test_several_answers_of_0_and_1_are_learned_by_the_loss_that_is_made_for_them() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    answers = (x[:, :2] > 0).astype(np.uint8)
    answers[:4] = [[0, 0], [1, 1], [0, 0], [1, 1]]
    for last in ([gn.Dense(2)], [gn.Dense(2), gn.Sigmoid()]):
        model = gn.Sequential(last)
        model.fit(x, answers, epochs=1, **QUIET)
        assert isinstance(model.loss, gn.BinaryCrossEntropy)
        assert set(np.unique(model.predict(x))) <= {0, 1}
    for y, layers in ((answers * 0.5, [gn.Dense(2)]), (answers, [gn.Dense(2), gn.ReLU()])):
        model = gn.Sequential(layers)
        model.fit(x, y, epochs=1, **QUIET)
        assert isinstance(model.loss, gn.MeanSquaredError)

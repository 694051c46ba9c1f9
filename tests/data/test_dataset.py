"""Samples and data from one's own arrays: what is kept, what is refused, when the test set is looked at."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.data_helpers import one_line

from gpunn.data import Data, Samples
from gpunn.errors import DataError, OptionError

X = np.arange(40, dtype=np.float64).reshape(20, 2)
Y = np.arange(20) % 4


def refused(*args, **named) -> str:
    with pytest.raises(DataError) as caught:
        Samples(*args, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given_type", "kept"),
    [
        ("uint8", "uint8"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("int64", "float32"),
        ("uint16", "float32"),
        ("bool", "float32"),
        ("float16", "float32"),
        (">f4", "float32"),
        (">f8", "float64"),
    ],
)
def test_inputs_become_bytes_or_floats_of_this_machine(given_type, kept):
    samples = Samples(X.astype(given_type), Y)
    assert samples.inputs.dtype == np.dtype(kept)
    assert samples.inputs.flags.c_contiguous
    np.testing.assert_array_equal(samples.inputs, X.astype(given_type))


def test_images_get_a_channel():
    assert Samples(np.zeros((3, 4, 5)), [0, 1, 0]).shape == (4, 5, 1)
    assert Samples(np.zeros((3, 4, 5, 2)), [0, 1, 0]).shape == (4, 5, 2)


def test_labels_are_int32_and_their_number_of_classes_is_derived():
    samples = Samples(X, Y.astype(np.uint8))
    assert (samples.targets.dtype, samples.classes) == (np.int32, 4)
    assert Samples(X, Y, classes=7).classes == 7
    assert Samples(X, Y % 2 == 1).classes == 2
    np.testing.assert_array_equal(Samples(X, Y, classes=5).class_counts(), [5, 5, 5, 5, 0])


def test_float_targets_have_no_classes():
    samples = Samples(X, X.astype(np.float32))
    assert samples.classes == 0
    assert samples.targets.dtype == np.float32
    assert samples.class_counts().shape == (0,)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39, -1e39])
@pytest.mark.parametrize("place", [(0, 0), (13, 1), (19, 1)])
def test_a_value_that_is_not_finite_in_float32_is_named_with_its_place(value, place):
    wrong = X.copy()
    wrong[place] = value
    assert f"in sample {place[0]} at position ({place[1]},)" in refused(wrong, Y)
    assert "targets must be finite" in refused(X, wrong)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, -1, 2], "got -1 at index 1"),
        ([0, 1, 5], "expected 0 to 3 (4 classes), got 5 at index 2"),
        ([0, 1, 0.5], "no whole numbers"),
        ([[1, 0], [0, 1], [1, 0]], "rows of 2"),
        ([[1.0, 0], [0, 1], [1, 0]], "rows of 2"),
        ([[3, 0], [0, 1], [1, 0]], "y.argmax(axis=1)"),
        ([1, 2, 4], "y - 1 counts from 0"),
        ([-1, 1, -1], "(y > 0).astype(int) makes classes 0 and 1"),
        ([0, np.nan, 1], "no whole numbers"),
        ([[0.5], [1], [2]], "no whole numbers"),
        ([0, 1], "3 inputs, 2 targets"),
        ([], "no values"),
        (["a", "b", "c"], "must be numbers"),
        ("abc", "must be numbers, got str"),
        (None, "must be numbers, got NoneType"),
        ({0: 1}, "must be numbers, got dict"),
        ([0j, 1, 2], "must be numbers, got complex128"),
        (np.zeros((3, 2, 2)), "y.reshape(len(y), -1)"),
        ([0, None, 1], "must be numbers"),
        ([[0], [1, 2], [3]], "no rectangular NumPy array"),
        (np.ma.masked_array([0, 1, 2], [0, 1, 0]), "masked"),
    ],
)
def test_labels_that_cannot_be_used_say_why_and_what_to_do(labels, said):
    assert said in refused(X[:3], labels, classes=4)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, bool])
def test_rows_of_one_1_are_classes(dtype):
    samples = Samples(X, np.eye(4, dtype=dtype)[Y])
    assert (samples.classes, samples.targets.dtype, samples.one_hot) == (4, np.int32, True)
    np.testing.assert_array_equal(samples.targets, Y)
    assert samples.subset([1, 2]).one_hot
    assert samples.first(3).one_hot
    np.testing.assert_array_equal(samples.as_floats().targets, np.eye(4)[Y])
    assert samples.as_floats().classes == 0
    assert samples.sha256() == Samples(X, Y).sha256()


@pytest.mark.parametrize("wrong", [0.0, 2.0, 0.999, -1.0])
def test_one_row_that_is_not_of_one_1_leaves_floats_what_they_are(wrong):
    rows = np.eye(4)[Y]
    rows[7, 3] = wrong
    samples = Samples(X, rows)
    assert (samples.classes, samples.one_hot) == (0, False)
    np.testing.assert_array_equal(samples.targets, rows)


def test_floats_that_are_asked_for_stay_floats_though_they_are_rows_of_one_1():
    assert Samples(X, np.eye(4)[Y], classes=0).targets.shape == (20, 4)


def test_zeros_and_ones_of_several_labels_are_float_targets_of_whatever_type():
    several = (X[:, :1] > [[5, 9, 30]]).astype(int)
    for dtype in (int, bool, np.uint8):
        samples = Samples(X, several.astype(dtype))
        assert (samples.classes, samples.targets.dtype) == (0, np.float32)
        np.testing.assert_array_equal(samples.targets, several)


@pytest.mark.parametrize("dtype", [int, bool, np.uint8, object])
def test_labels_in_a_column_are_labels(dtype):
    samples = Samples(X, (Y[:, None] > 1).astype(dtype))
    assert (samples.classes, samples.targets.shape, samples.one_hot) == (2, (20,), False)


def test_floats_of_one_output_need_no_second_axis():
    np.testing.assert_array_equal(Samples(X, X[:, 0] / 3).targets, X[:, :1] / 3)
    # A test set of whole numbers is of the kind that was trained on.
    data = Data.from_arrays(X, X[:, 0] / 3, test=(X[:2], np.array([1, 2])))
    np.testing.assert_array_equal(data.test.targets, [[1.0], [2.0]])


def test_whole_numbers_kept_as_floats_are_labels_where_classes_are_known():
    assert Samples(X, Y.astype(float), classes=4).targets.dtype == np.int32
    assert Samples(X, Y.astype(float)[:, None], classes=4).targets.dtype == np.int32
    assert Data.from_arrays(X, Y.astype(float), class_names=list("abcd")).train.classes == 4
    assert "y.astype(int) for classes" in refused(X, Y.astype(float))


@pytest.mark.parametrize("dtype", ["U", object, "S"])
def test_names_as_labels_become_classes_in_alphabetical_order(dtype):
    words = np.array(["dog", "cat", "owl", "ant"])[Y].astype(dtype)
    data = Data.from_arrays(X, words, validation=0, test=(X[:2], ["owl", "ant"]))
    assert data.class_names == ("ant", "cat", "dog", "owl")
    np.testing.assert_array_equal(data.train.targets, np.array([2, 1, 3, 0])[Y])
    np.testing.assert_array_equal(data.test.targets, [3, 0])
    ordered = Data.from_arrays(X, words[:, None], class_names=["owl", "dog", "cat", "ant", "bee"], validation=0)
    np.testing.assert_array_equal(ordered.train.targets, np.array([1, 2, 0, 3])[Y])
    assert ordered.train.classes == 5


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        (["a", "b", "x"], ["a", "b"], "label 'x' at index 2 is no class: expected 'a', 'b'"),
        (["a", None, "b"], None, "index 1 is missing (None)"),
        (["1", "2", "10"], None, "numbers written as texts, such as '1'"),
        ([["a", "b"]] * 3, None, "must be numbers"),
        ([0, 1, 1], {"a": 0, "b": 1}, "class_names is a list of names, got dict"),
        ([0, 1, 1], 2, "class_names is a list of names, got int"),
        ([[0], [1, 2], [3]], None, "no rectangular NumPy array"),
    ],
)
def test_names_that_are_no_classes_say_so(labels, names, said):
    with pytest.raises(DataError) as caught:
        Data.from_arrays(X[:3], labels, class_names=names)
    assert said in str(caught.value)
    one_line(caught.value)


def test_rows_of_one_1_fit_a_training_set_of_floats_and_of_labels():
    rows = np.eye(2)[Y[:6] % 2]
    data = Data.from_arrays(X, X / 40, test=Samples(X[:6], rows))
    np.testing.assert_array_equal(data.test.targets, rows)
    data = Data.from_arrays(X, Y % 2, test=(X[:6], rows))
    np.testing.assert_array_equal(data.test.targets, Y[:6] % 2)
    data = Data.from_arrays(X, np.eye(2)[Y % 2], test=(X[:6], Y[:6] % 2), validation=4)
    assert data.as_floats().train.targets.shape == (16, 2)
    assert data.as_floats().validation.targets.shape == (4, 2)
    assert not data.as_floats().test_is_open
    np.testing.assert_array_equal(data.as_floats().test.targets, rows)


@pytest.mark.parametrize("classes", [-2, 2.5, "4", True, 10**9])
def test_a_number_of_classes_is_a_whole_number(classes):
    assert "classes" in refused(X, Y, classes=classes)


def test_a_label_of_millions_is_no_class():
    assert "np.unique" in refused(X[:2], [0, 5_000_000])


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (np.zeros(3), "x.reshape(-1, 1)"),
        (np.zeros((3, 1, 1, 1, 1)), "x.reshape(len(x), -1)"),
        (np.zeros((0, 3)), "no values"),
        (np.zeros((3, 0)), "no values"),
        (3.0, "got shape ()"),
        (np.zeros((3, 2), complex), "must be numbers, got complex128"),
    ],
)
def test_inputs_of_a_wrong_shape_or_type_are_refused(inputs, said):
    assert said in refused(inputs, [0, 1, 2])


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), "1"])
def test_a_scale_is_finite_and_positive(scale):
    assert "scale" in refused(X, Y, scale)


def test_subset_and_first_keep_scale_and_classes():
    samples = Samples(X, Y, 0.5, 9)
    part = samples.subset([3, 1, 3])
    np.testing.assert_array_equal(part.inputs, X[[3, 1, 3]])
    assert (part.scale, part.classes, len(part)) == (0.5, 9, 3)
    np.testing.assert_array_equal(samples.subset(Y == 2).inputs, X[Y == 2])
    assert len(samples.first(5)) == 5
    assert len(samples.first(500)) == 20
    for wrong in ([], [20], [0.5], [[1]], np.ones(3, bool)):
        with pytest.raises(DataError):
            samples.subset(wrong)
    with pytest.raises(DataError):
        samples.first(0)


def test_the_fingerprint_changes_with_everything_that_training_sees():
    base = Samples(X, Y, 0.5, 4)
    other = X.copy()
    other[7, 1] += 1e-9
    variants = [
        Samples(other, Y, 0.5, 4),
        Samples(X, (Y + 1) % 4, 0.5, 4),
        Samples(X, Y, 0.25, 4),
        Samples(X, Y, 0.5, 5),
        Samples(X.astype(np.float32), Y, 0.5, 4),
        Samples(X[:, :, None], Y, 0.5, 4),
        Samples(X[::-1], Y, 0.5, 4),
    ]
    prints = {samples.sha256() for samples in [base, *variants]}
    assert len(prints) == 8
    assert base.sha256() == Samples(np.asfortranarray(X).astype(">f8"), Y.astype(np.uint8), 0.5).sha256()
    # Pinned: a run is resumed on another machine and with another version.
    assert base.sha256() == "2f3a14bb509de45f75891df1d1ba83c0dd29d9aba01f0d3de88004c383405f21"


@given(
    x=hnp.arrays(st.sampled_from(["uint8", "float32", "float64", "int32"]), hnp.array_shapes(min_dims=0, max_dims=5)),
    y=hnp.arrays(st.sampled_from(["int8", "float32", "int64"]), hnp.array_shapes(min_dims=0, max_dims=3)),
)
def test_any_arrays_are_taken_or_refused_with_one_line(x, y):
    try:
        samples = Samples(x, y)
    except DataError as error:
        one_line(error)
    else:
        assert len(samples.inputs) == len(samples.targets) == len(samples) > 0
        assert np.isfinite(samples.inputs).all()
        assert samples.inputs.ndim in (2, 4)


def test_arrays_are_split_and_named():
    data = Data.from_arrays(X, Y, validation=4, class_names=["a", "b", "c", "d"], name="mine")
    assert (len(data.train), len(data.validation), data.name) == (16, 4, "mine")
    assert data.class_names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(data.validation.class_counts(), [1, 1, 1, 1])
    assert not set(data.train.inputs[:, 0]) & set(data.validation.inputs[:, 0])
    assert (data.has_test, data.test_is_open, data.test) == (False, False, None)
    assert repr(data).startswith("Data(mine: train Samples(16 of 2 float64, 4 classes")


def test_float_targets_are_split_too():
    data = Data.from_arrays(X, X[:, :1], validation=0.25)
    assert (len(data.train), len(data.validation), data.class_names) == (15, 5, ())


def test_bytes_are_scaled_unless_another_scale_is_given():
    assert Data.from_arrays(X.astype(np.uint8), Y).train.scale == 1 / 255
    assert Data.from_arrays(X.astype(np.uint8), Y, scale=1 / 16).train.scale == 1 / 16
    assert Data.from_arrays(X, Y).train.scale == 1


def test_limit_keeps_the_first_samples_before_the_split():
    data = Data.from_arrays(X, Y, limit=8, validation=4)
    kept = np.concatenate([data.train.inputs, data.validation.inputs])
    np.testing.assert_array_equal(np.sort(kept[:, 0]), X[:8, 0])
    assert len(Data.from_arrays(X, Y, limit=1000, validation=0).train) == 20
    assert Data.from_arrays(X, Y, limit=1, validation=0).train.classes == 4
    for wrong in (0, -3, 2.5, True, "8"):
        with pytest.raises(OptionError, match="limit"):
            Data.from_arrays(X, Y, limit=wrong)


@pytest.mark.parametrize("as_function", [True, False])
def test_the_test_set_is_looked_at_on_first_access_and_once(as_function):
    calls = []

    def open_test():
        calls.append(1)
        return X[:6], Y[:6]

    data = Data.from_arrays(X, Y, test=open_test if as_function else (X[:6], Y[:6]))
    repr(data)
    assert data.has_test
    assert not data.test_is_open
    assert not calls
    assert data.test is data.test
    assert data.test_is_open
    assert len(data.test) == 6
    assert len(calls) == int(as_function)


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ((X[:, :1], Y), "expected inputs of shape (2,)"),
        ((X, X), "expected labels of 4 classes, got float64"),
        (Samples(X, X), "expected targets like those of training"),
        ((X, Y + 1), "got 4 at index 3"),
        ((X, Y[:3]), "20 inputs, 3 targets"),
        ((np.full_like(X, np.nan), Y), "NaN"),
        (Samples(X, Y, 0.5), "expected scale 1"),
        (Samples(X, Y + 3), "labels up to 6"),
        ((X,), "test is (x, y)"),
        (5, "test is (x, y)"),
    ],
)
def test_a_test_set_that_does_not_fit_says_so_when_it_is_opened(test, said):
    data = Data.from_arrays(X, Y, test=test)
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            _ = data.test
        assert "test set of arrays" in str(caught.value)
        assert said in str(caught.value)
        assert not data.test_is_open


def test_a_test_set_without_the_last_class_still_has_all_classes():
    data = Data.from_arrays(X, Y, test=Samples(X[:2], Y[:2]))
    assert data.test.classes == 4


def test_watching_the_test_set_says_so():
    data = Data.from_arrays(X, Y, test=(X[:6], Y[:6]), validation="test")
    assert data.validation_is_test
    assert data.test_is_open
    assert data.validation is data.test
    assert len(data.train) == 20
    assert "(the test set)" in repr(data)
    with pytest.raises(OptionError, match="has none"):
        Data.from_arrays(X, Y, validation="test")
    with pytest.raises(OptionError, match="'tests'"):
        Data.from_arrays(X, Y, test=(X, Y), validation="tests")


@pytest.mark.parametrize("names", [["a", "b", "c"], list("abca"), "abcd", ["a", "b", "c", "c"]])
def test_class_names_must_fit(names):
    with pytest.raises(DataError):
        Data.from_arrays(X, Y, class_names=names)


def test_more_names_than_labels_make_more_classes():
    assert Data.from_arrays(X, Y, class_names=list("abcdef")).train.classes == 6


def test_class_names_for_float_targets_are_refused():
    with pytest.raises(DataError, match="expected labels of 2 classes"):
        Data.from_arrays(X, X, class_names=["a", "b"])
    assert Data.from_arrays(X, X, class_names=[]).class_names == ()

""".npz files: which arrays make a data set, and that nothing in one is executed or believed."""

import io
import pickle
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.data_helpers import one_line

from gpunn.data import load_data
from gpunn.data.formats.npy import NpzFile
from gpunn.errors import DataError

X = np.arange(60, dtype=np.float32).reshape(20, 3)
Y = np.arange(20) % 2


def refused(path) -> str:
    with pytest.raises(DataError) as caught:
        load_data(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def npy(header: dict, content: bytes) -> bytes:
    """An npy file with a header that need not be true."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue() + content


def zipped(path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_names_of_keras_give_training_and_test_set(tmp_path, save):
    save(tmp_path / "set.npz", x_train=X, y_train=Y, x_test=X[:4], y_test=Y[:4])
    data = load_data(tmp_path / "set.npz", validation=0)
    np.testing.assert_array_equal(data.train.inputs, X)
    np.testing.assert_array_equal(data.test.inputs, X[:4])
    assert data.name == "set"


def test_x_and_y_give_a_training_set_without_a_test_set(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    data = load_data(str(tmp_path / "a.npz"), validation=2)
    assert (len(data.train), len(data.validation), data.test) == (18, 2, None)


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int64", ">f4", "<f8", "float16"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_as_numpy_wrote_them(tmp_path, dtype, order):
    array = np.asarray(np.arange(24).reshape(4, 3, 2) % 2, dtype=dtype, order=order)
    np.savez(tmp_path / "a.npz", x=array, y=Y[:4])
    np.testing.assert_array_equal(NpzFile(tmp_path / "a.npz").read("x"), array)


def test_bytes_are_scaled_and_get_a_channel(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 4, 5), np.uint8), y=Y)
    train = load_data(tmp_path / "a.npz").train
    assert train.shape == (4, 5, 1)
    assert train.scale == 1 / 255


def test_a_file_without_the_needed_arrays_lists_what_it_has(tmp_path):
    np.savez(tmp_path / "a.npz", pictures=X, kinds=Y)
    message = refused(tmp_path / "a.npz")
    assert "expected the arrays x_train, y_train" in message
    assert "got kinds, pictures" in message


def test_half_a_test_set_is_refused_at_once(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=X, y_train=Y, x_test=X)
    assert "x_test but not its other half" in refused(tmp_path / "a.npz")


def test_objects_are_refused_and_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'sprung')!r}, 'w')",)

    content = npy({"descr": "|O", "fortran_order": False, "shape": (1,)}, pickle.dumps(Trap()))
    message = refused(zipped(tmp_path / "a.npz", {"x": content, "y": content}))
    assert "objects are never loaded: save texts as np.array(y, str)" in message
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("shape", [(10**6, 10**6), (21, 3), (19, 3), (-20, -3)])
def test_a_shape_that_the_member_does_not_hold_is_refused(tmp_path, shape):
    content = npy({"descr": "<f4", "fortran_order": False, "shape": shape}, X.tobytes())
    tracemalloc.start()
    try:
        message = refused(zipped(tmp_path / "a.npz", {"x": content, "y": content}))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert ("must hold numbers" if shape[0] < 0 else "promises") in message


def test_a_size_in_the_zip_directory_that_the_file_cannot_hold_is_refused(tmp_path):
    size = 3 << 30
    content = npy({"descr": "|u1", "fortran_order": False, "shape": (size,)}, b"\0" * 100)
    path = zipped(tmp_path / "a.npz", {"x": content, "y": content})
    raw = path.read_bytes()
    true = len(content).to_bytes(4, "little")
    assert raw.count(true) >= 4  # local header and directory of both members
    path.write_bytes(raw.replace(true, (size + len(content) - 100).to_bytes(4, "little")))
    assert "that can be unpacked" in refused(path)


def test_a_consistent_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("gpunn.data.formats.bounded.MAX_UNPACKED", 1 << 20)
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((2 << 20, 1), np.uint8), y=Y)
    assert "more than the 1,048,576 that can be unpacked" in refused(tmp_path / "a.npz")


def test_a_changed_byte_is_found_by_the_checksum(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=X, y=Y)
    raw = bytearray(path.read_bytes())
    place = raw.index(X.tobytes()) + 5
    raw[place] ^= 1
    path.write_bytes(raw)
    assert "CRC" in refused(path)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_gives_the_right_arrays_or_one_line(tmp_path, data):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=X, y=Y)
    raw = path.read_bytes()
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        place = data.draw(st.integers(0, len(raw) - 1))
        raw = raw[:place] + bytes([raw[place] ^ data.draw(st.integers(1, 255))]) + raw[place + 1 :]
    path.write_bytes(raw)
    try:
        loaded = load_data(path, validation=0)
    except DataError as error:
        one_line(error)
    else:
        np.testing.assert_array_equal(loaded.train.inputs, X)
        np.testing.assert_array_equal(loaded.train.targets, Y)


def test_other_packings_and_versions_say_how_to_save_again(tmp_path):
    good = npy({"descr": "<f4", "fortran_order": False, "shape": X.shape}, X.tobytes())
    assert "np.savez" in refused(zipped(tmp_path / "a.npz", {"x": good, "y": good}, zipfile.ZIP_BZIP2))
    version_2 = b"\x93NUMPY\x02\0" + good[8:]
    assert "npy version 2.0" in refused(zipped(tmp_path / "a.npz", {"x": version_2, "y": good}))


HEADERS = {
    "another order": "{'shape': (20, 3), 'descr': '<f4', 'fortran_order': False}",
    "other quotes": '{"descr": "<f4", "fortran_order": False, "shape": (20, 3), }',
    "Python 2": "{'descr': '<f4', 'fortran_order': False, 'shape': (20L, 3L), }",
    "no spaces": "{'descr':'<f4','fortran_order':False,'shape':(20,3)}",
}


def header_of(text: str) -> bytes:
    return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text.encode("latin-1")


@pytest.mark.parametrize("text", HEADERS.values(), ids=HEADERS)
def test_headers_that_others_write_are_read(tmp_path, text):
    path = zipped(tmp_path / "a.npz", {"x": header_of(text) + X.tobytes(), "y": npy_of(Y)})
    np.testing.assert_array_equal(NpzFile(path).read("x"), X)


def npy_of(array) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "{}", "{[]: 1}", "{1, 2}", "(" * 3000, "-" * 9000 + "1", "[" * 9000, "{" * 9000 + "}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<f4', 'fortran_order': 7, 'shape': (60,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1, " * 1000 + ")}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (60,), 'more': 1}",
        "{'descr': '" + "f4," * 3000 + "', 'fortran_order': False, 'shape': (60,)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (60,)}",
        "{'descr': ('<f4', (1000000000, 1000)), 'fortran_order': False, 'shape': (60,)}",
        "{'descr': '|V4', 'fortran_order': False, 'shape': (60,)}",
        "{'descr': '<U1', 'fortran_order': False, 'shape': (60,)}",
        "{'descr': '<c8', 'fortran_order': False, 'shape': (30,)}",
        "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (30,)}",
        "{'descr': '<i3', 'fortran_order': False, 'shape': (80,)}",
        "__import__('os').system('true')",
    ],
    ids=lambda text: text[:60],
)  # fmt: skip
def test_a_header_that_is_none_is_refused_and_not_evaluated(tmp_path, text):
    path = zipped(tmp_path / "a.npz", {"x": header_of(text) + X.tobytes(), "y": npy_of(Y)})
    one_line(DataError(refused(path)))


def test_a_list_of_too_many_members_is_refused_unread(tmp_path):
    path = zipped(tmp_path / "a.npz", {f"{number:050}": b"" for number in range(20_000)})
    tracemalloc.start()
    try:
        assert "lists too many members" in refused(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in ("x.npy", "x.npy", "y.npy"):
            archive.writestr(name, npy_of(Y))
    assert "two arrays of one name" in refused(tmp_path / "a.npz")


def test_names_lead_nowhere_and_are_shown_harmless(tmp_path):
    path = zipped(tmp_path / "a.npz", {"../../x": b"", "/x": b"", "\x1b[31m\nx" + "n" * 60_000: b""})
    message = refused(path)
    assert "got \\x1b[31m\\nxn" in message
    assert len(message) < 600


def test_members_that_overlap_give_what_their_own_headers_say(tmp_path):
    """A directory whose entries share one member: no more comes of it than of the member."""
    path = zipped(tmp_path / "a.npz", {"x": npy_of(Y), "y": npy_of(Y)}, zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    second = raw.rindex(b"PK\x01\x02")
    raw[second + 42 : second + 46] = bytes(4)  # where y begins: at x
    path.write_bytes(raw)
    assert "y.npy" in refused(path)


def test_a_file_of_another_format_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(zlib.compress(b"something"))
    assert "expected a .npz file" in refused(path)
    path.write_bytes(b"")
    assert "(empty)" in refused(path)
    for content, name in ((npy_of(X), "an array of NumPy (.npy)"), (b"\x80\4.", "a pickle"), (b"\0\0\x08\3", "an IDX")):
        path.write_bytes(content)
        assert f"expected a .npz file, got {name}" in refused(path)


def test_nan_and_labels_out_of_range_name_the_file(tmp_path):
    wrong = X.copy()
    wrong[3, 1] = np.nan
    np.savez(tmp_path / "a.npz", x=wrong, y=Y)
    assert "NaN in sample 3 at position (1,)" in refused(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=X, y=Y - 1)
    assert "got -1 at index 0" in refused(tmp_path / "a.npz")


def test_a_damaged_test_set_is_found_when_it_is_opened_and_not_before(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=X, y_train=Y, x_test=X[:4, :2], y_test=Y[:4])
    data = load_data(tmp_path / "a.npz")
    assert not data.test_is_open
    with pytest.raises(DataError, match="test set of a: expected inputs of shape"):
        _ = data.test


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_rows_of_one_1_are_classes(tmp_path, dtype):
    np.savez(tmp_path / "a.npz", x_train=X, y_train=np.eye(2, dtype=dtype)[Y], x_test=X[:4], y_test=np.eye(2)[Y[:4]])
    data = load_data(tmp_path / "a.npz", validation=0)
    assert (data.train.classes, data.test.classes, data.class_names) == (2, 2, ("0", "1"))
    np.testing.assert_array_equal(data.train.targets, Y)


def test_names_as_labels_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=X, y_train=np.array(["no", "yes"])[Y], x_test=X[:2], y_test=["yes", "no"])
    data = load_data(tmp_path / "a.npz", validation=0)
    assert data.class_names == ("no", "yes")
    np.testing.assert_array_equal(data.train.targets, Y)
    np.testing.assert_array_equal(data.test.targets, [1, 0])


def test_texts_that_are_no_characters_and_texts_as_inputs_are_refused(tmp_path):
    header = {"descr": "<U1", "fortran_order": False, "shape": (20,)}
    numbers = npy({"descr": "<f4", "fortran_order": False, "shape": (20, 3)}, X.tobytes())
    zipped(tmp_path / "a.npz", {"x": numbers, "y": npy(header, b"\xff" * 80)})
    assert "no character" in refused(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=X.astype("U8"), y=Y)
    assert "inputs must be numbers" in refused(tmp_path / "b.npz")
    zipped(tmp_path / "c.npz", {"x": numbers, "y": npy(header | {"descr": "<U99999"}, b"")})
    assert "cut short by" in refused(tmp_path / "c.npz")

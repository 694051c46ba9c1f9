"""IDX files: what is read, and what every way of damaging one says."""

import gzip
import os
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.data_helpers import CODES, idx_bytes, one_line

from gpunn.data.formats.idx import idx_header, read_idx, read_images, read_labels
from gpunn.errors import DataError

SHARED_FOLDER = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def refused(path: Path, read=read_idx) -> str:
    """The message with which a file is refused: one line that names the file and has no traceback's words."""
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def put(folder: Path, content: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_a_file_written_by_hand_is_read(tmp_path):
    path = put(tmp_path, bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255]))
    np.testing.assert_array_equal(read_idx(path), [[1, 2, 3], [4, 5, 255]])


@SHARED_FOLDER
@given(
    array=st.sampled_from(sorted(CODES)).flatmap(
        lambda name: hnp.arrays(name, hnp.array_shapes(max_dims=5, max_side=6))
    ),
    packed=st.booleans(),
)
def test_every_type_and_shape_comes_back_as_it_was(tmp_path, array, packed):
    content = idx_bytes(array)
    result = read_idx(put(tmp_path, gzip.compress(content, 1) if packed else content))
    assert result.dtype == array.dtype
    assert result.dtype.isnative
    np.testing.assert_array_equal(result, array)
    assert content.startswith(idx_header(array.dtype, array.shape))


def test_what_is_read_may_be_written_to(tmp_path):
    read_idx(put(tmp_path, idx_bytes(IMAGES)))[0] = 7


@pytest.mark.parametrize("name", ["plain.gz", "packed"])
def test_gzip_is_told_by_the_first_bytes_and_not_by_the_name(tmp_path, name):
    content = idx_bytes(IMAGES)
    path = put(tmp_path, gzip.compress(content) if name == "packed" else content, name)
    np.testing.assert_array_equal(read_images(path)[..., 0], IMAGES)


def test_a_gzip_file_of_several_members_is_read(tmp_path):
    content = idx_bytes(IMAGES)
    path = put(tmp_path, gzip.compress(content[:7]) + gzip.compress(b"") + gzip.compress(content[7:]))
    np.testing.assert_array_equal(read_idx(path), IMAGES)


def test_zeros_may_follow_a_gzip_stream_and_nothing_else_may(tmp_path):
    packed = gzip.compress(idx_bytes(IMAGES))
    np.testing.assert_array_equal(read_idx(put(tmp_path, packed + bytes(5 << 20))), IMAGES)
    assert "the gzip stream is damaged" in refused(put(tmp_path, packed + bytes(100) + b"more"))


def test_the_members_of_a_gzip_file_are_counted(tmp_path):
    packed = gzip.compress(idx_bytes(IMAGES))
    np.testing.assert_array_equal(read_idx(put(tmp_path, gzip.compress(b"") * 1000 + packed)), IMAGES)
    assert "more than 65,536 parts" in refused(put(tmp_path, gzip.compress(b"") * 70_000 + packed))


def test_a_name_of_any_length_in_a_gzip_header_is_passed_over(tmp_path):
    packed = gzip.compress(idx_bytes(IMAGES), mtime=0)
    named = packed[:3] + b"\x08" + packed[4:10] + b"a" * (20 << 20) + b"\0" + packed[10:]
    np.testing.assert_array_equal(read_idx(put(tmp_path, named)), IMAGES)


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
def test_numbers_are_put_into_this_machines_order_where_they_are(tmp_path, dtype):
    path = put(tmp_path, idx_bytes(np.ones(1 << 20, dtype)))
    size = path.stat().st_size
    assert peak(lambda: read_idx(path)) < 1.2 * size + (2 << 20)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "it is no regular file" in refused(tmp_path / "pipe")


def test_images_have_channels(tmp_path):
    assert read_images(put(tmp_path, idx_bytes(IMAGES))).shape == (2, 3, 4, 1)
    colour = np.zeros((2, 3, 4, 3), np.uint8)
    assert read_images(put(tmp_path, idx_bytes(colour))).shape == (2, 3, 4, 3)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("length", range(16))
def test_a_file_that_ends_inside_its_header_is_refused(tmp_path, length, packed):
    content = idx_bytes(IMAGES)[:length]
    message = refused(put(tmp_path, gzip.compress(content) if packed else content))
    assert f"got {length} bytes" in message


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("length", [16, 17, 39])
def test_a_truncated_file_names_the_missing_bytes(tmp_path, length, packed):
    content = idx_bytes(IMAGES)[:length]
    message = refused(put(tmp_path, gzip.compress(content) if packed else content))
    assert "2 x 3 x 4 uint8 values, 24 bytes" in message
    assert f"cut short by {40 - length} bytes" in message


@pytest.mark.parametrize("packed", [False, True])
def test_bytes_after_the_end_are_refused(tmp_path, packed):
    content = idx_bytes(IMAGES) + b"\0"
    message = refused(put(tmp_path, gzip.compress(content) if packed else content))
    assert "bytes too long" in message or "more follow" in message


@SHARED_FOLDER
@given(data=st.data())
def test_a_cut_or_flipped_gzip_stream_never_gives_wrong_values_or_a_traceback(tmp_path, data):
    packed = gzip.compress(idx_bytes(IMAGES), mtime=0)
    if data.draw(st.booleans()):
        # From the third byte on it is still a gzip file.
        packed = packed[: data.draw(st.integers(2, len(packed) - 1))]
    else:
        place = data.draw(st.integers(2, len(packed) - 1))
        packed = packed[:place] + bytes([packed[place] ^ data.draw(st.integers(1, 255))]) + packed[place + 1 :]
    path = put(tmp_path, packed)
    try:
        result = read_idx(path)
    except DataError as error:
        one_line(error)
    else:  # only the name, time and system in gzip's own header may change without harm
        np.testing.assert_array_equal(result, IMAGES)


@SHARED_FOLDER
@given(content=st.binary(max_size=64), header=st.booleans())
def test_random_bytes_never_give_a_traceback(tmp_path, content, header):
    path = put(tmp_path, (b"\0\0\x08\x01" if header else b"") + content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (read_idx, read_images, read_labels):
            try:
                read(path)
            except DataError as error:
                one_line(error)


def test_another_format_is_shown_with_its_first_bytes(tmp_path):
    message = refused(put(tmp_path, b"<html>not found</html>"), read_images)
    assert "expected an IDX file with images" in message
    assert "3c 68 74 6d" in message


def test_labels_where_images_are_expected_are_said_to_be_labels(tmp_path):
    labels = put(tmp_path, idx_bytes(np.zeros(3, np.uint8)))
    message = refused(labels, read_images)
    assert "expected images" in message
    assert "got labels" in message
    assert "exchanged" in message


def test_images_where_labels_are_expected_are_said_to_be_images(tmp_path):
    message = refused(put(tmp_path, idx_bytes(IMAGES)), read_labels)
    assert "expected labels" in message
    assert "got images" in message


def test_images_must_be_bytes(tmp_path):
    message = refused(put(tmp_path, idx_bytes(IMAGES.astype(np.float32))), read_images)
    assert "float32 values in 3 dimensions" in message


def test_a_set_of_no_images_is_refused(tmp_path):
    assert "0 x 28 x 28" in refused(put(tmp_path, idx_bytes(np.zeros((0, 28, 28), np.uint8))), read_images)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert "No such file" in refused(tmp_path / "nowhere")
    assert "it is a folder" in refused(tmp_path)


def peak(call) -> int:
    """Bytes of memory taken at most while a function runs."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sizes", [(2**32 - 1,) * 3, (2**32 - 1,), (100_000, 1000, 1000)])
def test_absurd_dimensions_take_no_memory(tmp_path, sizes, packed):
    content = idx_header(np.uint8, sizes) + bytes(1000)
    path = put(tmp_path, gzip.compress(content) if packed else content)
    messages = []
    assert peak(lambda: messages.append(refused(path))) < 1 << 20
    assert "promises" in messages[0]


def test_a_gzip_bomb_is_unpacked_no_further_than_its_header_promises(tmp_path):
    path = put(tmp_path, gzip.compress(idx_header(np.uint8, (10, 10)) + bytes(200 << 20), 1))
    messages = []
    assert peak(lambda: messages.append(refused(path))) < 1 << 20
    assert "10 x 10 uint8 values" in messages[0]


def test_a_promise_that_gzip_could_keep_takes_no_more_memory_than_there_is_content(tmp_path):
    # Two MB of gzip may hold one GB, so only the content itself can tell.
    content = idx_header(np.uint8, (1 << 30,)) + np.random.default_rng(0).bytes(2 << 20)
    path = put(tmp_path, gzip.compress(content, 1))
    messages = []
    assert peak(lambda: messages.append(refused(path))) < 8 << 20
    assert "cut short" in messages[0]


def test_a_packed_file_of_more_than_the_bound_says_how_to_read_it(tmp_path):
    path = tmp_path / "huge.gz"
    path.write_bytes(gzip.compress(idx_header(np.uint8, (5 << 30 >> 10, 1 << 10))))
    with path.open("r+b") as file:
        file.truncate(8 << 20)  # sparse: large enough to make the promise possible
    assert "gunzip" in refused(path)


def test_the_mnist_files_are_read(mnist_folder):
    path = next(iter(sorted(mnist_folder.glob("t10k-images-idx3-ubyte*"))))
    images = read_images(path)
    assert images.shape == (10_000, 28, 28, 1)
    assert images.dtype == np.uint8

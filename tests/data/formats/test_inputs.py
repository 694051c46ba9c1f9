"""Files as inputs of a network: images in every mode, arrays, and what is refused."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpunn.data.formats.inputs import read_inputs
from gpunn.errors import DataError

SHAPE = (28, 28, 1)


def stroke(size: int = 28, light: bool = False) -> np.ndarray:
    """A bright stroke on a dark ground, or the other way round."""
    field = np.zeros((size, size), np.uint8)
    field[size // 4 : 3 * size // 4, size // 2 - size // 14 : size // 2 + size // 14] = 255
    return 255 - field if light else field


def test_an_image_of_the_network_s_size_is_taken_pixel_by_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 100, (28, 28)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    said: list[str] = []
    np.testing.assert_allclose(
        read_inputs(tmp_path / "a.png", SHAPE, note=said.append)[0, ..., 0], pixels / 255, rtol=1e-6
    )
    assert said == []
    assert read_inputs(tmp_path / "a.png", (784,)).shape == (1, 784)


def test_a_light_background_is_inverted_and_said(tmp_path: Path) -> None:
    Image.fromarray(stroke(light=True)).save(tmp_path / "a.png")
    said: list[str] = []
    inverted = read_inputs(tmp_path / "a.png", SHAPE, note=said.append)
    np.testing.assert_allclose(inverted[0, ..., 0], stroke() / 255)
    assert "light background" in said[0]
    kept = read_inputs(tmp_path / "a.png", SHAPE, invert="never")
    np.testing.assert_allclose(kept[0, ..., 0], stroke(light=True) / 255)
    dark = read_inputs(tmp_path / "a.png", SHAPE, invert="always")
    np.testing.assert_allclose(dark[0, ..., 0], stroke() / 255)


def test_a_large_image_is_fitted_in_whole_and_said(tmp_path: Path) -> None:
    wide = np.zeros((140, 280), np.uint8)
    wide[:, :] = stroke(280)[70:210]
    Image.fromarray(wide).save(tmp_path / "a.png")
    said: list[str] = []
    fitted = read_inputs(tmp_path / "a.png", SHAPE, note=said.append)[0, ..., 0]
    assert fitted[:7].max() == fitted[21:].max() == 0  # above and below lies the colour of the border
    np.testing.assert_allclose(fitted[7:21, 14], 1.0)
    assert "280 × 140 pixels, fitted into 28 × 28" in said[0]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"])
def test_every_mode_of_an_image_gives_the_same_stroke(tmp_path: Path, mode: str) -> None:
    pixels = stroke()
    if mode == "I;16":
        image = Image.fromarray(pixels.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(pixels).convert(mode)
    path = tmp_path / {"CMYK": "a.jpeg", "I": "a.ppm"}.get(mode, "a.png")
    image.save(path, **({"quality": 100} if mode == "CMYK" else {}))
    with Image.open(path) as written:
        assert written.mode == mode
    np.testing.assert_allclose(read_inputs(path, SHAPE)[0, ..., 0], pixels / 255, atol=0.02)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    ink = np.zeros((28, 28, 4), np.uint8)
    ink[..., 3] = stroke()
    Image.fromarray(ink).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_inputs(tmp_path / "a.png", SHAPE)[0, ..., 0], stroke() / 255)


def test_a_network_for_colours_gets_them(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 100, (8, 6, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_inputs(tmp_path / "a.png", (8, 6, 3))[0], pixels / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "shape", "expected"),
    [
        ((5, 6), (5, 6, 1), (1, 5, 6, 1)),
        ((5, 6, 1), (5, 6, 1), (1, 5, 6, 1)),
        ((3, 5, 6), (5, 6, 1), (3, 5, 6, 1)),
        ((3, 30), (5, 6, 1), (3, 5, 6, 1)),
        ((30,), (30,), (1, 30)),
        ((3, 30), (30,), (3, 30)),
        ((3, 5, 6, 1), (30,), (3, 5, 6, 1)),
    ],
)
def test_an_array_holds_one_sample_or_many(
    tmp_path: Path, given: tuple[int, ...], shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    values = np.arange(np.prod(given), dtype=np.float32).reshape(given)
    np.save(tmp_path / "a.npy", values)
    read = read_inputs(tmp_path / "a.npy", shape)
    assert read.shape == expected
    np.testing.assert_array_equal(read.ravel(), values.ravel())


def test_bytes_stay_bytes_so_that_the_network_scales_them(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", stroke())
    assert read_inputs(tmp_path / "a.npy", SHAPE).dtype == np.uint8


# What is transparent


STROKES = {
    "black": (0, 0, 0), "white": (255, 255, 255), "yellow": (255, 230, 0), "blue": (0, 0, 160), "grey": (128, 128, 128),
}  # fmt: skip


@pytest.mark.parametrize("colour", STROKES)
@pytest.mark.parametrize("form", ["RGBA", "LA", "palette", "WEBP"])
def test_a_stroke_of_any_colour_on_nothing_is_light_on_dark(tmp_path: Path, colour: str, form: str) -> None:
    rgba = np.zeros((28, 28, 4), np.uint8)
    rgba[..., :3], rgba[..., 3] = STROKES[colour], stroke()
    image = Image.fromarray(rgba)
    if form == "palette":
        image = image.quantize(4, Image.Quantize.FASTOCTREE)
    elif form == "LA":
        image = image.convert("LA")
    image.save(tmp_path / "a", "WEBP" if form == "WEBP" else "PNG", **({"lossless": True} if form == "WEBP" else {}))
    read = read_inputs(tmp_path / "a", SHAPE)[0, ..., 0]
    assert read[stroke() == 0].max() < 0.01
    assert read[stroke() > 0].min() > 0.45


def test_where_all_is_equally_transparent_the_colours_are_the_drawing(tmp_path: Path) -> None:
    for alpha in (0, 90, 255):
        rgba = np.repeat(stroke()[..., None], 4, axis=2)
        rgba[..., 3] = alpha
        Image.fromarray(rgba).save(tmp_path / "a.png")
        np.testing.assert_allclose(read_inputs(tmp_path / "a.png", SHAPE)[0, ..., 0], stroke() / 255, atol=0.01)


# Nothing is drawn


def blank(kind: str) -> Image.Image:
    pixels = np.full((100, 100), 255, np.uint8)
    if kind == "one pixel lit":
        pixels = np.zeros((28, 28), np.uint8)
        pixels[9, 9] = 255
    elif kind == "noise of a scanner":
        pixels -= np.random.default_rng(0).integers(0, 5, (100, 100)).astype(np.uint8)
    image = Image.fromarray(pixels)
    if kind == "of one pixel":
        return image.crop((0, 0, 1, 1))
    if kind == "transparent":
        return Image.new("RGBA", (40, 40), (90, 9, 9, 0))
    return Image.new("I;16", (40, 40)) if kind == "16 bits" else image


@pytest.mark.parametrize(
    "kind", ["white", "of one pixel", "one pixel lit", "noise of a scanner", "transparent", "16 bits"]
)
def test_a_picture_without_a_drawing_is_refused(tmp_path: Path, kind: str) -> None:
    blank(kind).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: nothing is drawn in it"):
        read_inputs(tmp_path / "a.png", SHAPE)


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\0\0\0\x20ftypisom", "a film"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"II*\0\x10\0\0\0CR\2\0", "raw photograph"),
        (b"%PDF-1.7\n", "PDF"),
        (b'<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\1\0\1\0\x10\x10", "icon"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\x80\4\x95", "pickle"),
    ],
)
def test_a_format_that_is_not_read_is_named_with_what_to_do(tmp_path: Path, start: bytes, name: str) -> None:
    (tmp_path / "a").write_bytes(start + bytes(100))
    with pytest.raises(DataError, match=rf"a is no file that can be read: .*{name}.*: \w+"):
        read_inputs(tmp_path / "a", SHAPE)


def png(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds ten bytes of pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(10)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def npy(header: str) -> bytes:
    """An array file of a header and no values."""
    padded = header.ljust(118) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode()


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.png", b"no picture", "is no file that can be read"),
        ("a.png", b"", "is no file that can be read"),
        ("a.png", png(28, 28), "the image is damaged"),
        ("a.png", png(100000, 100000), "the image"),
        ("a.png", png(12000, 12000), "12000 × 12000 pixels are too many"),
        ("a.png", png(70000, 1), "70000 × 1 pixels are too many"),
        ("a.tiff", b"II*\0" + bytes(100), "is no file that can be read"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "is no file that can be read"),
        (
            "a.npy",
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"),
            "promises 1,000,000,000,000 float32 values, 4,000,000,000,000 bytes",
        ),
        ("a.npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"), "objects are never loaded"),
        ("a.npy", b"\x93NUMPY", "is no .npy array"),
        ("a.npz", b"PK\x03\x04 and no more", "a.npz"),
        ("a-idx", b"\0\0\x08\x03\0\0", "a-idx"),
    ],
)
def test_a_damaged_or_hostile_file_is_one_line(tmp_path: Path, name: str, content: bytes, word: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_inputs(tmp_path / name, SHAPE)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.ones((3, 5)), "expected samples of 28 × 28 × 1"),
        (np.full((1, 28, 28), np.nan), "NaN"),
        (np.array([["a"]]), "a.npy"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(tmp_path: Path, array: np.ndarray, word: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=word):
        read_inputs(tmp_path / "a.npy", SHAPE)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="objects are never loaded"):
        read_inputs(tmp_path / "a.npy", SHAPE)


def test_an_image_for_a_network_that_takes_none_is_refused(tmp_path: Path) -> None:
    Image.fromarray(stroke()).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="the network takes arrays"):
        read_inputs(tmp_path / "a.png", (13,))


@pytest.mark.parametrize("name", ["gone.png", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="give images"):
        read_inputs(tmp_path / name, SHAPE)

"""Images that were made to do harm, or that are only large: little memory and time, and what they show stays."""

import io
import resource
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.harness import one_line

import gpunn as gn
from gpunn.backend import limits
from gpunn.data.formats import image as images
from gpunn.data.formats.image import read_image
from gpunn.data.formats.inputs import kind_of_file, read_inputs
from gpunn.errors import DataError, MemoryShortageError

SHAPE = (28, 28, 1)


def read(path: Path, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return read_image(path, kind_of_file(path, "").image, shape, "never", lambda _: None)


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    return one_line(caught.value)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def put(folder: Path, content: bytes) -> Path:
    (folder / "image").write_bytes(content)
    return folder / "image"


def peak_of(path: Path) -> int:
    """Bytes by which the largest memory of this process grew while an image was read; decoders' own memory too."""
    read(path)  # once, so that Pillow's modules are loaded
    with Path("/proc/self/clear_refs").open("w") as file:
        file.write("5")  # forget the largest so far
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read(path)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def gradient(height: int, width: int) -> Image.Image:
    rows, columns = 100 * np.arange(height) // height, 150 * np.arange(width) // width
    return Image.fromarray(np.add.outer(rows.astype(np.uint8), columns.astype(np.uint8)))


# What an image shows stays the same


def expected(image: Image.Image, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A grey image fitted in by Pillow alone, in one go."""
    small = image.convert("F").resize((shape[1], shape[0]), Image.Resampling.BOX)
    return np.asarray(small)[..., None] / 255


@pytest.mark.parametrize("size", [(56, 56), (300, 300), (1001, 1001), (2999, 2999)])
def test_a_large_image_is_shrunk_to_means_of_its_pixels(tmp_path: Path, size: tuple[int, int]) -> None:
    image = gradient(*size)
    image.save(tmp_path / "a.png")
    np.testing.assert_allclose(read(tmp_path / "a.png"), expected(image), atol=0.01)


def test_a_long_image_keeps_its_proportions_and_takes_little_memory(tmp_path: Path) -> None:
    Image.new("L", (60_000, 150), 200).save(tmp_path / "a.png")
    assert peak_of(tmp_path / "a.png") < 64 << 20
    middle = read(tmp_path / "a.png")[..., 0]
    np.testing.assert_allclose(middle, 200 / 255, rtol=1e-6)  # its border is of its own colour
    image = gradient(300, 3000)
    image.save(tmp_path / "a.png")
    small = np.asarray(image.convert("F").resize((28, 3), Image.Resampling.BOX)) / 255
    np.testing.assert_allclose(read(tmp_path / "a.png")[12:15, :, 0], small, atol=0.02)


def test_a_photograph_is_shrunk_while_it_is_decoded(tmp_path: Path) -> None:
    image = gradient(4000, 4000)
    path = put(tmp_path, encoded(Image.merge("RGB", [image] * 3), "JPEG"))
    np.testing.assert_allclose(read(path), expected(image), atol=0.01)
    assert peak_of(path) < 64 << 20


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_photograph_is_turned_as_its_exif_says(tmp_path: Path, form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = put(tmp_path, encoded(gradient(60, 40), form, exif=exif))
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("L")
    height, width = upright.height, upright.width
    np.testing.assert_allclose(read(path, (height, width, 1))[..., 0], np.asarray(upright) / 255, atol=1e-6)


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"quality": 30}, {"optimize": True}])
def test_jpegs_of_every_kind_are_read_as_pillow_reads_them(tmp_path: Path, options: dict[str, Any]) -> None:
    image = Image.merge("RGB", [gradient(28, 28), gradient(28, 28).rotate(90), gradient(28, 28).rotate(180)])
    path = put(tmp_path, encoded(image, "JPEG", **options))
    with Image.open(path) as whole:
        np.testing.assert_allclose(read(path, (28, 28, 3)), np.asarray(whole) / 255, atol=1e-6)


@pytest.mark.parametrize("form", ["BMP", "GIF", "PPM", "WEBP"])
def test_the_other_formats_are_read(tmp_path: Path, form: str) -> None:
    image = gradient(28, 28)
    path = put(tmp_path, encoded(image, form, **({"lossless": True} if form == "WEBP" else {})))
    np.testing.assert_allclose(read(path)[..., 0], np.asarray(image) / 255, atol=1e-6)


def test_of_an_animation_the_first_image_is_read(tmp_path: Path) -> None:
    first, second = gradient(28, 28), gradient(28, 28).rotate(90)
    for form in ("GIF", "PNG", "WEBP"):
        path = put(tmp_path, encoded(first, form, save_all=True, append_images=[second], lossless=True))
        np.testing.assert_allclose(read(path)[..., 0], np.asarray(first) / 255, atol=0.01)


# Ordinary pictures of phones and scanners, which are large


def noisy(height: int, width: int) -> np.ndarray:
    """RGB with a gradient and some noise, so that a PNG uses every filter."""
    rows, columns = np.arange(height, dtype=np.uint16)[:, None], np.arange(width, dtype=np.uint16)
    pixels = np.empty((height, width, 3), np.uint8)
    for plane, values in enumerate((rows // 9, columns // 7, (rows + columns) // 20)):
        pixels[..., plane] = values % 250
    pixels += np.random.default_rng(0).integers(0, 5, (height, width, 1), np.uint8)
    return pixels


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "P", "LA", "RGB", "RGBA", "2", "16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_is_the_same_band_by_band(
    tmp_path: Path, mode: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(noisy(70, 90))
    if mode == "I;16":
        image = Image.fromarray(noisy(70, 90)[..., 0].astype(np.uint16) * 211)
    else:
        image = image.quantize(int(mode) if mode.isdigit() else 9) if mode in "P 2 16" else image.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(gradient(70, 90))
    path = put(tmp_path, encoded(image, "PNG"))
    whole = read(path, (70, 90, channels))
    monkeypatch.setattr(images, "_BAND", 900)
    np.testing.assert_array_equal(read(path, (70, 90, channels)), whole)


def test_a_large_png_and_a_large_photograph_are_read_in_little_memory(tmp_path: Path) -> None:
    image = Image.fromarray(noisy(3024, 4032))
    for form in ("PNG", "JPEG", "BMP"):
        path = put(tmp_path, encoded(image, form, compress_level=1))
        wanted = np.asarray(image.convert("L").convert("F").resize((28, 21), Image.Resampling.BOX)) / 255
        np.testing.assert_allclose(read(path)[3:24, :, 0], wanted, atol=0.02)
        if form != "BMP":
            assert peak_of(path) < (64 << 20) + 2 * path.stat().st_size


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_photograph_of_48_million_pixels_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    image = gradient(6048, 8064)
    path = put(tmp_path, encoded(image, "JPEG", **options))
    wanted = np.asarray(image.resize((28, 21), Image.Resampling.BOX)) / 255
    np.testing.assert_allclose(read(path)[3:24, :, 0], wanted, atol=0.02)


def test_a_photograph_of_200_million_pixels_is_read(tmp_path: Path) -> None:
    path = put(tmp_path, encoded(Image.new("L", (16_320, 12_240), 99), "JPEG"))
    np.testing.assert_allclose(read(path), 99 / 255, atol=0.01)
    assert peak_of(path) < (64 << 20) + 2 * path.stat().st_size


@pytest.mark.parametrize(
    ("mode", "size", "taken"),
    [("RGB", (4960, 7016), "132.7"), ("L", (7016, 9933), "66.5"), ("1", (7016, 9933), "66.5")],
)
def test_a_scanned_page_with_little_on_it_is_read_where_there_is_memory_for_it(
    tmp_path: Path, mode: str, size: tuple[int, int], taken: str
) -> None:
    """A4 and A3 of 600 dots an inch."""
    page = Image.new(mode, size, "white")
    page.paste(Image.new(mode, (1000, 5000), "black"), (1000, 1000))
    path = put(tmp_path, encoded(page, "PNG"))
    assert path.stat().st_size < 1 << 18
    wanted = np.asarray(page.convert("F").resize((20, 28), Image.Resampling.BOX)) / 255
    np.testing.assert_allclose(read(path)[:, 4:24, 0], wanted, atol=0.1)
    gn.set_memory_limit(limits.resident_bytes() + (50 << 20))
    try:
        with pytest.raises(MemoryShortageError, match=rf"takes {taken} MiB of memory"):
            read(path)
    finally:
        gn.set_memory_limit(None)


def test_a_large_png_that_is_cut_off_or_promises_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    content = encoded(gradient(3300, 3300), "PNG")
    at = content.index(b"IDAT")
    (length,) = struct.unpack_from(">I", content, at - 4)
    short = content[: at - 4] + chunk(b"IDAT", content[at + 4 : at + 4 + length // 2]) + chunk(b"IEND", b"")
    assert "the image is damaged" in refused(put(tmp_path, short))
    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 0, 0, 0, 0)
    head = content[:8] + chunk(b"IHDR", header)
    assert "12000 × 12000 pixels are too many" in refused(
        put(tmp_path, head + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b""))
    )


SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}
"""Of each pixel of a PNG: grey, RGB, grey with alpha, RGBA."""

PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column, and the steps to the next, of each pass of an interlaced PNG."""


def deep_png(values: np.ndarray, kind: int, *, interlaced: bool = False) -> bytes:
    """A PNG of 16 bits, every second row stored as its difference to the row above."""
    height, width = values.shape[:2]
    data = b""
    for top, left, down, across in PASSES if interlaced else ((0, 0, 1, 1),):
        part = np.ascontiguousarray(values[top::down, left::across].astype(">u2"))
        rows = part.reshape(len(part), -1).view(np.uint8)
        filters = np.arange(len(rows), dtype=np.uint8)[:, None] % 2 * 2
        above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
        data += np.hstack([filters, np.where(filters, rows - above, rows)]).tobytes()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("interlaced", [False, True])
def test_every_bit_of_16_is_read(tmp_path: Path, kind: int, interlaced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of colours and of what is half transparent, Pillow itself keeps eight."""
    monkeypatch.setattr(images, "_BAND", 900)
    values = np.random.default_rng(0).integers(0, 65_536, (56, 64, SAMPLES[kind]))
    values[0, 0] = 65_535
    if kind in (4, 6):
        values[..., -1] = 65_535
    pixels = values[..., :3] if kind in (2, 6) else np.repeat(values[..., :1], 3, axis=2)
    shown = read(put(tmp_path, deep_png(values, kind, interlaced=interlaced)), (56, 64, 3))
    np.testing.assert_allclose(shown, pixels / 65_535, rtol=1e-6)


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_16_bits_are_stretched_by_the_bits_that_are_there(tmp_path: Path, kind: int, bits: int) -> None:
    most = 2**bits - 1
    grey = np.linspace(0, most, 28 * 28).reshape(28, 28, 1).round()
    values = np.repeat(grey, SAMPLES[kind], axis=2)
    if kind in (4, 6):
        values[..., -1] = 65_535
    np.testing.assert_allclose(read(put(tmp_path, deep_png(values, kind))), grey / most, atol=1e-6)


# What would take memory or time


@pytest.mark.parametrize(
    ("form", "mode", "side"),
    [
        ("PNG", "L", 3200), ("PNG", "RGBA", 3200), ("PNG", "P", 3200), ("PNG", "I;16", 3200),
        ("JPEG", "RGB", 1800), ("GIF", "P", 2800), ("WEBP", "RGB", 1400), ("BMP", "L", 3200),
    ],
)  # fmt: skip
def test_the_largest_images_take_no_more_than_64_mebibytes_beside_the_file(
    tmp_path: Path, form: str, mode: str, side: int
) -> None:
    options = {"progressive": True} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    path = put(tmp_path, encoded(Image.new(mode, (side, side)), form, **options))
    assert peak_of(path) < (64 << 20) + 2 * path.stat().st_size


@pytest.mark.parametrize(
    ("form", "options", "side"),
    [
        ("GIF", {}, 3000),
        ("WEBP", {"lossless": True}, 1500),
    ],
)
def test_an_image_of_more_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, form: str, options: dict[str, Any], side: int
) -> None:
    message = refused(put(tmp_path, encoded(Image.new("L", (side, side)), form, **options)))
    assert f"{side} × {side} pixels are too many" in message


def test_a_small_photograph_in_several_scans_that_promises_much_is_refused(tmp_path: Path) -> None:
    content = bytearray(encoded(gradient(28, 28), "JPEG", progressive=True))
    place = content.index(b"\xff\xc2")
    content[place + 5 : place + 9] = struct.pack(">HH", 9000, 9000)
    assert "9000 × 9000 pixels are too many" in refused(put(tmp_path, bytes(content)))


def test_pixels_that_pillow_itself_calls_a_bomb_are_refused(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")
    assert "exceeds limit" in refused(put(tmp_path, b"\x89PNG\r\n\x1a\n" + content))


def test_tables_of_a_png_are_never_looked_at(tmp_path: Path) -> None:
    plain = encoded(gradient(28, 28), "PNG")
    directory = struct.pack("<H", 20_000) + b"".join(
        struct.pack("<HHII", 1000 + i, 1, 200_000, 8) for i in range(20_000)
    )
    beside = [chunk(b"eXIf", b"II*\0" + struct.pack("<I", 8) + directory), *[chunk(b"tEXt", b"a\0b")] * 50_000]
    path = put(tmp_path, plain[:33] + b"".join(beside) + plain[33:])
    np.testing.assert_allclose(read(path)[..., 0], np.asarray(gradient(28, 28)) / 255, atol=1e-6)
    assert peak_of(path) < (64 << 20) + 2 * path.stat().st_size


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"zTXt", b"a\0\0" + zlib.compress(bytes(100 << 20))),
        (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(2 << 20))),
        (b"iCCP", b"a\0\0" + zlib.compress(bytes(100 << 20))),
        (b"pHYs", b"1"),
    ],
)
def test_texts_and_profiles_of_a_png_are_never_looked_at(tmp_path: Path, kind: bytes, content: bytes) -> None:
    plain = encoded(gradient(28, 28), "PNG")
    path = put(tmp_path, plain[:33] + chunk(kind, content) + plain[33:])
    assert peak_of(path) < 8 << 20
    np.testing.assert_array_equal(read(path), read(put(tmp_path, plain)))


def test_segments_of_a_jpeg_that_do_not_draw_are_never_looked_at(tmp_path: Path) -> None:
    plain = encoded(gradient(28, 28), "JPEG")
    beside = b"\xff\xe1\x00\x02" * 60_000 + b"\xff\xe1" + struct.pack(">H", 65_535) + b"Exif\0\0" + bytes(65_527)
    path = put(tmp_path, plain[:2] + beside + plain[2:])
    np.testing.assert_array_equal(read(path), read(put(tmp_path, plain)))


def test_parts_beyond_number_are_refused(tmp_path: Path) -> None:
    png, jpeg = encoded(gradient(28, 28), "PNG"), encoded(gradient(28, 28), "JPEG")
    assert "more than 65,536 chunks" in refused(put(tmp_path, png[:33] + chunk(b"tEXt", b"") * 70_000 + png[33:]))
    assert "more than 524,288 markers" in refused(put(tmp_path, jpeg[:2] + b"\xff" * 600_000 + jpeg[2:]))


def test_a_jpeg_of_a_thousand_scans_is_refused(tmp_path: Path) -> None:
    """Each scan of a few bytes goes over all pixels again."""
    content = encoded(gradient(1500, 1500), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    assert "scans, 64 are read" in refused(put(tmp_path, content[:-2] + last * 1000 + content[-2:]))


def test_a_file_of_too_many_bytes_is_refused_unread(tmp_path: Path) -> None:
    path = put(tmp_path, encoded(gradient(28, 28), "GIF"))
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # sparse
    assert "more than the 1,048,576 that are read of a GIF image" in refused(path)


@pytest.mark.parametrize(
    "content",
    [
        b"P2\n28 28 255\n" + b"0 " * 784,
        b"P5\n#" + b"a" * 2000 + b"\n28 28 255\n" + bytes(784),
        b"P6\n28 28 " + b"9" * 99,
    ],
    ids=["written out", "a long comment", "a long number"],
)
def test_a_ppm_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError) as caught:
        read_inputs(put(tmp_path, content), SHAPE)
    said = one_line(caught.value)
    assert "is no file that can be read" in said or "its header is none of a binary" in said


def test_a_frame_that_is_larger_than_its_gif_is_refused(tmp_path: Path) -> None:
    """Fuzzing found it: it was decoded at the frame's size, of which nothing had been asked."""
    content = bytearray(encoded(gradient(9, 7), "GIF"))
    place = content.index(b",\0\0\0\0\x07\0\x09\0")
    content[place + 5 : place + 9] = struct.pack("<2H", 34_000, 6000)
    assert "no frame within its 7 × 9 pixels" in refused(put(tmp_path, bytes(content)))


def test_a_compressed_bmp_is_refused(tmp_path: Path) -> None:
    content = bytearray(encoded(Image.new("L", (28, 28)), "BMP"))
    content[30] = 1
    assert "it is compressed" in refused(put(tmp_path, bytes(content)))


def test_a_gif_of_a_header_alone_is_said_to_end_too_early(tmp_path: Path) -> None:
    content = encoded(gradient(20, 30), "GIF")
    for length in (8, 13):  # within the size, and before the colours
        assert "the image is damaged (it ends too early): get it again" in refused(put(tmp_path, content[:length]))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "PPM", "WEBP"])
def test_an_image_that_is_cut_off_is_refused_or_shows_all(tmp_path: Path, form: str) -> None:
    """Nothing but what ends a file may be missing."""
    content = encoded(gradient(20, 20), form)
    whole = read(put(tmp_path, content))
    for length in range(len(content)):
        try:
            shown = read(put(tmp_path, content[:length]))
        except DataError as error:
            one_line(error)
        else:
            np.testing.assert_array_equal(shown, whole)
            assert length >= len(content) - 2, f"{length} of {len(content)} bytes of a {form} were taken for all"

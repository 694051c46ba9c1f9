"""Sizes and colours of images, from their headers alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpunn.data.formats import image_pixels
from gpunn.data.formats.image_pixels import ImageHeader, read_header
from gpunn.errors import DataError


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "PPM", "GIF", "WebP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_header_says_size_and_colours(tmp_path: Path, form: str, mode: str) -> None:
    path = tmp_path / "image"
    Image.new(mode, (30, 20), 77 if mode == "L" else (7, 77, 177)).save(path, form)
    assert read_header(path, form) == ImageHeader(20, 30, mode == "L" and form != "WebP")


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"comment": b"\xff\xc0" * 9000}, {"icc_profile": bytes(70000)}]
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_of_a_photograph_is_that_which_pillow_reads(
    tmp_path: Path, options: dict[str, Any], orientation: int
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "image.jpg"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path, exif=exif, **options)
    expected = image_pixels._header("JPEG", path.read_bytes())
    assert expected == ImageHeader(*((20, 30) if orientation <= 4 else (30, 20)), is_grey=False)
    assert read_header(path, "JPEG") == expected


def test_a_header_that_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    for content in (b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0\0" * 9, b"\xff\xd8" + b"\xff\xe0\0\2" * 20000):
        path.write_bytes(content)
        with pytest.raises(DataError, match="the image is damaged"):
            read_header(path, "JPEG")

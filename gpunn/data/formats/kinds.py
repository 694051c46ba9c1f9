"""Tell what a file is by its first bytes, for training data and for what a network is asked about alike."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from gpunn.errors import DataError
from gpunn.files import open_regular

NPY, NPZ, IDX, UNKNOWN = ".npy", ".npz", "IDX", ""
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "GIF", "WebP")


class FileKind(NamedTuple):
    """A kind of file.

    Attributes:
        start: Pattern of its first bytes, compiled when it is used: all of them would take milliseconds at each import.
        reader: NPY, NPZ, IDX or one of IMAGE_FORMATS; UNKNOWN where nothing reads it.
        name: Words for it, such as "a HEIC photograph".
        mend: What to do about a file that is often given and not read.
    """

    start: bytes
    reader: str
    name: str
    mend: str = ""


_CONVERT = "convert it to PNG or JPEG"
_KINDS: tuple[tuple[Any, ...], ...] = (
    (rb"\x93NUMPY", NPY, "an array of NumPy (.npy)"),
    (rb"PK\x03\x04", NPZ, "a .npz or zip file"),
    (rb"\x89PNG\r\n\x1a\n", "PNG", "a PNG image"),
    (rb"\xff\xd8\xff", "JPEG", "a JPEG image"),
    (rb"BM", "BMP", "a BMP image"),
    (rb"P[456]\s", "PPM", "a PBM, PGM or PPM image"),
    (rb"GIF8[79]a", "GIF", "a GIF image"),
    (rb"RIFF.{4}WEBP", "WebP", "a WebP image"),
    (rb".{4}ftyp(?:hei[cxms]|hev[cxm]|mif1|msf1)",
     UNKNOWN, "a HEIC photograph", f"{_CONVERT}, or let the phone take JPEG"),
    (rb".{4}ftyp(?:avif|avis)", UNKNOWN, "an AVIF image", _CONVERT),
    (rb".{4}ftypcrx", UNKNOWN, "a raw photograph (CR3)", "export it as PNG or JPEG"),
    (rb".{4}ftyp|.{4}moov|\x1aE\xdf\xa3|RIFF.{4}AVI ", UNKNOWN, "a film", "save one of its images as PNG or JPEG"),
    (rb"II\*\0.{4}CR|FUJIFILMCCD|IIU\0|IIRO|MMOR", UNKNOWN, "a raw photograph", "export it as PNG or JPEG"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", UNKNOWN, "a TIFF image or a raw photograph", "convert it to PNG"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", UNKNOWN, "a JPEG 2000 image", _CONVERT),
    (rb"\0\0\0\x0cJXL |\xff\x0a", UNKNOWN, "a JPEG XL image", _CONVERT),
    (rb"\0\0[\1\2]\0[\1-\x40]\0", UNKNOWN, "an icon", "convert it to PNG"),
    (rb"8BPS", UNKNOWN, "a Photoshop image", "export it as PNG or JPEG"),
    (rb"gimp xcf", UNKNOWN, "a GIMP image", "export it as PNG or JPEG"),
    (rb"%PDF", UNKNOWN, "a PDF", "export the page as PNG"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", UNKNOWN, "PostScript", "export the page as PNG"),
    (rb"\s*(?:<\?xml|<svg|<!--)", UNKNOWN, "an SVG drawing or other XML", "export it as PNG"),
    (rb"(?i:\s*<(?:!doctype|html))", UNKNOWN, "a web page", "get the image itself"),
    (rb"version https://git-lfs", UNKNOWN, "a pointer of Git LFS", "get the file itself by git lfs pull"),
    (rb"P[123]\s", UNKNOWN, "a PBM, PGM or PPM written in digits", "save it in its binary form"),
    (rb"P[Ff]\s|v/1\x01|#\?RADIANCE|SDPX|XPDS", UNKNOWN, "an image of floats", "convert it to PNG"),
    (rb"P7\s|qoif|\x01\xda|BPG\xfb|\x0a[\0-\5]\x01[\1-\x08]|DDS |FLIF|icns|FWS|CWS",
     UNKNOWN, "an image that is not read", _CONVERT),
    (rb"SIMPLE  =|\x89HDF|CDF[\1\2]", UNKNOWN, "scientific data (FITS, HDF5 or NetCDF)", "save the array as .npy"),
    (rb"\x80[\2-\5]", UNKNOWN, "a pickle", "save the array with np.save"),
    (rb"7z\xbc\xaf|Rar!|\xfd7zXZ|BZh|\x28\xb5\x2f\xfd", UNKNOWN, "an archive", "unpack it"),
    # Last, since films, photographs and icons begin with two zeros too.
    (rb"\0\0|\x1f\x8b", IDX, "an IDX or gzip file"),
)  # fmt: skip
_MOST_START = 32


def kind_of_file(path: Path, wanted: str) -> FileKind:
    """Look at the first bytes of a file; its name decides nothing.

    Args:
        path: The file.
        wanted: What to give instead of one that cannot be read, such as "give a .npz file".

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with open_regular(path) as file:
            start = file.read(_MOST_START)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): {wanted}") from None
    for kind in (FileKind(*row) for row in _KINDS):
        if re.match(kind.start, start, re.DOTALL):
            return kind
    return FileKind(b"", UNKNOWN, f"one that starts {start[:8].hex(' ') or '(empty)'}")

"""Recognise files by their first bytes, and read them as inputs of a network."""

import math
import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from gpunn.data.checks import as_array, checked_inputs
from gpunn.data.drawings import borders
from gpunn.data.formats.delimited import find_form, read_delimited
from gpunn.data.formats.idx import read_idx
from gpunn.data.formats.image import image_shape, read_image
from gpunn.data.formats.image_pixels import read_pixels
from gpunn.data.formats.npy import NpzFile, read_npy
from gpunn.data.formats.parquet import parquet_names, read_parquet
from gpunn.data.formats.parts import Parts, ReadOptions
from gpunn.data.formats.photograph import read_photograph
from gpunn.data.formats.registry import reader_of
from gpunn.data.formats.table import Table
from gpunn.data.tables import table_inputs
from gpunn.data.training_inputs import TrainingInputs, are_drawn
from gpunn.errors import DataError
from gpunn.files import open_regular


class FileKind(NamedTuple):
    """Kind of file, recognised by the pattern of its first bytes."""

    start: bytes  # not compiled: all of them would take milliseconds at each import
    name: str  # name in messages, such as "a HEIC photograph"
    mend: str = ""  # advice for a kind that is not read
    inputs: Callable[[Path], NDArray[Any]] | None = None  # reads an array of samples, for predictions
    data: Callable[[Path, ReadOptions], Parts] | None = None  # reads a whole data set
    image: str = ""  # Pillow's name of an image format
    table: Callable[..., Table] | None = None  # reads a table
    columns: Callable[[Path], list[str]] | None = None  # reads the names of a table's columns
    suffix: str = ""  # pattern of file names, since a text may begin with anything


_CONVERT, _EXPORT = "convert it to PNG or JPEG", "export it as PNG or JPEG"
KINDS = (
    FileKind(
        rb"(?!version https://git-lfs)[^\0-\x08\x0e-\x1f<][^\0-\x08\x0e-\x1f]*$|\x1f\x8b|\xff\xfe|\xfe\xff|$",
        "a table (CSV)",
        table=read_delimited,
        columns=lambda path: find_form(path).names,
        suffix=r"\.(?:csv|tsv|tab|txt|data|dat)(?:\.gz)?$",
    ),
    FileKind(rb"PAR1", "a table (Parquet)", table=read_parquet, columns=parquet_names),
    FileKind(rb"ARROW1|FEA1", "a Feather or Arrow file", "save the table as Parquet or CSV"),
    FileKind(rb"\xd0\xcf\x11\xe0", "an Excel or other Office file", "save the table as CSV"),
    FileKind(rb"\x93NUMPY", "an array of NumPy (.npy)", inputs=read_npy),
    FileKind(
        rb"PK\x03\x04",
        "a .npz or zip file",
        inputs=lambda path: NpzFile(path).inputs(),
        data=lambda path, options: NpzFile(path, options.memory_map).data(),
    ),
    FileKind(rb"\x89PNG\r\n\x1a\n", "a PNG image", image="PNG"),
    FileKind(rb"\xff\xd8\xff", "a JPEG image", image="JPEG"),
    FileKind(rb"BM", "a BMP image", image="BMP"),
    FileKind(rb"P[456]\s", "a PBM, PGM or PPM image", image="PPM"),
    FileKind(rb"GIF8[79]a", "a GIF image", image="GIF"),
    FileKind(rb"RIFF.{4}WEBP", "a WebP image", image="WebP"),
    FileKind(rb".{4}ftyp(?:he[iv][cxm]|heis|m[is]f1)", "a HEIC photograph", f"{_CONVERT}, or let the phone take JPEG"),
    FileKind(rb".{4}ftyp(?:avif|avis)", "an AVIF image", _CONVERT),
    FileKind(rb".{4}ftypcrx", "a raw photograph (CR3)", _EXPORT),
    FileKind(rb".{4}ftyp|.{4}moov|\x1aE\xdf\xa3|RIFF.{4}AVI ", "a film", "save one of its images as PNG or JPEG"),
    FileKind(rb"II\*\0.{4}CR|FUJIFILMCCD|IIU\0|IIRO|MMOR", "a raw photograph", _EXPORT),
    FileKind(rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "a TIFF image or a raw photograph", "convert it to PNG"),
    FileKind(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image", _CONVERT),
    FileKind(rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL image", _CONVERT),
    FileKind(rb"\0\0[\1\2]\0[\1-\x40]\0", "an icon", "convert it to PNG"),
    FileKind(rb"8BPS", "a Photoshop image", _EXPORT),
    FileKind(rb"gimp xcf", "a GIMP image", _EXPORT),
    FileKind(rb"%PDF", "a PDF", "export the page as PNG"),
    FileKind(rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript", "export the page as PNG"),
    FileKind(rb"\s*(?:<\?xml|<svg|<!--)", "an SVG drawing or other XML", "export it as PNG"),
    FileKind(rb"(?i:\s*<(?:!doctype|html))", "a web page", "get the image itself"),
    FileKind(rb"version https://git-lfs", "a pointer of Git LFS", "get the file itself by git lfs pull"),
    FileKind(rb"P[123]\s", "a PBM, PGM or PPM written in digits", "save it in its binary form"),
    FileKind(rb"P[Ff]\s|v/1\x01|#\?RADIANCE|SDPX|XPDS", "an image of floats", "convert it to PNG"),
    FileKind(rb"P7\s|qoif|\x01\xda|BPG\xfb|\x0a[\0-\5]\x01[\1-\x08]", "an image that is not read", _CONVERT),
    FileKind(rb"DDS |FLIF|icns|FWS|CWS", "an image that is not read", _CONVERT),
    FileKind(rb"SIMPLE  =|\x89HDF|CDF[\1\2]", "scientific data (FITS, HDF5 or NetCDF)", "save the array as .npy"),
    FileKind(rb"\x80[\2-\5]", "a pickle", "save the array with np.save"),
    FileKind(rb"MATLAB", "a MATLAB file", "save the array with np.save"),
    FileKind(rb"7z\xbc\xaf|Rar!|\xfd7zXZ|BZh|\x28\xb5\x2f\xfd", "an archive", "unpack it"),
    # Last, since films, photographs and icons begin with two zeros too.
    FileKind(rb"\0\0|\x1f\x8b", "an IDX or gzip file", inputs=read_idx),
)


def kind_of_file(path: Path, mend: str) -> FileKind:
    """Recognise a file by its first bytes; raise a DataError with the mend if it cannot be read."""
    try:
        with open_regular(path) as file:
            start = file.read(32)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): {mend}") from None
    unknown = FileKind(b"", f"one that starts {start[:8].hex(' ') or '(empty)'}")
    name = path.name.lower()
    fitting = (kind for kind in KINDS if not kind.suffix or re.search(kind.suffix, name))
    return next((kind for kind in fitting if re.match(kind.start, start, re.DOTALL)), unknown)


def column_names(path: Path) -> list[str] | None:
    """Return the names of a table's columns, or None for a file of another kind."""
    kind = kind_of_file(path, "check the path")
    return None if kind.columns is None else kind.columns(path)


def read_inputs(
    path: Path,
    shape: tuple[int, ...],
    *,
    invert: str = "auto",
    note: Callable[[str], None] = lambda _: None,
    trained_on: TrainingInputs | None = None,
    prepare: bool = True,
) -> NDArray[Any]:
    """Read the samples (n, *shape) in an image, .npy, .npz or IDX file for a network of this sample shape.

    `invert` exchanges dark and light of an image "always", "never", or if its ground differs ("auto"); `note` gets a
    line about changes that may surprise. Left out, `trained_on` is light on dark, as in MNIST. If the training images
    were drawings, `prepare` finds the drawing in a photograph and places it like theirs.
    """
    if (own := reader_of(path)) is not None and path.is_file():
        return _as_samples(path, _inputs_in(own(path)), shape)
    kind = kind_of_file(path, "give images, .npy, .npz or IDX files")
    if kind.table is not None:
        columns = None if trained_on is None else trained_on.columns
        made = table_inputs(partial(kind.table, path), columns)
        return made if columns else _as_samples(path, made, shape)
    if trained_on is not None and trained_on.columns is not None:
        raise DataError(f"{path}: the network was trained on a table: give a table (.csv or .parquet), got {kind.name}")
    if kind.inputs is not None:
        return _as_samples(path, kind.inputs(path), shape)
    if not kind.image:
        found = f"this is {kind.name}: {kind.mend}" if kind.mend else f"got {kind.name}"
        known = ", ".join(known.image for known in KINDS if known.image)
        raise DataError(f"{path} is no file that can be read: give an image ({known}), .npy, .npz or IDX, {found}")
    size = image_shape(path, shape)
    if prepare and trained_on is not None:
        drawn = read_photograph(path, kind.image, size[:2], invert, note, trained_on)
        if drawn is not None:
            return trained_on.as_inputs(np.repeat(drawn, size[2], axis=2)).reshape(1, *shape)
    if trained_on is not None and trained_on.from_files:
        as_trained = _as_in_training(path, kind.image, size, invert, note, trained_on)
        if as_trained is not None:
            return as_trained.reshape(1, *shape)
    pixels = read_image(path, kind.image, size, invert, note, trained_on)
    # Two rows are all border, and a network trained on patches of one colour must predict them.
    if min(size[:2]) > 2 and (trained_on is None or trained_on.is_drawn) and not are_drawn(pixels[None])[0]:
        raise DataError(f"{path}: nothing is drawn in it: give an image with a drawing")
    return (pixels if trained_on is None else trained_on.as_inputs(pixels)).reshape(1, *shape)


def _inputs_in(read: Any) -> NDArray[Any]:
    """Return the inputs in the result of a registered reader: Data, Samples, or a tuple (x, y)."""
    samples = getattr(read, "train", read)
    return as_array(samples[0] if isinstance(samples, tuple) else getattr(samples, "inputs", samples), "inputs")


def _as_in_training(
    path: Path,
    form: str,
    size: tuple[int, int, int],
    invert: str,
    note: Callable[[str], None],
    trained_on: TrainingInputs,
) -> NDArray[np.uint8] | None:
    """Read an image like those of the training folder; None if it is a drawing that must be inverted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels, (height, width) = read_pixels(path, form, size)
    if trained_on.is_grey and trained_on.is_drawn:
        unit = pixels[None] / np.float32(255)
        is_light = float(np.median(borders(unit))) > 0.5
        is_other = trained_on.ground == ("dark" if is_light else "light")
        if invert == "auto" and (is_other or not are_drawn(unit)[0]):
            return None
    if invert == "always":
        return None
    if (height, width) != size[:2]:
        note(f"{path}: {width} × {height} pixels, fitted into {size[1]} × {size[0]}")
    return pixels


def _as_samples(path: Path, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Reshape an array to samples, and check its values."""
    features = math.prod(shape)
    fitting = (shape, shape[:2], (features,)) if len(shape) == 3 else (shape,)
    if array.shape in fitting:
        array = array[None]
    one = array.shape[1:]
    if not (one in fitting or (len(shape) == 1 and len(one) in (2, 3) and math.prod(one) == features)):
        sizes = list(map(str, shape))
        raise DataError(f"{path}: expected samples of {' × '.join(sizes)}, (n, {', '.join(sizes)}), got {array.shape}")
    if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)  # a network scales whole numbers like those of its training
    if len(shape) == 3 and len(one) != 3:
        array = array.reshape(len(array), *shape)
    try:
        return cast(NDArray[Any], checked_inputs(array))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None

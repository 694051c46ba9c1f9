"""Load a folder of images: find them, decode them on all cores into the cache, and resize them to one size."""

import logging
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.limits import free_bytes, require, size
from gpunn.data.dataset import Data
from gpunn.data.formats.bounded import MAPPED_FROM
from gpunn.data.formats.image_folder import ImageFile, ImagePart, counted, find_images, shown
from gpunn.data.formats.image_pixels import ImageHeader, read_header, read_pixels
from gpunn.data.formats.inputs import kind_of_file
from gpunn.data.formats.parts import ReadOptions
from gpunn.data.image_cache import ImageCache
from gpunn.data.samples import Samples
from gpunn.data.tables import names_in
from gpunn.errors import DataError, OptionError, in_one_line
from gpunn.kernels.cores import cores

log = logging.getLogger(__name__)

COLOURS = {"grey": 1, "rgb": 3}
_USUAL_SIDE, _LEAST_SIDE, _MOST_SIDE = 64, 16, 4096  # pixels
_PROBED, _CHUNK, _CHUNK_BYTES = 64, 16, 8 << 20  # images probed for colours; images of one task of a thread
_FAR = 3  # mean or deviation of float targets that is reported, since their squared error may diverge
_DAMAGED = "get it again, or remove it"


class _ColouredError(Exception):
    """Colours in an image, where the probed ones had none."""


def read_image_folder(folder: Path, split: dict[str, Any], options: ReadOptions) -> Data:
    """Load a folder of images; see `docs/data.md` for its layouts."""
    if options.ignore is not None or options.missing is not None:
        raise OptionError(
            f"{folder}: ignore and missing are for tables, and this is a folder of images: leave them out"
        )
    found = find_images(folder, names_in(options.target, "target"), options.task)
    for note in found.notes:
        log.warning("%s", in_one_line(note))  # names of files may hold anything
    train = found.parts["train"]
    images, facts, kept = _images(folder, "train", train, options.image_size, options.colours, options.memory_map)
    shape, classes = images.shape[1:], len(found.class_names or ())

    def part(name: str) -> Samples:
        own = found.parts[name]
        repeated = _repeated(train, own)
        if repeated:
            those = counted(len(repeated), f"image of {name} is in train too", f"images of {name} are in train too")
            log.warning("%s", in_one_line(f"{folder}: {those} ({shown(repeated)}), so its figures flatter"))
        channels = "grey" if shape[2] == 1 else "rgb"
        pixels, _, _ = _images(folder, name, own, shape[:2], channels, options.memory_map)
        return Samples(pixels, own.targets, 1 / 255, classes, from_files=True)

    try:
        samples = Samples(images, train.targets, 1 / 255, classes, from_files=True)
        if "validation" in found.parts and split["validation"] not in (0, "test"):
            split = split | {"validation": part("validation")}
        test = partial(part, "test") if "test" in found.parts else None
        data = Data.from_samples(samples, test=test, class_names=found.class_names, name=folder.name, **split)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None
    if not classes:
        _note_scale(folder, np.asarray(train.targets))
    counts = {name: len(own.files) for name, own in found.parts.items()}
    data.source_note = _described(counts, found.class_names, train.targets, facts, shape, kept)
    log.info("%s", data.source_note)
    return data


def _note_scale(folder: Path, targets: NDArray[Any]) -> None:
    """Warn of float targets far from 0 or of a large deviation: a training on them diverges."""
    for mean, deviation in zip(targets.mean(axis=0), targets.std(axis=0), strict=True):
        if abs(mean) > _FAR or deviation > _FAR:
            said = (
                f"the numbers to learn have mean {mean:.3g} and deviation {deviation:.3g}, and are learned as they are"
            )
            mend = f"write (number - {mean:.3g}) / {deviation:.3g} into the list, or a training may diverge"
            log.warning("%s", in_one_line(f"{folder}: {said}: {mend}"))
            return


def checked_image_size(given: Any) -> tuple[int, int] | None:
    """Check image_size, a side or (height, width); return (height, width), or None where it is left out."""
    if given is None or (isinstance(given, tuple | list) and not given):
        return None
    sides = tuple(given) if isinstance(given, tuple | list) else (given, given)
    if len(sides) != 2 or not all(type(side) is int and 0 < side <= _MOST_SIDE for side in sides):
        expected = f"a side, or (height, width), each from 1 to {_MOST_SIDE:,}"
        raise OptionError(f"image_size is {expected}, got {given!r}")
    return sides[0], sides[1]


def checked_colours(given: Any) -> str | None:
    """Check colours, "grey" or "rgb"; return None where they are left out."""
    if given is None or (isinstance(given, str) and not given):
        return None
    if not isinstance(given, str) or given not in COLOURS:
        raise OptionError(f"colours are grey or rgb, got {given!r}: leave them out for what suits the images")
    return given


def _images(
    folder: Path, name: str, part: ImagePart, image_size: Any, colours: str | None, memory_map: bool | None
) -> tuple[NDArray[np.uint8], dict[str, Any], str]:
    """Read the images of a part from the cache, or decode them; return them with facts about them and their place."""
    cache = ImageCache(folder, name, part, (image_size, COLOURS[colours] if colours else None))
    kept = cache.find()
    if kept is None:
        with warnings.catch_warnings():  # here, since threads would change each other's filters
            warnings.simplefilter("ignore")
            shape, is_grey = _shape(part, image_size, colours)
            try:
                decoded = _decoded(part, shape, cache, is_grey=is_grey)
            except _ColouredError:
                shape = (*shape[:2], 3)
                decoded = _decoded(part, shape, cache, is_grey=False)
        if decoded is not None:
            return *decoded, ""
        kept = cache.find()
        if kept is None:  # removed by another process, or unreadable
            decoded = _decoded(part, shape, None, is_grey=False)
            assert decoded is not None
            return *decoded, ""
    images, nbytes = kept.images, kept.images.nbytes
    where = f"; decoded, they lie in {cache.path} ({size(nbytes)})"
    if memory_map or (memory_map is None and (nbytes >= MAPPED_FROM or 3 * nbytes > free_bytes())):
        return images, kept.facts, where
    require(nbytes, str(folder))
    return np.array(images), kept.facts, where


def _shape(part: ImagePart, image_size: Any, colours: str | None) -> tuple[tuple[int, int, int], bool]:
    """Choose size and channels if they are left out; return whether RGB images must be checked for grey."""
    if image_size and colours:
        return (*image_size, COLOURS[colours]), False
    headers = list(_in_order(part, "looking at images", _header_of))
    height, width = image_size or _common_size({(header.height, header.width) for header in headers})
    if colours or all(header.is_grey for header in headers):
        return (height, width, COLOURS[colours or "grey"]), False
    # Grey images are often kept as RGB.
    coloured = [file for file, header in zip(part.files, headers, strict=True) if not header.is_grey]
    step = -(-len(coloured) // _PROBED)
    for file in coloured[::step]:
        pixels, _ = _pixels_of(part, file, (height, width, 3))
        if (pixels != pixels[..., :1]).any():
            return (height, width, 3), False
    return (height, width, 1), True


def _common_size(sizes: set[tuple[int, int]]) -> tuple[int, int]:
    """Choose a size: the common one of all images, made smaller if it is large, or else a square."""
    longest = max(max(size) for size in sizes)
    if len(sizes) == 1:
        (only,) = sizes
        if longest <= _USUAL_SIDE:
            return only
        height, width = (max(1, round(side * _USUAL_SIDE / longest)) for side in only)
        if min(height, width) >= _LEAST_SIDE:
            return height, width
    side = min(longest, _USUAL_SIDE)
    return side, side


def _decoded(
    part: ImagePart, shape: tuple[int, int, int], cache: ImageCache | None, *, is_grey: bool
) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
    """Decode images into the cache and return None; return them if the cache cannot be written."""
    read = partial(_pixels_of, shape=shape, is_grey=is_grey)
    facts: dict[str, Any] = {}
    if cache is not None:
        try:
            with cache.writing(shape) as write:
                for pixels in _gathered(part, shape, read, facts):
                    write(pixels)
                cache.facts = facts
        except OSError as error:
            reason = error.strerror or error
            log.warning("%s cannot be written (%s): the images are decoded at each start", cache.place, reason)
        else:
            return None
    require(len(part.files) * math.prod(shape), str(part.folder))
    images, start = np.empty((len(part.files), *shape), np.uint8), 0
    for pixels in _gathered(part, shape, read, facts := {}):
        images[start : start + len(pixels)] = pixels
        start += len(pixels)
    return images, facts


def _gathered(
    part: ImagePart,
    shape: tuple[int, ...],
    read: Callable[..., tuple[NDArray[np.uint8], tuple[int, int]]],
    facts: dict[str, Any],
) -> Iterator[NDArray[np.uint8]]:
    """Yield decoded images piece by piece; note their smallest and largest size in `facts`."""
    rows: list[NDArray[np.uint8]] = []
    at_once = max(1, min(_CHUNK, _CHUNK_BYTES // math.prod(shape)))
    for pixels, (height, width) in _in_order(part, "decoding images", read, at_once):
        area = [width, height]
        facts["smallest"] = min(facts.get("smallest", area), area, key=math.prod)
        facts["largest"] = max(facts.get("largest", area), area, key=math.prod)
        rows.append(pixels)
        if len(rows) == at_once:
            yield np.stack(rows)
            rows = []
    if rows:
        yield np.stack(rows)


def _in_order(
    part: ImagePart, what: str, read: Callable[[ImagePart, ImageFile], Any], at_once: int = _CHUNK
) -> Iterator[Any]:
    """Yield the result of `read` for each image, in order, while all cores read ahead; the first error is raised."""
    from tqdm import tqdm

    def read_some(files: Sequence[ImageFile]) -> list[Any]:
        return [read(part, file) for file in files]

    count, workers = len(part.files), max(1, cores())
    pieces = (part.files[start : start + at_once] for start in range(0, count, at_once))
    ahead: deque[Future[list[Any]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="gpunn-images")
    try:
        with tqdm(total=count, desc=what, unit="", leave=False, disable=None) as bar:
            for piece in pieces:
                ahead.append(pool.submit(read_some, piece))
                if len(ahead) > 2 * workers:
                    done = ahead.popleft().result()
                    yield from done
                    bar.update(len(done))
            while ahead:
                done = ahead.popleft().result()
                yield from done
                bar.update(len(done))
    finally:
        pool.shutdown(cancel_futures=True)


def _header_of(part: ImagePart, file: ImageFile) -> ImageHeader:
    path = part.folder / file.name
    return read_header(path, _form(path))


def _pixels_of(
    part: ImagePart, file: ImageFile, shape: tuple[int, int, int], *, is_grey: bool = False
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    path = part.folder / file.name
    pixels, given = read_pixels(path, _form(path), (*shape[:2], 3) if is_grey else shape)
    if is_grey:
        if (pixels != pixels[..., :1]).any():
            raise _ColouredError
        pixels = pixels[..., :1]
    return pixels, given


def _form(path: Path) -> str:
    kind = kind_of_file(path, _DAMAGED)
    if not kind.image:
        found = f"this is {kind.name}: {kind.mend}" if kind.mend else f"got {kind.name}: {_DAMAGED}"
        raise DataError(f"{path}: expected an image, {found}")
    return kind.image


def _repeated(train: ImagePart, other: ImagePart) -> list[str]:
    """Return the names of images in another part that are byte for byte in train."""
    by_size: dict[int, list[ImageFile]] = {}
    for file in train.files:
        by_size.setdefault(file.nbytes, []).append(file)
    contents: dict[str, bytes] = {}

    def content(part: ImagePart, file: ImageFile) -> bytes:
        if file.name not in contents:
            from hashlib import file_digest

            with suppress(OSError), (part.folder / file.name).open("rb") as opened:
                contents[file.name] = file_digest(opened, "sha256").digest()
        return contents.get(file.name, file.name.encode(errors="replace"))

    return [
        file.name
        for file in other.files
        if any(content(train, same) == content(other, file) for same in by_size.get(file.nbytes, ()))
    ]


def _described(
    counts: dict[str, int],
    class_names: Sequence[str] | None,
    targets: NDArray[Any],
    facts: dict[str, Any],
    shape: tuple[int, ...],
    kept: str,
) -> str:
    """Describe the images in one line: counts, sizes, colours, and their common shape."""
    parts = f" ({', '.join(f'{count:,} {name}' for name, count in counts.items())})" if len(counts) > 1 else ""
    kind = f"{len(class_names)} classes" if class_names else f"{targets.shape[1]} float targets"
    sizes = [" × ".join(map(str, facts.get(name, ()))) for name in ("smallest", "largest")]
    between = sizes[0] if sizes[0] == sizes[1] else f"{sizes[0]} to {sizes[1]}"
    colour = "grey" if shape[2] == 1 else "colour"
    height, width, channels = shape
    into = f"{height} × {width} × {channels}"
    fitted = f"kept as {into}" if sizes == [f"{width} × {height}"] * 2 else f"fitted to {into}"
    return f"{sum(counts.values()):,} images{parts}, {kind}, {between}, {colour}: {fitted}{kept}"

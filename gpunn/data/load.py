"""Load data by name, from a folder or from a file.

Source of the digits: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0; see digits/README.md.
"""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from gpunn.config import nearest
from gpunn.config.scalars import flag
from gpunn.data.columns import Columns
from gpunn.data.dataset import Data, stratified_split
from gpunn.data.download import download, user_cache
from gpunn.data.formats.frame import is_frame, read_frame
from gpunn.data.formats.idx import check_counts, read_images, read_labels
from gpunn.data.formats.image_folder import holds_images
from gpunn.data.formats.inputs import kind_of_file
from gpunn.data.formats.parts import Parts, ReadOptions
from gpunn.data.formats.registry import reader_of
from gpunn.data.formats.unsupported import unsupported_file, unsupported_folder
from gpunn.data.images import checked_colours, checked_image_size, read_image_folder
from gpunn.data.named_sets import FILES_OF_SETS, NAMED, named_parts, own_folders, parts_in
from gpunn.data.published import DIGITS, MNIST, PUBLISHED, PublishedSet, check_published
from gpunn.data.samples import Samples
from gpunn.data.sklearn_sets import PREFIX, SKLEARN_NAMES, is_sklearn_table, set_name, sklearn_digits, sklearn_table
from gpunn.data.table_samples import table_samples
from gpunn.data.tables import RECONSTRUCTION, checked_options, names_in, table_data, tables_in
from gpunn.data.tokens import checked_count
from gpunn.errors import DataError, OptionError

log = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent / "digits"
DIGIT_IMAGES, DIGIT_LABELS = _FOLDER / "digits-images-idx3-ubyte.gz", _FOLDER / "digits-labels-idx1-ubyte.gz"
# Not the user's seed: results are comparable only if all are measured on the same images.
_TEST_COUNT, _TEST_SEED = 360, 1797


def read_digits(part: int) -> Samples:
    """Return the 1,437 digits to learn from (part 0) or the 360 of the test set (part 1), (n, 8, 8, 1)."""
    labels = read_labels(DIGIT_LABELS)
    indices = stratified_split(labels, _TEST_COUNT, _TEST_SEED)[part]
    return Samples(read_images(DIGIT_IMAGES)[indices], labels[indices], 1 / 16, len(DIGITS))


NAMES = ("digits", *PUBLISHED, *NAMED)


def load_data(
    source: str | PathLike[str] | Data = "digits",
    *,
    validation: float | str = 0.1,
    limit: int | None = None,
    seed: int = 0,
    memory_map: bool | None = None,
    image_size: int | tuple[int, int] | None = None,
    colours: str | None = None,
    target: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    missing: str | None = None,
    task: str | None = None,
    scaling: str | None = None,
    tokens: int | None = None,
) -> Data:
    """Load data and split them into training and validation; the test set stays closed until `.test` is read.

    Args:
        source: "digits" (bundled); "mnist", "fashion-mnist", "cifar-10", "cifar-100" or "cifar-100-coarse" (GPUNN_DATA,
            the user's cache, or downloaded); "emnist-letters" or another split (not downloaded); "sklearn:iris" or
            another that comes with scikit-learn; a folder with the files of such a set, four IDX files ("./mnist"
            where it has the name of a set), or with images, a folder for each class or a list (`docs/data.md`); a .npz
            file, an archive of CIFAR; a file of your own format (`register_format`); a table, as a file (.csv, .tsv,
            .parquet) or a data frame; or Data, returned unchanged.
        validation: Fraction (0.1) or count (5000) of samples to validate on; 0 for none; "test" for the test set. A
            source with a validation set of its own uses that instead of a fraction or count.
        limit: Number of training samples to keep, before the split; left out, all.
        seed: Seed of the split, which depends on the seed and the labels alone.
        memory_map: Whether the inputs stay in their file, where rows are read in use, so that they may be larger than
            memory. Left out, those of 1 GiB and more stay in a file that is not compressed.
        image_size: Side, or (height, width), to which images of a folder are resized, proportions kept. Left out, their
            common size if it is at most 64; else 64 for the longer side, or a square of 64.
        colours: "grey" or "rgb" for images of a folder; left out, grey if all are grey.
        target: Name of the target column of a table, or of several numeric ones. Default: "target" or "label", else the
            last; a warning says which.
        ignore: Names of the columns of a table to leave out.
        missing: "refuse" missing values of a table (the default), or fill them by the "mean" of their column, texts by
            the most frequent.
        scaling: "standard", by mean and deviation of each numeric column in the training samples (the default), or
            "none", which suits columns of one unit and a size of about 1.
        tokens: Number of different tokens where the inputs are token ids for an `Embedding`, which are not scaled. Left
            out, `fit` of such a network takes whole numbers, but a table needs `scaling="none"`.
        task: "classes", "regression" or, for images and arrays, "reconstruction": the targets are the inputs
            themselves, flat, for an autoencoder. Default: by the target. Texts are classes, and so are up to 20
            different whole numbers, each in two rows or more on average; all others are float targets.

    Returns:
        Data with `.train`, `.validation` and `.test`.

    Raises:
        OptionError: Unknown name; validation, limit or seed out of range.
        DataError: Missing, damaged or unsuitable files, no internet, or a compressed file with `memory_map`.
        OutputError: The user's cache cannot be written.
    """
    if isinstance(source, Data):
        return source
    reconstructs = isinstance(task, str) and task == RECONSTRUCTION
    options = ReadOptions(
        memory_map=None if memory_map is None else flag(memory_map, "memory_map"),
        image_size=checked_image_size(image_size),
        colours=checked_colours(colours),
        target=target,
        ignore=ignore,
        missing=missing,
        task=None if reconstructs else task,
        scaling=scaling,
    )
    checked_options(options)
    split: dict[str, Any] = {"validation": validation, "limit": limit, "seed": seed}
    if counted := checked_count(tokens):
        split["tokens"] = counted
    data = _loaded(source, options, split)
    return data.mapped(Samples.as_reconstruction, ()) if reconstructs else data


def _loaded(source: Any, options: ReadOptions, split: dict[str, Any]) -> Data:
    """Load data from a source; see `load_data`."""
    if is_frame(source):
        table = read_frame(source, ignore=names_in(options.ignore, "ignore"))
        return table_data(table, options, split, "table")
    if options.of_tables and isinstance(source, str) and source in NAMES:
        raise _no_table(source, options)
    if (options.image_size or options.colours) and not is_image_folder(source):
        mend = "leave image_size and colours out"
        raise OptionError(f"image_size and colours are for a folder of images, got {source!s:.200}: {mend}")
    if isinstance(source, str) and source == "digits":
        if options.memory_map:
            raise OptionError("the bundled digits are compressed and cannot be memory-mapped: leave memory_map out")
        return Data.from_samples(read_digits(0), test=partial(read_digits, 1), class_names=DIGITS, name=source, **split)
    if isinstance(source, str) and source in PUBLISHED:
        return _published(PUBLISHED[source], split, options)
    if isinstance(source, str) and source in NAMED:
        return _from_parts(source, source, named_parts(source, user_cache(), options), split)
    if isinstance(source, str) and source.startswith(PREFIX):
        return _of_sklearn(source, split, options)
    known = ", ".join(NAMES)
    if not isinstance(source, str | PathLike) or not str(source):
        got = f"{type(source).__name__}{' (empty)' if isinstance(source, str) else ''}"
        kinds = f"a name ({known}), a folder or a .npz file"
        raise OptionError(f"data are {kinds}, got {got}: for arrays use Data.from_arrays(x, y)")
    try:
        path, given = Path(source).expanduser().absolute(), os.fspath(source)
        read = _read_folder if path.is_dir() else _read_file if path.exists() else None
    except (OSError, RuntimeError) as error:  # a name that is too long, or the home of an unknown user
        raise DataError(f"{source}: cannot be looked for ({error}): check the path") from None
    if read is not None:
        return read(path, split, options)
    if os.sep in given or "/" in given or path.suffix:
        raise DataError(f"{path}: there is no such file or folder: check the path, or give one of {known}")
    word = given.lower().replace("_", "-")
    begun = [name for name in NAMES if name.startswith(f"{word}-")]  # "emnist" is no misspelt "mnist"
    if (bundled := word.replace("-", "_")) in SKLEARN_NAMES:
        begun = [f"{PREFIX}{bundled}"]
    near = " or ".join(f'"{name}"' for name in begun) or nearest(word, NAMES, '"{}"')
    guess = f"did you mean {near}?" if near else "check its spelling"
    expected = f"{known}, a folder with the four IDX files, or a .npz file"
    raise OptionError(f'unknown data set "{given}": expected {expected}; {guess}')


def is_image_folder(source: Any) -> bool:
    """Return whether a source of data is a folder of images, and not one of IDX files."""
    with suppress(OSError, RuntimeError, ValueError):
        path = Path(source).expanduser().absolute() if isinstance(source, str | PathLike) else None
        if path is None or source in NAMES or not path.is_dir() or any(file.find(path) for file in MNIST.files):
            return False
        return holds_images(path)
    return False


def _published(published: PublishedSet, split: dict[str, Any], options: ReadOptions) -> Data:
    """Load four IDX files from GPUNN_DATA, its subfolder or the cache; skip a folder that lacks one."""
    name, names = published.name, published.class_names
    found = (paths for folder in own_folders(name) if (paths := published.find(folder)))
    paths = next(found, None) or download(published, user_cache() / name)
    train, test = (partial(_half, paths, part, options, len(names), published) for part in (0, 1))
    return Data.from_samples(train(), test=test, class_names=names, name=name, **split)


def _of_sklearn(source: str, split: dict[str, Any], options: ReadOptions) -> Data:
    """Load a data set of scikit-learn, its digits or a table."""
    if options.memory_map:
        raise OptionError(f"{source} is read by scikit-learn and cannot be memory-mapped: leave memory_map out")
    if (name := set_name(source)) == "digits":
        if options.of_tables:
            raise _no_table(source, options)
        return Data.from_samples(sklearn_digits(), class_names=DIGITS, name=name, **split)
    held = sklearn_table(name)
    task = "classes" if held.are_classes else "regression"
    own = options if options.target else replace(options, target=held.targets, task=options.task or task)
    table = read_frame(held.columns, ignore=names_in(options.ignore, "ignore"), name=source)
    return table_data(table, own, split, name)


def _read_folder(folder: Path, split: dict[str, Any], options: ReadOptions) -> Data:
    """Load the four IDX files of a folder, or another published set, its images or its tables."""
    if parts := parts_in(folder, options):
        return _from_parts(folder, folder.name, parts, split)
    if is_image_folder(folder):
        return read_image_folder(folder, split, options)
    if tables := tables_in(folder):
        return _read_tables(folder, tables, split, options)
    paths = {file.stem: path for file in MNIST.files if (path := file.find(folder)) is not None}
    if missing := ", ".join(file.stem for file in MNIST.files if file.stem not in paths):
        if found := unsupported_folder(folder):
            raise DataError(f"{folder}: expected a data set, got {found[0]}: {found[1]}")
        below = [str(folder / name) for name in PUBLISHED if PUBLISHED[name].find(folder / name)]
        mend = "put them there, or give a .npz file, or a folder of images with one inside for each class"
        mend += f"; did you mean {below[0]}?" if below else ""
        raise DataError(f"{folder}: expected four IDX files, {missing} missing (each may end in .gz): {mend}")
    train = _half(tuple(paths.values()), 0, options, -1)
    test = partial(_half, tuple(paths.values()), 1, options, train.classes)
    return Data.from_samples(train, test=test, name=folder.name, **split)


def _half(
    paths: Sequence[Path], part: int, options: ReadOptions, classes: int, published: PublishedSet | None = None
) -> Samples:
    """Read the images and labels of the training set (part 0) or the test set (part 1); errors name the file."""
    x, y = paths[2 * part :][:2]
    images, labels = read_images(x, options.memory_map), read_labels(y)
    if published is not None:
        for file, path, array in zip(published.files[2 * part :], (x, y), (images, labels), strict=False):
            check_published(published, file, path, array)
    check_counts(x, images, y, labels)
    try:
        return Samples(images, labels, 1 / 255, classes)
    except DataError as error:
        raise DataError(f"{y}: {error}") from None


def _read_tables(folder: Path, tables: dict[str, Path], split: dict[str, Any], options: ReadOptions) -> Data:
    """Load the train table of a folder, with its validation and test tables."""
    has_own = "validation" in tables and split["validation"] not in (0, "test")
    whole = split | ({"validation": 0} if has_own or split["validation"] == "test" else {})
    data = _read_file(tables["train"], whole, options)
    columns = data.train.columns

    def later(part: str) -> Samples:
        if columns is not None:
            return read_samples(tables[part], columns)
        return _read_file(tables[part], {"validation": 0, "limit": None, "seed": 0}, options).train

    given: dict[str, Any] = {"test": partial(later, "test") if "test" in tables else None, "name": folder.name}
    if has_own or split["validation"] == "test":
        watched = later("validation") if has_own else "test"
        return Data.from_samples(data.train, class_names=data.class_names or None, validation=watched, **given)
    return data.with_test(given["test"], folder.name)


def read_samples(source: str | PathLike[str], columns: Columns, names: Sequence[str] = ()) -> Samples:
    """Read the samples of a table by the columns and the class names that a network was trained on."""
    if isinstance(source, str) and is_sklearn_table(source):
        held = sklearn_table(set_name(source)).columns
        return table_samples(read_frame(held, columns.kinds | columns.target_kinds, name=source), columns, names)
    path = Path(source).expanduser()
    if path.is_dir() and (tables := tables_in(path)):
        path = tables.get("test", tables["train"])
    kind = kind_of_file(path, "check the path")
    if kind.table is None:
        raise DataError(f"{path}: the network was trained on a table: give a table (.csv or .parquet), got {kind.name}")
    return table_samples(kind.table(path, columns.kinds | columns.target_kinds), columns, names)


def _no_table(source: object, options: ReadOptions) -> OptionError:
    return OptionError(f"{options.of_tables[0]} is an option of tables, and {source} is none: leave it out")


def _read_file(path: Path, split: dict[str, Any], options: ReadOptions) -> Data:
    """Load a data set from one file."""
    if (own := reader_of(path)) is not None:
        return _from_reader(path, own(path), split, options)
    kind = kind_of_file(path, "check the path")
    if path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        raise DataError(f"{path}: is a spreadsheet: save the sheet as CSV")
    if kind.table is not None:
        ignore = names_in(options.ignore, "ignore")
        return table_data(kind.table(path, None, ignore), options, split, path.name.partition(".")[0] or path.name)
    if options.of_tables:
        raise _no_table(path, options)
    if kind.data is None:
        if parts := parts_in(path, options):
            return _from_parts(path, path.name.partition(".")[0], parts, split)
        mend = "save it with np.savez(path, x=x, y=y)"
        if "idx" in path.name or path.name in FILES_OF_SETS:
            mend = f"give its folder, {path.parent}"
        if kind.image:
            mend = "give the folder of all images, with a folder in it for each class"
        name, mend = unsupported_file(path) or (kind.name, mend)
        raise DataError(f"{path}: expected a .npz file, got {name}: {mend}")
    return _from_parts(path, path.stem, kind.data(path, options), split)


def _from_reader(path: Path, read: Any, split: dict[str, Any], options: ReadOptions) -> Data:
    """Make data from the result of a registered reader."""
    if given := [name for name, value in vars(options).items() if value is not None]:
        raise OptionError(f"{given[0]} is for files that gpunn reads itself, and {path} is read by code of yours")
    if isinstance(read, Data):
        return read
    if isinstance(read, Samples):
        return Data.from_samples(read, name=path.stem, **split)
    if not isinstance(read, tuple) or len(read) not in (2, 3):
        got = f"a tuple of {len(read)}" if isinstance(read, tuple) else type(read).__name__
        raise DataError(f"{path}: its reader must return (x, y), (x, y, sample_weight), Samples or Data, got {got}")
    return _from_parts(path, path.stem, Parts(read), split)


def _from_parts(source: object, name: str, parts: Parts, split: dict[str, Any]) -> Data:
    """Make data from the parts of a source; errors name it."""
    has_own = parts.validation is not None and split["validation"] not in (0, "test")
    try:
        own: dict[str, Any] = {"validation": parts.validation()} if has_own and parts.validation else {}
        x, y, *weights = parts.train
        own["sample_weight"] = weights[0] if weights else None
        return Data.from_arrays(x, y, test=parts.test, class_names=parts.class_names, name=name, **split | own)
    except DataError as error:
        raise DataError(f"{source}: {error}") from None

"""The digits in every form that is read give the same training data, to the last bit."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.image_folders import put_image

from gpunn.data import Data, load_data
from gpunn.data.load import read_digits

_DIGITS = read_digits(0)
# Sorted by class, as folders are; 255 is white in an image.
_ORDER = np.argsort(_DIGITS.targets, kind="stable")
IMAGES, LABELS = np.asarray(_DIGITS.inputs)[_ORDER] * np.uint8(15), _DIGITS.targets[_ORDER]


def _class_folders(folder: Path) -> Path:
    for number, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        put_image(folder / "digits" / str(label) / f"digit{number}.png", image[..., 0])  # 9 comes before 10
    return folder / "digits"


def _npz(folder: Path) -> Path:
    np.savez(folder / "digits.npz", x=IMAGES, y=LABELS)
    return folder / "digits.npz"


def _idx(folder: Path) -> Path:
    for part in ("train", "t10k"):
        images = struct.pack(">4B3I", 0, 0, 8, 3, len(IMAGES), 8, 8) + IMAGES.tobytes()
        labels = struct.pack(">4BI", 0, 0, 8, 1, len(LABELS)) + LABELS.astype(np.uint8).tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    return folder


def _columns() -> dict[str, np.ndarray]:
    pixels = IMAGES.reshape(len(IMAGES), -1)
    return {"label": LABELS, **{f"pixel{k}": pixels[:, k] for k in range(pixels.shape[1])}}


def _csv(folder: Path) -> Path:
    columns = _columns()
    rows = np.stack(list(columns.values()), axis=1).tolist()
    (folder / "digits.csv").write_text("\n".join(",".join(map(str, row)) for row in [list(columns), *rows]))
    return folder / "digits.csv"


def _parquet(folder: Path) -> Path:
    pq.write_table(pa.table(_columns()), folder / "digits.parquet")
    return folder / "digits.parquet"


FORMS = {"class folders of PNG": _class_folders, "npz": _npz, "IDX": _idx, "CSV": _csv, "Parquet": _parquet}


@pytest.mark.parametrize("form", FORMS)
def test_the_digits_are_the_same_training_data_in_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write: Callable[[Path], Path] = FORMS[form]
    data = load_data(write(tmp_path))
    assert (data.train.shape, data.train.inputs.dtype, data.class_names) == ((8, 8, 1), np.uint8, tuple("0123456789"))
    assert data.train.sha256() == Data.from_arrays(IMAGES, LABELS).train.sha256()

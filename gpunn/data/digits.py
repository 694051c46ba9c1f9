"""The bundled digits: 1,797 images of 8x8 values from 0 to 16, with a test set that is always the same.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0; see digits/README.md.
"""

from pathlib import Path

from gpunn.data.formats.idx import read_images, read_labels
from gpunn.data.samples import Samples
from gpunn.data.split import stratified_split

FOLDER = Path(__file__).parent / "digits"
IMAGES = FOLDER / "digits-images-idx3-ubyte.gz"
LABELS = FOLDER / "digits-labels-idx1-ubyte.gz"
CLASS_NAMES = tuple("0123456789")
TEST_COUNT = 360
# Not the user's seed: results are comparable only if all are measured on the same images.
TEST_SEED = 1797


def digits_train() -> Samples:
    """The 1,437 digits to learn from, (1437, 8, 8, 1)."""
    return _part(0)


def digits_test() -> Samples:
    """The 360 digits of the test set, (360, 8, 8, 1)."""
    return _part(1)


def _part(which: int) -> Samples:
    labels = read_labels(LABELS)
    indices = stratified_split(labels, TEST_COUNT, TEST_SEED)[which]
    return Samples(read_images(IMAGES)[indices], labels[indices], 1 / 16, len(CLASS_NAMES))

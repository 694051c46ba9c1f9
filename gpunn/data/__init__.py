"""Load data sets: the bundled digits, published sets by name, folders, files and arrays."""

from gpunn.data.dataset import Data
from gpunn.data.formats.idx import read_idx
from gpunn.data.load import NAMES, load_data
from gpunn.data.samples import Samples

__all__ = ["NAMES", "Data", "Samples", "load_data", "read_idx"]

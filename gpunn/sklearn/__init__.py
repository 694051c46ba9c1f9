"""Wrap networks as scikit-learn estimators, for pipelines, cross-validation and searches (the extra `sklearn`)."""

try:
    from sklearn.utils.validation import validate_data  # noqa: F401  # came with 1.6
except ImportError as error:
    mend = "pip install 'gpunn[sklearn]'"
    raise ImportError(f"gpunn.sklearn needs scikit-learn of version 1.6 or newer ({error}): {mend}") from None

from gpunn.sklearn.classifier import Classifier
from gpunn.sklearn.regressor import Regressor

__all__ = ["Classifier", "Regressor"]

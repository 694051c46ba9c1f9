"""The errors that gpunn raises on purpose, which the program prints as one line; any other is a defect."""

_HEAD, _TAIL = 380, 200


class GpunnError(Exception):
    """Base of all errors below, with exit code 1; the message, which may quote any file, is made one printable line."""

    def __init__(self, message: str) -> None:
        super().__init__(in_one_line(str(message)))


class OptionError(GpunnError, ValueError):
    """An option, name or hyper-parameter that does not exist or is out of range; exit code 2."""


class ShapeError(GpunnError, ValueError):
    """Arrays or layers whose shapes do not fit together."""


class DataError(GpunnError, ValueError):
    """A data set that is missing, damaged, or holds values that cannot be trained on."""


class DeviceError(GpunnError, RuntimeError):
    """A device that is not there or cannot be used, with the reason and the mend; `mend` is that alone, or ""."""

    is_sticky = False  # whether CUDA refuses everything from now on, until the process is started again

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.mend = mend


class CaptureError(GpunnError, RuntimeError):
    """A training step that cannot be recorded as one graph, with the reason; it can still be done kernel by kernel."""


class DivergenceError(GpunnError, ArithmeticError):
    """The loss became non-finite, or grew far beyond that of the untrained network; advises a learning rate or None."""

    def __init__(self, message: str, learning_rate: float | None = None) -> None:
        super().__init__(message)
        self.learning_rate = learning_rate


class MemoryShortageError(GpunnError, MemoryError):
    """Memory ran out on a device or the host: what was needed, what was free, and a batch size that would fit."""


class ModelFileError(GpunnError, ValueError):
    """A model file that is damaged, or not one of gpunn's."""


class CheckpointError(GpunnError, ValueError):
    """A checkpoint that is damaged, or that a run cannot go on from, with the difference between them."""


class OutputError(GpunnError, OSError):
    """A result that cannot be written: full or read-only disk, a folder that is in use."""


def in_one_line(text: str) -> str:
    """Return a text as one line of printable characters, cut in the middle where it is long."""
    # Escaped as in a literal of Python: \n, \x1b, \udc80.
    return _cut("".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in _cut(text)))


def _cut(text: str) -> str:
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} … {text[-_TAIL:]}"

"""Define the errors that gpunn raises on purpose, and the program prints as one line; any other is a defect."""

_HEAD, _TAIL = 380, 200


class GpunnError(Exception):
    """Base of all errors below, with exit code 1; its message, which may quote any file, becomes one printable line."""

    def __init__(self, message: str) -> None:
        super().__init__(in_one_line(str(message)))


class OptionError(GpunnError, ValueError):
    """Option, name or hyper-parameter that does not exist or is out of range; exit code 2."""


class ShapeError(GpunnError, ValueError):
    """Arrays or layers whose shapes do not fit together."""


class DataError(GpunnError, ValueError):
    """Data set that is missing, damaged, or has values unfit for training."""


class DeviceError(GpunnError, RuntimeError):
    """Device that does not exist or cannot be used, with reason and remedy; `mend` is the remedy alone, or ""."""

    is_sticky = False  # whether CUDA refuses all further calls until the process is restarted

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.mend = mend


class CaptureError(GpunnError, RuntimeError):
    """Training step that cannot be recorded as a CUDA graph, with the reason; it can still run kernel by kernel."""


class DivergenceError(GpunnError, ArithmeticError):
    """Loss that became non-finite or far larger than the untrained network's; suggests a learning rate, or None."""

    def __init__(self, message: str, learning_rate: float | None = None) -> None:
        super().__init__(message)
        self.learning_rate = learning_rate


class MemoryShortageError(GpunnError, MemoryError):
    """Shortage of memory on a device or the host: bytes needed, bytes free, and a batch size that fits."""


class ModelFileError(GpunnError, ValueError):
    """Model file that is damaged, or not gpunn's."""


class CheckpointError(GpunnError, ValueError):
    """Checkpoint that is damaged or does not match the run, with the difference."""


class OutputError(GpunnError, OSError):
    """Result that cannot be written: the disk is full or read-only, or the folder is in use."""


def in_one_line(text: str) -> str:
    """Return a text as one line of printable characters, with the middle of a long text cut out."""
    # Escape as in a Python literal: \n, \x1b, \udc80.
    return _cut("".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in _cut(text)))


def _cut(text: str) -> str:
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} … {text[-_TAIL:]}"

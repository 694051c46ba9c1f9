"""Report how a run or a command failed: its exit code, and one line that says how to mend it."""

import signal

from gpunn.config import outside
from gpunn.errors import GpunnError, OptionError, in_one_line
from gpunn.saving.signals import Terminated


def code_of(error: BaseException) -> int:
    """Return the exit code of the program after an error: 1, 2 for a wrong option, or 128 + a signal."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 2 if isinstance(error, OptionError) else 1


def line_of(error: BaseException) -> str:
    """Describe an error and its remedy in one line."""
    return in_one_line(" ".join(_said_of(error).split()))


def _said_of(error: BaseException) -> str:
    if not isinstance(error, Exception):
        return f"ended with {code_of(error)}"
    if isinstance(error, GpunnError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory{f' ({error})' if str(error) else ''}: take a smaller batch, network or data set"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}: check the path, its permissions and the space on its disk"
    if where := outside.place_of(error):
        return f"{where}: {type(error).__name__}: {error}; GPUNN_DEBUG=1 shows the way there"
    return f"a defect of gpunn: {type(error).__name__}: {error}; please report it with what GPUNN_DEBUG=1 shows"

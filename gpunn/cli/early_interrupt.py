"""Let Ctrl-C end the program without a traceback while the package, which imports this first, is imported."""

import _signal as signal  # type: ignore[import-not-found]  # faster: `signal` imports other modules
import os
import sys


def leave(number: int, _frame: object) -> None:
    """End the process at once; a signal handler for times without anything to clean up."""
    os._exit(128 + number)


def _is_program() -> bool:
    if os.path.basename(sys.argv[0] if sys.argv else "") == "gpunn":  # noqa: PTH119 - pathlib takes its time
        return True
    # `python -m gpunn` imports the package before it knows which file it runs.
    words = iter(sys.orig_argv[1:])
    option = next((word for word in words if word.startswith("-") and word.endswith("m")), "")
    return bool(option) and sys.argv[:1] == ["-m"] and next(words, "").partition(".")[0] == "gpunn"


def exits_at_once() -> bool:
    """Return whether Ctrl-C ends the program at once."""
    return signal.getsignal(signal.SIGINT) is leave


# A program that ignores Ctrl-C, by a shell's &, goes on ignoring it.
if _is_program() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave)

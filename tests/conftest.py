"""What every test file may use: the MNIST folder, and the rules for what may be skipped."""

import os
import signal
import warnings
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings
from support.harness import backend

__all__ = ["backend"]

# A job in a shell's background ignores SIGINT, one under nohup SIGHUP, and so do children: tests that send them mind.
for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, default)

ROOT = Path(__file__).resolve().parent.parent
MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def is_set(variable: str) -> bool:
    """Whether an environment variable is set to something other than no."""
    return os.environ.get(variable, "").lower() not in ("", "0", "false", "no")


def find_mnist() -> Path | None:
    """The folder with the four MNIST files, gzipped or not.

    Looked for in GPUNN_DATA, then in shared/data beside the checkout; each itself or its folder mnist.
    """
    roots = [Path(value) for value in [os.environ.get("GPUNN_DATA", "")] if value]
    roots.append(ROOT.parent / "shared" / "data")
    for folder in (folder for root in roots for folder in (root / "mnist", root)):
        if all((folder / name).is_file() or (folder / f"{name}.gz").is_file() for name in MNIST_FILES):
            return folder
    return None


SIMULATES_CUDA = is_set("GPUNN_SIMULATED_CUDA")
if SIMULATES_CUDA:  # before anything imports CuPy
    from simulated_cuda.installing import NotSimulatedError, install

    try:
        install()
    except NotSimulatedError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_report_header() -> str | None:
    """In which order the simulated device works: with that, a failure can be seen again."""
    return f"simulated CUDA: FAKECUDA_ORDER={os.environ.get('FAKECUDA_ORDER', '-1')}" if SIMULATES_CUDA else None


# In CI the same examples each time, so that a failure is of the change and not of chance; elsewhere new ones.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
if is_set("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder with the MNIST files. Where it is missing the test is skipped, in CI it fails."""
    folder = find_mnist()
    if folder is None:
        message = "MNIST not found: set GPUNN_DATA to the folder of mnist/train-images-idx3-ubyte.gz etc."
        if is_set("CI"):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    return folder


def why_no_gpu() -> str:
    """Why no CUDA device can be used here, or "" if one can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy warns at import of what it does not find
            import cupy
    except ImportError as error:
        return f"CuPy cannot be imported: {error}"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"no CUDA device: {error}"
    return "" if count else "no CUDA device"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """As many processes as cores, eight at most; one alone on a GPU, whose memory the tests count."""
    return min(8, len(os.sched_getaffinity(0))) if SIMULATES_CUDA or why_no_gpu() else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that need a CUDA device as skipped, each with the reason, if there is none."""
    for item in items:
        if item.path.parent.name in ("simulated_cuda", "simulator"):
            item.add_marker(pytest.mark.simulated_cuda)
    if not SIMULATES_CUDA:
        how = (
            "it is for the simulated CUDA: pip install '.[cuda13]', which needs no GPU, and set GPUNN_SIMULATED_CUDA=1"
        )
        for item in items:
            if item.get_closest_marker("simulated_cuda"):
                item.add_marker(pytest.mark.skip(reason=how))
    needing = [item for item in items if item.get_closest_marker("gpu")]
    reason = why_no_gpu() if needing else ""
    if needing and not reason and is_set("GPUNN_NO_POOL"):
        import cupy

        cupy.cuda.set_allocator(None)  # each array is memory of its own, with bounds that compute-sanitizer knows of
    if reason:
        for item in needing:
            item.add_marker(pytest.mark.skip(reason=reason))


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and is_set("GPUNN_REQUIRE_ALL") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: GPUNN_REQUIRE_ALL is set, so this must not be skipped: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under GPUNN_REQUIRE_ALL=1 a skipped test fails; those for a GPU only where one is required or simulated.

    The marker decides what is excused, not the reason given: a test without it cannot hide behind a missing
    GPU.
    """
    report = yield
    if SIMULATES_CUDA and report.failed:
        report.sections.append(
            ("simulated CUDA", f"to see it again: FAKECUDA_ORDER={os.environ.get('FAKECUDA_ORDER', -1)}")
        )
    needs_gpu, needs_simulation = (item.get_closest_marker(name) for name in ("gpu", "simulated_cuda"))
    is_excused = not SIMULATES_CUDA and (needs_simulation or (needs_gpu and not is_set("GPUNN_REQUIRE_GPU")))
    if not is_excused:
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Under GPUNN_REQUIRE_ALL=1 a file that skips itself as a whole is an error."""
    report = yield
    _refuse_skip(report)
    return report

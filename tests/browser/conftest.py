"""One browser for all tests here, and runs that are served; skipped, with the reason, where there is no browser."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browsing import Visit, chromium, serving, why_no_browser

from gpunn.experiments import run
from gpunn.experiments.experiment import read_experiment

Visiting = Callable[..., Visit]


def trained(recipe: str, folder: Path, **options: Any) -> Path:
    experiment = read_experiment(recipe).with_options(device="cpu", **options)
    return run.train(experiment, folder, lambda _: None, progress=False)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    if reason := why_no_browser():
        pytest.skip(reason)
    with chromium() as started:
        yield started


def visiting(browser: Any, kind: Callable[..., Visit]) -> Iterator[Visiting]:
    """Open pages for a test, then check that none had an error or asked elsewhere."""
    visits: list[Visit] = []

    def open_page(url: str, **look: Any) -> Visit:
        visits.append(kind(browser, url, **look))
        return visits[-1]

    yield open_page
    for each in visits:
        each.context.close()
    assert [error for each in visits for error in each.errors] == []
    assert [url for each in visits for url in each.elsewhere] == []


@pytest.fixture
def visit(browser: Any) -> Iterator[Visiting]:
    yield from visiting(browser, Visit)


@pytest.fixture(scope="session")
def lenet(browser: Any, mnist_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of lenet on MNIST, of one epoch: some 12 s."""
    return trained("lenet", tmp_path_factory.mktemp("runs") / "lenet", data=str(mnist_folder), epochs=1)


@pytest.fixture(scope="session")
def site(lenet: Path) -> Iterator[str]:
    """The address of its page."""
    with serving(lenet) as url:
        yield url


@pytest.fixture(scope="session")
def iris(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table."""
    return trained("table", tmp_path_factory.mktemp("runs") / "iris", data="examples/iris.csv", epochs=30)


@pytest.fixture(scope="session")
def iris_site(iris: Path) -> Iterator[str]:
    with serving(iris) as url:
        yield url


@pytest.fixture(scope="session")
def autoencoder_site(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(trained("autoencoder", tmp_path_factory.mktemp("runs") / "auto", epochs=2)) as url:
        yield url


@pytest.fixture(scope="session")
def shapes_site(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    run = trained("images", tmp_path_factory.mktemp("runs") / "shapes", data="examples/shapes", colours="rgb", epochs=1)
    with serving(run) as url:
        yield url

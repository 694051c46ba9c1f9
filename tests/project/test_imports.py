"""Imports go one way: no module needs, by any way round, one that needs it, for types or inside a function either."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import gpunn
from gpunn.nn import layers

PACKAGE = Path(gpunn.__file__).parent
ROOMS = [
    "errors",
    "version",
    "files",
    "config",
    "display",
    "kernels",
    "backend",
    "data",
    "nn",
    "train",
    "saving",
    "reports",
    "sequential",
    "experiments",
    "sklearn",
    "serve",
    "cli",
]
"""What lies in the package, in an order in which each imports nothing that comes after it."""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def imports(name: str) -> set[str]:
    """The modules of gpunn that one imports, and the packages that are imported with them."""
    tree = ast.parse(MODULES[name].read_text("utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= whole if len(whole) == len(node.names) else {*whole, node.module or ""}
    inner = {module.rpartition(".")[0] for module in found} - {"", "gpunn"}
    return (found | {package for package in inner if not name.startswith(package)}) & MODULES.keys() - {name}


def test_no_import_goes_round_in_a_circle() -> None:
    try:
        TopologicalSorter({name: imports(name) for name in MODULES}).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle of imports: {' <- '.join(error.args[1])}") from None


def test_no_room_imports_one_above_it() -> None:
    floors = {room: floor for floor, room in enumerate(ROOMS)}
    faces = {"gpunn", "gpunn.__main__"}
    for name in MODULES.keys() - faces:
        above = [other for other in imports(name) - faces if floors[other.split(".")[1]] > floors[name.split(".")[1]]]
        assert not above, f"{name} imports {', '.join(above)}"


def test_the_package_shows_its_rooms() -> None:
    inside = {name.split(".")[1] for name in MODULES if name != "gpunn"}
    assert inside - {"__main__"} == set(ROOMS)


def test_what_every_module_may_import_imports_no_part() -> None:
    found = set[str]().union(*(imports(name) for name in MODULES if name.startswith("gpunn.config")))
    assert {name for name in found if not name.startswith("gpunn.config")} == {"gpunn.errors"}


def test_a_layer_is_told_by_its_attributes_and_never_by_its_class() -> None:
    classes = set(layers.__all__) - {"Layer", "Activation"}
    told = {f"{name}: {ast.unparse(node)}" for name, path in MODULES.items() for node in _class_checks(path)
            if classes & {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}}  # fmt: skip
    # A file format has a form for each class, and makes layers of them.
    assert {one for one in told if not one.startswith(("gpunn.nn.", "gpunn.saving.onnx."))} == set()


def _class_checks(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            yield node


def test_no_file_is_longer_than_a_sitting_and_the_package_fits_on_a_screen() -> None:
    lengths = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= 20

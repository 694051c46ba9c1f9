"""What holds for the project as a whole: its imports, its one matrix product, its packages, its image."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT

import gpunn

PACKAGE = ROOT / "gpunn"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Imported by the functions that need them, never by `import gpunn`.
LATE = ("cupy", "google.protobuf", "matplotlib", "nvmath", "onnx", "pooch", "requests", "safetensors", "tqdm")
MATRIX_PRODUCTS = {"dot", "vdot", "inner", "matmul", "einsum", "tensordot", "linalg"}
CUDA_MODULES = {"cupy", "cupyx", "cupy_backends", "nvmath"}
EXECUTING_FORMATS = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "dbm",
    "copyreg",
    "runpy",
}
EXECUTING_CALLS = {"eval", "exec", "compile", "__import__"}
# NumPy's readers that can unpickle.
UNPICKLING = {"load"}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.fail("this is no git checkout: run the tests in one")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module", params=MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def module(request: pytest.FixtureRequest) -> tuple[Path, ast.Module]:
    return request.param, ast.parse(request.param.read_text("utf-8"))


def test_a_module_imports_no_format_that_can_execute(module: tuple[Path, ast.Module]) -> None:
    assert {name.partition(".")[0] for name in imports(module[1])} & EXECUTING_FORMATS == set()


def test_a_module_makes_nothing_of_text_that_can_execute(module: tuple[Path, ast.Module]) -> None:
    found = []
    for node in ast.walk(module[1]):
        if isinstance(node, ast.Name) and node.id in EXECUTING_CALLS:
            found.append(ast.unparse(node))
        if isinstance(node, ast.Call):
            pickling = [word.value for word in node.keywords if word.arg == "allow_pickle"]
            refuses = bool(pickling) and all(isinstance(v, ast.Constant) and v.value is False for v in pickling)
            is_numpys = (
                isinstance(node.func, ast.Attribute)
                and node.func.attr in UNPICKLING
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in {"np", "numpy", "cupy"}
            )
            if (pickling or is_numpys) and not refuses:
                found.append(ast.unparse(node))
    assert found == []


def test_only_the_backend_imports_cupy(module: tuple[Path, ast.Module]) -> None:
    path, tree = module
    cuda = ("cuda.py", "cublas.py", "cublaslt.py", "cupy_import.py", "nccl.py")
    if path not in {PACKAGE / "backend" / name for name in cuda}:
        assert {name.partition(".")[0] for name in imports(tree)} & CUDA_MODULES == set()


def test_a_module_uses_no_pyplot_and_no_scipy(module: tuple[Path, ast.Module]) -> None:
    found = [name for name in imports(module[1]) if re.match(r"matplotlib\.pyplot|pylab|scipy", name)]
    assert found == []


def test_every_matrix_product_goes_through_gemm(module: tuple[Path, ast.Module]) -> None:
    path, tree = module
    found = []
    for node in ast.walk(tree):
        is_operator = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult)
        is_name = (
            isinstance(node, ast.Attribute)
            and node.attr in MATRIX_PRODUCTS
            and isinstance(node.value, ast.Name)
            and node.value.id in {"np", "numpy", "cp", "cupy"}
        )
        if is_operator or is_name:
            found.append(ast.unparse(node))
    # Where NumPy's BLAS cannot be called directly a product may be NumPy's own; and sums of rows are no product.
    allowed = {"backend/blas.py": ["np.matmul"], "kernels/bias.py": ["np.einsum"], "data/formats/ink.py": ["np.einsum"]}
    allowed = allowed.get(path.relative_to(PACKAGE).as_posix(), [])
    assert [product for product in found if product not in allowed] == []


def test_no_tracked_file_names_a_machine() -> None:
    # In pieces, so that this file does not name one either.
    package_hosts = ["pypi" + ".org", "python" + "hosted", "index" + "-url", "find" + "-links"]
    folders = ["/ro" + "ot/", "/ho" + r"me/\w", "/wo" + "rk/", "/Us" + r"ers/\w"]
    addresses = [r"(?<![\d.])(?!127\.0\.0\.1|0\.0\.0\.0)\d{1,3}(?:\.\d{1,3}){3}(?![\d.])"]
    pattern = re.compile("|".join([*map(re.escape, package_hosts), *folders, *addresses]))
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" in content or path.suffix in {".svg", ".gz"}:
            continue
        for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
            if match := pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert found == []


def test_importing_gpunn_imports_nothing_that_can_wait() -> None:
    code = f"import sys, gpunn; print([name for name in {LATE} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_importing_the_doctor_imports_the_standard_library_only() -> None:
    code = (
        f"import runpy, sys; runpy.run_path({str(PACKAGE / 'backend' / 'driver.py')!r}, run_name='driver');"
        "names = {name.partition('.')[0] for name in sys.modules};"
        "print(sorted(names - set(sys.stdlib_module_names) - {'__main__'}))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_the_version_is_the_changelogs() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] in (gpunn.__version__, "Unreleased")
    assert gpunn.__version__ in headings


def test_the_citation_is_of_this_version_and_licence() -> None:
    lines = (ROOT / "CITATION.cff").read_text("utf-8").splitlines()
    cited = {key: value.strip('"') for key, _, value in (line.partition(": ") for line in lines)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (cited["cff-version"], cited["version"]) == ("1.2.0", gpunn.__version__)
    assert (cited["title"], cited["abstract"]) == (project["name"], project["description"])
    assert (cited["license"], cited["  - name"]) == (project["license"], project["authors"][0]["name"])


def test_make_has_five_short_names_and_lints_as_ci_does() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    assert re.findall(r"^(\w+):", text, re.MULTILINE) == ["test", "lint", "docs", "bench", "train"]
    commands = [line.strip() for line in text.splitlines() if line.startswith("\t")]
    named = {name for line in commands for name in re.findall(r"(?:scripts|benchmarks)/\w+\.\w+", line)}
    assert named == {"scripts/test.sh", "benchmarks/write_docs.py", "benchmarks/gpu_page.py", "scripts/train.sh"}
    assert [name for name in named if not (ROOT / name).is_file()] == []
    in_ci = (ROOT / ".ci" / "run").read_text("utf-8").replace('"$python"', ".venv/bin/python").splitlines()
    lint = [line for line in commands if re.search("ruff|mypy|shellcheck", line)]
    assert len(lint) == 4
    assert [line for line in lint if line not in in_ci] == []


def test_a_cpu_install_asks_for_nothing_of_cuda() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert [
        name for name in project["dependencies"] if re.search("cu(da|py|blas)|nvidia|nvmath|scipy|torch", name)
    ] == []


@pytest.mark.parametrize("version", ["12", "13"])
def test_a_cuda_extra_brings_the_three_libraries_a_network_needs(version: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extra = project["optional-dependencies"][f"cuda{version}"]
    assert f"cuda-toolkit[cublas,cudart,nvrtc]=={version}.*" in extra
    assert any(name.startswith(f"cupy-cuda{version}x>=14.2") for name in extra)
    assert not any("ctk" in name for name in extra)


def dockerfile() -> list[str]:
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text("utf-8"))
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_images_base_can_be_replaced() -> None:
    lines = dockerfile()
    assert re.fullmatch(r"ARG BASE=python:3\.\d+-slim", lines[0])
    assert {line.split()[1] for line in lines if line.startswith("FROM")} == {"${BASE}"}


def test_the_image_does_not_run_as_root() -> None:
    final = dockerfile()
    final = final[max(number for number, line in enumerate(final) if line.startswith("FROM")) :]
    users = [line.split()[1] for line in final if line.startswith("USER")]
    # A number, so that whoever runs it can see that it is not root.
    assert users
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])


def test_the_image_keeps_compiled_kernels_on_a_volume() -> None:
    lines = dockerfile()
    volume = next(line.split()[1] for line in lines if line.startswith("VOLUME"))
    environment = " ".join(line for line in lines if line.startswith("ENV"))
    assert f"CUPY_CACHE_DIR={volume}/" in environment
    assert f"XDG_CACHE_HOME={volume}" in environment
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in environment


def test_the_image_is_given_every_file_it_copies_and_no_other() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    given = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        name.partition("/")[0]
        for line in dockerfile()
        if line.startswith("COPY") and "--from" not in line
        for name in line.split()[1:-1]
    }
    assert copied == given
    assert "*" in ignored


def test_a_wheel_holds_the_whole_package_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="building a wheel without the network needs hatchling")
    from hatchling.builders.wheel import WheelBuilder

    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {path.relative_to(ROOT).as_posix() for path in tracked_files() if path.is_relative_to(PACKAGE)}
    assert "gpunn/py.typed" in names
    assert expected <= names
    assert {name for name in names if not name.startswith("gpunn/")} == set()

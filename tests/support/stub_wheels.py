"""Wheels with nothing in them but a name, a version and what they need, for the real pip."""

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from support.paths import TESTS

# What hatchling would do, offline: an empty package that needs what pyproject.toml says of each extra.
_BACKEND = """
import sys, tomllib
from pathlib import Path
sys.path.insert(0, TESTS)

def build_editable(folder, settings=None, metadata=None):
    from support.stub_wheels import make_wheel
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    chosen = {name: extras[name] for name in ("cuda12", "cuda13")}
    needs = tuple(f"{need}; extra == '{name}'" for name, listed in chosen.items() for need in listed)
    make_wheel(Path(folder), "gpunn", "1.0", needs, tuple(chosen))
    return "gpunn-1.0-py3-none-any.whl"
"""

CUDA_LIBRARIES = {"cublas": "nvidia-cublas", "nvrtc": "nvidia-cuda-nvrtc", "cudart": "nvidia-cuda-runtime"}


def make_wheel(folder: Path, name: str, version: str, needs: tuple[str, ...] = (), extras: tuple[str, ...] = (),
               files: Mapping[str, str | bytes] | None = None) -> None:  # fmt: skip
    """Write a wheel into a folder."""
    own = name.replace("-", "_")
    info = f"{own}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {need}" for need in needs]
    given: dict[str, str | bytes] = {**(files or {}), f"{info}/METADATA": "\n".join(lines) + "\n"}
    given[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content = {path: data.encode() if isinstance(data, str) else data for path, data in given.items()}
    record = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in content.items()]
    content[f"{info}/RECORD"] = ("\n".join([*record, f"{info}/RECORD,,"]) + "\n").encode()
    with zipfile.ZipFile(folder / f"{own}-{version}-py3-none-any.whl", "w") as wheel:
        for path, data in content.items():
            wheel.writestr(path, data)


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def make_cuda_wheels(
    folder: Path,
    cupy: str = "",
    files: Mapping[str, Mapping[str, str | bytes]] | None = None,
    finder: Mapping[str, str] | None = None,
) -> None:
    """Stand-ins for all that the extras cuda12 and cuda13 bring; both CuPy wheels hold the same package.

    Args:
        folder: a new one.
        cupy: more of the module.
        files: of other wheels, by their name.
        finder: the files of cuda-pathfinder; left out, there is no such wheel.
    """
    folder.mkdir()
    files = files or {}
    for cuda, version, suffix in (("12", "12.9.1", "-cu12"), ("13", "13.0.2", "")):
        make_wheel(folder, f"cupy-cuda{cuda}x", "14.2.0", files={"cupy/__init__.py": f"built_for = {cuda}\n{cupy}"})
        make_wheel(folder, "cuda-bindings", version, () if finder is None else ("cuda-pathfinder",))
        libraries = {extra: f"{name}{suffix}" for extra, name in CUDA_LIBRARIES.items()}
        needs = tuple(f"{name}=={version}; extra == '{extra}'" for extra, name in libraries.items())
        make_wheel(folder, "cuda-toolkit", version, needs, tuple(libraries))
        for name in libraries.values():
            make_wheel(folder, name, version, files=files.get(name))
    make_wheel(folder, "nvmath-python", "1.0.0", files=files.get("nvmath-python"))
    if finder is not None:
        make_wheel(folder, "cuda-pathfinder", "1.9.1", files=finder)


def folder_of_pip(folder: Path) -> Path:
    """A folder that holds this Python's pip and nothing else, to be put on the path of a bare environment."""
    import pip  # not above: the environment that a package is built in has none

    folder.mkdir()
    (folder / "pip").symlink_to(Path(pip.__file__).parent)
    return folder


def build_by_stub(project: Path) -> None:
    """Let pip build a copy of the project without hatchling, which would have to be downloaded."""
    text = (project / "pyproject.toml").read_text("utf-8")
    system = '[build-system]\nrequires = []\nbuild-backend = "stub_backend"\nbackend-path = ["."]\n\n'
    (project / "pyproject.toml").write_text(system + text[text.index("[project]") :], "utf-8")
    backend = _BACKEND.replace("TESTS", repr(str(TESTS)))
    (project / "stub_backend.py").write_text(backend, "utf-8")


def offline(wheels: Path) -> dict[str, str]:
    """The environment of a pip that finds what is in a folder, and nothing else."""
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_NO_CACHE_DIR": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }

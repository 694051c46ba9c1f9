"""Wheels with nothing in them but a name, a version and what they need, for the real pip."""

import base64
import hashlib
import zipfile
from pathlib import Path

CUDA_LIBRARIES = {"cublas": "nvidia-cublas", "nvrtc": "nvidia-cuda-nvrtc", "cudart": "nvidia-cuda-runtime"}


def make_wheel(folder: Path, name: str, version: str, needs: tuple[str, ...] = (), extras: tuple[str, ...] = (),
               files: dict[str, str] | None = None) -> None:  # fmt: skip
    """Write a wheel into a folder."""
    own = name.replace("-", "_")
    info = f"{own}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {need}" for need in needs]
    content = {**(files or {}), f"{info}/METADATA": "\n".join(lines) + "\n"}
    content[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in content.items()]
    content[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    with zipfile.ZipFile(folder / f"{own}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in content.items():
            wheel.writestr(path, text)


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def make_cuda_wheels(folder: Path) -> None:
    """Stand-ins for all that the extras cuda12 and cuda13 bring; both CuPy wheels hold the same package."""
    folder.mkdir()
    for cuda, version, suffix in (("12", "12.9.1", "-cu12"), ("13", "13.0.2", "")):
        make_wheel(folder, f"cupy-cuda{cuda}x", "14.2.0", files={"cupy/__init__.py": f"built_for = {cuda}\n"})
        make_wheel(folder, "cuda-bindings", version)
        libraries = {extra: f"{name}{suffix}" for extra, name in CUDA_LIBRARIES.items()}
        needs = tuple(f"{name}=={version}; extra == '{extra}'" for extra, name in libraries.items())
        make_wheel(folder, "cuda-toolkit", version, needs, tuple(libraries))
        for name in libraries.values():
            make_wheel(folder, name, version)
    make_wheel(folder, "nvmath-python", "1.0.0")


def folder_of_pip(folder: Path) -> Path:
    """A folder that holds this Python's pip and nothing else, to be put on the path of a bare environment."""
    import pip  # not above: the environment that a package is built in has none

    folder.mkdir()
    (folder / "pip").symlink_to(Path(pip.__file__).parent)
    return folder

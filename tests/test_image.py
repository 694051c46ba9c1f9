"""The image: one command everywhere, two users on one volume, and a mend that can be done in it."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gpunn import doctor
from gpunn.data.download import _make_shared

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text("utf-8"))


def documented() -> dict[str, list[str]]:
    """Every `docker run` that is documented, by its page."""
    pages = [ROOT / "README.md", ROOT / "Dockerfile", *sorted((ROOT / "docs").glob("*.md"))]
    found = {page.name: re.findall(r"^(?:#\s+)?(docker run .*)$", page.read_text("utf-8"), re.M) for page in pages}
    return {name: commands for name, commands in found.items() if commands}


def test_one_command_is_documented_everywhere() -> None:
    commands = documented()
    assert {"README.md", "gpu.md", "Dockerfile"} <= set(commands)
    assert {command for listed in commands.values() for command in listed} == {
        'docker run --rm --gpus all -v gpunn-cache:/cache -v "$PWD:/data" --user "$(id -u):$(id -g)" gpunn train mnist'
    }


def entrypoint() -> list[str]:
    command: list[str] = json.loads(
        next(line for line in DOCKERFILE.splitlines() if line.startswith("ENTRYPOINT"))[11:]
    )
    return command


def start(folder: Path, user: int, *arguments: str) -> str:
    """What the program is started with in the image, on the volume `folder`, by a user."""
    tools = folder.parent / f"tools-{user}"
    tools.mkdir()
    for name, text in {"id": f"echo {user}", "gpunn": 'echo "$CUPY_CACHE_DIR $# $*"'}.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    command = [*entrypoint(), *arguments]
    variables = {"PATH": f"{tools}:{os.environ['PATH']}", "CUPY_CACHE_DIR": f"{folder}/cupy"}
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=60).stdout


def test_two_users_on_one_volume_have_kernels_of_their_own_and_every_argument_arrives(tmp_path: Path) -> None:
    volume = tmp_path / "cache"
    assert start(volume, 1000, "train", "a b", "*") == f"{volume}/cupy-1000 3 train a b *\n"
    assert start(volume, 1234, "doctor") == f"{volume}/cupy-1234 1 doctor\n"


TWO_USERS = """
import os, sys, stat
from pathlib import Path
import gpunn.data.download as download
folder = Path(sys.argv[1])

def as_user(user, name):
    child = os.fork()
    if not child:
        if os.getuid() == 0:
            os.setgroups([]); os.setegid(user); os.seteuid(user)
        os.umask(0o022)
        try:
            for set_name in ("mnist", name):
                download._make_shared(folder / "gpunn" / set_name)
                (folder / "gpunn" / set_name / f"of-{user}").write_text("x")
            for path in folder.rglob("of-*"):
                path.read_text()
        except OSError as error:
            print(error, flush=True); os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

sys.exit(as_user(1000, "fashion-mnist") or as_user(1234, "other"))
"""


def test_two_users_on_one_volume_share_the_data(tmp_path: Path) -> None:
    volume = tmp_path / "cache"
    volume.mkdir()
    volume.chmod(0o1777)  # as the image makes it
    for parent in volume.parents:
        if parent != Path("/") and not parent.stat().st_mode & stat.S_IXOTH:
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH)  # pytest's folders are one user's
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", TWO_USERS, volume], env=variables, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert stat.S_IMODE((volume / "gpunn" / "mnist").stat().st_mode) == 0o1777


def test_a_cache_of_ones_own_stays_ones_own(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    _make_shared(tmp_path / "home" / "gpunn" / "mnist")
    assert not (tmp_path / "home" / "gpunn" / "mnist").stat().st_mode & stat.S_IWOTH


def test_in_the_image_the_mend_is_a_build_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "GPUNN_IMAGE=1" in DOCKERFILE
    monkeypatch.setenv(doctor.IMAGE, "1")
    monkeypatch.setattr(doctor, "installed", lambda package: {"cupy-cuda13x": "14.2.0"}.get(package, ""))
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    gpu = doctor.Gpu("NVIDIA L4", 24 << 30, (8, 9))
    finding = doctor._cupy_finding(doctor.Driver(12080, (gpu,)), "cuda12", 0)
    assert finding.status == "missing"
    assert finding.mend == "docker build -t gpunn --build-arg EXTRA=cuda12 ."
    assert doctor.reinstall_command() == "docker build -t gpunn --build-arg EXTRA=cuda13 ."


def test_outside_a_checkout_what_the_extra_consists_of_is_installed_never_a_package_of_this_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(doctor.IMAGE, raising=False)
    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "site-packages" / "gpunn" / "doctor.py"))
    for extra, cupy in (("cuda12", "cupy-cuda12x"), ("cuda13", "cupy-cuda13x")):
        command = doctor.install_command(extra)
        assert cupy in command
        assert "cuda-toolkit[cublas,cudart,nvrtc]" in command
        assert "nvmath-python" in command
        assert not re.search(r"install.*\bgpunn\b", command)

"""The image: one command everywhere, two users on one volume, and a mend that can be done in it."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

from gpunn.backend import driver
from gpunn.data.download import make_shared

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


PROGRAM = """#!/bin/sh
set -e
umask 022
for folder in "$HOME/.nv/ComputeCache" "$MPLCONFIGDIR" "$CUPY_CACHE_DIR"; do
    mkdir -p "$folder"
    echo "$$" > "$folder/kept"
done
echo "$HOME $MPLCONFIGDIR $CUPY_CACHE_DIR $# $*"
"""


def start(volume: Path, user: int, *arguments: str) -> str:
    """What the program is started with in the image, on a volume, by a user who is another one where we may be root."""
    tools = volume.parent / f"tools-{user}"
    tools.mkdir()
    for name, text in {"id": f"#!/bin/sh\necho {user}\n", "gpunn": PROGRAM}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    variables = {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": f"{volume}", "CUPY_CACHE_DIR": f"{volume}/cupy"}
    who: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if os.getuid() == 0 else {}
    command = [*entrypoint(), *arguments]
    done = subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, timeout=60, **who)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def as_made_by_the_image(volume: Path) -> Path:
    """A folder that everybody may write in, as the Dockerfile makes it."""
    volume.mkdir()
    volume.chmod(0o1777)
    for parent in volume.parents:
        if parent != Path("/") and not parent.stat().st_mode & stat.S_IXOTH:
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH)  # pytest's folders are one user's
    return volume


def test_two_users_on_one_volume_have_kernels_and_a_home_of_their_own_and_every_argument_arrives(
    tmp_path: Path,
) -> None:
    volume = as_made_by_the_image(tmp_path / "cache")
    for user, arguments, said in ((1000, ["train", "a b", "*"], "3 train a b *"), (1234, ["doctor"], "1 doctor")):
        home = f"{volume}/home-{user}"
        assert start(volume, user, *arguments) == f"{home} {home}/matplotlib {volume}/cupy-{user} {said}\n"


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
                download.make_shared(folder / "gpunn" / set_name)
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
    volume = as_made_by_the_image(tmp_path / "cache")
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", TWO_USERS, volume], env=variables, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert stat.S_IMODE((volume / "gpunn" / "mnist").stat().st_mode) == 0o1777


def test_a_cache_of_ones_own_stays_ones_own(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    make_shared(tmp_path / "home" / "gpunn" / "mnist")
    assert not (tmp_path / "home" / "gpunn" / "mnist").stat().st_mode & stat.S_IWOTH


def test_in_the_image_the_mend_is_a_build_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "GPUNN_IMAGE=1" in DOCKERFILE
    monkeypatch.setenv(driver.IMAGE, "1")
    monkeypatch.setattr(driver, "installed", lambda package: {"cupy-cuda13x": "14.2.0"}.get(package, ""))
    monkeypatch.setattr(driver.importlib.util, "find_spec", lambda name: object())
    gpu = driver.Gpu("NVIDIA L4", 24 << 30, (8, 9))
    finding = driver._cupy_finding(driver.Driver(12080, (gpu,)), "cuda12", 0)
    assert finding.status == "missing"
    assert finding.mend == "docker build -t gpunn --build-arg EXTRA=cuda12 ."
    assert driver.reinstall_command() == "docker build -t gpunn --build-arg EXTRA=cuda13 ."


def test_outside_a_checkout_what_the_extra_consists_of_is_installed_never_a_package_of_this_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(driver.IMAGE, raising=False)
    monkeypatch.setattr(driver, "__file__", str(tmp_path / "site-packages" / "gpunn" / "backend" / "driver.py"))
    for extra, cupy in (("cuda12", "cupy-cuda12x"), ("cuda13", "cupy-cuda13x")):
        command = driver.install_command(extra)
        assert cupy in command
        assert "cuda-toolkit[cublas,cudart,nvrtc]" in command
        assert "nvmath-python" in command
        assert not re.search(r"install.*\bgpunn\b", command)

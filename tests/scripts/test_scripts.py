"""The scripts, run on a copy of the checkout with a Python that installs nothing: no network, no waiting."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

SCRIPTS = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"]
RUNNABLE = [path for path in SCRIPTS if path.name != "setup.sh"]

FAKE_PYTHON = """#!/bin/sh
REFUSE
[ "$1 $2" = "-m venv" ] || exec PYTHON "$@"
mkdir -p "$3/bin"
cat > "$3/bin/gpunn" <<"END"
#!/bin/sh
printf "[%s]" "$@"
END
cat > "$3/bin/python" <<"END"
#!/bin/sh
case "$1 $2" in
    "-m pip")
        echo "pip $*" >> "$PIP_LOG"
        [ ! -e "$PIP_LOG.fails" ] || { echo "ERROR: no network"; exit 1; }
        ;;
    "-m pytest" | "-m fuzz" | "-m website") printf "[%s]" "$@" ;;
    *) exec PYTHON "$@" ;;
esac
END
chmod +x "$3/bin/gpunn" "$3/bin/python"
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_valid_shell(script: Path) -> None:
    first = script.read_text("utf-8").splitlines()[0]
    for shell in ["bash"] if "bash" in first else ["bash", "sh"]:
        done = subprocess.run([shell, "-n", script], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", RUNNABLE, ids=lambda path: path.name)
def test_a_script_can_be_run_and_stops_at_the_first_failure(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert re.search(r"^set -eu", script.read_text("utf-8"), re.MULTILINE)


class Checkout:
    """A copy of the scripts and of what they install, and a PATH with nothing but what they use."""

    TOOLS = ("cat", "chmod", "cksum", "dirname", "mkdir", "rm")

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a check out"  # the blanks are part of the test
        self.bin = folder / "bin"
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        (self.root / "gpunn" / "backend").mkdir(parents=True)
        for name in ("errors.py", "backend/driver.py", "backend/cuda_errors.py"):  # run before anything is installed
            shutil.copy(ROOT / "gpunn" / name, self.root / "gpunn" / name)
        shutil.copy(ROOT / "pyproject.toml", self.root)
        self.bin.mkdir()
        for tool in self.TOOLS:
            found = shutil.which(tool)
            assert found, f"this machine lacks {tool}"
            (self.bin / tool).symlink_to(found)

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        path.chmod(0o755)

    def add_python(self, ensurepip: bool = True) -> None:
        """A python3 that makes environments without using the network: its pip says only that it was run."""
        refuse = "" if ensurepip else 'case "$*" in *ensurepip* | *virtualenv*) exit 1 ;; esac'
        fake = FAKE_PYTHON.replace("PYTHON", sys.executable).replace("REFUSE", refuse)
        self.write(self.bin / "python3", fake)

    @property
    def pip_log(self) -> Path:
        return self.root.parent / "pip.log"

    def run(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", self.root / "scripts" / script, *arguments],
            cwd=self.root.parent,
            env={"PATH": str(self.bin), "PIP_LOG": str(self.pip_log), "GPUNN_EXTRA": "cpu"} | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def installs(self) -> int:
        return len(self.pip_log.read_text("utf-8").splitlines()) if self.pip_log.exists() else 0


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def ready(checkout: Checkout) -> Checkout:
    checkout.add_python()
    assert checkout.run("train.sh").returncode == 0
    return checkout


def test_train_passes_every_argument_on_as_it_is(ready: Checkout) -> None:
    done = ready.run("train.sh", "--epochs", "3", "a b", "*")
    assert done.stdout == "[train][--epochs][3][a b][*]"


def test_a_second_run_installs_nothing(ready: Checkout) -> None:
    done = ready.run("train.sh", "again")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[train][again]", "")
    assert ready.installs() == 1


def test_the_tests_are_added_to_what_training_installed(ready: Checkout) -> None:
    assert ready.run("test.sh", "-q").stdout == "[-m][pytest][-n][auto][--dist][worksteal][-q]"
    left_out = re.findall(r"\[--ignore=(.*?)\]", ready.run("test.sh").stdout)
    assert len(left_out) == 4
    assert all((ROOT / path).exists() for path in left_out)
    assert "--editable .[web,test]" in ready.pip_log.read_text("utf-8").splitlines()[-1]
    ready.run("train.sh")
    ready.run("test.sh")
    assert ready.installs() == 2


def test_the_fuzzer_is_added_to_the_tests(ready: Checkout) -> None:
    ready.run("test.sh")
    assert ready.run("fuzz.sh", "idx", "--runs", "9").stdout == "[-m][fuzz][idx][--runs][9]"
    assert ready.pip_log.read_text("utf-8").rstrip().endswith(".[web,test,fuzz]")


def test_the_site_is_built_by_an_extra_of_its_own_with_every_argument(ready: Checkout) -> None:
    done = ready.run("site.sh", "--out", "a b")
    assert done.stdout == "[-m][website][--out][a b]"
    assert ready.pip_log.read_text("utf-8").rstrip().endswith(".[web,site]")


def test_a_changed_project_is_installed_again_with_what_was_there(ready: Checkout) -> None:
    ready.run("test.sh")
    with (ready.root / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert ready.run("train.sh").returncode == 0
    assert "--editable .[web,test]" in ready.pip_log.read_text("utf-8").splitlines()[-1]
    assert ready.installs() == 3


def test_the_cuda_extra_can_be_chosen(ready: Checkout) -> None:
    assert ready.run("train.sh", GPUNN_EXTRA="cuda12").returncode == 0
    assert ready.pip_log.read_text("utf-8").splitlines()[-1].endswith("--editable .[cuda12,web]")


def test_an_unknown_cuda_extra_is_refused(ready: Checkout) -> None:
    done = ready.run("train.sh", GPUNN_EXTRA="cuda11")
    assert done.returncode == 1
    assert done.stderr == "gpunn: GPUNN_EXTRA=cuda11 is unknown: set it to cuda13, cuda12 or cpu, or unset it\n"


def test_a_failed_installation_says_so_and_is_mended_by_the_next_run(checkout: Checkout) -> None:
    checkout.add_python()
    fails = Path(f"{checkout.pip_log}.fails")
    fails.touch()
    done = checkout.run("train.sh")
    assert done.returncode == 1
    assert "ERROR: no network" in done.stderr
    assert "check the network, then run this again" in done.stderr.splitlines()[-1]
    fails.unlink()
    assert checkout.run("train.sh").stdout == "[train]"
    assert sorted(path.name for path in checkout.root.glob(".venv*")) == [".venv"]


def test_a_half_made_environment_is_made_anew(ready: Checkout) -> None:
    (ready.root / ".venv" / "gpunn-setup").unlink()
    (ready.root / ".venv" / "left over").touch()
    assert ready.run("train.sh").stdout == "[train]"
    assert not (ready.root / ".venv" / "left over").exists()


def test_what_was_broken_off_before_there_was_a_python_is_made_anew(checkout: Checkout) -> None:
    checkout.add_python()
    (checkout.root / ".venv").mkdir()
    (checkout.root / ".venv" / "gpunn-made").touch()
    assert checkout.run("train.sh").stdout == "[train]"


def test_an_environment_that_was_copied_from_another_checkout_is_made_anew(ready: Checkout) -> None:
    other = ready.root.with_name("other")
    shutil.copytree(ready.root, other, symlinks=True)
    (other / ".venv" / "left over").touch()
    ready.root = other
    assert ready.run("train.sh").stdout == "[train]"
    assert not (other / ".venv" / "left over").exists()


def test_an_environment_whose_python_is_gone_is_made_anew(ready: Checkout) -> None:
    (ready.root / ".venv" / "bin" / "python").unlink()
    assert ready.run("train.sh").stdout == "[train]"
    assert ready.installs() == 2


def test_an_environment_made_by_hand_is_used_and_kept(ready: Checkout) -> None:
    (ready.root / ".venv" / "gpunn-setup").unlink()
    (ready.root / ".venv" / "gpunn-made").unlink()
    (ready.root / ".venv" / "mine").touch()
    fails = Path(f"{ready.pip_log}.fails")
    fails.touch()
    assert ready.run("train.sh").returncode == 1  # nor is it removed for what broke off
    fails.unlink()
    assert ready.run("train.sh").stdout == "[train]"
    assert (ready.root / ".venv" / "mine").exists()


def test_an_environment_made_by_hand_that_does_not_run_is_not_removed(ready: Checkout) -> None:
    (ready.root / ".venv" / "gpunn-made").unlink()
    (ready.root / ".venv" / "bin" / "python").unlink()
    done = ready.run("train.sh")
    assert done.returncode == 1
    assert "was not made by this script: remove it, or mend it" in done.stderr
    assert (ready.root / ".venv" / "bin" / "gpunn").exists()


def test_a_checkout_that_was_moved_gets_a_new_environment(ready: Checkout) -> None:
    ready.root = ready.root.rename(ready.root.with_name("moved"))
    assert ready.run("train.sh").stdout == "[train]"
    assert ready.installs() == 2


def test_a_machine_without_python_is_told_what_to_install(checkout: Checkout) -> None:
    done = checkout.run("train.sh")
    assert done.returncode == 1
    assert (
        done.stderr == "gpunn: Python 3.11 or newer was not found: install it, or set PYTHON to one that is elsewhere\n"
    )
    assert not (checkout.root / ".venv").exists()


def test_a_shim_that_cannot_be_run_is_passed_over(checkout: Checkout) -> None:
    checkout.add_python()
    checkout.write(checkout.bin / "python3.13", "#!/bin/sh\necho 'python3.13: command not found' >&2\nexit 127\n")
    done = checkout.run("train.sh")
    assert done.stdout == "[train]"
    assert "command not found" not in done.stderr


def test_a_python_without_venv_is_told_which_package_brings_it(checkout: Checkout) -> None:
    checkout.add_python(ensurepip=False)
    done = checkout.run("train.sh")
    assert done.returncode == 1
    assert "apt install python3-venv" in done.stderr.splitlines()[-1]
    assert not (checkout.root / ".venv").exists()


def test_a_wrong_choice_of_python_is_named(ready: Checkout) -> None:
    shutil.rmtree(ready.root / ".venv")
    done = ready.run("train.sh", PYTHON="/nowhere/python")
    assert done.returncode == 1
    assert done.stderr == "gpunn: PYTHON=/nowhere/python is no Python 3.11 or newer: set it to one, or unset it\n"


def test_the_check_of_a_gpu_takes_a_python_that_has_everything_and_installs_nothing(checkout: Checkout) -> None:
    python = checkout.bin / "a python"
    checkout.write(python, '#!/bin/sh\nprintf "[%s]" "$PYTHONPATH" "$@"\n')
    arguments = ("tests", "--", "-k", "a or b")
    done = checkout.run("gpu-check.sh", *arguments, GPUNN_PYTHON=str(python))
    said = "[benchmarks/gpu_check.py]{}[tests][--][-k][a or b]"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"[{checkout.root}]{said.format('')}", "")
    simulated = checkout.run("gpu-check.sh", *arguments, GPUNN_PYTHON=str(python), GPUNN_SIMULATED_CUDA="1")
    path = f"{checkout.root}:{checkout.root}/tests/simulated_cuda/everywhere"
    assert simulated.stdout == f"[{path}]{said.format('[--small]')}"
    assert checkout.installs() == 0
    assert not (checkout.root / ".venv").exists()

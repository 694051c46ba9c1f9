"""The program among other programs: encodings, streams that are missing or closed, names of any bytes, signals."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.cli_helpers import (
    PROGRAM,
    ROOT,
    WITHOUT_PICTURES,
    Done,
    gpunn,
    own_folder,
    program,
    start,
    without_pictures,
)

import gpunn as gn

folder = pytest.fixture(autouse=True)(own_folder)


def shell(command: str, pictures: bool = True, **environment: str) -> Done:
    """A command of bash in which `gpunn` is this one; without pictures, a training takes a third of the time."""
    words = " ".join(map(shlex.quote, (sys.executable, *(PROGRAM if pictures else WITHOUT_PICTURES))))
    done = subprocess.run(
        ["bash", "-c", f'gpunn() {{ {words} "$@"; }}; {command}'],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", **environment},
        capture_output=True,
        timeout=120,
    )
    return Done(done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1"))


# Encodings


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8", "ascii:strict"])
def test_what_a_stream_cannot_show_is_replaced(folder: Path, encoding: str) -> None:
    drawn = encoding == "ascii:strict"
    done = shell("gpunn train --recipe tiny.toml --epochs 1 --out run", drawn, PYTHONIOENCODING=encoding)
    assert done.code == 0, done.err
    times = "x" if "ascii" in encoding else "×".encode(encoding).decode("latin-1")
    assert f"1,293 training samples of 8 {times} 8 {times} 1" in done.out
    rule = "\u2500" if encoding == "utf-8" else "-"
    assert (rule * 5).encode("utf-8").decode("latin-1") in done.out
    assert (folder / "run" / "metrics.json").is_file()


def test_posix_without_utf_8_is_enough(folder: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = shell("gpunn train --recipe tiny.toml --epochs 1 --out run-\xe9 && gpunn evaluate run-\xe9", **plain)
    assert done.code == 0, done.err
    assert "8 x 8 x 1" in done.out
    assert (folder / "run-\xe9" / "metrics.json").is_file()


# Streams


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_not_there_are_no_error(folder: Path, closed: str) -> None:
    assert shell(f"gpunn train --recipe tiny.toml --out run {closed}", pictures="<&-" in closed).code == 0
    assert json.loads((folder / "run" / "metrics.json").read_text())["finished"] is True
    assert shell(f"gpunn recipes {closed}").code == 0
    assert shell(f"gpunn --help {closed}").code == 0
    assert shell(f"gpunn predict run gone {closed}").code == 1


def test_what_is_printed_never_gets_into_a_file_of_the_run(folder: Path) -> None:
    """The lowest free descriptor is that of standard output, where that was closed."""
    code = "from gpunn.cli import terminal; terminal.prepare_streams(); print(open('mine', 'w').fileno() > 2)"
    done = shell(f'{sys.executable} -c "{code}" >&- 2>&-; {sys.executable} -c "{code}" 2>&- <&-')
    assert done.out == "True\n"
    assert (folder / "mine").read_bytes() == b""


def test_training_goes_on_without_standard_streams_in_python() -> None:
    code = (
        "import sys; sys.stdout = sys.stderr = None\n"
        "import gpunn as gn\n"
        "m = gn.Sequential([gn.Dense(10)])\n"
        "m.fit(gn.load_data('digits'), epochs=1, device='cpu')\n"
    )
    done = shell(f'{sys.executable} -c "{code}"')
    assert done == Done(0, "", "")


@pytest.mark.parametrize("command", ["recipes", "doctor", "--help", "train --recipe tiny.toml --out run"])
def test_a_reader_that_has_seen_enough_is_no_error(folder: Path, command: str) -> None:
    done = shell(f"gpunn {command} 2>&1 | head -n 1; exit ${{PIPESTATUS[0]}}", CUDA_VISIBLE_DEVICES="-1")
    assert (done.code, done.err) == (0, "")
    assert len(done.out.splitlines()) == 1
    if "train" in command:
        assert json.loads((folder / "run" / "metrics.json").read_text())["finished"] is True


@pytest.mark.parametrize("command", ["recipes", "--help", "train --recipe tiny.toml --out run"])
def test_a_full_disk_behind_standard_output_is_one_line(folder: Path, command: str) -> None:
    done = shell(f"gpunn {command} > /dev/full")
    assert done.code == 1
    assert done.err.startswith("gpunn: No space left on device")
    assert len(done.err.splitlines()) == 1
    assert not (folder / "run").exists()


# Names of any bytes


def test_names_that_are_no_utf_8_go_everywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = gn.load_data("digits")
    inside = os.fsencode(folder) + b"/d\xfe"
    Path(os.fsdecode(inside)).mkdir()
    run, source = os.fsdecode(inside + b"/run\xfc"), os.fsdecode(inside + b"/mine\xfd.npz")
    np.savez(source, x=data.train.inputs, y=data.train.targets)
    recipe = Path(os.fsdecode(b"t\xff y.toml"))
    recipe.write_text(Path("tiny.toml").read_text().replace('name = "tiny"', ""))
    done = gpunn("train", source, "--recipe", recipe, "--out", run)
    assert done.code == 0, done.err
    written = (Path(run) / "experiment.toml").read_text("utf-8")
    assert 'source = "file://' in written
    assert "mine%FD.npz" in written
    assert 'name = "t_y"' in written
    assert json.loads((Path(run) / "metrics.json").read_text("utf-8"))["data"] == "mine\\udcfd"
    without_pictures(monkeypatch)  # which the first training has drawn, under these names
    assert gpunn("train", "--resume", run, "--epochs", 3).code == 0
    assert "accuracy" in gpunn("evaluate", run).out
    again = gpunn("train", "--recipe", f"{run}/experiment.toml", "--out", "again")
    assert again.code == 0, again.err
    assert (folder / "again" / "model.safetensors").is_file()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_files_whose_names_cannot_be_shown_are_answered(
    folder: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pictures(monkeypatch)
    assert gpunn("train", "--recipe", "tiny.toml", "--out", "run").code == 0
    names = [os.fsdecode(b"a\xff.npy"), "\u4e03\u00d7.npy", "two\nlines.npy"]
    for name in names:
        np.save(name, np.zeros((1, 64)))

    def said(form: str) -> str:
        done = program("predict", "run", *names, "--format", form, cwd=folder, PYTHONIOENCODING=encoding)
        assert (done.code, done.err) == (0, ""), done
        return done.out

    assert [answer["file"] for answer in json.loads(said("json"))] == names
    assert len(said("text").splitlines()) == 3
    assert "a\\udcff.npy,0," in said("csv")


# Signals


def test_a_terminal_that_is_closed_ends_a_training_in_order(folder: Path) -> None:
    options = ("--epochs", 100000, "--device", "cpu", "--out", "run")
    process = start("train", *options, cwd=folder, program=WITHOUT_PICTURES)
    with process:
        process.stderr.readline()  # type: ignore[union-attr]
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 129
    assert "Traceback" not in err
    steps = json.loads((folder / "run" / "metrics.json").read_text())["steps"]
    assert steps > 0
    assert "gpunn train --resume run goes on from there" in out
    assert len(list((folder / "run" / "checkpoints").iterdir())) == 2


def test_nohup_keeps_a_training_from_being_hung_up(folder: Path) -> None:
    command = [
        "nohup",
        sys.executable,
        *WITHOUT_PICTURES,
        "train",
        "--recipe",
        "tiny.toml",
        "--epochs",
        "60",
        "--out",
        "run",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=-1, stderr=-1, text=True) as process:
        while "epoch 1/" not in (process.stderr.readline() or "epoch 1/"):  # type: ignore[union-attr]
            pass
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads((folder / "run" / "metrics.json").read_text())["finished"] is True


# Stops in the imports, where an exception would be a traceback; then says where it is.
_SLOW = """
import os, signal, builtins
real = builtins.__import__
def slow(name, *rest, **more):
    if name == {name!r}:
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest, **more)
builtins.__import__ = slow
"""


@pytest.mark.parametrize("name", ["numpy", "gpunn.nn.network", "click", "gpunn.saving.checkpointer"])
@pytest.mark.parametrize("program", ["module", "script"])
def test_ctrl_c_while_the_program_is_imported_is_no_traceback(folder: Path, program: str, name: str) -> None:
    (folder / "sitecustomize.py").write_text(_SLOW.format(name=name))
    (folder / "gpunn").write_text("import sys\nfrom gpunn.cli import main\nsys.exit(main())\n")
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}
    words = ["-m", "gpunn"] if program == "module" else [str(folder / "gpunn")]
    if program == "script":
        environment["PYTHONSAFEPATH"] = "1"
    done = subprocess.run(
        [sys.executable, *words, "train", "--out", folder / "run"],
        env=environment, cwd=ROOT, capture_output=True, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


def test_a_library_leaves_ctrl_c_as_it_was(folder: Path) -> None:
    code = "import signal, gpunn; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert done.stdout == "True\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", ["doctor", "evaluate run", "predict run gone", "bench --quick"])
def test_every_command_may_be_stopped(folder: Path, command: str, number: int) -> None:
    # Until Python itself has started, which a busy machine does late, it says what it was doing.
    (folder / "sitecustomize.py").write_text("import os\nos.write(1, b'!')\n")
    own = {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "CUDA_VISIBLE_DEVICES": "-1"}
    with start(*command.split(), cwd=folder, **own) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == "!"
        time.sleep(0.15)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    # A signal that came before or after the program's own work ends it all the same.
    assert "Traceback" not in err

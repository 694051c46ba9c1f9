"""The runtime of a page without a server: found, downloaded once, checked, and what is said where it is missing."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from support.data_helpers import fails, one_line, sends, server

from gpunn.errors import DataError, OptionError
from gpunn.serve import runtime as module
from gpunn.serve.runtime import ARCHIVE, FILES, File, runtime

CONTENT = {FILES[0].name: b"export const one = 1;\n", FILES[1].name: b"\0asm" + bytes(200)}


def packed(files: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for name, content in {"package.json": b"{}", **{f"dist/{name}": each for name, each in files.items()}}.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return held.getvalue()


PACKED = packed(CONTENT)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package of our own, small and with true hashes, an empty cache, and no npm."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "*")
    files = tuple(File(name, len(each), hashlib.sha256(each).hexdigest()) for name, each in CONTENT.items())
    monkeypatch.setattr(module, "FILES", files)
    monkeypatch.setattr(module, "ARCHIVE", File(ARCHIVE.name, len(PACKED), hashlib.sha256(PACKED).hexdigest()))
    monkeypatch.setattr(module, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    monkeypatch.delenv("npm_config_registry", raising=False)
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    return tmp_path / "cache"


def written(folder: Path, files: dict[str, bytes] = CONTENT) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def refused(given: Path | None) -> str:
    with pytest.raises(DataError) as caught:
        runtime(given)
    one_line(caught.value)
    assert "--runtime" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("inner", [".", "dist", "package/dist", "node_modules/onnxruntime-web/dist"])
def test_a_folder_gives_it(inner: str, tmp_path: Path, small: Path) -> None:
    written(tmp_path / "given" / inner)
    assert runtime(tmp_path / "given") == CONTENT
    assert not small.exists()


def test_an_archive_gives_it(tmp_path: Path) -> None:
    (tmp_path / "package.tgz").write_bytes(PACKED)
    assert runtime(str(tmp_path / "package.tgz")) == CONTENT


def test_another_file_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = written(tmp_path / "other", CONTENT | {FILES[1].name: b"\0asm" + bytes(199) + b"1"})
    assert f"{folder / FILES[1].name} is another file" in refused(folder)
    (tmp_path / "other.tgz").write_bytes(packed(CONTENT | {FILES[1].name: b"other"}))
    refused(tmp_path / "other.tgz")
    (folder / FILES[1].name).unlink()
    assert "No such file" in refused(folder)
    assert "No such file" in refused(tmp_path / "nowhere")
    (folder / FILES[1].name).write_bytes(bytes(10_000))
    assert "larger than" in refused(folder)
    with pytest.raises(OptionError):
        runtime("")


def test_it_is_downloaded_once(monkeypatch: pytest.MonkeyPatch, small: Path) -> None:
    said: list[str] = []
    with server(sends({ARCHIVE.name: PACKED})) as (address, asked):
        monkeypatch.setenv("npm_config_registry", address.replace("://", "://user:secret@"))
        assert runtime(None, said.append) == CONTENT
        assert runtime(None, said.append) == CONTENT
    assert asked == [ARCHIVE.name]
    assert len(said) == 1
    assert address in said[0]
    assert "secret" not in said[0]
    (folder,) = small.iterdir()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT


def test_a_damaged_cache_is_downloaded_again(monkeypatch: pytest.MonkeyPatch, small: Path) -> None:
    with server(sends({ARCHIVE.name: PACKED})) as (address, asked):
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
        runtime()
        (folder,) = small.iterdir()
        (folder / FILES[0].name).write_bytes(b"cut")
        assert runtime() == CONTENT
    assert len(asked) == 2


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch: pytest.MonkeyPatch, small: Path) -> None:
    small.write_text("a file")
    with server(sends({ARCHIVE.name: PACKED})) as (address, _):
        monkeypatch.setenv("npm_config_registry", address)
        assert runtime() == CONTENT


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (fails(404), "answered 404"),
        (sends({ARCHIVE.name: PACKED[:-1] + b"1"}), "sent another file"),
    ],
    ids=["404", "another"],
)
def test_what_is_sent_wrongly_is_told_and_not_kept(
    answer: object, reason: str, monkeypatch: pytest.MonkeyPatch, small: Path
) -> None:
    with server(answer) as (address, _):
        monkeypatch.setenv("npm_config_registry", address)
        told = refused(None)
    assert reason in told
    assert "npm_config_registry" in told
    assert not small.exists()


def test_npm_says_which_registry_it_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert module.registry() == module.REGISTRY
    npm = tmp_path / "npm"
    npm.write_text('#!/bin/sh\n[ "$*" = "config get registry" ] && echo https://packages.example/npm\n')
    npm.chmod(0o755)
    monkeypatch.setattr(module.shutil, "which", {"npm": str(npm)}.get)
    assert module.registry() == "https://packages.example/npm"
    npm.write_text("#!/bin/sh\nexit 1\n")
    assert module.registry() == module.REGISTRY
    monkeypatch.setenv("npm_config_registry", "undefined")
    assert module.registry() == module.REGISTRY

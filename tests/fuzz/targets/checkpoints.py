"""Checkpoints: their manifest, with its fingerprint mended or not, and the arrays that it lists."""

import hashlib
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from support.checkpoint_helpers import ORIGIN, momentum, stopped_after

from fuzz.harness import Target
from fuzz.targets.models import many_names
from gpunn.saving.checkpoint import BEST, MANIFEST, MODEL, STATE, _fingerprint, open_checkpoint, write_checkpoint
from gpunn.train.record import State

AS_IT_IS, MENDED, ARRAYS, NETWORK = b"0", b"1", b"2", b"3"
_FILES = (MODEL, BEST, STATE, MANIFEST)


@cache
def _like() -> State:
    return momentum().state()


@cache
def _whole() -> dict[str, bytes]:
    """The files of a good checkpoint."""
    training = momentum(validate_every=4, epochs=2)
    state = stopped_after(training, 7)
    with TemporaryDirectory() as folder:
        write_checkpoint(Path(folder) / "step-7", state, ORIGIN, training.model)
        return {name: (Path(folder) / "step-7" / name).read_bytes() for name in _FILES}


def _mended(manifest: bytes) -> bytes:
    """A manifest with the fingerprint that belongs to it, where it is JSON."""
    try:
        table = json.loads(manifest)
        del table["sha256"]
        return json.dumps({**table, "sha256": _fingerprint(table)}).encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        return manifest


def _files(content: bytes) -> dict[str, bytes]:
    """The files of a checkpoint of which one is replaced: the first byte says which, and how."""
    how, rest = content[:1], content[1:]
    if how == AS_IT_IS:
        return _whole() | {MANIFEST: rest}
    if how == MENDED:
        return _whole() | {MANIFEST: _mended(rest)}
    name = STATE if how == ARRAYS else MODEL
    manifest = json.loads(_whole()[MANIFEST])
    manifest["files"][name] = {"bytes": len(rest), "sha256": hashlib.sha256(rest).hexdigest()}
    return _whole() | {name: rest, MANIFEST: _mended(json.dumps(manifest).encode())}


def _read(path: Path) -> None:
    folder = path.parent / "step-7"
    folder.mkdir(exist_ok=True)
    for name, content in _files(path.read_bytes()).items():
        (folder / name).write_bytes(content)
    open_checkpoint(folder).state(_like())


def _seeds() -> dict[str, bytes]:
    whole = _whole()
    return {
        "manifest": AS_IT_IS + whole[MANIFEST],
        "manifest, mended": MENDED + whole[MANIFEST],
        "arrays": ARRAYS + whole[STATE],
        "network": NETWORK + whole[MODEL],
    }


def _with(*path: str, value: object) -> bytes:
    """A manifest with another value at a place."""
    manifest = json.loads(_whole()[MANIFEST])
    table = manifest
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = value
    return MENDED + json.dumps(manifest).encode()


TARGET = Target(
    name="checkpoints",
    read=_read,
    seeds=_seeds,
    hostile={
        "a manifest of brackets": lambda: AS_IT_IS + b"[" * 1_000_000,
        "a manifest of empty lists": lambda: AS_IT_IS + b"[" + b"[]," * 600_000 + b"[]]",
        "a manifest without end": lambda: AS_IT_IS + b"{" + b" " * (50 << 20),
        "another format": lambda: _with("format", value=2),
        "a long number": lambda: MENDED + b'{"format":' + b"9" * 5000 + b"}",
        "a file that leads out": lambda: _with("files", value={"../../x": {"bytes": 1, "sha256": ""}}),
        "a file of another size": lambda: _with("files", MODEL, "bytes", value=10**18),
        "a million records": lambda: _with("position", "records", value=7_000_000),
        "not a number": lambda: MENDED + _whole()[MANIFEST].replace(b'"seconds": ', b'"seconds": NaN, "s": '),
        "steps below 0": lambda: _with("position", "last", value=-1),
        "twenty thousand arrays": lambda: ARRAYS + many_names(20_000),
    },
    words=(b'"position": {', b'"best": null', b'"files": {', b'"sha256": "', b'"step": ', b"NaN", b"1e999", b'"F64"'),
)

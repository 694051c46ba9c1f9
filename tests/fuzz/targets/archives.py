"""Archives of CIFAR, gzipped or not."""

import gzip
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from fuzz import bombs
from fuzz.harness import Target, each
from gpunn.data import load_data
from gpunn.data.cifar import CIFAR_10

SMALL = replace(CIFAR_10, train_count=10, test_count=2)
_FILES = {name: np.arange(size).astype(np.uint8).tobytes() for name, size in SMALL.sizes.items()}


def _packed(*changed: tuple[str, bytes], form: int = tarfile.GNU_FORMAT, **fields: object) -> bytes:
    """An archive of the files, some of them changed, with fields of each of their headers changed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in [*changed, *_FILES.items()]:
            member = tarfile.TarInfo(f"{CIFAR_10.folder}/{name}")
            member.size = len(content)
            for key, value in fields.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _header(kind: bytes, size: int, name: str = "long") -> bytes:
    """Of a member of so many bytes."""
    header = tarfile.TarInfo(name)
    header.type, header.size = kind, size
    return header.tobuf(tarfile.GNU_FORMAT)


def _long(kind: bytes, size: int, content: bytes = b"") -> bytes:
    """A header whose text claims so many bytes, before the files."""
    return _header(kind, size) + content + _packed()


def _small(path: Path) -> object:
    parts = SMALL.parts(path)
    return parts.train, parts.test and parts.test()


TARGET = Target(
    name="archives",
    read=lambda path: each(path, load_data, _small),
    seeds=lambda: {"plain": b"\0" + _packed(), "packed": b"\1" + _packed(form=tarfile.PAX_FORMAT)},
    hostile={
        "a bomb": lambda: bombs.zeros(_header(tarfile.REGTYPE, 600 << 20, f"{CIFAR_10.folder}/other"), 600, _packed()),
        "a long name of a bomb": lambda: bombs.zeros(_header(tarfile.GNUTYPE_LONGNAME, 600 << 20), 600, _packed()),
        "a name that is longer than all": lambda: _long(tarfile.GNUTYPE_LONGNAME, 1 << 40),
        "fields that are longer than all": lambda: _long(tarfile.XHDTYPE, 1 << 40),
        "fields of another length": lambda: _long(tarfile.XHDTYPE, 512, b"99999999999 path=x\n".ljust(512, b"\0")),
        "ten thousand members": lambda: _packed(*((f"{number}", b"") for number in range(10_000))),
        "a size below none": lambda: _packed().replace(b"%011o\0" % len(_FILES[SMALL.test_file]), b"\xff" * 12),
        "links": lambda: _packed(type=tarfile.SYMTYPE, linkname="/dev/zero"),
        "devices": lambda: _packed(type=tarfile.CHRTYPE),
        "sparse files": lambda: _packed(type=tarfile.GNUTYPE_SPARSE),
        "names that lead out": lambda: _packed(("../../../etc/passwd", b"x")),
        "the same file twice": lambda: _packed(*_FILES.items()),
        "only its magic": lambda: bytes(257) + b"ustar",
    },
    wraps=(bytes, lambda data: gzip.compress(data, 1, mtime=0)),
    words=(b"ustar\x0000", b"ustar  \0", b"data_batch_1.bin", b"test_batch.bin", b"path=", b"GNU.sparse.size="),
)

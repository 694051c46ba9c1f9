"""Histories of trainings as CSV."""

from fuzz.harness import Target
from gpunn.train.history import COLUMNS, History

_HEAD = b"step,epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,learning_rate,seconds\n"
_SHORT = b"step,epoch,train_loss,learning_rate,seconds\n"
_ROW = b"1,0.25,2.3,0.1,nan,nan,0.1,0.5\n"

TARGET = Target(
    name="histories",
    read=History.read_csv,
    seeds=lambda: {
        "three": _HEAD + _ROW + b"2,0.5,1.3e-05,0.5,1.0,0.5,0.1,1.0\n3,0.75,inf,1.0,-inf,0.0,0.1,2.0\n",
        "every column": ",".join(COLUMNS).encode() + b"\n1" + b",0.5" * (len(COLUMNS) - 1) + b"\n",
        "none": _HEAD,
    },
    hostile={
        "lines without end": lambda: _HEAD + b"\n" * 5_000_000,
        "one line without end": lambda: _HEAD + b"1" * 5_000_000,
        "a head without end": lambda: b"step," * 1_000_000,
        "twenty thousand records": lambda: (
            _HEAD + b"".join(b"%d,0,0,0,0,0,0,0\n" % number for number in range(1, 20_001))
        ),
        "as many of the fewest columns": lambda: (
            _SHORT + b"".join(b"%d,0,0,0,0\n" % number for number in range(1, 20_001))
        ),
        "a long number": lambda: _HEAD + b"9" * 900 + b"," * 7 + b"\n",
        "digits of another script": lambda: _HEAD + "٣,0,0,0,0,0,0,0\n".encode(),
        "steps that go back": lambda: _HEAD + _ROW + _ROW,
    },
    words=(b"nan", b"inf", b"-", b"e308", b",", b"\n", _ROW),
)

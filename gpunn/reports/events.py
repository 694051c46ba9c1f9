"""Write and read TensorBoard's event files, by the protocol buffers of the extra `tensorboard`.

A file is a sequence of records: length (8 bytes), its checksum (4), an event as a protocol buffer, its checksum (4).
Source: https://github.com/tensorflow/tensorboard, tensorboard/summary/writer/record_writer.py.
"""

import contextlib
import math
import os
import re
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import OptionError, OutputError
from gpunn.files import open_regular
from gpunn.reports.checksum import masked_checksum

BINS = 30  # of a histogram
TOGETHER = 1.0  # seconds of events that are written at once
_NAME = re.compile(r"events\.out\.tfevents\.([0-9]{10,12})\.gpunn")
_HPARAMS = "_hparams_/"  # prefix of the tags of hyper-parameters

Value: TypeAlias = Any  # a `Summary.Value` of TensorBoard, whose types are those of protobuf's generator
Kept: TypeAlias = dict[tuple[int, str], tuple[float, Value]]  # time of writing and value, by step and tag


def require_tensorboard() -> None:
    """Raise OptionError if the package `tensorboard` is missing."""
    try:  # import everything now, not during a training
        import tensorboard.compat.proto.event_pb2
        import tensorboard.plugins.hparams.metadata  # noqa: F401
    except ImportError:
        mend = "pip install 'gpunn[tensorboard]'"
        raise OptionError(f"events for TensorBoard need its package, which is not installed: {mend}") from None


def scalar(tag: str, number: float) -> Value:
    """Return a point of a curve, in float32."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary.Value(tag=tag, simple_value=number)


def histogram(tag: str, values: NDArray[Any]) -> Value | None:
    """Return a histogram of the finite values in 30 bins of equal width; None if there are none."""
    from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary

    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    # Faster than NumPy's histogram, which is exact for values on an edge.
    width = (high - low) / BINS or 1.0
    counts = np.bincount(np.minimum((finite - low) / width, BINS - 1).astype(np.int64), minlength=BINS)
    edges = np.append(low + width * np.arange(1, BINS), max(high, low + width * BINS))
    numbers: dict[str, Any] = {"min": low, "max": high, "num": finite.size, "sum": finite.sum()}
    numbers |= {"sum_squares": np.square(finite).sum(), "bucket_limit": edges, "bucket": counts}
    return Summary.Value(tag=tag, histo=HistogramProto(**numbers))


def image(tag: str, png: bytes) -> Value:
    """Return an image value from the bytes of a PNG."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = struct.unpack(">II", png[16:24])
    of_colours = 4  # red, green, blue and alpha
    shown = Summary.Image(width=width, height=height, colorspace=of_colours, encoded_image_string=png)
    return Summary.Value(tag=tag, image=shown)


def text(tag: str, words: str) -> Value:
    """Return a text value in Markdown."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    of_texts = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    tensor = TensorProto(dtype=DT_STRING, string_val=[words.encode(errors="replace")])
    return Summary.Value(tag=tag, metadata=of_texts, tensor=tensor)


def parameters(chosen: Mapping[str, Any], figures: Iterable[str]) -> list[Value]:
    """Return the values of hyper-parameters, each a number, bool or string, and of the tags of their metrics."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    kinds = {bool: api_pb2.DATA_TYPE_BOOL, float: api_pb2.DATA_TYPE_FLOAT64, str: api_pb2.DATA_TYPE_STRING}
    session = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    known = []
    for name, value in chosen.items():
        plain = value if isinstance(value, bool | str) else float(value)
        known.append(api_pb2.HParamInfo(name=name, type=kinds[type(plain)]))
        field = {bool: "bool_value", float: "number_value", str: "string_value"}[type(plain)]
        setattr(session.hparams[name], field, plain)
    judging = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in figures]
    experiment = api_pb2.Experiment(hparam_infos=known, metric_infos=judging)
    data = plugin_data_pb2.HParamsPluginData
    return [
        _of_parameters(metadata.EXPERIMENT_TAG, data(experiment=experiment)),
        _of_parameters(metadata.SESSION_START_INFO_TAG, data(session_start_info=session)),
    ]


def end_of_session() -> Value:
    """Return the value for a training that ended successfully."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    ended = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    return _of_parameters(metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=ended))


def _of_parameters(tag: str, data: Any) -> Value:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    return Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR)


def own_files(folder: Path) -> list[Path]:
    """List gpunn's event files in a folder, in TensorBoard's reading order."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name) and not path.is_symlink())


def kept_until(paths: Iterable[Path], step: int) -> Kept:
    """Return the values of files up to a step, each tag once per step, without the hyper-parameters."""
    kept: Kept = {}
    for path in paths:
        for event in _read(path):
            if event.step <= step:
                values = (value for value in event.summary.value if not value.tag.startswith(_HPARAMS))
                kept |= {(event.step, value.tag): (event.wall_time, value) for value in values}
    return kept


def _read(path: Path) -> Iterator[Any]:
    """Yield the events of a file, up to the first that is truncated or damaged."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    with contextlib.suppress(OSError, DecodeError), open_regular(path, follow_links=False) as file:
        left = os.fstat(file.fileno()).st_size
        while len(head := file.read(12)) == 12:
            length, checksum = struct.unpack("<QI", head)
            left -= 12 + length + 4
            if left < 0 or checksum != masked_checksum(head[:8]):
                return
            body, checksum = file.read(length), file.read(4)
            if checksum != struct.pack("<I", masked_checksum(body)):
                return
            yield Event.FromString(body)


class EventFile:
    """Write the events of one training to a file in a folder.

    The file is opened for each write, so there is nothing to close. Events of one second are written together.
    """

    def __init__(self, folder: Path, before: Kept) -> None:
        """Begin a file with earlier values, and remove the earlier files."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._there = before.keys()
        old = own_files(folder)
        numbers = (int(match[1]) + 1 for path in old if (match := _NAME.fullmatch(path.name)))
        # A running TensorBoard moves on to a file with a later name, and drops earlier values at a START.
        self.path = folder / f"events.out.tfevents.{max(int(time.time()), *numbers, 0):010d}.gpunn"
        begins = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        begins.append(Event(wall_time=time.time(), step=0, session_log=SessionLog(status=SessionLog.START)))
        groups: dict[tuple[int, float], list[Value]] = {}
        for (step, _), (when, value) in before.items():
            groups.setdefault((step, when), []).append(value)
        events = [*begins, *(_event(step, groups[step, when], when) for step, when in sorted(groups))]
        self._waiting, self._wrote = list[bytes](), time.perf_counter()
        # No fsync: after a crash of the machine the records are in the checkpoint.
        with _write_errors(self.path), self.path.open("xb") as file:
            file.write(b"".join(map(_record, events)))
        for path in old:
            path.unlink(missing_ok=True)

    def add(self, step: int, values: Iterable[Value | None]) -> None:
        """Add the values of a step that the file does not have yet."""
        there = [value for value in values if value is not None and (step, value.tag) not in self._there]
        if not there:
            return
        self._waiting.append(_record(_event(step, there, time.time())))
        if time.perf_counter() - self._wrote >= TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Write the pending events."""
        content, self._waiting, self._wrote = b"".join(self._waiting), [], time.perf_counter()
        if content:
            with _write_errors(self.path):
                descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
                with os.fdopen(descriptor, "ab") as file:
                    file.write(content)


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Raise OutputError instead of OSError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write events to {path}: {error.strerror or error}: give another folder") from None


def written_before(seconds: float) -> float:
    """Return the time `seconds` ago, in seconds since 1970."""
    return time.time() - max(0.0, seconds if math.isfinite(seconds) else 0.0)


def _event(step: int, values: Iterable[Value], when: float) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Event(wall_time=when, step=step, summary=Summary(value=values))


def _record(event: Any) -> bytes:
    body: bytes = event.SerializeToString()
    packed = struct.Struct("<I").pack
    length = struct.pack("<Q", len(body))
    return length + packed(masked_checksum(length)) + body + packed(masked_checksum(body))

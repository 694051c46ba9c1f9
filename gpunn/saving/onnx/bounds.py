"""Limit the contents of an ONNX file before the library parses it: two bytes can become an object of hundreds.

A file is a protobuf message: fields of a number, a type and a value, which may be a message itself.
Source: https://protobuf.dev/programming-guides/encoding, and the field numbers of onnx.proto3.
"""

from gpunn.errors import DataError

MOST_BYTES = 2**31  # of a file: the limit of protobuf
_MOST_FIELDS = 60_000  # without the values of weights: some hundred for each layer
_MOST_VARINTS = 1 << 20  # bytes of packed integers, each of which may become eight
_DEEPEST = 12
_LENGTH, _FIXED = 2, {1: 8, 5: 4}  # types of fields

# Fields of each message that are messages; {} for one whose fields do not matter.
_Fields = dict[int, "_Fields"]
_TENSOR: _Fields = {3: {}, 13: {}, 16: {}}
_SHAPED: _Fields = {2: {1: {2: {1: {}}}, 4: {}, 5: {}, 8: {}, 9: {}}, 4: {}}
_ATTRIBUTE: _Fields = {5: _TENSOR, 10: _TENSOR, 14: {}, 15: {}, 22: {}, 23: {}}
_NODE: _Fields = {5: _ATTRIBUTE, 9: {}, 10: {}}
_GRAPH: _Fields = {1: _NODE, 5: _TENSOR, 11: _SHAPED, 12: _SHAPED, 13: _SHAPED, 14: {1: {}}, 15: {}, 16: {}}
_ATTRIBUTE[6] = _ATTRIBUTE[11] = _GRAPH
_MODEL: _Fields = {7: _GRAPH, 8: {}, 14: {}, 20: {}, 25: {}, 26: {}}
_VARINTS = {id(_TENSOR): (1, 5, 7, 11), id(_ATTRIBUTE): (8,)}  # fields of packed integers


def check_size(content: bytes) -> None:
    """Raise DataError for a file that is no protobuf message, or has more fields than any network needs."""
    _Counter(content).count(0, len(content), _MODEL, 0)


class _Counter:
    def __init__(self, content: bytes) -> None:
        self._content, self._fields, self._varints = content, 0, 0

    def count(self, at: int, end: int, known: _Fields, depth: int) -> None:
        if depth > _DEEPEST:
            raise DataError(f"messages lie in it more than {_DEEPEST} deep")
        while at < end:
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise DataError(f"it has more than {_MOST_FIELDS:,} fields, which no network needs")
            key, at = self._varint(at, end)
            number, kind = key >> 3, key & 7
            if kind == _LENGTH:
                length, at = self._varint(at, end)
                if length > end - at:
                    raise DataError("it ends within a field")
                if number in known:
                    self.count(at, at + length, known[number], depth + 1)
                elif number in _VARINTS.get(id(known), ()):
                    self._varints += length
                    if self._varints > _MOST_VARINTS:
                        raise DataError(f"it has more than {_MOST_VARINTS:,} bytes of whole numbers")
                at += length
            elif kind == 0:
                _, at = self._varint(at, end)
            elif kind in _FIXED:
                at += _FIXED[kind]
            else:
                raise DataError("it is damaged, or no ONNX file")
        if at > end:
            raise DataError("it ends within a field")

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise DataError("it ends within a field")
            byte = self._content[at]
            value |= (byte & 127) << shift
            at += 1
            if byte < 128:
                return value, at
        raise DataError("it is damaged, or no ONNX file")

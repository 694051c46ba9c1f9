"""Read tables written as text (CSV): detect delimiter, header and decimal comma, and read the cells in pieces.

Source: Y. Shafranovich, "Common Format and MIME Type for Comma-Separated Values (CSV) Files", RFC 4180, 2005.

PyArrow guesses the type of a column from its first piece. Here all cells are read as texts, so that a column
holds numbers only if every cell is one, and an error can name the first that is none.
"""

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from gpunn.backend.limits import require
from gpunn.data.formats.arrow import Numbers, add_texts, arrow, arrow_errors, lending
from gpunn.data.formats.bounded import Readable, opened, read_up_to
from gpunn.data.formats.table import MISSING, Cells, Kinds, Table, as_number, checked_columns, wanted_columns
from gpunn.errors import DataError

_BLOCK, _LARGEST_BLOCK = 1 << 20, 16 << 20  # bytes that are parsed at once, and longest row
_COLUMNS = 64  # for which a block has that size; a block of more columns is larger
_LOOKED_AT = 40  # rows by which delimiter and header are detected
_DELIMITERS = "\t;|,"  # in this order if several fit: a comma may be a decimal comma
_WORDS = {"\t": "a tab", ";": "';'", "|": "'|'", ",": "','"}
_DECIMAL_COMMA, _DECIMAL_POINT = re.compile(r"[+-]?\d+,\d+"), re.compile(r"[+-]?\d+\.\d+")
_WIDE = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


class Form(NamedTuple):
    """Layout of a table written as text."""

    delimiter: str
    names: list[str]  # of all columns
    begin: int  # bytes before the first row
    decimal: str
    before: int  # lines that are not empty before the first row


class _Bytes(io.RawIOBase):
    """Give PyArrow the unpacked bytes of a file; count their quotes."""

    def __init__(self, path: Path, stream: Readable) -> None:
        self._path, self._stream, self.quotes = path, stream, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer."""
        data = self._stream.read(len(buffer))
        if b"\0" in data:
            raise DataError(f"{self._path}: holds bytes of 0, and a table is text: save it as CSV in UTF-8")
        self.quotes += data.count(b'"')
        buffer[: len(data)] = data
        return len(data)


def read_delimited(path: Path, kinds: Kinds | None = None, ignore: Collection[str] = ()) -> Table:
    """Read a table written as text, in UTF-8 and perhaps gzipped, all columns or those of `kinds`."""
    form = find_form(path)
    columns = wanted_columns(str(path), checked_columns(str(path), form.names), kinds, ignore)
    late: set[str] = set()
    while True:
        cells = {
            name: Cells(True if name in late else is_text, form.decimal, is_wanted=is_text is not None)
            for name, is_text in columns.items()
        }
        found = _read(path, form, cells, {name for name in cells if columns[name] is not None})
        bad = {name: partial(_bad, path, form, name) for name in cells}
        for name in found:
            cells[name].check(bad[name])
        if not found:
            break
        late |= found  # they began with numbers, and are read again as texts
    length = next(iter(cells.values())).count
    made = {name: cells.pop(name).column(bad[name]) for name in list(cells)}
    return Table(str(path), made, length, lambda row: _line(path, form, row))


def find_form(path: Path) -> Form:
    """Detect the layout of a table by its first rows."""
    with opened(path) as (stream, size):
        start = bytes(read_up_to(stream, _BLOCK))
        is_whole = len(start) < _BLOCK or len(start) == size
    if wide := next((name for mark, name in _WIDE.items() if start.startswith(mark)), None):
        raise DataError(f"{path}: is written in {wide}: save it as CSV in UTF-8")
    mark = len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start[mark:])
    except UnicodeDecodeError:
        raise _encoding(path) from None
    if not text.strip():
        raise DataError(f"{path}: is empty: give a table with a header and rows")
    if "\0" in text:
        raise DataError(f"{path}: holds bytes of 0, and a table is text: save it as CSV in UTF-8")
    with _parsing(path):
        text, comments, given = _without_comments(text)
        skipped = mark + sum(len(line.encode()) for line in comments)
        commented = sum(not line.isspace() for line in comments)
        delimiter = given or _delimiter(text, is_whole)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        first = next(row for row in reader if row)
        lines = reader.line_num
        rows = [row for row in islice(reader, _LOOKED_AT) if row]
        if not is_whole and not rows:
            raise DataError(f"{path}: its first rows are longer than {_BLOCK:,} bytes: is a quote not closed?")
    head = "".join(islice(io.StringIO(text, newline=""), lines))
    cells = [cell.strip() for row in rows for cell in row]
    has_comma = any(_DECIMAL_COMMA.fullmatch(cell) for cell in cells)
    comma = has_comma and delimiter != "," and not any(_DECIMAL_POINT.fullmatch(cell) for cell in cells)
    decimal, names = "," if comma else ".", [name.strip() for name in first]
    if not _is_header(names, rows, decimal):
        names = [name.strip() for name in comments[-1].lstrip("# ").split(delimiter)] if comments else []
        if len(names) != len(first):  # NumPy writes the names into a comment
            names = [f"column {number}" for number in range(1, len(first) + 1)]
        return Form(delimiter, names, skipped, decimal, commented)
    if rows and all(len(row) == len(names) + 1 for row in rows):
        names = ["", *names]  # R leaves the column of row names without a name
    return Form(delimiter, names, skipped + len(head.encode()), decimal, commented + 1)


def _without_comments(text: str) -> tuple[str, list[str], str]:
    """Split leading comments off a text; return the rest, the comments, and the delimiter of Excel's line sep=."""
    comments, given = list[str](), ""
    if not text.lstrip().startswith(("#", "sep=")):
        return text, comments, given
    lines = io.StringIO(text, newline="")
    for line in lines:
        named = re.fullmatch(r"sep=(.)\s*", line)
        if named and not comments:
            given = named[1]
        elif line.strip() and not line.startswith("#"):
            break
        comments.append(line)
    at = sum(map(len, comments))
    return (text[at:], comments, given) if text[at:].strip() else (text, [], "")


def _delimiter(text: str, is_whole: bool) -> str:
    """Return the delimiter with which most of the first rows have as many fields as the first or the longest row."""
    best, delimiter = 0.0, ","
    for candidate in _DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=candidate)
        try:
            counts = [len(row) for row in islice((row for row in reader if row), _LOOKED_AT + 1)]
        except csv.Error:  # without it a row may be longer than a field may be
            continue
        counts = counts[:-1] if not is_whole and len(counts) > 1 else counts
        alike = round(sum(count in (counts[0], max(counts)) for count in counts) / len(counts), 1)
        if counts[0] > 1 and alike > best:
            best, delimiter = alike, candidate
    return delimiter


def _is_header(first: list[str], rows: list[list[str]], decimal: str) -> bool:
    """Return whether the first row names the columns: no numbers, texts above numbers, or a count from 0."""
    numbers = [as_number(cell, decimal) for cell in first]
    if all(number is None for number in numbers) or not rows:
        return True
    if [number for number in numbers if number is not None] == list(range(sum(n is not None for n in numbers))):
        return len(first) > 2
    for place, number in enumerate(numbers):
        below = [row[place].strip() for row in rows if len(row) > place and row[place].strip() not in MISSING]
        is_name = number is None and first[place] not in MISSING
        if is_name and below and all(as_number(cell, decimal) is not None for cell in below):
            return True
    return False


def _read(path: Path, form: Form, cells: dict[str, Cells], fixed: set[str]) -> set[str]:
    """Read the cells of some columns; return columns that turn out to hold texts after pieces of numbers."""
    pa, late, wrong = arrow(), set[str](), list[Any]()
    numbers, count = Numbers(form.decimal), 0
    block = min(_LARGEST_BLOCK, _BLOCK * (1 + len(cells) // _COLUMNS))

    def remember(row: Any) -> str:
        wrong.append(row)
        return "error"

    def explain(message: str) -> None:
        if wrong:
            number, got = wrong[0].number, wrong[0].actual_columns
            place = _line(path, form, number - 1) if number else "a line"
            expected = f"expected {len(form.names)} fields as in the first line, got {got}"
            mend = f"mend that line, or quote what holds {_WORDS[form.delimiter]}"
            raise DataError(f"{path}: {place}: {expected}: {mend}")
        if "UTF8" in message:
            raise _encoding(path)
        if "straddling" in message:
            raise DataError(
                f"{path}: after row {count:,} comes one that is longer than {block:,} bytes: is a quote not closed?"
            )
        if "Empty CSV" in message:
            raise DataError(f"{path}: has a header and no rows: give a table with rows")

    with (
        arrow_errors(path, "save it as CSV in UTF-8", explain),
        opened(path) as (stream, size),
        lending() as lend,
    ):
        reader = arrow("pyarrow.csv")
        read_up_to(stream, form.begin)  # of a gzip file one call of `read` may return less
        options = {
            "read_options": reader.ReadOptions(column_names=form.names, block_size=block, use_threads=False),
            "parse_options": reader.ParseOptions(
                delimiter=form.delimiter, newlines_in_values=True, invalid_row_handler=remember
            ),
            "convert_options": reader.ConvertOptions(
                column_types=dict.fromkeys(cells, pa.string()), include_columns=list(cells), strings_can_be_null=False
            ),
            "memory_pool": pa.system_memory_pool(),
        }
        source = _Bytes(path, stream)
        for batch in reader.open_csv(lend(source), **options):
            for name, array in zip(batch.schema.names, batch.columns, strict=True):
                if name not in late and _add(cells[name], array, numbers):
                    continue
                if name in fixed:
                    at = next(row for row in range(len(array)) if numbers(array.slice(row, 1)) is None)
                    raise _bad(path, form, name, count + at, f"{array[at].as_py()!r:.60}")
                late.add(name)
                add_texts(cells[name], array, is_kept=False)
            require(2 * batch.nbytes, str(path))
            if not count and size:
                kept = sum(each.nbytes for each in cells.values())
                require(kept * max(0, size - block) // block, f"{path}: a table of {size:,} bytes")
            count += batch.num_rows
    if not count:
        raise DataError(f"{path}: has a header and no rows: give a table with rows")
    if source.quotes % 2 and any("\n" in array[-1].as_py() for array in batch.columns):
        raise DataError(f"{path}: {_line(path, form, count - 1)}: a quote is not closed: close it, or leave it out")
    return late


def _add(cells: Cells, array: Any, numbers: Numbers) -> bool:
    """Add a piece to the cells of a column; return whether it fits the earlier pieces and the wanted kind."""
    if not cells.is_text:
        if (values := numbers(array)) is not None:
            cells.add_numbers(values)
            return True
        if cells.has_numbers or cells.is_text is False:
            return False
    add_texts(cells, array)
    return True


def _bad(path: Path, form: Form, name: str, row: int, got: str) -> DataError:
    mend = "mend it, empty the cell where a value is missing, or ignore the column"
    return DataError(f"{path}: {_line(path, form, row)}, column {name!r:.60}: expected a number, got {got}: {mend}")


def _line(path: Path, form: Form, row: int) -> str:
    """Return the line of a row: a row may span several lines, and lines may be empty."""
    with _parsing(path), opened(path) as (stream, _):
        text = io.TextIOWrapper(io.BufferedReader(_Bytes(path, stream)), "utf-8", "replace", newline="")
        reader = csv.reader(text, delimiter=form.delimiter)
        begin, left = 0, row + form.before
        for fields in reader:
            if fields:
                if not left:
                    return f"line {begin + 1}"
                left -= 1
            begin = reader.line_num
    return f"row {row + 1}"


@contextmanager
def _parsing(path: Path) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a table ({error}): is a quote not closed?") from None


def _encoding(path: Path) -> DataError:
    """Return the error of a file that is no UTF-8, with the line and its probable encoding."""
    with opened(path) as (stream, _):
        lines = io.BufferedReader(_Bytes(path, stream))
        for number, line in enumerate(iter(lambda: lines.readline(_BLOCK), b""), 1):
            try:
                line.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                where = f"line {number} holds the byte 0x{line[error.start]:02x}"
                mend = "save it as UTF-8 (iconv -f WINDOWS-1252 -t UTF-8 makes it of what Windows writes)"
                return DataError(f"{path}: is no UTF-8, {where}: {mend}")
    return DataError(f"{path}: is no UTF-8: save it as UTF-8")

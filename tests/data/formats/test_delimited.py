"""Tables written as text: their form is found out, and what is wrong is named with its line."""

import gzip
import random
from pathlib import Path

import numpy as np
import pytest

import gpunn as gn
from gpunn.backend.limits import resident_bytes
from gpunn.data.formats import delimited
from gpunn.data.formats.delimited import find_form, read_delimited
from gpunn.data.formats.table import Table
from gpunn.errors import DataError


def table(folder: Path, content: str | bytes, kinds: dict[str, bool] | None = None) -> Table:
    path = folder / "t.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_delimited(path, kinds)


def cells(read: Table, name: str) -> list[object]:
    column = read.columns[name]
    if column.texts is None:
        return [None if value != value else value for value in column.values.tolist()]
    return [None if place < 0 else column.texts[place] for place in column.values]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiter_header_and_byte_order_mark_are_found_out(
    tmp_path: Path, delimiter: str, end: str, mark: str
) -> None:
    rows = [["a", "b name", "c"], ["1", "2.5", "x"], ["-3", "", " y "], ["4", "1e3", '"a ""q"" x"']]
    read = table(tmp_path, mark + end.join(map(delimiter.join, rows)) + end)
    assert list(read.columns) == ["a", "b name", "c"]
    assert cells(read, "a") == [1, -3, 4]
    assert cells(read, "b name") == [2.5, None, 1000]
    assert cells(read, "c") == ["x", "y", 'a "q" x']


def test_a_decimal_comma_is_understood_where_it_is_no_delimiter(tmp_path: Path) -> None:
    read = table(tmp_path, "a;b;c\n1,5;x;-2\n2;y,z;3,25\n")
    assert (cells(read, "a"), cells(read, "b"), cells(read, "c")) == ([1.5, 2], ["x", "y,z"], [-2, 3.25])
    both = table(tmp_path, "a;b\n1,5;1.5\n2,5;2.5\n")
    assert cells(both, "a") == ["1,5", "2,5"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n", ["column 1", "column 2", "column 3"]),
        ("1,2,3\n4,5,6\n", ["column 1", "column 2", "column 3"]),
        ("0,1,2\n4,5,6\n", ["0", "1", "2"]),
        ("name,2019,2020\n7,5,6\n", ["name", "2019", "2020"]),
        ("a,b\nx,y\n", ["a", "b"]),
        ('"a","b"\n"r1",1,2\n"r2",3,4\n', ["", "a", "b"]),
        ("\n\na,b\n1,2\n", ["a", "b"]),
        ("# of 2024\n\n# more\na,b\n1,2\n", ["a", "b"]),
        ("# a, b\n1,2\n3,4\n", ["a", "b"]),
        ("# one\n1,2\n3,4\n", ["column 1", "column 2"]),
        ("sep=;\na;b\n1;2\n", ["a", "b"]),
    ],
)
def test_names_of_columns_are_told_from_rows(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert find_form(tmp_path / "t.csv").names == names


def test_missing_values_and_truth_are_understood_however_they_are_written(tmp_path: Path) -> None:
    read = table(tmp_path, "a,b,c\nNA,?,true\n1,x,FALSE\nnan,,True\nnull,None,\n")
    assert cells(read, "a") == [None, 1, None, None]
    assert cells(read, "b") == [None, "x", None, None]
    assert cells(read, "c") == ["True", "False", "True", None]


def test_comments_longer_than_one_read_of_a_gzip_file_are_skipped(tmp_path: Path) -> None:
    draw = random.Random(0)
    comments = "".join(f"# {draw.randbytes(60).hex()}\n" for _ in range(3000))
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(f"{comments}a,b\n1,2\n3,4\n".encode()))
    assert cells(read_delimited(path), "a") == [1, 3]


def test_a_gzipped_table_and_values_of_several_lines_are_read(tmp_path: Path) -> None:
    text = 'a,b\n1,"x\ny"\n2,z\n'
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert cells(read_delimited(path), "b") == ["x\ny", "z"]


ROWS = "".join(f"{i},{i / 2},k{i % 3}\n" for i in range(3000))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n3\n", "line 3: expected 2 fields as in the first line, got 1"),
        ("# x\n\n# y\na,b\n1,2\n3\n", "line 6: expected 2 fields"),
        ("sep=;\n1;2\n3\n", "line 3: expected 2 fields"),
        ("a,b\n1,2\n\n3,4,5\n", "line 4: expected 2 fields as in the first line, got 3"),
        ("a,b,c\n" + ROWS + "1,2\n", "line 3002: expected 3 fields"),
        ("a,b,c\n" + ROWS + "oops,2,x\n", "line 3002, column 'a': expected a number, got 'oops'"),
        ('a,b,c\n1,2,"x\ny"\n' + ROWS + "oops,2,x\n", "line 3004, column 'a': expected a number, got 'oops'"),
        ("a,b,c\n1,x,2\n" + ROWS, "line 2, column 'b': expected a number, got 'x'"),
        ("a,b\n1,2\ninf,4\n", "line 3, column 'a': expected a number, got an infinite number"),
        ("a,b\n1,2\n1e999,4\n", "line 3, column 'a': expected a number, got an infinite number"),
        ("a,a\n1,2\n", "columns 1 and 2 are both named 'a'"),
        ("a,b\n", "has a header and no rows"),
        ("", "is empty"),
        ("\n \n", "is empty"),
        (b"a,b\n1,\0\n", "holds bytes of 0"),
        (b"a,b\n1,2\n3,caf\xe9\n", "is no UTF-8, line 3 holds the byte 0xe9: save it as UTF-8"),
        (b"a,b,c\n" + ROWS.encode() * 30 + b"3,2,caf\xe9\n", "is no UTF-8, line 90002 holds the byte 0xe9"),
        ("a,b\n1,ü\n".encode("utf-16"), "is written in UTF-16"),
        ('a,b\n1,"x\n' + "2,y\n" * 700_000, "is a quote not closed"),
        ("a,b\n1," + "x" * 200_000 + "\n", "is a quote not closed"),
        (",".join(map(str, range(70_000))) + "\n" + ",".join("1" * 70_000), "70,000 columns, at most 65,536"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 and "\0" not in value else "",
)
def test_a_damaged_table_is_one_line_with_file_and_place(
    tmp_path: Path, content: str | bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "_BLOCK", 1 << 16 if len(content) < 100_000 else 1 << 20)
    with pytest.raises(DataError) as error:
        table(tmp_path, content)
    assert str(error.value).startswith(f"{tmp_path / 't.csv'}: ")
    assert said in str(error.value)
    assert str(error.value).isprintable()


def test_a_column_is_the_same_whatever_pieces_it_is_read_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers first and texts later, as in the codes of a catalogue."""
    text = "a,b\n" + "".join(f"{i},{i if i < 900 else f'k{i % 500}'}\n" for i in range(2000))
    whole = cells(table(tmp_path, text), "b")
    monkeypatch.setattr(delimited, "_BLOCK", 1 << 10)
    assert cells(table(tmp_path, text), "b") == whole == [str(i) if i < 900 else f"k{i % 500}" for i in range(2000)]


def test_only_the_columns_that_are_named_are_read_and_as_they_are_wanted(tmp_path: Path) -> None:
    read = table(tmp_path, "a,b,c\n1,2,x\n3,4.0,y\n", {"b": True, "a": False})
    assert (cells(read, "b"), cells(read, "a")) == (["2", "4.0"], [1, 3])
    with pytest.raises(DataError, match="has no column 'ab' and 1 more: it has 'a', 'b', did you mean '"):
        table(tmp_path, "a,b\n1,2\n", {"ab": True, "x": False})
    with pytest.raises(DataError, match="line 3, column 'a': expected a number, got 'x'"):
        table(tmp_path, "a,b\n1,2\nx,2\n", {"a": False})


def test_pixels_are_kept_as_bytes(tmp_path: Path) -> None:
    read = table(tmp_path, "a,b,c,d\n0,255,256,-1\n7,1,2,3\n")
    assert [column.values.dtype == np.uint8 for column in read.columns.values()] == [True, True, False, False]


def test_a_table_that_does_not_fit_is_refused_before_all_of_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1.5,2.5\n")
    read_delimited(path)  # imports what there is to import; of a large table freed memory would stay resident
    path.write_text("a,b\n" + "1.5,2.5\n" * 500_000)
    gn.set_memory_limit(resident_bytes() + (2 << 20))
    try:
        with pytest.raises(MemoryError, match=r"t\.csv"):
            read_delimited(path)
    finally:
        gn.set_memory_limit(None)


@pytest.mark.parametrize("other", "|;\t")
def test_another_delimiter_within_a_name_is_part_of_the_name(tmp_path: Path, other: str) -> None:
    read = table(tmp_path, f"weight{other}kg,height,kind\n" + "1.5,2,cat\n2.5,3,dog\n" * 3)
    assert list(read.columns) == [f"weight{other}kg", "height", "kind"]
    assert cells(read, "kind") == ["cat", "dog"] * 3

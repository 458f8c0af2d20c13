r"""Delimited files: stray quotes, escapes, delimiters, headers, and any table read back exactly."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idiolect.errors import InputError
from idiolect.text.records import read_records
from idiolect.text.skipped import Skipped, summary


def _read(path: Path, text: str | bytes, **options: float) -> tuple[list[dict[str, str]], str]:
    """Write a file; return its records and a summary of what was left out."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    skipped = Skipped()
    return list(read_records(path, skipped, **options)), summary(skipped)  # type: ignore[arg-type]


def _cells(path: Path, text: str) -> list[list[str]]:
    records, left_out = _read(path, text)
    assert not left_out
    return [list(record.values()) for record in records]


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ('i,t\n1,24" monitor\n2,b\n', [["1", '24" monitor'], ["2", "b"]]),
        ('i,t\n1,"24" monitor"\n2,b\n', [["1", '"24" monitor"'], ["2", "b"]]),
        ('i,t\n1,"24 inch\n2,b\n3,"19\n', [["1", '"24 inch'], ["2", "b"], ["3", '"19']]),
        ('i,t,u\n1,"Best" lamp,x\n2,a"b"c,y\n', [["1", '"Best" lamp', "x"], ["2", 'a"b"c', "y"]]),
        ('i,t\n1,"a ""q"", b"\n2,""\n3,""""\n', [["1", 'a "q", b'], ["2", ""], ["3", '"']]),
        ('i,t,u\n1,"two\n\nlines, x",y\n', [["1", "two\n\nlines, x", "y"]]),
        ('i,t\n1,"Dear Sir\nthank you, bye"\n', [["1", "Dear Sir\nthank you, bye"]]),
        ('i,"t\nu"\n1,a\n', [["1", "a"]]),
        # Quotes escaped by a backslash, at the end of a cell too.
        ('i,t,u\n1,"24\\" x, y",a\n2,"24\\"",b\n', [["1", '24" x, y', "a"], ["2", '24"', "b"]]),
        ('i,t\n1,"a\\\\b \\"c\\" d, e"\n', [["1", 'a\\b "c" d, e']]),
        ('i,t\n1,"C:\\dir\\"\n2,b\n', [["1", "C:\\dir\\"], ["2", "b"]]),
        # A backslash before a delimiter, without quoted cells.
        ("i,t,u\n1,a\\, b,\n2,c,d\n", [["1", "a, b", ""], ["2", "c", "d"]]),
        ("i\tt\n1\ta\\\tb\n2\tC:\\dir\\\n", [["1", "a\tb"], ["2", "C:\\dir\\"]]),
        # The numbers of rows in a first column without a name, as pandas and R write them.
        (";i;t\n0;1;a, b\n1;2;c\n", [["0", "1", "a, b"], ["1", "2", "c"]]),
        ('"";"i";"t"\n"1";1;"a"\n', [["1", "1", "a"]]),
        # Each cell for itself.
        ('i,t,u\n1,"a, b","24 inch\n2,c,d\n', [["1", "a, b", '"24 inch'], ["2", "c", "d"]]),
        ('i,t,u\n1,"5\\" pipe","open\n2,b,"z"\n', [["1", '5" pipe', '"open'], ["2", "b", "z"]]),
        # A stray quote before and one after: no row between them is swallowed if the file has
        # other quotes that do not follow the standard.
        (
            'i,t\n1,"Hi" she said\n2,"Hello there.\n3,b\n4,goodbye."\n',
            [["1", '"Hi" she said'], ["2", '"Hello there.'], ["3", "b"], ["4", 'goodbye."']],
        ),
        ("i,t\r\n1,a\r\n\r\n2,b", [["1", "a"], ["2", "b"]]),
        ("i,t\r1,a\r2,b\r", [["1", "a"], ["2", "b"]]),
        ("i,t\n1,a\r\n2,b\r3,c\n4,d\re\n", [["1", "a"], ["2", "b"], ["3", "c"], ["4", "d\re"]]),
        ("i,t\n1,a\x0cb\x1cc\u2028d\u0085e\n", [["1", "a\x0cb\x1cc\u2028d\u0085e"]]),
        ("i,t\n1,a\x00b\n", [["1", "a\x00b"]]),
        ("i,t\n1," + "x" * 200_000 + '\n2,"' + "y" * 200_000 + '"\n', None),
        ("i,t\n1,a,\n2,b,,\n3,c\n", [["1", "a"], ["2", "b"], ["3", "c"]]),
        ("i,t,\n1,a,\n2,b\n3,c,x\n", [["1", "a"], ["2", "b"], ["3", "c", "x"]]),
        ("\n\n  \ni,t\n1,a\n", [["1", "a"]]),
        ("sep=;\ni;t\n1;a,b\n", [["1", "a,b"]]),
        ('"sep=,"\r\ni,t\r\n1,a\r\n', [["1", "a"]]),
        ("i;t;p\n1;a, b;1,5\n2;c;2,5\n", [["1", "a, b", "1,5"], ["2", "c", "2,5"]]),
        ("i\tt\n1\ta, b\n", [["1", "a, b"]]),
        ("i|t\n1|a\n", [["1", "a"]]),
        ("i#t\n1#a\n", [["1", "a"]]),
        ("t\nHello, world; and all\n\"a\nb\"\nx\n", [["Hello, world; and all"], ["a\nb"], ["x"]]),
        ("\ufeff\ufeffi,t\n1,a\n\ufeffi,t\n2,b\n", [["1", "a"], ["2", "b"]]),
    ],
)  # fmt: skip
def test_no_cell_is_lost(tmp_path: Path, text: str, cells: list[list[str]] | None) -> None:
    found = _cells(tmp_path / "a.csv", text)
    if cells is None:
        assert [len(row[1]) for row in found] == [200_000, 200_000]
    else:
        assert found == cells


def test_tabs_and_quotes_that_are_text(tmp_path: Path) -> None:
    text = 'id\ttext\n1\t"quoted" word\n2\t5" pipe\n3\t"open\n4\tclosed"\n'
    assert [row[1] for row in _cells(tmp_path / "a.tsv", text)] == [
        '"quoted" word', '5" pipe', '"open', 'closed"',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "places"),
    [("1\n", "line 2"), ("1,a\n2,b,c\n", "line 3"), ('1,"a\nb"\n2\n', "line 4")],
)
def test_rows_of_another_width_are_named(tmp_path: Path, rows: str, places: str) -> None:
    path = tmp_path / "a.csv"
    with pytest.raises(InputError, match=rf"1 of \d lines .*1 malformed CSV \(a.csv {places}\)"):
        _read(path, f"i,t\n{rows}")
    _, left_out = _read(path, f"i,t\n{rows}", max_unreadable=1)
    assert left_out == f"1 malformed CSV (a.csv {places})"


def test_one_in_a_hundred_may_be_unreadable(tmp_path: Path) -> None:
    good = [f"{n},a\n" for n in range(99)]
    records, left_out = _read(tmp_path / "a.csv", f"i,t\n{''.join(good)}1,2,3\n")
    assert len(records) == 99
    assert left_out == "1 malformed CSV (a.csv line 101)"
    with pytest.raises(InputError, match="2 of 100 lines cannot be read"):
        _read(tmp_path / "b.csv", f"i,t\n{''.join(good[1:])}1,2,3\n4\n")
    with pytest.raises(InputError, match="allow a larger share: max_unreadable"):
        _read(tmp_path / "a.csv", f"i,t\n{''.join(good)}1,2,3\n", max_unreadable=0)


def test_names_of_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records, _ = _read(tmp_path / "a.csv", " id , name,,name\n1,a,,b\n2,c,x,d\n")
    assert records == [
        {"id": "1", "name": "a", "name_2": "b"},
        {"id": "2", "name": "c", "column_3": "x", "name_2": "d"},
    ]
    assert "columns of one name; they are read as id, name, column_3, name_2" in caplog.text
    with pytest.raises(InputError, match="line 1: no column has a name"):
        _read(tmp_path / "b.csv", ",,\n1,2,3\n")


def test_a_header_that_cannot_be_decoded_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 1: the names of the columns cannot be read: bad"):
        _read(tmp_path / "a.csv", b"id,n\x81me\n1,a\n")
    records, _ = _read(tmp_path / "b.csv", "id,größe\n1,a\n".encode("cp1252"))
    assert records == [{"id": "1", "größe": "a"}]


def test_what_is_detected_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _read(tmp_path / "plain.csv", "id,t\n1,a\n")
        assert not caplog.text
        for _ in range(2):
            _read(tmp_path / "a.csv", "id;t\n1;ä\n".encode("cp1252"))
            list(read_records(tmp_path / "a.csv", Skipped()))
    assert "a.csv: the cells are separated by ;" in caplog.text
    assert "a.csv is read as Windows-1252: 1 of its lines are not UTF-8" in caplog.text
    _read(tmp_path / "b.csv", 'id,t\n1,"a\n2,b"\n')
    assert "b.csv line 2: a quoted cell holds 2 lines that could be rows" in caplog.text


def test_stray_quotes_do_not_make_reading_slow(tmp_path: Path) -> None:
    rows = "".join(f'{n},"open {n}\n{n},b\n' for n in range(3000))
    records, left_out = _read(tmp_path / "a.csv", "i,t\n" + rows)
    assert len(records) == 6000
    assert not left_out


_SIGNS = st.sampled_from([*'ab1 "\\,;\t|#', "\n", "\r", "é", "日", "\u2028", "\x0c", "", "-"])
_CELL = st.lists(_SIGNS, max_size=8).map("".join)


@st.composite
def _tables(draw: st.DrawFn) -> list[list[str]]:
    width = draw(st.integers(1, 4))
    row = st.lists(_CELL, min_size=width, max_size=width)
    return draw(st.lists(row, min_size=1, max_size=6))


@given(
    _tables(),
    st.sampled_from([",", ";", "\t", "|", "#"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
@settings(deadline=None, max_examples=150)
def test_any_table_is_read_back_exactly_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    table: list[list[str]],
    delimiter: str,
    encoding: str,
    line_end: str,
    quoting: int,
) -> None:
    """Python's module writes a line break within a cell unquoted if it ends no lines."""
    if encoding == "cp1252":
        table = [[c.encode("cp1252", "ignore").decode("cp1252") for c in row] for row in table]
    table = [[cell.replace("\r", "") for cell in row] for row in table]
    if line_end == "\r":
        table = [[cell.replace("\n", " ") for cell in row] for row in table]
    names = [f"column {n}" for n in range(len(table[0]))]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerows([names, *table])
    path = tmp_path_factory.getbasetemp() / "table.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    try:
        found = [list(record.values()) for record in read_records(path, Skipped())]
    except InputError:
        assert encoding == "cp1252", "only some of Windows-1252 is not recognized"
        return
    assert found == table


@pytest.mark.parametrize("sign", [",", "\t", ";"])
def test_rows_named_by_r(tmp_path: Path, sign: str) -> None:
    """`write.table(frame, sep=sign)` names all columns but that of the rows' names."""
    rows = [["id", "t"], ["1", "p1", "a lamp"], ["2", "p2", "a chair"]]
    text = "\n".join(sign.join(f'"{cell}"' for cell in row) for row in rows)
    suffix = ".tsv" if sign == "\t" else ".csv"
    records, left_out = _read(tmp_path / f"r{suffix}", text)
    expected = [("1", "p1", "a lamp"), ("2", "p2", "a chair")]
    assert records == [dict(zip(("column_1", "id", "t"), row, strict=True)) for row in expected]
    assert not left_out


def test_a_delimiter_at_the_end_of_rows_is_no_row_name(tmp_path: Path) -> None:
    assert _read(tmp_path / "a.csv", "id,t\n1,a,\n2,b,\n", max_unreadable=1)[0] != [
        {"column_1": "1", "id": "a", "t": ""},
        {"column_1": "2", "id": "b", "t": ""},
    ]


@pytest.mark.parametrize(("first", "said"), [("text", False), ("a red lamp", True)])
def test_the_first_line_of_a_single_column_is_not_lost_silently(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, first: str, said: bool
) -> None:
    assert _cells(tmp_path / "a.csv", f"{first}\na chair\na table\n") == [["a chair"], ["a table"]]
    assert (f"{first!r}, is read as the name of the only column" in caplog.text) == said

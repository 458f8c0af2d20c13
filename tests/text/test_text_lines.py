"""Lines: encodings, line ends, compression, and files that are no text."""

from __future__ import annotations

import bz2
import gzip
import logging
import lzma
from pathlib import Path

import pyarrow as pa
import pytest

from idiolect.errors import InputError
from idiolect.text.corpus import Corpus
from idiolect.text.records import read_records
from idiolect.text.skipped import Skipped

WORDS = ["Größe", "café – 5 €", "naïve", "plain"]


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16-LE"),
        ("utf-16-be", "UTF-16-BE"),
        ("utf-32", "UTF-32"),
        ("cp1252", "Windows-1252"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings(
    tmp_path: Path, encoding: str, named: str, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(end.join(WORDS * 50).encode(encoding))
    with caplog.at_level(logging.WARNING):
        assert list(Corpus(path)) == WORDS * 50
        assert list(Corpus(path, per="file")) == [end.join(WORDS * 50)]
    assert (named in caplog.text) if named else not caplog.text


def test_the_last_row_may_tell_the_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = "".join(f"{n},plain\n" for n in range(5000))
    path.write_bytes(f"id,text\n{rows}x,Größe\n".encode("cp1252"))
    assert list(Corpus(path, "text"))[-1] == "Größe"
    path.write_bytes(f"id,text\n{rows}x,Größe\n".encode() + b"y,\xfc\n")
    corpus = Corpus(path, "text")
    assert list(corpus)[-1] == "Größe"
    assert corpus.skipped.places == {"bad UTF-8": ["a.csv line 5,003"]}


def test_other_alphabets_are_not_taken_for_western(tmp_path: Path) -> None:
    for name, text, encoding in (
        ("a", "Привет мир", "cp1251"), ("b", "γειά σου", "iso8859-7"), ("c", "日本語", "shift-jis"),
    ):  # fmt: skip
        path = tmp_path / f"{name}.txt"
        path.write_bytes(text.encode(encoding))
        with pytest.raises(InputError, match=r"1 bad UTF-8 .*convert the file to UTF-8"):
            list(Corpus(path))


def test_half_a_character_of_utf16(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("one\ntwo".encode("utf-16")[:-1])
    with pytest.raises(InputError, match=r"a\.txt cannot be read: .*truncated"):
        list(Corpus(path))
    path.write_bytes("good\n\ud83d half\n".encode("utf-16", "surrogatepass"))
    corpus = Corpus(path, max_unreadable=0.5)
    assert list(corpus) == ["good"]
    assert corpus.skipped == {"bad UTF-8": 1}


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": _zstd}


@pytest.mark.parametrize("ending", COMPRESS)
def test_compressed_files(tmp_path: Path, ending: str) -> None:
    data = b"id,text\n" + b"".join(b"%d,word %d\n" % (n, n) for n in range(20_000))
    path = tmp_path / f"a.CSV{ending.upper()}"
    packed = COMPRESS[ending](data)
    path.write_bytes(packed)
    assert sum(1 for _ in read_records(path, Skipped())) == 20_000
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        list(read_records(path, Skipped()))
    path.write_bytes(b"plain text")
    with pytest.raises(InputError, match="cannot be read"):
        list(read_records(path, Skipped()))


def test_joined_members_and_unnamed_compression(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(gzip.compress(b"id,text\n1,a\n") + gzip.compress(b"2,b\n"))
    assert list(Corpus(path, "text")) == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"PK\x03\x04rest", "a ZIP archive or an Excel workbook"),
        (b"%PDF-1.7", "a PDF file"),
        (b"\xd0\xcf\x11\xe0\xa1", "an Excel workbook"),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"is {what}, not text"):
        list(read_records(path, Skipped()))


def test_folders_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(InputError, match="it is a folder"):
        list(read_records(tmp_path / "a.csv", Skipped()))
    with pytest.raises(InputError, match=r"b\.csv cannot be read: No such file.*check the path"):
        list(read_records(tmp_path / "b.csv", Skipped()))

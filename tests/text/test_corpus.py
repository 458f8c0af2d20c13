"""`Corpus`: every type of file, what is skipped, splits, mixes, and memory."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idiolect.errors import InputError
from idiolect.text.corpus import Corpus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TEXTS = ["first document", "zweites, mit „Zeichen“", 'third "quoted", with\na break', "日本語 🦙"]
RECORDS = [{"id": i, "text": text, "title": f"title {i}"} for i, text in enumerate(TEXTS)]


def write(path: Path, records: Sequence[dict[str, Any]] = RECORDS) -> Path:
    """Write records in the type of the path's name; a text file takes one line each."""
    opener = gzip.open if path.suffix == ".gz" else open
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[1]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(list(records)), path.with_suffix(".tmp"))
        with opener(path, "wb") as binary:
            binary.write(path.with_suffix(".tmp").read_bytes())
        path.with_suffix(".tmp").unlink()
        return path
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        if kind == "txt":
            file.write("".join(record["text"].replace("\n", " ") + "\n" for record in records))
        elif kind == "jsonl":
            file.write("".join(json.dumps(record) + "\n" for record in records))
        else:
            table = csv.DictWriter(file, list(records[0]), delimiter="\t" if kind == "tsv" else ",")
            table.writeheader()
            table.writerows(records)
    return path


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "tsv", "parquet"])
def test_each_type_of_file(kind: str, ending: str, tmp_path: Path) -> None:
    corpus = Corpus(write(tmp_path / f"a.{kind}{ending}"))
    expected = [text.replace("\n", " ") for text in TEXTS]
    if kind != "txt":
        expected = [f"{record['title']}\n{record['text']}" for record in RECORDS]
    assert list(corpus) == expected
    assert list(corpus) == expected, "a corpus can be read again"
    assert not corpus.skipped


def test_folder_glob_and_list(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "x.jsonl", [{"text": "x"}])
    write(tmp_path / "a.txt", [{"text": "a"}])
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    assert list(Corpus(tmp_path)) == ["a", "x"]
    assert list(Corpus(str(tmp_path / "**" / "*.jsonl"))) == ["x"]
    assert list(Corpus([tmp_path / "b", tmp_path / "a.txt"])) == ["x", "a"]


def test_a_file_as_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffone\ntwo\n")
    assert list(Corpus(tmp_path, per="file")) == ["one\ntwo\n"]
    assert list(Corpus(tmp_path, per="line")) == ["one", "two"]


class TestFields:
    @pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
    def test_several_are_joined(self, kind: str, tmp_path: Path) -> None:
        corpus = Corpus(write(tmp_path / f"a.{kind}"), ["title", "text"])
        assert next(iter(corpus)) == "title 0\nfirst document"

    @pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
    def test_an_ambiguous_field_is_an_error(self, kind: str, tmp_path: Path) -> None:
        path = write(tmp_path / f"a.{kind}", [{"title": "a", "note": "b"}])
        with pytest.raises(InputError, match=r"which field holds the text.*title, note"):
            list(Corpus(path))
        assert list(Corpus(path, "note")) == ["b"]

    def test_usual_fields_and_an_only_field(self, tmp_path: Path) -> None:
        usual = write(tmp_path / "a.jsonl", [{"id": "x", "abstract": "b"}])
        only = write(tmp_path / "b.jsonl", [{"n": 1, "words": "c"}])
        assert list(Corpus([usual, only])) == ["b", "c"]

    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_missing(self, kind: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"no field body.*there are id, text, title"):
            list(Corpus(write(tmp_path / f"a.{kind}"), "body"))

    def test_json_lines_of_bare_strings(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('"one"\n"two"\n')
        assert list(Corpus(tmp_path)) == ["one", "two"]


class TestSkipped:
    def test_lines(self, tmp_path: Path) -> None:
        text = "日本語".encode()  # so that the file is UTF-8
        lines = [b"good", b"", b"   ", text, b"bad \xff byte", b"x" * 2000, b"also good"]
        (tmp_path / "a.txt").write_bytes(b"\r\n".join(lines))
        corpus = Corpus(tmp_path, limit=1000, max_unreadable=1)
        assert list(corpus) == ["good", "日本語", "also good"]
        assert corpus.skipped == {"empty": 2, "bad UTF-8": 1, "oversized": 1}
        assert corpus.skipped.places["bad UTF-8"] == ["a.txt line 5"]
        list(corpus)
        assert corpus.skipped["empty"] == 2, "counted anew in each pass"

    def test_json(self, tmp_path: Path) -> None:
        lines = [
            '{"text": "good"}', "{", '{"text": 3}', '{"note": "x"}', "[1]", '{"text": ""}',
            r'{"text": "\ud83d"}', "[" * 100_000, '{"text": ' + "9" * 5000 + "}",
            '{"text": "' + "x" * 200_000 + '"}', '{"text": "also good"}',
        ]  # fmt: skip
        (tmp_path / "a.jsonl").write_text("\n".join(lines))
        with pytest.raises(InputError, match=r"6 of 11 lines cannot be read: 3 malformed JSON \(a"):
            list(Corpus(tmp_path, limit=150_000))
        corpus = Corpus(tmp_path, limit=150_000, max_unreadable=0.6)
        assert list(corpus) == ["good", "also good"]
        assert corpus.skipped == {
            "malformed JSON": 3, "not an object": 1, "no field": 2, "empty": 1, "bad UTF-8": 1,
            "oversized": 1,
        }  # fmt: skip

    def test_csv(self, tmp_path: Path) -> None:
        rows = (
            'id,text\n1,good\n2,"a, b"\n3\n4,x,y\n\n4,x\ry\n5,"two\nlines"\n6,' + "x" * 900 + "\n"
        )
        (tmp_path / "a.csv").write_bytes((rows + '7,"never closed\n').encode())
        corpus = Corpus(tmp_path, "text", limit=500, max_unreadable=0.5)
        assert list(corpus) == ["good", "a, b", "x\ry", "two\nlines", '"never closed']
        assert corpus.skipped == {"malformed CSV": 2, "oversized": 1}
        assert corpus.skipped.places["malformed CSV"] == ["a.csv line 4", "a.csv line 5"]

    def test_an_unclosed_quote_loses_no_record(self, tmp_path: Path) -> None:
        lines = ["id,text", '1,"open', *[f"{i},row number {i}" for i in range(2, 500)]]
        (tmp_path / "a.csv").write_text("\n".join(lines))
        corpus = Corpus(tmp_path, "text", limit=1000)
        assert list(corpus) == ['"open', *(f"row number {i}" for i in range(2, 500))]
        assert not corpus.skipped

    def test_whole_files(self, tmp_path: Path) -> None:
        for name, content in (("a", b"fine"), ("b", b"\x81"), ("c", b"x" * 99), ("d", b"")):
            (tmp_path / f"{name}.txt").write_bytes(content)
        corpus = Corpus(tmp_path, per="file", limit=50, max_unreadable=1)
        assert list(corpus) == ["fine"]
        assert corpus.skipped == {"bad UTF-8": 1, "oversized": 1, "empty": 1}

    def test_texts_in_memory(self) -> None:
        corpus = Corpus.from_texts(["a", " ", "\ud83d", "b"])
        assert list(corpus) == ["a", "b"]
        assert corpus.skipped == {"empty": 1, "bad UTF-8": 1}


class TestBadInput:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file or folder"):
            Corpus(tmp_path / "none.txt")
        with pytest.raises(InputError, match="no text files in"):
            Corpus(str(tmp_path / "*.txt"))
        with pytest.raises(InputError, match="no text files in"):
            Corpus(tmp_path)

    def test_unknown_type(self, tmp_path: Path) -> None:
        (tmp_path / "a.docx").write_bytes(b"PK")
        with pytest.raises(InputError, match=r"a\.docx is of a type that cannot be read.*\.jsonl"):
            list(Corpus(tmp_path / "a.docx"))

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("\n \n")
        with pytest.raises(InputError, match=r"no documents in .*a\.txt \(skipped: 2 empty"):
            list(Corpus(tmp_path / "a.txt"))
        with pytest.raises(InputError, match="no documents"):
            list(Corpus.from_texts([]))

    @pytest.mark.parametrize("kind", ["txt.gz", "parquet", "parquet.gz"])
    def test_damaged_files(self, kind: str, tmp_path: Path) -> None:
        path = write(tmp_path / f"a.{kind}")
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(InputError, match=r"cannot be read|not a readable Parquet"):
            list(Corpus(path))

    def test_not_gzip(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt.gz").write_bytes(b"plain text")
        with pytest.raises(InputError, match="cannot be read"):
            list(Corpus(tmp_path))

    def test_shares(self) -> None:
        corpus = Corpus.from_texts(["a"])
        for share in (0, 1, -0.5, 2):
            with pytest.raises(InputError, match="fraction"):
                corpus.split(share)
            with pytest.raises(InputError, match="share"):
                corpus.mix(corpus, share)


class TestSplit:
    def test_no_text_on_both_sides(self) -> None:
        corpus = Corpus.from_texts([f"document {i % 500}" for i in range(2000)])
        train, held_out = corpus.split(0.2)
        assert not set(train) & set(held_out)
        assert len(list(train)) + len(list(held_out)) == 2000
        assert 0.15 < len(set(held_out)) / 500 < 0.25

    def test_sides_do_not_depend_on_other_documents(self) -> None:
        few = Corpus.from_texts(["a", "b", "c", "d", "e"]).split(0.5)[1]
        many = Corpus.from_texts([*"zyxwvutsrqponmlkjihgfedcba"]).split(0.5)[1]
        assert set(few) == set(many) & set("abcde")

    def test_seeds_differ(self) -> None:
        corpus = Corpus.from_texts([str(i) for i in range(100)])
        assert set(corpus.split(0.5, seed=1)[0]) != set(corpus.split(0.5, seed=2)[0])

    def test_an_empty_side_is_an_error(self) -> None:
        with pytest.raises(InputError, match="no documents in the held-out 0% of 1 texts"):
            list(Corpus.from_texts(["a"]).split(1e-9)[1])


class TestMix:
    def test_share_order_and_repetition(self) -> None:
        own = [f"own {i:04}" for i in range(300)]
        mixed = list(
            Corpus.from_texts(own).mix(Corpus.from_texts(["general 1", "general 2"]), 0.25)
        )
        replayed = [text for text in mixed if text.startswith("general")]
        assert [text for text in mixed if text.startswith("own")] == own
        share = sum(map(len, replayed)) / sum(map(len, mixed))
        assert share == pytest.approx(0.25, abs=0.005)
        assert replayed[:4] == ["general 1", "general 2"] * 2
        # Spread evenly: no stretch of the mix without its share.
        assert all(any(t.startswith("general") for t in mixed[i : i + 8]) for i in range(300))

    def test_a_mix_is_reproducible(self) -> None:
        mixed = Corpus.from_texts([*"abcdef"]).mix(Corpus.from_texts([*"xyz"]), 0.4)
        assert list(mixed) == list(mixed)

    def test_an_empty_other_is_an_error(self) -> None:
        with pytest.raises(InputError, match="no documents in 0 texts"):
            list(Corpus.from_texts(["a"]).mix(Corpus.from_texts([]), 0.5))


@given(st.lists(st.binary(max_size=40)), st.sampled_from(["txt", "jsonl", "csv", "tsv"]))
@settings(deadline=None)
def test_any_bytes_in_any_file(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz.{kind}"
    path.write_bytes(b"\n".join(lines))
    try:
        documents = list(Corpus(path, None if kind == "txt" else "text"))
    except InputError:
        return
    assert all(text.strip() and text.encode() for text in documents)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
@settings(deadline=None)
def test_json_lines_preserve_any_text(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    expected = [text for text in texts if text.strip()]
    if expected:
        assert list(Corpus(path)) == expected


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "txt.gz"])
def test_a_giant_line_is_never_held(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    giant = 300 << 20
    opener = gzip.open if kind.endswith("gz") else open
    with opener(path, "wb", **({"compresslevel": 1} if kind.endswith("gz") else {})) as file:
        file.write(b"text\n" if kind == "csv" else b"")
        for _ in range(giant >> 20):
            file.write(b"x" * (1 << 20))
        file.write(b'\n"good"\n')
    program = (
        "import resource, sys\n"
        "from idiolect.text.corpus import Corpus\n"
        f"resource.setrlimit(resource.RLIMIT_DATA, ({200 << 20}, {200 << 20}))\n"
        f"corpus = Corpus({os.fspath(path)!r}, max_unreadable=0.5)\n"
        "print(len(list(corpus)), dict(corpus.skipped))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "1 {'oversized': 1}\n", done.stderr


def test_a_record_tells_corpora_of_equal_names_apart() -> None:
    """A run is resumed if its corpus is written as before."""

    def written(texts: list[str], seed: int = 0) -> set[str]:
        corpus = Corpus.from_texts(texts)
        mixed = corpus.mix(corpus, 0.1)
        return {repr(one) for one in (corpus, mixed, *corpus.split(0.5, seed=seed))}

    texts = ["a b", "c", "d", "e\ud800"]
    assert written(texts) == written(list(texts))
    assert not written(texts) & written(["a", " bc", "d", "e\ud800"])
    assert len(written(texts) & written(texts, seed=1)) == 2

"""The documents of all parts are those of the corpus, whatever the files and the size of a part."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idiolect.errors import CheckpointError, InputError
from idiolect.scale.corpus_parts import CorpusPart, ReadingOptions, divide_corpus
from idiolect.text.corpus import Corpus
from idiolect.text.skipped import Skipped

TEXTS = [f"text {i} of naïve words " + "x" * (i % 37) for i in range(300)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (tmp_path / "a.jsonl").write_text("\n\n" + lines.rstrip("\n"))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "c.txt").write_text("\r\n".join(TEXTS) + "\n\nend")
    (tmp_path / "d.csv").write_text('text\n"two\nlines"\n' + "\n".join(TEXTS))
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "e.parquet", row_group_size=41)
    (tmp_path / "f.jsonl").write_text(lines + '{"text": \n')
    (tmp_path / "g.jsonl").write_bytes(gzip.compress(lines.encode()))
    return tmp_path


@pytest.mark.parametrize("part_bytes", [700, 5000, 1 << 20])
def test_parts_have_the_documents_of_the_corpus(folder: Path, part_bytes: int) -> None:
    options = ReadingOptions(max_unreadable=0.5)
    parts = divide_corpus([folder], options, part_bytes)
    assert [part.number for part in parts] == list(range(len(parts)))
    assert len(parts) == 7 if part_bytes == 1 << 20 else len(parts) > 15
    skipped = Skipped()
    found = [text for part in parts for text in part.documents(options, skipped)]
    corpus = Corpus(folder, max_unreadable=0.5)
    assert found == list(corpus)
    assert skipped == corpus.skipped
    if part_bytes == 700:
        assert "f-from-byte-" in skipped.places["malformed JSON"][0]


def test_a_file_whose_lines_depend_on_others_stays_whole(tmp_path: Path) -> None:
    texts = [f"{text} 日本語" for text in TEXTS[:60]]
    records = [{"text": text} for text in texts]
    lines = ",\n".join(map(json.dumps, records))
    (tmp_path / "array.jsonl").write_text(f"[\n{lines}\n]\n")
    (tmp_path / "pretty.jsonl").write_text("\n".join(json.dumps(r, indent=1) for r in records))
    (tmp_path / "utf-16.txt").write_bytes("\n".join(texts).encode("utf-16"))
    (tmp_path / "utf-16.jsonl").write_bytes("\n".join(map(json.dumps, records)).encode("utf-16"))
    for path in sorted(tmp_path.iterdir()):
        parts = divide_corpus([path], ReadingOptions(), 300)
        found = [text for part in parts for text in part.documents(ReadingOptions(), Skipped())]
        assert found == texts, path.name


def test_the_first_record_of_a_file_decides_where_its_texts_are(tmp_path: Path) -> None:
    """Not the first record of a part, which may have no text, or another field."""
    records: list[dict[str, object]] = [{"id": i, "text": text} for i, text in enumerate(TEXTS)]
    for number in range(1, 300, 7):
        records[number] = {"id": number, "url": f"https://example.org/{number}"}
    for number in range(2, 300, 7):
        records[number] = {"id": number, "brand": "x", "url": f"https://example.org/{number}"}
    for name, one in (("text", records), ("own", [{"own": text} for text in TEXTS])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in one))
        parts, skipped = divide_corpus([path], ReadingOptions(), 100), Skipped()
        assert len(parts) > 50
        found = [text for part in parts for text in part.documents(ReadingOptions(), skipped)]
        corpus = Corpus(path)
        assert found == list(corpus)
        assert skipped == corpus.skipped
    path.write_text('{"one": "a", "two": "b"}\n' * 50)
    with pytest.raises(InputError, match="cannot tell which field"):
        divide_corpus([path], ReadingOptions(), 100)


def test_a_text_file_per_document_stays_whole(folder: Path) -> None:
    options = ReadingOptions(per="file")
    assert len(divide_corpus([folder / "c.txt"], options, 100)) == 1


def test_what_cannot_be_divided_or_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        divide_corpus([tmp_path / "none.jsonl"], ReadingOptions(), 100)
    with pytest.raises(InputError, match="part_bytes is 0"):
        divide_corpus([tmp_path], ReadingOptions(), 0)
    part = CorpusPart(0, str(tmp_path / "gone.jsonl"), 1, 0)
    with pytest.raises(CheckpointError, match="every node"):
        list(part.documents(ReadingOptions(), Skipped()))

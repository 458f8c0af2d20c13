"""JSON files: one value a line, pretty-printed, arrays; and everything read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idiolect.errors import InputError
from idiolect.text.corpus import Corpus
from idiolect.text.record_types import json_records
from idiolect.text.records import read_records
from idiolect.text.skipped import Skipped, summary

RECORDS: list[dict[str, Any]] = [{"id": "1", "text": "a"}, {"id": "2", "text": "b", "n": [1, {}]}]


def _read(path: Path, text: str | bytes, share: float = 0.01) -> tuple[list[Any], str]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    skipped = Skipped()
    return list(read_records(path, skipped, max_unreadable=share)), summary(skipped)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.JSON", "a.ndjson"])
@pytest.mark.parametrize(
    "text",
    [
        "\n".join(map(json.dumps, RECORDS)),
        "\r".join(map(json.dumps, RECORDS)) + "\r",
        ",\n".join(map(json.dumps, RECORDS)) + ",\r\n\r\n",
        "\n\ufeff".join(map(json.dumps, RECORDS)),
        "\n".join(json.dumps(record, indent=2) for record in RECORDS),
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2),
        "[\n" + ",\n".join(map(json.dumps, RECORDS)) + ",\n]\n",
        "[" + json.dumps(RECORDS[0]) + "]\n[" + json.dumps(RECORDS[1]) + "]\n",
        json.dumps(RECORDS).encode("utf-16"),
        "\n".join(map(json.dumps, RECORDS)).encode("utf-16-le"),
        "\ufeff" + json.dumps(RECORDS),
    ],
)
def test_layouts(tmp_path: Path, name: str, text: str | bytes) -> None:
    assert _read(tmp_path / name, text) == (RECORDS, "")


def test_a_large_array_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a part ends within a number or a character."""
    records = [{"id": n, "text": "日本語"} for n in range(50)]
    for block in (1, 2, 7, 100):
        monkeypatch.setattr(json_records, "_BLOCK", block)
        for indent in (None, 1):
            text = json.dumps(records, ensure_ascii=False, indent=indent)
            assert _read(tmp_path / "a.json", text) == (records, "")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "malformed JSON"),
        ("[" * 100_000, "malformed JSON"),
        ('{"a":' * 100_000, "malformed JSON"),
        ('{"id": 1} {"id": 2}', "malformed JSON"),
        ('{"id": 1, "id": 2}', "repeated JSON key"),
        ('{"id": 1, "a": {"b": 1, "b": 1}}', "repeated JSON key"),
        ("[1]", "not an object"),
        ('"text"', "not an object"),
        ("null", "not an object"),
        (r'{"id": "\ud83d"}', "bad UTF-8"),
        ('{"id": ' + "9" * 5000 + "}", "malformed JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    text = "\n".join([*map(json.dumps, RECORDS), line, *map(json.dumps, RECORDS)])
    path = tmp_path / "a.jsonl"
    with pytest.raises(InputError, match=rf"1 of 5 lines .*1 {reason} \(a.jsonl line 3\)"):
        _read(path, text)
    assert _read(path, text, 0.2) == (RECORDS * 2, f"1 {reason} (a.jsonl line 3)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(RECORDS, indent=1)[:-3], "line 6: malformed JSON"),
        (json.dumps(RECORDS[:1])[:-1], "the array has no end; the file may be truncated"),
        ('[\n{"a": 1},\n{"a": 1, "a": 2}]', "line 3: repeated JSON key"),
        ('[{"a": 1}, {"a" 2}]', "line 1: malformed JSON"),
        ("[" * 100_000, "line 1: malformed JSON"),
    ],
)
def test_a_damaged_array_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _read(tmp_path / "a.json", text)


def test_not_a_number_is_null(tmp_path: Path) -> None:
    records, _ = _read(tmp_path / "a.jsonl", '{"id": 1, "a": NaN, "b": Infinity}')
    assert records == [{"id": 1, "a": None, "b": float("inf")}]


def test_control_characters_in_a_text(tmp_path: Path) -> None:
    records, _ = _read(tmp_path / "a.jsonl", '{"id": "a\tb\x01"}\n{"id": "2"}')
    assert records == [{"id": "a\tb\x01"}, {"id": "2"}]


def test_long_integers_stay_exact(tmp_path: Path) -> None:
    records, _ = _read(tmp_path / "a.jsonl", '{"id": 1234567890123456789012}')
    assert records == [{"id": 1234567890123456789012}]


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(
    st.lists(st.dictionaries(st.text("abc\n\u2028é", max_size=3), _JSON), min_size=1, max_size=5),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_any_records_are_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[dict[str, Any]],
    indent: int | None,
    ascii_only: bool,
    array: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / "records.json"
    texts = [json.dumps(record, indent=indent, ensure_ascii=ascii_only) for record in records]
    text = f"[{','.join(texts)}]" if array else "\n".join(texts)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert list(read_records(path, Skipped())) == records


def test_bare_texts_are_documents_but_not_records(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('["one", "two"]')
    assert list(Corpus(path)) == ["one", "two"]
    with pytest.raises(InputError, match="2 not an object"):
        list(read_records(path, Skipped()))


@pytest.mark.parametrize(
    ("text", "records"),
    [
        ('{"status": "ok", "items": [{"id": 1, "title": "a"}, {"id": 2}]}',
         [{"id": 1, "title": "a"}, {"id": 2}]),
        ('{"version": "1",\n "data": [{"title": "a"}]}', [{"title": "a"}]),
        ('{"7": {"title": "a"}, "8": {"_id": "x", "text": "b"}}',
         [{"id": "7", "title": "a"}, {"_id": "x", "text": "b"}]),
        # Records themselves.
        ('{"id": 1, "variants": [{"id": 2}]}', [{"id": 1, "variants": [{"id": 2}]}]),
        ('{"text": "a", "tags": [{"x": 2}]}', [{"text": "a", "tags": [{"x": 2}]}]),
        ('{"x": [{"id": 2}]}\n{"x": [{"id": 3}]}', [{"x": [{"id": 2}]}, {"x": [{"id": 3}]}]),
        ('{"q1": {"d1": 1}}', [{"q1": {"d1": 1}}]),
        ("{}", [{}]),
    ],
)  # fmt: skip
def test_the_records_inside_of_one_object(
    text: str, records: list[dict[str, object]], tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    skipped = Skipped()
    assert list(read_records(path, skipped)) == records
    assert not skipped


def test_python_dicts_are_named(tmp_path: Path) -> None:
    text = "\n".join(map(str, RECORDS))
    with pytest.raises(
        InputError, match=r"2 Python dict instead of JSON .*json\.dumps writes JSON"
    ):
        _read(tmp_path / "a.jsonl", text)

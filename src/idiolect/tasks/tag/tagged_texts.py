r"""Texts with labelled spans, from CoNLL files and from files of records, and back.

    CoNLL      a word and its tags in columns on each line, an empty line after each text
    records    {"text": "Ada met Charles.", "spans": [{"start": 0, "end": 3, "label": "P"}]}

Spans are in characters. The words of a record are runs of letters and digits, and single other
characters. A text of a CoNLL file is its words with a space between them.
"""

from __future__ import annotations

import itertools
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from idiolect.errors import InputError
from idiolect.tasks.tag.tag_schemes import (
    TagScheme,
    WordSpan,
    invalid_transitions,
    is_tag,
    read_tags,
    write_tags,
)
from idiolect.text.files import write_atomic
from idiolect.text.record_types.compressed_file import COMPRESSIONS
from idiolect.text.record_types.text_lines import read_lines
from idiolect.text.records import has_fields, numbered_records, unusable
from idiolect.text.skipped import MAX_UNREADABLE, Fault, Skipped, skip, summary

__all__ = [
    "TaggedText",
    "TextSpan",
    "fingerprint_tagged",
    "read_tagged_texts",
    "span_labels",
    "split_words",
    "write_tagged_texts",
]

_LONGEST = 1 << 20
"""Maximum bytes of a line."""
_DOCUMENT = "-DOCSTART-"
_JSON_LINES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True, order=True, slots=True)
class TextSpan:
    """Characters `start` to `end` of a text, and their label."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class TaggedText:
    """A text, its words and its labelled spans."""

    text: str
    words: tuple[tuple[int, int], ...]
    """First character of each word, and the one after its last."""
    spans: tuple[TextSpan, ...] | None = None
    """In order, without overlaps; `None` if they are not known."""

    def word_spans(self) -> list[WordSpan]:
        """Return the spans in words. A span that begins or ends within a word takes all of it."""
        starts, ends = ([place[side] for place in self.words] for side in (0, 1))
        found = (
            (bisect_right(ends, span.start), bisect_left(starts, span.end), span.label)
            for span in self.spans or ()
        )
        return [(first, last, label) for first, last, label in found if first < last]

    def text_spans(self, spans: Iterable[WordSpan]) -> tuple[TextSpan, ...]:
        """Return spans of words in characters."""
        words = self.words
        return tuple(TextSpan(words[a][0], words[b - 1][1], label) for a, b, label in spans)


def split_words(text: str) -> tuple[tuple[int, int], ...]:
    """Return where the words of a text are: runs of letters and digits, and other characters."""
    return tuple(match.span() for match in re.finditer(r"\w+|[^\w\s]", text))


def read_tagged_texts(
    path: Path,
    *,
    tagged: bool = True,
    scheme: TagScheme | None = None,
    token_column: int = 0,
    tag_column: int = -1,
    skipped: Skipped | None = None,
    max_unreadable: float = MAX_UNREADABLE,
) -> list[TaggedText]:
    """Read a CoNLL file, or a file of records (JSON Lines, CSV, Parquet).

    Args:
        path: The file; a name that ends as a file of records does is read as one.
        tagged: Whether to read spans.
        scheme: The scheme of a CoNLL file. By default all are accepted; see `read_tags`.
        token_column: Column of the word, from 0; negative numbers count from the last.
        tag_column: Column of the tag.
        skipped: Counts the texts that are left out, by reason.
        max_unreadable: The share of the texts that may be left out.

    Raises:
        InputError: The file cannot be read, too many of its texts are unusable, tags are invalid
            in the scheme, or spans overlap.
    """
    left_out = Skipped() if skipped is None else skipped
    if has_fields(path):
        own = Skipped()
        found = list(_records(path, tagged, left_out, own, max_unreadable))
        _check_share(path, own, len(found), max_unreadable, "spans have start, end and label")
    else:
        own, columns = Skipped(), (token_column, tag_column if tagged else None)
        found = _sentences(path, columns, scheme, own)
        _check_share(path, own, len(found), max_unreadable, "check --token-column, --tag-column")
    left_out.update(own)
    if not found:
        raise InputError(
            f"{path} has no text{' with spans' if tagged else ''}",
            hint="give a CoNLL file, or records with the fields text and spans",
        )
    return found


def write_tagged_texts(path: Path, texts: Sequence[TaggedText], scheme: TagScheme) -> None:
    """Write JSON Lines if the name ends in .jsonl, otherwise a CoNLL file. The write is atomic.

    Raises:
        InputError: The name ends as another kind of file does, or the file cannot be written.
    """
    if path.suffix.lower() in COMPRESSIONS or (
        has_fields(path) and path.suffix.lower() not in _JSON_LINES
    ):
        raise InputError(
            f"tagged texts are not written as {path.suffix}: {path}",
            hint="name a .jsonl or .conll file",
        )
    if has_fields(path):
        lines = [json.dumps(_as_record(text), ensure_ascii=False) for text in texts]
    else:
        lines = []
        for text in texts:
            tags = write_tags(text.word_spans(), len(text.words), scheme)
            for (start, end), tag in zip(text.words, tags, strict=True):
                lines.append(f"{text.text[start:end]}\t{tag}")
            lines.append("")
    write_atomic(path, "".join(f"{line}\n" for line in lines).encode())


def span_labels(texts: Iterable[TaggedText]) -> tuple[str, ...]:
    """Return the labels in alphabetical order.

    Raises:
        InputError: No text has a span.
    """
    labels = sorted({span.label for text in texts for span in text.spans or ()})
    if not labels:
        raise InputError("the texts have no spans", hint="a tagger needs tagged texts")
    return tuple(labels)


def fingerprint_tagged(texts: Iterable[TaggedText]) -> str:
    """Return a hash of texts, words and spans in their order."""
    made = sha256()
    for text in texts:
        made.update(repr((text.text, text.words, text.word_spans())).encode())
    return made.hexdigest()


def _as_record(text: TaggedText) -> dict[str, Any]:
    spans = [
        {"start": s.start, "end": s.end, "label": s.label, "text": text.text[s.start : s.end]}
        for s in text.spans or ()
    ]
    return {"text": text.text, "spans": spans}


def _check_share(
    path: Path, left_out: Skipped, read: int, max_unreadable: float, advice: str
) -> None:
    """Raise an error if too many texts of a file are left out."""
    bad = left_out.total()
    if bad > max_unreadable * (read + bad):
        raise InputError(
            f"{path}: {bad:,} of {read + bad:,} texts cannot be read: {summary(left_out)}",
            hint=f"{advice}, or allow a larger share: --max-unreadable",
        )


def _records(
    path: Path, tagged: bool, unreadable: Skipped, skipped: Skipped, max_unreadable: float
) -> Iterator[TaggedText]:
    """Yield texts; count rows that are not records, and records that are not valid texts."""
    for place, record in numbered_records(path, unreadable, max_unreadable=max_unreadable):
        text, spans = record.get("text"), record.get("spans")
        if not isinstance(text, str) or unusable(text):
            skip(skipped, "no text", f"{path.name} {place}")
            continue
        words = split_words(text)
        if not tagged:
            yield TaggedText(text, words)
            continue
        if isinstance(spans, str):  # a cell of a table
            try:
                spans = json.loads(spans)
            except json.JSONDecodeError:
                spans = None
        read = [_span(one, text) for one in spans] if isinstance(spans, list) else [None]
        known = [span for span in read if span is not None]
        if len(known) < len(read):
            skip(skipped, "no spans, or spans outside the text", f"{path.name} {place}")
            continue
        yield _checked(TaggedText(text, words, tuple(sorted(known))), f"{path}, {place}")


def _span(value: Any, text: str) -> TextSpan | None:
    if not isinstance(value, dict):
        return None
    start, end, label = value.get("start"), value.get("end"), value.get("label")
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        return None
    if not isinstance(label, str) or not label.strip():
        return None
    return TextSpan(start, end, label.strip()) if text[start:end].strip() else None


def _checked(text: TaggedText, place: str) -> TaggedText:
    """Return a text after checking that its spans do not overlap, even as whole words."""
    words = text.word_spans()
    for number, (first, second) in enumerate(itertools.pairwise(words)):
        if second[0] < first[1]:
            one, two = (text.spans or ())[number : number + 2]
            raise InputError(
                f"{place}: the spans {one.start}-{one.end} ({one.label}) and "
                f"{two.start}-{two.end} ({two.label}) overlap",
                hint="a word can have one tag only: keep one of the spans",
            )
    return text


def _sentences(
    path: Path,
    columns: tuple[int, int | None],
    scheme: TagScheme | None,
    skipped: Skipped,
) -> list[TaggedText]:
    found: list[TaggedText] = []
    for first, lines in _blocks(path):
        words, tags = list[str](), list[str]()
        fault = None
        for line in lines:
            cells = line.split("\t") if "\t" in line else line.split()
            word = "" if isinstance(line, Fault) else _cell(cells, columns[0])
            tag = "O" if columns[1] is None else _cell(cells, columns[1])
            if not word or (columns[1] is not None and len(cells) < 2):
                fault = "too few columns"
            elif not is_tag(tag):
                fault = f"unknown tag {tag[:20]!r}"
            words.append(word)
            tags.append(tag)
        if fault is not None:
            skip(skipped, fault, f"{path.name} line {first:,}")
            continue
        if scheme is not None and invalid_transitions(tags, scheme):
            raise InputError(
                f"{path}, the text at line {first:,}: its tags are not {scheme.upper()}",
                hint="omit the scheme to read any, or name the one it is in",
            )
        found.append(_sentence(words, tags if columns[1] is not None else None))
    return found


def _sentence(words: Sequence[str], tags: Sequence[str] | None) -> TaggedText:
    places, start = list[tuple[int, int]](), 0
    for word in words:
        places.append((start, start + len(word)))
        start += len(word) + 1
    bare = TaggedText(" ".join(words), tuple(places))
    if tags is None:
        return bare
    return TaggedText(bare.text, bare.words, bare.text_spans(read_tags(tags)))


def _blocks(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """Yield the lines of each text, and the number of the first line."""
    first, lines = 1, list[Any]()
    for number, raw in read_lines(path, _LONGEST):
        line = raw if isinstance(raw, Fault) else raw.rstrip("\r\n")
        if not isinstance(line, Fault) and (not line.strip() or line.startswith(_DOCUMENT)):
            if lines:
                yield first, lines
            first, lines = number + 1, []
        else:
            lines.append(line)
    if lines:
        yield first, lines


def _cell(cells: Sequence[str], column: int) -> str:
    inside = -len(cells) <= column < len(cells)
    return cells[column].strip() if inside else ""

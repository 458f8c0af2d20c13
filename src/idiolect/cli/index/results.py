"""The results of a search, for a terminal or as JSON: an item in a few lines."""

from __future__ import annotations

import json
import re
import shutil
import sys
import unicodedata
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from idiolect.search.items import Hit, Hits

__all__ = ["MARKS", "print_hits"]

MARKS = ("\x02", "\x03")
"""Markers of matched words: control characters that ordinary text does not contain."""
_MAX_TITLE, _MAX_PASSAGE, _MAX_VALUE = 100, 200, 40  # characters
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")
_WORD = re.compile(r"\w+")
_PARTS = re.compile(r"[\u2e80-\uffef]|[^\s\u2e80-\uffef]+ ?| ")
"""Units between which a line may wrap: words, and characters of scripts without spaces."""
_CONTROLS = {code: " " for code in (*range(32), 127) if chr(code) not in MARKS}
"""Characters that would move the cursor or change the terminal."""
_MATCHED = tuple(typer.style("\0", fg="yellow", bold=True).split("\0"))


def print_hits(hits: Hits, query: str | int, *, as_json: bool, named: bool = False) -> None:
    """Print the results of one query.

    Args:
        hits: the results.
        query: the text of the query, or the number of its vector.
        as_json: one JSON object per line, for programs.
        named: whether to print the query, if there are several.
    """
    if as_json:
        for hit in hits:
            record = {"id": hit.id, "score": hit.score, "text": hit.text, "metadata": hit.metadata}
            record = {"query": query, **record} if named else record
            typer.echo(json.dumps(record, ensure_ascii=False))
        return
    if named:
        title = f"query {query}" if isinstance(query, int) else query
        typer.secho(title.translate(_CONTROLS), bold=True)
    if not hits:
        typer.echo("nothing found")
    indent = len(str(len(hits))) + 2
    for rank, hit in enumerate(hits, 1):
        number = typer.style(f"{rank:>{indent - 2}}. ", dim=True)
        name = typer.style(hit.id.translate(_CONTROLS), fg="cyan")
        typer.echo(f"{number}{name}  {hit.score:.3f}")
        for line in _lines(hit, str(query)):
            typer.echo(_indented(line, indent))


def _lines(hit: Hit, query: str) -> list[str]:
    """Return the title, the matching passage and the metadata of an item, without empty ones."""
    title, _, rest = hit.text.strip().partition("\n")
    if len(title) > _MAX_TITLE:
        title, rest = "", hit.text
    passage = hit.highlight or _passage(rest, query)
    first, _, others = passage.partition("\n")
    if title and _unmarked(first) == title:
        title, passage = first, others
    elif _unmarked(passage) in title:  # only the title matched
        title, passage = title if passage == "" else passage, ""
    lines = [part for part in (title, " ".join(passage.split())) if part]
    fields = "  ".join(
        f"{name}={_brief(value)}"
        for name, value in hit.metadata.items()
        if _is_informative(value, hit)
    )
    if fields:
        lines.append(_cut(fields, _MAX_PASSAGE))
    return lines


def _passage(text: str, query: str) -> str:
    """Return the sentences of a text with the most words of the query, or its beginning."""
    sentences = [sentence for sentence in _SENTENCE.split(text) if sentence.strip()]
    words = {word[: max(4, len(word) - 2)] for word in _WORD.findall(query.casefold())}
    shared = [sum(word in sentence.casefold() for word in words) for sentence in sentences]
    best = shared.index(max(shared)) if shared else 0
    chosen = " ".join(sentences[best:])
    return ("… " if best else "") + _cut(chosen, _MAX_PASSAGE)


def _unmarked(passage: str) -> str:
    return passage.replace(MARKS[0], "").replace(MARKS[1], "").strip()


def _indented(line: str, indent: int) -> str:
    """Return a line for the terminal: indented, wrapped at its width, with matched words bold."""
    width = shutil.get_terminal_size().columns - indent if sys.stdout.isatty() else sys.maxsize
    lines, cells = [""], 0
    for part in _PARTS.findall(line.translate(_CONTROLS)):
        size = sum(_cells(character) for character in part)
        if cells + size > width and cells:
            lines.append("")
            cells = 0
        lines[-1] += part
        cells += size
    text = f"\n{' ' * indent}".join(each.rstrip(" ") for each in lines)
    for mark, style in zip(MARKS, _MATCHED, strict=True):
        text = text.replace(mark, style)
    return " " * indent + text


def _cells(character: str) -> int:
    """Return the width of a character in terminal cells."""
    if character in MARKS or unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _is_informative(value: object, hit: Hit) -> bool:
    """Whether to show a metadata value: not if it is empty, or the text starts with it."""
    repeated = isinstance(value, str) and hit.text.startswith(value)
    return not repeated and value not in (None, [])


def _brief(value: object) -> str:
    return _cut(value if isinstance(value, str) else repr(value), _MAX_VALUE)


def _cut(text: str, length: int) -> str:
    """Shorten a text to some characters, at a space if there is one."""
    if len(text) <= length:
        return text
    return f"{text[:length].rsplit(None, 1)[0]}…"

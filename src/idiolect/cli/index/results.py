"""The results of a search, for a terminal or as JSON: an item in a few lines."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.text import Text

    from idiolect.search.items import Hit, Hits

__all__ = ["MARKS", "print_hits"]

MARKS = ("\x02", "\x03")
"""Written before and after matched words: control characters that ordinary text has not."""
_MAX_TITLE, _MAX_PASSAGE, _MAX_VALUE = 100, 200, 40  # characters
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")
_WORD = re.compile(r"\w+")


def print_hits(hits: Hits, query: str | int, *, as_json: bool, named: bool = False) -> None:
    """Print the results of one query.

    Args:
        hits: the results.
        query: the text of the query, or the number of its vector.
        as_json: one JSON object per line, for programs.
        named: whether to name the query, as one of several.
    """
    if as_json:
        for hit in hits:
            record = {"id": hit.id, "score": hit.score, "text": hit.text, "metadata": hit.metadata}
            record = {"query": query, **record} if named else record
            typer.echo(json.dumps(record, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    if named:
        console.print(Text(f"query {query}" if isinstance(query, int) else query, style="bold"))
    if not hits:
        typer.echo("nothing found")
    width = len(str(len(hits)))
    for rank, hit in enumerate(hits, 1):
        head = Text(f"{rank:>{width}}. ", style="dim").append(hit.id, style="cyan not dim")
        console.print(head.append(f"  {hit.score:.3f}", style="not dim"))
        for line in _lines(hit, str(query)):
            console.print(Padding(line, (0, 0, 0, width + 2), expand=False))


def _lines(hit: Hit, query: str) -> list[Text]:
    """Return the title, the matching passage and the metadata of an item, without empty ones."""
    from rich.text import Text

    title, _, rest = hit.text.strip().partition("\n")
    if len(title) > _MAX_TITLE:
        title, rest = "", hit.text
    passage = hit.highlight or _passage(rest, query)
    first, _, others = passage.partition("\n")
    if title and _unmarked(first) == title:
        title, passage = first, others
    elif _unmarked(passage) in title:  # the title alone matched
        title, passage = title if passage == "" else passage, ""
    lines = [_marked(part) for part in (title, " ".join(passage.split())) if part]
    fields = "  ".join(
        f"{name}={_brief(value)}"
        for name, value in hit.metadata.items()
        if _is_informative(value, hit)
    )
    if fields:
        lines.append(Text(_cut(fields, _MAX_PASSAGE), style="dim"))
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


def _marked(passage: str) -> Text:
    """Return a text with the marked words in bold."""
    from rich.text import Text

    line = Text()
    for position, part in enumerate(passage.split(MARKS[0])):
        matched, mark, rest = part.partition(MARKS[1])
        if position and mark:
            line.append(matched, style="bold yellow").append(rest)
        else:
            line.append(part)
    return line


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

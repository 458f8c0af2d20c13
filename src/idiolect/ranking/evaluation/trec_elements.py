"""Read the documents and topics of TREC files: `<doc>` and `<top>` elements, in any case.

    <doc><docno>d1</docno> <title>…</title> <text>…</text></doc>
    <top><num>Number: 1 <title>… <desc>Description: …</top>

The text of a document is that of its common elements, such as `title`, `headline`, `text` and
`body`. If there are none except a title, it is everything except id, date, author and source. The
text of a topic is its title or query, or else its description. An id may also be an attribute:
`<topic number="1">`.

Elements without an id or without an end tag are errors, which name their lines.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Literal

from idiolect.errors import InputError
from idiolect.text.fields import join_parts
from idiolect.text.record_types.text_lines import read_all_lines
from idiolect.text.records import DEFAULT_LIMIT
from idiolect.text.skipped import Skipped, skip, summary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["read_elements"]

_TAGS = {"doc": "doc|document", "top": "top|topic"}
_IDS = {"doc": "docno|docid|id", "top": "num|number|id"}
_TITLES = "title|head|headline|hl|ti|h3"
_TEXTS = (
    "text|body|abstract|ab|content|contents|description|summary|paragraph|lp|leadpara"
    "|lead_paragraph"
)
_DESCRIBED = "desc|description|question|text"
_ABOUT = "docno|docid|id|url|date|date_time|pubdate|author|au|byline|bib|source|doctype|dochdr"


def read_elements(path: Path, element: Literal["doc", "top"]) -> Iterator[tuple[str, str, str]]:
    """Read the elements of a file.

    Args:
        path: The file, which may be compressed.
        element: `doc` for documents, `top` for topics.

    Yields:
        File and line, for messages; id; text. The text of a topic may be empty.

    Raises:
        InputError: The file cannot be read, or elements have no id or no end tag; the message
            counts all and names the first ones.
    """
    faults = Skipped()
    text = "".join(read_all_lines(path, DEFAULT_LIMIT))
    line = position = 0
    tag = _TAGS[element]
    ends = re.compile(rf"</(?:{tag})\s*>|<(?:{tag})[\s>]", re.IGNORECASE)
    attribute = re.compile(rf"\s(?:{_IDS[element]})\s*=\s*[\"']?([^\s\"'>]+)", re.IGNORECASE)
    for opened in re.finditer(rf"<(?:{tag})(\s[^>]*)?>", text, re.IGNORECASE):
        line += text.count("\n", position, opened.start())
        position = opened.start()
        place = f"{path.name} line {line + 1:,}"
        closed = ends.search(text, opened.end())
        if closed is None or not closed[0].startswith("</"):
            skip(faults, f"without </{element}>", place)
            continue
        inside = text[opened.end() : closed.start()]
        name = _unlabelled("number", _first(inside, _IDS[element]))
        if not name and (found := attribute.search(opened[1] or "")):
            name = found[1]
        content = _document(inside) if element == "doc" else _topic(inside)
        if not name:
            skip(faults, f"without <{_IDS[element].partition('|')[0]}>", place)
        else:
            yield f"{path}, line {line + 1:,}", name.split()[0], content
    if faults:
        raise InputError(
            f"{path}: <{element}> elements that cannot be read: {summary(faults)}",
            hint="correct them, so that none is lost",
        )


def _element(names: str) -> re.Pattern[str]:
    """Match elements; one without an end tag ends at the next tag."""
    return re.compile(
        rf"<({names})(?:\s[^>]*)?>(?:(.*?)</\1\s*>|([^<]*))", re.IGNORECASE | re.DOTALL
    )


def _parts(inside: str, names: str) -> list[str]:
    return [_plain(match[2] or match[3] or "") for match in _element(names).finditer(inside)]


def _first(inside: str, names: str) -> str:
    return next(filter(None, _parts(inside, names)), "")


def _document(inside: str) -> str:
    """Return the text of a document: that of its common elements, in their order."""
    parts = _parts(inside, f"{_TITLES}|{_TEXTS}")
    if not any(_parts(inside, _TEXTS)):
        titles = _parts(inside, _TITLES)
        rest = _element(f"{_TITLES}|{_ABOUT}").sub(" ", inside)
        parts = [*titles, _plain(rest)]
    return join_parts(parts)


def _topic(inside: str) -> str:
    for names, label in (("title", "topic"), ("query", "query"), (_DESCRIBED, "description")):
        if text := _unlabelled(label, _first(inside, names)):
            return text
    return ""


def _unlabelled(label: str, text: str) -> str:
    """Return a text without its label, such as `Number:`."""
    return re.sub(rf"^{label}:\s*", "", text, flags=re.IGNORECASE)


def _plain(markup: str) -> str:
    """Return the text of a piece of markup, with single spaces."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())

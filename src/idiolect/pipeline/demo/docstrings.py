"""Parse docstrings in the numpydoc format.

>>> parsed = Docstring.parse('''sin(x, /)
...
... Sine of an angle.
...
... More of it.
...
... See Also
... --------
... cos, tan : the others
... ''')
>>> parsed.summary, parsed.signature, parsed.related
('Sine of an angle.', 'sin(x, /)', ('cos', 'tan'))
>>> parsed.text()
'More of it.'

The format is described at https://numpydoc.readthedocs.io/en/latest/format.html.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Docstring"]

_UNDERLINE = re.compile(r"[-=]{3,}")
_SIGNATURE = re.compile(r"[\w.]+\(.*\)( *-> *.+)?", re.DOTALL)
_DIRECTIVE = re.compile(r" *\.\. (versionadded|versionchanged|deprecated|index|currentmodule)::")
_NAME = re.compile(r"(?::\w+:)?`?~?([A-Za-z_][\w.]*)`?")
# SciPy's build appends this to the notes of every function.
_BOILERPLATE = re.compile(r"(^|\n)\*\*Array API Standard Support\*\*.*", re.DOTALL)


@dataclass(frozen=True)
class Docstring:
    """The parts of one docstring."""

    signature: str
    """The signature, if the docstring starts with one."""
    summary: str
    """The first sentence or paragraph, on one line."""
    related: tuple[str, ...]
    """The names under See Also, as written."""
    sections: tuple[tuple[str, str], ...]
    """Heading and body of all other sections in order; the extended summary has no heading."""

    @classmethod
    def parse(cls, text: str) -> Docstring:
        """Parse a docstring, indented as `inspect.getdoc` returns it.

        Other formats become a summary and one section without a heading.
        """
        (_, opening), *rest = _split(text)
        signature, summary, extended = _opening(opening)
        related: list[str] = []
        sections = [("", extended)]
        for heading, body in rest:
            if heading.rstrip(":").casefold() == "see also":
                related += _names(body)
            else:
                sections.append((heading, body))
        cleaned = ((heading, _clean(body)) for heading, body in sections)
        return cls(signature, summary, tuple(related), tuple(pair for pair in cleaned if pair[1]))

    def text(self, without: Collection[str] = ()) -> str:
        """Join the sections, each under its heading, without the summary and See Also.

        Args:
            without: Headings to leave out.
        """
        return "\n\n".join(
            f"{heading}\n{body}" if heading else body
            for heading, body in self.sections
            if heading not in without
        )


def _split(text: str) -> list[tuple[str, str]]:
    """Split a docstring at its underlined headings; the first part has none."""
    lines = text.splitlines()
    starts = [
        i
        for i in range(len(lines) - 1)
        if _UNDERLINE.fullmatch(lines[i + 1].strip())
        and lines[i].strip()
        and not lines[i].startswith((" ", "=", "-", ">", "."))
        and abs(len(lines[i].strip()) - len(lines[i + 1].strip())) <= 2
    ]
    parts = [("", "\n".join(lines[: starts[0] if starts else len(lines)]))]
    for start, end in pairwise([*starts, len(lines)]):
        parts.append((lines[start].strip(), "\n".join(lines[start + 2 : end])))
    return parts


def _opening(text: str) -> tuple[str, str, str]:
    """Split the text before the first heading into signature, summary and the rest."""
    paragraphs = [part for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]
    signature = ""
    while paragraphs and (match := _signature(paragraphs[0])):
        signature, rest = match
        paragraphs[:1] = [rest] if rest else []
    while paragraphs and _DIRECTIVE.match(paragraphs[0]):
        del paragraphs[0]
    if not paragraphs:
        return signature, "", ""
    summary = " ".join(paragraphs[0].split())
    return signature, summary, "\n\n".join(paragraphs[1:])


def _signature(paragraph: str) -> tuple[str, str] | None:
    """Return the signature at the start of a paragraph, on one line, and the rest."""
    lines = paragraph.splitlines()
    for count in range(1, len(lines) + 1):
        head = "\n".join(lines[:count]).strip()
        if head.count("(") == head.count(")") and _SIGNATURE.fullmatch(head):
            return " ".join(head.split()), "\n".join(lines[count:]).strip()
    return None


def _names(body: str) -> list[str]:
    """Return the names of a See Also section: `a, b : description`, one entry per line.

    Indented lines continue the description of the previous entry.
    """
    names = []
    for line in body.splitlines():
        if line.strip() and not line.startswith(" "):
            head = re.split(r"\s:(?:\s|$)|:\s|:$", line, maxsplit=1)[0]
            for part in head.split(","):
                match = _NAME.fullmatch(part.strip().rstrip("."))
                if match:
                    names.append(match[1])
    return names


def _clean(body: str) -> str:
    """Drop version notes and boilerplate, and trailing and repeated blank lines."""
    kept: list[str] = []
    inside: int | None = None  # the indentation of a directive whose body is being dropped
    for line in _BOILERPLATE.sub("", body).splitlines():
        indentation = len(line) - len(line.lstrip())
        if inside is not None and line.strip() and indentation <= inside:
            inside = None
        if inside is None and _DIRECTIVE.match(line):
            inside = indentation
        if inside is None:
            kept.append(line.rstrip())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n")
